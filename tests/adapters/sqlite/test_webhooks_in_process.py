"""Webhooks go through the writer process as they go inline."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.errors import ChangeRefused, InvalidRequest, NotFound
from tandem.domain.ids import LOCAL_TENANT
from tandem.domain.webhook_keeping import (
    DisableTrigger,
    RevealToken,
    RotateSecret,
    TriggerChange,
)
from tandem.testing.store_suite import NOW_MS
from tandem.testing.webhook_suite import HOOK, JOB, Post


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    store = SqliteStore(tmp_path / "store.db", synchronous="OFF", writer="process")
    yield Post(lambda _fault=None: store)
    store.close()


async def test_every_write_comes_back_with_its_result(post: Post) -> None:
    with pytest.raises(NotFound):
        await post.store.create_trigger(TriggerChange(trigger=post.trigger()))
    await post.open()
    named = {"tenant": LOCAL_TENANT, "automation_id": JOB}
    await post.store.execute_on_trigger(HOOK, RotateSecret(b"two", 9), now_ms=NOW_MS, **named)
    assert post.secrets(NOW_MS) == [b"two", b"one"]
    with pytest.raises(InvalidRequest):
        await post.store.execute_on_trigger(HOOK, RevealToken(), now_ms=NOW_MS, **named)
    one, again = await post.come("1", b"[1]"), await post.come("2", b"[1]")
    assert (one.status, again.status) == ("received", "duplicate")
    with pytest.raises(ChangeRefused):
        await post.settle(one, version=7)
    settled = await post.settle(one)
    assert settled is not None
    assert post.find("1") == settled.delivery
    assert await post.settle(one) is None
    three = await post.come("3", b"[3]")
    off = await post.store.execute_on_trigger(HOOK, DisableTrigger(), now_ms=NOW_MS, **named)
    assert not off.enabled
    disabled = await post.settle(three)
    assert disabled is not None
    assert disabled.delivery.status == "disabled"
    gone = await post.store.forget_deliveries(
        payloads_before_ms=NOW_MS + 9, rejected_before_ms=0, payloads_max=9, limit=2
    )
    assert gone == 2
    await post.store.delete_trigger(HOOK, now_ms=NOW_MS, **named)
    assert post.store.find_trigger(HOOK, tenant=LOCAL_TENANT) is None
