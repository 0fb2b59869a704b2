"""The environment of a body: a small base, what the action names, and the identifiers."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tandem.domain.json import encode
from tandem.ports.executor import AttemptSpec

BASE = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL")
"""Variables of the engine's environment that every body sees, as far as they are set."""

REPAIR_BYTES_MAX = 64 * 1024
"""Linux refuses a single variable of 128 KiB or more."""


def chosen(env: Mapping[str, str], pass_env: Sequence[str]) -> dict[str, str]:
    """Return the base environment, then the variables to pass on, then the explicit ones."""
    names = (*BASE, *pass_env)
    return {name: os.environ[name] for name in names if name in os.environ} | dict(env)


def identifiers(attempt: AttemptSpec, scratch: Path) -> dict[str, str]:
    """Return the TANDEM_ variables of an attempt; they win over everything a user sets.

    TANDEM_REPAIR is a JSON list of reasons, unset unless the attempt before missed its contract.
    """
    found = {
        "TANDEM_RUN_ID": attempt.run_id,
        "TANDEM_NODE_ID": attempt.node_id,
        "TANDEM_ATTEMPT_ID": attempt.attempt_id,
        "TANDEM_ATTEMPT": str(attempt.number),
        "TANDEM_EPOCH": str(attempt.epoch),
        "TANDEM_IDEMPOTENCY_KEY": attempt.idempotency_key,
        "TANDEM_ENGINE_ID": attempt.engine_id,
        "TANDEM_WORKSPACE": attempt.workspace,
        "TANDEM_SCRATCH": str(scratch),
        "TANDEM_INPUTS": str(scratch / "inputs.json"),
    }
    if attempt.repair:
        found["TANDEM_REPAIR"] = _bounded(attempt.repair)
    return found


def prepare(attempt: AttemptSpec, scratch: Path) -> None:
    """Make the scratch directory and write the inputs file that TANDEM_INPUTS names."""
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "inputs.json").write_bytes(encode(attempt.inputs))


def _bounded(reasons: Sequence[str]) -> str:
    text = encode(list(reasons))
    if len(text) > REPAIR_BYTES_MAX:
        share = REPAIR_BYTES_MAX // (8 * len(reasons))
        text = encode([reason[: max(share, 1)] for reason in reasons][:REPAIR_BYTES_MAX // 16])
    return text.decode()
