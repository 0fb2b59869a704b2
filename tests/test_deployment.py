"""The guide for operators holds: units, images, names of settings, series and events."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tandem.adapters.logs.runs import LEVEL_OF
from tandem.adapters.logs.words import KEYS, LINES
from tandem.adapters.metrics.series import SERIES, Kind
from tandem.settings import SETTINGS

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "guides" / "deployment.md").read_text("utf-8")
SOURCE = ROOT / "src" / "tandem"


def block(language: str) -> str:
    """Return the one block of the guide in this language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    return str(found)


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(block("ini"))
    return parser


def test_the_unit_stops_the_engine_alone_and_gives_it_time() -> None:
    service = dict(unit()["Service"])
    default_s = 30
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) >= default_s + 5
    assert service["Restart"] == "on-failure"
    assert service["OOMPolicy"] == "continue"
    assert service["NoNewPrivileges"] == "yes"
    assert service["Environment"] == f"TANDEM_STATE_DIR=/var/lib/{service['StateDirectory']}"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_takes_the_unit_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "tandem.service"
    path.write_text(block("ini").replace("/opt/tandem/bin/tandem", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [line for line in done.stderr.splitlines() if "tandem" in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_the_image_runs_as_nobody_special_and_is_asked_whether_it_lives() -> None:
    text = block("dockerfile").replace("\\\n", " ")
    steps = [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]
    known = {step for step, _ in steps}
    assert known <= {
        "FROM",
        "RUN",
        "USER",
        "WORKDIR",
        "ENV",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    }
    told = dict(steps)
    assert told["USER"] == "tandem"
    assert "/healthz" in told["HEALTHCHECK"]
    assert told["STOPSIGNAL"] == "SIGTERM"
    assert told["ENTRYPOINT"] == '["tandem"]', "the shell form would keep SIGTERM to itself"


def test_every_variable_of_the_guide_is_a_setting() -> None:
    named = set(re.findall(r"TANDEM_[A-Z_]+", GUIDE))
    assert named <= {setting.name for setting in SETTINGS}


def test_every_series_of_the_guide_is_shown() -> None:
    shown = {series.shown for series in SERIES} | {
        f"{series.name}_bucket" for series in SERIES if series.kind is Kind.HISTOGRAM
    }
    named = set(re.findall(r"\btandem_[a-z0-9_]+\b", GUIDE))
    assert named <= shown
    assert named


def test_the_references_are_complete() -> None:
    metrics = (ROOT / "docs" / "reference" / "metrics.md").read_text("utf-8")
    log = (ROOT / "docs" / "reference" / "log.md").read_text("utf-8")
    assert [series.name for series in SERIES if f"`{series.shown}`" not in metrics] == []
    assert [event for event in LEVEL_OF if f"`{event}`" not in log] == []
    assert [word for word in (*KEYS, *LINES) if f"`{word}`" not in log] == []


def test_every_line_that_is_written_has_its_row() -> None:
    """Only these modules write lines; that no other one does is checked, too."""
    writers = {
        path
        for path in SOURCE.rglob("*.py")
        if re.search(r"import structlog|from structlog(?!\.contextvars)", path.read_text("utf-8"))
    }
    assert {path.relative_to(SOURCE).as_posix() for path in writers} == {"adapters/logs/log.py"}
    said = set()
    for name in ("serving.py", "observing.py", "adapters/logs/requests.py"):
        text = (SOURCE / name).read_text("utf-8")
        said |= set(re.findall(r"\b(?:_?tell|error|warning|write)\(\s*\"([a-z_]+)\"", text))
    assert said == set(LINES)


@pytest.mark.parametrize("layer", ["domain", "ports", "engine"])
def test_the_inner_layers_log_count_and_trace_nothing(layer: str) -> None:
    forbidden = re.compile(
        r"^\s*(?:import|from) (?:logging|structlog|prometheus_client|opentelemetry)\b", re.MULTILINE
    )
    found = [p.name for p in (SOURCE / layer).rglob("*.py") if forbidden.search(p.read_text())]
    assert found == []
