"""What a repair that is to be saved does to the stored automation of its run (T61)."""

from tandem.domain.automation_keeping import Save, decide_automation
from tandem.domain.change import Change
from tandem.domain.command import Repair
from tandem.domain.errors import Refused
from tandem.domain.run import Run
from tandem.domain.stored_automation import AutomationChange, StoredAutomation


def save_repair(
    row: StoredAutomation | None, run: Run, command: Repair, repaired: Change
) -> AutomationChange:
    """Decide the next version of the stored automation, which is what the run executes from now on.

    Args:
        row: of the automation; None when it was never saved.
        run: as it was before the repair.
        command: the repair.
        repaired: what it does to the run; both are to be written in one transaction.

    Raises:
        Refused: the automation is not stored, or somebody saved another version since the run was
            created, which this one would undo; nothing is to be written.
    """
    if row is None or row.is_deleted:
        raise _refused(run, "is not stored; repair without saving, or edit its file")
    if run.automation_version != row.version and run.definition_digest != row.definition_digest:
        raise _refused(
            run,
            f"is at version {row.version} now, which the run does not execute; repair without "
            f"saving, look at it with `tandem automations show {row.automation_id}`, and save the "
            "edit there",
        )
    command_of_save = Save(
        definition_digest=repaired.run.definition_digest,
        name=row.name,
        creator_id=row.creator_id,
        actor=command.decided_by,
        reason=f"{command.reason} (run {run.run_id}, node {command.node_id})",
        schedule=row.schedule,
        is_watching=row.is_watching,
    )
    return decide_automation(
        row,
        command_of_save,
        tenant=row.tenant,
        automation_id=row.automation_id,
        change_id=repaired.change_id,
        now_ms=repaired.run.updated_at_ms,
    )


def _refused(run: Run, why: str) -> Refused:
    return Refused(
        f"cannot save the repair of run {run.run_id}: its automation `{run.automation_id}` {why}",
        code="AUTOMATION_V2_REPAIR_PERSIST_FAILED",
    )
