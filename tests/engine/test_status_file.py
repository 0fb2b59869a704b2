"""status.json shows the run in its workspace, and never fails it; wherever it is written."""

import asyncio
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tandem import Run
from tandem.adapters.local import status, status_process
from tandem.adapters.local.status import RUNS_INLINE, STARTS_MAX, StatusFiles
from tandem.adapters.local.status_process import STATUS_PROGRAM, StatusProcess
from tandem.adapters.local.status_writer import StatusFile
from tests.engine.conftest import WAIT_S, Bench, call, events

KEYS = {
    "run_id",
    "automation_id",
    "status",
    "detail",
    "completed_nodes",
    "pending_nodes",
    "blocked_nodes",
    "node_attempts",
    "last_failure",
    "learning_summary",
    "updated_at_ms",
}
GATE = {"node_id": "ask", "depends_on": ["a"], "gate": {"required": True}}


@pytest.fixture(params=["inline", "process"])
def writer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the engine of the test writes; asked for before `bench`."""
    name: str = request.param
    monkeypatch.setenv("TANDEM_STATUS_WRITER", name)
    return name


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0)


def stop(pid: int) -> None:
    """Make a child of this process stand still, and wait until it does."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)


@asynccontextmanager
async def files(
    bench: Bench,
    folder: Path,
    *,
    writer: status.Writer = "process",
    program: Sequence[str] = STATUS_PROGRAM,
) -> AsyncIterator["Files"]:
    """Have a second projection of the same runs, in `folder`."""
    folder.mkdir()
    problems: list[str] = []
    async with StatusFiles(folder, problems.append, writer=writer, program=program) as found:
        bench.engine.parts.engine.listen(found.changed, caught_up=found.caught_up)
        yield Files(found, folder, problems)


