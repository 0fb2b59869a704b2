"""Killed at every commit around parking and waking: no wait loses its waker, no gate its decision.

T75, T94 and T95 of the original repair at restart what a crash left half done. Here a decision and
what it does, a wake and the run that goes on, a wait and the node that waits are one transaction
each, so there is nothing to repair: the same story ends the same way wherever it was cut off.
"""

import asyncio

import pytest

from tandem.domain.lifecycle import RunEvent
from tandem.testing.builders import (
    Story,
    automation,
    condition_node,
    gate_node,
    python_node,
    timer_node,
    webhook_node,
)
from tandem.testing.executor import Script
from tandem.testing.faults import Fault, Faults
from tandem.testing.invariants import Seen
from tandem.testing.simulation import World, open_world

E = RunEvent
ESCALATING = {"expires_after_ms": 60, "on_expiry": "escalate", "escalate_to": "lead"}
REMINDING = {"expires_after_ms": 90, "on_expiry": "remind", "remind_every_ms": 40}
RESUMING = {"expires_after_ms": 50, "on_expiry": "resume"}


def the_story() -> Story:
    """Return a run that parks for everything there is to park for."""
    return Story(
        automation=automation(
            timer_node("u", delay_ms=50),
            python_node("a", "u"),
            timer_node("t", "a", delay_ms=120),
            condition_node("c", "a", key="ready", expires_after_ms=70, on_timeout="escalate"),
            webhook_node("h", "t", event_id="e1", expires_after_ms=864_000_000),
            gate_node("g", "a", gate={"required": True, "expiry_policy": ESCALATING}),
            gate_node("r", "h", gate={"required": True, "expiry_policy": REMINDING}),
            gate_node("s", "h", gate={"required": True, "expiry_policy": RESUMING}),
            python_node("z", "c", "g", "r", "s"),
        ),
        scripts={"a": Script(duration_ms=5), "z": Script(duration_ms=5)},
    )


class Lived:
    """What came of the story."""

    def __init__(self, world: World) -> None:
        self.events: list[Seen] = world.invariants.events
        self.statuses = [row["status"] for row in world.invariants.runs()]
        self.commits = world.faults._count
        self.crashes = world.crashes

    def count(self, event: RunEvent, node_id: str) -> int:
        """Return how often this happened to a node."""
        return sum(seen.event is event and seen.node_id == node_id for seen in self.events)


def live(faults: dict[int, Fault]) -> Lived:
    """Let the story happen with these faults; the invariants follow every commit."""
    with open_world(7) as world:
        world.gentle = True
        world.faults = Faults(faults)
        world.loop.run_until_complete(_live(world))
        if world.violation is not None:
            raise world.violation
        return Lived(world)


async def _live(world: World) -> None:
    async with asyncio.TaskGroup() as group:
        keeper = group.create_task(world.keep("a"))
        await world.start_run(the_story())
        # Nobody helps before the run rests for gates and waits, so that all of them are parked for.
        await world.clock.sleep(400)
        world.faults.clear = lambda: None  # type: ignore[method-assign] # they go on to the end
        await world.calm_down()
        keeper.cancel()
    await world.stop_all()
    world.invariants.check_all()


UNDISTURBED = live({})


def test_undisturbed_story_parks_and_wakes_by_all_means() -> None:
    kinds = {seen.event for seen in UNDISTURBED.events}

    assert UNDISTURBED.statuses == ["completed"]
    assert kinds >= {
        E.RUN_PARKED_ON_WAIT,
        E.RUN_PARKED_AT_GATE,
        E.WAIT_WOKEN_REQUEUED,
        E.WAIT_TIMEOUT_NOTED,
        E.GATE_ESCALATED,
        E.GATE_TIMEOUT_RESUMED,
        E.GATE_DECIDED,
    }


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.FAIL_AFTER])
def test_story_ends_the_same_way_wherever_it_is_cut_off(fault: Fault) -> None:
    for number in range(2, UNDISTURBED.commits + 1):
        lived = live({number: fault})

        assert lived.statuses == ["completed"], number
        assert lived.crashes == (0 if fault is Fault.FAIL_AFTER else 1), number
        for name in "utch":
            assert lived.count(E.WAIT_REGISTERED, name) == 1, (number, name)
            assert lived.count(E.WAIT_WOKEN, name) == 1, (number, name)
        for name in "gr":
            assert lived.count(E.GATE_OPENED, name) == 1, (number, name)
            assert lived.count(E.GATE_DECIDED, name) == 1, (number, name)
        assert lived.count(E.GATE_ESCALATED, "g") <= 1, number


def test_decision_without_its_effect_cannot_be_on_disk() -> None:
    """T75: a settled gate whose node is not completed, or the other way round, does not exist."""
    changes: dict[str, set[tuple[RunEvent, str | None]]] = {}
    for seen in UNDISTURBED.events:
        changes.setdefault(seen.change_id, set()).add((seen.event, seen.node_id))

    for happened in changes.values():
        for event, node_id in happened:
            if event in (E.GATE_DECIDED, E.GATE_TIMEOUT_RESUMED, E.WAIT_WOKEN):
                assert (E.NODE_COMPLETED, node_id) in happened
            if event is E.WAIT_REGISTRATION_STARTED:
                assert (E.WAIT_REGISTERED, node_id) in happened
