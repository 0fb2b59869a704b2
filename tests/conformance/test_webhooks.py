"""Rows 40 to 49 of the conformance script: webhook triggers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tandem.domain.webhook_signature import signature_of

from .conftest import REST_S, Conformance, Process, open_client

BODY = b'{"issue": 1}'


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One server that counts no networks: all that the script sends comes from one."""
    process = Process(tmp_path_factory.mktemp("webhooks"))
    process.start(TANDEM_PUBLIC_WEBHOOK_NETWORK_RATE_LIMIT_PER_MIN="0")
    yield process
    assert process.stop() == 0


@pytest.fixture
async def c(hooked: Process) -> AsyncIterator[Conformance]:
    async with open_client(hooked) as found:
        yield found


async def made(c: Conformance, automation_id: str, **fields: Any) -> Any:
    await c.active(automation_id)
    return await c.api.create_webhook_trigger(automation_id, {"provider": "github", **fields})


async def send(
    trigger: Any, secret: str, body: bytes = BODY, *, event_id: str = "", **headers: str
) -> httpx.Response:
    named = {"content-type": "application/json", **headers}
    if secret:
        now_ms = time.time_ns() // 1_000_000
        named["x-tandem-webhook-signature"] = signature_of(secret, now_ms, body)
    if event_id:
        named["x-github-delivery"] = event_id
    async with httpx.AsyncClient() as http:
        return await http.post(trigger.callback_url, content=body, headers=named)


async def deliveries(c: Conformance, trigger: Any, **how: Any) -> list[Any]:
    """Return the deliveries once each of them has become something."""
    deadline = time.monotonic() + REST_S
    while True:
        found = await c.api.list_webhook_deliveries(
            trigger.automation_id, trigger.trigger_id, **how
        )
        if all(one.status != "received" for one in found.deliveries):
            return list(found.deliveries)
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def refused(awaited: Any) -> tuple[int, str]:
    with pytest.raises(httpx.HTTPStatusError) as error:
        await awaited
    return error.value.response.status_code, error.value.response.json()["code"]


async def test_row_40_a_trigger_tells_its_secret_once(c: Conformance) -> None:
    await c.active("row-40")
    answer = await c.api.create_webhook_trigger(
        "row-40", {"provider": "GitHub.com", "providerEventKind": "Issues.Opened"}
    )
    trigger = answer.trigger
    assert (trigger.provider, trigger.provider_event_kind) == ("github", "issues.opened")
    assert trigger.signature_scheme == "hmac_sha256_v1"
    assert answer.new_secret.startswith("whsec_")
    assert answer.secret_one_time is True
    told = await c.api.get_webhook_trigger("row-40", trigger.trigger_id)
    listed = await c.api.list_webhook_triggers("row-40")
    assert listed.count == 1
    shown = json.dumps([told.model_dump(), listed.model_dump()])
    assert answer.new_secret not in shown


async def test_row_41_four_deliveries_make_one_run(c: Conformance) -> None:
    answer = await made(c, "row-41")
    trigger, secret = answer.trigger, answer.new_secret
    for body, event_id in ((BODY, "e1"), (BODY, "e1"), (b"[2]", "e1"), (BODY, "e2")):
        assert (await send(trigger, secret, body, event_id=event_id)).status_code == 202
    fourth, third, second, first = await deliveries(c, trigger)
    assert (first.status, second.status, third.status, fourth.status) == (
        "accepted",
        "duplicate",
        "rejected",
        "duplicate",
    )
    assert third.rejection_reason_code == "idempotency_conflict"
    assert second.duplicate_of_run_id == fourth.duplicate_of_run_id == first.queued_run_id
    assert [run.run_id for run in (await c.api.list_runs("row-41")).runs] == [first.queued_run_id]
    run = await c.until(first.queued_run_id)
    webhook = run["automation_snapshot"]["metadata"]["automation_webhook"]
    assert (run["trigger_type"], webhook["trust"]) == ("webhook", "untrusted_external_webhook")


