"""Stored automations over HTTP."""

from typing import Any, cast

import pytest

from tandem.adapters.cli import tools
from tandem.adapters.cli.remote_desk import RemoteDesk
from tandem.adapters.http.app import endpoints
from tandem.adapters.http.definitions import RESERVED
from tandem.domain.firing import plan_firing, upcoming
from tandem.domain.ids import LOCAL_TENANT, AutomationId, ChangeId

from .conftest import Server, node, spec

BASE = "/automations/v2"


async def test_the_same_creation_twice_changes_nothing_and_another_one_is_refused(
    server: Server,
) -> None:
    first = await server.post(BASE, spec("a"))
    again = await server.post(BASE, spec("a"))
    assert again == first
    refused = await server.post(BASE, spec("a", name="other"), status=409)
    assert (refused["code"], refused["automationID"]) == ("AUTOMATION_V2_CREATE_FAILED", "a")
    assert (await server.get(f"{BASE}/a"))["automation"]["name"] == "a"


async def test_a_deleted_automation_may_be_made_again(server: Server) -> None:
    await server.post(BASE, spec("a"))
    await server.ask("DELETE", f"{BASE}/a")
    made = await server.post(BASE, spec("a", name="other"))
    assert (made["automation"]["name"], made["automation"]["version"]) == ("other", 2)


async def test_all_mistakes_of_a_graph_are_told_at_once(server: Server) -> None:
    told = await server.post(BASE, spec("a", node("x", "gone"), node("x")), status=400)
    assert told["code"] == "AUTOMATION_V2_CREATE_FAILED"
    assert len(told["problems"]) >= 2


async def patched(server: Server, body: dict[str, Any]) -> Any:
    response = await server.ask("PATCH", f"{BASE}/a", json=body)
    assert response.status_code == 200, response.text
    return response.json()["automation"]


async def test_a_patch_replaces_what_it_names_and_null_changes_nothing(server: Server) -> None:
    await server.post(BASE, spec("a", description="d", metadata={"x": 1, "y": 2}))
    found = await patched(server, {"description": None, "metadata": {"z": 3}, "name": "b"})
    assert (found["description"], found["metadata"], found["name"]) == ("d", {"z": 3}, "b")


async def test_a_patch_keeps_what_the_server_keeps_in_the_metadata(server: Server) -> None:
    capabilities = {"createsAgents": True}
    await server.post(BASE, spec("a", metadata={"x": 1}, capabilities=capabilities))
    await server.post(f"{BASE}/a/share", {"visibility": "org"})
    found = await patched(server, {"metadata": {"z": 3, "capabilities": {"modifies_grants": True}}})
    assert found["metadata"]["z"] == 3
    assert "x" not in found["metadata"]
    assert found["metadata"]["resource_access"]["visibility"] == "org"
    assert found["metadata"]["capabilities"] == {"creates_agents": True, "modifies_grants": False}


async def test_a_patch_changes_no_id_and_no_creator(server: Server) -> None:
    await server.post(BASE, spec("a", creator_id="maria"))
    found = await patched(server, {"automation_id": "b", "creator_id": "eve", "name": "n"})
    assert (found["automation_id"], found["creator_id"]) == ("a", "maria")


async def test_what_was_told_may_be_sent_back(server: Server) -> None:
    told = (await server.post(BASE, spec("a")))["automation"]
    found = await server.ask("PATCH", f"{BASE}/a", json=told)
    assert "warnings" not in found.json()
    assert found.json()["automation"]["flow"] == told["flow"]
    assert found.json()["automation"]["created_at_ms"] == told["created_at_ms"]


async def test_a_patch_that_makes_no_sense_is_refused_with_every_mistake(server: Server) -> None:
    await server.post(BASE, spec("a"))
    response = await server.ask("PATCH", f"{BASE}/a", json={"flow": {"nodes": [node("x", "y")]}})
    assert (response.status_code, response.json()["code"]) == (400, "AUTOMATION_V2_UPDATE_FAILED")