class Files:
    """A projection of runs without a workspace, and what it complained of."""

    def __init__(self, files: StatusFiles, folder: Path, problems: list[str]) -> None:
        self.files, self.folder, self.problems = files, folder, problems

    @property
    def process(self) -> StatusProcess:
        assert self.files.process is not None
        return self.files.process

    def path(self, run: Run) -> Path:
        return self.folder / ".tandem" / "runs" / run.run_id / "status.json"

    def status(self, run: Run) -> str:
        found: dict[str, Any] = json.loads(self.path(run).read_text())
        return str(found["status"])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the process stand still."""
        pid = self.process.pid
        stop(pid)
        try:
            yield
        finally:
            if self.files.process is not None and self.process.pid == pid:
                os.kill(pid, signal.SIGCONT)


async def test_it_has_exactly_the_keys_of_the_contract(
    writer: str, bench: Bench, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    run = await bench.start(
        call("a"),
        GATE,
        workspace=workspace,
    )
    assert await bench.rest(run) == "awaiting_approval"
    path = workspace / ".tandem" / "runs" / run.run_id / "status.json"
    shown = json.loads(path.read_text())
    assert set(shown) == KEYS
    assert shown["status"] == "awaiting_approval"
    assert shown["completed_nodes"] == ["a"]
    assert shown["pending_nodes"] == ["ask"]
    assert shown["node_attempts"] == {"a": 1}
    assert (workspace / ".tandem" / ".gitignore").read_text() == "*\n"
    await run.decide("approve")
    assert await bench.end(run) == "completed"
    assert json.loads(path.read_text())["status"] == "completed"


async def test_a_run_without_a_workspace_has_it_in_the_state_folder(
    writer: str, bench: Bench, tmp_path: Path
) -> None:
    run = await bench.start(call("a"))
    assert await bench.end(run) == "completed"
    assert (tmp_path / "store" / ".tandem" / "runs" / run.run_id / "status.json").exists()


async def test_a_link_in_its_way_is_refused_and_the_run_goes_on(
    writer: str, bench: Bench, tmp_path: Path
) -> None:
    workspace, outside = tmp_path / "workspace", tmp_path / "outside"
    workspace.mkdir()
    outside.mkdir()
    (workspace / ".tandem").symlink_to(outside)
    run = await bench.start(call("a"), workspace=workspace)
    assert await bench.end(run) == "completed"
    assert list(outside.iterdir()) == []
    assert events(run)[-1] == ("run_completed", None)


async def test_a_removed_folder_is_made_again(writer: str, bench: Bench, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    run = await bench.start(call("a"), workspace=workspace)
    assert await bench.end(run) == "completed"
    shutil.rmtree(workspace / ".tandem")
    run = await bench.start(call("a"), workspace=workspace)
    assert await bench.end(run) == "completed"
    assert (workspace / ".tandem" / "runs" / run.run_id / "status.json").exists()


async def test_a_folder_that_nobody_may_write_to_is_reported_and_the_run_goes_on(
    bench: Bench, tmp_path: Path
) -> None:
    for writer in ("inline", "process"):
        async with files(bench, tmp_path / writer, writer=writer) as found:  # type: ignore[arg-type]
            run = await bench.start(call("a"), workspace="/sys")  # not even root may
            assert await bench.end(run) == "completed"
            assert found.problems
            assert all(run.run_id in words for words in found.problems)


async def test_a_few_runs_need_no_process_and_many_get_one(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "RUNS_INLINE_S", 1_000)
    async with files(bench, tmp_path / "files", writer="auto") as found:
        gated = await bench.start(call("a"), GATE)
        assert await bench.rest(gated) == "awaiting_approval"
        while len(list(found.path(gated).parent.parent.iterdir())) < RUNS_INLINE:
            assert found.files.process is None
            assert await bench.end(await bench.start(call("a"))) == "completed"
        last = await bench.start(call("a"))
        assert await bench.end(last) == "completed"
        assert found.files.process is not None
        assert found.status(last) == "completed"
        # What began inline goes on in the process, in its order.
        assert found.status(gated) == "awaiting_approval"
        await gated.decide("approve")
        assert await bench.end(gated) == "completed"
        assert found.status(gated) == "completed"
        assert found.problems == []


async def test_many_runs_over_a_long_time_need_no_process(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "RUNS_INLINE_S", 0)
    async with files(bench, tmp_path / "files", writer="auto") as found:
        for _ in range(RUNS_INLINE + 2):
            assert await bench.end(await bench.start(call("a"))) == "completed"
        assert found.files.process is None


async def test_who_waits_is_told_when_the_file_says_so(bench: Bench, tmp_path: Path) -> None:
    async with files(bench, tmp_path / "files") as found, asyncio.TaskGroup() as group:
        assert await bench.end(await bench.start(call("a"))) == "completed"
        with found.held():
            run = await bench.start(call("a"))
            waiting = group.create_task(bench.end(run))
            await until(lambda: found.files.process and found.process.holds(run.run_id))
            assert run.status == "completed"
            await asyncio.sleep(0)
            assert not waiting.done()
            assert not found.path(run).exists()
        assert await waiting == "completed"
        assert found.status(run) == "completed"


async def test_a_killed_process_loses_nothing_and_is_replaced(bench: Bench, tmp_path: Path) -> None:
    async with files(bench, tmp_path / "files") as found, asyncio.TaskGroup() as group:
        assert await bench.end(await bench.start(call("a"))) == "completed"
        first = found.process.pid
        with found.held():
            runs = [await bench.start(call("a")) for _ in range(3)]
            waiting = [group.create_task(bench.end(run)) for run in runs]
            await until(lambda: all(found.process.holds(run.run_id) for run in runs))
            os.kill(first, signal.SIGKILL)
            assert [await task for task in waiting] == ["completed"] * 3
        assert [found.status(run) for run in runs] == ["completed"] * 3
        last = await bench.start(call("a"))
        assert await bench.end(last) == "completed"
        assert found.process.pid != first
        assert found.status(last) == "completed"
        assert found.problems == []


async def test_a_process_that_always_dies_is_given_up(bench: Bench, tmp_path: Path) -> None:
    dying = (sys.executable, "-I", "-S", "-c", "")
    async with files(bench, tmp_path / "files", program=dying) as found:
        for _ in range(STARTS_MAX + 1):
            run = await bench.start(call("a"))
            assert await bench.end(run) == "completed"
            assert found.status(run) == "completed"
        assert found.files.process is None


async def test_a_process_that_cannot_be_started_is_reported_once(
    bench: Bench, tmp_path: Path
) -> None:
    async with files(bench, tmp_path / "files", program=(str(tmp_path / "none"),)) as found:
        for _ in range(2):
            run = await bench.start(call("a"))
            assert await bench.end(run) == "completed"
            assert found.status(run) == "completed"
        assert len(found.problems) == 1
        assert "cannot be started" in found.problems[0]


async def test_nobody_waits_forever_for_a_process_that_is_stuck(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with files(bench, tmp_path / "files") as found:
        assert await bench.end(await bench.start(call("a"))) == "completed"
        monkeypatch.setattr(status_process, "STUCK_S", 0.05)
        with found.held():
            run = await bench.start(call("a"))
            assert await bench.end(run) == "completed"
            assert found.status(run) == "completed"


async def test_the_end_of_the_engine_writes_what_the_process_did_not(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "CLOSE_MAX_S", 0.05)
    async with files(bench, tmp_path / "files") as found:
        assert await bench.end(await bench.start(call("a"))) == "completed"
        stop(found.process.pid)
        run = await bench.start(call("a"))
        await until(lambda: found.process.holds(run.run_id))
    assert found.files.process is None
    assert found.status(run) == "completed"


async def test_what_the_process_cannot_keep_up_with_is_written_inline(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with files(bench, tmp_path / "files") as found:
        assert await bench.end(await bench.start(call("a"))) == "completed"
        monkeypatch.setattr(status, "HELD_MAX", 1)
        with found.held():
            held = await bench.start(call("a"))
            await until(lambda: found.process.holds(held.run_id))
            run = await bench.start(call("a"))
            assert await bench.end(run) == "completed"
            assert found.status(run) == "completed"
            assert not found.path(held).exists()
        assert await bench.end(held) == "completed"
        assert found.status(held) == "completed"


async def test_the_newest_file_of_a_run_wins_and_sending_never_blocks(tmp_path: Path) -> None:
    answered: list[str] = []
    process = StatusProcess(
        STATUS_PROGRAM,
        answered=lambda file, trouble: answered.append(trouble),
        gone=lambda: pytest.fail("it died"),
    )
    try:
        stop(process.pid)
        contents = [b"%d" % number + b" " * 100_000 for number in range(500)]
        for content in contents:
            process.put(StatusFile(str(tmp_path), "run", content))
        os.kill(process.pid, signal.SIGCONT)
        await until(lambda: not process.holds("run"))
    finally:
        process.close()
    assert (tmp_path / ".tandem" / "runs" / "run" / "status.json").read_bytes() == contents[-1]
    assert set(answered) == {""}
    assert len(answered) < len(contents)
    assert os.listdir(tmp_path / ".tandem" / "runs" / "run") == ["status.json"]


def test_the_process_dies_with_its_engine() -> None:
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE], stdout=subprocess.PIPE, start_new_session=True
    )
    with engine:
        assert engine.stdout is not None
        watched = os.pidfd_open(int(engine.stdout.readline()))
        try:
            engine.kill()
            poll = select.poll()
            poll.register(watched, select.POLLIN)
            assert poll.poll(WAIT_S * 1_000)
        finally:
            os.close(watched)


ENGINE = """
import asyncio
from tandem.adapters.local.status_process import STATUS_PROGRAM, StatusProcess

async def main():
    process = StatusProcess(STATUS_PROGRAM, answered=print, gone=print)
    print(process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
