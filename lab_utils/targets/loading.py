"""Loads targets that nobody here wrote: a public framework's by name, anybody's by its import path, and says at once
everything that keeps one from being a target."""

from __future__ import annotations

import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Final

from lab_utils.target import GRANTED_BY, BaseTarget, Capability, Target
from lab_utils.targets.frameworks import FRAMEWORKS
from lab_utils.values.profiles import UsageError, unknown
from lab_utils.values.texts import cut, worded

__all__ = ["is_theirs", "load_framework", "load_target", "place", "problems_of", "why"]

_OURS: Final = str(Path(__file__).parents[1])
_PYTHONS: Final = sysconfig.get_path("stdlib")
_LONGEST: Final = 400


_TIMES = frozenset({Capability.IDLE_END, Capability.AGE_END})
_OPTIONAL = MappingProxyType(
    {
        "agent_id": frozenset({Capability.AGENT_IDS}),
        "asgi_app": frozenset({Capability.SOCKETS}),
        "token": frozenset({Capability.SOCKETS}),
        "pass_time": frozenset({Capability.EXPIRY}),
        "choose_model": frozenset({Capability.MODEL}),
        "prompts": frozenset({Capability.MODEL}),
        "limit": _TIMES | {Capability.AGENT_CAP, Capability.USER_CAP},
        "move_clock": _TIMES,
        "sweep": _TIMES,
        "register": frozenset({Capability.TYPE_CHANGES}),
        "make_apart": frozenset({Capability.ADOPTION}),
        "adopt": frozenset({Capability.ADOPTION}),
        "create_strict": frozenset({Capability.STRICT}),
        "use_part": frozenset({Capability.PART_USE}),
    }
)
"""Methods that a target with none of these capabilities may leave out."""


def load_framework(name: str) -> Callable[[], Target]:
    """Return the maker of the framework's target. Raises `UsageError` with the remedy where it is not installed."""
    framework = FRAMEWORKS[name]
    if not framework.is_installed:
        raise UsageError(f"target {name!r} needs the package {framework.package!r}; {framework.remedy}")
    return load_target(framework.spec)


def load_target(spec: str) -> Callable[[], Target]:
    """Return the maker of the target named `package.module:Name`, a class or a function without parameters.

    Raises `UsageError` if it cannot be imported or made, or if the made object is not a target; the message lists every
    problem.
    """
    module_name, _, name = spec.partition(":")
    module = _imported(spec, module_name)
    if not name or not hasattr(module, name):
        raise UsageError(f"target {spec!r} cannot be imported: {unknown('name', name, _makers(module))}")
    named: object = getattr(module, name)
    if not callable(named) or inspect.iscoroutinefunction(named):
        kind = "an async function" if callable(named) else f"an object of type {type(named).__name__}"
        raise UsageError(f"target {spec!r} is {kind}; name a class, or a function that returns a new target")
    make: Callable[[], Target] = named
    try:
        problems = problems_of(make())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UsageError(f"target {spec!r} cannot be made: {why(error)}") from error
    if problems:
        raise UsageError(f"target {spec!r} does not fit lab_utils.target.Target:\n  " + "\n  ".join(problems))
    return make


