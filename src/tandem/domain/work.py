"""What a triage gate says in its output: whether there is work for the nodes after it."""

from collections.abc import Iterator

import msgspec

from tandem.domain.automation import Node
from tandem.domain.free_json import object_at
from tandem.domain.json import JsonValue, decode

_PLACES = (
    (),
    ("structured_handoff",),
    ("content",),
    ("content", "structured_handoff"),
    ("content", "data"),
)


def is_triage_gate(node: Node) -> bool:
    """Say whether the output of this node decides if there is work for those after it."""
    return object_at(node.metadata).get("triage_gate") is True


def has_work(output: JsonValue) -> bool:
    """Say what a triage gate reports; one that does not say has work."""
    for found in _objects(output):
        for place in _PLACES:
            said = object_at(found, *place).get("has_work")
            if isinstance(said, bool):
                return said
    return True


def _objects(output: JsonValue) -> Iterator[JsonValue]:
    """Yield the output, then the JSON inside of the texts where it may be."""
    yield output
    content = object_at(output).get("content")
    texts = (output, content, object_at(content).get("text"), object_at(output).get("text"))
    for text in texts:
        if isinstance(text, str) and "{" in text:
            try:
                yield decode(text[text.index("{") : text.rindex("}") + 1])
            except (msgspec.DecodeError, ValueError):
                continue
