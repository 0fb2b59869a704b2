"""What stands before every route."""

from pathlib import Path

from tandem.adapters.http.local_access import LocalAccess
from tandem.adapters.http.service import HttpLimits

from .conftest import Server, open_server


async def test_health_is_told_without_a_token_and_before_the_engine_is_open(
    tmp_path: Path,
) -> None:
    async with open_server(tmp_path, access=LocalAccess("secret"), is_open=False) as server:
        assert await server.get("/global/health") == {"healthy": True, "ready": False}


async def test_everything_else_waits_until_the_engine_is_open(tmp_path: Path) -> None:
    async with open_server(tmp_path, is_open=False) as server:
        response = await server.ask("GET", "/global/workspace")
    assert response.status_code == 503
    assert response.json()["code"] == "ENGINE_STARTING"
    assert response.json()["retryable"] is True


async def test_a_wrong_token_is_refused_and_the_first_header_counts(tmp_path: Path) -> None:
    right = {"x-agent-token": "secret", "authorization": "Bearer wrong"}
    wrong = {"x-agent-token": "wrong", "authorization": "Bearer secret"}
    async with open_server(tmp_path, access=LocalAccess("secret")) as server:
        assert (await server.ask("GET", "/global/workspace", headers=right)).status_code == 200
        response = await server.ask("GET", "/global/workspace", headers=wrong)
    assert response.status_code == 401
    assert response.json()["code"] == "AUTH_REQUIRED"
    assert response.json()["retryable"] is False


async def test_a_token_is_ignored_where_none_is_configured(server: Server) -> None:
    headers = {"authorization": "Bearer whatever"}
    assert (await server.ask("GET", "/global/workspace", headers=headers)).status_code == 200


async def test_a_name_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    limits = HttpLimits(hosts=frozenset({"127.0.0.1", "::1"}))
    async with open_server(tmp_path, limits=limits) as server:
        for host, status in (
            ("127.0.0.1:39731", 200),
            ("[::1]:39731", 200),
            ("rebound.example", 403),
        ):
            response = await server.ask("GET", "/global/workspace", headers={"host": host})
            assert response.status_code == status, host


async def test_an_unknown_path_has_no_body_and_a_wrong_method_says_which_are_right(
    server: Server,
) -> None:
    missing = await server.ask("GET", "/nope")
    assert (missing.status_code, missing.content) == (404, b"")
    wrong = await server.ask("POST", "/global/workspace")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")


async def test_the_compatible_base_path_closes_its_connections(server: Server) -> None:
    response = await server.ask("GET", "/compat/0.7/global/workspace")
    assert (response.status_code, response.headers["connection"]) == (200, "close")
