"""Execution profiles: how strictly a run treats what its outputs miss (run-lifecycle 4.6.5).

A profile forgives only what a repair could not mend: the attempts that the repair budget allows are
made first, and the profile decides what happens instead of blocking (decision 17).
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from tandem.domain.automation import Automation, ExecutionProfile, Node
from tandem.domain.outcome import Blocked
from tandem.domain.reading import Relaxation

PROFILE_DEFAULT: Final = ExecutionProfile.GUIDED
_FACTORS: Final = {
    ExecutionProfile.STRICT: 1.0,
    ExecutionProfile.GUIDED: 1.5,
    ExecutionProfile.YOLO: 2.0,
}
_GUIDED: Final = frozenset(
    {
        "missing_required_section",
        "weak_markdown_structure",
        "missing_optional_evidence",
        "artifact_word_count_below_minimum",
        "missing_nonconsumed_workspace_files",
    }
)
_YOLO: Final = _GUIDED | {
    "missing_required_artifact_path",
    "validator_kind_specific_soft_check",
    "repair_budget_exhausted",
}
RELAXABLE: Final[Mapping[ExecutionProfile, frozenset[str]]] = {
    ExecutionProfile.STRICT: frozenset(),
    ExecutionProfile.GUIDED: _GUIDED,
    ExecutionProfile.YOLO: _YOLO,
}
"""The classes of unmet requirements that each profile forgives."""

CRITICAL: Final = frozenset(
    {
        "required_source_paths_not_read",
        "unauthorized_workspace",
        "secret_access_denied",
        "destructive_action_requires_approval",
        "external_publish_requires_approval",
        "tenant_policy_denied",
        "tool_unauthorized",
        "budget_exceeded",
        "kill_switch_engaged",
        "engine_lease_expired",
        "invalid_api_token",
        "deterministic_verification_failed",
        "provider_auth",
        "unsafe_raw_write_rejected",
        "placeholder_overwrite_rejected",
        "external_mutation_failed",
        "mcp_required_tool_failed",
    }
)
"""What no profile ever forgives."""

_CLASS_OF: Final[Mapping[str, str]] = {
    "missing_section": "missing_required_section",
    "section_missing": "missing_required_section",
    "weak_structure": "weak_markdown_structure",
    "weak_markdown": "weak_markdown_structure",
    "markdown_structure_missing": "weak_markdown_structure",
    "missing_evidence_optional": "missing_optional_evidence",
    "editorial_substance_missing": "missing_optional_evidence",
    "artifact_too_short": "artifact_word_count_below_minimum",
    "missing_optional_workspace_files": "missing_nonconsumed_workspace_files",
    "missing_artifact_path": "missing_required_artifact_path",
    "soft_validator_check": "validator_kind_specific_soft_check",
    "workspace_unauthorized": "unauthorized_workspace",
    "destructive_requires_approval": "destructive_action_requires_approval",
    "policy_denied": "tenant_policy_denied",
    "unauthorized_tool": "tool_unauthorized",
    "code_patch_apply_failed": "deterministic_verification_failed",
}


def profile_of(automation: Automation) -> ExecutionProfile:
    """Return the effective profile of the runs of this version; `guided` when it says nothing."""
    policy = automation.execution
    return (policy.profile if policy else None) or PROFILE_DEFAULT


def repair_budget(node: Node, profile: ExecutionProfile) -> int:
    """Return how many repairs the node gets: its budget times the profile, rounded up (4.6.6)."""
    return min(math.ceil(node.repair_budget * _FACTORS[profile]), node.max_attempts - 1)


def class_of(requirement: str) -> str | None:
    """Return the class of an unmet requirement, None when it is not classified."""
    name = _CLASS_OF.get(requirement, requirement)
    return name if name in _YOLO or name in CRITICAL else None


def relax(
    profile: ExecutionProfile,
    unmet: Iterable[str],
    *,
    denylist: Collection[str] = (),
    failure_kind: str = "",
) -> Relaxation | None:
    """Return what the profile lets pass, None unless it is all that is unmet.

    A requirement that is critical, unclassified or on the denylist keeps all of them.
    """
    classes = [class_of(requirement) for requirement in unmet]
    allowed = RELAXABLE[profile] - frozenset(denylist)
    named = tuple(dict.fromkeys(name for name in classes if name is not None))
    if not classes or None in classes or not allowed.issuperset(named):
        return None
    return Relaxation(
        relaxed_validator_classes=named,
        effective_outcome="experimental" if profile is ExecutionProfile.YOLO else "warning",
        original_status="needs_repair",
        original_failure_kind=failure_kind,
        execution_profile=profile.value,
    )


def relax_blocker(
    profile: ExecutionProfile, outcome: Blocked, *, denylist: Collection[str] = ()
) -> Relaxation | None:
    """Return what `yolo` makes of a rejected review or a blocker that is no matter of safety."""
    refused = CRITICAL.union(denylist)
    named = {outcome.kind, *(class_of(requirement) or requirement for requirement in outcome.unmet)}
    if profile is not ExecutionProfile.YOLO or not refused.isdisjoint(named):
        return None
    return Relaxation(
        relaxed_validator_classes=(),
        effective_outcome="experimental",
        original_status="blocked",
        original_failure_kind=outcome.kind,
        execution_profile=profile.value,
        yolo_review_relaxed=outcome.is_rejection,
        yolo_non_safety_blocker_relaxed=not outcome.is_rejection,
    )
