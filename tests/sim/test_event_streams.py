"""Readers who come, go and come again hear every event once and in order, whatever dies."""

import asyncio
from random import Random

import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.ids import LOCAL_TENANT, RunId
from tandem.engine.event_feed import EventFeed, FeedLimits, Subscription, Wanted
from tandem.ports.store import EventFilter
from tandem.testing.simulation import World, open_world

SEEDS = range(40)
READERS = 6


class Reader:
    """One reader over all its connections. `missed` are spans that it was told it misses."""

    def __init__(self, random: Random, wanted: Wanted) -> None:
        self.wanted = wanted
        self.last_id = ""
        self.began = -1
        self.heard: list[tuple[int, int, str]] = []
        self.missed: list[tuple[int, int]] = []
        self.connections = 0
        self._position = 0
        self._random = random

    def connect(self, feed: EventFeed) -> Subscription:
        """Subscribe behind what was heard last."""
        subscription = feed.subscribe(self.wanted, after=self.last_id)
        start = subscription.start
        if self.began < 0:
            self.began = start.position
        elif subscription.reset is not None:
            self.missed.append((self._position, start.position))
        self.last_id, self._position = str(start), start.position
        self.connections += 1
        return subscription

    async def listen(self, feed: EventFeed, *, to_the_end: bool = False) -> None:
        """Hear some of what comes, or everything there is, and go away."""
        batches = self._random.randint(1, 6)
        with self.connect(feed) as subscription:
            while subscription.ending is None and (to_the_end or batches):
                batches -= 1
                found = await subscription.next(wait_ms=self._random.choice((1, 40, 300)))
                for told in found:
                    cursor = told.cursor
                    self.heard.append((cursor.position, cursor.place, told.event.event_id))
                    self.last_id, self._position = str(cursor), cursor.position
                    if not to_the_end and self._random.random() < 0.05:
                        return  # in the middle of what was handed out
                if to_the_end and not found:
                    return

    def judge(self, expected: list[tuple[int, RunId]]) -> None:
        """Check what was heard against what is in the store."""
        places = [(position, place) for position, place, _ in self.heard]
        assert places == sorted(set(places)), "out of order, or again"
        ids = [event_id for _, _, event_id in self.heard]
        assert len(ids) == len(set(ids))
        heard = {position for position, _ in places}
        for position, run_id in expected:
            is_told = any(after < position <= until for after, until in self.missed)
            if position > self.began and not is_told and self.wanted.run_id in (None, run_id):
                assert position in heard, f"event {position} was never told"


async def attend(world: World, readers: list[Reader], random: Random) -> None:
    """Let feeds live and die, and readers come and go, for as long as the world goes on."""
    store = SqliteStore(world.path, synchronous="OFF")
    try:
        while not world.is_calm:
            limits = FeedLimits(events_max=random.choice((3, 4_096)))
            async with EventFeed(store, world.clock, limits) as feed:
                for _ in range(random.randint(1, 4)):
                    async with asyncio.TaskGroup() as group:
                        for reader in random.sample(readers, random.randint(1, 3)):
                            group.create_task(reader.listen(feed))
    finally:
        store.close()


@pytest.mark.parametrize("chunk", range(4))
def test_readers_hear_each_event_once_in_every_world(chunk: int) -> None:
    connections = heard = resets = 0
    for seed in SEEDS[chunk::4]:
        random = Random(f"events {seed}")
        with open_world(seed) as world:
            everything = Wanted(tenant=LOCAL_TENANT)
            readers = [Reader(random, everything) for _ in range(READERS)]
            attending = world.loop.create_task(attend(world, readers, random))
            world.loop.run_until_complete(world.run())
            attending.cancel()
            world.loop.run_until_complete(world.clock.sleep(1))

            store = SqliteStore(world.path, synchronous="OFF")

            async def catch_up(
                store: SqliteStore = store,
                world: World = world,
                readers: list[Reader] = readers,
            ) -> None:
                async with EventFeed(store, world.clock) as feed:
                    for reader in readers:
                        await reader.listen(feed, to_the_end=True)

            world.loop.run_until_complete(catch_up())
            page = store.list_events_after(0, EventFilter(), limit=100_000)
            expected = [(record.event.cursor, record.run.run_id) for record in page.records]
            store.close()
            for reader in readers:
                reader.judge(expected)
                connections += reader.connections
                heard += len(reader.heard)
                resets += len(reader.missed)
    assert connections > 100
    assert heard > 500
