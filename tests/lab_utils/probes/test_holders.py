"""The holder of an object that should be gone is named, up to something a reader knows, and the place of its
allocation."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import os
import socket
import sys
import threading
import tracemalloc
import types
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from lab_utils.probes.allocation import allocated_at
from lab_utils.probes.holders import chain_to, explained, held_by
from lab_utils.probes.leftovers import Before, growing, most_held
from lab_utils.probes.paths import step
from lab_utils.probes.reachability import survey
from tests.lab_utils.probes.test_reachability import closure, error, generator


class Thing:
    """Something that should be gone."""

    def __init__(self, held: object = None) -> None:
        self.held = held
        self.own = bytearray(64)

    def method(self) -> None:
        """Nothing."""


class Slotted:
    __slots__ = ("__weakref__", "held")
    shelf: list[object] = []  # noqa: RUF012  # The defect.

    def __init__(self, held: object = None) -> None:
        self.held = held


SHELF: list[Any] = []
LOCAL = threading.local()
VARIABLE: contextvars.ContextVar[object] = contextvars.ContextVar("current")


@functools.lru_cache(maxsize=None)  # noqa: UP033  # Either way, a cache in C.
def cached(_: object) -> int:
    return 1


def remember(_: object, seen: list[object] = []) -> None:  # noqa: B006  # The defect.
    seen.append(_)


async def waiting(_: object) -> None:
    await asyncio.Event().wait()


def expire(*_: object) -> None:
    """A timer's callback."""


def in_task(held: object) -> None:
    SHELF.append(asyncio.create_task(waiting(Slotted(held)), name="the watcher"))


def in_timer(held: object) -> None:
    SHELF.append(weakref.ref(asyncio.get_running_loop().call_later(60, expire, held)))


def in_timers_context(held: object) -> None:
    context = contextvars.Context()
    context.run(VARIABLE.set, held)
    asyncio.get_running_loop().call_later(60, expire, context=context)


def in_callbacks(count: int) -> Callable[[object], None]:
    def add(held: object) -> None:
        future = asyncio.get_running_loop().create_future()
        if count > 1:
            future.add_done_callback(expire)
        for _ in range(count):
            future.add_done_callback(functools.partial(expire, held))
        SHELF.append(future)

    return add


SHELF_NAME = f"{__name__}.SHELF"
HELD: dict[str, tuple[Callable[[object], object], str]] = {
    "module": (lambda held: SHELF.append({"q1": (1, held)}), f"{SHELF_NAME}[0]['q1'][1] -> "),
    "key": (lambda held: SHELF.append(Counter({("made", held): 1})), f"{SHELF_NAME}[0].key(("),
    "ordered": (lambda held: SHELF.append(OrderedDict(q1=held)), f"{SHELF_NAME}[0]['q1'] -> "),
    "class": (lambda held: Slotted.shelf.append(Slotted(held)), f"{__name__}.Slotted.shelf[0].held -> "),
    "cache": (cached, f"{__name__}.cached<cache>.key(("),
    "default argument": (remember, f"{__name__}.remember<default seen>[0] -> "),
    "thread local": (lambda held: setattr(LOCAL, "current", held), f"{__name__}.LOCAL.current -> "),
    "finalizer": (lambda held: weakref.finalize(held, expire, held), "weakref.finalize._registry[<finalize "),
    "closure": (lambda held: SHELF.append(closure(held)), f"{SHELF_NAME}[0]<closure held> -> "),
    "traceback": (lambda held: SHELF.append(error(held)), f"{SHELF_NAME}[0].__traceback__<frame error"),
    "bound method": (lambda held: SHELF.append(held.method), f"{SHELF_NAME}[0].__self__ -> "),  # type: ignore[attr-defined]
    "generator": (lambda held: SHELF.append(generator(held)), f"{SHELF_NAME}[0]<local kept> -> "),
    "task": (in_task, "task 'the watcher' (waiting)<coroutine><local _>.held -> "),
    "timer": (in_timer, f"timer ({__name__}.expire)._args[0] -> "),
    "timer's context": (in_timers_context, f"timer ({__name__}.expire)._context[contextvar current] -> "),
    "done callback": (in_callbacks(1), f"{SHELF_NAME}[0]<done callback>.args[0] -> "),
    "done callbacks": (in_callbacks(3), f"{SHELF_NAME}[0]<done callbacks>["),
}


