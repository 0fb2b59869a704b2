"""Which providers a run needs, as far as it is known before its nodes run (W-23)."""

from typing import Any

import pytest

from tandem.domain.automation import Automation
from tandem.domain.outcome import Failed, FailureClass
from tandem.domain.provider import provider_of_url, providers_of_agent, required_providers
from tandem.testing.builders import python_node
from tandem.testing.tale import Tale


def automation_of(*nodes: dict[str, Any], agents: tuple[dict[str, Any], ...] = ()) -> Automation:
    document = {"automation_id": "a", "agents": list(agents), "flow": {"nodes": list(nodes)}}
    return Automation.model_validate(document)


def request(url: str) -> dict[str, Any]:
    return {"node_id": "ask", "action": {"kind": "http", "url": url}}


def needed(automation: Automation, **inputs: Any) -> set[str]:
    return set(required_providers(automation, automation.nodes, inputs))


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://API.example.com:8443/v1?q=1", "http:api.example.com"),
        ("http://user:word@host/", "http:host"),
        ("/nowhere", ""),
        ("http://[broken/", ""),
    ],
)
def test_provider_of_a_request_is_its_host(url: str, provider: str) -> None:
    assert provider_of_url(url) == provider
    assert needed(automation_of(request(url))) == ({provider} if provider else set())


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://${inputs.host}/x", {"http:a.example"}),
        ("https://b.example/${nodes.first.output.path}", {"http:b.example"}),
        ("https://${inputs.host}/${nodes.first.output}/${inputs.host}", {"http:a.example"}),
        ("https://${nodes.first.output.host}/x", set()),
        ("https://${inputs.missing}/x", set()),
    ],
)
def test_host_is_known_as_far_as_the_inputs_tell_it(url: str, found: set[str]) -> None:
    assert needed(automation_of(request(url)), host="a.example") == found


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        (None, set()),
        ("text", set()),
        ({}, set()),
        ({"default_model": "OpenAI/gpt"}, {"openai"}),
        ({"default_model": "gpt"}, set()),
        ({"default_model": {"provider_id": " Anthropic ", "model_id": "m"}}, {"anthropic"}),
        ({"default_model": {"providerId": "groq"}}, {"groq"}),
        ({"default_model": {"provider_id": 5}}, set()),
        ({"defaultModel": "a/b", "roleModels": {"planner": {"providerId": "c"}}}, {"a", "c"}),
        ({"role_models": {"planner": "x/y", "writer": {"provider_id": "z"}}}, {"x", "z"}),
        ({"role_models": ["x/y"]}, set()),
    ],
)
def test_providers_of_an_agent_are_those_of_its_models(policy: Any, found: set[str]) -> None:
    agent = {"agent_id": "writer", "model_policy": policy}
    automation = automation_of({"node_id": "write", "agent_id": "writer"}, agents=(agent,))

    assert providers_of_agent(automation.agents[0]) == found
    assert needed(automation) == found


def test_agents_that_no_node_asks_for_are_not_needed() -> None:
    agent = {"agent_id": "idle", "model_policy": {"default_model": "openai/gpt"}}

    automation = automation_of({"node_id": "write", "agent_id": "unknown"}, agents=(agent,))
    assert needed(automation) == set()
    automation = automation_of({**python_node("n"), "agent_id": "idle"}, agents=(agent,))
    assert needed(automation) == set()


def fail(tale: Tale, **fields: Any) -> Any:
    failed = Failed(failure_class=FailureClass.PROVIDER_TRANSIENT, message="busy", **fields)
    return tale.settle("n", failed).throttles


def test_answer_that_names_a_time_is_a_throttle_of_its_provider() -> None:
    (throttle,) = fail(Tale(python_node("n")).claim(), provider="http:a", retry_after_ms=5_000)

    assert (throttle.provider, throttle.until_ms) == ("http:a", 6_000)


@pytest.mark.parametrize(
    "fields",
    [
        {"provider": "http:a"},
        {"retry_after_ms": 5_000},
        {"provider": "http:a", "retry_after_ms": 0},
    ],
)
def test_answer_without_time_or_provider_is_no_throttle(fields: dict[str, Any]) -> None:
    assert fail(Tale(python_node("n")).claim(), **fields) == ()
