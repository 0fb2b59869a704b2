"""Every code of the table can be met, with its status, in the one shape that all errors have."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec
import pytest

from tandem.adapters.http.errors import KINDS, HttpError, respond
from tandem.adapters.http.local_access import LocalAccess
from tandem.adapters.http.service import HttpLimits
from tandem.domain.errors import (
    ChangeRefused,
    InvalidRequest,
    NotFound,
    Refused,
    StoreError,
    StoreUnavailable,
)
from tandem.domain.outcome import Blocked, Failed, FailureClass
from tandem.domain.redaction import Redactor

from .conftest import GATE, Server, node, open_server, spec

RUNS = "/automations/v2/runs"
BASE = "/automations/v2"
FAILS = Failed(failure_class=FailureClass.EXECUTION_ERROR, message="no")
Meet = Callable[[Server], Awaitable[httpx2.Response]]


def asking(method: str, path: str, **how: Any) -> Meet:
    async def meet(server: Server) -> httpx2.Response:
        return await server.ask(method, path, **how)

    return meet


def creating(**body: Any) -> Meet:
    return asking("POST", BASE, json=spec("x", **body))


def after(
    suffix: str, body: dict[str, Any], *, of: dict[str, Any] | None = None, method: str = "POST"
) -> Meet:
    """Ask something of a run that has come to rest."""

    async def meet(server: Server) -> httpx2.Response:
        run_id = await server.done(of or spec("x"))
        return await server.ask(method, f"{RUNS}/{run_id}{suffix}", json=body)

    return meet


def during(suffix: str, body: dict[str, Any], *, method: str = "POST") -> Meet:
    """Ask something of a run whose node runs."""

    async def meet(server: Server) -> httpx2.Response:
        server.agents.held["n1"] = asyncio.Event()
        run_id = await server.start(spec("x"))
        await server.agents.started.get()
        answer = await server.ask(method, f"{RUNS}/{run_id}{suffix}", json=body)
        server.agents.held["n1"].set()
        await server.rest(run_id)
        return answer

    return meet


def failing(suffix: str, body: dict[str, Any], *, times: int = 1, **node_fields: Any) -> Meet:
    """Ask something, perhaps several times, of a run that failed."""

    async def meet(server: Server) -> httpx2.Response:
        server.agents.outcomes["n1"] = FAILS
        run_id = await server.done(spec("x", node("n1", **node_fields)))
        for _ in range(times):
            answer = await server.ask("POST", f"{RUNS}/{run_id}{suffix}", json=body)
            if answer.status_code != 200:
                break
            await server.rest(run_id)
        return answer

    return meet


def gated(body: dict[str, Any], *, gate: dict[str, Any] | None = None, **more: Any) -> Meet:
    """Decide the gate of a run that waits at it."""

    async def meet(server: Server) -> httpx2.Response:
        asks = node("n1", gate={**GATE, **(gate or {})}, retry_policy=None, **more.pop("node", {}))
        run_id = await server.done(spec("x", asks))
        return await server.ask("POST", f"{RUNS}/{run_id}/gate", json=body, **more)

    return meet


def raising(error: Exception) -> Meet:
    """Meet what cannot be brought about from outside: the store or the engine fails."""

    async def meet(server: Server) -> httpx2.Response:
        service = server.site.service
        broken = msgspec.structs.replace(service, store=_Broken(error))
        server.site.open(broken)
        # What is raised here the route itself would never say.
        server.http.event_hooks = {}
        return await server.ask("GET", f"{BASE}/waits")

    return meet


class _Broken:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def list_waits(self, **_: Any) -> Any:
        raise self._error


async def two_versions(server: Server) -> httpx2.Response:
    await server.post(BASE, spec("x"))
    service = server.site.service

    class Late(type(service.automations("local"))):  # type: ignore[misc, arg-type]
        async def save(self, *given: Any, **how: Any) -> Any:
            raise Refused("somebody else was first", code="automation_version_conflict")

    class Slow(msgspec.Struct):
        automations: Any
        reader: Any
        queries: Any

    late = Late(service.engine)
    slow = Slow(lambda _: late, service.reader, service.queries)
    server.site.open(slow)  # type: ignore[arg-type]
    return await server.ask("PATCH", f"{BASE}/x", json={"name": "y"})


async def blocked_by_another(server: Server) -> httpx2.Response:
    server.agents.outcomes["n1"] = Blocked(kind="semantic_blocked", reason="no data")
    run_id = await server.done(spec("x"))
    return await server.ask("POST", f"{RUNS}/{run_id}/tasks/n2/continue", json={})


async def metadata_of_text(server: Server) -> httpx2.Response:
    await server.post(BASE, spec("x", metadata="text"))
    return await server.ask("POST", f"{BASE}/x/share", json={"visibility": "org"})


async def handed_over_without_a_workspace(server: Server) -> httpx2.Response:
    await server.post(BASE, spec("x"))
    return await server.ask("GET", f"{BASE}/x/handoffs")


async def sharing_with_nobody(server: Server) -> httpx2.Response:
    await server.post(BASE, spec("x"))
    return await server.ask("POST", f"{BASE}/x/share", json={"visibility": "secret"})


async def repairing_what_is_gone(server: Server) -> httpx2.Response:
    run_id = await server.done(spec("x"))
    await server.ask("DELETE", f"{BASE}/x")
    body = {"node_id": "n1", "prompt": "p", "save": True}
    return await server.ask("POST", f"{RUNS}/{run_id}/repair", json=body)


def refusing(code: str) -> Meet:
    """Meet a refusal of the domain that takes time or a race; the domain's tests bring it about."""
    return raising(Refused("no", code=code))


