"""Named statements and migrations, read once in a process."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_VERSION = re.compile(r"^-- version: (\d+)$", re.MULTILINE)
_HERE = Path(__file__).parent


@cache
def load_statements() -> Mapping[str, str]:
    """Return the statements of `queries.sql` by name."""
    return MappingProxyType(parse_statements((_HERE / "queries.sql").read_text("utf-8")))


def parse_statements(text: str) -> dict[str, str]:
    """Return the statements of a text by name, without their comments.

    Raises:
        ValueError: two statements have the same name; one of them would be lost.
    """
    parts = _NAME.split(text)[1:]
    found: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if name in found:
            raise ValueError(f"two statements are called {name}")
        lines = (line for line in body.splitlines() if not line.startswith("--"))
        found[name] = "\n".join(lines).strip()
    return found


@cache
def load_migrations() -> Sequence[tuple[int, str]]:
    """Return the migrations as number and script, lowest first."""
    found = [
        (int(path.name.split("_", 1)[0]), path.read_text("utf-8"))
        for path in (_HERE / "migrations").glob("*.sql")
    ]
    return tuple(sorted(found))


@cache
def load_schema() -> tuple[int, str]:
    """Return the script that makes a new store at once, and the migration that it comes up to."""
    script = (_HERE / "schema.sql").read_text("utf-8")
    version = _VERSION.search(script)
    if version is None:
        raise AssertionError("schema.sql says which version it makes")
    return int(version[1]), script
