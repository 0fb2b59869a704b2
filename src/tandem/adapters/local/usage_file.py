"""The file in which a body tells what it spends: a line of JSON for each call."""

import asyncio
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tandem.domain.usage import read_spending
from tandem.ports.executor import AttemptSpec, Progress
from tandem.ports.meter import Meter

NAME: Final = "usage.jsonl"
LOOK_EVERY_S: Final = 0.25
READ_BYTES: Final = 64 * 1024
LINE_BYTES_MAX: Final = 4_096
COMPLAINTS_MAX: Final = 5
"""A body that writes something else is told so, but not for ever."""


class UsageFile:
    """Follows the file while the body runs, and reads the rest on leaving.

    A line that cannot be read is told as progress and counts nothing. What is read is reported to
    the meter of the attempt, which may end it for that.
    """

    def __init__(self, attempt: AttemptSpec, scratch: Path, progress: Progress) -> None:
        self._path = scratch / NAME
        self._meter: Meter | None = attempt.meter
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._offset = 0
        self._rest = b""
        self._complaints = 0

    def __enter__(self) -> Self:
        if self._meter is not None:
            self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._meter is not None:
            while self._read(self._meter):
                pass
            if self._rest:
                self._take(self._meter, self._rest)
                self._rest = b""

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)
        if self._meter is not None:
            self._read(self._meter)

    def _read(self, meter: Meter) -> bool:
        """Take one chunk of what is new; False when there is none."""
        try:
            if self._path.stat().st_size <= self._offset:
                return False
            # A body may have put something else there than a file; it must not hold us up.
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False  # none was written
        try:
            chunk = os.pread(fd, READ_BYTES, self._offset)
        except OSError as error:
            self._complain(f"cannot be read: {error}")
            return False
        finally:
            os.close(fd)
        self._offset += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._take(meter, line)
        if len(self._rest) > LINE_BYTES_MAX:
            self._complain(f"has a line of more than {LINE_BYTES_MAX} bytes")
            self._rest = b""
        return bool(chunk)

    def _take(self, meter: Meter, line: bytes) -> None:
        if not line.strip():
            return
        try:
            meter.report(read_spending(line))
        except ValueError as error:
            self._complain(f"holds a line that is no usage: {error}")

    def _complain(self, words: str) -> None:
        self._complaints += 1
        if self._complaints <= COMPLAINTS_MAX:
            self._progress("event", f"TANDEM_USAGE_FILE {words}")
