"""Disks that are full, fail, or hold something else: a clear sentence, and nothing lost."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest
from disk import Recorder
from outage import FAILURES, NODES, Outage, ride_out

import tandem.wiring
from tandem import Engine
from tandem.adapters.sql.statements import load_migrations
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.errors import StoreTooNew, StoreUnavailable
from tandem.settings import Settings
from tandem.testing.store_suite import Scene, succeeded
from tandem.wiring import Parts

PROGRAM = Path(__file__).with_name("outage.py")


def assert_rode_out(outage: Outage, *, says: str) -> None:
    """The run ended well, each body ran once, each event is there once."""
    assert outage.end == "completed"
    assert outage.ran == {f"n{number}": 1 for number in range(NODES)}
    assert outage.events.count("node_completed") == NODES
    assert outage.seqs == list(range(1, len(outage.seqs) + 1))
    assert outage.integrity == []
    assert len(outage.refusals) == FAILURES
    for sentence in outage.refusals:
        assert says in sentence
        assert "nothing was written, it is safe to try again" in sentence


async def test_engine_goes_on_when_a_full_disk_has_space_again(tmp_path: Path) -> None:
    def fill(parts: Parts) -> None:
        connection = parts.store.committer.connection
        (pages,) = connection.execute("PRAGMA page_count").fetchall()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()

    def free(parts: Parts) -> None:
        parts.store.committer.connection.execute("PRAGMA max_page_count = 1000000").fetchall()

    outage = await ride_out(tmp_path, breaks=fill, mends=free)
    assert_rode_out(outage, says="is full; free some space")


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_engine_goes_on_after_failing_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A commit that failed after its effect is found on disk: the engine hears of no failure."""
    is_broken = False
    failed = 0

    def commit(connection: apsw.Connection) -> None:
        nonlocal failed
        if not is_broken or (moment == "after" and failed == FAILURES):
            connection.execute("COMMIT")
            return
        failed += 1
        if moment == "after":
            connection.execute("COMMIT")
        raise apsw.IOError("the disk said no")

    def open_store(settings: Settings) -> SqliteStore:
        return SqliteStore(settings.store_path, commit=commit)

    def breaks(parts: Parts) -> None:
        nonlocal is_broken
        is_broken = True

    def mends(parts: Parts) -> None:
        nonlocal is_broken
        is_broken = False

    monkeypatch.setattr(tandem.wiring, "open_store", open_store)
    outage = await ride_out(tmp_path, breaks=breaks, mends=mends)
    assert failed >= FAILURES
    if moment == "before":
        assert_rode_out(outage, says="the disk said no")
        return
    assert outage.refusals == []
    assert outage.end == "completed"
    assert outage.ran == {f"n{number}": 1 for number in range(NODES)}


def test_engine_goes_on_when_files_may_grow_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    outage = msgspec.json.decode(done.stdout, type=Outage)
    assert_rode_out(outage, says="check the disk and its limits")


# Opening


NOT_A_STORE = {
    "text": b"These are my notes, and they are longer than any header of a database.\n" * 40,
    "short text": b"notes\n",
    "half a header": b"SQLite format 3\x00\x10\x00\x02\x02\x00@  ",
    "noise": bytes(range(256)) * 64,
}


@pytest.mark.parametrize("kind", sorted(NOT_A_STORE))
def test_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(NOT_A_STORE[kind])

    with pytest.raises(StoreUnavailable) as refused:
        SqliteStore(path)

    assert str(path) in str(refused.value)
    assert "Tandem store" in str(refused.value)
    assert path.read_bytes() == NOT_A_STORE[kind]


def test_folder_in_the_place_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").mkdir()
    with pytest.raises(StoreUnavailable, match="is not a file"):
        SqliteStore(tmp_path / "store.db")


async def test_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await Scene(store).create("r1")
    store.committer.connection.execute("PRAGMA user_version = 99").fetchall()
    store.close()
    before = path.read_bytes()

    newest = load_migrations()[-1][0]
    said = f"has version 99, this engine knows {newest}; use a newer"
    with pytest.raises(StoreTooNew, match=said):
        SqliteStore(path)
    with pytest.raises(StoreTooNew):
        async with Engine.open(f"sqlite:///{path}"):
            pass

    assert path.read_bytes() == before


@pytest.fixture
def locked_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose permissions a test may take away."""
    made = tmp_path / "locked"
    made.mkdir()
    yield made
    made.chmod(0o700)


OPEN_WITHOUT_POWERS = """
import ctypes, os, sys
from pathlib import Path
OVERRIDE, READ_SEARCH, DROP = 1, 2, 24  # linux/capability.h, linux/prctl.h
if os.getuid() == 0 and len(sys.argv) == 2:
    # Permissions mean nothing to root before it gives these powers up for good.
    for capability in (OVERRIDE, READ_SEARCH):
        if ctypes.CDLL(None, use_errno=True).prctl(DROP, capability, 0, 0, 0):
            sys.exit("cannot drop the powers of root")
    os.execv(sys.executable, [*sys.orig_argv, "dropped"])
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.errors import StoreUnavailable
try:
    SqliteStore(Path(sys.argv[1]))
except StoreUnavailable as error:
    print(error)
"""


def open_without_powers(path: Path) -> str:
    """Open a store as somebody for whom permissions count, and return what was wrong."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN_WITHOUT_POWERS, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_read_only_folder_is_refused(locked_folder: Path) -> None:
    locked_folder.chmod(0o555)
    said = open_without_powers(locked_folder / "store.db")
    assert "is not writable; set TANDEM_STATE_DIR to one that is" in said
    assert os.listdir(locked_folder) == []


def test_folder_that_cannot_be_made_is_refused(locked_folder: Path) -> None:
    locked_folder.chmod(0o555)
    said = open_without_powers(locked_folder / "state" / "store.db")
    assert "cannot create the folder" in said
    assert "set TANDEM_STATE_DIR" in said


def test_read_only_store_is_refused(locked_folder: Path) -> None:
    path = locked_folder / "store.db"
    SqliteStore(path).close()
    for left in locked_folder.iterdir():
        left.chmod(0o444)
    locked_folder.chmod(0o755)
    before = path.read_bytes()
    said = open_without_powers(path)
    assert str(path) in said
    assert "permissions" in said or "writable" in said
    assert path.read_bytes() == before


# Syncs


async def test_write_after_a_failed_sync_is_on_disk_once(
    tmp_path: Path, recorder: Recorder
) -> None:
    """A failed sync is told, and the same change can be written again."""
    store = SqliteStore(tmp_path / "store.db")
    scene = Scene(store)
    view = await scene.claimed("r1")
    await store.apply(scene.next(view))
    change = scene.next(view, succeeded(0))

    recorder.failing_syncs = 1
    with pytest.raises(StoreUnavailable, match="check the disk") as refused:
        await store.apply(change)
    assert "nothing was written" in str(refused.value)
    await store.apply(change)

    store.close()
    connection = apsw.Connection(str(store.path))
    found = connection.execute(
        "SELECT count(*) FROM lifecycle_event WHERE change_id = ? AND event = 'node_completed'",
        (change.change_id,),
    ).fetchall()
    assert found == [(1,)]
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
