"""The exit codes (design section 7), the same in every command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tandem.domain.lifecycle import RunState

COMPLETED: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INVALID: Final = 3
NOT_FOUND: Final = 4
REFUSED: Final = 5
STORE: Final = 6
BLOCKED: Final = 7
CANCELLED: Final = 8
WAITING: Final = 9
UNEXPECTED: Final = 70
OUTPUT_LOST: Final = 74
"""Standard output could not be written, on a full disk, say; the number of `sysexits.h`."""
INTERRUPTED: Final = 130
"""What a shell shows for a program that Ctrl-C ended."""
BROKEN_PIPE: Final = 141
"""What a shell shows for a program that SIGPIPE ended."""


def code_of_state(state: RunState) -> int:
    """Return the exit code for a run that was left in this state."""
    return {
        "completed": COMPLETED,
        "failed": FAILED,
        "blocked": BLOCKED,
        "cancelled": CANCELLED,
    }.get(state.value, WAITING)


def worst(codes: list[int]) -> int:
    """Return the one code for several runs: what needs a person's eye most."""
    order = (UNEXPECTED, STORE, FAILED, BLOCKED, CANCELLED, REFUSED, WAITING)
    return next((code for code in order if code in codes), COMPLETED)


def code_of_error(error: Exception) -> int:
    """Return the exit code of an error of ours."""
    from tandem.domain import errors
    from tandem.settings import InvalidSetting

    kinds: tuple[tuple[type[Exception], int], ...] = (
        (errors.InvalidRequest, USAGE),
        (errors.InvalidAutomation, INVALID),
        (errors.NotFound, NOT_FOUND),
        (errors.Refused, REFUSED),
        (errors.AuthRequired, REFUSED),
        (errors.Forbidden, REFUSED),
        (errors.RateLimited, REFUSED),
        (errors.AuditPersistenceFailed, STORE),
        (errors.StoreError, STORE),
        (InvalidSetting, USAGE),
    )
    return next((code for kind, code in kinds if isinstance(error, kind)), UNEXPECTED)
