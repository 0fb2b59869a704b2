"""What tests of all parts share."""

from pathlib import Path

import pytest

# Before anything imports it: its assertions are to explain themselves like those of a test module.
pytest.register_assert_rewrite("tandem.testing.store_suite")


@pytest.fixture(autouse=True)
def _state_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep every test away from the state folder of the person who runs it."""
    monkeypatch.setenv("TANDEM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("TANDEM_DATABASE_URL", raising=False)
