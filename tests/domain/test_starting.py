"""Runs that are held, and runs that cannot start."""

from typing import Any

import pytest

from tandem.domain.automation import Automation
from tandem.domain.change import Change
from tandem.domain.claim_basis import ClaimBasis
from tandem.domain.command import Cancel, Claim
from tandem.domain.decision import decide
from tandem.domain.errors import Refused
from tandem.domain.hold import AUTOMATION_KEYS_END, Hold, automation_key, is_automation_key
from tandem.domain.ids import AutomationId, ChangeId, EngineId, NodeId, RunId
from tandem.domain.lifecycle import RunEvent, RunState, StopKind
from tandem.domain.run import Failure, NodeRun, QueueReason
from tandem.domain.start_check import (
    FailedCheck,
    Obstacle,
    WorkspaceState,
    check_activation,
    check_workspace,
    cleanup_failed,
    is_first_start,
    own_leftovers,
)
from tandem.domain.starting import can_be_claimed, fail_start
from tandem.domain.view import RunView
from tandem.testing.builders import fresh_view, python_node

ENGINE = EngineId("e")
HOLD = Hold(
    reason=QueueReason.AUTOMATION_PAUSED,
    resource_key="automation:job",
    holder="job",
    since_ms=3,
    words="it is paused",
)


def decided(view: RunView, **more: Any) -> Change:
    return decide(view, Claim(engine_id=ENGINE, **more), change_id=ChangeId("c"), now_ms=7)


def automation(*nodes: dict[str, Any], **fields: Any) -> Automation:
    chosen = list(nodes) or [python_node("a")]
    return Automation.model_validate({"automation_id": "job", "flow": {"nodes": chosen}, **fields})


# Held


def test_a_held_run_stays_queued_and_says_by_what() -> None:
    change = decided(fresh_view(python_node("a")), hold=HOLD)
    run = change.run
    assert (run.status, run.due_at_ms, run.epoch, run.engine_id) == (RunState.QUEUED, None, 0, None)
    assert (run.queue_reason, run.resource_key) == (
        QueueReason.AUTOMATION_PAUSED,
        "automation:job",
    )
    (event,) = change.events
    assert event.event is RunEvent.RUN_HELD
    assert event.reason == "it is paused"
    assert event.metadata == {
        "queue_reason": "automation_paused",
        "resource_key": "automation:job",
        "holder": "job",
        "since_ms": 3,
    }


def test_a_held_run_is_not_claimed() -> None:
    held = fresh_view(python_node("a"))
    held.apply(decided(held, hold=HOLD))
    with pytest.raises(Refused, match="held by automation:job"):
        decided(held)


def test_a_held_run_that_is_cancelled_is_held_no_more() -> None:
    held = fresh_view(python_node("a"))
    held.apply(decided(held, hold=HOLD))
    run = decide(held, Cancel(), change_id=ChangeId("d"), now_ms=8).run
    assert (run.status, run.resource_key, run.queue_reason) == (RunState.CANCELLED, "", None)


def test_keys_of_automations_lie_together() -> None:
    key = automation_key(AutomationId("job"))
    assert is_automation_key(key)
    assert key < AUTOMATION_KEYS_END < "concurrency://local/k"
    assert not is_automation_key("/r")
    assert not is_automation_key("concurrency://local/automation:job")


# Ends at the claim


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, True),
        ({"hold": HOLD}, False),
        ({"basis": ClaimBasis(unreadable="bad json")}, False),
        ({"basis": ClaimBasis(lacks_context=True)}, False),
    ],
)
def test_a_run_that_will_not_be_claimed_waits_for_nothing_else(
    more: dict[str, Any], *, expected: bool
) -> None:
    view = fresh_view(python_node("a"))
    assert can_be_claimed(view.run, Claim(engine_id=ENGINE, **more)) is expected
    assert (decided(view, **more).run.status is RunState.RUNNING) is expected


def test_an_unreadable_definition_blocks_the_run() -> None:
    change = decided(fresh_view(python_node("a")), basis=ClaimBasis(unreadable="bad json"))
    run = change.run
    words = "automation run checkpoint could not be parsed during startup: bad json"
    assert [event.event for event in change.events] == [RunEvent.RUN_BLOCKED_CORRUPT]
    assert (run.status, run.detail, run.finished_at_ms) == (RunState.BLOCKED, words, 7)
    assert run.last_failure == Failure(
        node_id=NodeId("checkpoint"),
        reason=words,
        failed_at_ms=7,
        failure_kind="checkpoint_recovery_failed",
    )
    assert not ClaimBasis(unreadable="bad json").can_start


def test_a_definition_that_is_gone_fails_the_run() -> None:
    change = decided(fresh_view(python_node("a")), basis=ClaimBasis(is_missing=True))
    assert change.events[0].event is RunEvent.RUN_FAILED_STARTUP
    assert (change.run.status, change.run.detail) == (RunState.FAILED, "automation not found")
    assert change.run.last_failure is None
    assert not ClaimBasis(is_missing=True).can_start


