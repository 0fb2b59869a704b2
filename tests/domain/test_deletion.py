"""When a run may be deleted."""

import pytest
from tests.domain.operated import chain_in

from tandem.domain.deletion import refuse_deletion
from tandem.domain.errors import Refused
from tandem.domain.lifecycle import TERMINAL, RunState
from tandem.testing.tale import ENGINE


@pytest.mark.parametrize("status", RunState)
def test_only_an_ended_run_is_deleted(status: RunState) -> None:
    run = chain_in(status).run
    if status in TERMINAL:
        refuse_deletion(run)
        assert run.status in TERMINAL
        return
    with pytest.raises(Refused, match="cancel it first") as refused:
        refuse_deletion(run)
    assert refused.value.code == "run_not_ended"


def test_run_whose_processes_may_live_is_not_deleted() -> None:
    run = chain_in(RunState.CANCELLED).run
    run.cleanup = ENGINE
    with pytest.raises(Refused) as refused:
        refuse_deletion(run)
    assert refused.value.code == "run_cleanup_pending"