def let_go() -> None:
    """Forget everything again."""
    for item in SHELF:
        if isinstance(item, asyncio.Task):
            item.cancel()
    for timer in getattr(asyncio.get_running_loop(), "_scheduled", ()):
        timer.cancel()
    SHELF.clear()
    Slotted.shelf.clear()
    cached.cache_clear()
    (remember.__defaults__ or ([],))[0].clear()
    vars(LOCAL).clear()
    for info in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        if isinstance(info.peek(), tuple) and info.peek()[1] is expire:
            info.detach()


@pytest.mark.parametrize("how", HELD)
async def test_the_holder_of_a_leak_is_named_from_what_a_reader_knows(how: str) -> None:
    hold, expected = HELD[how]
    alive = [Thing("row")]
    hold(alive[0])
    await asyncio.sleep(0)
    try:
        said = held_by(alive[0], [alive])
    finally:
        let_go()
        await asyncio.sleep(0)
    assert said.startswith(expected)
    assert ".Thing object at" in said


def test_the_shortest_chain_is_given() -> None:
    alive = [Thing()]
    SHELF.extend([{"far": [Thing(alive[0])]}, alive[0]])
    try:
        assert held_by(alive[0], [alive]).startswith(f"{SHELF_NAME}[1] -> ")
    finally:
        SHELF.clear()


def test_a_cycle_is_told_as_one() -> None:
    one = Thing()
    one.held = Thing([one])
    alive = [one]
    one_only = weakref.ref(one)
    del one
    assert held_by(alive[0], [alive]).startswith("a cycle: Thing.held.held[0] -> ")
    assert chain_to(alive[0], [alive]) is None
    alive.clear()
    gc.collect()
    assert one_only() is None


def test_what_only_a_cycle_holds_is_told_so() -> None:
    leaked = Thing()
    holder = Thing(leaked)
    holder.own = holder  # type: ignore[assignment]
    alive = [leaked]
    del holder, leaked
    assert held_by(alive[0], [alive]).startswith("held by an object that only a cycle holds: ")
    gc.collect()


def test_what_nothing_holds_is_told_so() -> None:
    assert held_by(Thing()).startswith("nothing that the collector sees holds <")


def test_a_running_function_of_another_thread_is_named() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        leaked = Thing("row")
        alive.append(leaked)
        begun.set()
        ended.wait()

    alive: list[Thing] = []
    thread = threading.Thread(target=work, name="the worker")
    thread.start()
    begun.wait()
    try:
        said = held_by(alive[0], [alive])
    finally:
        ended.set()
        thread.join()
    assert said.startswith("thread 'the worker' in ")
    assert "work<local leaked> -> " in said


def module_of_the_lab() -> types.SimpleNamespace:
    """Code as the lab has it: its functions, classes and coroutines must never be blamed."""
    namespace: dict[str, Any] = {"__name__": "lab_utils.checks.made_up"}
    lines = ["class Watching:", " pass", "async def driving(held):", " await held.wait()", "def look(held):"]
    exec("\n".join([*lines, " def see():", "  return held", " return see"]), namespace)
    return types.SimpleNamespace(**namespace)


def test_the_lab_s_own_objects_are_never_blamed() -> None:
    lab = module_of_the_lab()
    made_up = types.ModuleType("lab_utils.checks.made_up")
    watching = lab.Watching()
    watching.agent = Thing()
    lab.Watching.last = watching
    coroutine = lab.driving(watching.agent)
    alive = [watching.agent]
    sys.modules[made_up.__name__] = made_up
    made_up.seen = [lab.look(watching.agent), coroutine]  # type: ignore[attr-defined]
    made_up.agent = alive[0]  # type: ignore[attr-defined]
    made_up.__spec__ = None
    try:
        assert chain_to(alive[0], [alive]) is None
        said = held_by(alive[0], [alive])
    finally:
        del sys.modules[made_up.__name__], lab.Watching.last
        coroutine.close()
    assert "Watching" not in said
    assert "made_up" not in said


def test_of_two_roots_at_one_distance_the_one_that_the_caller_names_is_given() -> None:
    older, newer = types.ModuleType("older"), types.ModuleType("newer")
    # A dictionary is the collector's from the first container in it on: that of one module is met first, then the target.
    vars(older)["first"] = []
    target = Thing(Thing())
    alive = [target.held]
    for module in (older, newer):
        vars(module)["kept"] = alive[0]
        assert held_by(alive[0], [alive], {"the target": target}).startswith("the target.held -> ")
        assert held_by(alive[0], [alive]).startswith(f"{module.__name__}.kept -> ")
        del vars(module)["kept"]


