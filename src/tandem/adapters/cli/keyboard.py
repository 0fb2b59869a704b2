"""Lines typed on the terminal while the event loop goes on: no thread, nothing blocks."""

import asyncio
import codecs
import os
import sys
import termios
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from tandem.adapters.cli.text import clean

_ERASE: Final = "\x7f\x08"
_KILL: Final = "\x15"
_LINE_MAX: Final = 1_000


def is_ours() -> bool:
    """Say whether this process may read the terminal; one in the background would be stopped."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False


class Keyboard:
    """Collects what is typed; `typed` is called whenever `line` changed, `entered` with a line.

    While it is entered the terminal does not echo (the view shows `line`), and Ctrl-C still is a
    signal. Leaving restores the terminal.
    """

    def __init__(self, *, typed: Callable[[], None], entered: Callable[[str], None]) -> None:
        self.line = ""
        self._typed = typed
        self._entered = entered
        self._fd = sys.stdin.fileno()
        self._decode = codecs.getincrementaldecoder("utf-8")("replace")
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd, termios.TCSANOW)
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def _read(self) -> None:
        try:
            content = os.read(self._fd, 1_024)
        except OSError:
            content = b""
        if not content:
            # The terminal is gone; its signal (SIGHUP) says so to who has to know.
            asyncio.get_running_loop().remove_reader(self._fd)
            return
        text = self._decode.decode(content)
        if text.startswith("\x1b"):
            return  # an arrow or function key
        for character in text:
            self._take(character)
        self._typed()

    def _take(self, character: str) -> None:
        if character in "\r\n":
            line, self.line = self.line.strip(), ""
            if line:
                self._entered(line)
        elif character in _ERASE:
            self.line = self.line[:-1]
        elif character == _KILL:
            self.line = ""
        elif len(self.line) < _LINE_MAX:
            self.line += clean(character.replace("\t", " "))
