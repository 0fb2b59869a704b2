"""Signed tenant contexts: their form, their claims, and whom they make of a caller."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from tandem.domain.assertion import (
    SKEW_MS,
    AssertionPolicy,
    Claims,
    ReplayMode,
    asserted_caller,
    is_in_time,
    open_envelope,
    read_claims,
    replay_problem,
    use_of,
)
from tandem.domain.caller import ActorKind, Caller, Scope
from tandem.domain.errors import Forbidden
from tandem.domain.ids import LOCAL_TENANT

NOW_MS = 1_700_000_000_000
POLICY = AssertionPolicy()
HEADER = {"alg": "EdDSA", "typ": "tandem-tenant-context+jws", "kid": "k1"}


def claims(**changes: Any) -> dict[str, Any]:
    return {
        "version": "v1",
        "issuer": "tandem-web",
        "audience": "tandem-runtime",
        "issued_at_ms": NOW_MS - 1_000,
        "expires_at_ms": NOW_MS + 60_000,
        "assertion_id": "a-1",
        "tenant_context": {
            "org_id": "acme",
            "workspace_id": "web",
            "deployment_id": "eu",
            "actor_id": "ada",
            "source": "explicit",
        },
        "human_actor": {"actor_id": "ada", "email": "ada@example.org"},
        "authority_chain": {"initiated_by": {"actor_id": "ada"}},
        "roles": ["member"],
    } | changes


def encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def text_of(payload: object, header: Mapping[str, str] = HEADER) -> str:
    return f"{encode(header)}.{encode(payload)}.{encode('signature')}"


def read(payload: object) -> Claims:
    return read_claims(open_envelope(text_of(payload)), POLICY, now_ms=NOW_MS)


def test_an_assertion_is_taken_apart() -> None:
    text = text_of(claims())
    envelope = open_envelope(text)
    assert envelope.key_id == "k1"
    assert envelope.signed.decode() == text.rpartition(".")[0]
    assert envelope.signature == b'"signature"'
    assert read(claims()).tenant_context.tenant == "acme/web/eu"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a.b.c.d",
        "x" * 20_000,
        "!.!.!",
        "a===.b.c",
        f"{encode({'alg': 'EdDSA'})}.e30.e30",
        f"{encode([1])}.e30.e30",
        text_of({}, {**HEADER, "alg": "none"}),
        text_of({}, {**HEADER, "alg": "HS256"}),
        text_of({}, {**HEADER, "typ": "JWT"}),
    ],
)
def test_what_is_no_assertion_is_refused(text: str) -> None:
    with pytest.raises(Forbidden) as refused:
        open_envelope(text)
    assert refused.value.code == "TENANT_CONTEXT_DENIED"


def context(**changes: Any) -> dict[str, Any]:
    return {"tenant_context": claims()["tenant_context"] | changes}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": "v2"}, "version"),
        ({"issuer": "eve"}, "issuer"),
        ({"audience": "another"}, "somebody else"),
        ({"issued_at_ms": NOW_MS + 31_000}, "not valid yet"),
        ({"expires_at_ms": NOW_MS - 30_000}, "expired"),
        ({"issued_at_ms": NOW_MS, "expires_at_ms": NOW_MS - 1}, "ends before"),
        ({"assertion_id": " "}, "no id"),
        (context(source="local_implicit"), "explicit"),
        (context(org_id=""), "no name"),
        (context(workspace_id=""), "no name"),
        (context(deployment_id=None), "deployment"),
        (context(actor_id="bob"), "belong together"),
        ({**context(actor_id=""), "human_actor": {"actor_id": ""}}, "no person"),
        ({"authority_chain": {"initiated_by": {"actor_id": ""}}}, "nobody began"),
        ({"human_actor": None}, "not complete"),
    ],
)
def test_claims_that_do_not_hold_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Forbidden, match=why):
        read(claims(**changes))


def test_clocks_may_differ_a_little() -> None:
    read(claims(issued_at_ms=NOW_MS + 29_000))
    late = read(claims(expires_at_ms=NOW_MS - 500))
    assert is_in_time(late, now_ms=NOW_MS)
    assert not is_in_time(late, now_ms=NOW_MS + 29_500)


def test_bound_assertions_may_come_again_only_as_they_were() -> None:
    one = use_of(read(claims()), "text")
    other = use_of(read(claims()), "another text")
    assert replay_problem(None, one, ReplayMode.BOUND) == ""
    assert replay_problem(one.digest, one, ReplayMode.BOUND) == ""
    assert "another one" in replay_problem(one.digest, other, ReplayMode.BOUND)


def test_one_shot_assertions_count_once_and_off_counts_nothing() -> None:
    one = use_of(read(claims()), "text")
    assert replay_problem(None, one, ReplayMode.ONE_SHOT) == ""
    assert "before" in replay_problem(one.digest, one, ReplayMode.ONE_SHOT)
    assert replay_problem(b"other", one, ReplayMode.OFF) == ""


def holder(*scopes: Scope) -> Caller:
    return Caller(
        tenant=LOCAL_TENANT,
        kind=ActorKind.SYSTEM,
        scopes=frozenset(scopes),
        source="api_token",
        token_id="t",
    )


@pytest.mark.parametrize(
    ("names", "held", "may"),
    [
        ({}, Scope.ADMIN, {Scope.VIEWER}),
        ({"roles": ["workspace:admin"]}, Scope.ADMIN, set(Scope)),
        ({"capabilities": ["hosted.owner"]}, Scope.OPERATOR, {Scope.VIEWER, Scope.OPERATOR}),
        ({"capabilities": ["automation.approve"]}, Scope.ADMIN, {Scope.VIEWER, Scope.APPROVER}),
        (
            {"roles": ["editor", "unheard of"]},
            Scope.ADMIN,
            {Scope.VIEWER, Scope.OPERATOR, Scope.EDITOR},
        ),
    ],
)
def test_a_person_may_what_their_roles_say_as_far_as_the_token_allows(
    names: dict[str, Any], held: Scope, may: set[Scope]
) -> None:
    caller = asserted_caller(holder(held), read(claims(**names)))
    assert {scope for scope in Scope if caller.may(scope)} == may


def test_the_person_acts_for_their_tenant() -> None:
    caller = asserted_caller(holder(Scope.ADMIN), read(claims()))
    assert (caller.tenant, caller.name, caller.kind) == ("acme/web/eu", "ada", ActorKind.HUMAN)
    assert msgspec.structs.asdict(caller)["token_id"] == "t"


def test_they_come_with_it_until_it_or_the_token_ends() -> None:
    ends_at_ms = NOW_MS + 60_000 + SKEW_MS
    for held_until_ms, until_ms in (
        (None, ends_at_ms),
        (ends_at_ms - 1, ends_at_ms - 1),
        (ends_at_ms + 1, ends_at_ms),
    ):
        held = msgspec.structs.replace(holder(Scope.ADMIN), until_ms=held_until_ms)
        assert asserted_caller(held, read(claims())).until_ms == until_ms
