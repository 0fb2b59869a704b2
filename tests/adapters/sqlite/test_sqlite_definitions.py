"""Definitions are read before a transaction begins: a large one holds up no other writer."""

from pathlib import Path
from typing import Any

import pytest

from tandem.adapters.sqlite import tables
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.command import Pause
from tandem.domain.ids import LOCAL_TENANT, ChangeId, RunId
from tandem.testing.store_suite import NOW_MS, Scene


@pytest.mark.parametrize("asks", ["claim", "execute"])
async def test_no_definition_is_read_while_others_wait_for_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    maker = SqliteStore(tmp_path / "store.db", synchronous="OFF")
    await Scene(maker).create("r")
    maker.close()
    store = SqliteStore(tmp_path / "store.db", synchronous="OFF")
    read: list[bool] = []
    original = tables.parse_document

    def parse(document: bytes) -> Any:
        read.append(store.committer.connection.in_transaction)
        return original(document)

    monkeypatch.setattr(tables, "parse_document", parse)
    if asks == "claim":
        (view,) = await Scene(store, name="t").claim()
        assert len(view.plan) == 2
    else:
        await store.execute(
            RunId("r"),
            Pause(),
            tenant=LOCAL_TENANT,
            change_id=ChangeId("pause"),
            now_ms=NOW_MS,
        )
    assert read == [False]
    store.close()
