"""Letting a run try again that stopped: a person's recovery, and dead letters sent out again."""

from typing import Final

import msgspec

from tandem.domain.accounting import is_skipped
from tandem.domain.command import Recover, Redeliver
from tandem.domain.draft import Draft
from tandem.domain.lifecycle import NodeState, RunEvent, RunState, StopKind
from tandem.domain.reviving import refuse_cleanup, revive
from tandem.domain.run import Handling, QueueReason

E, N, S = RunEvent, NodeState, RunState

DISPATCHES_MAX: Final = 5
DISPATCH_DELAY_FIRST_MS: Final = 1_000
DISPATCH_DELAY_MAX_MS: Final = 300_000


def recover(draft: Draft, command: Recover) -> None:
    """Let a failed, blocked or paused run try again (T57 to T60)."""
    run = draft.run
    match run.status:
        case S.FAILED | S.BLOCKED:
            event, roots = E.RUN_RECOVERED, halted_roots(draft, "recover")
        case S.PAUSED if not run.parked:
            event, roots = E.RUN_RECOVERED_FROM_PAUSE, _stale_roots(draft)
        case _:
            raise draft.refusal(
                "recover",
                "only a failed, blocked or paused run can be recovered",
                code="AUTOMATION_V2_RUN_NOT_RECOVERABLE",
            )
    refuse_cleanup(draft, "recover")
    metadata = {"roots": _names(draft, roots)}
    revive(draft, event, roots, reason=command.reason, metadata=metadata, owner=command.owner)


def halted_roots(draft: Draft, verb: str) -> set[int]:
    """Return the nodes from which a run that stopped has to try again.

    Raises:
        Refused: nothing says why the run stopped.
    """
    run = draft.run
    roots = draft.in_state(N.FAILED, N.BLOCKED)
    named = draft.plan.node(run.last_failure.node_id) if run.last_failure is not None else None
    if named is not None and draft.node(named.node_no).state is not N.COMPLETED:
        roots.add(named.node_no)
    if not roots and run.status is S.FAILED and run.nodes_completed == len(draft.plan):
        # Every node is completed, so it failed because of a file that it owes (`accounting`).
        roots = _owing(draft)
    # A run that was stopped as a whole (a panic of ours, a shutdown) has no node to blame: what it
    # has not done yet is pending and goes on.
    if not roots and run.stop_kind is None:
        what = "FAILURE" if run.status is S.FAILED else "BLOCKED"
        raise draft.refusal(
            verb,
            "nothing says which node stopped it; retry a node, or fork it from one",
            code=f"AUTOMATION_V2_RUN_{what}_CONTEXT_MISSING",
        )
    return roots


def _owing(draft: Draft) -> set[int]:
    """Return the nodes that are to leave files, those at the end if none is named."""
    owners = {item.owner for item in draft.plan.deliverables if item.owner is not None}
    owners = {number for number in owners if not is_skipped(draft.node(number))}
    return owners or {node.node_no for node in draft.plan.nodes if not node.successors}


def _stale_roots(draft: Draft) -> set[int]:
    """Return what a stale pause resets: every node that it left pending. Others reset nothing."""
    if draft.run.stop_kind is not StopKind.STALE_REAPED:
        return set()
    return {n for n, node in draft.view.nodes.items() if node.state in (N.PENDING, N.BACKOFF)}


def redeliver(draft: Draft, command: Redeliver) -> None:
    """Queue a run again whose node with outside effects failed (T93, 2.5).

    Each asking is one dispatch. It is counted on the node until the node completes, and the run
    becomes due only when the backoff since the last dispatch is over.
    """
    run = draft.run
    if run.status not in (S.FAILED, S.BLOCKED):
        hint = "only a failed or blocked run has dead letters"
        raise draft.refusal("send out again", hint, code="dead_letter_not_retryable")
    refuse_cleanup(draft, "send out again")
    roots = halted_roots(draft, "send out again")
    letters = [n for n in sorted(roots) if _is_letter(draft, n)]
    if not letters:
        hint = "no node with `effects: external` failed in it; use recover or retry"
        raise draft.refusal("send out again", hint, code="dead_letter_not_found")
    handlings = {n: _dispatched(draft, n) for n in letters}
    spent = _names(draft, {n for n in letters if handlings[n].dispatches > DISPATCHES_MAX})
    if spent:
        hint = f"{', '.join(spent)} was sent out {DISPATCHES_MAX} times; retry it by hand instead"
        raise draft.refusal("send out again", hint, code="retry_exhausted")
    due_at_ms = max(handling.dispatched_at_ms for handling in handlings.values())
    metadata = {"roots": _names(draft, roots), "dead_letters": _names(draft, set(letters))}
    revive(draft, E.RUN_REDELIVERED, roots, reason=command.reason, metadata=metadata)
    for number, handling in handlings.items():
        draft.nodes[number] = msgspec.structs.replace(draft.node(number), handling=handling)
    run.resume_reason = "stateful_dead_letter_retry_dispatched"
    run.due_at_ms = due_at_ms
    if due_at_ms > draft.now_ms:
        run.queue_reason = QueueReason.RETRY_BACKOFF
        run.detail = f"dead letter of node {', '.join(metadata['dead_letters'])} waits for its turn"


def _is_letter(draft: Draft, number: int) -> bool:
    is_external = draft.plan.nodes[number].node.effective_effects == "external"
    return is_external and draft.node(number).failure is not None


def _dispatched(draft: Draft, number: int) -> Handling:
    """Return what the node has on record once it is sent out again."""
    before = draft.node(number).handling or Handling()
    if not before.dispatches:
        return Handling(dispatches=1, dispatched_at_ms=draft.now_ms)
    delay_ms = min(DISPATCH_DELAY_FIRST_MS * 2**before.dispatches, DISPATCH_DELAY_MAX_MS)
    due_at_ms = max(draft.now_ms, before.dispatched_at_ms + delay_ms)
    return Handling(dispatches=before.dispatches + 1, dispatched_at_ms=due_at_ms)


def _names(draft: Draft, numbers: set[int]) -> list[str]:
    return [draft.plan.nodes[n].node_id for n in sorted(numbers)]
