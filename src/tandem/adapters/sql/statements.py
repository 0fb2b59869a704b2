"""Named statements, read once from `queries.sql`."""

import re
from collections.abc import Mapping
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load_statements(text: str | None = None) -> Mapping[str, str]:
    """Return the statements by name, without their comments."""
    source = text or files("tandem.adapters.sql").joinpath("queries.sql").read_text("utf-8")
    parts = _NAME.split(source)[1:]
    return {
        name: "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def load_migrations() -> list[tuple[int, str]]:
    """Return the migrations as number and script, lowest first."""
    found = [
        (int(entry.name.split("_", 1)[0]), entry.read_text("utf-8"))
        for entry in files("tandem.adapters.sql").joinpath("migrations").iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found)
