"""What an engine and its writer process say to each other."""

from typing import Any

import msgspec

from tandem.adapters.sqlite.writes import AnyWrite
from tandem.domain.errors import (
    ChangeRefused,
    EngineError,
    IllegalTransition,
    InvalidAutomation,
    InvalidRequest,
    LeaseLost,
    NotFound,
    NothingToDo,
    Problem,
    Refused,
    StoreError,
    StoreUnavailable,
    StoreUnsure,
)

_ERRORS = {
    kind.__name__: kind
    for kind in (
        EngineError,
        NotFound,
        InvalidRequest,
        InvalidAutomation,
        Refused,
        NothingToDo,
        IllegalTransition,
        ChangeRefused,
        LeaseLost,
        StoreError,
        StoreUnavailable,
        StoreUnsure,
    )
}


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """The engine asks for a write, under a number of its own."""

    number: int
    write: AnyWrite


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The writer has the file open."""


class Performed(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A write has this result if it is committed; said before the commit."""

    number: int
    result: bytes


class Trouble(msgspec.Struct, frozen=True, array_like=True):
    """An error by the name of its class. A class that is not ours becomes a `RuntimeError`."""

    kind: str
    message: str
    code: str
    details: dict[str, Any] = {}
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, error: BaseException) -> "Trouble":
        """Describe an error."""
        code = error.code if isinstance(error, EngineError) else ""
        details = dict(error.details) if isinstance(error, Refused) else {}
        problems = error.problems if isinstance(error, InvalidAutomation) else ()
        return cls(type(error).__name__, str(error), code, details, problems)

    def error(self) -> Exception:
        """Return the error again."""
        kind = _ERRORS.get(self.kind, EngineError) if self.code else None
        if kind is None:
            return RuntimeError(f"the writer failed with {self.kind}: {self.message}")
        error = kind.__new__(kind)
        EngineError.__init__(error, self.message, code=self.code)
        if isinstance(error, Refused):
            error.details = self.details
        if isinstance(error, InvalidAutomation):
            error.problems = self.problems
        return error


class Decided(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A write is on disk, or it is not and `trouble` says why."""

    number: int
    trouble: Trouble | None


Answer = Ready | Performed | Decided
