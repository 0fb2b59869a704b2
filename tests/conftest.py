"""What tests of all parts share."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _state_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep every test away from the state folder of the person who runs it."""
    monkeypatch.setenv("TANDEM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("TANDEM_DATABASE_URL", raising=False)