async def test_a_patch_that_is_refused_lifts_no_pause(server: Server) -> None:
    await server.post(BASE, spec("a"))
    await server.post(f"{BASE}/a/pause")
    wrong = {"status": "active", "flow": {"nodes": [node("n1", "missing")]}}
    response = await server.ask("PATCH", f"{BASE}/a", json=wrong)
    assert (response.status_code, response.json()["code"]) == (400, "AUTOMATION_V2_UPDATE_FAILED")
    assert (await server.get(f"{BASE}/a"))["automation"]["status"] == "paused"


async def test_a_status_may_be_patched_and_lifts_a_pause(server: Server) -> None:
    await server.post(BASE, spec("a", status="draft"))
    assert (await patched(server, {"status": "paused"}))["status"] == "paused"
    assert (await patched(server, {"name": "n"}))["status"] == "paused"
    assert (await patched(server, {"status": "active"}))["status"] == "active"


async def test_resuming_makes_a_draft_active(server: Server) -> None:
    await server.post(BASE, spec("a", status="draft"))
    for _ in range(2):
        told = await server.post(f"{BASE}/a/resume")
        assert (told["ok"], told["automation"]["status"]) == (True, "active")


async def test_why_is_recorded_when_an_automation_is_resumed_and_deleted(server: Server) -> None:
    await server.post(BASE, spec("a", status="draft"))
    await server.post(f"{BASE}/a/resume?reason=ready")
    await server.post(f"{BASE}/a/pause")
    await server.post(f"{BASE}/a/resume", params={"reason": "goes on & on"})
    await server.post(f"{BASE}/a/pause")
    await server.post(f"{BASE}/a/resume")
    records = (await server.get(f"{BASE}/a/records"))["records"]
    told = [each["reason"] for each in records if each["event"] != "automation_paused"]
    assert told == ["", "ready", "goes on & on", "resumed by operator"]
    await server.ask("DELETE", f"{BASE}/a", params={"reason": "no use"})
    await server.post(BASE, spec("a"))
    records = (await server.get(f"{BASE}/a/records"))["records"]
    assert [each["reason"] for each in records][-2:] == ["no use", ""]


async def test_when_an_automation_fires_and_what_its_schedule_did(server: Server) -> None:
    daily = {"type": "cron", "cron_expression": "30 2 * * *"}
    await server.post(BASE, spec("a", schedule=daily))
    store = server.parts.store
    row = store.find_automation(AutomationId("a"), tenant=LOCAL_TENANT)
    assert row is not None
    assert row.next_fire_at_ms is not None
    before = await server.get(f"{BASE}/a/firings")
    assert (before["firings"], before["count"]) == ([], 0)
    assert before["timing"]["next_fire_at_ms"] == row.next_fire_at_ms
    for _ in range(2):
        now_ms = row.next_fire_at_ms
        plan = plan_firing(row, grace_ms=1, now_ms=now_ms)
        assert plan is not None
        refusal, change_id = ("no", "it cannot start"), ChangeId(f"c{now_ms}")
        fired = await store.fire(row, plan, (), refusal=refusal, change_id=change_id, now_ms=now_ms)
        assert fired.row is not None
        row = fired.row
        assert row.next_fire_at_ms is not None
    newest, older = (await server.get(f"{BASE}/a/firings"))["firings"]
    assert (newest["outcome"], newest["reason"]) == ("refused", "it cannot start")
    assert newest["due_at_ms"] - older["due_at_ms"] == 86_400_000
    only = await server.get(f"{BASE}/a/firings?limit=1")
    assert only["firings"] == [newest]
    assert only["timing"]["fired_until_ms"] == row.fired_until_ms
    wrong = await server.ask("GET", f"{BASE}/a/firings?limit=many")
    assert wrong.json()["code"] == "QUERY_INVALID"
    desk = RemoteDesk(cast("tools.Server", Asked(server)), beside="")
    known, _ = await desk.automation("a")
    told, firings = await desk.firings(known, limit=10)
    assert list(firings) == list(store.list_firings(row, limit=10))
    assert upcoming(told, limit=10) == upcoming(row, limit=10)


