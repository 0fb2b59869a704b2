"""Row 51 of the conformance script: two tenants with tokens of their own at one server."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from tandem_client import TandemClient

from tandem.domain.webhook_signature import signature_of

from .conftest import COMPAT, REST_S
from .test_server import serve, url_of
from .test_starting import make_token
from .test_typescript_client import ClientError, needs_node, open_typescript

Asked = tuple[str, str, Any]

SAY = {"node_id": "say", "action": {"kind": "command", "argv": ["echo", "said"]}}
GATED = {"node_id": "ok", "objective": "Go on?", "depends_on": ["say"], "gate": {"required": True}}


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A server with a token for each of three tenants; the third one has nothing."""

    url: str
    mine: str
    theirs: str
    empty: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    state_dir = tmp_path_factory.mktemp("tenants") / "state"
    mine, theirs, empty = (
        make_token(state_dir, "--scope", "admin", "--tenant", f"acme/{workspace}")
        for workspace in ("blue", "green", "red")
    )
    with serve("--port", "0", TANDEM_STATE_DIR=str(state_dir)) as process:
        yield Served(url=url_of(process), mine=mine, theirs=theirs, empty=empty)


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """The published client with the token of one tenant, and the same server asked directly."""

    client: TandemClient
    raw: httpx.AsyncClient

    @property
    def api(self) -> Any:
        return self.client.automations_v2

    async def started(self, automation_id: str, *nodes: Any) -> str:
        """Keep an automation and start a run of it."""
        await self.api.create(
            {
                "automation_id": automation_id,
                "name": automation_id,
                "status": "active",
                "schedule": {"type": "manual"},
                "flow": {"nodes": list(nodes)},
            }
        )
        return str((await self.api.run_now(automation_id)).run_id)

    async def until(self, run_id: str, status: str) -> Any:
        """Return the record of a run once it is in this state."""
        deadline = time.monotonic() + REST_S
        while True:
            run = (await self.raw.get(f"/automations/v2/runs/{run_id}")).json()["run"]
            if run["status"] == status:
                return run
            assert time.monotonic() < deadline, run["status"]
            await asyncio.sleep(0.02)


@asynccontextmanager
async def tenant(url: str, token: str) -> AsyncIterator[Tenant]:
    headers = {"authorization": f"Bearer {token}"}
    async with (
        TandemClient(url + COMPAT, token) as client,
        httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as raw,
    ):
        yield Tenant(client=client, raw=raw)


@pytest.fixture
async def ours(served: Served) -> AsyncIterator[Tenant]:
    async with tenant(served.url, served.mine) as found:
        yield found


@pytest.fixture
async def other(served: Served) -> AsyncIterator[Tenant]:
    async with tenant(served.url, served.theirs) as found:
        yield found


@pytest.fixture
async def empty(served: Served) -> AsyncIterator[Tenant]:
    async with tenant(served.url, served.empty) as found:
        yield found


