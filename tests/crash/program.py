"""A real engine in a process of its own that a test can kill at any instant.

It is a nursery: it imports the engine once, then forks one process for each line of JSON on its
standard input, waits for its end, and answers with one line of JSON. A job is

    {"folder": …, "automation": …, "kill": …}

With `operate` the process drives nothing: it asks what that names of the newest run, and ends. With
`tell` it does what that names in `trigger_stories.py`, `turn_stories.py` or `desk_stories.py`.

where `folder` holds the store and everything else, and `isolation` may name how bodies are kept.
The process drives the run that is in the store, or starts one, decides its gates, and writes
`outputs.json` at its end. `kill` is null or

    {"commit": 3, "moment": "before" or "after"}   SIGKILL at the third commit that writes
    {"gate": true}                                 when the run is parked at its gate, or paused
    {"wait": true}                                 when the run is parked for a wait
    {"says": "word"}                               when a body prints this word
    {"says": "word", "supervisors": true}          the same, together with all supervisors
    {"body": "name"}                               in the middle of the function of node `name`
    {"file": "put", "moment": "before" or "after"} at the first file that is put (or removed)
    {"after_s": 0.02}                              from outside, after so many seconds

`environment` sets variables. `hung` names the lock of an engine that was killed: this process holds
it, as if that engine stood still, until the run was stopped because it shows no life.
"""

import asyncio
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import desk_stories
import turn_stories
from trigger_stories import STORIES

import tandem.engine.sweeps
import tandem.wiring
from tandem import Automation, Engine
from tandem.adapters.local.clock import SystemClock
from tandem.adapters.local.files import LocalFiles
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.command import Account, HandBack, Panic
from tandem.domain.errors import Refused
from tandem.domain.ids import LOCAL_TENANT
from tandem.domain.lifecycle import RunState, StopKind
from tandem.domain.signal import Signal, SignalKind
from tandem.domain.usage import Spent, Usage
from tandem.embedded import Run
from tandem.engine.leases import QuietWatch
from tandem.ports.store import RunFilter
from tandem.settings import Settings

FLAKY_FAILURES = 2
TOKENS = 10
"""What each body that spends uses of the budget."""
SWEEP_MS = 50
AHEAD_MS = 2_000
"""How often an engine sweeps here, so that no test waits for it."""
WAIT_KEY = "k1"
"""Whoever resolves a wait says the same, however often they are killed."""
SIGNAL = Signal(
    kind=SignalKind.EXTERNAL_CONDITION, subject="ready", idempotency_key=WAIT_KEY, payload=b"7"
)
SPENT = (
    Spent(node_no=1, number=1, usage=Usage(total_tokens=TOKENS), added=Usage(total_tokens=TOKENS)),
)
HELD = asyncio.Event()
"""A body waits to be stopped."""


