"""Every object that two users share is found, by the shortest path; unchangeable and trusted ones are not."""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import dataclasses
import enum
import functools
import gc
import logging
import threading
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from lab_utils.probes.kinds import Kind, is_application_module, is_lab_module, kinds
from lab_utils.probes.reachability import Survey, reach, survey

USERS = ("ann", "bob")


class Thing:
    """An agent, or anything else that can be changed."""

    def __init__(self, held: object = None) -> None:
        self.held = held

    def method(self) -> object:
        return self.held


class Slotted:
    __slots__ = ("__hidden", "held")

    def __init__(self, hidden: object) -> None:
        self.__hidden = hidden


class Stateless:
    __slots__ = ()


class Sealed:
    """Frozen as a context of the registry is: its class only ever refuses."""

    __slots__ = ("held",)
    held: Any

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name} cannot be deleted")


class HalfSealed:
    """Its fields cannot be set again, and can be deleted."""

    __slots__ = ("held",)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name} cannot be set")


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    held: object = None


@dataclasses.dataclass(frozen=True)
class FrozenWithDict:
    held: object = None


@dataclasses.dataclass
class Open:
    held: object = None


class Colour(enum.Enum):
    RED = "red"


class Name(str):  # noqa: SLOT000  # That is the point of it.
    """A str with attributes of its own."""


Pair = namedtuple("Pair", "first second")  # noqa: PYI024  # As old code has them.
VARIABLE: contextvars.ContextVar[Any] = contextvars.ContextVar("current")


def walk(make: Callable[[], object], **options: Any) -> Survey:
    """The survey of two users, each with an agent that holds the result of `make`."""
    return survey({user: {"agent": Thing(make())} for user in USERS}, **options)


def sealed(held: object) -> Sealed:
    made = Sealed.__new__(Sealed)
    object.__setattr__(made, "held", held)
    return made


def closure(held: object) -> Callable[[], object]:
    def run() -> object:
        return held

    return run


def counter() -> Callable[[], int]:
    count = 0

    def run() -> int:
        nonlocal count
        count += 1
        return count

    return run


def deep_counter() -> Callable[[], Callable[[], int]]:
    count = 0

    def outer() -> Callable[[], int]:
        def inner() -> int:
            nonlocal count
            count += 1
            return count

        return inner

    return outer


def with_default(held: object) -> Callable[..., object]:
    def run(kept: object = held, *, other: object = None) -> object:
        return kept or other

    return run


def with_keyword_default(held: object) -> Callable[..., object]:
    def run(*, kept: object = held) -> object:
        return kept

    return run


def with_attribute(held: object) -> Callable[[], None]:
    def run() -> None:
        """Nothing."""

    run.kept = held  # type: ignore[attr-defined]
    return run


def generator(held: object) -> Iterator[object]:
    def run(kept: object) -> Iterator[object]:
        yield kept
        yield None

    made = run(held)
    next(made)
    return made


def error(held: object) -> ValueError:
    def failing(kept: object) -> None:
        raise ValueError(type(kept))

    try:
        failing(held)
    except ValueError as caught:
        return caught
    raise AssertionError


def context(held: object) -> contextvars.Context:
    made = contextvars.Context()
    made.run(VARIABLE.set, held)
    return made


def cached(held: object) -> Any:
    @functools.lru_cache(maxsize=None)  # noqa: UP033  # Either way, a cache in C.
    def run(key: str) -> object:
        return held

    run("key")
    return run


def local(held: object) -> threading.local:
    made = threading.local()
    made.kept = held
    return made


def caused(held: object) -> ValueError:
    made = ValueError()
    made.__cause__ = KeyError(held)
    return made


def annotated() -> Callable[[], int]:
    def run(number: int = 1) -> int:
        return number

    assert run.__annotations__  # Asking for them makes them: a dictionary in the function's hands.
    return run


SECRET = Thing("secret")

