"""Settings come from the environment, or say what is wrong with it."""

from pathlib import Path

import pytest

from tandem.embedded import Engine
from tandem.settings import (
    SETTINGS,
    InvalidSetting,
    Settings,
    read_settings,
    without_credentials,
)


def test_every_field_is_a_setting_and_has_a_default() -> None:
    fields = set(Settings.__struct_fields__) - {"sources"}
    assert {setting.field for setting in SETTINGS} == fields


def test_mode_and_labels() -> None:
    settings = read_settings(
        {
            "TANDEM_SCHEDULER_MODE": "single",
            "TANDEM_SCHEDULER_MAX_CONCURRENT_RUNS": "5",
            "TANDEM_SCHEDULER_MAX_CONCURRENT_RUNS_TOTAL": "9",
            "TANDEM_ENGINE_LABELS": " gpu, eu,,gpu ",
        }
    )
    assert (settings.runs_at_once, settings.runs_total_max) == (1, 9)
    assert settings.labels == ("eu", "gpu")
    assert (Settings(runs_max=5).runs_at_once, Settings().runs_total_max) == (5, None)


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
        ("TANDEM_SCHEDULER_MAX_CONCURRENT_RUNS_TOTAL", "0"),
        ("TANDEM_SCHEDULER_MODE", "double"),
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


BACKEND, URL = "TANDEM_STORAGE_BACKEND", "TANDEM_STORAGE_POSTGRES_URL"
POSTGRES = "postgresql://me:secret@host/db"


def test_older_names_of_the_store_are_read_and_named_as_the_source(tmp_path: Path) -> None:
    folder = {"TANDEM_STATE_DIR": str(tmp_path)}
    settings = read_settings(folder | {BACKEND: " SQLite "})
    assert settings.store_path == tmp_path / "tandem.db"
    assert settings.sources["database_url"] == f"environment, older name {BACKEND}"
    # One backend was chosen of two that were described.
    settings = read_settings(folder | {BACKEND: "sqlite", URL: POSTGRES})
    assert settings.store_path == tmp_path / "tandem.db"


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({BACKEND: "postgres", URL: POSTGRES}, f"environment, older names {BACKEND} and {URL}"),
        ({URL: POSTGRES}, f"environment, older name {URL}"),
    ],
)
def test_postgres_by_its_older_names_is_not_known_to_this_version(
    given: dict[str, str], source: str
) -> None:
    settings = read_settings(given)
    assert (settings.database_url, settings.sources["database_url"]) == (POSTGRES, source)
    with pytest.raises(InvalidSetting) as caught:
        _ = settings.store_path
    assert str(caught.value) == (
        f"the store 'postgresql://…@host/db' ({source}) cannot be used: this version knows SQLite "
        "only; write TANDEM_DATABASE_URL=sqlite:///path/to/tandem.db"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:p@ss@host/db", "postgresql://…@host/db"),
        ("postgresql://host/db?user=me&password=secret&a=b", None),
        ("sqlite:////home/me@work/x.db", "sqlite:////home/me@work/x.db"),
    ],
)
def test_credentials_are_not_shown(url: str, shown: str | None) -> None:
    assert without_credentials(url) == (shown or url.replace("secret", "…"))


def test_the_name_of_today_wins_over_older_ones(tmp_path: Path) -> None:
    given = {"TANDEM_DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    settings = read_settings(given | {BACKEND: "mysql", URL: POSTGRES})
    assert settings.store_path == tmp_path / "x.db"
    assert settings.sources["database_url"] == "environment"


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_url_does_not_hide_the_older_names(empty: str) -> None:
    given = {"TANDEM_DATABASE_URL": empty}
    assert read_settings(given | {URL: POSTGRES}).database_url == POSTGRES
    settings = read_settings(given | {BACKEND: "", URL: ""})
    assert (settings.database_url, settings.sources["database_url"]) == ("", "environment")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({BACKEND: "mysql"}, f"{BACKEND}='mysql' is not one of sqlite, postgres"),
        ({BACKEND: "postgres"}, f"{BACKEND}=postgres needs {URL}, which is not set"),
        ({BACKEND: "postgres", URL: "sqlite:///x.db"}, "does not begin with postgresql://"),
        ({URL: "mysql://me:secret@host"}, f"{URL}='mysql://…@host' does not begin with"),
    ],
)
def test_older_names_that_make_no_store_are_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_settings(given)
    assert said in str(caught.value)
    assert "TANDEM_DATABASE_URL" in str(caught.value)


async def test_a_store_named_in_the_program_wins_over_older_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BACKEND, "mysql")
    async with Engine.open(f"sqlite:///{tmp_path}/x.db"):
        assert (tmp_path / "x.db").exists()


@pytest.mark.parametrize(
    ("text", "window_ms"),
    [
        ("5", 5),
        ("+5", 5),
        ("0", 1_200_000),
        (" 5", 1_200_000),
        ("5 ", 1_200_000),
        ("", 1_200_000),
        ("-5", 1_200_000),
        ("5.0", 1_200_000),
        ("1_000", 1_200_000),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 1_200_000),
    ],
)
def test_the_window_of_the_auto_resume_is_read_as_the_original_reads_it(
    text: str, window_ms: int
) -> None:
    settings = read_settings({"TANDEM_STALE_AUTO_RESUME_WINDOW_MS": text})
    assert settings.auto_resume_window_ms == window_ms


@pytest.mark.parametrize("value", ["", "0", "false", "1"])
def test_presence_alone_disables_the_auto_resume(value: str) -> None:
    assert read_settings({"TANDEM_DISABLE_STALE_AUTO_RESUME": value}).auto_resume_disabled
    assert not read_settings({}).auto_resume_disabled


def test_recovery_has_the_defaults_of_the_original_or_safer_ones() -> None:
    settings = read_settings({})
    assert (settings.restart_policy, settings.shutdown_policy) == ("resume", "resume")
    assert (settings.stale_after_ms, settings.shutdown_timeout_s) == (600_000, 30)
    assert (settings.auto_resume_window_ms, settings.auto_resumes_max) == (1_200_000, 2)


@pytest.mark.parametrize("name", ["TANDEM_RESTART_POLICY", "TANDEM_SHUTDOWN_POLICY"])
def test_a_policy_is_one_of_two_words(name: str) -> None:
    assert read_settings({name: " FAIL "}) != read_settings({name: "resume"})
    with pytest.raises(InvalidSetting, match="one of resume, fail"):
        read_settings({name: "forget"})


@pytest.mark.parametrize(
    ("host", "is_allowed"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False)]
)
def test_webhooks_without_a_signature_are_for_this_machine_only(
    host: str, is_allowed: bool
) -> None:
    name = "TANDEM_AUTOMATION_WEBHOOK_ALLOW_UNSIGNED_DEV_MODE"
    settings = read_settings({name: "true", "TANDEM_HOST": host})
    assert settings.is_unsigned_webhook_allowed is is_allowed
    assert not read_settings({"TANDEM_HOST": host}).is_unsigned_webhook_allowed
