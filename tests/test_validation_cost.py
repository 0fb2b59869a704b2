"""What the rules between the parts of an automation cost when there are many of them.

Beside the tests of the domain: tracing which branches they take would be most of what is measured.
"""

import time
from typing import Any

import pytest

from tandem.domain.automation import Automation
from tandem.domain.validation import check_automation


def step(node_id: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """A node that is right by itself."""
    action = {"kind": "command", "argv": ["true"]}
    return {"node_id": node_id, "depends_on": list(depends_on), "action": action, **fields}


def echo(node_id: str, text: str, *depends_on: str) -> dict[str, Any]:
    return step(node_id, *depends_on, action={"kind": "command", "argv": ["echo", text]})


def chain(count: int) -> list[dict[str, Any]]:
    return [
        echo(f"n{i}", f"${{nodes.n{i - 1}.output}} ${{nodes.n0.output}}", f"n{i - 1}")
        if i
        else step("n0")
        for i in range(count)
    ]


def fan(count: int) -> list[dict[str, Any]]:
    middle = [step(f"n{i}", "n0") for i in range(1, count)]
    refs = [{"from_step_id": f"n{i}", "alias": f"a{i}"} for i in range(1, count)]
    last = step("end", *(f"n{i}" for i in range(1, count)), input_refs=refs)
    return [step("n0"), *middle, last]


def typos(count: int) -> list[dict[str, Any]]:
    return [step(f"some-name-{i}", f"sone-name-{i}") for i in range(count)]


def ring(count: int) -> list[dict[str, Any]]:
    return [step(f"n{i}", f"n{(i + 1) % count}") for i in range(count)]


@pytest.mark.parametrize(
    ("make", "count"),
    [(chain, 0), (fan, 0), (typos, 3000), (ring, 1)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_three_thousand_nodes_take_about_four_times_as_long_as_a_quarter(
    make: Any, count: int
) -> None:
    # A ratio: how fast the machine is just now counts for nothing. Squares would give sixteen.
    check(make(750))
    few, _ = min(check(make(750)) for _ in range(3))
    many, problems = min(check(make(3000)) for _ in range(2))
    assert many < 11 * few
    assert problems == count


def check(nodes: list[dict[str, Any]]) -> tuple[float, int]:
    """Return the processor seconds that a check of these nodes takes, and how many problems."""
    document = {"automation_id": "a", "flow": {"nodes": nodes}}
    started = time.process_time()
    problems = check_automation(Automation.model_validate(document))
    return time.process_time() - started, len(problems)
