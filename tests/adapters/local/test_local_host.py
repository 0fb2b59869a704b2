"""Who is alive on this host, and waking each other."""

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tandem.adapters.local.host import LocalHost
from tandem.domain.errors import StoreUnavailable
from tandem.domain.ids import EngineId
from tandem.ports.store import EngineRow

NOW_MS = 1_000_000


def nothing() -> None:
    """Nobody is to be woken."""


async def test_an_engine_is_alive_while_it_holds_its_lock_whatever_its_lease(
    tmp_path: Path,
) -> None:
    holder, other = LocalHost(tmp_path), LocalHost(tmp_path)
    row = holder.enter(EngineId("a"), nothing)
    assert row.lease_until_ms < NOW_MS
    assert not other.is_dead(row, now_ms=NOW_MS)
    lock = Path(row.lock_path)
    content = lock.read_bytes()
    holder.leave()
    holder.leave()
    lock.write_bytes(content)  # as a killed engine leaves it
    assert other.is_dead(row, now_ms=NOW_MS)


async def test_a_killed_process_is_dead_at_once(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys, msgspec\n"
        "from tandem.adapters.local.host import LocalHost\n"
        "async def main():\n"
        "    row = LocalHost(pathlib.Path(sys.argv[1])).enter('a', lambda: None)\n"
        "    print(msgspec.json.encode(row).decode(), flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        row = msgspec.json.decode(process.stdout.readline(), type=EngineRow)
        row = msgspec.structs.replace(row, lease_until_ms=NOW_MS * 2)
        assert not LocalHost(tmp_path).is_dead(row, now_ms=NOW_MS)
        process.kill()
        process.wait()
    assert LocalHost(tmp_path).is_dead(row, now_ms=NOW_MS)


async def test_where_the_lock_cannot_be_seen_the_lease_decides(tmp_path: Path) -> None:
    row = EngineRow(
        engine_id=EngineId("far"),
        host="elsewhere",
        pid=1,
        version="1",
        lock_path="/nowhere",
        started_at_ms=0,
        lease_until_ms=NOW_MS,
    )
    host = LocalHost(tmp_path)
    assert not host.is_dead(row, now_ms=NOW_MS)
    assert host.is_dead(row, now_ms=NOW_MS + 1)


async def test_an_engine_that_left_while_the_store_was_away_is_dead_at_once(tmp_path: Path) -> None:
    holder, other = LocalHost(tmp_path), LocalHost(tmp_path)
    row = msgspec.structs.replace(holder.enter(EngineId("a"), nothing), lease_until_ms=NOW_MS * 2)
    assert other.can_see(row)
    assert not other.is_dead(row, now_ms=NOW_MS)
    holder.leave()
    assert other.can_see(row)
    assert other.is_dead(row, now_ms=NOW_MS)


async def test_a_lock_of_another_folder_or_host_cannot_be_seen(tmp_path: Path) -> None:
    holder = LocalHost(tmp_path / "one")
    row = msgspec.structs.replace(holder.enter(EngineId("a"), nothing), lease_until_ms=NOW_MS * 2)
    other = LocalHost(tmp_path / "two")
    assert other.can_see(row)  # the file is there
    holder.leave()
    assert not other.can_see(row)
    assert not other.is_dead(row, now_ms=NOW_MS)
    assert not other.can_see(msgspec.structs.replace(row, host="elsewhere"))


async def test_engines_wake_each_other_but_not_themselves(tmp_path: Path) -> None:
    # A long folder: the path of a socket has room for 107 bytes only.
    folder = tmp_path / ("long" * 40)
    woken, own = asyncio.Event(), asyncio.Event()
    first, second = LocalHost(folder), LocalHost(folder)
    first.enter(EngineId("a"), own.set)
    second.enter(EngineId("b"), woken.set)
    try:
        first.wake_others()
        async with asyncio.timeout(10):
            await woken.wait()
        assert not own.is_set()
    finally:
        first.leave()
        second.leave()


async def test_a_state_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="TANDEM_STATE_DIR"):
        LocalHost(tmp_path / "file").enter(EngineId("a"), nothing)
