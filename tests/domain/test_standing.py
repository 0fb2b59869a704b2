"""Why a run stands still: one sentence for every state, with holder, since, and what frees it."""

from typing import Any

import pytest

from tandem.domain.admission import Lock
from tandem.domain.automation import AutomationStatus
from tandem.domain.ids import (
    LOCAL_TENANT,
    AutomationId,
    ChangeId,
    DefinitionDigest,
    EngineId,
    GateId,
    NodeId,
    RunId,
    TenantId,
    WaitId,
)
from tandem.domain.lifecycle import TERMINAL, RunEvent, RunState
from tandem.domain.run import Gate, LifecycleEvent, PolicyState, QueueReason, Run, Wait
from tandem.domain.standing import (
    EngineFacts,
    Holder,
    Reason,
    ReasonKind,
    Situation,
    explain,
)
from tandem.domain.stored_automation import StoredAutomation
from tandem.testing.builders import fresh_view, python_node

NOW_MS = 100_000
A, B = EngineId("engine-a"), EngineId("engine-b")
K = ReasonKind


def run_with(**fields: Any) -> Run:
    run = fresh_view(python_node("n")).run
    run.queued_at_ms, run.due_at_ms = 40_000, 40_000
    for name, value in fields.items():
        setattr(run, name, value)
    return run


def engine(engine_id: EngineId = A, **fields: Any) -> EngineFacts:
    defaults = {"is_alive": True, "runs_max": 2, "where": "process 1 on here"}
    return EngineFacts(engine_id=engine_id, **(defaults | fields))


def why(run: Run, **facts: Any) -> Reason:
    facts.setdefault("engines", [engine()])
    return explain(Situation(run=run, now_ms=NOW_MS, **facts))


def lock_of(path: str, tenant: TenantId = LOCAL_TENANT) -> Lock:
    return Lock(
        path=path,
        run_no=7,
        run_id=RunId("holder"),
        tenant=tenant,
        epoch=1,
        engine_id=B,
        since_ms=70_000,
    )


# In the queue


def test_due_run_with_a_free_engine_is_about_to_be_claimed() -> None:
    found = why(run_with())

    assert found.kind is K.NOTHING
    assert "an engine is about to claim it" in found.sentence
    assert found.since_ms == 40_000


def test_since_is_the_creation_for_a_run_that_an_older_version_queued() -> None:
    assert why(run_with(queued_at_ms=None, created_at_ms=5)).since_ms == 5


def test_backoff_names_node_and_moment() -> None:
    run = run_with(
        due_at_ms=190_000,
        queue_reason=QueueReason.RETRY_BACKOFF,
        resource_key="automation://a/runs/r/nodes/fetch",
    )

    found = why(run)

    assert found.kind is K.RETRY_BACKOFF
    assert found.sentence == "waits for the next attempt of node `fetch`, due in 90 s"
    assert (found.until_ms, found.held_by) == (190_000, ("automation://a/runs/r/nodes/fetch",))


def test_run_that_is_not_due_for_no_stored_reason_waits_for_its_moment() -> None:
    found = why(run_with(due_at_ms=NOW_MS + 300_000))

    assert found.sentence == "waits for the next attempt, due in 5 min"
    assert found.held_by == ()


def stored_automation(status: AutomationStatus) -> StoredAutomation:
    return StoredAutomation(
        tenant=LOCAL_TENANT,
        automation_id=AutomationId("job"),
        name="Job",
        status=status,
        version=1,
        definition_digest=DefinitionDigest("sha256:1"),
        creator_id="ann",
        created_at_ms=1,
        updated_at_ms=1,
        paused_by="eve" if status is AutomationStatus.PAUSED else "",
        pause_reason="too loud" if status is AutomationStatus.PAUSED else "",
        paused_at_ms=70_000 if status is AutomationStatus.PAUSED else None,
        last_change_id=ChangeId("c"),
    )


@pytest.mark.parametrize("is_held", [True, False])
def test_paused_automation_is_told_by_whom_since_when_and_what_resumes_it(is_held: bool) -> None:
    fields = {"due_at_ms": None, "resource_key": "automation:job"} if is_held else {}
    run = run_with(**fields)

    # Whatever else it would have to wait for afterwards.
    found = why(run, automation=stored_automation(AutomationStatus.PAUSED), lock=lock_of("/r"))

    assert found.kind is K.AUTOMATION_PAUSED
    assert found.sentence == "automation `job` is paused by eve: too loud; 30 s ago"
    assert found.since_ms == 70_000
    assert found.held_by == ("automation:job",)
    assert found.freed_by == "`tandem automations resume job`"


def test_active_automation_holds_nothing() -> None:
    assert why(run_with(), automation=stored_automation(AutomationStatus.ACTIVE)).kind is K.NOTHING


