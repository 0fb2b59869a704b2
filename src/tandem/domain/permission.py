"""What a caller may do: the scope for what is asked, and a person for a gate."""

from tandem.domain.caller import ActorKind, Caller, Scope
from tandem.domain.errors import Forbidden


def require(caller: Caller, scope: Scope) -> None:
    """Refuse a caller without this scope.

    Raises:
        Forbidden: with the scope that is needed.
    """
    if not caller.may(scope):
        held = ", ".join(sorted(caller.scopes)) or "none"
        raise Forbidden(f"this needs the scope `{scope}`; the token has: {held}")


def require_decider(caller: Caller) -> None:
    """Refuse whoever may decide no gate: agents and programs, and people without the scope.

    Raises:
        Forbidden: with the code of the wire contract when it is no person.
    """
    if caller.kind is not ActorKind.HUMAN:
        raise Forbidden(
            f"a gate is decided by a person; `{caller.name}` is of kind {caller.kind}",
            code="AUTOMATION_V2_GATE_REQUIRES_HUMAN",
        )
    require(caller, Scope.APPROVER)
