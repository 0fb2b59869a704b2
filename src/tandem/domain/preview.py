"""What a command would undo, before anybody says it. Nothing is written."""

from collections.abc import Iterable, Sequence

import msgspec

from tandem.domain import decision
from tandem.domain.artifact import NodeArtifact
from tandem.domain.change import Change
from tandem.domain.command import Command, ContinueNode, Repair, RetryNode
from tandem.domain.errors import Refused
from tandem.domain.ids import ChangeId, NodeId, RunId
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.reset import declared_files, has_run
from tandem.domain.run import NodeRun
from tandem.domain.saved_repair import save_repair
from tandem.domain.stored_automation import StoredAutomation
from tandem.domain.view import RunView

E, N = RunEvent, NodeState


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why the command would not be obeyed now."""

    code: str
    message: str


class ResetPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What would be undone, and what may happen twice.

    `reset_nodes` are all nodes that would be pending again, also those that never ran.
    `cleared_outputs` are declared files that would be superseded, `superseded_outputs` the nodes
    whose outputs would, `artifacts` the files that attempts of them left. `effects` are nodes that
    have run and may do again what they did outside the engine; `effects_in_workspace` may do so to
    files. A refused command shows what it would reset if it were allowed.
    """

    run_id: RunId
    node_id: NodeId | None
    status_after: str
    reset_nodes: tuple[str, ...]
    superseded_outputs: tuple[str, ...]
    cleared_outputs: tuple[str, ...]
    artifacts: tuple[str, ...]
    effects: tuple[str, ...]
    effects_in_workspace: tuple[str, ...]
    gates_asked_again: tuple[str, ...]
    waits_again: tuple[str, ...]
    preserves_upstream_outputs: bool = True
    refusal: Refusal | None = None


def preview(
    view: RunView,
    command: Command,
    *,
    now_ms: int,
    artifacts: Sequence[NodeArtifact] = (),
    stored: StoredAutomation | None = None,
) -> ResetPreview:
    """Return what `command` would undo.

    Args:
        view: the run; with the gates that are over for a decision.
        command: what would be asked.
        now_ms: when.
        artifacts: what the nodes of the run have left.
        stored: the stored automation of the run, for a repair that is to be saved.

    Raises:
        NotFound: the command names a node or gate that the run does not have.
        InvalidRequest: the command is wrong whatever the state of the run is.
    """
    node_id: NodeId | None = getattr(command, "node_id", None)
    try:
        change = decision.decide(view, command, change_id=ChangeId("preview"), now_ms=now_ms)
        if isinstance(command, Repair) and command.save:
            save_repair(stored, view.run, command, change)
    except Refused as refused:
        numbers = _would_reset(view, command)
        undone = _Undone(reset=numbers, outputs=numbers, left=numbers)
        return _describe(
            view,
            undone,
            artifacts,
            node_id=node_id,
            status_after=view.run.status.value,
            refusal=Refusal(code=refused.code, message=str(refused)),
        )
    # A decision that was meant for another asking is written, and whoever gave it is refused.
    denial = change.denial
    return _describe(
        view,
        _undone_by(view, change),
        artifacts,
        node_id=node_id,
        status_after=change.run.status.value,
        refusal=None if denial is None else Refusal(code=denial.code, message=denial.message),
    )


class _Undone(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes that would be pending again, get other outputs, or whose files would not count."""

    reset: set[int]
    outputs: set[int]
    left: set[int]


def _undone_by(view: RunView, change: Change) -> _Undone:
    """Return what a change undoes; those after its nodes that never ran are pending again, too."""
    names = [e.node_id for e in change.events if e.event is E.NODE_RESET and e.node_id is not None]
    found = {view.plan.by_id[name] for name in names}
    after = view.plan.with_descendants(found)
    return _Undone(
        reset=found | {n for n in after if view.node(n).state is N.PENDING},
        outputs={node.node_no for node in change.nodes if _is_other(node, view.node(node.node_no))},
        left={gone.node_no for gone in change.invalidated},
    )


def _would_reset(view: RunView, command: Command) -> set[int]:
    """Return what a command would reset that is refused as the run is now."""
    node_id: NodeId | None = getattr(command, "node_id", None)
    root = view.plan.by_id.get(node_id) if node_id is not None else None
    match command:
        case RetryNode() | Repair() if root is not None:
            return set(view.plan.with_descendants([root]))
        case ContinueNode() if root is not None:
            return {root}
        case _:
            return set()


def _describe(
    view: RunView,
    undone: _Undone,
    artifacts: Sequence[NodeArtifact],
    *,
    node_id: NodeId | None,
    status_after: str,
    refusal: Refusal | None,
) -> ResetPreview:
    chosen = sorted(undone.reset)
    ran = [n for n in chosen if has_run(view.node(n))]
    effects = {n: view.plan.nodes[n].node.effective_effects for n in ran}
    files = {a.ref.path or a.ref.name for a in artifacts if a.node_no in undone.left}
    return ResetPreview(
        run_id=view.run.run_id,
        node_id=node_id,
        status_after=status_after,
        reset_nodes=tuple(sorted(_names(view, chosen))),
        superseded_outputs=_names(
            view, [n for n in sorted(undone.outputs) if _has_output(view, n)]
        ),
        cleared_outputs=tuple(declared_files(view, undone.left)),
        artifacts=tuple(sorted(files)),
        effects=_names(view, [n for n in ran if effects[n] == "external"]),
        effects_in_workspace=_names(view, [n for n in ran if effects[n] == "workspace"]),
        gates_asked_again=_names(
            view, [n for n in chosen if view.node(n).gates and view.plan.nodes[n].node.is_approval]
        ),
        waits_again=_names(
            view,
            [
                n
                for n in chosen
                if view.plan.nodes[n].is_parked
                and view.node(n).gates
                and not view.plan.nodes[n].node.is_approval
            ],
        ),
        refusal=refusal,
    )


def _has_output(view: RunView, number: int) -> bool:
    node = view.node(number)
    return node.output is not None or node.output_ref is not None


def _is_other(node: NodeRun, before: NodeRun) -> bool:
    return (node.output, node.output_ref) != (before.output, before.output_ref)


def _names(view: RunView, numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(view.plan.nodes[n].node_id for n in numbers)
