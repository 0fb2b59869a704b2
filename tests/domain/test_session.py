"""Which sessions of a run count, in every state of the run."""

from typing import Any

import msgspec
import pytest

from tandem.domain.ids import LOCAL_TENANT, RunId
from tandem.domain.lifecycle import RunState, StopKind
from tandem.domain.run import QueueReason, Run
from tandem.domain.session import InstanceRow, RunSessions, SessionRow, sessions_of
from tandem.testing.builders import fresh_view, python_node

S = RunState


def a_run(status: RunState, **fields: Any) -> Run:
    run = fresh_view(python_node("a")).run
    return msgspec.structs.replace(run, status=status, epoch=2, **fields)


def session(name: str, **fields: Any) -> SessionRow:
    values = {"tenant": LOCAL_TENANT, "session_id": name, "run_id": RunId("run"), "epoch": 2}
    return msgspec.convert(values | {"is_open": True, "is_mapped": True} | fields, SessionRow)


ROWS = [session("old", epoch=1), session("s1"), session("s2", is_open=False)]
INSTANCES = [InstanceRow(instance_id="i0", epoch=1), InstanceRow(instance_id="i1", epoch=2)]


@pytest.mark.parametrize("status", [S.RUNNING, S.PAUSING])
def test_sessions_of_the_claim_are_active_while_the_run_is_driven(status: RunState) -> None:
    assert sessions_of(a_run(status), ROWS, INSTANCES) == RunSessions(
        active_session_ids=("s1",), latest_session_id="s2", active_instance_ids=("i1",)
    )


@pytest.mark.parametrize(
    ("run", "latest"),
    [
        (a_run(S.CANCELLED), "s2"),
        (a_run(S.PAUSED), "s2"),
        (a_run(S.PAUSED, stop_kind=StopKind.GUARDRAIL_STOPPED), "s2"),
        (a_run(S.QUEUED, queue_reason=QueueReason.RETRY_BACKOFF), "s2"),
        (a_run(S.PAUSED, stop_kind=StopKind.STALE_REAPED), None),
        (a_run(S.PAUSED, parked="timer"), None),
        (a_run(S.QUEUED), None),
        (a_run(S.AWAITING_APPROVAL), None),
        (a_run(S.COMPLETED), None),
        (a_run(S.FAILED), None),
        (a_run(S.BLOCKED), None),
    ],
)
def test_a_run_that_rests_has_no_active_session(run: Run, latest: str | None) -> None:
    assert sessions_of(run, ROWS, INSTANCES) == RunSessions(latest_session_id=latest)


def test_a_new_claim_begins_without_sessions() -> None:
    run = msgspec.structs.replace(a_run(S.RUNNING), epoch=3)
    assert sessions_of(run, ROWS, INSTANCES) == RunSessions()
