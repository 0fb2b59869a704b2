"""Webhooks over HTTP: the rows of the contract, and what strangers try."""

import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tandem.adapters.http.rates import IngressRates
from tandem.adapters.local.vault import FileVault
from tandem.domain.automation import Automation
from tandem.domain.caller import ActorKind, Caller, Scope
from tandem.domain.ids import LOCAL_TENANT, TenantId
from tandem.domain.webhook_signature import signature_of
from tandem.engine.webhooks import WebhookPolicy, Webhooks
from tandem.ports.store import RunFilter
from tests.adapters.http.conftest import Server, open_server

JOB = "/automations/v2/conf-1/webhook-triggers"
JSON = "application/json"


def definition(automation_id: str = "conf-1", **fields: Any) -> Automation:
    node = {"node_id": "n1", "action": {"kind": "command", "argv": ["true"]}}
    return Automation.model_validate(
        {"automation_id": automation_id, "flow": {"nodes": [node]}, **fields}
    )


class Hooked:
    """A server with a webhook trigger, and its sender."""

    def __init__(self, server: Server, made: dict[str, Any]) -> None:
        self.server = server
        self.trigger: dict[str, Any] = made["trigger"]
        self.secret: str = made.get("new_secret", "")
        self.path = f"{JOB}/{self.trigger['trigger_id']}"

    @classmethod
    async def make(cls, server: Server, **fields: Any) -> "Hooked":
        await server.parts.automations.save(definition(), by="ann")
        return cls(server, await server.post(JOB, {"provider": "generic", **fields}))

    def signed(self, body: bytes, *, secret: str = "", ago_ms: int = 0) -> str:
        now_ms = self.server.site.service.clock.now_ms()
        return signature_of(secret or self.secret, now_ms - ago_ms, body)

    async def send(
        self,
        body: bytes = b'{"a": 1}',
        *,
        signature: str | None = None,
        kind: str = JSON,
        path: str = "",
        **headers: str,
    ) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        signature = self.signed(body) if signature is None else signature
        if signature:
            named["x-tandem-webhook-signature"] = signature
        return await self.server.http.post(
            path or self.trigger["callback_path"],
            content=body,
            headers={"content-type": kind, **named},
        )

    async def settle(self) -> None:
        """Let the inbox do what it has to do, as a sweep would."""
        inbox = self.server.parts.engine.inbox
        inbox.is_due = True
        while await inbox.take():
            pass

    async def deliveries(self, query: str = "") -> list[dict[str, Any]]:
        found = await self.server.get(f"{self.path}/deliveries{query}")
        deliveries: list[dict[str, Any]] = found["deliveries"]
        return deliveries

    def runs(self) -> list[Any]:
        return list(self.server.parts.store.list_runs(RunFilter(tenant=LOCAL_TENANT)))


def limit(server: Server, rates: IngressRates) -> None:
    server.site.open(msgspec.structs.replace(server.site.service, ingress_rates=rates))


@pytest.fixture
async def hooked(server: Server) -> Hooked:
    limit(server, IngressRates(network_per_min=0))
    return await Hooked.make(server)


def words(response: httpx2.Response) -> tuple[int, Any]:
    return response.status_code, response.json()


REFUSED = {"ok": False, "status": "rejected"}


async def test_row_40_a_trigger_tells_its_secret_once(server: Server) -> None:
    await server.parts.automations.save(definition(), by="ann")
    body = {"provider": "GitHub.com", "providerEventKind": "Issues.Opened"}
    made = await server.post(JOB, body, headers={"host": "hooks.test:8080"})
    trigger = made["trigger"]
    assert (trigger["provider"], trigger["provider_event_kind"], trigger["signature_scheme"]) == (
        "github",
        "issues.opened",
        "hmac_sha256_v1",
    )
    assert made["new_secret"] == made["newSecret"]
    assert made["new_secret"].startswith("whsec_")
    assert made["secret_one_time"] is made["secretOneTime"] is True
    path = trigger["callback_path"]
    assert trigger["callbackUrl"] == f"http://hooks.test:8080{path}"
    told = await server.get(f"{JOB}/{trigger['trigger_id']}")
    listed = await server.get(JOB)
    assert made["new_secret"] not in json.dumps([told, listed])
    assert (listed["count"], listed["triggers"]) == (1, [told["trigger"]])
    kept = server.parts.settings.store_path.read_bytes()
    assert made["new_secret"].encode() not in kept


