"""Driving runs from the command line: follow them, decide their gates, obey the keyboard."""

import asyncio
import getpass
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from tandem.adapters.cli.display import Display
from tandem.adapters.cli.exits import INTERRUPTED
from tandem.adapters.cli.given import Decisions
from tandem.adapters.cli.references import short_id
from tandem.adapters.cli.text import note
from tandem.adapters.cli.tools import OpenEngine
from tandem.domain.change import Change
from tandem.domain.command import Cancel, Command, DecideGate, Pause
from tandem.domain.deadline import is_late
from tandem.domain.errors import EngineError, NotFound, Refused
from tandem.domain.ids import LOCAL_TENANT, GateId, RunId
from tandem.domain.lifecycle import TERMINAL, RunState
from tandem.domain.run import Gate, GateStatus, QueueReason, Run
from tandem.domain.view import RunView
from tandem.engine.waiting import is_ended, is_held

LOOK_S: Final = 0.25
SHOW_S: Final = 0.2
EVENTS_AT_ONCE: Final = 500
GATES_AT_ONCE: Final = 100
LEAVE_AFTER: Final = 2
"""How many signals are obeyed in order; the one after them ends the process at once."""


_HELD: Final = frozenset(
    {
        QueueReason.RATE_LIMIT,
        QueueReason.WORKSPACE_LOCK,
        QueueReason.CONCURRENCY,
        QueueReason.REVIEW_REQUIRED,
    }
)