HOLDERS: dict[str, tuple[Callable[[object], object], str]] = {
    "attribute": (Thing, ".held"),
    "slot": (Slotted, ".__hidden"),
    "dataclass": (Open, ".held"),
    "frozen": (Frozen, ".held"),
    "frozen with a dict": (FrozenWithDict, ".held"),
    "sealed": (sealed, ".held"),
    "list": (lambda held: [1, held], "[1]"),
    "tuple": (lambda held: (1, held), "[1]"),
    "namedtuple": (lambda held: Pair(1, held), ".second"),
    "dict": (lambda held: {"q1": held}, "['q1']"),
    "key": (lambda held: {held: 1}, ".key("),
    "ordered": (lambda held: OrderedDict(q1=held), "['q1']"),
    "default": (lambda held: defaultdict(list, q1=held), "['q1']"),
    "set": (lambda held: {held}, ".<element>"),
    "frozenset": (lambda held: frozenset({held}), ".<element>"),
    "deque": (lambda held: deque([held]), "[0]"),
    "values": (lambda held: {"q1": held}.values(), ".<dict>['q1']"),
    "proxy": (lambda held: types.MappingProxyType({"q1": held}), "['q1']"),
    "closure": (closure, "<closure held>"),
    "default argument": (with_default, "<default kept>"),
    "keyword default": (with_keyword_default, "<default kept>"),
    "function attribute": (with_attribute, ".kept"),
    "partial": (lambda held: functools.partial(print, held), ".args[0]"),
    "partial keyword": (lambda held: functools.partial(print, sep=held), ".keywords['sep']"),
    "bound method": (lambda held: Thing(held).method, ".__self__.held"),
    "generator": (generator, "<local kept>"),
    "error": (error, ".__traceback__<frame error><local held>"),
    "cause": (caused, ".__cause__.args[0]"),
    "context": (context, "[contextvar current]"),
    "cache": (cached, "<cache>"),
    "thread local": (local, ".kept"),
    "weak callback": (lambda held: weakref.ref(SECRET, functools.partial(print, held)), "<callback>.args[0]"),
    "simple namespace": (lambda held: types.SimpleNamespace(q1=held), ".q1"),
    "iterator": (lambda held: iter([held]), ".<list>[0]"),
}


@pytest.mark.parametrize("how", HOLDERS)
def test_one_object_of_two_users_is_found_however_it_is_held_and_each_user_s_own_is_not(how: str) -> None:
    hold, step = HOLDERS[how]
    shared = Thing("row")
    found = walk(lambda: hold(shared))
    assert [one.item for one in found.shared] == [shared], found.shared
    assert found.shared[0].users == USERS
    for user, path in zip(USERS, found.shared[0].paths, strict=True):
        assert path.startswith(f"{user}.agent.held{step}")
        assert path.endswith(f"-> {shared!r}")
    own = walk(lambda: hold(Thing("row")))
    assert (own.shared, own.more_shared) == ((), 0)
    assert own.objects >= 2


CHANGEABLE: dict[str, Callable[[], object]] = {
    "empty dict": dict,
    "dict of atoms": lambda: {"a": 1},
    "empty list": list,
    "empty set": set,
    "bytearray": lambda: bytearray(8),
    "counter": counter,
    "counter two functions deep": deep_counter,
    "lock": threading.Lock,
    "local": threading.local,
    "cache": lambda: cached(1),
    "context": contextvars.Context,
    "generator": lambda: generator(1),
    "deque": deque,
    "Counter": Counter,
    "partial": lambda: functools.partial(print),
    "method": lambda: Thing().method,
    "append": lambda: [].append,
    "view of a buffer": lambda: memoryview(bytearray(4)),
    "text with attributes": lambda: Name("text"),
    "half sealed": lambda: HalfSealed.__new__(HalfSealed),
    "dataclass": Open,
    "exception": lambda: ValueError("text"),
    "file": lambda: __import__("io").BytesIO(),
    "tuple of a dict": lambda: (1, {}),
    "frozen with a list": lambda: Frozen([]),
    "frozen, far down": lambda: Frozen((frozenset({1}), Frozen(closure((1, {}))))),
}

