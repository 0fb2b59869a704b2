"""Texts for a terminal: cleaned, shortened, spans and moments as people read them."""

import os
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from tandem.domain.errors import Problem

# Sequences that steer a terminal: CSI, OSC and the like, and other two-character escapes.
_ESCAPES: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
# What is left of C0 and C1 without tab and newline, and what reorders text unseen.
_CONTROLS: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def clean(text: str) -> str:
    """Return `text` without what could steer a terminal; tabs and newlines stay."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def one_line(text: str, *, width: int = 0) -> str:
    """Return `text` cleaned, on one line, shortened to `width` characters unless that is 0."""
    line = " ".join(clean(text).split())
    return f"{line[: width - 1]}…" if width and len(line) > width else line


def span(span_ms: int | None) -> str:
    """Return a span of milliseconds as people say it; empty for None."""
    if span_ms is None:
        return ""
    if span_ms < 1_000:
        return f"{max(span_ms, 0)} ms"
    if span_ms < 60_000:
        return f"{span_ms / 1_000:.1f} s"
    minutes, seconds = divmod(span_ms // 1_000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def size(size_bytes: int) -> str:
    """Return a number of bytes as people say it."""
    amount = float(size_bytes)
    for unit in ("B", "KB", "MB"):
        if amount < 1_000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1_000
    return f"{amount:.1f} GB"


def clock(at_ms: int) -> str:
    """Return a moment as the local time of day."""
    return _local(at_ms, "%H:%M:%S")


def moment(at_ms: int | None) -> str:
    """Return a moment as local date and time; empty for None."""
    return "" if at_ms is None else _local(at_ms, "%Y-%m-%d %H:%M:%S")


def _local(at_ms: int, shape: str) -> str:
    """Return a moment of the local calendar; its number where no calendar reaches."""
    try:
        return datetime.fromtimestamp(at_ms / 1_000).astimezone().strftime(shape)
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms after 1970"


def warning(doubt: "Problem") -> str:
    """Return a warning as one line: `file:line:column: warning: path: message (hint) [code]`."""
    return clean(f"{doubt.where}: warning: {doubt.what}")


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 node`, `2 nodes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def short(value: object, *, width: int = 100) -> str:
    """Return a JSON value as one short line."""
    from tandem.domain.json import encode

    return one_line(value if isinstance(value, str) else encode(value).decode(), width=width)


def plain(value: Any) -> Any:
    """Return records as what JSON has."""
    import msgspec

    return msgspec.to_builtins(value)


def print_json(value: object, *, indent: int = 2) -> None:
    """Print a value as JSON; `indent` 0 keeps it on one line."""
    import msgspec

    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:  # the name of a file that is no UTF-8 text
        import json

        encoded = json.dumps(plain(value), ensure_ascii=False).encode(errors="replace")
    click.echo(msgspec.json.format(encoded, indent=indent) if indent else encoded)


def print_table(rows: list[Mapping[str, str]]) -> None:
    """Print rows with the columns of the first one; nothing when there are none."""
    if not rows:
        return
    names = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    for row in ({name: name.upper() for name in names}, *rows):
        click.echo("  ".join(row[name].ljust(widths[name]) for name in names).rstrip())


def note(text: str) -> None:
    """Say something to the person; never part of what a program reads."""
    click.echo(text, err=True)


def is_terminal() -> bool:
    """Say whether a person sees what is printed and can answer."""
    able = os.environ.get("TERM", "") not in ("", "dumb")
    return able and sys.stdout.isatty() and sys.stdin.isatty()
