"""Loads somebody else's target by its import path, and says at once everything that keeps it from being one."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from lab_utils.profiles import UsageError
from lab_utils.target import Capability, Target

__all__ = ["load_target", "problems_of"]


def load_target(spec: str) -> Callable[[], Target]:
    """Return what makes the target named `package.module:Name`, a class or a function without parameters.

    Raises `UsageError` if it cannot be imported or made, or if what it makes is no target; the message lists every
    problem.
    """
    module_name, _, name = spec.partition(":")
    try:
        make: Callable[[], Target] = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"target {spec!r} cannot be imported: {error}; is its folder on PYTHONPATH?") from error
    try:
        problems = problems_of(make())
    except Exception as error:
        raise UsageError(f"target {spec!r} cannot be made: {type(error).__name__}: {error}") from error
    if problems:
        raise UsageError(f"target {spec!r} does not fit lab_utils.target.Target:\n  " + "\n  ".join(problems))
    return make


def problems_of(target: Any) -> list[str]:
    """Everything about a target that does not fit the protocol, a sentence each."""
    problems = []
    if not isinstance(getattr(target, "name", None), str):
        problems.append("name is no str")
    capabilities = getattr(target, "capabilities", None)
    if not isinstance(capabilities, frozenset) or not all(isinstance(each, Capability) for each in capabilities):
        problems.append(f"capabilities is {capabilities!r}; it must be a frozenset of lab_utils.target.Capability")
    for name, wanted in inspect.getmembers(Target, inspect.isfunction):
        if name.startswith("_"):
            continue
        method = getattr(target, name, None)
        if not callable(method):
            problems.append(f"{name}() is missing; raise NotSupported in it where the capability is lacking")
        elif inspect.iscoroutinefunction(wanted) != inspect.iscoroutinefunction(method):
            problems.append(f"{name}() must be {'async' if inspect.iscoroutinefunction(wanted) else 'a plain method'}")
        else:
            problems.extend(_missing_parameters(name, wanted, method))
    return problems


def _missing_parameters(name: str, wanted: Callable[..., Any], method: Callable[..., Any]) -> list[str]:
    has = inspect.signature(method).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in has.values()):
        return []
    needed = [each for each in inspect.signature(wanted).parameters if each != "self"]
    missing = [each for each in needed if each not in has]
    return [f"{name}() lacks the parameter(s) {', '.join(missing)}"] if missing else []