def test_throttle_that_was_stored_and_one_that_is_new() -> None:
    stored = run_with(
        due_at_ms=NOW_MS + 5_000,
        queue_reason=QueueReason.RATE_LIMIT,
        rate_limited_provider="http:a",
    )

    for found in (
        why(stored),
        why(stored, throttles={"http:a": NOW_MS + 5_000}),
        why(run_with(), throttles={"http:a": NOW_MS + 5_000, "openai": NOW_MS + 1}),
    ):
        assert found.kind is K.RATE_LIMIT
        assert found.sentence == "provider http:a asked to be left alone for another 5 s"
        assert (found.held_by, found.until_ms) == (("http:a",), NOW_MS + 5_000)


def test_lock_names_holder_and_since() -> None:
    found = why(run_with(due_at_ms=None, lock_path="/r"), lock=lock_of("/r"))

    assert found.kind is K.WORKSPACE_LOCK
    assert (
        found.sentence == "its workspace /r is held by run holder on engine engine-b for 30 s now"
    )
    assert found.held_by == ("holder",)


def test_lock_of_an_overlapping_workspace_is_named() -> None:
    found = why(run_with(lock_path="/r/sub"), lock=lock_of("/r"))

    assert "its workspace /r/sub, which overlaps /r, is held" in found.sentence


def test_lock_of_another_tenant_tells_nothing_of_it() -> None:
    found = why(run_with(lock_path="/r/sub"), lock=lock_of("/r", TenantId("other")))

    assert "a run of another tenant" in found.sentence
    assert "holder" not in found.sentence
    assert "overlaps" not in found.sentence
    assert found.held_by == ()


@pytest.mark.parametrize(("claims", "more"), [(2, ""), (4, " and 2 more")])
def test_concurrency_names_key_places_and_holders(claims: int, more: str) -> None:
    run = run_with(concurrency_key="concurrency://local/deploy/eu", concurrency_limit=2)
    holders = [Holder(run_id=RunId(name), tenant=LOCAL_TENANT) for name in ("r1", "r2")]

    found = why(run, holders=holders, claims=claims)

    assert found.kind is K.CONCURRENCY
    assert found.sentence == (
        f"{claims} of 2 places of the concurrency key `deploy/eu` are taken by r1, r2{more}"
    )


# Capacity and engines


def test_no_engine_alive() -> None:
    found = why(run_with(), engines=[engine(is_alive=False)])

    assert (found.kind, found.missing) == (K.NO_ENGINE, ("engine",))


def test_engines_for_their_own_runs_do_not_help() -> None:
    found = why(run_with(), engines=[engine(own_only=True)])

    assert found.kind is K.NO_ENGINE
    assert "only runs of their own" in found.sentence


def test_missing_labels_are_named_by_the_engine_that_lacks_least() -> None:
    run = run_with(labels=("eu", "gpu"))

    found = why(run, engines=[engine(), engine(B, labels=("gpu",))])

    assert (found.kind, found.missing) == (K.NO_ENGINE, ("eu",))
    assert found.sentence == "no engine has all labels that it needs; missing: eu"


def test_owner_that_lives_is_the_only_one_who_counts() -> None:
    engines = [engine(), engine(B, own_only=True)]

    assert (
        "its owner, engine engine-b, is about" in why(run_with(owner=B), engines=engines).sentence
    )
    found = why(run_with(owner=B, labels=("gpu",)), engines=engines)
    assert found.sentence.startswith("its owner, engine engine-b, has not all labels")
    assert why(run_with(owner=EngineId("gone")), engines=engines).kind is K.NOTHING


@pytest.mark.parametrize(
    ("engines", "places"),
    [
        ([engine(driven=2)], "2 of 2 on engine engine-a"),
        ([engine(driven=1, runs_total_max=3), engine(B, driven=2)], None),
        ([engine(driven=1, runs_total_max=3), engine(B, driven=2, own_only=True)], "3 of 3 in all"),
        ([engine(driven=2), engine(B, driven=0)], None),
    ],
)
def test_capacity_is_told_when_every_engine_that_could_is_full(
    engines: list[EngineFacts], places: str | None
) -> None:
    if places is None:
        engines = [*engines, engine(EngineId("engine-c"))]
    found = why(run_with(), engines=engines)

    assert found.kind is (K.NOTHING if places is None else K.CAPACITY)
    assert (places or "nothing holds it") in found.sentence


# Elsewhere


def gate(**fields: Any) -> Gate:
    defaults: dict[str, Any] = {
        "gate_id": GateId("g1"),
        "node_no": 0,
        "node_id": NodeId("ask"),
        "instance": 1,
        "title": "Ask",
        "decisions": ("approve", "cancel"),
        "requested_at_ms": 30_000,
    }
    return Gate(**(defaults | fields))


def test_gate_tells_what_may_be_decided_and_when_it_expires() -> None:
    run = run_with(status=RunState.AWAITING_APPROVAL)
    other = gate(gate_id=GateId("g2"), node_id=NodeId("b"), requested_at_ms=50_000, expires_at_ms=9)

    found = why(run, gates=[other, gate()])

    assert found.sentence == "waits for a person to decide gate `ask`, `b`"
    assert found.freed_by == "a decision: approve, cancel"
    assert (found.since_ms, found.until_ms, found.held_by) == (30_000, 9, ("g1", "g2"))
    assert why(run).since_ms == run.updated_at_ms


