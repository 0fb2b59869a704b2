"""The port that keeps the bytes of large outputs."""

from typing import Protocol

from tandem.domain.artifact import ArtifactRef
from tandem.domain.ids import TenantId


class Artifacts(Protocol):
    """Bytes by tenant and digest. What `put` returned is on disk and stays."""

    def put(self, tenant: TenantId, name: str, content: bytes, *, media_type: str) -> ArtifactRef:
        """Keep these bytes and return their reference; the same bytes are kept once.

        Raises:
            StoreUnavailable: they could not be written; nothing is kept.
        """
        ...

    def get(self, tenant: TenantId, ref: ArtifactRef) -> bytes:
        """Return the bytes.

        Raises:
            NotFound: they are gone, or do not have that digest any more.
        """
        ...
