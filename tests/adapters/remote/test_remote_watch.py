"""Following a server whose streams break off, begin anew, or are not there."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tandem.adapters.cli import remote_watch
from tandem.adapters.cli.remote_watch import watch
from tandem.adapters.remote.frames import Frame, frames_of
from tandem.domain.errors import Refused, StoreUnavailable
from tandem.domain.ids import RunId

RUN = RunId("r")
READY = Frame(id="e.0", document={"status": "ready"})
ALIVE = Frame()
CLOSED = Frame(document={"type": "stream.closed", "properties": {"reason": "closing"}})


def event(seq: int, kind: str = "automation.v2.node.started", status: str = "running") -> Any:
    return {"type": kind, "properties": {"status": status}, "envelope": {"seq": seq}}


def frame(seq: int, **more: str) -> Frame:
    return Frame(id=f"e.{seq}", document=event(seq, **more))


END = "automation.v2.run.completed"


def is_end(told: Any) -> bool:
    return bool(told["type"] == END)


class Scripted:
    """A server with some streams, one after the other, and the events that it has stored."""

    url = "http://scripted"

    def __init__(self, *streams: Sequence[Frame | Exception], stored: Sequence[Any] = ()) -> None:
        self._streams = list(streams)
        self.stored = list(stored)
        self.last_ids: list[str] = []

    async def ask(self, method: str, path: str, *, query: Mapping[str, Any], **_: Any) -> Any:
        if path.endswith("/events"):
            return [each for each in self.stored if each["envelope"]["seq"] > query["after_seq"]]
        seqs = [each["envelope"]["seq"] for each in self.stored]
        context = {"org_id": "local", "workspace_id": "local", "source": "local_implicit"}
        return {
            "run": {
                "run_id": "r",
                "automation_id": "a",
                "workflow_definition_snapshot_hash": "sha256:0",
                "status": "completed" if any(map(is_end, self.stored)) else "running",
                "created_at_ms": 1,
                "updated_at_ms": 1,
                "event_seq": max(seqs, default=0),
                "tenant_context": context,
            }
        }

    async def content(self, method: str, path: str) -> bytes:
        raise AssertionError

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, Any] | None = None, last_id: str = ""
    ) -> AsyncIterator[AsyncIterator[Frame]]:
        self.last_ids.append(last_id)
        script = self._streams.pop(0)

        async def frames() -> AsyncIterator[Frame]:
            for each in script:
                if isinstance(each, Exception):
                    raise each
                if isinstance(each.document, dict) and each.document.get("envelope"):
                    self.stored.append(each.document)
                yield each

        if script and isinstance(script[0], Refused):
            raise script[0]
        yield frames()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_watch, "DELAYS_S", (0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(remote_watch, "POLL_S", 0.0)


async def seqs_of(server: Scripted, run_id: RunId | None = RUN, after: str = "") -> list[int]:
    return [each["envelope"]["seq"] async for each in watch(server, run_id, after=after)]


LOST = StoreUnavailable("lost")


async def test_what_happened_before_the_stream_comes_first_and_nothing_twice() -> None:
    server = Scripted(
        [READY, frame(2), frame(3, kind=END, status="completed")], stored=[event(1), event(2)]
    )
    assert await seqs_of(server) == [1, 2, 3]


async def test_a_lost_stream_goes_on_behind_the_last_id() -> None:
    server = Scripted(
        [READY, frame(1), frame(2), LOST],
        [READY, CLOSED],
        [LOST],
        [READY, frame(3), frame(4, kind=END, status="completed")],
    )
    assert await seqs_of(server) == [1, 2, 3, 4]
    assert server.last_ids == ["", "e.2", "e.0", "e.0"]


async def test_what_a_reset_says_was_missed_is_read_from_the_store() -> None:
    server = Scripted(
        [READY, frame(1), LOST],
        [
            Frame(id="f.0", document={"type": "stream.reset", "properties": {"reason": "foreign"}}),
            frame(4, kind=END, status="completed"),
        ],
    )
    server.stored = [event(1), event(2), event(3)]
    assert await seqs_of(server) == [1, 2, 3, 4]


async def test_without_streams_the_run_is_asked_for_its_events(
    capsys: pytest.CaptureFixture[str],
) -> None:
    refused = Refused("too many streams", code="rate_limited")
    server = Scripted([refused], stored=[event(1), event(2, kind=END, status="completed")])
    assert await seqs_of(server) == [1, 2]
    assert "no live stream (too many streams)" in capsys.readouterr().err


async def test_streams_that_never_say_anything_are_given_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stored = [event(1), event(2, kind=END, status="completed")]
    server = Scripted([LOST], [LOST], [LOST], stored=stored)
    assert await seqs_of(server) == [1, 2]
    assert "breaks off again and again" in capsys.readouterr().err


async def test_a_server_that_does_not_come_back_is_given_up() -> None:
    with pytest.raises(StoreUnavailable):
        await seqs_of(Scripted(*([READY, LOST], *[[LOST]] * 9)), run_id=None)
    with pytest.raises(Refused):
        await seqs_of(Scripted([Refused("no", code="auth_required")]))


async def test_a_run_that_ended_behind_the_given_id_ends_the_watch_at_a_sign_of_life() -> None:
    server = Scripted([READY, ALIVE], stored=[event(1, kind=END, status="completed")])
    assert await seqs_of(server, after="e.1") == []


async def test_frames_are_read_however_the_bytes_are_cut() -> None:
    content = b': hi\n\nid: 1\ndata: {"a":\ndata: 1}\n\ndata: {}\r\n\r\ndata: {"cut'
    for size in (1, 3, 7, len(content)):

        async def chunks(size: int = size) -> AsyncIterator[bytes]:
            for start in range(0, len(content), size):
                yield content[start : start + size]

        found = [each async for each in frames_of(chunks())]
        assert found == [Frame(), Frame(id="1", document={"a": 1}), Frame(document={})]


async def test_a_frame_that_is_no_json_is_an_error() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"data: {\n\n"

    with pytest.raises(StoreUnavailable):
        [each async for each in frames_of(chunks())]
