"""What people do beside the runs: decide on what was learned, review automations."""

from tandem.domain.automation_review import Review
from tandem.domain.candidate import Candidate, ReviewAction
from tandem.domain.ids import LOCAL_TENANT, AutomationId, TenantId
from tandem.ports.clock import Clock
from tandem.ports.host import Host
from tandem.ports.store import Store


class Reviews:
    """Part of an engine; it needs not be entered."""

    store: Store
    _clock: Clock
    _host: Host

    async def review_candidate(
        self,
        candidate_id: str,
        action: ReviewAction,
        *,
        by: str,
        note: str = "",
        tenant: TenantId = LOCAL_TENANT,
    ) -> Candidate:
        """Decide on a candidate; runs that are claimed later are told of what is approved.

        Raises:
            NotFound: no such candidate for this tenant.
            Refused: its status does not allow it.
            StoreUnavailable: nothing was written.
        """
        return await self.store.review_candidate(
            candidate_id, action, tenant=tenant, by=by, note=note, now_ms=self._clock.now_ms()
        )

    async def enrol(
        self, automation_id: AutomationId, *, runs_max: int, tenant: TenantId = LOCAL_TENANT
    ) -> Review:
        """Count the runs of an automation; after `runs_max` ends a person has to look.

        Args:
            automation_id: of which automation.
            runs_max: 0 counts only.
            tenant: whose automation it is.

        Raises:
            StoreUnavailable: nothing was written.
        """
        now_ms = self._clock.now_ms()
        return await self.store.enrol(
            automation_id, tenant=tenant, runs_max=runs_max, now_ms=now_ms
        )

    async def acknowledge_review(
        self,
        automation_id: AutomationId,
        *,
        by: str,
        note: str = "",
        runs_max: int | None = None,
        tenant: TenantId = LOCAL_TENANT,
    ) -> Review:
        """Note that a person has looked at an automation; runs that were held are queued.

        `runs_max` is the bound from now on, the one of before when it is not given.

        Raises:
            NotFound: its runs are not counted.
            StoreUnavailable: nothing was written.
        """
        review = await self.store.acknowledge_review(
            automation_id,
            tenant=tenant,
            runs_max=runs_max,
            by=by,
            note=note,
            now_ms=self._clock.now_ms(),
        )
        self._host.wake_others()
        return review
