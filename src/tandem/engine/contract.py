"""The output contract: what a node must leave before it counts as completed (definitions 2).

The verdict is the engine's own; a body that says it is done is not believed.
"""

import re
from collections.abc import Awaitable, Callable

import msgspec

from tandem.domain.artifact import ArtifactRef
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


async def judge(
    outcome: Succeeded,
    contract: OutputContract | None,
    *,
    workspace: str,
    files: WorkspaceFiles,
    verify: Verify,
) -> Outcome:
    """Return the outcome as it counts: accepted, in need of repair with reasons, or failed.

    Cheap checks come first; the verification command runs only when they all pass.
    """
    if contract is None:
        return outcome
    reasons: list[str] = []
    unmet: list[str] = []
    output = outcome.output
    if contract.output_schema is not None:
        output, found = _check_schema(contract.output_schema, output)
        reasons += found
        unmet += [VIOLATION] * bool(found)
    artifacts, found = _check_files(contract.required_files, workspace, files)
    reasons += found
    unmet += ["missing_artifact_path"] * bool(found)
    if contract.sections:
        found = _check_sections(contract, output, workspace, files)
        reasons += found
        unmet += ["missing_section"] * bool(found)
    if reasons:
        return NeedsRepair(reasons=tuple(reasons), unmet=tuple(unmet), output=output)
    if contract.verification is not None:
        verdict = await verify(contract.verification)
        if isinstance(verdict, Failed):
            return _not_verified(contract.verification, verdict, output)
        if not isinstance(verdict, Succeeded):
            return verdict
    return msgspec.structs.replace(
        outcome, output=output, artifacts=(*outcome.artifacts, *artifacts)
    )


def _check_schema(schema: JsonValue, output: JsonValue) -> tuple[JsonValue, list[str]]:
    if isinstance(output, str):
        try:
            output = decode(output)
        except msgspec.DecodeError as error:
            return output, [f"the output is not JSON, but a schema is declared: {error}"]
    errors = compile_schema(schema).errors(output)
    return output, [f"the output does not match its schema: {error}" for error in errors]


def _check_files(
    required: tuple[str, ...], workspace: str, files: WorkspaceFiles
) -> tuple[list[ArtifactRef], list[str]]:
    artifacts: list[ArtifactRef] = []
    reasons: list[str] = []
    for path in required:
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
            artifacts.append(ref)
    return artifacts, reasons


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
