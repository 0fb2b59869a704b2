"""Hosted modes: an automation shows itself to whom it is shared with, and is changed by its owner.

Most tests believe a header; one goes the whole way from a signed tenant context.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tandem.adapters.http.access import AuthMode, StoredAccess
from tandem.adapters.local.clock import SystemClock
from tandem.adapters.local.signatures import Ed25519Signatures
from tandem.domain.actor import acting
from tandem.domain.audit import AuditEvent
from tandem.domain.caller import LOCAL_CALLER, Caller, Scope
from tandem.domain.errors import AuditPersistenceFailed, StoreUnavailable
from tandem.domain.ids import LOCAL_TENANT
from tandem.domain.visibility import Assertor
from tandem.domain.webhook_signature import signature_of
from tandem.engine import paging

from .conftest import GATE, Server, node, open_server, spec
from .streams import listening, reading
from .test_tenants import OF_ONE_THING, OTHERWISE, asked

PEOPLE = {
    "ada": Assertor(person="ada"),
    "bob": Assertor(person="bob", org_units=frozenset({"web"})),
    "eva": Assertor(person="eva"),
    "root": Assertor(person="root", roles=frozenset({"workspace:admin"})),
}


class ByName:
    """Believes a header; only for tests. Without one nobody is asserted, as in the local mode."""

    async def caller_of(self, headers: Mapping[str, str], peer: str) -> Caller:
        name = headers.get("x-test-person", "")
        caller = (
            msgspec.structs.replace(
                LOCAL_CALLER, actor_id=name, source="api_token", asserted=PEOPLE[name]
            )
            if name
            else LOCAL_CALLER
        )
        return acting(caller, agent_id=headers.get("x-tandem-agent-id", ""))

    def still_holds(self, caller: Caller) -> bool:
        return bool(caller)


def by(name: str, **more: str) -> dict[str, str]:
    return {"x-test-person": name, **more}


@pytest.fixture
async def hosted(tmp_path: Path) -> AsyncIterator[Server]:
    async with open_server(tmp_path / "state", access=ByName(), drives=True) as server:
        yield server


async def share(server: Server, visibility: str, *audience: str, who: str = "ada") -> Any:
    body = {"visibility": visibility, "audience_principals": list(audience)}
    shared = await server.post("/automations/v2/hers/share", body, headers=by(who))
    return shared["automation"]["metadata"]["resource_access"]


async def made(server: Server, *nodes: Any) -> str:
    """Let Ada make an automation and a run of it that has come to rest; return the run."""
    await server.post("/automations/v2", spec("hers", *nodes), headers=by("ada"))
    path = "/automations/v2/hers/run_now"
    run_id = str((await server.post(path, headers=by("ada")))["run"]["run_id"])
    await server.rest(run_id)
    return run_id


# Pages


async def each_kind(server: Server, name: str, who: str, times: int) -> None:
    """Let somebody have so many gates, waits and raw events."""
    wait = {
        "kind": "external_condition",
        "condition_key": {"source": "literal", "value": "met"},
        "timeout": {"expires_after_ms": 86_400_000, "on_timeout": "cancel"},
    }
    waits = {"node_id": "w", "objective": "", "wait": wait}
    body = spec(name, node("g", gate=GATE), waits)
    await server.post("/automations/v2", body, headers=by(who))
    made = await server.post(
        f"/automations/v2/{name}/webhook-triggers", {"provider": "generic"}, headers=by(who)
    )
    for number in range(times):
        run = await server.post(f"/automations/v2/{name}/run_now", headers=by(who))
        await server.rest(run["run"]["run_id"])
        content = b"[%d]" % number
        signature = signature_of(made["new_secret"], SystemClock().now_ms(), content)
        sent = await server.ask(
            "POST",
            made["trigger"]["callback_path"],
            content=content,
            headers={
                "content-type": "application/json",
                "x-tandem-webhook-signature": signature,
            },
        )
        assert sent.status_code == 202


@pytest.mark.parametrize("order", [("ada", "eva"), ("eva", "ada")])
async def test_a_page_is_full_however_much_of_somebody_else_lies_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[str, str]
) -> None:
    """Some lists are newest first and some oldest first, so each order is hidden once."""
    monkeypatch.setattr(paging, "PAGE", 2)
    async with open_server(tmp_path / "state", access=ByName(), drives=True) as server:
        for who in order:
            await each_kind(server, f"of-{who}", who, 5 if who == "ada" else 2)
        for path in (
            "/approvals/pending",
            "/automations/v2/waits",
            "/automations/v2/webhook-events",
        ):
            for limit in (1, 2, 50):
                told = await server.get(f"{path}?limit={limit}", headers=by("eva"))
                # A delivery starts a run of its own, which waits, too.
                assert told["count"] >= min(limit, 2), path
                assert "of-ada" not in json.dumps(told)
                assert "of-eva" in json.dumps(told)


# Seeing


async def test_what_is_made_belongs_to_its_maker_whatever_the_body_says(hosted: Server) -> None:
    body = spec("hers", metadata={"k": 1, "resource_access": {"visibility": "org"}})
    body |= {"resource_access": {"visibility": "org"}, "creator_id": "bob"}
    told = await hosted.post("/automations/v2", body, headers=by("ada"))
    assert told["automation"]["creator_id"] == "ada"
    assert told["automation"]["metadata"] == {
        "k": 1,
        "resource_access": {
            "owner_principal": {"kind": "human_user", "id": "ada"},
            "visibility": "private",
            "audience_principals": [],
            "updated_by": "ada",
        },
    }
    again = await hosted.post("/automations/v2", body, headers=by("ada"))
    assert again["automation"]["version"] == 1
    local = await hosted.post("/automations/v2", spec("local"))
    assert "metadata" not in local["automation"]


async def test_what_is_hidden_is_like_what_is_missing(hosted: Server) -> None:
    run_id = await made(hosted, node("n1"), node("n2", "n1", gate=GATE))
    hers = {"automation_id": "hers", "run_id": run_id, "node_id": "n1"}
    nobodys = {"automation_id": "nope", "run_id": "nope", "node_id": "n1"}
    before = await hosted.get(f"/automations/v2/runs/{run_id}")
    for endpoint in OF_ONE_THING:
        hidden = await asked(hosted, endpoint, hers, by("eva"))
        missing = await asked(hosted, endpoint, nobodys, by("eva"))
        expected = OTHERWISE.get(endpoint.name, 404)
        assert hidden.status_code == missing.status_code == expected, endpoint.name
        text = hidden.text.replace("hers", "nope").replace(run_id, "nope")
        assert text == missing.text, endpoint.name
    assert await hosted.get(f"/automations/v2/runs/{run_id}") == before


async def test_an_id_that_somebody_else_has_cannot_be_put(hosted: Server) -> None:
    await made(hosted)
    whole = {"name": "theirs", "flow": {"nodes": [node("n1")]}, "agents": [{"agent_id": "a1"}]}
    told = await hosted.ask("PUT", "/automations/v2/hers", json=whole, headers=by("eva"))
    assert (told.status_code, told.json()["code"]) == (409, "AUTOMATION_V2_CREATE_FAILED")
    await share(hosted, "org")
    told = await hosted.ask("PUT", "/automations/v2/hers", json=whole, headers=by("eva"))
    assert (told.status_code, told.json()["code"]) == (403, "AUTOMATION_V2_ACCESS_DENIED")
    assert (await hosted.get("/automations/v2/hers"))["automation"]["name"] != "theirs"


async def test_what_is_put_belongs_to_whoever_put_it_first(hosted: Server) -> None:
    whole = {"name": "mine", "flow": {"nodes": [node("n1")]}, "agents": [{"agent_id": "a1"}]}
    path = "/automations/v2/evas"
    told = await hosted.ask("PUT", path, json=whole | {"metadata": 1}, headers=by("eva"))
    assert (told.status_code, told.json()["code"]) == (400, "AUTOMATION_V2_INVALID_METADATA")
    for _ in range(2):
        told = await hosted.ask("PUT", path, json=whole, headers=by("eva"))
        access = told.json()["automation"]["metadata"]["resource_access"]
        assert (access["owner_principal"]["id"], access["visibility"]) == ("eva", "private")
    assert (await hosted.ask("GET", path, headers=by("bob"))).status_code == 404


LISTS = (
    ("/automations/v2", "automations"),
    ("/automations/v2?view=summary", "automations"),
    ("/automations/v2/runs", "runs"),
    ("/automations/v2/runs?automation_id=hers", "runs"),
    ("/automations/v2/waits", "waits"),
    ("/approvals/pending", "approvals"),
)
WAIT = {
    "kind": "external_condition",
    "condition_key": {"source": "literal", "value": "k"},
    "timeout": {"expires_after_ms": 60_000, "on_timeout": "cancel"},
}


async def test_lists_tell_each_what_they_see(hosted: Server) -> None:
    waiting = {"node_id": "w1", "wait": WAIT}
    await made(hosted, node("n1", gate=GATE), waiting)

    async def counts(who: str) -> set[int]:
        found = [(await hosted.get(path, headers=by(who)))[key] for path, key in LISTS]
        return {len(each) for each in found}

    assert await counts("eva") == await counts("bob") == {0}
    assert await counts("ada") == await counts("root") == {1}
    await share(hosted, "group", "web", "web")
    assert (await counts("eva"), await counts("bob")) == ({0}, {1})
    await share(hosted, "org")
    assert (await counts("eva"), await counts("bob")) == ({1}, {1})


async def test_a_page_of_runs_is_filled_with_what_is_seen(hosted: Server) -> None:
    await hosted.post("/automations/v2", spec("evas"), headers=by("eva"))
    await hosted.post("/automations/v2", spec("hers"), headers=by("ada"))
    mine = []
    for _ in range(3):
        for who, name in (("eva", "evas"), ("ada", "hers"), ("ada", "hers")):
            path = f"/automations/v2/{name}/run_now"
            told = await hosted.post(path, {"dry_run": True}, headers=by(who))
            if who == "eva":
                mine.append(told["run"]["run_id"])
    page = await hosted.get("/automations/v2/runs?limit=2", headers=by("eva"))
    assert [run["run_id"] for run in page["runs"]] == mine[:0:-1]
    rest = await hosted.get(
        f"/automations/v2/runs?limit=2&cursor={page['cursor']}", headers=by("eva")
    )
    assert [run["run_id"] for run in rest["runs"]] == mine[:1]
    assert rest["cursor"] is None


async def test_a_signal_tells_of_no_wait_that_is_somebody_elses(hosted: Server) -> None:
    wait = {
        "kind": "external_condition",
        "condition_key": {"source": "literal", "value": "met"},
        "timeout": {"expires_after_ms": 86_400_000, "on_timeout": "cancel"},
        "payload_schema": {"type": "object"},
    }
    run_id = await made(
        hosted, node("g", gate=GATE), {"node_id": "w", "objective": "", "wait": wait}
    )
    for who, told in (("bob", []), ("ada", [f"automation-v2:{run_id}:w:wait"])):
        body = {"condition_key": "met", "idempotency_key": who, "payload": 1}
        found = await hosted.post("/automations/v2/signals", body, headers=by(who))
        assert [refused["wait_id"] for refused in found["refused"]] == told
        assert found["woken"] == []


async def test_a_bulk_action_reaches_what_is_the_callers(hosted: Server) -> None:
    run_id = await made(hosted, node("n1", gate=GATE))
    body = {"action": "cancel", "filter": {}}
    path = "/automations/v2/runs/bulk"
    assert (await hosted.post(path, body, headers=by("bob")))["count"] == 0
    await share(hosted, "org")
    (refused,) = (await hosted.post(path, body, headers=by("bob")))["results"]
    assert (refused["run_id"], refused["code"]) == (run_id, "AUTOMATION_V2_ACCESS_DENIED")
    assert (await hosted.post(path, body, headers=by("ada")))["done"] == 1


async def test_a_bulk_action_goes_on_behind_what_is_hidden(hosted: Server) -> None:
    await hosted.post("/automations/v2", spec("evas"), headers=by("eva"))
    mine = await hosted.post("/automations/v2/evas/run_now", {"dry_run": True}, headers=by("eva"))
    await made(hosted)
    body: dict[str, Any] = {"action": "cancel", "filter": {}, "limit": 1, "preview": True}
    path = "/automations/v2/runs/bulk"
    first = await hosted.post(path, body, headers=by("eva"))
    assert first["run_ids"] == []
    second = await hosted.post(path, {**body, "cursor": first["cursor"]}, headers=by("eva"))
    assert second["run_ids"] == [mine["run"]["run_id"]]


async def test_what_was_let_pass_is_counted_for_those_who_see_it(hosted: Server) -> None:
    await made(hosted)
    path = "/automations/v2/graduation/summary"
    for who, runs in (("eva", 0), ("ada", 1), ("root", 1)):
        assert (await hosted.get(path, headers=by(who)))["scanned_runs"] == runs


async def test_a_stream_tells_what_is_seen_at_that_moment(tmp_path: Path) -> None:
    async with listening(tmp_path, access=ByName()) as server:
        body = spec("hers", {"node_id": "n1", "action": {"kind": "command", "argv": ["true"]}})

        async def ask(method: str, path: str, document: Any) -> Any:
            content = json.dumps(document).encode()
            head = (
                f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-test-person: ada\r\n"
                f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
                "connection: close\r\n\r\n"
            )
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head.encode() + content)
            told = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            assert told[0].startswith(b"HTTP/1.1 200"), told
            return json.loads(told[2])

        async def run() -> str:
            told = await ask("POST", "/automations/v2/hers/run_now", {})
            return str(told["run"]["run_id"])

        await ask("POST", "/automations/v2", body)
        async with (
            reading(server.port, "/automations/v2/events", by("ada")) as hers,
            reading(server.port, "/automations/v2/events", by("bob")) as his,
        ):
            await hers.frame()
            await his.frame()
            hidden = await run()
            await hers.until("automation.v2.run.completed")
            await ask("POST", "/automations/v2/hers/share", {"visibility": "org"})
            shown = await run()
            told = await his.until("automation.v2.run.completed")
            assert {frame.document["runID"] for frame in told} == {shown}
            assert hidden != shown


# Changing


async def test_who_sees_what_is_anothers_changes_nothing(hosted: Server) -> None:
    run_id = await made(hosted, node("n1"), node("n2", "n1", gate=GATE))
    await share(hosted, "org")
    hers = {"automation_id": "hers", "run_id": run_id, "node_id": "n1"}
    before = await hosted.get(f"/automations/v2/runs/{run_id}")
    for endpoint in OF_ONE_THING:
        if endpoint.method == "GET" or "token_id" in endpoint.path:
            continue
        answer = await asked(hosted, endpoint, hers, by("bob"))
        is_trigger = "/webhook-triggers" in endpoint.path
        code = "AUTOMATION_WEBHOOK_ACCESS_DENIED" if is_trigger else "AUTOMATION_V2_ACCESS_DENIED"
        assert (answer.status_code, answer.json()["code"]) == (403, code), endpoint.name
    assert await hosted.get(f"/automations/v2/runs/{run_id}") == before
    assert (await hosted.get("/automations/v2/hers"))["automation"]["version"] == 2


async def test_owner_and_admin_change_and_sharing_keeps_the_owner(hosted: Server) -> None:
    await made(hosted)
    assert (await share(hosted, "org", who="root"))["owner_principal"]["id"] == "ada"
    access = await share(hosted, "group", "web", who="ada")
    assert access["updated_by"] == "ada"
    for who in ("ada", "root"):
        body = {"metadata": {"of": who, "resource_access": {"visibility": "org"}}}
        answer = await hosted.ask("PATCH", "/automations/v2/hers", json=body, headers=by(who))
        assert answer.status_code == 200, answer.text
        metadata = answer.json()["automation"]["metadata"]
        assert metadata == {"of": who, "resource_access": access}


async def test_metadata_that_cannot_say_who_sees_it_are_refused(hosted: Server) -> None:
    body = {"metadata": "text"}
    answer = await hosted.ask("POST", "/automations/v2", json=spec("x", **body), headers=by("ada"))
    assert (answer.status_code, answer.json()["code"]) == (400, "AUTOMATION_V2_INVALID_METADATA")
    await made(hosted)
    answer = await hosted.ask("PATCH", "/automations/v2/hers", json=body, headers=by("ada"))
    assert (answer.status_code, answer.json()["code"]) == (400, "AUTOMATION_V2_INVALID_METADATA")


async def test_what_nothing_is_said_of_belongs_to_its_maker(hosted: Server) -> None:
    await hosted.post("/automations/v2", spec("old", creator_id="ada"))
    await hosted.post("/automations/v2", spec("anyones"))
    change = {"name": "other"}
    answer = await hosted.ask("PATCH", "/automations/v2/old", json=change, headers=by("bob"))
    assert (answer.status_code, answer.json()["code"]) == (403, "AUTOMATION_V2_NOT_OWNER")
    for who, name in (("ada", "old"), ("root", "old"), ("bob", "anyones")):
        path = f"/automations/v2/{name}"
        answer = await hosted.ask("PATCH", path, json=change, headers=by(who))
        assert answer.status_code == 200, answer.text
    await hosted.post("/automations/v2/old/run_now", {"dry_run": True}, headers=by("bob"))


async def test_an_id_that_was_somebodys_does_not_give_their_runs_away(hosted: Server) -> None:
    run_id = await made(hosted)
    answer = await hosted.ask("DELETE", "/automations/v2/hers", headers=by("ada"))
    assert answer.status_code == 200
    for headers, status in ((by("ada"), 200), (by("eva"), 404)):
        answer = await hosted.ask("GET", f"/automations/v2/runs/{run_id}", headers=headers)
        assert answer.status_code == status
    taken = await hosted.post("/automations/v2", spec("hers"), headers=by("eva"), status=409)
    assert taken["code"] == "AUTOMATION_V2_CREATE_FAILED"
    await hosted.post("/automations/v2", spec("hers"), headers=by("ada"))


# Agents


async def test_an_agent_changes_no_definition_and_no_trigger(hosted: Server) -> None:
    await hosted.post("/automations/v2", spec("open"))
    agent = {"x-tandem-agent-id": "scout"}
    for method, path, body in (
        ("POST", "/automations/v2", spec("another")),
        ("PATCH", "/automations/v2/open", {"name": "x"}),
        ("DELETE", "/automations/v2/open", None),
        ("POST", "/automations/v2/open/share", {}),
        ("POST", "/automations/v2/open/webhook-triggers", {"provider": "github"}),
    ):
        answer = await hosted.ask(method, path, json=body, headers=agent)
        told = answer.json()
        assert (answer.status_code, told["code"]) == (501, "PREMIUM_FEATURE_REQUIRED"), path
    (listed,) = (await hosted.get("/automations/v2"))["automations"]
    assert (listed["automation_id"], listed["version"]) == ("open", 1)


async def test_an_agent_works_with_runs_as_far_as_its_scopes_reach(hosted: Server) -> None:
    agent = {"x-tandem-agent-id": "scout"}
    await hosted.post("/automations/v2", spec("open"))
    told = await hosted.post("/automations/v2/open/run_now", headers=agent)
    run_id = told["run"]["run_id"]
    await hosted.rest(run_id)
    repair = {"node_id": "n1", "prompt": "again"}
    path = f"/automations/v2/runs/{run_id}/repair"
    saved = await hosted.post(path, {**repair, "save": True}, headers=agent, status=501)
    assert saved["code"] == "PREMIUM_FEATURE_REQUIRED"
    await hosted.post(path, repair, headers=agent)
    await hosted.post("/automations/v2/open/pause", headers=agent)
    await hosted.post("/automations/v2/open/resume", headers=agent)

    await hosted.post("/automations/v2", spec("draft", status="draft"))
    await hosted.post("/automations/v2/draft/resume", headers=agent, status=501)


async def test_a_gate_wants_a_person_before_it_asks_whose_it_is(hosted: Server) -> None:
    run_id = await made(hosted, node("n1", gate=GATE))
    await share(hosted, "org")
    for who in ("ada", "bob"):
        headers = by(who, **{"x-tandem-agent-id": "scout"})
        path = f"/automations/v2/runs/{run_id}/gate"
        told = await hosted.post(path, {"decision": "approve"}, headers=headers, status=403)
        assert told["code"] == "AUTOMATION_V2_GATE_REQUIRES_HUMAN"


async def test_an_agent_acts_for_the_person_who_is_asserted(hosted: Server) -> None:
    await made(hosted)
    for who, status in (("ada", 200), ("eva", 404)):
        headers = by(who, **{"x-tandem-agent-id": "scout"})
        answer = await hosted.ask(
            "POST", "/automations/v2/hers/run_now", json={"dry_run": True}, headers=headers
        )
        assert answer.status_code == status


# On record


async def test_refusals_are_on_record_and_a_flood_is_counted(hosted: Server) -> None:
    await made(hosted)
    await share(hosted, "org")
    for _ in range(20):
        await hosted.ask("DELETE", "/automations/v2/hers", headers=by("bob"))
    await hosted.ask("DELETE", "/automations/v2/hers", headers={"x-tandem-agent-id": "scout"})
    records = hosted.parts.store.list_audit(tenant=LOCAL_TENANT, after_no=0, limit=100)
    told = [
        (each.entry.actor, each.entry.detail, each.entry.peer)
        for each in records
        if each.entry.event is AuditEvent.ACCESS_DENIED
    ]
    denied = {"automation_id": "hers", "times": 1}
    assert told == [
        ("bob", {"code": "AUTOMATION_V2_ACCESS_DENIED", **denied}, "127.0.0.1"),
        ("scout", {"code": "PREMIUM_FEATURE_REQUIRED", **denied}, "127.0.0.1"),
    ]


async def test_a_refusal_that_cannot_be_recorded_is_an_error_of_ours(
    hosted: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hosted.post("/automations/v2", spec("open"))

    async def away(_entry: object) -> Any:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(hosted.parts.store, "add_audit", away)
    agent = {"x-tandem-agent-id": "scout"}
    answer = await hosted.ask("DELETE", "/automations/v2/open", headers=agent)
    assert answer.json()["code"] == AuditPersistenceFailed.code
    assert len((await hosted.get("/automations/v2"))["automations"]) == 1


# From the signature on

SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def part(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def assertion(person: str, now_ms: int, **claims: Any) -> str:
    header = {"alg": "EdDSA", "typ": "tandem-tenant-context+jws", "kid": "k1"}
    context = {"org_id": "acme", "workspace_id": "web", "deployment_id": "eu"}
    body = {
        "version": "v1",
        "issuer": "tandem-web",
        "audience": "tandem-runtime",
        "issued_at_ms": now_ms,
        "expires_at_ms": now_ms + 60_000,
        "assertion_id": f"{person}-{sorted(claims)}",
        "tenant_context": {**context, "actor_id": person, "source": "explicit"},
        "human_actor": {"actor_id": person},
        "authority_chain": {"initiated_by": {"actor_id": person}},
        **claims,
    }
    text = f"{part(json.dumps(header).encode())}.{part(json.dumps(body).encode())}"
    return f"{text}.{part(SIGNER.sign(text.encode()))}"


async def test_a_signed_context_says_who_sees_what(tmp_path: Path) -> None:
    async with open_server(tmp_path / "state") as server:
        clock = SystemClock()
        server.site.access = StoredAccess(
            store=server.parts.store,
            clock=clock,
            mode=AuthMode.HOSTED,
            signatures=Ed25519Signatures({"k1": SIGNER.public_key()}),
        )
        _, token = await server.parts.tokens.create(
            tenant=LOCAL_TENANT, name="gateway", scopes=[Scope.ADMIN]
        )

        def of(person: str, **claims: Any) -> dict[str, str]:
            text = assertion(person, clock.now_ms(), **claims)
            return {"authorization": f"Bearer {token}", "x-tandem-context-assertion": text}

        ada = of("ada", roles=["editor"])
        bob = of("bob", roles=["editor"], org_units=["ops"])
        admin = of("zoe", roles=["hosted:admin"])
        path = "/automations/v2/hers"
        await server.post("/automations/v2", spec("hers"), headers=ada)

        assert (await server.ask("GET", path, headers=bob)).status_code == 404
        assert (await server.ask("GET", path, headers=admin)).status_code == 200
        group = {"visibility": "group", "audience_principals": ["ops"]}
        await server.post(f"{path}/share", group, headers=ada)
        assert (await server.ask("GET", path, headers=bob)).status_code == 200
        denied = await server.ask("PATCH", path, json={"name": "his"}, headers=bob)
        assert (denied.status_code, denied.json()["code"]) == (403, "AUTOMATION_V2_ACCESS_DENIED")
        renamed = await server.ask("PATCH", path, json={"name": "theirs"}, headers=admin)
        assert renamed.status_code == 200, renamed.text
