"""The whole of `run` and `resume`: open an engine, drive, tell how it ended."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Final

import click
import msgspec

from tandem.adapters.cli import exits, text
from tandem.adapters.cli.display import Display, JsonLines, Lines, Quiet
from tandem.adapters.cli.given import Decisions
from tandem.adapters.cli.references import find_run_id, short_id
from tandem.adapters.cli.session import Session, person
from tandem.adapters.cli.story import Story, document, holder_of, is_unfinished, read_story
from tandem.adapters.cli.summary import print_dry_run, print_summary
from tandem.adapters.cli.tools import LocalStore, OpenEngine, Tools
from tandem.domain.automation import Automation
from tandem.domain.command import Recover, Resume
from tandem.domain.errors import NotFound, Problem, Refused
from tandem.domain.execution import ExecutionProfile
from tandem.domain.ids import LOCAL_TENANT, EngineId, RunId
from tandem.domain.json import JsonObject
from tandem.domain.lifecycle import LIVE, TERMINAL, RunState
from tandem.domain.run import Run
from tandem.domain.workspace_root import declared_workspace
from tandem.engine.dry_run import DryRun
from tandem.engine.engine import Engine
from tandem.ports.host import Host
from tandem.ports.store import RunFilter
from tandem.settings import Settings

UNFINISHED_MAX: Final = 1_000


class Look(Enum):
    """How a command shows what happens; AUTO is the live view on a terminal, else lines."""

    AUTO = "auto"
    JSON = "json"
    QUIET = "quiet"


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is asked for. `workspace` is absolute."""

    automation: Automation
    inputs: JsonObject
    workspace: str
    decisions: Decisions
    profile: ExecutionProfile | None = None
    stored_version: int | None = None
    """The version of the stored automation; None for a file that is run as it is."""

    async def start(self, engine: Engine, *, owned: bool = False, is_dry: bool = False) -> Run:
        """Create the run."""
        return await engine.start(
            self.automation,
            self.inputs,
            workspace=self.workspace,
            profile=self.profile,
            stored_version=self.stored_version,
            owned=owned,
            is_dry=is_dry,
            started_by=person(),
        )


def warn(doubt: Problem, *, look: Look) -> None:
    """Tell of something in the file that is hardly meant; the run goes on."""
    if look is Look.JSON:
        text.print_json({"type": "warning", **text.plain(doubt)}, indent=0)
    else:
        text.note(text.warning(doubt))


def workspace_of(automation: Automation, given: Path | None) -> str:
    """Return the workspace of a run: the given one, the automation's, or the current directory.

    Raises:
        NotFound: it is not a directory.
    """
    try:
        folder = (given or Path(declared_workspace(automation) or ".")).expanduser().absolute()
        str(folder).encode()
    except FileNotFoundError:
        raise NotFound("the current directory is gone; go to another") from None
    except UnicodeEncodeError:
        raise NotFound(f"the name of the workspace {str(folder)!r} is no UTF-8 text") from None
    if not folder.is_dir():
        raise NotFound(f"the workspace {folder} is not a directory; create it, or name another")
    return str(folder)


def detach(tools: Tools, settings: Settings, order: Order, look: Look) -> int:
    """Create the run for whoever takes it, and print its id."""

    async def create() -> Run:
        async with tools.open_engine(settings, drives=False, on_problem=text.note) as parts:
            return await order.start(parts.engine)

    run = asyncio.run(create())
    if look is Look.JSON:
        result = {"type": "result", "run_id": run.run_id, "status": run.status, "detached": True}
        text.print_json(result, indent=0)
    else:
        click.echo(run.run_id)
    return exits.COMPLETED


def run(tools: Tools, settings: Settings, order: Order, look: Look) -> int:
    """Create a run, drive it until it rests, tell how it was left; return the exit code."""

    async def choose(parts: OpenEngine) -> list[RunId]:
        started = await order.start(parts.engine, owned=True)
        return [started.run_id]

    return _drive(tools, settings, choose, order.decisions, look, after_seq=0)


def dry_run(tools: Tools, settings: Settings, order: Order, look: Look) -> int:
    """Record a dry run and tell what a real one would do; nothing is executed."""

    async def create() -> DryRun:
        async with tools.open_engine(settings, drives=False, on_problem=text.note) as parts:
            run = await order.start(parts.engine, is_dry=True)
            return await parts.engine.tell_dry_run(run)

    return tell_dry_run(asyncio.run(create()), look)


def tell_dry_run(told: DryRun, look: Look) -> int:
    """Print what a real run would do, and return the exit code."""
    if look is Look.JSON:
        result = {"type": "result", "dry_run": True, "can_run": told.can_run, **text.plain(told)}
        text.print_json({**result, "run_id": told.run.run_id}, indent=0)
    else:
        print_dry_run(told)
    return exits.COMPLETED


