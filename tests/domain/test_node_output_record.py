"""The outputs of nodes as the wire contract shows them."""

from typing import Any

import msgspec
import pytest
from tests.domain.pictured import picture_of, record_of

from tandem.domain import run_picture
from tandem.domain.artifact import ArtifactRef
from tandem.domain.command import DecideGate, Dispose, RetryNode, Skip
from tandem.domain.ids import Digest, NodeId
from tandem.domain.node import Node
from tandem.domain.node_output_record import validator_of
from tandem.domain.outcome import Blocked, FailureClass
from tandem.domain.reading import Reading, Relaxation
from tandem.domain.run import Handling
from tandem.testing.builders import gate_node, python_node, timer_node
from tandem.testing.tale import Tale


def outputs(tale: Tale) -> dict[str, Any]:
    found: dict[str, Any] = record_of(tale)["checkpoint"]["node_outputs"]
    return found


def test_a_plain_success_is_its_content_and_the_verdict_on_it() -> None:
    tale = Tale(python_node("a"), python_node("b", "a"))
    tale.claim().succeed("a", output=b'{"summary": " all is well ", "approved": true}')

    record = outputs(tale)["a"]

    assert outputs(tale).keys() == {"a"}
    assert record["content"] == {"summary": " all is well ", "approved": True}
    assert (record["status"], record["summary"]) == ("completed", "all is well")
    assert (record["contract_kind"], record["validator_kind"]) == (
        "text_summary",
        "generic_artifact",
    )
    assert (record["node_id"], record["created_at_ms"]) == ("a", tale.now_ms)
    assert record["attempt_verdict"]["outcome"] == "succeeded"
    assert record["attempt_evidence"]["attempt"] == 1
    assert not record.keys() & {"validator_summary", "blocked_reason", "failure_kind", "approved"}


def test_a_text_is_its_own_summary_and_anything_else_gets_one() -> None:
    tale = Tale(python_node("a"), python_node("b"))
    tale.claim().succeed("a", output=b'"%s"' % (b"word " * 100))
    tale.succeed("b", output=b"[1]")

    assert len(outputs(tale)["a"]["summary"]) <= 200
    assert outputs(tale)["b"]["summary"] == "node `b` is completed"


@pytest.mark.parametrize("field", ["output_contract", "stage_kind"])
def test_a_review_says_whether_it_approves(field: str) -> None:
    fields: dict[str, Any] = {
        "output_contract": {"kind": "review"},
        "stage_kind": "review",
    }
    tale = Tale(python_node("r", **{field: fields[field]}))
    tale.claim().succeed("r", output=b'{"approved": true}')
    assert outputs(tale)["r"]["approved"] is True


def test_a_large_output_is_the_reference_of_its_artifact() -> None:
    ref = ArtifactRef(
        name="output", digest=Digest("sha256:1"), size_bytes=9, media_type="application/json"
    )
    tale = Tale(python_node("a"))
    tale.claim().succeed("a", output=None, output_ref=ref)  # type: ignore[arg-type] # put aside
    assert outputs(tale)["a"]["content"] == {"artifact": msgspec.to_builtins(ref)}


def test_outputs_are_shown_until_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.domain.checkpoint_record.CONTENT_BYTES_MAX", 3)
    tale = Tale(python_node("a"), python_node("b"))
    tale.claim().succeed("a", output=b"[1]")
    tale.succeed("b", output=b"[2]")

    assert outputs(tale)["a"]["content"] == [1]
    assert outputs(tale)["b"]["content"] == {"omitted": {"size_bytes": 3}}
    assert run_picture.CONTENT_BYTES_MAX == 1_048_576


def test_gates_waits_and_skipped_nodes_have_outputs_of_the_engine() -> None:
    tale = Tale(gate_node("g"), timer_node("w"), python_node("s"))
    tale.view.run.started_by = "ann"
    tale.claim()
    tale.command(DecideGate(decision="approve", node_id=NodeId("g"), decided_by="bob"))
    tale.succeed("s")
    found = outputs(tale)["g"]
    assert found["contract_kind"] == "approval_gate"
    assert found["content"]["decided_by"] == "bob"
    assert not found.keys() & {"validator_kind", "attempt_verdict"}
    assert "w" not in outputs(tale)


def test_a_node_that_was_skipped_by_hand_says_so() -> None:
    tale = Tale(python_node("a", retry_policy={"max_attempts": 1}))
    tale.claim().fail("a")
    tale.command(Skip(node_id=NodeId("a"), reason="not today", decided_by="ann"))

    record = outputs(tale)["a"]

    assert record["provenance"] == {"by_hand": "skipped"}
    assert record["content"]["status"] == "skipped"


def test_what_misses_its_contract_and_may_be_repaired_needs_repair() -> None:
    tale = Tale(python_node("a", output_contract={"kind": "brief"}))
    tale.claim().repair("a", unmet=("missing_section",))

    record = outputs(tale)["a"]

    assert (record["status"], record["failure_kind"]) == (
        "needs_repair",
        "artifact_contract_unmet",
    )
    assert record["content"] is None
    assert record["blocked_reason"] == record["summary"] == "too short; no title"
    assert record["workflow_class"] == "research"
    summary = record["validator_summary"]
    assert (summary["kind"], summary["outcome"]) == ("research_brief", "needs_repair")
    assert summary["unmet_requirements"] == ["missing_section"]
    assert (summary["repair_attempted"], summary["repair_exhausted"]) == (True, False)
    assert record["artifact_validation"]["unmet_requirements"] == ["missing_section"]
    assert record["artifact_validation"]["human_disposition"] == "unmarked"
    assert record["attempt_verdict"]["consumes_repair_budget"] is True