def person() -> str:
    """Return the name of the user of this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


class Session:
    """Follows runs that one engine of this process drives, until each has come to rest."""

    def __init__(self, parts: OpenEngine, display: Display, decisions: Decisions) -> None:
        self._engine = parts.engine
        self._store = parts.store
        self._display = display
        self._decisions = decisions
        self._wakes: dict[RunId, asyncio.Event] = {}
        self._open: set[RunId] = set()
        self._refused: set[GateId] = set()
        self._told: dict[RunId, str] = {}
        self._signals: list[int] = []
        self._signalled = asyncio.Event()
        display.answered = self.wake
        parts.engine.listen(self._changed)
        parts.engine.listen_to_output(display.said)

    async def follow(self, run_ids: Sequence[RunId], *, after_seq: int | None = None) -> list[Run]:
        """Follow the runs until nothing more happens to them without a person; return them.

        SIGINT and SIGTERM pause the runs; a second one cancels them.

        Args:
            run_ids: runs that belong to this engine.
            after_seq: the first event to show is the one after it; None means the newest.
        """
        self._open = set(run_ids)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, number)
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(self._obey()), group.create_task(self._show())]
                async with asyncio.TaskGroup() as followed:
                    tasks = [
                        followed.create_task(self._follow(run_id, after_seq)) for run_id in run_ids
                    ]
                for task in beside:
                    task.cancel()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        return [task.result() for task in tasks]

    async def _follow(self, run_id: RunId, after_seq: int | None) -> Run:
        wake = self._wakes.setdefault(run_id, asyncio.Event())
        seq = self._run(run_id).event_seq if after_seq is None else after_seq
        while True:
            wake.clear()
            run = self._run(run_id)
            seq = self._tell(run, seq)
            if await self._settle(run):
                continue
            if self._is_over(run):
                self._open.discard(run_id)
                # What came between the reading of the row and now belongs to the story too.
                self._tell(run, seq)
                await self._engine.caught_up(run_id)
                return run
            await self._keep(run)
            self._tell_waiting(run)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await wake.wait()

    def _changed(self, view: RunView, change: Change) -> None:
        wake = self._wakes.get(view.run.run_id)
        if wake is not None:
            wake.set()

    def _run(self, run_id: RunId) -> Run:
        run = self._store.find_run(run_id, tenant=LOCAL_TENANT)
        if run is None:
            raise NotFound(f"run {run_id} is gone from the store")
        return run

    def _tell(self, run: Run, seq: int) -> int:
        while True:
            events = self._store.list_events(
                run.run_id, tenant=LOCAL_TENANT, after_seq=seq, limit=EVENTS_AT_ONCE
            )
            for event in events:
                self._display.happened(run.run_id, event)
                seq = event.seq
            if len(events) < EVENTS_AT_ONCE:
                return seq

    def _tell_waiting(self, run: Run) -> None:
        """Say once for each key what keeps the run in the queue."""
        if run.status is not RunState.QUEUED or run.queue_reason not in _HELD:
            return
        if self._told.get(run.run_id) != run.resource_key:
            self._told[run.run_id] = run.resource_key
            reason = self._engine.why(run.run_id)
            self._display.note(f"run {short_id(run.run_id)} waits: {reason.sentence}")

    def _is_over(self, run: Run) -> bool:
        if is_ended(run) or is_held(run):
            return True
        if run.status is RunState.PAUSED:
            return not run.parked
        if run.status is not RunState.AWAITING_APPROVAL or self._display.asks:
            return False
        view = self._store.read(run.run_id, tenant=LOCAL_TENANT)
        # While time alone can still move something, a person may come in the meantime. A gate that
        # has expired is about to be closed by this engine.
        now_ms = time.time_ns() // 1_000_000
        is_expired = any(is_late(gate, now_ms=now_ms) for gate in view.gates.values())
        is_moving = view.waits or view.backoff or is_expired
        return view.run.status is run.status and not is_moving

    async def _keep(self, run: Run) -> None:
        """Take the run back when another engine put it into the queue for anybody."""
        if run.status is RunState.QUEUED and run.owner != self._engine.engine_id:
            with suppress(Refused):
                await self._engine.take_over(run.run_id, own=True)

    # Gates

    async def _settle(self, run: Run) -> bool:
        """Decide what can be decided now; say whether anything was."""
        if run.status in TERMINAL:
            return False
        decided = False
        for found in self._store.list_gates(
            tenant=LOCAL_TENANT, status=GateStatus.OPEN, run_id=run.run_id, limit=GATES_AT_ONCE
        ):
            decided = await self._decide(run.run_id, found.gate) or decided
        return decided

    async def _decide(self, run_id: RunId, gate: Gate) -> bool:
        typed = self._display.answer(gate)
        if typed is not None:
            decision, reason = typed
        elif gate.gate_id in self._refused or (ready := self._decisions.take(gate.node_id)) is None:
            return False
        else:
            decision, reason = ready, "decided on the command line in advance"
        command = DecideGate(
            gate_id=gate.gate_id, decision=decision, reason=reason, decided_by=person()
        )
        try:
            await self._engine.execute(run_id, command)
        except Refused as refused:
            self._display.note(str(refused))
            if typed is None:
                self._refused.add(gate.gate_id)
            return False
        return True

    # The keyboard and the live view

    def wake(self) -> None:
        """Look at every run now; for a display that has got an answer."""
        for wake in self._wakes.values():
            wake.set()

    def _interrupt(self, number: int) -> None:
        self._signals.append(number)
        if len(self._signals) > LEAVE_AFTER:
            self._leave()
        self._signalled.set()

    def _leave(self) -> None:
        """End this process without a word to the store, which may be what everything waits for.

        That is safe: the kernel frees the engine's lock and the supervisors end every body.
        """
        self._display.restore()
        names = [short_id(run_id) for run_id in self._open]
        meant = names[0] if len(names) == 1 else "--all"
        note(f"left at once; go on later with: tandem resume {meant}")
        os._exit(INTERRUPTED)

    async def _obey(self) -> None:
        obeyed = 0
        while True:
            await self._signalled.wait()
            self._signalled.clear()
            while obeyed < len(self._signals):
                number = self._signals[obeyed]
                obeyed += 1
                by = "from the keyboard" if number == signal.SIGINT else "by SIGTERM"
                await self._stop(by, is_first=obeyed == 1)

    async def _stop(self, by: str, *, is_first: bool) -> None:
        if is_first:
            self._display.note(
                "pausing: what runs is let to its end; once more (Ctrl-C) cancels the run"
            )
            await self._each(lambda: Pause(reason=f"paused {by}"))
        else:
            self._display.note("cancelling; once more leaves at once")
            await self._each(lambda: Cancel(reason=f"cancelled {by}"))

    async def _each(self, command: Callable[[], Command]) -> None:
        for run_id in sorted(self._open):
            try:
                await self._engine.execute(run_id, command())
            except EngineError as error:
                if self._run(run_id).status not in TERMINAL:
                    self._display.note(f"run {short_id(run_id)}: {error}")

    async def _show(self) -> None:
        shown: dict[RunId, tuple[str, RunView]] = {}
        while self._display.asks:
            for run_id in sorted(self._open):
                run = self._run(run_id)
                if run_id not in shown or shown[run_id][0] != run.last_change_id:
                    view = self._store.read(run_id, tenant=LOCAL_TENANT)
                    shown[run_id] = (view.run.last_change_id, view)
                self._display.show(shown[run_id][1])
            await asyncio.sleep(SHOW_S)