WAITS = {
    "node_id": "w",
    "objective": "wait",
    "wait": {
        "kind": "external_condition",
        "condition_key": {"source": "literal", "value": "k"},
        "timeout": {"expires_after_ms": 60_000},
        "payload_schema": {"type": "object"},
    },
}
COMMAND = {
    "node_id": "n1",
    "action": {"kind": "command", "argv": ["false"]},
    "retry_policy": {"max_attempts": 1},
}


async def wait_reached(server: Server) -> str:
    run_id = await server.start(spec("x", WAITS, agents=[]))
    async with asyncio.timeout(20):
        while not (await server.get(f"{BASE}/waits"))["waits"]:
            await asyncio.sleep(0)
    return run_id


def resolving(**body: Any) -> Meet:
    async def meet(server: Server) -> httpx2.Response:
        run_id = await wait_reached(server)
        answer = await server.ask("POST", f"{RUNS}/{run_id}/waits/w/resolve", json=body)
        await server.post(f"{RUNS}/{run_id}/cancel")
        return answer

    return meet


MEETINGS: dict[str, Meet] = {
    "METHOD_NOT_ALLOWED": asking("PUT", BASE),
    "CONTENT_TYPE_UNSUPPORTED": asking("POST", BASE, content=b"{}"),
    "BODY_NOT_JSON": asking(
        "POST", BASE, content=b"{", headers={"content-type": "application/json"}
    ),
    "BODY_INVALID": asking("POST", BASE, json={"name": 1}),
    "QUERY_INVALID": asking("GET", f"{RUNS}?limit=x"),
    "INVALID_CURSOR": asking("GET", f"{RUNS}?cursor=x"),
    "UNKNOWN_KEYS": asking("POST", f"{BASE}?strict=1", json=spec("x", nope=1)),
    "ORIGIN_DENIED": asking("POST", BASE, json={}, headers={"origin": "https://evil.example"}),
    "AUTOMATION_V2_NOT_FOUND": asking("GET", f"{BASE}/nope"),
    "AUTOMATION_V2_CREATE_FAILED": creating(workspace_root="rel"),
    "AUTOMATION_V2_INVALID_METADATA": creating(metadata="x", capabilities={}),
    "AUTOMATION_V2_SHARE_FAILED": metadata_of_text,
    "AUTOMATION_VERSION_CONFLICT": two_versions,
    "AUTOMATION_V2_RUN_NOT_FOUND": asking("GET", f"{RUNS}/nope"),
    "AUTOMATION_V2_RUN_NOT_PAUSABLE": after("/pause", {}),
    "AUTOMATION_V2_RUN_NOT_PAUSED": after("/resume", {}),
    "AUTOMATION_V2_RUN_NOT_RECOVERABLE": after("/recover", {}),
    "AUTOMATION_V2_RUN_NOT_REPAIRABLE": during("/repair", {"node_id": "n1", "prompt": "p"}),
    "AUTOMATION_V2_REPAIR_NODE_REQUIRED": after("/repair", {"node_id": " "}),
    "AUTOMATION_V2_REPAIR_NODE_NOT_FOUND": after("/repair", {"node_id": "zz"}),
    "AUTOMATION_V2_REPAIR_METADATA_INVALID": after(
        "/repair", {"node_id": "n1", "prompt": "p"}, of=spec("x", node("n1", metadata="text"))
    ),
    "REPAIR_WITHOUT_EFFECT": after(
        "/repair", {"node_id": "n1", "prompt": "p"}, of=spec("x", COMMAND, agents=[])
    ),
    "REPAIR_INVALID": after(
        "/repair",
        {"node_id": "n1", "action": {"kind": "command", "argv": 7}},
        of=spec("x", COMMAND, agents=[]),
    ),
    "INVALID_AUTOMATION": after(
        "/repair",
        {"node_id": "n1", "action": {"kind": "command", "argv": []}},
        of=spec("x", COMMAND, agents=[]),
    ),
    "RUN_NOT_ENDED": during("", {}, method="DELETE"),
    "DEAD_LETTER_NOT_RETRYABLE": after("/redeliver", {}),
    "DEAD_LETTER_NOT_FOUND": failing("/redeliver", {}),
    "AUTOMATION_V2_TASK_NODE_REQUIRED": after("/fork", {"node_id": " "}),
    "AUTOMATION_V2_TASK_NODE_NOT_FOUND": after("/tasks/zz/retry", {}),
    "AUTOMATION_V2_TASK_NODE_OUTPUT_NOT_FOUND": during(
        "/tasks/n2/disposition", {"disposition": "ok"}, method="PATCH"
    ),
    "NO_OUTPUT": during("/tasks/n2/output", {}, method="GET"),
    "AUTOMATION_V2_RUN_TASK_NOT_MUTABLE": during("/tasks/n1/retry", {}),
    "AUTOMATION_V2_RUN_TASK_NOT_CONTINUEABLE": during("/tasks/n1/continue", {}),
    "AUTOMATION_V2_TASK_NOT_BLOCKED": blocked_by_another,
    "AUTOMATION_V2_TASK_DISPOSITION_INVALID": after(
        "/tasks/n1/disposition", {"disposition": "so so"}, method="PATCH"
    ),
    "REASON_REQUIRED": failing("/tasks/n1/skip", {}),
    "AUTOMATION_V2_GATE_REQUIRES_HUMAN": gated(
        {"decision": "approve"}, headers={"x-tandem-agent-id": "bot"}
    ),
    "AUTOMATION_V2_RUN_NOT_AWAITING_APPROVAL": after("/gate", {"decision": "approve"}),
    "AUTOMATION_V2_GATE_INVALID_DECISION": gated({"decision": "maybe"}),
    "AUTOMATION_V2_GATE_NODE_NOT_FOUND": gated({"decision": "approve", "node_id": "zz"}),
    "AUTOMATION_V2_GATE_TRANSITION_GUARD_DENIED": gated(
        {"decision": "approve", "transition_id": "x"}
    ),
    "IDEMPOTENCY_KEY_INVALID": resolving(idempotency_key="k" * 600),
    "PAYLOAD_TOO_LARGE": resolving(payload="x" * 20_000),
    "WAIT_PAYLOAD_INVALID": resolving(payload=1),
    "WAIT_NOT_OPEN": during("/waits/n2/resolve", {}),
    "SIGNAL_INVALID": asking(
        "POST", f"{BASE}/signals", json={"condition_key": " ", "idempotency_key": "k"}
    ),
    "ARTIFACT_NOT_FOUND": after("/artifacts/sha256:0", {}, method="GET"),
    "AUTOMATION_V2_INVALID_VISIBILITY": sharing_with_nobody,
    "AUTOMATION_V2_REPAIR_AGENT_NOT_FOUND": raising(
        NotFound("no agent", code="AUTOMATION_V2_REPAIR_AGENT_NOT_FOUND")
    ),
    "AUTOMATION_V2_REPAIR_PERSIST_FAILED": repairing_what_is_gone,
    "OUTPUT_TOO_LARGE": failing("/tasks/n1/output", {"output": "x" * 200_000, "reason": "r"}),
    "AUTOMATION_V2_GATE_EXPIRED": refusing("AUTOMATION_V2_GATE_EXPIRED"),
    "AUTOMATION_V2_GATE_REVIEWER_AUTHORITY_REQUIRED": refusing(
        "AUTOMATION_V2_GATE_REVIEWER_AUTHORITY_REQUIRED"
    ),
    "AUTOMATION_V2_RUN_FAILURE_CONTEXT_MISSING": refusing(
        "AUTOMATION_V2_RUN_FAILURE_CONTEXT_MISSING"
    ),
    "AUTOMATION_V2_RUN_BLOCKED_CONTEXT_MISSING": refusing(
        "AUTOMATION_V2_RUN_BLOCKED_CONTEXT_MISSING"
    ),
    "RUN_CLEANUP_PENDING": refusing("run_cleanup_pending"),
    "RETRY_EXHAUSTED": refusing("retry_exhausted"),
    "LIMIT_REQUIRED": after("/allow", {"reason": "r"}),
    "LIMIT_INVALID": after("/allow", {"reason": "r", "max_total_tokens": -1}),
    "RUN_BUDGET_EXCEEDED": refusing("run_budget_exceeded"),
    "AUTOMATION_V2_BACKLOG_TASK_REQUIRED": after("/backlog/tasks/%20/claim", {}),
    "AUTOMATION_V2_BACKLOG_TASK_NOT_FOUND": after("/backlog/tasks/zz/claim", {}),
    "AUTOMATION_V2_BACKLOG_TASK_INVALID_TYPE": after("/backlog/tasks/n1/claim", {}),
    "AUTOMATION_V2_BACKLOG_TASK_NOT_CLAIMABLE": refusing(
        "AUTOMATION_V2_BACKLOG_TASK_NOT_CLAIMABLE"
    ),
    "AUTOMATION_V2_BACKLOG_TASK_NOT_REQUEUEABLE": refusing(
        "AUTOMATION_V2_BACKLOG_TASK_NOT_REQUEUEABLE"
    ),
    "AUTOMATION_V2_BACKLOG_TASK_NOT_COMPLETABLE": refusing(
        "AUTOMATION_V2_BACKLOG_TASK_NOT_COMPLETABLE"
    ),
    "HANDOFF_WITHOUT_WORKSPACE": handed_over_without_a_workspace,
    "HANDOFF_FOLDER_INVALID": refusing("handoff_folder_invalid"),
    "TENANT_CONTEXT_DENIED": raising(HttpError("TENANT_CONTEXT_DENIED", "no assertion came")),
    "NOT_FOUND": raising(NotFound("no such thing")),
    "INVALID_REQUEST": raising(InvalidRequest("no")),
    "STORE_UNAVAILABLE": raising(StoreUnavailable("/secret/path")),
    "STORE_ERROR": raising(StoreError("/secret/path")),
    "CHANGE_REFUSED": raising(ChangeRefused("another change was first")),
    "REFUSED": raising(Refused("no")),
    "INTERNAL_ERROR": raising(RuntimeError("/secret/path")),
}
ELSEWHERE = {
    "AUDIT_PERSISTENCE_FAILED": "test_access",
    "RANGE_NOT_THERE": "test_runs",
    "REQUEST_MALFORMED": "test_listener",
    "REQUEST_TOO_SLOW": "test_listener",
    "HEAD_TOO_LARGE": "test_listener",
    "RATE_LIMITED": "test_permissions",
    "TENANT_SCOPE_DENIED": "test_tokens",
    "TOKEN_TOO_WIDE": "test_tokens",
    "TOKEN_NOT_FOUND": "test_tokens",
    "TOKEN_REVOKED": "test_tokens",
    "PREMIUM_FEATURE_REQUIRED": "test_hosted",
    "AUTOMATION_V2_ACCESS_DENIED": "test_hosted",
    "AUTOMATION_WEBHOOK_ACCESS_DENIED": "test_hosted",
    "AUTOMATION_V2_NOT_OWNER": "test_hosted",
    "IDEMPOTENCY_KEY_REUSED": "test_permissions",
    "VALIDATION_FAILED": "test_permissions",
    "AUTH_REQUIRED": "test_guard",
    "LOOPBACK_ONLY": "test_guard",
    "METRICS_DISABLED": "test_operations",
    "AUTOMATION_V2_GATE_SELF_APPROVAL_FORBIDDEN": "test_guard",
    "ENGINE_STARTING": "test_guard",
    "HOST_DENIED": "test_guard",
    "BODY_TOO_LARGE": "test_bodies",
    "SCOPE_DENIED": "test_routes",
    "AUTOMATION_V2_UPDATE_FAILED": "test_automations",
    "AUTOMATION_V2_RUN_CREATE_FAILED": "test_automations",
    "AUTOMATION_WEBHOOK_CREATE_FAILED": "test_webhooks",
    "AUTOMATION_WEBHOOK_UPDATE_FAILED": "test_webhooks",
    "AUTOMATION_WEBHOOK_ROTATE_FAILED": "test_webhooks",
    "AUTOMATION_WEBHOOK_ROTATE_UNSUPPORTED": "test_webhooks",
    "AUTOMATION_WEBHOOK_REVEAL_FAILED": "test_webhooks",
    "AUTOMATION_WEBHOOK_RESET_VERIFICATION_FAILED": "test_webhooks",
    "AUTOMATION_WEBHOOK_SECRET_IMPORT_FAILED": "test_webhooks",
    "AUTOMATION_WEBHOOK_EVENT_STATUS_INVALID": "test_webhooks",
    "AUTOMATION_WEBHOOK_TRIGGER_NOT_FOUND": "test_webhooks",
    "AUTOMATION_WEBHOOK_DELIVERY_NOT_FOUND": "test_webhooks",
    "AUTOMATION_WEBHOOK_EVENT_NOT_FOUND": "test_webhooks",
    "AUTOMATION_WEBHOOK_TOKEN_UNAVAILABLE": "test_webhooks",
    "AUTOMATION_WEBHOOK_TRIGGER_DISABLED": "test_webhooks",
    "AUTOMATION_WEBHOOK_PAYLOAD_UNAVAILABLE": "test_webhooks",
}


