"""What a node does: one model per `action.kind` (design 6.2)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class _Action(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class CommandOutput(_Action):
    """How a command's output becomes the node's output."""

    format: Literal["text", "json", "file"] = "text"
    """`text`: stdout as it is; `json`: stdout parsed; `file`: the file at `path`, an artifact."""
    path: str | None = None
    """For `file`: the file that the command writes, relative to the workspace."""
    media_type: str | None = None


class CommandAction(_Action):
    """A program with its arguments. There is no shell unless `shell` says so."""

    kind: Literal["command"] = "command"
    argv: list[str] = Field(default_factory=list)
    """Program and arguments; used when `shell` is false."""
    shell: bool = False
    script: str | None = None
    """The text that `/bin/sh -c` runs; used when `shell` is true."""
    cwd: str | None = None
    """Working directory relative to the workspace; it may not leave it."""
    env: dict[EnvName, str] = Field(default_factory=dict)
    """Variables beside the small base environment (PATH, HOME, LANG, TZ, TMPDIR, USER)."""
    pass_env: list[EnvName] = Field(default_factory=list)
    """Names of variables of the engine's own environment that the command may see."""
    exit_codes: list[int] = Field(default_factory=lambda: [0], min_length=1)
    """Exit codes that mean success."""
    output: CommandOutput = Field(default_factory=CommandOutput)


class PythonAction(_Action):
    """A Python function, called with `arguments` as keyword arguments; its result is JSON."""

    kind: Literal["python"] = "python"
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
    """`package.module:function`."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    env: dict[EnvName, str] = Field(default_factory=dict)
    pass_env: list[EnvName] = Field(default_factory=list)
    python_path: list[str] = Field(default_factory=list)
    """Directories, relative to the workspace, put in front of `sys.path`."""


class HttpAction(_Action):
    """One HTTP request. Its output is `{status, headers, body}`; a JSON body is parsed."""

    kind: Literal["http"] = "http"
    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: str
    headers: dict[str, str] = Field(default_factory=dict)
    json_body: Any = None
    """Sent as JSON when it is not null."""
    text_body: str | None = None
    expect_status: list[int] = Field(default_factory=list)
    """Statuses that mean success; empty means every 2xx."""
    connect_timeout_ms: int = Field(default=10_000, gt=0)
    follow_redirects: bool = False


class AgentAction(_Action):
    """A model session. Needs the `agents` extra."""

    kind: Literal["agent"] = "agent"


Action = Annotated[
    CommandAction | PythonAction | HttpAction | AgentAction, Field(discriminator="kind")
]
