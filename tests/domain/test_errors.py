"""Errors as they are shown."""

from tandem.domain.errors import Problem


def test_problem_says_its_place_when_it_came_from_a_file() -> None:
    problem = Problem(code="c", message="is odd", path="nodes[0]", hint="drop it", file="a.yaml")
    assert str(problem) == problem.what == "nodes[0]: is odd (drop it) [c]"
    assert problem.where == "a.yaml"
    placed = Problem(code="c", message="is odd", file="a.yaml", line=3, column=5)
    assert (placed.where, placed.what) == ("a.yaml:3:5", "is odd [c]")
    assert str(placed) == "a.yaml:3:5: is odd [c]"
