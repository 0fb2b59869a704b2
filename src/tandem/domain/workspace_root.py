"""The directory that an automation asks for (run-lifecycle 8.5)."""

from tandem.domain.automation import Automation
from tandem.domain.free_json import object_at


def declared_workspace(automation: Automation) -> str:
    """Return the workspace of the document: its field, else its metadata; empty for none.

    Whoever creates a run decides what an automation without one gets.
    """
    if root := (automation.workspace_root or "").strip():
        return root
    found = object_at(automation.metadata).get("workspace_root")
    return found if isinstance(found, str) else ""
