"""What is allowed and yet worth a warning."""

from typing import Any

import pytest

from tandem.domain.automation import Automation
from tandem.domain.doubts import find_doubts
from tandem.domain.errors import Problem


def doubts_of(policy: dict[str, Any] | None) -> list[Problem]:
    node = {"node_id": "b", "action": {"kind": "command", "argv": ["x"]}, "retry_policy": policy}
    first = {"node_id": "a", "action": {"kind": "command", "argv": ["x"]}}
    document = {"automation_id": "a", "flow": {"nodes": [first, node]}}
    return list(find_doubts(Automation.model_validate(document)))


@pytest.mark.parametrize(
    ("policy", "names"),
    [
        ({"backoff": {"initial_delay_ms": 5}}, "`initial_delay_ms`"),
        ({"backoff": {"delay_ms": "5s", "jitterMs": 7}}, "`initial_delay_ms`, `jitter_ms`"),
        ({"backoff": {"max_delay_ms": 5, "multiplier": 3}}, "`max_delay_ms`, `multiplier`"),
        ({"delay_ms": "5s"}, "`initial_delay_ms`"),
    ],
)
def test_delays_without_a_strategy_have_no_effect(policy: dict[str, Any], names: str) -> None:
    (doubt,) = doubts_of(policy)
    assert (doubt.code, doubt.path, doubt.node_id) == (
        "backoff_without_strategy",
        "nodes[1].retry_policy.backoff",
        "b",
    )
    assert doubt.message == f"no delay follows from {names} without a `strategy`"
    assert "`strategy: exponential`" in doubt.hint


@pytest.mark.parametrize(
    "policy",
    [
        None,
        {"max_attempts": 2},
        {"backoff": {}},
        {"backoff": {"initial_delay_ms": 0}},
        {"backoff": {"strategy": "none", "initial_delay_ms": 5}},
        {"backoff": {"strategy": "fixed", "initial_delay_ms": 5}},
        {"strategy": "exponential", "delay_ms": 5},
    ],
)
def test_what_was_said_clearly_is_not_doubted(policy: dict[str, Any] | None) -> None:
    assert doubts_of(policy) == []


def told(**node: Any) -> list[tuple[str, str]]:
    action = {"kind": "http", "url": "http://127.0.0.1/", "method": "GET"}
    document = {
        "automation_id": "a",
        "flow": {"nodes": [{"node_id": "n", "action": action, **node}]},
    }
    found = find_doubts(Automation.model_validate(document))
    return [(doubt.code, doubt.path) for doubt in found]


def test_calls_of_tools_are_no_limit_of_a_request() -> None:
    assert told(max_tool_calls=3) == [("max_tool_calls_without_effect", "nodes[0].max_tool_calls")]
    assert told(max_tool_calls=3, action={"kind": "command", "argv": ["true"]}) == []


def test_dead_letter_is_for_what_can_be_sent_out_again() -> None:
    letter = {"terminal_behavior": {"mode": "dead_letter"}}
    path = "nodes[0].retry_policy.terminal_behavior"
    assert told(retry_policy=letter) == [("dead_letter_without_effect", f"{path}.mode")]
    assert told(retry_policy=letter, effects="external") == []
    named = {"terminal_behavior": {"mode": "fail_run", "dead_letter": {"queue": "q"}}}
    assert told(retry_policy=named) == [("dead_letter_without_effect", f"{path}.dead_letter")]
    assert told(retry_policy={"terminal_behavior": {"mode": "pause_for_review"}}) == []


def test_manual_override_has_no_effect() -> None:
    assert told(retry_policy={"manual_override": {"enabled": True}}) == [
        ("manual_override_without_effect", "nodes[0].retry_policy.manual_override")
    ]
