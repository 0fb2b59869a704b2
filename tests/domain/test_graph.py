"""The numbered graph of one automation version."""

import pytest

from tandem.domain.graph import Plan
from tandem.domain.ids import DefinitionDigest, NodeId
from tandem.testing.builders import automation, gate_node, python_node, timer_node


def make_plan(parallel: int = 4) -> Plan:
    return Plan(
        automation(
            python_node("a"),
            python_node("b", "a"),
            gate_node("c", "a", "b"),
            timer_node("d", "c"),
            python_node("e"),
            parallel=parallel,
        ),
        DefinitionDigest("sha256:1"),
    )


def test_nodes_are_numbered_in_the_order_of_the_document() -> None:
    plan = make_plan()

    assert [node.node_id for node in plan.nodes] == ["a", "b", "c", "d", "e"]
    assert [node.node_no for node in plan.nodes] == [0, 1, 2, 3, 4]
    assert len(plan) == 5


def test_neighbours_are_numbers_in_both_directions() -> None:
    plan = make_plan()

    assert [node.depends_on for node in plan.nodes] == [(), (0,), (0, 1), (2,), ()]
    assert [node.successors for node in plan.nodes] == [(1, 2), (2,), (3,), (), ()]


def test_dependency_that_is_named_twice_counts_once() -> None:
    plan = Plan(automation(python_node("a"), python_node("b", "a", "a")), DefinitionDigest("x"))

    assert plan.nodes[1].depends_on == (0,)
    assert plan.nodes[0].successors == (1,)


def test_gates_and_waits_need_no_place_to_run() -> None:
    assert [node.is_parked for node in make_plan().nodes] == [False, False, True, True, False]


def test_node_is_found_by_name_or_not_at_all() -> None:
    plan = make_plan()

    found = plan.node(NodeId("c"))
    assert found is plan.nodes[2]
    assert plan.node(NodeId("z")) is None


@pytest.mark.parametrize(
    ("roots", "expected"),
    [((), ()), ((4,), (4,)), ((1,), (1, 2, 3)), ((0,), (0, 1, 2, 3)), ((3, 1), (1, 2, 3))],
)
def test_descendants_come_with_their_roots_in_order(
    roots: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert make_plan().with_descendants(roots) == expected


@pytest.mark.parametrize(("wanted", "given"), [(1, 1), (7, 7), (0, 1), (5_000, 1_000)])
def test_parallelism_is_bounded(wanted: int, given: int) -> None:
    assert make_plan(parallel=wanted).parallel == given
