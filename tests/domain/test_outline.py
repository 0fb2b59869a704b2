"""What a dry run tells of the nodes."""

from tandem.domain.graph import Plan
from tandem.domain.ids import DefinitionDigest
from tandem.domain.outline import outline
from tandem.testing.builders import automation, gate_node, python_node


def test_nodes_come_in_the_stages_in_which_they_could_start() -> None:
    plan = Plan(
        automation(
            python_node("c", "a", "b"),
            python_node("a", effects="external"),
            gate_node("b", "a", gate={"required": True, "instructions": "Good?"}),
            python_node("d"),
        ),
        DefinitionDigest("sha256:0"),
    )
    told = outline(plan)
    assert [(node.stage, node.node_id) for node in told] == [
        (1, "a"),
        (1, "d"),
        (2, "b"),
        (3, "c"),
    ]
    assert [node.asks for node in told] == ["", "", "Good?", ""]
    assert (told[0].kind, told[0].effects, told[0].attempts_max) == ("python", "external", 1)
    assert told[3].depends_on == ("a", "b")


def test_a_cycle_is_left_out() -> None:
    plan = Plan(
        automation(python_node("a", "b"), python_node("b", "a"), python_node("c")),
        DefinitionDigest("sha256:0"),
    )
    assert [node.node_id for node in outline(plan)] == ["c"]
