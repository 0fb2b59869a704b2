"""Two tenants of one server: what one has is to the other as if it were not there."""

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tandem.adapters.http.app import endpoints
from tandem.adapters.http.call import Endpoint
from tandem.adapters.http.policy import POLICY, Open
from tandem.domain.caller import LOCAL_CALLER, Caller
from tandem.domain.ids import TenantId

from .conftest import GATE, Server, node, open_server, spec

OTHER = {"x-test-tenant": "acme/main"}
OF_ONE_THING = [
    endpoint
    for endpoint in endpoints()
    if "{" in endpoint.path and not isinstance(POLICY[endpoint.name], Open)
]


class ByHeader:
    """Believes a header; only for tests."""

    async def caller_of(self, headers: Mapping[str, str], peer: str) -> Caller:
        tenant = headers.get("x-test-tenant", LOCAL_CALLER.tenant)
        return msgspec.structs.replace(LOCAL_CALLER, tenant=TenantId(tenant))


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[Server]:
    async with open_server(tmp_path / "state", access=ByHeader(), drives=True) as server:
        yield server


BODIES: Mapping[str, Any] = {
    "ForkRun": {"node_id": "n1"},
    "RepairRun": {"node_id": "n1", "prompt": "theirs"},
    "SetNodeOutput": {"output": 1, "reason": "theirs"},
    "Disposed": {"disposition": "accepted"},
    "GateDecision": {"decision": "approve"},
    "PatchAutomation": {"name": "theirs"},
}


OTHERWISE: Mapping[str, int] = {
    # Of a run that is not there this one lists no events (http-api 2.4).
    "GET /runs/{run_id}/events": 200,
    # Whoever puts a definition makes one of their own; this body is none.
    "PUT /automations/v2/{automation_id}": 422,
}


def path_of(endpoint: Endpoint, ids: Mapping[str, str]) -> str:
    return re.sub(r"{(\w+)}", lambda part: ids.get(part[1], "1"), endpoint.path)


async def asked(
    server: Server, endpoint: Endpoint, ids: Mapping[str, str], headers: Mapping[str, str] = OTHER
) -> Any:
    name = endpoint.body.__name__ if endpoint.body is not None else ""
    body = BODIES.get(name, {"reason": "theirs"})
    return await server.ask(endpoint.method, path_of(endpoint, ids), json=body, headers=headers)


async def test_row_51_what_another_tenant_has_is_like_what_is_missing(shared: Server) -> None:
    run_id = await shared.done(spec("mine", node("n1"), node("n2", "n1", gate=GATE)))
    before = await shared.get(f"/automations/v2/runs/{run_id}")
    theirs = {"automation_id": "mine", "run_id": run_id, "node_id": "n1"}
    nobodys = {"automation_id": "nope", "run_id": "nope", "node_id": "n1"}
    for endpoint in OF_ONE_THING:
        foreign = await asked(shared, endpoint, theirs)
        missing = await asked(shared, endpoint, nobodys)
        expected = OTHERWISE.get(endpoint.name, 404)
        assert foreign.status_code == missing.status_code == expected, endpoint.name
        text = foreign.text.replace("mine", "nope").replace(run_id, "nope")
        assert text == missing.text, endpoint.name
    assert await shared.get(f"/automations/v2/runs/{run_id}") == before
    assert (await shared.get("/automations/v2/mine"))["automation"]["version"] == 1


async def test_a_whole_definition_is_kept_for_whoever_puts_it(shared: Server) -> None:
    await shared.post("/automations/v2", spec("mine"))
    whole = {"name": "theirs", "flow": {"nodes": [node("n1")]}, "agents": [{"agent_id": "a1"}]}
    answer = await shared.ask("PUT", "/automations/v2/mine", json=whole, headers=OTHER)
    assert answer.json()["event"] == "automation_created"
    assert (await shared.get("/automations/v2/mine"))["automation"]["name"] == "mine"


async def test_nothing_of_another_tenant_is_listed(shared: Server) -> None:
    await shared.done(spec("mine", node("n1", gate=GATE)))
    for path, key in (
        ("/automations/v2", "automations"),
        ("/automations/v2/runs", "runs"),
        ("/automations/v2/waits", "waits"),
        ("/approvals/pending", "approvals"),
    ):
        assert (await shared.get(path, headers=OTHER))[key] == [], path
    body = {"action": "cancel", "filter": {}}
    told = await shared.post("/automations/v2/runs/bulk", body, headers=OTHER)
    assert told["count"] == 0
    summary = await shared.get("/automations/v2/graduation/summary", headers=OTHER)
    assert summary["scanned_runs"] == 0


async def test_two_tenants_may_use_one_id_and_neither_takes_over_the_others(
    shared: Server,
) -> None:
    await shared.post("/automations/v2", spec("same"))
    await shared.post("/automations/v2", spec("same", name="theirs"), headers=OTHER)
    assert (await shared.get("/automations/v2/same"))["automation"]["name"] == "same"
    theirs = await shared.get("/automations/v2/same", headers=OTHER)
    assert theirs["automation"]["metadata"]["tenant_context"]["org_id"] == "acme"
