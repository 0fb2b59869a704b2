"""What is kept of a run that has ended, small enough to read fifty of them, and their metrics.

The definitions are those of run-lifecycle 9.1.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from tandem.domain.automation import Automation
from tandem.domain.candidate import Metrics, hash_parts
from tandem.domain.graph import Plan
from tandem.domain.ids import NodeId, RunId
from tandem.domain.lifecycle import RunState, StopKind
from tandem.domain.run import Run

WINDOW_RUNS: Final = 50
"""Metrics are made of so many newest runs of an automation."""
FACT_NODES: Final = 2
FACT_CHARS_MAX: Final = 500
_NOT_PASSED: Final = frozenset({"failed", "blocked", "accepted_with_warnings"})
_NO_WORD: Final = re.compile(r"[\W_]+")


class NodeCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the node runs of a run add up to.

    `needs_repair` says that the last output of some node missed its contract, `has_gate_history`
    that a gate was decided or expired.
    """

    nodes_attempted: int = 0
    attempts: int = 0
    needs_repair: bool = False
    has_gate_history: bool = False


class OutputNote(msgspec.Struct, frozen=True, kw_only=True):
    """What the small output of a completed node says of itself."""

    node_no: int
    summary: str = ""
    validator_outcome: str = ""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What two failures have in common; `digest` is equal when node and reason are."""

    digest: str
    node_id: NodeId
    node_kind: str | None = None
    family: str
    reason: str


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One ended run, as the metrics and the findings need it. Spans in milliseconds."""

    run_id: RunId
    completed: bool
    passed: bool
    nodes_attempted: int
    attempts: int
    needs_repair: bool
    wall_clock_ms: int | None
    intervened: bool
    finished_at_ms: int
    signature: Signature | None = None
    memory: str = ""


def normalized(reason: str) -> str:
    """Return a reason in lower case, with one blank for whatever is no letter or digit."""
    return _NO_WORD.sub(" ", reason.lower()).strip()


def signature_of(run: Run, plan: Plan) -> Signature | None:
    """Return the signature of the last failure of a run, None when it has none."""
    failure = run.last_failure
    if failure is None:
        return None
    plan_node = plan.node(failure.node_id)
    family, kind = "unknown", None
    if plan_node is not None:
        node = plan_node.node
        contract = node.output_contract
        if contract is not None and contract.validator is not None:
            family = contract.validator.value
        kind = node.stage_kind.value if node.stage_kind is not None else None
    reason = normalized(failure.reason)
    return Signature(
        digest=hash_parts(run.automation_id, failure.node_id, family, reason),
        node_id=failure.node_id,
        node_kind=kind,
        family=family,
        reason=reason,
    )


def facts_of(run: Run, plan: Plan, counts: NodeCounts, notes: Sequence[OutputNote]) -> RunFacts:
    """Return the facts of a run that has ended."""
    completed = run.status is RunState.COMPLETED
    passed = completed and not any(note.validator_outcome in _NOT_PASSED for note in notes)
    wall_clock_ms = None
    if run.started_at_ms is not None and run.finished_at_ms is not None:
        wall_clock_ms = max(run.finished_at_ms - run.started_at_ms, 0)
    operator = run.stop_kind is StopKind.OPERATOR_STOPPED
    return RunFacts(
        run_id=run.run_id,
        completed=completed,
        passed=passed,
        nodes_attempted=counts.nodes_attempted,
        attempts=counts.attempts,
        needs_repair=counts.needs_repair,
        wall_clock_ms=wall_clock_ms,
        intervened=counts.has_gate_history or operator,
        finished_at_ms=run.finished_at_ms or run.updated_at_ms,
        signature=None if completed else signature_of(run, plan),
        memory=_memory(run, plan, notes) if passed else "",
    )


def _memory(run: Run, plan: Plan, notes: Iterable[OutputNote]) -> str:
    said = [
        f"{plan.nodes[note.node_no].node_id}: {note.summary[:FACT_CHARS_MAX]}"
        for note in notes
        if note.summary
    ]
    return "; ".join(said[:FACT_NODES]) or run.detail[:FACT_CHARS_MAX]


def metrics_of(window: Sequence[RunFacts], *, now_ms: int) -> Metrics:
    """Return the metrics of these ended runs; all 0 when there are none."""
    count = len(window)
    if not count:
        return Metrics(computed_at_ms=now_ms)
    walls = sorted(facts.wall_clock_ms for facts in window if facts.wall_clock_ms is not None)
    attempts = sum(facts.attempts for facts in window)
    return Metrics(
        sample_size=count,
        completion_rate=sum(facts.completed for facts in window) / count,
        validation_pass_rate=sum(facts.passed for facts in window) / count,
        mean_attempts_per_node=attempts / max(1, sum(facts.nodes_attempted for facts in window)),
        repairable_failure_rate=sum(facts.needs_repair for facts in window) / count,
        median_wall_clock_ms=walls[len(walls) // 2] if walls else 0,
        human_intervention_count=sum(facts.intervened for facts in window),
        computed_at_ms=now_ms,
    )


def lacks_plan_bundle(automation: Automation) -> bool:
    """Say whether the definition has no plan bundle that a change of its graph could go into."""
    metadata = automation.metadata
    return not (isinstance(metadata, dict) and metadata.get("plan_package_bundle"))