class Asked:
    """What the command line asks, asked of this server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def ask(self, method: str, path: str, *, query: Any = None, **_: Any) -> Any:
        return (await self._server.ask(method, path, params=query)).json()


async def test_versions_and_records_tell_what_was(server: Server) -> None:
    await server.post(BASE, spec("a"))
    await patched(server, {"name": "second"})
    first = await server.get(f"{BASE}/a/versions/1")
    assert (first["version"], first["automation"]["name"]) == (1, "a")
    records = await server.get(f"{BASE}/a/records")
    assert [r["event"] for r in records["records"]] == ["automation_created", "automation_updated"]
    assert (await server.ask("GET", f"{BASE}/a/versions/3")).status_code == 404


async def test_a_denylist_stays_beside_the_default_tools(server: Server) -> None:
    agents = [{"agent_id": "a1", "tool_policy": {"allowlist": [" "], "denylist": [" x ", "x"]}}]
    made = await server.post(BASE, spec("a", agents=agents))
    policy = made["automation"]["agents"][0]["tool_policy"]
    assert policy == {"allowlist": ["read"], "denylist": ["x"]}


async def test_inputs_and_profile_reach_the_run(server: Server) -> None:
    inputs = {"who": {"type": "string"}}
    await server.post(BASE, spec("a", inputs=inputs))
    body = {"dry_run": True, "inputs": {"who": "me"}, "profile": "yolo", "reason": "why not"}
    run = (await server.post(f"{BASE}/a/run_now", body))["run"]
    assert run["inputs"] == {"who": "me"}
    assert run["effective_execution_profile"] == "yolo"
    assert run["trigger_reason"] == "why not"
    refused = await server.post(f"{BASE}/a/run_now", {"inputs": {"whom": 1}}, status=400)
    assert refused["code"] == "AUTOMATION_V2_RUN_CREATE_FAILED"


async def test_too_many_nodes_are_refused_before_each_is_looked_at(server: Server) -> None:
    many = [{"node_id": None}] * 10_001
    told = await server.post(BASE, spec("many", *many), status=400)
    assert told["code"] == "AUTOMATION_V2_CREATE_FAILED"
    assert [problem["code"] for problem in told["problems"]] == ["too_many_nodes"]
    await server.post(BASE, spec("few"))
    patch = await server.ask("PATCH", f"{BASE}/few", json={"flow": {"nodes": many}})
    assert (patch.status_code, patch.json()["code"]) == (400, "AUTOMATION_V2_UPDATE_FAILED")


async def test_no_automation_takes_a_word_of_the_paths_as_its_id(server: Server) -> None:
    words = {
        steps[3]
        for steps in (endpoint.path.split("/") for endpoint in endpoints())
        if steps[:3] == ["", "automations", "v2"] and len(steps) > 3
    } - {"{automation_id}"}
    assert words == set(RESERVED)
    for word in words:
        told = await server.post(BASE, spec(word), status=400)
        assert [problem["code"] for problem in told["problems"]] == ["automation_id_reserved"]


@pytest.mark.parametrize("name", ["", " ", "a\0b", "a\nb", "x" * 100_000])
async def test_a_name_that_is_none_is_refused_with_its_limits(server: Server, name: str) -> None:
    for method, path, body in (
        ("POST", "/automations/v2", spec("x", name=name)),
        ("PATCH", "/automations/v2/kept", {"name": name}),
    ):
        await server.post("/automations/v2", spec("kept"))
        answer = await server.ask(method, path, json=body)
        assert answer.status_code == 400
        (problem,) = answer.json()["problems"]
        assert (problem["code"], problem["path"]) == ("name_invalid", "name")
        assert len(answer.content) < 2_000
    assert (await server.get("/automations/v2/kept"))["automation"]["name"] == "kept"
