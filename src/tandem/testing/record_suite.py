"""The promises of `ports.store` about records and lists of runs, as tests that every store passes.

Used as `StoreSuite` is; the fixture is the same.
"""

from typing import Any

import msgspec
import pytest

from tandem.domain.command import Cancel, DecideGate, Dispose
from tandem.domain.errors import NotFound
from tandem.domain.ids import LOCAL_TENANT, AutomationId, NodeId, RunId
from tandem.domain.json import encode
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.domain.outcome import NeedsRepair
from tandem.domain.reading import Relaxation
from tandem.domain.run import GateStatus, QueueReason
from tandem.domain.run_picture import HISTORY_MAX, RunPicture
from tandem.domain.session import AddInstance, AddSession, ClearInstance, ClearSession
from tandem.domain.settling import Settled
from tandem.ports.store import RunSearch, Store
from tandem.testing.admission_suite import locked
from tandem.testing.store_suite import (
    CONDITION,
    ENGINE_A,
    GATE,
    NOW_MS,
    OTHER_TENANT,
    OpenStore,
    Scene,
    chain,
    engine_row,
    succeeded,
)

RUN = RunId("r")
LET_PASS = Relaxation(
    relaxed_validator_classes=("missing_required_section",),
    effective_outcome="warning",
    original_status="needs_repair",
    execution_profile="guided",
)


def ids(store: Store, **search: Any) -> list[str]:
    """Return the ids of the first page."""
    search.setdefault("tenant", LOCAL_TENANT)
    return [run.run_id for run in store.search_runs(RunSearch(**search)).runs]


def all_ids(store: Store, **search: Any) -> list[str]:
    """Return the ids of all pages."""
    search.setdefault("tenant", LOCAL_TENANT)
    asked = RunSearch(**search)
    found: list[str] = []
    for _ in range(100):
        page = store.search_runs(asked)
        found += [run.run_id for run in page.runs]
        if page.next is None:
            return found
        asked = msgspec.structs.replace(asked, after=page.next)
    raise AssertionError("the pages have no end")


def picture(store: Store, run_id: str = RUN) -> RunPicture:
    """Read the picture of a run."""
    return store.read_picture(RunId(run_id), tenant=LOCAL_TENANT)


