"""Who acts for a caller (http-api 1.4 and trap D2)."""

import msgspec
import pytest

from tandem.domain.actor import acting
from tandem.domain.caller import LOCAL_CALLER, ActorKind, Caller, Scope
from tandem.domain.errors import InvalidRequest
from tandem.domain.ids import LOCAL_TENANT

HOLDER = Caller(
    tenant=LOCAL_TENANT,
    kind=ActorKind.HUMAN,
    scopes=frozenset({Scope.OPERATOR}),
    source="api_token",
    token_id="0123456789ab",
)


def test_a_plain_token_is_a_person() -> None:
    assert acting(HOLDER) == HOLDER


def test_the_header_of_an_agent_wins_over_everything() -> None:
    for caller in (HOLDER, LOCAL_CALLER):
        agent = acting(caller, agent_id=" scout ", ancestors="root, , mid", source="control_panel")
        assert (agent.kind, agent.name) == (ActorKind.AGENT, "scout")
        assert agent.ancestors == ("root", "mid")
        assert agent.scopes == caller.scopes
        assert agent.source == "control_panel"


def test_the_token_of_an_agent_speaks_for_no_other_one() -> None:
    caller = msgspec.structs.replace(HOLDER, kind=ActorKind.AGENT, actor_id="scout")
    assert acting(caller, agent_id="somebody else").actor_id == "scout"
    assert acting(caller).kind is ActorKind.AGENT


def test_without_a_token_the_control_panel_is_a_person_and_any_other_source_a_program() -> None:
    assert acting(LOCAL_CALLER).kind is ActorKind.HUMAN
    assert acting(LOCAL_CALLER, source="control_panel").kind is ActorKind.HUMAN
    assert acting(LOCAL_CALLER, source="cron").kind is ActorKind.SYSTEM
    known = msgspec.structs.replace(LOCAL_CALLER, actor_id="ada")
    assert acting(known, source="cron").kind is ActorKind.HUMAN


def test_names_are_bounded_and_printable() -> None:
    with pytest.raises(InvalidRequest):
        acting(HOLDER, agent_id="x" * 257)
    with pytest.raises(InvalidRequest):
        acting(HOLDER, agent_id="a\x1bb")
    with pytest.raises(InvalidRequest):
        acting(HOLDER, agent_id="a", ancestors=",".join("x" * 33))
