"""Tokens, assertions, the audit and keys go through the writer process as they go inline."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.assertion import ReplayMode
from tandem.domain.audit import AuditEntry, AuditEvent, problems_of
from tandem.domain.errors import NothingToDo, Refused
from tandem.domain.ids import LOCAL_TENANT
from tandem.domain.request_key import KEPT_MS
from tandem.testing.access_suite import create, key, token, use
from tandem.testing.store_suite import NOW_MS, Scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    store = SqliteStore(tmp_path / "store.db", synchronous="OFF", writer="process")
    yield Scene(store)
    store.close()


async def test_every_write_comes_back_with_its_result(scene: Scene) -> None:
    store = scene.store
    await store.add_token(token(1))
    await store.note_token_use(token(1).token_id, now_ms=NOW_MS)
    revoked = await store.revoke_token(token(1).token_id, tenant=None, by="eve", now_ms=NOW_MS + 1)
    assert store.find_token(token(1).token_id) == revoked
    with pytest.raises(NothingToDo):
        await store.revoke_token(token(1).token_id, tenant=None, by="eve", now_ms=NOW_MS)
    await store.use_assertion(use(b"one"), mode=ReplayMode.ONE_SHOT, now_ms=NOW_MS)
    with pytest.raises(Refused, match="before"):
        await store.use_assertion(use(b"one"), mode=ReplayMode.ONE_SHOT, now_ms=NOW_MS)
    entry = AuditEntry(event=AuditEvent.AUTH_DENIED, tenant=LOCAL_TENANT, recorded_at_ms=NOW_MS)
    record = await store.add_audit(entry)
    audit = store.list_audit(tenant=None, after_no=0, limit=10)
    assert audit[-1] == record
    assert problems_of(audit) == []
    first = await create(scene, "r1", key())
    again = await create(scene, "r2", key())
    assert (again.run_id, again.run_no) == ("r1", first.run_no)
    assert await store.forget_access(now_ms=NOW_MS + KEPT_MS + 1, limit=10) == 2
