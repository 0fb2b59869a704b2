"""What started a run (run-lifecycle 1.1). A trigger of the outside world may bring its own name."""

from enum import StrEnum
from typing import Final

DRY_RUN_SUFFIX: Final = "_dry_run"


class TriggerType(StrEnum):
    """The kinds of triggers that the engine knows."""

    MANUAL = "manual"
    SCHEDULED = "scheduled"
    WEBHOOK = "webhook"
    WATCH_CONDITION = "watch_condition"
    INCIDENT_MONITOR_TRIAGE = "incident_monitor_triage"
    OPTIMIZATION_CANDIDATE_EVAL = "optimization_candidate_eval"
    OPTIMIZATION_BASELINE_REPLAY = "optimization_baseline_replay"
    WORKFLOW = "workflow"
    RECOVERED_CONTEXT_RUN = "recovered_context_run"
    RECOVERED = "recovered"


def dry_run_of(trigger_type: str) -> str:
    """Return the trigger type of a dry run that this trigger started (T02)."""
    return f"{trigger_type}{DRY_RUN_SUFFIX}"


def is_dry_run(trigger_type: str) -> bool:
    """Say whether a run with this trigger type was a dry run."""
    return trigger_type.endswith(DRY_RUN_SUFFIX)
