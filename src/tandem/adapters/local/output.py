"""What a program prints: bounded in memory, kept in a file, reported as progress."""

import asyncio
import codecs
import logging
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tandem.adapters.local.failure import clean
from tandem.ports.executor import Progress

logger = logging.getLogger(__name__)

READ_BYTES = 256 * 1024
DRAIN_READS_MAX = 64
"""More than a pipe can hold; a writer outside of the program must not keep us reading."""
HEAD_BYTES_MAX = 256 * 1024
TAIL_BYTES_MAX = 16 * 1024
LOG_BYTES_MAX = 64 * 1024 * 1024
REPORT_EVERY_S = 0.1
REPORT_CHARS_MAX = 4096


class Output:
    """One stream of a program, read on the loop.

    Memory holds the head and the tail; `log` gets everything up to `log_bytes_max`; beyond that,
    or when the disk is full, bytes are counted only. The file is made with the first byte.
    `size_bytes` is what was printed, `logged_bytes` what the log has of it.
    """

    def __init__(
        self, kind: str, log: Path, progress: Progress, *, log_bytes_max: int = LOG_BYTES_MAX
    ) -> None:
        self.log = log
        self.size_bytes = 0
        self.logged_bytes = 0
        self._log_bytes_max = log_bytes_max
        self._file: BinaryIO | None = None
        self._head = bytearray()
        self._tail = bytearray()
        self._report = _Report(kind, progress)
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self._is_owner = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> int:
        """Make the pipe and start to read it; return its write end, which the caller closes."""
        read_fd, write_fd = os.pipe()
        os.set_blocking(read_fd, False)
        self.attach(read_fd)
        self._is_owner = True
        return write_fd

    def attach(self, fd: int) -> None:
        """Read a pipe of someone else's until `close`, which leaves it open."""
        self._fd = fd
        self._loop.add_reader(fd, self._read)

    def drain(self) -> None:
        """Take what is in the pipe now, which is all that was written so far, and report it."""
        for _ in range(DRAIN_READS_MAX):
            if not self._read():
                break
        self._report.flush()
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Take what is left, stop reading and close the file; twice is harmless."""
        self.drain()
        self._release()
        if self._file is not None:
            self._file.close()
            self._file = None

    def content(self) -> bytes | None:
        """Return all that was printed, or None when it is not all there any more."""
        if self.size_bytes <= len(self._head):
            return bytes(self._head)
        if self.logged_bytes < self.size_bytes:
            return None
        if self._file is not None:
            self._file.flush()
        return self.log.read_bytes()

    def tail(self) -> str:
        """Return the end of what was printed, at most TAIL_BYTES_MAX bytes of it."""
        return clean(bytes(self._tail[-TAIL_BYTES_MAX:]).decode(errors="replace"))

    def _read(self) -> bool:
        """Take one chunk; False when there is none now or ever again."""
        if self._fd < 0:
            return False
        try:
            chunk = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return False
        if chunk:
            self._take(chunk)
        else:
            self._release()
        return bool(chunk)

    def _release(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            if self._is_owner:
                os.close(self._fd)
            self._fd = -1

    def _take(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        if len(self._head) < HEAD_BYTES_MAX:
            self._head += chunk[: HEAD_BYTES_MAX - len(self._head)]
        self._tail += chunk[-TAIL_BYTES_MAX:]
        if len(self._tail) > 4 * TAIL_BYTES_MAX:
            del self._tail[:-TAIL_BYTES_MAX]
        self._keep(chunk)
        self._report.add(chunk)

    def _keep(self, chunk: bytes) -> None:
        part = chunk[: self._log_bytes_max - self.logged_bytes]
        if not part:
            return
        try:
            if self._file is None:
                self._file = open(self.log, "wb", buffering=0)  # noqa: SIM115
            self.logged_bytes += self._file.write(part)
        except OSError as error:
            # A full disk must not end the command; `content` will say that bytes are missing.
            logger.warning("cannot keep output in %s: %s", self.log, error)
            self._log_bytes_max = self.logged_bytes


class _Report:
    """Tells progress at once when it was quiet, then at most every REPORT_EVERY_S.

    Of what came in between it tells the end.
    """

    def __init__(self, kind: str, progress: Progress) -> None:
        self._kind = kind
        self._progress = progress
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, chunk: bytes) -> None:
        self._pending = (self._pending + clean(self._decoder.decode(chunk)))[-REPORT_CHARS_MAX:]
        if self._timer is None:
            self._tell()

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending:
            text, self._pending = self._pending, ""
            self._progress(self._kind, text)

    def _tell(self) -> None:
        self._timer = None
        if self._pending:
            text, self._pending = self._pending, ""
            self._timer = asyncio.get_running_loop().call_later(REPORT_EVERY_S, self._tell)
            self._progress(self._kind, text)
