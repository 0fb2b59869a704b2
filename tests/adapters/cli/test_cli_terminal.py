"""The live view on a real terminal: a pty, its size, its signals, its settings."""

import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from .conftest import Call, sh

Write = Callable[[str, str], str]
_STEERING = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
PATIENCE_S = 20

GATED = f"""\
name: Live
nodes:
  - {{node_id: draft, action: {sh("echo [red]words[/red]; cat go")}}}
  - node_id: review
    depends_on: [draft]
    stage_kind: approval
    objective: Is it good?
    gate: {{decisions: [approve, rework, cancel], instructions: Look twice.}}
"""


class Terminal:
    """A program on a terminal of 80 by 24."""

    def __init__(self, *arguments: str) -> None:
        self.fd, child = pty.openpty()
        ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.child = child
        self.process = subprocess.Popen(
            [sys.executable, "-c", _AS_LEADER, *arguments],
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"},
        )
        self.seen = ""

    def until(self, words: str) -> str:
        """Return what the screen got up to these words; only what came since the last call."""
        deadline = time.monotonic() + PATIENCE_S
        while words not in (plain := _STEERING.sub("", self.seen)):
            ready, _, _ = select.select([self.fd], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"no {words!r} in {plain!r}"
            try:
                self.seen += os.read(self.fd, 65_536).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(f"no {words!r} in {plain!r}") from None
        self.seen = ""
        return plain

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def echoes(self) -> bool:
        flags: int = termios.tcgetattr(self.child)[3]
        return bool(flags & termios.ECHO) and bool(flags & termios.ICANON)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.child)
        os.close(self.fd)


# The program leads the terminal's foreground group, as a shell would arrange it.
_AS_LEADER = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from tandem.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def begin(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield begin
    for one in opened:
        one.close()


@pytest.fixture
def gated(write: Write) -> str:
    os.mkfifo("go")
    return write("live.yaml", GATED)


def test_gate_is_answered_on_the_keyboard(
    terminal: Callable[..., Terminal], gated: str, call: Call
) -> None:
    screen = terminal("run", gated)
    shown = screen.until("[red]words[/red]")
    assert "Live" in shown
    assert "draft" in shown
    Path("go").write_text("")
    assert "Look twice." in screen.until("approve, rework, cancel (and why) > ")
    screen.type("nonsense\r")
    screen.until("'nonsense' is none of approve, rework, cancel")
    screen.type("apx\x7f good enough")
    screen.until("> ap good enough")
    assert not screen.echoes()
    screen.type("\r")
    shown = screen.until("status  ")
    assert "completed in " in shown
    assert screen.wait() == 0
    assert screen.echoes()
    decided = call("runs", "events", "latest", "--json").lines[6]
    assert (decided["event"], decided["reason"]) == ("gate_decided", "good enough")


def test_gate_decided_elsewhere_takes_the_question_away(
    terminal: Callable[..., Terminal], gated: str, call: Call
) -> None:
    screen = terminal("run", gated)
    screen.until("[red]words[/red]")
    Path("go").write_text("")
    screen.until("(and why) > ")
    assert call("gates", "decide", "latest", "approve", "--json").json["goes_on"] is True
    screen.until("completed in ")
    assert screen.wait() == 0


def test_interrupt_pauses_and_the_next_one_cancels(
    terminal: Callable[..., Terminal], gated: str
) -> None:
    screen = terminal("run", gated)
    screen.until("[red]words[/red]")
    screen.type("\x03")
    screen.until("once more (Ctrl-C) cancels the run")
    screen.type("\x03")
    screen.until("cancelled; 0 of 2 nodes completed")
    assert screen.wait() == 8
    assert screen.echoes()


def test_interrupt_at_a_question_leaves_the_run_paused(
    terminal: Callable[..., Terminal], gated: str, call: Call
) -> None:
    screen = terminal("run", gated)
    screen.until("[red]words[/red]")
    Path("go").write_text("")
    screen.until("(and why) > ")
    screen.type("\x03")
    screen.until("paused; 1 of 2 nodes completed")
    assert screen.wait() == 9
    answer = call("resume", "--approve", "review")
    assert answer.code == 0


def test_many_nodes_fit_the_screen(terminal: Callable[..., Terminal], write: Write) -> None:
    os.mkfifo("go")
    nodes = "".join(
        f"  - {{node_id: n{n:03}, depends_on: [first], action: {sh('true')}}}\n" for n in range(60)
    )
    text = f"nodes:\n  - {{node_id: first, action: {sh('cat go')}}}\n{nodes}"
    screen = terminal("run", write("many.yaml", text))
    shown = screen.until("more")
    assert "and 47 more" in shown + screen.until("first")
    screen.type("\x03")
    screen.until("pausing: what runs")
    screen.type("\x03")
    assert "cancelled" in screen.until("status  ")
    assert screen.wait() == 8
