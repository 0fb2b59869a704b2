"""Start programs and guarantee that nothing of them survives.

`python -I -S supervisor.py SOCKET_FD ENGINE_PID` is a helper process of one engine. For each
request on its socket it forks a supervisor, which starts one program, watches it and ends
everything that came from it when the program ends, when the engine asks or when the engine dies.
It uses the standard library only and imports nothing of the package.

How nothing survives:

- A supervisor is a child subreaper: a daemon that detaches itself becomes its child. So `wait`
  saying "no children" proves that nothing is left.
- It notices the death of the engine by the end of its control socket and by a pidfd, and it does
  not start a program whose engine is gone already.
- The program dies with its supervisor (`PR_SET_PDEATHSIG`). What it left behind is inherited by
  the helper, which kills whatever it did not fork itself.
- With `isolate` the program runs in a PID namespace of its own, and the kernel ends all of it
  with the first process of that namespace.

A request is one byte with the descriptors control, stdout, stderr and perhaps one more, which
the program gets as descriptor 3. On the control socket the engine sends the length of a JSON
object `{argv, env, cwd, isolate}` in decimal, a newline and the object; an empty `argv` only tries
the isolation. Later `stop <milliseconds>` and a newline ask for SIGTERM first; closing the
socket ends everything at once. The supervisor answers with lines: `stuck <pids>` while processes
refuse to die, and at last `exit <code>`, `signal <number>` or `failed <stage> <errno>` (stages:
`isolate`, `cwd`, `exec`). By then every process of the program is gone.
"""

import contextlib
import ctypes
import errno
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, NoReturn

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
MS_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8
MS_PRIVATE_REC: Final = (1 << 18) | (1 << 14)

LINUX: Final = sys.platform == "linux"
FDS_MAX: Final = 4
STUCK_AFTER_S: Final = 10.0
RESCAN_MAX_S: Final = 0.05
EXTRA_FD: Final = 3
IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals of the terminal and of service managers: when to stop is for the engine to say."""

libc: Final = ctypes.CDLL(None, use_errno=True)


class CannotStart(Exception):
    """The program could not be started; `stage` says how far it came."""

    def __init__(self, stage: str, error: OSError) -> None:
        super().__init__(stage, error)
        self.stage = stage
        self.errno = error.errno or errno.EINVAL


# --- system calls that the standard library lacks


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library that returns 0 or sets errno."""
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def prctl(option: int, value: int) -> None:
    if LINUX:
        call("prctl", option, ctypes.c_ulong(value), 0, 0, 0)


def enter_pid_namespace() -> None:
    """Give the next child a PID namespace; without root that takes a user namespace too."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        call("unshare", CLONE_NEWPID)
        return
    call("unshare", CLONE_NEWPID | CLONE_NEWUSER)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"{user} {user} 1")
    write("/proc/self/gid_map", f"{group} {group} 1")


def mount_own_proc() -> None:
    """Show this PID namespace in /proc. Only that mount is private; all others stay shared."""
    call("unshare", CLONE_NEWNS)
    call("mount", b"none", b"/proc", None, ctypes.c_ulong(MS_PRIVATE_REC), None)
    call("mount", b"proc", b"/proc", b"proc", ctypes.c_ulong(MS_NOSUID_NODEV_NOEXEC), None)


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def is_hung_up(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))


# --- the processes below this one


def children_of(pid: int) -> list[int]:
    """Return the children of one process as far as /proc can say at this moment."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{pid}/task/{task}/children", "rb") as file,
            ):
                found += map(int, file.read().split())
    return found


def has_children_files() -> bool:
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def parents() -> Iterator[tuple[int, int]]:
    """Yield (pid, parent) of every process, for kernels without `children` files."""
    for name in os.listdir("/proc") if LINUX else ():
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The command name in parentheses may hold blanks and parentheses.
                yield int(name), int(file.read().rpartition(b")")[2].split()[1])


