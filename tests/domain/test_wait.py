"""Waits: what they are registered with, what wakes them, and what follows when nothing comes."""

from typing import Any

import msgspec
import pytest

from tandem.domain.artifact import ArtifactRef
from tandem.domain.command import Claim, DecideGate, Pause, Recover, ResolveWait, Resume, Wake
from tandem.domain.driving import advance
from tandem.domain.errors import NotFound, Refused
from tandem.domain.ids import LOCAL_TENANT, ChangeId, Digest, NodeId, WaitId
from tandem.domain.lifecycle import NodeState, RunState, StopKind
from tandem.domain.outcome import Succeeded
from tandem.domain.run import Wait, WaitStatus
from tandem.domain.settling import Settled
from tandem.domain.signal import InvalidSignal, Signal, SignalKind, condition_key
from tandem.domain.waits import run_of_wait
from tandem.testing.builders import (
    condition_node,
    gate_node,
    python_node,
    timer_node,
    webhook_node,
)
from tandem.testing.tale import ENGINE, Tale

N, S = NodeState, RunState

RETRYING = {"max_attempts": 3, "backoff": {"strategy": "fixed", "initial_delay_ms": 50}}
WAIT = WaitId("automation-v2:run:w:wait")


def only_wait(tale: Tale) -> Wait:
    (wait,) = tale.waits.values()
    return wait


def resolve(**fields: Any) -> ResolveWait:
    return ResolveWait(**({"idempotency_key": "k1", "node_id": NodeId("w")} | fields))


def pass_ms(tale: Tale, span_ms: int) -> list[str]:
    tale.now_ms += span_ms
    tale.command(Wake())
    return tale.happened()


# Registering


def test_registered_wait_parks_the_run_with_the_words_of_the_contract() -> None:
    tale = Tale(timer_node("w", delay_ms=700)).claim()

    assert tale.happened() == [
        "wait_node_registration_started",
        "wait_node_registered",
        "run_parked_on_wait",
    ]
    assert tale.status is S.PAUSED
    assert tale.run.detail == tale.run.pause_reason
    assert tale.run.detail == "waiting at Automation V2 node `w` (Timer)"
    assert only_wait(tale).wait_id == WAIT
    assert run_of_wait(only_wait(tale).wait_id) == tale.run.run_id


def test_parked_run_names_everything_that_it_waits_for() -> None:
    tale = Tale(timer_node("t", delay_ms=700), webhook_node("h"), condition_node("c")).claim()

    assert tale.run.detail == (
        "waiting at Automation V2 node `t` (Timer), `h` (Webhook), `c` (ExternalCondition)"
    )
    assert (
        tale.run.parked == "timer of node `t`, webhook of node `h`, external_condition of node `c`"
    )


def test_wait_never_holds_back_independent_nodes() -> None:
    tale = Tale(
        timer_node("w", delay_ms=900), python_node("a"), python_node("b", "a"), gate_node("g")
    ).claim()
    assert tale.states() == {"w": "waiting", "a": "running", "b": "pending", "g": "gated"}

    tale.succeed("a")

    assert tale.node("b").state is N.RUNNING
    assert tale.status is S.RUNNING


def test_wait_that_is_registered_again_has_another_id() -> None:
    gate = {"required": True, "rework_targets": ["w"]}
    tale = Tale(timer_node("w", delay_ms=10), gate_node("g", "w", gate=gate)).claim()
    pass_ms(tale, 10)
    tale.claim()

    tale.command(DecideGate(decision="rework"))
    tale.claim()

    assert [wait.wait_id for wait in tale.open_waits()] == [f"{WAIT}/2"]


# Bindings


def bound(binding: dict[str, Any], output: bytes) -> Tale:
    """Return a run whose timer takes its moment from the output of `a`."""
    node = {"node_id": "w", "depends_on": ["a"], "wait": {"kind": "timer", "wake_at": binding}}
    tale = Tale(python_node("a"), node).claim()
    tale.succeed("a", output)
    return tale


def of_a(pointer: str | None = None) -> dict[str, Any]:
    return {"source": "node_output", "node_id": "a", "json_pointer": pointer}


@pytest.mark.parametrize(
    ("pointer", "output"),
    [
        (None, b"5000"),
        ("", b"5000.0"),
        ("/at", b'{"at":5000}'),
        ("/list/1/a~1b~0c", b'{"list":[0,{"a/b~c":5000}]}'),
        ("/content/structured_handoff/at", b'{"at":5000}'),
        ("/content/at", b'{"content":{"at":5000}}'),
    ],
)
def test_moment_comes_from_the_output_of_a_node(pointer: str | None, output: bytes) -> None:
    assert only_wait(bound(of_a(pointer), output)).due_at_ms == 5_000


