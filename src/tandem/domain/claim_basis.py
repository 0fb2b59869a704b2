"""What a claim has to know of the definition of a run.

It is made before the transaction that claims: reading a large definition inside would hold up
every other writer. A definition never changes under its digest, so nothing needs a second look
inside; what can change (the run, its automation) is read there.
"""

import msgspec

from tandem.domain.automation import Automation
from tandem.domain.runtime_context import requires_runtime_context, runtime_context_of


class ClaimBasis(msgspec.Struct, frozen=True, kw_only=True):
    """`unreadable` says what is wrong with the stored definition; `is_missing` that it is gone."""

    unreadable: str = ""
    is_missing: bool = False
    lacks_context: bool = False
    """Its runs need a context and it gives none; the run must have been given one."""

    @property
    def can_start(self) -> bool:
        """Whether the definition itself lets its runs start."""
        return not (self.unreadable or self.is_missing)


def basis_of(automation: Automation) -> ClaimBasis:
    """Return the basis for claiming runs of a definition that could be read."""
    lacks = requires_runtime_context(automation) and runtime_context_of(automation) is None
    return ClaimBasis(lacks_context=lacks)
