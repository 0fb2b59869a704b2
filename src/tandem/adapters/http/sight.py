"""What a caller sees of the automations of its tenant, and what it may change (decision 27)."""

from typing import Final

from tandem.domain.caller import Caller
from tandem.domain.ids import AutomationId, TenantId
from tandem.engine.queries import Kept, Queries

UNKNOWN_CREATORS: Final = frozenset({"", "unknown"})


class Sight:
    """What one caller sees, as the definitions say at this moment; look through a new one later.

    Where no signed tenant context speaks for the caller that is everything.
    """

    def __init__(self, caller: Caller, queries: Queries) -> None:
        self._caller = caller
        self._queries = queries
        self._known: dict[AutomationId, Kept | None] = {}

    @property
    def is_whole(self) -> bool:
        """Whether everything of the tenant is seen, so that nothing has to be looked up."""
        asserted = self._caller.asserted
        return asserted is None or asserted.is_admin

    def sees(self, automation_id: AutomationId) -> bool:
        """Say whether the caller may know that this automation and its runs are there.

        What was never kept says nothing of who may see it.

        Raises:
            StoreError: what is kept cannot be read now.
        """
        asserted = self._caller.asserted
        if asserted is None or asserted.is_admin:
            return True
        kept = self._kept(automation_id)
        return kept is None or kept.access is None or kept.access.may_see(asserted)

    def refusal(self, automation_id: AutomationId, *, is_definition: bool) -> str:
        """Return the code with which a change of what is seen is refused, empty for none.

        Args:
            automation_id: whose runs, triggers or definition are to be changed.
            is_definition: it is the definition or a trigger.

        Raises:
            StoreError: what is kept cannot be read now.
        """
        asserted = self._caller.asserted
        if asserted is None or asserted.is_admin:
            return ""
        kept = self._kept(automation_id)
        if kept is None:
            return ""
        if kept.access is not None:
            may = kept.access.may_change(asserted)
            return "" if may else "AUTOMATION_V2_ACCESS_DENIED"
        is_other = kept.creator_id not in {*UNKNOWN_CREATORS, asserted.person}
        return "AUTOMATION_V2_NOT_OWNER" if is_definition and is_other else ""

    def _kept(self, automation_id: AutomationId) -> Kept | None:
        if automation_id not in self._known:
            found = self._queries.kept(automation_id, tenant=self._caller.tenant)
            self._known[automation_id] = found
        return self._known[automation_id]


NOWHERE: Final = TenantId("//")
"""A tenant in which nothing is: no context has this name."""
