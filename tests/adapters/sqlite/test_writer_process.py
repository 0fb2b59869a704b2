"""The writer in a process of its own keeps the promises of the port; its death costs nothing."""

import asyncio
import fcntl
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

pytest.register_assert_rewrite("tandem.testing.store_suite")

from tests.forked import Forked  # noqa: E402

from tandem import Automation, Engine  # noqa: E402
from tandem.adapters import frames as wire  # noqa: E402
from tandem.adapters.sqlite import frames  # noqa: E402
from tandem.adapters.sqlite.store import SqliteStore  # noqa: E402
from tandem.adapters.sqlite.writer import COMMITS_JUDGED, SLOW_COMMIT_S  # noqa: E402
from tandem.domain.change import Change  # noqa: E402
from tandem.domain.command import Cancel, Pause  # noqa: E402
from tandem.domain.errors import (  # noqa: E402
    ChangeRefused,
    EngineError,
    IllegalTransition,
    LeaseLost,
    NotFound,
    Refused,
    StoreUnavailable,
)
from tandem.domain.ids import LOCAL_TENANT, RunId  # noqa: E402
from tandem.domain.lifecycle import RunEvent, RunState  # noqa: E402
from tandem.testing.store_suite import (  # noqa: E402
    ENGINE_A,
    LIMIT_S,
    CommitFault,
    OpenStore,
    Scene,
    StoreSuite,
    chain,
    engine_row,
    succeeded,
)

PROGRAM = Path(__file__).with_name("strange_disk_writer.py")


class FaultInFile(CommitFault):
    """A fault that another process takes."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def arm(self, moment: str, *, times: int = 1) -> None:
        """Fail the next commits of the writer process."""
        self._file.write_text(f"{moment} {times}")


class Disk:
    """The disk of a writer process: it stops in a commit where a test wants it to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    @property
    def program(self) -> tuple[str, ...]:
        """What starts a writer on this disk."""
        return (sys.executable, str(PROGRAM), str(self.folder))

    @contextmanager
    def held(self, moment: str) -> Iterator[None]:
        """Let no commit past this moment."""
        with (self.folder / "disk").open("a") as disk:
            fcntl.flock(disk, fcntl.LOCK_EX)
            (self.folder / "hold").write_text(moment)
            try:
                yield
            finally:
                (self.folder / "hold").unlink()

    async def stopped(self) -> None:
        """Wait until a commit stands still."""
        await until((self.folder / "stopped").exists)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0)


class TestSqliteStoreWithWriterProcess(StoreSuite):
    """All promises, with the writes done by another process."""

    @pytest.fixture
    def open_store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenStore]:
        monkeypatch.setattr("tandem.adapters.child.subprocess.Popen", Forked)
        opened: list[SqliteStore] = []
        numbers = itertools.count()

        def open_one(fault: CommitFault | None = None) -> SqliteStore:
            disk = Disk(tmp_path / f"disk{next(numbers)}")
            if fault is not None:
                # The suite arms the fault that it made; this one reaches the other process.
                fault.arm = FaultInFile(disk.folder / "fault").arm  # type: ignore[method-assign]
            store = SqliteStore(
                tmp_path / "store.db",
                synchronous="OFF",
                writer="process",
                writer_program=disk.program,
            )
            opened.append(store)
            return store

        yield open_one
        for store in opened:
            assert store.check() == []
            store.close()

    async def test_command_never_loses_to_a_busy_driver(self, open_store: OpenStore) -> None:
        """Both processes are there before the race begins."""
        stores = [open_store(), open_store()]
        for store in stores:
            await store.remove_engine(ENGINE_A)
        await super().test_command_never_loses_to_a_busy_driver(lambda fault=None: stores.pop())


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "disk")


async def open_scene(folder: Path, disk: Disk) -> Scene:
    """Open a store and wait until its writer process is at work."""
    store = SqliteStore(
        folder / "store.db", synchronous="OFF", writer="process", writer_program=disk.program
    )
    await store.put_engine(engine_row(ENGINE_A))
    assert store.writer == "process"
    return Scene(store)


@pytest.fixture
async def scene(tmp_path: Path, disk: Disk) -> AsyncIterator[Scene]:
    made = await open_scene(tmp_path, disk)
    yield made
    store_of(made).close()


def store_of(scene: Scene) -> SqliteStore:
    assert isinstance(scene.store, SqliteStore)
    return scene.store


def kill(scene: Scene) -> None:
    pid = store_of(scene).writer_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


