"""The store of what is kept beside the runs, on the tables of one SQLite file."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from tandem.adapters.sql import rows
from tandem.adapters.sqlite import learning, reviewing
from tandem.adapters.sqlite.sessions import SESSIONS_MAX, TendSession, session_of
from tandem.adapters.sqlite.tables import Found, Tables
from tandem.adapters.sqlite.writer import Writer
from tandem.domain.automation_review import Review
from tandem.domain.candidate import Candidate, Metrics, ReviewAction
from tandem.domain.errors import NotFound
from tandem.domain.facts import WINDOW_RUNS, RunFacts, metrics_of
from tandem.domain.ids import AutomationId, ChangeId, NodeId, RunId, TenantId
from tandem.domain.learning import LearningPolicy
from tandem.domain.session import InstanceRow, RunSessions, SessionStep, sessions_of
from tandem.ports.learning import CandidateFilter, Learned


class Beside(ABC):
    """What `ports.learning.LearningStore` promises; the store of the runs is made of it, too."""

    _tables: Tables
    _writer: Writer

    @abstractmethod
    def _find(self, name: str, *values: object) -> Found: ...

    # Learning

    def list_learning_due(self, *, limit: int) -> Sequence[int]:
        """See `LearningStore.list_learning_due`."""
        return [row["run_no"] for row in self._find("list_learning_due", limit)]

    async def learn(
        self, run_no: int, *, policy: LearningPolicy, change_id: ChangeId, now_ms: int
    ) -> Learned | None:
        """See `LearningStore.learn`."""
        return await self._writer.submit(learning.Learn(run_no, policy, change_id, now_ms))

    def list_candidates(self, chosen: CandidateFilter) -> Sequence[Candidate]:
        """See `LearningStore.list_candidates`."""
        found = self._find(
            "list_candidates",
            chosen.tenant,
            chosen.kind.value if chosen.kind is not None else "",
            chosen.status.value if chosen.status is not None else "",
            chosen.workflow_id or "",
            chosen.limit,
        )
        return [msgspec.json.decode(row["candidate"], type=Candidate) for row in found]

    def find_candidate(self, candidate_id: str, *, tenant: TenantId) -> Candidate | None:
        """See `LearningStore.find_candidate`."""
        ids = msgspec.json.encode([candidate_id]).decode()
        for row in self._find("find_candidates", ids):
            candidate = msgspec.json.decode(row["candidate"], type=Candidate)
            if candidate.tenant == tenant:
                return candidate
        return None

    def read_metrics(
        self, automation_id: AutomationId, *, tenant: TenantId, now_ms: int
    ) -> Metrics:
        """See `LearningStore.read_metrics`."""
        found = self._find("list_run_facts", tenant, automation_id, WINDOW_RUNS)
        window = [msgspec.json.decode(row["facts"], type=RunFacts) for row in found]
        return metrics_of(window, now_ms=now_ms)

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
        """See `LearningStore.review_candidate`."""
        return await self._writer.submit(
            learning.DecideCandidate(tenant, candidate_id, action, by, note, now_ms)
        )

    # Reviews

    def find_review(self, automation_id: AutomationId, *, tenant: TenantId) -> Review | None:
        """See `LearningStore.find_review`."""
        found = self._find("find_review", tenant, automation_id)
        return reviewing.review_of(list(found[0].values())) if found else None

    def list_reviews(self, *, tenant: TenantId, limit: int) -> Sequence[Review]:
        """See `LearningStore.list_reviews`."""
        found = self._find("list_reviews", tenant, limit)
        return [reviewing.review_of(list(row.values())) for row in found]

    async def enrol(
        self, automation_id: AutomationId, *, tenant: TenantId, runs_max: int, now_ms: int
    ) -> Review:
        """See `LearningStore.enrol`."""
        return await self._writer.submit(reviewing.Enrol(tenant, automation_id, runs_max, now_ms))

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
        """See `LearningStore.acknowledge_review`."""
        return await self._writer.submit(
            reviewing.AcknowledgeReview(tenant, automation_id, runs_max, by, note, now_ms)
        )

    # Sessions

    async def tend_session(self, step: SessionStep, *, tenant: TenantId) -> None:
        """See `LearningStore.tend_session`."""
        await self._writer.submit(TendSession(tenant, step))

    def read_sessions(self, run_id: RunId, *, tenant: TenantId) -> RunSessions:
        """See `LearningStore.read_sessions`."""
        found = self._find("find_run", run_id, tenant)
        if not found:
            raise NotFound(f"there is no run {run_id}")
        sessions = self._find("list_sessions_of_run", tenant, run_id, SESSIONS_MAX)
        instances = self._find("list_instances_of_run", tenant, run_id, SESSIONS_MAX)
        return sessions_of(
            rows.run_of(found[0]),
            [session_of(row) for row in reversed(sessions)],
            [msgspec.convert(row, InstanceRow) for row in instances],
        )

    def find_session(
        self, session_id: str, *, tenant: TenantId
    ) -> tuple[RunId, NodeId | None] | None:
        """See `LearningStore.find_session`."""
        found = self._find("find_session", tenant, session_id)
        row = session_of(found[0]) if found else None
        return (row.run_id, row.node_id) if row is not None and row.is_mapped else None

    def mcp_servers_of(self, session_id: str, *, tenant: TenantId) -> tuple[str, ...]:
        """See `LearningStore.mcp_servers_of`."""
        found = self._find("find_session", tenant, session_id)
        return session_of(found[0]).mcp_servers if found else ()
