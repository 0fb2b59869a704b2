"""The feed tells each reader every event it wants once and in order, whenever it comes."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.command import Cancel, Panic
from tandem.domain.errors import StoreUnavailable
from tandem.domain.event_cursor import ResetReason
from tandem.domain.ids import LOCAL_TENANT, AutomationId, RunId, TenantId
from tandem.engine.automations import Automations
from tandem.engine.event_feed import Ending, EventFeed, FeedLimits, Subscription, Told, Wanted
from tandem.ports.store import EventFilter, EventPage
from tandem.testing.builders import automation, python_node
from tandem.testing.event_suite import LATER_MS, end_run
from tandem.testing.store_suite import OTHER_TENANT, Scene, chain
from tests.small_world import SmallWorld

ALL = Wanted(tenant=LOCAL_TENANT)
Story = Callable[["Hall"], Awaitable[None]]


class Hall:
    """A store with a scene, its feed, and readers."""

    def __init__(self, world: SmallWorld, limits: FeedLimits | None = None) -> None:
        self.world = world
        self.scene = Scene(world.store)
        self.feed = EventFeed(world.store, world.clock, limits)

    async def read(self, reader: Subscription, count: int) -> list[str]:
        """Return the types of the next events."""
        return [told.event.type for told in await self.read_all(reader, count)]

    async def read_all(self, reader: Subscription, count: int) -> list[Told]:
        found: list[Told] = []
        while len(found) < count and reader.ending is None:
            found += await reader.next(wait_ms=10_000)
        assert len(found) == count
        return found

    async def silence(self, reader: Subscription) -> None:
        """Check that nothing comes."""
        assert not await reader.next(wait_ms=10_000)
        assert reader.ending is None


def tell(tmp_path: Path, story: Story, limits: FeedLimits | None = None) -> None:
    """Run a story with a feed."""
    world = SmallWorld(tmp_path / "store.db")

    async def act() -> None:
        hall = Hall(world, limits)
        async with hall.feed:
            await story(hall)

    world.tell(act())


def test_a_reader_hears_what_comes_after_it(tmp_path: Path) -> None:
    async def story(hall: Hall) -> None:
        await hall.scene.create("before")
        with hall.feed.subscribe(ALL) as reader:
            await hall.silence(reader)
            await hall.scene.create("r1")
            (told,) = await hall.read_all(reader, 1)
            assert (told.run_id, told.event.type) == ("r1", "automation.v2.run.created")
            await hall.silence(reader)
        assert hall.feed.subscriptions == 0

    tell(tmp_path, story)


def test_readers_hear_what_they_chose_and_nothing_of_another_tenant(tmp_path: Path) -> None:
    async def story(hall: Hall) -> None:
        chosen = {
            "all": ALL,
            "run": Wanted(tenant=LOCAL_TENANT, run_id=RunId("r1")),
            "automation": Wanted(tenant=LOCAL_TENANT, automation_id=AutomationId("other")),
            "both": Wanted(
                tenant=LOCAL_TENANT, run_id=RunId("r1"), automation_id=AutomationId("other")
            ),
            "foreign": Wanted(tenant=OTHER_TENANT),
            "foreign run": Wanted(tenant=TenantId("third"), run_id=RunId("r1")),
            "session": Wanted(tenant=LOCAL_TENANT, session_id="s"),
            "prefix": Wanted(tenant=LOCAL_TENANT, prefix="automation_v2."),
        }
        readers = {name: hall.feed.subscribe(wanted) for name, wanted in chosen.items()}
        for reader in readers.values():
            await hall.silence(reader)
        await hall.scene.create("r1")
        await hall.scene.create("r2", automation="other")
        await hall.scene.create("r3", tenant=OTHER_TENANT)
        await hall.world.clock.sleep(500)
        heard: dict[str, list[str]] = {}
        for name, reader in readers.items():
            heard[name] = [told.run_id for told in await reader.next(wait_ms=1)]
            reader.end(Ending.CLOSED)
        assert heard == {
            "all": ["r1", "r2"],
            "run": ["r1"],
            "automation": ["r2"],
            "both": [],
            "foreign": ["r3"],
            "foreign run": [],
            "session": [],
            "prefix": [],
        }

    tell(tmp_path, story)


def test_bytes_are_made_once_for_all_readers(tmp_path: Path) -> None:
    async def story(hall: Hall) -> None:
        readers = [hall.feed.subscribe(ALL) for _ in range(3)]
        for reader in readers:
            await hall.silence(reader)
        await hall.scene.create("r1")
        heard = [(await hall.read_all(reader, 1))[0] for reader in readers]
        assert len({id(told.content) for told in heard}) == 1

    tell(tmp_path, story)


@pytest.mark.parametrize("place", range(8))
def test_whoever_comes_again_goes_on_behind_its_last_event(tmp_path: Path, place: int) -> None:
    async def story(hall: Hall) -> None:
        start = str(hall.feed.subscribe(ALL).start)
        await hall.scene.create("r1")
        await hall.scene.claim()
        await hall.scene.execute("r1", Cancel(reason="no"))
        await hall.scene.create("r2")
        with hall.feed.subscribe(ALL, after=start) as first:
            everything = await hall.read_all(first, 4)
        ids = [str(told.cursor) for told in everything]
        assert len(set(ids)) == len(ids)
        cut = place % (len(ids) + 1)
        with hall.feed.subscribe(ALL, after=ids[cut - 1] if cut else start) as again:
            assert again.reset is None
            found = await hall.read_all(again, len(ids) - cut) if cut < len(ids) else []
            assert [str(told.cursor) for told in found] == ids[cut:]
            await hall.silence(again)
            await hall.scene.create("r3")
            (told,) = await hall.read_all(again, 1)
            assert told.run_id == "r3"

    tell(tmp_path, story)


async def failed_run(hall: Hall) -> str:
    """Let a run fail, whose last record has several names; return the cursor before it."""
    start = str(hall.feed.subscribe(ALL).start)
    view = await hall.scene.claimed("r1", chain(1))
    await hall.scene.store.apply(hall.scene.next(view))
    assert view.run.engine_id is not None
    await hall.scene.execute("r1", Panic(engine_id=view.run.engine_id, reason="a mistake"))
    return start


def test_a_reader_may_stop_between_two_names_of_one_record(tmp_path: Path) -> None:
    async def story(hall: Hall) -> None:
        start = await failed_run(hall)
        with hall.feed.subscribe(ALL, after=start) as reader:
            heard = []
            while not heard or heard[-1].event.type != "automation_v2.run.failed":
                heard += await reader.next(wait_ms=1_000)
        first, second = heard[-2:]
        assert first.event.type == "automation.v2.run.failed"
        assert first.event.properties["seq"] == second.event.properties["seq"]
        assert first.event.event_id != second.event.event_id
        with hall.feed.subscribe(ALL, after=str(first.cursor)) as again:
            assert await hall.read(again, 1) == ["automation_v2.run.failed"]
            await hall.silence(again)
        with hall.feed.subscribe(ALL, after=str(second.cursor)) as again:
            await hall.silence(again)

    tell(tmp_path, story)


def test_a_burst_reaches_everybody_in_order(tmp_path: Path) -> None:
    async def story(hall: Hall) -> None:
        with hall.feed.subscribe(ALL) as reader:
            await hall.silence(reader)
            for number in range(1_000):
                await hall.scene.create(f"r{number}")
                if number % 100 == 0:
                    hall.feed.wake()
            heard = await hall.read_all(reader, 1_000)
        assert [told.run_id for told in heard] == [f"r{number}" for number in range(1_000)]

    tell(tmp_path, story)


@pytest.mark.parametrize(
    "limits", [FeedLimits(events_max=10), FeedLimits(bytes_max=8_000)], ids=["events", "bytes"]
)
def test_a_slow_reader_is_dropped_holds_nothing_and_can_come_again(
    tmp_path: Path, limits: FeedLimits
) -> None:
    async def story(hall: Hall) -> None:
        slow, quick = hall.feed.subscribe(ALL), hall.feed.subscribe(ALL)
        for reader in (slow, quick):
            await hall.silence(reader)
        await hall.scene.create("seen")
        (seen,) = await hall.read_all(slow, 1)
        heard = await hall.read_all(quick, 1)
        for number in range(30):
            await hall.scene.create(f"r{number}")
            heard += await hall.read_all(quick, 1)
        assert len(heard) == 31
        assert (slow.ending, slow.waiting) == (Ending.SLOW, 0)
        assert not await slow.next(wait_ms=1)
        assert hall.feed.subscriptions == 1
        with hall.feed.subscribe(ALL, after=str(seen.cursor)) as again:
            found = await hall.read_all(again, 30)
        assert [told.cursor for told in found] == [told.cursor for told in heard[1:]]

    tell(tmp_path, story, limits)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ("0123456789abcdef-1", ResetReason.FOREIGN),
        ("what", ResetReason.UNREADABLE),
        ("{store}-99", ResetReason.AHEAD),
    ],
)
def test_a_cursor_that_leads_nowhere_is_reset_and_the_stream_goes_on_from_now(
    tmp_path: Path, after: str, reason: ResetReason
) -> None:
    async def story(hall: Hall) -> None:
        await hall.scene.create("r1")
        store_id = hall.world.store.find_event_tail().store_id
        with hall.feed.subscribe(ALL, after=after.format(store=store_id)) as reader:
            assert reader.reset is reason
            await hall.silence(reader)
            await hall.scene.create("r2")
            (told,) = await hall.read_all(reader, 1)
            assert told.run_id == "r2"

    tell(tmp_path, story)


async def pack_everything(hall: Hall) -> None:
    while await hall.world.store.archive(before_ms=LATER_MS, rows_max=100, now_ms=LATER_MS):
        pass


def test_what_is_packed_is_told_to_who_follows_its_run_and_resets_all_others(
    tmp_path: Path,
) -> None:
    async def story(hall: Hall) -> None:
        start = str(hall.feed.subscribe(ALL).start)
        await end_run(hall.scene, "r1")
        await pack_everything(hall)
        with hall.feed.subscribe(ALL, after=start) as reader:
            assert reader.reset is ResetReason.EXPIRED
            await hall.silence(reader)
        of_run = Wanted(tenant=LOCAL_TENANT, run_id=RunId("r1"))
        with hall.feed.subscribe(of_run, after=start) as reader:
            assert reader.reset is None
            heard = await hall.read(reader, 5)
        assert heard[0] == "automation.v2.run.created"
        assert heard[-1] == "automation.v2.run.completed"

    tell(tmp_path, story)


def test_packing_between_two_pages_ends_a_reader_instead_of_letting_it_miss(
    tmp_path: Path,
) -> None:
    async def story(hall: Hall) -> None:
        start = str(hall.feed.subscribe(ALL).start)
        await end_run(hall.scene, "r1")
        reader = hall.feed.subscribe(ALL, after=start)
        assert reader.reset is None
        await pack_everything(hall)
        assert not await reader.next(wait_ms=1)
        assert reader.ending is Ending.EXPIRED

    tell(tmp_path, story)


def test_packing_that_overtakes_the_feed_ends_its_readers(tmp_path: Path) -> None:
    async def story(hall: Hall) -> None:
        reader = hall.feed.subscribe(ALL)
        await hall.silence(reader)
        read = hall.world.store.list_events_after
        hall.world.store.list_events_after = lambda *_how, **_more: _raise()  # type: ignore[method-assign]
        await hall.world.clock.sleep(500)
        await end_run(hall.scene, "r1")
        await pack_everything(hall)
        hall.world.store.list_events_after = read  # type: ignore[method-assign]
        await hall.world.clock.sleep(3_000)
        assert reader.ending is Ending.EXPIRED

    tell(tmp_path, story)


def _raise() -> EventPage:
    raise StoreUnavailable("away")


def test_a_store_that_is_away_for_a_while_loses_nothing(tmp_path: Path) -> None:
    async def story(hall: Hall) -> None:
        reader = hall.feed.subscribe(ALL)
        await hall.silence(reader)
        read = hall.world.store.list_events_after
        hall.world.store.list_events_after = lambda *_how, **_more: _raise()  # type: ignore[method-assign]
        await hall.scene.create("r1")
        await hall.world.clock.sleep(2_500)
        hall.world.store.list_events_after = read  # type: ignore[method-assign]
        assert await hall.read(reader, 1) == ["automation.v2.run.created"]

    tell(tmp_path, story)


def test_a_feed_that_closes_hands_out_what_waits_and_ends(tmp_path: Path) -> None:
    async def story(hall: Hall) -> None:
        reader = hall.feed.subscribe(ALL)
        await hall.silence(reader)
        await hall.scene.create("r1")
        await hall.world.clock.sleep(500)
        hall.feed.close()
        assert [told.run_id for told in await reader.next(wait_ms=1)] == ["r1"]
        assert not await reader.next(wait_ms=1)
        assert reader.ending is Ending.CLOSED
        assert hall.feed.subscribe(ALL).ending is Ending.CLOSED

    tell(tmp_path, story)


def test_a_reader_that_is_behind_lets_everybody_else_on_the_loop(tmp_path: Path) -> None:
    async def story(hall: Hall) -> None:
        start = str(hall.feed.subscribe(ALL).start)
        for number in range(1_200):
            await hall.scene.create(f"r{number}")
        pages: list[int] = []
        read = hall.world.store.list_events_after

        def counted(position: int, chosen: EventFilter, *, limit: int) -> EventPage:
            pages.append(position)
            return read(position, chosen, limit=limit)

        hall.world.store.list_events_after = counted  # type: ignore[method-assign]
        wanted = Wanted(tenant=LOCAL_TENANT, automation_id=AutomationId("none"))
        reader = hall.feed.subscribe(wanted, after=start)
        await hall.silence(reader)
        assert pages[:3] == [0, 500, 1_000]

    tell(tmp_path, story)


def test_a_reader_that_is_ahead_of_the_feed_hears_nothing_twice(tmp_path: Path) -> None:
    async def story(hall: Hall) -> None:
        start = str(hall.feed.subscribe(ALL).start)
        early = hall.feed.subscribe(ALL)
        await hall.silence(early)
        await hall.scene.create("r1")
        ahead = hall.feed.subscribe(ALL, after=start)
        assert await hall.read(ahead, 1) == ["automation.v2.run.created"]
        assert early.waiting == 0, "the feed was first"
        await hall.silence(ahead)
        assert await hall.read(early, 1) == ["automation.v2.run.created"]

    tell(tmp_path, story)


def test_an_engine_tells_the_feed_at_once_what_it_writes(tmp_path: Path) -> None:
    world = SmallWorld(tmp_path / "store.db")

    async def story() -> None:
        engine = world.engine()
        feed = EventFeed(world.store, world.clock)
        engine.watch(feed.wake)
        async with feed, engine:
            with feed.subscribe(ALL) as reader:
                assert not await reader.next(wait_ms=50)
                run_id = await world.start(engine, automation(python_node("a")))
                began_ms = world.clock.ticks_ms()
                heard: list[Told] = []
                while not heard or heard[-1].event.type != "automation.v2.run.completed":
                    heard += await reader.next(wait_ms=1_000)
                assert {told.run_id for told in heard} == {run_id}
                assert world.clock.ticks_ms() - began_ms < 100
                assert _numbers(heard) == list(range(1, len(heard) + 1))

    world.tell(story())


def _numbers(heard: Sequence[Told]) -> list[object]:
    return [told.event.properties["seq"] for told in heard]


def test_a_copy_of_a_store_is_another_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    store.back_up(tmp_path / "copy.db", progress=lambda _done, _all: None)
    copy = SqliteStore(tmp_path / "copy.db")
    assert copy.find_event_tail().store_id != store.find_event_tail().store_id
    store.close()
    copy.close()


def test_a_run_that_a_schedule_started_is_told_as_any_other(tmp_path: Path) -> None:
    schedule = {"type": "interval", "interval_seconds": 10}

    async def story(hall: Hall) -> None:
        engine = hall.world.engine()
        ticking = automation(python_node("a"), schedule=schedule)
        await Automations(engine).save(ticking, by="ann")
        with hall.feed.subscribe(ALL) as reader:
            await hall.world.clock.sleep(10_500)
            await engine.schedules.fire_due()
            (created,) = await hall.read_all(reader, 1)
        assert created.event.type == "automation.v2.run.created"
        assert created.event.properties["triggerType"] == "scheduled"
        assert created.event.properties["runID"] == created.run_id != ""
        assert created.event.properties["automationID"] == ticking.automation_id

    tell(tmp_path, story)
