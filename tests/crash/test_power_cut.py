"""The power goes at every point of a story: what was acknowledged is there when it comes back.

The page cache survives a killed process, so killing proves nothing about syncs. Here the order of
writes and syncs is recorded and everything that was not synced is dropped.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from disk import Acknowledged, Disk, Operation, Recorder, Synced

import tandem.adapters.sqlite.store as store_module
from tandem.adapters.sqlite.connection import open_connection
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.change import Change
from tandem.domain.command import DecideGate, Pause, Resume
from tandem.testing.store_suite import GATE, Scene, chain, succeeded

CHECKPOINT_PAGES = 25
"""So few that the story meets several checkpoints and starts of the WAL from its beginning."""


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Record what the writer of a store does; its reader is the same connection.

    Python's VFS has no shared memory, so the connection keeps the file for itself.
    """
    made = Recorder("recorder")
    writers: list[apsw.Connection] = []

    def configure(connection: apsw.Connection) -> None:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        connection.wal_autocheckpoint(CHECKPOINT_PAGES)

    def open_recorded(path: Path, **options: Any) -> apsw.Connection:
        if options.get("read_only"):
            return writers[-1]
        apsw.connection_hooks.append(configure)
        try:
            writers.append(open_connection(path, **options, vfs="recorder"))
        finally:
            apsw.connection_hooks.remove(configure)
        return writers[-1]

    monkeypatch.setattr(store_module, "open_connection", open_recorded)
    yield made
    made.unregister()


async def tell_story(recorder: Recorder, store: SqliteStore) -> None:
    """Write a bit of everything; note each change once the store says that it is on disk."""
    scene = Scene(store)

    def acknowledge(change: Change) -> None:
        recorder.log.append(Acknowledged(change.change_id))

    for number in range(4):
        run = await scene.create(f"r{number}", [*chain(4), *GATE])
        recorder.log.append(Acknowledged(run.last_change_id))
        (view,) = await scene.claim()
        recorder.log.append(Acknowledged(view.run.last_change_id))
        change = scene.next(view)
        await store.apply(change)
        acknowledge(change)
        # Two that share a commit, then one alone with an output that takes several pages.
        pair = [scene.next(view, succeeded(0)), scene.next(view, succeeded(1))]
        await asyncio.gather(*[store.apply(change) for change in pair])
        for change in pair:
            acknowledge(change)
        change = scene.next(view, succeeded(2, output=b'"%s"' % (b"x" * 9_000)))
        await store.apply(change)
        acknowledge(change)
        change = scene.next(view, succeeded(3))
        await store.apply(change)
        acknowledge(change)
        acknowledge(await scene.execute(f"r{number}", DecideGate(decision="approve")))
        acknowledge(await scene.execute(f"r{number}", Pause()))
        acknowledge(await scene.execute(f"r{number}", Resume()))
        (view,) = await scene.claim()
        acknowledge_last = view.run.last_change_id
        recorder.log.append(Acknowledged(acknowledge_last))
        change = scene.next(view)
        await store.apply(change)
        acknowledge(change)


def losses(log: list[Operation], folder: Path) -> list[str]:
    """Cut the power after every operation and return what is wrong afterwards."""
    disk, seen, found = Disk(), set(), []
    for point, operation in enumerate(log):
        disk.play(operation)
        for files in disk.cuts():
            state = hashlib.sha256(repr(sorted(files.items())).encode()).digest()
            if (state, len(disk.acknowledged)) in seen:
                continue
            seen.add((state, len(disk.acknowledged)))
            wrong = _wrong(files, set(disk.acknowledged), folder)
            if wrong:
                found.append(f"after operation {point} ({type(operation).__name__}): {wrong}")
    return found


def _wrong(files: dict[str, bytes], acknowledged: set[str], folder: Path) -> str:
    for left in folder.iterdir():
        left.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    connection = apsw.Connection(str(folder / "store.db"))
    try:
        integrity = connection.execute("PRAGMA integrity_check").fetchall()
        if integrity != [("ok",)]:
            return f"integrity: {integrity[:3]}"
        if not acknowledged:
            return ""
        there = connection.execute("SELECT change_id FROM lifecycle_event").fetchall()
        lost = acknowledged - {str(change_id) for (change_id,) in there}
        return f"lost {sorted(lost)}" if lost else ""
    except apsw.Error as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()


async def record(recorder: Recorder, path: Path, synchronous: str) -> list[Operation]:
    store = SqliteStore(path, synchronous=synchronous)
    await tell_story(recorder, store)
    log = list(recorder.log)
    store.close()
    return log


async def test_acknowledged_changes_survive_a_power_cut_at_every_point(
    recorder: Recorder, tmp_path: Path
) -> None:
    log = await record(recorder, tmp_path / "store.db", "FULL")
    folder = tmp_path / "cut"
    folder.mkdir()

    assert losses(log, folder) == []

    # The story is not a trivial one: checkpoints synced the file itself, more than once.
    syncs = [operation.name for operation in log if isinstance(operation, Synced)]
    assert syncs.count("store.db") > 3
    assert sum(isinstance(operation, Acknowledged) for operation in log) > 40


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
async def test_weaker_settings_lose_something(
    recorder: Recorder, tmp_path: Path, synchronous: str
) -> None:
    """The test above can fail: with fewer syncs it finds what is lost."""
    log = await record(recorder, tmp_path / "store.db", synchronous)
    folder = tmp_path / "cut"
    folder.mkdir()
    assert any("lost" in wrong or "Error" in wrong for wrong in losses(log, folder))
