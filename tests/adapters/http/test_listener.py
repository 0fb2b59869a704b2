"""Connections that send slowly, too much or nothing."""

import asyncio
import json

import pytest
import uvicorn
import uvloop
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from tandem.adapters.http.listener import BoundedProtocol

LIMIT_S = 10


class Hasty(BoundedProtocol):
    head_s = 0.05
    body_s = 0.05
    head_bytes_max = 1_000


class Patient(BoundedProtocol):
    head_bytes_max = 1_000


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        body = await Request(scope, receive).body()
    except ClientDisconnect:
        return
    await PlainTextResponse(body)(scope, receive, send)


async def answer_to(protocol: type[BoundedProtocol], *pieces: bytes) -> bytes:
    """Return everything that a server says to these bytes until it ends the connection."""
    config = uvicorn.Config(application, lifespan="off", log_config=None)
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config, state, {}), "127.0.0.1", 0
    )
    async with server, asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        said = await reader.read()
        writer.close()
    return said


def code_of(said: bytes) -> str:
    """Return the code of an answer, whose body is the envelope of all errors."""
    told = json.loads(said.partition(b"\r\n\r\n")[2])
    assert set(told) == {"error", "code", "retryable", "hint"}
    return str(told["code"])


BEGUN = b"POST / HTTP/1.1\r\nhost: a\r\n"


@pytest.mark.parametrize("sent", [b"", b"P", BEGUN, BEGUN + b"x-more: "])
async def test_a_head_that_does_not_come_is_not_waited_for(sent: bytes) -> None:
    said = await answer_to(Hasty, sent)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert code_of(said) == "REQUEST_TOO_SLOW"


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    assert await answer_to(Hasty, BEGUN + b"content-length: 9\r\n\r\nsome") == b""


def test_the_loop_of_the_server_knows_these_connections() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        assert loop.run(answer_to(Hasty, BEGUN)).startswith(b"HTTP/1.1 408 ")
        done = BEGUN + b"connection: close\r\ncontent-length: 2\r\n\r\nab"
        assert loop.run(answer_to(Hasty, done)).endswith(b"ab")


async def test_a_head_without_an_end_is_refused() -> None:
    more = [b"x-%d: %b\r\n" % (number, b"a" * 500) for number in range(3)]
    said = await answer_to(Patient, BEGUN, *more)
    assert said.startswith(b"HTTP/1.1 431 ")
    assert code_of(said) == "HEAD_TOO_LARGE"


@pytest.mark.parametrize("sent", [b"nothing\r\n\r\n", b"GET / HTTP/1.1\r\nno header\r\n\r\n"])
async def test_what_is_no_request_is_refused_as_every_other_error(sent: bytes) -> None:
    said = await answer_to(Patient, sent)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert code_of(said) == "REQUEST_MALFORMED"


async def test_what_comes_in_time_is_answered_again_and_again() -> None:
    asked = BEGUN + b"content-length: 2\r\n\r\nab"
    last = BEGUN + b"connection: close\r\ncontent-length: 2\r\n\r\ncd"
    said = await answer_to(Hasty, *asked.partition(b"a\r\n"), asked + last)
    assert said.count(b"HTTP/1.1 200 ") == 3
    assert said.endswith(b"cd")
