"""`tandem governance`: automations whose runs are counted until a person has looked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from tandem.adapters.cli.tools import Tools
    from tandem.domain.automation_review import Review

_LISTED_MAX: Final = 1_000
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def governance() -> None:
    """Have automations reviewed after a number of runs. AUTOMATION is its `automation_id`."""


@governance.command()
@click.argument("automation")
@click.option(
    "--runs",
    type=click.IntRange(min=0),
    help="Review after so many ended runs; else as the setting says. 0 counts only.",
)
@_json
@click.pass_obj
def enrol(tools: Tools, automation: str, runs: int | None, as_json: bool) -> None:
    """Count the runs of AUTOMATION; when there are enough, somebody has to look."""
    import asyncio

    review = asyncio.run(_enrol(tools, automation, runs))
    _tell(review, as_json=as_json)


async def _enrol(tools: Tools, automation: str, runs: int | None) -> Review:
    from tandem.adapters.cli.text import note
    from tandem.domain.ids import AutomationId

    settings = tools.read_settings()
    runs_max = settings.review_runs_max if runs is None else runs
    async with tools.open_engine(settings, drives=False, on_problem=note) as parts:
        return await parts.engine.enrol(AutomationId(automation), runs_max=runs_max)


@governance.command("list")
@_json
@click.pass_obj
def list_(tools: Tools, as_json: bool) -> None:
    """List the automations whose runs are counted."""
    from tandem.adapters.cli import text
    from tandem.domain.ids import LOCAL_TENANT

    store = tools.open_store(tools.read_settings())
    try:
        found = store.list_reviews(tenant=LOCAL_TENANT, limit=_LISTED_MAX)
    finally:
        store.close()
    if as_json:
        text.print_json([text.plain(review) for review in found])
        return
    text.print_table(
        [
            {
                "automation": text.one_line(review.automation_id, width=40),
                "runs": f"{review.runs_since_review}/{review.runs_max or '-'}",
                "review": "required" if review.review_required else "",
                "since": text.moment(review.review_requested_at_ms),
            }
            for review in found
        ]
    )
    if not found:
        text.note("no automation is enrolled; `tandem governance enrol AUTOMATION` does it")


@governance.command()
@click.argument("automation")
@_json
@click.pass_obj
def show(tools: Tools, automation: str, as_json: bool) -> None:
    """Show how many runs of AUTOMATION ended since somebody looked, and how they went."""
    import time

    from tandem.adapters.cli import text
    from tandem.domain.errors import NotFound
    from tandem.domain.ids import LOCAL_TENANT, AutomationId

    automation_id = AutomationId(automation)
    store = tools.open_store(tools.read_settings())
    try:
        review = store.find_review(automation_id, tenant=LOCAL_TENANT)
        now_ms = time.time_ns() // 1_000_000
        metrics = store.read_metrics(automation_id, tenant=LOCAL_TENANT, now_ms=now_ms)
    finally:
        store.close()
    if review is None:
        raise NotFound(
            f"the runs of automation {automation} are not counted for reviews; "
            f"`tandem governance enrol {automation}` lets them be"
        )
    if as_json:
        text.print_json({"governance": text.plain(review), "metrics": text.plain(metrics)})
        return
    _print(review)
    click.echo(
        f"of the newest {text.count(metrics.sample_size, 'ended run')} "
        f"{metrics.completion_rate:.0%} completed, {metrics.validation_pass_rate:.0%} without a "
        "warning"
    )


@governance.command()
@click.argument("automation")
@click.option("--note", default="", help="What was found; kept with the record.")
@_json
@click.pass_obj
def acknowledge(tools: Tools, automation: str, note: str, as_json: bool) -> None:
    """Say that somebody has looked at AUTOMATION; runs that were held go on."""
    import asyncio

    review = asyncio.run(_acknowledge(tools, automation, note))
    _tell(review, as_json=as_json)


async def _acknowledge(tools: Tools, automation: str, note: str) -> Review:
    from tandem.adapters.cli.session import person
    from tandem.adapters.cli.text import note as say
    from tandem.domain.ids import AutomationId

    async with tools.open_engine(tools.read_settings(), drives=False, on_problem=say) as parts:
        return await parts.engine.acknowledge_review(
            AutomationId(automation), by=person(), note=note
        )


def _tell(review: Review, *, as_json: bool) -> None:
    from tandem.adapters.cli import text

    if as_json:
        text.print_json({"governance": text.plain(review)})
    else:
        _print(review)


def _print(review: Review) -> None:
    from tandem.adapters.cli import text
    from tandem.domain.automation_review import hold_sentence

    name = text.one_line(review.automation_id)
    if review.review_required:
        click.echo(text.clean(hold_sentence(review)))
        click.echo(f"then: tandem governance acknowledge {name}")
        return
    limit = f"a review after {review.runs_max}" if review.runs_max else "no review is asked for"
    count = text.count(review.runs_since_review, "run")
    click.echo(f"automation {name}: {count} ended since the last review; {limit}")
