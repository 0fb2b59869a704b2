"""The functions of release-notes.yaml. Each returns JSON; what a node returns is recorded."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

Commit = dict[str, str]

SAMPLE = (
    "Add a retry policy to nodes",
    "Fix a lost wake-up between two engines",
    "Document the life of a run",
    "Add approval gates",
    "Fix the size of outputs over the bound",
    "Tidy the build",
)
AREAS = (
    ("fixed", re.compile(r"^(fix|repair|correct|mend|keep)\b", re.IGNORECASE)),
    ("documented", re.compile(r"^(document|docs?|describe|explain|state|write)\b", re.IGNORECASE)),
    (
        "added",
        re.compile(r"^(add|allow|support|introduce|feat|run|drive|wire|lay)\b", re.IGNORECASE),
    ),
)


def collect(repository: str, commits_max: int, context: Any) -> dict[str, Any]:
    """Return the newest commits; a folder without history gets a sample one beside the notes."""
    if shutil.which("git") is None:
        return {"source": "sample (git is not installed)", "commits": sample_commits()}
    folder = Path(repository) if repository else None
    if folder is None or not has_history(folder):
        folder = make_sample(Path(context.workspace) / "out" / "sample-repository")
    log = git(folder, "log", f"--max-count={commits_max}", "--format=%h%x09%s")
    commits = [dict(zip(("commit", "subject"), line.split("\t", 1), strict=True)) for line in log]
    return {"source": str(folder), "commits": commits}


def classify(commits: list[Commit]) -> dict[str, list[Commit]]:
    """Sort the commits into areas by the verb they begin with."""
    areas: dict[str, list[Commit]] = {"added": [], "fixed": [], "documented": [], "other": []}
    for commit in commits:
        subject = re.sub(r"^\w+(\([^)]*\))?!?:\s*", "", commit["subject"])
        area = next((name for name, verb in AREAS if verb.match(subject)), "other")
        areas[area].append(commit)
    return areas


def summarise(heading: str, commits: list[Commit]) -> dict[str, Any]:
    """Write the section of one area."""
    lines = [f"- {commit['subject']} ({commit['commit']})" for commit in commits]
    text = "\n".join(lines) or "- nothing"
    return {"heading": heading, "count": len(commits), "text": f"## {heading}\n\n{text}\n"}


def draft(title: str, parts: list[dict[str, Any]], context: Any) -> dict[str, Any]:
    """Put the sections together in out/DRAFT.md."""
    count = sum(part["count"] for part in parts)
    text = f"# {title}\n\n{count} changes.\n\n" + "\n".join(part["text"] for part in parts)
    path = Path(context.workspace) / "out" / "DRAFT.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return {"path": "out/DRAFT.md", "changes": count}


def sample_commits() -> list[Commit]:
    """Return made-up commits."""
    return [{"commit": f"{n:07x}", "subject": subject} for n, subject in enumerate(SAMPLE, 1)]


def has_history(folder: Path) -> bool:
    """Say whether git knows at least one commit here."""
    command = ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "HEAD"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def make_sample(folder: Path) -> Path:
    """Make a repository with a few commits; an attempt before may have made part of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    for subject in SAMPLE:
        git(folder, "commit", "--quiet", "--allow-empty", f"--message={subject}")
    return folder


def git(folder: Path, *arguments: str) -> list[str]:
    """Run git in `folder` and return the lines it prints."""
    who = {
        f"GIT_{role}_{part}": f"sample{'@example.org' if part == 'EMAIL' else ''}"
        for role in ("AUTHOR", "COMMITTER")
        for part in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **who},
    )
    return done.stdout.splitlines()