def _imported(spec: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if not module_name or module_name.startswith("."):
            remedy = "; give it as package.module:Name"
        elif "/" in module_name or module_name.endswith(".py"):
            path = module_name.removesuffix(".py").strip("./").replace("/", ".")
            remedy = f"; give it as {path}:{spec.partition(':')[2]}"
        elif isinstance(error, ImportError) and (hidden := _hidden_by_ours(error.name or "")):
            remedy = (
                f"; {hidden.stem!r} is a package of the lab's too, which hides yours at {hidden}: rename yours, or "
                "judge your registry as a service in a process of its own (registry-lab new-service)"
            )
        elif isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            remedy = "; is its folder this one, or on PYTHONPATH?"
        elif isinstance(error, SystemExit):
            remedy = "; its work as a script belongs below `if __name__ == '__main__':`"
        else:
            remedy = ""
        raise UsageError(f"target {spec!r} cannot be imported: {why(error)}{remedy}") from error


def _hidden_by_ours(module_name: str) -> Path | None:
    """A package or a module of somebody else's by the name of one of the lab's two, from which this was asked for."""
    top = module_name.partition(".")[0]
    if top not in ("lab_utils", "registry"):
        return None
    ours = Path(__file__).resolve().parents[2]
    theirs = [Path(folder or Path.cwd()) for folder in sys.path if Path(folder or Path.cwd()).resolve() != ours]
    named = (folder / name for folder in theirs for name in (top, f"{top}.py"))
    return next((one for one in named if one.exists()), None)


def why(error: BaseException) -> str:
    """The error of somebody else's code, in one phrase, with the innermost line of theirs where there is one."""
    if isinstance(error, SystemExit):
        phrase = f"it ends the process by sys.exit({cut(worded(repr, error.code), _LONGEST)})"
    else:
        said = cut(worded(str, error), _LONGEST)
        phrase = f"{type(error).__name__}: {said}" if said else type(error).__name__
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_theirs(frame.filename):
            return f"{phrase} (at {place(frame.filename)}:{frame.lineno})"
    return phrase


def is_theirs(file: str) -> bool:
    """True for a file that is neither the lab's nor Python's own."""
    is_pythons = file.startswith(("<", _PYTHONS)) and "-packages" not in file
    return not is_pythons and not file.startswith(_OURS)


def place(file: str) -> str:
    """A file's path as its import would name it, `package/module.py`: not where somebody keeps it."""
    folders = [Path(entry).absolute() for entry in sys.path]
    within = [folder for folder in folders if Path(file).is_relative_to(folder)]
    shortest = max(within, key=lambda folder: len(folder.parts), default=Path(file).parent)
    return str(Path(file).relative_to(shortest))


def _makers(module: ModuleType) -> tuple[str, ...]:
    """The names in a module that may be a target: its own ones, or else those that it imports."""
    found = {name: value for name, value in vars(module).items() if callable(value) and not name.startswith("_")}
    own = tuple(name for name, value in found.items() if getattr(value, "__module__", "") == module.__name__)
    return own or tuple(found)


def problems_of(target: Any) -> list[str]:
    """Everything about a target that does not fit the protocol, a sentence each."""
    if target is None:
        return ["None was returned; return the target"]
    problems = []
    if not isinstance(getattr(target, "name", None), str):
        problems.append("name is not a str")
    capabilities = getattr(target, "capabilities", None)
    if not isinstance(capabilities, frozenset) or not all(isinstance(each, Capability) for each in capabilities):
        members = capabilities if isinstance(capabilities, (frozenset, set)) else ()
        wrong = [repr(each) for each in members if not isinstance(each, Capability)]
        named = f"capabilities hold {', '.join(wrong)}" if wrong else f"capabilities is {capabilities!r:.200}"
        problems.append(f"{named}; they must be a frozenset of lab_utils.target.Capability, such as Capability.TOOLS")
    missing = []
    for name in _methods():
        wanted = getattr(Target, name)
        method = getattr(target, name, None)
        if method is None and name in _OPTIONAL and not _claims(capabilities, _OPTIONAL[name]):
            continue
        if not callable(method):
            missing.append(f"{name}()")
        elif inspect.iscoroutinefunction(wanted) != inspect.iscoroutinefunction(method):
            problems.append(f"{name}() must be {'async' if inspect.iscoroutinefunction(wanted) else 'a plain method'}")
        else:
            problems.extend(_missing_parameters(name, wanted, method))
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        remedy = "derive from lab_utils.target.BaseTarget, which has every method"
        problems.append(f"{', '.join(missing)} {verb} missing; {remedy}")
    return [*problems, *_not_overridden(target)] if isinstance(target, BaseTarget) else problems


def _not_overridden(target: BaseTarget) -> list[str]:
    """The methods that a target derived from `BaseTarget` needs and did not override."""
    kind, begin = type(target).__name__, "`registry-lab new-target FILE` writes one that runs"
    own = {name for name in _methods() if getattr(type(target), name) is not getattr(BaseTarget, name)}
    if not own - {"start", "stop", "trusted"}:
        return [f"{kind} overrides nothing that the lab could call: override create() and run(); {begin}"]
    problems = [f"{name}() is not overridden; every target needs it" for name in ("create", "run") if name not in own]
    for capability, methods in GRANTED_BY.items():
        has = [name for name in methods if name in own]
        lacks = " and ".join(f"{name}()" for name in methods if name not in own)
        if lacks and capability in target.capabilities:
            problems.append(f"it names the capability {capability} and does not override {lacks}")
        elif lacks and has:
            problems.append(f"{has[0]}() is overridden and {lacks} is not; the capability {capability} needs both")
    return problems + [
        f"it names the capability {min(named)} and does not override {name}()"
        for name in ("limit", "move_clock", "sweep")
        if name not in own and (named := _OPTIONAL[name] & target.capabilities)
    ]


def _methods() -> Iterator[str]:
    return (name for name, _ in inspect.getmembers(Target, inspect.isfunction) if not name.startswith("_"))


def _claims(capabilities: Any, any_of: frozenset[Capability]) -> bool:
    return isinstance(capabilities, (frozenset, set)) and bool(any_of & capabilities)


def _missing_parameters(name: str, wanted: Callable[..., Any], method: Callable[..., Any]) -> list[str]:
    has = inspect.signature(method).parameters
    takes_any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in has.values())
    needed = [each for each in inspect.signature(wanted).parameters.values() if each.name != "self"]
    missing = [each.name for each in needed if each.name not in has and not takes_any_name]
    if missing:
        return [f"{name}() lacks the parameter{'s' * (len(missing) > 1)} {', '.join(missing)}"]
    # The lab hands over permissions by name, as everything that has no place.
    places = [each.name for each in needed if each.kind is each.POSITIONAL_OR_KEYWORD and each.name != "permissions"]
    try:
        inspect.signature(method).bind(*places, **{each.name: None for each in needed if each.name not in places})
    except TypeError as error:
        parameters = ", ".join(["self", *places, "**_"])
        begin = "async def" if inspect.iscoroutinefunction(wanted) else "def"
        return [f"{name}() cannot be called by the lab: {error}; write it as `{begin} {name}({parameters})`"]
    return []
