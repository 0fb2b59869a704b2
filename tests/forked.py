"""Processes forked from one that has imported the engine once: of a function, or of a program.

It dies as any process does; what it saves is the start of Python, which takes longer than what the
process is started for.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

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


class Forked:
    """A Python program, started and handled as `subprocess.Popen` does it.

    `arguments` are the command line, with a module or the path of a program. Only standard output
    and standard error can be pipes; of `pass_fds` there is at most one, the last argument.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[str] = subprocess.DEVNULL,
        stderr: int | IO[str] = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
        text: bool = True,
    ) -> None:
        assert (stdin, text) == (subprocess.DEVNULL, True)
        assert [str(fd) for fd in pass_fds] in ([], list(arguments[-1:]))
        with ExitStack() as stack:
            self.stdout, out = _stream(stdout, stack)
            self.stderr, err = _stream(stderr, stack, other=out)
            start = _Start(
                arguments=[argument for argument in arguments[1:] if argument != "-P"],
                env=dict(os.environ if env is None else env),
                cwd=str(cwd or Path.cwd()),
                fds=[_Inherited(fd) for fd in (out, err, *pass_fds)],
            )
            self._process = _CONTEXT.Process(target=_become, args=(start,))
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """See `subprocess.Popen.poll`."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """See `subprocess.Popen.wait`."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """See `subprocess.Popen.send_signal`."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """See `subprocess.Popen.terminate`."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """See `subprocess.Popen.kill`."""
        self.send_signal(signal.SIGKILL)


class _Inherited:
    """A descriptor that is another number in the process that it is sent to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _detach, (DupFd(self._fd),)


def _detach(sent: Any) -> int:
    return int(sent.detach())


class _Start(msgspec.Struct, frozen=True):
    arguments: list[str]
    env: dict[str, str]
    cwd: str
    fds: list[Any]


def _stream(
    wanted: int | IO[str], stack: ExitStack, *, other: int = -1
) -> tuple[IO[str] | None, int]:
    """Return our end of a stream, if there is one, and the descriptor of the other end."""
    if wanted == subprocess.STDOUT:
        return None, other
    if wanted == subprocess.PIPE:
        ours, theirs = os.pipe()
        stack.callback(os.close, theirs)
        return os.fdopen(ours), theirs
    if wanted == subprocess.DEVNULL:
        theirs = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, theirs)
        return None, theirs
    assert not isinstance(wanted, int)
    return None, wanted.fileno()


def _become(start: _Start) -> None:
    for number, fd in enumerate(start.fds[:2], 1):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdout, sys.stderr = (open(fd, "w", closefd=False) for fd in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(start.env)
    os.chdir(start.cwd)
    passed = [str(fd) for fd in start.fds[2:]]
    program, *rest = start.arguments[: len(start.arguments) - len(passed)]
    if program == "-m":
        program, *rest = rest
        sys.argv = [program, *rest, *passed]
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [program, *rest, *passed]
        sys.path.insert(0, str(Path(program).parent))
        runpy.run_path(program, run_name="__main__")
