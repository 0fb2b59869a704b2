"""What a body says of a definition, and what is kept of one: pure, for wherever it is done.

Both take long for a large definition, so that a process beside the loop may do them.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec

from tandem.adapters.http.bodies import decode_object, shape
from tandem.adapters.http.definitions import BESIDE, refuse_many_nodes
from tandem.adapters.http.errors import HttpError
from tandem.adapters.http.schemas import (
    AutomationFields,
    CreateAutomation,
    PatchAutomation,
    PutAutomation,
)
from tandem.adapters.http.spec import Warned, read_spec
from tandem.domain.automation import Automation
from tandem.domain.definition import Definition, definition_of
from tandem.domain.errors import InvalidAutomation, Problem
from tandem.domain.json import encode

Parse: TypeAlias = Callable[[object], Automation]


class Form(StrEnum):
    """What a body is for."""

    CREATE = "create"
    PATCH = "patch"
    PUT = "put"


_BODIES: Final[Mapping[Form, type[AutomationFields]]] = {
    Form.CREATE: CreateAutomation,
    Form.PATCH: PatchAutomation,
    Form.PUT: PutAutomation,
}


class ReadBody(msgspec.Struct, frozen=True, tag=True):
    """Asks what a body says."""

    form: Form
    raw: bytes


class ReadDocument(msgspec.Struct, frozen=True, tag=True):
    """Asks what is kept of a document, given as JSON."""

    document: bytes


class Given(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What a body says: its document as JSON, in the names of ours, and what was kept out."""

    document: bytes
    warnings: tuple[Warned, ...]
    automation_id: str | None = None
    creator_id: str | None = None
    status: str | None = None


class Kept(msgspec.Struct, frozen=True, tag=True):
    """What is kept of a document."""

    definition: Definition


class Wrong(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Why a body or a document is refused; with problems it is the document that is wrong."""

    code: str = ""
    message: str = ""
    details: Mapping[str, Any] = {}
    problems: Sequence[Problem] = ()

    def error(self) -> HttpError | InvalidAutomation:
        """Return the error."""
        if self.problems:
            return InvalidAutomation(tuple(self.problems))
        return HttpError(self.code, self.message, details=self.details)


Asked: TypeAlias = ReadBody | ReadDocument
Answer: TypeAlias = Given | Kept | Wrong


def read(asked: Asked, parse: Parse) -> Answer:
    """Answer what is asked; `parse` makes an automation of data."""
    try:
        match asked:
            case ReadBody():
                return _given(decode_object(asked.raw), asked.form)
            case ReadDocument():
                return Kept(definition_of(parse(msgspec.json.decode(asked.document))))
    except InvalidAutomation as error:
        return Wrong(problems=error.problems)
    except HttpError as error:
        return Wrong(code=error.code, message=str(error), details=error.details)


def _given(body: dict[str, Any], form: Form) -> Given:
    if "nodes" in body and "flow" not in body:
        body["flow"] = {"nodes": body.pop("nodes")}
    refuse_many_nodes(body)
    fields = shape(body, _BODIES[form])
    spec = read_spec(body, beside=BESIDE if form is not Form.PUT else frozenset())
    return Given(
        document=encode(spec.document),
        warnings=spec.warnings,
        automation_id=getattr(fields, "automation_id", None),
        creator_id=getattr(fields, "creator_id", None),
        status=fields.status,
    )
