"""Commands: everything that may be asked of a run from outside its driver, as data.

`domain.decision` says what each does. The store locks the run, loads it, decides and writes, all in
one transaction; so no command ever acts on a state that has moved on.
"""

import msgspec

from tandem.domain.claim_basis import ClaimBasis
from tandem.domain.hold import Hold
from tandem.domain.ids import EngineId, GateId, NodeId


class Claim(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An engine takes a due queued run.

    A run with a hold is put aside instead, one that can never start is ended.
    """

    engine_id: EngineId
    basis: ClaimBasis = ClaimBasis()
    hold: Hold | None = None


class Pause(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person holds the run; attempts that run are let to their end."""

    reason: str = "paused by operator"


class Resume(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person lets a paused run go on. `owner` is an engine that wants to drive it itself."""

    reason: str = "resumed by operator"
    owner: EngineId | None = None


class Recover(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person lets a failed or blocked run try again; what is completed stays completed."""

    reason: str = "recovered by operator"
    owner: EngineId | None = None


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person ends the run."""

    reason: str = "cancelled by operator"


class DecideGate(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A person decides a gate: the one named by `gate_id`, else by `node_id`, else the oldest."""

    decision: str
    gate_id: GateId | None = None
    node_id: NodeId | None = None
    reason: str = ""
    decided_by: str = ""
    output: bytes | None = None
    """JSON for a node that is settled as done."""


class Wake(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Time has come for a parked run."""


class Adopt(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Take a run out of the hands of an engine that is dead; its leftovers are ended already."""

    dead: EngineId
    owner: EngineId | None = None


class Own(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An engine wants to drive a run itself when it is due; `former` is gone, or nobody."""

    engine_id: EngineId
    former: EngineId | None


class HandBack(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An engine that stops gives a run back; its attempts are ended already."""

    engine_id: EngineId
    reason: str = "automation run interrupted by server shutdown"


class ProcessesEnded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The processes of a stopped run are proven dead."""

    engine_id: EngineId


class Panic(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The driver of a run met a mistake of ours; its attempts are ended already (T43)."""

    engine_id: EngineId
    reason: str


Command = (
    Claim
    | Pause
    | Resume
    | Recover
    | Cancel
    | DecideGate
    | Wake
    | Adopt
    | Own
    | HandBack
    | ProcessesEnded
    | Panic
)
