"""Identifiers. Each is a string of its own type, so that one cannot be passed for another."""

from typing import NewType

TenantId = NewType("TenantId", str)
AutomationId = NewType("AutomationId", str)
DefinitionDigest = NewType("DefinitionDigest", str)
RunId = NewType("RunId", str)
NodeId = NewType("NodeId", str)
AttemptId = NewType("AttemptId", str)
EngineId = NewType("EngineId", str)
ChangeId = NewType("ChangeId", str)
GateId = NewType("GateId", str)
WaitId = NewType("WaitId", str)
TokenId = NewType("TokenId", str)
Digest = NewType("Digest", str)

LOCAL_TENANT = TenantId("local")


def attempt_id(run_id: RunId, node_id: NodeId, number: int) -> AttemptId:
    """Return the id of an attempt; `number` counts from 1 and never restarts."""
    return AttemptId(f"{run_id}/{node_id}/{number}")


def idempotency_key(run_id: RunId, node_id: NodeId) -> str:
    """Return the key that stays the same over all attempts of one node run."""
    return f"{run_id}/{node_id}"
