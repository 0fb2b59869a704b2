"""Tasks in the output of a node, and who may have them when."""

from typing import Any

import msgspec
import pytest

from tandem.domain.backlog import (
    LEASE_MAX_MS,
    LEASE_MIN_MS,
    TASKS_MAX,
    Backlog,
    BacklogChange,
    BacklogCommand,
    BacklogTask,
    ClaimTask,
    CompleteTask,
    Projection,
    RequeueTask,
    TaskStatus,
    blackboard,
    decide_task,
    project,
    projects_tasks,
    read_tasks,
    task_id_of,
)
from tandem.domain.errors import InvalidRequest, NotFound, Refused
from tandem.domain.json import JsonValue
from tandem.domain.node import Node
from tandem.testing.builders import python_node

S = TaskStatus
FENCED = 'Here:\n```json\n{"backlog_tasks": [{"title": "Write tests"}]}\n```\ndone'


def planned(*tasks: dict[str, Any], attempt: int = 1, problem: str = "") -> Projection:
    texts = read_tasks("plan", list(tasks)) if tasks else ()
    return Projection(node_no=0, attempt=attempt, tasks=texts, problem=problem)


def tasks_of(*tasks: dict[str, Any]) -> list[BacklogTask]:
    return list(project([], planned(*tasks), now_ms=1).tasks)


ONE = {"task_id": "one", "title": "One"}
TWO = {"task_id": "two", "title": "Two", "task_dependencies": ["one"]}


class Board:
    """The tasks of a run, changed by commands."""

    def __init__(self, *tasks: dict[str, Any]) -> None:
        self.tasks = tasks_of(*tasks)
        self.told: list[tuple[str, str]] = []
        self._tokens = 0

    def ask(self, command: BacklogCommand, at: int = 10) -> BacklogChange:
        change = decide_task(self.tasks, command, node_ids=["plan"], now_ms=at)
        by_id = {task.task_id: task for task in (*self.tasks, *change.tasks)}
        self.tasks = list(by_id.values())
        self.told += [(r.event.removeprefix("context.task."), r.agent_id) for r in change.records]
        return change

    def claim(self, name: str, at: int = 10, **fields: Any) -> BacklogTask:
        self._tokens += 1
        command = ClaimTask(
            task_id=f"backlog-plan-{name}", lease_token=f"token-{self._tokens}", **fields
        )
        task = self.ask(command, at).task
        assert task is not None
        return task

    def requeue(self, name: str, at: int = 10, **fields: Any) -> None:
        self.ask(RequeueTask(task_id=f"backlog-plan-{name}", **fields), at)

    def complete(self, name: str, at: int = 10, **fields: Any) -> None:
        self.ask(CompleteTask(task_id=f"backlog-plan-{name}", **fields), at)


# Reading


