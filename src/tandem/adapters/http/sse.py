"""Server-sent events: our own framing, one writer for each stream (http-api 2.3, decision 23).

A frame is `id:` and one line of `data:` with a whole JSON object. The id is a cursor: who presents
it as `Last-Event-ID` is told everything behind it. A writer waits for its client alone; what the
client does not take in time waits in its subscription, up to a bound.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tandem.domain.caller import Caller
from tandem.domain.engine_event import deletion_event, wire_event
from tandem.domain.errors import StoreUnavailable
from tandem.domain.event_cursor import RESET_MEANINGS
from tandem.domain.ids import AutomationId
from tandem.domain.json import JsonObject, encode
from tandem.domain.rate import Places
from tandem.domain.run import Run
from tandem.engine.event_feed import Ending, EventFeed, Subscription, Told, Wanted
from tandem.ports.clock import Clock

MEDIA_TYPE: Final = "text/event-stream"
KEEP_ALIVE: Final = b":\n\n"
SEND_MS: Final = 60_000
"""A client that takes nothing for so long is left."""
GOODBYE_MS: Final = 1_000
ACCESS_ENDED: Final = "access_ended"
RUN_DELETED: Final = "run_deleted"
"""Reasons of ours to end a stream, beside those of the feed."""
_HEADERS: Final = (
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)

MayStay = Callable[[], bool]
FindRun = Callable[[], Run | None]


class Seeing(Protocol):
    """Says what a caller sees at one moment."""

    def sees(self, automation_id: AutomationId) -> bool:
        """Say whether the caller may know of this automation.

        Raises:
            StoreUnavailable: the store cannot say it now.
        """
        ...


NewSight = Callable[[], Seeing]


class StreamLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the streams of a server."""

    keep_alive_ms: int = 10_000
    streams_max: int = 512
    """How many streams one caller may have open at once."""


class Streams:
    """The event streams of a server, counted by caller."""

    def __init__(self, feed: EventFeed, clock: Clock, limits: StreamLimits | None = None) -> None:
        self.feed = feed
        self.clock = clock
        self.limits = limits or StreamLimits()
        self._open = Places("event streams are open", at_once=self.limits.streams_max)

    def open(
        self,
        wanted: Wanted,
        *,
        request: Request,
        caller: Caller,
        may_stay: MayStay,
        greeting: Sequence[JsonObject],
        sight: NewSight | None = None,
        find_run: FindRun | None = None,
    ) -> "EventStream":
        """Return the response that streams what is wanted, behind the cursor of the request.

        Args:
            wanted: which events.
            request: has the cursor as `Last-Event-ID`, else as `after` or `cursor` of its query.
            caller: whose stream it is; it ends when what they came with ends.
            may_stay: is asked now and then; the stream ends when the caller may not listen longer.
            greeting: the first frames.
            sight: makes what says which automations the caller sees; without it all are seen.
            find_run: finds the run that the stream follows, if it follows one; is asked now and
                then, and a run that was there and is gone ends the stream.

        Raises:
            RateLimited: the caller has as many streams as it may.
            StoreUnavailable: the store cannot be read now.
        """
        key = f"{caller.tenant} {caller.name}"
        self._open.take(key)
        try:
            subscription = self.feed.subscribe(wanted, after=cursor_of(request))
        except StoreUnavailable:
            self._open.leave(key)
            raise
        return EventStream(
            subscription,
            clock=self.clock,
            keep_alive_ms=self.limits.keep_alive_ms,
            greeting=greeting,
            may_stay=may_stay,
            until_ms=caller.until_ms,
            sight=sight,
            find_run=find_run,
            left=lambda: self._open.leave(key),
        )