def descendants(root: int) -> list[int]:
    """Return everything below `root`, parents before their children."""
    if has_children_files():
        below: Callable[[int], list[int]] = children_of
    else:
        table: dict[int, list[int]] = {}
        for pid, parent in parents():
            table.setdefault(parent, []).append(pid)

        def below(pid: int) -> list[int]:
            return table.get(pid, [])

    found = below(root)
    for pid in found:  # grows while it is walked
        found += below(pid)
    return found


def send(pids: Collection[int], *signals: int) -> None:
    for pid in pids:
        for number in signals:
            # Gone already, or of another user: the wait for it tells.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


class Children:
    """Collects dead children; `wake_fd` becomes readable when there may be one."""

    def __init__(self) -> None:
        self.wake_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if LINUX else plain_pipe()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        self.are_left = True

    def reap(self) -> dict[int, int]:
        """Return pid → wait status of the dead. `are_left` is false once there is no child at all.

        A subreaper without children has no descendants.
        """
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wake_fd, 512):
                pass
        dead: dict[int, int] = {}
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    self.are_left = True
                    break
                dead[pid] = status
        except ChildProcessError:
            self.are_left = False
        return dead


def plain_pipe() -> tuple[int, int]:
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    os.set_blocking(write_fd, False)
    return read_fd, write_fd


def wait_for(timeout_s: float | None, *fds: int) -> set[int]:
    """Wait until one of `fds` (negative ones are left out) is readable or closed."""
    poll = select.poll()
    for fd in fds:
        if fd >= 0:
            poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(None if timeout_s is None else max(0, timeout_s) * 1000)}


# --- the supervisor of one program


