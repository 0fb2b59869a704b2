"""What a name that people gave may be."""

import re
from typing import Final

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
