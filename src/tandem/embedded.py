"""The engine inside your process: no server, one file for the store."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from os import PathLike, environ
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, get_args

import msgspec

from tandem.adapters.files.document import load_automation, parse_automation
from tandem.arguments import (
    choose,
    require_automation,
    require_objects,
    require_record,
    require_texts,
    require_whole,
)
from tandem.domain import automation as definition
from tandem.domain.automation_review import Review
from tandem.domain.backlog import LEASE_DEFAULT_MS, Backlog, BacklogTask
from tandem.domain.candidate import Candidate, ReviewAction
from tandem.domain.command import (
    Allow,
    Cancel,
    Command,
    ContinueNode,
    DecideGate,
    Dispose,
    Pause,
    Recover,
    Redeliver,
    Repair,
    ResolveWait,
    Resume,
    RetryNode,
    Skip,
)
from tandem.domain.errors import NotFound, NothingToDo
from tandem.domain.execution import ExecutionProfile
from tandem.domain.firing import Firing, upcoming
from tandem.domain.handoff import Handoff
from tandem.domain.ids import LOCAL_TENANT, AutomationId, NodeId, RunId
from tandem.domain.json import JsonObject, JsonValue, decode, encode
from tandem.domain.lifecycle import NodeState, RunState
from tandem.domain.preview import ResetPreview
from tandem.domain.run import LifecycleEvent, Wait
from tandem.domain.run import Run as RunRow
from tandem.domain.signal import Signal, SignalKind
from tandem.domain.standing import Reason
from tandem.domain.stored_automation import AutomationRecord
from tandem.domain.stored_automation import StoredAutomation as AutomationRow
from tandem.domain.workspace_root import declared_workspace
from tandem.engine.bulk import BulkResult, each
from tandem.engine.dry_run import DryRun
from tandem.engine.handoffs import HandoffListing
from tandem.engine.waiting import is_at_rest, is_ended
from tandem.ports.learning import CandidateFilter
from tandem.ports.store import RunFilter
from tandem.settings import Settings, read_settings, without_credentials
from tandem.wiring import Parts, open_engine

BULK_MAX: Final = 100_000
"""So many runs one call of `bulk` looks at."""
RUNS_MAX: Final = 100_000
"""So many runs one engine drives at once, at most."""
COMMANDS: Final = get_args(Command)


class Automation:
    """Reads automations; the result is what `Engine.run` takes."""

    @staticmethod
    def from_file(path: str | PathLike[str]) -> definition.Automation:
        """Read a YAML or JSON file.

        Raises:
            NotFound: there is no such file.
            InvalidAutomation: with every mistake that was found.
        """
        return load_automation(Path(path))

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> definition.Automation:
        """Read a document that is in memory; it needs an `automation_id`.

        Raises:
            InvalidAutomation: with every mistake that was found.
        """
        return parse_automation(document)


class Run:
    """A run of this engine."""

    def __init__(self, parts: Parts, run_id: RunId) -> None:
        self._all_parts = parts
        self.run_id = run_id

    def __repr__(self) -> str:
        return f"Run({self.run_id!r})"

    @property
    def _parts(self) -> Parts:
        return _on_its_loop(self._all_parts)

    @property
    def row(self) -> RunRow:
        """The run as it is in the store now."""
        row = self._parts.store.find_run(self.run_id, tenant=LOCAL_TENANT)
        if row is None:
            raise NotFound(f"there is no run {self.run_id}")
        return row

    @property
    def status(self) -> RunState:
        """Where the run is."""
        return self.row.status

    @property
    def detail(self) -> str:
        """What it is doing, or why it stopped, in one sentence."""
        return self.row.detail

    def why(self) -> Reason:
        """Return what the run waits for, since when, who has it, and what would free it."""
        return self._parts.engine.why(self.run_id)

    async def wait(self) -> RunState:
        """Wait for the end of the run and of everything it started."""
        return (await self._parts.waiters.wait(self.run_id, until=is_ended)).status

    async def wait_at_rest(self) -> RunState:
        """Wait until the run has ended or stands still for a person."""
        return (await self._parts.waiters.wait(self.run_id, until=is_at_rest)).status

    async def outputs(self) -> dict[str, JsonValue]:
        """Return the outputs of the completed nodes by name."""
        view = await self._parts.store.load(self.run_id, tenant=LOCAL_TENANT)
        found: dict[str, JsonValue] = {}
        for number, node in sorted(view.nodes.items()):
            if node.state is not NodeState.COMPLETED:
                continue
            content = node.output
            if content is None and node.output_ref is not None:
                content = self._parts.artifacts.get(LOCAL_TENANT, node.output_ref)
            found[view.plan.nodes[number].node_id] = None if content is None else decode(content)
        return found

    def events(self, after: int = 0, limit: int = 1_000) -> list[LifecycleEvent]:
        """Return lifecycle events in order, those after number `after`."""
        require_whole("after", after, least=0)
        require_whole("limit", limit, least=0)
        store = self._parts.store
        return list(
            store.list_events(self.run_id, tenant=LOCAL_TENANT, after_seq=after, limit=limit)
        )

    async def backlog(self) -> Backlog:
        """Return the tasks that nodes of the run put up for agents."""
        return await self._parts.engine.backlogs.read(self.run_id)

    async def claim_task(
        self, task_id: str, *, agent_id: str = "", lease_ms: int = LEASE_DEFAULT_MS
    ) -> BacklogTask:
        """Have a task for a span of 5 to 300 s; its `lease_token` is needed to complete it.

        Raises:
            NotFound: no such task.
            Refused: it cannot be claimed now.
        """
        require_texts(task_id=task_id, agent_id=agent_id)
        require_whole("lease_ms", lease_ms, least=0)
        kept = self._parts.engine.backlogs
        result = await kept.claim(self.run_id, task_id, agent_id=agent_id, lease_ms=lease_ms)
        return result.task

    async def requeue_task(self, task_id: str, *, reason: str = "") -> BacklogTask:
        """Give a task back, whoever has it.

        Raises:
            NotFound: no such task.
            Refused: it is done.
        """
        require_texts(task_id=task_id, reason=reason)
        kept = self._parts.engine.backlogs
        return (await kept.requeue(self.run_id, task_id, reason=reason)).task

    async def complete_task(self, task_id: str, *, lease_token: str) -> BacklogTask:
        """Say that a task, which is claimed, is done.

        Raises:
            NotFound: no such task.
            Refused: it is not claimed, or was claimed again since.
        """
        require_texts(task_id=task_id, lease_token=lease_token)
        kept = self._parts.engine.backlogs
        return (await kept.complete(self.run_id, task_id, lease_token=lease_token)).task

    async def pause(self, reason: str = "paused by operator", *, now: bool = False) -> None:
        """Hold the run; attempts that run are let to their end, with `now` they are stopped.

        The run is `pausing` until nothing of it runs, then `paused`.

        Raises:
            Refused: it cannot be paused now.
        """
        await self._execute(Pause(reason=reason, now=now))

    async def resume(self, reason: str = "resumed by operator") -> None:
        """Let a paused run go on, or a failed or blocked one try again.

        Raises:
            Refused: it is in none of these states.
        """
        again = self.status in (RunState.FAILED, RunState.BLOCKED)
        await self._execute(Recover(reason=reason) if again else Resume(reason=reason))

    async def allow(
        self,
        *,
        reason: str,
        tokens: int | None = None,
        cost_usd: float | None = None,
        runtime_ms: int | None = None,
        tool_calls: int | None = None,
        resume: bool = True,
        decided_by: str = "",
    ) -> None:
        """Give the run other limits in place of those of its automation.

        Args:
            reason: why; kept with the run.
            tokens: how many tokens it may use, all in all.
            cost_usd: what it may cost.
            runtime_ms: how long it may be driven.
            tool_calls: how many tools it may call.
            resume: let it go on if it was stopped by its budget.
            decided_by: who says so.

        Raises:
            InvalidRequest: no limit or no reason is given.
            Refused: it would go on and be stopped again at once.
        """
        await self._execute(
            Allow(
                reason=reason,
                max_total_tokens=tokens,
                max_total_cost_usd=cost_usd,
                max_total_runtime_ms=runtime_ms,
                max_total_tool_calls=tool_calls,
                resume=resume,
                decided_by=decided_by,
            )
        )

    async def recover(self, reason: str = "recovered by operator") -> None:
        """Let a failed or blocked run try again what stopped it, or a paused one go on.

        Raises:
            Refused: it is in none of these states.
        """
        await self._execute(Recover(reason=reason))

    async def cancel(self, reason: str = "cancelled by operator") -> bool:
        """End the run for good; False when it has ended already.

        It is cancelled when this returns; `wait` waits until its processes are dead, too.
        """
        return await self._done(Cancel(reason=reason))

    async def repair(
        self,
        node_id: str,
        *,
        prompt: str | None = None,
        template_id: str | None = None,
        model_policy: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Any] | None = None,
        action: Mapping[str, Any] | None = None,
        save: bool = False,
        reason: str = "repaired by operator",
    ) -> None:
        """Change a node of this run's own version; it and everything after it run again.

        What is not given stays. `inputs` replaces some inputs of the run. With `save` the edit is
        the next version of the stored automation, too, in the same transaction.

        Raises:
            NotFound: no such node, or it has no such agent.
            InvalidRequest: the edit would have no effect, or is none.
            InvalidAutomation: with the mistakes that the edit makes.
            Refused: the run goes on; pause it first. Or `save`, and the automation is
                not stored, or somebody saved another version since.
        """
        require_objects(model_policy=model_policy, inputs=inputs, action=action)
        await self._execute(
            Repair(
                node_id=NodeId(node_id),
                prompt=prompt,
                template_id=template_id,
                model_policy=None if model_policy is None else dict(model_policy),
                inputs=None if inputs is None else dict(inputs),
                action=None if action is None else dict(action),
                save=save,
                reason=reason,
            )
        )

    async def retry(self, node_id: str, *, reason: str = "", requeue: bool = False) -> None:
        """Let a node and everything after it run again, with new attempts.

        Raises:
            NotFound: no such node.
            Refused: the run goes on; pause it first.
        """
        await self._execute(RetryNode(node_id=NodeId(node_id), reason=reason, requeue=requeue))

    async def continue_blocked(
        self, node_id: str, *, reason: str = "continued by operator"
    ) -> None:
        """Let a blocked node try again, told what its last output missed.

        Raises:
            NotFound: no such node.
            Refused: the node did not block itself, or the run goes on.
        """
        await self._execute(ContinueNode(node_id=NodeId(node_id), reason=reason))

    async def skip(self, node_id: str, *, reason: str, decided_by: str = "") -> None:
        """Count a node as completed without running it; what follows goes on.

        Raises:
            NotFound: no such node.
            InvalidRequest: no reason is given.
            Refused: it runs, is completed, or asks a person.
        """
        await self._execute(Skip(node_id=NodeId(node_id), reason=reason, decided_by=decided_by))

    async def set_output(
        self, node_id: str, output: JsonValue, *, reason: str, decided_by: str = ""
    ) -> None:
        """Complete a node with this output; what was made from an earlier one runs again.

        The same output once more changes nothing.

        Raises:
            NotFound: no such node.
            InvalidRequest: it misses the schema of the contract, or no reason is given.
            Refused: it runs, or asks a person.
        """
        require_texts(node_id=node_id, reason=reason, decided_by=decided_by)
        await self._done(
            self._parts.engine.output_by_hand(
                NodeId(node_id), output, reason=reason, decided_by=decided_by
            )
        )

    async def dispose(
        self, node_id: str, disposition: str, *, reason: str = "", decided_by: str = ""
    ) -> bool:
        """Keep what a person thinks of an output; False when that was known.

        Raises:
            NotFound: no such node, or it has no output.
            InvalidRequest: there is no such disposition.
        """
        return await self._done(
            Dispose(
                node_id=NodeId(node_id),
                disposition=disposition,
                reason=reason,
                decided_by=decided_by,
            )
        )

    async def redeliver(self, reason: str = "dead letter retried by operator") -> None:
        """Send out again what a node with outside effects could not deliver.

        At most 5 times for a node, each time after a longer wait.

        Raises:
            Refused: there is no such node, or it was sent out too often.
        """
        await self._execute(Redeliver(reason=reason))

    async def preview(self, command: Command) -> ResetPreview:
        """Return what a command (of `tandem.domain.command`) would undo; nothing is written.

        Raises:
            NotFound: it names a node or gate that the run does not have.
        """
        require_record(command, COMMANDS)
        return await self._parts.engine.preview(self.run_id, command)

    async def fork(
        self,
        node_id: str,
        inputs: JsonObject | None = None,
        *,
        asks_again: bool = False,
        reason: str = "",
    ) -> "Run":
        """Start a run that takes over what this one has done and goes its own way from a node on.

        `inputs` replaces some of this run's; with `asks_again` approvals are asked for again.

        Raises:
            NotFound: no such node.
            InvalidAutomation: the inputs do not fit.
        """
        require_texts(node_id=node_id, reason=reason)
        require_objects(inputs=inputs)
        row = await self._parts.engine.fork(
            self.run_id, NodeId(node_id), inputs=inputs, asks_again=asks_again, reason=reason
        )
        return Run(self._parts, row.run_id)

    async def delete(self) -> int:
        """Delete the run, which has ended, and the artifacts that only it had: so many.

        Raises:
            Refused: it has not ended.
        """
        return await self._parts.engine.delete(self.run_id)

    async def decide(
        self, decision: str, *, node_id: str | None = None, reason: str = "", decided_by: str = ""
    ) -> None:
        """Decide a gate: the one of `node_id`, else the oldest that is open.

        Raises:
            Refused: no such gate is open, or it does not offer this decision.
        """
        await self._execute(
            DecideGate(
                decision=decision,
                node_id=NodeId(node_id) if node_id else None,
                reason=reason,
                decided_by=decided_by,
            )
        )

    async def waits(self) -> list[Wait]:
        """Return the waits of the run that can still be woken."""
        view = await self._parts.store.load(self.run_id, tenant=LOCAL_TENANT)
        return list(view.waits.values())

    async def resolve_wait(
        self, node_id: str, payload: JsonValue = None, *, idempotency_key: str, source: str = ""
    ) -> Wait | None:
        """Resolve the wait of a node; `payload` goes to its output.

        The same key again returns the same record, another key for a wait that is over None.

        Raises:
            Refused: the payload misses the schema, or the run has not reached the wait.
            InvalidSignal: the key has not 1 to 512 bytes, or the payload over 16,384.
        """
        command = ResolveWait(
            idempotency_key=idempotency_key,
            node_id=NodeId(node_id),
            payload=encode(payload),
            source=source,
        )
        require_record(command, COMMANDS)
        return await self._parts.engine.resolve_wait(self.run_id, command)

    async def _execute(self, command: Command) -> None:
        require_record(command, COMMANDS)
        await self._parts.engine.execute(self.run_id, command)

    async def _done(self, command: Command) -> bool:
        try:
            await self._execute(command)
        except NothingToDo:
            return False
        return True


class StoredAutomation:
    """An automation that the store of this engine keeps."""

    def __init__(self, parts: Parts, automation_id: str) -> None:
        self._all_parts = parts
        self.automation_id = automation_id

    def __repr__(self) -> str:
        return f"StoredAutomation({self.automation_id!r})"

    @property
    def _parts(self) -> Parts:
        return _on_its_loop(self._all_parts)

    @property
    def row(self) -> AutomationRow:
        """The automation as it is in the store now: version, status, who paused it and why.

        Raises:
            NotFound: it was never saved, or it was deleted.
        """
        return self._parts.automations.get(self.automation_id)

    def definition(self, version: int | None = None) -> definition.Automation:
        """Return the definition of the current version, or of an older one.

        Raises:
            NotFound: there is no such version.
        """
        if version is not None:
            require_whole("version", version, least=0)
        return self._parts.automations.definition(self.row, version)

    def records(self) -> list[AutomationRecord]:
        """Return what happened to it: who, when, why."""
        return list(self._parts.automations.records(self.row))

    def firings(self, *, limit: int = 100) -> list[Firing]:
        """Return what its triggers did lately, newest first: which runs, or why there are none."""
        require_whole("limit", limit, least=0)
        return list(self._parts.automations.firings(self.row, limit=limit))

    def next_firings(self, *, limit: int = 10) -> tuple[int, ...]:
        """Return when it fires next by itself, in ms; the first may be over when it is put off."""
        return upcoming(self.row, limit=limit)

    def handoffs(self) -> HandoffListing:
        """Return the handoffs that are for it: in the inbox, approved and archived.

        Raises:
            NotFound: it is not there.
            InvalidRequest: it has no workspace.
        """
        return self._parts.engine.handoffs.list(AutomationId(self.automation_id))

    def approve_handoff(self, handoff_id: str) -> Handoff:
        """Let a handoff of the inbox start its run.

        Raises:
            NotFound: it is not there, or has no such handoff.
        """
        require_texts(handoff_id=handoff_id)
        return self._parts.engine.handoffs.approve(AutomationId(self.automation_id), handoff_id)

    async def run(
        self,
        inputs: JsonObject | None = None,
        *,
        workspace: str | PathLike[str] | None = None,
        profile: str | None = None,
        reason: str = "",
    ) -> Run:
        """Start a run of the current version; of a paused automation it is queued and held.

        Raises:
            NotFound: it is not there.
            InvalidRequest: there is no such profile.
            Refused: it is a draft.
            InvalidAutomation: the inputs do not fit, or a node needs what is not installed.
        """
        require_texts(reason=reason)
        require_objects(inputs=inputs)
        row = await self._parts.automations.run(
            self.automation_id,
            inputs,
            workspace=_absolute(workspace) if workspace else "",
            profile=_profile(profile),
            trigger_reason=reason,
        )
        return Run(self._parts, row.run_id)

    async def dry_run(
        self, inputs: JsonObject | None = None, *, workspace: str | PathLike[str] | None = None
    ) -> DryRun:
        """Say what a run would do; it is recorded as a dry run, and nothing is executed.

        Raises:
            NotFound: it is not there.
            InvalidAutomation: the inputs do not fit.
        """
        require_objects(inputs=inputs)
        row = await self._parts.automations.run(
            self.automation_id,
            inputs,
            workspace=_absolute(workspace) if workspace else "",
            is_dry=True,
        )
        return await self._parts.engine.tell_dry_run(row)

    async def pause(self, reason: str = "paused by operator", *, by: str = "") -> None:
        """Pause its running runs and hold its queued ones.

        Raises:
            NotFound: it is not there.
            Refused: it is paused already.
        """
        require_texts(by=by, reason=reason)
        await self._parts.automations.pause(self.automation_id, by=by, reason=reason)

    async def resume(self, reason: str = "resumed by operator", *, by: str = "") -> None:
        """Let its held runs be claimed; runs that were paused are resumed one by one.

        Raises:
            NotFound: it is not there.
            Refused: it is not paused.
        """
        require_texts(by=by, reason=reason)
        await self._parts.automations.resume(self.automation_id, by=by, reason=reason)

    async def delete(self, reason: str = "deleted by operator", *, by: str = "") -> None:
        """Take it out of the lists; its runs stay and go on.

        Raises:
            NotFound: it is not there.
        """
        require_texts(by=by, reason=reason)
        await self._parts.automations.delete(self.automation_id, by=by, reason=reason)


class Engine:
    """An engine in this process. Make one with `Engine.open` and enter it."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        self._settings = settings
        self._options = options
        self._stack = AsyncExitStack()
        self._parts: Parts | None = None
        self._is_entered = False

    def __repr__(self) -> str:
        state = "open" if self._parts is not None else "not entered"
        return f"<Engine on {without_credentials(self._settings.database_url)}, {state}>"

    @classmethod
    def open(
        cls,
        url: str = "",
        *,
        state_dir: str | PathLike[str] | None = None,
        runs_max: int | None = None,
        functions: Mapping[str, Callable[..., object]] | None = None,
        in_process: bool = True,
        on_problem: Callable[[str], None] | None = None,
    ) -> Self:
        """Return an engine on the store at `url` (`sqlite:///path`).

        Args:
            url: the store; empty takes the one of the environment, else of the state folder.
            state_dir: where logs and large outputs go; the folder of the store when not given.
            runs_max: how many runs to drive at once; with 0 it only creates runs.
            functions: functions that nodes may call by name.
            in_process: call Python functions in this process; otherwise in worker processes,
                which can be stopped while they run.
            on_problem: hears, in one sentence, what runs wait for when the store is away, and
                which status file could not be written.

        Raises:
            InvalidSetting: this store cannot be used, or a variable of the environment is wrong.
            InvalidRequest: `runs_max` is not from 0 to 100,000.
        """
        require_texts(url=url)
        require_objects(functions=functions)
        # As a variable it also wins over the older names of the store.
        given = {"TANDEM_DATABASE_URL": url} if url else {}
        settings = read_settings({**environ, **given})
        if runs_max is not None:
            require_whole("runs_max", runs_max, least=0, most=RUNS_MAX)
            settings = msgspec.structs.replace(settings, runs_max=runs_max)
        if state_dir is not None:
            settings = msgspec.structs.replace(settings, state_dir=Path(state_dir).absolute())
        elif url:
            settings = msgspec.structs.replace(settings, state_dir=settings.store_path.parent)
        return cls(settings, registered=functions, in_process=in_process, on_problem=on_problem)

    async def __aenter__(self) -> Self:
        if self._is_entered:
            raise RuntimeError("this engine is entered already; make another with `Engine.open`")
        self._is_entered = True
        try:
            self._parts = await self._stack.enter_async_context(
                open_engine(self._settings, **self._options)
            )
        except BaseException:
            self._is_entered = False
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._stack.__aexit__(kind, error, trace)
        finally:
            self._parts, self._is_entered = None, False

    @property
    def parts(self) -> Parts:
        """What the engine is made of; for tools."""
        if self._parts is None:
            raise RuntimeError(
                "enter the engine first, it works until it is left: "
                "`async with Engine.open(...) as engine:`"
            )
        return _on_its_loop(self._parts)

    async def run(
        self,
        automation: definition.Automation,
        inputs: JsonObject | None = None,
        *,
        workspace: str | PathLike[str] | None = None,
        profile: str | None = None,
        runtime_context: JsonObject | None = None,
        started_by: str = "",
    ) -> Run:
        """Start a run; it is on disk when this returns. `started_by` is shown at its gates.

        `profile` is `strict`, `guided` or `yolo`; else the definition or the settings say it.
        `runtime_context` is for definitions that refer to shared context packs.

        Raises:
            InvalidAutomation: the inputs do not fit, or a node needs what is not installed.
            InvalidRequest: there is no such profile.
            StoreUnavailable: nothing was written.
        """
        require_automation(automation)
        require_texts(started_by=started_by)
        require_objects(inputs=inputs, runtime_context=runtime_context)
        root = workspace or declared_workspace(automation)
        row = await self.parts.engine.start(
            automation,
            inputs,
            workspace=_absolute(root) if root else "",
            profile=_profile(profile),
            runtime_context=runtime_context,
            started_by=started_by,
        )
        return Run(self.parts, row.run_id)

    async def dry_run(
        self,
        automation: definition.Automation,
        inputs: JsonObject | None = None,
        *,
        workspace: str | PathLike[str] | None = None,
    ) -> DryRun:
        """Say what a run would do; it is recorded as a dry run, and nothing is executed.

        Raises:
            InvalidAutomation: the inputs do not fit.
        """
        require_automation(automation)
        require_objects(inputs=inputs)
        root = workspace or declared_workspace(automation)
        row = await self.parts.engine.start(
            automation, inputs, workspace=_absolute(root) if root else "", is_dry=True
        )
        return await self.parts.engine.tell_dry_run(row)

    async def apply(
        self,
        automation: definition.Automation,
        *,
        by: str = "",
        expected_version: int | None = None,
        reason: str = "",
    ) -> StoredAutomation:
        """Save this definition as the current version; without a difference nothing is written.

        Raises:
            Refused: another version is current than the expected one (0: none).
            StoreUnavailable: nothing was written.
        """
        require_automation(automation)
        require_texts(by=by, reason=reason)
        if expected_version is not None:
            require_whole("expected_version", expected_version, least=0)
        change = await self.parts.automations.save(
            automation, by=by, expected_version=expected_version, reason=reason
        )
        return StoredAutomation(self.parts, change.row.automation_id)

    def automation(self, automation_id: str) -> StoredAutomation:
        """Return an automation of the store.

        Raises:
            NotFound: it was never saved, or it was deleted.
        """
        require_texts(automation_id=automation_id)
        found = StoredAutomation(self.parts, automation_id)
        found.row  # noqa: B018 # raises NotFound
        return found

    def automations(self, *, after: str = "", limit: int = 100) -> list[AutomationRow]:
        """Return the rows of stored automations by id, those after `after`."""
        require_texts(after=after)
        require_whole("limit", limit, least=0)
        return list(self.parts.automations.list(after_id=after, limit=limit))

    async def signal(
        self, condition: str, payload: JsonValue = None, *, idempotency_key: str, source: str = ""
    ) -> list[str]:
        """Report an external condition to every run that waits for it now or is about to.

        Returns the ids of the runs that it woke. The same key again wakes nobody.

        Raises:
            InvalidSignal: the key has not 1 to 512 bytes, or the payload over 16,384.
        """
        require_texts(condition=condition, idempotency_key=idempotency_key, source=source)
        found = await self.parts.engine.signal(
            Signal(
                kind=SignalKind.EXTERNAL_CONDITION,
                subject=condition,
                idempotency_key=idempotency_key,
                payload=encode(payload),
                source=source,
            )
        )
        return [change.run.run_id for _, change in found.woken]

    async def bulk(
        self,
        command: Command,
        *,
        statuses: Sequence[str] = (),
        automation_id: str | None = None,
        created_before_ms: int | None = None,
        limit: int = BULK_MAX,
        cursor: int | None = None,
    ) -> AsyncIterator[BulkResult]:
        """Ask the same of every run that the filter finds, newest first.

        A refusal does not stop the rest. `cursor` is that of an earlier result, to go on after.

        Raises:
            InvalidRequest: there is no such status.
            StoreUnavailable: the store failed; go on later with the cursor of the last result.
        """
        require_record(command, COMMANDS)
        require_whole("limit", limit, least=0)
        for name, given in (("created_before_ms", created_before_ms), ("cursor", cursor)):
            if given is not None:
                require_whole(name, given, least=0)
        if isinstance(statuses, str):
            raise TypeError("`statuses` has to be a list of statuses, not one text")
        chosen = RunFilter(
            tenant=LOCAL_TENANT,
            statuses=tuple(choose(RunState, "statuses", status) for status in statuses),
            automation_id=AutomationId(automation_id) if automation_id else None,
            before_no=cursor,
            limit=limit,
        )

        async def act(row: RunRow) -> None:
            await self.parts.engine.execute(row.run_id, command)

        async for result in each(
            self.parts.store, chosen, act, created_before_ms=created_before_ms
        ):
            yield result

    def candidates(self, automation_id: str = "", *, limit: int = 100) -> list[Candidate]:
        """Return what was learned from ended runs, newest first; of one automation, or of all."""
        require_texts(automation_id=automation_id)
        require_whole("limit", limit, least=0)
        chosen = CandidateFilter(
            tenant=LOCAL_TENANT,
            workflow_id=AutomationId(automation_id) if automation_id else None,
            limit=limit,
        )
        return list(self.parts.store.list_candidates(chosen))

    async def review_candidate(
        self, candidate_id: str, action: str, *, by: str, note: str = ""
    ) -> Candidate:
        """Decide on a candidate: `approve`, `reject`, `applied`, `supersede` or `regress`.

        Raises:
            NotFound: there is no such candidate.
            InvalidRequest: there is no such action.
            Refused: its status does not allow it.
        """
        require_texts(candidate_id=candidate_id, by=by, note=note)
        return await self.parts.engine.review_candidate(
            candidate_id, choose(ReviewAction, "action", action), by=by, note=note
        )

    def deposit_handoff(self, handoff: Handoff) -> str:
        """Put a handoff before the automation that it is for; return the path of its file.

        The same handoff again replaces its own file, and starts no second run.

        Raises:
            NotFound: the target is not stored.
            InvalidRequest: a field is blank or out of bounds, or the target has no workspace.
            Refused: the file cannot be written.
        """
        require_record(handoff, (Handoff,))
        return self.parts.engine.handoffs.deposit(handoff)

    async def enrol(self, automation_id: str, *, runs_max: int | None = None) -> Review:
        """Count the runs of an automation; after `runs_max` ends a person has to look.

        Without a number the setting decides; 0 counts only.
        """
        require_texts(automation_id=automation_id)
        if runs_max is not None:
            require_whole("runs_max", runs_max, least=0)
        most = self.parts.settings.review_runs_max if runs_max is None else runs_max
        return await self.parts.engine.enrol(AutomationId(automation_id), runs_max=most)

    async def acknowledge_review(self, automation_id: str, *, by: str, note: str = "") -> Review:
        """Say that a person has looked at an automation; runs that were held go on.

        Raises:
            NotFound: its runs are not counted.
        """
        require_texts(automation_id=automation_id, by=by, note=note)
        return await self.parts.engine.acknowledge_review(
            AutomationId(automation_id), by=by, note=note
        )

    def get_run(self, run_id: str) -> Run:
        """Return a run of the store.

        Raises:
            NotFound: there is no such run.
        """
        require_texts(run_id=run_id)
        run = Run(self.parts, RunId(run_id))
        run.row  # noqa: B018 # raises NotFound
        return run


def _absolute(path: str | PathLike[str]) -> str:
    return str(Path(path).absolute())


def _profile(given: str | None) -> ExecutionProfile | None:
    return choose(ExecutionProfile, "profile", given) if given else None


def _on_its_loop(parts: Parts) -> Parts:
    """Return the parts, unless another event loop asks: nobody there would ever be woken.

    Raises:
        RuntimeError: another loop runs here, in whichever thread.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return parts  # what needs no loop may be asked without one
    if running is not parts.loop:
        raise RuntimeError(
            "this engine belongs to another event loop; ask it there, from another thread with "
            "`asyncio.run_coroutine_threadsafe`"
        )
    return parts
