"""What the store keeps of the triggers of stored automations: schedules, firings, handoffs."""

from collections.abc import Sequence
from typing import Protocol

from tandem.domain.creation import NewRun
from tandem.domain.firing import Fired, Firing, FiringPlan
from tandem.domain.handoff import ConsumedHandoff, Handoff, Taken
from tandem.domain.ids import AutomationId, ChangeId, RunId, TenantId
from tandem.domain.stored_automation import StoredAutomation


class TriggerStore(Protocol):
    """Every write is one transaction, like those of the runs."""

    def list_due_automations(self, *, now_ms: int, limit: int) -> Sequence[StoredAutomation]:
        """Return automations whose schedule is due, the longest due first.

        One whose firing is put off is not among them until a run of it has ended.
        """
        ...

    async def fire(
        self,
        row: StoredAutomation,
        plan: FiringPlan,
        runs: Sequence[NewRun],
        *,
        refusal: tuple[str, str] | None,
        change_id: ChangeId,
        now_ms: int,
    ) -> Fired:
        """Move the watermark of a schedule and create the runs of the plan, all or nothing.

        Nothing is written when the automation has changed or its watermark has moved since `row`
        was read: of two engines one fires. A run of the automation that has not ended puts the
        firing off. What cannot be created is recorded with its reason, and the watermark moves.

        Args:
            row: the automation as the plan knows it.
            plan: what is to be done.
            runs: one for each occurrence that is due; none with a `refusal`.
            refusal: code and reason when the runs could not even be prepared.
            change_id: of this change.
            now_ms: the moment.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...

    def list_firings(
        self, automation: StoredAutomation, *, before_no: int | None = None, limit: int
    ) -> Sequence[Firing]:
        """Return what was decided for an automation, newest first; the newest 1,000 are kept."""
        ...

    def find_open_run(self, automation_id: AutomationId, *, tenant: TenantId) -> RunId | None:
        """Return the oldest run of a stored automation that has not ended, or None."""
        ...

    def list_watching(self, *, after_no: int, limit: int) -> Sequence[StoredAutomation]:
        """Return active automations with watch conditions by number, those after `after_no`."""
        ...

    async def take_handoff(
        self,
        row: StoredAutomation,
        handoff: Handoff,
        new: NewRun | None,
        *,
        consumed: ConsumedHandoff,
        refusal: tuple[str, str] | None,
        change_id: ChangeId,
        now_ms: int,
    ) -> Taken:
        """Create the run of a handoff and note that it has it, all or nothing.

        A handoff gets one run for each automation, whoever asks and however often; asked again,
        the answer names that run. Nothing is written when the automation has changed since `row`
        was read, or a run of it has not ended. That no run can be created is recorded.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...

    def list_unarchived(self, *, after_no: int, limit: int) -> Sequence[ConsumedHandoff]:
        """Return handoffs that have their run and whose files are not archived, oldest first."""
        ...

    async def mark_archived(self, consumed_no: int, *, now_ms: int) -> None:
        """Note that the file of a handoff is archived; again is harmless.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...
