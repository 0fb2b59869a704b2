"""Write what is made from the code: documents, and the script that makes a new store.

`--check` only says which are out of date.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

import apsw
import msgspec

from tandem.adapters.http.app import endpoints
from tandem.adapters.http.bodies import Body
from tandem.adapters.http.call import Endpoint
from tandem.adapters.http.errors import KINDS
from tandem.adapters.http.policy import POLICY, Open
from tandem.adapters.logs.runs import level_of
from tandem.adapters.logs.words import KEYS, LINES
from tandem.adapters.metrics.series import SERIES
from tandem.adapters.sql.statements import load_migrations
from tandem.domain.lifecycle import (
    NODE_TRANSITIONS,
    RUN_TRANSITIONS,
    TERMINAL,
    NodeState,
    RunEvent,
)
from tandem.domain.vocabulary import WORDS
from tandem.settings import SETTINGS, Setting, Settings

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Written by `make fix` from the code; do not edit. -->\n"


def diagram(table: Mapping[tuple[StrEnum, RunEvent], StrEnum], ends: Iterable[StrEnum]) -> str:
    """Draw the transitions that change the state; events between the same two share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (before, event), after in table.items():
        if before is not after:
            arrows.setdefault((before.value, after.value), []).append(event.value)
    lines = [
        f"    {before} --> {after}: {', '.join(sorted(events))}"
        for (before, after), events in sorted(arrows.items())
    ]
    lines += [f"    {end.value} --> [*]" for end in sorted(ends)]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def rows(table: Mapping[tuple[StrEnum, RunEvent], StrEnum]) -> str:
    """List every transition, the events in the order of their definition."""
    order = {event: place for place, event in enumerate(RunEvent)}
    lines = ["| event | from | to |", "|---|---|---|"]
    found = sorted(table.items(), key=lambda item: (order[item[0][1]], item[0][0].value))
    lines += [f"| `{event}` | `{before}` | `{after}` |" for (before, event), after in found]
    return "\n".join(lines)


def lifecycle() -> str:
    """Return docs/lifecycle.md."""
    return f"""{NOTE}
# The life of a run and of a node

The tables are `RUN_TRANSITIONS` and `NODE_TRANSITIONS` in `src/tandem/domain/lifecycle.py`. An
event that is not listed for a state is refused. Every event is stored; replaying the events of a
run gives its state and the states of its nodes.

## Runs

{diagram(RUN_TRANSITIONS, TERMINAL)}

## Nodes

{diagram(NODE_TRANSITIONS, [NodeState.COMPLETED, NodeState.BLOCKED, NodeState.FAILED])}

## Every transition of a run

{rows(RUN_TRANSITIONS)}

## Every transition of a node

{rows(NODE_TRANSITIONS)}
"""


def older_names(setting: Setting) -> str:
    """Return the sentence on the older names of a setting; empty when it has none."""
    names = " and ".join(f"`{name}`" for name in setting.older)
    return f" Older names, read when this one is not set: {names}." if names else ""


def default_words(value: object) -> str:
    """Return a default as the table shows it."""
    if value is None:
        return "none"
    return "empty" if value in ("", ()) else str(value)


def settings() -> str:
    """Return docs/reference/settings.md."""
    defaults = msgspec.structs.asdict(Settings())
    defaults["state_dir"] = "the platform's state folder for `tandem`"
    lines = [
        f"| `{setting.name}` | {setting.unit or 'text'} | "
        f"{default_words(defaults[setting.field])} | "
        f"{setting.sentence}{older_names(setting)} |"
        for setting in SETTINGS
    ]
    table = "\n".join(["| name | unit | default | meaning |", "|---|---|---|---|", *lines])
    return f"""{NOTE}
# Settings

Read from the environment. `tandem doctor` prints each with its value and where the value came from.

{table}
"""


