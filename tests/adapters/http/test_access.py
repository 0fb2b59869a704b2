"""Who asks: tokens, signed tenant contexts, and who acts for them, over a real store."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tandem.adapters.http.access import AuthMode, StoredAccess
from tandem.adapters.local.clock import SystemClock
from tandem.adapters.local.secrets import RandomSecrets
from tandem.adapters.local.signatures import Ed25519Signatures
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.assertion import AssertionPolicy, ReplayMode
from tandem.domain.audit import AuditEvent, AuditRecord, problems_of
from tandem.domain.caller import ActorKind, Caller, Scope
from tandem.domain.errors import (
    AuditPersistenceFailed,
    AuthRequired,
    EngineError,
    Forbidden,
    InvalidRequest,
    RateLimited,
    StoreUnavailable,
)
from tandem.domain.ids import LOCAL_TENANT, TenantId
from tandem.domain.rate import Rate
from tandem.domain.token import USE_NOTED_EVERY_MS, Token, token_text
from tandem.engine.tokens import Tokens
from tandem.testing.store_suite import CommitFault

HERE = "127.0.0.1"
ACME = TenantId("acme/web/eu")
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))


class HandClock(SystemClock):
    """A wall clock that somebody moves."""

    def __init__(self) -> None:
        self._now_ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, span_ms: int) -> None:
        self._now_ms += span_ms


class Door:
    """A store with its tokens, and who is let in."""

    def __init__(self, path: Path) -> None:
        self.fault = CommitFault()
        self.path = path
        self.store = SqliteStore(path, synchronous="OFF", commit=self._commit)
        self.clock = HandClock()
        self.tokens = Tokens(store=self.store, clock=self.clock, secrets=RandomSecrets())
        self.complaints: list[str] = []

    def _commit(self, connection: apsw.Connection) -> None:
        if self.fault.take():
            raise apsw.IOError("disk I/O error")
        connection.execute("COMMIT")

    def access(self, **how: Any) -> StoredAccess:
        return StoredAccess(
            store=self.store, clock=self.clock, complain=self.complaints.append, **how
        )

    def hosted(self, **how: Any) -> StoredAccess:
        signatures = Ed25519Signatures({"k1": SIGNER.public_key()})
        return self.access(mode=AuthMode.HOSTED, signatures=signatures, **how)

    async def token(self, *scopes: Scope, **how: Any) -> tuple[Token, str]:
        given = {"tenant": LOCAL_TENANT, "name": "t", "scopes": scopes or (Scope.ADMIN,)} | how
        return await self.tokens.create(**given)

    @property
    def audit(self) -> list[AuditRecord]:
        found = list(self.store.list_audit(tenant=None, after_no=0, limit=100))
        assert problems_of(found) == []
        return found

    def denials(self) -> list[Mapping[str, Any]]:
        kinds = (AuditEvent.AUTH_DENIED, AuditEvent.TENANT_CONTEXT_DENIED)
        return [r.entry.detail for r in self.audit if r.entry.event in kinds]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    made = Door(tmp_path / "store.db")
    yield made
    made.store.close()


async def ask(access: StoredAccess, *, peer: str = HERE, **headers: str) -> Caller:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await access.caller_of(named, peer)


async def code_of(access: StoredAccess, *, peer: str = HERE, **headers: str) -> str:
    with pytest.raises(EngineError) as refused:
        await ask(access, peer=peer, **headers)
    return refused.value.code


# Without a token (D3)


async def test_without_a_token_any_token_that_comes_is_ignored(door: Door) -> None:
    access = door.access()
    for token in ("", "nonsense"):
        caller = await ask(access, authorization=f"Bearer {token}")
        assert (caller.tenant, caller.kind) == (LOCAL_TENANT, ActorKind.HUMAN)
        assert caller.may(Scope.ADMIN)


async def test_without_a_token_another_machine_is_turned_away(door: Door) -> None:
    assert await code_of(door.access(), peer="10.0.0.1") == "AUTH_REQUIRED"
    assert (await ask(door.access(), peer="::1")).may(Scope.ADMIN)


async def test_headers_with_a_tenant_are_ignored_here(door: Door) -> None:
    caller = await ask(door.access(), x_tandem_org_id="acme", x_user_id="eve")
    assert (caller.tenant, caller.actor_id) == (LOCAL_TENANT, "")


async def test_the_first_token_closes_a_server_that_runs_within_a_second(door: Door) -> None:
    access = door.access()
    await ask(access)
    token, _ = await door.token()
    await door.tokens.revoke(token.token_id)
    door.clock.advance(1_000)
    assert await code_of(access) == "AUTH_REQUIRED"


# Tokens


async def test_plain_token_is_a_person_with_its_scopes_and_tenant(door: Door) -> None:
    token, text = await door.token(Scope.OPERATOR, tenant=ACME, actor_id="ada")
    caller = await ask(door.access(), authorization=f"Bearer {text}")
    assert (caller.kind, caller.name, caller.tenant) == (ActorKind.HUMAN, "ada", ACME)
    assert (caller.token_id, caller.source) == (token.token_id, "api_token")
    assert not caller.may(Scope.EDITOR)


async def test_the_token_of_the_environment_may_do_everything(door: Door) -> None:
    access = door.access(root_token="secret")
    caller = await ask(access, x_tandem_token="secret")
    assert (caller.kind, caller.name) == (ActorKind.HUMAN, "environment")
    assert caller.may(Scope.ADMIN)
    assert await code_of(access) == "AUTH_REQUIRED"
    assert await code_of(access, x_tandem_token="secret2") == "AUTH_REQUIRED"


async def test_the_first_header_that_is_not_empty_wins_and_nothing_else_is_tried(
    door: Door,
) -> None:
    _, text = await door.token()
    access = door.access()
    good, bad = text, "wrong"
    for headers in (
        {"x_agent_token": good, "x_tandem_token": bad, "authorization": f"Bearer {bad}"},
        {"x_agent_token": " ", "x_tandem_token": f" {good} ", "authorization": f"Bearer {bad}"},
        {"x_tandem_token": "", "authorization": f"Bearer  {good}"},
        {"authorization": f"bearer {good}"},
    ):
        assert (await ask(access, **headers)).may(Scope.ADMIN)
    for headers in (
        {"x_agent_token": bad, "x_tandem_token": good, "authorization": f"Bearer {good}"},
        {"x_tandem_token": bad, "authorization": f"Bearer {good}"},
        {"authorization": f"BEARER {good}"},
        {"authorization": good},
    ):
        assert await code_of(access, **headers) == "AUTH_REQUIRED"


async def test_a_token_is_over_at_its_moment(door: Door) -> None:
    _, text = await door.token(expires_in_ms=500)
    access = door.access()
    await ask(access, x_tandem_token=text)
    door.clock.advance(500)
    assert await code_of(access, x_tandem_token=text) == "AUTH_REQUIRED"


async def test_a_token_that_another_process_revoked_is_refused_within_a_second(
    door: Door,
) -> None:
    token, text = await door.token()
    access = door.access()
    await ask(access, x_tandem_token=text)
    other = SqliteStore(door.path, synchronous="OFF")
    elsewhere = Tokens(store=other, clock=door.clock, secrets=RandomSecrets())
    await elsewhere.revoke(token.token_id)
    other.close()
    door.clock.advance(1_000)
    assert await code_of(access, x_tandem_token=text) == "AUTH_REQUIRED"


async def test_a_token_with_another_secret_is_refused(door: Door) -> None:
    token, _ = await door.token()
    other = RandomSecrets().new(32)
    forged = token_text(token.token_id, other)
    assert await code_of(door.access(), x_tandem_token=forged) == "AUTH_REQUIRED"


async def test_a_request_costs_no_statement(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = await door.token()
    access = door.access()
    await ask(access, x_tandem_token=text)
    statements: list[str] = []
    find = door.store._find

    def counted(name: str, *values: object) -> Any:
        statements.append(name)
        return find(name, *values)

    monkeypatch.setattr(door.store, "_find", counted)
    writes = door.store.committer.writes
    for _ in range(100):
        await ask(access, x_tandem_token=text)
    assert statements == []
    assert door.store.committer.writes == writes


async def test_the_use_of_a_token_is_noted_once_a_minute(door: Door) -> None:
    token, text = await door.token()
    access = door.access()
    first = door.clock.now_ms()
    await ask(access, x_tandem_token=text)
    for _ in range(3):
        door.clock.advance(USE_NOTED_EVERY_MS // 4)
        await ask(access, x_tandem_token=text)
    found = door.store.find_token(token.token_id)
    assert found is not None
    assert found.last_used_at_ms == first
    door.clock.advance(USE_NOTED_EVERY_MS // 4)
    await ask(access, x_tandem_token=text)
    found = door.store.find_token(token.token_id)
    assert found is not None
    assert found.last_used_at_ms == first + USE_NOTED_EVERY_MS


async def test_a_use_that_cannot_be_noted_is_told_and_the_request_goes_on(door: Door) -> None:
    _, text = await door.token()
    door.fault.arm("before")
    assert (await ask(door.access(), x_tandem_token=text)).may(Scope.ADMIN)
    assert "could not be noted" in door.complaints[0]


# Who acts


async def test_the_header_of_an_agent_wins(door: Door) -> None:
    _, text = await door.token(actor_id="ada")
    caller = await ask(
        door.access(),
        x_tandem_token=text,
        x_tandem_agent_id="scout",
        x_tandem_agent_ancestor_ids="root,mid",
        x_tandem_request_source="panel",
    )
    assert (caller.kind, caller.name) == (ActorKind.AGENT, "scout")
    assert (caller.ancestors, caller.source) == (("root", "mid"), "panel")


async def test_the_token_of_an_agent_stays_that_of_the_agent(door: Door) -> None:
    _, text = await door.token(actor_id="scout", kind=ActorKind.AGENT)
    caller = await ask(door.access(), x_tandem_token=text, x_tandem_agent_id="another")
    assert (caller.kind, caller.name) == (ActorKind.AGENT, "scout")


async def test_a_name_that_cannot_be_is_refused(door: Door) -> None:
    with pytest.raises(InvalidRequest):
        await ask(door.access(), x_tandem_agent_id="x" * 300)


# Denials on record


async def test_denials_are_on_record_and_a_flood_is_counted(door: Door) -> None:
    token, text = await door.token()
    access = door.access()
    for _ in range(50):
        await code_of(access, peer="10.0.0.1", x_tandem_token="wrong")
    await door.tokens.revoke(token.token_id)
    door.clock.advance(60_000)
    await code_of(access, peer="10.0.0.1", x_tandem_token=text)

    assert door.denials() == [
        {"times": 1},
        {"token_id": token.token_id, "times": 1},
        {"token_id": token.token_id, "times": 49},
    ]
    assert text not in str(door.audit)


async def test_a_request_without_any_token_is_no_denial(door: Door) -> None:
    await door.token()
    await code_of(door.access())
    assert door.denials() == []


async def test_a_denial_that_cannot_be_recorded_is_an_error_of_ours(door: Door) -> None:
    await door.token()
    door.fault.arm("before")
    with pytest.raises(AuditPersistenceFailed):
        await ask(door.access(), x_tandem_token="wrong")


async def test_a_store_that_cannot_be_read_lets_nobody_in(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = await door.token()
    access = door.access()
    await ask(access, x_tandem_token=text)

    def away(name: str, *_values: object) -> Any:
        raise StoreUnavailable(name)

    monkeypatch.setattr(door.store, "_find", away)
    door.clock.advance(1_000)
    with pytest.raises(StoreUnavailable):
        await ask(access, x_tandem_token=text)


# Tenant contexts


def claims(door: Door, **changes: Any) -> dict[str, Any]:
    now_ms = door.clock.now_ms()
    return {
        "version": "v1",
        "issuer": "tandem-web",
        "audience": "tandem-runtime",
        "issued_at_ms": now_ms,
        "expires_at_ms": now_ms + 300_000,
        "assertion_id": "a-1",
        "tenant_context": {
            "org_id": "acme",
            "workspace_id": "web",
            "deployment_id": "eu",
            "actor_id": "ada",
            "source": "explicit",
        },
        "human_actor": {"actor_id": "ada"},
        "authority_chain": {"initiated_by": {"actor_id": "ada"}},
        "roles": ["workspace:admin"],
    } | changes


def signed(payload: object, *, by: Ed25519PrivateKey = SIGNER, kid: str = "k1") -> str:
    header = {"alg": "EdDSA", "typ": "tandem-tenant-context+jws", "kid": kid}
    parts = [_part(json.dumps(part).encode()) for part in (header, payload)]
    return ".".join([*parts, _part(by.sign(".".join(parts).encode()))])


def _part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "header",
    ["x_tandem_context_assertion", "x_tandem_context_jws", "x_tandem_tenant_context_jws"],
)
async def test_a_signed_context_says_for_whom_the_token_asks(door: Door, header: str) -> None:
    _, text = await door.token()
    caller = await ask(
        door.hosted(), authorization=f"Bearer {text}", **{header: signed(claims(door))}
    )
    assert (caller.tenant, caller.name, caller.kind) == (ACME, "ada", ActorKind.HUMAN)
    assert caller.may(Scope.ADMIN)


async def test_a_hosted_server_needs_a_token_first(door: Door) -> None:
    access = door.hosted()
    context = signed(claims(door))
    assert await code_of(access) == "AUTH_REQUIRED"
    assert await code_of(access, x_tandem_context_assertion=context) == "AUTH_REQUIRED"


@pytest.mark.parametrize(
    "name",
    [
        "x_tandem_org_id",
        "x_tenant_org_id",
        "x_tandem_workspace_id",
        "x_tenant_workspace_id",
        "x_tandem_actor_id",
        "x_user_id",
    ],
)
async def test_a_plain_header_with_a_tenant_is_refused_and_on_record(door: Door, name: str) -> None:
    token, text = await door.token(actor_id="panel")
    access = door.hosted()
    code = await code_of(
        access,
        x_tandem_token=text,
        x_tandem_context_assertion=signed(claims(door)),
        **{name: "acme"},
    )
    assert code == "TENANT_CONTEXT_DENIED"
    record = door.audit[-1].entry
    assert (record.event, record.actor, record.peer) == (
        AuditEvent.TENANT_CONTEXT_DENIED,
        "panel",
        HERE,
    )
    assert record.detail["token_id"] == token.token_id


def bad_contexts(door: Door) -> dict[str, str]:
    good = signed(claims(door))
    head, payload, signature = good.split(".")
    forged = _part(json.dumps(claims(door, human_actor={"actor_id": "eve"})).encode())
    return {
        "none": "",
        "nonsense": "nonsense",
        "unsigned": f"{head}.{payload}.",
        "changed": f"{head}.{forged}.{signature}",
        "signed by a stranger": signed(claims(door), by=STRANGER),
        "an unknown key": signed(claims(door), kid="k2"),
        "expired": signed(claims(door, expires_at_ms=1)),
        "for somebody else": signed(claims(door, audience="another")),
        "of somebody else": signed(claims(door, issuer="another")),
        "implicit": signed(
            claims(
                door, tenant_context={**claims(door)["tenant_context"], "source": "local_implicit"}
            )
        ),
    }


async def test_contexts_that_do_not_count_are_refused_and_on_record(door: Door) -> None:
    _, text = await door.token()
    access = door.hosted()
    bad = bad_contexts(door)
    for name, context in bad.items():
        code = await code_of(access, x_tandem_token=text, x_tandem_context_assertion=context)
        assert code == "TENANT_CONTEXT_DENIED", name
    assert len(door.denials()) == len(bad)


async def test_a_refusal_that_cannot_be_recorded_is_an_error_of_ours(door: Door) -> None:
    _, text = await door.token()
    access = door.hosted()
    await ask(access, x_tandem_token=text, x_tandem_context_assertion=signed(claims(door)))
    door.fault.arm("before")
    code = await code_of(access, x_tandem_token=text)
    assert code == "AUDIT_PERSISTENCE_FAILED"


async def test_without_keys_no_context_counts(door: Door) -> None:
    _, text = await door.token()
    access = door.access(mode=AuthMode.ENTERPRISE)
    context = signed(claims(door))
    code = await code_of(access, x_tandem_token=text, x_tandem_context_assertion=context)
    assert code == "TENANT_CONTEXT_DENIED"


async def test_a_bound_context_may_come_again_as_it_was_also_to_another_server(
    door: Door,
) -> None:
    _, text = await door.token()
    good, other = signed(claims(door)), signed(claims(door, roles=["viewer"]))
    for access in (door.hosted(), door.hosted()):
        for _ in range(2):
            await ask(access, x_tandem_token=text, x_tandem_context_assertion=good)
        code = await code_of(access, x_tandem_token=text, x_tandem_context_assertion=other)
        assert code == "TENANT_CONTEXT_DENIED"


async def test_a_context_ends_also_when_it_is_known(door: Door) -> None:
    _, text = await door.token()
    access = door.hosted()
    context = signed(claims(door))
    await ask(access, x_tandem_token=text, x_tandem_context_assertion=context)
    door.clock.advance(300_000 + 30_000)
    with pytest.raises(Forbidden, match="expired"):
        await ask(access, x_tandem_token=text, x_tandem_context_assertion=context)


async def test_a_one_shot_context_counts_once(door: Door) -> None:
    _, text = await door.token()
    access = door.hosted(assertions=AssertionPolicy(replay=ReplayMode.ONE_SHOT))
    context = signed(claims(door))
    await ask(access, x_tandem_token=text, x_tandem_context_assertion=context)
    with pytest.raises(Forbidden, match="used before"):
        await ask(access, x_tandem_token=text, x_tandem_context_assertion=context)


async def test_without_replay_checks_nothing_is_kept(door: Door) -> None:
    _, text = await door.token()
    access = door.hosted(assertions=AssertionPolicy(replay=ReplayMode.OFF))
    writes = door.store.committer.writes
    for roles in (["viewer"], ["editor"]):
        context = signed(claims(door, roles=roles))
        await ask(access, x_tandem_token=text, x_tandem_context_assertion=context)
    assert door.store.committer.writes <= writes + 1  # the use of the token


# Rates


async def test_a_tenant_may_ask_so_often(door: Door) -> None:
    _, here = await door.token()
    _, there = await door.token(tenant=ACME)
    access = door.access(requests=Rate("requests", per_min=2))
    for _ in range(2):
        await ask(access, x_tandem_token=here)
    with pytest.raises(RateLimited):
        await ask(access, x_tandem_token=here)
    await ask(access, x_tandem_token=there)
    with pytest.raises(AuthRequired):
        await ask(access, x_tandem_token="wrong")


def test_the_record_of_a_caller_has_no_secret() -> None:
    assert "digest" not in {field.name for field in msgspec.structs.fields(Caller)}


async def test_who_listens_is_let_go_when_the_token_is_revoked_or_a_first_one_is_made(
    door: Door,
) -> None:
    access = door.access()
    nobody = await ask(access)
    assert access.still_holds(nobody)
    token, text = await door.token(Scope.VIEWER)
    caller = await ask(access, x_tandem_token=text)
    assert access.still_holds(caller)
    door.clock.advance(1_000)
    assert not access.still_holds(nobody), "whoever asks needs a token now"
    await door.tokens.revoke(token.token_id)
    door.clock.advance(1_000)
    assert not access.still_holds(caller)
    rooted = door.access(root_token="secret")
    assert rooted.still_holds(await ask(rooted, x_tandem_token="secret"))
