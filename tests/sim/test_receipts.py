"""The receipts of every run prove it, whatever made its events."""

from collections.abc import Callable

import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain import forking
from tandem.domain.ids import LOCAL_TENANT, RunId
from tandem.domain.lifecycle import RunEvent
from tandem.domain.run import LifecycleEvent, Run
from tandem.engine.verification import Verification, verify
from tandem.testing.artifacts import NoFiles
from tandem.testing.simulation import World, simulate
from tests.sim.witnesses import Witnesses

E = RunEvent
SHOWING = (217, 5, 0, 3, 11, 19, 38, 40)
"""Worlds that show all of `PATHS`, and a run that is packed. Where they do not, others follow."""
SEEDS_MAX = 300
PACKED = "packed"
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


def check_receipts(world: World) -> None:
    """Check that every run of a world is proven by its receipts."""
    store = SqliteStore(world.path, synchronous="OFF")

    async def verify_all() -> list[Verification]:
        return [
            await verify(
                RunId(row["run_id"]),
                tenant=LOCAL_TENANT,
                store=store,
                artifacts=world.artifacts,
                files=NoFiles(),
            )
            for row in world.invariants.runs()
        ]

    try:
        found = world.loop.run_until_complete(verify_all())
    finally:
        store.close()
    for one in found:
        assert one.faults == (), f"run {one.run_id}"
        assert one.unsealed == 0


def test_every_run_of_many_worlds_is_proven_by_its_receipts(witnesses: Witnesses) -> None:
    """Here are all ways in which events are made; `test_schedules.py` checks a thousand worlds."""
    left: set[RunEvent | str] = {*PATHS, PACKED}
    showing = []

    def judge(world: World) -> None:
        check_receipts(world)
        happened = {seen.event for seen in world.invariants.events}
        packed = any(row["archived_at_ms"] is not None for row in world.invariants.runs())
        if left & {*happened, *([PACKED] if packed else [])}:
            showing.append(seed)
        left.difference_update(happened, [PACKED] if packed else [])

    for seed in (*SHOWING, *range(SEEDS_MAX)):
        simulate(seed, judge)
        if not left:
            break
    assert left == set(), "no world showed these"
    witnesses.note("SHOWING", SHOWING, tuple(showing))


def live_through_all() -> None:
    for seed in (*SHOWING, *range(SEEDS_MAX)):
        simulate(seed)


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


@pytest.mark.parametrize("mutant", [forgets_to_seal, fork_begins_a_chain_of_its_own])
def test_every_run_of_many_worlds_is_proven_by_its_receipts_is_caught(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        live_through_all()
