"""What the text of an execution error says about its cause (run-lifecycle 4.4).

Adapters that know the cause say its class themselves. The text is read for those who only have a
sentence: model providers and what talks to them. A node's own time limit is a class of its own and
never counts as a provider's failure.
"""

from typing import Final

from tandem.domain.outcome import FailureClass
from tandem.domain.run import Failure

ATTEMPTS_FLOOR: Final = 3
BLANK: Final = "node execution failed before producing a final response"
TEXT_CHARS_MAX: Final = 500

_CATEGORIES: Final = (
    (
        "provider_connect_timeout",
        (
            "failed to reach provider",
            "error sending request",
            "request error",
            "connect timeout",
            "connection refused",
            "dns error",
            "timed out",
        ),
    ),
    (
        "provider_server_error",
        (
            "provider returned error",
            "provider stream chunk error",
            "provider_server_error",
            "server error",
        ),
    ),
    ("provider_auth", ("authentication", "unauthorized")),
)
_CLASSES: Final = {
    "provider_connect_timeout": FailureClass.PROVIDER_TRANSIENT,
    "provider_server_error": FailureClass.PROVIDER_TRANSIENT,
    "provider_auth": FailureClass.PROVIDER_TERMINAL,
}
_WORTH_REPEATING: Final = ("truncated source identity", "truncated connector preview")


def error_text(text: str) -> str:
    """Return the text of an error as it is recorded: trimmed, bounded, never blank."""
    return text.strip()[:TEXT_CHARS_MAX] or BLANK


def category_of(text: str) -> str:
    """Return the category of an execution error by its text; the first that matches counts."""
    lower = text.lower()
    for category, parts in _CATEGORIES:
        if any(part in lower for part in parts):
            return category
    return "execution_error"


def class_of(text: str) -> FailureClass:
    """Return the failure class of an execution error by its text."""
    return _CLASSES.get(category_of(text), FailureClass.EXECUTION_ERROR)


def failed_detail(failure: Failure) -> str:
    """Return the detail of a run for a node that failed for good (T37, T38)."""
    used = failure.metadata.get("attempts_used")
    if not used or failure.failure_kind == FailureClass.VERIFICATION_FAILED:
        return failure.reason
    tries = f"{used}/{failure.metadata['max_attempts']}"
    return f"node `{failure.node_id}` failed after {tries} attempts: {failure.reason}"


def attempts_floor(failure_class: FailureClass, text: str) -> int:
    """Return the least number of attempts that a failure is worth, however few are configured.

    What is not the node's fault is tried three times: a provider that does not answer, an output
    that was promised and not written, sources that were cut off.
    """
    lower = text.lower()
    not_created = "required output" in lower and "was not created" in lower
    if (
        failure_class is FailureClass.PROVIDER_TRANSIENT
        or not_created
        or any(part in lower for part in _WORTH_REPEATING)
    ):
        return ATTEMPTS_FLOOR
    return 1
