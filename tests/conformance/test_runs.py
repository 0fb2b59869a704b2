"""Rows 17 to 31 of the conformance script: one run, and what people do with it."""

import asyncio

import httpx
import pytest

from .conftest import SPEC, Conformance, node
from .test_definitions import code_of, status_of


async def done(c: Conformance, automation_id: str) -> str:
    """Return a completed run of the script's shape."""
    await c.active(automation_id)
    run_id = await c.started(automation_id)
    await c.until(run_id, "completed")
    return run_id


async def failed_at_n2(c: Conformance, automation_id: str) -> str:
    """Return a run whose n2 failed while n1 and s1 are done."""
    await c.active(automation_id)
    c.server.script("n2", fail="as the stub says")
    run_id = await c.started(automation_id)
    await c.until(run_id, "failed")
    c.server.script("n2")
    return run_id


async def test_row_17_a_run_names_its_context_and_what_is_derived(c: Conformance) -> None:
    run = await c.api.get_run(await done(c, "row-17"))
    assert run.contextRunID == f"automation-v2-{run.run_id}" == run.linked_context_run_id
    assert run.blockedNodeIDs == []
    assert run.last_activity_at_ms >= run.started_at_ms
    assert run.nodeRepairGuidance == {}
    assert run.needsRepairNodeIDs == []
    assert set(run.nodeAttemptEvidence) == {"n1", "n2", "n3", "s1"}


async def test_row_18_a_run_completes_in_the_order_of_its_graph(c: Conformance) -> None:
    run_id = await done(c, "row-18")
    run = await c.api.get_run(run_id)
    assert sorted(run.checkpoint["completed_nodes"]) == ["n1", "n2", "n3", "s1"]
    assert run.finished_at_ms is not None
    calls = c.server.calls(run_id)
    assert calls.index("n1") < calls.index("n2") < calls.index("n3")


async def test_row_19_a_list_is_newest_first_and_clamped(c: Conformance) -> None:
    await c.active("row-19")
    runs = [(await c.api.run_now("row-19", dry_run=True)).run_id for _ in range(3)]
    assert [run.run_id for run in (await c.api.list_runs("row-19", limit=1)).runs] == runs[-1:]
    assert (await c.api.list_runs("row-19", limit=0)).count == 1
    assert (await c.api.list_runs("row-19", limit=9_999)).count == 3


async def test_row_19_no_list_has_more_than_500(c: Conformance) -> None:
    await c.active("row-19-many")

    async def start(times: int) -> None:
        for _ in range(times):
            await c.post("/automations/v2/row-19-many/run_now", {"dry_run": True})

    await asyncio.gather(*(start(51) for _ in range(10)))
    runs = (await c.api.list_runs("row-19-many", limit=9_999)).runs
    assert len(runs) == 500
    created = [run.created_at_ms for run in runs]
    assert created == sorted(created, reverse=True)


async def test_row_20_cancelling_what_has_ended_changes_nothing(c: Conformance) -> None:
    run_id = await done(c, "row-20")
    assert (await c.api.cancel_run(run_id)).status == "completed"
    body = (await c.post(f"/automations/v2/runs/{run_id}/cancel")).json()
    assert body["alreadyTerminal"] is True
    assert body["run"]["status"] == "completed"


async def test_row_21_a_paused_run_holds_and_cannot_be_paused_again(c: Conformance) -> None:
    await c.active("row-21")
    c.server.script("n1", wait=True)
    run_id = await c.started("row-21")
    await c.running(run_id, "n1")
    run = await c.api.pause_run(run_id, "why")
    assert (run.status, run.pause_reason, run.active_session_ids) == ("paused", "why", [])
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.pause_run(run_id)
    assert (status_of(error), code_of(error)) == (409, "AUTOMATION_V2_RUN_NOT_PAUSABLE")


async def test_row_22_a_resumed_run_is_queued_and_cannot_be_resumed_again(c: Conformance) -> None:
    await c.active("row-22")
    c.server.script("n1", wait=True)
    run_id = await c.started("row-22")
    await c.running(run_id, "n1")
    await c.api.pause_run(run_id, "why")
    assert (await c.api.resume_run(run_id)).status == "queued"
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.resume_run(run_id)
    assert (status_of(error), code_of(error)) == (409, "AUTOMATION_V2_RUN_NOT_PAUSED")
    await c.api.cancel_run(run_id)


