"""The models: defaults, derived properties and the canonical form."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tandem.domain.automation import Automation, canonical_document, parse_document
from tandem.domain.execution import WorkspaceUse
from tandem.domain.gate_definition import Gate, TimeoutAction
from tandem.domain.json import decode, digest
from tandem.domain.node import Effects, ExecutorKind, Node, NodeKind, Resources
from tandem.domain.output_contract import OutputContract
from tandem.domain.retry_policy import RetryPolicy
from tandem.domain.wait_definition import ApprovalWait, WaitTimeout

TIMEOUT = {"expires_after_ms": 1000}


def node(**fields: Any) -> Node:
    return Node.model_validate({"node_id": "n", **fields})


def automation(*nodes: Node, **fields: Any) -> Automation:
    return Automation.model_validate(
        {"automation_id": "a", "flow": {"nodes": list(nodes) or [node()]}, **fields}
    )


def command(**fields: Any) -> dict[str, Any]:
    return {"kind": "command", "argv": ["true"], **fields}


# Defaults


def test_smallest_automation_has_friendly_defaults() -> None:
    made = automation()
    assert made.name == "a"
    assert made.status == "active"
    assert made.schedule.type == "manual"
    assert made.schedule.timezone == "UTC"
    assert made.schedule.misfire_policy.type == "skip"
    assert made.parallel_max == 16
    assert made.agents == ()
    assert made.nodes == made.flow.nodes


def test_agent_without_a_display_name_shows_its_id() -> None:
    made = automation(agents=[{"agent_id": "w"}, {"agent_id": "x", "display_name": "X"}])
    assert [agent.display_name for agent in made.agents] == ["w", "X"]


def test_models_are_frozen_and_refuse_unknown_keys() -> None:
    with pytest.raises(ValidationError):
        node(nod_id="x")
    with pytest.raises(ValidationError):
        node().objective = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wanted", "got"), [(None, 16), (0, 1), (-3, 1), (1, 1), (999, 999), (5000, 1000)]
)
def test_parallelism_is_clamped(wanted: int | None, got: int) -> None:
    assert automation(execution={"max_parallel_agents": wanted}).parallel_max == got


@pytest.mark.parametrize(
    ("contract", "kind"),
    [
        ({}, "generic_artifact"),
        ({"schema": {"type": "object"}}, "structured_json"),
        ({"schema": {"type": "object"}, "kind": "brief"}, "brief"),
        ({"required_files": ["x"]}, "generic_artifact"),
    ],
)
def test_contract_kind_follows_the_schema(contract: dict[str, Any], kind: str) -> None:
    assert OutputContract.model_validate(contract).kind == kind


def test_required_sections_of_both_places_are_merged() -> None:
    contract = OutputContract.model_validate(
        {"required_sections": ["a", "b"], "enforcement": {"required_sections": ["b", "c"]}}
    )
    assert contract.sections == ("a", "b", "c")
    assert OutputContract().sections == ()


def test_mcp_servers_include_those_of_connections() -> None:
    policy = {
        "allowed_servers": ["b"],
        "allowed_connections": [
            {"server": "a", "run_as": {"type": "service_principal", "principal_id": "p"}},
            {"server": "b"},
        ],
    }
    assert node(mcp_policy=policy).mcp_policy.servers == ("a", "b")  # type: ignore[union-attr]


# Durations


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        (1500, 1500),
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
        ("1.5s", 1_500),
        ("1h30m", 5_400_000),
        (" 2s ", 2_000),
        ("0.1s", 100),
    ],
)
def test_durations_are_milliseconds_or_text_with_a_unit(written: object, ms: int) -> None:
    assert node(timeout_ms=written).timeout_ms == ms


@pytest.mark.parametrize(
    "written",
    ["5", "5 m", "m", "", "-1s", "1w", "1e3s", "5minutes", True, 1.5, 0, -1, "0s", [], 2**60],
)
def test_bad_durations_are_refused(written: object) -> None:
    with pytest.raises(ValidationError):
        node(timeout_ms=written)


def test_error_of_a_bad_duration_says_how_to_write_one() -> None:
    with pytest.raises(ValidationError, match=r"`5 minutes` is not a duration: .* 30s, 5m"):
        node(idle_timeout_ms="5 minutes")
    with pytest.raises(ValidationError, match="not a duration"):
        node(wait={"kind": "timer", "delay_ms": 0.5})


# What a node is


@pytest.mark.parametrize(
    ("fields", "kind", "effects"),
    [
        ({}, NodeKind.AGENT, Effects.WORKSPACE),
        ({"action": {"kind": "agent"}}, NodeKind.AGENT, Effects.WORKSPACE),
        ({"action": command()}, NodeKind.COMMAND, Effects.WORKSPACE),
        ({"action": command(), "effects": "none"}, NodeKind.COMMAND, Effects.NONE),
        ({"action": {"kind": "python", "function": "a:b"}}, NodeKind.PYTHON, Effects.NONE),
        ({"action": {"kind": "http", "url": "http://x"}}, NodeKind.HTTP, Effects.NONE),
        (
            {"action": {"kind": "http", "url": "http://x", "method": "HEAD"}},
            NodeKind.HTTP,
            Effects.NONE,
        ),
        (
            {"action": {"kind": "http", "url": "http://x", "method": "POST"}},
            NodeKind.HTTP,
            Effects.EXTERNAL,
        ),
        ({"wait": {"kind": "timer", "delay_ms": 5}}, NodeKind.WAIT, Effects.NONE),
        ({"wait": {"kind": "approval", "decisions": ["ok"]}}, NodeKind.APPROVAL, Effects.NONE),
        ({"gate": {"required": True}}, NodeKind.APPROVAL, Effects.NONE),
        ({"gate": {"required": False}}, NodeKind.AGENT, Effects.WORKSPACE),
        ({"stage_kind": "approval"}, NodeKind.APPROVAL, Effects.NONE),
        ({"stage_kind": "review"}, NodeKind.AGENT, Effects.WORKSPACE),
        ({"metadata": {"approval": {}}}, NodeKind.APPROVAL, Effects.NONE),
        ({"metadata": {"stage_kind": "approval"}}, NodeKind.APPROVAL, Effects.NONE),
        (
            {"metadata": {"builder": {"task_kind": "human_decision_gate"}}},
            NodeKind.APPROVAL,
            Effects.NONE,
        ),
        ({"metadata": {"builder": "x"}}, NodeKind.AGENT, Effects.WORKSPACE),
        ({"metadata": "approval"}, NodeKind.AGENT, Effects.WORKSPACE),
    ],
)
def test_kind_and_effects_of_a_node(
    fields: dict[str, Any], kind: NodeKind, effects: Effects
) -> None:
    made = node(**fields)
    assert made.kind is kind
    assert made.is_approval is (kind is NodeKind.APPROVAL)
    assert made.effective_effects is effects


def test_required_gate_is_seen_as_an_approval_wait() -> None:
    gate = {
        "required": True,
        "decisions": ["yes", "no"],
        "expiry_policy": {
            "expires_after_ms": "1h",
            "on_expiry": "escalate",
            "escalate_to": "lead",
            "remind_every_ms": "5m",
        },
    }
    assert node(gate=gate).effective_wait == ApprovalWait(
        decisions=("yes", "no"),
        timeout=WaitTimeout(
            expires_after_ms=3_600_000,
            on_timeout=TimeoutAction.ESCALATE,
            escalate_to="lead",
            remind_every_ms=300_000,
        ),
    )


def test_gate_has_a_timeout_only_when_it_expires_and_cancels_by_default() -> None:
    quiet = node(gate={"required": True, "expiry_policy": {"remind_every_ms": 5}}).effective_wait
    assert quiet == ApprovalWait()
    expiring = node(
        gate={"required": True, "expiry_policy": {"expires_after_ms": 5}}
    ).effective_wait
    assert isinstance(expiring, ApprovalWait)
    assert expiring.timeout == WaitTimeout(expires_after_ms=5, on_timeout=TimeoutAction.CANCEL)


def test_wait_of_a_node_is_its_own_or_none() -> None:
    timer = node(wait={"kind": "timer", "delay_ms": 5})
    assert timer.effective_wait is timer.wait
    assert node(gate={"required": False}).effective_wait is None
    assert node().effective_wait is None


def test_gate_details_come_from_the_approval_wait_first() -> None:
    wait = {
        "kind": "approval",
        "decisions": ["ship"],
        "timeout": {**TIMEOUT, "on_timeout": "remind", "remind_every_ms": 7},
    }
    gate = node(wait=wait, objective="Look", gate={"decisions": ["other"]}).effective_gate
    assert gate is not None
    assert gate.required
    assert gate.decisions == ("ship",)
    assert gate.instructions == "Look"
    assert gate.expiry_policy is not None
    assert gate.expiry_policy.on_expiry is TimeoutAction.REMIND
    assert gate.expiry_policy.remind_every_ms == 7


def test_expiry_of_an_approval_wait_cancels() -> None:
    gate = node(wait={"kind": "approval", "decisions": ["a"], "expires_after_ms": 9}).effective_gate
    assert gate is not None
    assert gate.expiry_policy is not None
    assert gate.expiry_policy.expires_after_ms == 9
    assert gate.expiry_policy.on_expiry is TimeoutAction.CANCEL
    endless = node(wait={"kind": "approval", "decisions": ["a"]}).effective_gate
    assert endless is not None
    assert endless.expiry_policy is None


def test_gate_without_decisions_offers_the_three_of_the_contract() -> None:
    gate = node(gate={"required": True, "instructions": "Read", "rework_targets": ["m"]})
    assert gate.effective_gate == Gate(
        required=True,
        decisions=("approve", "rework", "cancel"),
        instructions="Read",
        rework_targets=("m",),
    )


def test_gate_details_come_from_the_metadata_last() -> None:
    approval = {
        "allowed_decisions": ["Go", 3],
        "rework_targets": ["m"],
        "instructions": "Think",
        "gate_expiry_policy": {"expires_after_ms": 5},
    }
    gate = node(metadata={"approval": approval}).effective_gate
    assert gate is not None
    assert gate.decisions == ("Go",)
    assert gate.rework_targets == ("m",)
    assert gate.instructions == "Think"
    assert gate.expiry_policy is not None
    plain = node(stage_kind="approval", objective="Decide").effective_gate
    assert plain == Gate(required=True, decisions=("Approve", "Reject"), instructions="Decide")


def test_other_nodes_have_no_gate() -> None:
    assert node(gate={"required": False}).effective_gate is None


# Attempts


@pytest.mark.parametrize(
    ("fields", "attempts"),
    [
        ({}, 3),
        ({"retry_policy": {}}, 3),
        ({"retry_policy": {"max_attempts": 0}}, 1),
        ({"retry_policy": {"max_attempts": 7}}, 7),
        ({"retry_policy": {"max_attempts": 50}}, 10),
        ({"action": command(), "effects": "external"}, 1),
        ({"effects": "external", "retry_policy": {"max_attempts": 2}}, 2),
        ({"effects": "external", "retry_policy": {"retry_on": ["*"]}}, 1),
        ({"action": {"kind": "http", "url": "http://x", "method": "PUT"}}, 1),
        ({"output_contract": {"kind": "brief"}}, 5),
        ({"output_contract": {"kind": "brief", "validator": "structured_json"}}, 3),
        ({"output_contract": {"validator": "research_brief"}}, 5),
        ({"output_contract": {"enforcement": {"required_tools": ["read"]}}}, 5),
        ({"output_contract": {"enforcement": {}}}, 3),
        ({"output_contract": {"kind": "brief"}, "action": command()}, 3),
    ],
)
def test_attempts_of_a_node(fields: dict[str, Any], attempts: int) -> None:
    assert node(**fields).max_attempts == attempts


@pytest.mark.parametrize(
    ("budget", "attempts", "repairs"),
    [(None, 3, 2), (None, 10, 5), (1, 3, 1), (0, 3, 0), (9, 4, 3), (2, 1, 0)],
)
def test_repair_budget_leaves_the_first_attempt(
    budget: int | None, attempts: int, repairs: int
) -> None:
    enforcement = {} if budget is None else {"repair_budget": budget}
    made = node(
        output_contract={"enforcement": enforcement}, retry_policy={"max_attempts": attempts}
    )
    assert made.repair_budget == repairs


def test_node_without_contract_has_the_default_repair_budget() -> None:
    assert node().repair_budget == 2


# Retry policies


@pytest.mark.parametrize(
    "key",
    ["retryable_failure_classes", "retryableFailureClasses", "retry_on", "retryOn"],
)
def test_failure_classes_have_four_names_and_one_spelling(key: str) -> None:
    policy = RetryPolicy.model_validate({key: [" Timed-Out", "A b", "*"]})
    assert policy.retryable_failure_classes == ("timed_out", "a_b", "*")


def test_backoff_may_be_inline_and_in_camel_case() -> None:
    policy = RetryPolicy.model_validate(
        {
            "maxAttempts": 4,
            "strategy": "exponential",
            "delay_ms": "2s",
            "maxDelayMs": 9000,
            "multiplier": 3,
            "jitterMs": 5,
            "maxElapsedMs": "1h",
            "terminalBehavior": {"mode": "pause_for_review"},
            "manualOverride": {"enabled": True},
        }
    )
    nested = RetryPolicy.model_validate(
        {
            "max_attempts": 4,
            "backoff": {
                "strategy": "exponential",
                "initialDelayMs": 2000,
                "max_delay_ms": 9000,
                "multiplier": 3.0,
                "jitter_ms": 5,
            },
            "max_elapsed_ms": 3_600_000,
            "terminal_behavior": {"mode": "pause_for_review"},
            "manual_override": {"enabled": True, "requires_reason": True},
        }
    )
    assert policy == nested
    assert policy.backoff.initial_delay_ms == 2000


def test_defaults_of_a_retry_policy() -> None:
    policy = RetryPolicy()
    assert policy.version == 1
    assert policy.max_attempts is None
    assert policy.retryable_failure_classes is None
    assert policy.backoff.strategy == "none"
    assert policy.backoff.multiplier == 2.0
    assert RetryPolicy.model_validate(policy) is policy


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"max_attempts": 1, "maxAttempts": 2}, "`max_attempts` is given twice"),
        ({"backoff": {"delay_ms": 1, "initial_delay_ms": 2}}, "`initial_delay_ms` is given twice"),
        ({"strategy": "fixed", "backoff": {}}, "`strategy` belongs inside `backoff`"),
        ({"retry_on": "x"}, "valid tuple"),
        ({"retry_on": [3]}, "valid string"),
        ({"backoff": 3}, "valid dictionary"),
        ({3: 4}, "Keys should be strings"),
        ("x", "valid dictionary"),
    ],
)
def test_contradicting_retry_policies_are_refused(policy: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RetryPolicy.model_validate(policy)


# The automation as a whole


@pytest.mark.parametrize(
    ("nodes", "use"),
    [
        ([node()], WorkspaceUse.EXCLUSIVE),
        ([node(action=command())], WorkspaceUse.EXCLUSIVE),
        ([node(action=command(), effects="none")], WorkspaceUse.EXCLUSIVE),
        ([node(action={"kind": "python", "function": "a:b"})], WorkspaceUse.NONE),
        (
            [node(action={"kind": "python", "function": "a:b"}, effects="workspace")],
            WorkspaceUse.EXCLUSIVE,
        ),
        (
            [node(gate={"required": True}), node(wait={"kind": "timer", "delay_ms": 1})],
            WorkspaceUse.NONE,
        ),
        ([node(action={"kind": "http", "url": "http://x", "method": "PUT"})], WorkspaceUse.NONE),
    ],
)
def test_workspace_is_held_when_a_node_may_write(nodes: list[Node], use: WorkspaceUse) -> None:
    assert automation(*nodes).workspace_use is use
    assert automation(*nodes, execution={"profile": "strict"}).workspace_use is use
    assert (
        automation(*nodes, execution={"workspace": "shared"}).workspace_use is WorkspaceUse.SHARED
    )


def test_nodes_inherit_executor_and_resources() -> None:
    plain, own = node(), node(executor="ray", resources={"gpus": 1})
    made = automation(plain, own, resources={"labels": ["big"]})
    assert made.executor_of(plain) is ExecutorKind.LOCAL
    assert made.executor_of(own) is ExecutorKind.RAY
    assert made.resources_of(plain) == Resources(labels=("big",))
    assert made.resources_of(own) == Resources(gpus=1)
    assert automation().resources_of(plain) == Resources()


@pytest.mark.parametrize("items", [3, None, {"a": 1}, True])
def test_items_of_for_each_are_a_list_or_a_reference(items: object) -> None:
    with pytest.raises(ValidationError, match="must be a list or a reference"):
        node(for_each={"items": items})
    assert node(for_each={"items": [1]}).for_each is not None
    assert node(for_each={"items": "${inputs.x}", "max_items": 3}).for_each is not None


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValidationError):
        automation(execution={"max_total_cost_usd": float("nan")})


# The canonical form

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


words = st.text(min_size=1, max_size=8)
spans = st.integers(1, 2**40)
expiries = maybe(expires_after_ms=spans, on_expiry=st.sampled_from(TimeoutAction))
bindings = st.one_of(
    json_values.map(lambda value: {"source": "literal", "value": value}),
    words.map(lambda name: {"source": "node_output", "node_id": name, "json_pointer": "/x"}),
)
timeouts = spans.map(lambda span: {"expires_after_ms": span, "on_timeout": "cancel"})
waits = st.one_of(
    st.builds(lambda s, t: {"kind": "timer", "delay_ms": s, "timeout": t}, spans, timeouts),
    bindings.map(lambda binding: {"kind": "timer", "wake_at": binding}),
    st.lists(words).map(lambda decisions: {"kind": "approval", "decisions": decisions}),
    st.builds(
        lambda b, t: {
            "kind": "webhook",
            "trigger_id": "t",
            "correlation": {"field": "body_digest", "value": b},
            "timeout": t,
        },
        bindings,
        timeouts,
    ),
    st.builds(
        lambda b, t, s: {
            "kind": "external_condition",
            "condition_key": b,
            "timeout": t,
            "payload_schema": s,
        },
        bindings,
        timeouts,
        json_values,
    ),
)
objects = st.dictionaries(words, json_values, max_size=3)
actions = st.one_of(
    st.lists(words).map(lambda argv: {"kind": "command", "argv": argv}),
    objects.map(lambda args: {"kind": "python", "function": "a.b:c", "arguments": args}),
    json_values.map(lambda body: {"kind": "http", "url": "http://x", "json_body": body}),
    st.just({"kind": "agent"}),
)
nodes = st.fixed_dictionaries(
    {"node_id": words},
    optional={
        "objective": st.text(),
        "depends_on": st.lists(words, max_size=3),
        "metadata": json_values,
        "gate": maybe(required=st.booleans(), expiry_policy=expiries, decisions=st.lists(words)),
        "wait": waits,
        "action": actions,
        "output_contract": maybe(schema=json_values, kind=words, required_files=st.lists(words)),
        "retry_policy": maybe(
            retryOn=st.lists(words), strategy=st.just("fixed"), multiplier=st.integers(1, 9)
        ),
        "timeout_ms": spans,
        "sandbox": st.booleans(),
    },
)
documents = st.fixed_dictionaries(
    {"automation_id": words, "flow": st.fixed_dictionaries({"nodes": st.lists(nodes, max_size=3)})},
    optional={
        "name": st.text(),
        "metadata": json_values,
        "inputs": objects,
        "execution": maybe(max_total_cost_usd=st.floats(0, 1e9), max_parallel_agents=spans),
        "created_at_ms": st.integers(0, 2**62),
    },
)


@given(documents)
def test_canonical_document_reads_back_equal_and_stable(document: dict[str, Any]) -> None:
    made = Automation.model_validate(document)
    written = canonical_document(made)
    again = parse_document(written)
    assert again == made
    assert canonical_document(again) == written


def test_documents_that_mean_the_same_have_the_same_digest() -> None:
    short = automation(node(timeout_ms="5s"))
    long = automation(
        Node.model_validate(
            {"timeout_ms": 5000, "depends_on": [], "node_id": "n", "objective": "", "gate": None}
        ),
        status="active",
        name="a",
        schedule={"type": "manual", "timezone": "UTC", "misfire_policy": {"type": "skip"}},
    )
    assert digest(canonical_document(short)) == digest(canonical_document(long))


def test_canonical_document_keeps_nulls_of_free_json_and_no_others() -> None:
    made = automation(
        node(
            metadata={"x": None},
            action={"kind": "python", "function": "a:b", "arguments": {"k": None}},
        )
    )
    document = decode(canonical_document(made))
    assert isinstance(document, dict)
    assert "description" not in document
    (written,) = document["flow"]["nodes"]
    assert written["metadata"] == {"x": None}
    assert written["action"]["arguments"] == {"k": None}
    assert "gate" not in written


def test_canonical_document_uses_the_keys_of_the_contract() -> None:
    written = canonical_document(automation(node(output_contract={"schema": {"type": "object"}})))
    assert b'"schema":{"type":"object"}' in written
    assert b"output_schema" not in written


def test_bytes_that_are_no_document_are_refused() -> None:
    with pytest.raises(ValidationError):
        parse_document(b"{}")
