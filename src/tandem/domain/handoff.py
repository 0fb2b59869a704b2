"""A handoff: a file by which one automation gives work to another (definitions 5.4); pure.

A handoff is the same one when it says the same: an id may be used again for the next batch, also
within one moment of a coarse clock, and a copy that comes back starts nothing.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from tandem.domain.automation import HandoffConfig, WatchCondition
from tandem.domain.errors import InvalidRequest
from tandem.domain.ids import AutomationId, RunId
from tandem.domain.json import canonical, digest

BYTES_MAX: Final = 262_144
LISTED_MAX: Final = 512
"""So many files of one folder are looked at."""
FOLDER: Final = "handoff_folder_invalid"
SHORT: Final = 12
"""So many digits of a fingerprint tell one handoff from another of its id and moment."""
_ID_CHARS_MAX: Final = 128
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_DIGEST: Final = re.compile(r"(sha256:)?[0-9a-f]{64}")


class Handoff(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the file says. `metadata` is free JSON; unknown fields are ignored."""

    handoff_id: str
    source_automation_id: str
    source_run_id: str
    source_node_id: str
    target_automation_id: str
    artifact_type: str
    created_at_ms: int
    content_path: str | None = None
    content_digest: str | None = None
    metadata: Any = None
    consumed_by_run_id: str | None = None
    consumed_by_automation_id: str | None = None
    consumed_at_ms: int | None = None

    @property
    def occurrence(self) -> str:
        """Its identity among the occurrences of its target."""
        return f"handoff:{self.handoff_id}:{self.created_at_ms}:{self.fingerprint[:SHORT]}"

    @property
    def fingerprint(self) -> str:
        """The digest of what it says, whoever has consumed it, in hexadecimal digits."""
        said = msgspec.structs.replace(
            self, consumed_by_run_id=None, consumed_by_automation_id=None, consumed_at_ms=None
        )
        return digest(canonical(msgspec.to_builtins(said))).removeprefix("sha256:")

    @property
    def words(self) -> str:
        """Say what it is, as the reason of its run."""
        return (
            f"handoff `{self.handoff_id}` of type `{self.artifact_type}` from automation "
            f"`{self.source_automation_id}`"
        )


class HandoffFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a handoff folder: what it holds, or what is wrong with it."""

    file: str
    handoff: Handoff | None = None
    problem: str = ""


class ConsumedHandoff(msgspec.Struct, frozen=True, kw_only=True):
    """That a handoff has its run, and where its file was; both folders are below `workspace`."""

    consumed_no: int = 0
    tenant: str
    automation_id: AutomationId
    handoff_id: str
    handed_over_at_ms: int
    fingerprint: str = ""
    """Empty for one that was taken before handoffs were known by what they say."""
    run_id: RunId
    consumed_at_ms: int
    workspace: str
    file: str
    archived_dir: str
    archived_at_ms: int | None = None


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What came of taking a handoff.

    `consumed` is None when it has no run: its automation has changed since it was looked at, a run
    of it has to end first (`put_off_by`), or no run could be created (`code`, `reason`).
    """

    consumed: ConsumedHandoff | None = None
    is_new: bool = False
    put_off_by: RunId | None = None
    code: str = ""
    reason: str = ""


def read_handoff(content: bytes) -> Handoff:
    """Read a handoff file.

    Raises:
        ValueError: it is none, with a sentence that says why.
    """
    try:
        made = msgspec.json.decode(content, type=Handoff)
    except msgspec.DecodeError as error:
        raise ValueError(f"it is no handoff: {error}") from None
    check_handoff(made)
    return made


def check_handoff(made: Handoff) -> None:
    """Check what a handoff says of itself.

    Raises:
        ValueError: a field is blank or out of bounds.
    """
    for name in (
        "handoff_id",
        "source_automation_id",
        "source_run_id",
        "source_node_id",
        "target_automation_id",
        "artifact_type",
    ):
        value: str = getattr(made, name)
        if not value.strip() or len(value) > _ID_CHARS_MAX:
            raise ValueError(f"`{name}` must have 1 to {_ID_CHARS_MAX} characters")
    if not 0 <= made.created_at_ms < 2**53:
        raise ValueError("`created_at_ms` must be milliseconds since 1970")
    if made.content_digest is not None and not _DIGEST.fullmatch(made.content_digest):
        raise ValueError("`content_digest` must be a SHA-256 in hex")


def write_handoff(made: Handoff) -> bytes:
    """Return the content of the file of a handoff."""
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"


def file_name(handoff_id: str) -> str:
    """Return the name of the file of a handoff; an id that is no name gets a digest of itself."""
    safe = _UNSAFE.sub("_", handoff_id)
    if safe != handoff_id or safe.startswith("."):
        safe = f"{safe.lstrip('.')}-{digest(handoff_id.encode()).removeprefix('sha256:')[:12]}"
    return f"{safe}.json"


def name_beside(made: Handoff, *, is_used: bool) -> str:
    """Return the name beside other handoffs; one whose id another one has tells more of itself."""
    name = file_name(made.handoff_id)
    if not is_used:
        return name
    return f"{name.removesuffix('.json')}.{made.created_at_ms}.{made.fingerprint[:SHORT]}.json"


def is_same(made: Handoff, taken: ConsumedHandoff) -> bool:
    """Say whether this is the handoff that was taken."""
    named = (made.handoff_id, made.created_at_ms) == (taken.handoff_id, taken.handed_over_at_ms)
    return named and taken.fingerprint in (made.fingerprint, "")


def consumed(made: Handoff, taken: ConsumedHandoff) -> Handoff:
    """Return the handoff as its archived file tells of it."""
    return msgspec.structs.replace(
        made,
        consumed_by_run_id=taken.run_id,
        consumed_by_automation_id=taken.automation_id,
        consumed_at_ms=taken.consumed_at_ms,
    )


def waiting_for(
    files: Iterable[HandoffFile], automation_id: str, conditions: Sequence[WatchCondition]
) -> list[HandoffFile]:
    """Return the files that start a run of an automation, the oldest handoff first."""
    found = [
        (file.handoff.created_at_ms, file.handoff.handoff_id, file)
        for file in files
        if file.handoff is not None
        and file.handoff.target_automation_id == automation_id
        and file.handoff.consumed_at_ms is None
        and any(_is_met(condition, file.handoff) for condition in conditions)
    ]
    return [file for *_, file in sorted(found, key=lambda each: (*each[:2], each[2].file))]


def _is_met(condition: WatchCondition, made: Handoff) -> bool:
    return condition.source_automation_id in (None, made.source_automation_id) and (
        condition.artifact_type in (None, made.artifact_type)
    )


def folders_of(config: HandoffConfig | None) -> HandoffConfig:
    """Return the folders of an automation, all below its workspace.

    Raises:
        InvalidRequest: two of them are the same, or one is no path below a workspace.
    """
    found = config or HandoffConfig()
    if problem := folder_problem(found):
        raise InvalidRequest(problem, code=FOLDER)
    return found


def folder_problem(config: HandoffConfig) -> str:
    """Return what is wrong with the folders of an automation; empty for nothing."""
    named = (config.inbox_dir, config.approved_dir, config.archived_dir)
    for path in named:
        parts = path.split("/")
        if not path.strip() or path.startswith("/") or ".." in parts or "\0" in path:
            return f"`{path}` is no path below the workspace"
    if len({path.strip("/").replace("/./", "/") for path in named}) < len(named):
        return "inbox, approved and archived must be three different folders"
    return ""
