"""The errors a caller can meet.

    EngineError
    ├── InvalidRequest         the request is wrong whatever the state; mend it     exit 2
    ├── InvalidAutomation      the definition is wrong; fix it and submit again     exit 3
    ├── NotFound               no such automation, run, node, gate, artifact, file  exit 4
    ├── Refused                understood, but the current state says no            exit 5
    │   ├── NothingToDo        what was asked holds already; may count as done
    │   ├── IllegalTransition
    │   ├── ChangeRefused      another change came first; load and decide again
    │   └── LeaseLost          another engine took over; stop, write nothing
    ├── AuthRequired           nobody that is known asks; present a token           exit 5
    ├── Forbidden              whoever asks may not do this                         exit 5
    ├── RateLimited            too much was asked; `retry_after_s` says when again  exit 5
    ├── AuditPersistenceFailed a refusal could not be recorded                      exit 6
    └── StoreError                                                                  exit 6
        ├── StoreUnavailable   nothing was written; safe to try again
        └── StoreTooNew        the store was made by a newer version

A failure of user code is an `Outcome`, never one of these.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

DEFINITION_UNREADABLE = "definition_unreadable"
"""The code of errors that say that a stored definition is gone or damaged."""
ROW_UNREADABLE = "row_unreadable"
"""The code of errors that say that a row holds what it cannot hold."""


class EngineError(Exception):
    """Base of all errors of the engine.

    `code` is stable and meant for programs; the message says what was asked, what stood in the
    way and what to do.
    """

    code = "engine_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake in an automation document, or one thing in it that earns a warning.

    `path` is where in the document (`nodes[2].depends_on[0]`); `line` and `column` count from 1
    and are 0 when the document did not come from a file.
    """

    code: str
    message: str
    path: str = ""
    hint: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    node_id: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.line else self.what

    @property
    def where(self) -> str:
        """`file:line:column`, or the file alone when the place is not known."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    @property
    def what(self) -> str:
        """Everything but the place in the file."""
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{path}{self.message}{hint} [{self.code}]"


class InvalidAutomation(EngineError):
    """The automation document is wrong. `problems` holds every mistake that was found."""

    code = "invalid_automation"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        noun = "mistake" if count == 1 else "mistakes"
        super().__init__(
            f"the automation has {count} {noun}:\n" + "\n".join(f"  {p}" for p in self.problems)
        )


class InvalidRequest(EngineError):
    """The request itself is wrong, whatever the state of the run is."""

    code = "invalid_request"


class NotFound(EngineError):
    """There is no such thing, or it belongs to another tenant."""

    code = "not_found"


class Refused(EngineError):
    """The request was understood, but the current state does not allow it.

    `details` are facts for programs, such as the decision that won; they are JSON.
    """

    code = "refused"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.details: Mapping[str, Any] = details or {}


class BudgetReached(Refused):
    """A call may not be made: the run has spent its budget, or the node all calls of its own."""

    code = "budget_exceeded"

    def __init__(self, message: str, *, of_node: bool = False) -> None:
        self.of_node = of_node
        super().__init__(message)


class NothingToDo(Refused):
    """What was asked holds already; nothing was written. Whoever asked may count it as done."""

    code = "nothing_to_do"


class IllegalTransition(Refused):
    """The transition table has no row for this state and event."""

    code = "illegal_transition"

    def __init__(self, state: str, event: str) -> None:
        self.state = state
        self.event = event
        super().__init__(f"`{event}` cannot happen to something that is `{state}`")


class ChangeRefused(Refused):
    """Another change of this run came first; nothing was written. Load and decide again."""

    code = "change_refused"


class LeaseLost(Refused):
    """Another engine drives this run now; the loser stops and writes nothing more."""

    code = "lease_lost"


class AuthRequired(EngineError):
    """Nobody that is known asks. The message never says which part of a token was wrong."""

    code = "AUTH_REQUIRED"


class Forbidden(EngineError):
    """It is known who asks, and they may not do this, whatever the state is."""

    code = "SCOPE_DENIED"


class RateLimited(EngineError):
    """Too much was asked within a span; nothing was done. `retry_after_s` is at least 1."""

    code = "RATE_LIMITED"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class AuditPersistenceFailed(EngineError):
    """Something was refused, and the audit of the refusal could not be written."""

    code = "AUDIT_PERSISTENCE_FAILED"


class StoreError(EngineError):
    """The store could not do what was asked."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """Nothing was written; it is safe to try again."""

    code = "store_unavailable"


class StoreUnsure(StoreUnavailable):
    """The store failed, and nobody can say any more whether it was written."""


class StoreTooNew(StoreError):
    """The store was made by a newer version of the engine; this version leaves it untouched."""

    code = "store_too_new"
