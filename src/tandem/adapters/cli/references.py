"""How a person names a run: its id, the beginning of it, or `latest`."""

from collections.abc import Sequence
from typing import Final

import click

from tandem.adapters.cli.tools import LocalStore
from tandem.domain.errors import NotFound
from tandem.domain.ids import LOCAL_TENANT, RunId
from tandem.ports.store import RunFilter

_PREFIX: Final = "automation-v2-run-"
_SHORT: Final = 8
_SHOWN_MAX: Final = 5


def short_id(run_id: RunId) -> str:
    """Return the beginning of the random part, which is enough to name the run by."""
    return run_id.removeprefix(_PREFIX)[:_SHORT]


def find_run_id(store: LocalStore, text: str) -> RunId:
    """Return the id of the run that `text` names.

    Raises:
        NotFound: no run is named so.
        click.UsageError: several runs are.
    """
    if text == "latest":
        newest = store.list_runs(RunFilter(tenant=LOCAL_TENANT, limit=1))
        if not newest:
            raise NotFound("there is no run yet; start one with `tandem run FILE`")
        return newest[0].run_id
    if store.find_run(RunId(text), tenant=LOCAL_TENANT) is not None:
        return RunId(text)
    return choose_run_id(text, [] if not text else _begins_with(store, text))


def choose_run_id(text: str, found: Sequence[RunId]) -> RunId:
    """Return the only run that was found under a name.

    Raises:
        NotFound: none was.
        click.UsageError: several were.
    """
    if not found:
        raise NotFound(f"there is no run {text!r}; `tandem runs list` shows the ones there are")
    if len(found) > 1:
        names = ", ".join(run_id.removeprefix(_PREFIX) for run_id in found[:_SHOWN_MAX])
        raise click.UsageError(f"{text!r} names several runs: {names}…; write more of the id")
    return found[0]


def names_of(text: str) -> tuple[str, str]:
    """Return how the id of a run begins that is named so."""
    return text, _PREFIX + text


def _begins_with(store: LocalStore, text: str) -> list[RunId]:
    limit = _SHOWN_MAX + 1
    found = [store.list_run_ids(name, tenant=LOCAL_TENANT, limit=limit) for name in names_of(text)]
    return list(dict.fromkeys(run_id for ids in found for run_id in ids))
