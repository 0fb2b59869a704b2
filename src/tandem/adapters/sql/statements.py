"""Named statements, read once from `queries.sql`."""

import re
from collections.abc import Mapping
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_statements(text: str | None = None) -> Mapping[str, str]:
    """Return the statements by name, without their comments.

    Raises:
        ValueError: two statements have the same name; one of them would be lost.
    """
    source = text or files("tandem.adapters.sql").joinpath("queries.sql").read_text("utf-8")
    parts = _NAME.split(source)[1:]
    found: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if name in found:
            raise ValueError(f"two statements are called {name}")
        lines = (line for line in body.splitlines() if not line.startswith("--"))
        found[name] = "\n".join(lines).strip()
    return found


def load_migrations() -> list[tuple[int, str]]:
    """Return the migrations as number and script, lowest first."""
    found = [
        (int(entry.name.split("_", 1)[0]), entry.read_text("utf-8"))
        for entry in files("tandem.adapters.sql").joinpath("migrations").iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found)
