"""The desk over a server, by its HTTP interface."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import click
import msgspec

from tandem.adapters.cli import remote_watch
from tandem.adapters.cli.hook_desk import RemoteHooks
from tandem.adapters.cli.references import choose_run_id, names_of
from tandem.adapters.cli.story import Story, story_of_rows
from tandem.adapters.cli.tools import Server
from tandem.adapters.cli.wire import event_of, gate_of, part, read, run_of, stored_of, token_of
from tandem.domain import command as commands
from tandem.domain.automation import Automation, canonical_document, parse_document
from tandem.domain.caller import ActorKind, Scope
from tandem.domain.command import Command, DecideGate, ResolveWait
from tandem.domain.decision import decide
from tandem.domain.errors import EngineError, NotFound, NothingToDo, Problem, Refused, StoreError
from tandem.domain.execution import ExecutionProfile
from tandem.domain.firing import Firing
from tandem.domain.ids import ChangeId, NodeId, RunId, TenantId
from tandem.domain.json import JsonValue, decode, encode
from tandem.domain.outline import OutlinedNode
from tandem.domain.preview import ResetPreview
from tandem.domain.run import Gate, LifecycleEvent, Run, Wait
from tandem.domain.standing import Reason
from tandem.domain.stored_automation import AutomationRecord, StoredAutomation
from tandem.domain.token import Token
from tandem.domain.view import RunView
from tandem.engine.bulk import BulkResult
from tandem.engine.dry_run import DryRun
from tandem.engine.run_rows import RunRows
from tandem.engine.verification import Verification
from tandem.ports.store import OpenGate, OpenWait, RunFilter

BASE: Final = "/automations/v2"
PAGE: Final = 200
PAGES_MAX: Final = 500
EVENTS_MAX: Final = 1_000
GATES_MAX: Final = 500
LOOK_S: Final = 0.5
CLEANUP_WAIT_S: Final = 60
_WHOLE_ID: Final = len("automation-v2-run-") + 32

_RUN_COMMANDS: Final[Mapping[type, str]] = {
    commands.Pause: "pause",
    commands.Resume: "resume",
    commands.Cancel: "cancel",
    commands.Recover: "recover",
    commands.Redeliver: "redeliver",
}
_NODE_COMMANDS: Final[Mapping[type, str]] = {
    commands.RetryNode: "retry",
    commands.ContinueNode: "continue",
    commands.Skip: "skip",
}


_LIMITS: Final = (
    "max_total_tokens",
    "max_total_cost_usd",
    "max_total_tool_calls",
    "max_total_runtime_ms",
)


def _step(text: str) -> str:
    return quote(text, safe="")


def run_path(run_id: RunId, *steps: str) -> str:
    """Return the path of a run, or of something of it."""
    return "/".join((f"{BASE}/runs/{_step(run_id)}", *map(_step, steps)))


def _automation_path(automation_id: str, *steps: str) -> str:
    return "/".join((f"{BASE}/{_step(automation_id)}", *map(_step, steps)))


class RemoteDesk:
    """See `Desk`. Who asks is known to the server by the token."""

    is_remote = True

    def __init__(self, server: Server, *, beside: str) -> None:
        self._server = server
        self.beside = beside

    async def _get(self, path: str, **query: Any) -> Any:
        return await self._server.ask("GET", path, query=query)

    # Runs

    async def find_run_id(self, name: str) -> RunId:
        """See `Desk.find_run_id`."""
        if name == "latest":
            newest = part(await self._get(f"{BASE}/runs", limit=1), "runs")
            if not newest:
                raise NotFound("there is no run yet; start one with `tandem automations run ID`")
            return RunId(newest[0]["run_id"])
        if len(name) >= _WHOLE_ID:
            return RunId(name)  # what is asked of it will say whether it is there
        found: list[RunId] = []
        beginnings = names_of(name)
        async for page in self._pages(q=name):
            ids = [RunId(record["run_id"]) for record in page]
            found += [run_id for run_id in ids if name and run_id.startswith(beginnings)]
            if len(found) > 1:
                break
        return choose_run_id(name, found)

    async def _pages(self, **query: Any) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        cursor = None
        for _ in range(PAGES_MAX):
            answer = await self._get(f"{BASE}/runs", limit=PAGE, cursor=cursor, **query)
            yield part(answer, "runs")
            cursor = part(answer, "cursor")
            if cursor is None:
                return

    async def find_run(self, run_id: RunId) -> Run | None:
        """See `Desk.find_run`."""
        try:
            return run_of(part(await self._get(run_path(run_id), view="summary"), "run"))
        except NotFound:
            return None

    async def list_runs(self, chosen: RunFilter) -> Sequence[Run]:
        """See `Desk.list_runs`."""
        found: list[Run] = []
        async for page in self._pages(**_query_of(chosen)):
            found += map(run_of, page)
            if len(found) >= chosen.limit:
                break
        return found[: chosen.limit]

    async def _rows(self, run_id: RunId) -> RunRows:
        return read(part(await self._get(run_path(run_id, "rows")), "rows"), RunRows)

    async def story(self, run_id: RunId) -> Story:
        """See `Desk.story`."""
        return story_of_rows(await self._rows(run_id), beside=self.beside)

    async def why(self, run_id: RunId) -> tuple[Reason, RunView, int]:
        """See `Desk.why`."""
        rows = await self._rows(run_id)
        return rows.reason, rows.view(), rows.now_ms

    async def list_events(
        self, run_id: RunId, *, after_seq: int, limit: int
    ) -> Sequence[LifecycleEvent]:
        """See `Desk.list_events`."""
        path = run_path(run_id, "history")
        answer = await self._get(path, after_seq=after_seq, limit=min(limit, EVENTS_MAX))
        return list(map(event_of, part(answer, "events")))

    async def output(self, run_id: RunId, node_id: NodeId) -> bytes:
        """See `Desk.output`."""
        return await self._server.content("GET", run_path(run_id, "tasks", node_id, "output"))

    async def verify(self, run_id: RunId) -> Verification:
        """See `Desk.verify`."""
        answer = await self._get(run_path(run_id, "verify"))
        found = {"unsealed": 0, **part(answer, "verification")}
        return read(found, Verification)

    async def preview(self, run_id: RunId, command: Command) -> ResetPreview:
        """See `Desk.preview`."""
        action, node_id = _preview_action(command), getattr(command, "node_id", None)
        answer = await self._get(run_path(run_id, "preview"), action=action, node_id=node_id)
        return read(part(answer, "preview"), ResetPreview)

    # What changes runs

    async def execute(self, run_id: RunId, command: Command) -> None:
        """See `Desk.execute`."""
        method, path, body = _request_of(run_id, command)
        answer = await self._server.ask(method, path, body=body)
        if answer.get("alreadyTerminal"):
            status = run_of(part(answer, "run")).status
            raise NothingToDo(
                f"run {run_id} has ended already: it is {status}", code="already_terminal"
            )
        if answer.get("changed") is False:
            word = answer.get("disposition")
            node_id = getattr(command, "node_id", "")
            raise NothingToDo(f"node `{node_id}` is {word} already", code="unchanged")

    async def set_output(
        self, run_id: RunId, node_id: NodeId, value: JsonValue, *, reason: str
    ) -> None:
        """See `Desk.set_output`."""
        path = run_path(run_id, "tasks", node_id, "output")
        await self._server.ask("POST", path, body={"output": value, "reason": reason})

    async def fork(
        self, run_id: RunId, node_id: NodeId, *, inputs: Any, asks_again: bool, reason: str
    ) -> Run:
        """See `Desk.fork`."""
        body = {"node_id": node_id, "ask_again": asks_again, "reason": reason}
        body |= {"inputs": inputs} if inputs else {}
        answer = await self._server.ask(
            "POST", run_path(run_id, "fork"), body=body, key=f"cli-{uuid4()}"
        )
        return run_of(part(answer, "run"))

    async def delete(self, run_id: RunId) -> int:
        """See `Desk.delete`."""
        answer = await self._server.ask("DELETE", run_path(run_id))
        return int(part(answer, "artifacts_removed"))

    async def cleaned(self, run_id: RunId) -> Run | None:
        """See `Desk.cleaned`."""
        until = time.monotonic() + CLEANUP_WAIT_S
        while True:
            run = await self.find_run(run_id)
            if run is None or run.cleanup is None or time.monotonic() >= until:
                return run
            await asyncio.sleep(LOOK_S)

    async def each(
        self, chosen: RunFilter, act: Any, *, created_before_ms: int | None
    ) -> AsyncIterator[BulkResult]:
        """See `Desk.each`. The runs are found first: what is done to them moves the pages."""
        if chosen.before_no is not None:
            raise click.UsageError("--cursor is for the store here; use --older-than")
        query = _query_of(chosen) | {"created_until_ms": created_before_ms}
        found: list[Run] = []
        async for page in self._pages(**query):
            found += map(run_of, page)
            if len(found) >= chosen.limit:
                break
        for run in found[: chosen.limit]:
            yield await _result(run, act)

    async def judge(self, run_id: RunId, command: Command) -> None:
        """See `Desk.judge`."""
        view = (await self._rows(run_id)).view()
        now_ms = time.time_ns() // 1_000_000
        decide(view, command, change_id=ChangeId("dry-run"), now_ms=now_ms)

    # Gates and waits

    async def list_gates(self) -> Sequence[OpenGate]:
        """See `Desk.list_gates`."""
        answer = await self._get("/approvals/pending", source="automation_v2", limit=GATES_MAX)
        return [gate_of(approval) for approval in reversed(part(answer, "approvals"))]

    async def list_gates_of_run(self, run_id: RunId) -> tuple[RunView, Sequence[Gate]]:
        """See `Desk.list_gates_of_run`."""
        rows = await self._rows(run_id)
        return rows.view(), rows.gates

    async def decide(self, run_id: RunId, command: DecideGate) -> tuple[Run, bool]:
        """See `Desk.decide`. The engines of the server go on with the run."""
        body: dict[str, Any] = {
            "decision": command.decision,
            "node_id": command.node_id,
            "approval_request_id": command.gate_id,
            "reason": command.reason,
        }
        body |= {"output": decode(command.output)} if command.output is not None else {}
        answer = await self._server.ask("POST", run_path(run_id, "gate"), body=_said(body))
        return run_of(part(answer, "run")), True

    async def list_waits(self) -> Sequence[OpenWait]:
        """See `Desk.list_waits`."""
        answer = await self._get(f"{BASE}/waits", limit=GATES_MAX)
        return read(part(answer, "waits"), list[OpenWait])

    async def resolve(self, run_id: RunId, command: ResolveWait) -> tuple[Run, Wait | None]:
        """See `Desk.resolve`."""
        node_id = command.node_id
        if node_id is None:
            waits = [w for w in await self.list_waits() if w.run_id == run_id]
            if not waits:
                raise Refused(f"run {run_id} waits for nothing now", code="wait_not_open")
            node_id = waits[0].wait.node_id
        answer = await self._server.ask(
            "POST",
            run_path(run_id, "waits", node_id, "resolve"),
            body={
                "payload": decode(command.payload),
                "idempotency_key": command.idempotency_key,
                "source": command.source,
            },
            repeats=True,
        )
        told = answer.get("wait")
        return run_of(part(answer, "run")), None if told is None else read(told, Wait)

    # Automations

    async def list_automations(self, *, after_id: str, limit: int) -> Sequence[StoredAutomation]:
        """See `Desk.list_automations`."""
        answer = await self._get(BASE, view="summary")
        rows = map(stored_of, part(answer, "automations"))
        return [row for row in rows if row.automation_id > after_id][:limit]

    async def automation(
        self, automation_id: str, version: int | None = None
    ) -> tuple[StoredAutomation, Automation]:
        """See `Desk.automation`."""
        record = part(await self._get(_automation_path(automation_id)), "automation")
        row = stored_of(record)
        path = _automation_path(automation_id, "versions", str(version or row.version))
        spec = part(await self._get(path), "automation")
        return row, _definition_of(spec)

    async def records(self, row: StoredAutomation) -> Sequence[AutomationRecord]:
        """See `Desk.records`."""
        answer = await self._get(_automation_path(row.automation_id, "records"))
        return read(part(answer, "records"), list[AutomationRecord])

    async def firings(
        self, row: StoredAutomation, *, limit: int
    ) -> tuple[StoredAutomation, Sequence[Firing]]:
        """See `Desk.firings`. The record of an automation does not tell its watermark."""
        answer = await self._get(_automation_path(row.automation_id, "firings"), limit=limit)
        known = {**msgspec.to_builtins(row), **part(answer, "timing")}
        return read(known, StoredAutomation), read(part(answer, "firings"), list[Firing])

    async def save(
        self, automation: Automation, *, expected_version: int | None, reason: str
    ) -> tuple[StoredAutomation, str]:
        """See `Desk.save`."""
        document = decode(canonical_document(automation))
        assert isinstance(document, dict)
        if "status" not in automation.model_fields_set:
            document.pop("status", None)
        answer = await self._server.ask(
            "PUT",
            _automation_path(automation.automation_id),
            body=document,
            query={"strict": 1, "expect_version": expected_version, "reason": reason},
            # The same definition again changes nothing, unless the version was expected.
            repeats=expected_version is None,
        )
        return stored_of(part(answer, "automation")), answer.get("event") or ""

    async def hold(self, automation_id: str, what: str, *, reason: str) -> StoredAutomation:
        """See `Desk.hold`."""
        if what == "delete":
            row = stored_of(part(await self._get(_automation_path(automation_id)), "automation"))
            path = _automation_path(automation_id)
            await self._server.ask("DELETE", path, query={"reason": reason})
            return msgspec.structs.replace(row, deleted_at_ms=time.time_ns() // 1_000_000)
        path = _automation_path(automation_id, what)
        # Of these only a pause has a body.
        body, query = ({"reason": reason}, None) if what == "pause" else (None, {"reason": reason})
        answer = await self._server.ask("POST", path, body=body, query=query, repeats=True)
        return stored_of(part(answer, "automation"))

    async def run_now(
        self,
        automation_id: str,
        inputs: Mapping[str, JsonValue],
        *,
        profile: ExecutionProfile | None,
    ) -> Run:
        """Start a run of the current version on the server, once however often it is asked."""
        answer = await self._run_now(automation_id, inputs, profile, is_dry=False)
        return run_of(part(answer, "run"))

    async def dry_run(
        self,
        automation_id: str,
        inputs: Mapping[str, JsonValue],
        *,
        profile: ExecutionProfile | None,
    ) -> DryRun:
        """Record a dry run on the server, and return what a real one would do there."""
        answer = await self._run_now(automation_id, inputs, profile, is_dry=True)
        run = run_of(part(answer, "run"))
        plan = part(answer, "plan")
        return DryRun(
            run=run,
            nodes=read(part(plan, "nodes"), list[OutlinedNode]),
            inputs=run.inputs,
            problems=read(part(plan, "problems"), list[Problem]),
            obstacles=read(part(plan, "obstacles"), list[str]),
        )

    async def _run_now(
        self,
        automation_id: str,
        inputs: Mapping[str, JsonValue],
        profile: ExecutionProfile | None,
        *,
        is_dry: bool,
    ) -> Any:
        body: dict[str, Any] = {"dry_run": is_dry, "inputs": dict(inputs)}
        body |= {"execution_profile": profile.value} if profile is not None else {}
        path = _automation_path(automation_id, "run_now")
        return await self._server.ask("POST", path, body=body, key=f"cli-{uuid4()}")

    # Webhooks

    @property
    def hooks(self) -> RemoteHooks:
        """See `Desk.hooks`."""
        return RemoteHooks(self._server)

    # Backlogs

    async def backlog(self, run_id: RunId) -> tuple[Mapping[str, Any], list[str]]:
        """See `Desk.backlog`."""
        answer = await self._get(run_path(run_id, "backlog", "tasks"))
        return part(answer, "blackboard"), list(answer.get("problems", ()))

    async def claim_task(
        self, run_id: RunId, task_id: str, *, agent_id: str, lease_ms: int, reason: str
    ) -> Mapping[str, Any]:
        """See `Desk.claim_task`."""
        body = {"agent_id": agent_id, "lease_ms": lease_ms, "reason": reason}
        return await self._on_task(run_id, task_id, "claim", body)

    async def requeue_task(self, run_id: RunId, task_id: str, *, reason: str) -> Mapping[str, Any]:
        """See `Desk.requeue_task`."""
        return await self._on_task(run_id, task_id, "requeue", {"reason": reason})

    async def complete_task(
        self, run_id: RunId, task_id: str, *, agent_id: str, lease_token: str, reason: str
    ) -> Mapping[str, Any]:
        """See `Desk.complete_task`."""
        body = {"agent_id": agent_id, "lease_token": lease_token, "reason": reason}
        return await self._on_task(run_id, task_id, "complete", body)

    async def _on_task(
        self, run_id: RunId, task_id: str, word: str, body: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        path = run_path(run_id, "backlog", "tasks", task_id, word)
        found: Mapping[str, Any] = part(
            await self._server.ask("POST", path, body=_said(body)), "task"
        )
        return found

    # Tokens

    async def list_tokens(self, tenant: TenantId | None, *, limit: int) -> Sequence[Token]:
        """See `Desk.list_tokens`. A server tells those of the tenant of whoever asks."""
        answer = await self._get("/tokens", tenant=tenant, limit=limit)
        return list(map(token_of, part(answer, "tokens")))

    async def create_token(
        self,
        tenant: TenantId | None,
        *,
        name: str,
        scopes: Sequence[Scope],
        actor_id: str,
        kind: ActorKind,
        expires_in_ms: int | None,
    ) -> tuple[Token, str]:
        """See `Desk.create_token`. Without a tenant it is for that of whoever asks."""
        body = {
            "name": name,
            "scopes": list(scopes),
            "actor_id": actor_id,
            "kind": kind,
            "expires_in_ms": expires_in_ms,
            "tenant": tenant,
        }
        answer = await self._server.ask("POST", "/tokens", body=body)
        return token_of(part(answer, "token")), str(part(answer, "secret"))

    async def revoke_token(self, token_id: str) -> Token:
        """See `Desk.revoke_token`."""
        answer = await self._server.ask("POST", f"/tokens/{_step(token_id)}/revoke")
        return token_of(part(answer, "token"))

    # Following

    def watch(self, run_id: RunId | None, *, after: str) -> AsyncIterator[Mapping[str, Any]]:
        """See `Desk.watch`."""
        return remote_watch.watch(self._server, run_id, after=after)


def _query_of(chosen: RunFilter) -> dict[str, Any]:
    return {
        "status": ",".join(chosen.statuses),
        "automation_id": chosen.automation_id,
    }


async def _result(run: Run, act: Any) -> BulkResult:
    try:
        await act(run)
    except StoreError:
        raise
    except EngineError as error:
        return BulkResult(
            run_id=run.run_id,
            done=isinstance(error, NothingToDo),
            code=error.code,
            message=str(error),
            cursor=run.run_no,
        )
    return BulkResult(run_id=run.run_id, done=True, cursor=run.run_no)


def _definition_of(spec: object) -> Automation:
    try:
        return parse_document(encode(spec))
    except ValueError as error:  # what pydantic raises
        raise Refused(
            f"the definition that the server sent cannot be read: {error}", code="answer_unreadable"
        ) from error


def _said(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body without what was not said."""
    return {name: value for name, value in body.items() if value not in (None, "")}