async def test_row_41_four_deliveries_make_one_run(hooked: Hooked) -> None:
    one, two = b'{"issue": 1, "token": "t"}', b'{"issue": 2}'
    sent = [(one, "e1"), (one, "e1"), (two, "e1"), (one, "e2")]
    for body, event_id in sent:
        answer = await hooked.send(body, x_event_id=event_id)
        assert words(answer) == (202, {"ok": True, "status": "accepted"})
    await hooked.settle()
    found = await hooked.deliveries()
    (run,) = hooked.runs()
    assert [delivery["status"] for delivery in found] == [
        "duplicate",
        "rejected",
        "duplicate",
        "accepted",
    ]
    assert [delivery["dedupe_result"] for delivery in found] == [
        "duplicate",
        "conflict",
        "duplicate",
        "accepted",
    ]
    assert found[1]["rejection_reason_code"] == "idempotency_conflict"
    assert found[0]["duplicate_of_run_id"] == found[3]["queued_run_id"] == run.run_id
    assert found[3]["queuedRunPath"] == f"/automations/v2/runs/{run.run_id}"
    recorded = (await hooked.server.get("/audit"))["records"]
    by_id = {f"audit-{each['audit_no']}": each for each in recorded}
    assert by_id[found[3]["audit_event_id"]]["event"] == "webhook_delivery_accepted"
    assert by_id[found[1]["auditEventID"]]["event"] == "webhook_delivery_rejected"
    assert found[0]["audit_event_id"] is None
    assert found[3]["sanitized_preview"] == {"issue": 1, "token": "[redacted]"}
    assert (run.trigger_type, run.trigger_reason) == (
        "webhook",
        f"generic webhook delivery {found[3]['delivery_id']}",
    )
    told = run.trigger_context["automation_webhook"]
    assert told["trust"] == "untrusted_external_webhook"
    events = await hooked.server.get(f"/run/{run.run_id}/events")
    assert [event["type"] for event in events[:2]] == [
        "automation.v2.run.created",
        "automation.v2.webhook.delivery",
    ]
    for event in events[:2]:
        properties = event["properties"]
        assert properties["deliveryID"] == found[3]["delivery_id"]
        assert properties["triggerID"] == hooked.trigger["trigger_id"]
        assert (properties["provider"], properties["triggerType"]) == ("generic", "webhook")
        assert (event["runID"], properties["dryRun"]) == (run.run_id, False)
    assert "issue" not in str(events)
    counts = (await hooked.server.get(hooked.path))["trigger"]["delivery_counts"]
    assert counts == {
        "total": 4,
        "received": 0,
        "accepted": 1,
        "rejected": 1,
        "duplicate": 2,
        "suppressed": 0,
        "disabled": 0,
        "failed": 0,
    }


