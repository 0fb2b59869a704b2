"""The environment of a body: a small base, what the action names, and the identifiers."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tandem.adapters.local import usage_file
from tandem.domain.json import encode
from tandem.ports.executor import AttemptSpec

BASE = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL")
"""Variables of the engine's environment that every body sees, as far as they are set."""

REASONS_MAX = 16
REASON_CHARS_MAX = 1000
"""Together they keep TANDEM_REPAIR under the 128 KiB that Linux allows a single variable."""


def chosen(env: Mapping[str, str], pass_env: Sequence[str]) -> dict[str, str]:
    """Return the base environment, then the variables to pass on, then the explicit ones."""
    names = (*BASE, *pass_env)
    return {name: os.environ[name] for name in names if name in os.environ} | dict(env)


def identifiers(attempt: AttemptSpec, scratch: Path) -> dict[str, str]:
    """Return the TANDEM_ variables of an attempt; they win over everything a user sets.

    TANDEM_USAGE_FILE names a file in which the body tells what it spends (`usage_file`).
    TANDEM_RUNTIME_CONTEXT names a file with the context of the run, if it has one.
    TANDEM_REPAIR is a JSON list of reasons, unset unless the attempt before missed its contract.
    TANDEM_LEARNINGS is a JSON list of lines, unset unless something was learned and approved; the
    engine bounds how many there are and how long.
    TRACEPARENT is the span of the attempt, where spans are made.
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
        "TANDEM_USAGE_FILE": str(scratch / usage_file.NAME),
    }
    if attempt.runtime_context is not None:
        found["TANDEM_RUNTIME_CONTEXT"] = str(scratch / "runtime_context.json")
    if attempt.repair:
        reasons = [reason[:REASON_CHARS_MAX] for reason in attempt.repair[:REASONS_MAX]]
        found["TANDEM_REPAIR"] = encode(reasons).decode()
    if attempt.learnings:
        found["TANDEM_LEARNINGS"] = encode(list(attempt.learnings)).decode()
    if attempt.traceparent:
        found["TRACEPARENT"] = attempt.traceparent
    return found


def prepare(attempt: AttemptSpec, scratch: Path) -> None:
    """Make the scratch directory and write the files that the identifiers name."""
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "inputs.json").write_bytes(encode(attempt.inputs))
    if attempt.runtime_context is not None:
        (scratch / "runtime_context.json").write_bytes(encode(attempt.runtime_context))
