"""The bounds of one engine, as its settings give them."""

import msgspec

from tandem.domain.command import LossPolicy
from tandem.domain.gate_policy import GatePolicy
from tandem.domain.learning import LearningPolicy
from tandem.domain.run import RuntimeClock
from tandem.engine.recovery import RecoveryLimits


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one engine; spans in milliseconds, sizes in bytes."""

    runs_max: int = 8
    runs_total_max: int | None = None
    """How many runs all engines of the store may drive for this one to take another."""
    labels: tuple[str, ...] = ()
    """What this engine has; it takes only runs whose required labels are among these."""
    lease_ms: int = 30_000
    inline_bytes_max: int = 16 * 1024
    output_bytes_max: int = 16 * 1024 * 1024
    retention_ms: int = 0
    """A run that rests this long after its end is packed; 0 keeps all as they are."""
    gate_policy: GatePolicy = GatePolicy()
    """What gates get that say nothing themselves."""
    signal_retention_ms: int = 604_800_000
    """How long an accepted signal can still be found by a wait that is registered."""
    relaxation_denylist: tuple[str, ...] = ()
    runtime_clock: RuntimeClock = RuntimeClock.ACTIVE
    """What counts as the runtime of runs that this engine creates."""
    usd_per_1k_tokens: float = 0.0
    """The price of tokens for calls that do not know theirs."""
    own_only: bool = False
    """Claim only runs that this engine created or was asked to resume; start none by itself."""
    schedule_grace_ms: int = 60_000
    """A firing that is later than this was missed."""
    shutdown_policy: LossPolicy = LossPolicy.RESUME
    shutdown_grace_ms: int = 0
    """How long attempts may go on when the engine stops."""
    shutdown_timeout_ms: int = 30_000
    """How long a store that is away is waited for when the engine stops."""
    store_is_shared: bool = False
    """Engines of other hosts may write to the store at any time."""
    recovery: RecoveryLimits = RecoveryLimits()
    learning: LearningPolicy = LearningPolicy()
