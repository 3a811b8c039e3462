"""The kind of an object in a walk of the object graph: an atom, code, frozen, or somebody's own."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import datetime
import decimal
import dis
import enum
import fractions
import functools
import gc
import logging
import pathlib
import re
import sys
import types
import typing
import uuid
import weakref
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final, TypeVar

__all__ = [
    "TRUSTED_KINDS",
    "ByType",
    "Kind",
    "frame_of",
    "is_a",
    "is_application_module",
    "is_lab_module",
    "kinds",
    "odd",
    "parts_of",
    "trusted_as",
    "walked",
]

T = TypeVar("T")


class Kind(IntEnum):
    """The treatment of a type's objects in a walk."""

    ATOM = 0  # Cannot change and holds nothing: not walked.
    CODE = 1  # The process's own, trusted: not walked.
    FROZEN = 2  # Cannot change itself: walked through; the changeable things that it holds are found behind it.
    OWNED = 3  # Can change: belongs to the user who reaches it.


_ATOMS: Final = (
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
    type(Ellipsis),
    type(NotImplemented),
    range,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    re.Pattern,
    pathlib.PurePath,
    zoneinfo.ZoneInfo,
)

_TRUSTED: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {
        "class": (type, types.GenericAlias, types.UnionType, typing.TypeVar),
        "member of an enumeration": (enum.Enum,),
        "module": (types.ModuleType,),
        "code": (types.CodeType,),
        "descriptor of a class": (
            types.MethodDescriptorType,
            types.ClassMethodDescriptorType,
            types.WrapperDescriptorType,
            types.GetSetDescriptorType,
            types.MemberDescriptorType,
            property,
            staticmethod,
            classmethod,
            functools.cached_property,
        ),
        "event loop": (asyncio.AbstractEventLoop,),
        "logger": (logging.Logger, logging.Handler),
    }
)
TRUSTED_KINDS: Final = (*_TRUSTED, "globals of a function")
"""Objects that are never walked, in words: code and infrastructure of the process, which belongs to no user. Of a
function its closure, defaults and attributes are walked, its globals are not."""

_FROZEN: Final = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.MappingProxyType,
    contextvars.ContextVar,
    weakref.ref,
    memoryview,
    slice,
)
# Numpy and pandas are known by name: to look at an object must not import them.
_FROZEN_NAMES: Final = frozenset({"builtins.managedbuffer", "numpy.dtype", "pandas.core.indexes.base.Index"})
_SUSPENDED: Final = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)


class ByType(dict[type, T]):
    """Facts about all objects of a type, found out when the type is first met: inner loops read them."""

    def __init__(self, find_out: Callable[[type], T]) -> None:
        self._find_out = find_out

    def __missing__(self, kind: type) -> T:
        found = self[kind] = self._find_out(kind)
        return found


def is_a(item: Any, kind: type | tuple[type, ...]) -> bool:
    """As `isinstance`, of any object there is: that asks an object for its `__class__`, and so wakes lazy ones, which
    import their package."""
    return issubclass(type(item), kind)


def trusted_as(kind: type) -> str:
    """The reason to trust objects of a type: an entry of `TRUSTED_KINDS`."""
    return next((name for name, known in _TRUSTED.items() if issubclass(kind, known)), "class")


def is_lab_module(name: object) -> bool:
    """True for a module of the lab that drives and judges; its targets are not that."""
    if not isinstance(name, str) or name.partition(".")[0] != "lab_utils":
        return False
    return name not in ("lab_utils.target", "lab_utils.targets") and not name.startswith("lab_utils.targets.")


def is_application_module(name: str) -> bool:
    """True for a module that is neither Python's own nor the lab's: the code of a registry and its agents."""
    return name.partition(".")[0] not in sys.stdlib_module_names and not is_lab_module(name)


def parts_of(item: Any, aside: list[Any] | None = None) -> list[Any]:
    """Return an object's references, as far as they are its own: its content, not the place where it was made.

    Of a function: its closure, defaults and attributes. Of a frame and of a suspended coroutine or generator: its
    variables (none for the lab's own), not its callers. Of a context: the values of its variables. Of a mapping proxy:
    the keys and values behind it. A closure's cell that the function never assigns to, and a mapping behind a proxy,
    are seen through. They go into `aside`, for another holder may change the data that is read here.
    """
    if is_a(item, dict):
        # The collector is not shown the keys of a dictionary of texts.
        return [*dict.keys(item), *gc.get_referents(item)]
    if walked[type(item)] and type(item) not in odd:
        return gc.get_referents(item)
    if is_a(item, types.FunctionType):
        return _parts_of_function(item, aside)
    if is_a(item, types.MappingProxyType):
        held = gc.get_referents(item)
        # A mapping of another class is an object with a life of its own, walked as such.
        if not held or type(held[0]) is not dict:
            return held
        if aside is not None:
            aside.append(held[0])
        return [*held[0], *held[0].values()]
    if is_a(item, contextvars.Context):
        return [*item, *item.values()]
    if is_a(item, types.FrameType):
        if is_lab_module(item.f_globals.get("__name__")):
            return []
        away = (id(item.f_back), id(item.f_trace))
        return [part for part in gc.get_referents(item) if id(part) not in away]
    if is_a(item, _SUSPENDED):
        frame = frame_of(item)
        lab = frame is not None and is_lab_module(frame.f_globals.get("__name__"))
        return [] if lab else gc.get_referents(item)
    if _is_array(type(item)):
        inside = item.ravel().tolist() if item.dtype.hasobject else []
        return [*gc.get_referents(item), item.dtype, *inside, *([] if item.base is None else [item.base])]
    return _without_dict(item)


