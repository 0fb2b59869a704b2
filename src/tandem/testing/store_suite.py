"""The promises of `ports.store` as tests that every store must pass.

A store proves itself by a subclass with one fixture:

    class TestMyStore(StoreSuite):
        @pytest.fixture
        def open_store(self) -> Iterator[OpenStore]: ...

`open_store(fault)` opens the same place each time it is called. For assertions that explain
themselves, a `conftest.py` calls `pytest.register_assert_rewrite("tandem.testing.store_suite")`.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import pytest

from tandem.domain.action import CommandAction
from tandem.domain.admission import Needs
from tandem.domain.artifact import ArtifactRef
from tandem.domain.automation import Automation, canonical_document
from tandem.domain.change import Change
from tandem.domain.command import (
    Adopt,
    Allow,
    AutoResume,
    Cancel,
    DecideGate,
    Dispose,
    Pause,
    ProcessesEnded,
    Reap,
    Recover,
    Repair,
    Resume,
    SetOutput,
    Skip,
    Wake,
)
from tandem.domain.creation import NewRun
from tandem.domain.decision import decide
from tandem.domain.driving import advance
from tandem.domain.errors import (
    ChangeRefused,
    EngineError,
    InvalidAutomation,
    InvalidRequest,
    LeaseLost,
    NotFound,
    Refused,
    StoreUnavailable,
    StoreUnsure,
)
from tandem.domain.graph import Plan
from tandem.domain.ids import (
    LOCAL_TENANT,
    AutomationId,
    ChangeId,
    DefinitionDigest,
    Digest,
    EngineId,
    NodeId,
    RunId,
    TenantId,
)
from tandem.domain.json import digest
from tandem.domain.lifecycle import NodeState, RunEvent, RunState
from tandem.domain.outcome import Failed, FailureClass, Succeeded
from tandem.domain.request_key import RequestKey
from tandem.domain.run import AttemptEnd, GateStatus, Handling, Run
from tandem.domain.settling import Settled
from tandem.domain.signal import Signal, SignalKind
from tandem.domain.view import RunView
from tandem.ports.store import (
    Claimed,
    Delivered,
    EngineRow,
    OpenGate,
    OpenWait,
    RunFilter,
    Store,
)

NOW_MS = 1_700_000_000_000
ENGINE_A = EngineId("engine-a")
ENGINE_B = EngineId("engine-b")
OTHER_TENANT = TenantId("another")
LIMIT_S = 20
NO_NEEDS = Needs()


class CommitFault:
    """Makes commits fail. `arm` fails the next `times` commits before or after they took effect."""

    def __init__(self) -> None:
        self._moment = ""
        self._times = 0

    def arm(self, moment: str, *, times: int = 1) -> None:
        """Fail the next commits; `moment` is `before` or `after` the effect."""
        self._moment, self._times = moment, times

    def take(self) -> str:
        """Return the moment at which this commit has to fail, empty when it must not."""
        if self._times == 0:
            return ""
        self._times -= 1
        return self._moment


class OpenStore(Protocol):
    """Opens the store under test; each call gives another store on the same place."""

    def __call__(self, fault: CommitFault | None = None) -> Store: ...


def plan_of(nodes: Sequence[dict[str, Any]], *, name: str = "job") -> tuple[Plan, bytes]:
    """Return the plan of these nodes and its canonical document."""
    automation = Automation.model_validate(
        {"automation_id": name, "name": name, "flow": {"nodes": list(nodes)}}
    )
    document = canonical_document(automation)
    return Plan(automation, DefinitionDigest(digest(document))), document


def chain(length: int) -> list[dict[str, Any]]:
    """Return nodes `n0`, `n1`, … that run one after the other."""
    return [
        {
            "node_id": f"n{number}",
            "depends_on": [f"n{number - 1}"] if number else [],
            "action": {"kind": "command", "argv": ["true"]},
        }
        for number in range(length)
    ]


GATE = [{"node_id": "ask", "gate": {"required": True}}]
TIMER = [{"node_id": "later", "wait": {"kind": "timer", "delay_ms": 5_000}}]

CONDITION: list[dict[str, Any]] = [
    {
        "node_id": "w",
        "wait": {
            "kind": "external_condition",
            "condition_key": {"source": "literal", "value": "ready"},
            "timeout": {"expires_after_ms": 5_000},
        },
    }
]
WEBHOOK: list[dict[str, Any]] = [
    {
        "node_id": "w",
        "wait": {
            "kind": "webhook",
            "trigger_id": "hook",
            "provider": "git",
            "correlation": {
                "field": "body_digest",
                "value": {"source": "literal", "value": "d1"},
            },
            "timeout": {"expires_after_ms": 5_000},
        },
    }
]


class Scene:
    """One store with the little that most stories need."""

    def __init__(self, store: Store, *, name: str = "s") -> None:
        self.store = store
        self.name = name
        self._numbers = itertools.count(1)

    def change_id(self) -> ChangeId:
        """Return an id that no other scene of another name gives."""
        return ChangeId(f"{self.name}-change-{next(self._numbers)}")

    async def create(
        self,
        run_id: str,
        nodes: Sequence[dict[str, Any]] | None = None,
        *,
        tenant: TenantId = LOCAL_TENANT,
        owner: EngineId | None = None,
        now_ms: int = NOW_MS,
        automation: str = "job",
        needs: Needs = NO_NEEDS,
        inputs: Mapping[str, Any] | None = None,
    ) -> Run:
        """Create a run; a chain of two nodes unless told otherwise."""
        plan, document = plan_of(chain(2) if nodes is None else nodes, name=automation)
        new = NewRun(
            run_id=RunId(run_id),
            tenant=tenant,
            change_id=self.change_id(),
            plan=plan,
            document=document,
            inputs={"x": 1} if inputs is None else inputs,
            workspace="",
            trigger_type="manual",
            owner=owner,
            needs=needs,
        )
        return await self.store.create_run(new, now_ms=now_ms)

    async def claim(
        self,
        engine_id: EngineId = ENGINE_A,
        *,
        limit: int = 10,
        own_only: bool = False,
        now_ms: int = NOW_MS,
        labels: Sequence[str] = (),
        runs_total_max: int | None = None,
    ) -> Sequence[RunView]:
        """Claim due runs and return those that are to be driven."""
        found = await self.attempt_claim(
            engine_id,
            limit=limit,
            own_only=own_only,
            now_ms=now_ms,
            labels=labels,
            runs_total_max=runs_total_max,
        )
        return [claimed.view for claimed in found if claimed.is_taken]

    async def attempt_claim(
        self,
        engine_id: EngineId = ENGINE_A,
        *,
        limit: int = 10,
        own_only: bool = False,
        now_ms: int = NOW_MS,
        labels: Sequence[str] = (),
        runs_total_max: int | None = None,
    ) -> Sequence[Claimed]:
        """Claim due runs and return what became of each that was looked at."""
        return await self.store.claim(
            engine_id,
            limit=limit,
            own_only=own_only,
            now_ms=now_ms,
            new_change_id=self.change_id,
            labels=labels,
            runs_total_max=runs_total_max,
        )

    async def claimed_ids(self, engine_id: EngineId = ENGINE_A, **how: Any) -> list[str]:
        """Claim due runs and return their ids."""
        return [view.run.run_id for view in await self.claim(engine_id, **how)]

    async def claimed(self, run_id: str, nodes: Sequence[dict[str, Any]] | None = None) -> RunView:
        """Create a run and claim it."""
        await self.create(run_id, nodes)
        (view,) = await self.claim()
        return view

    def next(self, view: RunView, *settled: Settled, now_ms: int = NOW_MS) -> Change:
        """Decide the next change of a claimed run and make it part of the view."""
        change = advance(
            view,
            settled=settled,
            engine_id=view.run.engine_id or ENGINE_A,
            change_id=self.change_id(),
            now_ms=now_ms,
        )
        assert change is not None, "there was nothing to decide"
        view.apply(change)
        return change

    async def execute(
        self,
        run_id: str,
        command: Any,
        *,
        tenant: TenantId = LOCAL_TENANT,
        now_ms: int = NOW_MS,
        key: RequestKey | None = None,
    ) -> Change:
        """Execute a command."""
        return await self.store.execute(
            RunId(run_id),
            command,
            tenant=tenant,
            change_id=self.change_id(),
            now_ms=now_ms,
            key=key,
        )

    async def signal(
        self,
        subject: str,
        key: str = "k1",
        *,
        tenant: TenantId = LOCAL_TENANT,
        now_ms: int = NOW_MS,
        kind: SignalKind = SignalKind.EXTERNAL_CONDITION,
        **fields: Any,
    ) -> Delivered:
        """Deliver a signal."""
        signal = Signal(kind=kind, subject=subject, idempotency_key=key, **fields)
        return await self.store.deliver(
            signal, tenant=tenant, change_id=self.change_id(), now_ms=now_ms
        )

    async def fork(
        self,
        source: str,
        node_id: str,
        *,
        inputs: dict[str, Any],
        tenant: TenantId = LOCAL_TENANT,
    ) -> Run:
        """Fork a run; the new one is called `fork`."""
        return await self.store.fork(
            RunId(source),
            NodeId(node_id),
            tenant=tenant,
            fork=RunId("fork"),
            inputs=inputs,
            asks_again=False,
            owner=None,
            reason="",
            change_id=self.change_id(),
            now_ms=NOW_MS,
        )

    def get(self, run_id: str, *, tenant: TenantId = LOCAL_TENANT) -> Run:
        """Return the row of a run that must exist."""
        run = self.store.find_run(RunId(run_id), tenant=tenant)
        assert run is not None
        return run

    def events(self, run_id: str, *, after_seq: int = 0, limit: int = 1_000) -> list[RunEvent]:
        """Return what happened to a run."""
        found = self.store.list_events(
            RunId(run_id), tenant=LOCAL_TENANT, after_seq=after_seq, limit=limit
        )
        return [event.event for event in found]


def succeeded(node_no: int, number: int = 1, output: bytes = b'"done"') -> Settled:
    """Return the settled outcome of an attempt that went well."""
    return Settled(node_no=node_no, number=number, outcome=Succeeded(output=None), output=output)


def engine_row(engine_id: EngineId, *, lease_until_ms: int = NOW_MS + 30_000) -> EngineRow:
    """Return the row of an engine that lives."""
    return EngineRow(
        engine_id=engine_id,
        host="here",
        pid=1,
        version="1",
        lock_path="",
        started_at_ms=NOW_MS,
        lease_until_ms=lease_until_ms,
    )


class StoreSuite:
    """What a store promises. Subclass it and give `open_store`."""

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Open stores on one fresh place; close them afterwards."""
        raise NotImplementedError("a subclass says how its store is opened")

    @pytest.fixture
    def scene(self, open_store: OpenStore) -> Scene:
        """One store."""
        return Scene(open_store())

    # Creating and loading

    async def test_created_run_is_queued_due_and_has_its_first_event(self, scene: Scene) -> None:
        created = await scene.create("r1")

        run = scene.get("r1")
        assert run == created
        assert (run.status, run.due_at_ms, run.event_seq) == (RunState.QUEUED, NOW_MS, 1)
        assert (run.inputs, run.nodes_total, run.epoch) == ({"x": 1}, 2, 0)
        assert scene.events("r1") == [RunEvent.RUN_CREATED]

    @pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**30])
    async def test_number_is_kept_however_large_it_is(self, scene: Scene, number: int) -> None:
        created = await scene.create("r1", inputs={"x": [number]})
        assert scene.get("r1") == created
        assert created.inputs == {"x": [number]}
        with pytest.raises(InvalidRequest):
            await scene.execute("r1", Allow(max_total_tokens=number, reason="r", decided_by="ann"))
        assert scene.get("r1") == created

    async def test_run_id_is_taken_only_once(self, scene: Scene) -> None:
        await scene.create("r1")
        with pytest.raises(StoreUnavailable):
            await scene.create("r1")
        assert scene.events("r1") == [RunEvent.RUN_CREATED]

    async def test_missing_run_is_not_found(self, scene: Scene) -> None:
        assert scene.store.find_run(RunId("none"), tenant=LOCAL_TENANT) is None
        with pytest.raises(NotFound):
            await scene.store.load(RunId("none"), tenant=LOCAL_TENANT)
        with pytest.raises(NotFound):
            await scene.execute("none", Cancel())
        with pytest.raises(NotFound):
            scene.events("none")

    async def test_another_store_loads_what_was_written(self, open_store: OpenStore) -> None:
        scene = Scene(open_store())
        view = await scene.claimed("r1", [*chain(2), *GATE, *TIMER])
        await scene.store.apply(scene.next(view))
        await scene.store.apply(scene.next(view, succeeded(0, output=b'{"a":[1]}')))

        loaded = await open_store().load(RunId("r1"), tenant=LOCAL_TENANT)

        assert loaded.run == view.run
        assert loaded.nodes == view.nodes
        assert loaded.gates == view.gates
        assert loaded.waits == view.waits
        assert loaded.open_deps == view.open_deps
        assert loaded.node(0).output == b'{"a":[1]}'
        assert (list(loaded.gates), list(loaded.waits)) != ([], [])

    async def test_definition_is_kept_with_the_run(self, open_store: OpenStore) -> None:
        await Scene(open_store()).create("r1", chain(3))
        other = open_store()
        view = await other.load(RunId("r1"), tenant=LOCAL_TENANT)
        assert other.document(view) == plan_of(chain(3))[1]
        assert len(view.plan) == 3

    # Changes

    async def test_change_writes_run_nodes_attempts_and_events(self, scene: Scene) -> None:
        view = await scene.claimed("r1")
        await scene.store.apply(scene.next(view))
        await scene.store.apply(scene.next(view, succeeded(0)))

        assert scene.events("r1") == [
            RunEvent.RUN_CREATED,
            RunEvent.RUN_CLAIMED,
            RunEvent.NODE_STARTED,
            RunEvent.NODE_COMPLETED,
            RunEvent.NODE_STARTED,
        ]
        first, second = scene.store.list_attempts(RunId("r1"), tenant=LOCAL_TENANT)
        assert (first.attempt_id, first.outcome) == ("r1/n0/1", AttemptEnd.SUCCEEDED)
        assert (first.started_at_ms, first.ended_at_ms) == (NOW_MS, NOW_MS)
        assert (second.attempt_id, second.outcome) == ("r1/n1/1", None)
        assert scene.get("r1").nodes_completed == 1

    async def test_attempt_runs_until_it_has_ended_or_another_claim_began(
        self, scene: Scene
    ) -> None:
        view = await scene.claimed("r1")
        first = scene.next(view)
        (attempt,) = first.attempts_started
        assert not scene.store.is_attempt_running(view.run.run_no, attempt)
        await scene.store.apply(first)
        assert scene.store.is_attempt_running(view.run.run_no, attempt)
        later = msgspec.structs.replace(attempt, number=2)
        assert not scene.store.is_attempt_running(view.run.run_no, later)

        await scene.execute("r1", Adopt(dead=ENGINE_A))
        assert not scene.store.is_attempt_running(view.run.run_no, attempt)
        (fresh,) = await scene.claim(ENGINE_B)
        again = scene.next(fresh)
        await scene.store.apply(again)
        (second,) = again.attempts_started
        assert scene.store.is_attempt_running(fresh.run.run_no, second)
        assert not scene.store.is_attempt_running(fresh.run.run_no, attempt)
        await scene.store.apply(scene.next(fresh, succeeded(0, number=2)))
        assert not scene.store.is_attempt_running(fresh.run.run_no, second)

    async def test_change_on_an_older_state_is_refused_and_writes_nothing(
        self, scene: Scene
    ) -> None:
        view = await scene.claimed("r1")
        await scene.execute("r1", Pause())
        before = scene.get("r1"), scene.events("r1")

        with pytest.raises(ChangeRefused):
            await scene.store.apply(scene.next(view))

        assert (scene.get("r1"), scene.events("r1")) == before
        assert scene.store.list_attempts(RunId("r1"), tenant=LOCAL_TENANT) == []

    async def test_change_of_an_engine_that_lost_its_claim_is_refused_as_lease_lost(
        self, scene: Scene
    ) -> None:
        stale = await scene.claimed("r1")
        await scene.execute("r1", Adopt(dead=ENGINE_A))
        (fresh,) = await scene.claim(ENGINE_B)
        assert fresh.run.epoch == stale.run.epoch + 1
        before = scene.get("r1"), scene.events("r1")

        with pytest.raises(LeaseLost):
            await scene.store.apply(scene.next(stale))

        assert (scene.get("r1"), scene.events("r1")) == before

    async def test_same_change_twice_is_refused_the_second_time(self, scene: Scene) -> None:
        view = await scene.claimed("r1")
        change = scene.next(view)
        await scene.store.apply(change)
        before = scene.events("r1")
        with pytest.raises(ChangeRefused):
            await scene.store.apply(change)
        assert scene.events("r1") == before

    async def test_queued_changes_build_on_each_other(self, scene: Scene) -> None:
        view = await scene.claimed("r1", chain(4))
        changes = [scene.next(view)]
        changes += [scene.next(view, succeeded(number)) for number in range(4)]

        written = [scene.store.apply(change) for change in changes]
        await asyncio.gather(*written)

        run = scene.get("r1")
        assert (run.status, run.nodes_completed) == (RunState.COMPLETED, 4)
        assert run == view.run
        seqs = [
            event.seq
            for event in scene.store.list_events(
                RunId("r1"), tenant=LOCAL_TENANT, after_seq=0, limit=100
            )
        ]
        assert seqs == list(range(1, run.event_seq + 1))

    async def test_refused_change_refuses_all_queued_behind_it(self, scene: Scene) -> None:
        view = await scene.claimed("r1", chain(4))
        await scene.execute("r1", Pause())
        await scene.create("r2")
        before = scene.get("r1"), scene.events("r1")
        changes = [scene.next(view)]
        changes += [scene.next(view, succeeded(number)) for number in range(3)]

        written = [scene.store.apply(change) for change in changes]
        neighbour = asyncio.ensure_future(scene.execute("r2", Pause()))
        results = await asyncio.gather(*written, return_exceptions=True)

        assert [type(result) for result in results] == [ChangeRefused] * 4
        assert (scene.get("r1"), scene.events("r1")) == before
        await neighbour
        assert scene.get("r2").status is RunState.PAUSED

    async def test_command_between_queued_changes_refuses_those_behind_it(
        self, scene: Scene
    ) -> None:
        view = await scene.claimed("r1", chain(4))
        first, second = scene.next(view), scene.next(view, succeeded(0))

        one = scene.store.apply(first)
        pause = asyncio.ensure_future(scene.execute("r1", Pause()))
        await asyncio.wait_for(pause, LIMIT_S)
        two = scene.store.apply(second)

        await one
        with pytest.raises(ChangeRefused):
            await two
        assert scene.get("r1").status is RunState.PAUSING

    # Commands

    async def test_refused_command_writes_nothing(self, scene: Scene) -> None:
        await scene.create("r1")
        before = scene.get("r1"), scene.events("r1")
        with pytest.raises(Refused):
            await scene.execute("r1", Resume())
        assert (scene.get("r1"), scene.events("r1")) == before

    async def test_command_never_loses_to_a_busy_driver(self, open_store: OpenStore) -> None:
        """A driver that writes back to back holds a command of another store up, never off."""
        busy, calm = Scene(open_store(), name="busy"), Scene(open_store(), name="calm")
        view = await busy.claimed("r1", chain(400))
        paused = asyncio.Event()
        written = 0

        async def drive() -> None:
            nonlocal written
            change = busy.next(view)
            for number in range(399):
                await busy.store.apply(change)
                written += 1
                change = busy.next(view, succeeded(number))

        async def pause() -> None:
            await calm.execute("r1", Pause())
            paused.set()

        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(ChangeRefused):
                await asyncio.gather(drive(), pause())
        await paused.wait()
        # It had its turn long before the driver was through.
        assert written < 300
        # Nothing ran yet if the pause came before the first node.
        assert calm.get("r1").status in (RunState.PAUSING, RunState.PAUSED)

    async def test_gate_is_decided_once(self, scene: Scene) -> None:
        view = await scene.claimed("r1", GATE)
        await scene.store.apply(scene.next(view))
        (waiting,) = scene.store.list_gates(
            tenant=LOCAL_TENANT, status=GateStatus.OPEN, run_id=None, limit=10
        )
        assert (waiting.run_id, waiting.gate.node_id) == ("r1", "ask")

        results = await asyncio.gather(
            scene.execute("r1", DecideGate(decision="approve")),
            scene.execute("r1", DecideGate(decision="cancel")),
            return_exceptions=True,
        )

        assert [type(result) for result in results] == [Change, Refused]
        (decided,) = scene.store.list_gates(
            tenant=LOCAL_TENANT, status=GateStatus.DECIDED, run_id=RunId("r1"), limit=10
        )
        assert decided.gate.decision == "approve"
        assert scene.get("r1").status is RunState.QUEUED

    async def test_decision_for_another_asking_is_written_and_refused(self, scene: Scene) -> None:
        view = await scene.claimed("r1", GATE)
        await scene.store.apply(scene.next(view))

        wrong = DecideGate(decision="approve", transition_id="another")
        change = await scene.execute("r1", wrong)

        assert change.denial is not None
        assert scene.events("r1")[-1] is RunEvent.GATE_GUARD_DENIED
        (gate,) = scene.store.list_gates_of_run(RunId("r1"), tenant=LOCAL_TENANT)
        assert (gate.status, gate.guard_denials) == (GateStatus.OPEN, 1)

    async def test_gate_comes_back_as_it_was_written(
        self, scene: Scene, open_store: OpenStore
    ) -> None:
        expiry = {"expires_after_ms": 5, "on_expiry": "escalate", "remind_every_ms": 2}
        gate = {"required": True, "rework_targets": ["a"], "expiry_policy": expiry}
        view = await scene.claimed("r1", [{"node_id": "ask", "gate": gate}])
        await scene.store.apply(scene.next(view))

        change = await scene.execute("r1", Wake(), now_ms=NOW_MS + 5)

        kept = open_store().list_gates_of_run(RunId("r1"), tenant=LOCAL_TENANT)
        assert list(kept) == list(change.gates)
        assert kept[0].policy_state.escalated_at_ms == NOW_MS + 5
        with pytest.raises(NotFound):
            scene.store.list_gates_of_run(RunId("r1"), tenant=OTHER_TENANT)

    async def test_late_decision_hears_who_won(self, scene: Scene) -> None:
        view = await scene.claimed("r1", GATE)
        await scene.store.apply(scene.next(view))
        await scene.execute("r1", DecideGate(decision="approve", decided_by="eve"))

        with pytest.raises(Refused) as late:
            await scene.execute("r1", DecideGate(decision="cancel"))

        assert late.value.details["winningDecision"]["decided_by"] == "eve"

    # Signals

    async def test_signal_wakes_the_wait_that_it_is_for(
        self, scene: Scene, open_store: OpenStore
    ) -> None:
        view = await scene.claimed("r1", CONDITION)
        await scene.store.apply(scene.next(view))
        (waiting,) = scene.store.list_waits(tenant=LOCAL_TENANT, limit=10)
        assert (waiting.run_id, waiting.wait.kind) == ("r1", "external_condition")

        found = await scene.signal("ready")

        assert found.is_new
        assert [change.run.run_id for _, change in found.woken] == ["r1"]
        assert scene.get("r1").status is RunState.QUEUED
        assert scene.store.list_waits(tenant=LOCAL_TENANT, limit=10) == []
        woken = open_store().find_woken_wait(RunId("r1"), "k1", tenant=LOCAL_TENANT)
        assert woken is not None
        assert woken.wait_id == waiting.wait.wait_id
        nothing = scene.store.find_woken_wait(RunId("r1"), "k2", tenant=LOCAL_TENANT)
        assert nothing is None

    async def test_signal_that_came_first_wakes_the_wait_when_it_is_registered(
        self, scene: Scene
    ) -> None:
        view = await scene.claimed("r1", CONDITION)
        early = await scene.signal("ready")
        assert (early.is_new, early.woken) == (True, ())

        await scene.store.apply(scene.next(view))

        assert scene.get("r1").status is RunState.QUEUED
        assert RunEvent.WAIT_WOKEN_REQUEUED in scene.events("r1")

    async def test_condition_said_before_the_run_was_created_is_not_its(self, scene: Scene) -> None:
        await scene.signal("ready", now_ms=NOW_MS - 1)
        view = await scene.claimed("r1", CONDITION)

        await scene.store.apply(scene.next(view))

        assert scene.get("r1").status is RunState.PAUSED

    async def test_delivery_is_correlated_by_the_field_that_the_wait_names(
        self, scene: Scene
    ) -> None:
        view = await scene.claimed("r1", WEBHOOK)
        await scene.store.apply(scene.next(view))
        delivery: dict[str, Any] = {"kind": SignalKind.WEBHOOK, "provider": "git"}

        others: tuple[tuple[str, dict[str, Any]], ...] = (
            ("k1", {"provider_event_id": "e1"}),
            ("k2", {"body_digest": "d1", "provider": "hub"}),
            ("k3", {"body_digest": "d2"}),
        )
        for key, fields in others:
            found = await scene.signal("hook", key, **delivery | fields)
            assert found.woken == ()
        found = await scene.signal("hook", "k4", **delivery, body_digest="d1")

        assert len(found.woken) == 1

    async def test_same_signal_again_changes_nothing(self, scene: Scene) -> None:
        first = await scene.signal("ready")
        again = await scene.signal("ready", now_ms=NOW_MS + 9)

        assert (again.is_new, again.signal_no) == (False, first.signal_no)
        assert again.received_at_ms == NOW_MS
        assert (await scene.signal("ready", "k2")).is_new

    async def test_signal_of_another_tenant_wakes_nobody(self, scene: Scene) -> None:
        view = await scene.claimed("r1", CONDITION)
        await scene.store.apply(scene.next(view))

        found = await scene.signal("ready", tenant=OTHER_TENANT)

        assert found.woken == ()
        assert scene.get("r1").status is RunState.PAUSED
        assert scene.store.list_waits(tenant=OTHER_TENANT, limit=10) == []

    async def test_signal_for_many_waits_goes_on_where_it_was_cut_off(self, scene: Scene) -> None:
        for number in range(130):
            view = await scene.claimed(f"r{number}", CONDITION)
            await scene.store.apply(scene.next(view))

        found = await scene.signal("ready")
        assert (found.is_open, len(found.woken)) == (True, 100)
        assert scene.store.list_open_signals(limit=10) == [found.signal_no]
        rest = await scene.store.continue_delivery(
            found.signal_no, change_id=scene.change_id(), now_ms=NOW_MS
        )

        assert (rest.is_open, len(rest.woken)) == (False, 30)
        assert scene.store.list_open_signals(limit=10) == []
        done = await scene.store.continue_delivery(
            found.signal_no, change_id=scene.change_id(), now_ms=NOW_MS
        )
        assert done.woken == ()

    async def test_wait_that_does_not_want_a_signal_holds_up_no_other(self, scene: Scene) -> None:
        strict = [{**CONDITION[0], "wait": {**CONDITION[0]["wait"], "payload_schema": False}}]
        for run_id, nodes in (("r1", strict), ("r2", CONDITION)):
            view = await scene.claimed(run_id, nodes)
            await scene.store.apply(scene.next(view))

        found = await scene.signal("ready")

        assert [change.run.run_id for _, change in found.woken] == ["r2"]
        ((_, why),) = found.refused
        assert "misses the schema" in why

    async def test_signal_for_a_run_that_failed_counts_when_it_is_recovered(
        self, scene: Scene
    ) -> None:
        view = await scene.claimed("r1", [*CONDITION, *chain(1)])
        await scene.store.apply(scene.next(view))
        failed = Failed(failure_class=FailureClass.OUTPUT_TOO_LARGE, message="too much")
        await scene.store.apply(scene.next(view, Settled(node_no=1, number=1, outcome=failed)))
        assert scene.get("r1").status is RunState.FAILED
        found = await scene.signal("ready")
        assert found.woken == ()

        await scene.execute("r1", Recover())

        loaded = await scene.store.load(RunId("r1"), tenant=LOCAL_TENANT)
        assert loaded.node(0).state is NodeState.COMPLETED

    async def test_old_signals_are_forgotten(self, scene: Scene) -> None:
        await scene.signal("ready")
        await scene.signal("ready", "k2", now_ms=NOW_MS + 10)

        assert await scene.store.forget_signals(before_ms=NOW_MS, limit=10) == 0
        assert await scene.store.forget_signals(before_ms=NOW_MS + 5, limit=10) == 1
        assert (await scene.signal("ready")).is_new

    # Claims

    async def test_claim_takes_the_oldest_due_runs_up_to_the_limit(self, scene: Scene) -> None:
        for number in (2, 0, 1, 3):
            await scene.create(f"r{number}", now_ms=NOW_MS + number)
        views = await scene.claim(limit=2, now_ms=NOW_MS + 10)
        assert [view.run.run_id for view in views] == ["r0", "r1"]
        assert [view.run.epoch for view in views] == [1, 1]
        assert scene.get("r0").engine_id == ENGINE_A
        rest = await scene.claim(ENGINE_B, now_ms=NOW_MS + 10)
        assert [view.run.run_id for view in rest] == ["r2", "r3"]

    async def test_run_that_is_not_due_is_left(self, scene: Scene) -> None:
        await scene.create("r1", now_ms=NOW_MS + 1)
        assert await scene.claim(now_ms=NOW_MS) == []
        assert len(await scene.claim(now_ms=NOW_MS + 1)) == 1

    async def test_only_queued_runs_are_claimed(self, scene: Scene) -> None:
        for number in range(3):
            await scene.create(f"r{number}")
        await scene.execute("r0", Cancel())
        await scene.execute("r1", Pause())
        assert [view.run.run_id for view in await scene.claim()] == ["r2"]

    async def test_runs_of_another_living_engine_are_left(self, scene: Scene) -> None:
        await scene.store.put_engine(engine_row(ENGINE_B))
        await scene.create("of_b", owner=ENGINE_B)
        await scene.create("of_a", owner=ENGINE_A)
        await scene.create("of_nobody")
        assert {view.run.run_id for view in await scene.claim()} == {"of_a", "of_nobody"}

    async def test_run_whose_processes_may_live_is_not_claimed_before_they_are_dead(
        self, scene: Scene
    ) -> None:
        await scene.create("r1")
        await scene.create("r2")
        await scene.execute("r1", Pause())
        view = await scene.store.load(RunId("r1"), tenant=LOCAL_TENANT)
        queued = decide(view, Resume(), change_id=scene.change_id(), now_ms=NOW_MS)
        queued.run.cleanup = ENGINE_B
        await scene.store.apply(queued)
        assert await scene.claimed_ids() == ["r2"]
        assert await scene.claimed_ids() == []
        await scene.execute("r1", ProcessesEnded(engine_id=ENGINE_B))
        assert await scene.claimed_ids() == ["r1"]

    async def test_runs_of_an_engine_that_is_gone_are_claimed(self, scene: Scene) -> None:
        await scene.store.put_engine(engine_row(ENGINE_B))
        await scene.create("of_b", owner=ENGINE_B)
        assert await scene.claim() == []
        await scene.store.remove_engine(ENGINE_B)
        assert [view.run.run_id for view in await scene.claim()] == ["of_b"]

    async def test_own_only_claims_nothing_else(self, scene: Scene) -> None:
        await scene.create("of_nobody")
        await scene.create("of_gone", owner=ENGINE_B)
        await scene.create("of_a", owner=ENGINE_A)
        views = await scene.claim(own_only=True)
        assert [view.run.run_id for view in views] == ["of_a"]

    async def test_two_claims_at_once_share_the_runs(self, open_store: OpenStore) -> None:
        one, two = Scene(open_store(), name="one"), Scene(open_store(), name="two")
        for number in range(30):
            await one.create(f"r{number}")

        async with asyncio.timeout(LIMIT_S):
            rounds = await asyncio.gather(
                *(one.claim(ENGINE_A, limit=3) for _ in range(6)),
                *(two.claim(ENGINE_B, limit=3) for _ in range(6)),
            )

        claimed = [view.run.run_id for views in rounds for view in views]
        assert len(claimed) == len(set(claimed)) == 30
        for run_id in claimed:
            assert one.events(run_id).count(RunEvent.RUN_CLAIMED) == 1
            assert one.get(run_id).epoch == 1

    # Faults

    async def test_commit_that_failed_before_its_effect_wrote_nothing(
        self, open_store: OpenStore
    ) -> None:
        fault = CommitFault()
        scene = Scene(open_store(fault))
        view = await scene.claimed("r1")
        before = scene.get("r1"), scene.events("r1")
        change = scene.next(view)

        fault.arm("before")
        with pytest.raises(StoreUnavailable):
            await scene.store.apply(change)
        assert (scene.get("r1"), scene.events("r1")) == before

        await scene.store.apply(change)
        assert scene.get("r1").last_change_id == change.change_id

    async def test_commit_that_failed_after_its_effect_counts_as_written(
        self, open_store: OpenStore
    ) -> None:
        fault = CommitFault()
        scene = Scene(open_store(fault))
        fault.arm("after")
        await scene.create("r1")
        fault.arm("after")
        (view,) = await scene.claim()
        changes = [scene.next(view), scene.next(view, succeeded(0))]

        fault.arm("after")
        await asyncio.gather(*[scene.store.apply(change) for change in changes])
        assert scene.get("r1") == view.run

        fault.arm("after")
        await scene.execute("r1", Pause())
        assert scene.get("r1").status is RunState.PAUSING
        fault.arm("after")
        await scene.store.put_engine(engine_row(ENGINE_B))
        assert [row.engine_id for row in scene.store.list_engines()] == [ENGINE_B]
        fault.arm("after")
        await scene.store.remove_engine(ENGINE_B)
        assert scene.store.list_engines() == []

    async def test_end_of_a_run_that_is_packed_in_the_same_commit_counts_as_written(
        self, open_store: OpenStore
    ) -> None:
        fault = CommitFault()
        scene = Scene(open_store(fault))
        await scene.create("r1")
        later_ms = NOW_MS + 1
        fault.arm("after")
        change, _ = await asyncio.gather(
            scene.execute("r1", Cancel()),
            scene.store.archive(before_ms=later_ms, rows_max=100, now_ms=later_ms),
        )
        row = scene.get("r1")
        assert row.archived_at_ms == later_ms, "both were one commit"
        assert row.last_change_id == change.change_id

    async def test_change_of_a_run_that_is_deleted_in_the_same_commit_is_not_called_unwritten(
        self, open_store: OpenStore
    ) -> None:
        fault = CommitFault()
        scene = Scene(open_store(fault))
        await scene.create("r1")
        fault.arm("after")
        asked, left = await asyncio.gather(
            scene.execute("r1", Cancel()),
            scene.store.delete_run(RunId("r1"), tenant=LOCAL_TENANT),
            return_exceptions=True,
        )
        assert isinstance(asked, StoreUnsure)
        assert "run r1 was deleted" in str(asked)
        assert left == []
        assert scene.store.find_run(RunId("r1"), tenant=LOCAL_TENANT) is None

    async def test_failed_commit_fails_everything_in_it(self, open_store: OpenStore) -> None:
        fault = CommitFault()
        scene = Scene(open_store(fault))
        one = await scene.claimed("r1", chain(3))
        two = await scene.claimed("r2")
        before = [(scene.get(name), scene.events(name)) for name in ("r1", "r2")]
        changes = [scene.next(one), scene.next(one, succeeded(0)), scene.next(two)]

        fault.arm("before")
        written = [scene.store.apply(change) for change in changes]
        results = await asyncio.gather(*written, return_exceptions=True)

        assert [type(result) for result in results] == [StoreUnavailable] * 3
        assert [(scene.get(name), scene.events(name)) for name in ("r1", "r2")] == before

    async def test_every_write_that_was_refused_by_the_disk_left_nothing(
        self, open_store: OpenStore
    ) -> None:
        fault = CommitFault()
        scene = Scene(open_store(fault))
        await scene.create("r1")
        before = scene.get("r1"), scene.events("r1")
        writes: list[Callable[[], Any]] = [
            lambda: scene.create("r2"),
            lambda: scene.claim(),
            lambda: scene.execute("r1", Pause()),
            lambda: scene.store.put_engine(engine_row(ENGINE_B)),
        ]
        for write in writes:
            fault.arm("before")
            with pytest.raises(StoreUnavailable):
                await write()
        assert (scene.get("r1"), scene.events("r1")) == before
        assert scene.store.find_run(RunId("r2"), tenant=LOCAL_TENANT) is None
        assert scene.store.list_engines() == []
        assert len(await scene.claim()) == 1

    # Tenants

    # Forks, repairs, deletion

    async def test_fork_begins_with_the_outputs_of_its_source(self, scene: Scene) -> None:
        """Both runs know of each other; the source is not disturbed."""
        view = await scene.claimed("source", chain(2))
        await scene.store.apply(scene.next(view))
        await scene.store.apply(scene.next(view, succeeded(0)))

        made = await scene.fork("source", "n1", inputs={})

        assert (made.forked_from, made.forked_from_node) == ("source", "n1")
        assert scene.get("fork") == made
        forked = await scene.store.load(RunId("fork"), tenant=LOCAL_TENANT)
        assert (forked.node(0).output, list(forked.ready)) == (b'"done"', [1])
        assert scene.events("fork") == [
            RunEvent.RUN_CREATED,
            RunEvent.RUN_FORKED_FROM,
            RunEvent.NODE_REUSED,
        ]
        assert scene.events("source")[-1] is RunEvent.RUN_FORKED
        listed = scene.store.list_forks(RunId("source"), tenant=LOCAL_TENANT, limit=5)
        assert [run.run_id for run in listed] == ["fork"]
        (claimed,) = await scene.claim()
        assert claimed.run.run_id == "fork"

    async def test_fork_that_is_refused_leaves_nothing(self, scene: Scene) -> None:
        """Neither run has changed."""
        await scene.create("source")
        before = scene.get("source")
        with pytest.raises(NotFound):
            await scene.fork("source", "no such node", inputs={})
        with pytest.raises(InvalidAutomation) as invalid:
            await scene.fork("source", "n1", inputs={"unknown": 1})
        with pytest.raises(NotFound):
            await scene.fork("source", "n1", inputs={}, tenant=OTHER_TENANT)
        assert {problem.code for problem in invalid.value.problems} == {"input_unknown"}
        assert scene.get("source") == before
        assert scene.store.find_run(RunId("fork"), tenant=LOCAL_TENANT) is None

    async def test_repair_pins_the_run_to_another_version(self, open_store: OpenStore) -> None:
        """Another store loads the run with its new version; others keep theirs."""
        scene = Scene(open_store())
        for name in ("one", "two"):
            await scene.create(name)
            await scene.execute(name, Pause())
        action = {"kind": "command", "argv": ["false"]}
        change = await scene.execute("one", Repair(node_id=NodeId("n1"), action=action))

        assert change.definition is not None
        other = open_store()
        for name, argv in (("one", ["false"]), ("two", ["true"])):
            loaded = await other.load(RunId(name), tenant=LOCAL_TENANT)
            node = loaded.plan.nodes[1].node
            assert isinstance(node.action, CommandAction)
            assert node.action.argv == argv
            assert str(digest(other.document(loaded))) == loaded.run.definition_digest

    async def test_what_people_did_to_a_node_is_kept(self, open_store: OpenStore) -> None:
        """Another store loads it."""
        scene = Scene(open_store())
        await scene.create("run")
        await scene.execute("run", Skip(node_id=NodeId("n0"), reason="no need"))
        await scene.execute("run", Dispose(node_id=NodeId("n0"), disposition="ok"))
        loaded = await open_store().load(RunId("run"), tenant=LOCAL_TENANT)
        assert loaded.node(0).handling == Handling(by_hand="skipped", disposition="accepted")

    async def test_deleted_run_is_gone_and_others_stay(self, scene: Scene) -> None:
        """Nothing of it is found; what it alone referred to is named."""
        ref = ArtifactRef(name="n0", digest=Digest("sha256:1"), size_bytes=9, media_type="x")
        own = msgspec.structs.replace(ref, digest=Digest("sha256:2"))
        for name in ("one", "two"):
            await scene.create(name, chain(2))
            for node_id, what in (("n0", ref), ("n1", own if name == "one" else ref)):
                command = SetOutput(node_id=NodeId(node_id), output=b"1", ref=what, reason="known")
                await scene.execute(name, command)
            await scene.execute(name, Cancel())
        with pytest.raises(NotFound):
            await scene.store.delete_run(RunId("one"), tenant=OTHER_TENANT)

        left = await scene.store.delete_run(RunId("one"), tenant=LOCAL_TENANT)

        assert left == ["sha256:2"]
        assert scene.store.is_artifact_used(ref.digest, tenant=LOCAL_TENANT)
        assert not scene.store.is_artifact_used(ref.digest, tenant=OTHER_TENANT)
        assert not scene.store.is_artifact_used(own.digest, tenant=LOCAL_TENANT)
        assert scene.store.find_run(RunId("one"), tenant=LOCAL_TENANT) is None
        with pytest.raises(NotFound):
            scene.events("one")
        assert scene.events("two") != []
        assert await scene.store.delete_run(RunId("two"), tenant=LOCAL_TENANT) == ["sha256:1"]

    async def test_run_that_goes_on_is_not_deleted(self, scene: Scene) -> None:
        """It stays as it is."""
        await scene.create("run")
        with pytest.raises(Refused) as refused:
            await scene.store.delete_run(RunId("run"), tenant=LOCAL_TENANT)
        assert refused.value.code == "run_not_ended"
        assert scene.get("run").status is RunState.QUEUED

    @pytest.mark.parametrize("moment", ["before", "after"])
    async def test_failed_commit_of_a_fork_or_deletion_is_judged_by_what_is_on_disk(
        self, open_store: OpenStore, moment: str
    ) -> None:
        """Before its effect nothing was written, after it everything."""
        fault = CommitFault()
        scene = Scene(open_store(fault))
        await scene.create("source")
        fault.arm(moment)
        if moment == "before":
            with pytest.raises(StoreUnavailable):
                await scene.fork("source", "n1", inputs={})
        else:
            await scene.fork("source", "n1", inputs={})
        found = scene.store.find_run(RunId("fork"), tenant=LOCAL_TENANT)
        assert (found is not None) == (moment == "after")
        await scene.execute("source", Cancel())
        fault.arm(moment)
        if moment == "before":
            with pytest.raises(StoreUnavailable):
                await scene.store.delete_run(RunId("source"), tenant=LOCAL_TENANT)
        else:
            await scene.store.delete_run(RunId("source"), tenant=LOCAL_TENANT)
        gone = scene.store.find_run(RunId("source"), tenant=LOCAL_TENANT) is None
        assert gone == (moment == "after")

    async def test_tenants_never_see_each_other(self, scene: Scene) -> None:
        await scene.create("r1", GATE)
        (view,) = await scene.claim()
        await scene.store.apply(scene.next(view))
        store = scene.store

        assert store.find_run(RunId("r1"), tenant=OTHER_TENANT) is None
        assert store.list_runs(RunFilter(tenant=OTHER_TENANT)) == []
        everything = RunFilter(tenant=OTHER_TENANT, statuses=tuple(RunState))
        assert store.list_runs(everything) == []
        by_name = RunFilter(tenant=OTHER_TENANT, automation_id=AutomationId("job"))
        assert store.list_runs(by_name) == []
        for run_id in (None, RunId("r1")):
            gates = store.list_gates(
                tenant=OTHER_TENANT, status=GateStatus.OPEN, run_id=run_id, limit=10
            )
            assert gates == []
        calls: list[Callable[[], Any]] = [
            lambda: store.list_events(RunId("r1"), tenant=OTHER_TENANT, after_seq=0, limit=1),
            lambda: store.list_attempts(RunId("r1"), tenant=OTHER_TENANT),
        ]
        for call in calls:
            with pytest.raises(NotFound):
                call()
        with pytest.raises(NotFound):
            await store.load(RunId("r1"), tenant=OTHER_TENANT)
        with pytest.raises(NotFound):
            await scene.execute("r1", Cancel(), tenant=OTHER_TENANT)
        assert scene.get("r1").status is RunState.AWAITING_APPROVAL

    async def test_same_definition_is_kept_for_each_tenant(self, open_store: OpenStore) -> None:
        scene = Scene(open_store())
        await scene.create("r1")
        await scene.create("r2", tenant=OTHER_TENANT)
        view = await open_store().load(RunId("r2"), tenant=OTHER_TENANT)
        assert open_store().document(view) == plan_of(chain(2))[1]

    # Lists

    @pytest.mark.parametrize("kind", ["all", "status", "statuses", "automation", "both"])
    async def test_lists_page_newest_first_and_miss_nothing(self, scene: Scene, kind: str) -> None:
        wanted = []
        for number in range(25):
            automation = "job" if number % 2 else "other"
            await scene.create(f"r{number}", automation=automation)
            if number % 5 == 0:
                await scene.execute(f"r{number}", Cancel())
            states = {
                "all": True,
                "status": number % 5 == 0,
                "statuses": True,
                "automation": number % 2 == 1,
                "both": number % 2 == 1 and number % 5 == 0,
            }
            if states[kind]:
                wanted.append(f"r{number}")
        statuses = {
            "status": (RunState.CANCELLED,),
            "statuses": (RunState.CANCELLED, RunState.QUEUED),
            "both": (RunState.CANCELLED,),
        }.get(kind, ())
        name = AutomationId("job") if kind in ("automation", "both") else None

        found: list[str] = []
        before_no: int | None = None
        for _ in range(20):
            page = scene.store.list_runs(
                RunFilter(
                    tenant=LOCAL_TENANT,
                    statuses=statuses,
                    automation_id=name,
                    before_no=before_no,
                    limit=2,
                )
            )
            if not page:
                break
            found += [run.run_id for run in page]
            before_no = page[-1].run_no
            # What arrives while somebody turns pages moves nothing.
            await scene.create(f"new{len(found)}", automation="third")
        seen = [run_id for run_id in found if not run_id.startswith("new")]
        assert seen == wanted[::-1]

    async def test_events_continue_after_a_number(self, scene: Scene) -> None:
        view = await scene.claimed("r1", chain(3))
        for change in [scene.next(view), *[scene.next(view, succeeded(n)) for n in range(3)]]:
            await scene.store.apply(change)
        everything = scene.events("r1")
        assert scene.events("r1", limit=3) == everything[:3]
        assert scene.events("r1", after_seq=3, limit=2) == everything[3:5]
        assert scene.events("r1", after_seq=len(everything)) == []
        cursors = [
            event.cursor
            for event in scene.store.list_events(
                RunId("r1"), tenant=LOCAL_TENANT, after_seq=0, limit=100
            )
        ]
        assert cursors == sorted(set(cursors))

    async def test_gates_are_listed_oldest_first_up_to_the_limit(self, scene: Scene) -> None:
        for number in range(4):
            view = await scene.claimed(f"r{number}", GATE)
            await scene.store.apply(scene.next(view, now_ms=NOW_MS + 10 - number))
        listed = scene.store.list_gates(
            tenant=LOCAL_TENANT, status=GateStatus.OPEN, run_id=None, limit=3
        )
        assert [waiting.run_id for waiting in listed] == ["r3", "r2", "r1"]
        only = scene.store.list_gates(
            tenant=LOCAL_TENANT, status=GateStatus.OPEN, run_id=RunId("r2"), limit=3
        )
        assert [waiting.run_id for waiting in only] == ["r2"]

    async def test_newest_gates_and_waits_are_read_in_pages_also_of_one_moment(
        self, scene: Scene
    ) -> None:
        for number in range(5):
            for name, node in ((f"g{number}", GATE), (f"w{number}", TIMER)):
                view = await scene.claimed(name, node)
                # Three of a moment: a page ends between them.
                await scene.store.apply(scene.next(view, now_ms=NOW_MS + 10 + number // 3))

        def gates(limit: int, after: OpenGate | None = None) -> list[OpenGate]:
            found = scene.store.list_gates(
                tenant=LOCAL_TENANT,
                status=GateStatus.OPEN,
                run_id=None,
                limit=limit,
                newest_first=True,
                after=after,
            )
            return list(found)

        def waits(limit: int, after: OpenWait | None = None) -> list[OpenWait]:
            return list(scene.store.list_waits(tenant=LOCAL_TENANT, limit=limit, after=after))

        def in_pages(page: Any) -> Any:
            found = page(2)
            while more := page(2, found[-1]):
                found += more
            return found

        assert len(gates(10)) == len(waits(10)) == 5
        assert in_pages(gates) == gates(10)
        assert in_pages(waits) == waits(10)

    # Due

    async def test_parked_run_is_due_at_its_moment_and_woken_once(self, scene: Scene) -> None:
        view = await scene.claimed("r1", TIMER)
        await scene.store.apply(scene.next(view))
        due_ms = NOW_MS + 5_000

        assert scene.get("r1").status is RunState.PAUSED
        assert scene.store.list_due(now_ms=due_ms - 1, limit=10) == []
        assert scene.store.list_due(now_ms=due_ms, limit=10) == [(LOCAL_TENANT, "r1")]
        assert scene.store.next_due_at_ms() == due_ms
        with pytest.raises(Refused):
            await scene.execute("r1", Wake(), now_ms=due_ms - 1)

        results = await asyncio.gather(
            *(scene.execute("r1", Wake(), now_ms=due_ms) for _ in range(2)),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [Change, Refused]
        assert scene.store.list_due(now_ms=due_ms, limit=10) == []
        (again,) = await scene.claim(now_ms=due_ms)
        await scene.store.apply(scene.next(again, now_ms=due_ms))
        assert scene.get("r1").status is RunState.COMPLETED
        assert scene.store.next_due_at_ms() is None

    async def test_due_runs_come_earliest_first_up_to_the_limit(self, scene: Scene) -> None:
        for number in range(4):
            view = await scene.claimed(f"r{number}", TIMER)
            await scene.store.apply(scene.next(view, now_ms=NOW_MS + 10 - number))
        await scene.create("queued")
        due = scene.store.list_due(now_ms=NOW_MS + 60_000, limit=3)
        assert [run_id for _, run_id in due] == ["r3", "r2", "r1"]
        assert scene.store.next_due_at_ms() == NOW_MS

    # Recovery

    async def test_sign_of_life_is_written_beside_the_lease_and_refuses_no_change(
        self, scene: Scene
    ) -> None:
        view = await scene.claimed("r1")
        await scene.create("r2")
        (other,) = await scene.claim(ENGINE_B)
        runs = [view.run.run_no, other.run.run_no]
        await scene.store.put_engine(engine_row(ENGINE_A), active=runs, now_ms=NOW_MS + 7)
        assert scene.get("r1").activity_at_ms == NOW_MS + 7
        assert scene.get("r2").activity_at_ms is None  # another engine drives it
        await scene.store.apply(scene.next(view))
        assert scene.get("r1").activity_at_ms == NOW_MS + 7

    async def test_quiet_runs_are_driven_ones_without_a_sign_of_life(self, scene: Scene) -> None:
        views = {name: await scene.claimed(name) for name in ("quiet", "alive")}
        await scene.create("queued")
        alive = [views["alive"].run.run_no]
        await scene.store.put_engine(engine_row(ENGINE_A), active=alive, now_ms=NOW_MS + 50)
        (found,) = scene.store.list_quiet(quiet_since_ms=NOW_MS + 49, limit=9)
        assert (found.run_id, found.engine_id, found.activity_at_ms) == ("quiet", ENGINE_A, None)
        assert found.last_change_id == scene.get("quiet").last_change_id
        assert scene.store.list_quiet(quiet_since_ms=NOW_MS - 1, limit=9) == []
        assert len(scene.store.list_quiet(quiet_since_ms=NOW_MS + 50, limit=9)) == 2
        assert len(scene.store.list_quiet(quiet_since_ms=NOW_MS + 50, limit=1)) == 1

    async def test_reaped_runs_come_when_their_processes_are_ended(self, scene: Scene) -> None:
        view = await scene.claimed("r1")
        await scene.store.apply(scene.next(view))
        quiet = scene.get("r1")
        reap = Reap(
            stale_after_ms=1_000,
            seen_change_id=quiet.last_change_id,
            seen_activity_at_ms=None,
        )
        await scene.execute("r1", reap, now_ms=NOW_MS + 1_000)

        def reaped(*, since_ms: int = NOW_MS, attempts_max: int = 1) -> list[str]:
            found = scene.store.list_reaped(
                reaped_since_ms=since_ms, attempts_max=attempts_max, limit=9
            )
            return [run_id for _, run_id in found]

        assert reaped() == []
        await scene.execute("r1", ProcessesEnded(engine_id=ENGINE_A))
        assert reaped() == reaped(since_ms=NOW_MS + 1_000) == ["r1"]
        assert reaped(since_ms=NOW_MS + 1_001) == []
        go_on = AutoResume(window_ms=10_000, attempts_max=1)
        await scene.execute("r1", go_on, now_ms=NOW_MS + 1_001)
        run = scene.get("r1")
        assert (run.auto_resumes, run.reaped_at_ms) == (1, NOW_MS + 1_000)
        assert reaped() == []

    async def test_run_that_nobody_can_read_is_ended_once(self, scene: Scene) -> None:
        view = await scene.claimed("r1")
        await scene.store.apply(scene.next(view))

        async def fail(dead: EngineId) -> Change:
            return await scene.store.fail_unreadable(
                RunId("r1"),
                tenant=LOCAL_TENANT,
                dead=dead,
                why="it is damaged",
                change_id=scene.change_id(),
                now_ms=NOW_MS + 1,
            )

        with pytest.raises(Refused):
            await fail(ENGINE_B)
        change = await fail(ENGINE_A)
        run = scene.get("r1")
        assert (run.status, run.last_change_id) == (RunState.FAILED, change.change_id)
        assert scene.events("r1")[-2:] == [
            RunEvent.NODE_INTERRUPTED,
            RunEvent.RUN_FAILED_SERVER_RESTART,
        ]
        (attempt,) = scene.store.list_attempts(RunId("r1"), tenant=LOCAL_TENANT)
        assert attempt.outcome is AttemptEnd.INTERRUPTED
        with pytest.raises(Refused):
            await fail(ENGINE_A)
        with pytest.raises(NotFound):
            await scene.store.fail_unreadable(
                RunId("none"),
                tenant=LOCAL_TENANT,
                dead=ENGINE_A,
                why="",
                change_id=scene.change_id(),
                now_ms=NOW_MS,
            )

    # Engines

    async def test_engine_is_kept_renewed_and_forgotten(self, scene: Scene) -> None:
        await scene.store.put_engine(engine_row(ENGINE_A))
        renewed = engine_row(ENGINE_A, lease_until_ms=NOW_MS + 60_000)
        await scene.store.put_engine(renewed)
        assert scene.store.list_engines() == [renewed]
        await scene.store.remove_engine(ENGINE_A)
        assert scene.store.list_engines() == []

    async def test_engine_that_has_renewed_its_lease_is_not_forgotten(self, scene: Scene) -> None:
        judged = engine_row(ENGINE_A)
        await scene.store.put_engine(judged)
        renewed = engine_row(ENGINE_A, lease_until_ms=judged.lease_until_ms + 1)
        await scene.store.put_engine(renewed)
        await scene.store.remove_engine(ENGINE_A, lease_until_ms=judged.lease_until_ms)
        assert scene.store.list_engines() == [renewed]
        await scene.store.remove_engine(ENGINE_A, lease_until_ms=renewed.lease_until_ms)
        assert scene.store.list_engines() == []

    async def test_engine_that_holds_a_run_is_not_forgotten(self, scene: Scene) -> None:
        """Its row is what tells the others that somebody has to be proven dead."""
        await scene.store.put_engine(engine_row(ENGINE_A))
        await scene.claimed("r1")
        await scene.store.remove_engine(ENGINE_A)
        assert [row.engine_id for row in scene.store.list_engines()] == [ENGINE_A]
        await scene.execute("r1", Adopt(dead=ENGINE_A))
        await scene.store.remove_engine(ENGINE_A)
        assert scene.store.list_engines() == []

    async def test_held_runs_are_those_driven_owned_or_to_be_cleaned_up(self, scene: Scene) -> None:
        driven = await scene.claimed("driven")
        await scene.store.apply(scene.next(driven))
        stopped = await scene.claimed("stopped")
        await scene.store.apply(scene.next(stopped))
        await scene.execute("stopped", Cancel())
        await scene.create("owned", owner=ENGINE_A)
        await scene.create("free")

        held = {row.run_id: row for row in scene.store.list_held(ENGINE_A)}

        assert set(held) == {"driven", "stopped", "owned"}
        assert held[RunId("stopped")].cleanup == ENGINE_A
        assert held[RunId("driven")].status is RunState.RUNNING
        assert scene.store.list_held(ENGINE_B) == []

    async def test_writes_of_another_store_are_noticed(self, open_store: OpenStore) -> None:
        one, two = Scene(open_store(), name="one"), Scene(open_store(), name="two")
        await one.store.changed_elsewhere()
        assert not await one.store.changed_elsewhere()
        await two.create("r1")
        assert await one.store.changed_elsewhere()
        assert not await one.store.changed_elsewhere()

    async def test_readers_do_not_wait_for_a_writer(self, open_store: OpenStore) -> None:
        """What is queued and not yet on disk is not seen; what is on disk is seen at once."""
        one, two = Scene(open_store(), name="one"), Scene(open_store(), name="two")
        view = await one.claimed("r1")
        written = one.store.apply(one.next(view))
        assert two.get("r1").event_seq == 2
        await written
        assert two.get("r1").event_seq == 3
        assert (await two.store.load(RunId("r1"), tenant=LOCAL_TENANT)).node(0).state is (
            NodeState.RUNNING
        )

    async def test_errors_are_those_of_the_engine(self, scene: Scene) -> None:
        for call in (
            scene.execute("none", Cancel()),
            scene.store.load(RunId("n"), tenant=LOCAL_TENANT),
        ):
            with pytest.raises(EngineError):
                await call
