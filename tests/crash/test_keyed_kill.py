"""A request with a key whose server is killed at its commit: asked again there is one run."""

import signal
from pathlib import Path

import keyed_program
import pytest
from tests.forked import run_forked

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.ids import LOCAL_TENANT
from tandem.ports.store import RunFilter


def ask(folder: Path, run_id: str, moment: str) -> tuple[int, str]:
    """Return how the process ended, and its answer."""
    done = run_forked(keyed_program.main, str(folder), run_id, moment)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout.strip()


def runs_in(folder: Path) -> list[str]:
    store = SqliteStore(folder / "tandem.db", synchronous="OFF")
    try:
        assert store.check() == []
        return [run.run_id for run in store.list_runs(RunFilter(tenant=LOCAL_TENANT))]
    finally:
        store.close()


@pytest.mark.parametrize(("moment", "left"), [("before", []), ("after", ["first"])])
def test_creation_that_was_cut_off_is_not_done_twice(
    tmp_path: Path, moment: str, left: list[str]
) -> None:
    code, _ = ask(tmp_path, "first", moment)
    assert code == -signal.SIGKILL
    assert runs_in(tmp_path) == left

    answers = [ask(tmp_path, name, "never") for name in ("second", "third")]

    expected = (left or ["second"])[0]
    assert answers == [(0, expected)] * 2
    assert runs_in(tmp_path) == [expected]