class Supervisor:
    """Runs one request. `engine_fd` is a pidfd of the engine, or -1 where there are none."""

    def __init__(self, control: socket.socket, fds: list[int], engine_fd: int) -> None:
        self.control = control
        self.fds = fds
        self.engine_fd = engine_fd
        self.children = Children()
        self.received = bytearray()
        self.main = 0
        self.status: int | None = None

    def run(self) -> None:
        request = self.read_request()
        if request is None:
            self.tell("signal 9")
            return
        if self.received:  # asked to stop before there is anything to stop
            self.tell("signal 15")
            return
        report_fd, life_fd, started_fd = -1, -1, -1
        try:
            report_fd, life_fd, started_fd = self.start(request)
        except CannotStart as error:
            self.tell(f"failed {error.stage} {error.errno}")
            return
        self.watch(started_fd)
        self.end_all()
        report = os.read(report_fd, 512).decode().partition("\n")[0]
        os.close(life_fd)
        self.tell(report if report.startswith("failed") else self.ending(report))

    def read_request(self) -> dict[str, Any] | None:
        """Return the request, or None when the engine is gone before it sent all of it."""
        while b"\n" not in self.received:
            if not self.receive():
                return None
        length, _, body = bytes(self.received).partition(b"\n")
        self.received = bytearray(body)
        while len(self.received) < int(length):
            if not self.receive():
                return None
        request: dict[str, Any] = json.loads(self.received[: int(length)])
        del self.received[: int(length)]
        return request

    def receive(self) -> bool:
        """Wait for bytes of the engine. False means that it closed the socket or died."""
        if self.engine_fd in wait_for(None, self.control.fileno(), self.engine_fd):
            return False
        chunk = self.control.recv(65536)
        self.received += chunk
        return bool(chunk)

    def start(self, request: dict[str, Any]) -> tuple[int, int, int]:
        """Fork the program; return its report, what keeps it alive and what closes when it runs."""
        isolate = bool(request["isolate"])
        if isolate:
            try:
                enter_pid_namespace()
            except OSError as error:
                raise CannotStart("isolate", error) from None
        report_read, report_write = os.pipe()
        life_read, life_write = os.pipe()
        started_read, started_write = os.pipe()  # the second is closed by `exec`
        if is_hung_up(self.control.fileno()) or self.engine_fd in wait_for(0, self.engine_fd):
            self.tell("signal 9")
            os._exit(0)
        self.main = os.fork()
        if self.main == 0:
            os.close(life_write)
            self.control.close()
            run_guarded(
                request,
                self.fds,
                report=report_write,
                life=life_read,
                started=started_write,
                isolate=isolate,
            )
        for fd in (*self.fds, report_write, life_read, started_write):
            os.close(fd)
        return report_read, life_write, started_read

    def watch(self, started_fd: int) -> None:
        """Return when the program has ended or everything has to end now.

        A stop that comes while the program is being started waits until it runs: what it is made
        from does not heed a signal, or would take it for itself.
        """
        deadline: float | None = None
        runs, asked = False, False
        while True:
            if b"\n" in self.received:
                grace_ms = int(bytes(self.received).split()[1])
                self.received.clear()
                deadline = time.monotonic() + grace_ms / 1000
                asked = True
            if asked and runs:
                asked = False
                self.signal_all(signal.SIGTERM, signal.SIGCONT)
            if self.reap() and (deadline is None or not self.children.are_left):
                return
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            watched = (self.control.fileno(), self.engine_fd, self.children.wake_fd)
            ready = wait_for(left, *watched, -1 if runs else started_fd)
            if self.engine_fd in ready:
                return
            runs = runs or started_fd in ready
            if self.control.fileno() in ready and not self.receive():
                return

    def reap(self) -> bool:
        """Collect the dead and say whether the program itself has ended."""
        dead = self.children.reap()
        if self.main in dead:
            self.status = dead[self.main]
        return self.status is not None

    def end_all(self) -> None:
        """Kill everything below and return when nothing is left."""
        started = complained = time.monotonic()
        pause_s = 0.001
        while True:
            below = self.signal_all(signal.SIGKILL)
            self.reap()
            if not self.children.are_left:
                return
            wait_for(pause_s, self.children.wake_fd)
            now = time.monotonic()
            pause_s = min(max(pause_s, (now - started) / 4), RESCAN_MAX_S)
            if now - complained > STUCK_AFTER_S:
                complained = now
                self.tell(f"stuck {' '.join(map(str, below))}")

    def signal_all(self, *signals: int) -> list[int]:
        """Signal everything below and return it; without /proc, the session's process group."""
        below = descendants(os.getpid())
        send(below, *signals)
        if not LINUX and self.status is None:
            send([-self.main], *signals)
        return below

    def ending(self, report: str) -> str:
        """Say how the program ended; inside a namespace its first process reports the status."""
        status = int(report.split()[1]) if report.startswith("status") else self.status
        assert status is not None
        code = os.waitstatus_to_exitcode(status)
        return f"exit {code}" if code >= 0 else f"signal {-code}"

    def tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # the engine may be gone
            self.control.sendall(line.encode() + b"\n")


# --- the other side of the fork: becoming the program


