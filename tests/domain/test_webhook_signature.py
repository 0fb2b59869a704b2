"""Every scheme on the published vectors, and on everything that is nearly right."""

import hmac
from base64 import b64encode
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.domain.webhook import Scheme
from tandem.domain.webhook_signature import (
    BAD,
    MALFORMED,
    MISSING,
    NO_SECRET,
    NOT_IMPORTED,
    SIGNATURES_MAX,
    STALE,
    UNSIGNED,
    Incoming,
    Terms,
    key_of,
    pretend_to_verify,
    signature_of,
    verify,
)

NOW_MS = 1_614_265_330_000
TERMS = Terms(now_ms=NOW_MS)
SECRET = "whsec_abc"
BODY = b'{"a": 1}'

GITHUB_SECRET = "It's a Secret to Everybody"
GITHUB_BODY = b"Hello, World!"
GITHUB_SIGNATURE = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
"""The example in GitHub's guide to validating deliveries."""

STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
"""The example of the Standard Webhooks libraries."""


def check(
    scheme: Scheme,
    headers: dict[str, str],
    body: bytes = BODY,
    *secrets: str,
    terms: Terms = TERMS,
) -> str:
    return verify(scheme, secrets or (SECRET,), Incoming(headers=headers, body=body), terms)


def hmac_v1(header: str, **others: str) -> str:
    names = {"x-tandem-webhook-signature": header}
    return check(Scheme.HMAC_SHA256_V1, names | {k.replace("_", "-"): v for k, v in others.items()})


def hex_of(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, "sha256").hexdigest()


GOOD = signature_of(SECRET, NOW_MS, BODY)


def test_our_own_scheme_signs_moment_and_body() -> None:
    assert hmac_v1(GOOD) == ""
    assert check(Scheme.HMAC_SHA256_V1, {"x-tandem-signature": GOOD}) == ""
    assert hmac_v1(f" {GOOD} , extra=1") == ""
    assert hmac_v1(GOOD.replace("v1=", "v1=" + "0" * 64 + ",v1=")) == ""
    assert hmac_v1(GOOD.upper().replace("T=", "t=").replace("V1=", "v1=")) == ""


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", MISSING),
        ("nonsense", MALFORMED),
        (f"{GOOD},nonsense", MALFORMED),
        (f"t={NOW_MS}", MALFORMED),
        (GOOD.partition(",")[2], MALFORMED),
        (f"t=1,{GOOD}", MALFORMED),
        (f"t={NOW_MS},v1=zz", MALFORMED),
        (f"t={NOW_MS},v1=" + "0" * 63, MALFORMED),
        (f"t=-5,v1={'0' * 64}", MALFORMED),
        (f"t=٣,v1={'0' * 64}", MALFORMED),
        (f"t={'9' * 17},v1={'0' * 64}", MALFORMED),
        (f"t={NOW_MS},v1={'0' * 64}", BAD),
        (signature_of("other", NOW_MS, BODY), BAD),
        (signature_of(SECRET, NOW_MS, BODY + b" "), BAD),
        (signature_of(SECRET, NOW_MS - 300_001, BODY), STALE),
        (signature_of(SECRET, NOW_MS + 300_001, BODY), STALE),
        (signature_of(SECRET, NOW_MS - 300_000, BODY), ""),
        (signature_of(SECRET, NOW_MS + 300_000, BODY), ""),
    ],
)
def test_what_is_nearly_right_is_named(header: str, reason: str) -> None:
    assert hmac_v1(header) == reason


def test_the_permission_for_feedback_is_signed_where_it_is_sent() -> None:
    allowed = signature_of(SECRET, NOW_MS, BODY, self_feedback="true")
    assert hmac_v1(allowed, x_tandem_allow_self_feedback=" true ") == ""
    assert hmac_v1(GOOD, x_tandem_allow_self_feedback="true") == BAD
    assert hmac_v1(allowed) == BAD


def test_only_so_many_signatures_are_compared() -> None:
    wrong = ",".join(["v1=" + "0" * 64] * SIGNATURES_MAX)
    assert hmac_v1(GOOD.replace("v1=", f"{wrong},v1=")) == BAD


def test_every_valid_secret_counts_while_one_takes_the_place_of_another() -> None:
    headers = {"x-tandem-webhook-signature": GOOD}
    assert check(Scheme.HMAC_SHA256_V1, headers, BODY, "new", SECRET) == ""
    assert check(Scheme.HMAC_SHA256_V1, headers, BODY, "new", "newer") == BAD