async def test_row_23_a_cancelled_run_says_who_stopped_it_and_why(c: Conformance) -> None:
    await c.active("row-23")
    c.server.script("n1", wait=True)
    run_id = await c.started("row-23")
    await c.running(run_id, "n1")
    run = await c.api.cancel_run(run_id, "stop")
    assert (run.status, run.stop_kind, run.stop_reason) == (
        "cancelled",
        "operator_stopped",
        "stop",
    )
    assert run.finished_at_ms is not None


async def test_row_24_a_cancelled_run_is_not_recovered(c: Conformance) -> None:
    await c.active("row-24")
    c.server.script("n1", wait=True)
    run_id = await c.started("row-24")
    await c.api.cancel_run(run_id)
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.recover_run(run_id)
    assert (status_of(error), code_of(error)) == (409, "AUTOMATION_V2_RUN_NOT_RECOVERABLE")


async def test_row_25_recovering_resets_what_failed_and_what_follows(c: Conformance) -> None:
    run_id = await failed_at_n2(c, "row-25")
    c.server.script("n2", wait=True)
    run = await c.api.recover_run(run_id)
    assert run.status == "queued"
    assert {"n2", "n3"} <= set(run.checkpoint["pending_nodes"])
    assert "n2" not in run.checkpoint["node_attempts"]
    assert {"n1", "s1"} <= set(run.checkpoint["node_outputs"])
    events = [event["event"] for event in run.checkpoint["lifecycle_history"]]
    assert "run_recovered" in events
    c.server.script("n2")
    await c.until(run_id, "completed")


async def test_row_26_a_preview_tells_what_a_reset_would_undo(c: Conformance) -> None:
    run_id = await done(c, "row-26")
    preview = (await c.api.preview_task_reset(run_id, "n2"))["preview"]
    assert preview["reset_nodes"] == ["n2", "n3"]
    assert preview["preserves_upstream_outputs"] is True
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.preview_task_reset(run_id, "zz")
    assert (status_of(error), code_of(error)) == (404, "AUTOMATION_V2_TASK_NODE_NOT_FOUND")


async def test_row_27_a_retried_task_counts_on_and_has_fresh_attempts(c: Conformance) -> None:
    run_id = await done(c, "row-27")
    told = await c.api.retry_task(run_id, "n2", "again")
    assert (told["ok"], told["reset_nodes"]) == (True, ["n2", "n3"])
    assert told["run"]["status"] == "queued"
    run = await c.until(run_id, "completed")
    assert run["checkpoint"]["node_attempts"]["n2"] == 2
    assert run["nodeAttemptEvidence"]["n2"]
    events = [event["event"] for event in run["checkpoint"]["lifecycle_history"]]
    assert "run_task_retried" in events


async def test_row_28_a_task_of_a_running_run_is_not_retried(c: Conformance) -> None:
    await c.active("row-28")
    c.server.script("n1", wait=True)
    run_id = await c.started("row-28")
    await c.running(run_id, "n1")
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.retry_task(run_id, "n2")
    assert (status_of(error), code_of(error)) == (409, "AUTOMATION_V2_RUN_TASK_NOT_MUTABLE")
    await c.api.cancel_run(run_id)


async def test_row_29_a_task_is_requeued(c: Conformance) -> None:
    run_id = await done(c, "row-29")
    assert (await c.api.requeue_task(run_id, "n3"))["reset_nodes"] == ["n3"]
    run = await c.until(run_id, "completed")
    events = [event["event"] for event in run["checkpoint"]["lifecycle_history"]]
    assert "run_task_requeued" in events


