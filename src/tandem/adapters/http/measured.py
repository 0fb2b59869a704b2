"""What surrounds every request: its id, its end for those who count, and the streams that are open.

It stands before the guard, so refusals are counted, too.
"""

import asyncio
import re
from typing import Final
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from tandem.adapters.http.site import Site

REQUEST_ID: Final = "x-request-id"
STREAM: Final = "text/event-stream"
_NAME: Final = REQUEST_ID.encode()
_STREAM: Final = STREAM.encode()
_GIVEN: Final = re.compile(rb"[A-Za-z0-9._\-]{1,64}")


class Route:
    """Which route a request has reached; the table of routes fills it in."""

    __slots__ = ("path",)

    def __init__(self) -> None:
        self.path = ""


class Measured:
    """Hands every request on, and tells the observers of the site how it ended.

    What passes finds its `Route` in `scope["reached"]`. Lines of the log that are written on the
    way carry the id of the request, which the answer names, too.
    """

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == _NAME), b"")
        request_id = given.decode() if _GIVEN.fullmatch(given) else uuid4().hex
        answer = _Answer(send, request_id, self._site)
        route = Route()
        loop = asyncio.get_running_loop()
        began = loop.time()
        with bound_contextvars(request_id=request_id):
            try:
                await self._app({**scope, "reached": route}, receive, answer)
            finally:
                answer.end()
                seconds = None if answer.is_stream else loop.time() - began
                for observer in self._site.observers:
                    observer.answered(str(scope["method"]), route.path, answer.status, seconds)


class _Answer:
    """Passes an answer on and remembers what it was."""

    def __init__(self, send: Send, request_id: str, site: Site) -> None:
        self._send = send
        self._request_id = request_id
        self._site = site
        self.status = 500
        """What the listener answers when nothing was sent."""
        self.is_stream = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = list(message["headers"])
            if any(
                name == b"content-type" and value.startswith(_STREAM) for name, value in headers
            ):
                self.is_stream = True
                self._tell(1)
            headers.append((_NAME, self._request_id.encode()))
            message["headers"] = headers
        await self._send(message)

    def end(self) -> None:
        if self.is_stream:
            self._tell(-1)

    def _tell(self, more: int) -> None:
        for observer in self._site.observers:
            observer.streaming(more)
