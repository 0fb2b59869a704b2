"""Learning on the tables: the facts of an ended run gathered, the lesson of the domain written.

One transaction for a run, so a pass that is cut off has not been, and two engines do no harm: the
second finds that nothing is due any more.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import apsw
import msgspec

from tandem.adapters.frames import unpack
from tandem.adapters.sql import rows
from tandem.adapters.sqlite.tables import Tables, fetch, run_statement
from tandem.domain.candidate import (
    LISTED_MAX,
    Candidate,
    CandidateKind,
    CandidateStatus,
    LearningSummary,
    ReviewAction,
    review_candidate,
)
from tandem.domain.change import Change
from tandem.domain.command import NoteEnd
from tandem.domain.decision import decide
from tandem.domain.errors import EngineError, NotFound
from tandem.domain.facts import (
    WINDOW_RUNS,
    NodeCounts,
    OutputNote,
    RunFacts,
    facts_of,
    metrics_of,
)
from tandem.domain.graph import Plan
from tandem.domain.ids import AutomationId, ChangeId, TenantId
from tandem.domain.json import decode
from tandem.domain.learning import LearningPolicy, Lesson, ids_to_find, learn, tell
from tandem.domain.lifecycle import TERMINAL
from tandem.domain.run import Run
from tandem.ports.learning import Learned

OUTPUTS_MAX: Final = 256
"""Of so many completed nodes of a run the small outputs are looked at."""
TOLD_MAX: Final = LISTED_MAX
PROPOSED_MAX: Final = 100
"""So many proposals of one kind are kept for an automation."""
_CANDIDATE: Final = msgspec.json.Decoder(Candidate)
_FACTS: Final = msgspec.json.Decoder(RunFacts)


class Learn(msgspec.Struct, frozen=True, tag=True):
    """Learn from a run that has ended; the result is None when nothing was due."""

    run_no: int
    policy: LearningPolicy
    change_id: ChangeId
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> Learned | None:
        """See `Write`."""
        sql = tables.sql
        due = fetch(connection, sql["find_learning_due"], (self.run_no,))
        if not due:
            return None
        (row,) = fetch(connection, sql["find_run_by_no"], (self.run_no,))
        run = rows.run_of(row)
        lesson = self._lesson(tables, connection, run)
        if lesson is not None:
            _write(tables, connection, run, lesson)
        applied = lesson.auto_applied if lesson is not None else ()
        note = NoteEnd(auto_applied=applied, review_request_id=due[0]["review_request_id"])
        change = self._note(tables, connection, note)
        run_statement(connection, sql["remove_learning_due"], (self.run_no,))
        return Learned(
            run_id=run.run_id,
            tenant=run.tenant,
            candidates=lesson.candidates if lesson is not None else (),
            change=change,
        )

    def _lesson(self, tables: Tables, connection: apsw.Connection, run: Run) -> Lesson | None:
        if run.status not in TERMINAL:
            return None  # it was recovered; its next end teaches
        try:
            plan = tables.plan(connection, run.tenant, run.definition_digest)
        except EngineError:
            return None  # without its definition there is nothing to learn from it
        if tables.packed(connection, run):
            # Its rows are counted, so they have to be there; they are packed again later.
            tables.archive.move_out(connection, run.run_no)
        facts = read_facts(tables, connection, run, plan)
        content = msgspec.json.encode(facts).decode()
        run_statement(connection, tables.sql["put_run_facts"], (run.run_no, content))
        window = read_window(tables, connection, run.tenant, run.automation_id)
        if all(other.run_id != run.run_id for other in window):
            window = [*window[: WINDOW_RUNS - 1], facts]
        ids = msgspec.json.encode(ids_to_find(run, facts)).decode()
        known = [
            *list_told(tables, connection, run),
            *_candidates(fetch(connection, tables.sql["find_candidates"], (ids,))),
        ]
        return learn(
            run,
            facts,
            window,
            {candidate.candidate_id: candidate for candidate in known},
            automation=plan.automation,
            summary=run.learning_summary or LearningSummary(),
            policy=self.policy,
            now_ms=self.now_ms,
        )

    def _note(self, tables: Tables, connection: apsw.Connection, note: NoteEnd) -> Change | None:
        if note == NoteEnd():
            return None
        try:
            view = tables.load_by_no(connection, self.run_no)
        except EngineError:
            return None
        change = decide(view, note, change_id=self.change_id, now_ms=self.now_ms)
        tables.write(connection, change)
        return change

    def landed(self, tables: Tables, connection: apsw.Connection, result: Learned | None) -> bool:
        """See `Write`. What is due no more was learned, whoever did it."""
        due = fetch(connection, tables.sql["find_learning_due"], (self.run_no,))
        return result is not None and not due

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Learned | None:
        """See `Write`."""
        return unpack(raw, Learned | None)


class DecideCandidate(msgspec.Struct, frozen=True, tag=True):
    """Decide on a candidate; the result is the candidate as it is then."""

    tenant: TenantId
    candidate_id: str
    action: ReviewAction
    by: str
    note: str
    now_ms: int

    def perform(self, tables: Tables, connection: apsw.Connection) -> Candidate:
        """See `Write`."""
        candidate = find_candidate(tables, connection, self.candidate_id, self.tenant)
        if candidate is None:
            raise NotFound(
                f"there is no candidate {self.candidate_id}; "
                "`tandem learning list` shows the ones there are"
            )
        window = read_window(tables, connection, self.tenant, candidate.workflow_id)
        decided = review_candidate(
            candidate,
            self.action,
            metrics=metrics_of(window, now_ms=self.now_ms),
            by=self.by,
            note=self.note,
            now_ms=self.now_ms,
        )
        put_candidate(tables, connection, decided)
        return decided

    def landed(self, tables: Tables, connection: apsw.Connection, result: Candidate | None) -> bool:
        """See `Write`."""
        found = find_candidate(tables, connection, self.candidate_id, self.tenant)
        return result is not None and found == result

    def receive(self, tables: Tables, connection: apsw.Connection, raw: bytes) -> Candidate:
        """See `Write`."""
        return unpack(raw, Candidate)


# Reading


def read_facts(tables: Tables, connection: apsw.Connection, run: Run, plan: Plan) -> RunFacts:
    """Return the facts of a run that has ended."""
    sql = tables.sql
    span = (rows.node_run_id(run.run_no, 0), rows.node_run_id(run.run_no + 1, 0) - 1)
    (counted,) = fetch(connection, sql["count_node_runs"], span)
    telling = fetch(connection, sql["list_telling_outputs"], (*span, OUTPUTS_MAX))
    has_history = bool(fetch(connection, sql["has_gate_history"], (run.run_no,)))
    counts = NodeCounts(
        nodes_attempted=counted["nodes_attempted"],
        attempts=counted["attempts"],
        needs_repair=bool(counted["needs_repair"]),
        has_gate_history=has_history,
    )
    return facts_of(run, plan, counts, [_note_of(row) for row in telling])


def _note_of(row: dict[str, Any]) -> OutputNote:
    node_no = row["node_run_id"] & ((1 << rows.NODE_BITS) - 1)
    output = decode(bytes(row["output"]))
    if not isinstance(output, dict):
        return OutputNote(node_no=node_no)
    summary, validator = output.get("summary"), output.get("validator_summary")
    outcome = validator.get("outcome") if isinstance(validator, dict) else None
    return OutputNote(
        node_no=node_no,
        summary=summary if isinstance(summary, str) else "",
        validator_outcome=outcome if isinstance(outcome, str) else "",
    )


def read_window(
    tables: Tables, connection: apsw.Connection, tenant: TenantId, automation_id: AutomationId
) -> list[RunFacts]:
    """Return the facts of the newest runs of an automation, of those that have ended."""
    values = (tenant, automation_id, WINDOW_RUNS)
    found = fetch(connection, tables.sql["list_run_facts"], values)
    return [_FACTS.decode(row["facts"]) for row in found]


def list_told(tables: Tables, connection: apsw.Connection, run: Run) -> Sequence[Candidate]:
    """Return what runs of this automation are told, the most confident first."""
    values = (run.tenant, run.automation_id, TOLD_MAX)
    return _candidates(fetch(connection, tables.sql["list_told"], values))


def find_candidate(
    tables: Tables, connection: apsw.Connection, candidate_id: str, tenant: TenantId
) -> Candidate | None:
    """Return a candidate of this tenant, or None."""
    ids = msgspec.json.encode([candidate_id]).decode()
    found = _candidates(fetch(connection, tables.sql["find_candidates"], (ids,)))
    return next((candidate for candidate in found if candidate.tenant == tenant), None)


def _candidates(found: Iterable[dict[str, Any]]) -> list[Candidate]:
    return [_CANDIDATE.decode(row["candidate"]) for row in found]


# Writing


def tell_run(
    tables: Tables, connection: apsw.Connection, run: Run, learned: Sequence[Candidate]
) -> None:
    """Note on a run that is being claimed what was learned before; its row in memory follows.

    `learned` is what `list_told` returned for its automation.
    """
    told = tell(run, learned)
    if told is None:
        return
    run.learnings, run.learning_summary = told
    learnings, summary = (msgspec.json.encode(value).decode() for value in told)
    run_statement(connection, tables.sql["tell_run"], (learnings, summary, run.run_no))


def put_candidate(tables: Tables, connection: apsw.Connection, candidate: Candidate) -> None:
    """Write a candidate as it is now."""
    values = (
        candidate.candidate_id,
        candidate.tenant,
        candidate.workflow_id,
        candidate.kind.value,
        candidate.status.value,
        candidate.confidence,
        candidate.updated_at_ms,
        msgspec.json.encode(candidate).decode(),
    )
    run_statement(connection, tables.sql["put_candidate"], values)


def _write(tables: Tables, connection: apsw.Connection, run: Run, lesson: Lesson) -> None:
    proposed: set[CandidateKind] = set()
    for candidate in lesson.candidates:
        put_candidate(tables, connection, candidate)
        if candidate.status is CandidateStatus.PROPOSED:
            proposed.add(candidate.kind)
    for kind in sorted(proposed):
        values = (run.tenant, run.automation_id, kind.value, PROPOSED_MAX, PROPOSED_MAX)
        run_statement(connection, tables.sql["prune_candidates"], values)
    summary = msgspec.json.encode(lesson.summary).decode()
    run_statement(connection, tables.sql["put_learning_summary"], (summary, run.run_no))
