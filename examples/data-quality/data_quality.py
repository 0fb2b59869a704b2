"""The functions of data-quality.yaml."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

Finding = dict[str, Any]


def read(file: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file of the workspace."""
    with Path(file).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def profile(file: str) -> dict[str, Any]:
    """Say how many rows and which columns there are."""
    rows = read(file)
    return {"rows": len(rows), "columns": sorted(rows[0]) if rows else []}


def missing(file: str) -> list[Finding]:
    """Find empty cells; lines count from 2, after the heading."""
    return [
        {"line": number, "what": f"{column} is empty"}
        for number, row in enumerate(read(file), 2)
        for column, value in row.items()
        if not value
    ]


def duplicates(file: str, key: str) -> list[Finding]:
    """Find rows whose key came before."""
    seen: Counter[str] = Counter()
    findings = []
    for number, row in enumerate(read(file), 2):
        seen[row[key]] += 1
        if seen[row[key]] > 1:
            findings.append({"line": number, "what": f"{key} {row[key]} is there twice"})
    return findings


def ranges(file: str, column: str, lowest: float, highest: float) -> list[Finding]:
    """Find numbers outside their range, and what is no number."""
    findings = []
    for number, row in enumerate(read(file), 2):
        try:
            value = float(row[column])
        except ValueError:
            findings.append({"line": number, "what": f"{column} {row[column]!r} is no number"})
            continue
        if not lowest <= value <= highest:
            findings.append({"line": number, "what": f"{column} {value:g} is out of range"})
    return findings


def report(rows: int, context: Any) -> dict[str, Any]:
    """Write out/report.md from the findings of all rules."""
    findings = sorted(
        (finding for found in context.inputs.values() for finding in found),
        key=lambda finding: finding["line"],
    )
    bad_rows = len({finding["line"] for finding in findings})
    lines = [f"- line {finding['line']}: {finding['what']}" for finding in findings]
    text = (
        f"# Data quality\n\n## Summary\n\n{bad_rows} of {rows} rows have a finding.\n\n"
        f"## Findings\n\n" + ("\n".join(lines) or "- none") + "\n"
    )
    path = Path(context.workspace) / "out" / "report.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return {"bad_rows": bad_rows, "path": "out/report.md"}


def verdict(bad_rows: int, allowed: int) -> dict[str, int]:
    """Say how many bad rows are too many."""
    return {"bad_rows": bad_rows, "allowed": allowed, "excess": max(bad_rows - allowed, 0)}
