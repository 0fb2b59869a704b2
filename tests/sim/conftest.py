"""Long searches run only when somebody asks for them with `-m soak`; others begin at witnesses."""

from collections.abc import Callable

import pytest

from tests.sim.witnesses import Witnesses


@pytest.fixture
def witnesses(record_property: Callable[[str, object], None]) -> Witnesses:
    """Return where a search notes what it found."""
    return Witnesses(record_property)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" in config.getoption("markexpr"):
        return
    skip = pytest.mark.skip(reason="a long search; run it with -m soak")
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(skip)
