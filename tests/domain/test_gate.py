"""One asking of a gate: which decision counts, what time does, what rework takes back."""

from typing import Any

import pytest

from tandem.domain.artifact import ArtifactRef
from tandem.domain.change import Change
from tandem.domain.command import (
    Adopt,
    Claim,
    Command,
    DecideGate,
    HandBack,
    Panic,
    Pause,
    ProcessesEnded,
    Recover,
    Resume,
    Wake,
)
from tandem.domain.decision import decide
from tandem.domain.driving import advance
from tandem.domain.errors import Refused
from tandem.domain.gate_policy import GatePolicy
from tandem.domain.ids import ChangeId, Digest, GateId, NodeId
from tandem.domain.lifecycle import NodeState, RunState, StopKind
from tandem.domain.outcome import Succeeded
from tandem.domain.run import Gate, GateStatus
from tandem.domain.settling import Settled
from tandem.testing.builders import gate_node, python_node
from tandem.testing.tale import ENGINE, Tale

N, S = NodeState, RunState

REQUEST = GateId("automation_v2:run:g")


def asked(*, on_expiry: str = "cancel", **policy: Any) -> Tale:
    """Return a run whose first node is completed and reviewed at gate `g`, before `b`."""
    expiry = {"expires_after_ms": 1_000, "on_expiry": on_expiry} | policy
    tale = Tale(
        python_node("a"),
        gate_node("g", "a", gate={"required": True, "expiry_policy": expiry}),
        python_node("b", "g"),
    ).claim()
    tale.succeed("a")
    return tale


def pass_ms(tale: Tale, span_ms: int) -> list[str]:
    """Let time pass, let the sweep look, return what happened."""
    tale.now_ms += span_ms
    tale.command(Wake())
    return tale.happened()


def only_gate(tale: Tale) -> Gate:
    (gate,) = tale.gates.values()
    return gate


# One asking


def test_gate_carries_the_ids_of_its_asking() -> None:
    gate = only_gate(asked())

    assert gate.gate_id == REQUEST
    assert gate.transition_id == f"{REQUEST}:decision"


def test_gate_that_is_reached_again_is_another_asking() -> None:
    tale = asked()
    tale.command(
        DecideGate(decision="rework", gate_id=REQUEST, transition_id=f"{REQUEST}:decision")
    )
    tale.claim()
    tale.succeed("a")

    (gate,) = tale.open_gates()
    assert (gate.gate_id, gate.instance) == (f"{REQUEST}/2", 2)


@pytest.mark.parametrize(
    ("ids", "code"),
    [
        ({"gate_id": GateId("automation_v2:run:other")}, "approval_request_id_mismatch"),
        ({"transition_id": "automation_v2:run:other:decision"}, "transition_id_mismatch"),
    ],
)
def test_decision_for_another_asking_is_refused_and_recorded(
    ids: dict[str, Any], code: str
) -> None:
    tale = asked()

    change = tale.command(DecideGate(decision="approve", decided_by="eve", **ids))

    assert change.denial is not None
    assert change.denial.code == "AUTOMATION_V2_GATE_TRANSITION_GUARD_DENIED"
    assert change.denial.details["transitionGuard"]["reason_code"] == code
    assert tale.happened() == ["approval_gate_transition_guard_denied"]
    assert tale.events[-1].metadata["decision"] == "guard_denied"
    gate = only_gate(tale)
    assert (tale.status, gate.status, gate.guard_denials) == (
        S.AWAITING_APPROVAL,
        GateStatus.OPEN,
        1,
    )
    tale.command(DecideGate(decision="approve", gate_id=REQUEST))
    assert tale.node("g").state is N.COMPLETED


def test_decision_for_an_earlier_asking_does_not_count_for_the_next() -> None:
    tale = asked()
    tale.command(DecideGate(decision="rework", gate_id=REQUEST))
    tale.claim()
    tale.succeed("a")

    change = tale.command(DecideGate(decision="approve", gate_id=REQUEST))

    assert change.denial is not None
    assert tale.node("g").state is N.GATED


def test_second_decision_hears_who_won_and_changes_nothing() -> None:
    tale = asked()
    tale.command(DecideGate(decision="approve", gate_id=REQUEST, decided_by="eve", reason="fine"))
    changes = len(tale.changes)

    for command in (
        DecideGate(decision="cancel", gate_id=REQUEST),
        DecideGate(decision="cancel", node_id=NodeId("g")),
        DecideGate(decision="cancel"),
    ):
        with pytest.raises(Refused, match="gate `g` was decided already: approve by eve") as late:
            tale.command(command)
        assert late.value.code == "AUTOMATION_V2_RUN_NOT_AWAITING_APPROVAL"
        assert late.value.details["winningDecision"] == {
            "node_id": "g",
            "decision": "approve",
            "reason": "fine",
            "decided_at_ms": tale.now_ms,
            "decided_by": "eve",
        }
    assert len(tale.changes) == changes


