"""Hypothesis against the whole engine: random commands, crashes, jumps and restarts, step by step.

Two engines on the real SQLite store under a simulated clock. Every step is followed by the
invariants, which also follow every commit; at its end a world calms down, and every run must come
to rest. A failing example is shrunk to the shortest story that still fails. `make soak` takes a
million steps.
"""

import asyncio
import os
from contextlib import ExitStack, suppress
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tandem.domain.ids import RunId
from tandem.testing.builders import random_story
from tandem.testing.faults import Fault
from tandem.testing.invariants import Violation
from tandem.testing.simulation import World, commands_of, open_world
from tandem.testing.triggers import STEPS as TRIGGER_STEPS
from tests.sim.test_mutants import claims_do_not_raise_the_epoch

STEPS = 50
EXAMPLES = 220
STEPS_MIN = 10_000
CHUNKS = 2
SOAK_STEPS = 1_000_000
SOAK_CHUNKS = 10
RUNS_MAX = 4
PHASES = (Phase.generate, Phase.shrink)

numbers = st.integers(0, 2**16)


class Engines(RuleBasedStateMachine):
    """A world in which hypothesis decides what happens next."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.world: World = self._stack.enter_context(open_world(0))
        self.world.gentle = False
        self._keepers: list[asyncio.Task[Any]] = []

    @initialize(start=numbers)
    def begin(self, start: int) -> None:
        """Two engines start, and one run."""
        self.world.random.seed(start)
        self._keepers = [self.world.loop.create_task(self.world.keep(name)) for name in "ab"]
        self._let(5)
        self.start_run(start)

    # What may happen

    @rule(story=numbers)
    def start_run(self, story: int) -> None:
        """Somebody starts a run."""
        if len(self.world.invariants.runs()) < RUNS_MAX:
            self._do(self.world.start_run(random_story(Random(story))))

    @rule(which=numbers, kind=numbers, span_ms=st.sampled_from((0, 1, 20, 200)))
    def command(self, which: int, kind: int, span_ms: int) -> None:
        """Somebody asks something of a run."""
        runs, living = self.world.invariants.runs(), self.world.living()
        if runs and living:
            run_id = RunId(runs[which % len(runs)]["run_id"])
            nodes = self.world.nodes_of(run_id)
            commands = commands_of(self.world, run_id, nodes[which % len(nodes)])
            process = living[which % len(living)]
            self._do(self.world.command(process, run_id, commands[kind % len(commands)]))
        self._let(span_ms)

    @rule(which=numbers, choice=st.floats(0, 1, exclude_max=True))
    def signal(self, which: int, choice: float) -> None:
        """Something comes that a run waits for, or will wait for."""
        living = self.world.living()
        if living:
            self._do(self.world.signal(living[which % len(living)], choice))

    @rule(which=numbers, forks=st.booleans())
    def fork_or_delete(self, which: int, forks: bool) -> None:
        """Somebody forks a run, or deletes it."""
        runs, living = self.world.invariants.runs(), self.world.living()
        if not runs or not living:
            return
        run_id, process = RunId(runs[which % len(runs)]["run_id"]), living[which % len(living)]
        if not forks:
            self._do(self.world.delete(process, run_id))
        elif len(runs) < RUNS_MAX:
            nodes = self.world.nodes_of(run_id)
            self._do(self.world.fork(process, run_id, nodes[which % len(nodes)]))

    @rule(kind=st.sampled_from(TRIGGER_STEPS), start=numbers)
    def trigger(self, kind: str, start: int) -> None:
        """Something starts runs by itself, or somebody changes what does."""
        self._do(self.world.triggers.step(kind, Random(start)))

    @rule(which=numbers)
    def kill(self, which: int) -> None:
        """An engine dies."""
        living = self.world.living()
        if living:
            self.world.kill(living[which % len(living)])
        self._let(1)

    @rule(which=numbers)
    def stop(self, which: int) -> None:
        """An engine is asked to stop."""
        living = self.world.living()
        if living:
            living[which % len(living)].stop.set()
        self._let(20)

    @rule(which=numbers, freezes=st.booleans())
    def disturb(self, which: int, freezes: bool) -> None:
        """An engine stands still, or cannot reach its store, for a while."""
        living = self.world.living()
        if living:
            self.world.disturb(living[which % len(living)], freezes=freezes)
        self._let(1)

    @rule(fault=st.sampled_from(Fault), after=st.integers(0, 3))
    def break_commit(self, fault: Fault, after: int) -> None:
        """One of the next commits goes wrong."""
        self.world.faults.plan(fault, after=after)

    @rule(span_ms=st.sampled_from((-3_600_000, -500, 500, 3_600_000)))
    def set_clock(self, span_ms: int) -> None:
        """Somebody sets the wall clock."""
        self.world.jump(span_ms)

    @rule(span_ms=st.sampled_from((1, 10, 100, 1_000, 10_000)))
    def pass_time(self, span_ms: int) -> None:
        """Nothing happens for a while."""
        self._let(span_ms)

    # What must hold

    @invariant()
    def holds(self) -> None:
        """Nothing that must not happen has happened."""
        type(self).steps += 1
        self._judge()

    def teardown(self) -> None:
        """Let the world calm down; every run must come to its end."""
        try:
            if self._keepers:
                self._do(self.world.calm_down())
                for keeper in self._keepers:
                    keeper.cancel()
                self._do(self.world.stop_all())
                self.world.invariants.check_all()
                self.world.triggers.check_end()
                self._judge()
        finally:
            self._stack.close()

    def _judge(self) -> None:
        if self.world.violation is not None:
            raise self.world.violation

    def _let(self, span_ms: int) -> None:
        self._do(self.world.clock.sleep(span_ms))

    def _do(self, what: Any) -> None:
        task = self.world.loop.create_task(what)
        # A violation stops the loop before the task is done.
        with suppress(RuntimeError):
            self.world.loop.run_until_complete(task)
        self._judge()
        task.result()


def _search(*, steps: int, start: int, phases: tuple[Phase, ...] = PHASES) -> int:
    Engines.steps = 0
    run_state_machine_as_test(
        seed(start)(Engines),
        settings=settings(
            max_examples=max(steps // STEPS, 1),
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return Engines.steps


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_whatever_happens_every_invariant_holds(chunk: int) -> None:
    assert _search(steps=STEPS * EXAMPLES, start=chunk) >= STEPS_MIN


def test_the_search_finds_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    claims_do_not_raise_the_epoch(monkeypatch)
    with pytest.raises(Violation):
        _search(steps=STEPS * 40, start=0, phases=(Phase.generate,))


@pytest.mark.soak
@pytest.mark.parametrize("chunk", range(SOAK_CHUNKS))
def test_a_million_steps(chunk: int) -> None:
    wanted = int(os.environ.get("TANDEM_SOAK_STEPS", SOAK_STEPS)) // SOAK_CHUNKS
    steps = wanted * STEPS * EXAMPLES // STEPS_MIN
    assert _search(steps=steps, start=10_000 + chunk) >= wanted
