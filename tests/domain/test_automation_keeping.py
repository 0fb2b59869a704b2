"""What may be asked of a stored automation, and what is recorded of it."""

from typing import Any

import msgspec
import pytest

from tandem.domain.automation import AutomationStatus
from tandem.domain.automation_keeping import (
    AutomationCommand,
    DeleteAutomation,
    PauseAutomation,
    ResumeAutomation,
    Save,
    check_may_run,
    decide_automation,
    hold_of,
)
from tandem.domain.errors import NotFound, Refused
from tandem.domain.ids import LOCAL_TENANT, AutomationId, ChangeId, DefinitionDigest
from tandem.domain.run import QueueReason
from tandem.domain.stored_automation import (
    MEANINGS,
    AutomationChange,
    AutomationEvent,
    StoredAutomation,
)

JOB = AutomationId("job")
A, E = AutomationStatus, AutomationEvent


def ask(row: StoredAutomation | None, command: AutomationCommand, at: int = 5) -> AutomationChange:
    return decide_automation(
        row,
        command,
        tenant=LOCAL_TENANT,
        automation_id=JOB,
        change_id=ChangeId(f"c{at}"),
        now_ms=at,
    )


def save(digest: str = "sha256:1", **more: Any) -> Save:
    digest_ = DefinitionDigest(digest)
    return Save(definition_digest=digest_, name="Job", creator_id="ann", actor="bob", **more)


def saved(**more: Any) -> StoredAutomation:
    return ask(None, save(**more), at=1).row


def paused() -> StoredAutomation:
    return ask(saved(), PauseAutomation(by="eve", reason="too loud"), at=2).row


def test_every_event_has_a_meaning() -> None:
    assert set(MEANINGS) == set(E)


def test_first_save_makes_version_one() -> None:
    change = ask(None, save(reason="new"))
    row, record = change.row, change.record
    assert (row.version, row.status, row.creator_id, row.name) == (1, A.ACTIVE, "ann", "Job")
    assert (row.created_at_ms, row.updated_at_ms, row.event_seq) == (5, 5, 1)
    assert record is not None
    assert (record.event, record.actor, record.reason, record.version) == (
        E.CREATED,
        "bob",
        "new",
        1,
    )
    assert not change.pauses_runs
    assert not change.releases_runs


def test_another_definition_is_another_version() -> None:
    change = ask(saved(), save("sha256:2"))
    assert (change.row.version, change.row.definition_digest) == (2, "sha256:2")
    assert change.record is not None
    assert change.record.event is E.UPDATED


def test_the_same_definition_changes_nothing() -> None:
    before = saved()
    change = ask(before, save())
    assert change.record is None
    assert change.row == before


def test_another_status_is_recorded_without_another_version() -> None:
    change = ask(saved(status=A.DRAFT), save(status=A.ACTIVE))
    assert (change.row.version, change.row.status) == (1, A.ACTIVE)
    assert change.record is not None


@pytest.mark.parametrize(("expected", "allowed"), [(None, True), (1, True), (0, False), (2, False)])
def test_a_save_compares_the_version_that_its_author_saw(
    expected: int | None, allowed: bool
) -> None:
    if allowed:
        assert ask(saved(), save("sha256:2", expected_version=expected)).row.version == 2
        return
    with pytest.raises(Refused, match="its version is 1, not") as refused:
        ask(saved(), save("sha256:2", expected_version=expected))
    assert refused.value.code == "automation_version_conflict"


def test_a_pause_says_who_when_and_why_and_pauses_the_runs() -> None:
    change = ask(saved(), PauseAutomation(by="eve", reason="too loud"), at=9)
    row = change.row
    assert (row.status, row.paused_by, row.paused_at_ms, row.pause_reason) == (
        A.PAUSED,
        "eve",
        9,
        "too loud",
    )
    assert change.pauses_runs
    hold = hold_of(row)
    assert hold is not None
    assert (hold.reason, hold.resource_key, hold.holder, hold.since_ms) == (
        QueueReason.AUTOMATION_PAUSED,
        "automation:job",
        "job",
        9,
    )
    assert hold.words == "automation `job` is paused by eve: too loud"


def test_a_pause_by_nobody_known_and_of_an_old_row_can_be_told_too() -> None:
    row = msgspec.structs.replace(paused(), paused_by="", paused_at_ms=None)
    hold = hold_of(row)
    assert hold is not None
    assert hold.words == "automation `job` is paused: too loud"
    assert hold.since_ms == row.updated_at_ms


def test_a_resume_releases_the_runs() -> None:
    change = ask(paused(), ResumeAutomation(by="ann"))
    assert change.releases_runs
    assert (change.row.status, change.row.pause_reason, change.row.paused_at_ms) == (
        A.ACTIVE,
        "",
        None,
    )
    assert hold_of(change.row) is None


def test_pausing_twice_and_resuming_what_is_not_paused_are_refused() -> None:
    with pytest.raises(Refused, match="paused already"):
        ask(paused(), PauseAutomation(by=""))
    with pytest.raises(Refused, match="it is active"):
        ask(saved(), ResumeAutomation(by=""))


@pytest.mark.parametrize("status", [None, A.ACTIVE, A.DRAFT])
def test_a_save_never_lifts_a_pause(status: A | None) -> None:
    change = ask(paused(), save("sha256:2", status=status))
    assert (change.row.status, change.row.version, change.row.pause_reason) == (
        A.PAUSED,
        2,
        "too loud",
    )
    assert not change.pauses_runs


def test_a_document_that_says_paused_pauses() -> None:
    first = ask(None, save(status=A.PAUSED))
    assert hold_of(first.row) is not None
    assert first.row.paused_by == "bob"
    later = ask(saved(), save(status=A.PAUSED, reason="off for now"))
    assert later.row.pause_reason == "off for now"
    assert later.pauses_runs


def test_a_deleted_automation_is_gone_and_holds_nothing() -> None:
    change = ask(paused(), DeleteAutomation(by="ann"))
    assert change.releases_runs
    assert change.row.is_deleted
    assert hold_of(change.row) is None
    for command in (PauseAutomation(by=""), ResumeAutomation(by=""), DeleteAutomation(by="")):
        with pytest.raises(NotFound, match="there is no automation job"):
            ask(change.row, command)
        with pytest.raises(NotFound):
            ask(None, command)


def test_a_deleted_automation_can_be_saved_again_and_its_versions_go_on() -> None:
    gone = ask(paused(), DeleteAutomation(by="ann")).row
    change = ask(gone, save("sha256:2", expected_version=0))
    assert change.record is not None
    assert (change.record.event, change.row.version, change.row.status) == (
        E.RESTORED,
        2,
        A.ACTIVE,
    )
    assert not change.row.is_deleted
    assert ask(gone, save()).row.version == 1


def test_a_draft_runs_dry_only() -> None:
    draft = saved(status=A.DRAFT)
    check_may_run(draft, JOB, is_dry=True)
    with pytest.raises(Refused, match="draft") as refused:
        check_may_run(draft, JOB, is_dry=False)
    assert refused.value.code == "automation_draft"
    check_may_run(paused(), JOB, is_dry=False)
    with pytest.raises(NotFound):
        check_may_run(None, JOB, is_dry=True)


def test_nothing_is_held_by_what_is_not_there() -> None:
    assert hold_of(None) is None