def test_winner_is_the_one_that_was_asked_about() -> None:
    tale = Tale(gate_node("g"), gate_node("h"), python_node("a")).claim()
    tale.command(DecideGate(decision="approve", node_id=NodeId("g")))

    with pytest.raises(Refused, match="no open gate node `a`; open: h"):
        tale.command(DecideGate(decision="approve", node_id=NodeId("a")))
    with pytest.raises(Refused, match="gate `g` was decided already: approve"):
        tale.command(DecideGate(decision="approve", node_id=NodeId("g")))
    change = tale.command(DecideGate(decision="approve", gate_id=GateId("never")))
    assert change.denial is not None


def test_late_decision_for_an_earlier_asking_hears_of_that_one() -> None:
    tale = Tale(gate_node("g"), gate_node("h", "g")).claim()
    tale.command(DecideGate(decision="approve", decided_by="eve"))
    tale.claim()
    tale.command(DecideGate(decision="approve", decided_by="bob"))

    with pytest.raises(Refused, match="gate `g` was decided already: approve by eve"):
        tale.command(DecideGate(decision="cancel", gate_id=REQUEST))


def test_withdrawn_asking_won_nothing() -> None:
    gate = {"required": True, "rework_targets": ["a"]}
    tale = Tale(python_node("a"), gate_node("g", "a", gate=gate), gate_node("h", "a")).claim()
    tale.succeed("a")
    tale.command(DecideGate(decision="rework", node_id=NodeId("g")))

    with pytest.raises(Refused, match="the run has not reached one") as late:
        tale.command(DecideGate(decision="approve", node_id=NodeId("h")))
    assert "winningDecision" not in late.value.details


@pytest.mark.parametrize("action", ["cancel", "resume"])
def test_decision_after_the_expiry_is_refused(action: str) -> None:
    tale = asked(on_expiry=action)
    tale.now_ms += 1_000

    with pytest.raises(Refused, match=f"expired before it was decided; .* `{action}`") as late:
        tale.command(DecideGate(decision="approve"))
    assert late.value.code == "AUTOMATION_V2_GATE_EXPIRED"


@pytest.mark.parametrize("action", ["escalate", "remind"])
def test_gate_that_only_tells_somebody_can_be_decided_late(action: str) -> None:
    tale = asked(on_expiry=action, escalate_to="lead")
    tale.now_ms += 5_000

    tale.command(DecideGate(decision="approve"))

    assert tale.node("g").state is N.COMPLETED


# Who


def consequential(metadata: dict[str, Any]) -> Tale:
    node = gate_node("g", metadata={"approval": {"metadata": metadata}})
    tale = Tale(node)
    tale.view.run.started_by = "ann"
    return tale.claim()


@pytest.mark.parametrize("key", ["reviewer_eligibility", "risk_tier", "data_class", "four_eyes"])
def test_requester_may_not_approve_what_has_consequences(key: str) -> None:
    tale = consequential({key: "high"})

    with pytest.raises(Refused, match="ann started this run and may not approve") as own:
        tale.command(DecideGate(decision="approve", decided_by="ann"))
    assert own.value.code == "AUTOMATION_V2_GATE_SELF_APPROVAL_FORBIDDEN"
    with pytest.raises(Refused) as nobody:
        tale.command(DecideGate(decision="approve"))
    assert nobody.value.code == "AUTOMATION_V2_GATE_REVIEWER_AUTHORITY_REQUIRED"
    tale.command(DecideGate(decision="approve", decided_by="bob"))
    assert only_gate(tale).decided_by == "bob"


def test_requester_may_take_back_what_has_consequences() -> None:
    tale = consequential({"risk_tier": "high"})

    tale.command(DecideGate(decision="cancel", decided_by="ann"))

    assert tale.status is S.CANCELLED


