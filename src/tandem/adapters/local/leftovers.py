"""Processes that attempts of dead engines left on this host."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator

from tandem.domain.errors import EngineError
from tandem.domain.ids import AttemptId, EngineId

END_MAX_S = 10.0
RESCAN_S = 0.02
WAIT_S = 1.0
YIELD_EVERY = 200
"""Processes looked at before the loop gets a turn."""


async def end(
    *,
    engine_ids: Collection[EngineId],
    attempt_ids: Collection[AttemptId],
    timeout_s: float = END_MAX_S,
) -> int:
    """Kill what carries one of these ids in its environment, with all descendants, and wait.

    Only the exact variables TANDEM_ENGINE_ID and TANDEM_ATTEMPT_ID count; this process and its
    ancestors are spared. Returns how many processes were killed; without /proc that is 0.

    Raises:
        EngineError: a process is still there after `timeout_s`; the message names it.
    """
    marks = {f"TANDEM_ENGINE_ID={name}".encode() for name in engine_ids}
    marks |= {f"TANDEM_ATTEMPT_ID={name}".encode() for name in attempt_ids}
    if not marks:
        return 0
    killed: set[int] = set()
    deadline = time.monotonic() + timeout_s
    while left := await _find(marks):
        if time.monotonic() > deadline:
            names = ", ".join(map(str, sorted(left)))
            raise EngineError(
                f"processes of an earlier attempt do not die by SIGKILL: {names}; "
                "end them before the node runs again",
                code="leftovers_alive",
            )
        killed |= left
        await _kill(left)
    return len(killed)


async def _find(marks: Collection[bytes]) -> set[int]:
    """Return the living processes that carry a mark, and their descendants."""
    children: dict[int, list[int]] = {}
    marked: list[int] = []
    for number, pid in enumerate(_pids()):
        parent = _parent(pid)
        if parent is None:
            continue
        children.setdefault(parent, []).append(pid)
        if _carries(pid, marks):
            marked.append(pid)
        if number % YIELD_EVERY == YIELD_EVERY - 1:
            await asyncio.sleep(0)
    for pid in marked:  # grows while it is walked
        marked += (child for child in children.get(pid, ()) if child not in marked)
    return set(marked) - set(_own_line())


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


def _carries(pid: int, marks: Collection[bytes]) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read()
    except OSError:
        return False
    return b"TANDEM_" in environ and not set(environ.split(b"\0")).isdisjoint(marks)


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
