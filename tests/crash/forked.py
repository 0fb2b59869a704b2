"""Runs a function in a process of its own, forked from one that has imported the engine once.

It dies as any process does; what it saves is the start of Python, which takes longer than what the
process is started for.
"""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["pytest", "warm", "tandem.transfer", "tandem.garbage", "tandem.testing.store_suite"]
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
