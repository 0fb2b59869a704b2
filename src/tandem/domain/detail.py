"""The detail of a running run: it names what runs, never what is over (run-lifecycle 1.6)."""

from collections.abc import Callable, Iterable

_OPENS, _CLOSES = "node `", "`"

Active = tuple[str, int]
"""A node that was started and is not over, and the number of its newest attempt."""


def detail_node_id(detail: str) -> str | None:
    """Return the node that a detail names: the text between the first ``node ` `` and a backtick.

    None when there is no such text, it does not end, or it is blank.
    """
    _, opened, rest = detail.partition(_OPENS)
    name, closed, _ = rest.partition(_CLOSES)
    return name if opened and closed and name.strip() else None


def refreshed_detail(
    detail: str, *, is_completed: Callable[[str], bool], active: Callable[[], Iterable[Active]]
) -> str:
    """Return the detail of a running run, with what is active now in place of what is completed.

    Args:
        detail: what the change left.
        is_completed: says whether the node of this name is completed.
        active: the nodes that were started and are not over, best first; asked only when needed.
    """
    node_id = detail_node_id(detail)
    if node_id is None or not is_completed(node_id):
        return detail
    for name, attempt in active():
        return f"running node `{name}` attempt {attempt}"
    return f"completed node `{node_id}`; continuing"
