"""How an attempt ended, as data. User code that fails is an outcome, not an error of ours."""

from enum import StrEnum
from typing import Final

import msgspec

from tandem.domain.artifact import ArtifactRef
from tandem.domain.json import JsonValue

NAME_A_FILE: Final = "write a file and name it in `output_contract.required_files`"


class FailureClass(StrEnum):
    """Families of failures; a retry policy names the ones it retries (definitions 7)."""

    EXECUTION_ERROR = "execution_error"
    """The body ran and failed: exit code, exception, HTTP status."""
    MISSING_CONFIG = "missing_config"
    """The body could not start: no such command, module or function; an input is missing."""
    TIMED_OUT = "timed_out"
    PROVIDER_TRANSIENT = "provider_transient"
    """A remote party could not be reached or answered 429 or 5xx."""
    PROVIDER_TERMINAL = "provider_terminal"
    """A remote party refused for good: 401, 403."""
    OUTPUT_TOO_LARGE = "output_too_large"
    """The output is over its bound; trying again would not help."""
    VALIDATION_ERROR = "validation_error"
    """The output contract was not met."""
    VERIFICATION_FAILED = "verification_failed"
    """The verification command said no."""
    BUDGET_EXCEEDED = "budget_exceeded"
    """The node has used all calls that it may make; trying again would not help."""
    INTERRUPTED = "server_restart_interrupted"
    """The engine that ran the attempt died."""
    STALE = "stale_no_provider_activity"
    """Nothing of the attempt showed life for longer than any of its limits."""


class Succeeded(msgspec.Struct, frozen=True, kw_only=True, tag="succeeded"):
    """The body ended well; whether its output counts is for the output contract to say."""

    output: JsonValue
    artifacts: tuple[ArtifactRef, ...] = ()
    exit_code: int | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The body ended badly.

    `message` is one line for a person, at most 500 characters; `detail` is the tail of what the
    body printed. `retry_after_ms` is a span that the other side asked for; `provider` names that
    side (`http:<host>`, or the provider of a model), so that other runs leave it alone too.
    """

    failure_class: FailureClass
    message: str
    detail: str = ""
    exit_code: int | None = None
    retry_after_ms: int | None = None
    provider: str = ""


class NeedsRepair(msgspec.Struct, frozen=True, kw_only=True, tag="needs_repair"):
    """The body ended well but its output misses its contract; `reasons` go to the next attempt.

    `unmet` are the codes of what is missing (definitions 2.5, 6), for those who classify it.
    """

    reasons: tuple[str, ...]
    unmet: tuple[str, ...] = ()
    output: JsonValue = None
    failure_class: FailureClass = FailureClass.VALIDATION_ERROR


REVIEW_NOT_APPROVED: Final = "review_not_approved"
SEMANTIC_BLOCKED: Final = "semantic_blocked"


class Blocked(msgspec.Struct, frozen=True, kw_only=True, tag="blocked"):
    """The body ended well and says that it cannot go on; `kind` is `review_not_approved` or such.

    Trying again would not help: what it needs lies with the nodes before it or with a person.
    """

    kind: str
    reason: str
    output: JsonValue = None
    unmet: tuple[str, ...] = ()

    @property
    def is_rejection(self) -> bool:
        """Whether it is a review that did not approve."""
        return self.kind == REVIEW_NOT_APPROVED


class Stopped(msgspec.Struct, frozen=True, kw_only=True, tag="stopped"):
    """The engine ended the body before it was done: pause, cancel, shutdown or lost lease."""

    reason: str


Outcome = Succeeded | Failed | NeedsRepair | Blocked | Stopped


def too_large(what: str, size_bytes: int, bytes_max: int, *, instead: str = NAME_A_FILE) -> Failed:
    """Return the failure of an output that is over its bound.

    Args:
        what: what is too large, with the node that it belongs to.
        size_bytes: how large it is.
        bytes_max: the bound.
        instead: what to do other than raise the bound.
    """
    return Failed(
        failure_class=FailureClass.OUTPUT_TOO_LARGE,
        message=f"{what} has {size_bytes:,} bytes, more than the {bytes_max:,} allowed; "
        f"raise TANDEM_OUTPUT_MAX_BYTES, or {instead}",
    )
