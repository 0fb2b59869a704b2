"""The port of the store: the one place where the state of runs lives."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from tandem.domain.automation_keeping import AutomationCommand
from tandem.domain.change import Change
from tandem.domain.command import Command
from tandem.domain.creation import NewRun
from tandem.domain.ids import AutomationId, ChangeId, EngineId, RunId, TenantId
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Attempt, Gate, GateStatus, LifecycleEvent, Run
from tandem.domain.stored_automation import (
    AutomationChange,
    AutomationRecord,
    StoredAutomation,
)
from tandem.domain.view import RunView


class Claimed(NamedTuple):
    """What a claim did to one run: the run after it, and the change.

    A run that is running now is to be driven. One that is not was put aside (it is still queued)
    or can never start (it has ended); its view may lack the nodes, when its definition is not
    readable.
    """

    view: RunView
    change: Change

    @property
    def is_taken(self) -> bool:
        """Whether the run is to be driven."""
        return self.view.run.status is RunState.RUNNING


class EngineRow(msgspec.Struct, frozen=True, kw_only=True):
    """One engine as the store knows it. `lock_path` is the file whose lock dies with it."""

    engine_id: EngineId
    host: str
    pid: int
    version: str
    lock_path: str
    started_at_ms: int
    lease_until_ms: int


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A run that an engine holds or owns, or whose processes it may have left."""

    run_id: RunId
    run_no: int
    tenant: TenantId
    status: RunState
    engine_id: EngineId | None
    owner: EngineId | None
    cleanup: EngineId | None
    last_change_id: ChangeId


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs a list shows; `before_no` continues an earlier page."""

    tenant: TenantId
    statuses: tuple[RunState, ...] = ()
    automation_id: AutomationId | None = None
    before_no: int | None = None
    limit: int = 50


class OpenGate(msgspec.Struct, frozen=True, kw_only=True):
    """A gate together with the run that asks."""

    run_id: RunId
    automation_id: AutomationId
    name: str
    run_status: RunState
    gate: Gate


class Store(Protocol):
    """Rows of runs. Every write is one transaction, on disk before the awaitable is done."""

    async def create_run(self, new: NewRun, *, now_ms: int) -> Run:
        """Create a run and its first lifecycle events; unless it is dry it is due at once.

        Raises:
            NotFound: it is of a stored automation, which is not there any more.
            Refused: it is of a stored automation that is a draft, and not dry.
            StoreUnavailable: nothing was written.
        """
        ...

    async def execute_on_automation(
        self,
        automation_id: AutomationId,
        command: AutomationCommand,
        *,
        tenant: TenantId,
        change_id: ChangeId,
        now_ms: int,
        document: bytes = b"",
    ) -> tuple[AutomationChange, Sequence[Change]]:
        """Lock an automation, load it, decide, write, with what follows for its runs: at once.

        Args:
            automation_id: the automation; a `Save` may make it.
            command: what is asked.
            tenant: whose it is.
            change_id: of this change; those of runs are made from it.
            now_ms: the moment.
            document: for a `Save`, the canonical JSON of the definition.

        Returns:
            The change, and the changes of the runs that a pause pauses.

        Raises:
            NotFound: no such automation for this tenant.
            Refused: its state does not allow it.
            StoreUnavailable: nothing was written.
        """
        ...

    def find_automation(
        self, automation_id: AutomationId, *, tenant: TenantId
    ) -> StoredAutomation | None:
        """Return the row of an automation, also of a deleted one, or None."""
        ...

    def list_automations(
        self, *, tenant: TenantId, after_id: str, limit: int
    ) -> Sequence[StoredAutomation]:
        """Return the automations that are there, by id, those after `after_id`."""
        ...

    def list_automation_records(
        self, automation: StoredAutomation, *, after_seq: int, limit: int
    ) -> Sequence[AutomationRecord]:
        """Return what happened to an automation, in order."""
        ...

    def automation_document(self, automation: StoredAutomation, version: int) -> bytes:
        """Return the canonical JSON of a version of an automation.

        Raises:
            NotFound: there is no such version.
        """
        ...

    def apply(self, change: Change) -> Awaitable[None]:
        """Write a driver's change, in the order of the calls; queued before this returns.

        Several changes of one run may be queued, each building on the one before. A refused or
        failed one refuses all behind it.

        Raises (when awaited):
            ChangeRefused: the run has moved on since; nothing was written.
            LeaseLost: another epoch drives the run; nothing was written.
            StoreUnavailable: nothing was written.
        """
        ...

    async def execute(
        self, run_id: RunId, command: Command, *, tenant: TenantId, change_id: ChangeId, now_ms: int
    ) -> Change:
        """Lock the run, load it, decide, write: one transaction.

        Raises:
            NotFound: no such run for this tenant.
            Refused: the state of the run does not allow it.
            StoreUnavailable: nothing was written.
        """
        ...

    async def claim(
        self,
        engine_id: EngineId,
        *,
        limit: int,
        own_only: bool,
        now_ms: int,
        new_change_id: Callable[[], ChangeId],
    ) -> Sequence[Claimed]:
        """Claim up to `limit` due runs, oldest first, and return them ready to be driven.

        Runs that another living engine owns are left alone, with `own_only` all but its own. No
        run is ever claimed by two engines; each claim raises the run's epoch. Runs of a paused
        automation are put aside and runs that can never start are ended, in the same transaction;
        they are returned too, so that somebody tells of them.
        """
        ...

    async def load(self, run_id: RunId, *, tenant: TenantId) -> RunView:
        """Load a run with its nodes, outputs, open gates and waits.

        Raises:
            NotFound: no such run for this tenant.
        """
        ...

    def find_run(self, run_id: RunId, *, tenant: TenantId) -> Run | None:
        """Return the row of a run, or None."""
        ...

    def list_runs(self, chosen: RunFilter) -> Sequence[Run]:
        """Return rows of runs, newest first; never outputs or histories."""
        ...

    def list_events(
        self, run_id: RunId, *, tenant: TenantId, after_seq: int, limit: int
    ) -> Sequence[LifecycleEvent]:
        """Return lifecycle events of a run in order, those after `after_seq`.

        The metadata of each name the `effective_execution_profile` of the run.
        """
        ...

    def list_attempts(self, run_id: RunId, *, tenant: TenantId) -> Sequence[Attempt]:
        """Return the attempts of a run, by node and number."""
        ...

    def list_gates(
        self, *, tenant: TenantId, status: GateStatus, run_id: RunId | None, limit: int
    ) -> Sequence[OpenGate]:
        """Return gates, oldest first."""
        ...

    def list_due(self, *, now_ms: int, limit: int) -> Sequence[tuple[TenantId, RunId]]:
        """Return parked runs whose moment has come, earliest first."""
        ...

    def next_due_at_ms(self) -> int | None:
        """Return when the next run is due, queued or parked; None when none is."""
        ...

    async def put_engine(self, engine: EngineRow) -> None:
        """Write the row of a live engine, or renew its lease.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...

    async def remove_engine(self, engine_id: EngineId) -> None:
        """Forget an engine that holds nothing any more."""
        ...

    def list_engines(self) -> Sequence[EngineRow]:
        """Return all engines that the store knows."""
        ...

    def list_held(self, engine_id: EngineId) -> Sequence[Held]:
        """Return the runs that this engine holds, owns or has to clean up."""
        ...

    async def changed_elsewhere(self) -> bool:
        """Say whether another process wrote to the store since the last call."""
        ...

    def document(self, view: RunView) -> bytes:
        """Return the canonical JSON of the definition that the run executes."""
        ...
