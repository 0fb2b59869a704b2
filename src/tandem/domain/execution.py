"""How the runs of an automation execute: profile, limits, workspace (definitions 1.8)."""

from enum import StrEnum
from typing import Final

from pydantic import Field

from tandem.domain.document import DocumentPart
from tandem.domain.duration import DurationMs
from tandem.domain.usage import LIMIT_MAX, LIMIT_USD_MAX

PARALLEL_DEFAULT: Final = 16
"""Nodes of one run that run at once when the document says nothing."""
PARALLEL_MAX: Final = 1_000


class ExecutionProfile(StrEnum):
    """How strictly a run treats what is missing."""

    STRICT = "strict"
    GUIDED = "guided"
    YOLO = "yolo"


class WorkspaceUse(StrEnum):
    """How a run holds its workspace."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"
    NONE = "none"


class ExecutionPolicy(DocumentPart):
    """Limits of one run. A limit that is reached pauses the run."""

    profile: ExecutionProfile | None = None
    max_parallel_agents: int | None = None
    max_total_runtime_ms: DurationMs | None = None
    max_total_tokens: int | None = Field(default=None, ge=0, le=LIMIT_MAX)
    max_total_cost_usd: float | None = Field(default=None, ge=0, le=LIMIT_USD_MAX)
    max_total_tool_calls: int | None = Field(default=None, ge=0, le=LIMIT_MAX)
    workspace: WorkspaceUse | None = None


class Concurrency(DocumentPart):
    """At most `limit` runs with the same `key` at once; the key may hold `${inputs.…}`."""

    key: str = Field(min_length=1)
    limit: int = 1
