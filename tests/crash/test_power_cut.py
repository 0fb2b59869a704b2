"""The power goes at every point of a story: what was acknowledged is there when it comes back.

The page cache survives a killed process, so killing proves nothing about syncs. Here the order of
writes and syncs is recorded and everything that was not synced is dropped.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from disk import Acknowledged, Disk, Operation, Recorder, Synced

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.change import Change
from tandem.domain.command import DecideGate, Pause, Resume
from tandem.testing.store_suite import GATE, Scene, chain, succeeded


async def tell_story(recorder: Recorder, store: SqliteStore) -> None:
    """Write a bit of everything; note each change once the store says that it is on disk."""
    scene = Scene(store)

    def acknowledge(change: Change) -> None:
        recorder.log.append(Acknowledged(change.change_id))

    for number in range(3):
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
        recorder.log.append(Acknowledged(view.run.last_change_id))
        change = scene.next(view)
        await store.apply(change)
        acknowledge(change)


def losses(log: list[Operation], folder: Path) -> Iterator[str]:
    """Cut the power after every operation and tell what is wrong afterwards."""
    disk = Disk()
    known: dict[int, set[str] | str] = {}
    for point, operation in enumerate(log):
        disk.play(operation)
        for files in disk.cuts():
            state = _digest(files)
            if state not in known:
                known[state] = _changes_after_cut(files, folder)
            there = known[state]
            wrong = there if isinstance(there, str) else set(disk.acknowledged) - there
            # Before anything was acknowledged there may be no tables yet, but nothing is broken.
            if wrong and (disk.acknowledged or not str(wrong).startswith("SQLError")):
                yield f"after operation {point} ({type(operation).__name__}): {wrong}"


def _digest(files: dict[str, bytes]) -> int:
    # Most files are what they were at the cut before; bytes remember their hash of 64 bits.
    return hash(tuple(sorted(files.items())))


def _changes_after_cut(files: dict[str, bytes], folder: Path) -> set[str] | str:
    """Return the changes that the store has when the power is back, or what is broken."""
    for left in folder.iterdir():
        left.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    connection = apsw.Connection(str(folder / "store.db"))
    try:
        connection.execute("PRAGMA synchronous = OFF").fetchall()
        integrity = connection.execute("PRAGMA integrity_check").fetchall()
        if integrity != [("ok",)]:
            return f"integrity: {integrity[:3]}"
        there = connection.execute("SELECT change_id FROM lifecycle_event").fetchall()
        return {str(change_id) for (change_id,) in there}
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

    assert list(losses(log, folder)) == []

    # The story is not a trivial one: checkpoints synced the file itself, more than once.
    syncs = [operation.name for operation in log if isinstance(operation, Synced)]
    assert syncs.count("store.db") > 2
    assert sum(isinstance(operation, Acknowledged) for operation in log) > 30


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
async def test_weaker_settings_lose_something(
    recorder: Recorder, tmp_path: Path, synchronous: str
) -> None:
    """The test above can fail: with fewer syncs it finds what is lost."""
    log = await record(recorder, tmp_path / "store.db", synchronous)
    folder = tmp_path / "cut"
    folder.mkdir()
    loss = next(losses(log, folder), "nothing was lost")
    assert "-change-" in loss or "no such table" in loss
