"""Commands: everything that may be asked of a run from outside its driver, as data.

`domain.decision` says what each does. The store locks the run, loads it, decides and writes, all in
one transaction; so no command ever acts on a state that has moved on.
"""

from enum import StrEnum
from typing import Any

import msgspec

from tandem.domain.artifact import ArtifactRef
from tandem.domain.claim_basis import ClaimBasis
from tandem.domain.hold import Hold
from tandem.domain.ids import ChangeId, EngineId, GateId, NodeId, RunId, WaitId
from tandem.domain.signal import Signal
from tandem.domain.usage import Spent


class Claim(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An engine takes a due queued run.

    A run with a hold is put aside instead, one that can never start is ended.
    """

    engine_id: EngineId
    basis: ClaimBasis = ClaimBasis()
    hold: Hold | None = None


class Pause(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person holds the run; attempts that run are let to their end, or stopped with `now`."""

    reason: str = "paused by operator"
    now: bool = False


class Resume(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person lets a paused run go on. `owner` is an engine that wants to drive it itself."""

    reason: str = "resumed by operator"
    owner: EngineId | None = None


class Recover(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person lets a failed, blocked or paused run try again; what is completed stays so."""

    reason: str = "recovered by operator"
    owner: EngineId | None = None


class Allow(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person gives a run other limits; what is None stays as it is.

    With `resume` a run that was stopped by its budget goes on.
    """

    reason: str
    max_total_runtime_ms: int | None = None
    max_total_tokens: int | None = None
    max_total_cost_usd: float | None = None
    max_total_tool_calls: int | None = None
    resume: bool = True
    decided_by: str = ""
    owner: EngineId | None = None


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person ends the run."""

    reason: str = "cancelled by operator"


class Repair(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person changes one node of this run's own version and lets it and what follows run again.

    What is None stays as it is; nothing given only resets. `save` also changes the automation.
    """

    node_id: NodeId
    prompt: str | None = None
    template_id: str | None = None
    model_policy: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    """Inputs of the run that get another value."""
    action: dict[str, Any] | None = None
    """The whole action of the node."""
    save: bool = False
    reason: str = "repaired by operator"
    decided_by: str = ""


class RetryNode(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person lets a node and everything after it run again; `requeue` is its other name."""

    node_id: NodeId
    requeue: bool = False
    reason: str = ""


class ContinueNode(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person lets a blocked node try again with what it was told to mend."""

    node_id: NodeId
    reason: str = "continued by operator"


class Skip(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person counts a node as done without an output; what follows goes on."""

    node_id: NodeId
    reason: str
    decided_by: str = ""


class SetOutput(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person gives a node its output, as JSON text; `ref` is where a large one was put aside."""

    node_id: NodeId
    output: bytes
    reason: str
    ref: ArtifactRef | None = None
    decided_by: str = ""


class Dispose(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person says what the output of a node is worth; nothing moves."""

    node_id: NodeId
    disposition: str
    reason: str = ""
    decided_by: str = ""


class Redeliver(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person sends out again what a node with outside effects could not deliver (T93)."""

    reason: str = "dead letter retried by operator"


class NoteFork(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Record on a run that another one was forked from it."""

    fork: RunId
    node_id: NodeId
    reason: str = ""


class DecideGate(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person decides a gate: the one named by `gate_id`, else by `node_id`, else the oldest.

    `gate_id` is the approval request, `transition_id` the transition that the decision is meant
    for; an id that belongs to another asking is refused and recorded.
    """

    decision: str
    gate_id: GateId | None = None
    node_id: NodeId | None = None
    transition_id: str | None = None
    reason: str = ""
    decided_by: str = ""
    output: bytes | None = None
    """JSON for a node that is settled as done."""


class Wake(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Time has come for a parked run: what is due is done, and the run goes on if it can."""


class ResolveWait(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something came for a wait: the one of `wait_id`, else of `node_id`, else the oldest.

    `payload` is JSON text. `signal` is the kept signal that matched; None when somebody resolves
    this very wait.
    """

    idempotency_key: str
    wait_id: WaitId | None = None
    node_id: NodeId | None = None
    payload: bytes = b"null"
    source: str = ""
    signal: Signal | None = None


class LossPolicy(StrEnum):
    """What becomes of a running run whose engine dies or leaves."""

    RESUME = "resume"
    FAIL = "fail"


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """What the `effects_probe` of an interrupted node answered.

    `output` is JSON text; a large one was put aside and `output_ref` names it.
    """

    node_no: int
    is_done: bool
    output: bytes | None = None
    output_ref: ArtifactRef | None = None


class Adopt(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Take a run out of the hands of an engine that is dead; its leftovers are ended already.

    `epoch` is the claim that was looked at: an engine that turned out to live may have claimed the
    run again since, and what it started then is no leftover.
    """

    dead: EngineId
    epoch: int | None = None
    owner: EngineId | None = None
    policy: LossPolicy = LossPolicy.RESUME
    probed: tuple[Probed, ...] = ()


class Own(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An engine wants to drive a run itself when it is due; `former` is gone, or nobody."""

    engine_id: EngineId
    former: EngineId | None


class HandBack(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An engine that stops gives a run back; its attempts are ended already."""

    engine_id: EngineId
    reason: str = "automation run interrupted by server shutdown"
    policy: LossPolicy = LossPolicy.RESUME


class ProcessesEnded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The processes of a stopped run are proven dead."""

    engine_id: EngineId


class Panic(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The driver of a run met a mistake of ours; its attempts are ended already (T43)."""

    engine_id: EngineId
    reason: str


class Account(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Attempts of an engine had spent this when it let go of their run, or lost it.

    It counts whoever has the run now: what is spent is spent.
    """

    spent: tuple[Spent, ...]


class Reap(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Stop a run that shows no life.

    It counts only when the run is still as it was seen: at the change `seen_change_id`, with its
    last sign of life at `seen_activity_at_ms`, and that for `stale_after_ms` or longer.
    """

    stale_after_ms: int
    seen_change_id: ChangeId
    seen_activity_at_ms: int | None


class AutoResume(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Let a run that was found stale lately go on without a person (run-lifecycle 2.3)."""

    window_ms: int
    attempts_max: int


class NoteEnd(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Record what the end of a run led to beside the run: candidates applied, a review asked for.

    It moves nothing. `review_request_id` is empty when no review was asked for.
    """

    auto_applied: tuple[str, ...] = ()
    review_request_id: str = ""


Command = (
    Claim
    | Pause
    | Resume
    | Recover
    | Allow
    | Cancel
    | Repair
    | RetryNode
    | ContinueNode
    | Skip
    | SetOutput
    | Dispose
    | Redeliver
    | NoteFork
    | DecideGate
    | Wake
    | ResolveWait
    | Adopt
    | Own
    | HandBack
    | ProcessesEnded
    | Panic
    | Account
    | Reap
    | AutoResume
    | NoteEnd
)
