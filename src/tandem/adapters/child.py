"""The engine's end of a child process: bytes each way over one socket, and its death."""

import asyncio
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import Final

_READ_BYTES: Final = 1 << 18
_REAP_POLL_S: Final = 0.005


class Child:
    """One child process. Nothing here blocks the loop but `close`."""

    def __init__(
        self,
        arguments: Callable[[str], Sequence[str]],
        *,
        loop: asyncio.AbstractEventLoop,
        heard: Callable[[bytes], None],
        gone: Callable[[], None],
        reap_max_s: float,
    ) -> None:
        """Start it.

        Args:
            arguments: the command line, given the number of its socket.
            loop: on which it is heard.
            heard: it said this.
            gone: it is dead and reaped, or still there after `reap_max_s`.
            reap_max_s: how long a process that SIGKILL does not end is waited for.

        Raises:
            OSError: it could not be started.
        """
        self._loop = loop
        self._heard = heard
        self._gone = gone
        self._reap_max_s = reap_max_s
        self._reap_until = 0.0
        self._unsent = bytearray()
        self._is_ended = False
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    arguments(str(theirs.fileno())),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            except BaseException:
                self._socket.close()
                raise
        self._socket.setblocking(False)
        loop.add_reader(self._socket, self._read)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def is_ended(self) -> bool:
        """Whether nothing is sent or heard any more."""
        return self._is_ended

    def use(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear it on another loop from now on."""
        if loop is self._loop or self._is_ended:
            return
        self._leave_loop()
        self._loop = loop
        loop.add_reader(self._socket, self._read)

    def send(self, data: bytes | bytearray) -> None:
        """Send it as soon as the socket takes it. An ended child is sent nothing."""
        self._unsent += data
        self._write()

    def _write(self) -> None:
        if self._is_ended:
            return
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._write)
            return
        except OSError:
            self._unsent.clear()  # it is dead; what it still said is read to the end first
        self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        while not self._is_ended:
            more = self._receive()
            if more is None:
                return
            if not more:
                self.end()
                return
            self._heard(more)

    def _receive(self) -> bytes | None:
        try:
            return self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def end(self) -> None:
        """Kill it. Only when it is reaped has it surely stopped writing."""
        if self._is_ended:
            return
        self._stop_listening()
        self._process.kill()
        self._reap_until = self._loop.time() + self._reap_max_s
        self._reap()

    def _stop_listening(self) -> None:
        self._is_ended = True
        self._leave_loop()
        self._socket.close()

    def _leave_loop(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)

    def _reap(self) -> None:
        if self._process.poll() is None and self._loop.time() < self._reap_until:
            self._loop.call_later(_REAP_POLL_S, self._reap)
        else:
            self._gone()

    def close(self, *, wait_s: float) -> bool:
        """Kill it and hear what it still said; False when it could not be proven dead.

        `gone` is not called.
        """
        self._gone = _nothing
        self._process.kill()
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            if not self._is_ended:
                self._stop_listening()
            return False
        self._read()
        return True


def _nothing() -> None:
    """Nobody listens any more."""
