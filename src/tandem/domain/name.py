"""What a name that people gave may be, and what an id."""

import re
from typing import Final

ID_CHARS_MAX: Final = 128
ID_RULE: Final = (
    f"1 to {ID_CHARS_MAX} characters without slashes, backticks, `..` and control characters"
)

_ID: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029/\\`]+")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def name_problem(name: str, *, chars_max: int) -> str:
    """Return why a text is no name, empty for none: it goes into lists, logs and one line each."""
    if not name.strip():
        return "a name is not blank"
    if len(name) > chars_max:
        return f"a name has at most {chars_max} characters, this one has {len(name)}"
    if _UNPRINTABLE.search(name):
        return "a name has no control characters and no line breaks"
    return ""


def is_id(text: str) -> bool:
    """Say whether a text is an id (`ID_RULE`): it names folders, and stands in one line."""
    return (
        len(text) <= ID_CHARS_MAX
        and bool(_ID.fullmatch(text))
        and ".." not in text
        and text.strip() == text
        and text != "."
    )
