"""Providers: the parties outside that runs depend on, and that may ask to be left alone.

A provider is `http:<host>` for requests and the name of a model provider for agents. The name is
the same whichever run asks, so that a throttle of one run holds for all of the tenant.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from tandem.domain.action import HttpAction
from tandem.domain.automation import AgentProfile, Automation, Node, NodeKind
from tandem.domain.json import JsonObject
from tandem.domain.template import MissingReference, find_references, resolve


def provider_of_url(url: str) -> str:
    """Return `http:<host>` for a URL, without port and user; empty when it names no host."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return ""
    return f"http:{host.lower()}" if host else ""


def required_providers(
    automation: Automation, nodes: Iterable[Node], inputs: JsonObject
) -> frozenset[str]:
    """Return the providers that these nodes of a run need, as far as they are known beforehand."""
    agents = {agent.agent_id: agent for agent in automation.agents}
    found: set[str] = set()
    for node in nodes:
        if isinstance(node.action, HttpAction):
            found.add(_provider_of_request(node.action, inputs))
        elif node.kind is NodeKind.AGENT and node.agent_id in agents:
            found.update(providers_of_agent(agents[node.agent_id]))
    return frozenset(found - {""})


def _provider_of_request(action: HttpAction, inputs: JsonObject) -> str:
    url = action.url
    for reference in find_references(url):
        if reference.root == "nodes":
            # Only what comes before an output is known; it may name the host nonetheless.
            url = url.partition(reference.text)[0]
            if "/" not in url.partition("://")[2]:
                return ""
            break
    try:
        return provider_of_url(str(resolve(url, inputs=inputs, outputs={})))
    except MissingReference:
        return ""


def providers_of_agent(agent: AgentProfile) -> frozenset[str]:
    """Return the providers in the model policy of an agent, in lower case.

    A model is an object with `provider_id` (or `providerId`), or a text `provider/model` (W-23).
    """
    policy = agent.model_policy
    if not isinstance(policy, Mapping):
        return frozenset()
    return frozenset(name for model in _models(policy) if (name := _provider_of_model(model)))


def _models(policy: Mapping[str, Any]) -> Iterator[Any]:
    yield policy.get("default_model", policy.get("defaultModel"))
    roles = policy.get("role_models", policy.get("roleModels"))
    if isinstance(roles, Mapping):
        yield from roles.values()


def _provider_of_model(model: Any) -> str:
    if isinstance(model, Mapping):
        model = model.get("provider_id", model.get("providerId"))
        return model.strip().lower() if isinstance(model, str) else ""
    if isinstance(model, str) and "/" in model:
        return model.partition("/")[0].strip().lower()
    return ""
