"""`tandem webhooks` on the store of this machine."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from tandem.domain.webhook_signature import Incoming, signature_of
from tandem.settings import Settings
from tandem.wiring import open_engine
from tests.adapters.cli.conftest import Answer, Call


async def deliver(state_dir: Path, made: Answer, body: bytes, *, secret: str = "") -> None:
    """Deliver something, and let it become a run."""
    async with open_engine(Settings(state_dir=state_dir), drives=False) as parts:
        hooks = parts.webhooks
        token = made.json["trigger"]["callback_path"].rpartition("/")[2]
        signature = signature_of(
            secret or made.json["new_secret"], time.time_ns() // 1_000_000, body
        )
        incoming = Incoming(headers={"x-tandem-webhook-signature": signature}, body=body)
        received = await hooks.receive(hooks.find_by_token(token), incoming)
        if received.to_note is not None:
            await hooks.note(received.to_note)
        await parts.engine.inbox.take()


@pytest.fixture
def job(call: Call) -> str:
    nodes = [{"node_id": "a", "action": {"kind": "command", "argv": ["true"]}}]
    Path("job.json").write_text(json.dumps({"automation_id": "job", "nodes": nodes}))
    assert call("automations", "apply", "job.json").code == 0
    return "job"


def test_deliveries_are_listed_with_their_verdicts_and_sent_through_again(
    call: Call, job: str, state_dir: Path
) -> None:
    made = call("webhooks", "create", job, "--json")
    trigger = made.json["trigger"]["trigger_id"]
    assert "nothing was delivered" in call("webhooks", "deliveries", job, trigger).err
    asyncio.run(deliver(state_dir, made, b"[1]"))
    asyncio.run(deliver(state_dir, made, b"[2]", secret="other"))
    table = call("webhooks", "deliveries", job, trigger).out
    assert "bad_signature" in table
    wrong, good = call("webhooks", "deliveries", job, trigger, "--json").json
    assert (good["status"], wrong["status"]) == ("accepted", "rejected")
    assert good["queued_run_id"] in table
    again = call("webhooks", "redeliver", job, trigger, good["delivery_id"], "--json").json
    assert again["redelivery_of_delivery_id"] == good["delivery_id"]
    assert "waits for an engine" in (
        call("webhooks", "redeliver", job, trigger, good["delivery_id"]).out
    )
    refused = call("webhooks", "redeliver", job, trigger, wrong["delivery_id"])
    assert refused.code == 5
