"""Deliveries at webhooks become runs and wake waits, through the engine."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tandem import Automation, Engine, Run
from tandem.adapters.local.clock import SystemClock
from tandem.adapters.local.ids import RandomIds
from tandem.adapters.local.vault import FileVault
from tandem.domain.ids import LOCAL_TENANT, AutomationId, RunId
from tandem.domain.webhook import TriggerSpec
from tandem.domain.webhook_delivery import Delivery
from tandem.domain.webhook_signature import Incoming, signature_of
from tandem.engine.webhooks import Made, Reception, Webhooks
from tandem.ports.store import RunFilter
from tests.engine.conftest import WAIT_S, Bench, call

JOB = AutomationId("job")


class Sender:
    """Somebody outside, with one trigger."""

    def __init__(self, engine: Engine, state_dir: Path) -> None:
        self.engine = engine
        core = engine.parts.engine
        self.store = core.store
        self.webhooks = Webhooks(core, FileVault(state_dir), clock=SystemClock(), ids=RandomIds())
        self.made: Made

    async def make(self, **fields: Any) -> None:
        spec = TriggerSpec(**{"provider": "generic", **fields})
        self.made = await self.webhooks.create(JOB, spec, tenant=LOCAL_TENANT)

    async def send(self, body: bytes, **headers: str) -> Delivery:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        now_ms = time.time_ns() // 1_000_000
        named["x-tandem-webhook-signature"] = signature_of(self.made.secret, now_ms, body)
        trigger = self.webhooks.find_by_token(self.made.trigger.public_path_token)
        received = await self.webhooks.receive(trigger, Incoming(headers=named, body=body))
        assert received.reception is Reception.ACCEPTED
        assert received.delivery is not None
        return received.delivery

    async def end(self, delivery: Delivery) -> Delivery:
        """Wait until a delivery has become something."""
        async with asyncio.timeout(WAIT_S):
            while True:
                found = self.store.find_delivery(delivery.delivery_id, tenant=LOCAL_TENANT)
                assert found is not None
                if not found.is_open:
                    return found
                await asyncio.sleep(0.01)  # another task of this loop is what is waited for

    def run_of(self, delivery: Delivery) -> Run:
        assert delivery.queued_run_id is not None
        return self.engine.get_run(delivery.queued_run_id)


@pytest.fixture
def sender(bench: Bench, tmp_path: Path) -> Sender:
    return Sender(bench.engine, tmp_path / "state")


def job(*nodes: dict[str, Any], **fields: Any) -> Automation:
    return Automation.from_dict(
        {"automation_id": "job", **fields, "nodes": list(nodes) or [call("a")]}
    )


async def test_a_delivery_is_run_with_its_payload_as_an_input(bench: Bench, sender: Sender) -> None:
    seen: list[Any] = []
    bench.body("keep", lambda **given: seen.append(given))
    arguments = {"issue": "${inputs.webhook.payload.issue}", "trust": "${inputs.webhook.trust}"}
    await bench.engine.apply(
        job(call("a", "keep", arguments=arguments), inputs={"webhook": {"type": "object"}})
    )
    await sender.make(provider_event_kind="Opened")
    delivery = await sender.end(await sender.send(b'{"issue": 7, "api_key": "x"}', x_event_id="e1"))
    run = sender.run_of(delivery)
    assert await bench.end(run) == "completed"
    assert seen == [{"issue": 7, "trust": "untrusted_external_webhook"}]
    given = run.row.inputs["webhook"]
    assert given["payload"] == {"issue": 7, "api_key": "[redacted]"}
    assert (given["provider_event_id"], given["provider_event_kind"]) == ("e1", "opened")


async def test_an_automation_that_declares_nothing_is_given_nothing(
    bench: Bench, sender: Sender
) -> None:
    await bench.engine.apply(job())
    await sender.make()
    delivery = await sender.end(await sender.send(b"[1]"))
    run = sender.run_of(delivery)
    assert await bench.end(run) == "completed"
    assert run.row.inputs == {}
    context = run.row.trigger_context
    assert context is not None
    assert context["automation_webhook"]["payload_preview"] == [1]


async def test_a_delivery_wakes_the_wait_that_it_is_for(bench: Bench, sender: Sender) -> None:
    await bench.engine.apply(job())
    await sender.make()
    wait = {
        "kind": "webhook",
        "trigger_id": sender.made.trigger.trigger_id,
        "correlation": {
            "field": "provider_event_id",
            "value": {"source": "literal", "value": "e1"},
        },
        "timeout": {"expires_after_ms": 3_600_000},
    }
    run = await bench.start({"node_id": "w", "wait": wait}, call("after", "ok", "w"))
    async with asyncio.timeout(WAIT_S):
        while run.status != "paused":
            await asyncio.sleep(0.01)  # it parks in another task of this loop
    delivery = await sender.end(await sender.send(b"[1]", x_event_id="e1"))
    assert (delivery.woken_run_id, delivery.queued_run_id) == (run.row.run_id, None)
    assert await bench.end(run) == "completed"
    other = await sender.end(await sender.send(b"[2]", x_event_id="e2"))
    assert other.queued_run_id is not None


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ({"status": "draft"}, "rejected", "automation_inactive"),
        ({"inputs": {"must": {"type": "string"}}}, "failed", "run_not_creatable"),
        (
            {"metadata": {"enterprise_scope": {"owning_org_unit_id": "u"}}},
            "rejected",
            "webhook_missing_org_scope",
        ),
    ],
)
async def test_a_delivery_that_cannot_be_run_says_why(
    bench: Bench, sender: Sender, fields: dict[str, Any], status: str, reason: str
) -> None:
    await bench.engine.apply(job(**fields))
    await sender.make()
    delivery = await sender.end(await sender.send(b"[1]"))
    assert (delivery.status, delivery.rejection_reason_code) == (status, reason)
    fine = await sender.send(b"[2]")
    assert (await sender.end(fine)).rejection_reason_code == reason


async def test_a_delivery_for_a_deleted_automation_goes_nowhere(
    bench: Bench, sender: Sender
) -> None:
    stored = await bench.engine.apply(job())
    await sender.make()
    await stored.delete()
    delivery = await sender.end(await sender.send(b"[1]"))
    assert (delivery.status, delivery.correlation) == ("failed", "dead_letter")
    assert delivery.rejection_reason_code == "automation_missing"


async def test_two_engines_take_each_delivery_once(tmp_path: Path) -> None:
    functions = {"test:ok": lambda **_: "ok"}
    async with (
        Engine.open(state_dir=tmp_path, functions=functions) as one,
        Engine.open(state_dir=tmp_path, functions=functions) as two,
    ):
        await one.apply(job())
        senders = [Sender(one, tmp_path), Sender(two, tmp_path)]
        await senders[0].make()
        senders[1].made = senders[0].made
        sent = await asyncio.gather(
            *(senders[number % 2].send(b"[%d]" % (number // 2)) for number in range(40))
        )
        ended = await asyncio.gather(*map(senders[0].end, sent))
        assert (
            sorted(delivery.status for delivery in ended) == ["accepted"] * 20 + ["duplicate"] * 20
        )
        runs = senders[0].store.list_runs(RunFilter(tenant=LOCAL_TENANT, limit=100))
        assert len(runs) == 20
        for delivery in ended:
            if delivery.queued_run_id is not None:
                run = one.get_run(RunId(delivery.queued_run_id))
                async with asyncio.timeout(WAIT_S):
                    assert await run.wait() == "completed"
