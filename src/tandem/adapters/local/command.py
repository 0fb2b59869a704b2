"""Runs `command` actions: a program, its exit code and what it printed or wrote."""

import errno
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tandem.adapters.local import environment, leftovers
from tandem.adapters.local.failure import clean, failed
from tandem.adapters.local.output import LOG_BYTES_MAX, Output
from tandem.adapters.local.process import (
    Ending,
    Exited,
    NotStarted,
    Program,
    Signalled,
    SupervisorLost,
)
from tandem.adapters.local.spawner import Spawner
from tandem.adapters.local.usage_file import UsageFile
from tandem.adapters.local.workspace import file_artifact, inside
from tandem.domain.action import CommandAction
from tandem.domain.errors import NotFound, Refused
from tandem.domain.json import JsonValue, decode
from tandem.domain.outcome import (
    Failed,
    FailureClass,
    NeedsRepair,
    Outcome,
    Succeeded,
    too_large,
)
from tandem.ports.executor import AttemptSpec, Progress


class CommandExecutor:
    """Runs commands of this host under supervisors.

    Args:
        spawner: starts the programs; the caller closes it.
        stop_grace_ms: how long a cancelled command has after SIGTERM before it is killed; with 0
            it is killed at once. A second cancellation ends the grace time.
        log_bytes_max: bound of `stdout.log` and `stderr.log` in the scratch directory; standard
            output is kept up to the bound of the attempt's output if that is higher.
    """

    def __init__(
        self, spawner: Spawner, *, stop_grace_ms: int = 0, log_bytes_max: int = LOG_BYTES_MAX
    ) -> None:
        self._spawner = spawner
        self._stop_grace_ms = stop_grace_ms
        self._log_bytes_max = log_bytes_max

    async def run(self, attempt: AttemptSpec, progress: Progress) -> Outcome:
        """Run a command and all that comes from it to the end.

        What it leaves running in the background is killed when it exits.
        """
        action = attempt.action
        assert isinstance(action, CommandAction)
        with scratch_of(attempt) as scratch:
            environment.prepare(attempt, scratch)
            program = _program(attempt, action, scratch)
            if isinstance(program, Failed):
                return program
            stdout_max = max(self._log_bytes_max, attempt.output_bytes_max)
            with (
                UsageFile(attempt, scratch, progress),
                Output(
                    "stdout", scratch / "stdout.log", progress, log_bytes_max=stdout_max
                ) as stdout,
                Output(
                    "stderr", scratch / "stderr.log", progress, log_bytes_max=self._log_bytes_max
                ) as stderr,
            ):
                ending = await self._run(program, attempt, stdout, stderr)
            return judge(attempt, ending, stdout, stderr, scratch)

    async def _run(
        self, program: Program, attempt: AttemptSpec, stdout: Output, stderr: Output
    ) -> Ending:
        write_ends = (stdout.open(), stderr.open())
        try:
            process = await self._spawner.start(
                program, engine_id=attempt.engine_id, stdout=write_ends[0], stderr=write_ends[1]
            )
        finally:
            for fd in write_ends:
                os.close(fd)
        try:
            return await process.wait()
        finally:
            try:
                await process.end(grace_ms=self._stop_grace_ms)
            finally:
                if process.is_lost:
                    await leftovers.end(engine_ids=(), attempt_ids=(attempt.attempt_id,))


@contextmanager
def scratch_of(attempt: AttemptSpec) -> Iterator[Path]:
    """Yield the attempt's scratch directory, or one that is removed afterwards if it has none."""
    if attempt.scratch:
        yield Path(attempt.scratch)
        return
    with tempfile.TemporaryDirectory(prefix="tandem-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def judge(
    attempt: AttemptSpec, ending: Ending, stdout: Output, stderr: Output, scratch: Path
) -> Outcome:
    """Turn the end of a command into its outcome."""
    action = attempt.action
    assert isinstance(action, CommandAction)
    detail = stderr.tail() if stderr.tail().strip() else stdout.tail()
    match ending:
        case Exited(code) if code in action.exit_codes:
            if action.output.format == "file":
                return _file_output(action, code, attempt.workspace or str(scratch))
            return _output(attempt, action, code, stdout)
        case Exited(code):
            last = _last_line(detail)
            return failed(
                FailureClass.EXECUTION_ERROR,
                f"exited with code {code}" + (f": {last}" if last else ""),
                detail=detail,
                exit_code=code,
            )
        case Signalled(number):
            return failed(
                FailureClass.EXECUTION_ERROR,
                f"ended by signal {signal_name(number)}",
                detail=detail,
                exit_code=-number,
            )
        case NotStarted():
            return failed(FailureClass.MISSING_CONFIG, _why_not_started(action, ending))
        case SupervisorLost():
            return failed(
                FailureClass.EXECUTION_ERROR,
                "the supervisor of this command was killed, and the command with it",
                detail=detail,
            )


