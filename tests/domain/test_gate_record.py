"""A gate as the wire contract shows it."""

from typing import Any

import pytest

from tandem.domain.command import DecideGate, Wake
from tandem.domain.gate_record import (
    decision_record,
    denial_record,
    on_expiry_words,
    pending_gate,
)
from tandem.domain.ids import LOCAL_TENANT, GateId
from tandem.domain.tenant import context_json
from tandem.testing.builders import gate_node, python_node
from tandem.testing.tale import Tale


def asked(*, metadata: object = None, **policy: Any) -> Tale:
    expiry = {"expires_after_ms": 1_000} | policy
    gate = {"required": True, "expiry_policy": expiry, "rework_targets": ["a"]}
    tale = Tale(python_node("a"), gate_node("g", "a", gate=gate, metadata=metadata))
    tale.view.run.started_by = "ann"
    tale.claim().succeed("a")
    return tale


def shown(tale: Tale) -> dict[str, Any]:
    (gate,) = tale.open_gates()
    run = tale.run
    return pending_gate(gate, run_id=run.run_id, tenant=run.tenant, plan=tale.view.plan)


def test_pending_gate_names_everything_that_a_decision_needs() -> None:
    record = shown(asked(metadata={"approval": {"record_reviewed_artifact_hash": True}}))

    assert record["approval_request_id"] == "automation_v2:run:g"
    assert record["transition_id"] == "automation_v2:run:g:decision"
    assert (record["upstream_node_ids"], record["rework_targets"]) == (["a"], ["a"])
    assert record["requested_by"] == "ann"
    assert record["metadata"]["approval_wait"]["wait_id"] == "automation_v2:run:g:wait"
    guard = record["metadata"]["transition_guard"]
    assert guard["kind"] == "automation_v2_approval_transition"
    assert guard["tenant"] == context_json(LOCAL_TENANT)
    assert record["metadata"]["reviewed_artifact"]["source_node_id"] == "a"
    assert record["metadata"].keys() == {"approval_wait", "transition_guard", "reviewed_artifact"}


def test_pending_gate_shows_what_time_did_to_it() -> None:
    tale = asked(on_expiry="escalate", escalate_to="lead")
    tale.now_ms += 1_000
    tale.command(Wake())
    state = shown(tale)["metadata"]["gate_policy_state"]
    assert (state["escalated_to"], state["escalated_at_ms"]) == ("lead", tale.now_ms)
    assert "stale" not in shown(tale)["metadata"]

    tale.now_ms += 86_400_000
    tale.command(Wake())

    assert shown(tale)["metadata"]["stale"] is True


def test_history_has_decisions_and_denials() -> None:
    tale = asked()
    (gate,) = tale.open_gates()
    assert decision_record(gate) is None
    tale.command(DecideGate(decision="approve", gate_id=GateId("other"), decided_by="eve"))
    denied = denial_record(tale.events[-1])
    assert denied is not None
    assert (denied["decision"], denied["decided_by"]) == ("guard_denied", "eve")

    tale.command(DecideGate(decision="approve", decided_by="bob", reason="fine"))

    assert denial_record(tale.events[-1]) is None
    record = decision_record(tale.gates[gate.gate_id])
    assert record is not None
    assert (record["decision"], record["decided_by"], record["reason"]) == (
        "approve",
        "bob",
        "fine",
    )


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({}, "ends the run"),
        ({"on_expiry": "resume"}, "lets the run go on"),
        ({"on_expiry": "remind"}, "reminds"),
        ({"on_expiry": "escalate", "escalate_to": "lead"}, "tells lead"),
        ({"on_expiry": "escalate", "escalate_to": " "}, "tells whoever is in charge"),
    ],
)
def test_words_say_what_follows_when_nobody_decides(policy: dict[str, Any], words: str) -> None:
    (gate,) = asked(**policy).open_gates()
    assert on_expiry_words(gate) == words


def test_question_about_an_outcome_waits_for_ever() -> None:
    tale = Tale(python_node("a", effects="external")).claim()
    tale.stop("a")
    (gate,) = tale.open_gates()
    assert on_expiry_words(gate) == "waits for ever"
