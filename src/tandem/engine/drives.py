"""The runs that one engine drives: each has a driver, and a task in which it drives."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from tandem.domain.change import Change
from tandem.domain.command import Command, HandBack, LossPolicy, Panic
from tandem.domain.errors import EngineError, NotFound, Refused
from tandem.domain.ids import EngineId, RunId, TenantId
from tandem.domain.lifecycle import StopKind
from tandem.domain.view import RunView
from tandem.engine.driver import Driver
from tandem.ports.clock import Clock

STORE_WAIT_MIN_MS = 2_000
"""A store that answers is never cut off by a shutdown timeout of 0."""

Execute = Callable[[RunId, Command, TenantId], Awaitable[Change]]
LeftListener = Callable[[RunId, int], None]


class Drives:
    """Starts, tells and ends the drivers of one engine.

    Args:
        engine_id: whose they are.
        clock: of the engine.
        new_driver: makes the driver of a run that was claimed.
        execute: asks something of a run.
        ended: called when a driver is through.
        complain: hears what a person has to know.
    """

    def __init__(
        self,
        *,
        engine_id: EngineId,
        clock: Clock,
        new_driver: Callable[[RunView], Driver],
        execute: Execute,
        ended: Callable[[], None],
        complain: Callable[[str], None],
    ) -> None:
        self._engine_id = engine_id
        self._clock = clock
        self._new_driver = new_driver
        self._execute = execute
        self._ended = ended
        self._complain = complain
        self._drivers: dict[RunId, Driver] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._owed: dict[RunId, tuple[TenantId, Command]] = {}
        self.left: list[LeftListener] = []
        """Called with a run and its epoch when it is driven here no more."""

    def __len__(self) -> int:
        return len(self._drivers)

    def find(self, run_id: RunId) -> Driver | None:
        """Return the driver of a run, if it is driven here."""
        return self._drivers.get(run_id)

    @property
    def active(self) -> list[int]:
        """The numbers of the runs that show life: a body, or an outcome that is not written."""
        return [driver.view.run.run_no for driver in self._drivers.values() if driver.is_active]

    def start(self, view: RunView, group: asyncio.TaskGroup) -> Driver:
        """Drive a run that was claimed, in a task of the group."""
        driver, run_id = self._new_driver(view), view.run.run_id
        former, self._drivers[run_id] = self._drivers.get(run_id), driver
        # This engine lost the run and has it again: its own former bodies have to be dead first.
        before = [task for task in self._tasks if task.get_name() == run_id]
        if former is not None:
            former.poke()
        task = group.create_task(self._drive_to_end(driver, run_id, before), name=run_id)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return driver

    async def _drive_to_end(
        self, driver: Driver, run_id: RunId, before: list[asyncio.Task[None]]
    ) -> None:
        try:
            if before:
                await asyncio.wait(before)
            await driver.drive()
        except Exception as error:  # noqa: BLE001 # one run's panic must not take the others along
            await self._panic(driver, error)
        finally:
            # The run may be driven here again already, before its former driver has noticed.
            if self._drivers.get(run_id) is driver:
                del self._drivers[run_id]
            for left in self.left:
                left(run_id, driver.epoch)
            self._ended()

    async def _panic(self, driver: Driver, error: Exception) -> None:
        run = driver.view.run
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        command = Panic(engine_id=self._engine_id, reason=f"{type(cause).__name__}: {cause}")
        try:
            await self._execute(run.run_id, command, run.tenant)
        except (Refused, NotFound):
            return  # another engine was first
        except EngineError:
            self._owed[run.run_id] = run.tenant, command  # said when the store is back

    # Telling them

    def poke(self, run_ids: Iterable[RunId]) -> None:
        """Say that these runs have changed in the store."""
        for run_id in run_ids:
            driver = self._drivers.get(run_id)
            if driver is not None:
                driver.poke()

    def poke_all(self) -> None:
        """Say that any run may have changed in the store."""
        for driver in self._drivers.values():
            driver.poke()

    # Ending them

    def drain(self, policy: LossPolicy) -> None:
        """Have them start nothing new, and let go of a run when its last attempt has ended."""
        for driver in self._drivers.values():
            driver.drain(policy)

    async def wait(self, span_ms: int) -> None:
        """Wait until all are through, for so long at most."""
        if self._tasks and span_ms > 0:
            with suppress(TimeoutError):
                async with self._clock.deadline(span_ms):
                    await asyncio.wait(list(self._tasks))

    async def hand_back(self, policy: LossPolicy, *, timeout_ms: int) -> int:
        """End all attempts and let go of the runs; return how many that failed."""
        drivers = list(self._drivers.values())
        for driver in drivers:
            driver.hand_back(policy)
        await self.wait_at_most(list(self._tasks), timeout_ms)
        return sum(driver.view.run.stop_kind is StopKind.SHUTDOWN for driver in drivers)

    async def wait_at_most(self, tasks: list[asyncio.Task[None]], span_ms: int) -> None:
        """Wait for tasks; those that a store which is away holds up are cancelled in the end.

        Their runs stay with this engine, which is about to be dead, and so can be taken over.
        """
        if not tasks:
            return
        span_ms = max(span_ms, STORE_WAIT_MIN_MS)
        try:
            async with self._clock.deadline(span_ms):
                await asyncio.wait(tasks)
        except TimeoutError:
            self._complain(
                f"the store did not answer within {span_ms} ms; "
                "runs of this engine are left as they are, and can be resumed"
            )
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def abandon(self) -> None:
        """End all attempts: the lease is over, and another engine may drive the runs by now."""
        if self._tasks:
            self._complain(
                "the lease of this engine could not be renewed in time; its attempts are ended"
            )
        for run_id, driver in self._drivers.items():
            self._owed[run_id] = driver.view.run.tenant, HandBack(engine_id=self._engine_id)
        for task in self._tasks:
            task.cancel()

    async def pay(self) -> None:
        """Say what could not be said while the store was away; what cannot now stays owed."""
        for run_id, owed in list(self._owed.items()):
            tenant, command = owed
            try:
                await self._execute(run_id, command, tenant)
            except (Refused, NotFound):
                pass  # another engine was first
            except EngineError:
                continue
            if self._owed.get(run_id) is owed:
                del self._owed[run_id]
