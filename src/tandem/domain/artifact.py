"""Artifacts: what nodes leave outside the rows, addressed by digest, and which of it counts.

The registry (run-lifecycle 5) holds what a contract judged to be valid. An entry is written in the
transaction that completes its node and stops counting in the one that resets it.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from tandem.domain.ids import Digest


class ArtifactRef(msgspec.Struct, frozen=True, kw_only=True):
    """A reference to bytes that a node produced.

    `digest` is `sha256:` and the plain SHA-256 of the content. `path` is where the node left the
    file, relative to the workspace; it is empty for an output that only the store keeps.
    """

    name: str
    digest: Digest
    size_bytes: int
    media_type: str
    path: str = ""


class Validity(StrEnum):
    """Whether an artifact counts."""

    VALID = "valid"
    REJECTED = "rejected"
    """Its contract, or a person who sent the node back, said no. It is never used again."""
    SUPERSEDED = "superseded"
    """A node before it was reset; it is used again only where its node allows that."""


class CandidateSource(StrEnum):
    """Where a file that satisfies a contract came from (definitions 2, "provenance")."""

    VERIFIED_OUTPUT = "verified_output"
    """Written by this attempt and confirmed by the verification command."""
    SESSION_WRITE = "session_write"
    """Written by this attempt."""
    PREEXISTING_OUTPUT = "preexisting_output"
    """It was there before."""


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """Since when a file is as it is."""

    current_run: bool = True
    current_attempt: bool = True


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """How an artifact came to count; run, node, path and digest are in its row."""

    accepted_candidate_source: CandidateSource = CandidateSource.SESSION_WRITE
    validation_outcome: str = "passed"
    repair_attempt: int = 0
    repair_succeeded: bool = False
    reuse_allowed: bool = False
    freshness: Freshness = Freshness()


class NodeArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the registry: an artifact, the attempt that left it, and whether it counts.

    `contract` is the digest of the output contract that it met, empty when the node has none.
    `inputs_digest` is the digest of what its node was given, and only known where reuse is allowed.
    """

    node_no: int
    attempt: int
    ref: ArtifactRef
    contract: str = ""
    inputs_digest: str = ""
    validity: Validity = Validity.VALID
    provenance: Provenance = Provenance()
    registered_at_ms: int = 0
    invalidated_at_ms: int | None = None


class Invalidated(msgspec.Struct, frozen=True, kw_only=True):
    """What a node has left so far does not count any more."""

    node_no: int
    validity: Validity


class FileStamp(msgspec.Struct, frozen=True, kw_only=True):
    """When a file last changed, in milliseconds since the epoch by its file system, and a mark.

    The mark differs after every write, also one of the same bytes.
    """

    changed_at_ms: int
    mark: str


def freshness(
    after: FileStamp, before: FileStamp | None, *, run_started_at_ms: int | None
) -> Freshness:
    """Return since when a file is as it is, from its stamps before and after an attempt."""
    written = before is None or before.mark != after.mark
    since = run_started_at_ms or 0
    return Freshness(current_run=written or after.changed_at_ms >= since, current_attempt=written)


def refusal_of_file(
    ref: ArtifactRef,
    fresh: Freshness,
    *,
    earlier: Iterable[NodeArtifact],
    may_reuse: bool,
) -> str:
    """Return why a required file does not count, empty when it does.

    A file that was written by this attempt counts. One that was not, and is what was rejected
    before, never does (W-10). One from before this run counts only with
    `metadata.builder.allow_preexisting_output_reuse`.
    """
    if fresh.current_attempt:
        return ""
    path = ref.path
    newest = max(
        (left for left in earlier if left.ref.path == path),
        key=lambda left: left.attempt,
        default=None,
    )
    unchanged = newest is not None and newest.ref.digest == ref.digest
    if newest is not None and unchanged and newest.validity is Validity.REJECTED:
        return (
            f"the required file `{path}` is still the one of attempt {newest.attempt}, "
            "which was rejected; write it again"
        )
    if may_reuse:
        return ""
    if newest is not None and unchanged and newest.validity is Validity.SUPERSEDED:
        return (
            f"the required file `{path}` is still the one of attempt {newest.attempt}, made from "
            "inputs that have changed since; write it again"
        )
    if fresh.current_run:
        return ""
    return (
        f"the required file `{path}` was there before this run and was not written by it; write "
        "it, or allow that with `metadata.builder.allow_preexisting_output_reuse: true`"
    )


def may_reuse_output(metadata: object) -> bool:
    """Say whether the metadata of a node set `builder.allow_preexisting_output_reuse` to true."""
    builder = metadata.get("builder") if isinstance(metadata, Mapping) else None
    return isinstance(builder, Mapping) and (builder.get("allow_preexisting_output_reuse") is True)


def reusable(
    earlier: Iterable[NodeArtifact], *, contract: str, inputs_digest: str
) -> tuple[NodeArtifact, ...]:
    """Return what the newest registered attempt left, if its node need not run again for it.

    That is so when nobody rejected it and both its contract and its inputs are what they are now.
    Empty otherwise. Whether the files still have their digests is for the caller to look at.
    """
    entries = list(earlier)
    newest = max((left.attempt for left in entries), default=0)
    chosen = tuple(left for left in entries if left.attempt == newest)
    holds = all(
        left.validity is not Validity.REJECTED
        and left.contract == contract
        and left.inputs_digest == inputs_digest
        and left.inputs_digest
        for left in chosen
    )
    return chosen if holds else ()
