"""The bookkeeping of a driver: changed in place, it equals what is built anew."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tandem.domain.command import Claim, DecideGate, HandBack, Recover
from tandem.domain.errors import Refused
from tandem.domain.lifecycle import DRIVEN, NodeState, RunState
from tandem.domain.outcome import Failed, FailureClass, NeedsRepair, Succeeded
from tandem.domain.settling import Settled
from tandem.testing.builders import fresh_view, gate_node, python_node, random_story, timer_node
from tandem.testing.tale import ENGINE, Tale

N, S = NodeState, RunState


def test_new_run_is_ready_where_nothing_comes_before() -> None:
    view = fresh_view(python_node("a"), gate_node("g"), timer_node("t"), python_node("b", "a", "g"))

    assert list(view.ready) == [0]
    assert list(view.ready_parked) == [1, 2]
    assert view.open_deps == [0, 0, 0, 2]


def test_node_without_a_row_is_pending() -> None:
    node = fresh_view(python_node("a")).node(0)

    assert (node.state, node.attempts) == (N.PENDING, 0)


def test_ready_nodes_keep_the_order_in_which_they_became_ready() -> None:
    tale = Tale(
        python_node("a"),
        python_node("b"),
        python_node("c", "b"),
        python_node("d", "a"),
        parallel=2,
    )
    tale.command(Claim(engine_id=ENGINE))
    tale.advance()
    tale.succeed("b")  # c has its place at once
    assert list(tale.view.ready) == []
    assert tale.view.running == {0, 2}


def test_next_moment_is_the_earliest_of_backoffs_waits_and_gates() -> None:
    policy = {"max_attempts": 2, "backoff": {"strategy": "fixed", "initial_delay_ms": 400}}
    expiry = {"expires_after_ms": 900}
    tale = Tale(
        python_node("a", retry_policy=policy),
        timer_node("t", delay_ms=600),
        gate_node("g", gate={"required": True, "expiry_policy": expiry}),
        python_node("z"),
    ).claim()
    start_ms = tale.now_ms

    assert tale.view.next_due_at_ms(tale.now_ms) == start_ms + 600
    tale.fail("a")
    assert tale.view.next_due_at_ms(tale.now_ms) == start_ms + 400
    assert tale.view.next_due_at_ms(start_ms + 400) == start_ms + 600
    tale.command(DecideGate(decision="approve"))
    tale.now_ms += 600
    tale.advance()
    assert tale.view.next_due_at_ms(tale.now_ms) is None


@given(seed=st.integers(0, 2**32))
def test_random_changes_leave_the_view_that_the_rows_give(seed: int) -> None:
    """`Tale` builds the view anew after each change and compares."""
    random = Random(seed)
    story = random_story(random)
    tale = Tale(
        *(node.model_dump(mode="json", exclude_none=True) for node in story.automation.flow.nodes),
        parallel=story.automation.parallel_max,
    )
    for _ in range(40):
        tale.now_ms += random.choice((0, 10, 1_000))
        match tale.status:
            case S.QUEUED:
                tale.claim()
            case S.FAILED | S.BLOCKED:
                tale.command(Recover())
            case status if status in DRIVEN:
                _step(tale, random)
            case _:
                try:
                    word = random.choice(("approve", "rework", "done", "retry"))
                    tale.command(DecideGate(decision=word))
                except Refused:
                    continue
    assert tale.changes


def _step(tale: Tale, random: Random) -> None:
    running = sorted(tale.view.running)
    if not running or random.random() < 0.1:
        tale.command(HandBack(engine_id=ENGINE))
        return
    node_no = random.choice(running)
    outcome = random.choice(
        (
            Succeeded(output=1),
            Succeeded(output=1),
            NeedsRepair(reasons=("no",)),
            Failed(failure_class=FailureClass.EXECUTION_ERROR, message="it broke"),
        )
    )
    number = tale.view.node(node_no).attempts
    tale.advance(Settled(node_no=node_no, number=number, outcome=outcome, output=b"1"))
