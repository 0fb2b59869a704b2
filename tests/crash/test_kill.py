"""A real engine killed with SIGKILL: before and after every commit, in a body, at a gate, anywhere.

After a restart the run ends as an uninterrupted one does, and nothing that was recorded happens
again.
"""

import random
from pathlib import Path
from typing import Any

import pytest
from story import KILLED, Nursery, Story, effects_of, outputs_of

COMMITS_MAX = 60
RANDOM_KILLS = 30
RETRY = {"max_attempts": 6, "backoff": {"strategy": "fixed", "initial_delay_ms": 5}}


def automation() -> dict[str, Any]:
    """Return one of everything: parallel functions, retries, a timer, a gate, a command."""
    return {
        "automation_id": "everything",
        "nodes": [
            {"node_id": "a", "action": work("a", 1)},
            {"node_id": "b", "depends_on": ["a"], "action": work("b", "${nodes.a.output.value}")},
            {
                "node_id": "c",
                "depends_on": ["a"],
                "retry_policy": RETRY,
                "action": {"kind": "python", "function": "host:flaky", "arguments": {"name": "c"}},
            },
            {"node_id": "t", "depends_on": ["a"], "wait": {"kind": "timer", "delay_ms": 20}},
            {"node_id": "g", "depends_on": ["b"], "gate": {"required": True}},
            {
                "node_id": "d",
                "depends_on": ["g", "t", "c"],
                "action": {
                    "kind": "command",
                    "shell": True,
                    "script": "echo d >> ../effects.log; sync ../effects.log; echo done",
                },
            },
            {"node_id": "e", "depends_on": ["d"], "action": work("e", "${nodes.b.output.value}")},
        ],
    }


def work(name: str, value: object) -> dict[str, Any]:
    """Return the action of a node that notes that it ran."""
    arguments = {"name": name, "value": value}
    return {"kind": "python", "function": "host:work", "arguments": arguments}


@pytest.fixture(scope="module")
def uninterrupted(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert nursery.run(folder, automation(), None) == 0, (folder / "stderr.txt").read_text()
    return folder


@pytest.fixture
def story(nursery: Nursery, uninterrupted: Path) -> Story:
    return Story(nursery, automation(), outputs_of(uninterrupted))


def test_uninterrupted_run_is_what_the_others_are_compared_with(uninterrupted: Path) -> None:
    outputs = outputs_of(uninterrupted)
    assert outputs["end"] == "completed"
    assert outputs["e"] == {"name": "e", "value": 4}
    assert outputs["d"] == "done\n"
    assert effects_of(uninterrupted) == {"a": 1, "b": 1, "c": 3, "d": 1, "e": 1}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_every_commit(story: Story, tmp_path: Path, moment: str) -> None:
    for number in range(1, COMMITS_MAX):
        if not story.play(tmp_path / str(number), {"commit": number, "moment": moment}):
            break
    else:
        pytest.fail(f"the run took more than {COMMITS_MAX} commits")
    # Every step of the run is a commit, so this many kill points lie between start and end.
    assert number > 12


@pytest.mark.parametrize("body", ["a", "b", "e"])
def test_killed_in_the_middle_of_a_function(story: Story, tmp_path: Path, body: str) -> None:
    assert story.play(tmp_path / "run", {"body": body})
    assert effects_of(tmp_path / "run")[body] == 2


def test_killed_in_the_middle_of_a_command(story: Story, tmp_path: Path) -> None:
    assert story.play(tmp_path / "run", {"says": "done"})


def test_killed_while_parked_at_a_gate(story: Story, tmp_path: Path) -> None:
    assert story.play(tmp_path / "run", {"gate": True})
    assert effects_of(tmp_path / "run")["b"] == 1


def test_killed_again_and_again(
    nursery: Nursery, uninterrupted: Path, story: Story, tmp_path: Path
) -> None:
    """Each start is killed a few commits later than the last one, until the run is through."""
    folder = tmp_path / "run"
    kills = 0
    while nursery.run(folder, automation(), {"commit": 7, "moment": "after"}) == KILLED:
        kills += 1
        assert kills < COMMITS_MAX, "it makes no progress"
    assert kills > 2
    assert outputs_of(folder) == outputs_of(uninterrupted)


def test_killed_at_random_instants(story: Story, nursery: Nursery, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chosen = random.Random(seed)
    assert not story.play(tmp_path / "measure", {"commit": -1})
    whole_s = story.first_took_s
    killed = sum(
        story.play(tmp_path / str(number), {"after_s": chosen.uniform(0.0, whole_s)})
        for number in range(RANDOM_KILLS)
    )
    assert killed > RANDOM_KILLS / 3
