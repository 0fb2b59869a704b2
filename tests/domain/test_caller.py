"""Who asks, and what they may do."""

import msgspec
import pytest

from tandem.domain.caller import LOCAL_CALLER, ActorKind, Caller, Scope
from tandem.domain.ids import LOCAL_TENANT


def caller(*scopes: Scope) -> Caller:
    return Caller(tenant=LOCAL_TENANT, kind=ActorKind.HUMAN, scopes=frozenset(scopes))


@pytest.mark.parametrize(
    ("held", "may"),
    [
        (Scope.VIEWER, {Scope.VIEWER}),
        (Scope.OPERATOR, {Scope.VIEWER, Scope.OPERATOR}),
        (Scope.APPROVER, {Scope.VIEWER, Scope.APPROVER}),
        (Scope.EDITOR, {Scope.VIEWER, Scope.OPERATOR, Scope.EDITOR}),
        (Scope.ADMIN, set(Scope)),
    ],
)
def test_a_scope_includes_what_its_holder_needs_and_no_more(held: Scope, may: set[Scope]) -> None:
    assert {scope for scope in Scope if caller(held).may(scope)} == may


def test_scopes_add_up() -> None:
    both = caller(Scope.OPERATOR, Scope.APPROVER)
    assert {scope for scope in Scope if both.may(scope)} == {
        Scope.VIEWER,
        Scope.OPERATOR,
        Scope.APPROVER,
    }


def test_without_a_scope_nothing_is_allowed() -> None:
    assert not any(caller().may(scope) for scope in Scope)


def test_without_tokens_whoever_is_at_the_machine_may_do_everything() -> None:
    assert all(LOCAL_CALLER.may(scope) for scope in Scope)
    assert LOCAL_CALLER.kind is ActorKind.HUMAN


def test_the_most_telling_name_is_recorded() -> None:
    nobody = caller()
    assert nobody.name == "human"
    known = msgspec.structs.replace(nobody, source="api_token")
    assert known.name == "api_token"
    known = msgspec.structs.replace(known, token_id="tok-1")
    assert known.name == "tok-1"
    known = msgspec.structs.replace(known, actor_id="ada")
    assert known.name == "ada"
