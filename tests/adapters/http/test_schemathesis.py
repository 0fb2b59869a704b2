"""Requests that the OpenAPI document allows, and some that it does not, against a real server.

Streams are left out: they have no end, and `test_events.py` reads them. Not among the checks is
that what is generated wrong is refused: the contract ignores unknown keys and clamps numbers.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import booleans
from schemathesis.checks import CHECKS, not_a_server_error

from tandem.adapters.http.app import endpoints
from tandem.adapters.http.openapi import openapi
from tests.adapters.http.conftest import GATE, node, spec

schemathesis.checks.load_all_checks()

TOKEN = "a-token-of-the-environment"
HEADERS = {"authorization": f"Bearer {TOKEN}"}
CHECKED = [
    not_a_server_error,
    *CHECKS.get_by_names(
        [
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
            "unsupported_method",
        ]
    ),
]
STREAMS = r"/events$|/event$"
EXAMPLES = 12
"""For each route, about half of them with ids that are there."""


class Seeded:
    """A server with an automation, runs in several states, a gate, a task and a trigger."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tandem", "serve", "--port", "0"],
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "TANDEM_STATE_DIR": str(folder / "state"),
                "TANDEM_API_TOKEN": TOKEN,
                "TANDEM_LOG_FORMAT": "json",
            },
        )
        self.url = self._url()
        self.ids: dict[str, str] = {}

    def _url(self) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            told = json.loads(line)
            if told["event"] == "serving":
                return str(told["url"])
        raise AssertionError("the server did not start")

    def _post(self, path: str, body: Any) -> Any:
        response = httpx.post(f"{self.url}{path}", json=body, headers=HEADERS, timeout=30)
        assert response.status_code < 300, response.text
        return response.json()

    def seed(self) -> None:
        """Keep something of each kind."""
        own = {"agent_id": None, "action": {"kind": "python", "function": "time:time"}}
        last = node("n2", "n1", **own)
        job = spec("job", node("n1", **own), last)
        for body in (job, spec("gated", node("n1", agent_id=None, gate=GATE), last)):
            self._post("/automations/v2", body)
            for _ in range(2):
                run = self._post(f"/automations/v2/{body['automation_id']}/run_now", {})["run"]
                self.ids["run_id"] = run["run_id"]
        self._post(f"/automations/v2/runs/{self.ids['run_id']}/cancel", {})
        trigger = self._post(
            "/automations/v2/job/webhook-triggers", {"name": "hook", "provider": "generic"}
        )
        self.ids |= {
            "automation_id": "job",
            "trigger_id": trigger["trigger"]["trigger_id"],
            "node_id": "n1",
            "version": "1",
        }

    def end(self) -> None:
        self.process.kill()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.process.wait()


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    found = Seeded(tmp_path_factory.mktemp("seeded"))
    try:
        found.seed()
        yield found
    finally:
        found.end()


def operations() -> Iterator[Any]:
    document = openapi(endpoints(), version="test")
    schema = schemathesis.openapi.from_dict(document).exclude(path_regex=STREAMS)
    for found in schema.get_all_operations():
        operation = found.ok()
        yield pytest.param(operation, id=f"{operation.method} {operation.path}")


@pytest.mark.parametrize("operation", list(operations()))
def test_every_answer_is_one_that_the_document_tells(
    operation: schemathesis.APIOperation[Any, Any, Any, Any], seeded: Seeded
) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), is_known=booleans())
    def ask(case: schemathesis.Case, is_known: bool) -> None:
        if is_known:
            case.path_parameters |= {
                name: seeded.ids[name] for name in case.path_parameters if name in seeded.ids
            }
        case.call_and_validate(base_url=seeded.url, headers=HEADERS, checks=CHECKED)

    ask()
