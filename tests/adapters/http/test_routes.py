"""The table of routes: who may ask what, and what the documents say of it."""

import re
from pathlib import Path

import pytest

from tandem.adapters.http.app import CONTEXT, endpoints
from tandem.adapters.http.call import Endpoint
from tandem.adapters.http.errors import KINDS
from tandem.adapters.http.openapi import codes_of
from tandem.adapters.http.policy import POLICY, Open
from tandem.domain.caller import LOCAL_CALLER, Caller, Scope

from .conftest import Server, open_server

ALL = endpoints()
IDS = [endpoint.name for endpoint in ALL]


def test_every_route_says_who_may_ask_and_nothing_else_is_listed() -> None:
    assert sorted(IDS) == sorted(POLICY)


def test_only_routes_that_are_meant_to_be_open_are() -> None:
    assert {name for name, needed in POLICY.items() if isinstance(needed, Open)} == {
        "GET /global/health",
        "POST /webhooks/automations/{token}",
        "POST /webhooks/automations/{token}/{nonce}",
        "GET /healthz",
        "GET /readyz",
    }


def test_nothing_that_changes_is_for_those_who_only_look() -> None:
    changing = [endpoint.name for endpoint in ALL if endpoint.method != "GET"]
    assert [name for name in changing if POLICY[name] is Scope.VIEWER] == []


@pytest.mark.parametrize("endpoint", ALL, ids=IDS)
def test_every_route_is_described(endpoint: Endpoint) -> None:
    assert endpoint.says.endswith(".")
    assert endpoint.answers
    assert set(codes_of(endpoint)) <= set(KINDS)
    names = set(re.findall(r"{(\w+)}", endpoint.path))
    assert names <= {*CONTEXT, "version", "digest", "handoff_id", "token", "nonce"}


async def test_the_openapi_document_has_every_route(server: Server) -> None:
    document = await server.get("/openapi.json")
    told = {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert told == set(IDS)
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)


class Nobody:
    """Lets everybody in as somebody without any scope."""

    async def caller_of(self, headers: object, peer: str) -> Caller:
        return Caller(tenant=LOCAL_CALLER.tenant, kind=LOCAL_CALLER.kind, scopes=frozenset())


async def test_whoever_has_no_scope_gets_nowhere(tmp_path: Path) -> None:
    async with open_server(tmp_path, access=Nobody()) as server:
        for endpoint in ALL:
            path = re.sub(r"{\w+}", "x", endpoint.path)
            # Who comes through a proxy is not from this machine, which needs no token for metrics.
            response = await server.ask(endpoint.method, path, json={}, headers={"via": "1.1 p"})
            if isinstance(POLICY[endpoint.name], Open):
                # What is judged by its own signature believes nobody without one.
                is_ingress = POLICY[endpoint.name] is Open.INGRESS
                allowed = (401,) if is_ingress else (200, 503)
                assert response.status_code in allowed, endpoint.name
            else:
                assert response.status_code == 403, endpoint.name
                assert response.json()["code"] == "SCOPE_DENIED"
                assert response.json()["scope"] == POLICY[endpoint.name]


async def test_a_route_without_a_policy_is_refused_to_everybody(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(POLICY, "GET /global/workspace")  # type: ignore[arg-type]
    assert (await server.ask("GET", "/global/workspace")).status_code == 403


async def test_fixed_words_come_before_names(server: Server) -> None:
    assert "runs" in await server.get("/automations/v2/runs")
    assert "waits" in await server.get("/automations/v2/waits")
