"""One connection: what uvicorn reads from it, within bounds.

Whoever sends the head of a request byte by byte, or never ends it, would otherwise hold a place
and memory for as long as they like, without a token.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tandem.adapters.http.errors import HttpError, respond

HEAD_S: Final = 20.0
"""So long the head of a request may take, counted from its first byte or the connection."""
BODY_S: Final = 120.0
"""So long its body may take after that."""
HEAD_BYTES_MAX: Final = 128 * 1024
"""A head that is larger is refused; one piece of what came at once may be beyond it."""


class BoundedProtocol(HttpToolsProtocol):
    """Ends connections whose requests take too long to arrive, or whose heads are too large."""

    head_s: float = HEAD_S
    body_s: float = BODY_S
    head_bytes_max: int = HEAD_BYTES_MAX

    _patience: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._be_patient(self.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._be_patient(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head grows too large."""
        super().data_received(data)
        if not self._is_in_head:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > self.head_bytes_max:
            self._refuse("HEAD_TOO_LARGE", "the head of the request is too large")

    def on_message_begin(self) -> None:
        """Begin to wait for the rest of a head."""
        super().on_message_begin()
        self._is_in_head = True
        self._be_patient(self.head_s)

    def on_headers_complete(self) -> None:
        """Begin to wait for a body."""
        self._is_in_head = False
        self._be_patient(self.body_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait for nothing: between requests it is uvicorn that waits."""
        self._be_patient(None)
        super().on_message_complete()

    def _be_patient(self, seconds: float | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if seconds is not None:
            self._patience = self.loop.call_later(seconds, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patience = None
        self._refuse("REQUEST_TOO_SLOW", "the request took too long to arrive")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the shape of all other errors; the log has said why."""
        self._refuse("REQUEST_MALFORMED", "this is no request of HTTP/1.1")

    def _refuse(self, code: str, words: str) -> None:
        """End the connection; in the middle of an answer without a word."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            said = respond(HttpError(code, words))
            self.transport.write(
                STATUS_LINE[said.status_code]
                + b"content-type: application/json\r\n"
                + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(said.body)
                + said.body
            )
        # What the other side does not take must not keep it open.
        self.loop.call_later(1.0, self.transport.abort)
        self.transport.close()
