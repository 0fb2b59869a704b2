"""Failures of bodies, cut to the size that an outcome carries."""

from tandem.domain.outcome import Failed, FailureClass

MESSAGE_CHARS_MAX = 500
DETAIL_CHARS_MAX = 8_000


def failed(
    failure_class: FailureClass,
    message: str,
    *,
    detail: str = "",
    exit_code: int | None = None,
    retry_after_ms: int | None = None,
    provider: str = "",
) -> Failed:
    """Build a failure with a one-line message and the end of `detail`, both without NUL."""
    line = " ".join(clean(message).split())
    if len(line) > MESSAGE_CHARS_MAX:
        line = line[: MESSAGE_CHARS_MAX - 1] + "…"
    return Failed(
        failure_class=failure_class,
        message=line,
        detail=clean(detail)[-DETAIL_CHARS_MAX:],
        exit_code=exit_code,
        retry_after_ms=retry_after_ms,
        provider=provider,
    )


def clean(text: str) -> str:
    """Remove NUL characters: stores cannot keep them and terminals do not show them."""
    return text.replace("\0", "")