IMMUTABLE: dict[str, Callable[[], object]] = {
    "text": lambda: "text" * 20,
    "big number": lambda: 10**40,
    "tuple": lambda: (1, ("a", (b"b", None))),
    "frozenset": lambda: frozenset({(1, 2), "a"}),
    "namedtuple": lambda: Pair(1, 2),
    "member": lambda: Colour.RED,
    "class": lambda: Thing,
    "module": lambda: types,
    "builtin": lambda: len,
    "function": lambda: closure(("a", 1)),
    "function of functions": lambda: closure((closure(1), with_default("a"))),
    "annotated function": annotated,
    "lambda with a default": lambda: with_keyword_default((1, 2)),
    "frozen": lambda: Frozen((1, Colour.RED)),
    "frozen with a dict": lambda: FrozenWithDict(Frozen(1)),
    "sealed": lambda: sealed("text"),
    "stateless": Stateless,
    "sentinel": object,
    "proxy": lambda: types.MappingProxyType({"a": (1, 2)}),
    "read-only view": lambda: memoryview(b"1234"),
    "weak reference": lambda: weakref.ref(SECRET),
    "method of a frozen object": lambda: Frozen("a").__eq__,
    "logger": lambda: logging.getLogger("somebody's"),
    "range": lambda: range(3),
    "slice": lambda: slice(1, 2),
}


@pytest.mark.parametrize("what", CHANGEABLE)
def test_what_can_change_is_a_finding(what: str) -> None:
    shared = CHANGEABLE[what]()
    found = walk(lambda: shared)
    assert len(found.shared) == 1, what
    assert len(found.shared[0].paths) == 2


@pytest.mark.parametrize("what", IMMUTABLE)
def test_what_cannot_change_is_none(what: str) -> None:
    shared = IMMUTABLE[what]()
    found = walk(lambda: [shared])
    assert found.shared == (), found.shared


def test_a_frozen_object_with_an_open_dict_is_seen_through() -> None:
    shared = FrozenWithDict(1)
    assert shared.__dict__ == {"held": 1}  # Asking for it makes it.
    assert walk(lambda: shared).shared == ()


def test_the_changeable_thing_behind_frozen_ones_is_named() -> None:
    inner: list[int] = []
    shared = Frozen((1, closure(inner)))
    found = walk(lambda: shared)
    assert [one.item for one in found.shared] == [inner]
    assert found.shared[0].paths[1] == "bob.agent.held.held[1]<closure held> -> []"


def test_a_read_only_view_is_a_finding_if_another_user_holds_what_is_behind() -> None:
    settings = {"model": "standard"}
    held = iter([types.MappingProxyType(settings), settings])
    found = walk(lambda: next(held))
    assert [one.item for one in found.shared] == [settings]
    assert set(found.shared[0].users) == {"ann", "bob"}
    assert "mappingproxy({'model': 'standard'}), which reads" in found.shared[0].paths[1]


def test_a_variable_that_one_user_s_function_sets_is_a_finding_for_the_other_who_reads_it() -> None:
    def pair() -> tuple[Callable[[], int], Callable[[int], None]]:
        value = 0

        def read() -> int:
            return value

        def write(new: int) -> None:
            nonlocal value
            value = new

        return read, write

    functions = iter(pair())
    found = walk(lambda: next(functions))
    assert len(found.shared) == 1
    assert isinstance(found.shared[0].item, types.CellType)


def test_a_root_that_two_users_share_is_found() -> None:
    shared = Thing()
    found = survey({user: {"agent": shared} for user in USERS})
    assert found.shared[0].paths == (f"ann.agent -> {shared!r}", f"bob.agent -> {shared!r}")


def test_all_who_share_are_named_and_only_so_many_are_explained_and_nothing_below_them() -> None:
    shared = [Thing([Thing({"a": [number]})]) for number in range(5)]
    roots = {user: {"agent": Thing(list(shared))} for user in ("ann", "bob", "eve")}
    found = survey(roots, explain=2)
    assert len(found.shared) == 2
    assert found.more_shared == 3
    assert found.shared[0].users == ("ann", "bob", "eve")


def test_paths_are_the_shortest() -> None:
    secret = Thing("row")
    reached = reach("ann", {"agent": Thing({"far": [Thing(secret)], "near": secret})})
    assert reached.path_to(secret) == f"ann.agent.held['near'] -> {secret!r}"


def test_a_path_through_an_open_dict_reads_as_one_without() -> None:
    agent = Thing(Thing("row"))
    assert agent.__dict__
    assert reach("ann", {"agent": agent}).path_to(agent.held).startswith("ann.agent.held -> ")


