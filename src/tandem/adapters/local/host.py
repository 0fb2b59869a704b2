"""An engine's presence on this host: a lock that dies with it, and a socket to wake it.

Both lie in `<state dir>/engines/`. The kernel frees the lock at the moment the process dies, so
the next engine need not wait for a lease of the dead.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

from tandem.domain.errors import StoreUnavailable
from tandem.domain.ids import EngineId
from tandem.ports.store import EngineRow

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_entered: "set[LocalHost]" = set()
"""Those that this process has entered and not left."""


class LocalHost:
    """The engines that share one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "engines"
        self._name = _host_name()
        self._lock: int | None = None
        self._lock_path: Path | None = None
        self._socket: socket.socket | None = None
        self._socket_path: Path | None = None

    def enter(self, engine_id: EngineId, wake: Callable[[], None]) -> EngineRow:
        """See `Host.enter`.

        Raises:
            StoreUnavailable: the state directory cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_path = self._folder / f"{engine_id}.lock"
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock = os.open(self._lock_path, flags, 0o600)
            _entered.add(self)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._listen(engine_id, wake)
        except OSError as error:
            self.leave()
            raise StoreUnavailable(
                f"cannot write to {self._folder}: {error.strerror}; "
                "set TANDEM_STATE_DIR to a folder that can be written"
            ) from error
        return EngineRow(
            engine_id=engine_id,
            host=self._name,
            pid=os.getpid(),
            version=version("tandem-engine"),
            lock_path=str(self._lock_path),
            started_at_ms=0,
            lease_until_ms=0,
        )

    def _listen(self, engine_id: EngineId, wake: Callable[[], None]) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        listener.setblocking(False)
        self._socket = listener
        self._socket_path = self._folder / f"{engine_id}.sock"
        with _short_folder(self._folder) as folder:
            listener.bind(f"{folder}/{self._socket_path.name}")

        def receive() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.recv(64)
            wake()

        asyncio.get_running_loop().add_reader(listener.fileno(), receive)

    def leave(self) -> None:
        """See `Host.leave`."""
        if self._socket is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        for path in (self._socket_path, self._lock_path):
            if path is not None:
                path.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        _entered.discard(self)

    def forget(self) -> None:
        """Let go in a child what a fork has copied of the parent, whose engine it is.

        A lock lives as long as one copy of it: the child would keep a dead parent's alive.
        """
        if self._lock is not None:
            os.close(self._lock)
        if self._socket is not None:
            self._socket.close()
        self._lock = self._lock_path = self._socket = self._socket_path = None

    def can_see(self, engine: EngineRow) -> bool:
        """See `Host.can_see`."""
        if engine.host != self._name:
            return False
        return os.access(engine.lock_path, os.R_OK | os.W_OK) or self._has_left(engine)

    def _has_left(self, engine: EngineRow) -> bool:
        """Say whether that engine took its lock away from this very folder, as one that left."""
        path = Path(engine.lock_path)
        return path.parent == self._folder and self._folder.is_dir() and not path.exists()

    def is_dead(self, engine: EngineRow, *, now_ms: int) -> bool:
        """See `Host.is_dead`."""
        if engine.host == self._name:
            try:
                fd = os.open(engine.lock_path, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                return self._has_left(engine) or engine.lease_until_ms < now_ms
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            finally:
                os.close(fd)
            return True
        return engine.lease_until_ms < now_ms

    def wake_others(self) -> None:
        """See `Host.wake_others`."""
        try:
            names = [name for name in os.listdir(self._folder) if name.endswith(".sock")]
        except OSError:
            return
        own = self._socket_path.name if self._socket_path is not None else ""
        others = [name for name in names if name != own]
        if not others:
            return
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
            _short_folder(self._folder) as folder,
        ):
            sender.setblocking(False)
            for name in others:
                # A full or dead socket is no loss: its engine looks every 100 ms anyway.
                with contextlib.suppress(OSError):
                    sender.sendto(b"w", f"{folder}/{name}")


def _forget_in_child() -> None:
    for host in _entered:
        host.forget()
    _entered.clear()


os.register_at_fork(after_in_child=_forget_in_child)


@contextlib.contextmanager
def _short_folder(folder: Path) -> Iterator[str]:
    """Yield a short name of the folder: the path of a socket has room for 107 bytes only."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _host_name() -> str:
    """Return a name that two hosts, or one host before and after a boot, do not share."""
    try:
        boot = _BOOT_ID.read_text("ascii").strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()}/{boot}"
