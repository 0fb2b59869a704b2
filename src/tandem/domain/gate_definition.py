"""The gate of a node as the document describes it (definitions 1.5)."""

from enum import StrEnum

from tandem.domain.document import DocumentPart
from tandem.domain.duration import DurationMs


class TimeoutAction(StrEnum):
    """What happens when nobody came in time."""

    CANCEL = "cancel"
    ESCALATE = "escalate"
    REMIND = "remind"
    RESUME = "resume"


class ExpiryPolicy(DocumentPart):
    """When a gate expires and what follows."""

    expires_after_ms: DurationMs | None = None
    on_expiry: TimeoutAction | None = None
    escalate_to: str | None = None
    remind_every_ms: DurationMs | None = None


class Gate(DocumentPart):
    """A person's approval. Without `required` it only adds details to an approval node."""

    required: bool = False
    decisions: tuple[str, ...] = ()
    rework_targets: tuple[str, ...] = ()
    instructions: str | None = None
    expiry_policy: ExpiryPolicy | None = None
