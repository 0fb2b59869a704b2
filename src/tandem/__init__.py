"""Tandem Engine: durable runs of AI-agent automations.

async with Engine.open("sqlite:///runs.db") as engine:
    run = await engine.run(Automation.from_file("report.yaml"))
    print(await run.wait())

Errors of the engine are `EngineError`s; what has a wrong type is a `TypeError`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tandem.domain.errors import (
        EngineError,
        InvalidAutomation,
        InvalidRequest,
        NotFound,
        Refused,
        StoreUnavailable,
    )
    from tandem.embedded import Automation, Engine, Run

__all__ = [
    "Automation",
    "Engine",
    "EngineError",
    "InvalidAutomation",
    "InvalidRequest",
    "NotFound",
    "Refused",
    "Run",
    "StoreUnavailable",
]

_EMBEDDED = ("Automation", "Engine", "Run")


def __getattr__(name: str) -> Any:
    # Imported when asked for: the command line starts without what it does not use.
    if name in _EMBEDDED:
        from tandem import embedded

        return getattr(embedded, name)
    if name in __all__:
        from tandem.domain import errors

        return getattr(errors, name)
    raise AttributeError(f"module 'tandem' has no attribute {name!r}")
