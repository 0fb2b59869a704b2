"""The store on SQLite keeps the promises of the port."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.testing.access_suite import AccessSuite
from tandem.testing.admission_suite import AdmissionSuite
from tandem.testing.automation_suite import AutomationSuite
from tandem.testing.event_suite import EventSuite
from tandem.testing.record_suite import RecordSuite
from tandem.testing.store_suite import CommitFault, OpenStore, StoreSuite
from tandem.testing.trigger_suite import TriggerSuite
from tandem.testing.webhook_suite import WebhookSuite


def failing_commit(fault: CommitFault, connection: apsw.Connection) -> None:
    """Commit, or fail before or after it took effect."""
    moment = fault.take()
    if moment == "before":
        raise apsw.IOError("disk I/O error")
    connection.execute("COMMIT")
    if moment == "after":
        raise apsw.IOError("disk I/O error")


class TestSqliteStore(
    StoreSuite,
    AdmissionSuite,
    AutomationSuite,
    AccessSuite,
    RecordSuite,
    TriggerSuite,
    EventSuite,
    WebhookSuite,
):
    """All promises, on one file in WAL mode."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Iterator[OpenStore]:
        opened: list[SqliteStore] = []

        def open_one(fault: CommitFault | None = None) -> SqliteStore:
            faults = fault or CommitFault()
            store = SqliteStore(
                tmp_path / "store.db",
                synchronous="OFF",
                commit=lambda connection: failing_commit(faults, connection),
            )
            opened.append(store)
            return store

        yield open_one
        for store in opened:
            assert store.check() == []
            store.close()
