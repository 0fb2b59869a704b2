"""The output contract: what a node must leave before it counts as completed (definitions 2).

The verdict is the engine's own; a body that says it is done is not believed.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from tandem.domain.artifact import (
    ArtifactRef,
    CandidateSource,
    FileStamp,
    NodeArtifact,
    Provenance,
    freshness,
    refusal_of_file,
)
from tandem.domain.errors import Refused
from tandem.domain.json import JsonValue, decode
from tandem.domain.outcome import Failed, FailureClass, NeedsRepair, Outcome, Succeeded
from tandem.domain.output_contract import OutputContract, Verification
from tandem.domain.schema_check import compile_schema
from tandem.domain.schema_pause import VIOLATION
from tandem.ports.workspace import WorkspaceFiles

_HEADING = re.compile(r"^\s{0,3}(?:#{1,6}\s+|\*\*)(.+?)(?:\*\*)?\s*:?\s*#*\s*$", re.MULTILINE)
_TEXT_BYTES_MAX = 4 * 1024 * 1024

Verify = Callable[[Verification], Awaitable[Outcome]]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What was known of the required files when the attempt began."""

    stamps: Mapping[str, FileStamp] = {}
    earlier: Sequence[NodeArtifact] = ()
    run_started_at_ms: int | None = None
    may_reuse: bool = False


class Judged(NamedTuple):
    """The outcome as it counts, and where each accepted file came from, by path."""

    outcome: Outcome
    provenance: Mapping[str, Provenance] = {}


async def judge(
    outcome: Succeeded,
    contract: OutputContract | None,
    *,
    workspace: str,
    files: WorkspaceFiles,
    verify: Verify,
    history: History | None = None,
) -> Judged:
    """Return the outcome as it counts: accepted, in need of repair with reasons, or failed.

    Cheap checks come first; the verification command runs only when they all pass. `history` is
    what is known of the required files from before the attempt.
    """
    if contract is None:
        return Judged(outcome)
    history = history or History()
    provenance: dict[str, Provenance] = {}
    reasons: list[str] = []
    unmet: list[str] = []
    output = outcome.output
    if contract.output_schema is not None:
        output, found = _check_schema(contract.output_schema, output)
        reasons += found
        unmet += [VIOLATION] * bool(found)
    artifacts, found = _check_files(contract, workspace, files, history, provenance)
    reasons += found
    unmet += ["missing_artifact_path"] * bool(found)
    if contract.sections:
        found = _check_sections(contract, output, workspace, files)
        reasons += found
        unmet += ["missing_section"] * bool(found)
    if reasons:
        needs = NeedsRepair(reasons=tuple(reasons), unmet=tuple(unmet), output=output)
        return Judged(needs)
    if contract.verification is not None:
        verdict = await verify(contract.verification)
        if isinstance(verdict, Failed):
            return Judged(_not_verified(contract.verification, verdict, output))
        if not isinstance(verdict, Succeeded):
            return Judged(verdict)
    known = {ref.path for ref in artifacts}
    others = (ref for ref in outcome.artifacts if not ref.path or ref.path not in known)
    accepted = msgspec.structs.replace(outcome, output=output, artifacts=(*others, *artifacts))
    return Judged(accepted, provenance)


def _check_schema(schema: JsonValue, output: JsonValue) -> tuple[JsonValue, list[str]]:
    if isinstance(output, str):
        try:
            output = decode(output)
        except msgspec.DecodeError as error:
            return output, [f"the output is not JSON, but a schema is declared: {error}"]
    errors = compile_schema(schema).errors(output)
    return output, [f"the output does not match its schema: {error}" for error in errors]


def _check_files(
    contract: OutputContract,
    workspace: str,
    files: WorkspaceFiles,
    history: History,
    provenance: dict[str, Provenance],
) -> tuple[list[ArtifactRef], list[str]]:
    artifacts: list[ArtifactRef] = []
    reasons: list[str] = []
    for path in contract.required_files:
        try:
            ref = files.find_file(workspace, path) if workspace else None
        except Refused as refused:
            reasons.append(str(refused))
            continue
        if ref is None:
            reasons.append(f"the required file `{path}` was not written")
        elif ref.size_bytes == 0:
            reasons.append(f"the required file `{path}` is empty")
        else:
            refusal = _check_history(contract, ref, workspace, files, history, provenance)
            reasons += [refusal] if refusal else []
            artifacts.append(ref)
    return artifacts, reasons


def _check_history(
    contract: OutputContract,
    ref: ArtifactRef,
    workspace: str,
    files: WorkspaceFiles,
    history: History,
    provenance: dict[str, Provenance],
) -> str:
    """Return why a file that is there does not count, empty when it does."""
    stamp = files.stamp(workspace, ref.path)
    if stamp is None:
        return ""  # it went away between the two looks; what was read has its digest
    before = history.stamps.get(ref.path)
    fresh = freshness(stamp, before, run_started_at_ms=history.run_started_at_ms)
    written = (
        CandidateSource.SESSION_WRITE
        if contract.verification is None
        else CandidateSource.VERIFIED_OUTPUT
    )
    provenance[ref.path] = Provenance(
        accepted_candidate_source=(
            written if fresh.current_attempt else CandidateSource.PREEXISTING_OUTPUT
        ),
        reuse_allowed=history.may_reuse,
        freshness=fresh,
    )
    return refusal_of_file(ref, fresh, earlier=history.earlier, may_reuse=history.may_reuse)


def _check_sections(
    contract: OutputContract, output: JsonValue, workspace: str, files: WorkspaceFiles
) -> list[str]:
    texts = [output] if isinstance(output, str) else []
    for path in contract.required_files:
        try:
            if workspace and files.find_file(workspace, path) is not None:
                texts.append(files.read_text(workspace, path, bytes_max=_TEXT_BYTES_MAX))
        except Refused:
            continue  # `_check_files` has said so already
    present = {_plain(title) for text in texts for title in _HEADING.findall(text)}
    return [
        f"the section `{name}` is missing"
        for name in contract.sections
        if _plain(name) not in present
    ]


def _plain(title: str) -> str:
    return re.sub(r"[\W_]+", " ", title).strip().lower()


def _not_verified(verification: Verification, verdict: Failed, output: JsonValue) -> Outcome:
    if verdict.failure_class is FailureClass.MISSING_CONFIG:
        return verdict
    command = " ".join(verification.argv)
    reason = f"verification `{command}` failed: {verdict.message}"
    reasons = (reason, verdict.detail) if verdict.detail else (reason,)
    return NeedsRepair(
        reasons=reasons,
        unmet=("deterministic_verification_failed",),
        output=output,
        failure_class=FailureClass.VERIFICATION_FAILED,
    )
