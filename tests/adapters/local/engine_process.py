"""An engine of its own that a test can kill: runs the script of argv in an executor."""

import asyncio
import sys

from tandem.adapters.local.executor import LocalExecutor
from tandem.domain.action import CommandAction, PythonAction
from tandem.domain.ids import LOCAL_TENANT, AttemptId, EngineId, NodeId, RunId
from tandem.ports.executor import AttemptSpec


async def main() -> None:
    isolation, engine_id, workspace, kind, body = sys.argv[1:]
    action = (
        CommandAction(shell=True, script=body) if kind == "command" else PythonAction(function=body)
    )
    spec = AttemptSpec(
        tenant=LOCAL_TENANT,
        engine_id=EngineId(engine_id),
        run_id=RunId("run"),
        node_id=NodeId("node"),
        attempt_id=AttemptId(f"{engine_id}/node/1"),
        number=1,
        epoch=1,
        idempotency_key="key",
        action=action,
        inputs={},
        workspace=workspace,
        scratch=f"{workspace}/scratch",
    )
    async with LocalExecutor(isolation=isolation) as executor:
        print(await executor.run(spec, lambda kind, text="": None), flush=True)


asyncio.run(main())
