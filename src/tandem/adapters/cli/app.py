"""The root of the commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from contextlib import suppress
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tandem.adapters.cli import exits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tandem.adapters.cli.tools import Tools

_COMMANDS: Final = {
    "run": ("runner", "run"),
    "resume": ("runner", "resume"),
    "validate": ("automations", "validate"),
    "schema": ("automations", "schema"),
    "automations": ("stored", "automations"),
    "schedule": ("schedule", "schedule"),
    "handoffs": ("handoffs", "handoffs"),
    "backlog": ("backlog", "backlog"),
    "runs": ("runs", "runs"),
    "gates": ("gates", "gates"),
    "waits": ("waits", "waits"),
    "webhooks": ("webhooks", "webhooks"),
    "learning": ("learning", "learning"),
    "governance": ("governance", "governance"),
    "tokens": ("tokens", "tokens"),
    "scheduler": ("scheduler", "scheduler"),
    "serve": ("serve", "serve"),
    "login": ("login", "login"),
    "logout": ("login", "logout"),
    "doctor": ("upkeep", "doctor"),
    "db": ("upkeep", "db"),
}
_INPUT_CODES: Final = frozenset({"input_invalid", "input_missing", "input_unknown"})


class _ClosedPipe(Exception):
    """Nobody reads standard output any more. Click would make an exit code 1 of the original."""


class _Lazy(click.Group):
    """A group whose commands are imported when they are asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ClosedPipe from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = _COMMANDS.get(cmd_name)
        if found is None:
            return None
        command = getattr(import_module(f"tandem.adapters.cli.{found[0]}"), found[1])
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], _COMMANDS, n=1)
            if not near or "Did you mean" in error.message:
                raise
            message = f"{error.message} Did you mean '{near[0]}'?"
            raise click.UsageError(message, ctx=error.ctx) from None


def _show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"tandem {version('tandem-engine')}")
    ctx.exit()


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Run automations durably: nothing recorded is lost, nothing waits without a reason.

    Exit codes: 0 completed, 1 failed, 2 usage, 3 invalid automation, 4 not found, 5 refused,
    6 store unavailable, 7 blocked, 8 cancelled, 9 waiting for a person or paused.
    """


def main(tools: Tools, arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; prints one message for an error of ours."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    try:
        code = _main(tools, given)
        sys.stdout.flush()
        return code
    except (BrokenPipeError, _ClosedPipe):
        _abandon_stdout()
        return exits.BROKEN_PIPE
    except OSError as error:
        _abandon_stdout()
        why = f"the output could not be written: {error.strerror}"
        with suppress(OSError):
            click.echo(f"error: {why}; what was asked for may have been done", err=True)
        return exits.OUTPUT_LOST


def _open_closed_streams() -> None:
    """Give a process that was started without a standard stream an empty one.

    Otherwise the next file that is opened, such as the store, would get the number of the stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def _main(tools: Tools, given: list[str]) -> int:
    as_json = "--json" in given
    try:
        result = cli.main(args=given, prog_name="tandem", standalone_mode=False, obj=tools)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return exits.USAGE
    except click.ClickException as error:
        if as_json:
            _print_error({"code": "usage", "message": error.format_message()})
        else:
            error.show()
        return exits.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return exits.INTERRUPTED
    except (BrokenPipeError, _ClosedPipe):
        raise
    except Exception as error:  # noqa: BLE001 # the boundary that turns errors into exit codes
        return _report(error, as_json=as_json)
    return result if isinstance(result, int) else exits.COMPLETED


def _report(error: Exception, *, as_json: bool) -> int:
    from tandem.domain.errors import EngineError

    error = _single(error)
    if isinstance(error, BrokenPipeError) or (isinstance(error, OSError) and _is_of_output(error)):
        raise error
    if not isinstance(error, EngineError):
        return _report_unexpected(error, as_json=as_json)
    if as_json:
        _print_error(error_document(error))
    else:
        from tandem.adapters.cli.text import clean

        click.echo(f"error: {clean(_message(error))}", err=True)
    return exits.code_of_error(error)


def _message(error: Exception) -> str:
    """Return the message of an error of ours; inputs that do not fit are no fault of the file."""
    problems = getattr(error, "problems", ())
    if problems and all(problem.code in _INPUT_CODES for problem in problems):
        lines = "".join(f"\n  {problem}" for problem in problems)
        return f"the inputs do not fit the automation:{lines}"
    return str(error)


def error_document(error: Any) -> dict[str, Any]:
    """Return an error of ours as data: its code, its message, and the mistakes that it lists."""
    document: dict[str, Any] = {"code": error.code, "message": str(error)}
    problems = getattr(error, "problems", None)
    if problems:
        from tandem.adapters.cli.text import plain

        document["problems"] = plain(problems)
    return document


def _single(error: Exception) -> Exception:
    """Return what a task group wrapped, when it wrapped one error."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _report_unexpected(error: Exception, *, as_json: bool) -> int:
    text = "".join(traceback.format_exception(error))
    place = _keep(text)
    message = (
        f"this should not have happened: {type(error).__name__}: {error}; "
        f"the traceback is in {place}, please report it"
    )
    if as_json:
        _print_error({"code": "unexpected", "message": message})
    else:
        click.echo(f"error: {message}", err=True)
    return exits.UNEXPECTED


def _keep(text: str) -> Path:
    """Write a traceback where the person who reports it finds it."""
    name = f"tandem-error-{datetime.now().astimezone():%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    folders = [os.environ.get("TANDEM_STATE_DIR", ""), tempfile.gettempdir()]
    for folder in filter(None, folders):
        path = Path(folder) / name
        with suppress(OSError):
            path.write_text(text, "utf-8", "replace")
            return path
    return Path("(nowhere: no folder could be written)")


def _print_error(document: dict[str, Any]) -> None:
    click.echo(json.dumps({"error": document}), err=True)


def _is_of_output(error: OSError) -> bool:
    """Say whether something could not be printed, because the disk is full, say."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).parent.name in ("click", "rich")


def _abandon_stdout() -> None:
    """Keep the interpreter from complaining at its end about what cannot be written."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