async def test_row_30_a_blocked_task_goes_on_alone(c: Conformance) -> None:
    await c.active("row-30")
    c.server.script("n2", block="no data")
    run_id = await c.started("row-30")
    await c.until(run_id, "blocked")
    shown = await c.api.get_run(run_id)
    assert (shown.status, shown.stored_status) == ("failed", "blocked")
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.continue_task(run_id, "n1")
    assert (status_of(error), code_of(error)) == (409, "AUTOMATION_V2_TASK_NOT_BLOCKED")
    c.server.script("n2")
    told = await c.api.continue_task(run_id, "n2")
    assert told["reset_nodes"] == ["n2"]
    await c.until(run_id, "completed")


async def test_row_31_a_repair_edits_the_version_of_the_run(c: Conformance) -> None:
    run_id = await failed_at_n2(c, "row-31")
    told = await c.api.repair_run(run_id, {"node_id": "n2", "prompt": "p2"})
    assert told["ok"] is True
    nodes = {each["node_id"]: each for each in told["automation"]["flow"]["nodes"]}
    assert nodes["n2"]["metadata"]["builder"]["prompt"] == "p2"
    await c.until(run_id, "completed")
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.repair_run(run_id, {"prompt": "p2"})
    assert status_of(error) == 422
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.repair_run(run_id, {"node_id": " "})
    assert (status_of(error), code_of(error)) == (400, "AUTOMATION_V2_REPAIR_NODE_REQUIRED")


async def test_row_39_pausing_an_automation_pauses_what_runs(c: Conformance) -> None:
    await c.active("row-39", concurrency={"key": "row-39", "limit": 1})
    c.server.script("n1", wait=True)
    running = await c.started("row-39")
    await c.running(running, "n1")
    queued = await c.started("row-39")
    assert (await c.api.pause("row-39", "m")).status == "paused"
    assert (await c.api.get_run(running)).status == "paused"
    assert (await c.api.get_run(queued)).status == "queued"
    assert (await c.api.pause("row-39")).status == "paused"
    assert (await c.api.resume("row-39")).status == "active"
    assert (await c.api.get_run(running)).status == "paused"
    for run_id in (running, queued):
        await c.api.cancel_run(run_id)


async def test_row_50_a_deleted_automation_leaves_its_runs(c: Conformance) -> None:
    run_id = await done(c, "row-50")
    assert (await c.api.delete("row-50"))["ok"] is True
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.delete("row-50")
    assert status_of(error) == 404
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.list_runs("row-50")
    assert status_of(error) == 404
    assert (await c.api.get_run(run_id)).status == "completed"


async def test_a_draft_runs_when_somebody_says_so(c: Conformance) -> None:
    """What the client creates without a status is a draft, and its next call is `run_now`."""
    record = await c.api.create({**SPEC, "flow": {"nodes": [node("n1")]}})
    run_id = (await c.api.run_now(record.automation_id)).run_id
    await c.until(run_id, "completed")


async def test_row_38_a_planned_task_is_claimed_given_back_and_claimed_again(
    c: Conformance,
) -> None:
    plans = node("n1", metadata={"builder": {"project_backlog_tasks": True}})
    c.server.script("n1", say={"backlog_tasks": [{"task_id": "t1", "title": "One"}]})
    await c.active("row-38", flow={"nodes": [plans]})
    run_id = await c.started("row-38")
    await c.until(run_id, "completed")
    listed = (await c.raw.get(f"/automations/v2/runs/{run_id}/backlog/tasks")).json()
    task_id = listed["tasks"][0]["id"]
    claim = {"agent_id": "w1", "lease_ms": 1}
    told = await c.api.claim_backlog_task(run_id, task_id, claim)
    assert (told["task"]["status"], told["task"]["lease_owner"]) == ("in_progress", "w1")
    assert told["task"]["lease_expires_at_ms"] >= told["task"]["updated_ts"] + 5_000
    with pytest.raises(httpx.HTTPStatusError) as error:
        await c.api.claim_backlog_task(run_id, task_id, claim)
    assert (status_of(error), code_of(error)) == (
        409,
        "AUTOMATION_V2_BACKLOG_TASK_NOT_CLAIMABLE",
    )
    back = await c.api.requeue_backlog_task(run_id, task_id)
    assert (back["task"]["status"], back["task"]["lease_owner"]) == ("runnable", None)
    again = await c.api.claim_backlog_task(run_id, task_id, claim)
    assert again["task"]["status"] == "in_progress"