async def test_loop_goes_on_while_a_commit_stands_still(scene: Scene, disk: Disk) -> None:
    with disk.held("before"):
        written = asyncio.ensure_future(scene.create("r1"))
        await disk.stopped()
        turns = 0
        for _ in range(1_000):
            await asyncio.sleep(0)
            turns += 1
        assert scene.store.find_run(RunId("r1"), tenant=LOCAL_TENANT) is None
        assert (turns, written.done()) == (1_000, False)
    async with asyncio.timeout(LIMIT_S):
        run = await written
    assert scene.get("r1") == run


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_killed_writer_loses_nothing_and_repeats_nothing(
    scene: Scene, disk: Disk, moment: str
) -> None:
    """What was in its commit is looked up; what is not on disk is written here, in order."""
    first = await scene.claimed("first", chain(3))
    other = await scene.create("other")
    with disk.held(moment):
        changes = [scene.next(first), scene.next(first, succeeded(0))]
        applied = [scene.store.apply(change) for change in changes]
        others = [
            asyncio.ensure_future(work)
            for work in (
                scene.create("new"),
                scene.execute("other", Pause()),
                scene.execute("none", Cancel()),
                scene.claim(),
            )
        ]
        await disk.stopped()
        later = scene.store.apply(scene.next(first, succeeded(1)))
        kill(scene)
        async with asyncio.timeout(LIMIT_S):
            assert await asyncio.gather(*applied, later) == [None] * 3
            created, paused, missing, claimed = await asyncio.gather(
                *others, return_exceptions=True
            )

    assert store_of(scene).writer == "inline"
    assert store_of(scene).writer_pid is None
    assert isinstance(created, type(other))
    assert isinstance(paused, Change)
    assert isinstance(missing, NotFound)
    assert isinstance(claimed, list)
    assert [view.run.run_id for view in claimed] == ["new"]
    assert claimed[0].run == scene.get("new")
    assert scene.get("other") == paused.run
    assert scene.get("first") == first.run
    assert scene.events("other") == [RunEvent.RUN_CREATED, RunEvent.RUN_PAUSED]
    assert scene.events("first").count(RunEvent.NODE_COMPLETED) == 2
    await scene.store.apply(scene.next(first, succeeded(2)))
    assert scene.get("first").status is RunState.COMPLETED


async def test_writer_that_cannot_start_leaves_the_store_inline(tmp_path: Path) -> None:
    for program in ((str(tmp_path / "missing"),), (sys.executable, "-c", "raise SystemExit(3)")):
        store = SqliteStore(
            tmp_path / "store.db", synchronous="OFF", writer="process", writer_program=program
        )
        async with asyncio.timeout(LIMIT_S):
            await store.put_engine(engine_row(ENGINE_A))
        assert (store.writer, len(store.list_engines())) == ("inline", 1)
        store.close()


async def test_close_refuses_what_is_not_on_disk(tmp_path: Path, disk: Disk) -> None:
    scene = await open_scene(tmp_path, disk)
    with disk.held("before"):
        written = asyncio.ensure_future(scene.create("r1"))
        await disk.stopped()
        store_of(scene).close()
        with pytest.raises(StoreUnavailable, match="nothing was written"):
            await written


async def test_close_knows_what_is_on_disk(tmp_path: Path, disk: Disk) -> None:
    scene = await open_scene(tmp_path, disk)
    with disk.held("after"):
        written = asyncio.ensure_future(scene.create("r1"))
        await disk.stopped()
        store_of(scene).close()
        assert (await written).run_id == "r1"


async def test_writer_dies_with_its_engine(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from tandem.adapters.sqlite.store import SqliteStore\n"
        "from tandem.testing.store_suite import ENGINE_A, engine_row\n"
        "async def main():\n"
        "    store = SqliteStore(Path(sys.argv[1]), writer='process')\n"
        "    await store.put_engine(engine_row(ENGINE_A))\n"
        "    print(store.writer, store.writer_pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    engine = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path / "store.db"), stdout=asyncio.subprocess.PIPE
    )
    assert engine.stdout is not None
    async with asyncio.timeout(LIMIT_S):
        place, pid = (await engine.stdout.readline()).split()
        assert place == b"process"
        engine.kill()
        await engine.wait()
    await until(lambda: not is_alive(int(pid)))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


