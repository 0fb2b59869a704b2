"""Files that a run must leave behind, as its version declares them (run-lifecycle 4.7, 3.5)."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from posixpath import normpath
from typing import Final

import msgspec

from tandem.domain.automation import Automation, Node, NodeKind
from tandem.domain.free_json import list_at, object_at, text_of
from tandem.domain.run import Run

_SCHEME: Final = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_ARTIFACTS: Final = ".tandem/artifacts/"


class Deliverable(msgspec.Struct, frozen=True, kw_only=True):
    """A file by its path in the workspace; `owner` is the node that must write it, if one is named.

    `is_target` says that it is an output target of the automation. Paths of `builder` may hold
    placeholders (definitions 3.5), `is_template` says so.
    """

    path: str
    owner: int | None = None
    is_target: bool = False
    is_template: bool = False

    def path_in(self, run: Run) -> str:
        """Return where the file of this run is, relative to the workspace."""
        if not self.is_template:
            return self.path
        path = self.path
        for name, value in _moments(run.started_at_ms or run.created_at_ms).items():
            path = path.replace(f"{{{name}}}", value)
        if path.startswith(_ARTIFACTS):
            return f".tandem/runs/{run.run_id}/artifacts/{path.removeprefix(_ARTIFACTS)}"
        return path


def _moments(at_ms: int) -> dict[str, str]:
    at = datetime.fromtimestamp(at_ms / 1_000, UTC)
    return {
        "current_date": f"{at:%Y-%m-%d}",
        "date": f"{at:%Y-%m-%d}",
        "current_time": f"{at:%H%M}",
        "current_timestamp": f"{at:%Y-%m-%d %H:%M}",
        "current_timestamp_filename": f"{at:%Y-%m-%d_%H-%M-%S}",
    }


def deliverables_of(automation: Automation) -> tuple[Deliverable, ...]:
    """Return what the runs of an automation must leave: files of nodes, then output targets."""
    found: dict[str, Deliverable] = {}
    for number, node in enumerate(automation.nodes):
        for path, is_template in _declared(node):
            name = _plain(path)
            found.setdefault(name, Deliverable(path=name, owner=number, is_template=is_template))
    for target in automation.output_targets:
        local = _local(target)
        if local is not None:
            owner = found[local].owner if local in found else None
            found[local] = Deliverable(path=local, owner=owner, is_target=True, is_template=True)
    return tuple(found.values())


def _declared(node: Node) -> Iterator[tuple[str, bool]]:
    if node.kind in (NodeKind.APPROVAL, NodeKind.WAIT):
        return
    if node.output_contract is not None:
        for path in node.output_contract.required_files:
            yield path, False
    builder = object_at(node.metadata, "builder")
    output_path = text_of(builder.get("output_path"))
    if output_path and text_of(builder.get("output_path_mode")) != "none":
        yield output_path, True
    names = (text_of(name) for name in list_at(builder, "must_write_files"))
    yield from ((name, True) for name in names if name)


def _local(target: str) -> str | None:
    """Return the path of a target that is a file; other targets are not for the engine to see."""
    scheme = _SCHEME.match(target.strip())
    if scheme is None:
        return _plain(target) or None
    return _plain(target.strip()[scheme.end() :]) if scheme[1].lower() == "file" else None


def _plain(path: str) -> str:
    return normpath(path.strip()) if path.strip() else ""
