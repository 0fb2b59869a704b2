"""HTTP requests against a real server on the loopback."""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tandem.adapters.local.http import retry_after_ms
from tandem.domain.outcome import FailureClass, Succeeded


class Server:
    """Answers each request with what `routes` has for its path."""

    def __init__(self):
        self.routes = {}
        self.requests = []
        self.port = 0
        self.writers = set()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, path, status="200 OK", body=b"", **headers):
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.routes[path] = "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                method, path, _ = first.split()
                headers = {k.lower(): v for k, _, v in (x.partition(": ") for x in lines if x)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append((method, path, headers, body))
                route = self.routes[path.partition("?")[0]]
                if callable(route):
                    await route(writer)
                else:
                    writer.write(route)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()


@asynccontextmanager
async def serving():
    found = Server()
    listener = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield found
        listener.close()
        for writer in found.writers:  # leaving waits for the connections
            writer.close()


@pytest.fixture
async def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with serving() as found:
        yield found


async def test_json_answer_is_parsed(bench, plain, run, server):
    server.answer("/a", body=b'{"x": [1]}', Content_Type="application/problem+json; charset=utf-8")
    outcome = await run(plain, bench.http(server.url("/a")))
    assert isinstance(outcome, Succeeded)
    assert outcome.output["status"] == 200
    assert outcome.output["body"] == {"x": [1]}
    assert outcome.output["headers"]["content-type"].startswith("application/problem+json")


async def test_other_answers_are_text_and_empty_ones_null(bench, plain, run, server):
    server.answer("/text", body="grüße\0".encode(), Content_Type="text/plain; charset=utf-8")
    server.answer("/empty", status="204 No Content")
    assert (await run(plain, bench.http(server.url("/text")))).output["body"] == "grüße"
    assert (await run(plain, bench.http(server.url("/empty")))).output["body"] is None


async def test_body_that_claims_to_be_json_but_is_not_fails(bench, plain, run, server):
    server.answer("/a", body=b"<html>", Content_Type="application/json")
    outcome = await run(plain, bench.http(server.url("/a")))
    assert outcome.failure_class == FailureClass.EXECUTION_ERROR
    assert outcome.detail == "<html>"


async def test_request_carries_body_headers_and_idempotency_key(bench, plain, run, server):
    server.answer("/a")
    spec = bench.http(
        server.url("/a?q=1"), method="POST", json_body={"a": None}, headers={"X-Mine": "m"}
    )
    await run(plain, spec)
    method, path, headers, body = server.requests[0]
    assert (method, path, json.loads(body)) == ("POST", "/a?q=1", {"a": None})
    assert headers["content-type"] == "application/json"
    assert headers["x-mine"] == "m"
    assert headers["idempotency-key"] == spec.idempotency_key


async def test_headers_of_the_user_win(bench, plain, run, server):
    server.answer("/a")
    headers = {"idempotency-key": "mine", "content-type": "text/csv"}
    spec = bench.http(server.url("/a"), method="PUT", text_body="a,b", headers=headers)
    await run(plain, spec)
    _, _, sent, body = server.requests[0]
    assert (sent["idempotency-key"], sent["content-type"], body) == ("mine", "text/csv", b"a,b")


async def test_expected_statuses_decide_success(bench, plain, run, server):
    server.answer("/a", status="404 Not Found", body=b"none")
    server.answer("/b")
    found = await run(plain, bench.http(server.url("/a"), expect_status=[404]))
    assert found.output["status"] == 404
    refused = await run(plain, bench.http(server.url("/b"), expect_status=[404]))
    assert refused.failure_class == FailureClass.EXECUTION_ERROR


@pytest.mark.parametrize(
    ("status", "family"),
    [
        ("400 Bad Request", FailureClass.EXECUTION_ERROR),
        ("401 Unauthorized", FailureClass.PROVIDER_TERMINAL),
        ("403 Forbidden", FailureClass.PROVIDER_TERMINAL),
        ("404 Not Found", FailureClass.EXECUTION_ERROR),
        ("429 Too Many Requests", FailureClass.PROVIDER_TRANSIENT),
        ("500 Internal Server Error", FailureClass.PROVIDER_TRANSIENT),
        ("503 Service Unavailable", FailureClass.PROVIDER_TRANSIENT),
    ],
)
async def test_status_gives_the_family_of_the_failure(bench, plain, run, server, status, family):
    server.answer("/a", status=status, body=b"because")
    outcome = await run(plain, bench.http(server.url("/a?token=secret")))
    assert outcome.failure_class == family
    assert outcome.message == f"GET {server.url('/a')} answered {status[:3]}"
    assert outcome.detail == "because"


async def test_retry_after_is_told(bench, plain, run, server):
    server.answer("/a", status="429 Too Many Requests", Retry_After="7")
    assert (await run(plain, bench.http(server.url("/a")))).retry_after_ms == 7000


def test_retry_after_reads_seconds_and_dates():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    now_ms = int(now.timestamp() * 1000)
    assert retry_after_ms("0", now_ms) == 0
    assert retry_after_ms(format_datetime(now + timedelta(seconds=90), usegmt=True), now_ms) == (
        90_000
    )
    assert retry_after_ms(format_datetime(now - timedelta(seconds=90), usegmt=True), now_ms) == 0
    assert retry_after_ms("99999999999", now_ms) == 24 * 3600 * 1000
    assert retry_after_ms("9" * 5_000, now_ms) == 24 * 3600 * 1000
    assert retry_after_ms("Mon, 01 Jan 2020 00:00:00 +99999999999999999999", now_ms) is None
    assert retry_after_ms("soon", now_ms) is None
    assert retry_after_ms(None, now_ms) is None


async def test_redirect_is_followed_only_when_asked(bench, plain, run, server):
    server.answer("/old", status="302 Found", Location="/new")
    server.answer("/new", body=b"here")
    stayed = await run(plain, bench.http(server.url("/old")))
    assert stayed.message.endswith("answered 302")
    followed = await run(plain, bench.http(server.url("/old"), follow_redirects=True))
    assert followed.output["body"] == "here"


async def test_endless_redirect_is_a_failure(bench, plain, run, server):
    server.answer("/loop", status="302 Found", Location="/loop")
    outcome = await run(plain, bench.http(server.url("/loop"), follow_redirects=True))
    assert outcome.failure_class == FailureClass.EXECUTION_ERROR
    assert "redirected" in outcome.message


async def test_huge_body_is_cut_off(bench, plain, run, server):
    async def endless(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()

    server.routes["/huge"] = endless
    outcome = await run(plain, bench.http(server.url("/huge"), output_bytes_max=1_000_000))
    assert outcome.failure_class == FailureClass.OUTPUT_TOO_LARGE


async def test_slow_body_is_progress_and_can_be_cancelled(bench, plain, until, server):
    closed = asyncio.Event()

    async def slow(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst")
        await writer.drain()
        await writer.wait_closed()
        closed.set()

    server.routes["/slow"] = slow
    task = asyncio.create_task(plain.run(bench.http(server.url("/slow")), bench.progress))
    await until(lambda: ("event", "5 bytes") in bench.progress_calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_broken_connection_is_transient(bench, plain, run, server):
    async def breaking(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst")
        writer.close()

    server.routes["/broken"] = breaking
    outcome = await run(plain, bench.http(server.url("/broken")))
    assert outcome.failure_class == FailureClass.PROVIDER_TRANSIENT
    assert "the connection broke" in outcome.message


async def test_refused_connection_is_transient(bench, plain, run, server):
    async with serving() as other:
        url = other.url("/a")
    outcome = await run(plain, bench.http(url))
    assert outcome.failure_class == FailureClass.PROVIDER_TRANSIENT
    assert "cannot connect" in outcome.message


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "ftp://host/x",
        "http://",
        "http://[::1",
        "http://host:port/",
        "http://127.0.0.1:99999/",
    ],
)
async def test_bad_url_is_missing_config(bench, plain, run, url):
    outcome = await run(plain, bench.http(url))
    assert outcome.failure_class == FailureClass.MISSING_CONFIG


async def test_header_that_http_cannot_carry_is_missing_config(bench, plain, run, server):
    outcome = await run(plain, bench.http(server.url("/a"), headers={"X": "a\r\nY: b"}))
    assert outcome.failure_class == FailureClass.MISSING_CONFIG
    assert server.requests == []


async def test_password_in_the_url_is_not_told(bench, plain, run, server):
    server.answer("/a", status="400 Bad Request")
    url = server.url("/a").replace("http://", "http://user:secret@")
    outcome = await run(plain, bench.http(url))
    assert "secret" not in outcome.message


async def test_cookies_of_one_request_do_not_reach_another(bench, plain, run, server):
    server.answer("/a", Set_Cookie="session=1; Path=/")
    await run(plain, bench.http(server.url("/a")))
    await run(plain, bench.http(server.url("/a")))
    assert "cookie" not in server.requests[1][2]
