"""`tandem tokens`: made once, shown once, listed without their texts, revoked for good."""

import re
from pathlib import Path

import apsw

from tandem.adapters.cli import exits
from tandem.domain.token import read_token_id
from tests.adapters.cli.conftest import Call


def test_a_token_is_shown_once_and_kept_nowhere(call: Call, state_dir: Path) -> None:
    made = call("tokens", "create", "--name", "ci", "--scope", "operator", "--expires-in", "90d")

    assert made.code == exits.COMPLETED
    (text,) = made.out.split()
    token_id = read_token_id(text)
    assert token_id is not None
    assert "only time that it is shown" in made.err
    assert f"token {token_id} (`ci`) for local/local: operator, until " in made.err
    listed = call("tokens", "list")
    assert token_id in listed.out
    assert "active" in listed.out
    assert text not in listed.out + listed.err
    secret = text.encode()
    assert [
        path for path in state_dir.rglob("*") if path.is_file() and secret in path.read_bytes()
    ] == []


def test_a_program_reads_the_secret_and_what_belongs_to_it(call: Call) -> None:
    made = call(
        *("tokens", "create", "--name", "panel", "--scope", "viewer", "--scope", "approver"),
        *("--tenant", "acme/web/eu", "--actor", "ada", "--kind", "agent", "--json"),
    )
    token = made.json["token"]
    assert read_token_id(made.json["secret"]) == token["token_id"]
    assert token["scopes"] == ["approver", "viewer"]
    assert (token["tenant"], token["actor_id"], token["kind"]) == ("acme/web/eu", "ada", "agent")
    assert token["expires_at_ms"] is None
    assert token["created_by"]
    (listed,) = call("tokens", "list", "--json").json
    assert listed["state"] == "active"
    assert "digest" not in listed
    assert call("tokens", "list", "--tenant", "acme/web", "--json").json == []
    assert len(call("tokens", "list", "--tenant", "acme/web/eu", "--json").json) == 1


def test_a_token_is_revoked_once(call: Call) -> None:
    made = call("tokens", "create", "--name", "ci", "--scope", "admin", "--json")
    token_id = made.json["token"]["token_id"]

    revoked = call("tokens", "revoke", token_id)
    assert "is revoked" in revoked.out
    assert call("tokens", "list", "--json").json[0]["state"] == "revoked"
    assert call("tokens", "revoke", token_id).code == exits.REFUSED
    assert call("tokens", "revoke", "nothing").code == exits.NOT_FOUND
    other = call("tokens", "create", "--name", "x", "--scope", "admin", "--json")
    again = call("tokens", "revoke", other.json["token"]["token_id"], "--json")
    assert again.json["token"]["revoked_by"]


def test_what_cannot_be_is_said_in_words(call: Call) -> None:
    assert "there is no token" in call("tokens", "list").err
    base = ("tokens", "create", "--name", "ci", "--scope", "admin")
    for more, says in (
        (("--expires-in", "soon"), "is not a duration"),
        (("--expires-in", "0s"), "valid for some time"),
        (("--tenant", "acme"), "org/workspace"),
        (("--tenant", "a/b/c/d"), "org/workspace"),
        (("--tenant", "a/"), "org/workspace"),
        (("--scope", "everything"), "everything"),
    ):
        answer = call(*base, *more)
        assert answer.code == exits.USAGE
        assert re.search(says, answer.err), answer.err


def test_the_audit_tells_what_was_done_to_tokens_and_shows_changes(
    call: Call, state_dir: Path
) -> None:
    made = call("tokens", "create", "--name", "ci", "--scope", "admin", "--json")
    call("tokens", "revoke", made.json["token"]["token_id"])

    told = call("db", "audit").out.splitlines()
    assert [line.split()[3] for line in told] == ["token_created", "token_revoked"]
    (record,) = call("db", "audit", "--after", "1", "--json").lines
    assert record["entry"]["event"] == "token_revoked"
    assert call("db", "check").code == exits.COMPLETED

    connection = apsw.Connection(str(state_dir / "tandem.db"))
    connection.execute("UPDATE audit SET actor = 'nobody' WHERE audit_no = 1")
    connection.close()
    checked = call("db", "check")
    assert checked.code == exits.STORE
    assert "audit record 1 does not fit its hash" in checked.out
