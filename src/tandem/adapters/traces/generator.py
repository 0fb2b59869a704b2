"""Ids for the SDK: those that were given for the next span, else random ones."""

from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator


class GivenIds(IdGenerator):
    """Makes the next span with the ids that were given for it."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self._trace_id: int | None = None
        self._span_id: int | None = None

    def give(self, trace_id: int, span_id: int) -> None:
        """See `NextIds.give`."""
        self._trace_id, self._span_id = trace_id, span_id

    def generate_trace_id(self) -> int:
        """Return the id of the trace of the next span."""
        trace_id, self._trace_id = self._trace_id, None
        return self._random.generate_trace_id() if trace_id is None else trace_id

    def generate_span_id(self) -> int:
        """Return the id of the next span."""
        # A span below another one takes its trace from there.
        span_id, self._span_id, self._trace_id = self._span_id, None, None
        return self._random.generate_span_id() if span_id is None else span_id

    def is_trace_id_random(self) -> bool:
        """Say that samplers may use the id of a trace: it is a hash."""
        return True
