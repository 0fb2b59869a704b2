"""What a node's output must look like to count (definitions 1.7)."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field, JsonValue

from tandem.domain.document import DocumentPart
from tandem.domain.duration import PositiveDurationMs


class Validator(StrEnum):
    """Which set of checks an output gets."""

    CODE_PATCH = "code_patch"
    RESEARCH_BRIEF = "research_brief"
    REVIEW_DECISION = "review_decision"
    STRUCTURED_JSON = "structured_json"
    GENERIC_ARTIFACT = "generic_artifact"
    STANDUP_UPDATE = "standup_update"


class RequiredToolCall(DocumentPart):
    """A tool call that an attempt must have made."""

    tool: str
    args: JsonValue = None
    evidence_key: str | None = None
    required_success: bool = True


class Enforcement(DocumentPart):
    """What must be there for an output to count, and what happens when it is not."""

    validation_profile: str | None = None
    required_tools: tuple[str, ...] = ()
    required_tool_calls: tuple[RequiredToolCall, ...] = ()
    required_evidence: tuple[str, ...] = ()
    required_sections: tuple[str, ...] = ()
    prewrite_gates: tuple[str, ...] = ()
    retry_on_missing: tuple[str, ...] = ()
    terminal_on: tuple[str, ...] = ()
    repair_budget: int | None = Field(default=None, ge=0)
    session_text_recovery: str | None = None


class Verification(DocumentPart):
    """A command that judges the output: exit code 0 accepts it."""

    argv: tuple[str, ...] = Field(min_length=1)
    timeout_ms: PositiveDurationMs | None = None


def _contract_kind(data: Mapping[str, object]) -> str:
    return "generic_artifact" if data["output_schema"] is None else "structured_json"


class OutputContract(DocumentPart):
    """What a node's output must look like to count.

    The document's key `schema` is `output_schema` here, because pydantic has a `schema` of its
    own. `required_files` are relative to the workspace.
    """

    output_schema: JsonValue = Field(default=None, alias="schema")
    kind: str = Field(default_factory=_contract_kind, min_length=1)
    validator: Validator | None = None
    enforcement: Enforcement | None = None
    summary_guidance: str | None = None
    required_files: tuple[str, ...] = ()
    required_sections: tuple[str, ...] = ()
    verification: Verification | None = None

    @property
    def sections(self) -> tuple[str, ...]:
        """All required sections, those of `enforcement` included, each once, in order."""
        enforced = self.enforcement.required_sections if self.enforcement else ()
        return tuple(dict.fromkeys((*self.required_sections, *enforced)))
