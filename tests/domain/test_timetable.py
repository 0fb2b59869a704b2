"""At which instants schedules fire, where clocks are set forward and back too."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from tandem.domain.schedule import CatchUpMisfires, Schedule, ScheduleType
from tandem.domain.timetable import (
    COUNTED_MAX,
    NAMES,
    Cron,
    Interval,
    has_same_timing,
    next_firings,
    schedule_problems,
    timing_of,
)

HOUR = timedelta(hours=1)
ZONES = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "Africa/El_Aaiun",
    "Africa/Johannesburg",
    "America/Anchorage",
    "America/Asuncion",
    "America/Bogota",
    "America/Caracas",
    "America/Chicago",
    "America/Denver",
    "America/Halifax",
    "America/Havana",
    "America/Los_Angeles",
    "America/Mexico_City",
    "America/New_York",
    "America/Nuuk",
    "America/Phoenix",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Amman",
    "Asia/Beirut",
    "Asia/Damascus",
    "Asia/Gaza",
    "Asia/Hebron",
    "Asia/Jerusalem",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Asia/Tokyo",
    "Atlantic/Azores",
    "Atlantic/Bermuda",
    "Australia/Adelaide",
    "Australia/Brisbane",
    "Australia/Lord_Howe",
    "Australia/Perth",
    "Australia/Sydney",
    "Europe/Berlin",
    "Europe/Chisinau",
    "Europe/Dublin",
    "Europe/Istanbul",
    "Europe/Lisbon",
    "Europe/London",
    "Europe/Moscow",
    "Europe/Volgograd",
    "Pacific/Apia",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Easter",
    "Pacific/Fiji",
    "Pacific/Norfolk",
    "Pacific/Tongatapu",
    "UTC",
]


def ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000


def local(zone: str, *moment: int) -> int:
    return ms(datetime(*moment, tzinfo=ZoneInfo(zone)))  # type: ignore[misc,arg-type]


def shown(zone: str, instants: tuple[int, ...]) -> list[str]:
    return [datetime.fromtimestamp(i / 1_000, ZoneInfo(zone)).isoformat() for i in instants]


def cron(expression: str, zone: str = "UTC") -> Schedule:
    return Schedule(type=ScheduleType.CRON, cron_expression=expression, timezone=zone)


def after(schedule: Schedule, moment_ms: int, limit: int = 3) -> list[str]:
    return shown(schedule.timezone, next_firings(schedule, after_ms=moment_ms, limit=limit))


def clock_changes(zone: str) -> Iterator[datetime]:
    """Yield the hours of ten years after which the clocks of a zone were set."""
    moment, end = datetime(2016, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    where = ZoneInfo(zone)
    while moment < end:
        later = moment + timedelta(days=7)
        if moment.astimezone(where).utcoffset() != later.astimezone(where).utcoffset():
            hours = [moment + n * HOUR for n in range(7 * 24)]
            yield from (
                hour
                for hour in hours
                if hour.astimezone(where).utcoffset() != (hour + HOUR).astimezone(where).utcoffset()
            )
        moment = later


@pytest.mark.parametrize("zone", ZONES)
def test_moments_that_the_clock_shows_fire_through_ten_years_of_changes(zone: str) -> None:
    where = ZoneInfo(zone)
    wanted = {"*/20 1-3 * * *": ({0, 20, 40}, {1, 2, 3}), "7 */2 * * *": ({7}, {*range(0, 24, 2)})}
    for change in clock_changes(zone):
        begin, end = change - 5 * HOUR, change + 5 * HOUR
        minutes = [begin + timedelta(minutes=n) for n in range(1, 10 * 60 + 1)]
        for expression, (minute, hour) in wanted.items():
            clock = [(moment, moment.astimezone(where)) for moment in minutes]
            expected = [ms(m) for m, at in clock if at.minute in minute and at.hour in hour]
            fell = Cron(expression, where).newest_until(ms(end), origin_ms=ms(begin), limit=1_000)
            assert list(fell.newest_ms) == expected, change


@pytest.mark.parametrize("zone", ZONES)
def test_fixed_time_of_day_fires_once_a_day_through_ten_years_of_changes(zone: str) -> None:
    where = ZoneInfo(zone)
    for change in clock_changes(zone):
        begin = change - timedelta(days=2)
        for at in ("30 0 * * *", "30 1 * * *", "0 30 2 * * *", "15 3 * * *"):
            instants = tuple(islice(next_firings(cron(at, zone), after_ms=ms(begin), limit=5), 5))
            assert sorted(set(instants)) == list(instants)
            days = [datetime.fromtimestamp(i / 1_000, where).date() for i in instants]
            # The day that Samoa left out when it moved over the date line is none.
            assert len(set(days)) == 5, (change, at, days)


def test_time_that_does_not_exist_fires_after_the_gap_and_one_that_comes_twice_fires_first() -> (
    None
):
    zone = "America/New_York"
    spring, autumn = local(zone, 2026, 3, 7, 12), local(zone, 2026, 10, 31, 12)
    assert after(cron("30 2 * * *", zone), spring, 2) == [
        "2026-03-08T03:00:00-04:00",
        "2026-03-09T02:30:00-04:00",
    ]
    assert after(cron("0,30 2 * * *", zone), spring, 2) == [
        "2026-03-08T03:00:00-04:00",
        "2026-03-09T02:00:00-04:00",
    ]
    assert after(cron("30 1 * * *", zone), autumn, 2) == [
        "2026-11-01T01:30:00-04:00",
        "2026-11-02T01:30:00-05:00",
    ]
    # Asked in the second passing of the hour, the first is over.
    second = ms(datetime(2026, 11, 1, 1, 10, tzinfo=ZoneInfo(zone), fold=1))
    assert after(cron("30 1 * * *", zone), second, 1) == ["2026-11-02T01:30:00-05:00"]


def test_every_moment_of_a_repeated_hour_fires_and_none_of_a_gap() -> None:
    zone = "Europe/Berlin"
    assert after(cron("*/30 2 * * *", zone), local(zone, 2026, 10, 25), 5) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-26T02:00:00+01:00",
    ]
    assert after(cron("*/30 2 * * *", zone), local(zone, 2026, 3, 29), 1) == [
        "2026-03-30T02:00:00+02:00"
    ]


def test_six_fields_have_seconds_in_front_and_seven_a_year_behind() -> None:
    begin = local("UTC", 2026, 1, 1)
    assert after(cron("*/20 0 0 * * *"), begin, 2) == [
        "2026-01-01T00:00:20+00:00",
        "2026-01-01T00:00:40+00:00",
    ]
    assert after(cron("0 0 12 1 1 * 2028"), begin) == ["2028-01-01T12:00:00+00:00"]
    assert after(cron("0 0 12 1 1 * 2020-2030/5,2027"), begin) == [
        "2027-01-01T12:00:00+00:00",
        "2030-01-01T12:00:00+00:00",
    ]
    assert after(cron("0 0 12 1 1 * 2190/4"), begin) == [
        "2190-01-01T12:00:00+00:00",
        "2194-01-01T12:00:00+00:00",
        "2198-01-01T12:00:00+00:00",
    ]
    assert after(cron("0 0 12 1 1 * *"), begin, 1) == ["2026-01-01T12:00:00+00:00"]
    assert after(cron("* * * * * * 2025"), begin) == []
    assert after(cron("* * * * * 2"), begin, 1) == ["2026-01-06T00:00:00+00:00"]


@pytest.mark.parametrize("name", NAMES)
def test_each_name_has_its_expression(name: str) -> None:
    begin = local("UTC", 2026, 1, 1)
    assert after(cron(name.upper()), begin) == after(cron(NAMES[name]), begin)


def test_day_of_month_and_day_of_week_are_either_or() -> None:
    assert after(cron("0 0 13 * FRI"), local("UTC", 2026, 1, 10)) == [
        "2026-01-13T00:00:00+00:00",
        "2026-01-16T00:00:00+00:00",
        "2026-01-23T00:00:00+00:00",
    ]


def test_interval_stays_on_its_grid() -> None:
    timing = Interval(1_000)
    assert timing.first_after(10, origin_ms=10) == 1_010
    assert timing.first_after(5, origin_ms=10) == 1_010
    assert timing.first_after(3_777, origin_ms=10) == 4_010
    fell = timing.newest_until(3_777, origin_ms=10, limit=2)
    assert (fell.count, fell.newest_ms) == (3, (2_010, 3_010))
    none = timing.newest_until(5, origin_ms=10, limit=2)
    assert (none.count, none.newest_ms) == (0, ())


def test_counting_what_was_missed_is_bounded() -> None:
    begin, end = local("UTC", 2025, 1, 1), local("UTC", 2026, 1, 1)
    every_second = Cron("* * * * * *", UTC).newest_until(end, origin_ms=begin, limit=100)
    assert every_second.count == COUNTED_MAX
    assert every_second.newest_ms == tuple(range(end - 99_000, end + 1, 1_000))
    rare = Cron("* * 1 1 *", UTC).newest_until(end - 1, origin_ms=begin - 1, limit=2)
    assert rare.newest_ms == (begin + 86_280_000, begin + 86_340_000)
    assert Interval(1).newest_until(end, origin_ms=begin, limit=1).count == COUNTED_MAX


def test_years_that_are_over_are_counted_to_their_end() -> None:
    begin, end = local("UTC", 2020, 1, 1), local("UTC", 2030, 1, 1)
    fell = Cron("0 0 12 1 1 * 2025-2026", UTC).newest_until(end, origin_ms=begin, limit=5)
    assert fell.newest_ms == (local("UTC", 2025, 1, 1, 12), local("UTC", 2026, 1, 1, 12))


def test_only_the_timing_counts_as_the_timing() -> None:
    one = cron("0 5 * * *")
    assert has_same_timing(
        one, one.model_copy(update={"misfire_policy": CatchUpMisfires(max_runs=3)})
    )
    assert not has_same_timing(one, cron("0 6 * * *"))
    assert not has_same_timing(one, cron("0 5 * * *", "Europe/Berlin"))


def test_schedule_without_a_timing_never_fires_and_one_without_a_span_has_a_minute() -> None:
    assert timing_of(Schedule()) is None
    assert next_firings(Schedule(), after_ms=0, limit=10) == ()
    minute = Schedule(type=ScheduleType.INTERVAL)
    assert next_firings(minute, after_ms=7, limit=2) == (60_007, 120_007)


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"timezone": "Mars/Base"}, "schedule_timezone_unknown", "no time zone `Mars/Base`"),
        ({"timezone": "../etc/passwd"}, "schedule_timezone_unknown", "no time zone"),
        ({"timezone": "Europe"}, "schedule_timezone_unknown", "no time zone"),
        ({"type": "interval", "interval_seconds": 2**40}, "schedule_interval_invalid", "a century"),
        (
            {"misfire_policy": {"type": "catch_up", "max_runs": 101}},
            "schedule_catch_up_invalid",
            "101 runs at once are more than the 100 allowed",
        ),
        ({"type": "cron"}, "schedule_invalid", "needs a `cron_expression`"),
        ({"cron_expression": "61 * * * *"}, "schedule_cron_invalid", "bad minute"),
        ({"cron_expression": "* * * *"}, "schedule_cron_invalid", "4 fields"),
        ({"cron_expression": "@often"}, "schedule_cron_invalid", "none of @hourly"),
        ({"cron_expression": "0 0 * 2 MON#5 "}, "", ""),
        ({"cron_expression": "0 0 31 2,4 SUN#5"}, "", ""),
        ({"cron_expression": "0 0 31 4 */8"}, "schedule_cron_invalid", "bad day-of-month"),
        ({"cron_expression": "0 0 30 FEB *#5"}, "schedule_cron_invalid", "bad day-of-week"),
        ({"cron_expression": "0 0 */31 2 MON#5"}, "schedule_cron_invalid", "no day of any year"),
        ({"cron_expression": "* 0 */31 2 MON#5"}, "schedule_cron_invalid", "no day of any year"),
        ({"cron_expression": "0 0 0 29 2 * 2025"}, "schedule_cron_invalid", "no day of any year"),
        ({"cron_expression": "0 0 0 1 1 * soon"}, "schedule_cron_invalid", "no year"),
        ({"cron_expression": "0 0 0 1 1 * 1900"}, "schedule_cron_invalid", "from 1970 to 2199"),
        ({"cron_expression": "0 0 0 1 1 * 2030-2020"}, "schedule_cron_invalid", "from 1970"),
    ],
)
def test_wrong_schedule_is_told_with_a_sentence(
    fields: dict[str, object], code: str, says: str
) -> None:
    if "cron_expression" in fields:
        fields = {"type": "cron", **fields}
    problems = list(schedule_problems(Schedule.model_validate(fields)))
    assert [problem.code for problem in problems] == ([code] if code else [])
    assert all(says in problem.message for problem in problems)
