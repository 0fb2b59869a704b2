"""Settings come from the environment, or say what is wrong with it."""

from pathlib import Path

import pytest

from tandem.settings import SETTINGS, InvalidSetting, Settings, read_settings


def test_every_field_is_a_setting_and_has_a_default() -> None:
    fields = set(Settings.__struct_fields__) - {"sources"}
    assert {setting.field for setting in SETTINGS} == fields


def test_values_come_from_the_environment_and_say_so() -> None:
    settings = read_settings({"TANDEM_SCHEDULER_MAX_CONCURRENT_RUNS": "3"})
    assert settings.runs_max == 3
    assert settings.sources["runs_max"] == "environment"
    assert settings.sources["lease_ms"] == "default"


@pytest.mark.parametrize(
    ("given", "expected"), [("1", 3_000), ("60000", 60_000), ("99999999999", 21_600_000)]
)
def test_the_lease_is_clamped(given: str, expected: int) -> None:
    assert read_settings({"TANDEM_AUTOMATION_RUN_CLAIM_LEASE_MS": given}).lease_ms == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TANDEM_SCHEDULER_MAX_CONCURRENT_RUNS", "0"),
        ("TANDEM_SCHEDULER_MAX_CONCURRENT_RUNS", "many"),
        ("TANDEM_STORE_SYNCHRONOUS", "OFF"),
        ("TANDEM_STATE_DIR", " "),
        ("TANDEM_PROCESS_ISOLATION", "none"),
    ],
)
def test_a_bad_value_names_the_variable_and_what_is_allowed(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=rf"{name}='{value}' is not "):
        read_settings({name: value})


def test_the_store_is_in_the_state_folder_unless_a_url_says_otherwise(tmp_path: Path) -> None:
    settings = read_settings({"TANDEM_STATE_DIR": str(tmp_path)})
    assert settings.store_path == tmp_path / "tandem.db"
    settings = read_settings({"TANDEM_DATABASE_URL": f"sqlite:///{tmp_path}/x.db"})
    assert settings.store_path == tmp_path / "x.db"
    with pytest.raises(InvalidSetting, match="SQLite only"):
        _ = read_settings({"TANDEM_DATABASE_URL": "postgresql://host/db"}).store_path
