"""What the commands ask of runs and automations, whether those are here or on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from tandem.adapters.cli.hook_desk import HookDesk
    from tandem.adapters.cli.story import Story
    from tandem.domain.automation import Automation
    from tandem.domain.caller import ActorKind, Scope
    from tandem.domain.command import Command, DecideGate, ResolveWait
    from tandem.domain.firing import Firing
    from tandem.domain.ids import NodeId, RunId, TenantId
    from tandem.domain.json import JsonValue
    from tandem.domain.preview import ResetPreview
    from tandem.domain.run import Gate, LifecycleEvent, Run, Wait
    from tandem.domain.standing import Reason
    from tandem.domain.stored_automation import AutomationRecord, StoredAutomation
    from tandem.domain.token import Token
    from tandem.domain.view import RunView
    from tandem.engine.bulk import BulkResult
    from tandem.engine.verification import Verification
    from tandem.ports.store import OpenGate, OpenWait, RunFilter


class Desk(Protocol):
    """Runs, gates and automations of one tenant: those of the store here, or of a server.

    Every method raises what its counterpart of the engine raises: NotFound, Refused,
    InvalidRequest, InvalidAutomation, StoreError.
    """

    is_remote: bool
    beside: str
    """What a command that is told to a person needs at its end to mean the same place."""

    # Runs

    async def find_run_id(self, name: str) -> RunId:
        """Return the id of the run that `name` names: an id, the beginning of one, `latest`.

        Raises:
            NotFound: no run is named so.
            click.UsageError: several runs are.
        """
        ...

    async def find_run(self, run_id: RunId) -> Run | None:
        """Return the row of a run, None when it is gone."""
        ...

    async def list_runs(self, chosen: RunFilter) -> Sequence[Run]:
        """Return runs, newest first."""
        ...

    async def story(self, run_id: RunId) -> Story:
        """Return all there is to say about a run."""
        ...

    async def why(self, run_id: RunId) -> tuple[Reason, RunView, int]:
        """Return what a run waits for, the run, and the moment of the answer."""
        ...

    async def list_events(
        self, run_id: RunId, *, after_seq: int, limit: int
    ) -> Sequence[LifecycleEvent]:
        """Return lifecycle events in order, at most as many as the other side gives at once."""
        ...

    async def output(self, run_id: RunId, node_id: NodeId) -> bytes:
        """Return the output of a completed node as JSON text."""
        ...

    async def verify(self, run_id: RunId) -> Verification:
        """Check the record of a run."""
        ...

    async def preview(self, run_id: RunId, command: Command) -> ResetPreview:
        """Return what a command would undo; nothing is written."""
        ...

    # What changes runs

    async def execute(self, run_id: RunId, command: Command) -> None:
        """Ask something of a run."""
        ...

    async def set_output(
        self, run_id: RunId, node_id: NodeId, value: JsonValue, *, reason: str
    ) -> None:
        """Complete a node with an output by hand."""
        ...

    async def fork(
        self, run_id: RunId, node_id: NodeId, *, inputs: Any, asks_again: bool, reason: str
    ) -> Run:
        """Start a run that goes its own way from a node on."""
        ...

    async def delete(self, run_id: RunId) -> int:
        """Delete an ended run; return how many artifacts went with it."""
        ...

    async def cleaned(self, run_id: RunId) -> Run | None:
        """Return the run once no process of it lives, or after a minute as it is."""
        ...

    def each(
        self, chosen: RunFilter, act: Any, *, created_before_ms: int | None
    ) -> AsyncIterator[BulkResult]:
        """Do something to every run that a filter finds; see `engine.bulk.each`."""
        ...

    async def judge(self, run_id: RunId, command: Command) -> None:
        """Raise what a command would be refused with; nothing is written."""
        ...

    # Gates and waits

    async def list_gates(self) -> Sequence[OpenGate]:
        """Return the open gates, oldest first."""
        ...

    async def list_gates_of_run(self, run_id: RunId) -> tuple[RunView, Sequence[Gate]]:
        """Return a run and every asking of it, oldest first."""
        ...

    async def decide(self, run_id: RunId, command: DecideGate) -> tuple[Run, bool]:
        """Decide a gate; return the run, and whether an engine goes on with it."""
        ...

    async def list_waits(self) -> Sequence[OpenWait]:
        """Return the open waits, oldest first."""
        ...

    async def resolve(self, run_id: RunId, command: ResolveWait) -> tuple[Run, Wait | None]:
        """Say that what a wait waits for has come; without a wait nothing was resolved."""
        ...

    # Automations

    async def list_automations(self, *, after_id: str, limit: int) -> Sequence[StoredAutomation]:
        """Return automations by id."""
        ...

    async def automation(
        self, automation_id: str, version: int | None = None
    ) -> tuple[StoredAutomation, Automation]:
        """Return the row of an automation, and its definition: the current or an older one."""
        ...

    async def records(self, row: StoredAutomation) -> Sequence[AutomationRecord]:
        """Return what happened to an automation."""
        ...

    async def firings(
        self, row: StoredAutomation, *, limit: int
    ) -> tuple[StoredAutomation, Sequence[Firing]]:
        """Return the row with all that decides when it fires next, and its newest firings."""
        ...

    async def save(
        self, automation: Automation, *, expected_version: int | None, reason: str
    ) -> tuple[StoredAutomation, str]:
        """Save a definition; return the row and what happened, empty for nothing."""
        ...

    async def hold(self, automation_id: str, what: str, *, reason: str) -> StoredAutomation:
        """Pause, resume or delete an automation; return its row after that."""
        ...

    # Webhooks

    @property
    def hooks(self) -> HookDesk:
        """The webhook triggers."""
        ...

    # Backlogs

    async def backlog(self, run_id: RunId) -> tuple[Mapping[str, Any], list[str]]:
        """Return the tasks of a run as programs are shown them, and what was wrong with some."""
        ...

    async def claim_task(
        self, run_id: RunId, task_id: str, *, agent_id: str, lease_ms: int, reason: str
    ) -> Mapping[str, Any]:
        """Have a task for a span; return it."""
        ...

    async def requeue_task(self, run_id: RunId, task_id: str, *, reason: str) -> Mapping[str, Any]:
        """Give a task back; return it."""
        ...

    async def complete_task(
        self, run_id: RunId, task_id: str, *, agent_id: str, lease_token: str, reason: str
    ) -> Mapping[str, Any]:
        """End a task that is claimed; return it."""
        ...

    # Tokens

    async def list_tokens(self, tenant: TenantId | None, *, limit: int) -> Sequence[Token]:
        """Return tokens by id, those of a tenant or all that whoever asks may see."""
        ...

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
        """Make a token; what is returned beside it is its text, which nobody can tell again."""
        ...

    async def revoke_token(self, token_id: str) -> Token:
        """End a token for good."""
        ...

    # Following

    def watch(self, run_id: RunId | None, *, after: str) -> AsyncIterator[Mapping[str, Any]]:
        """Yield published events, those of one run from its beginning to its end; see `watch`."""
        ...
