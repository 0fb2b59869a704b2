"""Every setting: its name in the environment, its type and unit, its default, one sentence."""

import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import platformdirs

from tandem.domain.command import LossPolicy
from tandem.domain.errors import EngineError


class InvalidSetting(EngineError):
    """A variable of the environment has a value that its setting does not allow."""

    code = "invalid_setting"


OLDER_BACKEND: Final = "TANDEM_STORAGE_BACKEND"
OLDER_POSTGRES_URL: Final = "TANDEM_STORAGE_POSTGRES_URL"
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/]*(?=@)|(?<=[?&]password=)[^&]*")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting. `unit` is empty for text; `parse` raises ValueError with what is allowed.

    `older` are names from former times that give the value when `name` does not.
    """

    field: str
    name: str
    unit: str
    sentence: str
    parse: Callable[[str], Any]
    older: tuple[str, ...] = ()
    is_secret: bool = False
    """Its value is never shown."""


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.strip().isdecimal() or not lowest <= int(text) <= highest:
            raise ValueError(f"a whole number from {lowest} to {highest}")
        return int(text)

    return parse


def _clamped(lowest: int, highest: int) -> Callable[[str], int]:
    whole = _whole(1, 2**53)
    return lambda text: min(max(whole(text), lowest), highest)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        for word in words:
            if text.strip().lower() == word.lower():
                return word
        raise ValueError(f"one of {', '.join(words)}")

    return parse


def _positive_or(default: int) -> Callable[[str], int]:
    """Read a whole number above 0 as the original does: anything else counts as not given.

    Blanks around the number are not taken away (run-lifecycle 2.3).
    """

    def parse(text: str) -> int:
        digits = text.removeprefix("+")
        is_number = digits.isascii() and digits.isdigit()
        return int(digits) if is_number and 0 < int(digits) < _U64_PAST else default

    return parse


_U64_PAST = 2**64


def _yes_or_no(text: str) -> bool:
    word = text.strip().lower()
    if word not in _YES | _NO:
        raise ValueError("one of true, false")
    return word in _YES


_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"", "0", "false", "no", "off"})


def _number(lowest: float, highest: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(text) if _DECIMAL.fullmatch(text.strip()) else highest + 1
        if not lowest <= value <= highest:
            raise ValueError(f"a number from {lowest:g} to {highest:g}")
        return value

    return parse


_DECIMAL: Final = re.compile(r"\d+(\.\d*)?(e-?\d+)?|\.\d+", re.ASCII | re.IGNORECASE)


def _is_present(_text: str) -> bool:
    return True


def _folder(text: str) -> Path:
    if not text.strip():
        raise ValueError("a folder")
    return Path(text).expanduser().absolute()


def _file(text: str) -> Path | None:
    return Path(text.strip()).expanduser().absolute() if text.strip() else None


def _labels(text: str) -> tuple[str, ...]:
    return tuple(sorted({label.strip() for label in text.split(",")} - {""}))


SETTINGS: Final = (
    Setting(
        field="state_dir",
        name="TANDEM_STATE_DIR",
        unit="folder",
        sentence="Where the store, large outputs, logs and the locks of engines live.",
        parse=_folder,
    ),
    Setting(
        field="database_url",
        name="TANDEM_DATABASE_URL",
        unit="",
        sentence="The store; `sqlite:///` and a path. Empty means `tandem.db` in the state folder.",
        parse=str.strip,
        older=(OLDER_BACKEND, OLDER_POSTGRES_URL),
    ),
    Setting(
        field="lease_ms",
        name="TANDEM_AUTOMATION_RUN_CLAIM_LEASE_MS",
        unit="ms",
        sentence="How long an engine's claim lasts without renewal; clamped to 3,000–21,600,000.",
        parse=_clamped(3_000, 21_600_000),
    ),
    Setting(
        field="runs_max",
        name="TANDEM_SCHEDULER_MAX_CONCURRENT_RUNS",
        unit="runs",
        sentence="How many runs one engine drives at once.",
        parse=_whole(1, 100_000),
    ),
    Setting(
        field="default_profile",
        name="TANDEM_DEFAULT_EXECUTION_PROFILE",
        unit="",
        sentence="How strict a run is when neither it nor its definition says so.",
        parse=_one_of("strict", "guided", "yolo"),
    ),
    Setting(
        field="retention_days",
        name="TANDEM_AUTOMATION_V2_RUNS_RETENTION_DAYS",
        unit="days",
        sentence="How long after its end a run stays unpacked; packed ones are read and recovered "
        "as before, only slower. 0 packs none.",
        parse=_whole(0, 36_500),
    ),
    Setting(
        field="runs_total_max",
        name="TANDEM_SCHEDULER_MAX_CONCURRENT_RUNS_TOTAL",
        unit="runs",
        sentence="How many runs all engines of the store drive at once, as far as this engine adds "
        "to them; without it only each engine's own number counts.",
        parse=_whole(1, 1_000_000),
    ),
    Setting(
        field="mode",
        name="TANDEM_SCHEDULER_MODE",
        unit="",
        sentence="`single` drives one run at a time, with all checks of admission; `multi` as many "
        "as TANDEM_SCHEDULER_MAX_CONCURRENT_RUNS says.",
        parse=_one_of("single", "multi"),
    ),
    Setting(
        field="labels",
        name="TANDEM_ENGINE_LABELS",
        unit="",
        sentence="What this engine has, as a list with commas (`gpu,eu`); runs that need a label "
        "(`resources.labels`) are driven only where it is.",
        parse=_labels,
    ),
    Setting(
        field="synchronous",
        name="TANDEM_STORE_SYNCHRONOUS",
        unit="",
        sentence="`FULL` syncs every commit; `NORMAL` may lose the newest ones in a power cut.",
        parse=_one_of("FULL", "NORMAL"),
    ),
    Setting(
        field="writer",
        name="TANDEM_STORE_WRITER",
        unit="",
        sentence="Where commits are done: `auto` begins `inline` and moves to a `process` when "
        "the disk is slow.",
        parse=_one_of("auto", "inline", "process"),
    ),
    Setting(
        field="status_writer",
        name="TANDEM_STATUS_WRITER",
        unit="",
        sentence="Where status files are written: `auto` begins `inline` and moves to a `process` "
        "when there are many runs.",
        parse=_one_of("auto", "inline", "process"),
    ),
    Setting(
        field="inline_bytes_max",
        name="TANDEM_OUTPUT_INLINE_MAX_BYTES",
        unit="bytes",
        sentence="Outputs up to this size live in the store, larger ones as artifact files.",
        parse=_whole(0, 1_048_576),
    ),
    Setting(
        field="output_bytes_max",
        name="TANDEM_OUTPUT_MAX_BYTES",
        unit="bytes",
        sentence="The largest output that a node may have; a larger one fails it.",
        parse=_whole(1, 1_073_741_824),
    ),
    Setting(
        field="gate_expires_after_ms",
        name="TANDEM_APPROVAL_GATE_DEFAULT_EXPIRES_AFTER_MS",
        unit="ms",
        sentence="When a gate expires that gives no span of its own.",
        parse=_whole(1, 2**53 - 1),
    ),
    Setting(
        field="gate_on_expiry",
        name="TANDEM_APPROVAL_GATE_DEFAULT_ON_EXPIRY",
        unit="",
        sentence="What follows when such a gate expires: `cancel`, `escalate`, `remind`, `resume`.",
        parse=_one_of("cancel", "escalate", "remind", "resume"),
    ),
    Setting(
        field="gate_stale_after_ms",
        name="TANDEM_APPROVAL_GATE_STALE_AFTER_MS",
        unit="ms",
        sentence="How long a gate is open before it is marked as stale.",
        parse=_whole(1, 2**53 - 1),
    ),
    Setting(
        field="schedule_grace_ms",
        name="TANDEM_SCHEDULE_GRACE_MS",
        unit="ms",
        sentence=(
            "A firing of a schedule that is later than this was missed; its misfire policy says "
            "what follows."
        ),
        parse=_whole(0, 86_400_000),
    ),
    Setting(
        field="signal_retention_ms",
        name="TANDEM_SIGNAL_RETENTION_MS",
        unit="ms",
        sentence="How long an accepted signal is kept for waits that are registered later.",
        parse=_whole(1, 2**53 - 1),
    ),
    Setting(
        field="relaxation_denylist",
        name="TANDEM_RELAXATION_DENYLIST",
        unit="",
        sentence="Requirement classes, separated by commas, that no execution profile lets pass.",
        parse=_names,
    ),
    Setting(
        field="runtime_budget_clock",
        name="TANDEM_RUNTIME_BUDGET_CLOCK",
        unit="",
        sentence="What counts against `max_total_runtime_ms` of runs that are created: the time in "
        "which an engine drives them, or all time since they were first claimed.",
        parse=_one_of("active", "wall"),
    ),
    Setting(
        field="token_cost_per_1k_usd",
        name="TANDEM_TOKEN_COST_PER_1K_USD",
        unit="USD",
        sentence="The price of 1,000 tokens for calls that do not say what they cost.",
        parse=_number(0, 1_000),
    ),
    Setting(
        field="isolation",
        name="TANDEM_PROCESS_ISOLATION",
        unit="",
        sentence="How bodies are kept from outliving the engine.",
        parse=_one_of("auto", "pid_namespace", "subreaper"),
    ),
    Setting(
        field="stop_grace_ms",
        name="TANDEM_STOP_GRACE_MS",
        unit="ms",
        sentence="The time between SIGTERM and SIGKILL for a command that is stopped.",
        parse=_whole(0, 600_000),
    ),
    Setting(
        field="restart_policy",
        name="TANDEM_RESTART_POLICY",
        unit="",
        sentence="What becomes of a running run whose engine died: `resume` queues it again, "
        "`fail` fails it.",
        parse=_one_of(*LossPolicy),
    ),
    Setting(
        field="shutdown_policy",
        name="TANDEM_SHUTDOWN_POLICY",
        unit="",
        sentence="What becomes of a run that still runs when its engine has to stop: `resume` "
        "queues it again, `fail` fails it.",
        parse=_one_of(*LossPolicy),
    ),
    Setting(
        field="shutdown_timeout_s",
        name="TANDEM_SCHEDULER_SHUTDOWN_TIMEOUT_SECS",
        unit="s",
        sentence="How long a stopping engine lets attempts finish, and waits for a store that is "
        "away; `tandem run` and engines in a program let none finish unless this is set.",
        parse=_whole(0, 86_400),
    ),
    Setting(
        field="stale_after_ms",
        name="TANDEM_STALE_AFTER_MS",
        unit="ms",
        sentence="A run that shows no life for so long, and for a minute longer than any limit of "
        "its nodes, is stopped.",
        parse=_whole(1_000, 2**53),
    ),
    Setting(
        field="auto_resume_window_ms",
        name="TANDEM_STALE_AUTO_RESUME_WINDOW_MS",
        unit="ms",
        sentence="How long after that a run may go on by itself; what is no whole number above 0 "
        "counts as not given.",
        parse=_positive_or(1_200_000),
    ),
    Setting(
        field="auto_resumes_max",
        name="TANDEM_STALE_AUTO_RESUME_MAX_ATTEMPTS",
        unit="times",
        sentence="How often one run may go on by itself; what is no whole number above 0 counts as "
        "not given.",
        parse=_positive_or(2),
    ),
    Setting(
        field="auto_resume_disabled",
        name="TANDEM_DISABLE_STALE_AUTO_RESUME",
        unit="presence",
        sentence="Any value, even an empty one, lets no run go on by itself.",
        parse=_is_present,
    ),
    Setting(
        field="event_keep_alive_ms",
        name="TANDEM_EVENT_KEEP_ALIVE_MS",
        unit="ms",
        sentence="After so long without an event a stream says that it lives.",
        parse=_whole(100, 240_000),
    ),
    Setting(
        field="event_streams_max",
        name="TANDEM_EVENT_STREAMS_MAX",
        unit="streams",
        sentence="How many event streams one caller may have open at once.",
        parse=_whole(1, 100_000),
    ),
    Setting(
        field="event_buffer_events_max",
        name="TANDEM_EVENT_BUFFER_MAX_EVENTS",
        unit="events",
        sentence="A reader of a stream for whom more events wait is dropped; it can come again "
        "with its last id.",
        parse=_whole(1, 1_000_000),
    ),
    Setting(
        field="event_buffer_bytes_max",
        name="TANDEM_EVENT_BUFFER_MAX_BYTES",
        unit="bytes",
        sentence="The same for their size.",
        parse=_whole(65_536, 1_073_741_824),
    ),
    Setting(
        field="review_runs_max",
        name="TANDEM_AGENT_AUTOMATION_RUN_REVIEW_THRESHOLD",
        unit="runs",
        sentence="After so many ended runs of an automation that is enrolled for reviews somebody "
        "has to look before a new one begins; 0 lets none be held.",
        parse=_whole(0, 2**53),
    ),
    Setting(
        field="learning_auto_apply",
        name="TANDEM_WORKFLOW_LEARNING_AUTO_APPLY",
        unit="yes or no",
        sentence="Whether what was learned from runs is applied without a person.",
        parse=_yes_or_no,
    ),
    Setting(
        field="learning_min_confidence",
        name="TANDEM_WORKFLOW_LEARNING_MIN_CONFIDENCE",
        unit="0 to 1",
        sentence="Without a person nothing is applied that is less certain.",
        parse=_number(0, 1),
    ),
    Setting(
        field="learning_min_baseline_sample",
        name="TANDEM_WORKFLOW_LEARNING_MIN_BASELINE_SAMPLE",
        unit="runs",
        sentence="Without a person nothing is applied that fewer ended runs speak for.",
        parse=_whole(0, 50),
    ),
    Setting(
        field="learning_max_intervention_rate",
        name="TANDEM_WORKFLOW_LEARNING_MAX_HUMAN_INTERVENTION_RATE",
        unit="0 to 1",
        sentence="Nothing is applied by itself to an automation of whose runs people steer more.",
        parse=_number(0, 1),
    ),
    Setting(
        field="learning_post_apply_min_sample",
        name="TANDEM_WORKFLOW_LEARNING_POST_APPLY_MIN_SAMPLE",
        unit="runs",
        sentence="After so many ended runs it is judged whether what was applied made them worse.",
        parse=_whole(1, 50),
    ),
    Setting(
        field="learning_regression_margin",
        name="TANDEM_WORKFLOW_LEARNING_REGRESSION_MARGIN",
        unit="0 to 1",
        sentence="What was applied counts as regressed when completion or validation fell by more.",
        parse=_number(0, 1),
    ),
    Setting(
        field="webhook_rate_per_min",
        name="TANDEM_PUBLIC_WEBHOOK_RATE_LIMIT_PER_MIN",
        unit="requests a minute",
        sentence="How often one webhook address may be asked; 0 for no limit.",
        parse=_whole(0, 1_000_000),
    ),
    Setting(
        field="webhook_network_rate_per_min",
        name="TANDEM_PUBLIC_WEBHOOK_NETWORK_RATE_LIMIT_PER_MIN",
        unit="requests a minute",
        sentence="How often one network (24 bits of IPv4, 64 bits of IPv6) may ask webhook "
        "addresses; 0 for no limit. Behind a proxy all senders are one network.",
        parse=_whole(0, 1_000_000),
    ),
    Setting(
        field="webhook_tolerance_ms",
        name="TANDEM_WEBHOOK_TOLERANCE_MS",
        unit="ms",
        sentence="How far the signed moment of a webhook delivery may be off.",
        parse=_whole(1_000, 3_600_000),
    ),
    Setting(
        field="webhook_unsigned",
        name="TANDEM_AUTOMATION_WEBHOOK_ALLOW_UNSIGNED_DEV_MODE",
        unit="",
        sentence="Allow webhook triggers without a signature, while the server listens on this "
        "machine only.",
        parse=_yes_or_no,
    ),
    Setting(
        field="host",
        name="TANDEM_HOST",
        unit="address",
        sentence="Where `tandem serve` listens; another machine can only ask with a token.",
        parse=str.strip,
    ),
    Setting(
        field="port",
        name="TANDEM_PORT",
        unit="port",
        sentence="The port of `tandem serve`; 0 takes a free one.",
        parse=_whole(0, 65_535),
    ),
    Setting(
        field="api_token",
        name="TANDEM_API_TOKEN",
        unit="",
        sentence="The token that may ask the server everything. Empty means that none is needed, "
        "on this machine only.",
        parse=str.strip,
        is_secret=True,
    ),
    Setting(
        field="api_token_file",
        name="TANDEM_API_TOKEN_FILE",
        unit="file",
        sentence="A file with that token, which only its owner may read.",
        parse=_file,
    ),
    Setting(
        field="cors_origins",
        name="TANDEM_CORS_ORIGINS",
        unit="list",
        sentence="Web pages of these origins may ask the server, separated by commas.",
        parse=_labels,
    ),
    Setting(
        field="allowed_hosts",
        name="TANDEM_ALLOWED_HOSTS",
        unit="list",
        sentence="Names under which the server may be asked beside those of this machine, "
        "separated by commas. Empty means any where a token is set.",
        parse=_names,
    ),
    Setting(
        field="http_body_bytes_max",
        name="TANDEM_HTTP_BODY_MAX_BYTES",
        unit="bytes",
        sentence="A request with a larger body is refused.",
        parse=_whole(1_024, 1_073_741_824),
    ),
    Setting(
        field="log_format",
        name="TANDEM_LOG_FORMAT",
        unit="",
        sentence="How `tandem serve` writes its log: `json`, a line for each thing; `console`, in "
        "columns; `auto`, columns on a terminal and JSON elsewhere.",
        parse=_one_of("auto", "json", "console"),
    ),
    Setting(
        field="log_level",
        name="TANDEM_LOG_LEVEL",
        unit="",
        sentence="The least important lines of that log: `debug` also tells of nodes and requests, "
        "`info` of runs, `warning` and `error` of what went wrong.",
        parse=_one_of("debug", "info", "warning", "error"),
    ),
    Setting(
        field="metrics_enabled",
        name="TANDEM_OBSERVABILITY_PROMETHEUS_ENABLED",
        unit="yes or no",
        sentence="Whether `GET /metrics` answers, in the text format of Prometheus.",
        parse=_yes_or_no,
    ),
    Setting(
        field="metrics_public",
        name="TANDEM_OBSERVABILITY_PROMETHEUS_PUBLIC",
        unit="yes or no",
        sentence="Whether other machines need no token for it; this machine never does.",
        parse=_yes_or_no,
    ),
    Setting(
        field="traces",
        name="TANDEM_TRACES",
        unit="",
        sentence="`auto` sends spans of runs and attempts where the standard variables of "
        "OpenTelemetry say, such as OTEL_EXPORTER_OTLP_ENDPOINT; `off` sends none.",
        parse=_one_of("auto", "off"),
    ),
    Setting(
        field="auth_mode",
        name="TANDEM_RUNTIME_AUTH_MODE",
        unit="",
        sentence="`local_single_tenant`: a token, once there is one, says who asks; "
        "`hosted_single_tenant` and `enterprise_required`: with every request a signed tenant "
        "context, too.",
        parse=_one_of("local_single_tenant", "hosted_single_tenant", "enterprise_required"),
    ),
    Setting(
        field="assertion_keys_file",
        name="TANDEM_CONTEXT_ASSERTION_KEYS_FILE",
        unit="file",
        sentence="A JSON object with the names (`kid`) and the Ed25519 public keys (base64 or PEM) "
        "of those who sign tenant contexts; needed in the hosted modes.",
        parse=_file,
    ),
    Setting(
        field="assertion_issuer",
        name="TANDEM_CONTEXT_ASSERTION_ISSUER",
        unit="",
        sentence="Who has to have signed a tenant context.",
        parse=str.strip,
    ),
    Setting(
        field="assertion_audience",
        name="TANDEM_CONTEXT_ASSERTION_AUDIENCE",
        unit="",
        sentence="For whom a tenant context has to be signed.",
        parse=str.strip,
    ),
    Setting(
        field="assertion_replay",
        name="TANDEM_CONTEXT_ASSERTION_REPLAY",
        unit="",
        sentence="A tenant context that comes again: `bound` takes it only as it was, `one_shot` "
        "never, `off` always.",
        parse=_one_of("bound", "one_shot", "off"),
    ),
    Setting(
        field="tenant_requests_per_min",
        name="TANDEM_TENANT_RATE_LIMIT_PER_MIN",
        unit="requests",
        sentence="How many requests a tenant may make in a minute, at one server; 0 for any.",
        parse=_whole(0, 10_000_000),
    ),
    Setting(
        field="run_creations_per_min",
        name="TANDEM_RUN_CREATIONS_PER_MIN",
        unit="runs",
        sentence="How many runs a tenant may create in a minute, at one server; 0 for any.",
        parse=_whole(0, 10_000_000),
    ),
    Setting(
        field="gate_four_eyes",
        name="TANDEM_GATE_FOUR_EYES",
        unit="yes or no",
        sentence="No gate is approved by whoever started its run, also where its definition does "
        "not ask for another person.",
        parse=_yes_or_no,
    ),
    Setting(
        field="url",
        name="TANDEM_URL",
        unit="URL",
        sentence="The server that commands with `--url` ask without it. Empty means the store "
        "here.",
        parse=str.strip,
    ),
    Setting(
        field="token",
        name="TANDEM_TOKEN",
        unit="",
        sentence="What that server knows the command line by. Empty means the token of "
        "`tandem login`, if there is one.",
        parse=str.strip,
        is_secret=True,
    ),
    Setting(
        field="login_file",
        name="TANDEM_LOGIN_FILE",
        unit="file",
        sentence="Where `tandem login` keeps tokens. Empty means `login/logins.json` in the state "
        "folder.",
        parse=_file,
    ),
)

CORS_ORIGINS: Final = (
    "http://127.0.0.1:3000",
    "http://127.0.0.1:5173",
    "http://localhost:3000",
    "http://localhost:5173",
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one process. `sources` says where each value came from."""

    state_dir: Path = Path(platformdirs.user_state_dir("tandem"))
    database_url: str = ""
    lease_ms: int = 30_000
    runs_max: int = 8
    default_profile: str = "guided"
    retention_days: int = 7
    runs_total_max: int | None = None
    mode: str = "multi"
    labels: tuple[str, ...] = ()
    synchronous: str = "FULL"
    writer: str = "auto"
    status_writer: str = "auto"
    inline_bytes_max: int = 16_384
    output_bytes_max: int = 16_777_216
    gate_expires_after_ms: int = 604_800_000
    gate_on_expiry: str = "cancel"
    gate_stale_after_ms: int = 86_400_000
    schedule_grace_ms: int = 60_000
    signal_retention_ms: int = 604_800_000
    relaxation_denylist: tuple[str, ...] = ()
    runtime_budget_clock: str = "active"
    token_cost_per_1k_usd: float = 0.0
    isolation: str = "auto"
    stop_grace_ms: int = 2_000
    restart_policy: str = "resume"
    shutdown_policy: str = "resume"
    shutdown_timeout_s: int = 30
    stale_after_ms: int = 600_000
    auto_resume_window_ms: int = 1_200_000
    auto_resumes_max: int = 2
    auto_resume_disabled: bool = False
    event_keep_alive_ms: int = 10_000
    event_streams_max: int = 512
    event_buffer_events_max: int = 4_096
    event_buffer_bytes_max: int = 8_388_608
    review_runs_max: int = 20
    learning_auto_apply: bool = False
    learning_min_confidence: float = 0.8
    learning_min_baseline_sample: int = 5
    learning_max_intervention_rate: float = 0.0
    learning_post_apply_min_sample: int = 3
    learning_regression_margin: float = sys.float_info.epsilon
    webhook_rate_per_min: int = 120
    webhook_network_rate_per_min: int = 30
    webhook_tolerance_ms: int = 300_000
    webhook_unsigned: bool = False
    host: str = "127.0.0.1"
    port: int = 39_731
    api_token: str = ""
    api_token_file: Path | None = None
    cors_origins: tuple[str, ...] = CORS_ORIGINS
    allowed_hosts: tuple[str, ...] = ()
    http_body_bytes_max: int = 10_485_760
    url: str = ""
    token: str = ""
    login_file: Path | None = None
    log_format: str = "auto"
    log_level: str = "info"
    metrics_enabled: bool = False
    metrics_public: bool = False
    traces: str = "auto"
    auth_mode: str = "local_single_tenant"
    assertion_keys_file: Path | None = None
    assertion_issuer: str = "tandem-web"
    assertion_audience: str = "tandem-runtime"
    assertion_replay: str = "bound"
    tenant_requests_per_min: int = 0
    run_creations_per_min: int = 6_000
    gate_four_eyes: bool = False
    sources: Mapping[str, str] = {}

    @property
    def is_unsigned_webhook_allowed(self) -> bool:
        """Whether webhook triggers may be without a signature: nobody else can reach them."""
        return self.webhook_unsigned and self.host in ("127.0.0.1", "localhost", "::1")

    @property
    def has_token(self) -> bool:
        """Whether the server lets in only those who have a token."""
        return bool(self.api_token) or self.api_token_file is not None

    def api_token_text(self) -> str:
        """Return the token that may do everything, from the environment or its file.

        Raises:
            InvalidSetting: the file cannot be read, is empty, or others may read it.
        """
        if self.api_token or self.api_token_file is None:
            return self.api_token
        return _secret_of(self.api_token_file, "TANDEM_API_TOKEN_FILE")

    def log_is_json(self, *, on_screen: bool) -> bool:
        """Say whether the log is for machines; `on_screen` where a person looks at it."""
        return self.log_format == "json" or (self.log_format == "auto" and not on_screen)

    def secret_values(self) -> tuple[str, ...]:
        """Return every value that may be shown nowhere; a file that cannot be read has none."""
        found = [str(getattr(self, setting.field)) for setting in SETTINGS if setting.is_secret]
        with suppress(InvalidSetting):
            found.append(self.api_token_text())
        return tuple(value for value in found if value)

    @property
    def runs_at_once(self) -> int:
        """How many runs this engine drives at once, by its number and its mode."""
        return 1 if self.mode == "single" else self.runs_max

    @property
    def store_path(self) -> Path:
        """The file of the embedded store.

        Raises:
            InvalidSetting: the database URL is not one of SQLite.
        """
        url = self.database_url
        if not url:
            return self.state_dir / "tandem.db"
        prefix = "sqlite:///"
        if not url.startswith(prefix) or len(url) == len(prefix):
            source = self.sources.get("database_url", "")
            by = f" ({source})" if OLDER_POSTGRES_URL in source else ""
            raise InvalidSetting(
                f"the store {without_credentials(url)!r}{by} cannot be used: this version knows "
                "SQLite only; write TANDEM_DATABASE_URL=sqlite:///path/to/tandem.db"
            )
        return Path(url.removeprefix(prefix)).expanduser().absolute()


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings of a process from its environment.

    Raises:
        InvalidSetting: a variable has a value that its setting does not allow.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS:
        text = environment.get(setting.name)
        if not (text or "").strip() and setting.older:
            found = _older_store(environment)
            if found is not None:
                values[setting.field], sources[setting.field] = found
                continue
        if text is None:
            sources[setting.field] = "default"
            continue
        try:
            values[setting.field] = setting.parse(text)
        except ValueError as error:
            raise InvalidSetting(f"{setting.name}={text!r} is not {error}") from None
        sources[setting.field] = "environment"
    return Settings(**values, sources=sources)