def test_trusted_objects_are_not_walked_and_are_counted() -> None:
    trusted, inside = Thing("infrastructure"), Thing()
    trusted.held = inside
    found = walk(lambda: (trusted, Thing, asyncio), trusted=[trusted], met=True)
    assert found.shared == ()
    assert found.met[f"declared: <{__name__}.Thing object>"] == 2
    assert found.met["class"] >= 2
    assert found.met["module"] == 2
    assert found.references > found.objects


def test_what_is_trusted_two_frozen_objects_deep_is_counted_by_each_way_to_it() -> None:
    trusted = Thing()
    tools = (trusted, "text")
    held = Frozen(tools)
    # A list shows its last element first.
    found = survey({user: {"agent": Thing([held, tools])} for user in ("ann", "bob", "eve")}, [trusted], met=True)
    assert found.met[f"declared: <{__name__}.Thing object>"] == 5  # Once for ann, who came first, and twice each.


def test_one_s_own_view_of_one_s_own_settings_is_no_finding() -> None:
    def own() -> object:
        settings = {"model": "standard"}
        return [settings, types.MappingProxyType(settings)]

    assert walk(own).shared == ()


def test_functions_that_hold_themselves_are_walked_once() -> None:
    inner: list[int] = []

    def again(left: int) -> object:
        return again(left - 1) if left else inner

    assert [one.item for one in walk(lambda: again).shared] == [inner]


def test_a_path_through_several_frames_of_an_error_names_the_one() -> None:
    def deepest() -> None:
        kept = Thing("row")
        raise ValueError(len(kept.__dict__))

    def outer() -> ValueError:
        try:
            deepest()
        except ValueError as caught:
            return caught
        raise AssertionError

    caught = outer()
    assert caught.__traceback__ is not None
    assert caught.__traceback__.tb_next is not None
    kept = caught.__traceback__.tb_next.tb_frame.f_locals["kept"]
    name = "test_a_path_through_several_frames_of_an_error_names_the_one.<locals>.deepest"
    path = reach("ann", {"agent": Thing(caught)}).path_to(kept)
    assert path.startswith(f"ann.agent.held.__traceback__<frame {name}><local kept> -> ")


def test_weak_references_are_not_followed() -> None:
    shared = Thing()
    found = walk(lambda: [weakref.ref(shared), weakref.WeakValueDictionary({"a": shared})])
    assert found.shared == ()


def test_texts_are_found_in_every_kind_of_place_and_lead_to_a_path() -> None:
    held = {"canary<k>": [b"canary<b>", ("canary<t>",)], "a": bytearray(b"canary<a>"), "n": Name("canary<n>")}
    found = survey({"ann": {"agent": Thing(held)}, "bob": {"agent": Thing("canary<own>")}}, text="canary<")
    assert found.texts == {
        "ann": {"canary<k>", "canary<b>", "canary<t>", "canary<a>", "canary<n>"},
        "bob": {"canary<own>"},
    }
    assert found.path("ann", "canary<t>").startswith("ann.agent.held['canary<k>'][1][0] -> ")
    assert found.path("ann", "canary<b>") == "ann.agent.held['canary<k>'][0] -> b'canary<b>'"


def test_a_text_in_a_shared_immutable_object_is_in_reach_of_both_and_kept_only_where_one_is_searched() -> None:
    shared = ("canary<ann>",)
    assert walk(lambda: shared, text="canary<").texts == {"ann": {"canary<ann>"}, "bob": {"canary<ann>"}}
    assert walk(lambda: shared).texts == {}


class Remembering(Thing):
    shelf: dict[str, object] = {}  # noqa: RUF012  # The defect.


CACHE: dict[str, object] = {}


def own_modules(name: str) -> bool:
    return name == __name__


def test_what_a_class_or_a_module_holds_of_a_user_is_found() -> None:
    roots = {user: {"agent": Remembering(Thing(user))} for user in USERS}
    Remembering.shelf["last"] = [roots["ann"]["agent"].held]
    CACHE["text"] = "canary<bob>"
    try:
        found = survey(roots, text="canary<", modules=own_modules)
        assert survey(roots, text="canary<", modules=lambda _: False).in_code == ()
    finally:
        Remembering.shelf.clear()
        CACHE.clear()
    said = {(one.user, one.path.partition(" -> ")[0]) for one in found.in_code}
    assert ("ann", "Remembering.shelf['last'][0]") in said
    assert ("", f"{__name__}.CACHE['text']") in said
    assert found.shared == ()


