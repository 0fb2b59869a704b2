"""What the engine's settings say about gates that say nothing themselves."""

import msgspec

GATE_EXPIRES_AFTER_MS = 604_800_000
GATE_STALE_AFTER_MS = 86_400_000


class GatePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults for gates, written into a gate when it opens (run-lifecycle 6.4).

    A gate that gives no span, or 0, gets `expires_after_ms`: none is ever unbounded. `on_expiry`
    is `cancel`, `resume`, `escalate` or `remind`. With `four_eyes` no gate is approved by whoever
    started the run.
    """

    expires_after_ms: int = GATE_EXPIRES_AFTER_MS
    on_expiry: str = "cancel"
    stale_after_ms: int = GATE_STALE_AFTER_MS
    four_eyes: bool = False
