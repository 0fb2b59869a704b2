"""The wait of a node as the document describes it (definitions 1.6)."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from tandem.domain.document import DocumentPart
from tandem.domain.duration import DurationMs
from tandem.domain.gate_definition import TimeoutAction


class LiteralBinding(DocumentPart):
    """A value written in the document."""

    source: Literal["literal"] = "literal"
    value: JsonValue = None


class NodeOutputBinding(DocumentPart):
    """A value taken from the stored output record of a node by JSON pointer."""

    source: Literal["node_output"] = "node_output"
    node_id: str
    json_pointer: str | None = None


Binding = Annotated[LiteralBinding | NodeOutputBinding, Field(discriminator="source")]


class WaitTimeout(DocumentPart):
    """How long a wait may last and what follows then."""

    expires_after_ms: DurationMs
    on_timeout: TimeoutAction = TimeoutAction.CANCEL
    escalate_to: str | None = None
    remind_every_ms: DurationMs | None = None


class TimerWait(DocumentPart):
    """Waits for a span (`delay_ms`) or until a moment (`wake_at`, ms since the epoch)."""

    kind: Literal["timer"] = "timer"
    delay_ms: DurationMs | None = None
    wake_at: Binding | None = None
    timeout: WaitTimeout | None = None


class ApprovalWait(DocumentPart):
    """Waits for a person's decision."""

    kind: Literal["approval"] = "approval"
    decisions: tuple[str, ...] = ()
    expires_after_ms: DurationMs | None = None
    timeout: WaitTimeout | None = None


class CorrelationField(StrEnum):
    """The field of a webhook event that is compared."""

    PROVIDER_EVENT_ID = "provider_event_id"
    IDEMPOTENCY_KEY = "idempotency_key"
    BODY_DIGEST = "body_digest"


class Correlation(DocumentPart):
    """Which event of a webhook a wait is waiting for."""

    field: CorrelationField
    value: Binding


class WebhookWait(DocumentPart):
    """Waits for an event at a webhook trigger."""

    kind: Literal["webhook"] = "webhook"
    trigger_id: str
    provider: str | None = None
    provider_event_kind: str | None = None
    correlation: Correlation
    timeout: WaitTimeout


class ExternalConditionWait(DocumentPart):
    """Waits until somebody reports the condition with this key."""

    kind: Literal["external_condition"] = "external_condition"
    condition_key: Binding
    timeout: WaitTimeout
    payload_schema: JsonValue = None


Wait = Annotated[
    TimerWait | ApprovalWait | WebhookWait | ExternalConditionWait, Field(discriminator="kind")
]
