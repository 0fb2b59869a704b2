"""W-13, W-14, W-15 and W-23: admission that hides, unlocks, miscounts, or never throttles."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest

from tandem.adapters.local import http
from tandem.adapters.local.files import LocalFiles
from tandem.adapters.sqlite import keys
from tandem.adapters.sqlite import store as store_module
from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain import provider
from tandem.domain.admission import Needs
from tandem.domain.automation import Automation
from tandem.domain.command import Cancel, Pause, Resume
from tandem.domain.ids import LOCAL_TENANT, RunId
from tandem.domain.lifecycle import RunState
from tandem.domain.run import QueueReason
from tandem.settings import Settings
from tandem.testing.admission_suite import locked
from tandem.testing.store_suite import ENGINE_A, ENGINE_B, NOW_MS, Scene, chain, succeeded
from tandem.wiring import open_engine

MakeScene = Callable[[], Scene]
LIMIT_S = 20
FAR_MS = 2 * NOW_MS


@pytest.fixture
def make_scene(tmp_path: Path) -> Iterator[MakeScene]:
    """Open a store when the scene begins, so that mutants of its statements count."""
    opened: list[SqliteStore] = []

    def make() -> Scene:
        opened.append(SqliteStore(tmp_path / f"{len(opened)}.db", synchronous="OFF"))
        return Scene(opened[-1])

    yield make
    for store in opened:
        store.close()


def without(patch: pytest.MonkeyPatch, name: str, sql: str) -> None:
    """Put another statement in the place of one."""
    statements = {**store_module.load_statements(), name: sql}
    patch.setattr(store_module, "load_statements", lambda: statements)


# W-13: a refusal leaves a trace, and the refused hold up nobody, however many they are


async def refused_runs_leave_a_trace_and_hold_up_nobody(make_scene: MakeScene) -> None:
    scene = make_scene()
    assert isinstance(scene.store, SqliteStore)
    await scene.create("holder", needs=locked("/r"))
    await scene.claim()
    for number in range(200):
        await scene.create(f"locked{number}", needs=locked("/r"), now_ms=NOW_MS + 1)
        await scene.create(f"damaged{number}", now_ms=NOW_MS + 1, automation="damaged")
    await scene.create("healthy", now_ms=NOW_MS + 2)
    damaged = scene.get("damaged0").definition_digest
    connection = apsw.Connection(str(scene.store.path))
    connection.execute("UPDATE definition SET document = '{' WHERE digest = ?", (damaged,))
    connection.close()

    # Another store: this one knows the plan that it has written.
    again = Scene(SqliteStore(scene.store.path, synchronous="OFF"), name="again")
    try:
        claimed: list[str] = []
        for _ in range(5):
            claimed += await again.claimed_ids(ENGINE_B, limit=1, now_ms=NOW_MS + 5)
        assert claimed == ["healthy"]
        assert again.get("locked99").queue_reason is QueueReason.WORKSPACE_LOCK
        assert again.get("damaged99").queue_reason is QueueReason.DEFINITION_UNREADABLE
        assert await again.store.wake_freed(now_ms=NOW_MS + 5, limit=10) == 0
    finally:
        assert isinstance(again.store, SqliteStore)
        again.store.close()


async def test_w13_refused_runs(make_scene: MakeScene) -> None:
    await refused_runs_leave_a_trace_and_hold_up_nobody(make_scene)


async def test_w13_refused_runs_is_caught(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = "SELECT :reason, :key, :provider, :due, :run_no, :change"
    without(monkeypatch, "refuse_run", nothing)
    with pytest.raises(AssertionError):
        await refused_runs_leave_a_trace_and_hold_up_nobody(make_scene)


# W-14: one workspace has one name, one holder, and is kept while bodies may still write


async def one_workspace_has_one_holder(folder: Path) -> None:
    (folder / "work" / "sub").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "work")
    automation = Automation.model_validate({"automation_id": "a", "flow": {"nodes": chain(1)}})
    names = ("work", "work/", "link", "link/./sub", "work/sub/..")
    settings = Settings(state_dir=folder / "state", mode="single")
    async with open_engine(settings, drives=False) as parts:
        for name in names:
            await parts.engine.start(automation, workspace=f"{folder}/{name}")
        scene = Scene(parts.store)
        assert len(await scene.claim(limit=8, now_ms=FAR_MS)) == 1
        waiting = parts.store.read_queue(now_ms=FAR_MS).lanes
        assert [(lane.reason, lane.runs) for lane in waiting] == [("workspace_lock", 4)]


async def test_w14_names_of_a_workspace(tmp_path: Path) -> None:
    await one_workspace_has_one_holder(tmp_path)


async def test_w14_names_of_a_workspace_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalFiles, "real_path", lambda _self, workspace: workspace)
    with pytest.raises(AssertionError):
        await one_workspace_has_one_holder(tmp_path)


async def pausing_run_keeps_its_workspace(make_scene: MakeScene) -> None:
    scene = make_scene()
    await scene.create("r1", needs=locked("/r"))
    await scene.create("r2", needs=locked("/r"))
    (view,) = await scene.claim()
    await scene.store.apply(scene.next(view))
    await scene.execute("r1", Pause())

    assert scene.get("r1").status is RunState.PAUSING
    assert await scene.claim(ENGINE_B) == []
    await scene.execute("r1", Cancel())
    assert await scene.claim(ENGINE_B) == []
    lock = scene.store.read_standing(RunId("r2"), tenant=LOCAL_TENANT, now_ms=NOW_MS).lock
    assert lock is not None
    assert (lock.run_id, lock.engine_id) == ("r1", ENGINE_A)


async def test_w14_pausing_run(make_scene: MakeScene) -> None:
    await pausing_run_keeps_its_workspace(make_scene)


async def test_w14_pausing_run_is_caught(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "holds_keys", lambda run: run.status is RunState.RUNNING)
    with pytest.raises(AssertionError):
        await pausing_run_keeps_its_workspace(make_scene)


# W-15: admissions and completions are counted once, pauses not at all, and nothing leaks


async def metrics_count_what_happened(make_scene: MakeScene) -> None:
    scene = make_scene()
    for number in range(3):
        await scene.create(f"r{number}", chain(1), needs=Needs(lock_path="/r"))
    (view,) = await scene.claim()
    await scene.store.apply(scene.next(view))
    await scene.execute("r0", Pause())
    view = await scene.store.load(RunId("r0"), tenant=LOCAL_TENANT)
    await scene.store.apply(scene.next(view, succeeded(0)))
    assert scene.get("r0").status is RunState.PAUSED
    assert len(await scene.claim(limit=1)) == 1  # r1, while r2 is refused
    await scene.claim()

    queue = scene.store.read_queue(now_ms=NOW_MS)
    assert (queue.admitted_total, queue.completed_total, queue.active_runs) == (2, 0, 1)
    assert [(lane.reason, lane.runs) for lane in queue.lanes] == [("workspace_lock", 1)]

    await scene.execute("r2", Cancel())
    await scene.execute("r0", Resume())
    queue = scene.store.read_queue(now_ms=NOW_MS)
    assert queue.completed_total == 1
    assert [lane.reason for lane in queue.lanes] == [""]


async def test_w15_metrics(make_scene: MakeScene) -> None:
    await metrics_count_what_happened(make_scene)


async def test_w15_metrics_is_caught(
    make_scene: MakeScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests = frozenset({RunState.PAUSED, RunState.COMPLETED, RunState.CANCELLED})
    monkeypatch.setattr(keys, "TERMINAL", rests)
    with pytest.raises(AssertionError):
        await metrics_count_what_happened(make_scene)


# W-23: throttles come from real answers, and model names that are texts count


@asynccontextmanager
async def busy_host() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve 429 with a wish to be left alone for an hour; note every request."""
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3600\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/", requests


