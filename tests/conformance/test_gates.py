"""Rows 32 to 37 of the conformance script: people decide."""

import asyncio
from typing import Any

import pytest

from .conftest import Conformance, node


async def waiting(c: Conformance, automation_id: str, **gate: Any) -> str:
    """Return a run that waits at the gate on n2."""
    asks = {"required": True, "decisions": ["approve", "rework", "cancel"], **gate}
    gated = node("n2", "n1", gate=asks)
    del gated["retry_policy"]
    await c.active(automation_id, flow={"nodes": [node("n1"), gated, node("n3", "n2")]})
    run_id = await c.started(automation_id)
    await c.until(run_id, "awaiting_approval")
    return run_id


async def decide(c: Conformance, run_id: str, decision: str, **more: Any) -> Any:
    headers = more.pop("headers", {})
    body = {"decision": decision, **more}
    return await c.post(f"/automations/v2/runs/{run_id}/gate", body, headers=headers)


async def test_row_32_an_open_gate_is_in_the_inbox(c: Conformance) -> None:
    run_id = await waiting(c, "row-32")
    found = (await c.raw.get("/approvals/pending")).json()
    (item,) = [each for each in found["approvals"] if each["run_id"] == run_id]
    assert item["request_id"] == f"automation_v2:{run_id}:n2"
    assert item["surface_payload"]["decide_endpoint"].endswith("/gate")
    other = await c.raw.get("/approvals/pending", params={"org_id": "acme"})
    assert other.json() == {"approvals": [], "count": 0}


async def test_row_33_a_waiting_run_can_be_read_by_the_client(c: Conformance) -> None:
    run_id = await waiting(c, "row-33")
    run = await c.api.get_run(run_id)
    assert (run.status, run.stored_status) == ("paused", "awaiting_approval")
    (listed,) = (await c.api.list_runs("row-33")).runs
    assert (listed.status, listed.stored_status) == ("paused", "awaiting_approval")
    raw = (await c.raw.get(f"/automations/v2/runs/{run_id}")).json()["run"]
    assert raw["status"] == "awaiting_approval"
    assert raw["checkpoint"]["awaiting_gate"]["node_id"] == "n2"


async def test_row_34_wrong_decisions_are_refused_each_for_its_reason(c: Conformance) -> None:
    run_id = await waiting(c, "row-34")
    unknown = await decide(c, run_id, "maybe")
    by_bot = await decide(c, run_id, "approve", headers={"x-tandem-agent-id": "bot"})
    elsewhere = await decide(c, run_id, "approve", approval_request_id="automation_v2:x:n2")
    assert [(r.status_code, r.json()["code"]) for r in (unknown, by_bot, elsewhere)] == [
        (400, "AUTOMATION_V2_GATE_INVALID_DECISION"),
        (403, "AUTOMATION_V2_GATE_REQUIRES_HUMAN"),
        (409, "AUTOMATION_V2_GATE_TRANSITION_GUARD_DENIED"),
    ]
    assert (await decide(c, run_id, " Approve ")).status_code == 200


async def test_row_35_one_of_twenty_decisions_counts(c: Conformance) -> None:
    run_id = await waiting(c, "row-35")
    answers = await asyncio.gather(*(decide(c, run_id, "approve") for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    for answer in answers:
        if answer.status_code == 409:
            body = answer.json()
            assert body["code"] == "AUTOMATION_V2_RUN_NOT_AWAITING_APPROVAL"
            assert body["winningDecision"]["decision"] == "approve"
    run = await c.until(run_id, "completed")
    history = run["checkpoint"]["gate_history"]
    assert [each["decision"] for each in history] == ["approve"]


async def test_row_36_rework_runs_again_and_cancel_ends(c: Conformance) -> None:
    run_id = await waiting(c, "row-36a")
    assert (await decide(c, run_id, "rework", reason="more")).json()["run"]["status"] == "queued"
    await c.until(run_id, "awaiting_approval")
    assert c.server.calls(run_id) == ["n1", "n1"]
    assert (await decide(c, run_id, "approve")).status_code == 200
    await c.until(run_id, "completed")
    other = await waiting(c, "row-36b")
    run = (await decide(c, other, "cancel")).json()["run"]
    assert (run["status"], run["stop_kind"]) == ("cancelled", "cancelled")


@pytest.mark.parametrize(
    ("alias", "status"), [("deny", "cancelled"), ("reject", "cancelled"), ("changes", "queued")]
)
async def test_other_words_for_decisions_are_understood(
    c: Conformance, alias: str, status: str
) -> None:
    run_id = await waiting(c, f"alias-{alias}")
    assert (await decide(c, run_id, alias)).json()["run"]["status"] == status


async def test_row_37_a_disposition_is_kept_once(c: Conformance) -> None:
    await c.active("row-37")
    run_id = await c.started("row-37")
    await c.until(run_id, "completed")
    path = f"/automations/v2/runs/{run_id}/tasks/n1/disposition"
    first = (await c.raw.patch(path, json={"disposition": "approve"})).json()
    again = (await c.raw.patch(path, json={"disposition": "approve"})).json()
    assert [(body["disposition"], body["changed"]) for body in (first, again)] == [
        ("accepted", True),
        ("accepted", False),
    ]
    wrong = await c.raw.patch(path, json={"disposition": "perhaps"})
    assert wrong.json()["code"] == "AUTOMATION_V2_TASK_DISPOSITION_INVALID"
    summary = (await c.raw.get("/automations/v2/graduation/summary")).json()
    assert (summary["ok"], summary["window_hours"]) == (True, 168)
    assert summary["summary"]["total_relaxed_outputs"] == 0


async def test_row_37_the_summary_counts_what_was_let_pass(c: Conformance) -> None:
    soft = node("n1", output_contract={"kind": "text", "required_sections": ["Sources"]})
    await c.active("row-37-soft", flow={"nodes": [soft]})
    c.server.script("n1", say="# Title")
    run_id = await c.started("row-37-soft")
    await c.until(run_id, "completed")

    async def counted() -> dict[str, int]:
        asked = {"automation_id": "row-37-soft"}
        found = await c.raw.get("/automations/v2/graduation/summary", params=asked)
        told = found.json()["summary"]
        assert told["total_relaxed_outputs"] == 1
        by_class: dict[str, int] = told["by_class"]["missing_required_section"]
        return by_class

    nothing = {"accepted": 0, "rejected": 0, "re_ran_strict": 0, "unmarked": 0}
    assert await counted() == {**nothing, "unmarked": 1}
    path = f"/automations/v2/runs/{run_id}/tasks/n1/disposition"
    await c.raw.patch(path, json={"disposition": "approve"})
    assert await counted() == {**nothing, "accepted": 1}
