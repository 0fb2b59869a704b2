"""Nodes that a person completes: skipped, or with an output of the person's own.

The person answers for it, so there is always a reason, and it is on record. An approval is never
completed here: it is decided, so that there is no way past a gate without a decision.
"""

from tandem.domain.artifact import ArtifactRef, Invalidated, NodeArtifact, Validity
from tandem.domain.command import SetOutput, Skip
from tandem.domain.completion import complete
from tandem.domain.draft import Draft
from tandem.domain.errors import InvalidRequest, NothingToDo
from tandem.domain.graph import PlanNode
from tandem.domain.ids import NodeId
from tandem.domain.json import JsonObject, decode, encode
from tandem.domain.lifecycle import NodeState, RunEvent, RunState
from tandem.domain.node import NodeKind
from tandem.domain.reset import free_held, reset
from tandem.domain.reviving import refuse_cleanup, revive
from tandem.domain.run import Handling
from tandem.domain.schema_check import compile_schema
from tandem.domain.tasks import find_node

E, N, S = RunEvent, NodeState, RunState

GONE = Validity.SUPERSEDED
"""Nobody sent back what was made from the earlier output; it is only out of date."""
OUTPUT_SET = "output_set"
NOT_MUTABLE = "AUTOMATION_V2_RUN_TASK_NOT_MUTABLE"


def skip(draft: Draft, command: Skip) -> None:
    """Count a node as completed with an output that says that it was skipped."""
    plan_node = _target(draft, "skip", command.node_id, command.reason)
    if draft.node(plan_node.node_no).state is N.COMPLETED:
        hint = f"node `{plan_node.node_id}` is completed; there is nothing to skip"
        raise draft.refusal("skip a node of", hint, code=NOT_MUTABLE)
    output = encode(
        {
            "contract_kind": "text_summary",
            "status": "skipped",
            "summary": command.reason,
            "skipped_by": command.decided_by,
            "skipped_at_ms": draft.now_ms,
        }
    )
    _complete(
        draft,
        plan_node,
        E.NODE_SKIPPED,
        Handling(by_hand="skipped"),
        output=output,
        ref=None,
        reason=command.reason,
        metadata={"decided_by": command.decided_by},
    )


def set_output(draft: Draft, command: SetOutput) -> None:
    """Complete a node with a given output; what was made from an earlier output runs again."""
    plan_node = _target(draft, "set an output in", command.node_id, command.reason)
    contract = plan_node.node.output_contract
    if contract is not None and contract.output_schema is not None:
        errors = compile_schema(contract.output_schema).errors(decode(command.output))
        if errors:
            text = "; ".join(errors)
            raise InvalidRequest(
                f"the output does not match the schema of node `{plan_node.node_id}`: {text}",
                code="output_schema_invalid",
            )
    _refuse_repetition(draft, plan_node, command)
    _complete(
        draft,
        plan_node,
        E.NODE_OUTPUT_SET,
        Handling(by_hand=OUTPUT_SET),
        output=None if command.ref is not None else command.output,
        ref=command.ref,
        reason=command.reason,
        metadata={"decided_by": command.decided_by},
    )


def _refuse_repetition(draft: Draft, plan_node: PlanNode, command: SetOutput) -> None:
    """Refuse to set an output once more: what was made from it since is not out of date.

    Raises:
        NothingToDo: a person gave the node this very output.
    """
    node = draft.node(plan_node.node_no)
    given = (None, command.ref) if command.ref is not None else (command.output, None)
    by_hand = node.handling.by_hand if node.handling is not None else ""
    if by_hand == OUTPUT_SET and given == (node.output, node.output_ref):
        raise NothingToDo(
            f"node `{plan_node.node_id}` has this output already, set by hand; to have what "
            "follows run again, retry the node after it",
            code="unchanged",
        )


def _target(draft: Draft, verb: str, node_id: NodeId, reason: str) -> PlanNode:
    plan_node = find_node(draft, node_id)
    if not reason.strip():
        raise InvalidRequest(f"say why: a reason is needed to {verb} a run", code="reason_required")
    run, state = draft.run, draft.node(plan_node.node_no).state
    if run.status is S.CANCELLED:
        hint = "retry a node to take it up again, or fork it"
        raise draft.refusal(verb, hint, code=NOT_MUTABLE)
    refuse_cleanup(draft, verb)
    if plan_node.kind is NodeKind.APPROVAL or state is N.GATED:
        hint = f"node `{node_id}` asks a person; decide its gate"
        raise draft.refusal(verb, hint, code="gate_needs_decision")
    if state is N.RUNNING:
        hint = f"node `{node_id}` runs; pause the run first (`--now` stops it)"
        raise draft.refusal(verb, hint, code=NOT_MUTABLE)
    return plan_node


def _complete(
    draft: Draft,
    plan_node: PlanNode,
    event: RunEvent,
    handling: Handling,
    *,
    output: bytes | None,
    ref: ArtifactRef | None,
    reason: str,
    metadata: JsonObject,
) -> None:
    run, number = draft.run, plan_node.node_no
    outdated = _outdated(draft, plan_node)
    again = {number, *draft.plan.with_descendants(outdated)}
    detail, failed = run.detail, draft.in_state(N.FAILED) - again
    reopens = (
        run.status is S.BLOCKED
        or (run.status is S.FAILED and not failed)
        or (run.status is S.COMPLETED and outdated)
    )
    if reopens:
        revive(draft, E.RUN_REOPENED, outdated, reason=reason, metadata={}, gone=GONE)
    draft.withdraw([number])
    # What the node left before is not what its output says now.
    draft.invalidated.append(Invalidated(node_no=number, validity=GONE))
    if ref is not None:
        attempt, now_ms = draft.node(number).attempts, draft.now_ms
        given = NodeArtifact(node_no=number, attempt=attempt, ref=ref, registered_at_ms=now_ms)
        draft.artifacts.append(given)
    complete(
        draft,
        plan_node,
        event=event,
        handling=handling,
        output=output,
        output_ref=ref,
        reason=reason,
        metadata=metadata,
    )
    if not reopens:
        reset(draft, outdated, reason=reason, gone=GONE)
    free_held(draft, reason=reason)
    match run.status:
        case S.AWAITING_APPROVAL:
            _wake(draft)
        case S.PAUSED if run.parked:
            _wake(draft)
        case S.QUEUED:
            run.due_at_ms = draft.now_ms
        case S.FAILED:
            # Other nodes failed, too: it stays failed until they are dealt with.
            run.last_failure = draft.node(min(failed)).failure
            run.detail = detail
        case S.COMPLETED | S.PAUSED:
            run.detail = detail
        case _:
            pass


def _wake(draft: Draft) -> None:
    draft.happen(E.RUN_WOKEN)
    draft.run.due_at_ms = draft.now_ms
    draft.run.pause_reason = ""
    draft.run.owner = None


def _outdated(draft: Draft, plan_node: PlanNode) -> set[int]:
    """Return the nodes that were reached with the earlier output of a completed node."""
    if draft.node(plan_node.node_no).state is not N.COMPLETED:
        return set()
    after = set(draft.plan.with_descendants([plan_node.node_no])) - {plan_node.node_no}
    running = sorted(draft.in_state(N.RUNNING) & after)
    if running:
        names = ", ".join(f"`{draft.plan.nodes[n].node_id}`" for n in running)
        hint = f"{names} runs with the earlier output; pause the run first (`--now` stops it)"
        raise draft.refusal("set an output in", hint, code=NOT_MUTABLE)
    return {n for n in after if n in draft.view.nodes}
