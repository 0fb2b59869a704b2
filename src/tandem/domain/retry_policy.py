"""Which failures of a node are tried again, as the document says it (definitions 7)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from pydantic import Field, JsonValue, model_validator

from tandem.domain.document import DocumentPart
from tandem.domain.duration import DurationMs


class BackoffStrategy(StrEnum):
    """How the delay between attempts grows."""

    NONE = "none"
    FIXED = "fixed"
    EXPONENTIAL = "exponential"


class Backoff(DocumentPart):
    """How long to wait before the next attempt; `max_delay_ms` 0 means no cap of its own."""

    strategy: BackoffStrategy = BackoffStrategy.NONE
    initial_delay_ms: DurationMs = 0
    max_delay_ms: DurationMs = 0
    multiplier: float = 2.0
    jitter_ms: DurationMs | None = None

    @model_validator(mode="before")
    @classmethod
    def _accept_aliases(cls, data: object) -> object:
        return _renamed(data, BACKOFF_ALIASES)


class TerminalMode(StrEnum):
    """What follows when the attempts are used up."""

    FAIL_RUN = "fail_run"
    PAUSE_FOR_REVIEW = "pause_for_review"
    DEAD_LETTER = "dead_letter"


class TerminalBehavior(DocumentPart):
    """What follows when the attempts are used up."""

    mode: TerminalMode = TerminalMode.FAIL_RUN
    dead_letter: JsonValue = None


class ManualOverride(DocumentPart):
    """Whether a person may grant more attempts."""

    enabled: bool = False
    requires_reason: bool = True


BACKOFF_ALIASES: Final[Mapping[str, str]] = {
    "delay_ms": "initial_delay_ms",
    "delayMs": "initial_delay_ms",
    "initialDelayMs": "initial_delay_ms",
    "maxDelayMs": "max_delay_ms",
    "jitterMs": "jitter_ms",
}
RETRY_ALIASES: Final[Mapping[str, str]] = {
    "maxAttempts": "max_attempts",
    "retry_on": "retryable_failure_classes",
    "retryOn": "retryable_failure_classes",
    "retryableFailureClasses": "retryable_failure_classes",
    "maxElapsedMs": "max_elapsed_ms",
    "terminalBehavior": "terminal_behavior",
    "manualOverride": "manual_override",
}
INLINE_BACKOFF_KEYS: Final = frozenset({*Backoff.model_fields, *BACKOFF_ALIASES})
"""Keys of the backoff that a retry policy may carry itself."""


def _renamed(data: object, aliases: Mapping[str, str]) -> object:
    if not isinstance(data, dict) or aliases.keys().isdisjoint(data):
        return data
    renamed: dict[object, object] = {}
    for key, value in data.items():
        name = aliases.get(key, key) if isinstance(key, str) else key
        if name in renamed:
            raise ValueError(f"`{name}` is given twice, once under another of its names")
        renamed[name] = value
    return renamed


def _normal_class(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


class RetryPolicy(DocumentPart):
    """Which failures are tried again, how often and how soon (definitions 7).

    `max_attempts` counts all attempts; absent means the node's default. `retryable_failure_classes`
    absent, empty or with `*` in it means every class (the original's default is a list of its own
    classes, which are not all ours). Names of classes are kept in lower case with underscores.
    """

    version: int = 1
    max_attempts: int | None = None
    retryable_failure_classes: tuple[str, ...] | None = None
    backoff: Backoff = Field(default_factory=Backoff)
    max_elapsed_ms: DurationMs | None = None
    terminal_behavior: TerminalBehavior | None = None
    manual_override: ManualOverride | None = None

    @model_validator(mode="before")
    @classmethod
    def _accept_aliases(cls, data: object) -> object:
        renamed = _renamed(data, RETRY_ALIASES)
        if not isinstance(renamed, dict):
            return renamed
        inline = {k: v for k, v in renamed.items() if k in INLINE_BACKOFF_KEYS}
        policy = {k: v for k, v in renamed.items() if k not in INLINE_BACKOFF_KEYS}
        if inline and "backoff" in policy:
            raise ValueError(f"`{next(iter(inline))}` belongs inside `backoff`, which is given too")
        if inline:
            policy["backoff"] = inline
        classes = policy.get("retryable_failure_classes")
        if isinstance(classes, list | tuple):
            policy["retryable_failure_classes"] = tuple(
                _normal_class(name) if isinstance(name, str) else name for name in classes
            )
        return policy
