"""Which of the ready nodes start now (run-lifecycle 4.2): the rules that hold nodes back.

A node is held by a barrier phase before its own, and by a running node with claims that collide
with its own. Who is not held starts the moment it is ready and has a place (W-36): there is no
batch that has to end first.
"""

from collections.abc import Iterator, Sequence

from tandem.domain.draft import Draft
from tandem.domain.lanes import Lane
from tandem.domain.lifecycle import NodeState
from tandem.domain.phases import NO_PHASE, is_held

N = NodeState


def candidates(draft: Draft, fresh: Sequence[int]) -> Iterator[int]:
    """Yield the nodes that may start now, in the order in which they get free places.

    Due retries come first; a node that has begun is held by no barrier that opened since. Whoever
    takes a node from here must start it before asking for the next one: what it claims holds
    others back.
    """
    limit = open_limit(draft)
    for number in sorted(draft.in_state(N.BACKOFF)):
        is_due = (draft.node(number).due_at_ms or 0) <= draft.now_ms
        if is_due and _is_free(draft, draft.plan.lane(number)):
            yield number
    for lane, numbers in _ready_by_lane(draft, fresh):
        if is_held(lane.rank, limit):
            continue
        for number in numbers:
            if not is_ready(draft, number):
                continue
            if not _is_free(draft, lane):
                break
            yield number


def open_limit(draft: Draft) -> int:
    """Return the highest rank of a phase that may begin after this draft."""
    phases = draft.plan.phases
    return phases.limit(draft.phase_left()) if phases.has_barriers else NO_PHASE


def is_ready(draft: Draft, number: int) -> bool:
    """Say whether a node is pending and nothing before it is missing."""
    return draft.node(number).state is N.PENDING and draft.open_deps(number) == 0


def _ready_by_lane(draft: Draft, fresh: Sequence[int]) -> Iterator[tuple[Lane, Iterator[int]]]:
    plan, ready = draft.plan, draft.view.ready_lanes
    late: dict[int, dict[int, None]] = {}
    reset = [n for n, node in draft.nodes.items() if node.state is N.PENDING]
    for number in (*fresh, *reset) if reset else fresh:
        if not plan.nodes[number].is_parked:
            late.setdefault(plan.lane_no[number], {})[number] = None
    for lane_no in sorted(ready.keys() | late.keys()):
        yield plan.lanes[lane_no], _in_turn(ready.get(lane_no, {}), late.get(lane_no, {}))


def _in_turn(ready: dict[int, None], late: dict[int, None]) -> Iterator[int]:
    yield from ready
    yield from (number for number in late if number not in ready)


def _is_free(draft: Draft, lane: Lane) -> bool:
    """Say whether nothing runs whose claims collide with those of this lane."""
    if not (lane.claims.paths or lane.claims.tools):
        return True
    return not any(
        lane.claims.collide(draft.plan.lane(number).claims) for number in draft.in_state(N.RUNNING)
    )
