"""Cuts out of a document what is of the wrong shape, so that the rules can be asked of the rest."""

from collections.abc import Mapping
from typing import Any, Final

from tandem.adapters.files.tree import Path, path_steps
from tandem.domain.errors import Problem

_ID: Final = ("automation_id",)
_FLOW: Final = ("flow",)
_NODES: Final = ("flow", "nodes")
_TEXT: Final = "?"
"""Stands for what is cut out, where a text may stand."""
_NOT_UPSTREAM: Final = ("input_ref_not_upstream", "reference_not_upstream", "wait_binding_not_")
_NODE_FOLLOW_UPS: Final = frozenset(
    {"agent_missing", "effects_probe_without_effects", "node_id_invalid"}
)
"""What a field that is left out may bring about at its own node."""
# What a cut at the top level makes meaningless elsewhere.
_FOLLOW_UPS: Final[Mapping[Path, tuple[str, ...]]] = {
    _FLOW: ("no_nodes",),
    ("inputs",): ("reference_unknown_input",),
    ("workspace_root",): ("watch_without_workspace",),
}
# What is wrong with one field of a node because another one is left out.
_BESIDE: Final[Mapping[Path, Path]] = {
    ("action", "shell"): ("action", "script"),
    ("action", "output", "format"): ("action", "output", "path"),
}


class Cutting:
    """A document in its long form, and what has been cut out of it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document: dict[str, Any] = dict(document)
        """What is left."""
        self._copied: set[Path] = {()}
        self._cuts: set[Path] = set()

    def cut(self, wrong: Mapping[Path, str | None]) -> bool:
        """Leave out what is at each path, or around it where that cannot be left out alone.

        First what was meant stands for it, as far as that is known, else some text, which is right
        for most. If it is not, a field goes alone. An item takes its list along, since those
        behind it would move, and what is missing takes along what it is missing in. Of a node its
        id is left.

        Returns:
            Whether all of it, and anything at all, could be left out.
        """
        places = {self._place(path) for path in wrong}
        if not places or () in places:
            return False
        for place in sorted(places, key=len):
            self._remove(place, wrong.get(place))
        return True

    def hides(self, path: Path) -> bool:
        """Say that what is wrong with the shape at `path` may only follow from a cut."""
        return any(_is_around(cut, path) or _is_around(path, cut) for cut in self._cuts)

    def causes(self, problem: Problem) -> bool:
        """Say that what a rule says may only follow from a cut."""
        path = path_steps(problem.path)
        return any(_causes(_written(cut), problem.code, path) for cut in self._cuts) or (
            self._is_missed(path)
        )

    def _is_missed(self, path: Path) -> bool:
        """Say that `path` is not there and may be what something beside it was meant to be."""
        full = (*_NODES, *path[1:]) if path[:1] == _NODES[1:] else path
        beside = full[:-1]
        return self._existing(full) == beside and any(cut[:-1] == beside for cut in self._cuts)

    def _place(self, path: Path) -> Path:
        """Return the path of what can be left out at `path` or around it; of nothing, `()`."""
        if path in (_ID, _FLOW, _NODES):
            return path[:1]
        existing = self._existing(path)
        if existing == path and path not in self._cuts:
            return path
        while existing and isinstance(existing[-1], int) and existing[:-1] != _NODES:
            existing = existing[:-1]
        return existing

    def _existing(self, path: Path) -> Path:
        item: Any = self.document
        for depth, step in enumerate(path):
            match item:
                case dict() if step in item:
                    item = item[step]
                case list() | tuple() if isinstance(step, int) and step < len(item):
                    item = item[step]
                case _:
                    return path[:depth]
        return path

    def _remove(self, path: Path, meant: str | None) -> None:
        is_first = path not in self._cuts
        self._cuts.add(path)
        if path == _ID:
            self.document["automation_id"] = "automation"
        elif path == _FLOW:
            self.document["flow"] = {"nodes": []}
        elif self._existing(path) == path:
            holder, last = self._own(path[:-1]), path[-1]
            if path[:-1] == _NODES:
                self._name(holder, last)
            elif path[:2] == _NODES and path[3:] == ("node_id",):
                holder[last] = _name(path[2], holder[last])
            elif is_first:
                holder[last] = meant or _TEXT
            else:
                del holder[last]

    def _name(self, nodes: Any, index: Any) -> None:
        """Give a node an id if that is what it lacks, else leave nothing but an id."""
        node = nodes[index]
        is_unnamed = isinstance(node, dict) and "node_id" not in node
        nodes[index] = {**(node if is_unnamed else {}), "node_id": _name(index, None)}

    def _own(self, path: Path) -> Any:
        """Return the container at `path`, copied with all around it, as it may now be changed."""
        item: Any = self.document
        for depth, step in enumerate(path, start=1):
            if path[:depth] not in self._copied:
                self._copied.add(path[:depth])
                inner = item[step]
                item[step] = dict(inner) if isinstance(inner, dict) else list(inner)
            item = item[step]
        return item


def _name(index: Any, given: object) -> str:
    """Return an id for a node that has none.

    A number may be meant as a text, and others may name the node by it. Otherwise no other node
    can have this id.
    """
    return str(given) if isinstance(given, int | float) else f"/{index}"


def _written(path: Path) -> Path:
    return path[1:] if path[:2] == _NODES else path


def _is_around(outer: Path, inner: Path) -> bool:
    return inner[: len(outer)] == outer


def _causes(cut: Path, code: str, path: Path) -> bool:
    if cut[0] != "nodes":
        return (
            code.startswith(_FOLLOW_UPS.get(cut[:1], ()))
            or (code == "agent_unknown" and _is_agent(cut))
            or (path != () and _is_around(path, cut))
        )
    node, field = cut[:2], cut[2:]
    if field[:1] == ("depends_on",) and code.startswith(_NOT_UPSTREAM):
        return True
    if path[:2] != node:
        return False
    return (
        code in _NODE_FOLLOW_UPS
        or (len(path) > len(node) and _is_around(path, cut))
        or (field in _BESIDE and path[2:] == _BESIDE[field])
    )


def _is_agent(cut: Path) -> bool:
    return cut[0] == "agents" and (len(cut) <= 2 or cut[2] == "agent_id")
