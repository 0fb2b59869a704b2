"""The port of the store: the one place where the state of runs lives."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from tandem.domain.admission import Lock
from tandem.domain.artifact import NodeArtifact
from tandem.domain.automation_keeping import AutomationCommand
from tandem.domain.automation_review import Review
from tandem.domain.change import Change
from tandem.domain.command import Command
from tandem.domain.creation import NewRun
from tandem.domain.event_cursor import EventTail
from tandem.domain.ids import (
    AutomationId,
    ChangeId,
    Digest,
    EngineId,
    NodeId,
    RunId,
    TenantId,
    WaitId,
)
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import RunState
from tandem.domain.reading import Reading
from tandem.domain.request_key import RequestKey
from tandem.domain.run import Attempt, Gate, GateStatus, Handling, LifecycleEvent, Run, Wait
from tandem.domain.run_picture import RunPicture
from tandem.domain.signal import Signal
from tandem.domain.standing import Holder
from tandem.domain.stored_automation import AutomationChange, AutomationRecord, StoredAutomation
from tandem.domain.view import RunView
from tandem.ports.access import AccessStore
from tandem.ports.backlog import BacklogStore
from tandem.ports.learning import LearningStore
from tandem.ports.triggers import TriggerStore
from tandem.ports.webhooks import WebhookStore


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
    """One engine as the store knows it. `lock_path` is the file whose lock dies with it.

    `labels` are what it has, `runs_max` is how many runs it drives at once, `runs_total_max` how
    many all engines may drive for it to take another. With `own_only` it takes runs of its own.
    """

    engine_id: EngineId
    host: str
    pid: int
    version: str
    lock_path: str
    started_at_ms: int
    lease_until_ms: int
    lease_ms: int = 30_000
    """How long the lease lasts: an engine that lives renews it several times in this span."""
    labels: tuple[str, ...] = ()
    runs_max: int = 0
    runs_total_max: int | None = None
    own_only: bool = False


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


class Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """A driven run that shows no life, as it was seen."""

    run_id: RunId
    tenant: TenantId
    engine_id: EngineId
    last_change_id: ChangeId
    activity_at_ms: int | None


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs a list shows; `before_no` continues an earlier page."""

    tenant: TenantId
    statuses: tuple[RunState, ...] = ()
    automation_id: AutomationId | None = None
    before_no: int | None = None
    limit: int = 50


class RunPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a list of runs: that of the last run that was looked at."""

    run_no: int
    created_at_ms: int


class RunSearch(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs a page shows; `after` continues an earlier page of the same search.

    A run was created at or after `created_from_ms` and before `created_until_ms`. `text` is part of
    its id, its automation's id, its name or its detail, in whatever case of ASCII letters.
    """

    tenant: TenantId
    statuses: tuple[RunState, ...] = ()
    automation_id: AutomationId | None = None
    trigger_type: str = ""
    text: str = ""
    created_from_ms: int | None = None
    created_until_ms: int | None = None
    after: RunPlace | None = None
    limit: int = 50
    looks_max: int = 5_000
    """So many runs one page looks at."""


Mark = tuple[object, ...]
"""Tells whether something is still what it was; it can be compared and hashed, and says no more."""


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some runs, newest first. `next` is None when there are no more.

    Of a run that is what lists show: without its inputs, its context and what was learned of it.
    A page may be short, even empty, and have a next one: it has looked at as many runs as it may.
    """

    marks: Sequence[Mark]
    """Of each run of the page one that is another one whenever its row shows something else."""
    runs: Sequence[Run]
    """In the order of the marks, without those whose mark was known."""
    next: RunPlace | None


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """The outputs of a run that count: how many, and those of which something was let pass."""

    run_id: RunId
    automation_id: AutomationId
    outputs: int
    relaxed: Sequence[tuple[Reading, Handling | None]]


class OpenGate(msgspec.Struct, frozen=True, kw_only=True):
    """A gate together with the run that asks."""

    run_id: RunId
    automation_id: AutomationId
    name: str
    run_status: RunState
    started_by: str
    gate: Gate


class OpenWait(msgspec.Struct, frozen=True, kw_only=True):
    """A wait that can still be woken, together with the run that waits."""

    run_id: RunId
    automation_id: AutomationId
    name: str
    run_status: RunState
    wait: Wait


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a signal: whom it woke by which change, and who did not want it and why.

    `is_new` is false when it had been accepted before. `is_open` says that more waits are to be
    looked at.
    """

    signal_no: int
    received_at_ms: int
    is_new: bool
    is_open: bool = False
    woken: tuple[tuple[WaitId, Change], ...] = ()
    refused: tuple[tuple[WaitId, str], ...] = ()


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One run and what may hold it, read as one picture.

    `throttles` are those of providers that the run still needs. `holders` are some of the runs
    that have its concurrency key, `claims` is how many there are without itself. `events` are the
    newest ones, newest first.
    """

    run: Run
    gates: Sequence[Gate]
    waits: Sequence[Wait]
    events: Sequence[LifecycleEvent]
    throttles: Mapping[str, int]
    lock: Lock | None
    automation: StoredAutomation | None
    holders: Sequence[Holder]
    claims: int
    review: Review | None = None


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are wanted; None leaves a part open."""

    tenant: TenantId | None = None
    automation_id: AutomationId | None = None
    run_id: RunId | None = None


class EventRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A lifecycle event with its run: a part of the row as it is now, without what may be large.

    `status` is that of the run after the change that recorded the event.
    """

    run: Run
    event: LifecycleEvent
    status: RunState


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some events in order. `position` is up to where everything was looked at.

    `is_last` says that this was the newest position when it was read, `is_expired` that events
    after the position that was asked for may be packed, and so missing here.
    """

    records: Sequence[EventRecord]
    position: int
    is_last: bool
    is_expired: bool = False


class LaneCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many queued runs are alike; `reason` is what is stored of them, empty for none."""

    labels: tuple[str, ...]
    owner: EngineId | None
    reason: str
    is_due: bool
    runs: int


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """The queue of all tenants and what was counted; `waits_ms` are those of the newest claims."""

    active_runs: int
    lanes: Sequence[LaneCount]
    admitted_total: int
    completed_total: int
    waits_ms: Sequence[int]


class Store(LearningStore, AccessStore, TriggerStore, BacklogStore, WebhookStore, Protocol):
    """Rows of runs. Every write is one transaction, on disk before the awaitable is done."""

    async def create_run(self, new: NewRun, *, now_ms: int) -> Run:
        """Create a run and its first lifecycle events; unless it is dry it is due at once.

        With a key the run and the key are one write: the same request again, also at the same
        moment, also after a crash, creates nothing and returns the run that the first one created.

        Raises:
            NotFound: it is of a stored automation, which is not there any more.
            Refused: it is of a stored automation that is a draft, and not dry; or its key belongs
                to another request.
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
        self,
        run_id: RunId,
        command: Command,
        *,
        tenant: TenantId,
        change_id: ChangeId,
        now_ms: int,
        key: RequestKey | None = None,
    ) -> Change:
        """Lock the run, load it, decide, write: one transaction.

        A repair with `save` writes the stored automation with it (`domain/saved_repair.py`). So is
        a key, unless the command is refused.

        Raises:
            NotFound: no such run for this tenant.
            NothingToDo: the key says that the same request was done before.
            Refused: the state of the run does not allow it, or the key belongs to another request.
            StoreUnavailable: nothing was written.
        """
        ...

    async def fork(
        self,
        run_id: RunId,
        node_id: NodeId,
        *,
        tenant: TenantId,
        fork: RunId,
        inputs: JsonObject,
        asks_again: bool,
        owner: EngineId | None,
        started_by: str = "",
        reason: str,
        change_id: ChangeId,
        now_ms: int,
        key: RequestKey | None = None,
    ) -> Run:
        """Create the run `fork` with the outputs of a run, to go its own way from a node on.

        `inputs` replaces some of the source's; without `started_by` it is that of the source. Both
        runs know of each other; one transaction. So does a key: the same request again gives the
        run that it made.

        Raises:
            NotFound: no such run or node for this tenant.
            InvalidAutomation: the inputs do not fit.
            Refused: the key belongs to another request.
            StoreUnavailable: nothing was written.
        """
        ...

    async def delete_run(self, run_id: RunId, *, tenant: TenantId) -> Sequence[Digest]:
        """Delete everything of an ended run; return the artifacts that nothing refers to now.

        Raises:
            NotFound: no such run for this tenant.
            Refused: it has not ended, or processes of it may still live.
            StoreUnavailable: nothing was deleted.
        """
        ...

    def list_forks(self, run_id: RunId, *, tenant: TenantId, limit: int) -> Sequence[Run]:
        """Return the runs that were forked from a run, oldest first."""
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

    def is_attempt_running(self, run_no: int, attempt: Attempt) -> bool:
        """Say whether an attempt is recorded as running; asked before its body begins."""
        ...

    def is_artifact_used(self, digest: Digest, *, tenant: TenantId) -> bool:
        """Say whether any run of the tenant refers to these bytes."""
        ...

    async def claim(
        self,
        engine_id: EngineId,
        *,
        limit: int,
        now_ms: int,
        new_change_id: Callable[[], ChangeId],
        own_only: bool = False,
        labels: Sequence[str] = (),
        runs_total_max: int | None = None,
    ) -> Sequence[Claimed]:
        """Claim up to `limit` due runs and return them ready to be driven.

        Tenants take turns, within one the oldest comes first. Runs that another living engine owns
        are left alone, with `own_only` all but its own; so are runs that need a label which is not
        among `labels`. With `runs_total_max` all engines together never hold more. No run is ever
        claimed by two engines; each claim raises the run's epoch and takes its workspace.

        A run that cannot be claimed now is passed over, however many there are: its row says what
        stands in the way (`domain.admission`), and it is looked at again when that is gone. Runs of
        a paused automation are put aside and runs that can never start are ended, in the same
        transaction; they take no place and no workspace, and they are returned too, so that
        somebody tells of them.
        """
        ...

    async def wake_freed(self, *, now_ms: int, limit: int) -> int:
        """Put runs back into the queue that wait for a key which is free; return how many.

        A net: whoever frees a key wakes the first of those who wait for it with the same change.
        Each call looks at the next `limit` keys.
        """
        ...

    async def archive(self, *, before_ms: int, rows_max: int, now_ms: int) -> int:
        """Pack rows of runs that ended and did not change since `before_ms`, oldest first.

        At most about `rows_max` rows move in one transaction; 0 says that nothing is left to move.
        No field is lost and every read answers as before. A run that changes again is unpacked
        in the transaction of that change; a deleted one goes with all that is packed of it.

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

    def search_runs(
        self, search: RunSearch, *, is_known: Callable[[Mark], bool] | None = None
    ) -> RunPage:
        """Return a page of rows of runs; never outputs or histories.

        Newest first: by number, and by creation where a span of it is asked for. Rows whose mark
        `is_known` are not read.
        """
        ...

    def read_picture(self, run_id: RunId, *, tenant: TenantId) -> RunPicture:
        """Return everything that the record of a run is made of, as of one moment.

        Of a run whose definition cannot be read the row, its events and its sessions are there.

        Raises:
            NotFound: no such run for this tenant.
        """
        ...

    def read_mark(self, run_id: RunId, *, tenant: TenantId) -> Mark | None:
        """Return a mark that is another one whenever `read_picture` would differ; None for no run.

        It costs one statement.
        """
        ...

    def list_judged(
        self, *, tenant: TenantId, since_ms: int, automation_id: AutomationId | None, limit: int
    ) -> Sequence[Judged]:
        """Return the outputs of the newest runs that were created since a moment."""
        ...

    def list_events(
        self,
        run_id: RunId,
        *,
        tenant: TenantId,
        after_seq: int,
        limit: int,
        as_stored: bool = False,
    ) -> Sequence[LifecycleEvent]:
        """Return lifecycle events of a run in order, those after `after_seq`.

        The metadata of each name the `effective_execution_profile` of the run, but `as_stored`
        for whoever checks their hashes.
        """
        ...

    def list_event_records(
        self, run_id: RunId, *, tenant: TenantId, after_seq: int, limit: int
    ) -> Sequence[EventRecord]:
        """Return the same as `list_events`, each with the state that its change led to.

        Raises:
            NotFound: no such run for this tenant.
        """
        ...

    def list_events_after(self, position: int, chosen: EventFilter, *, limit: int) -> EventPage:
        """Return events of all runs after a position, in the order of their commits.

        No event is ever committed at or before a position that a page has named: a store whose
        transactions may commit out of order shows only what is older than the oldest that is open.
        At most `limit` records are looked at, so a page may hold few or none and not be the last.
        Events of packed runs are found only when one run is chosen (`EventTail.packed_to`), those
        of deleted runs never.
        """
        ...

    def find_event_tail(self) -> EventTail:
        """Return which store this is and how far its events reach now."""
        ...

    def list_attempts(self, run_id: RunId, *, tenant: TenantId) -> Sequence[Attempt]:
        """Return the attempts of a run, by node and number."""
        ...

    def list_gates(
        self,
        *,
        tenant: TenantId,
        status: GateStatus,
        run_id: RunId | None,
        limit: int,
        newest_first: bool = False,
        after: OpenGate | None = None,
    ) -> Sequence[OpenGate]:
        """Return gates, oldest first; those of all runs also with the newest first.

        `after` goes on behind the last one of another page, with the newest first only.
        """
        ...

    def list_gates_of_run(self, run_id: RunId, *, tenant: TenantId) -> Sequence[Gate]:
        """Return every asking of a run, open or over, oldest first.

        Raises:
            NotFound: no such run for this tenant.
        """
        ...

    def list_waits(
        self, *, tenant: TenantId, limit: int, after: OpenWait | None = None
    ) -> Sequence[OpenWait]:
        """Return the waits of runs that go on, oldest first; `after` goes on behind one."""
        ...

    def find_woken_wait(
        self, run_id: RunId, idempotency_key: str, *, tenant: TenantId
    ) -> Wait | None:
        """Return the wait of a run that this key has woken, or None."""
        ...

    async def deliver(
        self, signal: Signal, *, tenant: TenantId, change_id: ChangeId, now_ms: int
    ) -> Delivered:
        """Keep a signal and wake the open waits that it is for, in one transaction.

        A wait that is registered later finds it too. The same subject and idempotency key again
        change nothing. At most 100 waits are woken; `continue_delivery` goes on.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...

    async def continue_delivery(
        self, signal_no: int, *, change_id: ChangeId, now_ms: int
    ) -> Delivered:
        """Wake more of the waits that a kept signal is for.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...

    def list_open_signals(self, *, limit: int) -> Sequence[int]:
        """Return the numbers of kept signals whose waits were not all looked at."""
        ...

    async def forget_signals(self, *, before_ms: int, limit: int) -> int:
        """Forget signals that were accepted before a moment; return how many.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...

    def list_due(self, *, now_ms: int, limit: int) -> Sequence[tuple[TenantId, RunId]]:
        """Return parked runs whose moment has come, earliest first."""
        ...

    def next_due_at_ms(self) -> int | None:
        """Return when the next run is due, queued or parked; None when none is."""
        ...

    def read_standing(self, run_id: RunId, *, tenant: TenantId, now_ms: int) -> Standing:
        """Return a run and what may hold it.

        Raises:
            NotFound: no such run for this tenant.
        """
        ...

    def read_queue(self, *, now_ms: int) -> Queue:
        """Return the queue of all tenants, counted, and what was counted of admissions."""
        ...

    def count_driven(self) -> Mapping[EngineId, int]:
        """Return how many runs each engine drives; engines that drive none are left out."""
        ...

    async def fail_unreadable(
        self,
        run_id: RunId,
        *,
        tenant: TenantId,
        dead: EngineId,
        why: str,
        change_id: ChangeId,
        now_ms: int,
    ) -> Change:
        """End a run whose engine died and whose definition cannot be read (T72).

        Raises:
            NotFound: no such run for this tenant.
            Refused: that engine does not drive it any more.
            StoreUnavailable: nothing was written.
        """
        ...

    def list_quiet(self, *, quiet_since_ms: int, limit: int) -> Sequence[Quiet]:
        """Return driven runs that showed no life since that moment."""
        ...

    def list_reaped(
        self, *, reaped_since_ms: int, attempts_max: int, limit: int
    ) -> Sequence[tuple[TenantId, RunId]]:
        """Return runs paused as stale since that moment that may go on, longest paused first."""
        ...

    async def put_engine(
        self, engine: EngineRow, *, active: Sequence[int] = (), now_ms: int = 0
    ) -> None:
        """Write the row of a live engine, or renew its lease.

        `active` are the numbers of its runs that show life at `now_ms`.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...

    async def remove_engine(
        self, engine_id: EngineId, *, lease_until_ms: int | None = None
    ) -> None:
        """Forget an engine that holds nothing any more.

        Who judges another engine by its lease says which lease that was; one that was renewed
        since then stays.
        """
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
