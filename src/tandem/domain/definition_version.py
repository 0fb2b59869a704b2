"""The name of the version that a run executes, for people (run-lifecycle 1.1, definitions 1.14).

What is executed is pinned by the digest alone; this is what its author calls it.
"""

from typing import Final

from tandem.domain.automation import Automation
from tandem.domain.free_json import object_at, text_of
from tandem.domain.ids import DefinitionDigest

VERSION_KEYS: Final = (
    "definition_version",
    "workflow_definition_version",
    "automation_definition_version",
    "automation_version",
    "source_pack_version",
    "version",
)
"""Keys of the metadata that name a version; the first one that does counts."""
_PLANS: Final = (("plan_package_bundle", "plan"), ("approved_plan_materialization",))
_SHORT_HASH: Final = 16


def definition_version(automation: Automation, digest: DefinitionDigest) -> str:
    """Return the version: of the metadata, else of the approved plan, else of the content.

    `digest` is that of the canonical document, `sha256:` and hexadecimal characters.
    """
    metadata = object_at(automation.metadata)
    for key in VERSION_KEYS:
        if named := text_of(metadata.get(key)):
            return named
    for names in _PLANS:
        plan = object_at(metadata, *names)
        plan_id, revision = text_of(plan.get("plan_id")), text_of(plan.get("plan_revision"))
        if plan_id and revision:
            return f"plan:{plan_id}:rev:{revision}"
    content = digest.removeprefix("sha256:")[:_SHORT_HASH]
    return f"automation:{automation.automation_id}@{content}"
