"""What nodes claim for themselves while they run: files to write, tools to call (4.2, row 8).

Two nodes of one run that change code in the same place, or that name the same tool of an MCP
server, never run at once.
"""

from collections.abc import Iterator
from posixpath import normpath
from typing import Final

import msgspec

from tandem.domain.automation import Node, Validator
from tandem.domain.free_json import list_at, object_at, text_of
from tandem.domain.json import JsonValue

_CODE_TASKS: Final = frozenset({"code_change", "repo_fix", "implementation"})
_TOOL_PARTS: Final = 3
_EVERYWHERE: Final[tuple[tuple[str, ...], ...]] = ((),)

Path = tuple[str, ...]


class Claims(msgspec.Struct, frozen=True):
    """Paths below the workspace by their parts, and tools; `()` is the whole workspace."""

    paths: tuple[Path, ...] = ()
    tools: frozenset[str] = frozenset()

    def collide(self, other: "Claims") -> bool:
        """Say whether two nodes with these claims may not run at once."""
        if not self.tools.isdisjoint(other.tools):
            return True
        return any(_overlap(mine, theirs) for mine in self.paths for theirs in other.paths)


def _overlap(one: Path, other: Path) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def claims_of(node: Node) -> Claims | None:
    """Return what a node claims while it runs, None for nothing."""
    claims = Claims(_paths(node) if is_code(node) else (), frozenset(_tools(node)))
    return claims if claims.paths or claims.tools else None


def is_code(node: Node) -> bool:
    """Say whether a node changes code (definitions 1.11, 2.1)."""
    builder = object_at(node.metadata, "builder")
    if _CODE_TASKS & {text_of(builder.get("task_kind")), text_of(builder.get("task_class"))}:
        return True
    contract = node.output_contract
    if contract is None:
        return False
    return contract.validator is Validator.CODE_PATCH or (
        contract.validator is None and contract.kind == "code_patch"
    )


def _paths(node: Node) -> tuple[Path, ...]:
    scope = object_at(node.metadata, "builder").get("write_scope")
    named = scope.split(",") if isinstance(scope, str) else _texts(scope)
    paths = {_parts(name) for name in named if name.strip()}
    return tuple(sorted(paths)) or _EVERYWHERE


def _parts(name: str) -> Path:
    # `src/*` and `src/` claim what `src` claims: a pattern claims the folder that it is in.
    parts = [part for part in normpath(name.strip()).split("/") if part not in ("", ".")]
    plain = next((n for n, part in enumerate(parts) if "*" in part), len(parts))
    return tuple(parts[:plain])


def _tools(node: Node) -> Iterator[str]:
    contract = node.output_contract
    enforcement = contract.enforcement if contract else None
    names = [
        *(node.tool_policy.allowlist if node.tool_policy else ()),
        *((node.mcp_policy.allowed_tools or ()) if node.mcp_policy else ()),
        *_texts(list_at(node.metadata, "tool_allowlist")),
        *_texts(list_at(node.metadata, "allowed_tools")),
        *(enforcement.required_tools if enforcement else ()),
        *(call.tool for call in (enforcement.required_tool_calls if enforcement else ())),
    ]
    for name in names:
        parts = name.strip().lower().split(".")
        if len(parts) >= _TOOL_PARTS and parts[0] == "mcp" and all(parts) and "*" not in name:
            yield ".".join(parts)


def _texts(value: JsonValue) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list | tuple) else []
