"""Gates and waits of a whole engine: time, people and signals wake runs on the real store."""

import asyncio
from typing import Any

import pytest

from tandem.domain.command import DecideGate, ResolveWait
from tandem.domain.errors import Refused
from tandem.domain.ids import LOCAL_TENANT, NodeId
from tandem.domain.lifecycle import RunState
from tandem.domain.signal import InvalidSignal
from tandem.embedded import Run
from tests.engine.conftest import Bench, call

LIMIT_S = 20


def events(run: Run) -> list[str]:
    return [event.event.value for event in run.events()]


async def until(run: Run, event: str) -> None:
    """Wait until this has happened to a run."""
    async with asyncio.timeout(LIMIT_S):
        while event not in events(run):
            await asyncio.sleep(0.01)


def gate(node_id: str = "g", **policy: Any) -> dict[str, Any]:
    return {"node_id": node_id, "gate": {"required": True, "expiry_policy": policy}}


def condition(node_id: str = "w", **fields: Any) -> dict[str, Any]:
    wait = {
        "kind": "external_condition",
        "condition_key": {"source": "literal", "value": "ready"},
        "timeout": {"expires_after_ms": 60_000},
    }
    return {"node_id": node_id, "wait": wait | fields}


async def test_gate_escalates_reminds_and_can_still_be_decided(bench: Bench) -> None:
    run = await bench.start(gate(expires_after_ms=30, on_expiry="escalate", escalate_to="lead"))
    await until(run, "approval_gate_escalated")
    assert run.status is RunState.AWAITING_APPROVAL

    await run.decide("approve", decided_by="lead")

    async with asyncio.timeout(LIMIT_S):
        assert await run.wait() is RunState.COMPLETED


async def test_gate_that_expires_ends_the_run(bench: Bench) -> None:
    run = await bench.start(gate(expires_after_ms=20))

    async with asyncio.timeout(LIMIT_S):
        assert await run.wait() is RunState.CANCELLED
    assert events(run)[-2:] == ["approval_gate_expired", "run_cancelled"]


async def test_twenty_decisions_at_once_have_one_winner(bench: Bench) -> None:
    run = await bench.start(gate())
    await until(run, "run_parked_at_gate")
    engine = bench.engine.parts.engine

    answers = await asyncio.gather(
        *(
            engine.execute(run.run_id, DecideGate(decision="approve", decided_by=f"p{n}"))
            for n in range(20)
        ),
        return_exceptions=True,
    )

    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert len(refused) == 19
    assert events(run).count("gate_decided") == 1
    (decided,) = bench.engine.parts.store.list_gates_of_run(run.run_id, tenant=LOCAL_TENANT)
    assert {late.details["winningDecision"]["decided_by"] for late in refused} == {
        decided.decided_by
    }


async def test_decision_for_another_asking_is_refused_after_it_was_recorded(bench: Bench) -> None:
    run = await bench.start(gate())
    await until(run, "run_parked_at_gate")

    with pytest.raises(Refused, match="look at the gate again") as refused:
        await bench.engine.parts.engine.execute(
            run.run_id, DecideGate(decision="approve", transition_id="stale")
        )

    assert refused.value.code == "AUTOMATION_V2_GATE_TRANSITION_GUARD_DENIED"
    assert events(run)[-1] == "approval_gate_transition_guard_denied"


async def test_signal_wakes_a_parked_run_and_its_payload_is_there(bench: Bench) -> None:
    run = await bench.start(condition(), call("after") | {"depends_on": ["w"]})
    await until(run, "run_parked_on_wait")

    woken = await bench.engine.signal("ready", {"by": "ann"}, idempotency_key="k1")

    assert woken == [run.run_id]
    async with asyncio.timeout(LIMIT_S):
        assert await run.wait() is RunState.COMPLETED
    outputs = await run.outputs()
    assert outputs["w"]["content"]["wake_metadata"]["payload"] == {"by": "ann"}  # type: ignore[call-overload,index]
    assert await bench.engine.signal("ready", idempotency_key="k1") == []


async def test_wait_is_resolved_once_and_the_same_key_gets_its_record(bench: Bench) -> None:
    schema = {"type": "object", "required": ["ok"]}
    run = await bench.start(
        condition(payload_schema=schema), condition("later") | {"depends_on": ["w"]}
    )
    await until(run, "run_parked_on_wait")
    assert [wait.node_id for wait in await run.waits()] == ["w"]
    with pytest.raises(Refused, match="misses the schema"):
        await run.resolve_wait("w", {}, idempotency_key="k1")
    with pytest.raises(Refused, match="no open wait of node `later`"):
        await run.resolve_wait("later", idempotency_key="k1")
    with pytest.raises(InvalidSignal):
        await run.resolve_wait("w", "x" * 20_000, idempotency_key="k1")

    record = await run.resolve_wait("w", {"ok": 1}, idempotency_key="k1")

    assert record is not None
    assert (record.node_id, record.status.value) == ("w", "woken")
    assert await run.resolve_wait("w", {"ok": 2}, idempotency_key="k1") == record
    assert await run.resolve_wait("w", {"ok": 1}, idempotency_key="k2") is None


async def test_signal_that_came_too_late_is_told(bench: Bench) -> None:
    run = await bench.start(condition(timeout={"expires_after_ms": 1}))
    async with asyncio.timeout(LIMIT_S):
        assert await run.wait() is RunState.CANCELLED

    command = ResolveWait(idempotency_key="k", node_id=NodeId("w"))
    assert await bench.engine.parts.engine.resolve_wait(run.run_id, command) is None


async def test_rework_stops_a_body_that_runs_and_tells_the_next_why(bench: Bench) -> None:
    """The reset node runs again only after its former body is gone."""
    review = {
        "node_id": "g",
        "depends_on": ["a"],
        "gate": {"required": True, "rework_targets": ["a"]},
    }
    slow = {
        "node_id": "b",
        "depends_on": ["a"],
        "action": {"kind": "command", "argv": ["sleep", "30"]},
    }
    run = await bench.start(call("a"), review, slow)
    await until(run, "gate_opened")
    async with asyncio.timeout(LIMIT_S):
        while sum(event.node_id == "b" for event in run.events()) < 1:
            await asyncio.sleep(0.01)

    await run.decide("rework", node_id="g", reason="again")

    async with asyncio.timeout(LIMIT_S):
        while events(run).count("gate_opened") < 2:
            await asyncio.sleep(0.01)
    await run.cancel()
    async with asyncio.timeout(LIMIT_S):
        await run.wait()
    attempts = bench.engine.parts.store.list_attempts(run.run_id, tenant=LOCAL_TENANT)
    of_b = [attempt for attempt in attempts if attempt.node_no == 2]
    assert "rework was asked for" in of_b[0].message
