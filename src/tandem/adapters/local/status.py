"""status.json: what a run looks like, in its workspace (run-lifecycle 8.5).

A projection: written after the commit, atomically, at most every 250 ms while the run runs and at
once when it stops. Losing one loses nothing; it is written again from the rows.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tandem.domain.change import Change
from tandem.domain.ids import RunId
from tandem.domain.lifecycle import DRIVEN, NodeState
from tandem.domain.view import RunView

INTERVAL_S = 0.25
FOLDERS_MAX = 64
_PENDING = (NodeState.PENDING, NodeState.RUNNING, NodeState.BACKOFF, NodeState.GATED)


def status_of(view: RunView) -> dict[str, Any]:
    """Return the 11 keys of a status file."""
    run, plan = view.run, view.plan
    states = {node.node_id: view.node(node.node_no).state for node in plan.nodes}

    def of(*wanted: NodeState) -> list[str]:
        return [name for name, state in states.items() if state in wanted]

    return {
        "run_id": run.run_id,
        "automation_id": run.automation_id,
        "status": run.status,
        "detail": run.detail or None,
        "completed_nodes": of(NodeState.COMPLETED),
        "pending_nodes": of(*_PENDING, NodeState.WAITING),
        "blocked_nodes": of(NodeState.BLOCKED),
        "node_attempts": {
            plan.nodes[number].node_id: node.attempts
            for number, node in sorted(view.nodes.items())
            if node.attempts
        },
        "last_failure": run.last_failure,
        "learning_summary": None,
        "updated_at_ms": run.updated_at_ms,
    }


class StatusFiles:
    """Writes the status files of the runs of one engine; `changed` listens to the engine.

    `fallback` is where runs without a workspace have theirs; `on_error` hears about a file that
    could not be written, which never fails the run.
    """

    def __init__(self, fallback: Path, on_error: Callable[[str], None]) -> None:
        self._fallback = fallback
        self._on_error = on_error
        self._dirty: dict[RunId, RunView] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._folders: dict[Path, int] = {}

    def changed(self, view: RunView, change: Change) -> None:
        """Note a change; a run that stopped is written before anyone else is told."""
        if view.run.status not in DRIVEN:
            self._dirty.pop(view.run.run_id, None)
            self.write(view)
            return
        self._dirty[view.run.run_id] = view
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self.flush)

    def flush(self) -> None:
        """Write everything that is noted."""
        self._timer = None
        dirty, self._dirty = self._dirty, {}
        for view in dirty.values():
            self.write(view)

    def close(self) -> None:
        """Write what is noted and stop."""
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
        for workspace in list(self._folders):
            self._forget(workspace)

    def write(self, view: RunView) -> None:
        """Write the status file of one run."""
        content = msgspec.json.format(msgspec.json.encode(status_of(view)), indent=2)
        workspace = Path(view.run.workspace or self._fallback)
        try:
            try:
                self._put(workspace, view.run.run_id, content)
            except FileNotFoundError:
                # The folder that was kept open has been removed meanwhile.
                self._forget(workspace)
                self._put(workspace, view.run.run_id, content)
        except OSError as error:
            self._on_error(f"cannot write the status file of run {view.run.run_id}: {error}")

    def _put(self, workspace: Path, run_id: RunId, content: bytes) -> None:
        """Write `.tandem/runs/<run>/status.json`; links below `.tandem` are refused."""
        folder = _enter(self._runs_of(workspace), run_id)
        try:
            temporary = f".status.json.{os.getpid()}"
            _put(folder, temporary, content)
            os.rename(temporary, "status.json", src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.close(folder)

    def _runs_of(self, workspace: Path) -> int:
        """Return the open folder `.tandem/runs` of a workspace; the newest ones are kept open."""
        known = self._folders.get(workspace)
        if known is not None:
            return known
        if len(self._folders) >= FOLDERS_MAX:
            self._forget(next(iter(self._folders)))
        root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            own = _enter(root, ".tandem")
        finally:
            os.close(root)
        try:
            _ignore(own)
            folder = self._folders[workspace] = _enter(own, "runs")
        finally:
            os.close(own)
        return folder

    def _forget(self, workspace: Path) -> None:
        folder = self._folders.pop(workspace, None)
        if folder is not None:
            os.close(folder)


def _enter(parent: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, flags, dir_fd=parent)


def _ignore(folder: int) -> None:
    """Keep the folder out of version control."""
    try:
        os.stat(".gitignore", dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        _put(folder, ".gitignore", b"*\n")


def _put(folder: int, name: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o644, dir_fd=folder), "wb") as file:
        file.write(content)