def test_policy_may_want_four_eyes_for_every_gate() -> None:
    tale = Tale(gate_node("g"))
    tale.view.run.started_by = "ann"
    tale.command(Claim(engine_id=ENGINE))
    change = advance(
        tale.view,
        engine_id=ENGINE,
        change_id=ChangeId("c"),
        now_ms=tale.now_ms,
        facts=tale.facts,
        settled=[],
        policy=GatePolicy(four_eyes=True),
    )
    assert change is not None
    assert change.gates[0].four_eyes
    tale.view.apply(change)

    def decide_as(person: str) -> Change:
        command = DecideGate(decision="approve", decided_by=person)
        return decide(tale.view, command, change_id=ChangeId("d"), now_ms=tale.now_ms)

    with pytest.raises(Refused, match="ann started this run and may not approve"):
        decide_as("ann")
    assert decide_as("bob").gates[0].decided_by == "bob"


def test_requester_may_approve_what_has_none() -> None:
    tale = consequential({})

    tale.command(DecideGate(decision="approve", decided_by="ann"))

    assert tale.node("g").state is N.COMPLETED
    assert only_gate(tale).requested_by == "ann"


# What is looked at


def evidence(output: bytes, **approval: Any) -> dict[str, Any] | None:
    node = gate_node(
        "g", "a", "b", metadata={"approval": {"record_reviewed_artifact_hash": True} | approval}
    )
    tale = Tale(python_node("a"), python_node("b"), node).claim()
    tale.succeed("a", output)
    tale.succeed("b", b'"last"')
    return only_gate(tale).reviewed_artifact


def test_evidence_names_the_version_that_was_looked_at() -> None:
    file = b'{"path":"out/report.md","digest":"sha256:ab"}'

    assert evidence(file, display_artifact="a") == {
        "path": "out/report.md",
        "digest": "sha256:ab",
        "source_node_id": "a",
        "verified": True,
    }
    last = evidence(file)
    assert last is not None
    assert (last["source_node_id"], last["path"]) == ("b", "")
    assert last["digest"].startswith("sha256:")
    assert evidence(file, record_reviewed_artifact_hash=False) is None


def test_gate_that_looks_at_nothing_has_no_evidence() -> None:
    node = gate_node("g", metadata={"approval": {"record_reviewed_artifact_hash": True}})

    assert only_gate(Tale(node).claim()).reviewed_artifact is None


def test_title_is_the_one_of_the_builder_else_the_objective() -> None:
    titled = gate_node("g", metadata={"builder": {"title": "Sign"}}, objective="Sign the table.")
    plain = gate_node("h", objective="Look.")
    tale = Tale(titled, plain, gate_node("i")).claim()

    assert [gate.title for gate in tale.open_gates()] == ["Sign", "Look.", "i"]


def test_evidence_of_a_large_output_is_the_digest_of_its_artifact() -> None:
    approval = {"record_reviewed_artifact_hash": True}
    tale = Tale(python_node("a"), gate_node("g", "a", metadata={"approval": approval})).claim()
    ref = ArtifactRef(name="a", digest=Digest("sha256:cd"), size_bytes=9, media_type="x")
    tale.advance(
        Settled(node_no=0, number=1, outcome=Succeeded(output=1), output=None, output_ref=ref)
    )

    shown = only_gate(tale).reviewed_artifact
    assert shown is not None
    assert (shown["digest"], shown["path"]) == ("sha256:cd", "")


# Rework


def test_reason_of_the_rework_reaches_the_next_attempts() -> None:
    tale = asked()

    tale.command(DecideGate(decision="rework", reason="too long", decided_by="eve"))
    tale.claim()

    said = "rework was asked for at gate `g` by eve: too long"
    assert tale.node("a").repair == (said,)
    assert tale.node("a").output is None
    assert tale.node("a").attempts_used == 1
    assert tale.node("g").repair == ()
    tale.succeed("a")
    assert tale.node("a").repair == ()


def stopped_by_rework() -> Tale:
    """Return a run in which rework has just taken back what runs."""
    gate = {"required": True, "rework_targets": ["a"]}
    tale = Tale(python_node("a"), python_node("b", "a"), gate_node("g", "a", gate=gate)).claim()
    tale.succeed("a")
    assert tale.node("b").state is N.RUNNING
    tale.command(DecideGate(decision="rework"))
    return tale


def test_run_whose_bodies_were_taken_back_is_held_by_nobody_else_before_they_are_dead() -> None:
    tale = stopped_by_rework()
    assert tale.run.cleanup == ENGINE

    tale.command(Pause())

    assert tale.status is S.PAUSED
    with pytest.raises(Refused) as refused:
        tale.command(Resume())
    assert refused.value.code == "run_cleanup_pending"
    tale.command(ProcessesEnded(engine_id=ENGINE))
    tale.command(Resume())
    assert (tale.status, tale.run.cleanup) == (S.QUEUED, None)


