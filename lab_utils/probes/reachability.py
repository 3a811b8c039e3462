"""Walks the object graph from each user's roots, assigns an owner to every object it finds, and reports the objects of
two users.

The walk sees the references that the cyclic collector sees (`gc.get_referents`), one step for each strong reference. It
does not follow weak references: nobody holds an object by one. It cannot see memory of an extension that is hidden from
the collector: rows in a sqlite3 database, the inside of an extension's type without `tp_traverse`. Two users of one
connection are found all the same, for the connection is an object. The variables of a running frame are not shown
either, nor the globals of functions walked: for those see `in_code`.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lab_utils.probes.kinds import Kind, is_a, kinds, parts_of, walked
from lab_utils.probes.owning import Conflict, Walk, as_text, is_text
from lab_utils.probes.paths import described, short

__all__ = ["InCode", "Reached", "Shared", "Survey", "reach", "survey"]

Roots = Mapping[str, Mapping[str, object]]

_EXPLAINED: Final = 20


@dataclass(frozen=True, slots=True)
class Reached:
    """Everything reached from one user's roots: objects by id, each with the step that led to it."""

    owner: str
    objects: Mapping[int, Any]
    texts: Mapping[str, int]
    came_from: Mapping[int, int]
    root_names: Mapping[int, str]

    def path_to(self, item: Any) -> str:
        """The shortest path from a root to the object (or to the holder of the text), readable."""
        if is_a(item, str) and item in self.texts:
            holder = self.objects[self.texts[item]]
            steps = self._steps(holder)
            return described(self.root_names[id(steps[0])], [*steps, self._exact(holder, item)])
        steps = self._steps(item)
        return described(self.root_names[id(steps[0])], steps)

    def _steps(self, item: object) -> list[Any]:
        steps = [item]
        while id(steps[-1]) not in self.root_names:
            steps.append(self.objects[self.came_from[id(steps[-1])]])
        return steps[::-1]

    def _exact(self, holder: Any, text: str) -> Any:
        """The very object whose text it is: bytes are searched as text, too."""
        return next((part for part in parts_of(holder) if is_text[type(part)] and as_text(part) == text), text)


@dataclass(frozen=True, slots=True)
class Shared:
    """A changeable object that several users reach, with the shortest path of two of them."""

    item: Any
    users: tuple[str, ...]
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InCode:
    """Something of a user's that code holds, a class or a module: in reach of everybody who runs it."""

    user: str
    path: str


@dataclass(frozen=True, slots=True)
class Survey:
    """The objects that users reach, each owned by the first who did.

    `objects`: how many were walked. `shared`: objects that several users reach, the first of each chain, explained;
    `more_shared`: how many more were not explained. `texts`: of each user, the texts in reach with the marker that was
    searched. `met`: how often each trusted kind, and each declared object (`declared: ...`), was met and left alone,
    and `references` how many were looked at, if that was asked. `in_code`: objects of a user that classes and modules
    hold.
    """

    objects: int
    references: int
    shared: tuple[Shared, ...]
    more_shared: int
    texts: Mapping[str, frozenset[str]]
    met: Mapping[str, int]
    in_code: tuple[InCode, ...]
    path: Callable[[str, object], str] = field(repr=False)
    """(user, object or text) -> the shortest path; walks that user again."""


def reach(owner: str, roots: Mapping[str, object], trusted: Iterable[object] = (), text: str = "") -> Reached:
    """Walk breadth first from the roots (name -> object), so that every path found is a shortest one.

    With `text`, the texts (and bytes) in which it occurs are kept too, each with the first object that holds it.
    """
    skip = {id(item) for item in trusted}
    objects: dict[int, Any] = {}
    came_from: dict[int, int] = {}
    names: dict[int, str] = {}
    texts: dict[str, int] = {}
    todo: list[Any] = []
    for name, root in roots.items():
        if walked[type(root)] and id(root) not in skip and id(root) not in objects:
            objects[id(root)] = root
            names[id(root)] = f"{owner}.{name}" if owner else name
            todo.append(root)
    for item in todo:  # It grows as it is walked.
        for held in parts_of(item):
            if text and is_text[type(held)]:
                words = as_text(held)
                if text in words:
                    texts.setdefault(words, id(item))
            if walked[type(held)] and id(held) not in objects and id(held) not in skip:
                objects[id(held)] = held
                came_from[id(held)] = id(item)
                todo.append(held)
    return Reached(owner, objects, texts, came_from, names)


