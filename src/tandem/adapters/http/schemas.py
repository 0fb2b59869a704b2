"""The bodies that routes read. What a definition may hold stands in the automation itself."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue

from tandem.adapters.http.bodies import MOMENT_MAX, Body, ExactBody

Text = Annotated[str, AfterValidator(str.strip)]
"""Blanks around it mean nothing; a blank one counts as not given."""


class Reasoned(Body):
    """Why something is asked for."""

    reason: Text | None = None


class PauseRun(Reasoned):
    """Hold a run. With `now` (the default) attempts are stopped, else they come to their end."""

    now: bool = True


class RepairRun(Reasoned):
    """Another version of one node, for this run; with `save` for the automation, too."""

    node_id: str
    prompt: str | None = None
    template_id: str | None = None
    model_policy: dict[str, JsonValue] | None = None
    inputs: dict[str, JsonValue] | None = None
    action: dict[str, JsonValue] | None = None
    save: bool = False


class ForkRun(Reasoned):
    """A run that takes over what another has done and goes its own way from a node on."""

    node_id: str
    inputs: dict[str, JsonValue] | None = None
    ask_again: bool = False


class SetNodeOutput(Reasoned):
    """An output by hand."""

    output: JsonValue


class Disposed(Reasoned):
    """What an output is worth."""

    disposition: str


class GateDecision(Reasoned):
    """A person's decision; `request_id` is the older name of `approval_request_id`."""

    decision: str
    approval_request_id: Text | None = None
    request_id: Text | None = None
    transition_id: Text | None = None
    node_id: Text | None = None
    output: JsonValue = None
    """What the node of unknown outcome is settled with."""


class ResolveWaitBody(Body):
    """What came for a wait."""

    payload: JsonValue = None
    idempotency_key: Text | None = None
    source: Text | None = None


class SignalBody(Body):
    """That a condition outside is met."""

    condition_key: str
    idempotency_key: str
    payload: JsonValue = None
    source: Text | None = None


class AllowRun(Reasoned):
    """Other limits for a run; what is not given stays. With `resume` one that stopped goes on."""

    max_total_runtime_ms: int | None = None
    max_total_tokens: int | None = None
    max_total_cost_usd: float | None = None
    max_total_tool_calls: int | None = None
    resume: bool = True


class ClaimTaskBody(Reasoned):
    """Who has a task, and for how long."""

    agent_id: Text | None = None
    lease_ms: int | None = None


class CompleteTaskBody(Reasoned):
    """Who has done a task; the token of the claim counts, without one the agent."""

    agent_id: Text | None = None
    lease_token: Text | None = None


class RunNow(Reasoned):
    """Start a run of the current version; `profile` is short for `execution_profile`."""

    dry_run: bool = False
    execution_profile: Literal["strict", "guided", "yolo"] | None = None
    profile: Literal["strict", "guided", "yolo"] | None = None
    inputs: dict[str, JsonValue] | None = None


class Share(Body):
    """Who may see an automation."""

    visibility: str = "private"
    audience_principals: list[str] = Field(default_factory=list)


class Capabilities(Body):
    """What agents of the automation may do to automations."""

    creates_agents: bool = False
    modifies_grants: bool = False


class AutomationFields(Body):
    """What may be said of an automation. Shapes below these keys are those of the definition."""

    description: str | None = None
    status: Literal["active", "paused", "draft"] | None = None
    agents: list[dict[str, Any]] | None = None
    execution: dict[str, Any] | None = None
    output_targets: list[str] | None = None
    workspace_root: str | None = None
    metadata: JsonValue = None
    capabilities: Capabilities | None = None
    scope_policy: dict[str, Any] | None = None
    watch_conditions: list[dict[str, Any]] | None = None
    handoff_config: dict[str, Any] | None = None
    knowledge: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    concurrency: dict[str, Any] | None = None
    executor: str | None = None
    resources: dict[str, Any] | None = None


class CreateAutomation(AutomationFields):
    """A new automation. Without an id it gets one, without a status it is a draft."""

    name: str
    schedule: dict[str, Any]
    flow: dict[str, Any]
    automation_id: str | None = None
    creator_id: str | None = None


class PatchAutomation(AutomationFields):
    """Changes of an automation: what is given replaces what was there, null changes nothing."""

    name: str | None = None
    schedule: dict[str, Any] | None = None
    flow: dict[str, Any] | None = None


class PutAutomation(AutomationFields):
    """A whole definition: what it does not say it does not have."""

    name: str
    flow: dict[str, Any]
    schedule: dict[str, Any] | None = None
    automation_id: str | None = None
    creator_id: str | None = None


class BulkFilter(ExactBody):
    """Which runs a bulk action is for; without a key it is for all of them."""

    status: list[str] = Field(default_factory=list)
    automation_id: Text | None = None
    created_before_ms: int | None = Field(default=None, ge=0)


class BulkAction(ExactBody):
    """One action for many runs, newest first; `preview` only counts them."""

    reason: Text | None = None
    action: Literal["pause", "resume", "cancel", "recover", "redeliver"]
    filter: BulkFilter
    limit: int = Field(default=100, ge=1, le=1_000)
    cursor: int | None = Field(default=None, ge=1, le=MOMENT_MAX)
    preview: bool = False


class CreateToken(ExactBody):
    """A new token, for the tenant of whoever asks; `tenant` may only say the same.

    Unknown keys are refused: a misspelt end would make a token that lasts for ever.
    """

    name: str
    scopes: list[Literal["viewer", "operator", "approver", "editor", "admin"]]
    actor_id: Text = ""
    kind: Literal["human", "agent", "system"] = "human"
    expires_in_ms: int | None = Field(default=None, le=MOMENT_MAX)
    tenant: Text | None = None
