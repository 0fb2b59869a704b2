"""A call of a Python function: finding it, calling it, and saying how it ended.

Imported by worker processes, so it imports nothing of the package.
"""

import asyncio
import importlib
import inspect
import os
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import msgspec

TRACE_CHARS_MAX = 8_000
OWN_FOLDERS = (os.path.dirname(__file__), os.path.dirname(asyncio.__file__))


class FunctionMissing(Exception):
    """The module or function that an action names does not exist or cannot be called."""


class NotJson(Exception):
    """A function returned something that JSON cannot hold."""


def find(name: str) -> Callable[..., object]:
    """Import `package.module:function` and return the function.

    Raises:
        FunctionMissing: there is no such module or callable, or a module that it imports is
            missing. Other errors of the import pass through.
    """
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise FunctionMissing(f"there is no module `{missing}` (for `{name}`)") from error
        raise FunctionMissing(
            f"module `{module_name}` needs module `{missing}`, which is not installed here"
        ) from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise FunctionMissing(f"module `{module_name}` has no `{path}`") from None
    if not callable(found):
        raise FunctionMissing(f"`{name}` is not a function but {type(found).__name__}")
    function: Callable[..., object] = found
    return function


def wants_context(function: Callable[..., object]) -> bool:
    """Say whether the function has a parameter named `context`."""
    try:
        return "context" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return False


def with_context(
    function: Callable[..., object], arguments: Mapping[str, Any], context: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the keyword arguments, with `context` as an object if the function wants it."""
    if "context" not in arguments and wants_context(function):
        return {**arguments, "context": SimpleNamespace(**context)}
    return dict(arguments)


def to_json(value: object) -> bytes:
    """Write a function's result as JSON; dataclasses and models of pydantic are objects.

    Raises:
        NotJson: it holds something else.
    """
    try:
        return msgspec.json.encode(value, enc_hook=_dump_model)
    except Exception as error:  # the value's own code runs here
        raise NotJson(f"returned a value that is not JSON: {error}") from error


def _dump_model(value: Any) -> object:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON form")


def describe(error: BaseException) -> str:
    """Return `TypeName: message`."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  a broken __str__ of user code
        text = "(its message cannot be shown)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def trace_of(error: BaseException) -> str:
    """Return the traceback without the frames that led to user code."""
    try:
        told = traceback.TracebackException.from_exception(error)
        told.stack = traceback.StackSummary.from_list(_after_own(told.stack))
        return "".join(told.format())[-TRACE_CHARS_MAX:]
    except Exception:  # noqa: BLE001  a broken __str__ of user code
        return ""


def _after_own(frames: Iterable[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    kept = list(frames)
    while kept and (kept[0].filename.startswith(OWN_FOLDERS) or _is_importlib(kept[0].filename)):
        del kept[0]
    return kept


def _is_importlib(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or filename == importlib.__file__
