"""Describes how one object holds another, as a reader of the code would write it: `.agents['helper'].memory`."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import threading
import types
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from lab_utils.probes.kinds import frame_of, is_a

__all__ = ["described", "short", "step", "variables"]

_LENGTH = 120


def described(first: str, objects: Sequence[Any]) -> str:
    """The steps from the first object, which is called `first`, to the last one, with its description."""
    spoken = _spoken(objects)
    text = first
    for place, (holder, held) in enumerate(pairwise(spoken)):
        if place and _is_namespace(spoken[place - 1], holder):
            text += _attribute(holder, held)
        elif not _is_namespace(holder, held):
            text += step(holder, held)
    return f"{text} -> {short(objects[-1])}"


def step(holder: Any, held: Any) -> str:
    """How the holder holds the held: an attribute, an item, a variable, or, where nothing better is known, its type."""
    for name, value in _named_parts(holder):
        if value is held:
            return name
    return f".<{type(held).__name__}>"


def short(item: object) -> str:
    """The repr, cut to a line; a repr that raises is said so."""
    try:
        text = repr(item)
    except Exception as error:
        text = f"<{type(item).__name__}, whose repr raised {type(error).__name__}>"
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."


def variables(frame: types.FrameType) -> dict[str, Any]:
    """The variables of a frame now. Leaves nothing behind: before 3.13 a frame keeps the dictionary that it returns,
    which would go on holding the values in it."""
    known = frame.f_locals
    if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return dict(known)  # A module's or a class body's own namespace.
    found = dict(known)
    if type(known) is dict:
        known.clear()
    return found


def _spoken(objects: Sequence[Any]) -> list[Any]:
    """The objects of a chain without those that only the interpreter sees: a function's tuple of cells, a context's
    tree, a thread's dictionary behind a `threading.local`, the links of a traceback."""
    spoken = list(objects[:1])
    for before, item in pairwise(objects[:-1]):
        holder, kind = spoken[-1], type(item)
        if is_a(holder, types.FunctionType) and kind in (tuple, dict, types.CellType) and _is_inner(holder, item):
            continue
        if kind.__name__.startswith("hamt") or kind.__name__ == "managedbuffer":
            continue
        if kind is types.CellType and (is_a(holder, types.FrameType) or frame_of(holder) is not None):
            continue
        if kind is types.TracebackType and is_a(holder, BaseException):
            continue
        if kind is dict and is_a(before, type):
            continue
        if kind is dict and is_a(holder, threading.local) and _is_behind(holder, item):
            continue
        spoken.append(item)
    return [*spoken, *objects[1:][-1:]]


def _is_inner(function: types.FunctionType, item: Any) -> bool:
    closure = function.__closure__ or ()
    inner = (closure, function.__defaults__, function.__kwdefaults__, *closure)
    return any(item is part for part in inner)


def _is_behind(local: threading.local, item: dict[Any, Any]) -> bool:
    held = [*gc.get_referents(local), *_dicts_of_threads(local)]
    return any(item is part for part in held)


def _is_namespace(owner: Any, held: Any) -> bool:
    """True if `held` is the `__dict__` of the owner, which a reader does not write."""
    return type(held) is dict and not is_a(owner, type) and _namespace(owner) is held


def _namespace(owner: Any) -> dict[str, Any] | None:
    if type(owner).__dictoffset__ == 0:
        return None
    try:
        # Not by `getattr`: a class may answer anything to that.
        namespace = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        return None
    return namespace if type(namespace) is dict else None


def _attribute(namespace: dict[Any, Any], held: Any) -> str:
    return next((f".{name}" for name, value in namespace.items() if value is held), f".<{type(held).__name__}>")


