"""The definitions of stored automations, read from the store."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from tandem.domain.automation import Automation, parse_document
from tandem.domain.errors import DEFINITION_UNREADABLE, StoreError
from tandem.domain.ids import DefinitionDigest, TenantId
from tandem.domain.json import JsonObject, decode
from tandem.domain.stored_automation import StoredAutomation
from tandem.ports.store import Store

KEPT_MAX: Final = 128


def read_definition(store: Store, row: StoredAutomation, version: int | None = None) -> Automation:
    """Return the definition of the current version of an automation, or of an older one.

    Raises:
        NotFound: there is no such version.
        StoreError: what is stored cannot be read.
    """
    number = version or row.version
    document = store.automation_document(row, number)
    try:
        return parse_document(document)
    except ValueError as error:  # what pydantic raises
        raise _unreadable(row, number, error) from error


def read_document(store: Store, row: StoredAutomation) -> JsonObject:
    """Return the document of the current version of an automation as it was written.

    That takes a tenth of the time of `read_definition`, and does not judge what it finds.

    Raises:
        StoreError: it is no JSON object.
    """
    try:
        found = decode(store.automation_document(row, row.version))
    except ValueError as error:  # what msgspec raises
        raise _unreadable(row, row.version, error) from error
    if not isinstance(found, Mapping):
        raise _unreadable(row, row.version, "it is no object")
    return found


def _unreadable(row: StoredAutomation, version: int, why: object) -> StoreError:
    return StoreError(
        f"version {version} of automation {row.automation_id} cannot be read: {why}",
        code=DEFINITION_UNREADABLE,
    )


class Definitions:
    """The current definitions that were read lately; an engine that fires often reads each once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[tuple[TenantId, DefinitionDigest], Automation] = OrderedDict()

    def of(self, row: StoredAutomation) -> Automation:
        """Return the definition of the current version.

        Raises:
            NotFound: it is not in the store.
            StoreError: what is stored cannot be read.
        """
        key = (row.tenant, row.definition_digest)
        if key not in self._known:
            self._known[key] = read_definition(self._store, row)
            if len(self._known) > KEPT_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]