async def test_row_42_whoever_is_not_believed_hears_the_same(hooked: Hooked) -> None:
    body = b'{"a": 1}'
    unknown = "/webhooks/automations/whpub_00000000000000000000000000000000"
    answers = [
        await hooked.send(body, signature=""),
        await hooked.send(body, signature="t=1,v1=zz"),
        await hooked.send(body, signature=hooked.signed(body, ago_ms=360_000)),
        await hooked.send(body, signature=hooked.signed(body, secret="other")),
        await hooked.send(body, path=unknown),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    # Each answer has an id of its own; nothing else may differ.
    shown = [
        {name: value for name, value in answer.headers.items() if name != "x-request-id"}
        for answer in answers
    ]
    assert all(headers == shown[0] for headers in shown)
    assert answers[0].json() == REFUSED
    found = await hooked.deliveries()
    assert [delivery["rejection_reason_code"] for delivery in reversed(found)] == [
        "missing_signature",
        "malformed_signature",
        "stale_signature_timestamp",
        "bad_signature",
    ]
    await hooked.settle()
    assert hooked.runs() == []


async def test_row_43_what_is_asked_too_much_or_wrongly_is_refused(hooked: Hooked) -> None:
    assert words(await hooked.send(kind="text/plain")) == (415, REFUSED)
    assert words(await hooked.send(b'"' + b"x" * 300 * 1024 + b'"')) == (413, REFUSED)
    assert (await hooked.send(kind="application/json; charset=utf-8")).status_code == 202
    limit(hooked.server, IngressRates())
    answers = [await hooked.send(signature="") for _ in range(31)]
    assert {answer.status_code for answer in answers[:30]} == {401}
    assert words(answers[30]) == (429, {"ok": False, "status": "throttled"})
    assert 1 <= int(answers[30].headers["retry-after"]) <= 60


async def test_row_44_a_rotated_secret_is_dead_at_once(hooked: Hooked) -> None:
    former = hooked.secret
    rotated = await hooked.server.post(f"{hooked.path}/rotate-secret")
    body = b"[1]"
    old = await hooked.send(body, signature=hooked.signed(body, secret=former))
    new = await hooked.send(body, signature=hooked.signed(body, secret=rotated["new_secret"]))
    assert (old.status_code, new.status_code) == (401, 202)
    status = rotated["trigger"]["secret_status"]
    assert status["secret_version"] == 2
    assert status["rotated_at_ms"] is not None


async def test_two_secrets_are_valid_while_an_overlap_was_asked_for(hooked: Hooked) -> None:
    former = hooked.secret
    rotated = await hooked.server.post(f"{hooked.path}/rotate-secret", {"overlap_seconds": 60})
    for number, secret in enumerate((former, rotated["new_secret"])):
        body = b"[%d]" % number
        signature = hooked.signed(body, secret=secret)
        assert (await hooked.send(body, signature=signature)).status_code == 202
    again = await hooked.server.post(f"{hooked.path}/rotate-secret", {"overlapSeconds": 60})
    body = b"[3]"
    signature = hooked.signed(body, secret=former)
    assert (await hooked.send(body, signature=signature)).status_code == 401
    assert again["trigger"]["secret_status"]["secretVersion"] == 3
    wrong = await hooked.server.post(
        f"{hooked.path}/rotate-secret", {"overlap_seconds": -1}, status=400
    )
    assert wrong["code"] == "AUTOMATION_WEBHOOK_ROTATE_FAILED"


async def test_row_45_a_disabled_trigger_is_gone(hooked: Hooked) -> None:
    for _ in range(2):
        told = await hooked.server.post(f"{hooked.path}/disable")
        assert (told["ok"], told["trigger"]["enabled"]) == (True, False)
    assert words(await hooked.send()) == (410, REFUSED)
    (delivery,) = await hooked.deliveries()
    assert (delivery["status"], delivery["rejection_reason_code"]) == (
        "disabled",
        "trigger_disabled",
    )


async def test_row_46_a_trigger_is_changed(hooked: Hooked) -> None:
    await hooked.server.post(f"{hooked.path}/disable")
    changed = await hooked.server.ask("PATCH", hooked.path, json={"enabled": True, "name": "x"})
    trigger = changed.json()["trigger"]
    assert (trigger["enabled"], trigger["name"]) == (True, "x")
    blank = await hooked.server.ask("PATCH", hooked.path, json={"name": " "})
    assert blank.status_code == 400
    assert blank.json()["code"] == "AUTOMATION_WEBHOOK_UPDATE_FAILED"
    wrong = await hooked.server.post(JOB, {"provider": "x", "default_data_class": "y"}, status=400)
    assert wrong["code"] == "AUTOMATION_WEBHOOK_CREATE_FAILED"
    assert (await hooked.server.post(JOB, {}, status=422))["code"] == "BODY_INVALID"


async def test_row_47_deliveries_are_listed_newest_first(hooked: Hooked) -> None:
    for number in range(3):
        await hooked.send(b"[%d]" % number)
    found = await hooked.server.get(f"{hooked.path}/deliveries?limit=2")
    assert (found["count"], found["limit"]) == (2, 2)
    assert [one["sanitized_preview"] for one in found["deliveries"]] == [[2], [1]]
    newest = found["deliveries"][0]
    one = await hooked.server.get(f"{hooked.path}/deliveries/{newest['delivery_id']}")
    assert one["delivery"] == newest
    assert (await hooked.server.get(f"{hooked.path}/deliveries?limit=1000"))["limit"] == 100
    missing = await hooked.server.ask("GET", f"{hooked.path}/deliveries/zz")
    assert missing.status_code == 404
    assert missing.json()["code"] == "AUTOMATION_WEBHOOK_DELIVERY_NOT_FOUND"


async def test_row_48_a_trigger_belongs_to_its_automation(hooked: Hooked) -> None:
    await hooked.server.parts.automations.save(definition("other"), by="ann")
    name = hooked.trigger["trigger_id"]
    base = f"/automations/v2/other/webhook-triggers/{name}"
    for method, path in (
        ("GET", base),
        ("PATCH", base),
        ("DELETE", base),
        ("POST", f"{base}/disable"),
        ("POST", f"{base}/rotate-secret"),
        ("GET", f"{base}/deliveries"),
    ):
        answer = await hooked.server.ask(method, path, json={})
        assert answer.status_code == 404, path
        assert answer.json()["code"] == "AUTOMATION_WEBHOOK_TRIGGER_NOT_FOUND"
    missing = await hooked.server.ask("GET", "/automations/v2/none/webhook-triggers")
    assert missing.json()["code"] == "AUTOMATION_V2_NOT_FOUND"


async def test_row_49_a_trigger_is_deleted_once(hooked: Hooked) -> None:
    first = await hooked.server.ask("DELETE", hooked.path)
    name = hooked.trigger["trigger_id"]
    assert first.json() == {"ok": True, "deleted": True, "trigger_id": name, "triggerID": name}
    assert (await hooked.server.ask("DELETE", hooked.path)).status_code == 404
    assert (await hooked.send()).status_code == 401


class Tenants:
    """Says who asks by a header, as the tests need it."""

    async def caller_of(self, headers: Any, peer: str) -> Caller:
        tenant = TenantId(headers.get("x-test-tenant", "acme/blue"))
        scope = Scope(headers.get("x-test-scope", "admin"))
        return Caller(tenant=tenant, kind=ActorKind.HUMAN, scopes=frozenset({scope}))


async def test_row_51_another_tenant_sees_nothing(tmp_path: Path) -> None:
    async with open_server(tmp_path / "state", access=Tenants()) as server:
        tenant = TenantId("acme/blue")
        automations = server.site.service.automations(tenant)
        await automations.save(definition(), by="ann")
        hook = Hooked(server, await server.post(JOB, {"provider": "generic"}))
        assert (await hook.send()).status_code == 202
        (mine,) = await hook.deliveries()
        event = (await server.get("/automations/v2/webhook-events"))["events"][0]
        other = {"x-test-tenant": "evil/blue"}
        await server.site.service.automations(TenantId("evil/blue")).save(definition(), by="eve")
        name = mine["delivery_id"]
        for method, path in (
            ("GET", hook.path),
            ("PATCH", hook.path),
            ("DELETE", hook.path),
            ("POST", f"{hook.path}/disable"),
            ("POST", f"{hook.path}/rotate-secret"),
            ("POST", f"{hook.path}/reveal-verification-token"),
            ("GET", f"{hook.path}/deliveries"),
            ("GET", f"{hook.path}/deliveries/{name}"),
            ("POST", f"{hook.path}/deliveries/{name}/redeliver"),
            ("GET", f"/automations/v2/webhook-events/{event['event_id']}"),
        ):
            answer = await server.ask(method, path, json={}, headers=other)
            assert answer.status_code == 404, path
        assert (await server.get(JOB, headers=other))["count"] == 0
        nothing = await server.get("/automations/v2/webhook-events", headers=other)
        assert nothing["events"] == []
        by_name = f"/automations/v2/webhook-events?trigger_id={hook.trigger['trigger_id']}"
        assert (await server.get(by_name, headers=other))["events"] == []
        assert (await server.get(hook.path))["trigger"]["enabled"] is True


async def test_raw_events_tell_what_came_and_the_payload_to_editors_only(tmp_path: Path) -> None:
    async with open_server(tmp_path / "state", access=Tenants()) as server:
        await server.site.service.automations(TenantId("acme/blue")).save(definition(), by="ann")
        hook = Hooked(server, await server.post(JOB, {"provider": "generic"}))
        await hook.send(b'{"token": "t"}', authorization="Bearer x")
        await hook.settle()
        base = "/automations/v2/webhook-events"
        (event,) = (await server.get(f"{base}?automationID=conf-1&status=accepted"))["events"]
        assert event["headers_redacted"]["authorization"] == "[redacted]"
        assert "[redacted]" in event["headers_redacted"]["x-tandem-webhook-signature"]
        assert (event["payload"], event["payload_available"]) == (None, True)
        path = f"{base}/{event['event_id']}"
        whole = await server.get(f"{path}?include_payload=true")
        assert whole["event"]["payload"] == {"token": "t"}
        viewer = {"x-test-scope": "viewer"}
        hidden = await server.ask("GET", f"{path}?includePayload=1", headers=viewer)
        assert hidden.status_code == 403
        assert (await server.get(path, headers=viewer))["event"]["payload"] is None
        of_run = f"/automations/v2/runs/{event['queued_run_id']}/webhook-events"
        assert (await server.get(of_run))["events"] == [event]
        wrong = await server.ask("GET", f"{base}?status=done")
        assert wrong.json()["code"] == "AUTOMATION_WEBHOOK_EVENT_STATUS_INVALID"
        missing = await server.ask("GET", f"{base}/zz")
        assert missing.json()["code"] == "AUTOMATION_WEBHOOK_EVENT_NOT_FOUND"
        assert (
            await server.ask("GET", "/automations/v2/runs/zz/webhook-events")
        ).status_code == 404


async def test_a_delivery_is_sent_through_again_as_another_one(hooked: Hooked) -> None:
    await hooked.send(b'{"a": 1}', x_event_id="e1")
    await hooked.settle()
    (first,) = await hooked.deliveries()
    path = f"{hooked.path}/deliveries/{first['delivery_id']}/redeliver"
    again = (await hooked.server.post(path))["delivery"]
    await hooked.settle()
    assert again["redelivery_of_delivery_id"] == first["delivery_id"]
    newest, oldest = await hooked.deliveries()
    assert (newest["status"], oldest) == ("accepted", first)
    assert newest["queued_run_id"] != first["queued_run_id"]
    assert len(hooked.runs()) == 2


async def test_what_was_not_believed_is_not_sent_through_again(hooked: Hooked) -> None:
    await hooked.send(signature="")
    (first,) = await hooked.deliveries()
    path = f"{hooked.path}/deliveries/{first['delivery_id']}/redeliver"
    refused = await hooked.server.post(path, status=409)
    assert refused["code"] == "AUTOMATION_WEBHOOK_PAYLOAD_UNAVAILABLE"
    await hooked.server.post(f"{hooked.path}/disable")
    refused = await hooked.server.post(path, status=409)
    assert refused["code"] == "AUTOMATION_WEBHOOK_TRIGGER_DISABLED"


@pytest.mark.parametrize("body", [b"", b"{", b"\x00", b'"\xff"', b"[" * 50_000, b"NaN"])
async def test_what_is_authentic_and_no_json_is_noted(hooked: Hooked, body: bytes) -> None:
    assert words(await hooked.send(body)) == (400, REFUSED)
    (delivery,) = await hooked.deliveries()
    assert (delivery["status"], delivery["rejection_reason_code"]) == ("rejected", "invalid_json")


async def test_hostile_headers_break_nothing(hooked: Hooked) -> None:
    long = await hooked.send(signature="t=" + "9" * 60_000)
    assert long.status_code == 401
    latin = await hooked.server.http.post(
        hooked.trigger["callback_path"],
        content=b"{}",
        headers=[
            (b"content-type", b"application/json"),
            (b"x-tandem-webhook-signature", b"t=\xff,v1=\xfe"),
            (b"x-event-id", b"\xff\xfe"),
        ],
    )
    assert words(latin) == (401, REFUSED)
    body = b"{}"
    good = hooked.signed(body)
    twice = await hooked.server.http.post(
        hooked.trigger["callback_path"],
        content=body,
        headers=[
            ("content-type", JSON),
            ("x-tandem-webhook-signature", good),
            ("x-tandem-webhook-signature", good),
        ],
    )
    assert twice.status_code == 401
    assert hooked.server.complaints == []


async def test_a_body_whose_length_is_a_lie_is_cut_off(hooked: Hooked) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 10_000

    answer = await hooked.server.http.post(
        hooked.trigger["callback_path"], content=parts(), headers={"content-type": JSON}
    )
    assert words(answer) == (413, REFUSED)
    unknown = await hooked.send(b"x" * 40_000, path="/webhooks/automations/whpub_x")
    assert unknown.status_code == 413


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ({"host": "a.test"}, "http://a.test"),
        ({"x-forwarded-host": "b.test", "x-forwarded-proto": "https"}, "https://b.test"),
        ({"host": "a.test", "x-forwarded-prefix": "/api/engine"}, "http://a.test/api/engine"),
        ({"host": "a.test", "x-forwarded-prefix": "/evil"}, "http://a.test"),
        ({"host": "a.test", "x-forwarded-proto": "javascript"}, "http://a.test"),
        ({"x-forwarded-host": 'a"><script>'}, ""),
    ],
)
async def test_the_callback_is_told_as_a_proxy_forwards_it(
    hooked: Hooked, headers: dict[str, str], url: str
) -> None:
    found = await hooked.server.get(hooked.path, headers=headers)
    assert found["trigger"]["callback_url"] == f"{url}{hooked.trigger['callback_path']}"