def _secret_of(path: Path, name: str) -> str:
    """Return the secret that a file holds; a file that others may read keeps none.

    Raises:
        InvalidSetting: it cannot be used; the message says why.
    """
    try:
        others = path.stat().st_mode & 0o077
        secret = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{name}={path} cannot be read: {error}") from error
    if others:
        raise InvalidSetting(f"{name}={path} may be read by others: chmod 600 {path}")
    if not secret:
        raise InvalidSetting(f"{name}={path} is empty")
    return secret


def without_credentials(url: str) -> str:
    """Return a URL without user and password, as it may be shown."""
    return _CREDENTIALS.sub("…", url)


def _older_store(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the URL of the store by its older names, and the source; None without them.

    A backend of `sqlite` means the file in the state folder, whatever else is given.

    Raises:
        InvalidSetting: the backend is unknown, or the URL is missing or of another backend.
    """
    backend = environment.get(OLDER_BACKEND, "").strip().lower()
    url = environment.get(OLDER_POSTGRES_URL, "").strip()
    if backend not in ("", "sqlite", "postgres"):
        raise InvalidSetting(
            f"{OLDER_BACKEND}={environment[OLDER_BACKEND]!r} is not one of sqlite, postgres; "
            "it is an older name: write TANDEM_DATABASE_URL=sqlite:///path/to/tandem.db"
        )
    if backend == "sqlite":
        return "", f"environment, older name {OLDER_BACKEND}"
    if not url and not backend:
        return None
    if not url:
        raise InvalidSetting(
            f"{OLDER_BACKEND}=postgres needs {OLDER_POSTGRES_URL}, which is not set; "
            "write TANDEM_DATABASE_URL=sqlite:///path/to/tandem.db instead of both"
        )
    if not url.startswith(("postgres://", "postgresql://")):
        raise InvalidSetting(
            f"{OLDER_POSTGRES_URL}={without_credentials(url)!r} does not begin with postgresql://; "
            "another store is named by TANDEM_DATABASE_URL"
        )
    names = (OLDER_BACKEND, OLDER_POSTGRES_URL) if backend else (OLDER_POSTGRES_URL,)
    return url, f"environment, older name{'s' * (len(names) - 1)} {' and '.join(names)}"
