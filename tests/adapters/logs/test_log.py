"""Lines of the log: whole, in one shape, with ids, without secrets."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from tandem.adapters.logs.log import Log, make_log, take_over
from tandem.adapters.logs.runs import LEVEL_OF, RunLog
from tandem.domain.lifecycle import RunEvent, RunState
from tandem.domain.redaction import REDACTED, Redactor
from tandem.testing.builders import automation, python_node
from tandem.testing.clock import START_MS
from tandem.testing.executor import Script
from tests.small_world import SmallWorld

CANARY = "canary-7f3a9c"
CHAIN = automation(python_node("a"), python_node("b", "a"))
S = RunState


def log_to(stream: io.StringIO, *, kind: str = "json", level: str = "debug") -> Log:
    """Return a log with a canary among its secrets, at a moment that stands still."""
    return make_log(
        stream, kind=kind, level=level, redactor=Redactor([CANARY]), now_ms=lambda: START_MS
    )


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the lines as they were written."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_object_that_begins_with_when_what_and_how_important() -> None:
    stream = io.StringIO()
    log_to(stream).info("started", port=39731)
    assert lines(stream) == [
        {
            "timestamp": "2027-01-15T08:00:00.000Z",
            "at_ms": START_MS,
            "level": "info",
            "event": "started",
            "port": 39731,
        }
    ]
    assert stream.getvalue().startswith('{"timestamp":')


def test_what_is_not_important_enough_is_not_written() -> None:
    stream = io.StringIO()
    log = log_to(stream, level="warning")
    log.info("no")
    log.warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_auto_is_json_where_nobody_looks_and_columns_where_somebody_does() -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    piped, screen = io.StringIO(), Screen()
    log_to(piped, kind="auto").info("hello")
    log_to(screen, kind="auto").info("hello")
    assert lines(piped)[0]["event"] == "hello"
    assert "2027-01-15T08:00:00.000Z" in screen.getvalue()
    assert "{" not in screen.getvalue()


def tell_canary(log: Log) -> None:
    """Say the canary in every way in which a line can hold something."""
    log.info(f"event {CANARY}", plain=CANARY, deep={"list": [{"key": CANARY}], CANARY: 1})
    log.info("header", headers={"authorization": f"Bearer {CANARY}", "x-tandem-token": "abc"})
    log.info("bytes", body=CANARY.encode(), error=ValueError(CANARY))
    log.bind(bound=CANARY).warning("bound")
    with structlog.contextvars.bound_contextvars(request=CANARY):
        log.info("context")
    try:
        raise RuntimeError(f"cannot use {CANARY}")
    except RuntimeError:
        log.error("failed", exc_info=True)


@pytest.mark.parametrize("kind", ["json", "console"])
def test_no_line_ever_holds_a_secret(kind: str) -> None:
    stream = io.StringIO()
    tell_canary(log_to(stream, kind=kind))
    assert CANARY not in stream.getvalue()
    assert stream.getvalue().count(REDACTED) >= 10
    assert "RuntimeError" in stream.getvalue()


def test_without_the_redactor_the_canary_would_sing() -> None:
    stream = io.StringIO()
    tell_canary(make_log(stream, kind="json", level="debug", redactor=Redactor(), now_ms=lambda: 0))
    assert CANARY in stream.getvalue()


def test_a_body_can_neither_begin_a_line_nor_move_the_cursor() -> None:
    stream = io.StringIO()
    log_to(stream, kind="console").info("said", text="one\n2027 fake \x1b[2J\x9b1m\x00")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()
    assert "\x9b" not in stream.getvalue()


@pytest.fixture
def logging_put_back() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before[0], before[1]


@pytest.mark.usefixtures("logging_put_back")
def test_what_libraries_say_is_a_line_of_the_same_log() -> None:
    stream = io.StringIO()
    take_over(log_to(stream), level="info")
    logging.getLogger("some.library").warning("cannot reach %s", f"https://me:{CANARY}@host")
    logging.getLogger("some.library").warning("wrong %d", "words")
    logging.getLogger("some.library").debug("a detail")
    try:
        raise RuntimeError(CANARY)
    except RuntimeError:
        logging.getLogger("some.library").exception("broke")
    first, second, third = lines(stream)
    assert first["event"] == f"cannot reach https://me:{REDACTED}@host"
    assert (first["level"], first["logger"]) == ("warning", "some.library")
    assert second["event"] == "wrong %d"
    assert "RuntimeError" in third["exception"]
    assert CANARY not in stream.getvalue()


def test_every_event_has_a_level() -> None:
    assert set(LEVEL_OF) == set(RunEvent)
    assert LEVEL_OF[RunEvent.RUN_FAILED] == logging.ERROR
    assert LEVEL_OF[RunEvent.NODE_FAILED] == logging.WARNING
    assert LEVEL_OF[RunEvent.RUN_COMPLETED] == logging.INFO
    assert LEVEL_OF[RunEvent.NODE_STARTED] == logging.DEBUG
    wrong = [event for event in RunEvent if "failed" in event.value and LEVEL_OF[event] < 30]
    assert wrong == []


Tell = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    """Run an automation under a log of this level and return its lines."""

    def tell_it(level: str, **scripts: Script) -> list[dict[str, Any]]:
        stream = io.StringIO()
        world = SmallWorld(tmp_path / "tandem.db")

        async def story() -> None:
            engine = world.engine()
            log = RunLog(log_to(stream, level=level), level=level, engine_id=engine.engine_id)
            log.listen_to(engine)
            async with engine:
                run = await world.start(engine, CHAIN, **scripts)
                await world.until(lambda: world.row(run).status in (S.COMPLETED, S.FAILED))
                await world.until(lambda: engine.driven == 0)

        world.tell(story())
        return lines(stream)

    return tell_it


def test_a_run_is_told_with_its_ids_and_how_long_it_took(tell: Tell) -> None:
    found = tell("info", a=Script(duration_ms=300), b=Script(duration_ms=200))
    assert [line["event"] for line in found] == [
        "run_execution_claimed",
        "run_completed",
    ]
    end = found[1]
    assert end["run_id"].startswith("automation-v2-run-")
    assert end["engine_id"].startswith("engine-")
    assert (end["automation_id"], end["tenant"], end["status"]) == (
        "simulated",
        "local",
        "completed",
    )
    assert 500 <= end["duration_ms"] < 600
    assert START_MS < end["at_ms"] < START_MS + 60_000


def test_nodes_are_details_with_node_attempt_and_duration(tell: Tell) -> None:
    found = tell("debug", a=Script(duration_ms=300), b=Script(duration_ms=200))
    (done,) = [
        line for line in found if line["event"] == "node_completed" and line["node_id"] == "a"
    ]
    assert (done["attempt"], done["level"], done["duration_ms"]) == (1, "debug", 300)


def test_a_failure_says_which_node_and_why(tell: Tell) -> None:
    found = tell("warning", a=Script(duration_ms=1, ending="fail"))
    node = next(line for line in found if line["event"] == "node_failed")
    assert (node["level"], node["node_id"]) == ("warning", "a")
    assert node["reason"]
    assert next(line for line in found if line["event"] == "run_failed")["level"] == "error"