async def test_deliveries_come_in_under_the_prefix_of_a_proxy_too(hooked: Hooked) -> None:
    path = f"/api/engine{hooked.trigger['callback_path']}"
    assert (await hooked.send(path=path)).status_code == 202


async def test_a_delivery_that_this_engine_caused_starts_nothing(hooked: Hooked) -> None:
    answer = await hooked.send(x_tandem_origin_run_id="automation-v2-run-1")
    assert answer.status_code == 202
    await hooked.settle()
    (delivery,) = await hooked.deliveries()
    assert (delivery["status"], delivery["dedupe_result"]) == (
        "suppressed",
        "ignored_feedback_loop",
    )
    body = b'{"tandem_origin": {"run_id": "r"}}'
    now_ms = hooked.server.site.service.clock.now_ms()
    allowed = signature_of(hooked.secret, now_ms, body, self_feedback="true")
    await hooked.send(body, signature=allowed, x_tandem_allow_self_feedback="true")
    await hooked.settle()
    assert len(hooked.runs()) == 1


async def test_the_secret_of_linear_comes_from_linear(server: Server) -> None:
    hook = await Hooked.make(server, provider="linear")
    path = hook.path
    made = await server.post(JOB, {"provider": "linear"})
    assert made["secret_one_time"] is False
    assert made["verificationPending"] is True
    body = b'{"a": 1}'
    assert (await hook.send(body, signature="")).status_code == 401
    taken = await server.post(f"{path}/import-secret", {"secret": " lin_1 "})
    assert taken["trigger"]["verification_status"] == "verified"
    signature = hmac.new(b"lin_1", body, "sha256").hexdigest()
    answer = await hook.send(body, signature="", linear_signature=signature)
    assert answer.status_code == 202
    refused = await server.post(f"{path}/rotate-secret", status=400)
    assert refused["code"] == "AUTOMATION_WEBHOOK_ROTATE_UNSUPPORTED"
    blank = await server.post(f"{path}/import-secret", {"secret": " "}, status=400)
    assert blank["code"] == "AUTOMATION_WEBHOOK_SECRET_IMPORT_FAILED"
    wrong = await server.post(f"{path}/reveal-verification-token", status=400)
    assert wrong["code"] == "AUTOMATION_WEBHOOK_REVEAL_FAILED"
    wrong = await server.post(f"{path}/reset-verification", status=400)
    assert wrong["code"] == "AUTOMATION_WEBHOOK_RESET_VERIFICATION_FAILED"


