"""An engine killed in the middle of recovering the run of another: at every commit of it.

The first engine is always killed in the middle of a body. The second one fails the run, or finds
it stale and lets it go on; it is killed before or after each of its commits, and a third one
finishes.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from story import KILLED, Look, Nursery, effects_of, outputs_of

COMMITS_MAX = 30
MOMENTS = ["before", "after"]
STALE = {
    "TANDEM_STALE_AFTER_MS": "1000",
    "TANDEM_AUTOMATION_RUN_CLAIM_LEASE_MS": "3000",
}
FAIL = {"TANDEM_RESTART_POLICY": "fail"}


def automation() -> dict[str, Any]:
    """Return two nodes, one after the other."""

    def node(name: str, *after: str) -> dict[str, Any]:
        action = {"kind": "python", "function": "host:work", "arguments": {"name": name}}
        return {"node_id": name, "depends_on": list(after), "action": action}

    return {"automation_id": "two", "nodes": [node("a"), node("b", "a")]}


def interrupted(nursery: Nursery, folder: Path) -> Path:
    """Kill an engine in the middle of node `b`; return its lock."""
    code = nursery.run(folder, automation(), {"body": "b"}, environment=STALE)
    assert code == KILLED, (folder / "stderr.txt").read_text()
    (lock,) = (folder / "engines").glob("*.lock")
    return lock


def recover(nursery: Nursery, folder: Path, kill: dict[str, Any] | None, **job: Any) -> int:
    """Let an engine recover the run; return its exit code."""
    code = nursery.run(folder, automation(), kill, **job)
    assert code in (0, KILLED), (folder / "stderr.txt").read_text()
    return code


def sweep(
    nursery: Nursery,
    tmp_path: Path,
    moment: str,
    check: Callable[[Path, Look], None],
    *,
    environment: dict[str, str],
    is_hung: bool = False,
) -> int:
    """Kill at one commit after the other; return how many kill points there were."""
    for number in range(1, COMMITS_MAX):
        folder = tmp_path / str(number)
        lock = interrupted(nursery, folder)
        job: dict[str, Any] = {"environment": environment}
        if is_hung:
            job["hung"] = str(lock)
        code = recover(nursery, folder, {"commit": number, "moment": moment}, **job)
        before = Look(folder)
        if code == KILLED:
            assert recover(nursery, folder, None, **job) == 0
        after = Look(folder)
        assert after.events[: len(before.events)] == before.events
        assert after.integrity == [("ok",)]
        assert after.seqs == list(range(1, len(after.events) + 1))
        check(folder, after)
        if code == 0:
            return number - 1
    return pytest.fail(f"it took more than {COMMITS_MAX} commits")


@pytest.mark.parametrize("moment", MOMENTS)
def test_failing_the_run_of_a_dead_engine(nursery: Nursery, tmp_path: Path, moment: str) -> None:
    def check(folder: Path, look: Look) -> None:
        kinds = Counter(str(event) for _, event, *_ in look.events)
        assert kinds["run_failed_server_restart"] == 1
        assert kinds["node_interrupted"] == 1
        assert look.runs == [("failed", len(look.events))]
        assert effects_of(folder) == {"a": 1, "b": 1}

    points = sweep(nursery, tmp_path, moment, check, environment={**STALE, **FAIL})
    # Its own row, the run, the row of the dead engine, its own row again.
    assert points >= 3


@pytest.mark.parametrize("moment", MOMENTS)
def test_stopping_a_stale_run_that_goes_on_by_itself(
    nursery: Nursery, tmp_path: Path, moment: str
) -> None:
    def check(folder: Path, look: Look) -> None:
        kinds = Counter(str(event) for _, event, *_ in look.events)
        assert kinds["run_paused_stale_no_provider_activity"] == 1
        assert kinds["run_auto_resumed"] == 1
        assert kinds["run_processes_ended"] == 1
        assert look.runs == [("completed", len(look.events))]
        ran = effects_of(folder)
        assert ran["a"] == 1
        assert 2 <= ran["b"] <= 3
        assert outputs_of(folder)["end"] == "completed"

    points = sweep(nursery, tmp_path, moment, check, environment=STALE, is_hung=True)
    # Its own row, the reap, the end of the processes, the resume, the claim, the node, the end.
    assert points >= 7
