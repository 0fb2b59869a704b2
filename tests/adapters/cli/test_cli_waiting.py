"""`tandem runs why` and `tandem scheduler`: what runs wait for, on the command line."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from .conftest import Call, Start, sh

Write = Callable[[str, str], str]
Read = Callable[["subprocess.Popen[str]", str], list[str]]

SLOW = f"""\
nodes: [{{node_id: work, action: {sh("until [ -e go ]; do sleep 0.05; done")}}}]
"""
GATED = "nodes: [{node_id: ask, stage_kind: approval, gate: {decisions: [approve, cancel]}}]\n"


def test_second_run_of_a_folder_says_whom_it_waits_for(
    call: Call, start: Start, write: Write, lines_until: Read
) -> None:
    file = write("slow.yaml", SLOW)
    first = start("run", file, "--json")
    lines_until(first, "node_started")
    holder = call("runs", "list", "--json").json[0]["run_id"]

    second = start("run", file)
    assert second.stderr is not None
    said = next(line for line in second.stderr if "waits:" in line)
    assert f"is held by run {holder}" in said

    why = call("runs", "why", "latest", "--json").json
    assert (why["kind"], why["held_by"]) == ("workspace_lock", [holder])
    shown = call("runs", "show", "latest").out
    assert "workspace_lock: its workspace" in shown
    assert "freed" in shown
    metrics = call("scheduler", "metrics", "--json").json
    assert metrics["active_runs"] == 1
    assert metrics["queued_runs_by_reason"] == {"workspace_lock": 1}

    Path("go").touch()
    assert (first.wait(30), second.wait(30)) == (0, 0)
    metrics = call("scheduler", "metrics", "--json").json
    assert (metrics["admitted_total"], metrics["completed_total"]) == (2, 2)


def test_why_for_a_person(call: Call, write: Write) -> None:
    call("run", write("gated.yaml", GATED))

    answer = call("runs", "why", "latest")

    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].endswith("waits for a person to decide gate `ask`")
    assert [line.split()[0] for line in lines[1:]] == ["reason", "since", "until", "freed"]


def test_why_names_the_label_that_is_missing(call: Call, write: Write) -> None:
    file = write("gpu.yaml", GATED + "resources: {labels: [gpu]}\n")
    call("run", file, "--detach")
    assert call("runs", "why", "latest", "--json").json["kind"] == "no_engine"

    refused = call("run", file)
    assert refused.code == 5
    assert "needs an engine with the label gpu" in refused.err


def test_why_of_an_unknown_run_is_not_found(call: Call) -> None:
    assert call("runs", "why", "ffffffff").code == 4


def test_metrics_for_a_person(call: Call, write: Write) -> None:
    call("run", write("gated.yaml", GATED), "--detach")

    answer = call("scheduler", "metrics")

    rows = dict(line.rsplit(maxsplit=1) for line in answer.out.splitlines())
    assert (rows["queued, no_engine"], rows["admitted"]) == ("1", "0")
