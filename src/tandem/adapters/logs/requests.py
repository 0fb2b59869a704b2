"""Answered requests as lines of the log. Paths are told as their templates, queries never."""

from tandem.adapters.logs.log import Log


class RequestLog:
    """An observer of the HTTP interface."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def answered(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Write how a request was answered: a detail, unless the server failed."""
        duration_ms = None if seconds is None else round(seconds * 1_000, 3)
        write = self._log.warning if status >= 500 else self._log.debug
        write("http_request", method=method, route=route, status=status, duration_ms=duration_ms)

    def streaming(self, more: int) -> None:
        """Say nothing: a stream has a line when it ends."""
