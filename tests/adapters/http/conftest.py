"""The application in this process, over a real engine and a real store."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tandem.adapters.http.app import make_app
from tandem.adapters.http.local_access import LocalAccess
from tandem.adapters.http.service import Access, HttpLimits
from tandem.adapters.http.site import Site
from tandem.serving import service_of
from tandem.settings import Settings
from tandem.wiring import Parts, open_engine


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """An open server and a client of it."""

    http: httpx2.AsyncClient
    site: Site
    parts: Parts
    complaints: list[str]

    async def ask(self, method: str, path: str, **how: Any) -> httpx2.Response:
        return await self.http.request(method, path, **how)

    async def get(self, path: str, **how: Any) -> Any:
        """Return the document of a GET that has to succeed."""
        response = await self.http.get(path, **how)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, status: int = 200, **how: Any
    ) -> Any:
        """Return the document of a POST that has to be answered with `status`."""
        response = await self.http.post(path, json=dict(body or {}), **how)
        assert response.status_code == status, response.text
        return response.json()


OpenServer = Callable[..., Any]


@asynccontextmanager
async def open_server(
    state_dir: Path,
    *,
    access: Access | None = None,
    limits: HttpLimits | None = None,
    is_open: bool = True,
    drives: bool = False,
    agents: Any = None,
) -> AsyncIterator[Server]:
    """Open a server over a store of its own; without `is_open` the engine never gets ready."""
    complaints: list[str] = []
    site = Site(
        access=access or LocalAccess(),
        limits=limits or HttpLimits(),
        complain=complaints.append,
    )
    settings = Settings(state_dir=state_dir, isolation="subreaper", synchronous="OFF")
    async with (
        open_engine(settings, drives=drives, agents=agents) as parts,
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(make_app(site), client=("127.0.0.1", 50_000)),
            base_url="http://127.0.0.1:39731",
        ) as http,
    ):
        if is_open:
            site.open(service_of(parts))
        yield Server(http=http, site=site, parts=parts, complaints=complaints)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server without a token whose engine does not drive."""
    async with open_server(tmp_path / "state") as found:
        yield found
