"""The receipts of every run prove it, whatever made its events."""

import asyncio
from collections.abc import Callable

import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain import forking
from tandem.domain.ids import LOCAL_TENANT, RunId
from tandem.domain.lifecycle import RunEvent
from tandem.domain.run import LifecycleEvent, Run
from tandem.engine.verification import Verification, verify
from tandem.testing.artifacts import NoFiles
from tandem.testing.simulation import open_world, simulate

E = RunEvent
SEEDS = (*range(160), 217)
"""217 is a world in which a run is recovered."""
PATHS = {
    E.RUN_CREATED,
    E.RUN_FORKED,
    E.RUN_FORKED_FROM,
    E.RUN_CLAIMED,
    E.RUN_HANDED_BACK,
    E.RUN_REQUEUED_AFTER_RESTART,
    E.RUN_RECOVERED,
    E.NODE_REUSED,
    E.NODE_SKIPPED,
    E.NODE_OUTPUT_SET,
    E.NODE_RESET,
    E.GATE_DECIDED,
    E.WAIT_WOKEN,
}
"""One event of each way in which events come into the store."""


def verified(seed: int) -> tuple[list[Verification], set[RunEvent], int]:
    """Return what is found of each run of a world, what happened there, and how many are packed."""
    with open_world(seed) as world:
        world.loop.run_until_complete(world.run())
        store = SqliteStore(world.path, synchronous="OFF")
        try:
            rows = world.invariants.runs()
            found = [
                asyncio.run(
                    verify(
                        RunId(row["run_id"]),
                        tenant=LOCAL_TENANT,
                        store=store,
                        artifacts=world.artifacts,
                        files=NoFiles(),
                    )
                )
                for row in rows
            ]
        finally:
            store.close()
        happened = {seen.event for seen in world.invariants.events}
        return found, happened, sum(row["archived_at_ms"] is not None for row in rows)


def test_every_run_of_many_worlds_is_proven_by_its_receipts() -> None:
    happened: set[RunEvent] = set()
    packed = 0
    for seed in SEEDS:
        found, events, archived = verified(seed)
        for one in found:
            assert one.faults == (), f"seed {seed}, run {one.run_id}"
            assert one.unsealed == 0
        happened |= events
        packed += archived
    assert happened >= PATHS
    assert packed > 0, "no world packed a run"


def unsealed(run: Run, event: LifecycleEvent) -> LifecycleEvent:
    run.event_seq = event.seq
    return event


def forgets_to_seal(patch: pytest.MonkeyPatch) -> None:
    """Events get a number and no hash."""
    patch.setattr("tandem.domain.draft.record", unsealed)


def fork_begins_a_chain_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """The row of a fork does not name its first event."""
    made = forking.new_run

    def new_run(*of: object, **how: object) -> Run:
        run = made(*of, **how)  # type: ignore[arg-type] # handed on
        run.event_hash = ""
        return run

    patch.setattr(forking, "new_run", new_run)


def live_through_all() -> None:
    for seed in SEEDS:
        simulate(seed)


@pytest.mark.parametrize("mutant", [forgets_to_seal, fork_begins_a_chain_of_its_own])
def test_every_run_of_many_worlds_is_proven_by_its_receipts_is_caught(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        live_through_all()