def survey(
    roots: Roots,
    trusted: Iterable[object] = (),
    *,
    text: str = "",
    modules: Callable[[str], bool] | None = None,
    met: bool = False,
    explain: int = _EXPLAINED,
) -> Survey:
    """Walk from every user's roots (user -> name -> object), one user after another, each object once.

    Trusted objects are not walked: the kinds of `kinds.TRUSTED_KINDS`, and the objects in `trusted`. An object of two
    users is shared unless nothing can be changed through it. A frozen one is walked through, so that the report names
    the changeable thing behind it. With `text`, texts that have it are kept. With `modules` (is the module of this name
    to be searched?) the classes and modules of the objects reached are searched for users' objects. With `met`, a
    second pass counts the trusted objects. The collector is off meanwhile. Costs one pass, and one more over the users
    named in the first `explain` shared objects.
    """
    declared = list(trusted)
    names = list(roots)
    again: dict[str, Reached] = {}

    def path(user: str, item: object) -> str:
        if user not in again:
            again[user] = reach(user, roots[user], declared, text)
        return again[user].path_to(item)

    with _collector_paused():
        walk = Walk(declared, text)
        for number, own in enumerate(roots.values()):
            walk.user(number, own)
        objects = walk.objects
        texts = {names[number]: frozenset(found) for number, found in walk.texts.items()}
        conflicts: list[Conflict] = [(item, users, {}) for item, users in walk.shared.values()]
        conflicts += walk.changed_behind()
        shared = []
        for item, users, readers in conflicts[:explain]:
            known = tuple(dict.fromkeys(users))
            paths = [
                f"{path(names[user], readers[user])}, which reads {short(item)}"
                if user in readers
                else path(names[user], item)
                for user in known[:2]
            ]
            shared.append(Shared(item, tuple(names[user] for user in known), tuple(paths)))
        more = len(conflicts) - len(shared)
        times, references = walk.met() if met else ({}, 0)
        in_code = () if modules is None else tuple(_in_code(walk, names, modules))
        return Survey(objects, references, tuple(shared), more, texts, times, in_code, path)


def _in_code(walk: Walk, names: list[str], modules: Callable[[str], bool]) -> Iterator[InCode]:
    """The users' objects, or the texts searched for, in the classes and modules of the objects reached."""
    holders = dict(_code_of(walk.kept(), modules))
    nobody = len(names)
    walk.user(nobody, holders)
    hits = [(item, users) for item, users in walk.shared.values() if nobody in users]
    texts = walk.texts.get(nobody, set())
    if not hits and not texts:
        return
    known = reach("", holders, walk.trusted, walk.text)
    for item, users in hits:
        yield InCode(names[users[0]], known.path_to(item))
    for words in sorted(texts):
        yield InCode("", known.path_to(words))


def _code_of(walked_through: Iterable[Any], modules: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    """By name, the values in the namespaces of the classes and modules of the objects reached."""
    kept = list(walked_through)
    classes = {base for kind in set(map(type, kept)) for base in kind.__mro__}
    # Some types of extension modules put a descriptor in the place of the name.
    named_by: list[tuple[object, type]] = [(kind.__module__, kind) for kind in classes]
    searched = [kind for name, kind in named_by if isinstance(name, str) and modules(name)]
    searched.sort(key=lambda kind: kind.__qualname__)
    functions = {item.__module__ for item in kept if is_a(item, types.FunctionType)}
    named = {kind.__module__ for kind in searched} | {name for name in functions if name and modules(name)}
    holders: list[tuple[str, Any]] = [(kind.__qualname__, kind) for kind in searched]
    holders += [(name, sys.modules[name]) for name in sorted(named) if name in sys.modules]
    for name, holder in holders:
        for key, value in list(vars(holder).items()):
            # Python's own names, in every module: in a notebook they lead to all that its cells have answered.
            if key == "__builtins__":
                continue
            if kinds[type(value)] is Kind.CODE:
                value = getattr(value, "__func__", getattr(value, "fget", value))
            if walked[type(value)]:
                yield f"{name}.{key}", value


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
