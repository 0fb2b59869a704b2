"""The whole engine in seeded worlds: crashes, failed commits, clock jumps, operators.

A failing seed prints the one line that repeats it. `make soak` runs as many worlds as
`TANDEM_SIM_SEEDS` says.
"""

import os

import pytest

from tandem.domain.lifecycle import RunState
from tandem.testing.simulation import Broken, World, simulate
from tests.sim.test_mutants import CALLBACKS_MAX
from tests.sim.test_receipts import check_receipts
from tests.sim.test_vocabulary import check_vocabulary

CHUNKS = 10
SEEDS_PER_CHUNK = 100
SOAK_SEEDS = 100_000


def judge(world: World) -> None:
    """Check what a world has left: its receipts, and that all that it recorded is declared."""
    check_receipts(world)
    check_vocabulary(world.invariants.events)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_seed_keeps_every_invariant(chunk: int) -> None:
    first = chunk * SEEDS_PER_CHUNK
    reports = [simulate(seed, judge) for seed in range(first, first + SEEDS_PER_CHUNK)]

    # The worlds must be worth living in: work was done, and things went wrong.
    assert sum(len(report.events) for report in reports) > 20 * SEEDS_PER_CHUNK
    assert len({seen.event for report in reports for seen in report.events}) > 20
    assert sum(report.crashes for report in reports) > SEEDS_PER_CHUNK // 10
    endings = {ending for report in reports for ending in report.endings}
    assert endings <= {RunState.COMPLETED, RunState.FAILED, RunState.BLOCKED, RunState.CANCELLED}
    assert RunState.COMPLETED in endings
    assert max(report.callbacks for report in reports) < CALLBACKS_MAX
    triggers = {trigger for report in reports for trigger in report.triggers}
    assert triggers >= {"manual", "scheduled", "watch_condition", "webhook"}


def test_one_seed() -> None:
    simulate(int(os.environ.get("TANDEM_SIM_SEED", "0")), judge)


def test_same_seed_gives_the_same_events() -> None:
    for seed in (3, 52, 77, 410):
        first, second = simulate(seed), simulate(seed)
        assert first == second
        assert first.events


def test_other_seeds_give_other_events() -> None:
    assert simulate(1).events != simulate(2).events


def test_failing_seed_prints_the_line_that_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tandem.testing.simulation.CALM_S_MAX", -1.0)

    with pytest.raises(Broken) as broken:
        simulate(7)

    line = str(broken.value).splitlines()[0]
    assert line == "TANDEM_SIM_SEED=7 .venv/bin/python -m pytest tests/sim -k one_seed"


@pytest.mark.soak
def test_many_more_seeds() -> None:
    for seed in range(100_000, 100_000 + int(os.environ.get("TANDEM_SIM_SEEDS", SOAK_SEEDS))):
        simulate(seed)
