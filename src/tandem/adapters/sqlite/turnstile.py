"""The turnstile: several processes on one SQLite file take turns, and none starves the others.

Two locks. Whoever wants to write takes the first (the queue), then the second (the store), then
lets the first go. A process that commits back to back has to queue again behind the one that
already waits, so the turns alternate; `busy_timeout` alone lets a busy writer win for seconds.
"""

import fcntl
import os
from pathlib import Path


class Turnstile:
    """The two locks beside a store. They belong to the open file, so the kernel frees them."""

    def __init__(self, store_path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._queue = os.open(f"{store_path}-queue", flags, 0o600)
        self._store = os.open(f"{store_path}-turn", flags, 0o600)
        self._is_next = False

    def try_enter(self) -> bool:
        """Take the turn if it is free. A refused caller keeps its place in the queue."""
        if not self._is_next and not _try_lock(self._queue):
            return False
        self._is_next = True
        if not _try_lock(self._store):
            return False
        fcntl.flock(self._queue, fcntl.LOCK_UN)
        self._is_next = False
        return True

    def leave(self) -> None:
        """Give the turn to the next process."""
        fcntl.flock(self._store, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of everything."""
        os.close(self._queue)
        os.close(self._store)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
