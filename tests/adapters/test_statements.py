"""The named statements."""

import pytest

from tandem.adapters.sql.statements import parse_statements


def test_a_statement_is_found_by_its_name_without_its_comment() -> None:
    text = "-- name: a\n-- What it does.\nSELECT 1;\n\n-- name: b\nSELECT 2;\n"
    assert parse_statements(text) == {"a": "SELECT 1;", "b": "SELECT 2;"}


def test_two_statements_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two statements are called a"):
        parse_statements("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;\n")