def test_timer() -> None:
    run = run_with(
        status=RunState.PAUSED, parked="timer of node `later`", due_at_ms=NOW_MS + 8 * 3_600_000
    )
    wait = Wait(
        wait_id=WaitId("w"),
        node_no=0,
        node_id=NodeId("later"),
        kind="timer",
        due_at_ms=1,
        registered_at_ms=20_000,
    )

    found = why(run, waits=[wait])

    assert found.kind is K.TIMER
    assert found.sentence == "waits for the timer of node `later`, due in 8 h"
    assert (found.since_ms, found.held_by) == (20_000, ("w",))
    assert found.freed_by == "time"


def test_wait_for_a_signal_is_freed_by_it_and_by_time_only_while_time_has_something_to_do() -> None:
    wait = Wait(
        wait_id=WaitId("w"),
        node_no=0,
        node_id=NodeId("paid"),
        kind="webhook",
        signal_key="webhook:paid",
        registered_at_ms=20_000,
    )
    parked = "webhook of node `paid`"
    due = run_with(status=RunState.PAUSED, parked=parked, due_at_ms=NOW_MS + 60_000)

    found = why(due, waits=[wait])

    assert found.sentence == "waits for the webhook of node `paid`, due in 60 s"
    assert found.freed_by == "its signal (`tandem waits resolve`), or time"
    assert found.until_ms == NOW_MS + 60_000

    told = run_with(status=RunState.PAUSED, parked=parked, due_at_ms=None)
    escalated = why(told, waits=[wait])

    assert escalated.sentence == "waits for the webhook of node `paid`"
    assert escalated.freed_by == "its signal (`tandem waits resolve`)"
    assert escalated.until_ms is None


def test_gate_whose_expiry_told_somebody_already_waits_for_a_decision_alone() -> None:
    run = run_with(status=RunState.AWAITING_APPROVAL)
    told = PolicyState(escalated_at_ms=NOW_MS - 1, escalated_to="boss")

    found = why(run, gates=[gate(expires_at_ms=9, on_expiry="escalate", policy_state=told)])

    assert found.until_ms is None
    assert why(run, gates=[gate(expires_at_ms=9, on_expiry="escalate")]).until_ms == 9


def paused_event(**metadata: str) -> LifecycleEvent:
    return LifecycleEvent(
        seq=5,
        event=RunEvent.RUN_PAUSED,
        recorded_at_ms=60_000,
        change_id=ChangeId("c"),
        metadata=dict(metadata),
    )


def test_pause_tells_by_whom_and_why() -> None:
    run = run_with(status=RunState.PAUSED, pause_reason="lunch")
    later = LifecycleEvent(
        seq=6, event=RunEvent.GATE_DECIDED, recorded_at_ms=70_000, change_id=ChangeId("d")
    )

    found = why(run, events=[later, paused_event(actor="ann")])

    assert (found.kind, found.sentence) == (K.PAUSED, "paused by ann: lunch")
    assert (found.since_ms, found.held_by) == (60_000, ("ann",))
    assert why(run, events=[paused_event()]).sentence == "paused: lunch"
    assert why(run_with(status=RunState.PAUSED)).sentence == "paused: no reason was given"


@pytest.mark.parametrize(
    ("status", "kind"), [(RunState.RUNNING, K.RUNNING), (RunState.PAUSING, K.PAUSING)]
)
def test_driven_run_names_its_engine(status: RunState, kind: ReasonKind) -> None:
    run = run_with(status=status, engine_id=A, started_at_ms=45_000)

    assert (why(run).kind, why(run).since_ms) == (kind, 45_000)
    assert why(run, engines=[engine(is_alive=False)]).kind is K.ENGINE_DEAD
    assert "is gone" in why(run, engines=[engine(B)]).sentence


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_ended_run_may_still_have_processes(status: RunState) -> None:
    run = run_with(status=status, finished_at_ms=80_000, detail="as it is")

    assert why(run).sentence == f"it has ended, {status.value}: as it is"
    again = status in (RunState.FAILED, RunState.BLOCKED)
    assert why(run).freed_by == ("`tandem resume`" if again else "")
    run.cleanup = A
    assert (why(run).kind, why(run).held_by, why(run).since_ms) == (K.CLEANUP, (A,), 80_000)
    assert "is alive" in why(run).sentence
    assert why(run_with(status=status)).sentence == f"it has ended, {status.value}"


def test_queued_run_may_still_have_processes() -> None:
    reason = why(run_with(status=RunState.QUEUED, updated_at_ms=80_000, cleanup=A))
    assert (reason.kind, reason.held_by, reason.since_ms) == (K.CLEANUP, (A,), 80_000)