async def test_what_has_ended_is_no_root() -> None:
    async def answer(held: object) -> object:
        return held

    done, late = [Thing("answer")], [Thing("in a context")]
    SHELF.append(asyncio.create_task(answer(done[0])))
    await asyncio.wait(SHELF)
    in_timers_context(late[0])
    for timer in asyncio.get_running_loop()._scheduled:  # type: ignore[attr-defined]
        timer.cancel()
    try:
        of_task, of_timer = held_by(done[0], [done]), held_by(late[0], [late])
    finally:
        let_go()
    assert of_task.startswith(f"{SHELF_NAME}[0].result() -> ")
    assert of_timer.startswith("event loop._scheduled[0]._context[contextvar current] -> ")


def test_the_search_holds_nothing_afterwards() -> None:
    leaked = Thing()
    SHELF.append(Thing(leaked))
    gone = weakref.ref(leaked)
    assert held_by(leaked).startswith(SHELF_NAME)
    SHELF.clear()
    del leaked
    assert gone() is None


def test_variables_of_a_frame_are_read_without_leaving_them_behind() -> None:
    def run(kept: object) -> Iterator[object]:
        yield kept is None
        kept = None
        yield kept is None

    held = Thing()
    gone = weakref.ref(held)
    made = run(held)
    next(made)
    assert step(made, held) == "<local kept>"
    next(made)
    del held
    assert gone() is None


# Where it was allocated.


def test_without_tracing_the_remedy_is_named_and_no_line() -> None:
    assert not tracemalloc.is_tracing()
    assert "tracemalloc.start(5)" in allocated_at(Slotted())
    assert most_held({}) == []


def test_the_line_that_allocated_is_named_with_its_caller() -> None:
    def make() -> Slotted:
        return Slotted()

    tracemalloc.start(2)
    try:
        line = sys._getframe().f_lineno + 1
        said = allocated_at(make())
    finally:
        tracemalloc.stop()
    here, first = "lab_utils/probes/test_holders.py", make.__code__.co_firstlineno + 1
    assert said == f"allocated at {here}:{first}, called from {here}:{line}"


def test_an_object_with_a_dict_is_found_or_an_attribute_of_it() -> None:
    tracemalloc.start()
    try:
        made = Thing()
        said = allocated_at(made)
    finally:
        tracemalloc.stop()
    if sys.version_info < (3, 12):
        assert (
            said
            == f"its own allocated at lab_utils/probes/test_holders.py:{Thing.__init__.__code__.co_firstlineno + 2}"
        )
    else:
        assert said == f"allocated at lab_utils/probes/test_holders.py:{said.rpartition(':')[2]}"
        assert said.startswith("allocated at lab_utils/probes/test_holders.py:")


def test_what_was_allocated_before_is_said_to_have_been() -> None:
    early = Slotted()
    tracemalloc.start()
    try:
        said = allocated_at(early)
    finally:
        tracemalloc.stop()
    assert said.startswith("allocated before allocations were traced")


def test_an_explanation_has_both() -> None:
    SHELF.append(Slotted())
    try:
        said = explained(SHELF[0])
    finally:
        SHELF.clear()
    assert said.startswith(f"{SHELF_NAME}[0] -> <")
    assert "; allocated nobody knows where" in said


# The leftovers.


async def test_what_is_left_of_each_kind_is_told_from_what_was_there() -> None:
    bystander = asyncio.create_task(waiting(None), name="the bystander")
    kept = Slotted()
    await asyncio.sleep(0)
    before = Before((__name__,))
    in_task(None)
    asyncio.get_running_loop().call_later(60, expire)
    SHELF.append(Slotted("leaked"))
    await asyncio.sleep(0)
    kinds = ("tasks", "timers", "threads", f"{__name__}.Slotted")
    try:
        left = {kind: before.left(kind, {}, 5) for kind in kinds}
    finally:
        assert kept.held is None
        bystander.cancel()
        let_go()
        await asyncio.sleep(0)
    assert len(left["tasks"]) == 1
    assert left["tasks"][0].startswith("waiting: ")
    assert "the watcher" in left["tasks"][0]
    assert len(left["timers"]) == 1
    assert "expire()" in left["timers"][0]
    assert left["threads"] == []
    assert [line.partition(" -> ")[0] for line in left[f"{__name__}.Slotted"]] == [
        "task 'the watcher' (waiting)<coroutine><local _>",
        f"{SHELF_NAME}[1]",
    ]


