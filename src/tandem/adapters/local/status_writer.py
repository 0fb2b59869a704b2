"""Status files on disk: written in the engine's process, or by this program beside it.

`python -I -S status_writer.py SOCKET_FD ENGINE_PID` writes for the engine at the other end of the
socket until that is gone. It uses the standard library only and imports nothing of the package: it
starts in some 30 ms and stays small.

A request is three lengths, each 4 bytes and big-endian, then what they measure: the workspace, the
id of the run, the content of its file. Requests are performed in their order, and each is answered
in that order by a line: empty when the file is in its place, else what went wrong.
"""

import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

FOLDERS_MAX: Final = 64
ANSWERED_TOGETHER: Final = 8
_LENGTHS: Final = struct.Struct("!III")
_READ_BYTES: Final = 1 << 16
_PR_SET_PDEATHSIG: Final = 1
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class StatusFile(NamedTuple):
    """What is to be in the status file of a run; `workspace` is an absolute directory."""

    workspace: str
    run_id: str
    content: bytes


class StatusFolders:
    """Puts status files into their workspaces; keeps the folders of the newest ones open.

    Args:
        engine_pid: names the temporary files, so that one engine never leaves two of them.
    """

    def __init__(self, engine_pid: int) -> None:
        self._temporary = f".status.json.{engine_pid}"
        self._open: dict[str, int] = {}

    def put(self, file: StatusFile) -> bool:
        """Write `.tandem/runs/<run>/status.json` atomically; True when its folder is new.

        Links below `.tandem` are refused. What was in the file stays there when this fails.

        Raises:
            OSError: it cannot be written.
            ValueError: no file can have this path.
        """
        try:
            return self._put(file)
        except FileNotFoundError:
            # The folder that was kept open has been removed meanwhile.
            self._forget(file.workspace)
            return self._put(file)

    def close(self) -> None:
        """Close the folders; twice is harmless."""
        for workspace in list(self._open):
            self._forget(workspace)

    def _put(self, file: StatusFile) -> bool:
        runs = self._runs_of(file.workspace)
        is_new = _make(runs, file.run_id)
        folder = os.open(file.run_id, _FOLDER_FLAGS, dir_fd=runs)
        try:
            _write(folder, self._temporary, file.content)
            os.rename(self._temporary, "status.json", src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.close(folder)
        return is_new

    def _runs_of(self, workspace: str) -> int:
        known = self._open.get(workspace)
        if known is not None:
            return known
        if len(self._open) >= FOLDERS_MAX:
            self._forget(next(iter(self._open)))
        root = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            own = _enter(root, ".tandem")
        finally:
            os.close(root)
        try:
            _ignore(own)
            folder = self._open[workspace] = _enter(own, "runs")
        finally:
            os.close(own)
        return folder

    def _forget(self, workspace: str) -> None:
        folder = self._open.pop(workspace, None)
        if folder is not None:
            os.close(folder)


def _enter(parent: int, name: str) -> int:
    _make(parent, name)
    return os.open(name, _FOLDER_FLAGS, dir_fd=parent)


def _make(parent: int, name: str) -> bool:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        return False
    return True


def _ignore(folder: int) -> None:
    """Keep the folder out of version control."""
    try:
        os.stat(".gitignore", dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        _write(folder, ".gitignore", b"*\n")


def _write(folder: int, name: str, content: bytes) -> None:
    file = os.open(name, _FILE_FLAGS, 0o644, dir_fd=folder)
    try:
        done = 0
        while done < len(content):
            done += os.write(file, content[done:] if done else content)
    finally:
        os.close(file)


# --- what is said on the socket


def request(file: StatusFile) -> bytes:
    """Return the bytes that ask for a file."""
    workspace, run_id = os.fsencode(file.workspace), os.fsencode(file.run_id)
    lengths = _LENGTHS.pack(len(workspace), len(run_id), len(file.content))
    return lengths + workspace + run_id + file.content


def take_requests(received: bytearray) -> Iterator[StatusFile]:
    """Take the complete requests out of what was received; the rest of it stays."""
    start = 0
    while len(received) - start >= _LENGTHS.size:
        lengths = _LENGTHS.unpack_from(received, start)
        begin = start + _LENGTHS.size
        if begin + sum(lengths) > len(received):
            break
        parts: list[bytes] = []
        for length in lengths:
            parts.append(bytes(received[begin : begin + length]))
            begin += length
        start = begin
        yield StatusFile(os.fsdecode(parts[0]), os.fsdecode(parts[1]), parts[2])
    del received[:start]


def answer(trouble: str) -> bytes:
    """Return the line that answers a request."""
    return " ".join(trouble.split()).encode(errors="replace") + b"\n"


# --- the program


def serve(engine: socket.socket, folders: StatusFolders) -> None:
    """Write until the engine is gone."""
    received = bytearray()
    while more := engine.recv(_READ_BYTES):
        received += more
        answers: list[bytes] = []
        for file in take_requests(received):
            answers.append(answer(_trouble(folders, file)))
            if len(answers) == ANSWERED_TOGETHER:
                engine.sendall(b"".join(answers))
                answers.clear()
        engine.sendall(b"".join(answers))


def _trouble(folders: StatusFolders, file: StatusFile) -> str:
    try:
        folders.put(file)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


def main() -> None:
    """Serve the engine that is named on the command line."""
    engine_pid = int(sys.argv[2])
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != engine_pid:
        return  # it died before we looked
    # Signals for the whole group are the engine's business: it may still have to write its end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    with socket.socket(fileno=int(sys.argv[1])) as engine:
        try:
            serve(engine, StatusFolders(engine_pid))
        except (BrokenPipeError, ConnectionResetError):
            return


if __name__ == "__main__":
    main()
