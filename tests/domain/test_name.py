"""What a name may be."""

import pytest

from tandem.domain.name import ID_CHARS_MAX, is_id, name_problem


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


@pytest.mark.parametrize("text", ["a", "automation-v2-run-1", "a.b", "née", "x" * ID_CHARS_MAX])
def test_ids_name_folders_and_stand_in_one_line(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a/b", "a\\b", "a\nb", "a\0b", " a", "a`b", "x" * (ID_CHARS_MAX + 1)]
)
def test_what_leads_out_of_a_folder_or_a_line_is_no_id(text: str) -> None:
    assert not is_id(text)
