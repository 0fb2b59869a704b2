"""Builders: automations and views that tests tell their stories with."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

import msgspec

from tandem.domain.automation import Automation
from tandem.domain.creation import effective_profile
from tandem.domain.execution import ExecutionProfile
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
from tandem.domain.phases import Phases, is_held
from tandem.domain.run import Run
from tandem.domain.signal import Signal, SignalKind
from tandem.domain.usage import Spending
from tandem.domain.view import RunView
from tandem.domain.wait_definition import (
    Correlation,
    ExternalConditionWait,
    LiteralBinding,
    WebhookWait,
)
from tandem.testing.executor import UNFINISHED, Script, output_of


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


def condition_node(
    node_id: str, *depends_on: str, key: str = "ready", **timeout: Any
) -> dict[str, Any]:
    """Return a node that waits for an external condition, for an hour unless `timeout` says."""
    wait = {
        "kind": "external_condition",
        "condition_key": {"source": "literal", "value": key},
        "timeout": {"expires_after_ms": 3_600_000} | timeout,
    }
    return {"node_id": node_id, "depends_on": list(depends_on), "wait": wait}


def webhook_node(
    node_id: str, *depends_on: str, event_id: str = "e1", **timeout: Any
) -> dict[str, Any]:
    """Return a node that waits for one delivery at the trigger `hook`."""
    wait = {
        "kind": "webhook",
        "trigger_id": "hook",
        "correlation": {
            "field": "provider_event_id",
            "value": {"source": "literal", "value": event_id},
        },
        "timeout": {"expires_after_ms": 3_600_000} | timeout,
    }
    return {"node_id": node_id, "depends_on": list(depends_on), "wait": wait}


def automation(
    *nodes: Mapping[str, Any],
    parallel: int = 4,
    workspace: str = "none",
    concurrency: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    profile: str | None = None,
    limits: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Automation:
    """Return an automation of these nodes; `limits` are budgets, `fields` are others of its own."""
    return Automation.model_validate(
        {
            "automation_id": "simulated",
            "flow": {"nodes": list(nodes)},
            "execution": {
                "max_parallel_agents": parallel,
                "workspace": workspace,
                "profile": profile,
                **(limits or {}),
            },
            "concurrency": concurrency,
            "resources": {"labels": list(labels)},
            **fields,
        }
    )


def fresh_view(
    *nodes: Mapping[str, Any], parallel: int = 4, profile: str | None = None, **fields: Any
) -> RunView:
    """Return a queued run of these nodes."""
    made = automation(*nodes, parallel=parallel, profile=profile, **fields)
    plan = Plan(made, DefinitionDigest("sha256:0"))
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
        effective_execution_profile=_profile_of(made),
        nodes_total=len(plan),
    )
    return RunView(run, plan)


def _profile_of(made: Automation) -> ExecutionProfile:
    return effective_profile(made, None, ExecutionProfile.GUIDED)


CALL: Final = Spending(prompt_tokens=70, completion_tokens=30, cost_usd=0.001, tool_calls=1)
"""What each call of a body costs in simulated worlds with budgets."""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """An automation together with what its bodies do, and where its run works."""

    automation: Automation
    scripts: Mapping[str, Script]
    workspace: str = ""


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
        kind = random.choices(("body", "gate", "timer", "signal"), (8, 1, 1, 1))[0]
        if kind == "gate":
            nodes.append(_random_gate(random, name, depends_on))
        elif kind == "signal":
            nodes.append(_random_signal_wait(random, name, depends_on))
        elif kind == "timer":
            nodes.append(timer_node(name, *depends_on, delay_ms=random.choice((0, 50, 700))))
        else:
            node, scripts[name] = _random_body(random, name, depends_on)
            nodes.append(node)
    parallel = random.choice((1, 2, 4))
    workspace, fields = _random_needs(random)
    fields |= _draw_rules(random, nodes, scripts)
    made = automation(*nodes, parallel=parallel, **fields)
    return Story(automation=made, scripts=scripts, workspace=workspace)


def with_budget(random: Random, story: Story) -> Story:
    """Give a story limits, and bodies that spend; all calls of it ask, or none does."""
    asks = random.random() < 0.8
    call = random.choice((CALL, msgspec.structs.replace(CALL, tool_calls=0)))
    scripts = {
        name: msgspec.structs.replace(
            script, calls=random.choice((0, 1, 2, 5)), call=call, asks=asks
        )
        for name, script in story.scripts.items()
    }
    limits = {
        "max_total_tokens": random.choice((None, 100, 250, 900)),
        "max_total_tool_calls": random.choice((None, 1, 3, 8)),
        "max_total_runtime_ms": random.choice((None, None, 150, 1_000)),
    }
    policy = story.automation.execution
    made = story.automation.model_copy(
        update={"execution": policy.model_copy(update=limits) if policy is not None else None}
    )
    return msgspec.structs.replace(story, automation=made, scripts=scripts)


def _draw_rules(
    random: Random, nodes: list[dict[str, Any]], scripts: dict[str, Script]
) -> dict[str, Any]:
    """Give some of the nodes phases, claims, triage, reviews and modes of failure."""
    for node in nodes:
        builder: dict[str, Any] = {"priority": random.choice((0, 0, 0, 3))}
        if random.random() < 0.15:
            builder |= {"task_kind": "code_change", "write_scope": random.choice(("", "a", "a/b"))}
        node["metadata"] = {"builder": builder}
        script = scripts.get(node["node_id"])
        if script is not None and random.random() < 0.1:
            node["metadata"]["triage_gate"] = True
            says = {"has_work": random.random() < 0.5}
            scripts[node["node_id"]] = msgspec.structs.replace(script, says=says)
        if random.random() < 0.1:
            node["metadata"]["partial_failure_mode"] = "continue_independent"
        if script is not None and random.random() < 0.3:
            lacking = msgspec.structs.replace(scripts[node["node_id"]], unmet=("missing_section",))
            scripts[node["node_id"]] = lacking
    _draw_reviews(random, nodes, scripts)
    return {"profile": random.choice(("strict", "guided", None)), **_draw_phases(random, nodes)}


def _draw_phases(random: Random, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    if random.random() < 0.7:
        return {}
    for number, node in enumerate(nodes):
        if random.random() < 0.8:
            # Nodes only depend on earlier ones, so no barrier waits for what it holds back.
            node["metadata"]["builder"]["phase_id"] = "one" if number < len(nodes) / 2 else "two"
    phases = [
        {"phase_id": name, "execution_mode": random.choice(("barrier", "soft"))}
        for name in ("one", "two")
    ]
    return {"metadata": {"mission": {"phases": phases}}}


def _succeeds(scripts: Mapping[str, Script], node: Mapping[str, Any]) -> bool:
    script = scripts.get(node["node_id"])
    return script is not None and script.ending == "succeed"


def _draw_reviews(random: Random, nodes: list[dict[str, Any]], scripts: dict[str, Script]) -> None:
    """Let some nodes reject what is before them once; what they reject can be done again."""
    by_name = {node["node_id"]: node for node in nodes}
    if any(node.get("effects") == "external" for node in nodes):
        return  # a rejection that meets a body with outside effects blocks: it depends on time
    for node in nodes:
        name, before = node["node_id"], [by_name[other] for other in node["depends_on"]]
        roots = [other for other in before if other["depends_on"]] or before
        if name not in scripts or not roots or not all(_succeeds(scripts, r) for r in roots):
            continue
        if scripts[name].says or random.random() < 0.8:
            continue
        node["stage_kind"] = "review"
        says = {"approved": True}
        scripts[name] = msgspec.structs.replace(scripts[name], says=says, rejects=1)
        for root in roots:
            root["retry_policy"]["max_attempts"] += 1


def _random_needs(random: Random) -> tuple[str, dict[str, Any]]:
    """Return a workspace, empty for none, and what a run needs to be admitted."""
    fields: dict[str, Any] = {}
    workspace = random.choice(("", "", "/w", "/w", "/w/sub", "/other"))
    fields["workspace"] = random.choice(("exclusive", "exclusive", "exclusive", "shared", "none"))
    if random.random() < 0.4:
        fields["concurrency"] = {"key": random.choice("kl"), "limit": random.choice((1, 1, 2))}
    if random.random() < 0.1:
        fields["labels"] = ["first"]
    return workspace, fields


def _random_gate(random: Random, name: str, depends_on: Sequence[str]) -> dict[str, Any]:
    """Return a gate; what time does to it only tells somebody, so that it ends as decided."""
    expiry = random.choice(
        (
            {},
            {"expires_after_ms": 80, "on_expiry": "escalate", "escalate_to": "lead"},
            {"expires_after_ms": 300, "on_expiry": "remind", "remind_every_ms": 120},
            {"expires_after_ms": 864_000_000, "remind_every_ms": 90},
        )
    )
    gate = {"required": True} | ({"expiry_policy": expiry} if expiry else {})
    return gate_node(name, *depends_on, gate=gate)


def _random_signal_wait(random: Random, name: str, depends_on: Sequence[str]) -> dict[str, Any]:
    """Return a wait for something that only this node waits for."""
    subject = f"{name}-{random.getrandbits(40)}"
    timeout = random.choice(
        (
            {"expires_after_ms": 864_000_000},
            {"expires_after_ms": 80, "on_timeout": "escalate", "escalate_to": "lead"},
            {"expires_after_ms": 200, "on_timeout": "remind", "remind_every_ms": 150},
        )
    )
    if random.random() < 0.5:
        return webhook_node(name, *depends_on, event_id=subject, **timeout)
    return condition_node(name, *depends_on, key=subject, **timeout)


def signals_of(story: Story) -> dict[str, Signal]:
    """Return what the waits of a story need, by node; each without its idempotency key."""
    found: dict[str, Signal] = {}
    for node in story.automation.flow.nodes:
        match node.wait:
            case ExternalConditionWait(condition_key=LiteralBinding(value=key)):
                found[node.node_id] = Signal(
                    kind=SignalKind.EXTERNAL_CONDITION, subject=str(key), idempotency_key=""
                )
            case WebhookWait(trigger_id=trigger, correlation=Correlation(value=value)):
                if isinstance(value, LiteralBinding):
                    found[node.node_id] = Signal(
                        kind=SignalKind.WEBHOOK,
                        subject=trigger,
                        idempotency_key="",
                        provider_event_id=str(value.value),
                    )
    return found


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
        retry_after_ms=random.choice((0, 0, 0, 300, 2_000)),
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


SKIPPED: Final[JsonValue] = {
    "status": "skipped",
    "triage_skipped": True,
    "contract_kind": "text_summary",
}


def ending_of(story: Story) -> Ending:
    """Return how a run of this story ends when every gate is approved and nobody interferes."""
    completed: dict[str, JsonValue] = {}
    idle: set[str] = set()
    states: set[str] = set()
    phases = Phases(story.automation)
    left = list(phases.sizes)
    strict = _profile_of(story.automation) is ExecutionProfile.STRICT
    for node, rank in zip(story.automation.flow.nodes, phases.ranks, strict=True):
        held = is_held(rank, phases.limit(left))
        if held or any(name not in completed for name in node.depends_on):
            continue
        script = story.scripts.get(node.node_id)
        if node.depends_on and idle.issuperset(node.depends_on):
            completed[node.node_id] = SKIPPED
            idle.add(node.node_id)
        elif script is None:
            completed[node.node_id] = {}
        elif script.ending == "succeed":
            inputs = {name: completed[name] for name in node.depends_on}
            completed[node.node_id] = output_of(node.node_id, inputs) | script.says
            if script.says.get("has_work") is False:
                idle.add(node.node_id)
        elif script.ending == "repair" and script.unmet and not strict:
            completed[node.node_id] = UNFINISHED
        else:
            states.add(script.ending)
        if rank < len(left) and node.node_id in completed:
            left[rank] -= 1
    status = (
        RunState.FAILED
        if "fail" in states
        else RunState.BLOCKED
        if "repair" in states
        else RunState.COMPLETED
    )
    outputs = {name: output for name, output in completed.items() if name in story.scripts}
    return Ending(status=status, outputs=outputs)
