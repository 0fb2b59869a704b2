"""Admission: what stands in a run's way, whose turn it is, and what a run needs."""

from typing import Any

import pytest

from tandem.domain.admission import (
    Claimant,
    Facts,
    Lane,
    Lock,
    Needs,
    Refusal,
    demand_of,
    free_places,
    holds_keys,
    in_turn,
    is_workspace_key,
    mean_and_p95,
    needs_of,
    normal_path,
    overlap,
    paths_around,
    range_inside,
    refuse,
    wait_ms,
)
from tandem.domain.automation import Automation
from tandem.domain.ids import LOCAL_TENANT, EngineId, RunId, TenantId
from tandem.domain.lifecycle import RunState
from tandem.domain.run import QueueReason, Run
from tandem.domain.template import MissingReference
from tandem.testing.builders import fresh_view

ENGINE = EngineId("engine-a")


def run_with(**fields: Any) -> Run:
    run = fresh_view({"node_id": "n", "action": {"kind": "python", "function": "m:f"}}).run
    for name, value in fields.items():
        setattr(run, name, value)
    return run


def lock_of(path: str) -> Lock:
    return Lock(
        path=path,
        run_no=7,
        run_id=RunId("holder"),
        tenant=LOCAL_TENANT,
        epoch=1,
        engine_id=ENGINE,
        since_ms=500,
    )


# Checks in their order


def test_nothing_stands_in_the_way_of_a_run_that_needs_nothing() -> None:
    assert refuse(run_with(), Facts()) is None


def test_throttled_provider_comes_before_the_lock_and_the_longest_one_counts() -> None:
    facts = Facts(throttles={"openai": 2_000, "http:a": 9_000}, lock=lock_of("/r"), claims=1)

    found = refuse(run_with(lock_path="/r", concurrency_key="k", concurrency_limit=1), facts)

    assert found == Refusal(
        reason=QueueReason.RATE_LIMIT,
        resource_key="provider://local/http:a",
        provider="http:a",
        due_at_ms=9_000,
    )


def test_lock_comes_before_the_concurrency_key_and_names_the_path_that_is_held() -> None:
    facts = Facts(lock=lock_of("/r"), claims=1)

    found = refuse(run_with(lock_path="/r/sub", concurrency_key="k", concurrency_limit=1), facts)

    assert found == Refusal(reason=QueueReason.WORKSPACE_LOCK, resource_key="/r")


@pytest.mark.parametrize(("claims", "is_refused"), [(0, False), (1, False), (2, True), (3, True)])
def test_concurrency_counts_the_other_claims(claims: int, is_refused: bool) -> None:
    run = run_with(concurrency_key="concurrency://local/k", concurrency_limit=2)

    found = refuse(run, Facts(claims=claims))

    expected = Refusal(reason=QueueReason.CONCURRENCY, resource_key="concurrency://local/k")
    assert found == (expected if is_refused else None)


def test_only_workspaces_are_paths() -> None:
    assert is_workspace_key("/r")
    assert not is_workspace_key("concurrency://local/k")


@pytest.mark.parametrize("status", list(RunState))
def test_keys_are_held_while_the_run_is_driven_or_its_processes_may_live(status: RunState) -> None:
    driven = status in (RunState.RUNNING, RunState.PAUSING)

    assert holds_keys(run_with(status=status)) is driven
    assert holds_keys(run_with(status=status, cleanup=ENGINE))


# What a run needs


def automation_of(**fields: Any) -> Automation:
    node = {"node_id": "n", "action": {"kind": "command", "argv": ["true"]}}
    return Automation.model_validate({"automation_id": "a", "flow": {"nodes": [node]}} | fields)


def needs(automation: Automation, *, path: str = "/r", **inputs: Any) -> Needs:
    demand = demand_of(automation)
    return needs_of(automation, demand, tenant=TenantId("t/1"), inputs=inputs, real_path=path)


def test_run_that_may_write_files_needs_its_workspace_for_itself() -> None:
    assert needs(automation_of()).lock_path == "/r"
    assert needs(automation_of(), path="").lock_path == ""


@pytest.mark.parametrize("use", ["shared", "none"])
def test_shared_and_no_workspace_take_no_lock(use: str) -> None:
    assert needs(automation_of(execution={"workspace": use})).lock_path == ""


def test_concurrency_key_is_filled_from_the_inputs_and_belongs_to_the_tenant() -> None:
    found = needs(
        automation_of(concurrency={"key": "deploy-${inputs.place}", "limit": 3}), place="eu"
    )

    assert found.concurrency_key == "concurrency://t%2F1/deploy-eu"
    assert found.concurrency_limit == 3


def test_concurrency_key_that_is_a_number_is_written_as_json() -> None:
    found = needs(automation_of(concurrency={"key": "${inputs.n}", "limit": 1}), n=5)

    assert found.concurrency_key == "concurrency://t%2F1/5"


