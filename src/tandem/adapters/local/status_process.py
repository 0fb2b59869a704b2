"""The engine's end of the process that writes status files: sends, hears answers, sees it die."""

import asyncio
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tandem.adapters.child import Child
from tandem.adapters.local.status_writer import StatusFile, request

STATUS_PROGRAM: Final = (
    sys.executable,
    "-I",
    "-S",
    str(Path(__file__).with_name("status_writer.py")),
)
SENT_MAX: Final = 128
"""How many files may be sent and not answered; what waits behind them is still replaced."""
STUCK_S: Final = 5.0
"""A process that answers nothing for this long, or at most twice this long, is ended."""
_REAP_MAX_S: Final = 5.0


class StatusProcess:
    """One child process that writes status files, in the order in which it is given them.

    A file that has not been sent when a newer one of its run comes is never written.
    """

    def __init__(
        self,
        program: Sequence[str],
        *,
        answered: Callable[[StatusFile, str], None],
        gone: Callable[[], None],
    ) -> None:
        """Start the program; answers are heard on the running loop.

        Args:
            program: what to start; it is given the number of a socket and the engine's pid.
            answered: a file is in its place, or the words say why it is not.
            gone: it is dead and reaped, or stuck where not even SIGKILL ends it; `left` has
                what it did not answer.

        Raises:
            OSError: it could not be started.
        """
        self._answered = answered
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, StatusFile] = {}
        self._sent: deque[StatusFile] = deque()
        self._held: Counter[str] = Counter()
        self._heard = bytearray()
        self._answers = 0
        self._is_feed_due = False
        self._watch: asyncio.TimerHandle | None = None
        self._child = Child(
            lambda fd: [*program, fd, str(os.getpid())],
            loop=self._loop,
            heard=self._hear,
            gone=gone,
            reap_max_s=_REAP_MAX_S,
        )

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    def __len__(self) -> int:
        """Return how many files are not answered."""
        return len(self._sent) + len(self._waiting)

    def holds(self, run_id: str) -> bool:
        """Say whether a file of this run is not answered."""
        return run_id in self._held

    def left(self) -> list[StatusFile]:
        """Return the newest file of each run that is not answered, oldest first."""
        newest: dict[str, StatusFile] = {}
        for file in (*self._sent, *self._waiting.values()):
            newest.pop(file.run_id, None)
            newest[file.run_id] = file
        return list(newest.values())

    def put(self, file: StatusFile) -> None:
        """Have a file written; never blocks."""
        if file.run_id not in self._waiting:
            self._held[file.run_id] += 1
        self._waiting[file.run_id] = file
        if not self._is_feed_due:
            # What comes in this turn of the loop is sent together.
            self._is_feed_due = True
            self._loop.call_soon(self._feed)

    def _feed(self) -> None:
        self._is_feed_due = False
        if self._child.is_ended:
            return
        data = bytearray()
        while self._waiting and len(self._sent) < SENT_MAX:
            file = self._waiting.pop(next(iter(self._waiting)))
            self._sent.append(file)
            data += request(file)
        if self._sent and self._watch is None:
            self._watch = self._loop.call_later(STUCK_S, self._suspect, self._answers)
        self._child.send(data)

    def _hear(self, more: bytes) -> None:
        self._heard += more
        *lines, rest = self._heard.split(b"\n")
        self._heard = rest
        for line in lines:
            file = self._sent.popleft()
            self._answers += 1
            self._held[file.run_id] -= 1
            if not self._held[file.run_id]:
                del self._held[file.run_id]
            self._answered(file, line.decode())
        if not self._sent:
            self._stop_watching()
        self._feed()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _suspect(self, answers: int) -> None:
        """End a process that has not answered anything for too long."""
        self._watch = None
        if answers == self._answers:
            self._child.end()
        else:
            self._watch = self._loop.call_later(STUCK_S, self._suspect, self._answers)

    def close(self) -> None:
        """Kill it and hear what it still said; `gone` is not called, `left` has the rest.

        One that is stuck in the kernel may still write; that is older than what comes now.
        """
        self._child.close(wait_s=_REAP_MAX_S)
        self._stop_watching()
