"""Runs over HTTP: lists, what people do, artifacts."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tandem.domain.outcome import Failed, FailureClass

from .conftest import GATE, Server, node, spec

RUNS = "/automations/v2/runs"


async def dry(server: Server, automation_id: str, count: int = 1) -> list[str]:
    path = f"/automations/v2/{automation_id}/run_now"
    told = [await server.post(path, {"dry_run": True}) for _ in range(count)]
    return [each["run"]["run_id"] for each in told]


async def ids(server: Server, query: str) -> list[str]:
    return [run["run_id"] for run in (await server.get(f"{RUNS}?{query}"))["runs"]]


async def test_a_list_is_filtered_and_goes_on_behind_its_cursor(server: Server) -> None:
    for name in ("a", "b"):
        await server.post("/automations/v2", spec(name))
    a, b = await dry(server, "a", 3), await dry(server, "b")
    queued = await server.post("/automations/v2/b/run_now", {"dry_run": False}, status=200)
    waiting = queued["run"]["run_id"]
    assert await ids(server, "") == [waiting, *b, *reversed(a)]
    assert await ids(server, "status=completed&automation_id=b") == b
    assert await ids(server, "status=queued,running") == [waiting]
    assert await ids(server, "trigger_type=manual") == [waiting]
    assert await ids(server, f"q={a[1][-12:]}") == [a[1]]
    first = await server.get("/automations/v2/a/runs?limit=2")
    rest = await server.get(f"/automations/v2/a/runs?limit=2&cursor={first['cursor']}")
    assert [run["run_id"] for run in first["runs"] + rest["runs"]] == list(reversed(a))
    assert rest["cursor"] is None


async def test_a_run_says_why_it_waits(driving: Server) -> None:
    run_id = await driving.done(spec("a", node("n1", gate=GATE)))
    told = await driving.get(f"{RUNS}/{run_id}/why")
    assert told["why"]["kind"] == "gate"
    assert told["why"]["sentence"]


async def test_a_pause_may_let_attempts_come_to_their_end(driving: Server) -> None:
    import asyncio

    driving.agents.held["n1"] = asyncio.Event()
    run_id = await driving.start(spec("a"))
    await driving.agents.started.get()
    told = await driving.post(f"{RUNS}/{run_id}/pause", {"now": False})
    assert told["run"]["status"] == "pausing"
    driving.agents.held["n1"].set()
    run = await driving.rest(run_id)
    assert (run["status"], run["checkpoint"]["completed_nodes"]) == ("paused", ["n1"])


async def test_a_node_is_skipped_or_completed_by_hand_with_a_reason(driving: Server) -> None:
    driving.agents.outcomes["n1"] = Failed(failure_class=FailureClass.EXECUTION_ERROR, message="no")
    run_id = await driving.done(spec("a"))
    tasks = f"{RUNS}/{run_id}/tasks"
    assert (await driving.post(f"{tasks}/n1/skip", status=400))["code"] == "REASON_REQUIRED"
    await driving.post(f"{tasks}/n1/output", {"output": {"v": 1}, "reason": "I know it"})
    run = await driving.rest(run_id)
    assert run["status"] == "completed"
    assert run["checkpoint"]["node_outputs"]["n1"]["content"] == {"v": 1}


async def test_a_fork_goes_its_own_way(driving: Server) -> None:
    run_id = await driving.done(spec("a"))
    told = await driving.post(f"{RUNS}/{run_id}/fork", {"node_id": "n2"})
    fork = await driving.rest(told["run"]["run_id"])
    assert (fork["status"], fork["forked_from"]) == ("completed", run_id)


async def test_an_ended_run_is_verified_and_deleted(driving: Server) -> None:
    run_id = await driving.done(spec("a"))
    assert (await driving.get(f"{RUNS}/{run_id}/verify"))["ok"] is True
    history = await driving.get(f"{RUNS}/{run_id}/history?limit=2")
    assert history["count"] == 2
    deleted = await driving.ask("DELETE", f"{RUNS}/{run_id}")
    assert deleted.json()["deleted"] is True
    assert (await driving.ask("GET", f"{RUNS}/{run_id}")).status_code == 404


async def test_many_runs_are_counted_and_then_cancelled_page_by_page(server: Server) -> None:
    await server.post("/automations/v2", spec("a"))
    for _ in range(3):
        await server.post("/automations/v2/a/run_now")
    await dry(server, "a")
    body: dict[str, Any] = {
        "action": "cancel",
        "filter": {"status": ["queued"], "automation_id": "a"},
        "limit": 2,
        "reason": "too many",
    }
    preview = await server.post(f"{RUNS}/bulk", {**body, "limit": 100, "preview": True})
    assert (preview["count"], preview["cursor"]) == (3, None)
    first = await server.post(f"{RUNS}/bulk", body)
    assert (first["count"], first["done"]) == (2, 2)
    rest = await server.post(f"{RUNS}/bulk", {**body, "cursor": first["cursor"]})
    assert (rest["count"], rest["done"]) == (1, 1)
    assert len(await ids(server, "status=cancelled")) == 3


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ({"filter": {"statuses": ["failed"]}}, "filter.statuses"),
        ({"filter": {"automationID": "b"}}, "filter.automationID"),
        ({"filter": {}, "preveiw": True}, "preveiw"),
    ],
)
async def test_a_misspelt_filter_is_no_filter_for_everything(
    server: Server, more: dict[str, Any], wrong: str
) -> None:
    run_id = await server.start(spec("a"))
    told = await server.post(f"{RUNS}/bulk", {"action": "cancel", **more}, status=422)
    assert [problem["path"] for problem in told["problems"]] == [wrong]
    assert await ids(server, "status=queued") == [run_id]


async def test_a_filter_may_be_written_in_camel_case(server: Server) -> None:
    run_id = await server.start(spec("a"))
    other = await server.start(spec("b"))
    body = {"action": "cancel", "filter": {"automationId": "b", "createdBeforeMs": 2**53}}
    told = await server.post(f"{RUNS}/bulk", body)
    assert [result["run_id"] for result in told["results"]] == [other]
    assert await ids(server, "status=queued") == [run_id]


async def test_an_artifact_is_sent_whole_or_in_part_and_never_shown(
    driving: Server, tmp_path: Path
) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    write = {
        "node_id": "write",
        "action": {"kind": "command", "shell": True, "script": "printf 0123456789 > 'o ut.html'"},
        "output_contract": {"kind": "code_patch", "required_files": ["o ut.html"]},
    }
    run_id = await driving.done(spec("a", write, workspace_root=str(workspace)))
    listed = await driving.get(f"{RUNS}/{run_id}/artifacts")
    (artifact,) = listed["artifacts"]
    assert (artifact["node_id"], artifact["size_bytes"]) == ("write", 10)
    path = f"{RUNS}/{run_id}/artifacts/{artifact['digest']}"
    whole = await driving.ask("GET", path)
    assert whole.content == b"0123456789"
    assert whole.headers["content-disposition"] == 'attachment; filename="o-ut.html"'
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert whole.headers["content-type"] == "application/octet-stream"
    for span, status, content in (
        ("bytes=2-4", 206, b"234"),
        ("bytes=8-", 206, b"89"),
        ("bytes=-3", 206, b"789"),
        ("bytes=5-99", 206, b"56789"),
        ("bytes=4-2", 200, b"0123456789"),
        ("bytes=0-1,3-4", 200, b"0123456789"),
    ):
        part = await driving.ask("GET", path, headers={"range": span})
        assert (part.status_code, part.content) == (status, content), span
    behind = await driving.ask("GET", path, headers={"range": "bytes=10-"})
    assert (behind.status_code, behind.json()["code"]) == (416, "RANGE_NOT_THERE")
    assert behind.headers["content-range"] == "bytes */10"
    for tag, status in ((whole.headers["etag"], 206), ('"another"', 200)):
        headers = {"range": "bytes=2-4", "if-range": tag}
        assert (await driving.ask("GET", path, headers=headers)).status_code == status
    head = await driving.ask("HEAD", path)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")
    (workspace / "o ut.html").write_text("0123456789+")
    assert (await driving.ask("GET", path)).status_code == 404
    (workspace / "o ut.html").write_text("0123456780")
    changed = await driving.ask("GET", path)
    assert (changed.status_code, changed.json()["code"]) == (404, "ARTIFACT_NOT_FOUND")
    assert str(workspace) not in changed.text


async def test_a_large_artifact_holds_nobody_up(driving: Server, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    write = {
        "node_id": "write",
        "action": {"kind": "command", "argv": ["truncate", "-s", "8M", "big"]},
        "output_contract": {"kind": "code_patch", "required_files": ["big"]},
    }
    run_id = await driving.done(spec("a", write, workspace_root=str(workspace)))
    (artifact,) = (await driving.get(f"{RUNS}/{run_id}/artifacts"))["artifacts"]
    path = f"{RUNS}/{run_id}/artifacts/{artifact['digest']}"
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    whole = await driving.ask("GET", path)
    counting.cancel()
    assert len(whole.content) == artifact["size_bytes"] == 8 * 2**20
    assert turns >= 32
    assert (await driving.ask("GET", path, headers={"range": "bytes=-2"})).content == b"\0\0"


async def test_a_condition_outside_wakes_the_run_that_waits_for_it(driving: Server) -> None:
    waits = {
        "kind": "external_condition",
        "condition_key": {"source": "literal", "value": "deployed"},
        "timeout": {"expires_after_ms": 60_000},
    }
    run_id = await driving.start(
        spec("a", {"node_id": "w", "objective": "wait", "wait": waits}, agents=[])
    )
    async for _ in until(lambda: driving.get("/automations/v2/waits")):
        break
    told = await driving.post(
        "/automations/v2/signals", {"condition_key": "deployed", "idempotency_key": "k1"}
    )
    assert [each["runID"] for each in told["woken"]] == [run_id]
    assert (await driving.rest(run_id))["status"] == "completed"
    again = await driving.post(
        f"{RUNS}/{run_id}/waits/w/resolve", {"payload": 1, "idempotency_key": "other"}
    )
    assert again["ok"] is False


async def until(ask: Any) -> Any:
    """Yield once when there is a wait; a run reaches its wait by itself."""
    import asyncio

    async with asyncio.timeout(20):
        while not (await ask())["waits"]:
            await asyncio.sleep(0)
    yield


async def test_one_run_is_told_from_memory_until_it_changes(driving: Server) -> None:
    run_id = await driving.done(spec("a"))
    first = await driving.ask("GET", f"{RUNS}/{run_id}")
    again = await driving.ask("GET", f"{RUNS}/{run_id}")
    assert first.content == again.content
    await driving.post(f"{RUNS}/{run_id}/tasks/n2/retry")
    await driving.rest(run_id)
    assert (await driving.ask("GET", f"{RUNS}/{run_id}")).content != first.content
