"""The end of an attempt, and the completion of a node; whoever causes them."""

from collections.abc import Sequence

import msgspec

from tandem.domain.artifact import ArtifactRef, NodeArtifact
from tandem.domain.draft import Draft
from tandem.domain.graph import PlanNode
from tandem.domain.ids import EngineId, attempt_id
from tandem.domain.json import JsonObject, JsonValue, decode, digest
from tandem.domain.lifecycle import DRIVEN, NodeState, RunEvent
from tandem.domain.reading import Reading
from tandem.domain.run import Attempt, AttemptEnd, Handling, NodeRun
from tandem.domain.work import has_work

E, N = RunEvent, NodeState


def complete(
    draft: Draft,
    plan_node: PlanNode,
    *,
    output: bytes | None,
    output_ref: ArtifactRef | None = None,
    artifacts: Sequence[NodeArtifact] = (),
    reason: str = "",
    event: RunEvent = E.NODE_COMPLETED,
    handling: Handling | None = None,
    metadata: JsonObject | None = None,
    reading: Reading | None = None,
) -> None:
    """Count a node as completed with this output.

    `event` and `handling` say who gave it, `reading` is what was made of it. The event carries the
    digests of the output and of `artifacts`: what the receipts are to prove.
    """
    node = draft.node(plan_node.node_no)
    if reading is None and output is not None and plan_node.is_triage_gate:
        # Also an output that a person gave says whether there is work.
        reading = Reading(has_work=has_work(decode(output)))
    done = msgspec.structs.replace(
        node,
        state=N.COMPLETED,
        due_at_ms=None,
        finished_at_ms=draft.now_ms,
        output=output,
        output_ref=output_ref,
        repair=(),
        failure=None,
        handling=handling,
        reading=reading,
    )
    draft.move(
        plan_node,
        event,
        done,
        attempt=node.attempts or None,
        reason=reason,
        metadata={**evidence(output, output_ref, artifacts), **(metadata or {})},
    )
    draft.run.detail = f"completed node `{plan_node.node_id}`; continuing"
    if draft.run.interruptions:
        # The run gets on in spite of the engines that died with it.
        draft.run.interruptions = 0
        draft.moved = True
    failure = draft.run.last_failure
    if failure is not None and failure.node_id == plan_node.node_id:
        if draft.run.status in DRIVEN:
            told = f"recovered: node `{plan_node.node_id}` succeeded after execution error"
            draft.happen(E.NODE_RECOVERED, node_id=plan_node.node_id, reason=told)
        draft.run.last_failure = None
        draft.moved = True


def evidence(
    output: bytes | None, output_ref: ArtifactRef | None, artifacts: Sequence[NodeArtifact]
) -> JsonObject:
    """Return the digests that the chain of receipts vouches for."""
    found: dict[str, JsonValue] = {}
    if output_ref is not None:
        found["output_digest"] = output_ref.digest
    elif output is not None:
        found["output_digest"] = digest(output)
    files = {left.ref.path: left.ref.digest for left in artifacts if left.ref.path}
    if files:
        found["artifacts"] = files
    return found


def end_attempt(
    draft: Draft,
    node: NodeRun,
    end: AttemptEnd,
    *,
    failure_class: str = "",
    message: str = "",
    detail: str = "",
    exit_code: int | None = None,
    unmet: tuple[str, ...] = (),
    is_repair_charged: bool = False,
) -> None:
    """Close the row of the newest attempt of a node."""
    plan_node = draft.plan.nodes[node.node_no]
    draft.attempts_ended.append(
        Attempt(
            attempt_id=attempt_id(draft.run.run_id, plan_node.node_id, node.attempts),
            node_no=node.node_no,
            number=node.attempts,
            epoch=draft.run.epoch,
            engine_id=draft.run.engine_id or EngineId(""),
            started_at_ms=0,
            ended_at_ms=draft.now_ms,
            outcome=end,
            failure_class=failure_class,
            message=message,
            detail=detail,
            exit_code=exit_code,
            unmet=unmet,
            is_repair_charged=is_repair_charged,
        )
    )
