"""Phases of a mission: which nodes come first, and which wait for a barrier (run-lifecycle 4.2).

`metadata.mission.phases` of the automation lists them in their order, `metadata.builder.phase_id`
of a node names its own. The open phase is the first with a node that is not completed. A soft phase
only orders: its nodes get free places first. A barrier lets no node of a later phase begin before
it is done. A node of no phase is never held back.
"""

from collections.abc import Sequence
from typing import Final

from tandem.domain.automation import Automation
from tandem.domain.free_json import list_at, object_at, text_of
from tandem.domain.node import Node

NO_PHASE: Final = 1_000_000
"""The rank of nodes without a phase: after all others."""


class Phases:
    """The phases of one automation: the rank of each node, and which phases are barriers."""

    __slots__ = ("barriers", "has_barriers", "names", "ranks", "sizes")

    def __init__(self, automation: Automation) -> None:
        phases = [object_at(phase) for phase in list_at(automation.metadata, "mission", "phases")]
        self.names = tuple(text_of(phase.get("phase_id")) for phase in phases)
        self.barriers = tuple(
            text_of(phase.get("execution_mode")).lower() == "barrier" for phase in phases
        )
        self.has_barriers = any(self.barriers)
        """Whether any phase can hold nodes back."""
        by_name = {name: rank for rank, name in reversed(list(enumerate(self.names))) if name}
        self.ranks = tuple(by_name.get(_phase_id(node), NO_PHASE) for node in automation.nodes)
        self.sizes = tuple(self.ranks.count(rank) for rank in range(len(phases)))

    def limit(self, left: Sequence[int]) -> int:
        """Return the highest rank that may begin; `left` counts what is not completed by rank."""
        rank = self.open_rank(left)
        return rank if rank < NO_PHASE and self.barriers[rank] else NO_PHASE

    def open_rank(self, left: Sequence[int]) -> int:
        """Return the rank of the open phase, `NO_PHASE` when all of them are done."""
        return next((rank for rank, count in enumerate(left) if count), NO_PHASE)


def is_held(rank: int, limit: int) -> bool:
    """Say whether a node of this rank waits for a barrier; `limit` is that of `Phases.limit`."""
    return limit < rank < NO_PHASE


def _phase_id(node: Node) -> str:
    return text_of(object_at(node.metadata, "builder").get("phase_id"))


def priority_of(node: Node) -> int:
    """Return the priority of a node; higher ones get free places first, 0 is the default."""
    value = object_at(node.metadata, "builder").get("priority")
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
