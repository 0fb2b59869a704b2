"""The text of a token, and what it is worth."""

import hmac
import re

import msgspec
import pytest

from tandem.domain import token as token_module
from tandem.domain.caller import ActorKind, Caller, Scope
from tandem.domain.errors import Forbidden, InvalidRequest
from tandem.domain.ids import TenantId, TokenId
from tandem.domain.token import (
    Token,
    TokenState,
    new_token,
    read_token_id,
    require_no_more,
    token_record,
)

NOW_MS = 1_700_000_000_000
ID = TokenId("0123456789ab")
SECRET = bytes(range(32))


def made(
    *,
    name: str = "ci",
    scopes: frozenset[Scope] = frozenset({Scope.OPERATOR}),
    expires_in_ms: int | None = None,
    actor_id: str = " ada ",
) -> tuple[Token, str]:
    return new_token(
        token_id=ID,
        secret=SECRET,
        tenant=TenantId("acme/web"),
        name=name,
        scopes=scopes,
        actor_id=actor_id,
        created_by="root",
        expires_in_ms=expires_in_ms,
        now_ms=NOW_MS,
    )


def test_a_text_has_a_prefix_an_id_a_secret_of_256_bits_and_a_checksum() -> None:
    _, text = made()
    assert re.fullmatch(r"tdm_0123456789ab_[0-9A-Za-z]{49}", text)
    assert 62**43 > 2**256
    assert read_token_id(text) == ID


@pytest.mark.parametrize(
    "mend",
    [
        lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
        lambda text: text[:20] + ("0" if text[20] != "0" else "1") + text[21:],
        lambda text: text.replace("tdm", "ghp"),
        lambda text: text + " ",
        lambda _text: "",
    ],
)
def test_what_is_no_text_of_a_token_is_known_without_asking_anybody(mend: object) -> None:
    _, text = made()
    assert callable(mend)
    assert read_token_id(mend(text)) is None


def test_of_a_text_only_its_hash_is_kept() -> None:
    kept, text = made()
    assert len(kept.digest) == 32
    assert text not in repr(kept)
    assert kept.is_text(text)
    assert not kept.is_text(text[:-1])


def test_texts_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(token_module, "compare_digest", compare)
    kept, text = made()
    assert kept.is_text(text)
    assert compared == [(kept.digest, kept.digest)]


def test_a_token_ends_at_its_moment_and_when_it_is_revoked() -> None:
    kept, _ = made(expires_in_ms=1_000)
    assert kept.state(NOW_MS + 999) is TokenState.ACTIVE
    assert kept.state(NOW_MS + 1_000) is TokenState.EXPIRED
    for_ever, _ = made()
    assert for_ever.state(2**53) is TokenState.ACTIVE
    gone = Token(
        token_id=ID,
        tenant=kept.tenant,
        name="x",
        digest=b"",
        scopes=kept.scopes,
        created_at_ms=NOW_MS,
        revoked_at_ms=NOW_MS,
    )
    assert gone.state(NOW_MS) is TokenState.REVOKED


def test_its_holder_is_a_person_with_its_name_tenant_and_scopes() -> None:
    caller = made()[0].caller
    assert caller.kind is ActorKind.HUMAN
    assert caller.name == "ada"
    assert (caller.tenant, caller.token_id, caller.source) == ("acme/web", ID, "api_token")
    assert caller.may(Scope.OPERATOR)
    assert not caller.may(Scope.APPROVER)


def test_its_holder_comes_with_it_until_it_ends() -> None:
    token = made()[0]
    assert msgspec.structs.replace(token, expires_at_ms=None).caller.until_ms is None
    assert msgspec.structs.replace(token, expires_at_ms=NOW_MS).caller.until_ms == NOW_MS


def test_a_use_is_due_to_be_noted_once_a_minute() -> None:
    kept, _ = made()
    assert kept.is_use_due(NOW_MS)
    used = Token(
        token_id=ID,
        tenant=kept.tenant,
        name="x",
        digest=b"",
        scopes=kept.scopes,
        created_at_ms=NOW_MS,
        last_used_at_ms=NOW_MS,
    )
    assert not used.is_use_due(NOW_MS + 59_999)
    assert used.is_use_due(NOW_MS + 60_000)


def test_a_token_needs_a_name_a_scope_and_some_time() -> None:
    for name in ("", "  ", "x" * 101, "a\0b", "a\nb"):
        with pytest.raises(InvalidRequest, match="name"):
            made(name=name)
    for actor_id in ("x" * 257, "a\0b", "a\nb"):
        with pytest.raises(InvalidRequest, match="actor"):
            made(actor_id=actor_id)
    with pytest.raises(InvalidRequest, match="scope"):
        made(scopes=frozenset())
    with pytest.raises(InvalidRequest, match="some time"):
        made(expires_in_ms=0)


def test_a_record_of_a_token_has_neither_its_text_nor_its_digest() -> None:
    token, _ = made(scopes=frozenset({Scope.VIEWER, Scope.EDITOR}), expires_in_ms=5)
    shown = token_record(token, now_ms=NOW_MS + 5)
    assert shown["scopes"] == ["editor", "viewer"]
    assert (shown["state"], shown["tenant"], shown["actor_id"]) == ("expired", "acme/web", "ada")
    assert "digest" not in shown


def maker(kind: ActorKind, *scopes: Scope, actor_id: str = "") -> Caller:
    return Caller(
        tenant=TenantId("acme/web"), kind=kind, scopes=frozenset(scopes), actor_id=actor_id
    )


HUMAN, AGENT, SYSTEM = ActorKind.HUMAN, ActorKind.AGENT, ActorKind.SYSTEM


@pytest.mark.parametrize(
    ("by", "scope", "kind", "actor_id"),
    [
        (maker(HUMAN, Scope.EDITOR), Scope.APPROVER, HUMAN, ""),
        (maker(HUMAN, Scope.APPROVER), Scope.ADMIN, HUMAN, ""),
        (maker(AGENT, Scope.ADMIN), Scope.APPROVER, HUMAN, ""),
        (maker(SYSTEM, Scope.ADMIN), Scope.VIEWER, HUMAN, ""),
        (maker(AGENT, Scope.ADMIN, actor_id="scout"), Scope.VIEWER, AGENT, "other"),
    ],
)
def test_nobody_makes_a_token_that_may_do_more_than_they_may(
    by: Caller, scope: Scope, kind: ActorKind, actor_id: str
) -> None:
    with pytest.raises(Forbidden) as caught:
        require_no_more(by, [Scope.VIEWER, scope], kind=kind, actor_id=actor_id)
    assert caught.value.code == "TOKEN_TOO_WIDE"


@pytest.mark.parametrize(
    ("by", "kind", "actor_id"),
    [
        (maker(HUMAN, Scope.ADMIN), AGENT, "scout"),
        (maker(HUMAN, Scope.ADMIN, actor_id="ada"), HUMAN, "bob"),
        (maker(AGENT, Scope.ADMIN, actor_id="scout"), AGENT, " scout "),
        (maker(SYSTEM, Scope.ADMIN), SYSTEM, "any"),
    ],
)
def test_a_token_that_may_no_more_than_its_maker_is_made(
    by: Caller, kind: ActorKind, actor_id: str
) -> None:
    require_no_more(by, [Scope.ADMIN], kind=kind, actor_id=actor_id)
