"""What a command would undo, before anybody says it. Nothing is written."""

from collections.abc import Iterable, Sequence

import msgspec

from tandem.domain import decision
from tandem.domain.artifact import NodeArtifact
from tandem.domain.change import Change
from tandem.domain.command import Command
from tandem.domain.errors import Refused
from tandem.domain.ids import ChangeId, NodeId, RunId
from tandem.domain.lifecycle import NodeState, RunEvent
from tandem.domain.reset import declared_files
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
    view: RunView, command: Command, *, now_ms: int, artifacts: Sequence[NodeArtifact] = ()
) -> ResetPreview:
    """Return what `command` would undo.

    Raises:
        NotFound: the command names a node or gate that the run does not have.
        InvalidRequest: the command is wrong whatever the state of the run is.
    """
    node_id: NodeId | None = getattr(command, "node_id", None)
    refusal: Refusal | None = None
    status = view.run.status
    try:
        change = decision.decide(view, command, change_id=ChangeId("preview"), now_ms=now_ms)
        numbers, status = _reset_by(view, change), change.run.status
    except Refused as refused:
        refusal = Refusal(code=refused.code, message=str(refused))
        root = view.plan.by_id.get(node_id) if node_id is not None else None
        numbers = set() if root is None else set(view.plan.with_descendants([root]))
    return _describe(
        view,
        numbers,
        artifacts,
        node_id=node_id,
        status_after=status.value,
        refusal=refusal,
    )


def _reset_by(view: RunView, change: Change) -> set[int]:
    """Return the nodes that a change makes pending, with those after them that never ran."""
    names = [e.node_id for e in change.events if e.event is E.NODE_RESET and e.node_id is not None]
    found = {view.plan.by_id[name] for name in names}
    after = view.plan.with_descendants(found)
    return found | {n for n in after if view.node(n).state is N.PENDING}


def _describe(
    view: RunView,
    numbers: Iterable[int],
    artifacts: Sequence[NodeArtifact],
    *,
    node_id: NodeId | None,
    status_after: str,
    refusal: Refusal | None,
) -> ResetPreview:
    chosen = sorted(numbers)
    ran = [n for n in chosen if view.node(n).attempts]
    effects = {n: view.plan.nodes[n].node.effective_effects for n in ran}
    return ResetPreview(
        run_id=view.run.run_id,
        node_id=node_id,
        status_after=status_after,
        reset_nodes=tuple(sorted(_names(view, chosen))),
        superseded_outputs=_names(view, [n for n in chosen if _has_output(view, n)]),
        cleared_outputs=tuple(declared_files(view, chosen)),
        artifacts=tuple(sorted({a.ref.path or a.ref.name for a in artifacts if a.node_no in ran})),
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


def _names(view: RunView, numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(view.plan.nodes[n].node_id for n in numbers)
