"""Forks: a new run that begins with the outputs of another one and goes its own way at a node."""

from collections.abc import Sequence

import msgspec

from tandem.domain.admission import needs_of
from tandem.domain.artifact import CandidateSource, Freshness, NodeArtifact, Validity
from tandem.domain.change import Change
from tandem.domain.command import NoteFork
from tandem.domain.completion import evidence
from tandem.domain.draft import Draft
from tandem.domain.ids import ChangeId, EngineId, NodeId, RunId
from tandem.domain.inputs import fill_inputs
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.receipts import first_event
from tandem.domain.run import Handling, NodeRun, Run
from tandem.domain.tasks import find_node
from tandem.domain.view import RunView

E, N = RunEvent, NodeState


def note_fork(draft: Draft, command: NoteFork) -> None:
    """Record on the source that it was forked; in any state."""
    plan_node = find_node(draft, command.node_id)
    draft.happen(
        E.RUN_FORKED,
        reason=command.reason,
        metadata={"run_id": command.fork, "node_id": plan_node.node_id},
    )


def reused_nodes(source: RunView, node_id: NodeId, *, asks_again: bool = False) -> list[int]:
    """Return the nodes whose outputs a fork from this node takes over.

    They are the completed ones that do not come after the node. With `asks_again` approvals and
    what comes after them are not taken over either.
    """
    roots = {source.plan.by_id[node_id]}
    if asks_again:
        roots |= {n.node_no for n in source.plan.nodes if n.node.is_approval}
    own = set(source.plan.with_descendants(roots))
    return [
        n for n in sorted(source.nodes) if n not in own and source.nodes[n].state is N.COMPLETED
    ]


def new_run(
    source: RunView,
    *,
    run_id: RunId,
    inputs: JsonObject,
    owner: EngineId | None,
    started_by: str = "",
    change_id: ChangeId,
    now_ms: int,
) -> Run:
    """Return the row of a fork: the version and the workspace of its source, due at once.

    Where nobody is known to have forked it, it counts as started by whoever started the source.

    Raises:
        InvalidAutomation: the inputs do not fit.
        MissingReference: the concurrency key names an input that is not given.
    """
    before = source.run
    given: JsonObject = before.inputs
    if inputs:
        given = fill_inputs(source.plan.automation.inputs, {**given, **inputs})
    plan = source.plan
    needs = needs_of(
        plan.automation,
        plan.demand,
        tenant=before.tenant,
        inputs=given,
        real_path=before.lock_path,
    )
    run = Run(
        run_id=run_id,
        tenant=before.tenant,
        automation_id=before.automation_id,
        name=before.name,
        definition_digest=before.definition_digest,
        definition_version=before.definition_version,
        automation_version=before.automation_version,
        trigger_type="fork",
        started_by=started_by or before.started_by,
        requested_execution_profile=before.requested_execution_profile,
        effective_execution_profile=before.effective_execution_profile,
        last_change_id=change_id,
        owner=owner,
        event_seq=1,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        due_at_ms=now_ms,
        queued_at_ms=now_ms,
        inputs=dict(given),
        workspace=before.workspace,
        lock_path=needs.lock_path,
        concurrency_key=needs.concurrency_key,
        concurrency_limit=needs.concurrency_limit,
        labels=needs.labels,
        runtime_clock=before.runtime_clock,
        runtime_context=before.runtime_context,
        nodes_total=before.nodes_total,
    )
    run.event_hash = first_event(run).record_hash
    return run


def begin(
    fork: RunView,
    source: RunView,
    node_id: NodeId,
    *,
    asks_again: bool,
    artifacts: Sequence[NodeArtifact],
    change_id: ChangeId,
    now_ms: int,
) -> Change:
    """Return the first change of a fork: the nodes that it takes over, as completed.

    Outputs are taken by reference. What of the source's registry counts is taken over with them,
    without an attempt of its own, as what was there before this run.
    """
    draft = Draft(fork, change_id=change_id, now_ms=now_ms)
    run, reused = draft.run, reused_nodes(source, node_id, asks_again=asks_again)
    run.forked_from, run.forked_from_node = source.run.run_id, node_id
    draft.happen(
        E.RUN_FORKED_FROM,
        metadata={"run_id": source.run.run_id, "node_id": node_id, "reused": len(reused)},
    )
    for number in reused:
        taken = _taken(source.nodes[number])
        left = [_listed(one, now_ms=now_ms) for one in artifacts if _counts(one, number)]
        proof = evidence(taken.output, taken.output_ref, left)
        draft.move(source.plan.nodes[number], E.NODE_REUSED, taken, metadata=proof)
        draft.artifacts += left
    draft.moved = True
    return draft.close()


def _counts(left: NodeArtifact, number: int) -> bool:
    return left.node_no == number and left.validity is Validity.VALID


def _listed(left: NodeArtifact, *, now_ms: int) -> NodeArtifact:
    before = Freshness(current_run=False, current_attempt=False)
    source = CandidateSource.PREEXISTING_OUTPUT
    provenance = msgspec.structs.replace(
        left.provenance, accepted_candidate_source=source, freshness=before
    )
    return msgspec.structs.replace(left, attempt=0, provenance=provenance, registered_at_ms=now_ms)


def _taken(node: NodeRun) -> NodeRun:
    handling = node.handling
    return NodeRun(
        node_no=node.node_no,
        started_at_ms=node.started_at_ms,
        finished_at_ms=node.finished_at_ms,
        output=node.output,
        output_ref=node.output_ref,
        reading=node.reading,
        handling=handling and Handling(by_hand=handling.by_hand, disposition=handling.disposition),
    )
