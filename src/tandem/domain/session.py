"""Sessions and instances of runs: what is kept of them, and which of them count (run-lifecycle 7).

A session belongs to the claim that it was opened under. Which sessions of a run are active follows
from its row when somebody reads them, so a pause, a cancellation, a reaping or a new claim ends
them all without a write, and runs without sessions cost nothing.
"""

from collections.abc import Iterable, Sequence

import msgspec

from tandem.domain.ids import NodeId, RunId, TenantId
from tandem.domain.lifecycle import DRIVEN, RunState, StopKind
from tandem.domain.run import QueueReason, Run

S = RunState


class AddSession(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A session of a run was opened, for a node where one is known; again is harmless.

    The session is mapped to the run even if there is no such run.
    """

    session_id: str
    run_id: RunId
    node_id: NodeId | None = None


class SetMcpServers(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The MCP servers that a session may use; none removes the entry."""

    session_id: str
    servers: tuple[str, ...] = ()


class ClearSession(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A session was closed: it is mapped to nothing and active no more.

    It stays the latest one of its run, and its MCP servers stay.
    """

    session_id: str


class ForgetSessions(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Sessions are mapped to nothing and have no MCP servers; the record of the run stays."""

    session_ids: tuple[str, ...]


class AddInstance(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An agent-team instance works for a run; again is harmless."""

    instance_id: str
    run_id: RunId


class ClearInstance(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An instance works for the run no more."""

    instance_id: str
    run_id: RunId


SessionStep = (
    AddSession | SetMcpServers | ClearSession | ForgetSessions | AddInstance | ClearInstance
)


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One session. `epoch` is that of the claim; `is_mapped` lets a lookup find its run."""

    session_no: int = 0
    tenant: TenantId
    session_id: str
    run_id: RunId = RunId("")
    node_id: NodeId | None = None
    epoch: int = 0
    is_mapped: bool = False
    is_open: bool = False
    mcp_servers: tuple[str, ...] = ()


class InstanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a run, and the epoch of the claim."""

    instance_id: str
    epoch: int


class RunSessions(msgspec.Struct, frozen=True, kw_only=True):
    """What the record of a run says of its sessions (run-lifecycle 1.1)."""

    active_session_ids: tuple[str, ...] = ()
    latest_session_id: str | None = None
    active_instance_ids: tuple[str, ...] = ()


def sessions_of(
    run: Run, sessions: Iterable[SessionRow], instances: Sequence[InstanceRow]
) -> RunSessions:
    """Return what counts of the sessions of a run; `sessions` are in the order of their opening."""
    of_claim = [row for row in sessions if row.epoch == run.epoch]
    is_driven = run.status in DRIVEN
    latest = of_claim[-1].session_id if of_claim and _keeps_latest(run) else None
    return RunSessions(
        active_session_ids=tuple(r.session_id for r in of_claim if r.is_open and is_driven),
        latest_session_id=latest,
        active_instance_ids=tuple(
            row.instance_id for row in instances if row.epoch == run.epoch and is_driven
        ),
    )


def _keeps_latest(run: Run) -> bool:
    """Say whether the last step of the run left its latest session in the record.

    A pause, a cancellation and a guardrail do, and so does a backoff; an end, a reaping, a wait, a
    decision, a restart and a recovery do not.
    """
    match run.status:
        case S.RUNNING | S.PAUSING | S.CANCELLED:
            return True
        case S.PAUSED:
            return not run.parked and run.stop_kind is not StopKind.STALE_REAPED
        case S.QUEUED:
            return run.queue_reason is QueueReason.RETRY_BACKOFF
        case _:
            return False