async def test_a_descriptor_a_socket_and_a_callback_that_are_left_are_named() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM):
        before = Before(())
        descriptor = os.open(os.devnull, os.O_RDONLY)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as left:
            handle = loop.call_soon(expire)
            found = {kind: before.left(kind, {}, 5) for kind in ("sockets", "descriptors", "handles")}
            assert f"descriptor {left.fileno()} is socket:" in found["sockets"][0]
        handle.cancel()
        os.close(descriptor)
    assert [len(lines) for lines in found.values()] == [1, 1, 1]
    assert found["descriptors"][0].endswith(f" is {os.devnull}; no object need hold a descriptor")
    assert "expire()" in found["handles"][0]


def test_the_container_that_grows_is_named() -> None:
    log: list[int] = [0]
    shrinking = [0] * 50
    SHELF.append({"log": log, "shrinking": shrinking})
    try:
        with growing() as grown:
            log.extend(range(7))
            shrinking.clear()
        # Under coverage its own tables grow, too.
        lines, more = ([line for line in grown.lines({}, least, 9) if "_trace_hook" not in line] for least in (5, 8))
    finally:
        SHELF.clear()
    assert more == []
    assert len(lines) == 1
    assert lines[0].startswith(f"grew by 7 to 8: {SHELF_NAME}[0]['log'] -> [0, 0, 1, ")


def test_what_only_the_lab_holds_does_not_count_as_growing() -> None:
    watching = module_of_the_lab().Watching()
    watching.samples = [0]
    with growing() as grown:
        watching.samples.extend(range(9))
    assert grown.lines({}, least=5) == []


def test_the_line_that_holds_most_is_named_with_the_container_of_what_it_made() -> None:
    tracemalloc.start()
    try:
        line = sys._getframe().f_lineno + 1
        SHELF.extend(bytes(50_000) for _ in range(20))
        lines = most_held({}, most=1)
    finally:
        tracemalloc.stop()
        SHELF.clear()
    assert lines[0].startswith("1,0")
    assert (
        f"bytes allocated at lab_utils/probes/test_holders.py:{line}; among them the content of {SHELF_NAME} -> "
        in lines[0]
    )


class Lazy:
    """As a package's stand-in for a module that it imports when somebody asks for anything at all of it."""

    asked: ClassVar[list[str]] = []

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        Lazy.asked.append("its class")
        return dict


def test_nothing_that_only_looks_wakes_a_lazy_object() -> None:
    lazy = Lazy()
    SHELF.append([lazy, lambda: lazy])
    try:
        with growing() as grown:
            SHELF.append([0] * 9)
        grown.lines({}, least=5)
        chain_to(lazy)
        survey({"ada": {"shelf": SHELF}, "bob": {"lazy": lazy}})
    finally:
        SHELF.clear()
    assert Lazy.asked == []


def test_a_module_is_not_asked_what_it_shows_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of `_asyncio` in 3.12 shows objects that it has freed already: holding one for a moment frees it again."""
    module, thing = types.ModuleType("not_imported"), Thing()
    vars(module)["shelf"] = [thing]
    asked: list[type] = []
    referents = gc.get_referents

    def spied(*items: Any) -> list[Any]:
        asked.extend(map(type, items))
        return referents(*items)

    monkeypatch.setattr(gc, "get_referents", spied)
    text = held_by(thing)
    assert text.startswith("not_imported.shelf[0] -> <tests.lab_utils.probes.test_holders.Thing"), text
    assert list in asked
    assert types.ModuleType not in asked


async def test_looking_for_who_holds_asyncios_own_leaves_the_collector_working() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(3):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        # Its iterator goes to the free list of `_asyncio`.
        await future
    # Held by the module alone, in 3.12 by something that is no variable of it.
    assert held_by(asyncio.all_tasks.__globals__["_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks"])
    gc.collect()


def test_a_cycle_that_holds_the_object_without_it_is_shown() -> None:
    def held() -> Thing:
        thing, first, second = Thing(), Slotted(), Slotted()
        first.held, second.held = second, [first, thing]
        return thing

    text = held_by(held())
    assert text.startswith("a cycle: ")
    assert ".held.held[1] -> " in text


async def test_a_task_whose_own_frame_names_it_is_shown_as_the_cycle_that_holds_the_object() -> None:
    async def fails(thing: Thing) -> None:
        task = asyncio.current_task()
        assert task is not None
        raise RuntimeError(thing.own[:1])

    thing = Thing()
    task = asyncio.create_task(fails(thing))
    await asyncio.wait([task])
    assert task.exception() is not None
    gc.disable()
    try:
        del task
        text = held_by(thing)
    finally:
        gc.enable()
    assert text.startswith("a cycle: ")
    assert "<local task>" in text
