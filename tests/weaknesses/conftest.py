"""What the tests of the weaknesses share."""

import pytest

from tandem.engine import waiting


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have those who wait look twice a second, also where nothing tells them to.

    A broken engine tells of nothing, and that a run waits for another reason now is told nobody.
    """
    monkeypatch.setattr(waiting, "LOOKS_SPARED_MAX", 1)
