"""The event streams over a real connection: frames, cursors, bounds, and their end."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import tandem_client

from tandem.adapters.http.errors import HttpError
from tandem.adapters.http.local_access import LocalAccess
from tandem.domain.caller import LOCAL_CALLER, Caller
from tandem.domain.ids import LOCAL_TENANT, RunId, TenantId
from tandem.embedded import Automation
from tandem.wiring import Parts
from tests.adapters.http.streams import Listening, Reader, listening, reading

STREAM = "/automations/v2/events"
DONE = "automation.v2.run.completed"


async def start(
    parts: Parts, name: str = "job", *, tenant: TenantId = LOCAL_TENANT, **metadata: Any
) -> RunId:
    """Start a run of one node."""
    automation = Automation.from_dict(
        {
            "automation_id": name,
            "name": name,
            "nodes": [{"node_id": "a", "action": {"kind": "python", "function": "time:time"}}],
        }
    )
    return (await parts.engine.start(automation, tenant=tenant, **metadata)).run_id


async def ended(server: Listening, name: str = "job", **how: Any) -> RunId:
    """Start a run and wait for its end."""
    run_id = await start(server.parts, name, **how)
    await server.parts.waiters.wait(run_id, tenant=how.get("tenant", LOCAL_TENANT))
    return run_id


async def test_a_stream_begins_as_clients_expect_and_tells_a_run(tmp_path: Path) -> None:
    async with listening(tmp_path) as server, reading(server.port, STREAM) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        ready = await stream.frame()
        assert ready is not None
        assert ready.id
        assert ready.document["status"] == "ready"
        assert ready.document["stream"] == "automations_v2"
        assert "type" not in ready.document
        run_id = await ended(server)
        frames = await stream.until(DONE)
        created = frames[0].document
        assert created["type"] == "automation.v2.run.created"
        assert created["runID"] == created["properties"]["runID"] == run_id
        assert created["properties"]["triggerType"] == "manual"
        assert created["properties"]["dryRun"] is False
        assert created["properties"]["tenantContext"]["org_id"] == "local"
        numbers = [frame.document["envelope"]["seq"] for frame in frames]
        assert numbers == list(range(1, len(frames) + 1))
        assert len({frame.id for frame in frames}) == len(frames)


async def test_the_stream_of_everything_has_its_own_first_frames(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        for path in ("/event", "/global/event"):
            async with reading(server.port, path) as stream:
                first, second = await stream.frames(2)
                assert first.document == {"type": "server.connected", "properties": {}}
                assert second.type == "engine.lifecycle.ready"
                assert second.document["properties"]["transport"] == "sse"


async def test_filters_choose_runs_and_automations(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        first = await ended(server, "one")
        query = f"/event?runID={first}"
        async with (
            reading(server.port, f"{STREAM}?automation_id=two") as of_two,
            reading(server.port, query) as of_first,
            reading(server.port, "/event?sessionID=nobody") as of_session,
            reading(server.port, STREAM) as of_all,
        ):
            await of_all.frame()
            await ended(server, "one")
            second = await ended(server, "two")
            frames = await of_two.until(DONE)
            assert {frame.document.get("runID") for frame in frames[1:]} == {second}
            everything = [*await of_all.until(DONE), *await of_all.until(DONE)]
            assert len({frame.document["runID"] for frame in everything}) == 2
            server.stop()
            assert [frame.type for frame in await of_first.rest()][2:] == ["stream.closed"]
            assert [frame.type for frame in await of_session.rest()][2:] == ["stream.closed"]


async def test_a_stream_goes_on_over_a_restart_without_gap_or_repetition(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        async with reading(server.port, "/event") as stream:
            await ended(server)
            before = await stream.until("automation.v2.node.started")
        await ended(server)
    async with listening(tmp_path) as server:
        third = await start(server.parts)
        for how in (
            {"headers": {"Last-Event-ID": before[-1].id}},
            {"query": f"?after={before[-1].id}"},
            {"query": f"?cursor={before[-1].id}"},
        ):
            path = f"/event{how.get('query', '')}"
            async with reading(server.port, path, how.get("headers")) as stream:  # type: ignore[arg-type]
                again = await stream.until(DONE)
                again += await stream.until(DONE)
                again += await stream.until(DONE)
            seen = [
                (frame.document["runID"], frame.document["envelope"]["seq"])
                for frame in [*before, *again]
                if "envelope" in frame.document
            ]
            assert len(seen) == len(set(seen))
            for run_id in {run_id for run_id, _ in seen}:
                numbers = [seq for found, seq in seen if found == run_id]
                assert numbers == list(range(1, len(numbers) + 1))
            assert third in {run_id for run_id, _ in seen}


async def test_a_connection_that_hears_nothing_still_has_a_place_to_go_on_from(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path) as server:
        async with reading(server.port, STREAM) as stream:
            await stream.frame()
        run_id = await ended(server)
        async with reading(server.port, STREAM, {"last-event-id": stream.last_id}) as again:
            ready = await again.frame()
            assert ready is not None
            assert ready.id == stream.last_id
            frames = await again.until(DONE)
            assert frames[0].document["runID"] == run_id


async def test_a_cursor_of_another_store_is_answered_with_a_reset(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        await ended(server)
        async with reading(server.port, STREAM, {"last-event-id": "0123-4"}) as stream:
            _, reset = await stream.frames(2)
            assert reset.type == "stream.reset"
            assert reset.document["properties"]["reason"] == "foreign"
            assert reset.document["properties"]["cursor"] == reset.id
            await ended(server)
            assert (await stream.until(DONE))[0].type == "automation.v2.run.created"


async def test_a_quiet_stream_says_that_it_lives(tmp_path: Path) -> None:
    async with (
        listening(tmp_path, event_keep_alive_ms=100) as server,
        reading(server.port, STREAM) as stream,
    ):
        await stream.frame()
        await asyncio.sleep(0.35)
        await ended(server)
        await stream.until(DONE)
        assert stream.comments >= 2


async def test_a_slow_client_is_dropped_slows_nobody_and_goes_on_later(tmp_path: Path) -> None:
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    async with listening(
        tmp_path, event_buffer_events_max=200, event_buffer_bytes_max=200_000, runs_max=50
    ) as server:
        small.setblocking(False)
        await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", server.port))
        async with reading(server.port, STREAM) as quick, _slow(small, server.port) as slow:
            await quick.frame()
            await slow.frame()
            feed = server.parts.feed
            assert feed.subscriptions == 2
            runs = 0
            while feed.subscriptions == 2:
                runs += 1
                assert runs < 3_000
                await start(server.parts)
                while quick_frames_behind(server, quick):
                    await quick.frame()
            server.parts.engine.stop()
            frames = await slow.rest()
            ids = [frame.id for frame in frames if frame.id]
            assert ids
            reason = [frame.document for frame in frames if frame.type == "stream.closed"]
            assert not reason or reason[0]["properties"]["reason"] == "slow_reader"
        async with reading(server.port, STREAM, {"last-event-id": ids[-1]}) as again:
            seen = [frame.document["envelope"]["event_id"] for frame in frames if frame.id]
            newest = server.parts.store.find_event_tail().position
            await again.frame()
            while int(again.last_id.split("-")[1].split(".")[0]) < newest:
                frame = await again.frame()
                assert frame is not None
                seen.append(frame.document["envelope"]["event_id"])
            assert len(seen) == len(set(seen))
            assert len([one for one in seen if one.endswith(":1")]) == runs


def quick_frames_behind(server: Listening, quick: Any) -> bool:
    """Say whether there is something for the quick reader to take."""
    newest = server.parts.store.find_event_tail().position
    return int(quick.last_id.split("-")[1].split(".")[0]) < newest - 50


@asynccontextmanager
async def _slow(small: socket.socket, port: int) -> AsyncIterator[Reader]:
    """Open a stream over a connection that takes little at once."""
    reader, writer = await asyncio.open_connection(sock=small, limit=1_024)
    writer.write(f"GET {STREAM} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
    found = Reader(reader, writer)
    await found.begin()
    try:
        yield found
    finally:
        writer.close()


async def test_one_caller_may_have_so_many_streams(tmp_path: Path) -> None:
    async with listening(tmp_path, event_streams_max=2) as server:
        async with reading(server.port, STREAM), reading(server.port, STREAM) as second:
            async with reading(server.port, STREAM) as third:
                assert third.status == 429
                assert third.headers["retry-after"]
            second.close()
            while server.parts.feed.subscriptions == 2:
                await asyncio.sleep(0.01)
        while server.parts.feed.subscriptions:
            await asyncio.sleep(0.01)
        async with reading(server.port, STREAM) as again:
            assert again.status == 200


async def test_streams_end_when_the_server_stops(tmp_path: Path) -> None:
    async with asyncio.timeout(10):
        async with listening(tmp_path) as server, reading(server.port, "/event") as stream:
            await stream.frames(2)
            server.stop()
            (last,) = await stream.rest()
            assert last.type == "stream.closed"
            assert last.document["properties"]["reason"] == "closing"
            assert last.document["properties"]["resume_after"] == stream.last_id


class Tenants:
    """A token for each tenant; a token that was taken away is known no longer."""

    def __init__(self) -> None:
        self.known = {"here": LOCAL_TENANT, "there": TenantId("there/there")}

    async def caller_of(self, headers: Mapping[str, str], peer: str) -> Caller:
        del peer
        token = headers.get("x-tandem-token", "")
        if token not in self.known:
            raise HttpError("AUTH_REQUIRED", "a token is needed")
        return self._caller(token)

    def still_holds(self, caller: Caller) -> bool:
        return caller.token_id in self.known

    def _caller(self, token: str) -> Caller:
        return msgspec.structs.replace(LOCAL_CALLER, tenant=self.known[token], token_id=token)


async def test_another_tenant_hears_nothing_even_of_a_run_that_it_names(tmp_path: Path) -> None:
    foreign = {"x-tandem-token": "there"}
    async with listening(tmp_path, access=Tenants()) as server:
        run_id = await ended(server)
        paths = ("/event", STREAM, f"{STREAM}?run_id={run_id}", f"/event?runID={run_id}")
        mine: list[RunId] = []
        for path in paths:
            async with reading(server.port, path, foreign) as stream:
                await stream.frame()
                await ended(server)
                tail = server.parts.store.find_event_tail()
                async with reading(
                    server.port, path, {**foreign, "last-event-id": f"{tail.store_id}-0"}
                ) as from_start:
                    await from_start.frame()
                    mine.append(await ended(server, tenant=TenantId("there/there")))
                    if "=" in path:
                        continue
                    told = await stream.until(DONE)
                    for _ in mine:
                        told += await from_start.until(DONE)
                    runs = {frame.document.get("runID") for frame in told}
                    assert runs - {None} == set(mine)
        async with reading(server.port, f"/run/{run_id}/events", foreign) as missing:
            assert missing.status == 404


async def test_a_stream_ends_when_its_token_is_taken_away(tmp_path: Path) -> None:
    access = Tenants()
    token = {"x-tandem-token": "there"}
    async with (
        listening(tmp_path, access=access, event_keep_alive_ms=100) as server,
        reading(server.port, STREAM, token) as stream,
        reading(server.port, STREAM, {"x-tandem-token": "here"}) as other,
    ):
        await stream.frame()
        del access.known["there"]
        (last,) = await stream.rest()
        assert last.document["properties"]["reason"] == "access_ended"
        await other.frame()
        await ended(server)
        await other.until(DONE)


class Until:
    """Lets everybody in until a moment; `holds` says with what they come."""

    def __init__(self) -> None:
        self.until_ms: int | None = None

    async def caller_of(self, headers: Mapping[str, str], peer: str) -> Caller:
        del headers, peer
        return msgspec.structs.replace(LOCAL_CALLER, until_ms=self.until_ms)

    def still_holds(self, caller: Caller) -> bool:
        return bool(caller)


async def test_a_stream_ends_with_what_it_was_opened_with_and_is_gone_on_with(
    tmp_path: Path,
) -> None:
    """Signs of life are 10 s apart; the end is at its moment."""
    access = Until()
    async with listening(tmp_path, access=access) as server:
        now_ms = server.site.service.clock.now_ms
        access.until_ms = now_ms() + 300
        async with reading(server.port, STREAM) as stream:
            await stream.frame()
            (last,) = await stream.rest()
        assert now_ms() >= access.until_ms
        assert (last.type, last.id) == ("stream.closed", "")
        told = last.document["properties"]
        assert told == {"reason": "access_ended", "resume_after": stream.last_id}
        run_id = await ended(server)
        async with reading(server.port, STREAM, {"last-event-id": stream.last_id}) as over:
            # What it comes with is over already: it is told nothing of what happened since.
            assert [frame.type for frame in await over.rest()] == ["", "stream.closed"]
        access.until_ms = None
        async with reading(server.port, STREAM, {"last-event-id": stream.last_id}) as again:
            missed = await again.until(DONE)
        assert {frame.document.get("runID") for frame in missed} == {None, run_id}


async def test_a_stream_of_a_run_that_is_deleted_tells_it_and_ends(tmp_path: Path) -> None:
    async with listening(tmp_path, event_keep_alive_ms=50) as server:
        run_id = await ended(server)
        other = await ended(server)
        paths = (f"/run/{run_id}/events", f"{STREAM}?run_id={run_id}", f"/event?runID={run_id}")
        async with AsyncExitStack() as stack:

            async def opened(path: str) -> Reader:
                stream = await stack.enter_async_context(reading(server.port, path))
                await stream.frame()
                while not stream.comments:
                    await stream.line()
                return stream

            following = [await opened(path) for path in paths]
            beside = [await opened(path) for path in (f"/run/{other}/events", STREAM, "/event")]
            await server.parts.engine.delete(run_id)
            for stream in following:
                *_, deleted, closed = await stream.rest()
                assert (deleted.type, deleted.id) == ("automation.v2.run.deleted", "")
                assert deleted.document["runID"] == run_id
                assert deleted.document["properties"]["automationID"] == "job"
                assert deleted.document["properties"]["status"] == "completed"
                assert deleted.document["envelope"]["seq"] == 6
                assert closed.document["properties"]["reason"] == "run_deleted"
                assert closed.document["properties"]["resume_after"] == stream.last_id
            for stream in beside:
                before = stream.comments
                while stream.comments < before + 3:
                    await stream.line()


async def test_a_stream_of_a_run_that_never_was_there_stays(tmp_path: Path) -> None:
    async with (
        listening(tmp_path, event_keep_alive_ms=20) as server,
        reading(server.port, f"{STREAM}?run_id=nobody") as stream,
    ):
        while stream.comments < 5:
            await stream.line()


async def test_the_published_client_reads_the_streams(tmp_path: Path) -> None:
    async with listening(tmp_path, access=LocalAccess("secret")) as server:
        base = f"http://127.0.0.1:{server.port}"
        async with tandem_client.TandemClient(base_url=base, token="secret") as client:
            events = client.automations_v2.events(automation_id="job")
            first = await anext(events)
            assert first.type == "message"
            await ended(server, "other")
            run_id = await ended(server)
            heard = []
            while not heard or heard[-1].type != DONE:
                heard.append(await anext(events))
            assert heard[0].type == "automation.v2.run.created"
            assert {event.run_id for event in heard} == {run_id}
            await events.aclose()
            async with asyncio.timeout(10):
                found = await client.run_events(run_id, since_seq=0)
            assert found[-1].type == DONE


async def test_events_of_a_run_are_listed_by_number(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        run_id = await ended(server)

        async def get(path: str) -> Any:
            async with reading(server.port, path, {"accept": "*/*", "connection": "close"}) as got:
                assert got.status == 200, path
                return json.loads(await got._reader.read())

        everything = await get(f"/run/{run_id}/events")
        assert [one["envelope"]["seq"] for one in everything] == [1, 2, 3, 4, 5]
        later = await get(f"/api/run/{run_id}/events?since_seq=3")
        assert later == everything[3:]
        assert await get(f"/run/{run_id}/events?tail=2") == everything[3:]
        stored = await get(f"/runs/{run_id}/events?after_seq=1&before_seq=4&limit=10")
        assert (stored["first_seq"], stored["last_seq"], stored["count"]) == (2, 3, 2)
        assert stored["events"][0]["event_type"] == everything[1]["type"]
        assert stored["events"][0]["payload"] == everything[1]["properties"]
        newest = await get(f"/runs/{run_id}/events?tail=2")
        assert (newest["tail"], newest["last_seq"], newest["count"]) == (2, 5, 2)
        none = await get("/runs/nobody/events")
        assert (none["events"], none["first_seq"]) == ([], None)


async def test_a_run_is_streamed_where_that_is_accepted(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        run_id = await ended(server)
        tail = server.parts.store.find_event_tail()
        path = f"/run/{run_id}/events?after={tail.store_id}-0"
        async with reading(server.port, path) as stream:
            frames = await stream.until(DONE)
            assert frames[0].document == {
                "type": "run.stream.connected",
                "properties": {"runID": run_id},
            }
            assert len(frames) == 6


async def test_a_head_request_of_a_stream_ends(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"HEAD /event HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        async with asyncio.timeout(10):
            assert b"200" in await reader.read()
        writer.close()
        assert server.parts.feed.subscriptions == 0


async def test_many_readers_of_many_runs_have_all_of_it_soon_after_the_end(tmp_path: Path) -> None:
    readers_of_one, runs = 40, 120
    seen: list[list[tuple[str, int]]] = []

    async def follow(port: int, query: str, after: str, count: int) -> None:
        heard: list[tuple[str, int]] = []
        seen.append(heard)
        async with reading(port, f"{STREAM}{query}", {"last-event-id": after}) as stream:
            while count:
                frame = await stream.frame()
                assert frame is not None
                if "envelope" in frame.document:
                    heard.append((frame.document["runID"], frame.document["envelope"]["seq"]))
                count -= frame.type == DONE

    async with listening(tmp_path, runs_max=32) as server:
        tail = server.parts.store.find_event_tail()
        start_id = f"{tail.store_id}-{tail.position}"
        async with asyncio.TaskGroup() as group:
            following = [
                group.create_task(follow(server.port, "", start_id, runs)) for _ in range(2)
            ]
            started = [await start(server.parts) for _ in range(runs)]
            following += [
                group.create_task(follow(server.port, f"?run_id={run_id}", start_id, 1))
                for run_id in started[:readers_of_one]
            ]
            for run_id in started:
                await server.parts.waiters.wait(run_id)
            async with asyncio.timeout(5):
                await asyncio.wait(following)
    assert len(seen) == readers_of_one + 2
    for heard in seen:
        for run_id in {run_id for run_id, _ in heard}:
            numbers = [seq for found, seq in heard if found == run_id]
            assert numbers == list(range(1, len(numbers) + 1))
    assert [len({run_id for run_id, _ in heard}) for heard in seen[:2]] == [runs, runs]
