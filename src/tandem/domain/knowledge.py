"""What a node may reuse of what was learnt before (definitions 1.9)."""

from enum import StrEnum

from tandem.domain.document import DocumentPart
from tandem.domain.duration import DurationMs


class KnowledgeReuse(StrEnum):
    """When stored knowledge is looked up."""

    DISABLED = "disabled"
    PREFLIGHT = "preflight"
    ON_DEMAND = "on_demand"


class TrustFloor(StrEnum):
    """How far knowledge must have come to be read."""

    WORKING = "working"
    PROMOTED = "promoted"
    APPROVED_DEFAULT = "approved_default"


class KnowledgeScope(StrEnum):
    """How widely a knowledge space is shared."""

    RUN = "run"
    PROJECT = "project"
    GLOBAL = "global"


class KnowledgeSpace(DocumentPart):
    """A place that knowledge is read from or promoted to."""

    scope: KnowledgeScope = KnowledgeScope.PROJECT
    project_id: str | None = None
    namespace: str | None = None
    space_id: str | None = None


class KnowledgeBinding(DocumentPart):
    """What a node may reuse of what was learnt before."""

    enabled: bool = True
    reuse_mode: KnowledgeReuse = KnowledgeReuse.PREFLIGHT
    trust_floor: TrustFloor = TrustFloor.PROMOTED
    read_spaces: tuple[KnowledgeSpace, ...] = ()
    promote_spaces: tuple[KnowledgeSpace, ...] = ()
    namespace: str | None = None
    subject: str | None = None
    freshness_ms: DurationMs | None = None
