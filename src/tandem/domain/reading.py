"""How the engine read the output of a node: what later decisions need to know of it.

A plain success has no reading at all, so that it costs nothing.
"""

import msgspec

from tandem.domain.ids import NodeId


class Relaxation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an execution profile let pass (definitions 6), as it is recorded."""

    relaxed_validator_classes: tuple[str, ...]
    effective_outcome: str
    """`warning` or `experimental`."""
    original_status: str
    original_failure_kind: str = ""
    execution_profile: str
    yolo_review_relaxed: bool = False
    yolo_non_safety_blocker_relaxed: bool = False

    @property
    def status(self) -> str:
        """The status that the output has after the relaxation."""
        return "completed" if self.effective_outcome == "experimental" else COMPLETED_WITH_WARNINGS


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the engine read one output.

    `status` is in the words of run-lifecycle 4.6.2. `has_work` is what a triage gate said.
    `tainted_inputs` are the nodes whose experimental outputs this one was made from.
    """

    status: str = "completed"
    has_work: bool = True
    warnings: tuple[str, ...] = ()
    experimental: bool = False
    tainted_inputs: tuple[NodeId, ...] = ()
    relaxation: Relaxation | None = None


COMPLETED_WITH_WARNINGS = "completed_with_warnings"
SKIPPED = "skipped"
