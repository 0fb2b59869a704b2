"""status.json: what a run looks like, in its workspace (run-lifecycle 8.5).

A projection: written after the commit, atomically, at most every 250 ms while the run runs and at
once when its status changes. Losing one loses nothing; it is written again from the rows.

An inode costs 0.04 to 0.7 ms, and each run needs two. A few are written on the loop; where many
runs follow each other quickly the writing moves to a process beside the engine (decision 8).
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec

from tandem.adapters.local.status_process import STATUS_PROGRAM, StatusProcess
from tandem.adapters.local.status_writer import StatusFile, StatusFolders
from tandem.domain.change import Change
from tandem.domain.ids import RunId
from tandem.domain.lifecycle import NodeState, RunState
from tandem.domain.run import Run
from tandem.domain.starting import CHECKPOINT_NODE
from tandem.domain.trigger import is_dry_run
from tandem.domain.view import RunView

Writer = Literal["auto", "inline", "process"]

INTERVAL_S: Final = 0.25
RUNS_INLINE: Final = 32
"""So many new runs within `RUNS_INLINE_S` are written inline; more are many."""
RUNS_INLINE_S: Final = 10.0
HELD_MAX: Final = 1_000
"""So many files may wait for the process; the loop writes what comes beyond them."""
STARTS_MAX: Final = 3
CLOSE_MAX_S: Final = 15.0
_PENDING: Final = (NodeState.PENDING, NodeState.RUNNING, NodeState.BACKOFF, NodeState.GATED)


def status_of(view: RunView) -> dict[str, Any]:
    """Return the 11 keys of a status file."""
    run, plan = view.run, view.plan
    nodes = () if is_dry_run(run.trigger_type) else plan.nodes
    states = {node.node_id: view.node(node.node_no).state for node in nodes}

    def of(*wanted: NodeState) -> list[str]:
        return [name for name, state in states.items() if state in wanted]

    return {
        "run_id": run.run_id,
        "automation_id": run.automation_id,
        "status": run.status,
        "detail": run.detail or None,
        "completed_nodes": of(NodeState.COMPLETED),
        "pending_nodes": of(*_PENDING, NodeState.WAITING),
        "blocked_nodes": of(NodeState.BLOCKED) or _unreadable(run),
        "node_attempts": {
            plan.nodes[number].node_id: node.attempts
            for number, node in sorted(view.nodes.items())
            if node.attempts
        },
        "last_failure": run.last_failure,
        "learning_summary": run.learning_summary,
        "updated_at_ms": run.updated_at_ms,
    }


def _unreadable(run: Run) -> list[str]:
    """Return the pseudo node of a run whose definition cannot be read (run-lifecycle T05)."""
    failure = run.last_failure
    return [CHECKPOINT_NODE] if failure and failure.node_id == CHECKPOINT_NODE else []


class StatusFiles:
    """Writes the status files of the runs of one engine. Leaving `async with` writes the last ones.

    `changed` listens to the engine, `caught_up` lets those wait who are to find a file written.
    """

    def __init__(
        self,
        fallback: Path,
        on_error: Callable[[str], None],
        *,
        writer: Writer = "auto",
        program: Sequence[str] = STATUS_PROGRAM,
    ) -> None:
        """Write nothing yet.

        Args:
            fallback: where runs without a workspace have their files.
            on_error: hears about a file that could not be written, which never fails the run.
            writer: `inline` writes on the loop, `process` in a process of its own; `auto` moves
                from the one to the other when there are many runs.
            program: of that process.
        """
        self._fallback = str(fallback.absolute())
        self._on_error = on_error
        self._writer = writer
        self._program = program
        self._dirty: dict[RunId, RunView] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._folders = StatusFolders(os.getpid())
        self._made: deque[float] = deque(maxlen=RUNS_INLINE)
        self._starts = 0
        self._process: StatusProcess | None = None
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        try:
            # What it has not written by then is written here.
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_MAX_S):
                    for file in self._process.left() if self._process is not None else ():
                        await self.caught_up(RunId(file.run_id))
        finally:
            self._writer = "inline"
            if self._process is not None:
                self._process.close()
                self._take_back()
            self._folders.close()

    @property
    def process(self) -> StatusProcess | None:
        """The process that writes, while one does."""
        return self._process

    def changed(self, view: RunView, change: Change) -> None:
        """Note a change; a run that does not run, or no longer, is written at once."""
        if view.run.status is not RunState.RUNNING:
            self._dirty.pop(view.run.run_id, None)
            self._write(view)
            return
        self._dirty[view.run.run_id] = view
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self.flush)

    def learned(self, view: RunView) -> None:
        """Write the file of an ended run again, with what was learned of it."""
        self._write(view)

    def flush(self) -> None:
        """Write everything that is noted."""
        self._timer = None
        dirty, self._dirty = self._dirty, {}
        for view in dirty.values():
            self._write(view)

    async def caught_up(self, run_id: RunId) -> None:
        """Return once every write of this run's file that has begun is over, or has failed.

        That takes 15 seconds at most: a process that does not answer is replaced by the loop.
        """
        if self._process is not None and self._process.holds(run_id):
            future = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(run_id, []).append(future)
            await future

    def _write(self, view: RunView) -> None:
        run = view.run
        content = msgspec.json.format(msgspec.json.encode(status_of(view)), indent=2)
        file = StatusFile(run.workspace or self._fallback, run.run_id, content)
        if self._process is None and self._is_process_due():
            self._start()
        process = self._process
        # Order: what is written here has no older file of the same run on its way.
        if process is not None and (len(process) < HELD_MAX or process.holds(run.run_id)):
            process.put(file)
        else:
            self._write_inline(file)

    def _write_inline(self, file: StatusFile) -> None:
        try:
            if self._folders.put(file):
                self._made.append(time.monotonic())
        except (OSError, ValueError) as error:
            self._complain(file, str(error))

    def _complain(self, file: StatusFile, trouble: str) -> None:
        self._say(f"cannot write the status file of run {file.run_id}: {trouble}")

    def _say(self, words: str) -> None:
        # Who listens is a skin; its mistakes must not reach the run.
        with suppress(Exception):
            self._on_error(words)

    # The process

    def _is_process_due(self) -> bool:
        if self._writer == "inline" or self._starts >= STARTS_MAX:
            return False
        if self._writer == "process":
            return True
        is_full = len(self._made) == RUNS_INLINE
        return is_full and time.monotonic() - self._made[0] < RUNS_INLINE_S

    def _start(self) -> None:
        self._starts += 1
        try:
            self._process = StatusProcess(
                self._program, answered=self._answered, gone=self._take_back
            )
        except OSError as error:
            self._starts = STARTS_MAX
            self._say(
                f"the process that writes status files cannot be started ({error}); "
                "the engine writes them itself, which makes many runs slower"
            )

    def _answered(self, file: StatusFile, trouble: str) -> None:
        if trouble:
            self._complain(file, trouble)
        if self._process is not None and not self._process.holds(file.run_id):
            self._tell(file.run_id)

    def _take_back(self) -> None:
        """The process is dead: write what it left, and go on inline."""
        if self._process is None:
            raise AssertionError("there was a process")
        left, self._process = self._process.left(), None
        self._made.clear()
        for file in left:
            self._write_inline(file)
        for run_id in list(self._waiting):
            self._tell(run_id)

    def _tell(self, run_id: str) -> None:
        for future in self._waiting.pop(run_id, ()):
            if not future.done():
                future.set_result(None)
