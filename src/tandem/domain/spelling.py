"""Keys in two spellings: the published clients read either (http-api 3.9)."""

from collections.abc import Mapping
from typing import Any


def camel(key: str) -> str:
    """Return a key in camel case; a last word `id` becomes `ID`."""
    first, *rest = key.split("_")
    words = [word.capitalize() for word in rest]
    if words and words[-1] == "Id":
        words[-1] = "ID"
    return first + "".join(words)


def doubled(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with each key of several words a second time, in camel case."""
    return {**document, **{camel(key): value for key, value in document.items()}}