def test_literal_moment_is_taken_as_it_is() -> None:
    tale = bound({"source": "literal", "value": 7_000}, b"1")

    assert only_wait(tale).due_at_ms == 7_000


@pytest.mark.parametrize(
    ("pointer", "output", "why"),
    [
        ("/at", b'{"on":1}', "the output of node `a` has nothing at `/at`"),
        ("/at", b"5", "has nothing at `/at`"),
        ("/x", b'"text"', "has nothing at `/x`"),
        ("/5", b"[1]", "has nothing at `/5`"),
        ("/at", b'{"at":"soon"}', 'a moment in milliseconds since 1970 is needed, not "soon"'),
        ("/at", b'{"at":true}', "not true"),
        ("/at", b'{"at":0}', "not 0"),
        ("/at", b'{"at":1.5}', "not 1.5"),
    ],
)
def test_wait_that_cannot_be_registered_fails_the_run(
    pointer: str, output: bytes, why: str
) -> None:
    tale = bound(of_a(pointer), output)

    assert tale.happened()[-3:] == [
        "wait_node_registration_started",
        "wait_node_registration_failed",
        "run_failed",
    ]
    assert (tale.status, tale.run.stop_kind) == (S.FAILED, StopKind.GUARDRAIL_STOPPED)
    assert tale.run.detail.startswith("failed to register wait node `w`: ")
    assert why in tale.run.detail


def test_failed_registration_lets_what_runs_land_and_starts_nothing() -> None:
    node = {"node_id": "w", "depends_on": ["a"], "wait": {"kind": "timer", "wake_at": of_a("/x")}}
    tale = Tale(
        python_node("a"), node, python_node("b"), python_node("c", "b"), gate_node("g", "b")
    ).claim()
    tale.succeed("a")
    assert tale.status is S.RUNNING

    tale.succeed("b")

    assert tale.states()["c"] == tale.states()["g"] == "pending"
    assert tale.status is S.FAILED


def test_failed_registration_can_be_recovered_from() -> None:
    tale = bound(of_a("/x"), b"{}")

    tale.command(Recover())

    assert tale.states() == {"a": "completed", "w": "pending"}
    assert tale.run.stop_kind is None


def test_node_without_output_gives_nothing() -> None:
    tale = Tale(
        python_node("a"), {"node_id": "w", "depends_on": ["a"], "wait": timer_of("a")}
    ).claim()
    tale.settle("a", Succeeded(output=None))

    assert "node `a` has no output" in tale.run.detail


def timer_of(name: str) -> dict[str, Any]:
    return {"kind": "timer", "wake_at": {"source": "node_output", "node_id": name}}


def test_large_output_is_read_by_whoever_drives() -> None:
    ref = ArtifactRef(name="a", digest=Digest("sha256:1"), size_bytes=9, media_type="x")
    tale = Tale(python_node("a"), {"node_id": "w", "depends_on": ["a"], "wait": timer_of("a")})
    tale.claim()
    item = Settled(node_no=0, number=1, outcome=Succeeded(output=1), output_ref=ref)

    def step(**options: Any) -> Any:
        return advance(
            tale.view,
            settled=[item],
            engine_id=ENGINE,
            change_id=ChangeId("next"),
            now_ms=tale.now_ms,
            **options,
        )

    assert step(read_large=lambda _ref: 9_000).waits[0].due_at_ms == 9_000
    assert "is an artifact, which cannot be read here" in step().run.detail


@pytest.mark.parametrize("value", ["", " ", "x" * 513, "ü" * 257, True, None, {"a": 1}])
def test_key_of_a_condition_is_a_text_of_at_most_512_bytes(value: object) -> None:
    node = condition_node("w", "a")
    node["wait"]["condition_key"] = of_a()
    tale = Tale(python_node("a"), node).claim()
    tale.succeed("a", msgspec.json.encode(value))

    assert tale.status is S.FAILED
    assert "is needed" in tale.run.detail


@pytest.mark.parametrize(("value", "key"), [("ü" * 256, "ü" * 256), (7, "7"), (1.5, "1.5")])
def test_key_of_a_condition_may_come_from_an_output(value: object, key: str) -> None:
    node = condition_node("w", "a")
    node["wait"]["condition_key"] = of_a()
    tale = Tale(python_node("a"), node).claim()
    tale.succeed("a", msgspec.json.encode(value))

    assert only_wait(tale).signal_key == condition_key(LOCAL_TENANT, key)


