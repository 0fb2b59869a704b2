"""What the store keeps beside the runs: what was learned, reviews of automations, sessions."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from tandem.domain.automation_review import Review
from tandem.domain.candidate import Candidate, CandidateKind, CandidateStatus, Metrics, ReviewAction
from tandem.domain.change import Change
from tandem.domain.ids import AutomationId, ChangeId, NodeId, RunId, TenantId
from tandem.domain.learning import LearningPolicy
from tandem.domain.session import RunSessions, SessionStep


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass over one run left; `change` is that of its events, None when it has none."""

    run_id: RunId
    tenant: TenantId
    candidates: tuple[Candidate, ...] = ()
    change: Change | None = None


class CandidateFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which candidates a list shows."""

    tenant: TenantId
    workflow_id: AutomationId | None = None
    status: CandidateStatus | None = None
    kind: CandidateKind | None = None
    limit: int = 100


class LearningStore(Protocol):
    """Rows beside the runs. Every write is one transaction, like those of the runs."""

    def list_learning_due(self, *, limit: int) -> Sequence[int]:
        """Return numbers of runs that have ended and were not learned from, oldest end first."""
        ...

    async def learn(
        self, run_no: int, *, policy: LearningPolicy, change_id: ChangeId, now_ms: int
    ) -> Learned | None:
        """Learn from one run that has ended; None when another engine was first.

        A run that was recovered meanwhile teaches nothing now: its next end does.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...

    def list_candidates(self, chosen: CandidateFilter) -> Sequence[Candidate]:
        """Return candidates, newest first."""
        ...

    def find_candidate(self, candidate_id: str, *, tenant: TenantId) -> Candidate | None:
        """Return a candidate, or None."""
        ...

    def read_metrics(
        self, automation_id: AutomationId, *, tenant: TenantId, now_ms: int
    ) -> Metrics:
        """Return how the newest runs of an automation went, as far as they were learned from."""
        ...

    async def review_candidate(
        self,
        candidate_id: str,
        action: ReviewAction,
        *,
        tenant: TenantId,
        by: str,
        note: str,
        now_ms: int,
    ) -> Candidate:
        """Decide on a candidate.

        Raises:
            NotFound: no such candidate for this tenant.
            Refused: its status does not allow it.
            StoreUnavailable: nothing was written.
        """
        ...

    def find_review(self, automation_id: AutomationId, *, tenant: TenantId) -> Review | None:
        """Return the review record of an automation, or None when its runs are not counted."""
        ...

    def list_reviews(self, *, tenant: TenantId, limit: int) -> Sequence[Review]:
        """Return review records by automation."""
        ...

    async def enrol(
        self, automation_id: AutomationId, *, tenant: TenantId, runs_max: int, now_ms: int
    ) -> Review:
        """Count the runs of an automation from now on; again sets only `runs_max`.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...

    async def acknowledge_review(
        self,
        automation_id: AutomationId,
        *,
        tenant: TenantId,
        runs_max: int | None,
        by: str,
        note: str,
        now_ms: int,
    ) -> Review:
        """Note that a person has looked at an automation; runs that its review held are queued.

        Raises:
            NotFound: its runs are not counted.
            StoreUnavailable: nothing was written.
        """
        ...

    async def tend_session(self, step: SessionStep, *, tenant: TenantId) -> None:
        """Write a step of the bookkeeping of sessions.

        Raises:
            StoreUnavailable: nothing was written.
        """
        ...

    def read_sessions(self, run_id: RunId, *, tenant: TenantId) -> RunSessions:
        """Return what counts of the sessions of a run.

        Raises:
            NotFound: no such run for this tenant.
        """
        ...

    def find_session(
        self, session_id: str, *, tenant: TenantId
    ) -> tuple[RunId, NodeId | None] | None:
        """Return the run, and the node where known, that a session is mapped to, or None."""
        ...

    def mcp_servers_of(self, session_id: str, *, tenant: TenantId) -> tuple[str, ...]:
        """Return the MCP servers that a session may use."""
        ...
