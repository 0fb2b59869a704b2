"""`tandem learning`: what was learned from ended runs, and deciding on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from tandem.adapters.cli.tools import Tools
    from tandem.domain.candidate import Candidate, ReviewAction

_LISTED_MAX: Final = 1_000

# The same words as the enumerations, which are not imported for a help text; a test compares them.
KINDS: Final = ("memory_fact", "repair_hint", "prompt_patch", "graph_patch")
STATUSES: Final = ("proposed", "approved", "rejected", "applied", "superseded", "regressed")
ACTIONS: Final = ("approve", "reject", "applied", "supersede", "regress")

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def learning() -> None:
    """See what was learned from ended runs, and decide what later runs are told."""


@learning.command("list")
@click.option("--automation", metavar="ID", help="Only of this automation.")
@click.option("--status", type=click.Choice(STATUSES), help="Only with this status.")
@click.option("--kind", type=click.Choice(KINDS), help="Only of this kind.")
@click.option("--limit", type=click.IntRange(1, _LISTED_MAX), default=100, show_default=True)
@_json
@click.pass_obj
def list_(
    tools: Tools,
    automation: str | None,
    status: str | None,
    kind: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List candidates, newest first."""
    from tandem.adapters.cli import text
    from tandem.domain.candidate import CandidateKind, CandidateStatus
    from tandem.domain.ids import LOCAL_TENANT, AutomationId
    from tandem.ports.learning import CandidateFilter

    store = tools.open_store(tools.read_settings())
    try:
        found = store.list_candidates(
            CandidateFilter(
                tenant=LOCAL_TENANT,
                workflow_id=AutomationId(automation) if automation else None,
                status=CandidateStatus(status) if status else None,
                kind=CandidateKind(kind) if kind else None,
                limit=limit,
            )
        )
    finally:
        store.close()
    if as_json:
        text.print_json(
            {"candidates": [text.plain(candidate) for candidate in found], "count": len(found)}
        )
        return
    text.print_table([_row(candidate) for candidate in found])
    if not found:
        text.note("nothing was learned yet; ended runs are looked at about a second later")


def _row(candidate: Candidate) -> dict[str, str]:
    from tandem.adapters.cli import text

    return {
        "candidate": candidate.candidate_id,
        "automation": text.one_line(candidate.workflow_id, width=30),
        "kind": candidate.kind.value,
        "status": candidate.status.value,
        "confidence": f"{candidate.confidence:.2f}",
        "runs": str(len(candidate.run_ids)),
        "summary": text.one_line(candidate.summary, width=60),
    }


@learning.command()
@click.argument("candidate")
@_json
@click.pass_obj
def show(tools: Tools, candidate: str, as_json: bool) -> None:
    """Show CANDIDATE: what it says, the runs that speak for it, how runs went since."""
    from tandem.adapters.cli import text
    from tandem.domain.errors import NotFound
    from tandem.domain.ids import LOCAL_TENANT

    store = tools.open_store(tools.read_settings())
    try:
        found = store.find_candidate(candidate, tenant=LOCAL_TENANT)
    finally:
        store.close()
    if found is None:
        raise NotFound(
            f"there is no candidate {candidate}; `tandem learning list` shows the ones there are"
        )
    if as_json:
        text.print_json(text.plain(found))
        return
    _print(found)


def _print(candidate: Candidate) -> None:
    from tandem.adapters.cli import text

    rows = [
        ("candidate", candidate.candidate_id),
        ("automation", text.one_line(candidate.workflow_id)),
        ("kind", candidate.kind.value),
        ("status", candidate.status.value),
        ("confidence", f"{candidate.confidence:.2f}"),
        ("node", candidate.node_id or ""),
        ("summary", text.one_line(candidate.summary)),
        ("runs", ", ".join(candidate.run_ids)),
        ("reviewed by", text.one_line(candidate.reviewed_by)),
        ("note", text.one_line(candidate.review_note)),
    ]
    text.print_table([{"field": name, "value": value} for name, value in rows if value])


@learning.command()
@click.argument("candidate")
@click.argument("action", type=click.Choice(ACTIONS))
@click.option("--note", default="", help="Why; kept with the decision.")
@_json
@click.pass_obj
def review(tools: Tools, candidate: str, action: str, note: str, as_json: bool) -> None:
    """Decide on CANDIDATE; runs are told of what is approved or applied."""
    import asyncio

    from tandem.adapters.cli import text
    from tandem.domain.candidate import ReviewAction

    decided = asyncio.run(_review(tools, candidate, ReviewAction(action), note))
    if as_json:
        text.print_json({"ok": True, "candidate": text.plain(decided)})
    else:
        click.echo(f"candidate {decided.candidate_id} is {decided.status.value}")


async def _review(tools: Tools, candidate_id: str, action: ReviewAction, note: str) -> Candidate:
    from tandem.adapters.cli.session import person
    from tandem.adapters.cli.text import note as say

    settings = tools.read_settings()
    async with tools.open_engine(settings, drives=False, on_problem=say) as parts:
        return await parts.engine.review_candidate(candidate_id, action, by=person(), note=note)