def test_signal_counts_since_the_run_was_created_and_for_a_new_asking_from_then_on() -> None:
    gate = {"required": True, "rework_targets": ["w"]}
    tale = Tale(condition_node("w"), gate_node("g", "w", gate=gate)).claim()
    assert only_wait(tale).accepts_since_ms == tale.run.created_at_ms == 0
    tale.command(resolve())
    tale.claim()
    tale.now_ms += 500
    tale.command(DecideGate(decision="rework"))
    tale.claim()

    assert tale.open_waits()[0].accepts_since_ms == tale.now_ms


# Waking


def test_timer_wakes_in_the_transaction_that_finds_it_due() -> None:
    tale = Tale(timer_node("w", delay_ms=700), python_node("a", "w")).claim()

    assert pass_ms(tale, 700) == ["wait_woken", "node_completed", "stateful_wait_woken_requeued"]

    assert (tale.status, tale.run.due_at_ms, tale.run.pause_reason) == (S.QUEUED, tale.now_ms, "")
    assert tale.run.resume_reason == "stateful_runtime.wait.timer_woken"
    assert only_wait(tale).status is WaitStatus.WOKEN
    assert tale.output("w")["contract_kind"] == "stateful_wait"
    assert tale.output("w")["content"]["event_type"] == "stateful_runtime.wait.timer_woken"


def test_signal_wakes_the_wait_it_is_for_and_its_payload_is_the_output() -> None:
    tale = Tale(condition_node("w"), python_node("a", "w")).claim()

    tale.command(resolve(payload=b'{"ok":true}', source="ann"))

    assert tale.happened() == ["wait_woken", "node_completed", "stateful_wait_woken_requeued"]
    assert only_wait(tale).idempotency_key == "k1"
    content = tale.output("w")["content"]
    assert content["event_type"] == "stateful_runtime.wait.external_condition_resolved"
    assert content["wake_metadata"] == {
        "idempotency_key": "k1",
        "source": "ann",
        "payload": {"ok": True},
    }


def test_wait_of_a_run_that_runs_is_resolved_without_moving_it() -> None:
    tale = Tale(condition_node("w"), python_node("a")).claim()

    tale.command(resolve())

    assert tale.happened() == ["wait_woken", "node_completed"]
    assert tale.status is S.RUNNING


def test_wait_of_a_run_that_a_person_holds_is_resolved_and_the_run_stays_held() -> None:
    tale = Tale(condition_node("w"), python_node("a", "w")).claim()
    tale.command(Pause())

    tale.command(resolve())

    assert (tale.status, tale.node("w").state) == (S.PAUSED, N.COMPLETED)
    tale.command(Resume())
    assert tale.claim().node("a").state is N.RUNNING


def test_wait_wakes_a_run_that_awaits_approval() -> None:
    tale = Tale(condition_node("w"), gate_node("g"), python_node("a", "w")).claim()
    assert tale.status is S.AWAITING_APPROVAL

    tale.command(resolve())

    assert tale.status is S.QUEUED
    assert tale.claim().node("a").state is N.RUNNING


def test_wait_of_a_queued_run_makes_it_due_at_once() -> None:
    tale = Tale(condition_node("w"), python_node("a", retry_policy=RETRYING)).claim()
    tale.fail("a")
    assert (tale.status, tale.run.due_at_ms) == (S.QUEUED, tale.now_ms + 50)

    tale.command(resolve())

    assert tale.run.due_at_ms == tale.now_ms


def test_large_wake_metadata_leaves_a_stub_in_the_output() -> None:
    tale = Tale(webhook_node("w")).claim()
    signal = Signal(
        kind=SignalKind.WEBHOOK,
        subject="hook",
        idempotency_key="k1",
        payload=msgspec.json.encode("x" * 20_000),
        provider="git",
        provider_event_kind="push",
    )

    tale.command(resolve(payload=signal.payload, signal=signal))

    stub = tale.output("w")["content"]["wake_metadata"]
    assert (stub["truncated"], stub["limit_bytes"]) == (True, 16_384)
    assert stub["original_bytes"] > 20_000


def test_timer_may_be_resolved_early_by_a_person() -> None:
    tale = Tale(timer_node("w", delay_ms=90_000)).claim()

    tale.command(resolve(wait_id=WAIT, node_id=None))

    assert tale.node("w").state is N.COMPLETED


# What does not wake


@pytest.mark.parametrize("key", ["", "k" * 513, "ü" * 257])
def test_idempotency_key_has_1_to_512_bytes(key: str) -> None:
    tale = Tale(condition_node("w")).claim()

    with pytest.raises(InvalidSignal, match="1 to 512 bytes"):
        tale.command(resolve(idempotency_key=key))


