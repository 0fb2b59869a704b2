"""Following the events of a server: by its stream, across lost connections, else by asking."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from tandem.adapters.cli.text import note
from tandem.adapters.cli.tools import Server
from tandem.adapters.cli.wire import part, run_of
from tandem.domain.engine_event import DELETED
from tandem.domain.errors import Refused, StoreUnavailable
from tandem.domain.ids import RunId
from tandem.engine.waiting import is_ended

STREAM: Final = "/automations/v2/events"
PREFIX: Final = "automation.v2."
AT_ONCE: Final = 1_000
POLL_S: Final = 2.0
DELAYS_S: Final = (0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 10.0, 10.0, 10.0, 10.0)
"""Before each try to reach a server that was lost; after the last one it is given up."""
EMPTY_MAX: Final = 3
"""So often a stream may break off before it said anything, while the server answers otherwise."""


def watch(server: Server, run_id: RunId | None, *, after: str) -> AsyncIterator[Mapping[str, Any]]:
    """Yield the events of a run in order, each once, up to its end; or those of all runs from now.

    A lost connection is taken up again behind the last event. Where the server has no stream, or
    something between breaks it off, a run is asked for its new events instead.

    Args:
        server: which one.
        run_id: of the run, None for all.
        after: the id of an event, behind which to begin; empty for the beginning of the run.

    Raises:
        EngineError: the server refuses it, or was lost and did not come back.
    """
    return _Watch(server, run_id, after).events()


class _Watch:
    def __init__(self, server: Server, run_id: RunId | None, after: str) -> None:
        self._server = server
        self._run_id = run_id
        self._last_id = after
        self._begins_at_start = run_id is not None and not after
        self._seq = 0
        self._told_at_seq: set[str] = set()
        self._lost = 0
        self._empty = 0
        self._is_over = False

    async def events(self) -> AsyncIterator[Mapping[str, Any]]:
        while not self._is_over:
            try:
                async for event in self._streamed():
                    yield event
            except Refused as refused:
                if self._run_id is None or refused.code not in ("route_unknown", "rate_limited"):
                    raise
                note(f"no live stream ({refused}); asking every {POLL_S:.0f} s instead")
                async for event in self._polled():
                    yield event
            except StoreUnavailable as error:
                await self._wait(error)
            if self._empty >= EMPTY_MAX and self._run_id is not None and not self._is_over:
                note(f"the stream breaks off again and again; asking every {POLL_S:.0f} s instead")
                async for event in self._polled():
                    yield event

    async def _wait(self, error: StoreUnavailable) -> None:
        if self._lost >= len(DELAYS_S):
            raise error
        if not self._lost:
            note(f"{error}; connecting again")
        await asyncio.sleep(DELAYS_S[self._lost])
        self._lost += 1

    async def _streamed(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield events until the stream ends; with them everything that it came too late for."""
        is_new = True
        query = {"run_id": self._run_id}
        async with self._server.stream(STREAM, query=query, last_id=self._last_id) as frames:
            self._empty += 1
            async for frame in frames:
                kind = _kind_of(frame.document)
                if kind == "stream.closed":
                    break
                self._empty = 0
                if kind == "stream.reset":
                    async for event in self._reset(frame.document):
                        yield event
                elif is_new:
                    # The stream stands: what happened before it is read now, nothing in between.
                    async for event in self._missed():
                        yield event
                is_new, self._lost = False, 0
                if frame.id:
                    self._last_id = frame.id
                if kind.startswith(PREFIX) and self._is_news(frame.document):
                    yield {"id": frame.id, **frame.document}
                if await self._has_ended(frame.document):
                    self._is_over = True
                    return
        # It ended in order, as when the server stops.
        raise StoreUnavailable(f"{self._server.url} ended the stream", code="stream_closed")

    async def _reset(self, document: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        if self._run_id is None:
            reason = document.get("properties", document).get("reason", "unknown")
            note(f"events were missed: {reason}; what follows is complete again")
            return
        self._begins_at_start = True
        async for event in self._missed():
            yield event

    async def _missed(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the stored events of the run that were not told yet."""
        while self._begins_at_start and self._run_id is not None:
            path = f"/run/{quote(self._run_id, safe='')}/events"
            query = {"after_seq": max(self._seq - 1, 0), "limit": AT_ONCE}
            found = await self._server.ask("GET", path, query=query)
            news = [event for event in found if _kind_of(event).startswith(PREFIX)]
            before = self._seq
            for event in news:
                if self._is_news(event):
                    yield event
            if self._seq == before:
                return

    def _is_news(self, event: Mapping[str, Any]) -> bool:
        """Say whether an event was not told before, and note that it is told now."""
        if self._run_id is None:
            return True
        envelope = event["envelope"]
        seq, name = int(envelope["seq"]), str(event["type"])
        if seq < self._seq or (seq == self._seq and name in self._told_at_seq):
            return False
        if seq > self._seq:
            self._seq, self._told_at_seq = seq, set()
        self._told_at_seq.add(name)
        return True

    async def _has_ended(self, document: object) -> bool:
        """Say whether all events of the run were told; asked at its end and at signs of life."""
        if self._run_id is None:
            return False
        told = document.get("properties", {}) if isinstance(document, dict) else {}
        if _kind_of(document) == DELETED:
            return True
        if isinstance(told, dict) and told.get("status") in ("queued", "running"):
            return False
        path = f"/automations/v2/runs/{quote(self._run_id, safe='')}"
        answer = await self._server.ask("GET", path, query={"view": "summary"})
        run = run_of(part(answer, "run"))
        # Behind an id that was given the numbers are not known before the first event.
        is_told = self._seq >= run.event_seq or (document is None and not self._begins_at_start)
        return is_ended(run) and is_told

    async def _polled(self) -> AsyncIterator[Mapping[str, Any]]:
        self._begins_at_start = True
        while True:
            async for event in self._missed():
                yield event
            if await self._has_ended(None):
                self._is_over = True
                return
            await asyncio.sleep(POLL_S)


def _kind_of(document: object) -> str:
    return str(document.get("type", "")) if isinstance(document, dict) else ""
