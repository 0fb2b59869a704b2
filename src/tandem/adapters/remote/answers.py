"""What a server answers that is no success, as the errors that a local store would have raised."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tandem.domain.errors import (
    EngineError,
    InvalidAutomation,
    InvalidRequest,
    NotFound,
    Problem,
    Refused,
    StoreError,
    StoreUnavailable,
)

_CONTRACT: Final = "AUTOMATION_V2_"
_REFUSALS: Final = frozenset(
    {"AUTOMATION_V2_GATE_INVALID_DECISION", "AUTOMATION_V2_REPAIR_PERSIST_FAILED"}
)
"""Answered with 400, as the contract wants it, and refusals all the same."""
_DETAILS: Final = frozenset({"error", "code", "retryable", "hint", "problems"})
_TEXT_MAX: Final = 500


def error_of(status: int, content: bytes, *, url: str, asked: str) -> EngineError:
    """Return the error that an answer tells of.

    Args:
        status: of the answer, 300 or above.
        content: its body; the envelope of ours, or whatever somebody in between made of it.
        url: the server, for the message.
        asked: method and path, for the message.
    """
    told = _envelope(content)
    if told is None:
        return _stranger(status, content, url=url, asked=asked)
    message, hint = str(told["error"])[:20_000], str(told.get("hint", ""))
    code = str(told.get("code", ""))
    # Codes of ours have no capitals where they are raised; those of the contract have.
    code = code if code.startswith(_CONTRACT) else code.lower()
    details = {name: value for name, value in told.items() if name not in _DETAILS}
    problems = told.get("problems")
    if status == 401:
        return Refused(
            f"{url} wants to know who asks: {message}; log in with `tandem login {url}`, or set "
            "TANDEM_TOKEN",
            code=code,
        )
    if status in (403, 429):
        return Refused(f"{message}; {hint}", code=code, details=details)
    if status in (400, 422) and isinstance(problems, list) and problems:
        return InvalidAutomation([_problem(each) for each in problems])
    if status == 404:
        return NotFound(message, code=code)
    if status == 409 or code in _REFUSALS:
        return Refused(message, code=code, details=details)
    if status >= 500:
        kind = StoreUnavailable if status in (502, 503, 504) else StoreError
        return kind(f"{url}: {message}; {hint}", code=code)
    return InvalidRequest(message, code=code)


def _envelope(content: bytes) -> Mapping[str, Any] | None:
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) and "error" in value and "code" in value else None


def _problem(told: object) -> Problem:
    given = told if isinstance(told, dict) else {}
    said = {name: str(given.get(name) or "") for name in ("code", "message", "path", "hint")}
    return Problem(code=said["code"], message=said["message"], path=said["path"], hint=said["hint"])


def _stranger(status: int, content: bytes, *, url: str, asked: str) -> EngineError:
    """Return the error for an answer that no route of ours gives."""
    if status in (404, 405):
        return Refused(
            f"{url} does not know `{asked}`: it is no Tandem server of this version; look at the "
            "address and the version of the server",
            code="route_unknown",
        )
    text = " ".join(content.decode("utf-8", "replace").split())[:_TEXT_MAX]
    message = f"{url} answered `{asked}` with {status}: {text or 'nothing'}"
    if 300 <= status < 400:
        return Refused(f"{message}; use the address that it leads to", code="redirected")
    if status >= 500:
        return StoreUnavailable(message, code="server_unavailable")
    return Refused(message, code="answer_unknown")