def run_guarded(
    request: dict[str, Any],
    fds: list[int],
    *,
    report: int,
    life: int,
    started: int,
    isolate: bool,
) -> NoReturn:
    """Become the program, or the first process of its namespace; report why when that fails."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if is_hung_up(life):  # the supervisor died before the line above took effect
            os._exit(1)
        if isolate:
            run_as_first(request, fds, report, started)
        become(request, fds)
    except CannotStart as error:
        os.write(report, f"failed {error.stage} {error.errno}\n".encode())
    except BaseException:  # noqa: BLE001  a forked process must never return into its parent's code
        traceback.print_exc()
    finally:
        os._exit(127)


def run_as_first(request: dict[str, Any], fds: list[int], report: int, started: int) -> NoReturn:
    """Be process 1 of a new PID namespace: fork the program, reap, report its status.

    Its exit ends the namespace. When a graceful stop was asked for, it stays until all
    processes have left.
    """
    try:
        mount_own_proc()
    except OSError as error:
        raise CannotStart("isolate", error) from None
    if not request["argv"]:
        os._exit(0)
    stopping: list[int] = []
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    main = os.fork()
    if main == 0:
        become(request, fds)
    for fd in (*fds, started):
        os.close(fd)
    ended: int | None = None
    with contextlib.suppress(ChildProcessError):
        while ended is None or stopping:
            pid, status = os.wait()
            ended = status if pid == main else ended
    assert ended is not None
    os.write(report, f"status {ended}\n".encode())
    os._exit(0)


def become(request: dict[str, Any], fds: list[int]) -> NoReturn:
    """Turn this process into the program.

    Raises:
        CannotStart: at stage `cwd` or `exec`.
    """
    os.setsid()
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.chdir(request["cwd"])
    except OSError as error:
        raise CannotStart("cwd", error) from None
    place([os.open(os.devnull, os.O_RDONLY), *fds])
    try:
        execute(request["argv"], request["env"])
    except OSError as error:
        raise CannotStart("exec", error) from None


def place(fds: list[int]) -> None:
    """Make `fds` the descriptors 0, 1, 2 and, if there are four, 3."""
    # First out of the way, so that none is overwritten before it was moved.
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, EXTRA_FD + 1) for fd in fds]
    for number, fd in enumerate(moved):
        os.dup2(fd, number, inheritable=True)


def execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """Replace this process; a name without a slash is looked up in the PATH of `env`."""
    name = argv[0]
    if "/" in name:
        os.execve(name, argv, env)  # noqa: S606  that is the purpose
    refusal: OSError = FileNotFoundError(errno.ENOENT, name)
    for folder in env.get("PATH", os.defpath).split(os.pathsep):
        try:
            os.execve(os.path.join(folder or ".", name), argv, env)  # noqa: S606
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            refusal = error
    raise refusal


# --- the helper process that forks supervisors


class Helper:
    """Forks a supervisor for each request until the engine closes the socket or dies."""

    def __init__(self, requests: socket.socket, engine_fd: int) -> None:
        self.requests = requests
        self.engine_fd = engine_fd
        self.children = Children()
        self.supervisors: set[int] = set()

    def serve(self) -> None:
        watched = (self.requests.fileno(), self.engine_fd, self.children.wake_fd)
        while True:
            ready = wait_for(None, *watched)
            self.tidy()
            if self.engine_fd in ready:
                break
            if self.requests.fileno() in ready and not self.answer():
                break
        # The supervisors see the end of the engine themselves; what a dead one left is ours.
        self.tidy()
        while self.children.are_left:
            wait_for(RESCAN_MAX_S, self.children.wake_fd)
            self.tidy()

    def tidy(self) -> None:
        """Reap supervisors and kill what a supervisor that was killed left to us."""
        self.supervisors.difference_update(self.children.reap())
        for stray in set(children_of(os.getpid())) - self.supervisors:
            send([stray, *descendants(stray)], signal.SIGKILL)

    def answer(self) -> bool:
        """Fork a supervisor for the next request; False at the end of the socket."""
        try:
            message, fds, _, _ = socket.recv_fds(self.requests, 1, FDS_MAX)
        except ConnectionResetError:
            return False
        if not message:
            return False
        for fd in fds:
            os.set_inheritable(fd, False)
        pid = os.fork()
        if pid == 0:
            self.supervise(fds)
        self.supervisors.add(pid)
        for fd in fds:
            os.close(fd)
        return True

    def supervise(self, fds: list[int]) -> NoReturn:
        try:
            prctl(PR_SET_CHILD_SUBREAPER, 1)
            self.requests.close()
            Supervisor(socket.socket(fileno=fds[0]), fds[1:], self.engine_fd).run()
        except BaseException:  # noqa: BLE001  it must never return into the helper's loop
            traceback.print_exc()
        finally:
            os._exit(0)


def watch_engine(pid: int) -> int:
    """Return a descriptor that becomes readable when the engine dies, or -1 without pidfds."""
    if os.getppid() != pid:
        raise SystemExit  # the engine died before we looked
    if not hasattr(os, "pidfd_open"):
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def main() -> None:
    requests = socket.socket(fileno=int(sys.argv[1]))
    requests.set_inheritable(False)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.chdir("/")
    gc.freeze()  # forks share these objects; the collector shall not touch their pages
    Helper(requests, watch_engine(int(sys.argv[2]))).serve()


if __name__ == "__main__":
    main()
