"""What the command line gives a run: inputs, and decisions in advance."""

import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from tandem.domain.automation import Automation
from tandem.domain.errors import NotFound
from tandem.domain.gates import GATE_ALIASES
from tandem.domain.ids import NodeId
from tandem.domain.inputs import input_schema
from tandem.domain.json import JsonObject, JsonValue

_FILE_BYTES_MAX: Final = 16 * 1024 * 1024


def read_inputs(
    automation: Automation, pairs: Sequence[str], inputs_json: str | None
) -> dict[str, JsonValue]:
    """Return the inputs of `--inputs-json`, and over them those of `--input`.

    Raises:
        click.UsageError: a pair is not `name=value`, or the file is no JSON object.
        NotFound: a file that is named does not exist.
    """
    given = dict(_read_object(inputs_json)) if inputs_json else {}
    schema = input_schema(automation.inputs)
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise click.UsageError(f"--input {pair!r} is not name=value")
        given[name.strip()] = _value(_property(schema, name.strip()), read_value(text))
    return given


def _read_object(name: str) -> Mapping[str, Any]:
    text = sys.stdin.read() if name == "-" else _read_text(name)
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise click.UsageError(f"--inputs-json {name}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError(f"--inputs-json {name}: must be an object with a value per input")
    return value


def read_value(text: str) -> str:
    """Return the value of a pair: `@file` is the text of the file, `@@` begins with one `@`."""
    if text.startswith("@@"):
        return text[1:]
    return _read_text(text[1:]) if text.startswith("@") else text


def _read_text(name: str) -> str:
    try:
        with Path(name).expanduser().open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
        if len(content) > _FILE_BYTES_MAX:
            raise click.UsageError(f"{name} is larger than {_FILE_BYTES_MAX} bytes")
        return content.decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"{name} is not UTF-8 text") from None
    except OSError as error:
        raise NotFound(f"cannot read {name}: {error.strerror}") from None


def _property(schema: JsonObject, name: str) -> Mapping[str, Any]:
    properties = schema.get("properties")
    found = properties.get(name) if isinstance(properties, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _value(schema: Mapping[str, Any], text: str) -> JsonValue:
    """Return the text as the type that the schema declares, else as text."""
    if not _wants_other_than_text(schema):
        return text
    try:
        value: JsonValue = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return value


def _wants_other_than_text(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    if kind is not None:
        return "string" not in ([kind] if isinstance(kind, str) else kind)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return not any(isinstance(value, str) for value in values)
    options = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(options, list) and options:
        return all(isinstance(o, Mapping) and _wants_other_than_text(o) for o in options)
    return "properties" in schema or "items" in schema


class Decisions:
    """Decisions given in advance. Each answers one asking of its node, in the order given."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._waiting: dict[NodeId, deque[str]] = {}
        for node_id, decision in pairs:
            self._waiting.setdefault(NodeId(node_id), deque()).append(decision)

    def take(self, node_id: NodeId) -> str | None:
        """Return the next decision for this node and use it up; None when there is none."""
        waiting = self._waiting.get(node_id)
        return waiting.popleft() if waiting else None

    def check(self, automation: Automation) -> None:
        """Refuse what no gate of this automation can mean, before anything runs.

        Raises:
            click.UsageError: there is no such node, or its gate does not offer the decision.
        """
        nodes = {NodeId(node.node_id): node for node in automation.nodes}
        for node_id, decisions in self._waiting.items():
            node = nodes.get(node_id)
            if node is None:
                gates = ", ".join(n.node_id for n in automation.nodes if n.is_approval) or "none"
                raise click.UsageError(f"there is no node {node_id!r} to decide; gates: {gates}")
            gate = node.effective_gate
            if gate is None or not gate.decisions:
                continue
            offered = {GATE_ALIASES.get(name.lower(), name.lower()) for name in gate.decisions}
            for decision in decisions:
                word = decision.lower()
                if GATE_ALIASES.get(word, word) not in offered | {"cancel"}:
                    names = ", ".join(gate.decisions)
                    raise click.UsageError(
                        f"gate {node_id!r} does not offer {decision!r}; it offers {names}"
                    )


def read_decisions(approved: Sequence[str], decided: Sequence[str]) -> Decisions:
    """Return the decisions of `--decide NODE=DECISION`, then those of `--approve NODE`.

    Raises:
        click.UsageError: a pair is not `node=decision`.
    """
    pairs: list[tuple[str, str]] = []
    for pair in decided:
        node_id, equals, decision = pair.partition("=")
        if not equals or not node_id.strip() or not decision.strip():
            raise click.UsageError(f"--decide {pair!r} is not NODE=DECISION")
        pairs.append((node_id.strip(), decision.strip()))
    return Decisions([*pairs, *((node_id, "approve") for node_id in approved)])
