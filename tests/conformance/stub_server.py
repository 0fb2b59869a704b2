"""A real server whose agent nodes do what files in a folder say.

`python stub_server.py PORT FOLDER`: for the node `n2` the file `n2.json` holds what its attempts
do: `{"fail": text}`, `{"block": text}`, `{"say": value}`, or `{"wait": true}` until it changes.
Each attempt adds a line to `calls.jsonl`.
"""

import asyncio
import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tandem.domain.ids import AttemptId, EngineId
from tandem.domain.outcome import Blocked, Failed, FailureClass, Outcome, Succeeded
from tandem.ports.executor import AttemptSpec, Progress
from tandem.serving import serve
from tandem.settings import read_settings

LOOK_S = 0.02


class StubAgents:
    """Plays the sessions of agents."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def run(self, attempt: AttemptSpec, progress: Progress) -> Outcome:
        with (self._folder / "calls.jsonl").open("a") as calls:
            line = {"run": attempt.run_id, "node": attempt.node_id, "attempt": attempt.number}
            calls.write(json.dumps(line) + "\n")
        progress("event", "started")
        script = self._script(attempt)
        while script.get("wait"):
            await asyncio.sleep(LOOK_S)
            progress("event", "waiting")
            script = self._script(attempt)
        if "fail" in script:
            return Failed(failure_class=FailureClass.EXECUTION_ERROR, message=script["fail"])
        if "block" in script:
            return Blocked(kind="semantic_blocked", reason=script["block"])
        said = script.get("say", {"status": "completed", "summary": f"{attempt.node_id} is done"})
        return Succeeded(output=said)

    def _script(self, attempt: AttemptSpec) -> Any:
        path = self._folder / f"{attempt.node_id}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    async def end_leftovers(
        self, *, engine_ids: Collection[EngineId], attempt_ids: Collection[AttemptId]
    ) -> int:
        return 0


if __name__ == "__main__":
    sys.exit(
        serve(
            read_settings(os.environ),
            host="127.0.0.1",
            port=int(sys.argv[1]),
            say=lambda text: print(text, flush=True),
            agents=StubAgents(Path(sys.argv[2])),
        )
    )
