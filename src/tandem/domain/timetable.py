"""At which instants a schedule fires; pure.

Cron expressions have five fields, six with seconds in front, or seven with a year behind; or one of
the six `@` names. Days of the week count from Sunday as 0 (7 is Sunday, too); a day of the month
and a day of the week that are both given fire on either, as cron has it.

Where clocks are set forward or back, Debian's rule holds. A fixed time of day fires once a day: one
that does not exist fires at the first moment after the gap, one that comes twice fires the first
time. With a `*` in front of the hour or the minute each moment that the clock shows fires: none in
a gap, and both of a repeated hour.
"""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Final, assert_never
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

from tandem.domain.errors import Problem
from tandem.domain.schedule import CatchUpMisfires, Schedule, ScheduleType

INTERVAL_DEFAULT_S: Final = 60
INTERVAL_MAX_S: Final = 3_155_760_000
"""A century."""
CATCH_UP_MAX: Final = 100
"""So many missed firings get their runs at once."""
COUNTED_MAX: Final = 1_000
"""So many occurrences are counted one by one."""
YEARS: Final = range(1970, 2200)
NAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_SECOND_MS: Final = 1_000
_WINDOW_MS: Final = 60_000
_PROBE: Final = datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)
_PROBE_MS: Final = -1_000
_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_HALF_DAY: Final = timedelta(hours=12)
"""No zone sets its clocks twice within it."""


class Occurrences(msgspec.Struct, frozen=True, kw_only=True):
    """What fell due in a span: how many, counted up to `COUNTED_MAX`, and the newest of them."""

    count: int
    newest_ms: tuple[int, ...]


