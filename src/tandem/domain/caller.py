"""Who asks: the tenant, the person, agent or program behind a request, and what they may do."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from tandem.domain.ids import LOCAL_TENANT, TenantId
from tandem.domain.visibility import Assertor


class ActorKind(StrEnum):
    """What kind of party acts (http-api 1.4). Gates are decided by humans only."""

    HUMAN = "human"
    AGENT = "agent"
    SYSTEM = "system"


class Scope(StrEnum):
    """What a token lets its holder do. A scope may include others, see `includes`."""

    VIEWER = "viewer"
    """Read everything of the tenant but secrets."""
    OPERATOR = "operator"
    """Start runs and act on them."""
    APPROVER = "approver"
    """Decide gates."""
    EDITOR = "editor"
    """Change automations and their triggers."""
    ADMIN = "admin"
    """Everything, tokens too."""


S = Scope

_INCLUDED: Final[Mapping[Scope, frozenset[Scope]]] = {
    S.VIEWER: frozenset({S.VIEWER}),
    S.OPERATOR: frozenset({S.VIEWER, S.OPERATOR}),
    S.APPROVER: frozenset({S.VIEWER, S.APPROVER}),
    S.EDITOR: frozenset({S.VIEWER, S.OPERATOR, S.EDITOR}),
    S.ADMIN: frozenset(S),
}


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who makes a request, as far as the engine is sure of it.

    `actor_id` is empty when nobody is known. `source` is how they came: `api_token`,
    `local_control_panel` (no token is configured), or what a request says of itself. `token_id`
    names the token that was presented, never its secret. `ancestors` are the agents that made an
    agent, the first one first. `asserted` is there when a signed tenant context speaks for them.
    `until_ms` is when what they came with counts no more, None for never.
    """

    tenant: TenantId
    kind: ActorKind
    scopes: frozenset[Scope]
    actor_id: str = ""
    source: str = ""
    token_id: str = ""
    ancestors: tuple[str, ...] = ()
    asserted: Assertor | None = None
    until_ms: int | None = None

    def may(self, scope: Scope) -> bool:
        """Say whether one of the scopes includes this one."""
        return any(scope in _INCLUDED[held] for held in self.scopes)

    @property
    def name(self) -> str:
        """Who is recorded as the one who did something: an id, else what is known."""
        return self.actor_id or self.token_id or self.source or self.kind.value


LOCAL_CALLER: Final = Caller(
    tenant=LOCAL_TENANT,
    kind=ActorKind.HUMAN,
    scopes=frozenset({Scope.ADMIN}),
    source="local_control_panel",
)
"""Whoever sits at this machine while no token is configured."""
