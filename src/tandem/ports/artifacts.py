"""The port that keeps the bytes of large outputs."""

from typing import Protocol

from tandem.domain.artifact import ArtifactRef
from tandem.domain.ids import Digest, TenantId


class Artifacts(Protocol):
    """Bytes by tenant and digest. What `put` returned is on disk and stays."""

    def put(self, tenant: TenantId, name: str, content: bytes, *, media_type: str) -> ArtifactRef:
        """Keep these bytes and return their reference; the same bytes are kept once.

        Raises:
            StoreUnavailable: they could not be written; nothing is kept.
        """
        ...

    def remove(self, tenant: TenantId, digest: Digest, *, put_before_ms: int) -> bool:
        """Remove bytes that nothing refers to; say whether they were removed.

        Bytes that were put at or after this moment stay: whoever put them again is about to refer
        to them. Bytes that cannot be removed stay, too.
        """
        ...

    def get(self, tenant: TenantId, ref: ArtifactRef) -> bytes:
        """Return the bytes.

        Raises:
            NotFound: they are gone, or do not have that digest any more.
        """
        ...
