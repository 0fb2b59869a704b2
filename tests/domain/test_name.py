"""What a name may be."""

import pytest

from tandem.domain.name import name_problem


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "blank"),
        (" \t ", "blank"),
        ("x" * 11, "at most 10"),
        ("a\0b", "control"),
        ("a\nb", "line breaks"),
        ("a\x9bb", "control"),
        ("a\u2028b", "line breaks"),
    ],
)
def test_what_is_no_name_is_told_why(name: str, says: str) -> None:
    assert says in name_problem(name, chars_max=10)


@pytest.mark.parametrize("name", ["a", "Täglich ☀", "x" * 10, "名前", "🙂"])
def test_names_are_of_any_script(name: str) -> None:
    assert name_problem(name, chars_max=10) == ""
