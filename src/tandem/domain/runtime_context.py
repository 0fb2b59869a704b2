"""What a run may see of the context that was approved for it (run-lifecycle 1.5, 1.1).

The context is `{routines: [{routine_id, visible_context_objects, step_context_bindings}]}`. It
comes from the definition: given there in full, or derived from the plan that somebody approved. A
definition that refers to shared packs names them only; what they hold has to be given with the
run. Since the definition of a run is pinned, its context is never copied into the run.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from tandem.domain.automation import Automation
from tandem.domain.free_json import list_at, object_at, text_of
from tandem.domain.json import JsonObject, JsonValue

_EXPLICIT: Final = ("context_materialization", "contextMaterialization")
_APPROVED: Final = ("approved_plan_materialization", "approvedPlanMaterialization")
_PACKAGE: Final = ("plan_package", "planPackage")
_PACKS: Final = (
    "shared_context_bindings",
    "sharedContextBindings",
    "shared_context_pack_ids",
    "sharedContextPackIds",
)
_PACK_ID: Final = ("pack_id", "packId", "context_pack_id", "contextPackId", "id")


def requires_runtime_context(automation: Automation) -> bool:
    """Say whether runs of this definition may not start without a context."""
    metadata = object_at(automation.metadata)
    named = (_first(metadata, _EXPLICIT), _first(metadata, _APPROVED))
    return any(value is not None for value in named) or bool(shared_context_pack_ids(automation))


def runtime_context_of(automation: Automation) -> JsonObject | None:
    """Return the context that the definition gives its runs; None when it gives none.

    An explicit one comes first, then that of the approved plan. One that refers to shared packs
    is not complete without them, so the definition alone gives none.
    """
    if shared_context_pack_ids(automation):
        return None
    metadata = object_at(automation.metadata)
    explicit = object_at(_first(metadata, _EXPLICIT))
    if list_at(explicit, "routines"):
        return explicit
    return _of_approved_plan(metadata)


def shared_context_pack_ids(automation: Automation) -> tuple[str, ...]:
    """Return the packs that the definition or its plan package refers to, each once, in order."""
    metadata = object_at(automation.metadata)
    holders = (metadata, *(object_at(metadata, name) for name in _PACKAGE))
    return tuple(dict.fromkeys(pack for holder in holders for pack in _pack_ids(holder)))


def _pack_ids(holder: JsonObject) -> Iterator[str]:
    for key in _PACKS:
        for item in list_at(holder, key):
            found = _first(item, _PACK_ID) if isinstance(item, Mapping) else item
            if isinstance(found, str) and found.strip():
                yield found.strip()


def _of_approved_plan(metadata: JsonObject) -> JsonObject | None:
    """Join the routines of the approved plan with the context objects of its bundle by their ids.

    An object that is not in the bundle cannot be shown, so the plan gives no context then.
    """
    routines = list_at(object_at(_first(metadata, _APPROVED)), "routines")
    bundle = object_at(metadata, "plan_package_bundle", "scope_snapshot")
    objects = {
        text_of(_first(item, ("context_object_id", "id"))): item
        for item in map(object_at, list_at(bundle, "context_objects"))
    }
    joined: list[JsonValue] = []
    for routine in map(object_at, routines):
        ids = [text_of(each) for each in _visible_ids(routine)]
        if any(each not in objects for each in ids):
            return None
        joined.append(
            {
                "routine_id": text_of(routine.get("routine_id")),
                "visible_context_objects": [objects[each] for each in ids],
                "step_context_bindings": list_at(routine, "step_context_bindings"),
            }
        )
    return {"routines": joined} if joined else None


def _visible_ids(routine: JsonObject) -> Iterator[JsonValue]:
    for key in ("visible_context_object_ids", "visible_context_objects"):
        for item in list_at(routine, key):
            yield _first(item, ("context_object_id", "id")) if isinstance(item, Mapping) else item


def _first(holder: JsonObject, names: tuple[str, ...]) -> JsonValue:
    return next((holder[name] for name in names if holder.get(name) is not None), None)