def events() -> str:
    """Return docs/reference/events.md."""
    lines = ["| lifecycle event | means | published as | metadata |", "|---|---|---|---|"]
    for event in RunEvent:
        word = WORDS[event]
        names = ", ".join(f"`{name}`" for name in (word.published, *word.older))
        keys = ", ".join(f"`{key}`" for key in word.metadata)
        lines.append(f"| `{event}` | {word.meaning} | {names} | {keys} |")
    table = "\n".join(lines)
    return f"""{NOTE}
# Events

Every transition of a run writes one lifecycle event in the same transaction, numbered within its
run, and is published to those who listen after the commit. A published event has `event_id` (the
same for the same record, always), `type`, `occurred_at_ms`, `cursor` and `properties`; these
always hold `run_id`/`runID`, `automation_id`/`automationID`, `status` (of the run after the
change), `tenantContext`, `lifecycle_event` and `seq`, and where they apply `node_id`/`nodeID`,
`attempt`, `reason`, `stop_kind`, `detail` (where nothing has changed since) and the metadata. The
creation of a run also tells `run`, `triggerType`, `triggerReason` and `dryRun`; where a delivery at
a webhook started it also `deliveryID`, `triggerID`, `provider` and `deliveryStatus`, and then it is
published as `automation.v2.webhook.delivery`, too. Names after the first are those that the
original engine publishes for the same thing.

To listen: `tandem runs watch`, or `GET /automations/v2/events` and `GET /event`, which go on behind
`Last-Event-ID`; see `docs/guides/events.md`. On a stream an event is `type`, `properties`, `runID`
and an `envelope` with `event_id`, `seq` (within the run, without gaps), `schema_version`,
`occurred_at_ms`, `run_id`, `node_id` and `tenant_context`. Two types are of the stream itself:
`stream.reset` (the cursor cannot be gone on from) and `stream.closed` (why it ends).

{table}
"""


def metrics() -> str:
    """Return docs/reference/metrics.md."""
    lines = ["| series | kind | labels | meaning |", "|---|---|---|---|"]
    for series in SERIES:
        labels = ", ".join(f"`{label}`" for label in series.labels)
        lines.append(f"| `{series.shown}` | {series.kind.value} | {labels} | {series.sentence} |")
    table = "\n".join(lines)
    return f"""{NOTE}
# Metrics

`GET /metrics`, with `TANDEM_OBSERVABILITY_PROMETHEUS_ENABLED=1`. A histogram has the series
`_bucket`, `_sum` and `_count`. No label holds an id, so their number is bounded. Beside these there
are the usual series of the process (`process_resident_memory_bytes`, `process_cpu_seconds_total`,
`process_open_fds` and others).

`tandem_scheduler_` is about the whole store and read from it at each scrape: several engines of one
store show the same, so take the maximum and not the sum. Everything else is about one process and
begins at 0 with it.

{table}
"""


def log() -> str:
    """Return docs/reference/log.md."""
    keys = "\n".join(
        ["| key | meaning |", "|---|---|", *(f"| `{key}` | {says} |" for key, says in KEYS.items())]
    )
    own = "\n".join(
        [
            "| event | level | meaning |",
            "|---|---|---|",
            *(f"| `{event}` | {level} | {says} |" for event, (level, says) in LINES.items()),
        ]
    )
    levels: dict[str, list[str]] = {}
    for event in RunEvent:
        levels.setdefault(level_of(event), []).append(f"`{event}`")
    told = "\n".join(
        f"- {level}: {', '.join(levels[level])}" for level in ("error", "warning", "info", "debug")
    )
    return f"""{NOTE}
# The log of `tandem serve`

It goes to the standard error, a line for each thing: JSON, or columns on a terminal
(`TANDEM_LOG_FORMAT`). `TANDEM_LOG_LEVEL` says which lines are written. Tokens, passwords, keys and
the configured secrets are shown as `[redacted]`, also where they are encoded.

## Keys

{keys}

## Events beside those of runs

{own}

## Levels of lifecycle events

What each of them means is in `docs/reference/events.md`.

{told}
"""


def rules() -> str:
    """Return docs/reference/lifecycle-rules.md, made of the tables beside it."""
    found = [
        [cell.strip() for cell in line.split(" | ")]
        for path in sorted((ROOT / "docs" / "reference" / "rules").glob("*.psv"))
        for line in path.read_text("utf-8").splitlines()
        if line.strip()
    ]
    lines = ["| rule | what it says | code | test | verdict |", "|---|---|---|---|---|"]
    for row in sorted(found, key=lambda row: (_part_of(row[0]), row[0])):
        name, says, code, test, verdict = (cell.replace("|", "\\|") for cell in row)
        code, test = (f"`{cell}`" if cell else "" for cell in (code, test))
        lines.append(f"| {name} | {says} | {code} | {test} | {verdict} |")
    table = "\n".join(lines)
    return f"""{NOTE}
# The rules of the lifecycle, and where each is kept

Each row: a rule of the reference (T: transitions, W: known weaknesses of the original, A: its
checklist, D: traps of the wire contract, numbers: sections, U: what users of such engines ask
for), the code that keeps it, the
test that proves it, and whether it is kept as it stands. The rows live in `docs/reference/rules`;
a test checks that what they name exists and lists the rules that have no row.

{table}
"""


def _part_of(name: str) -> int:
    return "TWA".find(name[0]) if name[0] in "TWA" else 3


