"""Tokens and the audit over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tandem.domain.caller import ActorKind, Scope
from tandem.domain.ids import LOCAL_TENANT, TenantId
from tandem.serving import access_of

from .conftest import Server, open_server

ACME = TenantId("acme/web")


class Office:
    """A server with admins of two tenants and one who is none."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.texts: dict[str, str] = {}

    async def give(self, name: str, scope: Scope, tenant: TenantId, **how: Any) -> None:
        _, self.texts[name] = await self.server.parts.tokens.create(
            tenant=tenant, name=name, scopes=[scope], actor_id=name, **how
        )

    async def ask(self, who: str, method: str, path: str, **how: Any) -> Any:
        headers = {"authorization": f"Bearer {self.texts[who]}", **how.pop("headers", {})}
        return await self.server.ask(method, path, headers=headers, **how)

    async def make(self, who: str, **body: Any) -> Any:
        given = {"name": "ci", "scopes": ["operator"], **body}
        return await self.ask(who, "POST", "/tokens", json=given)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_server(tmp_path / "state") as server:
        server.site.access = access_of(server.parts)
        made = Office(server)
        await made.give("ann", Scope.ADMIN, LOCAL_TENANT)
        await made.give("eva", Scope.ADMIN, ACME)
        await made.give("ed", Scope.EDITOR, LOCAL_TENANT)
        await made.give("scout", Scope.ADMIN, LOCAL_TENANT, kind=ActorKind.AGENT)
        yield made


async def test_a_token_is_made_shown_once_used_and_revoked(office: Office) -> None:
    made = await office.make("ann", actor_id="bob", expires_in_ms=60_000)
    assert made.status_code == 200, made.text
    token, secret = made.json()["token"], made.json()["secret"]
    assert (token["actor_id"], token["created_by"], token["state"]) == ("bob", "ann", "active")
    assert token["scopes"] == ["operator"]

    office.texts["bob"] = secret
    assert (await office.ask("bob", "GET", "/automations/v2")).status_code == 200
    listed = await office.ask("ann", "GET", "/tokens")
    assert token["token_id"] in {each["token_id"] for each in listed.json()["tokens"]}
    assert secret not in listed.text
    assert "digest" not in listed.text

    path = f"/tokens/{token['token_id']}/revoke"
    revoked = await office.ask("ann", "POST", path)
    assert revoked.json()["token"]["state"] == "revoked"
    again = await office.ask("ann", "POST", path)
    assert (again.status_code, again.json()["code"]) == (409, "TOKEN_REVOKED")
    assert again.json()["tokenID"] == token["token_id"]


async def test_only_admins_reach_tokens_and_the_audit(office: Office) -> None:
    for method, path in (
        ("GET", "/tokens"),
        ("POST", "/tokens"),
        ("POST", "/tokens/x/revoke"),
        ("GET", "/audit"),
    ):
        answer = await office.ask("ed", method, path, json={})
        assert (answer.status_code, answer.json()["code"]) == (403, "SCOPE_DENIED")


async def test_an_admin_reaches_tokens_of_the_own_tenant_alone(office: Office) -> None:
    (mine,) = (await office.ask("eva", "GET", "/tokens")).json()["tokens"]
    assert (mine["name"], mine["tenant"]) == ("eva", "acme/web")
    others = (await office.ask("ann", "GET", "/tokens")).json()["tokens"]
    assert {each["name"] for each in others} == {"ann", "ed", "scout"}

    answer = await office.ask("ann", "POST", f"/tokens/{mine['token_id']}/revoke")
    assert (answer.status_code, answer.json()["code"]) == (404, "TOKEN_NOT_FOUND")
    assert (await office.ask("eva", "GET", "/tokens")).status_code == 200

    answer = await office.make("ann", tenant="acme/web")
    assert (answer.status_code, answer.json()["code"]) == (403, "TENANT_SCOPE_DENIED")
    for who, tenant in (("ann", "local/local"), ("ann", "local"), ("eva", "acme/web")):
        assert (await office.make(who, tenant=tenant)).status_code == 200


async def test_an_agent_makes_no_person(office: Office) -> None:
    answer = await office.make("scout", actor_id="scout")
    assert (answer.status_code, answer.json()["code"]) == (403, "TOKEN_TOO_WIDE")
    answer = await office.make("scout", actor_id="scout", kind="agent")
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("wrong", "status", "code"),
    [
        ({"scopes": []}, 400, "INVALID_REQUEST"),
        ({"name": " "}, 400, "INVALID_REQUEST"),
        ({"name": "a\0b"}, 400, "INVALID_REQUEST"),
        ({"actor_id": "a\nb"}, 400, "INVALID_REQUEST"),
        ({"expires_in_ms": 0}, 400, "INVALID_REQUEST"),
        ({"expires_in_ms": 2**70}, 422, "BODY_INVALID"),
        ({"expires_at_ms": 1}, 422, "BODY_INVALID"),
        ({"scopes": ["root"]}, 422, "BODY_INVALID"),
        ({"kind": "god"}, 422, "BODY_INVALID"),
    ],
)
async def test_a_token_that_cannot_be_is_refused(
    office: Office, wrong: dict[str, Any], status: int, code: str
) -> None:
    answer = await office.make("ann", **wrong)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert len((await office.ask("ann", "GET", "/tokens")).json()["tokens"]) == 3


async def test_the_audit_tells_what_was_done_to_tokens_of_the_tenant_page_by_page(
    office: Office,
) -> None:
    made = (await office.make("ann")).json()["token"]
    await office.ask("ann", "POST", f"/tokens/{made['token_id']}/revoke")
    whole = (await office.ask("ann", "GET", "/audit")).json()
    assert whole["cursor"] is None
    told = [(each["event"], each["actor"]) for each in whole["records"]]
    assert told[-2:] == [("token_created", "ann"), ("token_revoked", "ann")]
    assert {each["tenant"] for each in whole["records"]} == {"local"}
    assert made["token_id"] == whole["records"][-1]["detail"]["token_id"]

    paged: list[Any] = []
    cursor: int | None = 0
    while cursor is not None:
        query = {"limit": 2, "cursor": cursor}
        page = (await office.ask("ann", "GET", "/audit", params=query)).json()
        paged += page["records"]
        cursor = page["cursor"]
    assert paged == whole["records"]
    first = (await office.ask("ann", "GET", "/tokens", params={"limit": 2})).json()
    rest = await office.ask("ann", "GET", "/tokens", params={"cursor": first["cursor"]})
    assert first["count"] + rest.json()["count"] == 4
