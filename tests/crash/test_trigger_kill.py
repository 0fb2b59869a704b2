"""Killed while something starts a run by itself, or while a budget stops one: nothing is doubled.

Each story is cut off before and after each of its commits, and told once more by another process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from program import TOKENS
from story import KILLED, Look, Nursery, Story, effects_of, outputs_of
from trigger_stories import HANDOFF, INTERVAL_S, TASK

from tandem.adapters.sqlite.store import SqliteStore
from tandem.domain.automation import Automation
from tandem.domain.ids import LOCAL_TENANT, AutomationId
from tandem.domain.run import Run
from tandem.ports.store import RunFilter
from tandem.settings import Settings
from tandem.wiring import Parts, open_engine

COMMITS_MAX = 30
MOMENTS = ("before", "after")
JOB = AutomationId("job")


def job(folder: Path, **fields: Any) -> Automation:
    node = {"node_id": "n1", "action": {"kind": "command", "argv": ["true"]}}
    fields = {"automation_id": JOB, "workspace_root": str(folder / "work"), **fields}
    return Automation.model_validate({**fields, "flow": {"nodes": [node]}})


def prepare(folder: Path, step: Callable[[Parts], Awaitable[object]]) -> None:
    """Do something with the store before anybody is killed."""
    (folder / "work").mkdir(parents=True, exist_ok=True)

    async def do() -> None:
        url = f"sqlite:///{folder}/store.db"
        async with open_engine(Settings(state_dir=folder, database_url=url), drives=False) as parts:
            await step(parts)

    asyncio.run(do())


def kills() -> Iterator[dict[str, Any]]:
    """Yield every commit before and after which a story may be cut off."""
    for number in range(1, COMMITS_MAX):
        for moment in MOMENTS:
            yield {"commit": number, "moment": moment}


def tell(nursery: Nursery, folder: Path, story: str, kill: dict[str, Any]) -> bool:
    """Tell a story twice, cut off at first; return whether there was something to cut off."""
    code = nursery.run(folder, {}, kill, tell=story)
    said = folder / "stderr.txt"
    assert code in (0, KILLED), said.read_text()
    assert nursery.run(folder, {}, None, tell=story) == 0, said.read_text()
    return code == KILLED


class Found:
    """What the store of a story holds in the end."""

    def __init__(self, folder: Path) -> None:
        store = SqliteStore(folder / "store.db", synchronous="OFF")
        try:
            assert store.check() == []
            self.runs: list[Run] = list(store.list_runs(RunFilter(tenant=LOCAL_TENANT)))
            row = store.find_automation(JOB, tenant=LOCAL_TENANT)
            self.row = row
            self.firings = [] if row is None else list(store.list_firings(row, limit=10))
            self.unarchived = list(store.list_unarchived(after_no=0, limit=10))
            self.tasks = [store.read_backlog(run)[0] for run in self.runs]
        finally:
            store.close()


def test_schedule_whose_engine_is_killed_fires_once(nursery: Nursery, tmp_path: Path) -> None:
    policy = {"misfire_policy": {"type": "run_once"}}
    schedule = {"type": "interval", "interval_seconds": INTERVAL_S, **policy}
    cut_off = 0
    for number, kill in enumerate(kills()):
        folder = tmp_path / str(number)
        prepare(folder, lambda p, f=folder: p.automations.save(job(f, schedule=schedule), by="a"))
        before = Found(folder).row
        is_cut_off = tell(nursery, folder, "fire", kill)

        found = Found(folder)
        (run,), (firing,) = found.runs, found.firings
        assert before is not None
        assert found.row is not None
        assert before.next_fire_at_ms is not None
        assert (firing.outcome, firing.run_id) == ("created", run.run_id), kill
        assert firing.due_at_ms == found.row.fired_until_ms == before.next_fire_at_ms, kill
        if not is_cut_off:
            break
        cut_off += 1
    assert cut_off >= len(MOMENTS)


def watch(folder: Path, *, deposit: bool, **config: Any) -> None:
    async def step(parts: Parts) -> None:
        conditions = [{"kind": "handoff_available"}]
        watching = job(folder, watch_conditions=conditions, handoff_config=config)
        await parts.automations.save(watching, by="ann")
        if deposit:
            parts.engine.handoffs.deposit(HANDOFF)

    prepare(folder, step)


def hand_over(folder: Path) -> None:
    watch(folder, deposit=True)


@pytest.mark.parametrize("step", ["put", "remove"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_handoff_whose_file_is_being_moved_has_one_run(
    nursery: Nursery, tmp_path: Path, step: str, moment: str
) -> None:
    hand_over(tmp_path)
    assert tell(nursery, tmp_path, "take-handoffs", {"file": step, "moment": moment})
    check_handoff(tmp_path)


def test_handoff_whose_engine_is_killed_has_one_run(nursery: Nursery, tmp_path: Path) -> None:
    cut_off = 0
    for number, kill in enumerate(kills()):
        folder = tmp_path / str(number)
        hand_over(folder)
        is_cut_off = tell(nursery, folder, "take-handoffs", kill)
        check_handoff(folder)
        if not is_cut_off:
            break
        cut_off += 1
    assert cut_off >= 2 * len(MOMENTS)  # the run, and that its file is moved


@pytest.mark.parametrize("story", ["deposit-handoff", "approve-handoff"])
@pytest.mark.parametrize("step", ["put", "remove"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_handoff_whose_deposit_or_approval_is_killed_is_there_once(
    nursery: Nursery, tmp_path: Path, story: str, step: str, moment: str
) -> None:
    watch(tmp_path, deposit=story == "approve-handoff", auto_approve=story == "deposit-handoff")
    is_cut_off = tell(nursery, tmp_path, story, {"file": step, "moment": moment})
    assert is_cut_off is ((story, step) != ("deposit-handoff", "remove"))

    assert nursery.run(tmp_path, {}, None, tell="take-handoffs") == 0
    check_handoff(tmp_path)
    assert list((tmp_path / "work" / "shared" / "handoffs").glob("inbox/*")) == []


def check_handoff(folder: Path) -> None:
    found = Found(folder)
    (run,) = found.runs
    assert run.consumed_handoff_id == HANDOFF.handoff_id
    assert found.unarchived == []
    handoffs = folder / "work" / "shared" / "handoffs"
    assert list((handoffs / "approved").iterdir()) == []
    (archived,) = (handoffs / "archived").iterdir()
    assert run.run_id in archived.read_text()


def test_task_whose_claim_is_killed_is_claimed_once(nursery: Nursery, tmp_path: Path) -> None:
    action = {"kind": "python", "function": "host:plan", "arguments": {"name": "plan"}}
    builder = {"builder": {"project_backlog_tasks": True}}
    plan = {"node_id": "plan", "action": action, "metadata": builder}
    cut_off = 0
    for number, kill in enumerate(kills()):
        folder = tmp_path / str(number)
        assert nursery.run(folder, {"automation_id": "planner", "nodes": [plan]}, None) == 0
        is_cut_off = tell(nursery, folder, "claim-task", kill)

        ((task,),) = (backlog.tasks for backlog in Found(folder).tasks)
        assert (task.task_id, task.lease_owner, task.attempt) == (TASK, "ann", 1), kill
        if not is_cut_off:
            break
        cut_off += 1
    assert cut_off >= len(MOMENTS)


# A budget


def spending() -> dict[str, Any]:
    """Return three nodes in a row that spend; the second one uses the budget up."""

    def node(name: str, *after: str) -> dict[str, Any]:
        action = {"kind": "python", "function": "host:spend", "arguments": {"name": name}}
        return {"node_id": name, "depends_on": list(after), "action": action}

    return {
        "automation_id": "spending",
        "nodes": [node("a"), node("b", "a"), node("c", "b")],
        "execution": {"max_total_tokens": 2 * TOKENS},
    }


@pytest.fixture(scope="module")
def budgeted(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("budgeted") / "run"
    assert nursery.run(folder, spending(), None) == 0, (folder / "stderr.txt").read_text()
    return folder


def check_budget(folder: Path, kill: dict[str, Any]) -> None:
    events = [event for _, event, *_ in Look(folder).events]
    # Stopped once and allowed more once, wherever it was cut off.
    assert events.count("run_pause_requested") == 1, kill
    assert events.count("run_budget_changed") == 1, kill
    (run,) = Found(folder).runs
    ran = effects_of(folder).total()
    # A call that the store had not heard of when its engine died is all that can be missing.
    assert 3 * TOKENS <= run.total_tokens <= ran * TOKENS, kill


def test_run_that_is_stopped_by_its_budget_is_what_the_others_are_compared_with(
    budgeted: Path,
) -> None:
    assert outputs_of(budgeted)["end"] == "completed"
    check_budget(budgeted, {})


def test_budget_stops_once_wherever_its_engine_is_killed(
    nursery: Nursery, budgeted: Path, tmp_path: Path
) -> None:
    story = Story(nursery, spending(), outputs_of(budgeted))
    for number in range(1, COMMITS_MAX):
        folder, kill = tmp_path / str(number), {"commit": number, "moment": "after"}
        is_cut_off = story.play(folder, kill)
        check_budget(folder, kill)
        if not is_cut_off:
            break
    else:
        pytest.fail(f"the run took more than {COMMITS_MAX} commits")
    assert number > 8


@pytest.mark.parametrize("body", ["b", "c"])
def test_budget_stops_once_when_its_engine_dies_in_a_body_that_has_spent(
    nursery: Nursery, budgeted: Path, tmp_path: Path, body: str
) -> None:
    story = Story(nursery, spending(), outputs_of(budgeted))
    assert story.play(tmp_path / "run", {"body": body})
    check_budget(tmp_path / "run", {"body": body})