def frame_of(item: Any) -> types.FrameType | None:
    """The frame of a coroutine or generator; None once it has ended, and for anything else."""
    if not is_a(item, _SUSPENDED):
        return None
    names = ("cr_frame", "gi_frame", "ag_frame")
    frame: types.FrameType | None = next(getattr(item, name) for name in names if hasattr(item, name))
    return frame


def _parts_of_function(item: types.FunctionType, aside: list[Any] | None) -> list[Any]:
    parts: list[Any] = [*(item.__defaults__ or ()), *(item.__kwdefaults__ or {}).values()]
    for name, cell in zip(item.__code__.co_freevars, item.__closure__ or (), strict=False):
        if name in _assigned(item.__code__):
            parts.append(cell)
            continue
        if aside is not None:
            aside.append(cell)
        parts.extend(gc.get_referents(cell))
    # Asking for `__dict__` or `__annotations__` makes them: only if there is one of the two already.
    builtins = getattr(item, "__builtins__")  # noqa: B009  # Typeshed lacks it.
    known = [id(item.__globals__), id(builtins), id(item.__kwdefaults__)]
    dicts = [held for held in gc.get_referents(item) if type(held) is dict and id(held) not in known]
    for attributes in dicts:
        if attributes is not item.__annotations__:
            # As of a class: attributes that code was given are not a user's, objects kept in them are. An empty
            # dictionary is made by any code that once asked for it, a decorator or a tracer.
            parts += [*attributes, *attributes.values()]
    return parts


@functools.lru_cache(maxsize=4_096)
def _assigned(code: types.CodeType) -> frozenset[str]:
    """The free variables that a function or one within it assigns to, as `nonlocal` allows."""
    found = {
        step.argval
        for step in dis.get_instructions(code)
        if step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars
    }
    for inner in code.co_consts:
        if is_a(inner, types.CodeType):
            found |= _assigned(inner) & set(code.co_freevars)
    return frozenset(found)


def _without_dict(item: Any) -> list[Any]:
    """The parts of a frozen object, with the values of its `__dict__` in place of that dictionary."""
    parts: list[Any] = []
    for part in gc.get_referents(item):
        if type(part) is dict and part is item.__dict__:
            parts += [*part, *part.values()]
        else:
            parts.append(part)
    return parts


def _is_walked(kind: type) -> bool:
    if _is_odd(kind):
        odd.add(kind)
    return kinds[kind] >= Kind.FROZEN


def _is_odd(kind: type) -> bool:
    known = (types.FunctionType, types.FrameType, types.MappingProxyType, contextvars.Context, *_SUSPENDED)
    return kind in known or _is_array(kind) or (kinds[kind] is Kind.FROZEN and kind.__dictoffset__ != 0)


def _classified(kind: type) -> Kind:
    # Each thread has one dummy for all its `threading.local`s, which notifies them of the thread's end.
    inner = kind.__module__ in ("typing", "_abc") or kind.__qualname__ == "_localdummy"
    if inner or any(issubclass(kind, known) for known in _TRUSTED.values()):
        return Kind.CODE
    if issubclass(kind, _ATOMS):
        return Kind.OWNED if _adds_state(kind) else Kind.ATOM
    if kind is object or _is_stateless(kind):
        return Kind.ATOM
    named = {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}
    if kind in _FROZEN or named & _FROZEN_NAMES or _is_frozen(kind):
        return Kind.FROZEN
    return Kind.OWNED


def _adds_state(kind: type) -> bool:
    """True for a class made on top of an atom's that gives its objects attributes of their own."""
    above = [base for base in kind.__mro__ if base.__module__ not in sys.stdlib_module_names]
    return any("__dict__" in base.__dict__ or set(_slots(base)) - {"__weakref__"} for base in above)


def _is_stateless(kind: type) -> bool:
    """True for a class whose objects have no room for anything: `__slots__` empty all the way up."""
    return kind.__dictoffset__ == 0 and all(
        set(_slots(base)) <= {"__weakref__"} for base in kind.__mro__ if base is not object
    )


def _slots(kind: type) -> Iterable[str]:
    slots = kind.__dict__.get("__slots__", ("unknown",))
    return (slots,) if isinstance(slots, str) else slots


def _is_frozen(kind: type) -> bool:
    if issubclass(kind, (tuple, frozenset, weakref.ref)):
        return kind.__dictoffset__ == 0
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is not None and dataclasses.is_dataclass(kind) and parameters.frozen:
        return True
    if getattr(getattr(kind, "__struct_config__", None), "frozen", False):
        return True
    # A class that only ever refuses: its fields were set before the object became one of it.
    return _only_raises(kind.__setattr__) and _only_raises(kind.__delattr__)


def _only_raises(method: object) -> bool:
    return isinstance(method, types.FunctionType) and not any(
        step.opname.startswith(("RETURN", "YIELD")) for step in dis.get_instructions(method)
    )


def _is_array(kind: type) -> bool:
    return any(base.__module__ == "numpy" and base.__name__ == "ndarray" for base in kind.__mro__)


kinds: Final = ByType(_classified)
"""Type -> `Kind`."""
walked: Final = ByType(_is_walked)
"""Type -> whether a walk goes through its objects."""
odd: Final[set[type]] = set()
"""The types asked for in `walked` of whose objects `parts_of` must be asked in place of `gc.get_referents`."""
