"""The port of the store: the one place where the state of runs lives."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from tandem.domain.artifact import NodeArtifact
from tandem.domain.change import Change
from tandem.domain.command import Command
from tandem.domain.graph import Plan
from tandem.domain.ids import AutomationId, ChangeId, EngineId, RunId, TenantId
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Attempt, Gate, GateStatus, LifecycleEvent, Run
from tandem.domain.view import RunView


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is about to be created."""

    run_id: RunId
    tenant: TenantId
    change_id: ChangeId
    plan: Plan
    document: bytes
    """The canonical JSON of the definition; stored once per tenant and digest."""
    inputs: JsonObject
    workspace: str
    trigger_type: str
    owner: EngineId | None


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
        """Create a queued run and its first lifecycle event; it is due at once."""
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
    ) -> Sequence[RunView]:
        """Claim up to `limit` due runs, oldest first, and return them ready to be driven.

        Runs that another living engine owns are left alone, with `own_only` all but its own. No
        run is ever claimed by two engines; each claim raises the run's epoch.
        """
        ...

    async def archive(self, *, before_ms: int, rows_max: int, now_ms: int) -> int:
        """Pack rows of runs that ended and did not change since `before_ms`, oldest first.

        At most about `rows_max` rows move in one transaction; 0 says that nothing is left to move.
        No field is lost and every read answers as before. A run that is recovered is unpacked in
        the transaction of its recovery.

        Raises:
            StoreUnavailable: nothing was written.
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
        """Return lifecycle events of a run in order, those after `after_seq`."""
        ...

    def list_attempts(self, run_id: RunId, *, tenant: TenantId) -> Sequence[Attempt]:
        """Return the attempts of a run, by node and number."""
        ...

    def list_artifacts(self, run_id: RunId, *, tenant: TenantId) -> Sequence[NodeArtifact]:
        """Return what the attempts of a run left, oldest first.

        Raises:
            NotFound: no such run for this tenant.
        """
        ...

    def list_artifacts_of_node(self, run_no: int, node_no: int) -> Sequence[NodeArtifact]:
        """Return what the attempts of one node left, oldest first."""
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
