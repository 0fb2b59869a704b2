"""Long searches run only when somebody asks for them with `-m soak`."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" in config.getoption("markexpr"):
        return
    skip = pytest.mark.skip(reason="a long search; run it with -m soak")
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(skip)