async def test_row_42_whoever_is_not_believed_hears_the_same(c: Conformance) -> None:
    answer = await made(c, "row-42")
    trigger, secret = answer.trigger, answer.new_secret
    old = signature_of(secret, time.time_ns() // 1_000_000 - 360_000, BODY)
    unknown = trigger.model_copy(update={"callback_url": trigger.callback_url[:-4] + "0000"})
    answers = [
        await send(trigger, ""),
        await send(trigger, "", **{"x-tandem-webhook-signature": "t=1,v1=zz"}),
        await send(trigger, "", **{"x-tandem-webhook-signature": old}),
        await send(unknown, secret),
    ]
    assert [one.status_code for one in answers] == [401] * 4
    assert len({one.content for one in answers}) == 1
    deadline = time.monotonic() + REST_S
    while len(found := await deliveries(c, trigger)) < 3:
        assert time.monotonic() < deadline  # they are noted after the answer
    assert [one.rejection_reason_code for one in reversed(found)] == [
        "missing_signature",
        "malformed_signature",
        "stale_signature_timestamp",
    ]


async def test_row_43_too_much_and_the_wrong_kind(c: Conformance, tmp_path: Path) -> None:
    answer = await made(c, "row-43", provider="generic")
    trigger, secret = answer.trigger, answer.new_secret
    assert (await send(trigger, secret, **{"content-type": "text/plain"})).status_code == 415
    assert (await send(trigger, secret, b"[" + b" " * 300 * 1024 + b"]")).status_code == 413
    counting = Process(tmp_path / "counting")
    counting.start()
    try:
        async with open_client(counting) as other:
            answer = await made(other, "row-43")
            over: list[httpx.Response] = []
            before = 0
            for _ in range(2):  # the minute may end while the script sends; then again
                heard = [(await send(answer.trigger, "")) for _ in range(31)]
                over = [one for one in heard if one.status_code == 429]
                before = len(heard) - len(over)
                if over:
                    break
    finally:
        counting.stop()
    assert before <= 30
    assert [one.status_code for one in heard[before:]] == [429] * len(over)
    assert over
    assert all(1 <= int(one.headers["retry-after"]) <= 60 for one in over)


async def test_row_44_a_rotated_secret_is_dead_at_once(c: Conformance) -> None:
    answer = await made(c, "row-44")
    rotated = await c.api.rotate_webhook_secret("row-44", answer.trigger.trigger_id)
    assert (await send(answer.trigger, answer.new_secret)).status_code == 401
    assert (await send(answer.trigger, rotated.new_secret)).status_code == 202
    assert rotated.trigger.secret_status.secret_version == 2
    assert rotated.trigger.secret_status.rotated_at_ms is not None


async def test_rows_45_and_46_a_trigger_is_disabled_and_changed(c: Conformance) -> None:
    answer = await made(c, "row-45")
    name = answer.trigger.trigger_id
    for _ in range(2):
        told = await c.api.disable_webhook_trigger("row-45", name)
        assert told.trigger.enabled is False
    assert (await send(answer.trigger, answer.new_secret)).status_code == 410
    changed = await c.api.update_webhook_trigger("row-45", name, {"enabled": True, "name": "x"})
    assert (changed.trigger.enabled, changed.trigger.name) == (True, "x")
    assert await refused(c.api.update_webhook_trigger("row-45", name, {"name": " "})) == (
        400,
        "AUTOMATION_WEBHOOK_UPDATE_FAILED",
    )


async def test_row_47_deliveries_are_listed_newest_first(c: Conformance) -> None:
    answer = await made(c, "row-47")
    for number in range(3):
        await send(answer.trigger, answer.new_secret, b"[%d]" % number)
    found = await deliveries(c, answer.trigger, limit=2)
    name = answer.trigger.trigger_id
    assert (await c.api.list_webhook_deliveries("row-47", name, limit=2)).limit == 2
    assert [one.sanitized_preview for one in found] == [[2], [1]]
    one = await c.api.get_webhook_delivery("row-47", name, found[0].delivery_id)
    assert one.delivery.delivery_id == found[0].delivery_id
    assert await refused(c.api.get_webhook_delivery("row-47", name, "zz")) == (
        404,
        "AUTOMATION_WEBHOOK_DELIVERY_NOT_FOUND",
    )


async def test_rows_48_and_49_a_trigger_is_of_one_automation_and_deleted_once(
    c: Conformance,
) -> None:
    answer = await made(c, "row-48")
    name = answer.trigger.trigger_id
    await c.active("row-48-other")
    missing = (404, "AUTOMATION_WEBHOOK_TRIGGER_NOT_FOUND")
    assert await refused(c.api.get_webhook_trigger("row-48-other", name)) == missing
    assert (await c.api.delete_webhook_trigger("row-48", name)).deleted is True
    assert await refused(c.api.delete_webhook_trigger("row-48", name)) == missing