@pytest.mark.parametrize("code", sorted(MEETINGS))
async def test_a_code_is_met_with_its_status(code: str, tmp_path: Path) -> None:
    limits = HttpLimits(origins=("http://localhost:3000",))
    async with open_server(tmp_path / "state", drives=True, limits=limits) as server:
        answer = await MEETINGS[code](server)
    body = answer.json()
    kind = KINDS[code]
    assert (body["code"], answer.status_code) == (code, kind.status)
    assert (body["retryable"], body["hint"]) == (kind.is_retryable, kind.do)
    assert body["error"]
    assert "/secret/path" not in answer.text
    assert "Traceback" not in answer.text
    assert len(server.complaints) == (code == "INTERNAL_ERROR")


def test_every_code_is_met_somewhere() -> None:
    assert sorted({*MEETINGS, *ELSEWHERE}) == sorted(KINDS)


async def test_the_wrong_host_and_the_wrong_token_are_told_in_the_same_shape(
    tmp_path: Path,
) -> None:
    async with open_server(tmp_path, access=LocalAccess("secret")) as server:
        body = (await server.ask("GET", BASE)).json()
    assert set(body) == {"error", "code", "retryable", "hint"}


def test_details_stand_beside_the_envelope() -> None:
    body = msgspec.json.decode(respond(Refused("no", details={"a": 1})).body)
    assert (body["a"], body["code"]) == (1, "REFUSED")


