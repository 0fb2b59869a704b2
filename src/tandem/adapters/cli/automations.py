"""`tandem validate` and `tandem schema`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tandem.adapters.cli import exits

if TYPE_CHECKING:
    from tandem.adapters.cli.tools import Tools
    from tandem.domain.errors import Problem


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def validate(tools: Tools, files: tuple[Path, ...], as_json: bool) -> int:
    """Check automations and print every mistake as `file:line:column: path: message (hint) [code]`.

    Warnings are about what has no effect, and about what the engine cannot run as it is installed;
    they do not change the exit code.
    """
    from tandem.adapters.cli import text

    verdicts = [_verdict(tools, file) for file in files]
    if as_json:
        text.print_json([text.plain(verdict) for verdict, _ in verdicts])
    else:
        for verdict, _ in verdicts:
            _print_verdict(verdict)
    codes = {code for _, code in verdicts}
    return next((code for code in (exits.INVALID, exits.NOT_FOUND) if code in codes), 0)


def _verdict(tools: Tools, file: Path) -> tuple[dict[str, Any], int]:
    import msgspec

    from tandem.domain.errors import InvalidAutomation, NotFound
    from tandem.engine.runnable import unrunnable

    found: dict[str, Any] = {"file": str(file), "valid": False, "problems": [], "warnings": []}
    doubts: list[Problem] = []
    try:
        automation = tools.load_automation(file, warn=doubts.append)
    except NotFound as error:
        return {**found, "error": str(error)}, exits.NOT_FOUND
    except InvalidAutomation as error:
        return {**found, "problems": error.problems}, exits.INVALID
    later = [msgspec.structs.replace(p, file=str(file)) for p in unrunnable(automation)]
    return {
        **found,
        "valid": True,
        "warnings": [*doubts, *later],
        "automation_id": automation.automation_id,
        "nodes": len(automation.nodes),
    }, exits.COMPLETED


def _print_verdict(verdict: dict[str, Any]) -> None:
    from tandem.adapters.cli import text
    from tandem.adapters.cli.text import clean, count, note

    if "error" in verdict:
        note(f"error: {clean(verdict['error'])}")
    for problem in verdict["problems"]:
        click.echo(clean(str(problem)))
    for warning in verdict["warnings"]:
        click.echo(text.warning(warning))
    if verdict["valid"]:
        click.echo(f"{clean(verdict['file'])}: valid, {count(verdict['nodes'], 'node')}")


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.pass_obj
def schema(tools: Tools, output: Path | None) -> None:
    """Print the JSON Schema of automation files, for editors."""
    import json

    from tandem.domain.errors import NotFound

    content = json.dumps(tools.automation_json_schema(), indent=2) + "\n"
    if output is None:
        click.echo(content, nl=False)
        return
    try:
        output.write_text(content, "utf-8")
    except FileNotFoundError:
        raise NotFound(f"cannot write {output}: its folder does not exist") from None
    except OSError as error:
        raise click.UsageError(f"cannot write {output}: {error.strerror}") from None