def _request_of(run_id: RunId, command: Command) -> tuple[str, str, dict[str, Any]]:
    """Return method, path and body that ask for a command.

    Raises:
        click.UsageError: only the store here can be asked for it.
    """
    body = _said({"reason": getattr(command, "reason", "")})
    match command:
        case commands.Pause():
            return "POST", run_path(run_id, "pause"), {**body, "now": command.now}
        case commands.Resume() | commands.Cancel() | commands.Recover() | commands.Redeliver():
            return "POST", run_path(run_id, _RUN_COMMANDS[type(command)]), body
        case commands.RetryNode() | commands.ContinueNode() | commands.Skip():
            word = _preview_action(command)
            return "POST", run_path(run_id, "tasks", command.node_id, word), body
        case commands.Allow():
            given = msgspec.to_builtins(command)
            said = {name: given[name] for name in _LIMITS if given[name] is not None}
            return "POST", run_path(run_id, "allow"), {**body, **said, "resume": command.resume}
        case commands.Dispose():
            path = run_path(run_id, "tasks", command.node_id, "disposition")
            return "PATCH", path, {**body, "disposition": command.disposition}
        case commands.Repair():
            given = msgspec.to_builtins(command)
            names = ("node_id", "prompt", "template_id", "model_policy", "inputs", "action", "save")
            said = {name: given[name] for name in names if given[name] is not None}
            return "POST", run_path(run_id, "repair"), {**body, **said}
    raise _local_only(command)


def _preview_action(command: Command) -> str:
    if isinstance(command, commands.RetryNode) and command.requeue:
        return "requeue"
    if isinstance(command, commands.Repair):
        return "repair"
    if isinstance(command, DecideGate):
        return "rework"
    word = _RUN_COMMANDS.get(type(command)) or _NODE_COMMANDS.get(type(command))
    if word is None:
        raise _local_only(command)
    return word


def _local_only(command: Command) -> click.UsageError:
    name = type(command).__name__
    return click.UsageError(f"a server cannot be asked for this ({name}); leave --url out")
