"""Loads targets that nobody here wrote: a public framework's by name, anybody's by its import path, and says at once
everything that keeps one from being a target."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any

from lab_utils.target import Capability, Target
from lab_utils.values.profiles import UsageError, unknown

__all__ = ["FRAMEWORKS", "Framework", "load_framework", "load_target", "problems_of"]


@dataclass(frozen=True, slots=True)
class Framework:
    """A public framework: the import path of its target, the package it comes in, the extra that brings it, and what
    it is."""

    spec: str
    package: str
    extra: str
    summary: str

    @property
    def remedy(self) -> str:
        """The command that installs it."""
        return f"pip install 'agent-registry-lab[{self.extra}]'"

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


FRAMEWORKS: Mapping[str, Framework] = MappingProxyType(
    {
        "autogen_core": Framework(
            "lab_utils.targets.autogen_core:AutogenCoreTarget",
            "autogen_core",
            "autogen",
            "autogen-core's SingleThreadedAgentRuntime, used as its documentation tells an app to",
        )
    }
)


_OPTIONAL = MappingProxyType(
    {
        "agent_id": Capability.AGENT_IDS,
        "asgi_app": Capability.SOCKETS,
        "token": Capability.SOCKETS,
        "pass_time": Capability.EXPIRY,
        "choose_model": Capability.MODEL,
        "prompts": Capability.MODEL,
    }
)
"""Methods that a target without the capability may leave out."""


def load_framework(name: str) -> Callable[[], Target]:
    """Return what makes the framework's target. Raises `UsageError` with the remedy where it is not installed."""
    framework = FRAMEWORKS[name]
    if not framework.is_installed:
        raise UsageError(f"target {name!r} needs the package {framework.package!r}; {framework.remedy}")
    return load_target(framework.spec)


def load_target(spec: str) -> Callable[[], Target]:
    """Return what makes the target named `package.module:Name`, a class or a function without parameters.

    Raises `UsageError` if it cannot be imported or made, or if what it makes is no target; the message lists every
    problem.
    """
    module_name, _, name = spec.partition(":")
    module = _imported(spec, module_name)
    if not name or not hasattr(module, name):
        raise UsageError(f"target {spec!r} cannot be imported: {unknown('name', name, _makers(module))}")
    make: Callable[[], Target] = getattr(module, name)
    try:
        problems = problems_of(make())
    except Exception as error:
        raise UsageError(f"target {spec!r} cannot be made: {type(error).__name__}: {error}") from error
    if problems:
        raise UsageError(f"target {spec!r} does not fit lab_utils.target.Target:\n  " + "\n  ".join(problems))
    return make


def _imported(spec: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        # The innermost line that is not the machinery of imports: a line of the module, or of what it imports.
        lines = [place for place in where if "importlib" not in place]
        if not module_name or module_name.startswith("."):
            remedy = "; give it as package.module:Name"
        elif isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            remedy = "; is its folder on PYTHONPATH?"
        else:
            remedy = f" (at {lines[-1]})" if lines[1:] else ""
        raise UsageError(f"target {spec!r} cannot be imported: {said}{remedy}") from error


def _makers(module: ModuleType) -> tuple[str, ...]:
    return tuple(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))


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
        if method is None and name in _OPTIONAL and not _claims(capabilities, _OPTIONAL[name]):
            continue
        if not callable(method):
            problems.append(f"{name}() is missing; raise NotSupported in it where the capability is lacking")
        elif inspect.iscoroutinefunction(wanted) != inspect.iscoroutinefunction(method):
            problems.append(f"{name}() must be {'async' if inspect.iscoroutinefunction(wanted) else 'a plain method'}")
        else:
            problems.extend(_missing_parameters(name, wanted, method))
    return problems


def _claims(capabilities: Any, capability: Capability) -> bool:
    return isinstance(capabilities, (frozenset, set)) and capability in capabilities


def _missing_parameters(name: str, wanted: Callable[..., Any], method: Callable[..., Any]) -> list[str]:
    has = inspect.signature(method).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in has.values()):
        return []
    needed = [each for each in inspect.signature(wanted).parameters if each != "self"]
    missing = [each for each in needed if each not in has]
    return [f"{name}() lacks the parameter(s) {', '.join(missing)}"] if missing else []