def resume(
    tools: Tools,
    settings: Settings,
    name: str | None,
    decisions: Decisions,
    look: Look,
    *,
    every: bool,
) -> int | None:
    """Take runs over, drive them until they rest, tell how; None when there was nothing to do.

    Raises:
        NotFound: no run is named so.
        Refused: an engine that lives has the run, or it has ended for good.
        click.UsageError: several runs could be meant.
    """
    host = tools.open_host(settings)
    store = tools.open_store(settings)
    try:
        if every or name is None:
            chosen = _unfinished(store, host, every=every)
        else:
            chosen = [find_run_id(store, name)]
    finally:
        store.close()
    if not chosen:
        if look is Look.JSON:
            text.print_json({"type": "result", "run_id": None, "exit_code": 0}, indent=0)
        text.note("there is no unfinished run")
        return None

    async def take(parts: OpenEngine) -> list[RunId]:
        taken: list[RunId] = []
        for run_id in chosen:
            try:
                await _take(parts, run_id)
            except Refused as refused:
                if not every:
                    raise
                text.note(str(refused))
                continue
            taken.append(run_id)
        return taken

    return _drive(tools, settings, take, decisions, look, after_seq=None)


def _unfinished(store: LocalStore, host: Host, *, every: bool) -> list[RunId]:
    chosen = RunFilter(tenant=LOCAL_TENANT, statuses=tuple(sorted(LIVE)), limit=UNFINISHED_MAX)
    engines = {engine.engine_id: engine for engine in store.list_engines()}
    found: list[Run] = []
    for run in store.list_runs(chosen):
        engine = engines.get(holder_of(run) or EngineId(""))
        if engine is None or host.is_dead(engine, now_ms=_now_ms()):
            found.append(run)
    if len(found) > 1 and not every:
        names = "\n".join(
            f"  {short_id(run.run_id)}  {run.status.value}  {text.one_line(run.name)}"
            for run in found
        )
        raise click.UsageError(f"several runs are unfinished; name one, or say --all:\n{names}")
    return [run.run_id for run in reversed(found)]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _take(parts: OpenEngine, run_id: RunId) -> None:
    """Make the run this engine's own, in whatever state it was left.

    Raises:
        Refused: an engine that lives has it, or it has ended for good.
    """
    engine = parts.engine
    before = parts.store.find_run(run_id, tenant=LOCAL_TENANT)
    await engine.take_over(run_id, own=True)
    run = parts.store.find_run(run_id, tenant=LOCAL_TENANT)
    if run is None:
        raise NotFound(f"there is no run {run_id}")
    if run.status in (RunState.FAILED, RunState.BLOCKED):
        await engine.execute(run_id, Recover(owner=engine.engine_id))
    elif run.status is RunState.PAUSED and not run.parked:
        await engine.execute(run_id, Resume(owner=engine.engine_id))
    elif run.status in TERMINAL and (before is None or not is_unfinished(before)):
        # A cancelled run whose processes were not proven dead had that much left to do.
        raise Refused(
            f"run {run_id} is {run.status.value}; there is nothing to resume", code="run_ended"
        )


def _drive(
    tools: Tools,
    settings: Settings,
    choose: Callable[[OpenEngine], Awaitable[list[RunId]]],
    decisions: Decisions,
    look: Look,
    *,
    after_seq: int | None,
) -> int:
    async def drive() -> int:
        async with tools.open_engine(settings, own_only=True, on_problem=text.note) as parts:
            run_ids = await choose(parts)
            with open_display(look, several=len(run_ids) > 1) as display:
                session = Session(parts, display, decisions)
                try:
                    runs = await session.follow(run_ids, after_seq=after_seq)
                except* BrokenPipeError:
                    names = ", ".join(short_id(run_id) for run_id in run_ids)
                    text.note(f"nobody reads the output any more: run {names} was handed back")
                    raise
            for run_id in run_ids:
                self_id = parts.engine.engine_id
                story = read_story(tools, settings, parts.store, run_id, self_id=self_id)
                tell_end(story, look)
            return exits.worst([exits.code_of_state(run.status) for run in runs])

    return asyncio.run(drive())


def tell_end(story: Story, look: Look) -> None:
    """Tell how a run was left."""
    if look is Look.JSON:
        code = exits.code_of_state(story.run.status)
        text.print_json({"type": "result", "exit_code": code, **document(story)}, indent=0)
    else:
        print_summary(story)


@contextmanager
def open_display(look: Look, *, several: bool = False) -> Iterator[Display]:
    """Show what happens as it was asked for: live on a terminal, else as lines or JSON."""
    if look is Look.JSON:
        yield JsonLines()
    elif look is Look.QUIET:
        yield Quiet()
    elif several or not text.is_terminal() or not _is_in_foreground():
        yield Lines(named=several)
    else:
        from tandem.adapters.cli.live import LiveView

        with LiveView() as view:
            yield view


def _is_in_foreground() -> bool:
    from tandem.adapters.cli.keyboard import is_ours

    return is_ours()
