"""Explains a leak: walks backwards from an object that should be gone to whatever still holds it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from lab_utils.probes.allocation import allocated_at
from lab_utils.probes.kinds import frame_of, is_a, is_lab_module
from lab_utils.probes.paths import described, short, variables

__all__ = ["chain_to", "explained", "held_by"]

_DEPTH: Final = 32
_WIDTH: Final = 64
"""How many holders are followed at each distance; all of one distance cost one pass over all there is."""

_TRIES: Final = 100

Name = str


def explained(item: object, ignore: Iterable[object] = (), roots: Mapping[Name, object] | None = None) -> str:
    """Both that explain a leak: who holds the object, and where it was allocated."""
    return f"{held_by(item, ignore, roots)}; {allocated_at(item)}"


def held_by(
    item: object, ignore: Iterable[object] = (), roots: Mapping[Name, object] | None = None, depth: int = _DEPTH
) -> str:
    """Return the shortest chain of holders found, from one that a reader knows down to the item, as readable text.

    Known are modules, classes, tasks that are not done, timers, live threads and their running functions, event loops,
    and `roots` (name -> object). Where none is found within `depth` steps, the text names a cycle, or the last holder
    that the collector sees. It does not see C code's own references, nor a container that it does not track (before
    3.14 a tuple or dictionary of nothing but plain values). The lab's own frames, functions and objects are never
    blamed, nor any object in `ignore` (the caller's lists). Costs a pass over all objects for each step of distance, so
    call it for findings only.
    """
    search = _Search(item, ignore, roots or {})
    return search.to_a_root(depth) or search.without_root()


def chain_to(
    item: object, ignore: Iterable[object] = (), roots: Mapping[Name, object] | None = None, depth: int = _DEPTH
) -> str | None:
    """The chain of `held_by` from something known; None if there is none, as for objects that only the lab holds."""
    return _Search(item, ignore, roots or {}).to_a_root(depth)


class _Search:
    """One walk backwards: everything met, each with the object it holds on the way to the item."""

    def __init__(self, item: object, ignore: Iterable[object], roots: Mapping[Name, object]) -> None:
        gc.unfreeze()  # What a program has set aside, as a server does before it forks, holds objects all the same.
        self.item = item
        self.layer: list[Any] = [item]
        self.met: dict[int, Any] = {id(item): item}
        self.holds: dict[int, int] = {}
        self.closes: list[int] = []  # Objects that the item itself holds, on a way that leads back to it.
        self.ring: tuple[int, int] | None = (
            None  # A holder, and an object that it holds on a way that leads back to it.
        )
        self.unheld: list[int] = []
        self.ignored = {id(thing) for thing in ignore}
        self.named = {id(root): name for name, root in roots.items()}

    def to_a_root(self, depth: int) -> str | None:
        """Walk back until something known is met; None if nothing is."""
        for _ in range(depth):
            if not self.layer:
                break
            if (root := self.step_back()) is not None:
                return self.text(*root)
        return next(
            (self.text(where, id(value)) for where, value in _variables_of_threads() if id(value) in self.met), None
        )

    def step_back(self) -> tuple[Name, int] | None:
        """Look at all holders of the layer at once; return the first root among them, by name and id."""
        layer = {id(held): held for held in self.layer}
        # A tuple of our own: Python 3.13 would find the one that a list is unpacked into.
        arguments = tuple(self.layer)
        found = gc.get_referrers(*arguments) + _tasks_unseen()
        ours = {*self.ignored, *map(id, (self.layer, layer, arguments, found, self.met, self.__dict__, self))}
        held_at_all: set[int] = set()
        nearer: list[Any] = []
        root: tuple[Name, int] | None = None
        for holder in found:
            if id(holder) in ours or _is_the_labs(holder):
                continue
            parts = _held(holder, layer)
            held_at_all.update(parts)
            if holder is self.item:
                self.closes += parts
            if id(holder) in self.met or not parts:
                self.ring = self.ring or self._ring(holder, parts)
                continue
            self.met[id(holder)] = holder
            self.holds[id(holder)] = parts[0]
            nearer.append(holder)
            name = self.named.get(id(holder)) or _root_name(holder)
            # The caller's own names say most to the reader.
            if name and (root is None or id(holder) in self.named):
                root = (name, id(holder))
        self.unheld += [key for key in layer if key not in held_at_all]
        self.layer = nearer[:_WIDTH]
        return root

    def text(self, name: Name, key: int) -> str:
        """The chain from the holder down to the item."""
        chained = self._chain(key)
        module = sys.modules.get(name)
        if module is not None and chained[0] is vars(module):
            chained.insert(0, module)
        return described(name, chained)

    def without_root(self) -> str:
        """The text for a walk that met nothing known."""
        if self.closes:
            return f"a cycle: {described(_plain(self.item), [self.item, *self._chain(self.closes[0])])}"
        ring = ""
        if self.ring is not None:
            first, second = self.ring
            ring = f"a cycle: {described(_plain(self.met[first]), [self.met[first], *self._chain(second)])}"
        outer = [key for key in self.unheld if key != id(self.item)]
        if outer:
            chained = self._chain(outer[0])
            last = f"held by nothing that the collector sees: {described(_plain(chained[0]), chained)}"
            return f"{ring}; also {last}" if ring else last
        if ring:
            return ring
        if self.layer:
            chained = self._chain(id(self.layer[0]))
            return f"held from farther away than was looked: {described(_plain(chained[0]), chained)}"
        if self.holds:
            chained = self._chain(next(reversed(self.holds)))
            return f"held by an object that only a cycle holds: {described(_plain(chained[0]), chained)}"
        return (
            f"nothing that the collector sees holds {short(self.item)}; its holder is C code, a running function, or a "
            "container of plain values"
        )

    def _ring(self, holder: Any, parts: Iterable[int]) -> tuple[int, int] | None:
        """The holder and one of its parts, if the way from that part down to the item comes through the holder."""
        if id(holder) == id(self.item):
            return None
        through = (part for part in parts if any(one is holder for one in self._chain(part)[1:]))
        return next(((id(holder), part) for part in through), None)

    def _chain(self, key: int) -> list[Any]:
        chained = [self.met[key]]
        while key != id(self.item):
            key = self.holds[key]
            chained.append(self.met[key])
        return chained


def _held(holder: Any, layer: Mapping[int, Any]) -> list[int]:
    """Those of the layer that the holder refers to, by id."""
    if is_a(holder, types.ModuleType):
        # Never the objects that the module itself shows: `_asyncio` in Python 3.12 shows objects that it keeps for
        # reuse. Taking hold of one frees it a second time. The free list then becomes a circle, and the next pass over
        # all objects, the collector's included, goes round it for ever.
        return [key for key, held in layer.items() if any(one is holder for one in gc.get_referrers(held))]
    return [id(part) for part in gc.get_referents(holder) if id(part) in layer]


def _tasks_unseen() -> list[Any]:
    """Before 3.12 `gc.get_referrers` does not find a task by its result, error and callbacks."""
    known = getattr(asyncio.tasks, "_all_tasks", None) if sys.version_info < (3, 12) else None
    for _ in range(_TRIES):
        # Another thread's loop may make a task meanwhile.
        with contextlib.suppress(RuntimeError):
            return list(known or ())
    return []


def _root_name(item: Any) -> Name | None:
    """The name by which a reader knows the object, if it is something that holds on by itself."""
    if is_a(item, types.ModuleType):
        return str(item.__name__)
    if is_a(item, dict):
        name = item.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) else None
        return name if module is not None and vars(module) is item else None
    if is_a(item, type):
        return f"{item.__module__}.{item.__qualname__}"
    if is_a(item, asyncio.Task):
        return None if item.done() else f"task {item.get_name()!r} ({_plain(item.get_coro())})"
    if is_a(item, asyncio.Handle):
        kind = "timer" if is_a(item, asyncio.TimerHandle) else "callback that is due"
        callback = getattr(item, "_callback", None)
        return None if item.cancelled() else f"{kind} ({_plain(callback)})"
    if is_a(item, threading.Thread):
        return f"thread {item.name!r}" if item.is_alive() else None
    return "event loop" if is_a(item, asyncio.AbstractEventLoop) else None


def _is_the_labs(item: Any) -> bool:
    """True for an object that the lab uses to drive and to look."""
    frame = item if is_a(item, types.FrameType) else frame_of(item)
    if frame is not None:
        return is_lab_module(frame.f_globals.get("__name__"))
    if is_a(item, types.FunctionType):
        return is_lab_module(item.__module__)
    if is_a(item, dict) and "__spec__" in item:
        return is_lab_module(item.get("__name__"))
    return is_lab_module(type(item).__module__)


def _variables_of_threads() -> Iterator[tuple[str, Any]]:
    """The variables of code running in other threads, which the collector does not see."""
    own = threading.get_ident()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, top in sys._current_frames().items():
        frame: types.FrameType | None = top if ident != own else None
        while frame is not None:
            if not is_lab_module(frame.f_globals.get("__name__")):
                for name, value in variables(frame).items():
                    yield f"thread {names.get(ident, ident)!r} in {frame.f_code.co_qualname}<local {name}>", value
            frame = frame.f_back


def _plain(item: Any) -> str:
    """An object by the name of the code it runs, or of its type."""
    name = getattr(item, "__qualname__", None)
    if not isinstance(name, str):
        return type(item).__qualname__
    module = getattr(item, "__module__", None)
    return f"{module}.{name}" if isinstance(module, str) else name
