"""Lanes: the order in which ready nodes get free places, computed once for each version.

All nodes of one lane have the same phase, the same priority and the same claims, so that one look
decides for the whole lane whether it may go now: the cost of a step does not grow with the number
of nodes that are ready. Lanes are numbered in the order of run-lifecycle 4.2, row 7: phase,
then priority; inside of a lane nodes go in the order in which they became ready.
"""

from collections.abc import Sequence

import msgspec

from tandem.domain.automation import Automation
from tandem.domain.phases import NO_PHASE, Phases, priority_of
from tandem.domain.write_scope import Claims, claims_of

_NO_CLAIMS = Claims()


class Lane(msgspec.Struct, frozen=True):
    """What the nodes of one lane have in common."""

    rank: int = NO_PHASE
    priority: int = 0
    claims: Claims = _NO_CLAIMS


def lanes_of(automation: Automation, phases: Phases) -> tuple[Sequence[Lane], Sequence[int]]:
    """Return the lanes of an automation in their order, and the number of each node's lane."""
    of_node = [
        Lane(rank, priority_of(node), claims_of(node) or _NO_CLAIMS)
        for rank, node in zip(phases.ranks, automation.nodes, strict=True)
    ]
    # A stable sort: lanes of one phase and priority stay in the order of the document.
    lanes = sorted(dict.fromkeys(of_node), key=lambda lane: (lane.rank, -lane.priority))
    numbers = {lane: number for number, lane in enumerate(lanes)}
    return lanes, [numbers[lane] for lane in of_node]
