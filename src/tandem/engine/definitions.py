"""The definitions of stored automations, read from the store."""

from collections import OrderedDict
from typing import Final

from tandem.domain.automation import Automation, parse_document
from tandem.domain.errors import DEFINITION_UNREADABLE, StoreError
from tandem.domain.ids import DefinitionDigest, TenantId
from tandem.domain.stored_automation import StoredAutomation
from tandem.ports.store import Store

KEPT_MAX: Final = 128


def read_definition(store: Store, row: StoredAutomation, version: int | None = None) -> Automation:
    """Return the definition of the current version of an automation, or of an older one.

    Raises:
        NotFound: there is no such version.
        StoreError: what is stored cannot be read.
    """
    document = store.automation_document(row, version or row.version)
    try:
        return parse_document(document)
    except ValueError as error:  # what pydantic raises
        raise StoreError(
            f"version {version or row.version} of automation {row.automation_id} cannot be "
            f"read: {error}",
            code=DEFINITION_UNREADABLE,
        ) from error


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