def standard(**changes: str) -> dict[str, str]:
    headers = {
        "webhook-id": STANDARD_ID,
        "webhook-timestamp": str(NOW_MS // 1_000),
        "webhook-signature": STANDARD_SIGNATURE,
    }
    return headers | {key.replace("_", "-"): value for key, value in changes.items()}


def test_the_example_of_standard_webhooks_is_believed() -> None:
    scheme = Scheme.STANDARD_WEBHOOKS_V1
    assert check(scheme, standard(), STANDARD_BODY, STANDARD_SECRET) == ""
    wrong = "v1," + b64encode(b"0" * 32).decode()
    several = f"v1a,ignored {wrong} {STANDARD_SIGNATURE}"
    assert check(scheme, standard(webhook_signature=several), STANDARD_BODY, STANDARD_SECRET) == ""
    assert check(scheme, standard(), STANDARD_BODY, "whsec_bmV3", STANDARD_SECRET) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"webhook_signature": ""}, MISSING),
        ({"webhook_signature": "v2,abc"}, MALFORMED),
        ({"webhook_signature": "v1,abc"}, MALFORMED),
        ({"webhook_id": " "}, MALFORMED),
        ({"webhook_timestamp": "soon"}, MALFORMED),
        ({"webhook_timestamp": str(NOW_MS // 1_000 - 301)}, STALE),
        ({"webhook_timestamp": str(NOW_MS // 1_000 - 1)}, BAD),
        ({"webhook_id": "msg_other"}, BAD),
    ],
)
def test_standard_webhooks_signs_id_moment_and_body(changes: dict[str, str], reason: str) -> None:
    found = check(Scheme.STANDARD_WEBHOOKS_V1, standard(**changes), STANDARD_BODY, STANDARD_SECRET)
    assert found == reason


def test_a_secret_of_standard_webhooks_is_base64_or_taken_as_it_is() -> None:
    assert key_of("whsec_YWJj") == b"abc"
    assert key_of("not base64!") == b"not base64!"


def test_the_example_of_github_is_believed() -> None:
    headers = {"x-hub-signature-256": f"sha256={GITHUB_SIGNATURE}"}
    scheme = Scheme.GITHUB_HMAC_SHA256
    assert check(scheme, headers, GITHUB_BODY, GITHUB_SECRET) == ""
    assert check(scheme, headers, GITHUB_BODY + b"!", GITHUB_SECRET) == BAD
    assert check(scheme, headers, GITHUB_BODY, "other") == BAD


@pytest.mark.parametrize(
    ("scheme", "name", "prefix"),
    [
        (Scheme.GITHUB_HMAC_SHA256, "x-hub-signature-256", "sha256="),
        (Scheme.NOTION_HMAC_SHA256, "x-notion-signature", "sha256="),
        (Scheme.LINEAR_HMAC_SHA256, "linear-signature", ""),
    ],
)
def test_schemes_over_the_body_alone(scheme: Scheme, name: str, prefix: str) -> None:
    good = prefix + hex_of(SECRET, BODY)
    assert check(scheme, {name: good}) == ""
    assert check(scheme, {}) == MISSING
    assert check(scheme, {name: good[:-1]}) == MALFORMED
    assert check(scheme, {name: f"sha1={good}"}) == MALFORMED
    assert check(scheme, {name: good}, BODY, "other") == BAD


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f'{{"webhookTimestamp": {NOW_MS}}}'.encode(), ""),
        (f'{{"webhookTimestamp": {NOW_MS - 300_001}}}'.encode(), STALE),
        (b'{"webhookTimestamp": "soon"}', ""),
        (b"\xff", ""),
    ],
)
def test_linear_says_the_moment_in_the_body(body: bytes, reason: str) -> None:
    assert check(Scheme.LINEAR_HMAC_SHA256, {"linear-signature": hex_of(SECRET, body)}, body) == (
        reason
    )


def test_a_shared_secret_is_compared_as_a_whole() -> None:
    scheme, name = Scheme.SHARED_SECRET_HEADER_V1, "x-tandem-webhook-secret"
    assert check(scheme, {name: SECRET}) == ""
    assert check(scheme, {name: SECRET}, BODY, "new", SECRET) == ""
    assert check(scheme, {name: SECRET[:-1]}) == BAD
    assert check(scheme, {name: "ü"}) == BAD
    assert check(scheme, {}) == MISSING


def test_what_has_no_secret_or_no_signature_is_not_believed() -> None:
    incoming = Incoming(headers={}, body=BODY)
    assert verify(Scheme.HMAC_SHA256_V1, (), incoming, TERMS) == NO_SECRET
    assert verify(Scheme.LINEAR_HMAC_SHA256, (), incoming, TERMS) == NOT_IMPORTED
    assert verify(Scheme.NOTION_HMAC_SHA256, (), incoming, TERMS) == NOT_IMPORTED
    assert verify(Scheme.UNSIGNED_DEV_MODE, (), incoming, TERMS) == UNSIGNED
    allowed = Terms(now_ms=NOW_MS, unsigned_allowed=True)
    assert verify(Scheme.UNSIGNED_DEV_MODE, (), incoming, allowed) == ""


SIGNED = [scheme for scheme in Scheme if scheme is not Scheme.UNSIGNED_DEV_MODE]
NAMES = [
    "x-tandem-webhook-signature",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "x-hub-signature-256",
    "x-notion-signature",
    "linear-signature",
    "x-tandem-webhook-secret",
]


@given(
    scheme=st.sampled_from(SIGNED),
    headers=st.dictionaries(st.sampled_from(NAMES), st.text(max_size=90)),
    body=st.binary(max_size=40),
)
def test_no_header_of_a_stranger_is_believed_or_breaks_anything(
    scheme: Scheme, headers: dict[str, str], body: bytes
) -> None:
    readable = {k: v.encode("utf-8", "replace").decode() for k, v in headers.items()}
    assert check(scheme, readable, body, "a secret that nobody guesses") != ""


def test_an_address_that_does_not_exist_costs_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    real: Callable[..., hmac.HMAC] = hmac.new

    def counting(*arguments: object, **named: object) -> hmac.HMAC:
        made = real(*arguments, **named)
        update = made.update

        class Counting:
            def update(self, part: bytes) -> None:
                hashed.append(part)
                update(part)

            digest = made.digest

        return Counting()  # type: ignore[return-value] # as much of it as is used

    monkeypatch.setattr("tandem.domain.webhook_signature.hmac.new", counting)
    pretend_to_verify(BODY)
    assert BODY in hashed
