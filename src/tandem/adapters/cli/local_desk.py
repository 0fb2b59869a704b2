"""The desk over the store of this machine."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from tandem.adapters.cli import references, watching
from tandem.adapters.cli.hook_desk import LocalHooks
from tandem.adapters.cli.session import person
from tandem.adapters.cli.story import Story, holder_state, read_story
from tandem.adapters.cli.tools import LocalStore, OpenEngine, Tools
from tandem.domain.automation import Automation
from tandem.domain.backlog import blackboard, task_document
from tandem.domain.caller import ActorKind, Scope
from tandem.domain.command import Command, DecideGate, ResolveWait
from tandem.domain.decision import decide
from tandem.domain.errors import NotFound, Refused
from tandem.domain.firing import Firing
from tandem.domain.ids import LOCAL_TENANT, ChangeId, NodeId, RunId, TenantId
from tandem.domain.json import JsonValue
from tandem.domain.lifecycle import TERMINAL
from tandem.domain.preview import ResetPreview
from tandem.domain.run import Gate, GateStatus, LifecycleEvent, Run, Wait
from tandem.domain.standing import Reason
from tandem.domain.stored_automation import AutomationRecord, StoredAutomation
from tandem.domain.token import Token
from tandem.domain.view import RunView
from tandem.engine import bulk, reasons
from tandem.engine.backlog import TaskResult
from tandem.engine.run_rows import output_of
from tandem.engine.verification import Verification, verify
from tandem.ports.store import OpenGate, OpenWait, RunFilter
from tandem.settings import Settings

LISTED_MAX: Final = 10_000
GATES_MAX: Final = 500
LOOK_S: Final = 0.2
CLEANUP_WAIT_S: Final = 60
TAKEN_WAIT_S: Final = 0.6
TAKEN_LOOK_S: Final = 0.05


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class LocalDesk:
    """See `Desk`. Without `parts` it can be looked at only."""

    is_remote = False
    beside = ""

    def __init__(
        self, tools: Tools, settings: Settings, store: LocalStore, parts: OpenEngine | None
    ) -> None:
        self._tools = tools
        self._settings = settings
        self._store = store
        self._open = parts

    @property
    def parts(self) -> OpenEngine:
        """The open engine."""
        assert self._open is not None, "this desk was opened for looking only"
        return self._open

    # Runs

    async def find_run_id(self, name: str) -> RunId:
        """See `Desk.find_run_id`."""
        return references.find_run_id(self._store, name)

    async def find_run(self, run_id: RunId) -> Run | None:
        """See `Desk.find_run`."""
        return self._store.find_run(run_id, tenant=LOCAL_TENANT)

    async def list_runs(self, chosen: RunFilter) -> Sequence[Run]:
        """See `Desk.list_runs`."""
        # The store filters the states of one automation's runs after it has cut them.
        cut = chosen.automation_id is not None and bool(chosen.statuses)
        limit = LISTED_MAX if cut else chosen.limit
        wider = RunFilter(
            tenant=chosen.tenant,
            statuses=chosen.statuses,
            automation_id=chosen.automation_id,
            before_no=chosen.before_no,
            limit=limit,
        )
        return self._store.list_runs(wider)[: chosen.limit]

    async def story(self, run_id: RunId) -> Story:
        """See `Desk.story`."""
        return read_story(self._tools, self._settings, self._store, run_id)

    async def why(self, run_id: RunId) -> tuple[Reason, RunView, int]:
        """See `Desk.why`."""
        now_ms = _now_ms()
        host = self._tools.open_host(self._settings)
        reason = reasons.why(self._store, host, run_id, tenant=LOCAL_TENANT, now_ms=now_ms)
        return reason, self._store.read(run_id, tenant=LOCAL_TENANT), now_ms

    async def list_events(
        self, run_id: RunId, *, after_seq: int, limit: int
    ) -> Sequence[LifecycleEvent]:
        """See `Desk.list_events`."""
        return self._store.list_events(
            run_id, tenant=LOCAL_TENANT, after_seq=after_seq, limit=limit
        )

    async def output(self, run_id: RunId, node_id: NodeId) -> bytes:
        """See `Desk.output`."""
        view = self._store.read(run_id, tenant=LOCAL_TENANT)
        artifacts = self._tools.open_artifacts(self._settings)
        return output_of(view, node_id, artifacts, tenant=LOCAL_TENANT)

    async def verify(self, run_id: RunId) -> Verification:
        """See `Desk.verify`."""
        return await verify(
            run_id,
            tenant=LOCAL_TENANT,
            store=self._store,
            artifacts=self._tools.open_artifacts(self._settings),
            files=self._tools.open_files(),
        )

    async def preview(self, run_id: RunId, command: Command) -> ResetPreview:
        """See `Desk.preview`."""
        return await self.parts.engine.preview(run_id, command)

    # What changes runs

    async def execute(self, run_id: RunId, command: Command) -> None:
        """See `Desk.execute`. A run whose engine is dead is taken out of its hands first."""
        await self._free(run_id)
        await self.parts.engine.execute(run_id, command)

    async def _free(self, run_id: RunId) -> None:
        with suppress(Refused):
            await self.parts.engine.take_over(run_id)

    async def set_output(
        self, run_id: RunId, node_id: NodeId, value: JsonValue, *, reason: str
    ) -> None:
        """See `Desk.set_output`."""
        command = self.parts.engine.output_by_hand(
            node_id, value, reason=reason, decided_by=person()
        )
        await self.execute(run_id, command)

    async def fork(
        self, run_id: RunId, node_id: NodeId, *, inputs: Any, asks_again: bool, reason: str
    ) -> Run:
        """See `Desk.fork`."""
        return await self.parts.engine.fork(
            run_id,
            node_id,
            inputs=inputs,
            asks_again=asks_again,
            reason=reason,
            started_by=person(),
        )

    async def delete(self, run_id: RunId) -> int:
        """See `Desk.delete`."""
        await self._free(run_id)
        return await self.parts.engine.delete(run_id)

    async def cleaned(self, run_id: RunId) -> Run | None:
        """See `Desk.cleaned`.

        The engine that has to clean up may die at it, or be dead already without showing it yet (a
        program that it was just starting keeps its lock for a moment); then we do it.
        """
        until = time.monotonic() + CLEANUP_WAIT_S
        while True:
            run = await self.find_run(run_id)
            if run is None or run.cleanup is None or time.monotonic() >= until:
                return run
            with suppress(Refused):
                if await self.parts.engine.take_over(run_id):
                    continue
            await asyncio.sleep(LOOK_S)

    def each(
        self, chosen: RunFilter, act: Any, *, created_before_ms: int | None
    ) -> AsyncIterator[bulk.BulkResult]:
        """See `Desk.each`."""
        return bulk.each(self._store, chosen, act, created_before_ms=created_before_ms)

    async def judge(self, run_id: RunId, command: Command) -> None:
        """See `Desk.judge`."""
        view = self._store.read(run_id, tenant=LOCAL_TENANT)
        decide(view, command, change_id=ChangeId("dry-run"), now_ms=_now_ms())

    # Gates and waits

    async def list_gates(self) -> Sequence[OpenGate]:
        """See `Desk.list_gates`."""
        return self._store.list_gates(
            tenant=LOCAL_TENANT, status=GateStatus.OPEN, run_id=None, limit=GATES_MAX
        )

    async def list_gates_of_run(self, run_id: RunId) -> tuple[RunView, Sequence[Gate]]:
        """See `Desk.list_gates_of_run`."""
        view = self._store.read(run_id, tenant=LOCAL_TENANT)
        return view, self._store.list_gates_of_run(run_id, tenant=LOCAL_TENANT)

    async def decide(self, run_id: RunId, command: DecideGate) -> tuple[Run, bool]:
        """See `Desk.decide`."""
        decided = await self.parts.engine.execute(run_id, command)
        return await self._after(decided.run)

    async def _after(self, decided: Run) -> tuple[Run, bool]:
        """Return the run after the decision and whether an engine that lives goes on with it.

        One that has gone on with it already counts: the run may have ended before we look.
        """
        host = self._tools.open_host(self._settings)
        until = time.monotonic() + TAKEN_WAIT_S
        while True:
            run = await self.find_run(decided.run_id)
            if run is None:
                raise NotFound(f"there is no run {decided.run_id}")
            if holder_state(self._store, host, run) == "alive" or _went_on(decided, run):
                return run, True
            # Nobody has it for itself; an engine that serves everybody takes it within moments.
            is_late = time.monotonic() >= until
            if is_late or run.status in TERMINAL or not self._store.list_engines():
                return run, False
            await asyncio.sleep(TAKEN_LOOK_S)

    async def list_waits(self) -> Sequence[OpenWait]:
        """See `Desk.list_waits`."""
        return self._store.list_waits(tenant=LOCAL_TENANT, limit=GATES_MAX)

    async def resolve(self, run_id: RunId, command: ResolveWait) -> tuple[Run, Wait | None]:
        """See `Desk.resolve`."""
        wait = await self.parts.engine.resolve_wait(run_id, command)
        row = await self.find_run(run_id)
        if row is None:
            raise NotFound(f"there is no run {run_id}")
        return row, wait

    # Automations

    async def list_automations(self, *, after_id: str, limit: int) -> Sequence[StoredAutomation]:
        """See `Desk.list_automations`."""
        return self._store.list_automations(tenant=LOCAL_TENANT, after_id=after_id, limit=limit)

    async def automation(
        self, automation_id: str, version: int | None = None
    ) -> tuple[StoredAutomation, Automation]:
        """See `Desk.automation`."""
        row = self.parts.automations.get(automation_id)
        return row, self.parts.automations.definition(row, version)

    async def records(self, row: StoredAutomation) -> Sequence[AutomationRecord]:
        """See `Desk.records`."""
        return self.parts.automations.records(row)

    async def firings(
        self, row: StoredAutomation, *, limit: int
    ) -> tuple[StoredAutomation, Sequence[Firing]]:
        """See `Desk.firings`."""
        return row, self._store.list_firings(row, limit=limit)

    async def save(
        self, automation: Automation, *, expected_version: int | None, reason: str
    ) -> tuple[StoredAutomation, str]:
        """See `Desk.save`."""
        change = await self.parts.automations.save(
            automation, by=person(), expected_version=expected_version, reason=reason
        )
        return change.row, change.record.event.value if change.record else ""

    async def hold(self, automation_id: str, what: str, *, reason: str) -> StoredAutomation:
        """See `Desk.hold`."""
        kept = self.parts.automations
        act = {"pause": kept.pause, "resume": kept.resume, "delete": kept.delete}[what]
        return await act(automation_id, by=person(), reason=reason)

    # Webhooks

    @property
    def hooks(self) -> LocalHooks:
        """See `Desk.hooks`."""
        return LocalHooks(self.parts)

    # Backlogs

    async def backlog(self, run_id: RunId) -> tuple[Mapping[str, Any], list[str]]:
        """See `Desk.backlog`."""
        found = await self.parts.engine.backlogs.read(run_id)
        automation_id = self._store.read(run_id, tenant=LOCAL_TENANT).run.automation_id
        return blackboard(found, automation_id=automation_id), list(found.problems)

    async def claim_task(
        self, run_id: RunId, task_id: str, *, agent_id: str, lease_ms: int, reason: str
    ) -> Mapping[str, Any]:
        """See `Desk.claim_task`."""
        return _task_of(
            await self.parts.engine.backlogs.claim(
                run_id, task_id, agent_id=agent_id, lease_ms=lease_ms, reason=reason
            )
        )

    async def requeue_task(self, run_id: RunId, task_id: str, *, reason: str) -> Mapping[str, Any]:
        """See `Desk.requeue_task`."""
        return _task_of(await self.parts.engine.backlogs.requeue(run_id, task_id, reason=reason))

    async def complete_task(
        self, run_id: RunId, task_id: str, *, agent_id: str, lease_token: str, reason: str
    ) -> Mapping[str, Any]:
        """See `Desk.complete_task`."""
        return _task_of(
            await self.parts.engine.backlogs.complete(
                run_id, task_id, agent_id=agent_id, lease_token=lease_token, reason=reason
            )
        )

    # Tokens

    async def list_tokens(self, tenant: TenantId | None, *, limit: int) -> Sequence[Token]:
        """See `Desk.list_tokens`. Whoever has the store sees those of all tenants."""
        return self._store.list_tokens(tenant=tenant, after_id="", limit=limit)

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
        """See `Desk.create_token`."""
        return await self.parts.tokens.create(
            tenant=tenant or LOCAL_TENANT,
            name=name,
            scopes=scopes,
            actor_id=actor_id,
            kind=kind,
            by=person(),
            expires_in_ms=expires_in_ms,
        )

    async def revoke_token(self, token_id: str) -> Token:
        """See `Desk.revoke_token`."""
        return await self.parts.tokens.revoke(token_id, by=person())

    # Following

    def watch(self, run_id: RunId | None, *, after: str) -> AsyncIterator[Mapping[str, Any]]:
        """See `Desk.watch`."""
        return watching.local_events(self.parts, run_id, after)


def _task_of(result: TaskResult) -> Mapping[str, Any]:
    return task_document(result.task, automation_id=result.run.automation_id)


def _went_on(decided: Run, run: Run) -> bool:
    """Say whether the run was claimed, or came to its end, after the decision."""
    has_ended = run.status in TERMINAL and decided.status not in TERMINAL
    return has_ended or run.epoch > decided.epoch