@pytest.mark.parametrize(
    "output",
    [
        [{"title": "Write tests"}],
        {"backlog_tasks": [{"title": "Write tests"}]},
        '[{"title": "Write tests"}]',
        FENCED,
        "```\nnothing\n```\n" + FENCED,
        {"content": FENCED},
        {"text": '[{"title": "Write tests"}]'},
        {"content": {"backlog_tasks": [{"title": "Write tests"}]}},
    ],
)
def test_tasks_are_found_in_each_form_of_an_output(output: JsonValue) -> None:
    (task,) = read_tasks("plan", output)
    assert (task.title, task.name) == ("Write tests", "Write tests")
    assert task_id_of("plan", task.name) == "backlog-plan-write-tests"


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("no tasks", "no list of tasks"),
        ({"content": 5}, "no list of tasks"),
        (None, "no list of tasks"),
        (7, "no list of tasks"),
        ('{"a": 1}', "no list of tasks"),
        (["one"], "a task must be an object"),
        ([{}], "a task must be an object"),
        ([{"title": "A b"}, {"title": "a B"}], "two tasks are called `a B`"),
        ([{"title": str(n)} for n in range(TASKS_MAX + 1)], "more than the 1000"),
    ],
)
def test_output_without_tasks_says_so(output: JsonValue, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_tasks("plan", output)


def test_task_has_what_the_output_says_of_it() -> None:
    (task,) = read_tasks(
        "plan",
        [
            {
                "id": 7,
                "title": "T",
                "description": "d",
                "depends_on": "one",
                "write_scope": ["src", " "],
                "acceptance_criteria": "passes",
                "priority": 2,
                "task_owner": "ann",
                "status": "done",
            }
        ],
    )
    assert (task.name, task.dependencies, task.write_scope) == ("7", ("one",), ("src",))
    assert (task.acceptance_criteria, task.priority, task.is_done) == (("passes",), 2, True)
    (odd,) = read_tasks("plan", [{"title": "T", "priority": "high", "write_scope": " "}])
    assert (odd.priority, odd.write_scope) == (0, ())


def test_id_of_a_name_without_letters_is_its_digest() -> None:
    assert task_id_of("plan", "日本") != task_id_of("plan", "東京")


@pytest.mark.parametrize(
    ("builder", "projects"),
    [
        ({"project_backlog_tasks": True}, True),
        ({"task_kind": "repo_plan"}, True),
        ({"project_backlog_tasks": "yes"}, False),
        ({}, False),
    ],
)
def test_which_nodes_put_up_tasks(builder: dict[str, Any], projects: bool) -> None:
    node = Node.model_validate(python_node("plan", metadata={"builder": builder}))
    assert projects_tasks(node) is projects


# Putting up


def test_new_tasks_are_runnable_or_wait_for_others() -> None:
    tasks = tasks_of(ONE, TWO, {"title": "Three", "status": "done"})
    assert [task.status for task in tasks] == [S.RUNNABLE, S.PENDING, S.DONE]


def test_next_attempt_keeps_what_was_begun_and_takes_away_what_nobody_began() -> None:
    board = Board(ONE, TWO, {"title": "Three"}, {"title": "Four"})
    board.claim("three")
    again = planned({**ONE, "title": "Uno"}, TWO, attempt=2)
    change = project(board.tasks, again, now_ms=20)
    assert [task.task.title for task in change.tasks] == ["Uno"]
    assert change.tasks[0].task_rev == 2
    assert change.removed == ("backlog-plan-four",)
    assert [r.event for r in change.records] == ["context.task.withdrawn"]
    assert project(board.tasks, planned(problem="no list"), now_ms=20) == BacklogChange()


# Commands


def test_claim_has_a_bounded_span_and_a_token() -> None:
    for wanted, span in ((1, LEASE_MIN_MS), (7_000, 7_000), (10**9, LEASE_MAX_MS)):
        task = Board(ONE).claim("one", lease_ms=wanted)
        assert task.lease_expires_at_ms == 10 + span
    assert (task.status, task.lease_token, task.task_rev, task.attempt) == (
        S.IN_PROGRESS,
        "token-1",
        2,
        1,
    )


def test_agent_is_the_one_that_asks_or_the_owner_or_the_assigned_or_the_default() -> None:
    owned = {**ONE, "task_owner": "ann", "assigned_agent": "bob"}
    assert Board(owned).claim("one", agent_id=" eve ").lease_owner == "eve"
    assert Board(owned).claim("one").lease_owner == "ann"
    assert Board({**ONE, "assigned_agent": "bob"}).claim("one").lease_owner == "bob"
    assert Board(ONE).claim("one").lease_owner == "backlog-worker"


def test_only_one_has_a_task_until_its_span_is_over() -> None:
    board = Board(ONE, {"title": "Three"})
    board.claim("one", agent_id="ann", lease_ms=5_000)
    with pytest.raises(Refused, match="`ann` has it") as refused:
        board.claim("one", 5_009, agent_id="bob")
    assert refused.value.code == "AUTOMATION_V2_BACKLOG_TASK_NOT_CLAIMABLE"
    assert refused.value.details == {"status": "in_progress"}
    assert board.claim("three", 5_010, agent_id="bob").lease_owner == "bob"
    assert board.told[1:] == [("stale_requeued", "ann"), ("claimed", "bob")]
    assert board.claim("one", 5_011, agent_id="ann").attempt == 2


def test_stale_task_is_given_back_and_claimed_in_one() -> None:
    board = Board(ONE)
    board.claim("one", agent_id="ann", lease_ms=5_000)
    task = board.claim("one", 5_010, agent_id="bob")
    assert (task.lease_owner, task.task_rev) == ("bob", 4)
    assert board.told == [("claimed", "ann"), ("stale_requeued", "ann"), ("claimed", "bob")]


def test_dependencies_have_to_be_done() -> None:
    board = Board(ONE, TWO, {"title": "Lost", "depends_on": ["none"]})
    with pytest.raises(Refused, match="`backlog-plan-one`, which is runnable"):
        board.claim("two")
    with pytest.raises(Refused, match="`backlog-plan-none`, which is no task of the run"):
        board.claim("lost")
    board.claim("one")
    board.complete("one")
    assert board.claim("two").status is S.IN_PROGRESS
    with pytest.raises(Refused, match="it is done"):
        board.claim("one")


def test_task_waits_for_the_moment_of_its_next_try() -> None:
    board = Board(ONE)
    board.tasks = [msgspec.structs.replace(board.tasks[0], next_retry_at_ms=15)]
    with pytest.raises(Refused, match="tried again in 5 ms"):
        board.claim("one")
    assert board.claim("one", 15).status is S.IN_PROGRESS


def test_requeued_task_is_free_and_a_done_one_is_not_requeued() -> None:
    board = Board(ONE)
    board.claim("one", agent_id="ann")
    board.requeue("one")
    (task,) = board.tasks
    assert (task.status, task.lease_owner, task.lease_token, task.lease_expires_at_ms) == (
        S.RUNNABLE,
        "",
        "",
        None,
    )
    board.claim("one")
    board.complete("one")
    with pytest.raises(Refused, match="it is done") as refused:
        board.requeue("one")
    assert refused.value.code == "AUTOMATION_V2_BACKLOG_TASK_NOT_REQUEUEABLE"


def test_only_whoever_has_a_task_completes_it() -> None:
    board = Board(ONE)
    with pytest.raises(Refused, match="claim it first"):
        board.complete("one")
    board.claim("one", agent_id="ann")
    with pytest.raises(Refused, match="`ann` has it"):
        board.complete("one", agent_id="bob")
    with pytest.raises(Refused, match="claimed again since"):
        board.complete("one", lease_token="old")
    board.complete("one", agent_id="bob", lease_token="token-1")
    assert board.tasks[0].status is S.DONE


def test_same_call_again_changes_nothing() -> None:
    board = Board(ONE)
    first = board.claim("one", command_id="c1")
    change = board.ask(ClaimTask(task_id="backlog-plan-one", lease_token="x", command_id="c1"))
    assert change == BacklogChange(task=first)


def test_what_is_no_task_is_told_apart() -> None:
    board = Board(ONE)
    for task_id, kind, code in (
        (" ", InvalidRequest, "AUTOMATION_V2_BACKLOG_TASK_REQUIRED"),
        ("plan", Refused, "AUTOMATION_V2_BACKLOG_TASK_INVALID_TYPE"),
        ("none", NotFound, "AUTOMATION_V2_BACKLOG_TASK_NOT_FOUND"),
    ):
        with pytest.raises(kind) as refused:
            board.ask(RequeueTask(task_id=task_id))
        assert refused.value.code == code


def test_blackboard_shows_tasks_as_the_contract_does() -> None:
    board = Board(ONE, TWO)
    board.claim("one", agent_id="ann")
    shown = blackboard(Backlog(tasks=tuple(board.tasks), revision=3), automation_id="a")
    assert shown["revision"] == 3
    one, two = shown["tasks"]
    assert (one["id"], one["status"], one["lease_owner"]) == (
        "backlog-plan-one",
        "in_progress",
        "ann",
    )
    assert one["task_type"] == "automation_backlog_item"
    assert one["payload"]["source_node_id"] == "plan"
    assert two["depends_on_task_ids"] == ["backlog-plan-one"]
