"""What a repair that is to be saved does to the stored automation."""

from typing import Any

import msgspec
import pytest
from tests.domain.operated import B, chain_in

from tandem.domain.automation import AutomationStatus
from tandem.domain.command import Repair
from tandem.domain.errors import Refused
from tandem.domain.ids import LOCAL_TENANT, ChangeId, DefinitionDigest
from tandem.domain.lifecycle import RunState
from tandem.domain.run import Run
from tandem.domain.saved_repair import save_repair
from tandem.domain.stored_automation import AutomationChange, AutomationEvent, StoredAutomation

REPAIR = Repair(
    node_id=B,
    action={"kind": "python", "function": "simulated:other"},
    save=True,
    reason="wrong function",
    decided_by="eve",
)


def stored(run: Run, **fields: Any) -> StoredAutomation:
    row = StoredAutomation(
        tenant=LOCAL_TENANT,
        automation_id=run.automation_id,
        name="Job",
        status=AutomationStatus.ACTIVE,
        version=3,
        definition_digest=run.definition_digest,
        creator_id="ann",
        created_at_ms=1,
        updated_at_ms=1,
        event_seq=7,
        last_change_id=ChangeId("before"),
    )
    return msgspec.structs.replace(row, **fields)


def test_who_repairs_is_in_the_event() -> None:
    tale = chain_in(RunState.FAILED)
    tale.command(REPAIR)
    assert tale.changes[-1].events[0].metadata["decided_by"] == "eve"


def saved(version: int | None = 3, **fields: Any) -> AutomationChange:
    tale = chain_in(RunState.FAILED)
    run = msgspec.structs.replace(tale.run, automation_version=version)
    tale.command(REPAIR)
    return save_repair(stored(run, **fields), run, REPAIR, tale.changes[-1])


def test_what_the_run_executes_from_now_on_is_the_next_version() -> None:
    change = saved()
    assert change.record is not None
    assert change.row.version == change.record.version == 4
    assert change.row.definition_digest == change.record.definition_digest
    assert change.record.event is AutomationEvent.UPDATED
    assert change.record.seq == 8
    assert change.record.reason.startswith("wrong function (run ")
    assert change.record.actor == "eve"
    assert (change.row.name, change.row.creator_id) == ("Job", "ann")
    assert not change.pauses_runs
    assert not change.releases_runs


@pytest.mark.parametrize("status", [AutomationStatus.PAUSED, AutomationStatus.DRAFT])
def test_the_status_of_the_automation_stays(status: AutomationStatus) -> None:
    assert saved(status=status).row.status is status


@pytest.mark.parametrize(
    ("version", "digest"), [(3, "sha256:edited-since"), (1, None), (None, None)]
)
def test_either_the_version_or_the_definition_is_still_the_current_one(
    version: int | None, digest: str | None
) -> None:
    """A run that was repaired before is at its version; one that saved before at its definition."""
    fields = {} if digest is None else {"definition_digest": DefinitionDigest(digest)}
    assert saved(version, **fields).row.version == 4


@pytest.mark.parametrize(
    ("version", "fields", "match"),
    [
        (2, {"definition_digest": DefinitionDigest("sha256:else")}, "is at version 3 now"),
        (None, {"definition_digest": DefinitionDigest("sha256:else")}, "is at version 3 now"),
        (3, {"deleted_at_ms": 5}, "is not stored"),
    ],
)
def test_a_version_of_somebody_else_is_not_undone(
    version: int | None, fields: dict[str, Any], match: str
) -> None:
    with pytest.raises(Refused, match=match) as refused:
        saved(version, **fields)
    assert refused.value.code == "AUTOMATION_V2_REPAIR_PERSIST_FAILED"


def test_an_automation_that_was_never_stored_is_not_saved() -> None:
    tale = chain_in(RunState.FAILED)
    before = tale.run
    tale.command(REPAIR)
    with pytest.raises(Refused, match="is not stored"):
        save_repair(None, before, REPAIR, tale.changes[-1])