def signal_name(number: int) -> str:
    """Return `9 (SIGKILL; out of memory?)` and the like."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return str(number)
    hint = "; out of memory?" if number == signal.SIGKILL else ""
    return f"{number} ({name}{hint})"


def _program(attempt: AttemptSpec, action: CommandAction, scratch: Path) -> Program | Failed:
    argv = ["/bin/sh", "-c", action.script or ""] if action.shell else action.argv
    env = environment.chosen(action.env, action.pass_env)
    env |= environment.identifiers(attempt, scratch)
    if not argv or not argv[0]:
        return failed(FailureClass.MISSING_CONFIG, "the command is empty: `argv` names no program")
    if any("\0" in text for text in (*argv, *env, *env.values())):
        return failed(
            FailureClass.MISSING_CONFIG, "an argument or variable of the command holds a NUL"
        )
    if any("=" in name or not name for name in env):
        return failed(FailureClass.MISSING_CONFIG, "a variable's name is empty or holds a `=`")
    try:
        cwd = inside(attempt.workspace or scratch, action.cwd or ".")
    except Refused as error:
        return failed(FailureClass.MISSING_CONFIG, f"cwd: {error}")
    return Program(argv=argv, env=env, cwd=str(cwd))


def _why_not_started(action: CommandAction, ending: NotStarted) -> str:
    reason = os.strerror(ending.errno)
    if ending.stage == "cwd":
        return f"the working directory `{action.cwd or '.'}` cannot be entered: {reason}"
    if ending.stage == "isolate":
        return f"a PID namespace cannot be made here: {reason}; choose the isolation `subreaper`"
    name = "/bin/sh" if action.shell else action.argv[0]
    if ending.errno in (errno.ENOENT, errno.ENOTDIR):
        if "/" in name:
            return f"command `{name}` was not found, or the interpreter that it names"
        path = environment.chosen(action.env, action.pass_env).get("PATH", os.defpath)
        return f"command `{name}` was not found (looked in PATH={path})"
    return f"command `{name}` cannot be run: {reason}"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _output(attempt: AttemptSpec, action: CommandAction, code: int, stdout: Output) -> Outcome:
    if stdout.size_bytes > attempt.output_bytes_max:
        return _too_large(attempt, stdout)
    content = stdout.content()
    if content is None:
        return failed(
            FailureClass.EXECUTION_ERROR,
            f"stdout could not be kept in {stdout.log}; is the disk full?",
            exit_code=code,
        )
    if action.output.format == "text":
        return Succeeded(output=clean(content.decode(errors="replace")), exit_code=code)
    try:
        value = decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return NeedsRepair(reasons=(f"stdout is not JSON: {error}",))
    return Succeeded(output=value, exit_code=code)


def _too_large(attempt: AttemptSpec, stdout: Output) -> Failed:
    failure = too_large(
        f"stdout of node `{attempt.node_id}`",
        stdout.size_bytes,
        attempt.output_bytes_max,
        instead="write a file and name it in `output: {format: file, path: …}`",
    )
    kept = stdout.logged_bytes
    if not attempt.scratch or not kept:
        return failure
    part = "it is" if kept == stdout.size_bytes else f"its first {kept:,} bytes are"
    return failed(failure.failure_class, f"{failure.message}; {part} kept at {stdout.log}")


def _file_output(action: CommandAction, code: int, folder: str) -> Outcome:
    relative = action.output.path
    if not relative:
        return failed(FailureClass.MISSING_CONFIG, "`output.path` is missing; `file` needs it")
    try:
        artifact = file_artifact(folder, relative, action.output.media_type)
    except NotFound as error:
        return NeedsRepair(reasons=(f"the output file is missing: {error}",))
    except Refused as error:
        return NeedsRepair(reasons=(str(error),))
    value: JsonValue = {
        "path": artifact.path,
        "digest": artifact.digest,
        "size_bytes": artifact.size_bytes,
        "media_type": artifact.media_type,
    }
    return Succeeded(output=value, artifacts=(artifact,), exit_code=code)