def test_what_could_not_be_repaired_is_blocked_and_keeps_what_there_was() -> None:
    retry = {"max_attempts": 2}
    tale = Tale(python_node("a", retry_policy=retry), python_node("b", "a"))
    tale.claim().repair("a")
    tale.repair("a")

    found = outputs(tale)

    assert found.keys() == {"a"}
    record = found["a"]
    assert (record["status"], record["content"]) == ("blocked", "draft")
    assert record["failure_kind"] == record["blocker_category"] == "artifact_contract_unmet"
    assert record["validator_summary"]["repair_exhausted"] is True
    assert record["artifact_validation"]["unmet_requirements"] == ["too short", "no title"]


def test_a_failed_verification_is_verify_failed() -> None:
    tale = Tale(python_node("a", retry_policy={"max_attempts": 1}))
    tale.claim().repair("a", FailureClass.VERIFICATION_FAILED)
    assert outputs(tale)["a"]["status"] == "verify_failed"
    assert outputs(tale)["a"]["failure_kind"] == "verification_failed"


def test_an_attempt_that_broke_is_told_until_the_node_is_reset() -> None:
    backoff = {"strategy": "fixed", "initial_delay_ms": 500}
    tale = Tale(python_node("a", retry_policy={"max_attempts": 2, "backoff": backoff}))
    tale.claim().fail("a")
    record = outputs(tale)["a"]
    assert (record["status"], record["failure_kind"]) == ("needs_repair", "execution_failed")
    assert record["blocked_reason"] == "it broke"

    tale.now_ms += 500
    tale.claim()
    assert outputs(tale)["a"]["status"] == "needs_repair"
    tale.fail("a")
    assert outputs(tale)["a"]["status"] == "failed"
    assert outputs(tale)["a"]["failure_kind"] == "run_failed"
    tale.command(RetryNode(node_id=NodeId("a")))
    assert outputs(tale) == {}
    tale.claim()
    assert outputs(tale) == {}


def test_what_was_let_pass_and_what_a_person_thinks_stand_with_the_validation() -> None:
    relaxation = Relaxation(
        relaxed_validator_classes=("missing_required_section",),
        effective_outcome="experimental",
        original_status="needs_repair",
        execution_profile="yolo",
    )
    tale = Tale(python_node("a", retry_policy={"max_attempts": 1}), profile="yolo")
    tale.claim().repair("a", relaxation=relaxation)
    tale.command(Dispose(node_id=NodeId("a"), disposition="ok", decided_by="ann"))

    record = outputs(tale)["a"]

    assert record["validator_summary"]["outcome"] == "experimental"
    assert record["validator_summary"]["warning_count"] == 2
    told = record["artifact_validation"]
    assert told["relaxed_validator_classes"] == ["missing_required_section"]
    assert told["human_disposition"] == "accepted"
    assert record["provenance"] == {"experimental": True, "tainted_inputs": []}
    assert not record.keys() & {"blocked_reason", "failure_kind"}


def test_a_node_that_was_sent_out_again_says_how_often() -> None:
    tale = Tale(python_node("a"))
    tale.claim().succeed("a")
    handled = Handling(dispatches=2, dispatched_at_ms=5)
    node = msgspec.structs.replace(tale.node("a"), handling=handled, reading=Reading())
    tale.view.nodes[0] = node
    record = outputs(tale)["a"]
    assert record["provenance"] == {"dispatches": 2, "dispatched_at_ms": 5}
    assert record["validator_summary"]["outcome"] == "passed"


def test_a_blocker_has_its_kind() -> None:
    tale = Tale(python_node("a"))
    tale.claim().settle("a", Blocked(kind="semantic_blocked", reason="no access"))
    record = outputs(tale)["a"]
    assert (record["status"], record["failure_kind"]) == ("blocked", "semantic_blocked")
    assert record["validator_summary"]["repair_exhausted"] is False


def test_a_picture_without_attempts_still_tells() -> None:
    tale = Tale(python_node("a", retry_policy={"max_attempts": 1}))
    tale.claim().fail("a")
    tale.view.nodes[0] = msgspec.structs.replace(tale.node("a"), finished_at_ms=None)
    picture = msgspec.structs.replace(picture_of(tale), attempts=())
    from tandem.domain.run_record import run_record

    record = run_record(picture, None)["checkpoint"]["node_outputs"]["a"]
    assert record["created_at_ms"] == tale.now_ms
    assert not record.keys() & {"attempt_verdict", "attempt_evidence"}


@pytest.mark.parametrize(
    ("fields", "validator"),
    [
        ({}, "generic_artifact"),
        ({"output_contract": {"kind": "brief"}}, "research_brief"),
        ({"output_contract": {"kind": "review"}}, "review_decision"),
        ({"output_contract": {"schema": {"type": "object"}}}, "structured_json"),
        ({"output_contract": {"kind": "brief", "validator": "standup_update"}}, "standup_update"),
        ({"metadata": {"builder": {"task_kind": "code_change"}}}, "code_patch"),
    ],
)
def test_the_checks_of_an_output(fields: dict[str, Any], validator: str) -> None:
    assert validator_of(Node.model_validate({"node_id": "a"} | fields)).value == validator
