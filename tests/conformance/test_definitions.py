"""Rows 1 to 15 of the conformance script: who asks, and definitions."""

from typing import Any

import httpx
import pytest
from tandem_client import TandemClient

from .conftest import AGENT, COMPAT, SPEC, TOKEN, Conformance, Start, node, open_client


def status_of(error: pytest.ExceptionInfo[httpx.HTTPStatusError]) -> int:
    return error.value.response.status_code


def code_of(error: pytest.ExceptionInfo[httpx.HTTPStatusError]) -> str:
    return str(error.value.response.json()["code"])


async def test_row_01_health_needs_no_token(c: Conformance) -> None:
    async with TandemClient(c.server.url + COMPAT, "wrong") as client:
        assert (await client.health()).ready is True


async def test_row_02_a_wrong_token_is_refused(c: Conformance) -> None:
    async with TandemClient(c.server.url + COMPAT, "wrong") as client:
        with pytest.raises(httpx.HTTPStatusError) as error:
            await client.automations_v2.list()
    body = error.value.response.json()
    assert (status_of(error), body["code"], body["retryable"]) == (401, "AUTH_REQUIRED", False)


async def test_row_03_the_first_header_with_a_token_counts(c: Conformance) -> None:
    for agent, bearer, status in ((TOKEN, "wrong", 200), ("wrong", TOKEN, 401)):
        headers = {"x-agent-token": agent, "authorization": f"Bearer {bearer}"}
        response = await c.raw.get("/automations/v2", headers=headers)
        assert response.status_code == status


async def test_row_04_a_fresh_server_has_no_automations(start_server: Start) -> None:
    async with open_client(start_server()) as c:
        found = await c.api.list()
    assert (found.count, found.automations) == (0, [])


async def test_row_05_a_new_automation_is_a_draft_with_an_id_of_its_own(c: Conformance) -> None:
    record = await c.api.create(SPEC)
    assert record.automation_id.startswith("automation-v2-")
    assert record.status == "draft"
    assert record.execution == {"max_parallel_agents": 1}
    assert (await c.post("/automations/v2", SPEC)).status_code == 200


async def test_row_06_a_given_id_is_kept(c: Conformance) -> None:
    record = await c.api.create({**SPEC, "automation_id": "row-6", "status": "active"})
    assert (record.automation_id, record.status) == ("row-6", "active")


async def test_row_07_documented_spellings_are_accepted_and_told_in_ours(c: Conformance) -> None:
    short = await c.api.create({**SPEC, "schedule": {"type": "manual", "misfire_policy": "skip"}})
    assert short.schedule["misfire_policy"] == {"type": "skip"}
    assert short.schedule["timezone"] == "UTC"
    bare = {key: value for key, value in AGENT.items() if key not in ("mcp_policy", "tool_policy")}
    without = await c.api.create({**SPEC, "agents": [bare]})
    assert without.agents[0]["mcp_policy"]["allowed_servers"] == []
    assert without.agents[0]["tool_policy"] == {"allowlist": ["read"], "denylist": []}
    camel = await c.api.create(
        {
            "name": "camel",
            "schedule": {"type": "interval", "intervalSeconds": 60, "misfirePolicy": "run_once"},
            "agents": [{"agentId": "a1", "displayName": "", "toolPolicy": {"allowlist": ["grep"]}}],
            "flow": {"nodes": [{"nodeId": "n1", "agentId": "a1", "objective": "x"}]},
            "outputTargets": ["out.md"],
            "execution": {"maxParallelAgents": 3},
        }
    )
    assert camel.schedule["interval_seconds"] == 60
    assert camel.schedule["misfire_policy"] == {"type": "run_once"}
    assert camel.agents[0]["display_name"] == "a1"
    assert camel.flow["nodes"][0]["node_id"] == "n1"
    assert camel.output_targets == ["out.md"]
    assert camel.execution == {"max_parallel_agents": 3}


async def test_row_08_what_misses_required_fields_has_the_wrong_shape(c: Conformance) -> None:
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.create({"name": "x"})
    assert status_of(error) == 422


async def test_row_09_a_relative_workspace_is_refused(c: Conformance) -> None:
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.create({**SPEC, "workspace_root": "rel/path"})
    assert (status_of(error), code_of(error)) == (400, "AUTOMATION_V2_CREATE_FAILED")


async def test_row_10_a_wait_node_with_a_gate_is_refused(c: Conformance) -> None:
    both = node("w", wait={"kind": "timer", "delay_ms": 5}, gate={"required": True})
    del both["retry_policy"]
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.create({**SPEC, "flow": {"nodes": [both]}})
    assert (status_of(error), code_of(error)) == (400, "AUTOMATION_V2_CREATE_FAILED")
    assert "wait_gate_conflict" in error.value.response.text


async def test_row_11_a_body_chooses_no_tenant(c: Conformance) -> None:
    metadata: dict[str, Any] = {
        "mine": 1,
        "tenant_context": {"org_id": "acme", "workspace_id": "w", "source": "explicit"},
        "resource_access": {"visibility": "org"},
    }
    record = await c.api.create({**SPEC, "metadata": metadata})
    assert record.metadata["mine"] == 1
    assert record.metadata["tenant_context"]["org_id"] == "local"
    assert "resource_access" not in record.metadata


async def test_row_12_one_automation_is_told_and_a_missing_one_is_not_found(
    c: Conformance,
) -> None:
    await c.active("row-12")
    assert (await c.api.get("row-12")).automation_id == "row-12"
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.get("nope")
    body = error.value.response.json()
    assert status_of(error) == 404
    assert (body["code"], body["automationID"]) == ("AUTOMATION_V2_NOT_FOUND", "nope")


async def test_row_13_a_change_leaves_what_it_does_not_name(c: Conformance) -> None:
    await c.active("row-13")
    before = await c.api.get("row-13")
    after = await c.api.update("row-13", {"name": "n2", "description": "d"})
    assert (after.name, after.description) == ("n2", "d")
    assert after.created_at_ms == before.created_at_ms
    assert after.updated_at_ms > before.updated_at_ms
    changed = {"name", "description", "updated_at_ms", "version", "definition_digest"}
    assert after.model_dump(exclude=changed) == before.model_dump(exclude=changed)


async def test_row_14_a_summary_counts_instead_of_telling(c: Conformance) -> None:
    await c.active("row-14")
    found = (await c.raw.get("/automations/v2", params={"view": "Summary"})).json()
    assert found["view"] == "summary"
    (row,) = [each for each in found["automations"] if each["automation_id"] == "row-14"]
    assert (row["agent_count"], row["node_count"]) == (1, 4)
    assert "flow" not in row


async def test_row_15_a_dry_run_is_recorded_and_executes_nothing(c: Conformance) -> None:
    await c.active("row-15")
    run = await c.api.run_now("row-15", dry_run=True)
    assert (run.status, run.trigger_type, run.detail) == ("completed", "manual_dry_run", "dry_run")
    assert run.started_at_ms == run.finished_at_ms
    assert run.checkpoint["node_outputs"] == {}
    assert c.server.calls(run.run_id) == []
