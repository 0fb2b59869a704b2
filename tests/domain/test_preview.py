"""What a command would undo."""

import pytest
from tests.domain.operated import A, B, C, chain_in, fork_of

from tandem.domain.artifact import ArtifactRef
from tandem.domain.change import NodeArtifact
from tandem.domain.command import (
    Command,
    ContinueNode,
    DecideGate,
    Recover,
    Repair,
    RetryNode,
    SetOutput,
    Skip,
)
from tandem.domain.errors import NotFound
from tandem.domain.forking import begin
from tandem.domain.ids import ChangeId, Digest, GateId, NodeId
from tandem.domain.lifecycle import RunState
from tandem.domain.preview import preview
from tandem.domain.view import RunView
from tandem.testing.builders import gate_node, python_node, timer_node
from tandem.testing.tale import Tale


def left(node_no: int, name: str, path: str = "") -> NodeArtifact:
    ref = ArtifactRef(name=name, digest=Digest("d"), size_bytes=1, media_type="x", path=path)
    return NodeArtifact(node_no=node_no, attempt=1, ref=ref)


def story() -> Tale:
    """Return a completed run with one of everything."""
    contract = {"kind": "report", "required_files": ["b.md", "a.md"]}
    tale = Tale(
        python_node("a"),
        python_node("send", "a", effects="external"),
        gate_node("g", "send"),
        python_node("file", "g", output_contract=contract, effects="workspace"),
        timer_node("t", "file", delay_ms=5),
    ).claim()
    tale.succeed("a")
    tale.succeed("send")
    tale.command(DecideGate(decision="approve"))
    tale.claim()
    tale.succeed("file")
    return tale


def test_preview_names_everything_that_would_be_undone_and_writes_nothing() -> None:
    tale = story()
    tale.view.run.status = RunState.PAUSED
    before = tale.view.run
    artifacts = [left(0, "log"), left(1, "sent"), left(3, "b", "b.md")]

    found = preview(
        tale.view, RetryNode(node_id=NodeId("send")), now_ms=tale.now_ms, artifacts=artifacts
    )

    assert found.status_after == "queued"
    assert found.reset_nodes == ("file", "g", "send", "t")
    assert found.superseded_outputs == ("send", "g", "file")
    assert found.cleared_outputs == ("a.md", "b.md")
    assert found.artifacts == ("b.md", "sent")
    assert found.effects == ("send",)
    assert found.effects_in_workspace == ("file",)
    assert found.gates_asked_again == ("g",)
    assert found.waits_again == ("t",)
    assert found.preserves_upstream_outputs
    assert found.refusal is None
    assert tale.view.run is before


def test_refused_command_shows_what_it_would_reset_and_why_it_may_not() -> None:
    tale = chain_in(RunState.PAUSING)
    found = preview(tale.view, RetryNode(node_id=B), now_ms=0)
    assert found.refusal is not None
    assert found.refusal.code == "AUTOMATION_V2_RUN_TASK_NOT_MUTABLE"
    assert found.reset_nodes == ("b", "c")
    assert found.status_after == "pausing"

    refused = preview(chain_in(RunState.RUNNING).view, Recover(), now_ms=0)
    assert refused.refusal is not None
    assert refused.reset_nodes == ()


def test_nodes_that_never_ran_are_named_with_those_that_did() -> None:
    found = preview(chain_in(RunState.FAILED).view, Recover(), now_ms=0)
    assert found.reset_nodes == ("b", "c")
    assert found.superseded_outputs == ()


def test_node_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound):
        preview(chain_in(RunState.FAILED).view, Repair(node_id=NodeId("z")), now_ms=0)


def test_rework_of_a_gate_can_be_looked_at_first() -> None:
    tale = chain_in(RunState.AWAITING_APPROVAL)
    found = preview(tale.view, DecideGate(decision="rework"), now_ms=0)
    assert found.reset_nodes == ("a", "b", "g")
    assert found.node_id is None
    assert preview(tale.view, RetryNode(node_id=A), now_ms=0).reset_nodes == ("a", "b", "g")


def test_output_that_is_set_supersedes_that_of_the_node_itself() -> None:
    tale = chain_in(RunState.COMPLETED)
    command = SetOutput(node_id=B, output=b"7", reason="better")
    artifacts = [left(1, "b"), left(2, "c")]
    found = preview(tale.view, command, now_ms=0, artifacts=artifacts)
    assert found.reset_nodes == ("c",)
    assert found.superseded_outputs == ("b", "c")
    assert found.artifacts == ("b", "c")


@pytest.mark.parametrize(
    ("command", "nodes"),
    [
        (ContinueNode(node_id=B), ("b",)),
        (Skip(node_id=A, reason="no need"), ()),
        (DecideGate(decision="approve", node_id=A), ()),
    ],
)
def test_refused_command_shows_nothing_that_it_would_not_reset(
    command: Command, nodes: tuple[str, ...]
) -> None:
    found = preview(chain_in(RunState.PAUSED).view, command, now_ms=0)
    assert found.refusal is not None
    assert found.reset_nodes == nodes


def test_decision_that_is_meant_for_another_asking_is_shown_as_refused() -> None:
    tale = chain_in(RunState.AWAITING_APPROVAL)
    meant = DecideGate(decision="rework", gate_id=GateId("another"))
    found = preview(tale.view, meant, now_ms=0)
    assert found.refusal is not None
    assert found.refusal.code == "AUTOMATION_V2_GATE_TRANSITION_GUARD_DENIED"
    assert found.reset_nodes == ()


def test_what_a_fork_took_over_has_effects_that_may_repeat() -> None:
    tale = chain_in(RunState.COMPLETED, effects="external")
    fork = RunView(fork_of(tale), tale.view.plan)
    first = begin(
        fork,
        tale.view,
        C,
        asks_again=False,
        artifacts=(),
        change_id=ChangeId("f2"),
        now_ms=10,
    )
    fork.apply(first)
    fork.run.status = RunState.PAUSED
    found = preview(fork, RetryNode(node_id=A), now_ms=11)
    assert (found.effects, found.superseded_outputs) == (("b",), ("a", "b"))


def test_repair_that_cannot_be_saved_is_shown_as_refused() -> None:
    tale = chain_in(RunState.FAILED)
    action = {"kind": "command", "argv": ["true"]}
    command = Repair(node_id=B, action=action, save=True)
    found = preview(tale.view, command, now_ms=0)
    assert found.refusal is not None
    assert found.refusal.code == "AUTOMATION_V2_REPAIR_PERSIST_FAILED"
    assert found.reset_nodes == ("b", "c")
