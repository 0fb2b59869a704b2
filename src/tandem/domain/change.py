"""What one step of a run writes. Built by the decisions, written by the store, never edited."""

from typing import Any

import msgspec

from tandem.domain.artifact import Invalidated, NodeArtifact
from tandem.domain.ids import ChangeId
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Attempt, Gate, LifecycleEvent, NodeRun, Run, Wait
from tandem.domain.usage import Spent


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal that is itself recorded: the change is written, then whoever asked is refused."""

    code: str
    message: str
    details: dict[str, Any] = {}


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """A provider asked to be left alone until `until_ms`."""

    provider: str
    until_ms: int


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One step: the row of the run after it, and every row that it adds or replaces.

    It counts only when the stored run still has `builds_on` as its newest change and `epoch_before`
    as its epoch. `moved` says that more than the counters and the detail of the run row changed.
    """

    change_id: ChangeId
    builds_on: ChangeId
    epoch_before: int
    status_before: RunState
    run: Run
    moved: bool
    nodes: tuple[NodeRun, ...] = ()
    attempts_started: tuple[Attempt, ...] = ()
    attempts_ended: tuple[Attempt, ...] = ()
    spent: tuple[Spent, ...] = ()
    """What attempts have spent by now; `added` is in the run of this change already."""
    gates: tuple[Gate, ...] = ()
    waits: tuple[Wait, ...] = ()
    artifacts: tuple[NodeArtifact, ...] = ()
    invalidated: tuple[Invalidated, ...] = ()
    throttles: tuple[Throttle, ...] = ()
    events: tuple[LifecycleEvent, ...] = ()
    denial: Denial | None = None
    definition: bytes | None = None
    """The document of another version that the run and its inputs are pinned to from now on."""
