"""Processes that attempts of dead engines left on this host."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator, Set

from tandem.domain.errors import EngineError
from tandem.domain.ids import AttemptId, EngineId

END_MAX_S = 10.0
RESCAN_S = 0.02
WAIT_S = 1.0
EXEC_MAX_S = 1.0
"""How long a process may be between two programs before it is taken for a stranger."""
YIELD_EVERY = 200
"""Processes looked at before the loop gets a turn."""
_VSIZE, _ENV_START, _ENV_END = 20, 47, 48
"""Places in `/proc/<pid>/stat` after the name (proc_pid_stat(5)), the state being 0."""


async def end(
    *,
    engine_ids: Collection[EngineId],
    attempt_ids: Collection[AttemptId],
    timeout_s: float = END_MAX_S,
) -> int:
    """Kill what carries one of these ids in its environment, with all descendants, and wait.

    Only the exact variables TANDEM_ENGINE_ID and TANDEM_ATTEMPT_ID count; this process and its
    ancestors are spared. A process that is just becoming another program shows no environment;
    it is looked at again. Returns how many processes were killed; without /proc that is 0.

    Raises:
        EngineError: a process is still there after `timeout_s`; the message names it.
    """
    marks = {f"TANDEM_ENGINE_ID={name}".encode() for name in engine_ids}
    marks |= {f"TANDEM_ATTEMPT_ID={name}".encode() for name in attempt_ids}
    if not marks:
        return 0
    killed: set[int] = set()
    deadline = time.monotonic() + timeout_s
    clear_by = time.monotonic() + EXEC_MAX_S
    while True:
        left, are_all_clear = await _find(marks)
        if not left:
            if are_all_clear or time.monotonic() > clear_by:
                return len(killed)
            await asyncio.sleep(RESCAN_S)
            continue
        if time.monotonic() > deadline:
            names = ", ".join(map(str, sorted(left)))
            raise EngineError(
                f"processes of an earlier attempt do not die by SIGKILL: {names}; "
                "end them before the node runs again",
                code="leftovers_alive",
            )
        killed |= left
        await _kill(left)
        clear_by = time.monotonic() + EXEC_MAX_S


async def _find(marks: Set[bytes]) -> tuple[set[int], bool]:
    """Return the living processes that carry a mark, with their descendants.

    The second part is false when some process could not be judged now.
    """
    children: dict[int, list[int]] = {}
    marked: list[int] = []
    are_all_clear = True
    for number, pid in enumerate(_pids()):
        parent = _parent(pid)
        if parent is None:
            continue
        children.setdefault(parent, []).append(pid)
        environ = _environ(pid)
        if environ is None:
            are_all_clear = False
        elif b"TANDEM_" in environ and not marks.isdisjoint(environ.split(b"\0")):
            marked.append(pid)
        if number % YIELD_EVERY == YIELD_EVERY - 1:
            await asyncio.sleep(0)
    for pid in marked:  # grows while it is walked
        marked += (child for child in children.get(pid, ()) if child not in marked)
    return set(marked) - set(_own_line()), are_all_clear


def _pids() -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError):
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())


def _parent(pid: int) -> int | None:
    """Return the parent of a living process; None for one that is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold blanks and parentheses.
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except OSError:
        return None
    return None if state in (b"Z", b"X") else int(parent)


def _environ(pid: int) -> bytes | None:
    """Return the environment of a process; empty for one that is gone or not ours to read.

    None says that it is in the middle of an `exec`: it has left its former memory, and its new
    environment is not in place yet.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read()
        if environ:
            return environ
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return b""
    size_bytes, start, end = (int(fields[index]) for index in (_VSIZE, _ENV_START, _ENV_END))
    # Threads of the kernel have no memory. An environment that has bytes was read too early.
    return None if size_bytes and (not end or end > start) else b""


def _own_line() -> Iterator[int]:
    pid: int | None = os.getpid()
    while pid:
        yield pid
        pid = _parent(pid)


async def _kill(pids: Collection[int]) -> None:
    """Kill processes and wait a moment for each; the next scan tells whether they are gone."""
    watched: list[int] = []
    for pid in pids:
        with contextlib.suppress(OSError):  # gone already, or a kernel without pidfds
            watched.append(os.pidfd_open(pid))
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    if len(watched) < len(pids):
        await asyncio.sleep(RESCAN_S)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                for fd in watched:
                    await _readable(fd)
    finally:
        for fd in watched:
            os.close(fd)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