async def throttled_host_is_left_alone(folder: Path) -> None:
    async with busy_host() as (url, requests), asyncio.timeout(LIMIT_S):
        node = {"node_id": "ask", "action": {"kind": "http", "url": url}}
        automation = Automation.model_validate({"automation_id": "a", "flow": {"nodes": [node]}})
        async with open_engine(Settings(state_dir=folder / "state")) as parts:
            first = await parts.engine.start(automation)
            await parts.waiters.wait(
                first.run_id, until=lambda run: run.queue_reason is QueueReason.RETRY_BACKOFF
            )
            second = await parts.engine.start(automation)
            waiting = await parts.waiters.wait(
                second.run_id, until=lambda run: run.queue_reason is not None
            )
        assert waiting.queue_reason is QueueReason.RATE_LIMIT
        assert waiting.rate_limited_provider == "http:127.0.0.1"
        assert len(requests) == 1


async def test_w23_throttled_host(tmp_path: Path) -> None:
    await throttled_host_is_left_alone(tmp_path)


async def test_w23_throttled_host_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "provider_of_url", lambda _url: "")
    with pytest.raises(AssertionError):
        await throttled_host_is_left_alone(tmp_path)


def models_of_all_spellings_are_recognised() -> None:
    policy = {"default_model": "OpenAI/gpt", "role_models": {"critic": {"provider_id": "groq"}}}
    agent = {"agent_id": "writer", "model_policy": policy}
    document = {
        "automation_id": "a",
        "agents": [agent],
        "flow": {"nodes": [{"node_id": "write", "agent_id": "writer"}]},
    }
    automation = Automation.model_validate(document)
    needed = provider.required_providers(automation, automation.nodes, {})
    assert needed == {"openai", "groq"}


def test_w23_model_names() -> None:
    models_of_all_spellings_are_recognised()


def test_w23_model_names_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    original = provider._provider_of_model
    monkeypatch.setattr(
        provider, "_provider_of_model", lambda m: "" if isinstance(m, str) else original(m)
    )
    with pytest.raises(AssertionError):
        models_of_all_spellings_are_recognised()
