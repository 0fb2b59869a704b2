"""Cuts out of a document what is of the wrong shape, so that the rules can be asked of the rest."""

from collections.abc import Mapping
from typing import Any, Final

from tandem.adapters.files.tree import Path, path_steps
from tandem.domain.errors import Problem

_ID: Final = ("automation_id",)
_FLOW: Final = ("flow",)
_NODES: Final = ("flow", "nodes")
_NODE_DEPTH: Final = 3
_TEXT: Final = "?"
"""Stands for what is cut out, where a text may stand."""

# What a cut inside a field at the top, or inside a node, may bring about elsewhere.
_FOLLOW_UPS: Final[Mapping[Path, tuple[str, ...]]] = {
    _FLOW: ("no_nodes",),
    ("inputs",): ("reference_unknown_input",),
    ("workspace_root",): ("watch_without_workspace",),
}
_NOT_UPSTREAM: Final = ("input_ref_not_upstream", "reference_not_upstream", "wait_binding_not_")
_NODE_FOLLOW_UPS: Final = frozenset(
    {"agent_missing", "effects_probe_without_effects", "node_id_invalid"}
)
# What is wrong with one field of a node because another one is left out.
_BESIDE: Final[Mapping[Path, Path]] = {
    ("action", "script"): ("action", "shell"),
    ("action", "output", "path"): ("action", "output", "format"),
}


class Cutting:
    """A document in its long form, and what has been cut out of it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document: dict[str, Any] = dict(document)
        """What is left."""
        self._copied: set[Path] = {()}
        self._cuts: set[Path] = set()
        self._around: set[Path] = set()
        """The cuts, and all that they are parts of."""
        self._beside: set[Path] = set()
        """What the cuts are fields of."""
        self._silenced: set[str] = set()
        """How the codes begin of what may follow from the cuts anywhere."""

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
        return path in self._around or any(path[:depth] in self._cuts for depth in range(len(path)))

    def causes(self, problem: Problem) -> bool:
        """Say that what a rule says may only follow from a cut."""
        path = path_steps(problem.path)
        path = (*_FLOW, *path) if path[:1] == _NODES[1:] else path
        node, field = path[:_NODE_DEPTH], path[_NODE_DEPTH:]
        is_in_node = node[:2] == _NODES
        return (
            problem.code.startswith(tuple(self._silenced))
            or (path in self._around and (bool(field) or not is_in_node))
            or (problem.code in _NODE_FOLLOW_UPS and node in self._around)
            or (field in _BESIDE and (*node, *_BESIDE[field]) in self._cuts)
            # What is not there may be what something beside it was meant to be.
            or (path[:-1] in self._beside and self._existing(path) == path[:-1])
        )

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
        self._note(path)
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

    def _note(self, path: Path) -> None:
        self._cuts.add(path)
        self._around.update(path[:depth] for depth in range(1, len(path) + 1))
        self._beside.add(path[:-1])
        if path == _FLOW or path[:1] != _FLOW:
            self._silenced.update(_FOLLOW_UPS.get(path[:1], ()))
        if path[0] == "agents" and (len(path) <= 2 or path[2] == "agent_id"):
            self._silenced.add("agent_unknown")
        if path[:2] == _NODES and path[3:4] == ("depends_on",):
            self._silenced.update(_NOT_UPSTREAM)

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