class SlowCommit:
    """A disk that keeps the loop busy for longer than `SLOW_COMMIT_S`."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, connection: apsw.Connection) -> None:
        """Commit after a while."""
        self.count += 1
        ends_at = time.monotonic() + 2 * SLOW_COMMIT_S
        while time.monotonic() < ends_at:
            pass
        connection.execute("COMMIT")


async def test_slow_disk_moves_the_writer_once_and_keeps_the_order(tmp_path: Path) -> None:
    slow = SlowCommit()
    store = SqliteStore(tmp_path / "store.db", synchronous="OFF", commit=slow, writer="auto")
    scene = Scene(store)
    try:
        view = await scene.claimed("r1", chain(1_000))
        await store.apply(scene.next(view))
        written: list[Any] = []
        async with asyncio.timeout(LIMIT_S):
            for number in range(500):
                written.append(store.apply(scene.next(view, succeeded(number))))
                if store.writer == "process" and number > COMMITS_JUDGED:
                    break
                await asyncio.sleep(0)
            assert await asyncio.gather(*written) == [None] * len(written)
            await until(lambda: store.writer == "process")
        inline = slow.count
        assert inline >= COMMITS_JUDGED
        number = len(written)
        await store.apply(scene.next(view, succeeded(number)))
        assert slow.count == inline
        assert scene.get("r1") == view.run
        assert scene.events("r1", limit=5_000).count(RunEvent.NODE_COMPLETED) == number + 1

        kill(scene)
        for after in range(number + 1, number + COMMITS_JUDGED + 5):
            await store.apply(scene.next(view, succeeded(after)))
        await asyncio.sleep(0)
        assert (store.writer, store.writer_pid) == ("inline", None)
    finally:
        store.close()


async def test_fast_disk_keeps_the_writer_inline(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", synchronous="OFF", writer="auto")
    scene = Scene(store)
    view = await scene.claimed("r1", chain(100))
    await store.apply(scene.next(view))
    for number in range(2 * COMMITS_JUDGED):
        await store.apply(scene.next(view, succeeded(number)))
    assert (store.writer, store.writer_pid) == ("inline", None)
    store.close()


async def test_engine_drives_runs_and_survives_the_death_of_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_STORE_WRITER", "process")
    monkeypatch.setenv("TANDEM_STATE_DIR", str(tmp_path))
    killed: list[int] = []

    def work(name: str) -> str:
        pid = engine.parts.store.writer_pid
        if name == "n5" and pid is not None:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
        return name

    nodes = [
        {
            "node_id": f"n{number}",
            "depends_on": [f"n{number - 1}"] if number else [],
            "action": {
                "kind": "python",
                "function": "host:work",
                "arguments": {"name": f"n{number}"},
            },
        }
        for number in range(10)
    ]
    automation = Automation.from_dict({"automation_id": "chain", "nodes": nodes})
    async with asyncio.timeout(LIMIT_S), Engine.open(functions={"host:work": work}) as engine:
        run = await engine.run(automation)
        assert await run.wait() is RunState.COMPLETED
        outputs = await run.outputs()
        assert engine.parts.store.writer == "inline"
    assert len(killed) == 1
    assert outputs == {f"n{number}": f"n{number}" for number in range(10)}


@pytest.mark.parametrize(
    "error",
    [
        ChangeRefused("a"),
        LeaseLost("b"),
        Refused("c", code="gate_not_open"),
        NotFound("d"),
        StoreUnavailable("e"),
        IllegalTransition("queued", "paused"),
        EngineError("f"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_back_as_what_they_were(error: EngineError) -> None:
    (body,) = wire.Frames().feed(wire.frame(frames.Decided(7, frames.Trouble.of(error))))
    decided = wire.unpack(body, frames.Decided)
    again = decided.trouble.error()
    assert (type(again), str(again), again.code) == (type(error), str(error), error.code)


def test_mistake_of_ours_comes_back_with_its_name() -> None:
    error = frames.Trouble.of(KeyError("x")).error()
    assert isinstance(error, RuntimeError)
    assert "KeyError" in str(error)


class Told(frames.msgspec.Struct, array_like=True, tag=True):
    value: object
    content: bytes = b"\x00\xff"


class Asked(frames.msgspec.Struct, tag=True):
    value: object
    content: bytes = b"\x00\xff"


@pytest.mark.parametrize("kind", [Told, Asked])
@pytest.mark.parametrize("value", [1, 2**64, {"a": [-(10**30)]}], ids=repr)
def test_messages_come_back_whatever_numbers_they_hold(
    kind: type[Told | Asked], value: object
) -> None:
    (body,) = wire.Frames().feed(wire.frame(kind(value)))
    assert wire.Reader[Told | Asked](kind).read(body) == kind(value)
    assert wire.unpack(body, kind) == kind(value)


@pytest.mark.parametrize("number", [ord("["), ord("{"), 1_000])
def test_numbers_are_no_json(number: int) -> None:
    assert wire.unpack(wire.pack(number), int) == number


def test_frames_are_cut_wherever_the_stream_was_cut() -> None:
    stream = b"".join(wire.frame(frames.Performed(n, b"x" * n)) for n in range(5))
    cutter = wire.Frames()
    bodies = [body for byte in stream for body in cutter.feed(bytes([byte]))]
    assert bodies == list(wire.Frames().feed(stream))
    assert len(bodies) == 5
