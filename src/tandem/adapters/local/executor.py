"""The executor of this host: one door to commands, Python functions and HTTP requests."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from tandem.adapters.local import leftovers
from tandem.adapters.local.command import CommandExecutor
from tandem.adapters.local.failure import failed
from tandem.adapters.local.http import HttpExecutor
from tandem.adapters.local.output import LOG_BYTES_MAX
from tandem.adapters.local.pool import WorkerPool
from tandem.adapters.local.python import PythonExecutor
from tandem.adapters.local.spawner import Isolation, Spawner
from tandem.domain.action import AgentAction, CommandAction, HttpAction, PythonAction
from tandem.domain.ids import AttemptId, EngineId
from tandem.domain.outcome import FailureClass, Outcome
from tandem.ports.executor import AttemptSpec, Progress


class LocalExecutor:
    """Runs attempts on this host; an `Executor`.

    Args:
        isolation: see `Spawner`.
        workers_max: worker processes for Python functions; the processors of this host (at
            least 2) when not given.
        registered: functions of the host program, see `PythonExecutor`.
        in_process: run all Python functions in this process, see `PythonExecutor`.
        stop_grace_ms: time between SIGTERM and SIGKILL for a cancelled command; 0 kills at once.
        log_bytes_max: bound of each kept output stream.

    `async with` ends the worker processes, the helper process and the HTTP client on leaving.
    Attempts that still run are the caller's to cancel before that.
    """

    def __init__(
        self,
        *,
        isolation: Isolation = "auto",
        workers_max: int | None = None,
        registered: Mapping[str, Callable[..., object]] | None = None,
        in_process: bool = False,
        stop_grace_ms: int = 0,
        log_bytes_max: int = LOG_BYTES_MAX,
    ) -> None:
        self._spawner = Spawner(isolation)
        self._pool = WorkerPool(self._spawner, workers_max=workers_max)
        self._http = HttpExecutor()
        self._command = CommandExecutor(
            self._spawner, stop_grace_ms=stop_grace_ms, log_bytes_max=log_bytes_max
        )
        self._python = PythonExecutor(self._pool, registered=registered, in_process=in_process)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End everything that was started to be kept; twice is harmless."""
        async with AsyncExitStack() as stack:  # each is closed even if another fails
            stack.push_async_callback(self._spawner.close)
            stack.push_async_callback(self._pool.close)
            stack.push_async_callback(self._http.close)

    async def run(self, attempt: AttemptSpec, progress: Progress) -> Outcome:
        """Run one attempt by the kind of its action."""
        try:
            match attempt.action:
                case CommandAction():
                    return await self._command.run(attempt, progress)
                case PythonAction():
                    return await self._python.run(attempt, progress)
                case HttpAction():
                    return await self._http.run(attempt, progress)
                case AgentAction():
                    return failed(
                        FailureClass.MISSING_CONFIG,
                        "this executor has no models: install `tandem-engine[agents]`",
                    )
        except OSError as error:
            # No memory, descriptors, processes or disk: the node may be tried again.
            return failed(
                FailureClass.EXECUTION_ERROR, f"this host could not run the attempt: {error}"
            )

    async def end_leftovers(
        self, *, engine_ids: Collection[EngineId], attempt_ids: Collection[AttemptId]
    ) -> int:
        """Kill what attempts of dead engines left on this host; see `leftovers.end`."""
        return await leftovers.end(engine_ids=engine_ids, attempt_ids=attempt_ids)
