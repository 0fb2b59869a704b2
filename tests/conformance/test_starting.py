"""Row 54 of the conformance script: a server that runs, and whose store is not open yet."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import httpx_sse
import pytest
from tandem_client import TandemClient

from tandem.adapters.sqlite.turnstile import Turnstile
from tandem.settings import Settings

from .conftest import COMPAT, SPEC, TOKEN
from .test_server import serve, url_of
from .test_typescript_client import ClientError, needs_node, open_typescript

ANSWERS_S = 30.0


def free_port() -> int:
    """Return a port that nobody listens on; a server that starts has not said its own yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def make_token(state_dir: Path, *arguments: str) -> str:
    """Make a token as an operator does, beside the server."""
    made = subprocess.run(
        [sys.executable, "-m", "tandem", "tokens", "create", "--name", "client", *arguments],
        env={**os.environ, "TANDEM_STATE_DIR": str(state_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return made.stdout.strip()


@contextmanager
def held_turn(state_dir: Path) -> Iterator[None]:
    """Have the turn of the store, as another process that writes for long has it."""
    state_dir.mkdir(parents=True, exist_ok=True)
    turnstile = Turnstile(Settings(state_dir=state_dir).store_path)
    try:
        with turnstile.turn():
            yield
    finally:
        turnstile.close()


@contextmanager
def starting(
    state_dir: Path, held: ExitStack, **env: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start `tandem serve`, with its URL, on a store that is held until `held` is closed."""
    held.enter_context(held_turn(state_dir))
    port = free_port()
    own = {"TANDEM_STATE_DIR": str(state_dir), "TANDEM_LOG_LEVEL": "error", **env}
    with serve("--port", str(port), **own) as process:
        yield process, f"http://127.0.0.1:{port}"


async def answering(url: str) -> None:
    """Return once the server listens."""
    deadline = time.monotonic() + ANSWERS_S
    async with httpx.AsyncClient(base_url=url) as http:
        while True:
            try:
                await http.get("/global/health")
            except httpx.ConnectError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            else:
                return


async def refused(client: TandemClient) -> list[tuple[int, str, bool]]:
    """Return how each of these calls was refused."""
    api = client.automations_v2
    found = []
    for call in (
        api.list(),
        api.create({**SPEC, "automation_id": "early"}),
        api.get("early"),
        api.run_now("early"),
        api.get_run("early"),
        api.list_runs("early"),
        api.create_webhook_trigger("early", {"provider": "github"}),
        client.run_events("early"),
    ):
        with pytest.raises(httpx.HTTPStatusError) as error:
            await call
        body = error.value.response.json()
        found.append((error.value.response.status_code, body["code"], body["retryable"]))
    return found


STARTING = (503, "ENGINE_STARTING", True)


async def test_row_54_whoever_comes_before_the_store_is_open_is_told_to_come_again(
    tmp_path: Path,
) -> None:
    state_dir = tmp_path / "state"
    with ExitStack() as held, starting(state_dir, held, TANDEM_API_TOKEN=TOKEN) as (process, url):
        await answering(url)
        async with TandemClient(url + COMPAT, TOKEN) as client:
            assert (await client.health()).ready is False
            assert set(await refused(client)) == {STARTING}
            with pytest.raises(httpx_sse.SSEError):
                await anext(client.automations_v2.events())
            held.close()
            assert url_of(process) == url
            assert (await client.health()).ready is True
            assert (await client.automations_v2.list()).count == 0


async def test_row_54_only_the_token_that_is_known_already_can_be_wrong(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    stored = make_token(state_dir, "--scope", "admin")
    with ExitStack() as held, starting(state_dir, held, TANDEM_API_TOKEN=TOKEN) as (process, url):
        await answering(url)
        async with (
            TandemClient(url + COMPAT, "wrong") as nobody,
            TandemClient(url + COMPAT, stored) as somebody,
        ):
            assert (await nobody.health()).ready is False
            with pytest.raises(httpx.HTTPStatusError, match="401"):
                await nobody.automations_v2.list()
            assert set(await refused(somebody)) == {STARTING}
            held.close()
            assert url_of(process) == url
            assert (await somebody.automations_v2.list()).count == 0


async def test_row_54_a_server_whose_tokens_are_in_its_store_starts_likewise(
    tmp_path: Path,
) -> None:
    state_dir = tmp_path / "state"
    stored = make_token(state_dir, "--scope", "admin")
    with ExitStack() as held, starting(state_dir, held) as (process, url):
        await answering(url)
        async with (
            TandemClient(url + COMPAT, "wrong") as nobody,
            TandemClient(url + COMPAT, stored) as somebody,
        ):
            for client in (nobody, somebody):
                assert (await client.health()).ready is False
                assert set(await refused(client)) == {STARTING}
            held.close()
            assert url_of(process) == url
            assert (await somebody.automations_v2.list()).count == 0
            with pytest.raises(httpx.HTTPStatusError, match="401"):
                await nobody.automations_v2.list()


@needs_node
async def test_row_54_for_the_typescript_client(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    with ExitStack() as held, starting(state_dir, held, TANDEM_API_TOKEN=TOKEN) as (process, url):
        await answering(url)
        async with open_typescript(url, TOKEN) as ts:
            assert (await ts.call("health"))["ready"] is False
            for path, *args in (
                ("automationsV2.list",),
                ("automationsV2.create", {**SPEC, "automation_id": "early"}),
                ("automationsV2.runNow", "early"),
            ):
                with pytest.raises(ClientError, match=r"503.*ENGINE_STARTING"):
                    await ts.call(path, *args)
            held.close()
            assert url_of(process) == url
            assert (await ts.call("health"))["ready"] is True
            assert (await ts.call("automationsV2.list"))["count"] == 0


async def test_a_server_that_still_waits_for_its_store_ends_when_it_is_told_to(
    tmp_path: Path,
) -> None:
    with ExitStack() as held, starting(tmp_path / "state", held) as (process, url):
        await answering(url)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=ANSWERS_S)
    assert process.returncode == 0
    assert "serving" not in said
