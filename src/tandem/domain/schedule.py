"""When runs of an automation start by themselves (definitions 1.2)."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tandem.domain.document import DocumentPart


class ScheduleType(StrEnum):
    """What makes a schedule fire."""

    MANUAL = "manual"
    INTERVAL = "interval"
    CRON = "cron"


class SkipMisfires(DocumentPart):
    """Firings that were missed are not made up for."""

    type: Literal["skip"] = "skip"


class RunOnceAfterMisfires(DocumentPart):
    """However many firings were missed, one run makes up for them."""

    type: Literal["run_once"] = "run_once"


class CatchUpMisfires(DocumentPart):
    """Each missed firing gets its run, up to `max_runs` of them."""

    type: Literal["catch_up"] = "catch_up"
    max_runs: int = Field(ge=0)


MisfirePolicy = Annotated[
    SkipMisfires | RunOnceAfterMisfires | CatchUpMisfires, Field(discriminator="type")
]


class Schedule(DocumentPart):
    """When runs start by themselves. `timezone` is an IANA name."""

    type: ScheduleType = ScheduleType.MANUAL
    cron_expression: str | None = None
    interval_seconds: int | None = Field(default=None, gt=0)
    timezone: str = "UTC"
    misfire_policy: MisfirePolicy = Field(default_factory=SkipMisfires)
