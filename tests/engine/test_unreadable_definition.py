"""What was damaged in the store ends or holds up one run and no other (T05)."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import apsw
import msgspec
import pytest

from tandem import Automation, Engine
from tandem.domain.errors import StoreError
from tandem.domain.ids import LOCAL_TENANT
from tandem.settings import Settings
from tandem.wiring import open_engine
from tests.engine.conftest import call


async def test_a_run_that_cannot_be_read_ends_blocked_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    settings = Settings(state_dir=tmp_path, runs_max=1)
    async with open_engine(settings, drives=False) as parts:
        runs = [
            await parts.engine.start(
                Automation.from_dict({"automation_id": name, "nodes": [call("n")]})
            )
            for name in ("damaged", "healthy")
        ]
    damaged, healthy = runs
    connection = apsw.Connection(str(settings.store_path))
    connection.execute(
        "UPDATE definition SET document = '{' WHERE digest = ?", (damaged.definition_digest,)
    )
    connection.close()

    functions = {"test:ok": lambda: "ok"}
    async with (
        asyncio.timeout(20),
        Engine.open(
            f"sqlite:///{settings.store_path}",
            state_dir=tmp_path,
            runs_max=1,
            functions=functions,
        ) as engine,
    ):
        assert await engine.get_run(healthy.run_id).wait() == "completed"
        row = engine.get_run(damaged.run_id).row
        assert row.status == "blocked"
        assert row.detail.startswith(
            "automation run checkpoint could not be parsed during startup: "
        )
        assert row.last_failure is not None
        assert row.last_failure.node_id == "checkpoint"
        assert row.last_failure.failure_kind == "checkpoint_recovery_failed"
        (_, ended) = engine.get_run(damaged.run_id).events()
        assert ended.event == "run_blocked_corrupt_checkpoint"
        file = tmp_path / ".tandem" / "runs" / damaged.run_id / "status.json"
        assert msgspec.json.decode(file.read_bytes())["blocked_nodes"] == ["checkpoint"]
        with pytest.raises(StoreError, match="cannot be read") as error:
            await engine.parts.store.load(damaged.run_id, tenant=LOCAL_TENANT)
        assert error.value.code == "definition_unreadable"


async def test_a_row_that_cannot_be_read_holds_up_no_other_run_and_ends_no_engine(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/tandem.db"
    functions = {"test:ok": lambda: "ok"}
    document = Automation.from_dict({"automation_id": "a", "nodes": [call("n")]})
    async with open_engine(Settings(state_dir=tmp_path), drives=False) as parts:
        damaged, healthy = [await parts.engine.start(document) for _ in range(2)]
    connection = apsw.Connection(str(tmp_path / "tandem.db"))
    connection.execute("UPDATE run SET inputs = '{' WHERE run_no = ?", (damaged.run_no,))
    connection.close()

    async with asyncio.timeout(20), Engine.open(url, functions=functions) as engine:
        assert await engine.get_run(healthy.run_id).wait() == "completed"
        later = await engine.run(document)
        assert await later.wait() == "completed"
        with pytest.raises(StoreError, match=f"row of run_id {damaged.run_id} cannot be read"):
            engine.get_run(damaged.run_id)


@pytest.mark.parametrize("writer", ["inline", "process"])
async def test_a_node_that_cannot_be_read_holds_up_no_other_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    monkeypatch.setenv("TANDEM_STORE_WRITER", writer)
    url = f"sqlite:///{tmp_path}/tandem.db"
    began = asyncio.Event()

    async def slow() -> None:
        began.set()
        await asyncio.sleep(1_000)

    functions: dict[str, Callable[..., object]] = {"test:slow": slow, "test:ok": lambda: "ok"}
    async with asyncio.timeout(20), Engine.open(url, functions=functions) as engine:
        nodes = [call("n", "slow")]
        damaged = await engine.run(Automation.from_dict({"automation_id": "d", "nodes": nodes}))
        await began.wait()
    connection = apsw.Connection(str(tmp_path / "tandem.db"))
    assert connection.execute("UPDATE node_run SET state = 'odd' RETURNING 1").fetchall()
    connection.close()

    document = Automation.from_dict({"automation_id": "a", "nodes": [call("n")]})
    async with asyncio.timeout(20), Engine.open(url, functions=functions) as engine:
        runs = [await engine.run(document) for _ in range(3)]
        assert [await run.wait() for run in runs] == ["completed"] * 3
        assert engine.get_run(damaged.run_id).row.status == "queued"
        with pytest.raises(StoreError, match="a NodeRun row of node_no 0 cannot be read"):
            await engine.parts.store.load(damaged.run_id, tenant=LOCAL_TENANT)
