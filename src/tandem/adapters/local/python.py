"""Runs `python` actions: in worker processes, or in this process for functions of the host."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from inspect import isawaitable
from pathlib import Path
from typing import Any

from tandem.adapters.local import environment, leftovers
from tandem.adapters.local import function as functions
from tandem.adapters.local.command import scratch_of, signal_name
from tandem.adapters.local.failure import failed
from tandem.adapters.local.output import Output
from tandem.adapters.local.pool import WorkerKey, WorkerPool
from tandem.adapters.local.process import (
    Ending,
    Exited,
    NotStarted,
    Signalled,
    SupervisorLost,
)
from tandem.adapters.local.usage_file import UsageFile
from tandem.adapters.local.workspace import inside
from tandem.domain.action import PythonAction
from tandem.domain.errors import Refused
from tandem.domain.json import decode, encode
from tandem.domain.outcome import Failed, FailureClass, Outcome, Succeeded, too_large
from tandem.domain.usage import read_spending
from tandem.ports.executor import AttemptSpec, Progress


class PythonExecutor:
    """Calls Python functions with JSON arguments and a JSON result.

    Args:
        pool: worker processes; the caller closes it.
        registered: functions of the host program by the name that actions use
            (`package.module:function`). They run in this process, on its loop.
        in_process: run every function so, importing it here.

    In this process, async functions are awaited and others called inline: a function that is not
    quick holds up all runs. The environment of the action does not apply there; a parameter named
    `context` gives the identifiers. NaN and infinity become null, as JSON has neither.
    """

    def __init__(
        self,
        pool: WorkerPool,
        *,
        registered: Mapping[str, Callable[..., object]] | None = None,
        in_process: bool = False,
    ) -> None:
        self._pool = pool
        # Not copied: the host may register more while the engine runs.
        self._registered = registered if registered is not None else {}
        self._found: dict[str, Callable[..., object]] = {}
        self._wanting_context: dict[str, bool] = {}
        self._in_process = in_process

    async def run(self, attempt: AttemptSpec, progress: Progress) -> Outcome:
        """Call one function; a cancelled one is dead, with all that it started, on return."""
        action = attempt.action
        assert isinstance(action, PythonAction)
        if self._in_process or action.function in self._registered:
            return await self._run_here(attempt, action)
        return await self._run_in_worker(attempt, action, progress)

    # --- in this process

    async def _run_here(self, attempt: AttemptSpec, action: PythonAction) -> Outcome:
        try:
            result = self._call(attempt, action)
            if isawaitable(result):
                result = await result
            content = functions.to_json(result)
        except functions.FunctionMissing as error:
            return _missing(error)
        except functions.NotJson as error:
            return failed(FailureClass.EXECUTION_ERROR, str(error))
        except asyncio.CancelledError as error:
            if _is_being_cancelled():
                raise
            return _raised(error)
        except (KeyboardInterrupt, GeneratorExit):
            raise  # it is for the host program, wherever it comes up, or for all that awaits this
        except BaseException as error:  # noqa: BLE001  a failing body is an outcome
            return _raised(error)
        if len(content) > attempt.output_bytes_max:
            return _too_large(attempt, len(content))
        # Decoded anew: the function may keep and change the objects that it returned.
        return Succeeded(output=decode(content))

    def _call(self, attempt: AttemptSpec, action: PythonAction) -> object:
        name = action.function
        function = self._registered.get(name) or self._found.get(name)
        if function is None:
            function = self._found[name] = functions.find(name)
        wants_context = self._wanting_context.get(name)
        if wants_context is None:
            wants_context = self._wanting_context[name] = functions.wants_context(function)
        arguments: Any = decode(encode(action.arguments)) if action.arguments else {}
        if wants_context:
            context = _context(attempt) | {"report_usage": partial(_report, attempt)}
            arguments = functions.with_context(function, arguments, context)
        return function(**arguments)

    # --- in a worker process

    async def _run_in_worker(
        self, attempt: AttemptSpec, action: PythonAction, progress: Progress
    ) -> Outcome:
        try:
            key = _key(attempt, action)
        except Refused as error:
            return failed(FailureClass.MISSING_CONFIG, f"python_path: {error}")
        with scratch_of(attempt) as scratch:
            environment.prepare(attempt, scratch)
            job = {
                "function": action.function,
                "arguments": action.arguments,
                "context": _context(attempt) | {"scratch": str(scratch)},
                "env": environment.identifiers(attempt, scratch),
                "cwd": attempt.workspace or str(scratch),
                "output_bytes_max": attempt.output_bytes_max,
            }
            with UsageFile(attempt, scratch, progress):
                while True:
                    outcome = await self._try(attempt, job, key, scratch, progress)
                    if outcome is not None:
                        return outcome

    async def _try(
        self,
        attempt: AttemptSpec,
        job: Mapping[str, Any],
        key: WorkerKey,
        scratch: Path,
        progress: Progress,
    ) -> Outcome | None:
        """Run the job in one worker; None when that one had old modules and did not begin."""
        with (
            Output("stdout", scratch / "stdout.log", progress) as stdout,
            Output("stderr", scratch / "stderr.log", progress) as stderr,
        ):
            async with self._pool.lease(key, progress) as worker:
                try:
                    progress("event", "started")
                    answer = await worker.call(job, stdout, stderr)
                finally:
                    stdout.close()
                    stderr.close()
                    if worker.is_lost:
                        await leftovers.end(engine_ids=(), attempt_ids=(attempt.attempt_id,))
        if isinstance(answer, dict):
            return _outcome(attempt, answer, stderr)
        return _died(answer, stderr)


def _key(attempt: AttemptSpec, action: PythonAction) -> WorkerKey:
    if action.python_path and not attempt.workspace:
        raise Refused("it is relative to the workspace, and this run has none")
    folders = [str(inside(attempt.workspace, entry)) for entry in action.python_path]
    if attempt.workspace:
        folders.append(str(inside(attempt.workspace, ".")))
    env = environment.chosen(action.env, action.pass_env) | {"TANDEM_ENGINE_ID": attempt.engine_id}
    return WorkerKey(attempt.engine_id, tuple(folders), tuple(sorted(env.items())))


def _report(attempt: AttemptSpec, **spending: Any) -> None:
    """Count what a function of the host says that it has spent."""
    read = read_spending(encode(spending))
    if attempt.meter is not None:
        attempt.meter.report(read)


def _context(attempt: AttemptSpec) -> dict[str, Any]:
    return {
        "run_id": attempt.run_id,
        "node_id": attempt.node_id,
        "attempt": attempt.number,
        "idempotency_key": attempt.idempotency_key,
        "inputs": attempt.inputs,
        "runtime_context": attempt.runtime_context,
        "repair": attempt.repair,
        "workspace": attempt.workspace,
        "scratch": attempt.scratch,
    }


def _outcome(attempt: AttemptSpec, answer: Mapping[str, Any], stderr: Output) -> Outcome | None:
    match answer["kind"]:
        case "value":
            return Succeeded(output=answer["value"])
        case "stale":
            return None
        case "too_large":
            return _too_large(attempt, int(answer["message"]))
        case "missing":
            return failed(FailureClass.MISSING_CONFIG, answer["message"], detail=answer["detail"])
        case _:
            detail = answer["detail"] or stderr.tail()
            return failed(FailureClass.EXECUTION_ERROR, answer["message"], detail=detail)


def _too_large(attempt: AttemptSpec, size_bytes: int) -> Failed:
    what = f"what the function of node `{attempt.node_id}` returned"
    return too_large(what, size_bytes, attempt.output_bytes_max)


def _died(ending: Ending, stderr: Output) -> Failed:
    match ending:
        case Exited(code):
            message = f"the function ended its process with exit code {code}"
        case Signalled(number):
            message = f"the process of the function was ended by signal {signal_name(number)}"
        case NotStarted(stage, number):
            return failed(
                FailureClass.MISSING_CONFIG,
                f"a worker process could not be started: {stage}, error {number}",
            )
        case SupervisorLost():
            message = "the supervisor of the function's process was killed, and the process with it"
    exit_code = ending.code if isinstance(ending, Exited) else None
    return failed(FailureClass.EXECUTION_ERROR, message, detail=stderr.tail(), exit_code=exit_code)


def _missing(error: Exception) -> Failed:
    return failed(FailureClass.MISSING_CONFIG, str(error), detail=functions.trace_of(error))


def _raised(error: BaseException) -> Failed:
    return failed(
        FailureClass.EXECUTION_ERROR,
        functions.describe(error),
        detail=functions.trace_of(error),
    )


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