class EventStream(Response):
    """One stream: what the subscription hands out, until one of the two ends it."""

    def __init__(
        self,
        subscription: Subscription,
        *,
        clock: Clock,
        keep_alive_ms: int,
        greeting: Sequence[JsonObject],
        may_stay: MayStay,
        until_ms: int | None = None,
        sight: NewSight | None = None,
        find_run: FindRun | None = None,
        left: Callable[[], None],
    ) -> None:
        super().__init__(media_type=MEDIA_TYPE)
        self._subscription = subscription
        self._clock = clock
        self._keep_alive_ms = keep_alive_ms
        self._greeting = greeting
        self._may_stay = may_stay
        self._until_ms = until_ms
        self._sight = sight
        self._find_run = find_run
        self._run: Run | None = None
        self._left = left
        self._last_id = str(subscription.start)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write until the client has gone or nothing more comes."""
        try:
            with self._subscription:
                start = {"type": "http.response.start", "status": 200, "headers": list(_HEADERS)}
                await send(start)
                if scope["method"] != "HEAD":
                    async with asyncio.TaskGroup() as group:
                        watch = group.create_task(self._watch(receive), name="stream client")
                        await self._write(send)
                        watch.cancel()
                await self._send(send, b"", GOODBYE_MS, is_last=True)
        finally:
            self._left()

    async def _watch(self, receive: Receive) -> None:
        """End the stream once the client has gone."""
        while (await receive())["type"] != "http.disconnect":
            continue
        self._subscription.end(Ending.CLOSED)

    async def _write(self, send: Send) -> None:
        subscription = self._subscription
        is_taken = await self._send(send, self._first_frames())
        self._is_run_gone()
        look_at_ms = self._clock.ticks_ms() + self._keep_alive_ms
        while is_taken:
            try:
                batch = await subscription.next(wait_ms=self._wait_ms())
                seen = self._seen(batch)
            except StoreUnavailable:
                await self._say_goodbye(send, "store_unavailable")
                return
            if self._wait_ms() == 0:
                # What came since is told to whoever comes again with something that counts.
                await self._say_goodbye(send, ACCESS_ENDED)
                return
            if batch:
                # Where nothing is to be told the stream shows that it lives.
                is_taken = await self._send(send, b"".join(map(frame_of, seen)) or KEEP_ALIVE)
                self._last_id = str(batch[-1].cursor)
            elif subscription.ending is not None:
                await self._say_goodbye(send, subscription.ending)
                return
            else:
                is_taken = await self._send(send, KEEP_ALIVE)
            if self._clock.ticks_ms() >= look_at_ms:
                look_at_ms = self._clock.ticks_ms() + self._keep_alive_ms
                if not self._is_welcome():
                    await self._say_goodbye(send, ACCESS_ENDED)
                    return
                if self._is_run_gone():
                    await self._say_deleted(send)
                    return

    def _wait_ms(self) -> int:
        """Return how long nothing may be told: until a sign of life is due, or access ends."""
        if self._until_ms is None:
            return self._keep_alive_ms
        return max(min(self._keep_alive_ms, self._until_ms - self._clock.now_ms()), 0)

    def _is_run_gone(self) -> bool:
        """Say whether the run that is followed was there and is not any more."""
        if self._find_run is None:
            return False
        try:
            found = self._find_run()
        except StoreUnavailable:
            return False  # nobody says so; it is asked again
        self._run = found or self._run
        return found is None and self._run is not None

    async def _say_deleted(self, send: Send) -> None:
        """Tell that the run is not there any more, to whom its events were told."""
        run = self._run
        assert run is not None, "only a run that was there is gone"
        try:
            is_seen = self._sight is None or self._sight().sees(run.automation_id)
        except StoreUnavailable:
            is_seen = False
        if is_seen:
            event = deletion_event(run, seen_at_ms=self._clock.now_ms())
            await self._send(send, b"data: %b\n\n" % wire_event(event), GOODBYE_MS)
        await self._say_goodbye(send, RUN_DELETED)

    def _seen(self, batch: Sequence[Told]) -> Sequence[Told]:
        """Return what the caller may know of, as the definitions say it now."""
        if self._sight is None or not batch:
            return batch
        sight = self._sight()
        return [told for told in batch if sight.sees(told.automation_id)]

    def _is_welcome(self) -> bool:
        try:
            return self._may_stay()
        except StoreUnavailable:
            return True  # nobody says otherwise; it is asked again

    def _first_frames(self) -> bytes:
        frames = [frame(document, self._last_id) for document in self._greeting]
        reset = self._subscription.reset
        if reset is not None:
            told: JsonObject = {
                "reason": reset.value,
                "message": f"{RESET_MEANINGS[reset]}; read anew what you follow, nothing is "
                "missing from here on",
                "cursor": self._last_id,
            }
            frames.append(frame({"type": "stream.reset", "properties": told}, self._last_id))
        return b"".join(frames)

    async def _say_goodbye(self, send: Send, reason: str) -> None:
        """Tell why the stream ends, without an id: the last one stays where to go on from."""
        told: JsonObject = {"reason": str(reason), "resume_after": self._last_id}
        document: JsonObject = {"type": "stream.closed", "properties": told}
        await self._send(send, frame(document), GOODBYE_MS)

    async def _send(
        self, send: Send, content: bytes, span_ms: int = SEND_MS, *, is_last: bool = False
    ) -> bool:
        """Send some bytes; say whether the client took them in time."""
        message = {"type": "http.response.body", "body": content, "more_body": not is_last}
        try:
            async with self._clock.deadline(span_ms):
                await send(message)
        except TimeoutError:
            return False
        return True


def frame_of(told: Told) -> bytes:
    """Return the frame of an event."""
    return b"id: %b\ndata: %b\n\n" % (str(told.cursor).encode(), told.content)


def frame(document: JsonObject, cursor: str = "") -> bytes:
    """Return a frame with a JSON object; without a cursor it moves no last id."""
    begin = b"id: %b\n" % cursor.encode() if cursor else b""
    return b"%bdata: %b\n\n" % (begin, encode(document))


def cursor_of(request: Request) -> str:
    """Return the cursor that a request presents, empty when it presents none."""
    query = request.query_params
    return (
        request.headers.get("last-event-id", "").strip()
        or query.get("after", "").strip()
        or query.get("cursor", "").strip()
    )
