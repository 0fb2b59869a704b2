"""The promises of `ports.store` on the events of all runs, as tests that every store must pass."""

from collections.abc import Sequence

import msgspec

from tandem.domain.command import Cancel
from tandem.domain.event_cursor import EventTail
from tandem.domain.ids import LOCAL_TENANT, AutomationId, RunId
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.ports.store import EventFilter, EventPage, EventRecord, Store
from tandem.testing.store_suite import NOW_MS, OTHER_TENANT, OpenStore, Scene, chain, succeeded

LATER_MS = NOW_MS + 1_000_000


def read_all(
    store: Store, position: int = 0, chosen: EventFilter | None = None, *, limit: int = 3
) -> list[EventRecord]:
    """Read page after page up to the newest event."""
    found: list[EventRecord] = []
    while True:
        page = store.list_events_after(position, chosen or EventFilter(), limit=limit)
        assert page.position >= position
        assert page.is_last or page.position > position
        found += page.records
        position = page.position
        if page.is_last:
            return found


def names(records: Sequence[EventRecord]) -> list[tuple[str, int]]:
    """Return run and number of each record."""
    return [(record.run.run_id, record.event.seq) for record in records]


async def end_run(scene: Scene, run_id: str) -> None:
    """Create a run of one node and drive it to its end."""
    view = await scene.claimed(run_id, chain(1))
    for change in (scene.next(view), scene.next(view, succeeded(0))):
        await scene.store.apply(change)


class EventSuite:
    """What every store promises of its events."""

    async def test_events_of_all_runs_come_in_the_order_of_their_commits(
        self, scene: Scene
    ) -> None:
        await end_run(scene, "r1")
        first = names(read_all(scene.store))
        assert first == [("r1", seq) for seq in range(1, len(first) + 1)]
        await scene.create("r2")
        await scene.create("r3", tenant=OTHER_TENANT)
        await scene.execute("r2", Cancel(reason="no"))

        everything = read_all(scene.store)

        assert names(everything)[: len(first)] == first
        assert names(everything)[len(first) :] == [("r2", 1), ("r3", 1), ("r2", 2)]
        cursors = [record.event.cursor for record in everything]
        assert cursors == sorted(set(cursors))
        assert cursors[-1] == scene.store.find_event_tail().position

    async def test_what_comes_later_lies_behind_every_position_that_was_named(
        self, open_store: OpenStore
    ) -> None:
        writers = [Scene(open_store(), name="a"), Scene(open_store(), name="b")]
        reader = open_store()
        position, seen = 0, []
        for number in range(12):
            await writers[number % 2].create(f"r{number}", owner=None)
            page = reader.list_events_after(position, EventFilter(), limit=10)
            assert page.is_last
            seen += names(page.records)
            position = page.position
        assert seen == [(f"r{number}", 1) for number in range(12)]

    async def test_events_are_chosen_by_tenant_automation_and_run(self, scene: Scene) -> None:
        await scene.create("r1")
        await scene.create("r2", automation="other")
        await scene.create("r3", tenant=OTHER_TENANT)
        await scene.execute("r1", Cancel(reason="no"))

        def chosen(**how: object) -> list[tuple[str, int]]:
            return names(read_all(scene.store, 0, msgspec.convert(how, EventFilter), limit=1))

        assert chosen(tenant=LOCAL_TENANT) == [("r1", 1), ("r2", 1), ("r1", 2)]
        assert chosen(tenant=OTHER_TENANT) == [("r3", 1)]
        assert chosen(automation_id=AutomationId("other")) == [("r2", 1)]
        assert chosen(run_id=RunId("r1")) == [("r1", 1), ("r1", 2)]
        assert chosen(run_id=RunId("r3"), tenant=LOCAL_TENANT) == []
        assert chosen(run_id=RunId("none")) == []

    async def test_an_event_tells_the_state_that_its_change_led_to(self, scene: Scene) -> None:
        await end_run(scene, "r1")
        states = {record.event.event: record.status for record in read_all(scene.store)}
        assert states[RunEvent.RUN_CREATED] is RunState.QUEUED
        assert states[RunEvent.NODE_STARTED] is RunState.RUNNING
        assert states[RunEvent.RUN_COMPLETED] is RunState.COMPLETED

    async def test_a_deleted_run_leaves_no_events_and_takes_back_no_position(
        self, scene: Scene
    ) -> None:
        await end_run(scene, "r1")
        before = scene.store.find_event_tail()
        await scene.store.delete_run(RunId("r1"), tenant=LOCAL_TENANT)
        assert read_all(scene.store) == []
        assert scene.store.find_event_tail() == before
        await scene.create("r2")
        (record,) = read_all(scene.store, before.position)
        assert record.event.cursor > before.position

    async def test_packed_events_are_found_by_their_run_and_missed_by_no_one_unknowing(
        self, scene: Scene
    ) -> None:
        await end_run(scene, "r1")
        told = [(record.event.cursor, record.status) for record in read_all(scene.store)]
        fresh = scene.store.find_event_tail()
        await scene.create("r2")
        while await scene.store.archive(before_ms=LATER_MS, rows_max=3, now_ms=LATER_MS):
            pass

        assert scene.store.find_event_tail().packed_to == fresh.position
        of_the_run = EventFilter(run_id=RunId("r1"))
        found = read_all(scene.store, 0, of_the_run)
        assert [(record.event.cursor, record.status) for record in found] == told
        assert names(read_all(scene.store, told[2][0], of_the_run)) == names(found)[3:]

        def page(position: int, chosen: EventFilter) -> EventPage:
            return scene.store.list_events_after(position, chosen, limit=100)

        assert page(fresh.position - 1, EventFilter()).is_expired
        assert not page(0, of_the_run).is_expired
        behind = page(fresh.position, EventFilter())
        assert not behind.is_expired
        assert names(behind.records) == [("r2", 1)]

    async def test_a_store_keeps_its_name(self, open_store: OpenStore) -> None:
        tails: list[EventTail] = [open_store().find_event_tail() for _ in range(2)]
        assert tails[0] == tails[1]
        assert tails[0].store_id.isalnum()
        assert tails[0].position == 0
