"""Who may do what over HTTP: scopes, people at gates, keys of requests, rates."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tandem.adapters.http.allowances import Allowances
from tandem.domain.caller import ActorKind, Scope
from tandem.domain.ids import LOCAL_TENANT
from tandem.serving import access_of
from tests.adapters.http.conftest import Server, open_server

GATED = {
    "automation_id": "gated",
    "name": "gated",
    "status": "active",
    "schedule": {"type": "manual"},
    "flow": {"nodes": [{"node_id": "ask", "gate": {"required": True}}]},
}
PLAIN = {
    "automation_id": "plain",
    "name": "plain",
    "status": "active",
    "schedule": {"type": "manual"},
    "flow": {"nodes": [{"node_id": "a", "action": {"kind": "command", "argv": ["true"]}}]},
}
WAIT_S = 20


class Guarded:
    """A server whose callers need tokens."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.names: dict[str, str] = {}

    async def token(self, actor: str, *scopes: Scope, kind: ActorKind = ActorKind.HUMAN) -> None:
        _, text = await self.server.parts.tokens.create(
            tenant=LOCAL_TENANT, name=actor, scopes=scopes, actor_id=actor, kind=kind
        )
        self.names[actor] = text

    async def post(
        self, actor: str, path: str, body: dict[str, Any] | None = None, **headers: str
    ) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.server.http.post(
            path, json=body or {}, headers={"authorization": f"Bearer {self.names[actor]}"} | named
        )

    async def gate(self, actor: str, run_id: str, **headers: str) -> Any:
        body = {"decision": "approve"}
        return await self.post(actor, f"/automations/v2/runs/{run_id}/gate", body, **headers)

    async def run_now(self, actor: str, automation: str, **headers: str) -> Any:
        return await self.post(actor, f"/automations/v2/{automation}/run_now", **headers)

    async def waiting(self, actor: str) -> str:
        """Start a run and return its id when it waits at its gate."""
        run_id = str((await self.run_now(actor, "gated")).json()["run"]["run_id"])
        await self.server.parts.waiters.wait(
            run_id,  # type: ignore[arg-type] # a test names it
            until=lambda run: run.status.value == "awaiting_approval",
            tenant=LOCAL_TENANT,
        )
        return run_id

    def run_count(self) -> int:
        from tandem.ports.store import RunFilter

        return len(self.server.parts.store.list_runs(RunFilter(tenant=LOCAL_TENANT)))


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with open_server(tmp_path / "state", drives=True) as server:
        server.site.access = access_of(server.parts)
        made = Guarded(server)
        await made.token("ed", Scope.EDITOR)
        await made.token("ann", Scope.OPERATOR, Scope.APPROVER)
        await made.token("bob", Scope.APPROVER)
        await made.token("scout", Scope.ADMIN, kind=ActorKind.AGENT)
        for document in (GATED, PLAIN):
            answer = await made.post("ed", "/automations/v2", document)
            assert answer.status_code == 200, answer.text
        async with asyncio.timeout(WAIT_S):
            yield made


async def test_a_scope_that_is_missing_is_403(guarded: Guarded) -> None:
    answer = await guarded.run_now("bob", "plain")
    assert (answer.status_code, answer.json()["code"]) == (403, "SCOPE_DENIED")
    assert guarded.run_count() == 0


async def test_an_unknown_token_is_401(guarded: Guarded) -> None:
    guarded.names["eve"] = "tdm_0"
    answer = await guarded.run_now("eve", "plain")
    assert (answer.status_code, answer.json()["code"]) == (401, "AUTH_REQUIRED")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_plain_token_may_change_an_automation(guarded: Guarded) -> None:
    answer = await guarded.server.http.patch(
        "/automations/v2/plain",
        json={"name": "other"},
        headers={"authorization": f"Bearer {guarded.names['ed']}"},
    )
    assert answer.status_code == 200, answer.text


async def test_agents_decide_no_gate_whatever_their_scopes_are(guarded: Guarded) -> None:
    run_id = await guarded.waiting("ann")
    for actor, headers in (("scout", {}), ("bob", {"x_tandem_agent_id": "helper"})):
        answer = await guarded.gate(actor, run_id, **headers)
        assert answer.status_code == 403
        assert answer.json()["code"] == "AUTOMATION_V2_GATE_REQUIRES_HUMAN"
    answer = await guarded.gate("ed", run_id)
    assert (answer.status_code, answer.json()["code"]) == (403, "SCOPE_DENIED")


async def test_runs_and_decisions_name_who_asked(guarded: Guarded) -> None:
    run_id = await guarded.waiting("ann")
    assert (await guarded.gate("bob", run_id)).status_code == 200
    store = guarded.server.parts.store
    (gate,) = store.list_gates_of_run(run_id, tenant=LOCAL_TENANT)  # type: ignore[arg-type]
    assert (gate.requested_by, gate.decided_by) == ("ann", "bob")


async def test_the_same_key_starts_one_run(guarded: Guarded) -> None:
    answers = await asyncio.gather(
        *(guarded.run_now("ann", "plain", idempotency_key="k") for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["run"]["run_id"] for answer in answers}) == 1
    assert guarded.run_count() == 1

    other = await guarded.post(
        "ann", "/automations/v2/plain/run_now", {"dry_run": True}, idempotency_key="k"
    )
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    long = await guarded.run_now("ann", "plain", idempotency_key="x" * 300)
    assert (long.status_code, long.json()["code"]) == (400, "VALIDATION_FAILED")


async def test_the_same_decision_with_the_same_key_is_answered_again(guarded: Guarded) -> None:
    run_id = await guarded.waiting("ann")
    for _ in range(2):
        answer = await guarded.gate("bob", run_id, idempotency_key="k")
        assert answer.status_code == 200, answer.text
        assert answer.json()["run"]["run_id"] == run_id
    answer = await guarded.gate("bob", run_id)
    assert answer.status_code == 409


async def test_runs_beyond_the_rate_are_429_and_say_when_to_come_again(guarded: Guarded) -> None:
    guarded.server.site.allowances = Allowances(run_creations_per_min=2)
    for _ in range(2):
        assert (await guarded.run_now("ann", "plain")).status_code == 200
    answer = await guarded.run_now("ann", "plain")
    assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED")
    assert answer.json()["retryable"]
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert guarded.run_count() == 2


async def test_the_same_key_makes_one_fork(guarded: Guarded) -> None:
    source = str((await guarded.run_now("ann", "plain")).json()["run"]["run_id"])
    path = f"/automations/v2/runs/{source}/fork"
    answers = await asyncio.gather(
        *(guarded.post("ann", path, {"node_id": "a"}, idempotency_key="k") for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {200}
    (fork,) = {answer.json()["run"]["run_id"] for answer in answers}
    assert guarded.run_count() == 2
    other = await guarded.post(
        "ann", path, {"node_id": "a", "ask_again": True}, idempotency_key="k"
    )
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    again = f"/automations/v2/runs/{fork}/fork"
    made = await guarded.post("ann", again, {"node_id": "a"}, idempotency_key="k")
    assert made.json()["run"]["run_id"] not in {source, fork}