def test_payload_has_at_most_16384_bytes() -> None:
    tale = Tale(condition_node("w")).claim()

    with pytest.raises(InvalidSignal, match="the bound is 16384"):
        tale.command(resolve(payload=b'"' + b"x" * 16_383 + b'"'))
    tale.command(resolve(payload=b'"' + b"x" * 16_382 + b'"'))
    assert only_wait(tale).status is WaitStatus.WOKEN


def test_payload_has_to_fit_the_schema_of_the_wait() -> None:
    node = condition_node("w")
    node["wait"]["payload_schema"] = {"type": "object", "required": ["ok"]}
    tale = Tale(node).claim()

    with pytest.raises(Refused, match="the payload misses the schema of node `w`") as wrong:
        tale.command(resolve(payload=b"{}"))
    assert wrong.value.code == "wait_payload_invalid"
    tale.command(resolve(payload=b'{"ok":1}'))
    assert only_wait(tale).status is WaitStatus.WOKEN


@pytest.mark.parametrize("other", [{"provider": "hub"}, {"provider_event_kind": "pull"}])
def test_delivery_of_another_kind_does_not_wake(other: dict[str, str]) -> None:
    node = webhook_node("w")
    node["wait"] |= {"provider": "git", "provider_event_kind": "push"}
    tale = Tale(node).claim()
    facts = {"provider": "git", "provider_event_kind": "push"}

    def delivered(**fields: str) -> ResolveWait:
        signal = Signal(kind=SignalKind.WEBHOOK, subject="hook", idempotency_key="k", **fields)
        return resolve(signal=signal)

    with pytest.raises(Refused, match="another provider or kind"):
        tale.command(delivered(**facts | other))
    tale.command(delivered(**facts))
    assert tale.output("w")["content"]["wake_metadata"]["provider"] == "git"


def test_wait_that_is_over_or_not_there_yet_is_told_apart() -> None:
    tale = Tale(condition_node("w"), condition_node("x", "w"), python_node("a")).claim()
    with pytest.raises(NotFound, match="has no node `z`"):
        tale.command(resolve(node_id=NodeId("z")))
    with pytest.raises(Refused, match="no open wait of node `x`; open: `w`") as early:
        tale.command(resolve(node_id=NodeId("x")))
    assert early.value.code == "wait_not_open"
    tale.command(resolve())

    for meant in ({"node_id": NodeId("w")}, {"node_id": None, "wait_id": WAIT}):
        with pytest.raises(Refused, match="is over already") as late:
            tale.command(resolve(**meant))
        assert late.value.code == "wait_over"
    with pytest.raises(Refused, match="has no open wait") as none:
        Tale(python_node("a")).command(resolve(node_id=None))
    assert none.value.code == "wait_not_open"


# Nothing comes


def test_timeout_that_cancels_ends_the_run_and_its_other_waits() -> None:
    tale = Tale(condition_node("w", expires_after_ms=300), timer_node("t", delay_ms=900)).claim()

    assert pass_ms(tale, 300) == ["stateful_wait_timeout_cancelled_run"]

    assert (tale.status, tale.run.stop_kind) == (S.CANCELLED, StopKind.CANCELLED)
    assert [wait.status.value for wait in tale.waits.values()] == ["timed_out", "cancelled"]
    assert tale.events[-1].metadata["event_type"] == "stateful_runtime.wait.timeout_cancelled"


def test_timeout_that_resumes_completes_the_node() -> None:
    tale = Tale(webhook_node("w", expires_after_ms=300, on_timeout="resume")).claim()

    pass_ms(tale, 300)

    assert only_wait(tale).status is WaitStatus.TIMED_OUT
    kind = tale.output("w")["content"]["event_type"]
    assert kind == "stateful_runtime.wait.timeout_resumed"
    assert tale.claim().status is S.COMPLETED


def test_timeout_that_escalates_tells_once_and_still_waits() -> None:
    tale = Tale(
        condition_node("w", expires_after_ms=300, on_timeout="escalate", escalate_to="lead")
    ).claim()

    assert pass_ms(tale, 300) == ["stateful_wait_timeout_paused_run"]

    facts = tale.events[-1].metadata
    assert facts["event_type"] == "stateful_runtime.wait.timeout_escalated"
    assert facts["escalated_to"] == "lead"
    assert only_wait(tale).status is WaitStatus.ESCALATED
    assert (tale.status, tale.run.due_at_ms) == (S.PAUSED, None)
    tale.command(resolve())
    assert tale.status is S.QUEUED


