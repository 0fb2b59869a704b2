"""An event loop in which time is a number, order is a seed, and processes can die.

When nothing is ready it jumps to the next timer, so an hour costs nothing. What is ready at one
moment runs in an order drawn from the seed: correct code does not depend on it. Callbacks carry
their process in a context variable, and those of a dead process are dropped, as a kill would.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVarTuple

CALLBACKS_MAX = 150_000

Ts = TypeVarTuple("Ts")


class Stuck(Exception):
    """Nothing is ready and nothing ever will be, or the loop goes round without an end."""


class Process:
    """A simulated process: what runs in its context dies with it, between two callbacks.

    A frozen one stands still, as after SIGSTOP or in a machine that is paused.
    """

    def __init__(self, name: str, machine: str = "machine") -> None:
        self.name = name
        self.machine = machine
        self.is_alive = True
        self.is_frozen = False
        self.held: list[asyncio.Handle] = []
        self.was_frozen: Callable[[], bool] = lambda: False
        """Whether it stood still until a moment ago."""
        self.context = copy_context()
        self.context.run(_process.set, self)


_process: ContextVar[Process | None] = ContextVar("process", default=None)


class SimulatedLoop(asyncio.BaseEventLoop):
    """A loop for one simulated world. `now_s` is its time in seconds since it was made."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.now_s = 0.0
        self.callbacks = 0
        self._random = random
        self._is_disposing = False
        self._tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._make_task)
        self.set_debug(False)

    def time(self) -> float:
        """Return the simulated seconds."""
        return self.now_s

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Any,
        **options: Any,
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        self._tasks.append(task)
        return task

    def spawn(
        self, process: Process, coroutine: Coroutine[Any, Any, Any], *, name: str
    ) -> asyncio.Task[Any]:
        """Run a coroutine as part of a process."""
        return self.create_task(coroutine, name=name, context=process.context.copy())

    def thaw(self, process: Process) -> None:
        """Let a frozen process go on; what became due in the meantime happens now."""
        process.is_frozen = False
        self._ready.extend(process.held)
        process.held.clear()

    def _run_once(self) -> None:
        """Run what is ready, in an order of the seed; jump to the next timer when nothing is."""
        self._fill_ready()
        batch = list(self._ready)
        self._ready.clear()
        self._random.shuffle(batch)
        for handle in batch:
            if handle.cancelled() or _is_dead(handle):
                continue
            process = _process_of(handle)
            if process is not None and process.is_frozen:
                process.held.append(handle)
                continue
            self.callbacks += 1
            handle._run()
        if self.callbacks > CALLBACKS_MAX:
            self.stop()
            raise Stuck(f"{self.callbacks} callbacks in {self.now_s:.3f} simulated seconds")

    def _fill_ready(self) -> None:
        timers = self._scheduled
        if not self._ready and not self._stopping:
            while timers and (timers[0].cancelled() or _is_dead(timers[0])):
                heapq.heappop(timers)
            if not timers:
                raise Stuck("nothing is ready and no timer is set")
            self.now_s = max(self.now_s, timers[0].when())
        while timers and timers[0].when() <= self.now_s:
            self._ready.append(heapq.heappop(timers))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers fall out when their time comes."""

    def _write_to_self(self) -> None:
        """Nobody waits in a selector."""

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See `BaseEventLoop.call_soon`; after the end of the world nothing is scheduled."""
        if self._is_disposing:
            return asyncio.Handle(callback, args, self, context)
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `BaseEventLoop.call_at`; after the end of the world nothing is scheduled."""
        if self._is_disposing:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def dispose(self) -> None:
        """End the world: close every coroutine that a crash left behind, then the loop."""
        self._is_disposing = True
        self.set_exception_handler(lambda _loop, _context: None)
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
        self._tasks.clear()
        self.close()


def _process_of(handle: asyncio.Handle) -> Process | None:
    return handle._context.get(_process)  # type: ignore[attr-defined, no-any-return]


def _is_dead(handle: asyncio.Handle) -> bool:
    process = _process_of(handle)
    return process is not None and not process.is_alive


def _close(coroutine: Any) -> None:
    # A `finally` that awaits makes the first closing fail; the next one goes on from there.
    for _ in range(20):
        try:
            coroutine.close()
        except BaseException:  # noqa: BLE001, S112 # whatever it says, nobody listens any more
            continue
        return
