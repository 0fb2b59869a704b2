"""Large definitions are read beside the loop; small ones, and where nothing else can, on it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tandem.adapters.files.document import parse_automation
from tandem.adapters.http.definition_reader import INLINE_BYTES_MAX, STARTS_MAX, ReaderProcess
from tandem.adapters.http.definition_reading import Form, Given, ReadBody, read
from tandem.domain.json import encode
from tandem.reading import READER_PROGRAM

from .conftest import Server, node, open_server, spec

PATH = "/automations/v2"
NODES = 3_000
WAIT_S = 30.0


def chain(automation_id: str, nodes: int = NODES, **more: Any) -> dict[str, Any]:
    """Return a definition in which each node waits for the one before."""
    found = [
        node(f"n{n}", f"n{n - 1}", input_refs=[{"from_step_id": f"n{n - 1}", "alias": "before"}])
        if n
        else node("n0")
        for n in range(nodes)
    ]
    return spec(automation_id, *found, **more)


@pytest.fixture
def process() -> Iterator[ReaderProcess]:
    found = ReaderProcess(READER_PROGRAM)
    yield found
    found.close()


@pytest.fixture
async def server(tmp_path: Path, process: ReaderProcess) -> AsyncIterator[Server]:
    """A server whose process for definitions has started."""
    async with open_server(tmp_path / "state", reader=process) as found:
        assert await process.ask(ReadBody(Form.CREATE, encode(spec("warm")))) is not None
        yield found


def send(process: ReaderProcess, number: int) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


async def until_asked(process: ReaderProcess) -> None:
    """Return once a question is on its way to the process."""
    async with asyncio.timeout(WAIT_S):
        while not process.is_asked:
            await asyncio.sleep(0)


async def test_others_are_answered_while_a_large_definition_is_read(
    server: Server, process: ReaderProcess
) -> None:
    send(process, signal.SIGSTOP)
    posting = asyncio.create_task(server.ask("POST", PATH, json=chain("large")))
    await until_asked(process)
    assert (await server.get("/global/health"))["ready"] is True
    assert (await server.get(PATH))["count"] == 0
    assert not posting.done()
    send(process, signal.SIGCONT)
    kept = (await posting).json()["automation"]
    assert len(kept["flow"]["nodes"]) == NODES
    assert await server.get(f"{PATH}/large") == {"automation": kept}


async def test_what_is_left_to_do_on_the_loop_does_not_grow_with_each_node(
    server: Server, process: ReaderProcess
) -> None:
    """Calls of Python functions are counted: they are the same on every machine."""

    async def calls_of(ask: Callable[[], Awaitable[Any]]) -> int:
        count = 0

        def counting(frame: FrameType, event: str, _: Any) -> None:
            nonlocal count
            count += event == "call" and "/tandem/" in frame.f_code.co_filename

        sys.setprofile(counting)
        try:
            await ask()
        finally:
            sys.setprofile(None)
        return count

    few = await calls_of(lambda: server.post(PATH, chain("small", 2)))
    many = await calls_of(lambda: server.post(PATH, chain("large")))
    patched = await calls_of(
        lambda: server.ask("PATCH", f"{PATH}/large", json={"description": "d"})
    )
    put = await calls_of(lambda: server.ask("PUT", f"{PATH}/whole", json=_whole(chain("whole"))))
    assert max(many, patched, put) < few + NODES / 10


def _whole(body: dict[str, Any]) -> dict[str, Any]:
    return {key: body[key] for key in ("name", "flow", "agents")}


async def test_what_is_wrong_is_said_as_if_it_were_read_on_the_loop(
    server: Server, process: ReaderProcess, tmp_path: Path
) -> None:
    large = chain("large", 400)
    wrong: list[Any] = [
        chain("x", 400, flow={"nodes": [node("a", "b"), *large["flow"]["nodes"]]}),
        chain("x", 400, colour="red"),
        chain("x", 400, agents=7),
        chain("x", 400, schedule={"type": "cron", "cron_expression": "x"}),
        chain("x", 400, flow={"nodes": [{**node("a"), "depends_on": 3}, *large["flow"]["nodes"]]}),
        chain("x", 400, metadata=[2**70]),
        {"flow": large["flow"]},
        chain("x", 10_001),
    ]
    async with open_server(tmp_path / "inline") as inline:
        for body in wrong:
            assert len(encode(body)) > INLINE_BYTES_MAX
            answers = [await one.ask("POST", PATH, json=body) for one in (server, inline)]
            assert answers[0].status_code == answers[1].status_code
            bodies = [answer.json() for answer in answers]
            for told in bodies:
                for key in ("created_at_ms", "updated_at_ms"):
                    told.get("automation", {}).pop(key, None)
            assert bodies[0] == bodies[1]


async def test_no_json_is_said_to_be_none(server: Server) -> None:
    text = b'{"name": "' + b"x" * INLINE_BYTES_MAX
    headers = {"content-type": "application/json"}
    answer = await server.ask("POST", PATH, content=text, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "BODY_NOT_JSON")


async def test_a_process_that_dies_leaves_its_definition_to_the_loop(
    server: Server, process: ReaderProcess
) -> None:
    for number in range(STARTS_MAX + 1):
        if process.pid is not None:
            send(process, signal.SIGSTOP)
        posting = asyncio.create_task(server.ask("POST", PATH, json=chain(f"a{number}", 400)))
        if process.pid is not None:
            await until_asked(process)
            send(process, signal.SIGKILL)
        assert (await posting).status_code == 200
        # The next one starts it again, until it has been started often enough.
        assert (await server.ask("POST", PATH, json=chain(f"b{number}", 400))).status_code == 200
    assert process.pid is None
    assert (await server.get(PATH))["count"] == 2 * (STARTS_MAX + 1)


async def test_a_closed_process_is_not_started_again(process: ReaderProcess) -> None:
    process.close()
    assert await process.ask(ReadBody(Form.CREATE, b"{}")) is None
    assert process.pid is None


async def test_a_program_that_is_not_there_leaves_all_to_the_loop() -> None:
    missing = ReaderProcess(["/nowhere/python"])
    assert await missing.ask(ReadBody(Form.CREATE, b"{}")) is None


def test_reading_is_pure() -> None:
    body = encode(spec("x"))
    first, second = (read(ReadBody(Form.CREATE, body), parse_automation) for _ in range(2))
    assert isinstance(first, Given)
    assert first == second