class Things(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant has: an automation, a run that waits for a person, a trigger, a delivery."""

    automation_id: str
    run_id: str
    trigger_id: str
    delivery_id: str

    def calls(self, api: Any) -> Sequence[Any]:
        """Return every call of the client on them."""
        automation, run, trigger = self.automation_id, self.run_id, self.trigger_id
        return (
            api.get(automation),
            api.update(automation, {"name": "theirs"}),
            api.run_now(automation),
            api.run_now(automation, dry_run=True),
            api.pause(automation),
            api.resume(automation),
            api.list_runs(automation),
            api.get_run(run),
            api.pause_run(run),
            api.resume_run(run),
            api.cancel_run(run),
            api.recover_run(run),
            api.repair_run(run, {"node_id": "say", "prompt": "theirs"}),
            api.preview_task_reset(run, "say"),
            api.retry_task(run, "say"),
            api.requeue_task(run, "say"),
            api.continue_task(run, "say"),
            api.claim_backlog_task(run, "t1", {"agent_id": "w1"}),
            api.requeue_backlog_task(run, "t1"),
            api.list_webhook_triggers(automation),
            api.create_webhook_trigger(automation, {"provider": "github"}),
            api.get_webhook_trigger(automation, trigger),
            api.update_webhook_trigger(automation, trigger, {"name": "theirs"}),
            api.disable_webhook_trigger(automation, trigger),
            api.rotate_webhook_secret(automation, trigger),
            api.list_webhook_deliveries(automation, trigger),
            api.get_webhook_delivery(automation, trigger, self.delivery_id),
            api.delete_webhook_trigger(automation, trigger),
            api.delete(automation),
        )

    def asked(self) -> Sequence[Asked]:
        """Return what the client has no method for."""
        of_run = f"/automations/v2/runs/{self.run_id}"
        triggers = f"/automations/v2/{self.automation_id}/webhook-triggers"
        delivery = f"{triggers}/{self.trigger_id}/deliveries/{self.delivery_id}"
        return (
            ("POST", f"{of_run}/gate", {"decision": "approve"}),
            ("PATCH", f"{of_run}/tasks/say/disposition", {"disposition": "accepted"}),
            ("GET", f"{of_run}/history", None),
            ("GET", f"{of_run}/webhook-events", None),
            ("GET", f"/run/{self.run_id}/events", None),
            ("POST", f"{delivery}/redeliver", {}),
            ("POST", f"/automations/v2/{self.automation_id}/share", {"visibility": "org"}),
            ("GET", f"/automations/v2/{self.automation_id}/handoffs", None),
        )

    def spelt(self, text: str) -> str:
        """Return an answer about them as it would be about what nobody has."""
        for name in (self.automation_id, self.run_id, self.trigger_id, self.delivery_id):
            text = text.replace(name, "nobodys")
        return text


NOBODYS = Things(
    automation_id="nobodys", run_id="nobodys", trigger_id="nobodys", delivery_id="nobodys"
)


async def things(tenant: Tenant, automation_id: str) -> Things:
    run_id = await tenant.started(automation_id, SAY, GATED)
    await tenant.until(run_id, "awaiting_approval")
    made = await tenant.api.create_webhook_trigger(automation_id, {"provider": "generic"})
    # Its run waits at the gate, too; the delivery has become something when that is known.
    body, now_ms = b'{"issue": 1}', time.time_ns() // 1_000_000
    headers = {
        "content-type": "application/json",
        "x-tandem-webhook-signature": signature_of(made.new_secret, now_ms, body),
    }
    async with httpx.AsyncClient() as http:
        sent = await http.post(made.trigger.callback_url, content=body, headers=headers)
    assert sent.status_code == 202
    trigger_id = made.trigger.trigger_id
    deadline = time.monotonic() + REST_S
    while True:
        listed = await tenant.api.list_webhook_deliveries(automation_id, trigger_id)
        (delivery,) = listed.deliveries
        if delivery.queued_run_id:
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await tenant.until(delivery.queued_run_id, "awaiting_approval")
    return Things(
        automation_id=automation_id,
        run_id=run_id,
        trigger_id=trigger_id,
        delivery_id=delivery.delivery_id,
    )


async def told(tenant: Tenant, found: Things) -> Any:
    """Return all that its own tenant is told of these things."""
    api, trigger_id = tenant.api, found.trigger_id
    records = (
        await api.get(found.automation_id),
        await api.list_runs(found.automation_id),
        await api.get_run(found.run_id),
        await api.get_webhook_trigger(found.automation_id, trigger_id),
        await api.list_webhook_deliveries(found.automation_id, trigger_id),
    )
    history = (await tenant.raw.get(f"/automations/v2/runs/{found.run_id}/history")).json()
    return [record.model_dump() for record in records], history


async def answers(tenant: Tenant, found: Things) -> list[tuple[int, str]]:
    """Return what a tenant is answered about these things."""
    heard = []
    for call in found.calls(tenant.api):
        with pytest.raises(httpx.HTTPStatusError) as error:
            await call
        heard.append(error.value.response)
    for method, path, body in found.asked():
        heard.append(await tenant.raw.request(method, path, json=body))
    return [(one.status_code, found.spelt(one.text)) for one in heard]


async def test_row_51_what_another_tenant_has_is_answered_like_what_nobody_has(
    ours: Tenant, other: Tenant
) -> None:
    mine = await things(ours, "row-51")
    before = await told(ours, mine)
    foreign = await answers(other, mine)
    assert {status for status, _ in foreign} == {404}
    assert foreign == await answers(other, NOBODYS)
    assert await told(ours, mine) == before
    decided = await ours.raw.post(
        f"/automations/v2/runs/{mine.run_id}/gate", json={"decision": "approve"}
    )
    assert decided.status_code == 200
    await ours.until(mine.run_id, "completed")


async def test_row_51_nothing_of_another_tenant_is_listed(ours: Tenant, empty: Tenant) -> None:
    mine = await things(ours, "row-51-lists")
    assert "row-51-lists" in [each.automation_id for each in (await ours.api.list()).automations]
    listed = await empty.api.list()
    assert (listed.count, listed.automations) == (0, [])
    for path, key in (
        ("/automations/v2?view=summary", "automations"),
        ("/automations/v2/runs", "runs"),
        ("/automations/v2/waits", "waits"),
        ("/approvals/pending", "approvals"),
        ("/approvals/pending?org_id=acme&workspace_id=blue", "approvals"),
        ("/automations/v2/webhook-events", "events"),
        (f"/automations/v2/webhook-events?trigger_id={mine.trigger_id}", "events"),
        (f"/runs/{mine.run_id}/events", "events"),
    ):
        answer = await empty.raw.get(path)
        assert (answer.status_code, answer.json()[key]) == (200, []), path
    tokens = (await empty.raw.get("/tokens")).json()["tokens"]
    assert {token["tenant"] for token in tokens} == {"acme/red"}


async def test_row_51_streams_tell_nothing_of_another_tenant(ours: Tenant, other: Tenant) -> None:
    """Events come in the order of commits: what was to be heard came before their own."""
    mine = await things(ours, "row-51-streams")
    streams = [
        other.api.events(),
        other.api.events(automation_id="row-51-streams"),
        other.client.global_stream(),
    ]
    for stream in streams:
        await anext(stream)  # it is open
    run_id = await ours.started("row-51-again", SAY)
    await ours.until(run_id, "completed")
    answer = await ours.raw.post(
        f"/automations/v2/runs/{mine.run_id}/gate", json={"decision": "approve"}
    )
    assert answer.status_code == 200
    await ours.until(mine.run_id, "completed")
    own = await other.started("row-51-streams", SAY)  # an id is of a tenant
    await other.until(own, "completed")
    for stream in streams:
        async for event in stream:
            if event.type.startswith("automation"):
                break
        assert event.properties["runID"] == own
        assert event.properties["tenantContext"]["workspace_id"] == "green"
        await stream.aclose()


@needs_node
async def test_row_51_for_the_typescript_client(
    served: Served, ours: Tenant, other: Tenant
) -> None:
    mine = await things(ours, "row-51-ts")
    before = await told(ours, mine)
    async with open_typescript(served.url, served.theirs) as ts:
        for path, *args in (
            ("get", mine.automation_id),
            ("update", mine.automation_id, {"name": "theirs"}),
            ("runNow", mine.automation_id),
            ("listRuns", mine.automation_id),
            ("getRun", mine.run_id),
            ("cancelRun", mine.run_id),
            ("gateDecide", mine.run_id, {"decision": "approve"}),
            ("setTaskDisposition", mine.run_id, "say", "accepted"),
            ("listHandoffs", mine.automation_id),
            ("listWebhookTriggers", mine.automation_id),
            ("getWebhookTrigger", mine.automation_id, mine.trigger_id),
            ("rotateWebhookSecret", mine.automation_id, mine.trigger_id),
            ("deleteWebhookTrigger", mine.automation_id, mine.trigger_id),
            ("delete", mine.automation_id),
        ):
            with pytest.raises(ClientError, match="404"):
                await ts.call(f"automationsV2.{path}", *args)
        listed = (await ts.call("automationsV2.list"))["automations"]
        assert mine.automation_id not in [each["automation_id"] for each in listed]
        ts.open_stream("automationsV2.events", {}, until="automation.v2.run.completed")
        await ts.call("health")  # answered behind it, so the stream is being opened
        await ours.raw.post(
            f"/automations/v2/runs/{mine.run_id}/gate", json={"decision": "approve"}
        )
        await ours.until(mine.run_id, "completed")
        own = await other.started("row-51-ts", SAY)
        await other.until(own, "completed")
        events = await ts.answer()
    assert {event["properties"]["runID"] for event in events} == {own}
    assert (await told(ours, mine))[0][0] == before[0][0]
