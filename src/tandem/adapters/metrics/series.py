"""Every series that the engine shows: the source of the code beside it and of the reference.

No label ever holds an id of a run, a node, an automation or a tenant: how many different values a
label has is bounded by the code.
"""

from enum import StrEnum
from typing import Final

import msgspec


class Kind(StrEnum):
    """What a series is for Prometheus."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """One series. A counter is shown with `_total` behind its name."""

    name: str
    kind: Kind
    sentence: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """The upper bounds of the buckets of a histogram."""

    @property
    def shown(self) -> str:
        """The name as it is asked for."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name


G, C, H = Kind

SPANS: Final = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600)
QUICK: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1)
ANSWERS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
COUNTS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 1_000)

BUILD: Final = Series(
    name="tandem_build_info",
    kind=G,
    labels=("version", "python"),
    sentence="Always 1; its labels say what runs.",
)
ACTIVE: Final = Series(
    name="tandem_scheduler_active_runs",
    kind=G,
    sentence="Runs that any engine of the store drives now.",
)
ADMITTED: Final = Series(
    name="tandem_scheduler_admitted",
    kind=C,
    sentence="Claims of runs since the store was made, by all engines; counted in the transaction "
    "of the claim.",
)
COMPLETED: Final = Series(
    name="tandem_scheduler_completed",
    kind=C,
    sentence="Ends of runs since the store was made, by all engines; counted in the transaction of "
    "the end.",
)
WAIT_AVG: Final = Series(
    name="tandem_scheduler_queue_wait_ms_avg",
    kind=G,
    sentence="How long the runs of the newest claims had waited, in milliseconds: the mean.",
)
WAIT_P95: Final = Series(
    name="tandem_scheduler_queue_wait_ms_p95",
    kind=G,
    sentence="The same: 95 of 100 waited no longer.",
)
QUEUED: Final = Series(
    name="tandem_scheduler_queued_runs",
    kind=G,
    labels=("reason",),
    sentence="Queued runs of the store by what they wait for; one that is about to be claimed is "
    "left out.",
)
READABLE: Final = Series(
    name="tandem_store_readable",
    kind=G,
    sentence="1 when the store answered this scrape, else 0; the series of the scheduler are "
    "missing then.",
)
WRITE_SECONDS: Final = Series(
    name="tandem_store_write_seconds",
    kind=H,
    labels=("place",),
    bounds=QUICK,
    sentence="How long it took until writes that went together were on disk. `inline`: one commit; "
    "`process`: from sending to the answer.",
)
WRITE_BATCH: Final = Series(
    name="tandem_store_write_batch",
    kind=H,
    labels=("place",),
    bounds=COUNTS,
    sentence="How many writes went together.",
)
DRIVEN: Final = Series(
    name="tandem_engine_driven_runs",
    kind=G,
    sentence="Runs that this engine drives now.",
)
PLACES: Final = Series(
    name="tandem_engine_places",
    kind=G,
    sentence="How many runs this engine drives at most.",
)
LEASE_AGE: Final = Series(
    name="tandem_engine_lease_age_seconds",
    kind=G,
    sentence="Time since the lease of this engine was renewed.",
)
LEASE_LEFT: Final = Series(
    name="tandem_engine_lease_left_seconds",
    kind=G,
    sentence="Time until its attempts have to end unless the lease is renewed; 0: it is over.",
)
SWEEPS_FAILED: Final = Series(
    name="tandem_engine_sweep_failures",
    kind=C,
    labels=("part",),
    sentence="Parts of sweeps that could not be done and are tried again.",
)
PROBLEMS: Final = Series(
    name="tandem_engine_problems",
    kind=C,
    sentence="Problems beside the runs that the engine told; each is in the log.",
)
LAG: Final = Series(
    name="tandem_event_loop_lag_seconds",
    kind=H,
    bounds=QUICK,
    sentence="How much too late the loop comes to what is due, looked at twice a second.",
)
CLAIMED: Final = Series(
    name="tandem_runs_claimed",
    kind=C,
    sentence="Runs that this engine has claimed since its start.",
)
ENDED: Final = Series(
    name="tandem_runs_ended",
    kind=C,
    labels=("status",),
    sentence="Ends of runs that this engine has written since its start. A run that is recovered "
    "ends again.",
)
ATTEMPTS: Final = Series(
    name="tandem_attempts_ended",
    kind=C,
    labels=("kind", "outcome"),
    sentence="Attempts whose end this engine has written, also those of engines that died.",
)
ATTEMPT_SECONDS: Final = Series(
    name="tandem_attempt_seconds",
    kind=H,
    labels=("kind",),
    bounds=SPANS,
    sentence="How long those of them took that this engine had started.",
)
REQUESTS: Final = Series(
    name="tandem_http_requests",
    kind=C,
    labels=("method", "route", "status"),
    sentence="Requests that were answered. `route` is the template of the path, `(none)` for what "
    "no route knows.",
)
REQUEST_SECONDS: Final = Series(
    name="tandem_http_request_seconds",
    kind=H,
    labels=("method", "route"),
    bounds=ANSWERS,
    sentence="How long the answers took; event streams are left out.",
)
STREAMS: Final = Series(
    name="tandem_http_streams_open",
    kind=G,
    sentence="Event streams that are open now.",
)

SERIES: Final = (
    BUILD,
    ACTIVE,
    ADMITTED,
    COMPLETED,
    WAIT_AVG,
    WAIT_P95,
    QUEUED,
    READABLE,
    WRITE_SECONDS,
    WRITE_BATCH,
    DRIVEN,
    PLACES,
    LEASE_AGE,
    LEASE_LEFT,
    SWEEPS_FAILED,
    PROBLEMS,
    LAG,
    CLAIMED,
    ENDED,
    ATTEMPTS,
    ATTEMPT_SECONDS,
    REQUESTS,
    REQUEST_SECONDS,
    STREAMS,
)