def _named_parts(holder: Any) -> Iterator[tuple[str, Any]]:
    """Every part of the holder that has a name, with it; the likeliest first."""
    if is_a(holder, dict):
        # Through `dict` itself: a subclass may make its methods do anything.
        for key, value in dict.items(holder):
            yield f"[{short(key)}]", value
        for key in dict.keys(holder):
            yield f".key({short(key)})", key
    elif is_a(holder, (list, tuple, deque)):
        fields = getattr(holder, "_fields", ()) if is_a(holder, tuple) else ()
        yield from zip((f".{name}" for name in fields), holder, strict=False)
        yield from ((f"[{index}]", value) for index, value in enumerate(holder))
    elif is_a(holder, (set, frozenset)):
        yield from ((".<element>", value) for value in holder)
    elif is_a(holder, types.MappingProxyType):
        yield from ((f"[{short(key)}]", value) for key, value in holder.items())
        yield "", next(iter(gc.get_referents(holder)), None)
    elif is_a(holder, contextvars.Context):
        yield from ((f"[contextvar {variable.name}]", value) for variable, value in holder.items())
    elif is_a(holder, types.FunctionType):
        yield from _parts_of_function(holder)
    elif is_a(holder, types.CellType):
        yield from (("", value) for value in gc.get_referents(holder))
    elif is_a(holder, type):
        yield from ((f".{name}", value) for name, value in vars(holder).items())
    elif is_a(holder, weakref.ref):
        yield "<callback>", holder.__callback__
    elif is_a(holder, (types.BuiltinFunctionType, types.MethodWrapperType)):
        yield ".__self__", holder.__self__
    elif is_a(holder, memoryview):
        yield ".obj", holder.obj
    elif is_a(holder, threading.local):
        for own in _dicts_of_threads(holder):
            yield from ((f".{name}", value) for name, value in own.items())
    elif is_a(holder, functools._lru_cache_wrapper):
        yield ".__wrapped__", holder.__wrapped__
        yield from (("<cache>", value) for value in gc.get_referents(holder))
    yield from _parts_of_running(holder)
    yield from _attributes(holder)


def _parts_of_function(holder: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(holder.__code__.co_freevars, holder.__closure__ or (), strict=False):
        yield f"<closure {name}>", cell
        yield from ((f"<closure {name}>", value) for value in gc.get_referents(cell))
    names = holder.__code__.co_varnames[: holder.__code__.co_argcount]
    defaults = holder.__defaults__ or ()
    yield from zip((f"<default {name}>" for name in names[len(names) - len(defaults) :]), defaults, strict=False)
    for name, value in (holder.__kwdefaults__ or {}).items():
        yield f"<default {name}>", value


def _dicts_of_threads(holder: threading.local) -> Iterator[dict[Any, Any]]:
    """The values that each thread keeps in it."""
    for table in gc.get_referents(holder):
        if type(table) is dict:
            yield from (own for own in table.values() if type(own) is dict)


def _parts_of_running(holder: Any) -> Iterator[tuple[str, Any]]:
    """The objects that a frame, a coroutine, a task or an exception holds."""
    frame = holder if is_a(holder, types.FrameType) else frame_of(holder)
    if frame is not None:
        yield from ((f"<local {name}>", value) for name, value in variables(frame).items())
        yield "<caller>", frame.f_back
        yield "<awaited>", getattr(holder, "cr_await", None) or getattr(holder, "gi_yieldfrom", None)
        yield "<frame>", frame
    if is_a(holder, asyncio.Future):
        if is_a(holder, asyncio.Task):
            yield "<coroutine>", holder.get_coro()
        if holder.done() and not holder.cancelled():
            yield ".exception()", holder._exception
            yield ".result()", holder._result
        for callback, context in getattr(holder, "_callbacks", None) or ():
            yield "<done callback>", callback
            yield "<done callback's context>", context
        yield "<waits for>", getattr(holder, "_fut_waiter", None)
        # Where there are several callbacks the real list of them cannot be asked for by name.
        yield from (("<done callbacks>", part) for part in gc.get_referents(holder) if type(part) is list)
    if is_a(holder, BaseException):
        for name in ("__cause__", "__context__", "args"):
            yield f".{name}", getattr(holder, name)
        yield ".__traceback__", holder.__traceback__
        for frame in _frames(holder.__traceback__):
            yield f".__traceback__<frame {frame.f_code.co_qualname}>", frame
    if is_a(holder, types.TracebackType):
        for frame in _frames(holder):
            yield f"<frame {frame.f_code.co_qualname}>", frame


def _frames(traceback: types.TracebackType | None) -> Iterator[types.FrameType]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _attributes(holder: Any) -> Iterator[tuple[str, Any]]:
    """Slots, attributes that a type keeps in C, and the values of `__dict__`."""
    for kind in type(holder).__mro__:
        for name, descriptor in vars(kind).items():
            if isinstance(descriptor, types.MemberDescriptorType):
                try:
                    yield f".{_unmangled(kind, name)}", descriptor.__get__(holder)
                except AttributeError:
                    continue  # A slot that was never filled.
    if (namespace := _namespace(holder)) is not None:
        yield from ((f".{name}", value) for name, value in namespace.items())


def _unmangled(kind: type, name: str) -> str:
    prefix = f"_{kind.__name__.lstrip('_')}__"
    return f"__{name.removeprefix(prefix)}" if name.startswith(prefix) else name
