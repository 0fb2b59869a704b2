"""Requests to one server: bounded in time, repeated only where that does no harm."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

import httpx2
import msgspec

from tandem.adapters.remote.address import is_loopback
from tandem.adapters.remote.answers import error_of
from tandem.adapters.remote.frames import Frame, frames_of
from tandem.domain.errors import EngineError, StoreUnavailable
from tandem.domain.json import encode

CONNECT_S: Final = 5.0
ANSWER_S: Final = 60.0
STREAM_SILENCE_S: Final = 45.0
"""A stream that sends nothing for so long, not even a sign of life, is dead."""
DELAYS_S: Final = (0.2, 1.0)
"""Before the second and the third try."""
_SAFE: Final = frozenset({"GET", "HEAD"})


def _nobody() -> ssl.SSLContext:
    """Trust nobody, where nobody is asked: to read whom this machine trusts takes 30 ms."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Client:
    """One server. Entering opens nothing; leaving closes the connections."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        headers = {"accept": "application/json", "user-agent": "tandem-cli"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        is_here = is_loopback(url)
        self._http = httpx2.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S),
            # What is said to this machine goes through no proxy.
            trust_env=not is_here,
            verify=_nobody() if is_here and url.startswith("http://") else True,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        key: str = "",
        repeats: bool = False,
    ) -> Any:
        """Return the document that answers a request.

        Args:
            method: of HTTP.
            path: below the URL of the server, escaped.
            body: a JSON object.
            query: parameters; those of None are left out.
            key: an idempotency key, by which the server knows a request that came before.
            repeats: it may be asked again when no answer came; a GET and what has a key always may.

        Raises:
            EngineError: what the server answered; StoreUnavailable when nobody did.
        """
        content = await self.content(method, path, body=body, query=query, key=key, repeats=repeats)
        try:
            return msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError) as error:
            raise StoreUnavailable(
                f"{self.url} answered `{method} {path}` with something that is no JSON: {error}",
                code="answer_unreadable",
            ) from error

    async def content(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        key: str = "",
        repeats: bool = False,
    ) -> bytes:
        """Return the bytes that answer a request. Arguments and errors are those of `ask`."""
        may_repeat = repeats or method in _SAFE or bool(key)
        for delay_s in (*(DELAYS_S if may_repeat else ()), None):
            try:
                return await self._once(method, path, body=body, query=query, key=key)
            except StoreUnavailable:
                if delay_s is None:
                    raise
                await asyncio.sleep(delay_s)
        raise AssertionError("the last try returns or raises")

    async def _once(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None,
        query: Mapping[str, Any] | None,
        key: str,
    ) -> bytes:
        headers = {"idempotency-key": key} if key else {}
        if method not in ("GET", "HEAD"):
            headers["content-type"] = "application/json"
        try:
            response = await self._http.request(
                method,
                path,
                content=None if method in ("GET", "HEAD") else encode(dict(body or {})),
                params=_given(query),
                headers=headers,
            )
        except httpx2.TransportError as error:
            raise self._silent(error, f"{method} {path}") from error
        if response.status_code < 300:
            return response.content
        asked = f"{method} {path}"
        raise error_of(response.status_code, response.content, url=self.url, asked=asked)

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, Any] | None = None, last_id: str = ""
    ) -> AsyncIterator[AsyncIterator[Frame]]:
        """Open a stream of events behind `last_id`, and yield its frames as they come.

        Raises:
            EngineError: the server refuses it; StoreUnavailable when nobody answers, or when the
                stream breaks off while frames are taken.
        """
        headers = {"accept": "text/event-stream"}
        if last_id:
            headers["last-event-id"] = last_id
        asked = f"GET {path}"
        timeout = httpx2.Timeout(STREAM_SILENCE_S, connect=CONNECT_S)
        try:
            async with self._http.stream(
                "GET", path, params=_given(query), headers=headers, timeout=timeout
            ) as response:
                if response.status_code != 200:
                    content = await response.aread()
                    raise error_of(response.status_code, content, url=self.url, asked=asked)
                yield frames_of(response.aiter_bytes())
        except httpx2.TransportError as error:
            raise self._silent(error, asked) from error

    def _silent(self, error: httpx2.TransportError, asked: str) -> EngineError:
        """Return the error for a request that nobody answered."""
        if isinstance(error, httpx2.ConnectTimeout | httpx2.ConnectError):
            why = str(error) or type(error).__name__
            return StoreUnavailable(
                f"nobody answers at {self.url} ({why}); is `tandem serve` running there?",
                code="server_unreachable",
            )
        if isinstance(error, httpx2.TimeoutException):
            return StoreUnavailable(
                f"{self.url} did not answer `{asked}` in time; look at it before you ask again",
                code="server_silent",
            )
        return StoreUnavailable(
            f"the connection to {self.url} broke while `{asked}` was asked "
            f"({str(error) or type(error).__name__}); look at it before you ask again",
            code="connection_lost",
        )


def _given(query: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (query or {}).items() if value not in (None, "")}