def test_timeout_that_reminds_repeats_itself() -> None:
    tale = Tale(
        condition_node("w", expires_after_ms=300, on_timeout="remind", remind_every_ms=200)
    ).claim()

    assert pass_ms(tale, 200) == ["stateful_wait_timeout_paused_run"]
    assert tale.events[-1].metadata["expired"] is False
    assert pass_ms(tale, 100) == ["stateful_wait_timeout_paused_run"]
    assert pass_ms(tale, 200) == ["stateful_wait_timeout_paused_run"]
    facts = tale.events[-1].metadata
    assert (facts["expired"], facts["reminder_count"]) == (True, 3)
    assert facts["event_type"] == "stateful_runtime.wait.timeout_reminded"


def timer_with(delay_ms: int, **timeout: Any) -> Tale:
    node = timer_node("w", delay_ms=delay_ms)
    node["wait"]["timeout"] = timeout
    return Tale(node).claim()


@pytest.mark.parametrize("delay_ms", [300, 400])
def test_timeout_due_at_or_before_the_wake_wins(delay_ms: int) -> None:
    tale = timer_with(delay_ms, expires_after_ms=300)

    assert pass_ms(tale, 500) == ["stateful_wait_timeout_cancelled_run"]


def test_wake_due_before_the_timeout_wins() -> None:
    tale = timer_with(200, expires_after_ms=300)

    pass_ms(tale, 500)

    assert only_wait(tale).status is WaitStatus.WOKEN


@pytest.mark.parametrize("action", ["escalate", "remind"])
def test_timer_whose_timeout_only_tells_wakes_after_it(action: str) -> None:
    tale = timer_with(300, expires_after_ms=200, on_timeout=action, escalate_to="x")

    assert pass_ms(tale, 500)[:2] == ["stateful_wait_timeout_paused_run", "wait_woken"]


def test_timer_that_is_due_is_not_reminded_of_again() -> None:
    tale = timer_with(300, expires_after_ms=200, on_timeout="remind", remind_every_ms=50)
    pass_ms(tale, 200)

    assert pass_ms(tale, 200)[0] == "wait_woken"


def test_signal_that_comes_after_a_due_timeout_is_too_late() -> None:
    tale = Tale(condition_node("w", expires_after_ms=300)).claim()
    tale.now_ms += 300

    change = tale.command(resolve())

    assert change.denial is not None
    assert change.denial.code == "wait_over"
    assert tale.status is S.CANCELLED


# Holding on


def test_person_can_hold_a_run_that_waits() -> None:
    tale = Tale(timer_node("w", delay_ms=300)).claim()
    tale.command(Pause(reason="not now"))
    assert (tale.run.parked, tale.run.due_at_ms) == ("", None)
    tale.now_ms += 900

    tale.command(Resume())
    tale.claim()

    assert tale.status is S.COMPLETED


def test_wait_survives_failure_and_recovery_of_its_run() -> None:
    tale = Tale(timer_node("w", delay_ms=300), python_node("a", retry_policy={"max_attempts": 1}))
    tale.claim().fail("a")
    assert tale.status is S.FAILED
    tale.now_ms += 900
    with pytest.raises(Refused):
        tale.command(resolve())

    tale.command(Recover())
    tale.claim()

    assert tale.states() == {"w": "completed", "a": "running"}


def test_clock_that_is_set_back_delays_and_loses_nothing() -> None:
    tale = Tale(timer_node("w", delay_ms=300)).claim()
    tale.now_ms -= 500
    with pytest.raises(Refused):
        tale.command(Wake())

    tale.command(resolve())

    wait = only_wait(tale)
    assert wait.ended_at_ms == wait.registered_at_ms


def test_timer_that_is_registered_after_the_clock_was_set_back_waits_its_whole_span() -> None:
    tale = Tale(python_node("a"), timer_node("w", "a", delay_ms=300)).claim()
    tale.now_ms -= 900
    tale.succeed("a")

    assert only_wait(tale).due_at_ms == tale.now_ms + 300
    with pytest.raises(Refused):
        tale.command(Wake())


def test_claim_wakes_what_came_due_while_the_run_was_queued() -> None:
    tale = Tale(timer_node("w", delay_ms=80), python_node("a", retry_policy=RETRYING)).claim()
    tale.fail("a")
    tale.now_ms += 90

    tale.command(Claim(engine_id=ENGINE))
    tale.advance()

    assert tale.node("w").state is N.COMPLETED


def test_moment_without_effect_queues_the_run_for_a_look() -> None:
    tale = Tale(timer_node("w", delay_ms=300)).claim()
    tale.view.run.due_at_ms = tale.now_ms

    tale.command(Wake())

    assert (tale.happened(), tale.status) == (["run_woken"], S.QUEUED)
