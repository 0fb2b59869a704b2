"""Builders: automations and views that tests tell their stories with."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import msgspec

from tandem.domain.automation import Automation
from tandem.domain.graph import Plan
from tandem.domain.ids import (
    LOCAL_TENANT,
    AutomationId,
    ChangeId,
    DefinitionDigest,
    RunId,
)
from tandem.domain.json import JsonValue
from tandem.domain.lifecycle import RunState
from tandem.domain.outcome import FailureClass
from tandem.domain.run import Run
from tandem.domain.view import RunView
from tandem.testing.executor import Script, output_of

RETRYABLE = FailureClass.EXECUTION_ERROR


def python_node(node_id: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """Return a node that calls a function."""
    action = {"kind": "python", "function": "simulated:body"}
    return {"node_id": node_id, "depends_on": list(depends_on), "action": action, **fields}


def gate_node(node_id: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    """Return a node at which a person decides."""
    return {"node_id": node_id, "depends_on": list(depends_on), "gate": {"required": True}} | fields


def timer_node(node_id: str, *depends_on: str, delay_ms: int = 1_000) -> dict[str, Any]:
    """Return a node that waits for a span."""
    wait = {"kind": "timer", "delay_ms": delay_ms}
    return {"node_id": node_id, "depends_on": list(depends_on), "wait": wait}


def automation(*nodes: Mapping[str, Any], parallel: int = 4) -> Automation:
    """Return an automation of these nodes."""
    return Automation.model_validate(
        {
            "automation_id": "simulated",
            "flow": {"nodes": list(nodes)},
            "execution": {"max_parallel_agents": parallel},
        }
    )


def fresh_view(*nodes: Mapping[str, Any], parallel: int = 4) -> RunView:
    """Return a queued run of these nodes."""
    plan = Plan(automation(*nodes, parallel=parallel), DefinitionDigest("sha256:0"))
    run = Run(
        run_no=1,
        run_id=RunId("run"),
        tenant=LOCAL_TENANT,
        automation_id=AutomationId("simulated"),
        definition_digest=plan.digest,
        status=RunState.QUEUED,
        last_change_id=ChangeId("created"),
        event_seq=1,
        created_at_ms=0,
        updated_at_ms=0,
        due_at_ms=0,
        nodes_total=len(plan),
    )
    return RunView(run, plan)


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """An automation together with what its bodies do."""

    automation: Automation
    scripts: Mapping[str, Script]


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ends that nobody disturbs; `outputs` are those of bodies that completed."""

    status: RunState
    outputs: Mapping[str, JsonValue]


def random_story(random: Random) -> Story:
    """Return an automation of 1 to 12 nodes, most of which end well."""
    count = random.choice((1, 2, 3, 4, 5, 6, 8, 12))
    names = [f"n{number}" for number in range(count)]
    nodes: list[dict[str, Any]] = []
    scripts: dict[str, Script] = {}
    for number, name in enumerate(names):
        depends_on = random.sample(names[:number], min(number, random.choice((0, 1, 1, 2, 3))))
        kind = random.choices(("body", "gate", "timer"), (8, 1, 1))[0]
        if kind == "gate":
            nodes.append(gate_node(name, *depends_on))
        elif kind == "timer":
            nodes.append(timer_node(name, *depends_on, delay_ms=random.choice((0, 50, 700))))
        else:
            node, scripts[name] = _random_body(random, name, depends_on)
            nodes.append(node)
    return Story(automation=automation(*nodes, parallel=random.choice((1, 2, 4))), scripts=scripts)


def _random_body(
    random: Random, name: str, depends_on: Sequence[str]
) -> tuple[dict[str, Any], Script]:
    attempts_max = random.choice((1, 2, 3, 4))
    backoff = random.choice(
        (
            {"strategy": "none"},
            {"strategy": "fixed", "initial_delay_ms": 60},
            {"strategy": "exponential", "initial_delay_ms": 40, "jitter_ms": 30},
        )
    )
    spare = attempts_max - 1
    fails = random.choice((0, 0, 0, random.randint(0, spare)))
    repairs = random.choice((0, 0, 0, random.randint(0, spare - fails)))
    script = Script(
        duration_ms=random.choice((0, 1, 5, 20, 60, 200, 600)),
        fails=fails,
        repairs=repairs,
        ending=random.choices(("succeed", "fail", "repair"), (30, 1, 1))[0],
    )
    node = python_node(
        name,
        *depends_on,
        action=random.choice(_ACTIONS),
        effects=random.choices(("none", "external"), (5, 1))[0],
        retry_policy={"max_attempts": attempts_max, "backoff": backoff},
    )
    if node["effects"] == "external" and random.random() < 0.4:
        node["effects_probe"] = ["is-it-done"]
    if random.random() < 0.1:
        # Some failures are attempts that take too long.
        node["timeout_ms"] = script.duration_ms + 5_000
    return node, script


_ACTIONS = (
    {"kind": "python", "function": "simulated:body"},
    {"kind": "command", "argv": ["true"]},
    {"kind": "http", "url": "http://127.0.0.1/"},
)


def ending_of(story: Story) -> Ending:
    """Return how a run of this story ends when every gate is approved and nobody interferes."""
    completed: dict[str, JsonValue] = {}
    states: set[str] = set()
    for node in story.automation.flow.nodes:
        if any(name not in completed for name in node.depends_on):
            continue
        script = story.scripts.get(node.node_id)
        if script is None:
            completed[node.node_id] = {}
        elif script.ending == "succeed":
            completed[node.node_id] = output_of(
                node.node_id, {name: completed[name] for name in node.depends_on}
            )
        else:
            states.add(script.ending)
    status = (
        RunState.FAILED
        if "fail" in states
        else RunState.BLOCKED
        if "repair" in states
        else RunState.COMPLETED
    )
    outputs = {name: output for name, output in completed.items() if name in story.scripts}
    return Ending(status=status, outputs=outputs)