def test_queued_run_is_not_claimed_while_its_processes_live() -> None:
    tale = Tale(python_node("a"))
    tale.view.run.cleanup = ENGINE
    with pytest.raises(Refused, match="still ends its processes"):
        tale.claim()


@pytest.mark.parametrize(
    "command", [HandBack(engine_id=ENGINE), Adopt(dead=ENGINE), Panic(engine_id=ENGINE, reason="")]
)
def test_whoever_takes_a_run_from_its_engine_has_buried_its_bodies(command: Command) -> None:
    tale = stopped_by_rework()
    tale.command(command)
    assert tale.run.cleanup is None


def test_rework_stops_what_runs_and_is_reset() -> None:
    tale = stopped_by_rework()

    assert set(tale.states().values()) == {"pending"}
    assert tale.ended[1, 1].message == "rework was asked for at gate `g`"
    tale.advance()
    assert tale.run.cleanup is None
    tale.succeed("a")
    assert tale.node("b").attempts == 2


def test_gate_approved_once_can_be_decided_again_after_another_gates_rework() -> None:
    back = {"required": True, "rework_targets": ["a"]}
    tale = Tale(python_node("a"), gate_node("g", "a"), gate_node("h", "g", gate=back)).claim()
    tale.succeed("a")
    tale.command(DecideGate(decision="approve"))
    tale.claim()
    tale.command(DecideGate(decision="rework"))
    tale.claim()
    tale.succeed("a")
    assert [gate.gate_id for gate in tale.open_gates()] == [f"{REQUEST}/2"]

    tale.command(DecideGate(decision="approve"))
    tale.claim()
    tale.command(DecideGate(decision="approve"))
    tale.claim()

    assert tale.status is S.COMPLETED


# Time


def test_expiry_ends_the_run_where_it_rests() -> None:
    tale = asked()

    assert pass_ms(tale, 1_000) == ["approval_gate_expired", "run_cancelled"]

    assert (tale.status, tale.run.stop_kind) == (S.CANCELLED, StopKind.CANCELLED)
    gate = only_gate(tale)
    assert (gate.status, gate.decision) == (GateStatus.EXPIRED, "expired")
    assert tale.run.engine_id is None


def test_expiry_that_resumes_lets_the_run_go_on() -> None:
    tale = asked(on_expiry="resume")

    assert pass_ms(tale, 1_000) == ["approval_gate_timeout_resumed", "node_completed"]

    assert (tale.status, tale.run.due_at_ms) == (S.QUEUED, tale.now_ms)
    assert tale.output("g")["content"]["decision"] == "timeout_resume"
    tale.claim()
    assert tale.node("b").state is N.RUNNING


def test_expiry_while_other_nodes_run_is_the_drivers() -> None:
    expiry = {"expires_after_ms": 500, "on_expiry": "resume"}
    tale = Tale(
        gate_node("g", gate={"required": True, "expiry_policy": expiry}), python_node("a")
    ).claim()
    tale.now_ms += 500

    tale.advance()

    assert tale.states() == {"g": "completed", "a": "running"}
    assert tale.status is S.RUNNING


@pytest.mark.parametrize(
    ("escalate_to", "told"), [("lead", "lead"), (" ", "unassigned_escalation_principal")]
)
def test_escalation_happens_once(escalate_to: str, told: str) -> None:
    tale = asked(on_expiry="escalate", escalate_to=escalate_to)

    assert pass_ms(tale, 1_000) == ["approval_gate_escalated"]

    gate = only_gate(tale)
    assert (tale.status, gate.status) == (S.AWAITING_APPROVAL, GateStatus.OPEN)
    assert (gate.policy_state.escalated_at_ms, gate.policy_state.escalated_to) == (
        tale.now_ms,
        told,
    )
    assert tale.events[-1].metadata["escalated_to"] == told
    assert pass_ms(tale, 86_400_000) == ["approval_gate_marked_stale"]
    assert tale.run.due_at_ms is None


def test_reminders_come_before_the_expiry_for_any_action() -> None:
    tale = asked(on_expiry="escalate", escalate_to="lead", remind_every_ms=400)

    assert pass_ms(tale, 400) == ["approval_gate_reminder_due"]
    assert tale.events[-1].metadata["expired"] is False
    assert pass_ms(tale, 400) == ["approval_gate_reminder_due"]
    assert pass_ms(tale, 200) == ["approval_gate_escalated"]
    assert only_gate(tale).policy_state.reminder_count == 2
    # The next look is for the stale mark: after an escalation nobody is reminded.
    assert tale.run.due_at_ms == only_gate(tale).requested_at_ms + 86_400_000


