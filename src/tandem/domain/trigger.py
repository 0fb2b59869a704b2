"""What started a run (run-lifecycle 1.1). A trigger of the outside world may bring its own name."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

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


WEBHOOK_CONTEXT: Final = "automation_webhook"
"""The key under which a run keeps what is known of the delivery that started it."""
_TOLD: Final = ("delivery_id", "trigger_id", "provider")


def told_of(context: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the first event of a run tells of the delivery that started it, if one did.

    It is small and holds nothing that came from outside but the name of the provider.
    """
    delivery = (context or {}).get(WEBHOOK_CONTEXT)
    return {name: delivery[name] for name in _TOLD} if delivery is not None else {}
