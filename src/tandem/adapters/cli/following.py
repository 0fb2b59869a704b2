"""Following a run that the engines of a server drive: show it, ask for its gates, tell its end."""

import asyncio
from contextlib import suppress
from typing import Final

from tandem.adapters.cli import exits
from tandem.adapters.cli.display import Display
from tandem.adapters.cli.drive import Look, open_display, tell_end
from tandem.adapters.cli.given import Decisions
from tandem.adapters.cli.references import short_id
from tandem.adapters.cli.remote_desk import RemoteDesk
from tandem.adapters.cli.remote_watch import DELAYS_S
from tandem.adapters.cli.session import person
from tandem.adapters.cli.text import note
from tandem.domain.command import DecideGate
from tandem.domain.errors import EngineError, NotFound, Refused, StoreUnavailable
from tandem.domain.ids import GateId, RunId
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Gate, Run
from tandem.engine.waiting import is_at_rest, is_ended, is_held

LOOK_S: Final = 2.0
"""How often the run is looked at when no event says that there is something to see."""
EVENTS_AT_ONCE: Final = 500


async def follow(desk: RemoteDesk, run_id: RunId, look: Look, decisions: Decisions) -> int:
    """Follow a run until nothing more happens to it without a person; return the exit code.

    Whoever stops this stops only the looking: the run goes on.
    """
    try:
        with open_display(look) as display:
            run = await _Following(desk, run_id, display, decisions).to_rest()
    except asyncio.CancelledError:
        name = f"{short_id(run_id)}{desk.beside}"
        note(f"the run goes on; look at it with `tandem runs watch {name}`, or end it with")
        note(f"`tandem runs cancel {name}`")
        raise
    tell_end(await desk.story(run_id), look)
    return exits.code_of_state(run.status)


class _Following:
    def __init__(
        self, desk: RemoteDesk, run_id: RunId, display: Display, decisions: Decisions
    ) -> None:
        self._desk = desk
        self._run_id = run_id
        self._display = display
        self._decisions = decisions
        self._wake = asyncio.Event()
        self._refused: set[GateId] = set()
        self._seq = 0
        display.answered = self._wake.set

    async def to_rest(self) -> Run:
        """Return the run once it is at rest."""
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen())
            try:
                return await self._watch()
            finally:
                listening.cancel()

    async def _listen(self) -> None:
        """Wake whoever watches at every event. Without a stream the run is looked at by itself."""
        with suppress(EngineError):
            async for _ in self._desk.watch(self._run_id, after=""):
                self._wake.set()

    async def _watch(self) -> Run:
        lost = 0
        while True:
            self._wake.clear()
            try:
                run = await self._look()
            except StoreUnavailable as error:
                # The run goes on without the server being asked; so does whoever follows it.
                if lost >= len(DELAYS_S):
                    raise
                if not lost:
                    self._display.note(f"{error}; asking again")
                await asyncio.sleep(DELAYS_S[lost])
                lost += 1
                continue
            lost = 0
            if run is not None:
                return run
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._wake.wait()

    async def _look(self) -> Run | None:
        """Show what is new, and decide what can be decided; return the run once it is at rest."""
        while True:
            run = await self._desk.find_run(self._run_id)
            if run is None:
                raise NotFound(f"run {self._run_id} is gone from the server")
            await self._tell(run)
            if self._display.asks or run.status is RunState.AWAITING_APPROVAL:
                view = (await self._desk.story(self._run_id)).view
                self._display.show(view)
                gates = sorted(view.gates.values(), key=lambda gate: gate.requested_at_ms)
                if [gate for gate in gates if await self._decide(gate)]:
                    continue
            return run if self._is_over(run) else None

    async def _tell(self, run: Run) -> None:
        while self._seq < run.event_seq:
            events = await self._desk.list_events(
                self._run_id, after_seq=self._seq, limit=EVENTS_AT_ONCE
            )
            if not events:
                return
            for event in events:
                self._display.happened(self._run_id, event)
                self._seq = event.seq

    def _is_over(self, run: Run) -> bool:
        if is_ended(run) or is_held(run):
            return True
        if run.status is RunState.AWAITING_APPROVAL:
            return not self._display.asks
        return is_at_rest(run)

    async def _decide(self, gate: Gate) -> bool:
        """Decide a gate when there is an answer; say whether it was decided."""
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
            await self._desk.decide(self._run_id, command)
        except Refused as refused:
            self._display.note(str(refused))
            if typed is None:
                self._refused.add(gate.gate_id)
            return False
        return True
