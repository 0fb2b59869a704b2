"""Bodies that follow a script, and the ledger that sees every one of them from outside."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from hashlib import blake2b
from random import Random
from typing import Final

import msgspec

from tandem.domain.action import HttpAction
from tandem.domain.ids import AttemptId, EngineId
from tandem.domain.json import JsonValue
from tandem.domain.outcome import Failed, FailureClass, NeedsRepair, Outcome, Succeeded
from tandem.domain.provider import provider_of_url
from tandem.domain.usage import Spending
from tandem.ports.executor import AttemptSpec, Progress
from tandem.ports.meter import Meter
from tandem.testing.clock import SimulatedClock
from tandem.testing.loop import Process

UNFINISHED: Final[JsonValue] = {"value": "unfinished"}


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What the bodies of one node do.

    The first `fails` bodies that come to their end fail, the next `repairs` miss the contract, and
    all later ones end as `ending` says: `succeed`, `fail` or `repair`. A success says what is in
    `says`; the first `rejects` of a review do not approve. `unmet` is what a miss lacks.
    """

    duration_ms: int
    fails: int = 0
    repairs: int = 0
    ending: str = "succeed"
    failure_class: FailureClass = FailureClass.EXECUTION_ERROR
    retry_after_ms: int = 0
    """The span for which a request that fails asks to be left alone."""
    says: dict[str, JsonValue] = msgspec.field(default_factory=dict)
    rejects: int = 0
    unmet: tuple[str, ...] = ()
    calls: int = 0
    """How many calls a body makes that cost something."""
    call: Spending = Spending()
    asks: bool = True
    """Whether it asks before each call; else it reports them afterwards."""


class Body(msgspec.Struct, kw_only=True):
    """One execution of a node's body. A leftover is one that outlived its engine."""

    spec: AttemptSpec
    process: Process
    is_live: bool = True
    result: Outcome | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The run and the node."""
        return self.spec.run_id, self.spec.node_id


class Bodies:
    """Every body of a simulated world. `started` is asked before a body counts as running."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.all: list[Body] = []
        self.live: list[Body] = []
        self.ends: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.leaves_some = True
        """Whether bodies may outlive their engine."""
        self.successes: dict[tuple[str, str], JsonValue] = {}
        self.started: Callable[[Body], None] = _ignore
        self.reaped: Callable[[Body], None] = _ignore

    def start(self, body: Body) -> None:
        """A body begins."""
        self.started(body)
        self.all.append(body)
        self.live.append(body)

    def end(self, body: Body, result: Outcome | None = None) -> None:
        """A body is gone; with a result it came to its own end."""
        if not body.is_live:
            return
        body.is_live = False
        self.live.remove(body)
        body.result = result
        if result is not None:
            self.ends[body.key] += 1
        if isinstance(result, Succeeded):
            self.successes[body.key] = result.output

    def bury(self, process: Process) -> None:
        """An engine died: some of its bodies die with it, the others stay as leftovers."""
        for body in list(self.live):
            if body.process is not process:
                continue
            if not self.leaves_some or self.random.random() < 0.5:
                self.end(body)


class ScriptedExecutor:
    """The executor of one simulated process."""

    def __init__(
        self,
        bodies: Bodies,
        scripts: dict[tuple[str, str], Script],
        process: Process,
        clock: SimulatedClock,
    ) -> None:
        self._bodies = bodies
        self._scripts = scripts
        self._process = process
        self._clock = clock

    async def run(self, attempt: AttemptSpec, progress: Progress) -> Outcome:
        """See `Executor.run`."""
        bodies = self._bodies
        if attempt.attempt_id.endswith("/probe"):
            return self._answer(attempt)
        script = self._scripts[attempt.run_id, attempt.node_id]
        body = Body(spec=attempt, process=self._process)
        bodies.start(body)
        try:
            progress("event", "started")
            if script.calls and attempt.meter is not None:
                await self._spend(script, attempt.meter)
            else:
                await self._clock.sleep(script.duration_ms)
            result = outcome_of(script, bodies.ends[body.key], attempt)
            bodies.end(body, result)
            return result
        finally:
            if body.is_live and self._process.is_alive:
                # Cancelled: what the body started takes a moment to die.
                try:
                    await self._clock.sleep(bodies.random.choice((0, 1, 15)))
                finally:
                    if self._process.is_alive:
                        bodies.end(body)

    async def _spend(self, script: Script, meter: Meter) -> None:
        """Make the calls of a body one after the other."""
        each_ms = script.duration_ms / script.calls
        for _ in range(script.calls):
            if script.asks:
                with await meter.reserve(Spending(tool_calls=script.call.tool_calls)) as call:
                    await self._clock.sleep(each_ms)
                    call.spend(script.call)
            else:
                await self._clock.sleep(each_ms)
                meter.report(script.call)

    def _answer(self, attempt: AttemptSpec) -> Outcome:
        """Answer an effects probe: it sees from outside whether a body came to its end."""
        key = (attempt.run_id, attempt.node_id)
        if key in self._bodies.successes:
            return Succeeded(output=self._bodies.successes[key], exit_code=0)
        return Failed(failure_class=FailureClass.EXECUTION_ERROR, message="no", exit_code=1)

    async def end_leftovers(
        self, *, engine_ids: Collection[EngineId], attempt_ids: Collection[AttemptId]
    ) -> int:
        """See `Executor.end_leftovers`."""
        await self._clock.sleep(self._bodies.random.choice((0, 2, 20)))
        found = [
            body
            for body in self._bodies.live
            if body.process.machine == self._process.machine
            and (body.spec.engine_id in engine_ids or body.spec.attempt_id in attempt_ids)
        ]
        for body in found:
            self._bodies.reaped(body)
            self._bodies.end(body)
        return len(found)


def outcome_of(script: Script, ends: int, attempt: AttemptSpec) -> Outcome:
    """Return how a body ends when `ends` bodies of its node came to their end before it."""
    ending = script.ending
    if ends < script.fails:
        ending = "fail"
    elif ends < script.fails + script.repairs:
        ending = "repair"
    match ending:
        case "fail":
            action = attempt.action
            asked = script.retry_after_ms if isinstance(action, HttpAction) else 0
            return Failed(
                failure_class=script.failure_class,
                message="as the script says",
                retry_after_ms=asked or None,
                provider=provider_of_url(action.url) if isinstance(action, HttpAction) else "",
            )
        case "repair":
            return NeedsRepair(
                reasons=("as the script says",), unmet=script.unmet, output=UNFINISHED
            )
        case _:
            said = dict(script.says)
            if "approved" in said:
                said["approved"] = ends >= script.fails + script.repairs + script.rejects
            return Succeeded(output=output_of(attempt.node_id, attempt.inputs) | said)


def output_of(node_id: str, inputs: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the output of a body: a value that depends on its inputs and on nothing else."""
    parts = [node_id]
    for name, given in sorted(inputs.items()):
        value = given.get("value", "") if isinstance(given, dict) else ""
        parts.append(f"{name}={value}")
    return {"value": blake2b("|".join(parts).encode(), digest_size=6).hexdigest()}


def _ignore(_body: Body) -> None:
    """Nobody watches."""
