"""The process that calls functions of `python` actions, one job at a time.

It speaks JSON lines over the socket that it inherits as descriptor 3; standard output and error
belong to user code. A job is `{function, arguments, context, env, cwd, output_bytes_max}`. An
answer has a `kind`:

- `value` with `value`;
- `missing`, `error` or `too_large` with `message` and `detail`;
- `stale`: a module of the workspace changed on disk, so the job was not begun.

Any but `stale` comes after a line of the kind `begun`: without it no user code ran.

`is_dirty` says that the job left threads or processes: the worker has to be replaced.
"""

import asyncio
import contextlib
import importlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Sequence
from inspect import isawaitable
from typing import Any, Final, TextIO

from tandem.adapters.local import function as functions

CHANNEL_FD: Final = 3


class Modules:
    """The modules loaded from some folders, and whether their files changed since."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = tuple(os.path.join(folder, "") for folder in folders)
        self._seen: set[str] = set(sys.modules)
        self._stamps: dict[str, tuple[int, int]] = {}
        self._is_doubtful = False

    def note(self, begun_ns: int) -> None:
        """Remember the files of modules that were loaded since the last call.

        One that was written after the job began may be another one than was loaded.
        """
        for name in sys.modules.keys() - self._seen:
            path = getattr(sys.modules.get(name), "__file__", None)
            if path and path.startswith(self._folders) and "site-packages" not in path:
                stamp = _stamp(path)
                self._stamps[path] = stamp
                self._is_doubtful |= stamp[0] >= begun_ns
        self._seen = set(sys.modules)

    def are_stale(self) -> bool:
        """Say whether a file changed, so that only a new process would see it."""
        return self._is_doubtful or any(
            _stamp(path) != stamp for path, stamp in self._stamps.items()
        )


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


def serve(folders: Sequence[str]) -> None:
    """Answer jobs until the engine closes the socket."""
    channel = socket.socket(fileno=CHANNEL_FD)
    channel.set_inheritable(False)
    modules = Modules(folders)
    for line in channel.makefile("rb"):
        if modules.are_stale():
            channel.sendall(b'{"kind":"stale"}\n')
            continue
        channel.sendall(b'{"kind":"begun"}\n')
        channel.sendall(answer(json.loads(line), modules) + b"\n")


def answer(job: dict[str, Any], modules: Modules) -> bytes:
    """Do one job and return the answer as JSON."""
    begun_ns = time.time_ns()
    importlib.invalidate_caches()  # a node before this one may have written the module
    environ = dict(os.environ)
    os.environ.update(job["env"])
    try:
        os.chdir(job["cwd"])
        value = call(job)
    except functions.FunctionMissing as error:
        return told("missing", str(error), detail=functions.trace_of(error))
    except functions.NotJson as error:
        return told("error", str(error))
    except BaseException as error:  # noqa: BLE001  also SystemExit: it ends the job, not us
        return told("error", functions.describe(error), detail=functions.trace_of(error))
    finally:
        os.environ.clear()
        os.environ.update(environ)
        modules.note(begun_ns)
        flush(sys.stdout, sys.stderr)
    if len(value) > job["output_bytes_max"]:
        return told("too_large", str(len(value)))
    return b'{"kind":"value","is_dirty":%s,"value":%s}' % (_bool(is_dirty()), value)


def call(job: dict[str, Any]) -> bytes:
    """Call the function of a job and return its result as JSON."""
    function = functions.find(job["function"])
    context = job["context"] | {"report_usage": report_usage}
    arguments = functions.with_context(function, job["arguments"], context)
    result = function(**arguments)
    if isawaitable(result):
        result = asyncio.run(_awaited(result))
    return functions.to_json(result)


def report_usage(**spending: Any) -> None:
    """Tell the engine what a call has cost."""
    line = json.dumps(spending).encode() + b"\n"
    with open(os.environ["TANDEM_USAGE_FILE"], "ab", buffering=0) as file:
        file.write(line)


async def _awaited(result: Awaitable[object]) -> object:
    return await result


def told(kind: str, message: str, *, detail: str = "") -> bytes:
    fields = {"kind": kind, "message": message, "detail": detail, "is_dirty": is_dirty()}
    return json.dumps(fields).encode()


def _bool(value: bool) -> bytes:
    return b"true" if value else b"false"


def is_dirty() -> bool:
    """Say whether user code left a thread or a process behind.

    The parent is the supervisor or the first process of our namespace: it inherits daemons.
    """
    return threading.active_count() > 1 or bool(
        _children(os.getpid()) or _children(os.getppid()) - {os.getpid()}
    )


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{pid}/task/{task}/children", "rb") as file,
            ):
                found.update(map(int, file.read().split()))
    return found


def flush(*streams: TextIO | None) -> None:
    for stream in streams:
        with contextlib.suppress(Exception):  # user code may have closed or replaced it
            if stream is not None:
                stream.flush()


def main() -> None:
    """Run a worker: the argument is a JSON list of folders for the front of `sys.path`."""
    folders: list[str] = json.loads(sys.argv[1])
    sys.path[:0] = folders
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True, errors="replace")
    serve(folders)
