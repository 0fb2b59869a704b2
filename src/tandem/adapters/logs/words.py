"""What lines of the log may hold: the source of the reference."""

from collections.abc import Mapping
from typing import Final

KEYS: Final[Mapping[str, str]] = {
    "timestamp": "When it happened, in UTC (RFC 3339, milliseconds).",
    "at_ms": "The same as milliseconds since the epoch; not in columns.",
    "level": "`debug`, `info`, `warning` or `error`.",
    "event": "What happened: a lifecycle event of a run or node, or one of those below. What a "
    "library says is its own text.",
    "engine_id": "The engine that made the change.",
    "run_id": "The run.",
    "automation_id": "Its automation.",
    "tenant": "Whose it is.",
    "status": "Of the run after the change; of a request, the answer.",
    "seq": "The number of the event within its run: the same as in the history.",
    "node_id": "The node, where the event is about one.",
    "attempt": "The number of its attempt.",
    "reason": "Why, in words.",
    "duration_ms": "How long what ended has taken: a run since its first start, an attempt, a "
    "request; none for streams.",
    "request_id": "The request that led to the line; `x-request-id` of the answer says it, too. It "
    "is taken from the request if it gives one of letters, digits, `.`, `_` and `-`.",
    "method": "Of a request.",
    "route": "The template of its path; empty when no route knows it.",
    "url": "Where the server listens.",
    "message": "What is said in words.",
    "logger": "The library that speaks.",
    "exception": "A traceback.",
}

LINES: Final[Mapping[str, tuple[str, str]]] = {
    "serving": ("info", "The engine is open and the server answers."),
    "no_token": ("info", "No token is set, so everybody on this machine may do everything."),
    "stopping": ("info", "SIGTERM or SIGINT came; nothing new begins."),
    "stopped": ("info", "Everything was handed back and closed; the last line."),
    "engine_problem": (
        "warning",
        "Something beside the runs went wrong: the store is away, a status file cannot be written, "
        "a sweep fails. Said once for each time that it begins.",
    ),
    "http_request": ("debug", "A request was answered; `warning` when the server failed."),
    "http_incident": ("error", "A mistake of ours that was answered with a number only."),
}
"""The events that are no lifecycle events: their levels and what they mean."""
