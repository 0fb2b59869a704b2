"""Secrets are found by value and by shape, and nothing else is taken away."""

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandem.domain.json import encode
from tandem.domain.redaction import DEPTH_MAX, REDACTED, Redactor

CANARY = 'canary/+"ü 7f3a9c'
redactor = Redactor([CANARY])


@pytest.mark.parametrize(
    "told",
    [
        CANARY,
        quote(CANARY, safe=""),
        encode({"a": CANARY}).decode(),
        b64encode(CANARY.encode()).decode(),
        b64encode(f"user:{CANARY}".encode()).decode(),
        b64encode(f"me:{CANARY}!".encode()).decode(),
        urlsafe_b64encode(f"x{CANARY}".encode()).decode(),
    ],
)
def test_a_configured_secret_is_found_however_it_is_written(told: str) -> None:
    shown = redactor.text(f"before {told} after")
    assert REDACTED in shown
    assert "before" in shown
    assert "after" in shown
    assert "7f3a9c" not in shown


@given(st.text(st.characters(codec="utf-8"), min_size=6), st.binary(max_size=7), st.binary())
def test_no_secret_survives_base64_at_any_place(secret: str, before: bytes, after: bytes) -> None:
    whole = b64encode(before + secret.encode() + after).decode()
    shown = Redactor([secret]).text(whole)
    assert shown != whole


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("Authorization: Bearer abc.def", f"Authorization: {REDACTED}"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", f"{{'authorization': '{REDACTED}'}}"),
        ("sent bearer abcdef123 to it", f"sent bearer {REDACTED} to it"),
        ("x-tandem-token=hello", f"x-tandem-token={REDACTED}"),
        ("token tdm_0123456789abcdef is old", f"token {REDACTED} is old"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", REDACTED),
        ("postgresql://me:p4ss@host/db", f"postgresql://me:{REDACTED}@host/db"),
        ("redis://:p4ss@host", f"redis://:{REDACTED}@host"),
        ("?password=p4ss&x=1", f"?password={REDACTED}&x=1"),
        ('{"api_key": "abcd"}', f'{{"api_key": "{REDACTED}"}}'),
        ("eyJhbGciOiJFZERTQSJ9.eyJhIjoxfQ.c2ln", REDACTED),
        ("sk-proj-0123456789abcdefXYZ", REDACTED),
        ("ghp_0123456789abcdefghij0123", REDACTED),
        ("AKIAABCDEFGHIJKLMNOP", REDACTED),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nrest", f"{REDACTED}\nrest"),
    ],
)
def test_what_looks_like_a_secret_is_one(told: str, shown: str) -> None:
    assert Redactor().text(told) == shown


@pytest.mark.parametrize(
    "told",
    [
        "run automation-v2-run-0123456789 waits for the store",
        "the token of the run has expired",
        "http://127.0.0.1:39731/automations/v2/runs?limit=5",
        "set TANDEM_API_TOKEN, or listen on 127.0.0.1",
        "basic checks passed",
    ],
)
def test_what_is_no_secret_stays(told: str) -> None:
    assert redactor.text(told) == told


def test_short_values_blank_nothing_out() -> None:
    assert Redactor(["a", ""]).text("a banana") == "a banana"


def test_a_secret_within_another_one_goes_with_it() -> None:
    assert Redactor(["secret-one", "secret-one-and-more"]).text("secret-one-and-more") == REDACTED


def test_everything_that_is_made_of_texts_is_looked_through() -> None:
    given_values = {
        CANARY: 1,
        "list": [CANARY, 2, None, True, 1.5],
        "bytes": CANARY.encode(),
        "set": {CANARY},
        "api_token": "short",
        "password": "",
        "token_count": "3",
        "error": ValueError(f"no {CANARY}"),
    }
    assert redactor.value(given_values) == {
        REDACTED: 1,
        "list": [REDACTED, 2, None, True, 1.5],
        "bytes": REDACTED,
        "set": [REDACTED],
        "api_token": REDACTED,
        "password": "",
        "token_count": "3",
        "error": f"no {REDACTED}",
    }


def test_what_lies_too_deep_is_told_as_a_text() -> None:
    deep: object = CANARY
    for _ in range(DEPTH_MAX + 3):
        deep = [deep]
    shown = str(redactor.value(deep))
    assert REDACTED in shown
    assert "7f3a9c" not in shown
