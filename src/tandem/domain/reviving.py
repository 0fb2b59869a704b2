"""Taking a run up that rests: it is queued, and what it was asking is asked anew."""

from collections.abc import Iterable

import msgspec

from tandem.domain.artifact import Validity
from tandem.domain.asking import ask_for_outcome
from tandem.domain.deadline import is_late
from tandem.domain.draft import Draft
from tandem.domain.ids import EngineId
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import RESTING, TERMINAL, NodeState, RunEvent, RunState
from tandem.domain.overrun import refuse_exceeded
from tandem.domain.reset import reset, reset_one
from tandem.domain.run import Gate, Handling, Wait

E, N, S = RunEvent, NodeState, RunState


def queue(draft: Draft) -> None:
    """Make the run due now, as one that nobody holds and that has not ended."""
    run = draft.run
    run.interruptions = 0
    run.due_at_ms = draft.now_ms
    run.queue_reason = None
    run.pause_reason = ""
    run.stop_kind = None
    run.stop_reason = ""
    run.finished_at_ms = None


def revive(
    draft: Draft,
    event: RunEvent,
    roots: Iterable[int],
    *,
    reason: str,
    metadata: JsonObject,
    owner: EngineId | None = None,
    gone: Validity = Validity.REJECTED,
    passes_over: bool = False,
) -> None:
    """Queue a run that rests, with these nodes and everything after them pending again.

    `gone` is as in `domain.reset.reset`. With `passes_over` other nodes that have failed stay so,
    and let these run all the same; the run ends by them only when nothing else is left.

    Raises:
        Refused: the budget of the run is reached.
    """
    run = draft.run
    refuse_exceeded(draft, "take up")
    draft.happen(event, reason=reason, metadata=metadata)
    reset(draft, roots, reason=reason, gone=gone)
    _ask_anew(draft, reason=reason)
    if passes_over:
        _pass_over_failed(draft)
    run.last_failure = None
    run.resume_reason = reason
    run.detail = ""
    run.owner = owner
    queue(draft)


def _pass_over_failed(draft: Draft) -> None:
    for number in draft.in_state(N.FAILED):
        node = draft.node(number)
        handling = msgspec.structs.replace(node.handling or Handling(), passed_over=True)
        draft.nodes[number] = msgspec.structs.replace(node, handling=handling)


def refuse_unless_resting(draft: Draft, verb: str, *, code: str) -> None:
    """Refuse what may be done only to a run in which nothing happens by itself.

    Raises:
        Refused: the run is queued or driven, or processes of it may still live.
    """
    if draft.run.status not in RESTING:
        raise draft.refusal(verb, "pause it first (`--now` stops what runs)", code=code)
    refuse_cleanup(draft, verb)


def refuse_cleanup(draft: Draft, verb: str) -> None:
    """Refuse what would start a body beside one that is still being ended.

    Raises:
        Refused: processes of the run may still live.
    """
    if draft.run.cleanup:
        hint = "its processes are still being ended; try again shortly"
        raise draft.refusal(verb, hint, code="run_cleanup_pending")


def _ask_anew(draft: Draft, *, reason: str) -> None:
    """Ask again what the end of the run had withdrawn; nothing may wait for nobody.

    So is what ran out of time after the end: while a run has ended nobody can answer it, and it
    would end the run that was just taken up.
    """
    if draft.view.run.status in TERMINAL:
        open_items: list[Gate | Wait] = [*draft.open_gates(), *draft.open_waits()]
        draft.withdraw({one.node_no for one in open_items if is_late(one, now_ms=draft.now_ms)})
    asked = {gate.node_no for gate in draft.open_gates()}
    asked |= {wait.node_no for wait in draft.open_waits()}
    for number in sorted(draft.view.nodes):
        node, plan_node = draft.node(number), draft.plan.nodes[number]
        if node.state not in (N.GATED, N.WAITING) or number in asked:
            continue
        if plan_node.is_parked:
            reset_one(draft, number, reason=reason)
        else:
            ask_for_outcome(draft, plan_node, node, "the run was cancelled")
