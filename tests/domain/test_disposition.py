"""What people think of outputs."""

import pytest
from tests.domain.operated import A, B, C, chain_in, code_of

from tandem.domain.command import Dispose
from tandem.domain.disposition import DISPOSITION_ALIASES, DISPOSITIONS, normal_disposition
from tandem.domain.ids import NodeId
from tandem.domain.lifecycle import RunState


@pytest.mark.parametrize("status", sorted(set(RunState) - {RunState.QUEUED, RunState.RUNNING}))
def test_output_is_judged_in_any_state_and_nothing_moves(status: RunState) -> None:
    tale = chain_in(status)
    if status is RunState.PAUSING:
        tale.succeed("a")
        status = RunState.PAUSED

    tale.command(Dispose(node_id=A, disposition="OK", reason="read it", decided_by="eve"))

    assert tale.status is status
    assert tale.happened() == ["node_disposition_set"]
    assert tale.events[-1].metadata == {
        "before": "unmarked",
        "disposition": "accepted",
        "decided_by": "eve",
    }
    handling = tale.node("a").handling
    assert handling is not None
    assert handling.disposition == "accepted"


def test_the_same_again_changes_nothing() -> None:
    tale = chain_in(RunState.FAILED)
    assert code_of(tale, Dispose(node_id=A, disposition="clear")) == "unchanged"
    tale.command(Dispose(node_id=A, disposition="reject"))
    assert code_of(tale, Dispose(node_id=A, disposition="denied")) == "unchanged"
    tale.command(Dispose(node_id=A, disposition=""))
    assert tale.node("a").handling is None


def test_only_an_output_can_be_judged() -> None:
    tale = chain_in(RunState.FAILED)
    missing = "AUTOMATION_V2_TASK_NODE_OUTPUT_NOT_FOUND"
    assert code_of(tale, Dispose(node_id=B, disposition="ok")) == missing
    assert code_of(tale, Dispose(node_id=C, disposition="ok")) == missing
    unknown = "AUTOMATION_V2_TASK_NODE_NOT_FOUND"
    assert code_of(tale, Dispose(node_id=NodeId("z"), disposition="ok")) == unknown
    invalid = "AUTOMATION_V2_TASK_DISPOSITION_INVALID"
    assert code_of(tale, Dispose(node_id=A, disposition="so so")) == invalid


def test_every_alias_means_a_disposition() -> None:
    assert DISPOSITIONS == ("unmarked", "accepted", "rejected", "re_ran_strict")
    assert set(DISPOSITION_ALIASES.values()) == set(DISPOSITIONS)
    for alias, word in DISPOSITION_ALIASES.items():
        assert normal_disposition(f" {alias.upper()} ") == word
