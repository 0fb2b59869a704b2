"""Ids of spans that everybody who knows the run can compute.

So all drives of a run are one trace, on whatever engine and however often it was parked or lost,
and nothing about traces has to be stored.
"""

from hashlib import blake2b

from opentelemetry.trace import SpanContext, TraceFlags

from tandem.domain.ids import RunId

SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def trace_id_of(run_id: RunId) -> int:
    """Return the id of the trace of a run; never 0."""
    return int.from_bytes(blake2b(run_id.encode(), digest_size=16).digest(), "big") or 1


def span_id_of(name: str) -> int:
    """Return the id of the span of what has this name; never 0."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") or 1


def drive_name(run_id: RunId, epoch: int) -> str:
    """Return the name of the span of one drive."""
    return f"{run_id}#{epoch}"


def remote(run_id: RunId, name: str) -> SpanContext:
    """Return the context of a span that is somewhere else, or gone."""
    return SpanContext(trace_id_of(run_id), span_id_of(name), is_remote=True, trace_flags=SAMPLED)
