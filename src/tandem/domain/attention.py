"""A run that rests and whose moment has come: what time does to its gates, waits and backoffs."""

from tandem.domain import expiry, waits
from tandem.domain.deadline import next_look_at_ms
from tandem.domain.draft import Draft
from tandem.domain.lifecycle import TERMINAL, NodeState, RunEvent, RunState
from tandem.domain.waits import KINDS

E, N, S = RunEvent, NodeState, RunState


def pass_time(draft: Draft) -> None:
    """Do what is due at every open gate and wait; gates first, and nothing after the end."""
    for gate in draft.open_gates():
        if draft.run.status not in TERMINAL:
            expiry.pass_time(draft, gate.gate_id)
    for wait in draft.open_waits():
        if draft.run.status not in TERMINAL:
            waits.pass_time(draft, wait.wait_id)


def attend(draft: Draft) -> None:
    """Look at a parked run whose moment has come, in the transaction that found it due.

    What only tells somebody (a reminder, an escalation, a stale mark) leaves the run parked until
    the next moment; what lets a node go on queues the run.

    Raises:
        Refused: the run is not waiting for this moment.
    """
    run = draft.run
    due = run.due_at_ms is not None and run.due_at_ms <= draft.now_ms
    if not due or not is_parked(draft):
        raise draft.refusal("wake", "it is not waiting for this moment")
    before = len(draft.events)
    pass_time(draft)
    if not is_parked(draft):
        return
    if len(draft.events) == before or _has_due_backoff(draft):
        # An attempt is to be made again; or what was due is gone, which a driver finds out.
        draft.happen(E.RUN_WOKEN)
        run.due_at_ms = draft.now_ms
        run.pause_reason = ""
    else:
        run.due_at_ms = earliest_due_ms(draft)


def is_parked(draft: Draft) -> bool:
    """Say whether the run rests for gates or waits, and no person holds it."""
    run = draft.run
    return run.status is S.AWAITING_APPROVAL or (run.status is S.PAUSED and bool(run.parked))


def earliest_due_ms(draft: Draft) -> int | None:
    """Return when the parked run needs attention by itself, if ever."""
    moments = [draft.node(n).due_at_ms for n in draft.in_state(N.BACKOFF)]
    moments += [next_look_at_ms(wait) for wait in draft.open_waits()]
    moments += [next_look_at_ms(gate) for gate in draft.open_gates()]
    return min((moment for moment in moments if moment is not None), default=None)


def park_on_waits(draft: Draft) -> None:
    """Park a run in which only waits are left (T35)."""
    run, open_waits = draft.run, draft.open_waits()
    named = ", ".join(f"`{wait.node_id}` ({KINDS[wait.kind]})" for wait in open_waits)
    run.detail = run.pause_reason = f"waiting at Automation V2 node {named}"
    run.resume_reason = ""
    run.due_at_ms = earliest_due_ms(draft)
    run.parked = ", ".join(f"{wait.kind} of node `{wait.node_id}`" for wait in open_waits)
    draft.happen(E.RUN_PARKED_ON_WAIT, metadata={"due_at_ms": run.due_at_ms})


def _has_due_backoff(draft: Draft) -> bool:
    moments = (draft.node(n).due_at_ms for n in draft.in_state(N.BACKOFF))
    return any(moment is not None and moment <= draft.now_ms for moment in moments)
