"""The live events of a store: one reader for all who listen (decision 23).

The feed reads the store behind the newest position that it knows, makes the bytes of each event
once and hands them to those who want them, found by run, automation or tenant. Who comes with a
cursor first reads pages of the store at their own pace and joins the feed where it has come to.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec

from tandem.domain.engine_event import EngineEvent, engine_events, wire_event
from tandem.domain.errors import StoreUnavailable
from tandem.domain.event_cursor import WHOLE, EventCursor, ResetReason, read_cursor
from tandem.domain.ids import AutomationId, RunId, TenantId
from tandem.ports.clock import Clock
from tandem.ports.store import EventFilter, EventPage, EventRecord, Store

PAGE: Final = 500
"""So many records are read at once, which takes a few milliseconds."""
POLL_MS: Final = 100
"""How long a commit can stay unseen that nobody told of."""
GATHER_MS: Final = 5
"""How long the feed waits for more after it was told of a commit."""
RETRY_MS: Final = 1_000
BATCH_BYTES: Final = 256 * 1024
"""A reader is handed about this much at once."""


class FeedLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What may wait for one reader before it is dropped."""

    events_max: int = 4_096
    bytes_max: int = 8 * 1024 * 1024


class Told(NamedTuple):
    """One published event. Its `content` is made once and shared by all who get it."""

    cursor: EventCursor
    event: EngineEvent
    tenant: TenantId
    run_id: RunId
    automation_id: AutomationId
    content: bytes


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events a reader wants, of one tenant; `prefix` is how their types begin."""

    tenant: TenantId
    automation_id: AutomationId | None = None
    run_id: RunId | None = None
    session_id: str | None = None
    prefix: str = ""

    def has(self, told: Told) -> bool:
        """Say whether this event is wanted."""
        properties = told.event.properties
        return (
            told.tenant == self.tenant
            and self.run_id in (None, told.run_id)
            and self.automation_id in (None, told.automation_id)
            and told.event.type.startswith(self.prefix)
            and self.session_id in (None, properties.get("sessionID", properties.get("session_id")))
        )


class Ending(StrEnum):
    """Why nothing more comes."""

    SLOW = "slow_reader"
    """Too much waited for the reader; it may come again with the last id that it has seen."""
    EXPIRED = "expired"
    """What was missed was packed before it could be read; who comes again is told so."""
    CLOSED = "closing"
    """The feed ends."""


class Subscription:
    """One reader of a feed; `with` it, and leaving gives everything back.

    `start` is the cursor that it begins with: what came before is not told. `reset` says why that
    is not the one it asked for.
    """

    def __init__(
        self, feed: "EventFeed", wanted: Wanted, start: EventCursor, reset: ResetReason | None
    ) -> None:
        self.wanted = wanted
        self.start = start
        self.reset = reset
        self.ending: Ending | None = None
        self._feed = feed
        self._seen = start
        self._is_live = False
        self._waiting: deque[Told] = deque()
        self._bytes = 0
        self._news = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end(Ending.CLOSED)

    @property
    def waiting(self) -> int:
        """How many events wait for the reader."""
        return len(self._waiting)

    async def next(self, *, wait_ms: int) -> Sequence[Told]:
        """Return the next events in order; none when none came in time or none will come.

        `ending` tells the two apart.

        Raises:
            StoreUnavailable: what was missed cannot be read now.
        """
        while not self._is_live and self.ending is None:
            missed = await self._catch_up()
            if missed:
                return missed
        if not self._waiting and self.ending is None:
            self._news.clear()
            try:
                async with self._feed.clock.deadline(wait_ms):
                    await self._news.wait()
            except TimeoutError:
                return ()
        return self._take()

    async def _catch_up(self) -> Sequence[Told]:
        """Read one page; behind the last one the feed takes over, with nothing in between."""
        # A long history may not keep everybody else from the loop.
        await self._feed.clock.sleep(0)
        if self.ending is not None:
            return ()
        page = self._feed.read(self._seen.read_after, self.wanted)
        if page.is_expired:
            self.end(Ending.EXPIRED)
            return ()
        found = [
            told
            for record in page.records
            for told in self._feed.tell(record)
            if self.wanted.has(told) and not self._has_seen(told)
        ]
        self._seen = EventCursor(self.start.store_id, page.position)
        if page.is_last:
            self._is_live = True
            self._feed.join(self, page.position)
        return found

    def _has_seen(self, told: Told) -> bool:
        return self._seen.has_seen(told.cursor.position, told.cursor.place)

    def _take(self) -> Sequence[Told]:
        batch: list[Told] = []
        size = 0
        while self._waiting and size < BATCH_BYTES:
            told = self._waiting.popleft()
            batch.append(told)
            size += len(told.content)
        self._bytes -= size
        return batch

    def put(self, told: Told, limits: FeedLimits) -> None:
        """Let an event wait for the reader, or drop the reader for whom too much waits."""
        if self._has_seen(told) or not self.wanted.has(told):
            return
        self._waiting.append(told)
        self._bytes += len(told.content)
        if len(self._waiting) > limits.events_max or self._bytes > limits.bytes_max:
            # What waits was not seen, so the last id that was is where to come again from.
            self._waiting.clear()
            self._bytes = 0
            self.end(Ending.SLOW)
        self._news.set()

    def end(self, ending: Ending) -> None:
        """Let nothing more come; what waits is still handed out."""
        if self.ending is None:
            self.ending = ending
            self._feed.forget(self)
        self._news.set()


class EventFeed:
    """Tells the events of a store to all who subscribe. `async with` starts and ends it."""

    def __init__(self, store: Store, clock: Clock, limits: FeedLimits | None = None) -> None:
        self.clock = clock
        self.limits = limits or FeedLimits()
        self._store = store
        self._store_id = ""
        self._position = 0
        self._is_closed = False
        self._work = asyncio.Event()
        self._open: dict[Subscription, None] = {}
        self._live: dict[tuple[str, ...], dict[Subscription, None]] = {}
        self._group = asyncio.TaskGroup()
        self._tailing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._tailing = self._group.create_task(self._tail(), name="event feed")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if self._tailing is not None:
            self._tailing.cancel()
        # What went wrong inside is none of its tasks' doing.
        await self._group.__aexit__(None, None, None)

    def close(self) -> None:
        """End every subscription, and those to come at once; what waits is still handed out."""
        self._is_closed = True
        self._end_all(Ending.CLOSED)

    def _end_all(self, ending: Ending) -> None:
        for subscription in list(self._open):
            subscription.end(ending)

    @property
    def subscriptions(self) -> int:
        """How many readers there are."""
        return len(self._open)

    def wake(self) -> None:
        """Look into the store soon: something may have been committed."""
        self._work.set()

    def subscribe(self, wanted: Wanted, *, after: str = "") -> Subscription:
        """Return what tells the events behind a cursor; without one those that come from now on.

        A cursor that cannot be gone on from leads to a subscription from now on that says so.

        Raises:
            StoreUnavailable: the store cannot be read now.
        """
        tail = self._store.find_event_tail()
        self._store_id = tail.store_id
        start, reset = EventCursor.at_end(tail), None
        if after.strip():
            found = read_cursor(after, tail, of_one_run=wanted.run_id is not None)
            if isinstance(found, ResetReason):
                reset = found
            else:
                start = found
        subscription = Subscription(self, wanted, start, reset)
        self._open[subscription] = None
        if self._is_closed:
            subscription.end(Ending.CLOSED)
        return subscription

    # For subscriptions

    def read(self, position: int, wanted: Wanted) -> EventPage:
        """Return a page of the store."""
        chosen = EventFilter(
            tenant=wanted.tenant, automation_id=wanted.automation_id, run_id=wanted.run_id
        )
        return self._store.list_events_after(position, chosen, limit=PAGE)

    def tell(self, record: EventRecord) -> Iterator[Told]:
        """Yield what is published for a record."""
        published = engine_events(record.run, record.event, status=record.status)
        last = len(published) - 1
        for place, event in enumerate(published):
            yield Told(
                cursor=EventCursor(self._store_id, event.cursor, WHOLE if place == last else place),
                event=event,
                tenant=record.run.tenant,
                run_id=record.run.run_id,
                automation_id=record.run.automation_id,
                content=wire_event(event),
            )

    def join(self, subscription: Subscription, position: int) -> None:
        """Let a reader have what lies behind a position that no reader has come behind."""
        if not self._live:
            self._position = position
        self._live.setdefault(_key_of(subscription.wanted), {})[subscription] = None
        self._work.set()

    def forget(self, subscription: Subscription) -> None:
        """Let a reader have nothing more."""
        self._open.pop(subscription, None)
        key = _key_of(subscription.wanted)
        alike = self._live.get(key, {})
        alike.pop(subscription, None)
        if not alike:
            self._live.pop(key, None)

    # The one reader

    async def _tail(self) -> None:
        while True:
            await self._wait_for_work()
            is_behind = bool(self._live)
            while is_behind and self._live:
                try:
                    page = self._store.list_events_after(self._position, EventFilter(), limit=PAGE)
                except StoreUnavailable:
                    await self.clock.sleep(RETRY_MS)
                    continue
                if page.is_expired:
                    self._end_all(Ending.EXPIRED)
                    break
                self._hand_out(page)
                is_behind = not page.is_last
                await self.clock.sleep(0)

    async def _wait_for_work(self) -> None:
        """Wait until something may have happened, and a little for more of it."""
        try:
            async with self.clock.deadline(POLL_MS if self._live else None):
                await self._work.wait()
        except TimeoutError:
            return
        self._work.clear()
        await self.clock.sleep(GATHER_MS)

    def _hand_out(self, page: EventPage) -> None:
        for record in page.records:
            run = record.run
            readers = [
                reader
                for key in (
                    (run.tenant, "run", run.run_id),
                    (run.tenant, "automation", run.automation_id),
                    (run.tenant,),
                )
                for reader in self._live.get(key, ())
            ]
            if not readers:
                continue
            for told in self.tell(record):
                for reader in readers:
                    if reader.ending is None:
                        reader.put(told, self.limits)
        self._position = page.position


def _key_of(wanted: Wanted) -> tuple[str, ...]:
    """Return where a reader is found; each is found in one place only."""
    if wanted.run_id is not None:
        return (wanted.tenant, "run", wanted.run_id)
    if wanted.automation_id is not None:
        return (wanted.tenant, "automation", wanted.automation_id)
    return (wanted.tenant,)
