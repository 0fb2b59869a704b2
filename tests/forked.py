"""Runs a function in a process of its own, forked from one that has imported the engine once.

It dies as any process does; what it saves is the start of Python, which takes longer than what the
process is started for.
"""

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import msgspec

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["pytest", "tests.warm", "tandem.transfer", "tandem.garbage", "tandem.testing.store_suite"]
)
LIMIT_S = 60


class Done(msgspec.Struct, frozen=True):
    """How a process ended, and what it said."""

    returncode: int
    """Its exit code; minus the number of the signal that killed it."""
    stdout: str
    stderr: str


def run_forked(program: Callable[..., None], *arguments: str) -> Done:
    """Run a function of a module in a process until it ends; one that takes too long is killed."""
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, name) for name in ("stdout", "stderr")]
        for path in said:
            path.touch()
        child = _CONTEXT.Process(target=_run, args=(said, program, arguments))
        child.start()
        child.join(LIMIT_S)
        if child.exitcode is None:
            child.kill()
            child.join()
        code = child.exitcode
        child.close()
        assert code is not None
        return Done(code, *(path.read_text() for path in said))


def _run(said: list[Path], program: Callable[..., None], arguments: tuple[str, ...]) -> None:
    for path, stream in zip(said, (sys.stdout, sys.stderr), strict=True):
        fd = os.open(path, os.O_WRONLY)
        os.dup2(fd, stream.fileno())
        os.close(fd)
    program(*arguments)


class ForkedPopen:
    """Starts as `subprocess.Popen` does, for a program that is a module with a `main`."""

    def __init__(self, arguments: Sequence[str], *, pass_fds: Sequence[int], **_: Any) -> None:
        """Run `main` of the module in `arguments`, given the rest; the last one is the socket."""
        _, program, *rest, fd = arguments
        assert pass_fds == [int(fd)]
        self._process = _CONTEXT.Process(
            target=_run_main, args=(Path(program).stem, rest, _Inherited(int(fd)))
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def kill(self) -> None:
        """See `subprocess.Popen.kill`."""
        self._process.kill()

    def poll(self) -> int | None:
        """See `subprocess.Popen.poll`."""
        return self._process.exitcode

    def wait(self, limit_s: float) -> None:
        """See `subprocess.Popen.wait`."""
        self._process.join(limit_s)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired([], limit_s)


class _Inherited:
    """A descriptor that is another number in the process that it is sent to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Callable[[Any], str], tuple[Any]]:
        return _detach, (DupFd(self._fd),)


def _detach(sent: Any) -> str:
    return str(sent.detach())


def _run_main(module: str, rest: list[str], fd: str) -> None:
    importlib.import_module(module).main([*rest, fd])
