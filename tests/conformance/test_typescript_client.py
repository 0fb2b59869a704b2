"""The rows of the conformance script that concern the published TypeScript client, unpatched."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import SPEC, TOKEN, Conformance, Process, node

NODE = Path(__file__).parent / "node"
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules").is_dir(),
    reason="there is no Node.js here, or `make test` has not installed the client for it",
)
pytestmark = needs_node


class ClientError(Exception):
    """The client threw."""


class TypeScript:
    """The client in a Node process, called by the names of its methods."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._asked = 0

    async def call(self, path: str, *args: Any) -> Any:
        return await self._ask(path=path, args=args)

    def open_stream(self, path: str, *args: Any, until: str) -> None:
        """Read a stream until an event of this type comes; `answer` has what came."""
        self._send(stream=path, args=args, until=until)

    async def answer(self) -> Any:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 20)
        found = json.loads(line)
        if "error" in found:
            raise ClientError(found["error"]["message"])
        return found["value"]

    async def _ask(self, **what: Any) -> Any:
        self._send(**what)
        return await self.answer()

    def _send(self, **what: Any) -> None:
        self._asked += 1
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": self._asked, **what}).encode() + b"\n")


@asynccontextmanager
async def open_typescript(url: str, token: str) -> AsyncIterator[TypeScript]:
    """Start the client in a Node process, for one server and one token."""
    process = await asyncio.create_subprocess_exec(
        "node",
        str(NODE / "drive.mjs"),
        url,
        token,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=16 * 1024 * 1024,
    )
    try:
        yield TypeScript(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


@pytest.fixture
async def ts(shared: Process) -> AsyncIterator[TypeScript]:
    async with open_typescript(shared.url, TOKEN) as found:
        yield found


async def started(ts: TypeScript, automation_id: str) -> str:
    found = await ts.call("automationsV2.runNow", automation_id)
    run_id: str = found["run"]["run_id"]
    return run_id


async def test_row_01_health_is_told_without_a_token(ts: TypeScript) -> None:
    assert (await ts.call("health"))["ready"] is True


async def test_rows_05_to_14_definitions(c: Conformance, ts: TypeScript) -> None:
    spec = {**SPEC, "automation_id": "ts-definitions"}
    created = (await ts.call("automationsV2.create", spec))["automation"]
    assert created["automation_id"] == "ts-definitions"
    assert created["status"] == "draft"
    changed = await ts.call("automationsV2.update", "ts-definitions", {"name": "n2"})
    assert changed["automation"]["name"] == "n2"
    assert changed["automation"]["created_at_ms"] == created["created_at_ms"]
    listed = await ts.call("automationsV2.list")
    assert "ts-definitions" in [a["automation_id"] for a in listed["automations"]]
    with pytest.raises(ClientError, match="404"):
        await ts.call("automationsV2.get", "nope")


async def test_row_07_camel_case_is_accepted_and_the_canonical_form_comes_back(
    c: Conformance, ts: TypeScript
) -> None:
    agents = [{"agentId": "a1", "displayName": "A1"}]
    nodes = [{"nodeId": "n1", "agentId": "a1", "objective": "do", "dependsOn": []}]
    spec = {
        "name": "camel",
        "schedule": {"type": "manual", "timezone": "UTC", "misfirePolicy": {"type": "run_once"}},
        "agents": agents,
        "flow": {"nodes": nodes},
        "execution": {"maxParallelAgents": 2},
    }
    found = (await ts.call("automationsV2.create", spec))["automation"]
    assert found["execution"]["max_parallel_agents"] == 2
    assert found["flow"]["nodes"][0]["node_id"] == "n1"
    assert found["agents"][0]["display_name"] == "A1"
    assert found["schedule"]["misfire_policy"] == {"type": "run_once"}


async def test_row_15_a_dry_run_executes_nothing(c: Conformance, ts: TypeScript) -> None:
    await c.active("ts-dry")
    found = await ts.call("automationsV2.runNow", "ts-dry", {"dryRun": True})
    run = found["run"]
    assert (run["status"], run["trigger_type"]) == ("completed", "manual_dry_run")
    assert c.server.calls(run["run_id"]) == []


async def test_rows_17_to_20_a_run_to_its_end(c: Conformance, ts: TypeScript) -> None:
    await c.active("ts-run")
    run_id = await started(ts, "ts-run")
    await c.until(run_id, "completed")
    run = (await ts.call("automationsV2.getRun", run_id))["run"]
    assert set(run["checkpoint"]["completed_nodes"]) == {"n1", "n2", "n3", "s1"}
    assert (await ts.call("automationsV2.listRuns", "ts-run", 1))["count"] == 1
    again = await ts.call("automationsV2.cancelRun", run_id)
    assert again["alreadyTerminal"] is True


async def test_rows_21_to_24_pause_resume_cancel(c: Conformance, ts: TypeScript) -> None:
    await c.active("ts-pause")
    c.server.script("n1", wait=True)
    run_id = await started(ts, "ts-pause")
    await c.running(run_id, "n1")
    paused = (await ts.call("automationsV2.pauseRun", run_id, "why"))["run"]
    assert (paused["status"], paused["pause_reason"]) == ("paused", "why")
    with pytest.raises(ClientError, match="AUTOMATION_V2_RUN_NOT_PAUSABLE"):
        await ts.call("automationsV2.pauseRun", run_id)
    assert (await ts.call("automationsV2.resumeRun", run_id))["run"]["status"] == "queued"
    cancelled = (await ts.call("automationsV2.cancelRun", run_id, "stop"))["run"]
    assert (cancelled["status"], cancelled["stop_kind"]) == ("cancelled", "operator_stopped")
    with pytest.raises(ClientError, match="AUTOMATION_V2_RUN_NOT_RECOVERABLE"):
        await ts.call("automationsV2.recoverRun", run_id)


async def test_rows_25_to_31_what_operators_do(c: Conformance, ts: TypeScript) -> None:
    await c.active("ts-operate")
    c.server.script("n2", fail="no")
    run_id = await started(ts, "ts-operate")
    await c.until(run_id, "failed")
    preview = (await ts.call("automationsV2.previewTaskReset", run_id, "n2"))["preview"]
    assert preview["reset_nodes"] == ["n2", "n3"]
    c.server.script("n2")
    assert (await ts.call("automationsV2.recoverRun", run_id))["run"]["status"] == "queued"
    await c.until(run_id, "completed")
    retried = await ts.call("automationsV2.retryTask", run_id, "n2", "again")
    assert retried["reset_nodes"] == ["n2", "n3"]
    await c.until(run_id, "completed")
    assert (await ts.call("automationsV2.requeueTask", run_id, "n3"))["reset_nodes"] == ["n3"]
    await c.until(run_id, "completed")
    repaired = await ts.call("automationsV2.repairRun", run_id, {"node_id": "n2", "prompt": "p2"})
    nodes = {n["node_id"]: n for n in repaired["automation"]["flow"]["nodes"]}
    assert nodes["n2"]["metadata"]["builder"]["prompt"] == "p2"
    await c.until(run_id, "completed")
    with pytest.raises(ClientError, match="AUTOMATION_V2_TASK_NOT_BLOCKED"):
        await ts.call("automationsV2.continueTask", run_id, "n1")


async def test_rows_32_to_36_deny_is_a_refusal_for_this_client(
    c: Conformance, ts: TypeScript
) -> None:
    gated = [node("n1"), node("n2", "n1", gate={"required": True}), node("n3", "n2")]
    await c.active("ts-gate", flow={"nodes": gated})
    approved = await started(ts, "ts-gate")
    await c.until(approved, "awaiting_approval")
    found = await ts.call("automationsV2.gateDecide", approved, {"decision": "approve"})
    assert found["ok"] is True
    await c.until(approved, "completed")
    denied = await started(ts, "ts-gate")
    await c.until(denied, "awaiting_approval")
    found = await ts.call("automationsV2.gateDecide", denied, {"decision": "deny"})
    assert (found["run"]["status"], found["run"]["stop_kind"]) == ("cancelled", "cancelled")


async def test_row_37_dispositions_and_their_summary(c: Conformance, ts: TypeScript) -> None:
    await c.active("ts-disposition")
    run_id = await started(ts, "ts-disposition")
    await c.until(run_id, "completed")
    first = await ts.call("automationsV2.setTaskDisposition", run_id, "n1", "accepted")
    again = await ts.call("automationsV2.setTaskDisposition", run_id, "n1", "accepted")
    assert (first["changed"], again["changed"]) == (True, False)
    summary = await ts.call("automationsV2.graduationSummary", {"automationId": "ts-disposition"})
    assert summary["summary"]["total_relaxed_outputs"] == 0


async def test_row_39_pausing_the_automation_pauses_its_runs(
    c: Conformance, ts: TypeScript
) -> None:
    await c.active("ts-hold")
    c.server.script("n1", wait=True)
    run_id = await started(ts, "ts-hold")
    await c.running(run_id, "n1")
    assert (await ts.call("automationsV2.pause", "ts-hold", "m"))["automation"][
        "status"
    ] == "paused"
    await c.until(run_id, "paused")
    assert (await ts.call("automationsV2.resume", "ts-hold"))["automation"]["status"] == "active"
    assert (await ts.call("automationsV2.getRun", run_id))["run"]["status"] == "paused"


async def test_row_50_deleted_automations_are_gone_and_their_runs_are_not(
    c: Conformance, ts: TypeScript
) -> None:
    await c.active("ts-delete")
    run_id = await started(ts, "ts-delete")
    await c.until(run_id, "completed")
    assert (await ts.call("automationsV2.delete", "ts-delete"))["deleted"] is True
    with pytest.raises(ClientError, match="404"):
        await ts.call("automationsV2.delete", "ts-delete")
    assert (await ts.call("automationsV2.getRun", run_id))["run"]["status"] == "completed"


async def test_row_16_the_stream_tells_of_runs_of_its_automation(
    c: Conformance, ts: TypeScript
) -> None:
    await c.active("ts-stream")
    await c.active("ts-other")
    ts.open_stream(
        "automationsV2.events",
        {"automationId": "ts-stream"},
        until="automation.v2.run.completed",
    )
    await ts.call("health")  # answered behind it, so the stream is being opened
    other = await started(ts, "ts-other")
    await c.until(other, "completed")
    run_id = await started(ts, "ts-stream")
    await c.until(run_id, "completed")
    events = await ts.answer()
    assert {event["properties"]["runID"] for event in events} == {run_id}
    created = next(e for e in events if e["type"] == "automation.v2.run.created")
    assert (created["runId"], created["properties"]["triggerType"]) == (run_id, "manual")
    assert created["properties"]["dryRun"] is False


async def test_rows_40_to_49_webhook_triggers(c: Conformance, ts: TypeScript) -> None:
    await c.active("ts-hooks")
    made = await ts.call(
        "automationsV2.createWebhookTrigger",
        "ts-hooks",
        {"provider": "GitHub.com", "providerEventKind": "Issues.Opened"},
    )
    trigger = made["trigger"]
    assert (trigger["provider"], trigger["provider_event_kind"]) == ("github", "issues.opened")
    assert made["new_secret"].startswith("whsec_")
    trigger_id = trigger["trigger_id"]
    listed = await ts.call("automationsV2.listWebhookTriggers", "ts-hooks")
    assert made["new_secret"] not in json.dumps(listed)
    rotated = await ts.call("automationsV2.rotateWebhookSecret", "ts-hooks", trigger_id)
    assert rotated["trigger"]["secret_status"]["secret_version"] == 2
    off = await ts.call("automationsV2.disableWebhookTrigger", "ts-hooks", trigger_id)
    assert off["trigger"]["enabled"] is False
    renamed = {"enabled": True, "name": "x"}
    on = await ts.call("automationsV2.updateWebhookTrigger", "ts-hooks", trigger_id, renamed)
    assert (on["trigger"]["enabled"], on["trigger"]["name"]) == (True, "x")
    with pytest.raises(ClientError, match="AUTOMATION_WEBHOOK_UPDATE_FAILED"):
        await ts.call("automationsV2.updateWebhookTrigger", "ts-hooks", trigger_id, {"name": " "})
    found = await ts.call("automationsV2.listWebhookDeliveries", "ts-hooks", trigger_id, 2)
    assert (found["deliveries"], found["limit"]) == ([], 2)
    with pytest.raises(ClientError, match="AUTOMATION_WEBHOOK_DELIVERY_NOT_FOUND"):
        await ts.call("automationsV2.getWebhookDelivery", "ts-hooks", trigger_id, "zz")
    gone = await ts.call("automationsV2.deleteWebhookTrigger", "ts-hooks", trigger_id)
    assert gone["deleted"] is True
    with pytest.raises(ClientError, match="404"):
        await ts.call("automationsV2.deleteWebhookTrigger", "ts-hooks", trigger_id)