async def test_notion_hands_over_its_token_at_a_secret_address(server: Server) -> None:
    await server.parts.automations.save(definition(), by="ann")
    made = await server.post(JOB, {"provider": "notion"})
    hook = Hooked(server, made)
    setup = made["setup_callback_path"]
    token = b'{"verification_token": "secret_1"}'
    early = await server.post(f"{hook.path}/reveal-verification-token", status=409)
    assert early["code"] == "AUTOMATION_WEBHOOK_TOKEN_UNAVAILABLE"
    wrong = await hook.send(token, signature="", path=f"{setup[:-1]}0x")
    assert words(wrong) == (401, REFUSED)
    taken = await hook.send(token, signature="", path=setup)
    assert words(taken) == (200, {"ok": True, "status": "verification_pending"})
    assert (await hook.send(token, signature="", path=setup)).status_code == 401
    shown = await server.post(f"{hook.path}/reveal-verification-token")
    assert shown["verification_token"] == shown["verificationToken"] == "secret_1"
    again = await server.post(f"{hook.path}/reveal-verification-token", status=409)
    assert again["code"] == "AUTOMATION_WEBHOOK_TOKEN_UNAVAILABLE"
    body = b"[1]"
    signature = "sha256=" + hmac.new(b"secret_1", body, "sha256").hexdigest()
    answer = await hook.send(body, signature="", x_notion_signature=signature)
    assert answer.status_code == 202
    reset = await server.post(f"{hook.path}/reset-verification")
    assert reset["setupOneTime"] is True
    answer = await hook.send(b"[2]", signature="", x_notion_signature=signature)
    assert answer.status_code == 401
    assert hook.runs() == []


async def test_a_trigger_without_a_signature_needs_the_switch(server: Server) -> None:
    await server.parts.automations.save(definition(), by="ann")
    body = {"provider": "generic", "signature_scheme": "unsigned_dev_mode"}
    refused = await server.post(JOB, body, status=400)
    assert refused["code"] == "AUTOMATION_WEBHOOK_CREATE_FAILED"
    service = server.site.service
    loose = Webhooks(
        service.engine,
        FileVault(server.parts.settings.state_dir),
        clock=service.clock,
        ids=service.ids,
        policy=WebhookPolicy(unsigned_allowed=True),
    )
    server.site.open(msgspec.structs.replace(service, webhooks=loose))
    hook = Hooked(server, await server.post(JOB, body))
    assert (await hook.send(signature="")).status_code == 202
    server.site.open(service)
    assert (await hook.send(b"[2]", signature="")).status_code == 401
    newest, _ = await hook.deliveries()
    assert newest["verification_reason_code"] == "unsigned_dev_mode_disabled"
