"""The automation document: a named, versioned definition, and its one canonical form.

The fields are those of definitions 1 and 7 and design 6.1. The models check shapes and types;
what the parts say about each other is checked in `validation`.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field, JsonValue

from tandem.domain.agent import AgentProfile
from tandem.domain.document import DocumentPart
from tandem.domain.execution import (
    PARALLEL_DEFAULT,
    PARALLEL_MAX,
    Concurrency,
    ExecutionPolicy,
    WorkspaceUse,
)
from tandem.domain.json import canonical
from tandem.domain.knowledge import KnowledgeBinding
from tandem.domain.node import Effects, ExecutorKind, Node, NodeKind, Resources
from tandem.domain.schedule import Schedule


class AutomationStatus(StrEnum):
    """Whether an automation may start runs by itself."""

    ACTIVE = "active"
    PAUSED = "paused"
    DRAFT = "draft"


class Flow(DocumentPart):
    """The graph."""

    nodes: tuple[Node, ...]


class ScopePolicy(DocumentPart):
    """Paths below the workspace that may be read, written and watched; denied ones win."""

    readable_paths: tuple[str, ...] = ()
    writable_paths: tuple[str, ...] = ()
    denied_paths: tuple[str, ...] = ()
    watch_paths: tuple[str, ...] = ()


class WatchCondition(DocumentPart):
    """Starts a run when another automation hands something over; an absent filter accepts all."""

    kind: Literal["handoff_available"] = "handoff_available"
    source_automation_id: str | None = None
    artifact_type: str | None = None


class HandoffConfig(DocumentPart):
    """Where handoff files are, relative to the workspace."""

    inbox_dir: str = "shared/handoffs/inbox"
    approved_dir: str = "shared/handoffs/approved"
    archived_dir: str = "shared/handoffs/archived"
    auto_approve: bool = True


class Automation(DocumentPart):
    """A named, versioned definition: agents, nodes, schedule and limits.

    `inputs` is kept as it was written; `tandem.domain.inputs` makes a JSON Schema of it.
    """

    automation_id: str
    name: str = Field(default_factory=lambda data: str(data["automation_id"]))
    description: str | None = None
    status: AutomationStatus = AutomationStatus.ACTIVE
    schedule: Schedule = Field(default_factory=Schedule)
    knowledge: KnowledgeBinding | None = None
    agents: tuple[AgentProfile, ...] = ()
    flow: Flow
    execution: ExecutionPolicy | None = None
    output_targets: tuple[str, ...] = ()
    created_at_ms: int = Field(default=0, ge=0)
    updated_at_ms: int = Field(default=0, ge=0)
    creator_id: str | None = None
    workspace_root: str | None = None
    metadata: JsonValue = None
    next_fire_at_ms: int | None = Field(default=None, ge=0)
    last_fired_at_ms: int | None = Field(default=None, ge=0)
    scope_policy: ScopePolicy | None = None
    watch_conditions: tuple[WatchCondition, ...] = ()
    handoff_config: HandoffConfig | None = None
    inputs: dict[str, JsonValue] | None = None
    concurrency: Concurrency | None = None
    executor: ExecutorKind = ExecutorKind.LOCAL
    resources: Resources | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes in the order of the document."""
        return self.flow.nodes

    @property
    def parallel_max(self) -> int:
        """How many nodes of one run may run at once, 1 to 1,000; 16 when the document is silent."""
        wanted = self.execution.max_parallel_agents if self.execution else None
        return PARALLEL_DEFAULT if wanted is None else min(max(wanted, 1), PARALLEL_MAX)

    @property
    def workspace_use(self) -> WorkspaceUse:
        """How a run holds its workspace; by default exclusively when a node may write files."""
        if self.execution is not None and self.execution.workspace is not None:
            return self.execution.workspace
        writers = (NodeKind.AGENT, NodeKind.COMMAND)
        if any(node.kind in writers for node in self.nodes):
            return WorkspaceUse.EXCLUSIVE
        if any(node.effective_effects is Effects.WORKSPACE for node in self.nodes):
            return WorkspaceUse.EXCLUSIVE
        return WorkspaceUse.NONE

    def executor_of(self, node: Node) -> ExecutorKind:
        """Where the bodies of `node` run: its own choice, else the automation's."""
        return node.executor or self.executor

    def resources_of(self, node: Node) -> Resources:
        """What the bodies of `node` need: its own list, else the automation's, else nothing."""
        return node.resources or self.resources or Resources()


def canonical_document(automation: Automation) -> bytes:
    """Write the automation as canonical JSON: sorted keys, every default spelled out, no nulls.

    Documents that mean the same have the same bytes, and what was pinned keeps its meaning when a
    later version changes a default. Nulls inside free JSON (metadata, schemas, arguments) stay.
    """
    return canonical(automation.model_dump(mode="json", by_alias=True, exclude_none=True))


def parse_document(document: bytes) -> Automation:
    """Read what `canonical_document` wrote.

    Raises:
        pydantic.ValidationError: the bytes are not such a document.
    """
    return Automation.model_validate_json(document)
