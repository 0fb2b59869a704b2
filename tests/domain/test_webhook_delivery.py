"""Deliveries: what is read of them, which are the same again, what they become."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.domain.test_webhook import trigger

from tandem.domain.automation_record import snapshot_record
from tandem.domain.errors import InvalidRequest
from tandem.domain.ids import LOCAL_TENANT, AutomationId, RunId, TenantId, WaitId
from tandem.domain.inputs import declares
from tandem.domain.json import digest, encode
from tandem.domain.signal import DELIVERY_BYTES_MAX
from tandem.domain.spelling import camel, doubled
from tandem.domain.webhook import DeliveryStatus, Scheme, WebhookTrigger
from tandem.domain.webhook_delivery import (
    Correlation,
    Dedupe,
    Delivery,
    KnownClaim,
    claims_of,
    counted,
    decide_claims,
    delivery_document,
    event_document,
    event_id_of,
    feedback_of,
    input_of,
    not_believed,
    parse_body,
    preview_of,
    raw_event,
    record_id_of,
    rejected,
    run_id_of,
    sanitized,
    scope_refusal,
    signal_of,
    started,
    statuses_of,
    suppressed,
    trigger_context_of,
    trigger_reason_of,
    woke,
)
from tandem.testing.builders import fresh_view, python_node

S = DeliveryStatus
BODY = b'{"a": 1}'
DIGEST = digest(BODY)


def delivery(name: str = "1", **fields: Any) -> Delivery:
    return Delivery(
        **{
            "delivery_id": f"automation-webhook-delivery-{name}",
            "event_id": f"automation-webhook-event-{name}",
            "tenant": LOCAL_TENANT,
            "trigger_id": "whtr_1",
            "automation_id": AutomationId("job"),
            "body_digest": DIGEST,
            "verification_scheme": Scheme.HMAC_SHA256_V1,
            "verification_provider": "generic",
            "received_at_ms": 5_000,
            **fields,
        }
    )


# Reading


@pytest.mark.parametrize(
    ("provider", "headers", "found"),
    [
        ("generic", {"x-event-id": "c", "x-webhook-event-id": "b"}, "b"),
        ("github", {"x-event-id": "c", "x-github-delivery": " g "}, "g"),
        ("generic", {"x-github-delivery": "g"}, None),
        ("gitlab", {"x-gitlab-delivery": "2", "x-gitlab-event-uuid": "1"}, "1"),
        ("linear", {"linear-delivery": "1"}, "1"),
        ("stripe", {"stripe-event-id": "1"}, "1"),
        ("generic", {"x-event-id": "x" * 256}, "x" * 256),
        ("generic", {"x-event-id": "x" * 257}, None),
        ("generic", {"x-tandem-webhook-event-id": "\x00", "x-event-id": "c"}, "c"),
        ("generic", {"x-event-id": "ü"}, None),
        ("generic", {"x-event-id": "  "}, None),
    ],
)
def test_the_id_of_an_event_is_in_the_first_header_that_has_a_usable_one(
    provider: str, headers: dict[str, str], found: str | None
) -> None:
    assert event_id_of(trigger(provider), headers) == found


def test_standard_webhooks_has_its_own_header_for_the_id() -> None:
    standard = trigger(signature_scheme="standard_webhooks_v1")
    assert event_id_of(standard, {"webhook-id": "w", "x-event-id": "x"}) == "w"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nan", b'"\xff"', b"\xef\xbb\xbf{}", b"{}x", b"[1e400]", b"[" * 100_000],
)
def test_what_is_no_json_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_body(body)
    assert refused.value.code == "invalid_json"


def test_values_under_telling_keys_are_left_out() -> None:
    payload = {
        "Access-Token": 1,
        "list": [{"apiKey": "x", "user": "ann"}],
        "password_hint": {"deep": 1},
        "note": "token",
    }
    assert sanitized(payload) == {
        "Access-Token": "[redacted]",
        "list": [{"apiKey": "[redacted]", "user": "ann"}],
        "password_hint": "[redacted]",
        "note": "token",
    }


def test_what_is_nested_too_deeply_is_cut_off() -> None:
    assert b"[too deep]" in encode(sanitized(parse_body(b"[" * 100 + b"1" + b"]" * 100)))


def test_a_large_preview_is_told_by_its_size() -> None:
    assert preview_of({"a": 1}) == {"a": 1}
    large = preview_of("x" * 20_000)
    assert large == {"truncated": True, "original_bytes": 20_002, "limit_bytes": 16_384}


def test_a_raw_event_keeps_headers_without_what_they_give_away() -> None:
    headers = {"authorization": "Bearer x", "content-type": "application/json", "long": "x" * 2_000}
    event = raw_event(headers, BODY)
    assert event.headers_redacted["authorization"] == "[redacted]"
    assert (len(event.headers_redacted["long"]), event.payload_bytes) == (1_024, 8)
    assert event.content_type == "application/json"
    assert event.headers_digest != raw_event({}, BODY).headers_digest
    many = raw_event({f"h{number}": "" for number in range(100)}, BODY)
    assert len(many.headers_redacted) == 64


def test_feedback_is_seen_in_headers_and_in_the_payload() -> None:
    scheme = Scheme.HMAC_SHA256_V1
    assert feedback_of(scheme, {"x-tandem-origin-run-id": " "}, [1]) is None
    found = feedback_of(scheme, {"x-tandem-origin-run-id": "r"}, {})
    assert found == {"origin": {"run_id": "r"}, "allowed": False}
    told = feedback_of(scheme, {}, {"tandemOrigin": {"token": "t", "run": "r"}})
    assert told is not None
    assert told["origin"]["payload"] == {"token": "[redacted]", "run": "r"}
    allow = {"x-tandem-allow-self-feedback": "True", "x-tandem-origin-node-id": "n"}
    allowed = feedback_of(scheme, allow, {"tandem_origin": 1})
    assert allowed is not None
    assert allowed["allowed"]
    unsigned = feedback_of(Scheme.GITHUB_HMAC_SHA256, allow, {})
    assert unsigned is not None
    assert not unsigned["allowed"]


# Deciding


def known(key: str, *, of: str = "0", fingerprint: str = DIGEST) -> dict[str, KnownClaim]:
    delivery_id = f"automation-webhook-delivery-{of}"
    return {key: KnownClaim(key=key, fingerprint=fingerprint, delivery_id=delivery_id)}


EVENT, BODY_KEY = "trigger:whtr_1:provider_event:e1", f"trigger:whtr_1:body:{DIGEST}"


def test_a_delivery_claims_its_event_before_its_body() -> None:
    both = claims_of("whtr_1", "e1", DIGEST)
    assert [claim.key for claim in both] == [EVENT, BODY_KEY]
    assert {claim.fingerprint for claim in both} == {DIGEST}
    assert [claim.key for claim in claims_of("whtr_1", None, DIGEST)] == [BODY_KEY]


def test_the_first_delivery_has_its_keys() -> None:
    claims = claims_of("whtr_1", "e1", DIGEST)
    first, new = decide_claims(delivery(), claims, {})
    assert (first.status, first.dedupe_result, new) == (S.RECEIVED, Dedupe.ACCEPTED, claims)
    assert (first.idempotency_key, first.is_open) == (EVENT, True)
    assert first.idempotency_record_id == record_id_of(LOCAL_TENANT, EVENT)
    assert record_id_of(TenantId("other"), EVENT) != first.idempotency_record_id


def test_the_same_event_with_the_same_body_is_a_duplicate() -> None:
    again, new = decide_claims(delivery(), claims_of("whtr_1", "e1", DIGEST), known(EVENT))
    assert (again.status, again.dedupe_result) == (S.DUPLICATE, Dedupe.DUPLICATE)
    assert again.duplicate_of_delivery_id == "automation-webhook-delivery-0"
    assert (again.correlation, again.dedupe_reason_code) == (
        Correlation.DUPLICATE,
        "duplicate_delivery",
    )
    assert [claim.key for claim in new] == [BODY_KEY]


def test_the_same_event_with_another_body_is_a_conflict() -> None:
    claims = claims_of("whtr_1", "e1", DIGEST)
    found, new = decide_claims(delivery(), claims, known(EVENT, fingerprint="sha256:other"))
    assert (found.status, found.dedupe_result, new) == (S.REJECTED, Dedupe.CONFLICT, ())
    assert (found.rejection_reason_code, found.rejected_at_ms) == ("idempotency_conflict", 5_000)


@pytest.mark.parametrize("event_id", [None, "e2"])
def test_the_same_body_is_never_run_twice(event_id: str | None) -> None:
    claims = claims_of("whtr_1", event_id, DIGEST)
    again, new = decide_claims(delivery(), claims, known(BODY_KEY))
    assert again.status is S.DUPLICATE
    assert len(new) == (event_id is not None)


def test_the_very_same_delivery_is_a_replay() -> None:
    claims = claims_of("whtr_1", "e1", DIGEST)
    again, new = decide_claims(delivery(), claims, known(EVENT, of="1"))
    assert (again.dedupe_result, new) == (Dedupe.REPLAY, ())


def test_a_delivery_without_keys_stays_as_it_is() -> None:
    assert decide_claims(delivery(), (), {}) == (delivery(), ())


def test_what_becomes_of_a_delivery_is_on_it() -> None:
    quiet = suppressed(delivery(), {"origin": {}})
    assert (quiet.status, quiet.dedupe_result, quiet.correlation) == (
        S.SUPPRESSED,
        Dedupe.IGNORED_FEEDBACK_LOOP,
        Correlation.SUPPRESSED,
    )
    failed = rejected(delivery(), "automation_missing", now_ms=6, status=S.FAILED, detail="gone")
    assert (failed.correlation, failed.rejection_detail) == (Correlation.DEAD_LETTER, "gone")
    wrong = not_believed(delivery(event_id=None), "bad_signature")
    assert (wrong.status, wrong.verification_reason_code) == (S.REJECTED, "bad_signature")
    assert not wrong.is_authentic
    assert not_believed(delivery(), "trigger_disabled").status is S.DISABLED
    begun = started(delivery(), RunId("r"), now_ms=7)
    assert (begun.status, begun.run_id, begun.accepted_at_ms) == (S.ACCEPTED, "r", 7)
    awake = woke(delivery(), RunId("r"), WaitId("w"), now_ms=8)
    assert (awake.run_id, awake.woken_wait_id, awake.correlation) == (
        "r",
        "w",
        Correlation.WAKE_RUN,
    )


def scoped(unit: str | None = None, resource: dict[str, Any] | None = None) -> WebhookTrigger:
    return trigger(owning_org_unit_id=unit, resource_scope=resource)


@pytest.mark.parametrize(
    ("found", "metadata", "code"),
    [
        (scoped(), None, ""),
        (scoped(), {"enterprise_scope": {}}, ""),
        (scoped("u"), None, "webhook_automation_missing_enterprise_scope"),
        (scoped(None, {"a": 1}), {}, "webhook_automation_missing_enterprise_scope"),
        (scoped(), {"enterprise_scope": {"owning_org_unit_id": "u"}}, "webhook_missing_org_scope"),
        (
            scoped("v"),
            {"enterprise_scope": {"owning_org_unit_id": "u"}},
            "webhook_org_scope_mismatch",
        ),
        (scoped("u"), {"enterprise_scope": {"owning_org_unit_id": " U "}}, ""),
        (
            scoped(),
            {"enterprise_scope": {"resource_scope": {"a": 1}}},
            "webhook_missing_resource_scope",
        ),
        (
            scoped(None, {"a": 2}),
            {"enterprise_scope": {"resource_scope": {"a": 1}}},
            "webhook_resource_scope_mismatch",
        ),
        (scoped(None, {"a": 1}), {"enterprise_scope": {"resource_scope": {"a": 1}}}, ""),
    ],
)
def test_the_scope_of_a_trigger_has_to_fit(found: WebhookTrigger, metadata: Any, code: str) -> None:
    assert scope_refusal(found, metadata) == code


# Passing on


def test_waits_hear_of_a_delivery_by_its_event_its_key_and_its_body() -> None:
    stored, _ = decide_claims(
        delivery(provider_event_id="e1"), claims_of("whtr_1", "e1", DIGEST), {}
    )
    signal = signal_of(stored, {"a": 1}, event_kind="push")
    assert (signal.subject, signal.idempotency_key, signal.provider_event_id) == (
        "whtr_1",
        EVENT,
        "e1",
    )
    assert (signal.body_digest, signal.payload, signal.provider_event_kind) == (
        DIGEST,
        b'{"a":1}',
        "push",
    )
    bare = signal_of(delivery(), "x" * DELIVERY_BYTES_MAX, event_kind=None)
    assert bare.idempotency_key == "automation-webhook-delivery-1"
    assert b"truncated" in bare.payload


def test_a_run_knows_what_started_it_and_that_it_is_not_to_be_trusted() -> None:
    found = delivery(sanitized_preview={"a": 1}, provider_event_id="e1")
    hook = trigger("github", default_risk_tier="external_send")
    context = trigger_context_of(hook, found)["automation_webhook"]
    assert context["trust"] == "untrusted_external_webhook"
    assert (context["payload_preview"], context["risk_tier"]) == ({"a": 1}, "external_send")
    assert trigger_context_of(trigger(), found)["automation_webhook"]["risk_tier"] is None
    assert input_of(hook, found, {"a": 2})["payload"] == {"a": 2}
    assert run_id_of(found) == "automation-v2-run-1"
    assert trigger_reason_of(found) == "generic webhook delivery automation-webhook-delivery-1"


@pytest.mark.parametrize("metadata", [None, {"own": 1}, "no object"])
def test_the_snapshot_of_a_run_tells_what_started_it(metadata: Any) -> None:
    context = trigger_context_of(trigger(), delivery())
    run = fresh_view(python_node("a")).run
    spec = {"execution": {}, "metadata": metadata}
    assert snapshot_record(spec, run)["metadata"] == metadata
    run.trigger_context = context
    own = metadata if isinstance(metadata, dict) else {}
    assert snapshot_record(spec, run)["metadata"] == {**own, **context}


def test_an_automation_says_whether_it_takes_the_payload() -> None:
    assert declares({"webhook": {"type": "object"}}, "webhook")
    assert not declares(None, "webhook")


# Counting and showing


def test_a_trigger_counts_what_comes_and_what_becomes_of_it() -> None:
    hook = counted(trigger(), delivery(), before=None, now_ms=10)
    hook = counted(hook, started(delivery(), RunId("r"), now_ms=11), before=S.RECEIVED, now_ms=11)
    wrong = not_believed(delivery(), "bad_signature")
    hook = counted(hook, wrong, before=None, now_ms=12)
    counts = hook.delivery_counts
    assert (counts.total, counts.received, counts.accepted, counts.rejected) == (2, 0, 1, 1)
    assert (hook.last_received_at_ms, hook.last_accepted_at_ms, hook.last_rejected_at_ms) == (
        12,
        11,
        12,
    )


def test_a_delivery_is_shown_in_both_spellings() -> None:
    shown = delivery_document(started(delivery(), RunId("r"), now_ms=6))
    assert shown["queued_run_path"] == shown["queuedRunPath"] == "/automations/v2/runs/r"
    assert (shown["queuedRunID"], shown["bodyDigest"], shown["status"]) == ("r", DIGEST, "accepted")
    assert shown["provider_event_id"] is None
    assert "tenant" not in shown
    assert delivery_document(delivery())["queued_run_path"] is None
    event = event_document(
        delivery(), raw_event({}, BODY), is_available=True, payload={"user_id": 1}
    )
    assert (event["eventID"], event["payload"]) == ("automation-webhook-event-1", {"user_id": 1})
    assert event["payload_available"] is event["payloadAvailable"] is True


def test_keys_in_two_spellings_keep_their_values() -> None:
    assert [camel(key) for key in ("id", "trigger_id", "rotated_at_ms", "name")] == [
        "id",
        "triggerID",
        "rotatedAtMs",
        "name",
    ]
    assert doubled({"a_b": 1, "c": 2}) == {"a_b": 1, "aB": 1, "c": 2}


def test_a_status_that_does_not_exist_is_refused() -> None:
    assert statuses_of([" Accepted ", "failed"]) == (S.ACCEPTED, S.FAILED)
    with pytest.raises(InvalidRequest) as refused:
        statuses_of(["done"])
    assert refused.value.code == "AUTOMATION_WEBHOOK_EVENT_STATUS_INVALID"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(value=JSON)
def test_whatever_is_parsed_can_be_cleaned_kept_and_passed_on(value: Any) -> None:
    try:
        body = msgspec.json.encode(value)
        payload = parse_body(body)
    except (OverflowError, UnicodeEncodeError, InvalidRequest):
        return
    clean = sanitized(payload)
    found = delivery(sanitized_preview=preview_of(clean))
    assert encode(signal_of(found, clean, event_kind=None))
    assert encode(trigger_context_of(trigger(), found))
    assert encode(feedback_of(Scheme.HMAC_SHA256_V1, {}, payload))


@given(body=st.binary(max_size=60))
def test_no_bytes_break_the_reading(body: bytes) -> None:
    try:
        parse_body(body)
    except InvalidRequest as error:
        assert error.code == "invalid_json"  # noqa: PT017 # most bytes are none
