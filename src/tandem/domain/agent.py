"""Who performs a node: the agent, the tools and the connections it may use (definitions 1.3)."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from tandem.domain.document import DocumentPart


class ToolPolicy(DocumentPart):
    """Tools that may be used, and tools that may not; the denylist wins."""

    allowlist: tuple[str, ...] = ()
    denylist: tuple[str, ...] = ()


class CurrentActor(DocumentPart):
    """The connection acts as whoever started the run."""

    type: Literal["current_actor"] = "current_actor"


class ServicePrincipal(DocumentPart):
    """The connection acts as a service account."""

    type: Literal["service_principal"] = "service_principal"
    principal_id: str


class AutomationPrincipal(DocumentPart):
    """The connection acts as an automation."""

    type: Literal["automation_principal"] = "automation_principal"
    automation_id: str


class SharedConnection(DocumentPart):
    """The connection is one that somebody shared."""

    type: Literal["shared_connection"] = "shared_connection"
    grant_id: str


RunAs = Annotated[
    CurrentActor | ServicePrincipal | AutomationPrincipal | SharedConnection,
    Field(discriminator="type"),
]


class McpConnection(DocumentPart):
    """A grant to use one server through one connection."""

    server: str
    connection_id: str | None = None
    connection_generation: int | None = Field(default=None, ge=0)
    run_as: RunAs | None = None


class McpPolicy(DocumentPart):
    """MCP servers and tools that may be used. `allowed_tools` absent means no restriction."""

    allowed_servers: tuple[str, ...] = ()
    allowed_tools: tuple[str, ...] | None = None
    allowed_connections: tuple[McpConnection, ...] = ()

    @property
    def servers(self) -> tuple[str, ...]:
        """Every server that may be used, sorted: those named and those of the connections."""
        return tuple(sorted({*self.allowed_servers, *(c.server for c in self.allowed_connections)}))


class AgentProfile(DocumentPart):
    """Who performs a node: model, skills, tools."""

    agent_id: str
    display_name: str = Field(default_factory=lambda data: str(data["agent_id"]))
    template_id: str | None = None
    avatar_url: str | None = None
    model_policy: JsonValue = None
    skills: tuple[str, ...] = ()
    tool_policy: ToolPolicy = Field(default_factory=ToolPolicy)
    mcp_policy: McpPolicy = Field(default_factory=McpPolicy)
    approval_policy: str | None = None
