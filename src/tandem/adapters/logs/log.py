"""How lines of the log are made: JSON for machines, columns for people, never a secret."""

import logging
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, Processor, WrappedLogger

from tandem.domain.json import encode
from tandem.domain.redaction import Redactor

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "json", "console")

Line = MutableMapping[str, Any]
Log = FilteringBoundLogger

_FIRST: Final = ("timestamp", "at_ms", "level", "event")
_CONTROL: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (9, 10)
} | {10: "\\n", 9: " "}
"""Nothing that a body said may move the cursor of whoever reads the log, or begin a line."""


def make_log(
    stream: TextIO,
    *,
    kind: str,
    level: str,
    redactor: Redactor,
    now_ms: Callable[[], int],
) -> Log:
    """Return a log that writes to a stream.

    Args:
        stream: where lines go; each is written at once.
        kind: `json`, `console`, or `auto`: columns where a person looks at the stream.
        level: the least important lines that are written; one of `LEVELS`.
        redactor: sees every line before it is written.
        now_ms: the clock of lines that do not say `at_ms` themselves.
    """
    if kind == "auto":
        kind = "console" if stream.isatty() else "json"

    def stamp(_: WrappedLogger, __: str, line: Line) -> Line:
        at_ms = line.setdefault("at_ms", now_ms())
        moment = datetime.fromtimestamp(at_ms / 1_000, UTC)
        line["timestamp"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return line

    def redact(_: WrappedLogger, __: str, line: Line) -> Line:
        return cast("Line", redactor.value(line))

    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        stamp,
        structlog.processors.format_exc_info,
        redact,
        *(_columns(stream) if kind == "console" else (_in_order, _to_json)),
    ]
    bound: Any = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        cache_logger_on_first_use=True,
    )
    return cast("Log", bound.bind())


def take_over(log: Log, *, level: str) -> None:
    """Have everything that libraries say through `logging` written as lines of this log."""
    handler = _Passing(log)
    logging.basicConfig(handlers=[handler], level=max(_number(level), logging.INFO), force=True)
    # It says each connection; what a request was is in a line of ours.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class _Passing(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as a line."""
        try:
            said = record.getMessage()
        except (TypeError, ValueError):
            said = str(record.msg)
        exc_info = record.exc_info if record.exc_info and record.exc_info[0] else None
        more = {"exc_info": exc_info} if exc_info else {}
        self._log.log(record.levelno, said, logger=record.name, **more)


def _columns(stream: TextIO) -> tuple[Processor, ...]:
    return (
        _printable,
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=32),
    )


def _printable(_: WrappedLogger, __: str, line: Line) -> Line:
    del line["at_ms"]
    return {
        key: value.translate(_CONTROL) if isinstance(value, str) and key != "exception" else value
        for key, value in line.items()
    }


def _in_order(_: WrappedLogger, __: str, line: Line) -> Line:
    return {key: line[key] for key in _FIRST} | {k: line[k] for k in line if k not in _FIRST}


def _to_json(_: WrappedLogger, __: str, line: Line) -> str:
    return encode(line).decode("utf-8", "replace")


def _number(level: str) -> int:
    return int(getattr(logging, level.upper()))
