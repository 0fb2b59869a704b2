"""Fixtures of the crash tests."""

from collections.abc import Iterator

import pytest
from story import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Return the one process that starts engines."""
    made = Nursery()
    yield made
    made.close()
