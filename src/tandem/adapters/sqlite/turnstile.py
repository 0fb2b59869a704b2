"""The turnstile: several processes on one SQLite file take turns, and none starves the others.

Two locks. Whoever wants to write takes the first (the queue), then the second (the store), then
lets the first go. A process that commits back to back has to queue again behind the one that
already waits, so the turns alternate; `busy_timeout` alone lets a busy writer win for seconds.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tandem.domain.errors import StoreUnavailable

TURN_WAIT_MAX_S = 30.0
_POLL_S = 0.001


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

    @contextmanager
    def turn(self, *, is_called_off: Callable[[], bool] | None = None) -> Iterator[None]:
        """Have the turn, waiting for it without a loop; for opening the store.

        Args:
            is_called_off: asked while it waits, from whichever thread that does.

        Raises:
            StoreUnavailable: another process did not let it go, or the waiting was called off.
        """
        give_up_at = time.monotonic() + TURN_WAIT_MAX_S
        while not self.try_enter():
            if is_called_off is not None and is_called_off():
                self.give_up()
                raise StoreUnavailable(
                    "the store was not waited for any longer; nothing was written"
                )
            if time.monotonic() > give_up_at:
                self.give_up()
                raise StoreUnavailable(
                    "another process held the store's turn too long; nothing was written, it is "
                    "safe to try again"
                )
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            self.leave()

    def give_up(self) -> None:
        """Let the place in the queue go; the turn is not wanted any more."""
        if self._is_next:
            fcntl.flock(self._queue, fcntl.LOCK_UN)
            self._is_next = False

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
