"""The registries that can be tested by name: real ones, public frameworks, and those planted with one defect each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Final

from lab_utils.service import PREFIX, require_extra
from lab_utils.target import Target
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.frameworks import FRAMEWORKS
from lab_utils.targets.loading import load_framework, load_target
from lab_utils.targets.planted import ALL_PLANTED, Planted
from lab_utils.targets.planted.services import RIGHT, right_service
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.values.profiles import UsageError, unknown

__all__ = [
    "FRAMEWORKS",
    "GROUP",
    "PLANTED",
    "RIGHT",
    "TARGETS",
    "Planted",
    "installed",
    "is_foreign",
    "make_target",
    "module_of",
    "target_factory",
]

GROUP: Final = "agent_registry_lab.targets"
"""The entry-point group by which an installed package offers targets: `name = "package.module:Class"`."""

TARGETS: Mapping[str, Callable[[], Target]] = MappingProxyType(
    {"agent_registry": AgentRegistryTarget, "reference": ReferenceTarget, RIGHT: right_service}
)
PLANTED: Mapping[str, Planted] = MappingProxyType({planted.name: planted for planted in ALL_PLANTED})


def target_factory(name: str) -> Callable[[], Target]:
    """Return the maker of the named target, or of the one at an import path `package.module:Name`.

    `service:PATH` is the service of that file.

    Raises `UsageError` for an unknown name, for a file that describes no service, for a foreign target that does not
    fit the protocol, and for a framework that is not installed.
    """
    if name in TARGETS:
        return TARGETS[name]
    if name in PLANTED:
        return PLANTED[name].make
    if name in FRAMEWORKS:
        return load_framework(name)
    if name.startswith(PREFIX):
        require_extra()
        from lab_utils.service.target import load_service

        return load_service(name)
    if ":" in name:
        return load_target(name)
    if name in (theirs := installed()):
        return load_target(theirs[name])
    near = difflib.get_close_matches(name, PLANTED, n=1, cutoff=0.6)
    planted = f"; did you mean {near[0]!r}, which is planted?" if near else ""
    known = unknown("target", name, {**TARGETS, **FRAMEWORKS, **theirs})
    raise UsageError(
        f"{known}{planted}; one of your own is package.module:Name, and `registry-lab list targets` names all"
    )


def installed() -> Mapping[str, str]:
    """The targets of installed packages, their import paths by name. None has a name that the lab itself uses."""
    ours = {*TARGETS, *PLANTED, *FRAMEWORKS}
    return {one.name: one.value for one in entry_points(group=GROUP) if one.name not in ours}


def is_foreign(name: str) -> bool:
    """True for a target whose code is not the lab's: making it may do anything to the process."""
    return not name.startswith(PREFIX) and (":" in name or name in FRAMEWORKS or name in installed())


def module_of(name: str) -> tuple[str, ...]:
    """The module that a target's name stands for and that is not the lab's own; none for our own."""
    if name.startswith(PREFIX) or name in TARGETS:
        return ()
    spec = FRAMEWORKS[name].spec if name in FRAMEWORKS else installed().get(name, name)
    module, colon, _ = spec.partition(":")
    return (module,) if colon and module else ()


def make_target(name: str) -> Target:
    """Return a fresh target; raises `UsageError` for an unknown name."""
    return target_factory(name)()
