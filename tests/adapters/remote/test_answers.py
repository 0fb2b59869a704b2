"""What servers answer becomes the errors that the store here would have raised."""

import json
from pathlib import Path

import pytest

from tandem.adapters.cli.exits import code_of_error
from tandem.adapters.http.errors import KINDS
from tandem.adapters.remote.address import is_loopback, normal_url
from tandem.adapters.remote.answers import error_of
from tandem.adapters.remote.logins import Logins
from tandem.domain.errors import InvalidAutomation, InvalidRequest, Refused

WRONG = (400, 405, 408, 413, 415, 416, 422, 431)
EXITS = {**dict.fromkeys(WRONG, 2), 401: 5, 403: 5, 404: 4, 409: 5, 429: 5}


def error(status: int, code: str, **more: object) -> Exception:
    content = json.dumps({"error": "what", "code": code, "hint": "do", **more}).encode()
    return error_of(status, content, url="http://s", asked="GET /x")


@pytest.mark.parametrize("code", sorted(KINDS))
def test_every_code_of_the_server_has_an_exit_code(code: str) -> None:
    kind = KINDS[code]
    refusals = ("AUTOMATION_V2_GATE_INVALID_DECISION", "AUTOMATION_V2_REPAIR_PERSIST_FAILED")
    expected = 5 if code in refusals else EXITS.get(kind.status, 6)
    found = error(kind.status, code)
    assert code_of_error(found) == expected
    assert "what" in str(found)


def test_every_problem_is_kept() -> None:
    problems = [{"code": "a", "path": "x", "message": "m", "hint": "h"}, {"code": "b"}, None]
    found = error(400, "INVALID_AUTOMATION", problems=problems)
    assert isinstance(found, InvalidAutomation)
    assert [problem.code for problem in found.problems] == ["a", "b", ""]
    assert "x: m (h) [a]" in str(found)


def test_facts_beside_the_message_are_kept() -> None:
    found = error(409, "AUTOMATION_V2_RUN_NOT_AWAITING_APPROVAL", winningDecision={"decision": "x"})
    assert isinstance(found, Refused)
    assert found.details == {"winningDecision": {"decision": "x"}}


@pytest.mark.parametrize(("status", "code"), [(404, 5), (405, 5), (301, 5), (418, 5), (502, 6)])
def test_answers_of_somebody_else_are_told_apart(status: int, code: int) -> None:
    found = error_of(status, b"<html>", url="http://s", asked="GET /x")
    assert code_of_error(found) == code
    assert "http://s" in str(found)


def test_urls_are_kept_in_one_form() -> None:
    assert normal_url(" HTTP://LocalHost:80/ ") == "http://localhost"
    assert normal_url("https://a.b:443/x/y/") == "https://a.b/x/y"
    assert normal_url("http://[::1]:39731") == "http://[::1]:39731"
    for wrong in ("", "a.b", "http://a:b", "http://a/?x", "http://a/#x", "http://u@a"):
        with pytest.raises(InvalidRequest):
            normal_url(wrong)


def test_only_this_machine_is_loopback() -> None:
    assert is_loopback("http://127.9.9.9:1")
    assert is_loopback("http://[::1]")
    assert is_loopback("http://localhost:1")
    assert not is_loopback("http://localhost.example.org")
    assert not is_loopback("http://10.0.0.1")


def test_a_folder_that_cannot_be_written_keeps_no_login(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused):
        Logins(tmp_path / "file" / "logins.json").keep("http://a", "t")


def test_logins_of_several_servers_are_kept_beside_each_other(tmp_path: Path) -> None:
    logins = Logins(tmp_path / "login" / "logins.json")
    logins.keep("http://a", "1")
    logins.keep("http://b", "2")
    logins.keep("http://a", "3")
    assert (logins.find("http://a"), logins.find("http://b"), logins.find("http://c")) == (
        "3",
        "2",
        "",
    )
    assert logins.forget("http://a") == ["http://a"]
    assert logins.forget(None) == ["http://b"]