def kill_now() -> None:
    """Die as `kill -9` does it."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_supervisors() -> None:
    """Kill every process below this one that is not a body, before any of them can clean up."""
    found = [pid for pid in descendants(os.getpid()) if not is_body(pid)]
    for what in (signal.SIGSTOP, signal.SIGKILL):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, what)


def descendants(pid: int) -> list[int]:
    """Return the processes below this one."""
    found = []
    with suppress(OSError):  # it has just ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child_pid in map(int, (task / "children").read_text().split()):
                found += [child_pid, *descendants(child_pid)]
    return found


def is_body(pid: int) -> bool:
    """Say whether the process is a body, comes from one, or has ended."""
    try:
        return b"MARK=" in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return True


def log_effect(folder: Path, name: str, note: str = "") -> None:
    """Note outside the store that a body ran, durably, before it goes on."""
    fd = os.open(folder / "effects.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{name} {note}\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def effects(folder: Path) -> list[str]:
    """Return the names of the bodies that ran, in their order."""
    try:
        return [line.split()[0] for line in (folder / "effects.log").read_text().splitlines()]
    except FileNotFoundError:
        return []


class Commit:
    """Commits, and kills this process at the one that was asked for."""

    def __init__(self, at: int, moment: str, *, wrote: Callable[[], None] = lambda: None) -> None:
        self._at = at
        self._wrote = wrote
        self._moment = moment
        self._changes: dict[int, int] = {}
        self.count = 0

    def __call__(self, connection: apsw.Connection) -> None:
        """Commit; transactions that write nothing do not count."""
        changes = connection.total_changes()
        if changes != self._changes.get(id(connection), 0):
            self._changes[id(connection)] = changes
            self.count += 1
            self._wrote()
        is_it = self.count == self._at
        if is_it and self._moment == "before":
            kill_now()
        connection.execute("COMMIT")
        if is_it:
            kill_now()


def functions(folder: Path, kill: dict[str, Any]) -> dict[str, Callable[..., object]]:
    """Return the bodies; each notes that it ran."""

    def work(name: str, value: int = 0) -> object:
        log_effect(folder, name)
        if kill.get("body") == name:
            kill_now()
        return {"name": name, "value": value + 1}

    def flaky(name: str) -> object:
        log_effect(folder, name)
        if effects(folder).count(name) <= FLAKY_FAILURES:
            raise RuntimeError("not yet")
        return {"name": name}

    def broken(name: str) -> object:
        log_effect(folder, name)
        if not (folder / "mended").exists():
            raise RuntimeError("not mended")
        return {"name": name}

    async def held(name: str) -> object:
        log_effect(folder, name)
        if effects(folder).count(name) == 1:
            HELD.set()
            await asyncio.Event().wait()
        return {"name": name}

    def draft(name: str) -> object:
        log_effect(folder, name)
        return {"name": name} if (folder / "mended").exists() else "a draft"

    def plan(name: str) -> object:
        log_effect(folder, name)
        return {"backlog_tasks": [{"title": "One"}]}

    def spend(name: str, context: Any) -> object:
        log_effect(folder, name)
        context.report_usage(total_tokens=TOKENS)
        if kill.get("body") == name:
            kill_now()
        return {"name": name}

    return {
        "host:spend": spend,
        "host:plan": plan,
        "host:work": work,
        "host:flaky": flaky,
        "host:broken": broken,
        "host:draft": draft,
        "host:held": held,
    }


OPERATIONS: dict[str, Callable[[Run], Awaitable[object]]] = {
    "pause": lambda run: run.pause(now=True),
    "resume": lambda run: run.resume(),
    "cancel": lambda run: run.cancel(),
    "recover": lambda run: run.recover(),
    "repair": lambda run: run.repair(
        "b", action={"kind": "python", "function": "host:work", "arguments": {"name": "b2"}}
    ),
    "retry": lambda run: run.retry("b"),
    "requeue": lambda run: run.retry("b", requeue=True),
    "continue": lambda run: run.continue_blocked("b"),
    "skip": lambda run: run.skip("b", reason="killed"),
    "set-output": lambda run: run.set_output("b", {"value": 7}, reason="killed"),
    "dispose": lambda run: run.dispose("a", "ok"),
    "redeliver": lambda run: run.redeliver(),
    "fork": lambda run: run.fork("b"),
    "delete": lambda run: run.delete(),
    "decide": lambda run: run.decide("approve", decided_by="ann"),
    "resolve": lambda run: run.resolve_wait("b", 7, idempotency_key=WAIT_KEY),
    "signal": lambda run: run._parts.engine.signal(SIGNAL),
    "allow": lambda run: run.allow(reason="killed", tokens=100 * TOKENS),
    "hand-back": lambda run: of_engine(run, HandBack),
    "panic": lambda run: of_engine(run, Panic, reason="killed"),
    "account": lambda run: run._execute(Account(spent=SPENT)),
    "own": lambda run: run._parts.engine.take_over(run.run_id, own=True),
}


async def of_engine(run: Run, command: Any, **fields: Any) -> None:
    """Ask what the engine of a run asks for itself when it lets go of it."""
    await run._execute(command(engine_id=run.row.engine_id, **fields))


async def operate(
    folder: Path, document: dict[str, Any], kill: dict[str, Any], operation: str
) -> None:
    """Ask something of the newest run of this folder, as a command line does it."""
    commit = Commit(kill.get("commit", -1), kill.get("moment", ""))

    def open_store(settings: Settings) -> SqliteStore:
        return SqliteStore(settings.store_path, synchronous=settings.synchronous, commit=commit)

    tandem.wiring.open_store = open_store
    settings = Settings(state_dir=folder, database_url=f"sqlite:///{folder}/store.db")
    async with tandem.wiring.open_engine(settings, drives=False) as parts:
        if operation == "create":
            workspace = folder / "workspace"
            workspace.mkdir()
            automation = Automation.from_dict(document)
            await parts.engine.start(automation, workspace=str(workspace))
            return
        (newest, *_) = parts.store.list_runs(RunFilter(tenant=LOCAL_TENANT))
        await OPERATIONS[operation](Run(parts, newest.run_id))


async def tell(folder: Path, kill: dict[str, Any], story: str) -> None:
    """Tell a story of what happens by itself."""

    def wrote() -> None:
        with (folder / "at_work.log").open("a") as log:
            log.write(f"{turn_stories.at_work}\n")

    commit = Commit(kill.get("commit", -1), kill.get("moment", ""), wrote=wrote)

    def open_store(settings: Settings) -> SqliteStore:
        return SqliteStore(settings.store_path, synchronous=settings.synchronous, commit=commit)

    tandem.wiring.open_store = open_store
    if "file" in kill:
        kill_at_file(f"{kill['file']}_file", kill["moment"])
    settings = Settings(state_dir=folder, database_url=f"sqlite:///{folder}/store.db")
    if story in desk_stories.DESK:
        await desk_stories.ask(settings, story)
    elif story == "furnish":
        await desk_stories.furnish(settings, functions(folder, {})["host:work"])
    elif story in turn_stories.TURNS:
        await turn_stories.TURNS[story](settings, functions(folder, {})["host:work"])
    else:
        await STORIES[story](settings)


def kill_at_file(step: str, moment: str) -> None:
    """Die at the first step of this kind that the files of a workspace take."""
    original = getattr(LocalFiles, step)

    def die(*what: Any) -> None:
        if moment == "after":
            original(*what)
        kill_now()

    setattr(LocalFiles, step, die)


class Hung:
    """An engine that seems to live: its lock is held, and its silence needs no long look.

    What it did last lies back as far as the clock here is ahead.
    """

    def __init__(self, lock: Path) -> None:
        self._fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        look, now_ms = QuietWatch.list_stale, SystemClock.now_ms
        tandem.engine.sweeps.SWEEP_MS = SWEEP_MS
        QuietWatch.list_stale = lambda self, quiet, for_ms: look(self, quiet, for_ms=0)  # type: ignore[method-assign] # no test waits for a lease
        SystemClock.now_ms = lambda self: now_ms(self) + AHEAD_MS  # type: ignore[method-assign] # nor until a run is stale

    def close(self) -> None:
        """Let it die."""
        os.close(self._fd)


async def until_reaped(run: Run) -> None:
    """Wait until the run was stopped because it shows no life; in an earlier process, maybe."""
    while run.row.reaped_at_ms is None:
        await asyncio.sleep(0.01)


async def drive(
    folder: Path, document: dict[str, Any], kill: dict[str, Any], hung: Hung | None = None
) -> None:
    """Drive the run of this folder to its end."""
    commit = Commit(kill.get("commit", -1), kill.get("moment", ""))

    def open_store(settings: Settings) -> SqliteStore:
        return SqliteStore(settings.store_path, synchronous=settings.synchronous, commit=commit)

    tandem.wiring.open_store = open_store
    url = f"sqlite:///{folder}/store.db"
    async with Engine.open(url, functions=functions(folder, kill)) as engine:

        def listen(run_id: str, node_id: str, kind: str, text: str) -> None:
            if kill.get("says", "\0") in text:
                if kill.get("supervisors"):
                    kill_supervisors()
                kill_now()

        engine.parts.engine.listen_to_output(listen)
        run = await find_or_start(engine, document, folder)
        if hung is not None:
            await until_reaped(run)
            hung.close()
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(stop_what_is_held(run)),
                group.create_task(tend_waits(run, kill)),
            ]
            await come_to_the_end(run, kill)
            for helper in helpers:
                helper.cancel()
        outputs = await run.outputs()
        (folder / "outputs.json").write_text(json.dumps({"end": run.status, **outputs}))
    (folder / "commits.txt").write_text(str(commit.count))


async def rest_of(run: Run) -> RunState:
    """Wait until the run needs a person or has ended; one that was reaped goes on by itself."""
    while True:
        status = await run.wait_at_rest()
        if run.row.stop_kind is not StopKind.STALE_REAPED:
            return status
        await asyncio.sleep(0.01)


async def stop_what_is_held(run: Run) -> None:
    """Pause the run at once when a body waits for that."""
    await HELD.wait()
    await run.pause(now=True)


async def tend_waits(run: Run, kill: dict[str, Any]) -> None:
    """Resolve a wait for a condition as soon as the run is parked for it, or die there."""
    while not any(wait.kind == "external_condition" for wait in await run.waits()):
        await asyncio.sleep(0.01)
    while not run.row.parked:
        await asyncio.sleep(0.01)
    if kill.get("wait"):
        kill_now()
    await run.resolve_wait("b", 7, idempotency_key=WAIT_KEY)


async def come_to_the_end(run: Run, kill: dict[str, Any]) -> None:
    """Do what the run asks for until it has ended."""
    while (state := await rest_of(run)) in (RunState.AWAITING_APPROVAL, RunState.PAUSED):
        if kill.get("gate"):
            kill_now()
        # The killed process may have done so already.
        with suppress(Refused):
            if state is RunState.PAUSED and run.row.stop_kind is StopKind.GUARDRAIL_STOPPED:
                await run.allow(reason="test", tokens=100 * TOKENS)
            elif state is RunState.PAUSED:
                await run.resume()
            else:
                await run.decide("approve", decided_by="test")


async def find_or_start(engine: Engine, document: dict[str, Any], folder: Path) -> Run:
    """Return the run that is in the store, or start one."""
    rows = engine.parts.store.list_runs(RunFilter(tenant=LOCAL_TENANT))
    if rows:
        return engine.get_run(rows[0].run_id)
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    return await engine.run(Automation.from_dict(document), workspace=workspace)


def child(job: dict[str, Any]) -> None:
    """Do one job and exit."""
    code = 1
    try:
        folder = Path(job["folder"])
        folder.mkdir(exist_ok=True)
        err = os.open(folder / "stderr.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(err, 2)
        os.environ["TANDEM_PROCESS_ISOLATION"] = job.get("isolation", "subreaper")
        os.environ.update(job.get("environment", {}))
        hung = Hung(Path(job["hung"])) if "hung" in job else None
        kill = job["kill"] or {}
        if job.get("tell"):
            asyncio.run(tell(folder, kill, job["tell"]))
        elif job.get("operate"):
            asyncio.run(operate(folder, job["automation"], kill, job["operate"]))
        else:
            asyncio.run(drive(folder, job["automation"], kill, hung))
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait_for(pid: int, after_s: float | None, limit_s: float) -> int:
    """Wait for the child; kill it after `after_s` seconds. Returns its exit code as `wait` does."""
    if after_s is not None:
        signal.sigtimedwait([signal.SIGCHLD], after_s)
        os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() - started > limit_s:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -1_000
        signal.sigtimedwait([signal.SIGCHLD], 1)


def main() -> None:
    """Read jobs until the end of the input."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    import tests.warm  # noqa: F401

    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            child(job)
        after_s = (job["kill"] or {}).get("after_s")
        started = time.monotonic()
        code = wait_for(pid, after_s, job.get("limit_s", 30))
        print(json.dumps({"code": code, "took_s": time.monotonic() - started}), flush=True)


if __name__ == "__main__":
    main()