CANARY = 'canary/+"ü 7f3a9c'


@pytest.mark.parametrize("is_known", [True, False])
async def test_no_error_sings_a_configured_secret(server: Server, is_known: bool) -> None:
    server.site.redactor = Redactor([CANARY] if is_known else [])
    name = quote(CANARY, safe="")
    answers = [
        await server.ask("GET", f"{BASE}/{name}"),
        await server.ask("PATCH", f"{BASE}/x", json={"name": [CANARY]}),
        await server.ask("POST", BASE, json={**spec("x"), "workspace_root": CANARY}),
        await server.ask("GET", f"{RUNS}?limit={name}"),
        await server.ask("GET", BASE, headers={"origin": "null", "host": "no"}),
    ]
    told = b"".join(answer.content for answer in answers).decode()
    sings = CANARY in told or name in told or msgspec.json.encode(CANARY).decode()[1:-1] in told
    assert sings is not is_known


async def test_an_error_that_is_about_a_secret_still_says_what_to_do(tmp_path: Path) -> None:
    async with open_server(tmp_path, access=LocalAccess("secret")) as server:
        body = (await server.ask("GET", BASE)).json()
        assert body["hint"] == "Send `Authorization: Bearer TOKEN`."
        server.http.headers["authorization"] = "Bearer secret"
        await server.post(BASE, spec("a"))
        body = await server.post(f"{BASE}/a/webhook-triggers", {"provider": "linear"})
        path = f"{BASE}/a/webhook-triggers/{body['trigger']['trigger_id']}/import-secret"
        body = await server.post(path, status=422)
    assert body["error"] == "the body has the wrong shape: `secret`: Field required"


async def test_an_error_tells_no_token_that_was_sent_in_the_wrong_place(server: Server) -> None:
    text = f"tdm_0123456789ab_{'x' * 49}"
    answer = await server.ask("GET", f"{BASE}/{text}")
    assert answer.status_code == 404
    assert text not in answer.text