def http() -> str:
    """Return docs/reference/http.md."""
    parts: dict[str, list[str]] = {}
    for endpoint in endpoints():
        tag = endpoint.handler.__module__.rpartition(".")[2]
        parts.setdefault(tag, []).append(_route(endpoint))
    sections = "\n".join(
        "\n".join(
            [
                f"## {tag}",
                "",
                "| route | scope | does | query | body | answers |",
                "|---|---|---|---|---|---|",
                *lines,
                "",
            ]
        )
        for tag, lines in sorted(parts.items())
    )
    bodies = sorted({e.body for e in endpoints() if e.body is not None}, key=lambda b: b.__name__)
    shapes = "\n".join(_shape(body) for body in bodies)
    return f"""{NOTE}
# HTTP

`tandem serve` answers at `http://127.0.0.1:39731`. Bodies are JSON objects with
`Content-Type: application/json`, at least `{{}}`; keys may be written in camelCase, too. Times are
milliseconds since the epoch. Every route also answers below `/compat/0.7`, where runs have only the
statuses that clients of version 0.7 know and connections are closed after each answer. What goes
wrong is told as [errors](errors.md) say. `GET /openapi.json` describes the same for programs.

A scope in the table is the least that a token needs; `operator` includes `viewer`, `editor`
includes `operator`, `approver` includes `viewer`, `admin` includes all.

{sections}
## Bodies

| body | keys (required ones in bold) |
|---|---|
{shapes}
"""


def _route(endpoint: Endpoint) -> str:
    needed = POLICY[endpoint.name]
    scope = "none" if isinstance(needed, Open) else needed.value
    query = ", ".join(f"`{each.name}`: {each.says}" for each in endpoint.query)
    body = f"`{endpoint.body.__name__}`" if endpoint.body is not None else ""
    cells = (f"`{endpoint.name}`", scope, endpoint.says, query, body, endpoint.answers)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _shape(body: type[Body]) -> str:
    keys = ", ".join(
        f"**`{name}`**" if field.is_required() else f"`{name}`"
        for name, field in body.model_fields.items()
    )
    return f"| `{body.__name__}` | {keys} |"


def errors() -> str:
    """Return docs/reference/errors.md."""
    lines = [
        f"| `{code}` | {', '.join(map(str, (kind.status, *kind.also)))} | "
        f"{'yes' if kind.is_retryable else ''} | {kind.says} | {kind.do} |"
        for code, kind in sorted(KINDS.items())
    ]
    table = "\n".join(
        ["| code | status | again | means | what to do |", "|---|---|---|---|---|", *lines]
    )
    return f"""{NOTE}
# Errors over HTTP

Every answer that is no success is one JSON object: `error` (what was asked and what stood in the
way), `code` (stable, for programs), `retryable` (the same request may succeed later), `hint` (what
to do) and facts such as `automationID`, `runID`, `nodeID`, `problems`, `winningDecision`. There is
never a traceback, a statement of the store or a path of the server in it. An unknown path is
answered with 404 and no body, as the contract has it.

{table}
"""


def schema() -> str:
    """Return the script that makes what all migrations together make."""
    connection = apsw.Connection(":memory:")
    migrations = load_migrations()
    for _, script in migrations:
        connection.execute(script)
    made = [
        (str(name), str(sql))
        for name, sql in connection.execute(
            "SELECT name, sql FROM sqlite_schema"
            " WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
        )
    ]
    # What a migration puts into a table that is still there, and filled, belongs to a new store.
    rows = [
        found[0]
        for _, script in migrations
        for found in re.finditer(r"^INSERT INTO (\w+)[^;]*;", script, re.MULTILINE)
        if any(name == found[1] for name, _ in made)
        and connection.execute(f"SELECT 1 FROM {found[1]} LIMIT 1").fetchall()
    ]
    connection.close()
    statements = "\n".join([*(f"{sql};" for _, sql in made), *rows])
    return f"""-- Written by `make fix` from the migrations; do not edit.
-- version: {migrations[-1][0]}
{statements}
"""


DOCUMENTS = {
    "src/tandem/adapters/sql/schema.sql": schema,
    "docs/reference/http.md": http,
    "docs/reference/errors.md": errors,
    "docs/reference/lifecycle-rules.md": rules,
    "docs/reference/events.md": events,
    "docs/lifecycle.md": lifecycle,
    "docs/reference/log.md": log,
    "docs/reference/metrics.md": metrics,
    "docs/reference/settings.md": settings,
}


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    old = []
    for name, make in DOCUMENTS.items():
        path, text = ROOT / name, make()
        if path.exists() and path.read_text("utf-8") == text:
            continue
        old.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    if old:
        print(("out of date, run `make fix`: " if check else "wrote ") + ", ".join(old))
    return 1 if old and check else 0


if __name__ == "__main__":
    sys.exit(main())