def test_missed_reminders_are_one() -> None:
    tale = asked(on_expiry="cancel", expires_after_ms=10_000, remind_every_ms=100)

    assert pass_ms(tale, 950) == ["approval_gate_reminder_due"]
    assert tale.run.due_at_ms == tale.now_ms + 100


@pytest.mark.parametrize("every_ms", [300, None])
def test_reminders_after_the_expiry_are_for_remind_only(every_ms: int | None) -> None:
    tale = asked(on_expiry="remind", remind_every_ms=every_ms)
    tale.now_ms += 700  # the reminders before the expiry were missed

    assert pass_ms(tale, 300) == ["approval_gate_reminder_due"]
    assert tale.events[-1].metadata["expired"] is True
    if every_ms is None:
        assert pass_ms(tale, 86_400_000) == ["approval_gate_marked_stale"]
        assert tale.run.due_at_ms is None
    else:
        assert pass_ms(tale, 300) == ["approval_gate_reminder_due"]
        assert pass_ms(tale, 300) == ["approval_gate_reminder_due"]
        assert only_gate(tale).policy_state.reminder_count == 3


def test_stale_mark_comes_once_and_changes_nothing_else() -> None:
    tale = asked(on_expiry="cancel", expires_after_ms=200_000_000)

    assert pass_ms(tale, 86_400_000) == ["approval_gate_marked_stale"]

    assert tale.events[-1].metadata["stale_policy"] == "manual_only_visible_status"
    assert only_gate(tale).policy_state.stale_at_ms == tale.now_ms
    assert tale.run.due_at_ms == only_gate(tale).expires_at_ms
    tale.command(DecideGate(decision="approve"))
    assert tale.status is S.QUEUED


def test_settings_fill_what_a_gate_does_not_say() -> None:
    tale = Tale(gate_node("g"))
    tale.command(Claim(engine_id=ENGINE))
    policy = GatePolicy(expires_after_ms=500, on_expiry="resume", stale_after_ms=100)
    change = advance(
        tale.view,
        settled=[],
        engine_id=ENGINE,
        change_id=tale.run.last_change_id,
        now_ms=tale.now_ms,
        policy=policy,
    )

    assert change is not None
    (gate,) = change.gates
    assert (gate.expires_at_ms, gate.on_expiry, gate.stale_after_ms) == (
        tale.now_ms + 500,
        "resume",
        100,
    )
    assert change.run.due_at_ms == tale.now_ms + 100


def test_clock_that_is_set_back_repeats_nothing() -> None:
    tale = asked(on_expiry="escalate", escalate_to="lead", remind_every_ms=400)
    pass_ms(tale, 400)
    pass_ms(tale, 600)
    assert only_gate(tale).policy_state.escalated_at_ms == tale.now_ms

    tale.now_ms -= 900
    with pytest.raises(Refused):
        tale.command(Wake())
    tale.now_ms += 900
    with pytest.raises(Refused):
        tale.command(Wake())
    assert [e.event.value for e in tale.events].count("approval_gate_escalated") == 1


def test_run_that_a_person_holds_is_not_touched_by_time() -> None:
    tale = asked(on_expiry="resume")
    tale.command(Pause())
    tale.now_ms += 5_000
    with pytest.raises(Refused):
        tale.command(Wake())

    tale.command(Resume())
    tale.claim()

    assert tale.states() == {"a": "completed", "g": "completed", "b": "running"}


def test_due_retry_of_a_run_at_a_gate_queues_it() -> None:
    backoff = {"max_attempts": 2, "backoff": {"strategy": "fixed", "initial_delay_ms": 50}}
    tale = Tale(gate_node("g"), python_node("a", retry_policy=backoff)).claim()
    tale.fail("a")
    assert tale.status is S.AWAITING_APPROVAL

    assert pass_ms(tale, 50) == ["run_woken"]

    assert tale.status is S.QUEUED
    assert tale.claim().node("a").state is N.RUNNING


def test_gate_of_a_recovered_run_is_still_the_same_asking() -> None:
    once = {"max_attempts": 1}
    tale = Tale(gate_node("g"), python_node("a", retry_policy=once)).claim()
    tale.fail("a")
    assert tale.status is S.FAILED
    tale.command(Recover())
    tale.claim()

    tale.command(DecideGate(decision="approve", gate_id=REQUEST))

    assert tale.node("g").state is N.COMPLETED
