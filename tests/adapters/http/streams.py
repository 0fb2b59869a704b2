"""A real listener on the loopback, and readers of its event streams that speak plain HTTP."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from tandem.adapters.http.app import make_app
from tandem.adapters.http.local_access import LocalAccess
from tandem.adapters.http.service import Access, HttpLimits
from tandem.adapters.http.site import Site
from tandem.serving import service_of
from tandem.settings import Settings
from tandem.wiring import Parts, open_engine

WAIT_S = 20


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Any:
        yield


class Listening:
    """A server that listens; `stop` ends it as SIGTERM does."""

    def __init__(self, parts: Parts, site: Site, server: uvicorn.Server, port: int) -> None:
        self.parts = parts
        self.site = site
        self.port = port
        self._server = server

    def stop(self) -> None:
        self.site.leave()
        self._server.should_exit = True


@asynccontextmanager
async def listening(
    state_dir: Path, *, drives: bool = True, access: Access | None = None, **settings: Any
) -> AsyncIterator[Listening]:
    """Open a server over a store of its own and listen."""
    complaints: list[str] = []
    site = Site(access=access or LocalAccess(), limits=HttpLimits(), complain=complaints.append)
    given: dict[str, Any] = {"isolation": "subreaper", "synchronous": "OFF", **settings}
    with socket.socket() as listener:
        # Little waits in the kernel, so that a client is seen to be slow.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_192)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1_000)
        server = _Server(
            uvicorn.Config(
                make_app(site),
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=5,
            )
        )
        async with open_engine(
            Settings(state_dir=state_dir, **given), drives=drives, in_process=True
        ) as parts:
            site.open(service_of(parts))
            async with asyncio.TaskGroup() as group:
                group.create_task(server.serve([listener]))
                found = Listening(parts, site, server, listener.getsockname()[1])
                try:
                    yield found
                finally:
                    found.stop()
    assert complaints == []


class Frame:
    """One frame: its id, if it has one, and the document."""

    def __init__(self, lines: list[str]) -> None:
        fields = dict(line.split(": ", 1) for line in lines)
        self.id = fields.pop("id", "")
        self.document: dict[str, Any] = json.loads(fields.pop("data"))
        assert fields == {}

    @property
    def type(self) -> str:
        return str(self.document.get("type", ""))


class Reader:
    """One open stream. `comments` counts the lines that only say that it lives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._text = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.comments = 0
        self.last_id = ""

    async def begin(self) -> None:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:-2])
        }

    async def frame(self) -> Frame | None:
        """Return the next frame, None at the end of the stream."""
        while (lines := await self.line()) is not None:
            if lines != [":"]:
                found = Frame(lines)
                self.last_id = found.id or self.last_id
                return found
        return None

    async def line(self) -> list[str] | None:
        """Return the lines of a frame or of a comment, which is counted; None at the end."""
        async with asyncio.timeout(WAIT_S):
            while b"\n\n" not in self._text:
                chunk = await self._chunk()
                if not chunk:
                    return None
                self._text += chunk
        block, self._text = self._text.split(b"\n\n", 1)
        lines = block.decode().split("\n")
        self.comments += lines == [":"]
        return lines

    async def frames(self, count: int) -> list[Frame]:
        found = [await self.frame() for _ in range(count)]
        return [frame for frame in found if frame is not None]

    async def until(self, kind: str) -> list[Frame]:
        """Return the frames up to the first one of this type."""
        found: list[Frame] = []
        while not found or found[-1].type != kind:
            one = await self.frame()
            assert one is not None, [frame.type for frame in found]
            found.append(one)
        return found

    async def rest(self) -> list[Frame]:
        """Return what comes up to the end."""
        found: list[Frame] = []
        while (one := await self.frame()) is not None:
            found.append(one)
        return found

    async def _chunk(self) -> bytes:
        try:
            size = int((await self._reader.readline()) or b"0", 16)
            chunk = await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        return chunk

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def reading(
    port: int, path: str, headers: Mapping[str, str] | None = None, **connection: Any
) -> AsyncIterator[Reader]:
    """Open a stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **connection)
    given = {"host": f"127.0.0.1:{port}", "accept": "text/event-stream", **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
    found = Reader(reader, writer)
    try:
        await found.begin()
        yield found
    finally:
        writer.close()
