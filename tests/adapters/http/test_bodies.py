"""Bodies and queries: what is no JSON, what has the wrong shape, what is too much."""

from pathlib import Path
from typing import Any

import pytest

from tandem.adapters.http.app import make_app
from tandem.adapters.http.service import HttpLimits

from .conftest import Server, open_server, spec

BASE = "/automations/v2"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{}", {}, 415, "CONTENT_TYPE_UNSUPPORTED"),
        (b"{}", {"content-type": "text/plain"}, 415, "CONTENT_TYPE_UNSUPPORTED"),
        (b"{", JSON, 400, "BODY_NOT_JSON"),
        (b"\xff", JSON, 400, "BODY_NOT_JSON"),
        (b'{"name": "\xff"}', JSON, 400, "BODY_NOT_JSON"),
        (b'{"name": "\xed\xa0\x80"}', JSON, 400, "BODY_NOT_JSON"),
        (b'{"name": "\\ud800"}', JSON, 400, "BODY_NOT_JSON"),
        (b"[" * 100_000, JSON, 400, "BODY_NOT_JSON"),
        (b"[]", JSON, 422, "BODY_INVALID"),
        (b"{}", JSON, 422, "BODY_INVALID"),
        (b'{"name":1}', {"content-type": "application/x+json; charset=utf-8"}, 422, "BODY_INVALID"),
    ],
)
async def test_a_body_is_judged_in_the_order_of_the_contract(
    server: Server, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    response = await server.ask("POST", BASE, content=content, headers=headers)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert server.complaints == []


async def test_a_body_is_never_read_where_none_belongs(server: Server) -> None:
    response = await server.ask("GET", BASE, content=b"{", headers=JSON)
    assert response.status_code == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_bound_is_refused(tmp_path: Path, declared: bool) -> None:
    async def pieces() -> Any:
        for _ in range(20):
            yield b" " * 100

    content: Any = b" " * 2_000 if declared else pieces()
    async with open_server(tmp_path, limits=HttpLimits(body_bytes_max=1_024)) as server:
        response = await server.ask("POST", BASE, content=content, headers=JSON)
    assert (response.status_code, response.json()["code"]) == (413, "BODY_TOO_LARGE")
    assert response.headers["connection"] == "close"


async def test_who_leaves_in_the_middle_of_a_body_is_no_mistake_of_ours(server: Server) -> None:
    request = {
        "type": "http",
        "method": "POST",
        "path": BASE,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
    }
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message)

    await make_app(server.site)(request, receive, send)
    assert said[0]["status"] == 400
    assert server.complaints == []


async def test_every_wrong_place_is_told(server: Server) -> None:
    wrong = spec("wrong", {"node_id": 1}, schedule={"type": "sometimes"})
    body = await server.post(BASE, wrong, status=422)
    assert {problem["path"] for problem in body["problems"]} >= {
        "schedule.type",
        "nodes[0].node_id",
    }


async def test_unknown_keys_are_kept_out_and_told(server: Server) -> None:
    body = spec("warned", descriptoin="x")
    body["flow"]["nodes"][0]["objektive"] = "y"
    told = await server.post(BASE, body)
    assert {w["path"]: w["hint"] for w in told["warnings"]} == {
        "flow.nodes[0].objektive": "did you mean `objective`?",
        "descriptoin": "did you mean `description`?",
    }
    assert "objektive" not in told["automation"]["flow"]["nodes"][0]


async def test_unknown_keys_are_refused_when_that_is_asked_for(server: Server) -> None:
    told = await server.post(f"{BASE}?strict=1", spec("strict", descriptoin="x"), status=400)
    assert told["code"] == "UNKNOWN_KEYS"
    assert (await server.ask("GET", f"{BASE}/strict")).status_code == 404


async def test_keys_may_be_written_in_camel_case_and_ours_wins(server: Server) -> None:
    await server.post(BASE, spec("camel"))
    told = await server.post(f"{BASE}/camel/run_now", {"dryRun": True})
    assert told["dry_run"] is True
    told = await server.post(f"{BASE}/camel/run_now", {"dryRun": False, "dry_run": True})
    assert told["dry_run"] is True


@pytest.mark.parametrize(
    ("query", "status"),
    [("limit=x", 400), ("status=asleep", 400), ("cursor=??", 400), ("created_from_ms=1.5", 400)],
)
async def test_a_wrong_parameter_of_the_query_is_told(
    server: Server, query: str, status: int
) -> None:
    response = await server.ask("GET", f"{BASE}/runs?{query}")
    assert response.status_code == status


@pytest.mark.parametrize("number", ["9" * 19, "-" + "9" * 19, "9" * 20, "1" * 5_000, "\u0661"])
async def test_no_number_is_too_large_for_an_answer(server: Server, number: str) -> None:
    await server.post(BASE, spec("numbers"))
    asked = [
        *(f"{BASE}/runs?{name}={number}" for name in ("limit", "created_from_ms")),
        f"{BASE}/numbers/runs?created_until_ms={number}",
        f"{BASE}/numbers/versions/{number}",
    ]
    statuses = {(await server.ask("GET", path)).status_code for path in asked}
    bulk = {"action": "pause", "filter": {"created_before_ms": 10**20}, "preview": True}
    found = await server.ask("POST", f"{BASE}/runs/bulk", json={**bulk, "cursor": 10**20})
    assert found.status_code == 422
    assert statuses <= {200, 400, 404}
    assert server.complaints == []
