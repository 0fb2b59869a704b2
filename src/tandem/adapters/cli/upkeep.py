"""`tandem doctor` and `tandem db`: is everything in order on this machine?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from tandem.adapters.cli import exits, moving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tandem.adapters.cli.tools import LocalStore, Tools
    from tandem.domain.audit import AuditRecord
    from tandem.domain.run import Run
    from tandem.settings import Setting, Settings

_FSYNCS: Final = 20
_RUNS_MAX: Final = 1_000
_EVENTS_AT_ONCE: Final = 1_000
_NUMBER_MAX: Final = 2**63 - 1

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@_json
@click.pass_obj
def doctor(tools: Tools, as_json: bool) -> int:
    """Show what the engine finds on this machine, and every setting with its source."""
    from tandem.adapters.cli import text

    settings = tools.read_settings()
    found = _examine(tools, settings)
    if as_json:
        text.print_json(found)
    else:
        _print_findings(found)
    return exits.STORE if found["store"]["error"] else exits.COMPLETED


def _examine(tools: Tools, settings: Settings) -> dict[str, Any]:
    import asyncio
    import platform
    from importlib.metadata import version

    store = _examine_store(tools, settings)
    return {
        "version": version("tandem-engine"),
        "python": platform.python_version(),
        "sqlite": tools.sqlite_version(),
        "state_dir": str(settings.state_dir),
        "store": store,
        "file_system": tools.file_system_of(_existing(settings.state_dir)) or "unknown",
        "fsync_ms": _fsync_ms(settings.state_dir),
        "isolation": asyncio.run(tools.isolation_of(settings)),
        "traces": tools.traces_of(settings),
        "settings": _settings(settings),
    }


def _examine_store(tools: Tools, settings: Settings) -> dict[str, Any]:
    from tandem.domain.errors import StoreError

    path = settings.store_path
    try:
        tools.open_store(settings).close()
    except StoreError as error:
        return {"path": str(path), "size_bytes": None, "error": str(error)}
    return {"path": str(path), "size_bytes": path.stat().st_size, "error": None}


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _fsync_ms(folder: Path) -> float | None:
    """Return the median time of a small write and fsync; None where nothing can be written."""
    import os
    import statistics
    import tempfile
    import time

    took: list[float] = []
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fsync-") as file:
            for _ in range(_FSYNCS):
                began = time.perf_counter()
                file.write(b"x" * 4_096)
                file.flush()
                os.fsync(file.fileno())
                took.append(time.perf_counter() - began)
    except OSError:
        return None
    return round(statistics.median(took) * 1_000, 3)


def _settings(settings: Settings) -> list[dict[str, Any]]:
    from tandem.settings import SETTINGS

    return [
        {
            "name": setting.name,
            "value": _shown(settings, setting),
            "source": settings.sources.get(setting.field, "default"),
            "unit": setting.unit,
            "sentence": setting.sentence,
        }
        for setting in SETTINGS
    ]


def _shown(settings: Settings, setting: Setting) -> str:
    from tandem.settings import without_credentials

    value = getattr(settings, setting.field)
    if setting.is_secret:
        return "(set)" if value else ""
    return without_credentials(str(value))


def _print_findings(found: dict[str, Any]) -> None:
    from tandem.adapters.cli import text

    store = found["store"]
    speed = found["fsync_ms"]
    state = f"error: {store['error']}" if store["error"] else text.size(store["size_bytes"])
    lines = {
        "tandem": found["version"],
        "python": found["python"],
        "sqlite": found["sqlite"],
        "state": found["state_dir"],
        "store": f"{store['path']} ({state})",
        "files": found["file_system"],
        "fsync": "not measured: the folder cannot be written" if speed is None else f"{speed} ms",
        "isolation": found["isolation"],
        "traces": found["traces"],
    }
    for name, value in lines.items():
        click.echo(f"{name:<10}{value}")
    click.echo("\nsettings")
    for setting in found["settings"]:
        unit = f" {setting['unit']}" if setting["unit"] not in ("", "folder") else ""
        value = setting["value"] or "(empty)"
        click.echo(f"  {setting['name']} = {value}{unit}  [{setting['source']}]")
        click.echo(f"      {setting['sentence']}")


@click.group()
def db() -> None:
    """Look after the store."""


for _command in (moving.backup, moving.export, moving.import_, moving.gc, moving.archive):
    db.add_command(_command)


@db.command()
@_json
@click.pass_obj
def check(tools: Tools, as_json: bool) -> int:
    """Check the file, the audit, and that the events of each run (the newest 1,000) fit it."""
    from tandem.adapters.cli import text
    from tandem.domain.audit import problems_of
    from tandem.domain.errors import StoreError

    store = tools.open_store(tools.read_settings())
    runs: Sequence[Run] = ()
    total = 0
    try:
        path = str(store.path)
        wrong = store.check()
        try:
            runs, unread, total = store.read_newest(limit=_RUNS_MAX)
            wrong += unread
            wrong += [said for run in runs if (said := _replay(store, run))]
            wrong += problems_of(_audit(store))
        except StoreError as error:
            wrong.append(str(error))
    finally:
        store.close()
    if as_json:
        found = {"runs": len(runs), "runs_total": total, "problems": wrong}
        text.print_json({"store": path, "ok": not wrong, **found})
    else:
        for said in wrong:
            click.echo(said)
        verdict = f"{text.count(len(wrong), 'problem')}" if wrong else "ok"
        looked = text.count(total, "run")
        looked = looked if len(runs) == total else f"{len(runs)} of {looked}"
        which = ", the newest of all tenants" if total > _RUNS_MAX else ""
        click.echo(f"{path}: {verdict}, {looked} replayed{which}")
    return exits.STORE if wrong else exits.COMPLETED


def _audit(store: LocalStore, *, after_no: int = 0) -> Iterator[AuditRecord]:
    """Yield the records of the audit in their order."""
    while records := store.list_audit(tenant=None, after_no=after_no, limit=_EVENTS_AT_ONCE):
        yield from records
        after_no = records[-1].audit_no


@db.command()
@click.option(
    "--after", default=0, type=click.IntRange(0, _NUMBER_MAX), help="Only records after this one."
)
@_json
@click.pass_obj
def audit(tools: Tools, after: int, as_json: bool) -> None:
    """List what was done to tokens, and who was turned away, oldest first."""
    from tandem.adapters.cli import text

    store = tools.open_store(tools.read_settings())
    try:
        for record in _audit(store, after_no=after):
            entry = record.entry
            if as_json:
                text.print_json(text.plain(record), indent=0)
                continue
            facts = " ".join(f"{name}={value}" for name, value in entry.detail.items())
            who = " ".join(part for part in (entry.actor, entry.peer) if part)
            when = text.moment(entry.recorded_at_ms)
            words = f"{record.audit_no}  {when}  {entry.event}  {who or '-'}  {facts}"
            click.echo(text.one_line(words))
    finally:
        store.close()


def _replay(store: LocalStore, run: Run) -> str:
    """Return what is wrong with the events of a run, empty when they lead to its row.

    Events after those that the row counts belong to what happened since, and are left out.
    """
    from tandem.domain.errors import IllegalTransition, StoreError, StoreUnavailable
    from tandem.domain.lifecycle import RunState, next_run_state

    state, seq = RunState.QUEUED, 0
    while seq < run.event_seq:
        try:
            events = store.list_events(
                run.run_id, tenant=run.tenant, after_seq=seq, limit=_EVENTS_AT_ONCE
            )
        except StoreUnavailable:
            raise
        except (StoreError, ValueError) as error:
            return f"run {run.run_id}: its events cannot be read: {error}"
        events = [event for event in events if event.seq <= run.event_seq]
        if not events:
            return f"run {run.run_id}: its events end at {seq}, its row says {run.event_seq}"
        for event in events:
            if event.seq != seq + 1:
                return f"run {run.run_id}: event {seq + 1} is missing"
            seq = event.seq
            try:
                state = next_run_state(state, event.event)
            except IllegalTransition as error:
                return f"run {run.run_id}: event {seq}: {error}"
    if state is not run.status:
        return f"run {run.run_id}: its events lead to {state.value}, its row says {run.status}"
    return ""
