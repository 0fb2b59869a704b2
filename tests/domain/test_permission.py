"""What a caller may do."""

import pytest

from tandem.domain.caller import LOCAL_CALLER, ActorKind, Caller, Scope
from tandem.domain.errors import Forbidden
from tandem.domain.ids import LOCAL_TENANT
from tandem.domain.permission import require, require_decider


def caller(*scopes: Scope, kind: ActorKind = ActorKind.HUMAN) -> Caller:
    return Caller(tenant=LOCAL_TENANT, kind=kind, scopes=frozenset(scopes), actor_id="ada")


def test_a_scope_that_is_missing_is_named() -> None:
    require(caller(Scope.EDITOR), Scope.OPERATOR)
    with pytest.raises(Forbidden, match="needs the scope `editor`; the token has: viewer"):
        require(caller(Scope.VIEWER), Scope.EDITOR)
    with pytest.raises(Forbidden, match="has: none"):
        require(caller(), Scope.EDITOR)


@pytest.mark.parametrize("kind", [ActorKind.AGENT, ActorKind.SYSTEM])
def test_a_gate_is_decided_by_a_person(kind: ActorKind) -> None:
    with pytest.raises(Forbidden) as refused:
        require_decider(caller(Scope.ADMIN, kind=kind))
    assert refused.value.code == "AUTOMATION_V2_GATE_REQUIRES_HUMAN"


def test_a_person_needs_the_scope_to_decide() -> None:
    require_decider(caller(Scope.APPROVER))
    require_decider(LOCAL_CALLER)
    with pytest.raises(Forbidden, match="approver"):
        require_decider(caller(Scope.EDITOR))
