"""Artifacts: named outputs whose bytes live outside the rows, addressed by digest."""

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