class RecordSuite:
    """What every store promises about records and lists."""

    # Pictures

    async def test_a_picture_has_everything_of_a_run(self, open_store: OpenStore) -> None:
        scene = Scene(open_store())
        await scene.store.put_engine(engine_row(ENGINE_A, lease_until_ms=NOW_MS + 7))
        view = await scene.claimed(RUN, [*GATE, *chain(2)])
        await scene.store.apply(scene.next(view))
        await scene.store.apply(scene.next(view, succeeded(1)))
        await scene.store.tend_session(AddSession(session_id="s", run_id=RUN), tenant=LOCAL_TENANT)

        found = picture(scene.store)

        assert found.view.run == scene.get(RUN)
        assert found.view.nodes == view.nodes
        assert list(found.view.gates) == [gate.gate_id for gate in found.gates]
        assert [(a.node_no, a.number) for a in found.attempts] == [(1, 1), (2, 1)]
        assert [event.event for event in found.events] == scene.events(RUN)
        assert found.sessions.active_session_ids == ("s",)
        assert found.lease_until_ms == NOW_MS + 7
        assert found.claim is not None
        assert found.claim.event is RunEvent.RUN_CLAIMED

    async def test_a_run_that_rests_has_no_claim(self, open_store: OpenStore) -> None:
        scene = Scene(open_store())
        await scene.claimed(RUN)
        await scene.execute(RUN, Cancel(reason="x"))
        assert picture(scene.store).claim is None
        assert picture(scene.store).lease_until_ms is None

    async def test_a_claim_is_found_behind_the_newest_events(
        self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scene = Scene(open_store())
        view = await scene.claimed(RUN)
        await scene.store.apply(scene.next(view))
        await scene.store.apply(scene.next(view, succeeded(0)))
        for module in ("tandem.adapters.sqlite.records", "tandem.domain.run_picture"):
            monkeypatch.setattr(f"{module}.HISTORY_MAX", 1)

        found = picture(scene.store)

        assert len(found.events) == 1
        assert found.events[0].seq == view.run.event_seq
        assert found.claim is not None
        assert found.claim.event is RunEvent.RUN_CLAIMED
        assert HISTORY_MAX == 1_000

    async def test_only_its_tenant_sees_a_run(self, open_store: OpenStore) -> None:
        scene = Scene(open_store())
        await scene.create(RUN, tenant=OTHER_TENANT)
        with pytest.raises(NotFound):
            picture(scene.store)
        assert scene.store.read_mark(RUN, tenant=LOCAL_TENANT) is None
        assert ids(scene.store) == []
        assert ids(scene.store, tenant=OTHER_TENANT) == [RUN]

    async def test_the_mark_is_another_one_whenever_the_picture_is(
        self, open_store: OpenStore
    ) -> None:
        scene = Scene(open_store())
        store = scene.store
        await store.put_engine(engine_row(ENGINE_A))
        view = await scene.claimed(RUN)
        seen: dict[bytes, object] = {}

        def look() -> None:
            pictured = picture(store)
            content = encode(
                [pictured.view.run, pictured.attempts, pictured.events, pictured.gates]
            ) + encode([pictured.sessions, pictured.lease_until_ms])
            mark = store.read_mark(RUN, tenant=LOCAL_TENANT)
            assert mark == store.read_mark(RUN, tenant=LOCAL_TENANT)
            assert content not in seen
            assert mark not in seen.values()
            seen[content] = mark

        look()
        await store.apply(scene.next(view))
        look()
        for step in (
            AddSession(session_id="s1", run_id=RUN),
            AddSession(session_id="s2", run_id=RUN),
            ClearSession(session_id="s1"),
            AddInstance(instance_id="i", run_id=RUN),
            AddInstance(instance_id="j", run_id=RUN),
            ClearInstance(instance_id="i", run_id=RUN),
        ):
            await store.tend_session(step, tenant=LOCAL_TENANT)
            look()
        renewed = engine_row(ENGINE_A, lease_until_ms=NOW_MS + 99_000)
        await store.put_engine(renewed)
        look()
        await store.put_engine(renewed, active=[view.run.run_no], now_ms=NOW_MS + 5)
        look()
        await scene.execute(RUN, Cancel(reason="x"))
        look()

    async def test_the_marks_of_a_run_tell_why_it_is_not_claimed(
        self, open_store: OpenStore
    ) -> None:
        scene = Scene(open_store())
        store, search = scene.store, RunSearch(tenant=LOCAL_TENANT)
        await scene.create("first", chain(1), needs=locked("/r"))
        await scene.create(RUN, needs=locked("/r"))
        mark, marks = store.read_mark(RUN, tenant=LOCAL_TENANT), store.search_runs(search).marks

        await scene.claim()

        assert scene.get(RUN).queue_reason is QueueReason.WORKSPACE_LOCK
        assert store.read_mark(RUN, tenant=LOCAL_TENANT) != mark
        assert store.search_runs(search).marks[0] not in marks

    # Lists

    async def test_rows_with_a_known_mark_are_not_read(self, open_store: OpenStore) -> None:
        scene = Scene(open_store())
        for number in range(3):
            await scene.create(f"r{number}")
        search = RunSearch(tenant=LOCAL_TENANT)
        before = scene.store.search_runs(search)
        await scene.execute("r1", Cancel(reason="x"))

        after = scene.store.search_runs(search, is_known=lambda mark: mark in before.marks)

        assert [run.run_id for run in before.runs] == ["r2", "r1", "r0"]
        assert [run.run_id for run in after.runs] == ["r1"]
        assert [new == old for new, old in zip(after.marks, before.marks, strict=True)] == [
            True,
            False,
            True,
        ]

    async def test_a_list_shows_the_newest_first_and_goes_on(self, open_store: OpenStore) -> None:
        scene = Scene(open_store())
        for number in range(5):
            await scene.create(f"r{number}", automation="odd" if number % 2 else "even")

        assert ids(scene.store, limit=2) == ["r4", "r3"]
        assert all_ids(scene.store, limit=2) == ["r4", "r3", "r2", "r1", "r0"]
        assert all_ids(scene.store, limit=2, automation_id=AutomationId("even")) == [
            "r4",
            "r2",
            "r0",
        ]
        assert scene.store.search_runs(RunSearch(tenant=LOCAL_TENANT)).next is None

    async def test_a_list_leaves_large_fields_where_they_are(self, open_store: OpenStore) -> None:
        scene = Scene(open_store())
        await scene.create(RUN)
        (row,) = scene.store.search_runs(RunSearch(tenant=LOCAL_TENANT)).runs
        whole = scene.get(RUN)
        assert (row.inputs, whole.inputs) == ({}, {"x": 1})
        same = msgspec.structs.replace(whole, inputs={}, event_hash="", labels=row.labels)
        lean = msgspec.structs.replace(same, lock_path="", concurrency_key="", concurrency_limit=0)
        assert row == lean

    async def test_a_list_is_filtered(self, open_store: OpenStore) -> None:
        scene = Scene(open_store())
        await scene.create("first", automation="report")
        await scene.create("second", automation="report")
        await scene.create("third", automation="Other Ö")
        await scene.execute("second", Cancel(reason="Because of Rain"))
        store = scene.store

        assert ids(store, statuses=(RunState.CANCELLED,)) == ["second"]
        assert ids(store, statuses=(RunState.CANCELLED, RunState.QUEUED), text="rep") == [
            "second",
            "first",
        ]
        assert ids(store, text=" RAIN ") == ["second"]
        assert ids(store, text="other") == ["third"]
        assert ids(store, text="%") == []
        assert ids(store, text="Ö") == ["third"]
        assert ids(store, limit=0) == []
        assert ids(store, trigger_type="manual") == ["third", "second", "first"]
        assert ids(store, trigger_type="webhook") == []
        assert ids(store, automation_id=AutomationId("report"), text="fir") == ["first"]

    async def test_a_span_of_creation_is_found_by_its_moments(self, open_store: OpenStore) -> None:
        scene = Scene(open_store())
        for name, at_ms in (("late", 30), ("early", 10), ("twin", 20), ("other", 20)):
            automation = "b" if name == "other" else "a"
            await scene.create(name, now_ms=at_ms, automation=automation)
        store = scene.store

        assert all_ids(store, created_from_ms=10, limit=1) == ["late", "other", "twin", "early"]
        assert all_ids(store, created_until_ms=30, limit=1) == ["other", "twin", "early"]
        assert ids(store, created_from_ms=20, created_until_ms=30) == ["other", "twin"]
        assert ids(store, created_from_ms=20, automation_id=AutomationId("b")) == ["other"]
        assert ids(store, created_from_ms=20, statuses=(RunState.FAILED,)) == []

    @pytest.mark.parametrize("span", [{}, {"created_from_ms": 0}])
    async def test_a_page_looks_at_so_many_runs_and_the_next_goes_on(
        self, open_store: OpenStore, span: dict[str, Any]
    ) -> None:
        scene = Scene(open_store())
        for number in range(6):
            await scene.create(f"r{number}")
        search = RunSearch(tenant=LOCAL_TENANT, text="r0", looks_max=4, **span)

        first = scene.store.search_runs(search)

        assert (first.runs, first.next is None) == ([], False)
        assert all_ids(scene.store, text="r0", looks_max=4, **span) == ["r0"]

    # Approvals and what was let pass

    async def test_gates_are_listed_from_either_end(self, open_store: OpenStore) -> None:
        scene = Scene(open_store())
        for name, at_ms in (("a", 1), ("b", 2), ("c", 3)):
            view = await scene.claimed(name, GATE)
            await scene.store.apply(scene.next(view, now_ms=NOW_MS + at_ms))

        def asked(limit: int, *, newest_first: bool) -> list[str]:
            found = scene.store.list_gates(
                tenant=LOCAL_TENANT,
                status=GateStatus.OPEN,
                run_id=None,
                limit=limit,
                newest_first=newest_first,
            )
            return [gate.run_id for gate in found]

        assert asked(2, newest_first=True) == ["c", "b"]
        assert asked(9, newest_first=False) == ["a", "b", "c"]
        await scene.execute("c", DecideGate(decision="cancel", decided_by="ann"))
        assert asked(9, newest_first=True) == ["b", "a"]

    async def test_outputs_of_which_something_was_let_pass_are_told(
        self, open_store: OpenStore
    ) -> None:
        scene = Scene(open_store())
        await scene.create("old", now_ms=NOW_MS - 9)
        await scene.create("waits", CONDITION, automation="other")
        await scene.execute("old", Cancel(reason="x"))
        await scene.execute("waits", Cancel(reason="x"))
        nodes = [{**node, "retry_policy": {"max_attempts": 1}} for node in chain(2)]
        view = await scene.claimed(RUN, nodes)
        await scene.store.apply(scene.next(view))
        outcome = NeedsRepair(reasons=("no title",), unmet=("missing_section",))
        lacking = Settled(node_no=0, number=1, outcome=outcome, output=b'"x"', relaxation=LET_PASS)
        await scene.store.apply(scene.next(view, lacking))
        await scene.store.apply(scene.next(view, succeeded(1)))
        dispose = Dispose(node_id=NodeId("n0"), disposition="ok", decided_by="ann")
        await scene.execute(RUN, dispose)

        def judged(**chosen: Any) -> list[tuple[str, int, list[str]]]:
            asked = {"since_ms": NOW_MS, "automation_id": None, "limit": 10} | chosen
            found = scene.store.list_judged(tenant=LOCAL_TENANT, **asked)
            return [
                (one.run_id, one.outputs, [h.disposition for _, h in one.relaxed if h is not None])
                for one in found
            ]

        before = picture(scene.store)
        assert judged() == [(RUN, 2, ["accepted"]), ("waits", 0, [])]
        assert judged(automation_id=AutomationId("other")) == [("waits", 0, [])]
        assert judged(limit=1) == [(RUN, 2, ["accepted"])]
        assert len(judged(since_ms=0)) == 3
        later_ms = NOW_MS + 1
        while await scene.store.archive(before_ms=later_ms, rows_max=100, now_ms=later_ms):
            pass
        assert scene.get(RUN).status is RunState.COMPLETED
        assert scene.get(RUN).archived_at_ms is not None
        packed = picture(scene.store)
        assert packed.view.nodes == before.view.nodes
        assert (packed.events, packed.attempts) == (before.events, before.attempts)
        assert judged() == [(RUN, 2, ["accepted"]), ("waits", 0, [])]