def test_concurrency_key_without_its_input_is_refused() -> None:
    with pytest.raises(MissingReference):
        needs(automation_of(concurrency={"key": "${inputs.place}", "limit": 1}))


def test_labels_of_local_nodes_are_needed_of_the_engine() -> None:
    nodes = [
        {"node_id": "a", "agent_id": "x", "resources": {"labels": ["gpu", "eu"]}},
        {"node_id": "b", "agent_id": "x", "resources": {"labels": ["eu"]}},
        {"node_id": "c", "agent_id": "x", "executor": "ray", "resources": {"labels": ["tpu"]}},
    ]

    assert needs(automation_of(flow={"nodes": nodes})).labels == ("eu", "gpu")


# Paths


@pytest.mark.parametrize(
    ("path", "normal"),
    [("/r/", "/r"), ("/r/./a/../b", "/r/b"), ("//r", "/r"), ("/", "/"), ("//", "/"), ("", "")],
)
def test_paths_have_one_form(path: str, normal: str) -> None:
    assert normal_path(path) == normal


def test_paths_around() -> None:
    assert paths_around("/a/b") == ("/a/b", "/a", "/")
    assert paths_around("/") == ("/",)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("/r", "/r", True),
        ("/r", "/r/sub", True),
        ("/r/sub", "/r", True),
        ("/", "/r", True),
        ("/r", "/rr", False),
        ("/r/a", "/r/b", False),
        ("/r-1", "/r", False),
    ],
)
def test_nested_workspaces_overlap(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is expected
    first, past = range_inside(one)
    inside = first <= other < past and other != "/"
    assert (other in paths_around(one) or inside) is expected


# Turns


def lane(tenant: str, *labels: str, owner: str | None = None) -> Lane:
    key = f"{tenant}{labels}{owner}"
    return Lane(key, TenantId(tenant), labels, EngineId(owner) if owner else None)


@pytest.mark.parametrize(
    ("waiting", "takes"),
    [
        (lane("t"), True),
        (lane("t", owner="engine-a"), True),
        (lane("t", owner="engine-b"), False),
        (lane("t", owner="engine-gone"), True),
        (lane("t", "gpu"), True),
        (lane("t", "gpu", "eu"), False),
        (lane("t", "eu", owner="engine-a"), False),
    ],
)
def test_engine_takes_what_is_meant_for_it(waiting: Lane, takes: bool) -> None:
    claimant = Claimant(engine_id=ENGINE, labels=("gpu",))

    assert claimant.takes(waiting, known=(ENGINE, EngineId("engine-b"))) is takes


def test_engine_for_its_own_takes_only_its_own() -> None:
    claimant = Claimant(engine_id=ENGINE, own_only=True)

    assert claimant.takes(lane("t", owner="engine-a"), known=(ENGINE,))
    assert not claimant.takes(lane("t"), known=(ENGINE,))
    assert not claimant.takes(lane("t", owner="engine-gone"), known=(ENGINE,))


@pytest.mark.parametrize(
    ("after", "order"), [("", "abc"), ("a", "bca"), ("b", "cab"), ("bb", "cab"), ("c", "abc")]
)
def test_turns_go_on_behind_the_tenant_who_was_last(after: str, order: str) -> None:
    lanes = [lane("c"), lane("a"), lane("b", "gpu"), lane("a", "gpu")]

    found = list(in_turn(lanes, after=after))

    assert "".join(tenant for tenant, _ in found) == order
    assert dict(found)[TenantId("a")] == [lane("a"), lane("a", "gpu")]


@pytest.mark.parametrize(
    ("limit", "driven", "total", "free"),
    [(8, 50, None, 8), (8, 5, 10, 5), (2, 5, 10, 2), (8, 12, 10, 0)],
)
def test_places_are_those_of_the_engine_within_those_of_the_store(
    limit: int, driven: int, total: int | None, free: int
) -> None:
    assert free_places(limit, driven=driven, runs_total_max=total) == free


# What is told


def test_wait_counts_from_the_queue_and_a_backoff_is_no_wait() -> None:
    backoff = run_with(queued_at_ms=100, due_at_ms=700, queue_reason=QueueReason.RETRY_BACKOFF)

    assert wait_ms(run_with(queued_at_ms=100, due_at_ms=100), now_ms=1_000) == 900
    assert wait_ms(run_with(created_at_ms=400), now_ms=1_000) == 600
    assert wait_ms(backoff, now_ms=1_000) == 300
    assert wait_ms(run_with(queued_at_ms=5_000), now_ms=1_000) == 0


def test_percentile_is_the_one_of_the_reference() -> None:
    assert mean_and_p95([]) == (0, 0)
    assert mean_and_p95([10]) == (10, 10)
    assert mean_and_p95([3, 1]) == (2, 3)
    assert mean_and_p95(list(range(100))) == (49, 95)
    assert mean_and_p95(list(range(10))) == (4, 9)
