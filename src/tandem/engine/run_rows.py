"""The rows of one run as programs get them that tell its whole story, here or over the wire."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from tandem.domain.artifact import NodeArtifact
from tandem.domain.automation import canonical_document, parse_document
from tandem.domain.errors import EngineError, NotFound, Refused
from tandem.domain.graph import Plan
from tandem.domain.ids import NodeId, RunId, TenantId
from tandem.domain.json import JsonValue, decode
from tandem.domain.lifecycle import NodeState
from tandem.domain.run import OPEN_WAITS, Attempt, Gate, GateStatus, NodeRun, Run, Wait
from tandem.domain.standing import Reason
from tandem.domain.view import RunView
from tandem.ports.artifacts import Artifacts
from tandem.ports.store import Store

OUTPUT_BYTES_MAX: Final = 65_536
"""A larger output is told as the reference of its artifact."""
OUTPUTS_BYTES_MAX: Final = 1_048_576
"""Once the outputs have so many bytes together, the rest are only counted."""
FORKS_MAX: Final = 20


class ForkRow(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was forked, and the node from which it went its own way."""

    run_id: RunId
    node_id: NodeId


class RunRows(msgspec.Struct, frozen=True, kw_only=True):
    """A run, its nodes without what they left, and what the last nodes left in `outputs`.

    `definition` is the canonical document of the version that the run executes, as text. `gates`
    is every asking, oldest first; `waits` are the open ones; `forks` the oldest runs that were
    forked from it.
    """

    run: Run
    definition: str
    nodes: Sequence[NodeRun]
    attempts: Sequence[Attempt]
    gates: Sequence[Gate]
    waits: Sequence[Wait]
    artifacts: Sequence[NodeArtifact]
    forks: Sequence[ForkRow]
    outputs: dict[str, Any]
    reason: Reason
    now_ms: int

    def view(self) -> RunView:
        """Return the run as the engine sees it, without the outputs."""
        return RunView(
            self.run,
            Plan(parse_document(self.definition.encode()), self.run.definition_digest),
            self.nodes,
            [gate for gate in self.gates if gate.status is GateStatus.OPEN],
            [wait for wait in self.waits if wait.status in OPEN_WAITS],
        )


def read_rows(
    store: Store,
    artifacts: Artifacts,
    view: RunView,
    *,
    reason: Reason,
    tenant: TenantId,
    now_ms: int,
) -> RunRows:
    """Return the rows of a run that was loaded.

    Raises:
        NotFound: no such run for this tenant any more.
    """
    run_id = view.run.run_id
    return RunRows(
        run=view.run,
        definition=canonical_document(view.plan.automation).decode(),
        nodes=[
            msgspec.structs.replace(node, output=None) for _, node in sorted(view.nodes.items())
        ],
        attempts=store.list_attempts(run_id, tenant=tenant),
        gates=store.list_gates_of_run(run_id, tenant=tenant),
        waits=list(view.waits.values()),
        artifacts=store.list_artifacts(run_id, tenant=tenant),
        forks=list_forks(store, run_id, tenant=tenant),
        outputs=last_outputs(view, artifacts, tenant=tenant),
        reason=reason,
        now_ms=now_ms,
    )


def list_forks(store: Store, run_id: RunId, *, tenant: TenantId) -> list[ForkRow]:
    """Return the oldest runs that were forked from a run."""
    return [
        ForkRow(run_id=fork.run_id, node_id=fork.forked_from_node or NodeId(""))
        for fork in store.list_forks(run_id, tenant=tenant, limit=FORKS_MAX)
    ]


def last_outputs(view: RunView, artifacts: Artifacts, *, tenant: TenantId) -> dict[str, JsonValue]:
    """Return the outputs of the completed nodes that nothing comes after."""
    found: dict[str, JsonValue] = {}
    size_bytes = 0
    for plan_node in view.plan.nodes:
        node = view.node(plan_node.node_no)
        if plan_node.successors or node.state is not NodeState.COMPLETED:
            continue
        ref = node.output_ref
        if ref is not None and ref.size_bytes > OUTPUT_BYTES_MAX:
            found[plan_node.node_id] = {"artifact": msgspec.to_builtins(ref)}
            continue
        try:
            content = read_output(node, artifacts, tenant=tenant)
        except EngineError as error:
            found[plan_node.node_id] = {"error": str(error)}
            continue
        size_bytes += len(content)
        if size_bytes > OUTPUTS_BYTES_MAX:
            found[plan_node.node_id] = {"omitted": {"size_bytes": len(content)}}
        else:
            found[plan_node.node_id] = decode(content)
    return found


def read_output(node: NodeRun, artifacts: Artifacts, *, tenant: TenantId) -> bytes:
    """Return the output of a completed node as JSON text.

    Raises:
        NotFound: it was large and its file is gone.
    """
    if node.output is not None:
        return node.output
    if node.output_ref is not None:
        return artifacts.get(tenant, node.output_ref)
    return b"null"


def output_of(view: RunView, node_id: NodeId, artifacts: Artifacts, *, tenant: TenantId) -> bytes:
    """Return the output of a node as JSON text.

    Raises:
        NotFound: the run has no such node, or the output was large and its file is gone.
        Refused: the node has no output now.
    """
    plan_node = view.plan.node(node_id)
    if plan_node is None:
        names = ", ".join(n.node_id for n in view.plan.nodes[:20])
        raise NotFound(
            f"run {view.run.run_id} has no node `{node_id}`; it has {names}",
            code="AUTOMATION_V2_TASK_NODE_NOT_FOUND",
        )
    node = view.node(plan_node.node_no)
    if node.state is not NodeState.COMPLETED:
        raise Refused(f"node `{node_id}` is {node.state.value} and has no output", code="no_output")
    return read_output(node, artifacts, tenant=tenant)