def test_what_classes_and_modules_hold_of_their_own_is_no_finding() -> None:
    Remembering.shelf["nobody's"] = Thing()
    try:
        found = survey({user: {"agent": Remembering()} for user in USERS}, modules=own_modules)
    finally:
        Remembering.shelf.clear()
    assert found.in_code == ()


def test_what_ipython_keeps_among_the_builtins_is_no_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "what_a_cell_answered", ["answered<ann>"], raising=False)
    assert globals()["__builtins__"] is vars(builtins)
    roots = {user: {"agent": Remembering()} for user in USERS}
    # A text of its own: the module leads to pytest's session, which holds the canaries of other tests.
    assert survey(roots, text="answered<", modules=own_modules).in_code == ()


def test_the_walk_leaves_the_collector_as_it_was_and_frees_what_it_held() -> None:
    agent = Thing(Thing())
    gone = weakref.ref(agent.held)
    assert gc.isenabled()
    found = survey({"ann": {"agent": agent}})
    assert gc.isenabled()
    assert found.objects == 2
    del agent.held
    assert gone() is None


def test_attributes_that_a_function_was_given_are_code_and_what_is_kept_in_them_is_not() -> None:
    def plain() -> None: ...

    @functools.wraps(plain)
    def decorated() -> None: ...

    assert vars(plain) == {}, "asked for, and so made"
    assert not walk(lambda: [plain, decorated]).shared
    vars(decorated)["cache"] = {}
    found = walk(lambda: [plain, decorated])
    assert [one.item for one in found.shared] == [{}]
    assert found.shared[0].paths[0].endswith(".cache -> {}")


def test_functions_are_not_given_attributes_by_a_walk() -> None:
    function = closure(1)
    before = gc.get_referents(function)
    walk(lambda: function)
    assert [id(part) for part in gc.get_referents(function)] == [id(part) for part in before]


def test_a_frame_of_the_lab_in_a_traceback_is_not_walked() -> None:
    namespace: dict[str, Any] = {"__name__": "lab_utils.checks.made_up"}
    lines = ["def driving(call, everything):", " try:", "  call()", " except ValueError as error:", "  return error"]
    exec("\n".join(lines), namespace)
    everything = Thing()

    def call() -> None:
        raise ValueError

    errors = {user: namespace["driving"](call, everything) for user in USERS}
    found = survey({user: {"agent": Thing(errors[user])} for user in USERS})
    assert everything not in [one.item for one in found.shared]


def test_arrays_share_their_base_and_what_is_in_them() -> None:
    numpy = pytest.importorskip("numpy")
    whole, row = numpy.zeros(8), Thing("row")
    views = iter([whole[:4], whole[4:]])
    assert [one.item is whole for one in walk(lambda: next(views)).shared] == [True]
    arrays = iter([numpy.array([row], dtype=object) for _ in USERS])
    assert [one.item for one in walk(lambda: next(arrays)).shared] == [row]
    own = iter([numpy.zeros(3) for _ in USERS])
    assert walk(lambda: next(own)).shared == ()


async def test_tasks_and_coroutines_are_walked() -> None:
    shared = Thing("row")

    async def work(kept: object) -> None:
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(work(shared)) for _ in USERS]
    await asyncio.sleep(0)
    made = iter(tasks)
    found = walk(lambda: next(made))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    paths = {one.item: one.paths for one in found.shared}
    assert "<coroutine><local kept> -> " in paths[shared][0]


def test_the_lab_s_own_modules_are_told_from_its_targets() -> None:
    assert is_lab_module("lab_utils.trial.trial")
    assert is_lab_module("lab_utils")
    assert not is_lab_module("lab_utils.targets.reference")
    assert not is_lab_module("lab_utils_of_another")
    assert is_application_module("registry._sessions.session")
    assert is_application_module("lab_utils.targets.reference")
    assert not is_application_module("asyncio.tasks")
    assert not is_application_module("lab_utils.runner.runner")


def test_kinds_of_types() -> None:
    assert kinds[HalfSealed] is Kind.OWNED
    assert kinds[Sealed] is Kind.FROZEN
    assert kinds[Stateless] is Kind.ATOM
    assert kinds[Colour] is Kind.CODE
