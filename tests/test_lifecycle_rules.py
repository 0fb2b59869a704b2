"""What the page of lifecycle rules names exists, and the rules without a row are known."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
TRANSITIONS = [
    *range(1, 7),
    *range(10, 15),
    *range(20, 25),
    *range(30, 44),
    *range(50, 67),
    *range(70, 96),
]
APPENDIX = {"A.1": 15, "A.2": 5, "A.3": 3, "A.4": 26, "A.5": 24, "A.6": 15}
WEAKNESSES = range(1, 40)
RULES = {
    *(f"T{number:02d}" for number in TRANSITIONS),
    *(f"W-{number:02d}" for number in WEAKNESSES),
    *(f"{part}-{n:02d}" for part, count in APPENDIX.items() for n in range(1, count + 1)),
}
WITHOUT_A_ROW: set[str] = set()


class Row(NamedTuple):
    """One rule."""

    name: str
    says: str
    code: str
    test: str
    verdict: str

    def names(self) -> list[str]:
        """Return the parts of modules and the tests that it names."""
        code = re.split(r"[,;]\s*", self.code)
        return [*filter(None, code), *filter(None, re.split(r"[,;]\s*(?=tests)", self.test))]


@cache
def rows() -> list[Row]:
    return [
        Row(*(cell.strip() for cell in line.split(" | ")))
        for path in sorted((ROOT / "docs" / "reference" / "rules").glob("*.psv"))
        for line in path.read_text("utf-8").splitlines()
        if line.strip()
    ]


def test_rules_without_a_row_are_known() -> None:
    assert RULES - {row.name for row in rows()} == WITHOUT_A_ROW


def test_every_row_judges() -> None:
    for row in rows():
        assert row.says, row
        assert re.match(r"same\b|better\b|not applicable: .", row.verdict), row
        assert row.verdict.startswith("not applicable") or (row.code and row.test), row


MAY_BE_NOT_APPLICABLE = {"T04", "T06", "T12", "T53", "T66", "W-28"}
"""Mirrored runs, spend caps of governance and long-running goals; and internals, in A.5."""


def test_only_what_is_outside_of_this_engine_is_not_applicable() -> None:
    left_out = {row.name for row in rows() if row.verdict.startswith("not applicable")}
    assert {name for name in left_out if not name.startswith("A.5-")} <= MAY_BE_NOT_APPLICABLE


def test_what_rows_name_exists() -> None:
    assert [(row.name, name) for row in rows() for name in row.names() if not exists(name)] == []


def exists(name: str) -> bool:
    """Say whether there is this test, or this part of a module."""
    if name.startswith("tests"):
        path, _, function = name.partition("::")
        holder, _, method = function.rpartition("::")
        return method.partition("[")[0] in (suite_methods() if holder else functions(ROOT / path))
    module, _, attribute = name.partition(":")
    found = importlib.import_module(module)
    for part in filter(None, attribute.split(".")):
        found = getattr(found, part, None)
    return found is not None


@cache
def all_functions() -> list[str]:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [function for path in files for function in functions(path)]


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


@cache
def suite_methods() -> frozenset[str]:
    """Return the tests that every store inherits."""
    kit = (ROOT / "src" / "tandem" / "testing").glob("*_suite.py")
    return frozenset().union(*map(functions, kit))


NOT_OURS = {"W-28"}
"""Weaknesses of what this engine does not have."""


@pytest.mark.parametrize(
    "name", sorted({f"W-{n:02d}" for n in WEAKNESSES} - WITHOUT_A_ROW - NOT_OURS)
)
def test_every_weakness_has_a_test_and_a_mutant_that_fails_it(name: str) -> None:
    prefix = f"test_w{name[2:]}_"
    found = [function for function in all_functions() if function.startswith(prefix)]
    assert [function for function in found if not function.endswith("is_caught")], prefix
    assert [function for function in found if function.endswith("is_caught")], prefix
