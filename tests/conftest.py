"""What tests of all parts share."""

import gc
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tandem.settings import OLDER_BACKEND, OLDER_POSTGRES_URL
from tests.sim.witnesses import STALE

# Before anything imports it: its assertions are to explain themselves like those of a test module.
pytest.register_assert_rewrite(
    "tandem.testing.store_suite",
    "tandem.testing.admission_suite",
    "tandem.testing.automation_suite",
    "tandem.testing.event_suite",
    "tandem.testing.access_suite",
    "tandem.testing.webhook_suite",
    "tandem.testing.record_suite",
)

# How fast a shared machine is says nothing about what these tests judge. What lands is judged by
# the same examples each time; who works here looks at new ones with every run.
settings.register_profile(
    "shared",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("shared")


# Nothing here speaks TLS, and each client would take 30 ms to read whom this machine trusts.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(Path(__file__).parent)

HEAVY = (
    "tests/sim/test_machine.py",
    "tests/sim/test_schedules.py",
    "tests/crash/test_power_cut.py",
    "tests/sim/test_mutants.py",
    "tests/adapters/sqlite/test_sqlite_cost.py",
    "tests/test_validation_cost.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, a share in each worker, so that none is left alone at the end.

    Each worker starts with a part of the list, and takes from the others when it is through.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    places = {name: place for place, name in enumerate(HEAVY)}
    paths = {item: item.path.relative_to(item.config.rootpath).as_posix() for item in items}
    heavy = sorted((i for i in items if paths[i] in places), key=lambda i: places[paths[i]])
    light = iter([item for item in items if paths[item] not in places])
    shares = []
    for number in range(workers):
        own = heavy[number::workers]
        shares += [*own, *itertools.islice(light, max(len(items) // workers - len(own), 0))]
    items[:] = [*shares, *light]


def pytest_collection_finish() -> None:
    """Whatever was imported stays: no collection of garbage looks at it again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which searches had to go beyond their witnesses."""
    stale = [
        str(value)
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == STALE
    ]
    if stale:
        terminalreporter.section("witnesses to replace")
        for line in stale:
            terminalreporter.line(line)


_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _state_of_its_own(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Keep every test away from the state folder of the person who runs it.

    Most tests have no file and need no folder: theirs is only named.
    """
    if "tmp_path" in request.fixturenames:
        folder: Path = request.getfixturevalue("tmp_path") / "state"
    else:
        folder = tmp_path_factory.getbasetemp() / f"state{next(_numbers)}"
    monkeypatch.setenv("TANDEM_STATE_DIR", str(folder))
    for name in ("TANDEM_DATABASE_URL", OLDER_BACKEND, OLDER_POSTGRES_URL):
        monkeypatch.delenv(name, raising=False)