def test_a_missing_context_fails_the_run_with_the_full_record() -> None:
    change = decided(fresh_view(python_node("a")), basis=ClaimBasis(lacks_context=True))
    run = change.run
    words = "runtime context partition missing for automation run"
    assert [(event.event, event.reason) for event in change.events] == [
        (RunEvent.RUN_FAILED_STARTUP, words)
    ]
    assert (run.status, run.detail, run.finished_at_ms) == (RunState.FAILED, words, 7)
    assert (run.epoch, run.engine_id, run.due_at_ms, run.queue_reason) == (0, None, None, None)
    assert run.last_failure == Failure(
        node_id=NodeId("runtime_context"),
        reason=words,
        failed_at_ms=7,
        failure_kind="startup_runtime_context_missing",
    )


def test_the_first_failure_is_kept() -> None:
    view = fresh_view(python_node("a"))
    first = Failure(node_id=NodeId("a"), reason="before", failed_at_ms=1)
    view.run.last_failure = first
    assert decided(view, basis=ClaimBasis(lacks_context=True)).run.last_failure == first


def test_a_context_that_was_given_with_the_run_is_enough() -> None:
    view = fresh_view(python_node("a"))
    view.run.runtime_context = {"routines": []}
    change = decided(view, basis=ClaimBasis(lacks_context=True))
    assert change.run.status is RunState.RUNNING


# Checks before the first node


@pytest.mark.parametrize(
    "report", [None, {}, {"ready_for_activation": True, "issues": [{"blocking": True}]}]
)
def test_a_plan_package_that_is_ready_or_absent_is_no_obstacle(report: Any) -> None:
    assert check_activation(automation(metadata={"plan_package_validation": report})) is None


@pytest.mark.parametrize(
    ("issues", "words"),
    [
        (
            [{"message": "mind", "code": "w"}, {"message": "no", "code": "x", "blocking": True}],
            "no (x)",
        ),
        ([{"message": "mind", "code": "w"}], "mind (w)"),
        ([], "it has not been validated (not_ready)"),
    ],
)
def test_a_plan_package_that_is_not_ready_says_why(issues: Any, words: str) -> None:
    report = {"ready_for_activation": False, "issues": issues}
    obstacle = check_activation(automation(metadata={"plan_package_validation": report}))
    assert obstacle is not None
    assert obstacle.check is FailedCheck.ACTIVATION
    assert obstacle.detail == f"plan package not ready for activation: {words}"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (WorkspaceState.MISSING, "workspace_root `/w` for automation `job` does not exist"),
        (
            WorkspaceState.NOT_A_DIRECTORY,
            "workspace_root `/w` for automation `job` is not a directory",
        ),
        (WorkspaceState.READY, None),
    ],
)
def test_a_workspace_must_be_a_directory(found: WorkspaceState, words: str | None) -> None:
    obstacle = check_workspace("/w", "job", found)
    assert (None if obstacle is None else obstacle.detail) == words


@pytest.mark.parametrize(
    ("check", "event", "kind"),
    [
        (
            FailedCheck.ACTIVATION,
            RunEvent.RUN_FAILED_ACTIVATION,
            StopKind.GUARDRAIL_STOPPED,
        ),
        (FailedCheck.WORKSPACE, RunEvent.RUN_FAILED_STARTUP, StopKind.GUARDRAIL_STOPPED),
        (FailedCheck.CLEANUP, RunEvent.RUN_FAILED_STARTUP, None),
    ],
)
def test_a_failed_check_ends_the_run_through_the_table(
    check: FailedCheck, event: RunEvent, kind: StopKind | None
) -> None:
    view = fresh_view(python_node("a"))
    view.apply(decided(view))
    is_cleanup = check is FailedCheck.CLEANUP
    obstacle = cleanup_failed("no") if is_cleanup else Obstacle(check=check, detail="no")
    change = fail_start(view, obstacle, change_id=ChangeId("f"), now_ms=8)
    run = change.run
    assert [(e.event, e.reason, e.stop_kind) for e in change.events] == [(event, "no", kind)]
    assert change.events[0].metadata == {"check": check.value}
    assert (run.status, run.detail, run.stop_kind) == (RunState.FAILED, "no", kind)
    assert run.stop_reason == ("no" if kind else "")
    assert (run.finished_at_ms, run.engine_id) == (8, None)
    assert change.moved


def test_a_first_start_has_nothing_behind_it() -> None:
    view = fresh_view(python_node("a"))
    assert is_first_start(view)
    assert not is_first_start(RunView(view.run, view.plan, [NodeRun(node_no=0)]))


def test_only_what_lies_in_the_folder_of_the_run_is_its_own() -> None:
    nodes = [
        python_node(
            "a",
            output_contract={
                "required_files": [".tandem/artifacts/a.md", "report.md", ".tandem/runs/other/x"]
            },
            metadata={
                "artifact": {"path": "./.tandem/artifacts/a.md"},
                "artifacts": [{"path": " .tandem/runs/{run_id}/b.md "}, {"path": 3}, "text"],
                "builder": {
                    "output_path": ".tandem/artifacts/../../../etc/passwd",
                    "output_files": [".tandem/artifacts/c.md"],
                    "must_write_files": ["src/main.py", " "],
                },
            },
        ),
        python_node("b"),
    ]
    found = own_leftovers(automation(*nodes, output_targets=["out/all.md"]), RunId("r1"))
    assert found == (
        ".tandem/runs/r1/artifacts/a.md",
        ".tandem/runs/r1/b.md",
        ".tandem/runs/r1/artifacts/c.md",
    )
