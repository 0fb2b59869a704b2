"""Bindings of waits: a value from the document, or from the output of a node by JSON pointer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tandem.domain.artifact import ArtifactRef
from tandem.domain.automation import Binding, LiteralBinding
from tandem.domain.draft import Draft
from tandem.domain.errors import EngineError
from tandem.domain.ids import NodeId
from tandem.domain.json import JsonValue, decode, encode

BOUND_BYTES_MAX: Final = 512
"""The longest text that a binding may give (run-lifecycle 6.1)."""

ReadLarge = Callable[[ArtifactRef], JsonValue]


class Unbound(EngineError):
    """A binding gives no value that can be used; the message says why."""

    code = "wait_binding_unusable"


def bind(draft: Draft, binding: Binding, read_large: ReadLarge) -> JsonValue:
    """Return the value of a binding.

    The pointer is applied to the output of the node as it is, and where that has no such place, to
    the record of the wire contract around it, in which a JSON output lies below
    `/content/structured_handoff` (definitions 1.6).

    Raises:
        Unbound: the node has no output, or nothing is at that place.
    """
    if isinstance(binding, LiteralBinding):
        return binding.value
    output = _output(draft, binding.node_id, read_large)
    pointer = binding.json_pointer or ""
    for root in (output, _record(output)):
        try:
            return follow(root, pointer)
        except LookupError:
            continue
    raise Unbound(f"the output of node `{binding.node_id}` has nothing at `{pointer}`")


def bind_text(draft: Draft, binding: Binding, read_large: ReadLarge) -> str:
    """Return the value of a binding as the text that is compared; a number as JSON writes it.

    Raises:
        Unbound: there is no value, or it is empty, no text or number, or too long.
    """
    value = bind(draft, binding, read_large)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unbound(f"a text is needed, not {encode(value).decode()[:80]}")
    text = value if isinstance(value, str) else encode(value).decode()
    size = len(text.encode())
    if not text.strip() or size > BOUND_BYTES_MAX:
        raise Unbound(f"a text of 1 to {BOUND_BYTES_MAX} bytes is needed, not one of {size}")
    return text


def bind_moment(draft: Draft, binding: Binding, read_large: ReadLarge) -> int:
    """Return the value of a binding as a moment, in milliseconds since 1970.

    Raises:
        Unbound: it is no positive whole number.
    """
    value = bind(draft, binding, read_large)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**53:
        raise Unbound(
            f"a moment in milliseconds since 1970 is needed, not {encode(value).decode()[:80]}"
        )
    return value


def follow(value: JsonValue, pointer: str) -> JsonValue:
    """Return what a JSON pointer (RFC 6901) leads to.

    Raises:
        LookupError: there is nothing.
    """
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value[name]
        elif isinstance(value, Sequence) and not isinstance(value, str) and name.isdecimal():
            value = value[int(name)]
        else:
            raise LookupError(name)
    return value


def _output(draft: Draft, name: str, read_large: ReadLarge) -> JsonValue:
    node = draft.node(draft.plan.by_id[NodeId(name)])
    if node.output is not None:
        return decode(node.output)
    if node.output_ref is not None:
        return read_large(node.output_ref)
    raise Unbound(f"node `{name}` has no output")


def _record(output: JsonValue) -> JsonValue:
    content = {"structured_handoff": output}
    if isinstance(output, str):
        content["text"] = output
    return {"status": "completed", "content": content}
