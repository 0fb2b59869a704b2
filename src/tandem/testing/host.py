"""Simulated hosts: who is alive on them, and messages between engines that may get lost."""

from collections.abc import Callable
from random import Random

import msgspec

from tandem.domain.errors import StoreUnavailable
from tandem.domain.ids import EngineId
from tandem.ports.store import EngineRow
from tandem.testing.loop import Process, SimulatedLoop


class _Present(msgspec.Struct, frozen=True):
    process: Process
    wake: Callable[[], None]


class SimulatedMachine:
    """The engines of all machines. `loses` is the share of wake messages that never arrive."""

    def __init__(self, loop: SimulatedLoop, random: Random, *, loses: float) -> None:
        self._loop = loop
        self._random = random
        self._loses = loses
        self._present: dict[EngineId, _Present] = {}
        self._machines: dict[EngineId, str] = {}

    def enter(self, engine_id: EngineId, process: Process, wake: Callable[[], None]) -> None:
        """Note that this engine lives in this process."""
        self._present[engine_id] = _Present(process, wake)
        self._machines[engine_id] = process.machine

    def leave(self, engine_id: EngineId) -> None:
        """Note that this engine has gone by itself."""
        self._present.pop(engine_id, None)

    def is_alive(self, engine_id: EngineId) -> bool:
        """Say whether the lock of this engine is held."""
        present = self._present.get(engine_id)
        return present is not None and present.process.is_alive

    def machine_of(self, engine_id: EngineId) -> str:
        """Return the machine on which this engine lives, or lived."""
        return self._machines.get(engine_id, "")

    def wake_others(self, sender: EngineId) -> None:
        """Send a message to every other living engine; some get lost."""
        for engine_id, present in list(self._present.items()):
            is_near = present.process.machine == self.machine_of(sender)
            if engine_id == sender or not present.process.is_alive or not is_near:
                continue
            if self._random.random() >= self._loses:
                delay_s = self._random.choice((0.0, 0.0, 0.001, 0.02))
                context = present.process.context.copy()
                self._loop.call_later(delay_s, present.wake, context=context)


class SimulatedHost:
    """One engine's presence on the simulated machine."""

    def __init__(self, machine: SimulatedMachine, process: Process) -> None:
        self._machine = machine
        self._process = process
        self._engine_id = EngineId("")

    def enter(self, engine_id: EngineId, wake: Callable[[], None]) -> EngineRow:
        """See `Host.enter`."""
        if not self._process.is_alive:
            raise StoreUnavailable("this process is dead")
        self._engine_id = engine_id
        self._machine.enter(engine_id, self._process, wake)
        return EngineRow(
            engine_id=engine_id,
            host=self._process.machine,
            pid=1,
            version="0",
            lock_path="",
            started_at_ms=0,
            lease_until_ms=0,
        )

    def leave(self) -> None:
        """See `Host.leave`."""
        self._machine.leave(self._engine_id)

    def can_see(self, engine: EngineRow) -> bool:
        """See `Host.can_see`."""
        return engine.host == self._process.machine

    def is_dead(self, engine: EngineRow, *, now_ms: int) -> bool:
        """See `Host.is_dead`."""
        if self.can_see(engine):
            return not self._machine.is_alive(engine.engine_id)
        return engine.lease_until_ms < now_ms

    def wake_others(self) -> None:
        """See `Host.wake_others`."""
        self._machine.wake_others(self._engine_id)