class Interval:
    """Every so many milliseconds after an origin: late firings do not move the later ones."""

    def __init__(self, every_ms: int) -> None:
        self._every_ms = every_ms

    def first_after(self, moment_ms: int, *, origin_ms: int) -> int | None:
        """Return the first instant after a moment."""
        steps = max((moment_ms - origin_ms) // self._every_ms, 0)
        return origin_ms + (steps + 1) * self._every_ms

    def newest_until(self, until_ms: int, *, origin_ms: int, limit: int) -> Occurrences:
        """Return what fell due after the origin and not after a moment."""
        count = max((until_ms - origin_ms) // self._every_ms, 0)
        newest = range(max(count - limit, 0), count)
        instants = tuple(origin_ms + (step + 1) * self._every_ms for step in newest)
        return Occurrences(count=min(count, COUNTED_MAX), newest_ms=instants)


class Cron:
    """The instants that a cron expression matches on the clocks of a zone."""

    def __init__(self, expression: str, zone: tzinfo) -> None:
        """Read the expression.

        Raises:
            ValueError: it is none, with a sentence that says why.
        """
        fields = NAMES.get(expression.strip().lower(), expression).split()
        self._years = _years(fields.pop()) if len(fields) == 7 else None
        if len(fields) == 6 and fields[0] == "0":
            del fields[0]  # so that both ways to write a minute mean the same
        if len(fields) not in (5, 6):
            raise ValueError(_wrong_fields(expression, len(expression.split())))
        self._expression = " ".join(fields)
        self._zone = zone
        minute, hour = fields[-5:-3]
        self._is_fixed = not minute.startswith("*") and not hour.startswith("*")
        try:
            CronSim(self._expression, _PROBE)
        except CronSimError as error:
            why = str(error).lower()
            raise ValueError(f"`{expression}` is no cron expression: {why}") from None
        if next(self._instants(_PROBE_MS), None) is None:
            raise ValueError(f"`{expression}` matches no day of any year")

    def first_after(self, moment_ms: int, *, origin_ms: int) -> int | None:
        """Return the first instant after a moment, or None; the origin does not matter."""
        return next(self._instants(moment_ms), None)

    def newest_until(self, until_ms: int, *, origin_ms: int, limit: int) -> Occurrences:
        """Return what fell due after the origin and not after a moment."""
        counted = list(islice(self._between(origin_ms, until_ms), COUNTED_MAX))
        if len(counted) < COUNTED_MAX:
            return Occurrences(count=len(counted), newest_ms=tuple(counted[-limit:]))
        window_ms, newest = _WINDOW_MS, deque[int]()
        while len(newest) < limit and until_ms - window_ms > origin_ms - window_ms // 2:
            after_ms = max(until_ms - window_ms, origin_ms)
            newest = deque(self._between(after_ms, until_ms), maxlen=limit)
            window_ms *= 2
        return Occurrences(count=COUNTED_MAX, newest_ms=tuple(newest))

    def _between(self, after_ms: int, until_ms: int) -> Iterator[int]:
        for instant_ms in self._instants(after_ms):
            if instant_ms > until_ms:
                return
            yield instant_ms

    def _instants(self, after_ms: int) -> Iterator[int]:
        newest_ms = after_ms
        start: datetime | None = datetime.fromtimestamp(after_ms // _SECOND_MS, self._zone)
        while start is not None:
            begun, start = start, None
            for moment in self._after(begun):
                if self._years is not None and moment.year not in self._years:
                    start = self._before_next_year(moment.year)
                    break
                instant_ms = int(moment.timestamp()) * _SECOND_MS
                # Times in a gap move to its end together, and the first passing of a repeated
                # hour is over for whoever asks during the second.
                if instant_ms > newest_ms:
                    newest_ms = instant_ms
                    yield instant_ms

    def _before_next_year(self, year: int) -> datetime | None:
        later = [other for other in self._years or () if other > year]
        return datetime(min(later) - 1, 12, 31, 23, 59, 59, tzinfo=self._zone) if later else None

    def _after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the moments of the expression whatever its years; in order, but for fixed times."""
        if self._is_fixed:
            for local in CronSim(self._expression, moment.replace(tzinfo=None)):
                yield _placed(local, self._zone)
            return
        begin: datetime | None = moment.astimezone(UTC)
        while begin is not None:
            offset = self._offset(begin + _SECOND)
            seen, begin = begin, None
            for local in CronSim(self._expression, (seen + offset).replace(tzinfo=None)):
                found = local.replace(tzinfo=UTC) - offset
                change = self._first_change(seen, found, offset)
                if change is not None:
                    begin = change - _SECOND
                    break
                seen = found
                yield found.astimezone(self._zone)

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self._zone).utcoffset() or timedelta()

    def _first_change(self, after: datetime, until: datetime, offset: timedelta) -> datetime | None:
        """Return the first second of a span in which the clocks of the zone are set otherwise."""
        while after < until:
            step = min(after + _HALF_DAY, until)
            if self._offset(step) != offset:
                while step - after > _SECOND:
                    middle = after + (step - after) // (2 * _SECOND) * _SECOND
                    is_changed = self._offset(middle) != offset
                    after, step = (after, middle) if is_changed else (middle, step)
                return step
            after = step
        return None


def _placed(local: datetime, zone: tzinfo) -> datetime:
    """Return the moment of a time of day: the first of two, or the first after a gap."""
    placed = local.replace(tzinfo=zone, fold=0)
    while placed.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != local:
        local = (local + _MINUTE).replace(second=0)
        placed = local.replace(tzinfo=zone, fold=0)
    return placed


Timing = Interval | Cron


def timing_of(schedule: Schedule) -> Timing | None:
    """Return what makes a schedule fire; None when only people do.

    Raises:
        ValueError: the schedule is wrong, with a sentence that says why.
    """
    match schedule.type:
        case ScheduleType.MANUAL:
            return None
        case ScheduleType.INTERVAL:
            return Interval((schedule.interval_seconds or INTERVAL_DEFAULT_S) * _SECOND_MS)
        case ScheduleType.CRON:
            return Cron(schedule.cron_expression or "", zone_of(schedule))
        case _:
            assert_never(schedule.type)


def zone_of(schedule: Schedule) -> ZoneInfo:
    """Return the time zone of a schedule.

    Raises:
        ValueError: there is no such zone.
    """
    try:
        return ZoneInfo(schedule.timezone.strip())
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"there is no time zone `{schedule.timezone}`; names are those of the IANA database, "
            "such as `Europe/Berlin` or `UTC`"
        ) from None


def has_same_timing(one: Schedule, other: Schedule) -> bool:
    """Say whether two schedules fire at the same instants; what they do with missed ones aside."""
    return one.model_copy(update={"misfire_policy": other.misfire_policy}) == other


def next_firings(schedule: Schedule, *, after_ms: int, limit: int) -> tuple[int, ...]:
    """Return the next instants at which a schedule fires that begins at a moment.

    Raises:
        ValueError: the schedule is wrong.
    """
    timing = timing_of(schedule)
    return () if timing is None else series(timing, after_ms, origin_ms=after_ms, limit=limit)


def series(timing: Timing, after_ms: int, *, origin_ms: int, limit: int) -> tuple[int, ...]:
    """Return the first instants after a moment."""
    found: list[int] = []
    next_ms = timing.first_after(after_ms, origin_ms=origin_ms)
    while next_ms is not None and len(found) < limit:
        found.append(next_ms)
        next_ms = timing.first_after(next_ms, origin_ms=origin_ms)
    return tuple(found)


def schedule_problems(schedule: Schedule) -> Iterator[Problem]:
    """Yield what is wrong with a schedule, each with a sentence."""
    path = "schedule"
    try:
        zone_of(schedule)
    except ValueError as error:
        yield Problem(code="schedule_timezone_unknown", message=str(error), path=f"{path}.timezone")
        return
    if (schedule.interval_seconds or 0) > INTERVAL_MAX_S:
        yield Problem(
            code="schedule_interval_invalid",
            message=f"an interval has at most {INTERVAL_MAX_S} seconds, a century",
            path=f"{path}.interval_seconds",
        )
    policy = schedule.misfire_policy
    if isinstance(policy, CatchUpMisfires) and policy.max_runs > CATCH_UP_MAX:
        yield Problem(
            code="schedule_catch_up_invalid",
            message=f"{policy.max_runs} runs at once are more than the {CATCH_UP_MAX} allowed",
            path=f"{path}.misfire_policy.max_runs",
        )
    if schedule.type is not ScheduleType.CRON:
        return
    if not (schedule.cron_expression or "").strip():
        message = "`type: cron` needs a `cron_expression`"
        yield Problem(code="schedule_invalid", message=message, path=path)
        return
    try:
        timing_of(schedule)
    except ValueError as error:
        yield Problem(
            code="schedule_cron_invalid", message=str(error), path=f"{path}.cron_expression"
        )


def _years(field: str) -> frozenset[int]:
    """Read the seventh field: `*`, years, ranges, lists and steps.

    Raises:
        ValueError: it is none of these.
    """
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = (f"{YEARS[0]}-{YEARS[-1]}" if span == "*" else span).partition("-")
        if not all(number.isdecimal() for number in (first, last or first, step or "1")):
            raise ValueError(f"`{field}` is no year of a cron expression")
        until = int(last) if last else int(first) if not step else YEARS[-1]
        found.update(year for year in range(int(first), until + 1, int(step or 1) or 1))
    if not found or not found <= set(YEARS):
        raise ValueError(f"years of a cron expression are from {YEARS[0]} to {YEARS[-1]}")
    return frozenset(found)


def _wrong_fields(expression: str, count: int) -> str:
    if expression.strip().startswith("@"):
        return f"`{expression}` is none of {', '.join(NAMES)}"
    return (
        f"`{expression}` has {count} fields; a cron expression has 5 (minute, hour, day, month, "
        "weekday), 6 with seconds in front, or 7 with a year behind"
    )
