"""What stands before every route."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from tandem.adapters.http.local_access import LocalAccess
from tandem.adapters.http.service import HttpLimits
from tandem.domain.caller import LOCAL_CALLER, Caller
from tandem.domain.ids import TokenId
from tandem.domain.token import ID_LENGTH, SECRET_BYTES, token_text
from tandem.settings import InvalidSetting, read_settings

from .conftest import GATE, Server, node, open_server, spec


async def test_health_is_told_without_a_token_and_before_the_engine_is_open(
    tmp_path: Path,
) -> None:
    async with open_server(tmp_path, access=LocalAccess("secret"), is_open=False) as server:
        assert await server.get("/global/health") == {"healthy": True, "ready": False}


async def test_row_54_everything_else_waits_until_the_engine_is_open(tmp_path: Path) -> None:
    async with open_server(tmp_path, is_open=False) as server:
        response = await server.ask("GET", "/global/workspace")
    assert response.status_code == 503
    assert response.json()["code"] == "ENGINE_STARTING"
    assert response.json()["retryable"] is True


async def test_a_token_of_the_store_is_not_judged_before_the_store_is_open(tmp_path: Path) -> None:
    stored = token_text(TokenId("0" * ID_LENGTH), bytes(SECRET_BYTES))
    async with open_server(tmp_path, access=LocalAccess("secret"), is_open=False) as server:
        for token, status in (("secret", 503), (stored, 503), ("wrong", 401), ("", 401)):
            headers = {"x-tandem-token": token}
            response = await server.ask("GET", "/global/workspace", headers=headers)
            assert response.status_code == status, token


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


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
async def test_metrics_are_told_to_this_machine(tmp_path: Path, peer: str) -> None:
    async with open_server(tmp_path, peer=peer) as server:
        assert (await server.get("/scheduler/metrics"))["active_runs"] == 0


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "not an address"])
async def test_metrics_are_told_to_no_other_machine(tmp_path: Path, peer: str) -> None:
    async with open_server(tmp_path, peer=peer) as server:
        response = await server.ask("GET", "/scheduler/metrics")
    assert (response.status_code, response.json()["code"]) == (403, "LOOPBACK_ONLY")


class Maria:
    """Everybody is Maria."""

    async def caller_of(self, headers: Mapping[str, str], peer: str) -> Caller:
        return msgspec.structs.replace(LOCAL_CALLER, actor_id="maria", source="api_token")


async def test_whoever_started_a_run_may_not_approve_what_has_consequences(
    tmp_path: Path,
) -> None:
    gated = node(
        "n1",
        gate=GATE,
        retry_policy=None,
        metadata={"approval": {"metadata": {"risk_tier": "external_send"}}},
    )
    async with open_server(tmp_path, access=Maria(), drives=True) as server:
        run_id = await server.done(spec("a", gated))
        path = f"/automations/v2/runs/{run_id}/gate"
        told = await server.post(path, {"decision": "approve"}, status=403)
        assert told["code"] == "AUTOMATION_V2_GATE_SELF_APPROVAL_FORBIDDEN"
        assert (await server.post(path, {"decision": "cancel"}))["ok"] is True


async def test_pages_of_listed_origins_may_ask_and_others_may_change_nothing(
    tmp_path: Path,
) -> None:
    limits = HttpLimits(origins=("http://localhost:3000",))
    asks = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-tandem-token",
    }
    async with open_server(tmp_path, access=LocalAccess("secret"), limits=limits) as server:
        ours = {"origin": "http://localhost:3000", **asks}
        allowed = await server.ask("OPTIONS", "/automations/v2", headers=ours)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "http://localhost:3000"
        theirs = {"origin": "https://evil.example", **asks}
        assert (await server.ask("OPTIONS", "/automations/v2", headers=theirs)).status_code == 400


async def test_every_answer_says_what_browsers_are_to_respect(server: Server) -> None:
    for path in ("/global/health", "/nope", "/automations/v2"):
        headers = (await server.ask("GET", path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"


def test_a_token_comes_from_a_file_that_only_its_owner_may_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    settings = read_settings({"TANDEM_API_TOKEN_FILE": str(file)})
    with pytest.raises(InvalidSetting, match="cannot be read"):
        settings.api_token_text()
    file.write_text("secret\n")
    file.chmod(0o644)
    with pytest.raises(InvalidSetting, match="chmod 600"):
        settings.api_token_text()
    file.chmod(0o600)
    assert settings.api_token_text() == "secret"
    file.write_text("\n")
    with pytest.raises(InvalidSetting, match="is empty"):
        settings.api_token_text()
