"""Tries a target itself: each method alone, with one user at a time, against the contract of `docs/target.md`."""

from __future__ import annotations

import asyncio
import copy
import datetime
import inspect
import json
import random
import statistics
import time
import traceback
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from typing import Any, Final

from lab_utils.checks.isolation.identities import NO_IDS, NOTHING, calls_with_a_user
from lab_utils.judges.speech import said_by
from lab_utils.target import (
    BaseTarget,
    Bounds,
    Capability,
    Command,
    Delivered,
    EndReport,
    Handle,
    NotSupported,
    PlannedStep,
    Population,
    Recipe,
    Refusal,
    Refused,
    Subscription,
    SupervisionReport,
    Target,
)
from lab_utils.trial import Check, StopFailed, Stuck, Trial, loops
from lab_utils.trial.faults import Gate, Hang, Planned, planned_in
from lab_utils.values.workload import rows_for

__all__ = ["CONTRACT"]

_ADA: Final = "ada"
_HELPER: Final = "helper"
_WRITER: Final = "writer"
_CLOSE_S: Final = 0.2
_SLACK_S: Final = 5.0
_HELD_S: Final = 0.05
_NONE_IS_ALL: Final = ("connections", "create with a context")
_ROWS: Final = rows_for(_ADA, 2, random.Random(0))


class _Broken(Exception):
    """The rest of this part depends on a call that did not do its work; the problem is recorded."""


class _NotStarted(Exception):
    """No target could be started, or none that is empty: nothing else can be tried."""


class _Exits(Exception):
    """A call raised SystemExit, which would end the process."""


class _Steps:
    """Awaits a call step by step: notes the longest time for which it held the event loop, and keeps it from ending
    the process."""

    def __init__(self, work: Awaitable[Any]) -> None:
        self._work = work
        self.longest_s = 0.0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._work.__await__()
        step: Callable[[], Any] = partial(next, steps)
        while True:
            began = time.perf_counter()
            try:
                waits_for = step()
            except StopIteration as ended:
                return ended.value
            except SystemExit as error:
                raise _Exits(repr(error)) from error
            finally:
                self.longest_s = max(self.longest_s, time.perf_counter() - began)
            try:
                step = partial(steps.send, (yield waits_for))
            except BaseException as error:
                step = partial(steps.throw, error)


class _Adapter:
    """One target under trial, and how often the lab's hooks were called in it."""

    def __init__(self, trial: Trial, target: Target, hooked: list[str]) -> None:
        self._trial = trial
        self.target = target
        self.hooked = hooked
        self.held_s: list[float] = []

    def population(self) -> Population | None:
        """The counts that the target reports; None where it reports none."""
        if not self.can(Capability.POPULATION):
            return None
        found: Population = self.asked("population()", self.target.population)
        return found

    def can(self, *capabilities: Capability) -> bool:
        return self.target.capabilities.issuperset(capabilities)

    def must(self, holds: bool, call: str, problem: str) -> None:
        """Record a problem of a call unless `holds`. The same problem of the same call is recorded once."""
        if holds or not any(finding.anomaly == call and finding.sentence == problem for finding in _found(self._trial)):
            self._trial.require(holds, call, problem, f"tried with user {_ADA!r} and agent type {_HELPER!r}")

    def remark(self, text: str) -> None:
        """Record something optional that the target lacks, once."""
        if text not in self._trial.notes:
            self._trial.note(text)

    def asked(self, call: str, ask: Callable[[], Any]) -> Any:
        """The answer of a plain method. Raises `_Broken` if it raises."""
        try:
            return ask()
        except Exception as error:
            self.must(False, call, f"it must succeed, and raised {_said(error)}")
        raise _Broken

    async def ends(self, call: str, work: Awaitable[Any]) -> Any:
        """Await a call. Raises `_Broken` if it ends the process or returns work that nobody has awaited."""
        steps = _Steps(work)
        try:
            answer = await self._trial.waiting.ends(steps, call)
        except _Exits as error:
            self.must(False, call, f"it raised {error}, which ends the process of whoever calls; raise an Exception")
            raise _Broken from error
        finally:
            self.held_s.append(steps.longest_s)
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            self.must(
                False, call, f"it returned a {type(answer).__name__} that nobody awaits; write `return await ...`"
            )
            raise _Broken
        return answer

    async def answer(
        self, call: str, work: Awaitable[Any], stuck_words: str = "and nothing holds it up; it must answer or raise"
    ) -> Any:
        """The answer of a call that must succeed. Raises `_Broken` if it does not."""
        try:
            return await self.ends(call, work)
        except _Broken:
            raise
        except NotSupported as error:
            remedy = "leave the capability out, or do the work"
            self.must(False, call, f"it raised NotSupported ({error}), though its capability is named; {remedy}")
        except Stuck as stuck:
            self.must(False, call, f"{stuck}, {stuck_words}")
        except Exception as error:
            self.must(False, call, f"it must succeed, and raised {_said(error)}")
        raise _Broken

    async def refused(self, call: str, work: Awaitable[Any], kind: Refusal, when: str) -> None:
        """Require that a call is refused as this kind, which all targets share."""
        remedy = f"translate your registry's error: raise Refused(Refusal.{kind.name}, message)"
        try:
            answer = await self.ends(call, work)
        except _Broken:
            pass  # Its finding is made.
        except Refused as refusal:
            self.must(refusal.kind is kind, call, f"{when}, it refuses as {refusal.kind}, not {kind}; {remedy}")
        except Stuck as stuck:
            self.must(False, call, f"{when}: {stuck}")
        except Exception as error:
            self.must(False, call, f"{when}, it raised {_said(error)}; {remedy}")
        else:
            self.must(False, call, f"{when}, it returned {answer!r}; {remedy}, unless your registry allows this")

    async def create(self, user: str = _ADA, agent_type: str = _HELPER, **options: Any) -> Handle:
        """Make an agent, and require that the answer is a handle of it."""
        handle = await self.answer("create()", self.target.create(user, agent_type, **options))
        self.handle("create()", handle, user, agent_type, options.get("thread", "main"))
        assert isinstance(handle, Handle)
        return handle

    def handle(self, call: str, handle: object, user: str, agent_type: str, thread: str) -> None:
        """Require a handle with these names. Raises `_Broken` for any other object."""
        if not isinstance(handle, Handle):
            self.must(False, call, f"it returned {handle!r}; return self.handle(user, agent_type, native)")
            raise _Broken
        wanted, got = (user, agent_type, thread), (handle.user, handle.agent_type, handle.thread)
        self.must(got == wanted, call, f"the handle names {got}; it must name the agent that was asked for, {wanted}")
        instance: object = handle.instance
        named = isinstance(instance, str) and instance != ""
        self.must(named, call, f"the handle's instance is {handle.instance!r}; it must be a text that names the object")

    async def run(self, handle: Handle, action: str, **arguments: Any) -> Any:
        """Run an agent's command, which must succeed."""
        return await self.answer(f"run() of {action!r}", self.target.run(handle, Command(action, arguments)))


def _found(trial: Trial) -> list[Any]:
    return [finding for verdict in trial.verdicts for finding in verdict.findings]


def _said(error: BaseException) -> str:
    """An error with the innermost line of it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


async def _opened(trial: Trial, **options: Any) -> _Adapter:
    """A fresh target with the agent types of the lab, whose hooks record each call."""
    hooked: list[str] = []

    def hook(name: str) -> Callable[[str], Awaitable[None]]:
        async def called(user: str) -> None:
            hooked.append(f"{name} {user}")

        return called

    async def fails(user: str) -> None:
        raise Planned("the factory fails, as the lab planned")

    bounds: Bounds | None = options.pop("bounds", None)
    recipes = [
        Recipe(_HELPER, hook("on_create"), hook("on_run"), hook("on_cleanup")),
        Recipe(_WRITER),
        Recipe("broken", fails),
        Recipe("vault", requires=frozenset({"vault"})),
        *options.pop("recipes", ()),
    ]
    try:
        target = await trial.target(recipes, {_ADA: copy.deepcopy(_ROWS)}, bounds=bounds, **options)
    except Stuck as stuck:
        raise _NotStarted(str(stuck)) from stuck
    except Exception as error:
        raise _NotStarted(f"it must succeed, and raised {_said(error)}") from error
    return _Adapter(trial, target, hooked)


async def _beginning_empty(trial: Trial) -> None:
    """A target begins empty, though another one was used before it in this process. Raises `_NotStarted` if not: every
    other problem would follow from it."""
    one, note = await _opened(trial), "of an earlier trial"
    await one.run(await one.create(), "write", key="note", value=note)
    with suppress(StopFailed):  # `_stopping` finds it.
        await trial.stop(one.target)
    fresh = await _opened(trial)
    left: object = fresh.population() or Population(0, 0)
    if left == Population(0, 0):
        left = await fresh.run(await fresh.create(), "recall")
        if note not in repr(left):
            return
    remedy = "open the registry in start() or __init__, empty: no global one, no class attribute, no file of before"
    raise _NotStarted(f"a fresh target holds {left!r} of the one before; {remedy}")


async def _making(trial: Trial) -> None:
    one = await _opened(trial)
    _name_misspelled(one)
    handle = await one.create()
    remedy = "await recipe.on_create(user) where the agent is made"
    one.must(one.hooked == ["on_create ada"], "create()", f"on_create was called {len(one.hooked)} times, not once; "
             f"{remedy}, or the lab can hold and fail no factory")  # fmt: skip
    second = await one.create()
    if one.can(Capability.CREATE_ANEW):
        differs = "it names create_anew, and a second create returned the same instance; leave the capability out"
        one.must(second.instance != handle.instance, "create()", differs)
    else:
        same = (
            f"a second create returned instance {second.instance!r} after {handle.instance!r}; an object that is there "
            "must keep its instance, or name create_anew if each create makes an agent"
        )
        one.must(second.instance == handle.instance, "create()", same)
        if not one.can(Capability.GET_OR_CREATE):
            one.remark(
                "callers who race for one agent are not judged; if your registry finds or makes an agent in one call, "
                "override get_or_create() as well"
            )
    other = await one.create("bob")
    one.must(other.instance != handle.instance, "create()", "another user's agent has the same instance")


def _name_misspelled(one: _Adapter) -> None:
    """Note the target's public methods that are almost named like a method of the contract, which nobody calls."""
    known = [name for name in dir(BaseTarget) if not name.startswith("_")]
    for name in dir(type(one.target)):
        if name.startswith("_") or name in known or not callable(getattr(type(one.target), name)):
            continue
        if near := get_close_matches(name, known, 1, 0.87):
            one.remark(f"the lab never calls {name}(), which is no method of the contract; did you mean {near[0]}()?")


async def _refusing(trial: Trial) -> None:
    one = await _opened(trial)
    await one.refused("create()", one.target.create(_ADA, "hepler"), Refusal.UNKNOWN_TYPE, "for an unknown type")
    if one.can(Capability.PERMISSIONS):
        await one.refused("create()", one.target.create(_ADA, "vault"), Refusal.PERMISSION, "without the permission")
        await one.create(agent_type="vault", permissions=frozenset({"vault"}))
        foreign = one.target.create(_ADA, _HELPER, context_user="bob")
        await one.refused("create()", foreign, Refusal.BOUNDARY, "with another user's context")


async def _no_ids(trial: Trial) -> None:
    """Pass each value that is not a user id to each call that takes one: it is refused, or a call that only finds
    returns None."""
    one = await _opened(trial)
    remedy = (
        "raise Refused(Refusal.INVALID_USER, message) where your registry refuses it; if your app checks ids before it "
    )
    remedy += "calls the registry, such as at login, call self.user_id(user) first"
    for name, ask in calls_with_a_user(one.target, _ADA).items():
        makes, taken, raised = name in ("create", "get_or_create", "subscribe", "supervise"), [], {}
        for value in (value for value, _ in NO_IDS if not (value is None and name in _NONE_IS_ALL)):
            text = repr(value) if len(repr(value)) < 16 else f"{value!r:.6}...'"
            try:
                answer = await one.ends(f"{name}()", ask(value))
            except _Broken:
                break
            except Refused as refusal:
                if refusal.kind is not Refusal.INVALID_USER and name not in _NONE_IS_ALL:
                    raised[text] = str(refusal.kind)
            except Exception as error:
                raised[text] = type(error).__name__
            else:
                if makes or (answer not in NOTHING and name != "end"):
                    taken.append(text)
        one.must(not taken, f"{name}()", f"it took what is not a user id: {', '.join(taken)}; {remedy}")
        errors = " and ".join(dict.fromkeys(raised.values()))
        problem = f"for what is not a user id it raised {errors}: {', '.join(raised)}; {remedy}"
        one.must(not raised, f"{name}()", problem)


async def _failing(trial: Trial) -> None:
    one = await _opened(trial)
    try:
        await one.ends("create()", one.target.create(_ADA, "broken"))
    except _Broken:
        raise
    except Exception as error:
        remedy = "let a factory's error come through, or raise your own from it"
        is_planned = planned_in(error) is not None
        one.must(is_planned, "create()", f"the factory failed as planned, and {_said(error)} came out; {remedy}")
    else:
        one.must(False, "create()", "the factory failed as planned, and no error came out; let it come through")
    left = one.population() or Population(0, 0)
    one.must(left == Population(0, 0), "create()", f"a factory that failed left {left}; it must leave nothing")
    if one.can(Capability.LOOKUP):
        found = await one.answer("get()", one.target.get(_ADA, "broken"))
        one.must(found is None, "create()", f"a factory that failed left {found!r}; it must leave nothing")


async def _running(trial: Trial) -> None:
    one = await _opened(trial)
    handle = await one.create()
    await one.run(handle, "write", key="note", value={"nested": [1, 2]})
    ran = one.hooked.count("on_run ada")
    one.must(ran == 1, "run()", f"on_run was called {ran} times in one run; await recipe.on_run(user) once in each")
    answers: tuple[tuple[str, Mapping[str, Any], Any], ...] = (
        ("read", {"key": "note"}, {"nested": [1, 2]}),
        ("read", {"key": "not there"}, None),
        ("recall", {}, {"note": {"nested": [1, 2]}}),
        ("add", {"key": "sum", "amount": 2, "pause_s": 0.0}, 2),
        ("add", {"key": "sum", "amount": 3, "pause_s": 0.0}, 5),
        ("think", {"thoughts": ["well"]}, None),
        ("collect", {"a": 1}, {"inputs": {"a": 1}}),
    )
    for action, arguments, wanted in answers:
        got = await one.run(handle, action, **arguments)
        remedy = "return the answer of `lab_utils.targets.lab_agent.obey`, which carries out each command"
        one.must(got == wanted, f"run() of {action!r}", f"it returned {got!r}, not {wanted!r}; {remedy}")
    try:
        await one.ends("run() of 'fail'", one.target.run(handle, Command("fail", {"message": "as told"})))
    except _Broken:
        raise
    except RuntimeError as error:
        one.must("as told" in str(error), "run() of 'fail'", f"the message was lost: {error}")
    except Exception as error:
        remedy = "where your registry wraps an agent's error, raise its cause: `raise error.__cause__`"
        one.must(
            False, "run() of 'fail'", f"RuntimeError('as told') must come through, and {_said(error)} came; {remedy}"
        )
    else:
        one.must(False, "run() of 'fail'", "RuntimeError('as told') must come through, and nothing was raised")
    bob = await one.create("bob")
    got = await one.run(bob, "recall")
    one.must(not got, "run() of 'recall'", f"a new agent of another user remembers something: {got!r}")
    held = statistics.median(one.held_s)
    if held > _HELD_S:
        one.remark(
            f"half of the calls hold the event loop for {held:.2f} s or more, in which nobody else's call goes on; if "
            "your app runs such code in threads, do so here: `await asyncio.to_thread(...)`"
        )


async def _context_and_tools(trial: Trial) -> None:
    one = await _opened(trial)
    if one.can(Capability.CONTEXT_DATA):
        handle = await one.create(data={"case": 7})
        got = await one.run(handle, "context")
        remedy = "hand `data` to your registry, and answer with the agent's copy of it"
        one.must(got == {"case": 7}, "run() of 'context'", f"it returned {got!r}, not {{'case': 7}}; {remedy}")
    if one.can(Capability.TOOLS):
        handle = await one.create()
        remedy = "the lab hands each user's rows to start()"
        rows = await one.run(handle, "tool", name="rows", parameters={})
        one.must(rows == _ROWS, "run() of 'tool'", f"rows returned {rows!r}, not {_ROWS!r}; {remedy}")
        total = await one.run(handle, "tool", name="total", parameters={"column": "tokens_in"})
        wanted = sum(row["tokens_in"] for row in _ROWS)
        one.must(total == wanted, "run() of 'tool'", f"total returned {total!r}, not {wanted}; {remedy}")
        call = one.target.run(handle, Command("tool", {"name": "drop_table"}))
        await one.refused("run() of 'tool'", call, Refusal.UNKNOWN_TOOL, "for an unknown tool")
        if one.can(Capability.PERMISSIONS):
            call = one.target.run(handle, Command("tool", {"name": "admin"}))
            await one.refused("run() of 'tool'", call, Refusal.PERMISSION, "for admin without the permission")


async def _finding(trial: Trial) -> None:
    one = await _opened(trial)
    if one.can(Capability.LOOKUP):
        before = one.population()
        none = await one.answer("get()", one.target.get(_ADA, _HELPER))
        one.must(one.population() == before, "get()", f"it changed the population from {before} to {one.population()}")
        one.must(
            none is None, "get()", f"before any create it returned {none!r}, not None: it finds, and never creates"
        )
        unknown = await one.answer("get()", one.target.get(_ADA, "hepler"))
        one.must(unknown is None, "get()", f"for a type that nobody registered it returned {unknown!r}, not None")
    handle = await one.create()
    await one.run(handle, "write", key="note", value="of the helper")
    if one.can(Capability.LOOKUP):
        found = await one.answer("get()", one.target.get(_ADA, _WRITER))
        keep = "keep the type in the key of your registry, or in its session's id"
        one.must(found is None, "get()", f"for a type of which the user has no agent it returned {found!r}; {keep}")
    writer = await one.create(agent_type=_WRITER)
    got = await one.run(writer, "recall")
    separate = writer.instance != handle.instance and not got
    one.must(separate, "create()", f"agents of two types are one: {writer.instance!r}, which remembers {got!r}; open "
             "your backend's session once for each type")  # fmt: skip
    if one.can(Capability.LOOKUP):
        found = await one.answer("get()", one.target.get(_ADA, _HELPER))
        one.handle("get()", found, _ADA, _HELPER, "main")
        same = f"it found instance {found.instance!r}, not the {handle.instance!r} that create() made"
        one.must(found.instance == handle.instance, "get()", f"{same}; one object has one instance")
    if one.can(Capability.GET_OR_CREATE):
        found = await one.answer("get_or_create()", one.target.get_or_create(_ADA, _HELPER))
        one.handle("get_or_create()", found, _ADA, _HELPER, "main")
        one.must(found.instance == handle.instance, "get_or_create()", "it did not find the agent that is there")
        made = await one.answer("get_or_create()", one.target.get_or_create("bob", _HELPER))
        one.handle("get_or_create()", made, "bob", _HELPER, "main")
    if one.can(Capability.THREADS):
        other = await one.create(thread="second")
        await one.run(handle, "write", key="note", value="first")
        got = await one.run(other, "read", key="note")
        one.must(got is None, "create()", f"threads share a memory: {got!r} was read in another; leave threads out")
        if one.can(Capability.LOOKUP):
            found = await one.answer("get()", one.target.get(_ADA, _HELPER, "second"))
            one.handle("get()", found, _ADA, _HELPER, "second")
            one.must(found.instance == other.instance, "get()", f"asked for a thread it found another: {found!r}")
            newest = await one.answer("get()", one.target.get(_ADA, _HELPER))
            fits = getattr(newest, "instance", None) == other.instance
            one.must(fits, "get()", f"without a thread it returned {newest!r}; it finds the newest in any thread")
            absent = await one.answer("get()", one.target.get(_ADA, _HELPER, "third"))
            one.must(absent is None, "get()", f"for a thread that nobody began it returned {absent!r}, not None")


async def _counting(trial: Trial) -> None:
    one = await _opened(trial)
    if not one.can(Capability.POPULATION):
        return
    for user in (_ADA, "bob"):
        await one.create(user)
    got, wanted = one.population(), Population(2, 2)
    one.must(got == wanted, "population()", f"with two users of one agent each it returned {got!r}, not {wanted!r}; "
             "ask your registry, and keep no records in the adapter")  # fmt: skip
    if one.can(Capability.END):
        await one.answer("end()", one.target.end("bob"))
        got = one.population()
        one.must(got == Population(1, 1), "population()", f"after one of two has ended it returned {got!r}")


async def _removing(trial: Trial) -> None:
    one = await _opened(trial)
    if not one.can(Capability.REMOVE):
        return
    nothing = await one.answer("remove()", one.target.remove(_ADA, _HELPER))
    one.must(nothing is False, "remove()", f"with no agent there it returned {nothing!r}, not False")
    handle = await one.create()
    removed = await one.answer("remove()", one.target.remove(_ADA, _HELPER))
    one.must(removed is True, "remove()", f"it returned {removed!r}, not True, for an agent that was there")
    _cleaned(one, "remove()")
    await _stale(one, handle, "remove()")
    await one.create()
    count = await one.answer("reset()", one.target.reset(_ADA))
    one.must(count == 1, "reset()", f"with one agent there it returned {count!r}, not 1")


def _cleaned(one: _Adapter, call: str) -> None:
    times = one.hooked.count("on_cleanup ada")
    if times == 0:
        # A registry need not have cleanups.
        one.remark(
            f"{call} called no on_cleanup; if your registry cleans up after an agent, await recipe.on_cleanup(user) "
            "where the agent is closed"
        )
    one.must(times <= 1, call, f"on_cleanup was called {times} times, not once")


async def _stale(one: _Adapter, handle: Handle, call: str) -> None:
    when = f"of a handle after {call}"
    await one.refused("run()", one.target.run(handle, Command("recall")), Refusal.CLOSED, when)


async def _ending(trial: Trial) -> None:
    one = await _opened(trial)
    if not one.can(Capability.END):
        return
    none = await one.answer("end()", one.target.end("nobody"))
    wanted = EndReport(found=False, closed=0)
    one.must(none == wanted, "end()", f"for a user without a session it returned {none!r}, not {wanted!r}")
    handle = await one.create()
    report = await one.answer("end()", one.target.end(_ADA))
    wanted = EndReport(found=True, closed=1)
    one.must(report == wanted, "end()", f"with one agent it returned {report!r}, not {wanted!r}")
    _cleaned(one, "end()")
    if one.can(Capability.LOOKUP):
        found = await one.answer("get()", one.target.get(_ADA, _HELPER))
        remedy = "end the session before you return, and keep no records in the adapter"
        one.must(found is None, "end()", f"afterwards get() found {found!r}; {remedy}")
    await _stale(one, handle, "end()")
    again = await one.create()
    old = "afterwards create() returned the agent that was ended; ask your registry, and keep no records in the adapter"
    one.must(again.instance != handle.instance, "end()", old)
    await _stale(one, handle, "end() and a new create()")
    got = await one.run(again, "recall")
    one.must(not got, "end()", f"in a session opened again the agent remembers {got!r}")
    report = await one.answer("end_all()", one.target.end_all())
    closed = getattr(report, "closed", None)
    one.must(closed == 1, "end_all()", f"with one agent it returned {report!r}; closed must be 1")


async def _hanging(trial: Trial) -> None:
    if await _cut_off(trial, Hang(), "hangs"):
        await _cut_off(trial, Hang(stubborn=True), "ignores its cancellation")


async def _cut_off(trial: Trial, hang: Hang, words: str) -> bool:
    """Whether there are cleanups, and one that does not end was cut off in time."""
    one = await _opened(trial, recipes=[Recipe("slow", on_cleanup=hang)], close_timeout=_CLOSE_S)
    if not one.can(Capability.END):
        return False
    await one.create(agent_type="slow")
    remedy = "give a cleanup `close_timeout` seconds, cancel it, wait no longer, and name it in errors"
    # It may wait for as long as the cleanup does, which is let go before the answer is asked for.
    ending = asyncio.ensure_future(one.target.end(_ADA))
    is_late = await loops.done_in(_CLOSE_S + _SLACK_S, [ending])
    hang.release()
    report = await one.answer("end()", ending)
    if not hang.reached.is_set():
        return False
    late = f"with a cleanup that {words} it took more than {_CLOSE_S + _SLACK_S:g} s; {remedy}"
    one.must(not is_late, "end()", late)
    one.must(bool(getattr(report, "errors", ())), "end()", f"a cleanup was cut off, and errors are empty; {remedy}")
    return not is_late


async def _outliving(trial: Trial) -> None:
    """A run that is under way when its session ends stores nothing in the session that follows."""
    gate = Gate()
    one = await _opened(trial, recipes=[Recipe("held", on_run=gate)], close_timeout=_CLOSE_S)
    if not one.can(Capability.END):
        return
    handle = await one.create(agent_type="held")
    run = asyncio.ensure_future(
        one.ends("run()", one.target.run(handle, Command("write", {"key": "note", "value": "of before"})))
    )
    # It may fail, as a closed one should: its error is not asked for.
    run.add_done_callback(lambda done: done.cancelled() or done.exception())
    if not await trial.waiting.until(lambda: gate.reached.is_set() or run.done()) or run.done():
        run.cancel()
        return  # `run()` does not call the hook, which is a problem of its own.
    await one.answer("end() in the middle of a run", one.target.end(_ADA))
    again = await one.create(agent_type="held")
    gate.open()
    has_ended = await trial.waiting.until(run.done)
    # One that was given up as stuck has not ended either: it has waited for longer than this.
    has_ended = has_ended and (run.cancelled() or not isinstance(run.exception(), Stuck))
    run.cancel()
    one.must(has_ended, "run()", "a run whose session ended never ends; answer it, or raise Refused(Refusal.CLOSED, "
             "message)")  # fmt: skip
    got = await one.run(again, "recall")
    remedy = (
        "before it stores, compare the present session with handle.native, and raise Refused(Refusal.CLOSED, message)"
    )
    problem = (
        f"a run that outlived its session stored {got!r} in the session that followed; if the adapter stores: {remedy}"
    )
    one.must(not got, "run()", problem)


async def _left(trial: Trial) -> None:
    """A run whose caller is cancelled sends its last event, as a failed run does."""
    gate = Gate()
    one = await _opened(trial, recipes=[Recipe("held", on_run=gate)])
    if not one.can(Capability.EVENTS):
        return
    client = one.asked("subscribe()", lambda: one.target.subscribe(_ADA))
    _shaped(one, client)
    handle = await one.create(agent_type="held")
    run = asyncio.ensure_future(one.ends("run()", one.target.run(handle, Command("recall"))))
    wanted = [
        ("agent_started", {"request": "recall"}),
        ("agent_error", {"error": "CancelledError", "message": ""}),
    ]
    if await trial.waiting.until(lambda: gate.inside > 0 or run.done()) and not run.done():
        run.cancel()
        await trial.waiting.until(lambda: len(client.received()) >= len(wanted))
        events: Sequence[object] = client.received()
        got = [(event.type, _decoded(event.body)) for event in events if isinstance(event, Delivered)]
        problem = f"a run whose caller was cancelled sent {got}; the contract has {wanted}: send the last event also "
        # Those of another type are a problem of their own.
        fits = got == wanted or len(got) < len(events)
        one.must(fits, "subscribe()", problem + "where CancelledError ends a run")
    gate.open()
    await asyncio.wait({run})


async def _values(trial: Trial) -> None:
    one = await _opened(trial)
    if not one.can(Capability.ANY_VALUES):
        return
    handle = await one.create()
    for value in (b"\x00\xff", {1, 2}, (1, 2), datetime.date(2026, 1, 31)):
        await one.run(handle, "write", key="note", value=value)
        got = await one.run(handle, "read", key="note")
        same = got == value and type(got) is type(value)
        one.must(same, "run() of 'read'", f"it names any_values, and {value!r} was read as {got!r}; leave it out")


async def _bounded(trial: Trial) -> None:
    """Set each bound that the target names to its smallest value."""
    able = (await _opened(trial)).target.capabilities
    if Capability.AGENT_CAP in able:
        one = await _opened(trial, bounds=Bounds(agents_per_user=1))
        first = await one.create()
        try:
            await one.ends("create()", one.target.create(_ADA, _WRITER))
            alive = one.target.population().agents if Capability.POPULATION in able else 1
            if alive > 1:
                remedy = "hand bounds.agents_per_user on to your registry, unless its own limit lets in one too many"
                one.must(False, "limit()", f"where one agent of a user is allowed, {alive} live; {remedy}")
            else:
                call = one.target.run(first, Command("recall"))
                await one.refused("limit()", call, Refusal.CLOSED, "for an agent whose only place a second one took")
        except Refused as refusal:
            kind = refusal.kind
            one.must(kind is Refusal.CAPACITY, "limit()", f"the second agent of one allowed was refused as {kind}, not "
                     "capacity")  # fmt: skip
    if Capability.USER_CAP in able:
        one = await _opened(trial, bounds=Bounds(users=1))
        await one.create()
        await one.refused(
            "limit()", one.target.create("bob", _HELPER), Refusal.CAPACITY, "for a second user where one is allowed"
        )
    for capability, bounds in (
        (Capability.IDLE_END, Bounds(idle_s=60.0)),
        (Capability.AGE_END, Bounds(age_s=60.0)),
    ):
        if capability in able:
            one = await _opened(trial, bounds=bounds)
            await one.create()
            early = await one.answer("sweep()", one.target.sweep())
            one.must(not early, "sweep()", f"for {capability}, before the time it ended {early!r}")
            one.asked("move_clock()", partial(one.target.move_clock, 61.0))
            ended = await one.answer("sweep()", one.target.sweep())
            remedy = "hand the bound of limit() and the time of move_clock() to your registry"
            problem = f"for {capability} of 60 s, 61 s later it returned {ended!r}, not [{_ADA!r}]; {remedy}"
            one.must(list(ended or ()) == [_ADA], "sweep()", problem)


async def _types(trial: Trial) -> None:
    one = await _opened(trial)
    if not one.can(Capability.TYPE_CHANGES):
        return
    one.asked("register()", lambda: one.target.register(Recipe("later")))
    await one.create(agent_type="later")

    async def again() -> None:
        one.target.register(Recipe("later"))

    await one.refused("register()", again(), Refusal.DUPLICATE, "for a type that is there")
    one.asked("register()", lambda: one.target.register(Recipe("later"), replace=True))


async def _adopting(trial: Trial) -> None:
    one = await _opened(trial)
    if not one.can(Capability.ADOPTION):
        return
    apart = one.asked("make_apart()", lambda: one.target.make_apart(_ADA, _HELPER))
    one.handle("make_apart()", apart, _ADA, _HELPER, "main")
    await one.refused("adopt()", one.target.adopt("bob", apart), Refusal.BOUNDARY, "for another user's agent")
    await one.answer("adopt()", one.target.adopt(_ADA, apart))
    if one.can(Capability.LOOKUP):
        found = await one.answer("get()", one.target.get(_ADA, _HELPER))
        fits = getattr(found, "instance", None) == apart.instance
        one.must(fits, "adopt()", f"afterwards get() returned {found!r}, not the adopted agent")


async def _plain_data(trial: Trial) -> None:
    one = await _opened(trial)
    if not one.can(Capability.STRICT):
        return
    call = one.target.create_strict(_ADA, _HELPER, {"case": object()})
    await one.refused("create_strict()", call, Refusal.NOT_PLAIN, "for an object in the data")
    made = await one.answer("create_strict()", one.target.create_strict(_ADA, _HELPER, {"case": 7}))
    one.handle("create_strict()", made, _ADA, _HELPER, "main")


async def _events(trial: Trial) -> None:
    one = await _opened(trial)
    if not one.can(Capability.EVENTS):
        return
    client = one.asked("subscribe()", lambda: one.target.subscribe(_ADA))
    handle = await one.create()
    _shaped(one, client)
    one.must(client.is_open, "subscribe()", "the subscription is closed from the start")
    count = one.asked("connections()", lambda: one.target.connections(_ADA))
    one.must(count == 1, "connections()", f"with one client it returned {count!r}, not 1")
    await one.run(handle, "think", thoughts=["well"])
    await trial.waiting.until(lambda: "agent_completed" in [getattr(one, "type", "") for one in client.received()])
    events: Sequence[object] = client.received()
    plain = all(isinstance(event, Delivered) and event.user == _ADA for event in events)
    one.must(plain, "subscribe()", f"received() must hold `Delivered` of {_ADA!r}: {list(events)[:3]}")
    _said_right(one, [event for event in events if isinstance(event, Delivered)], "think", {"thoughts": ["well"]})
    await _heard_alone(trial, one, handle, client)
    await one.answer("subscribe()", client.close())
    gone = await trial.waiting.until(lambda: one.target.connections(_ADA) == 0)
    one.must(gone, "connections()", "a client that has closed is still counted")
    if one.can(Capability.END):
        client = one.asked("subscribe()", lambda: one.target.subscribe(_ADA))
        await one.answer("end()", one.target.end(_ADA))
        gone = await trial.waiting.until(lambda: one.target.connections(_ADA) == 0 and not client.is_open)
        one.must(
            gone,
            "end()",
            "afterwards a client of the user is still counted, or open; close a user's clients at the end",
        )


def _shaped(one: _Adapter, client: object) -> None:
    """Require a client that looks like a `Subscription`. Raises `_Broken` for any other."""
    wrong = [f"it has no {name}" for name in ("is_open", "received", "close") if not hasattr(client, name)]
    if not wrong:
        wrong += [] if isinstance(client.is_open, bool) else ["is_open must be a bool"]  # type: ignore[attr-defined]
        is_plain = callable(client.received) and not inspect.iscoroutinefunction(client.received)  # type: ignore[attr-defined]
        wrong += [] if is_plain else ["received() must be a plain method"]
        wrong += [] if inspect.iscoroutinefunction(client.close) else ["close() must be async"]  # type: ignore[attr-defined]
    shape = "a client has the attribute is_open, the method received(), which returns all `Delivered` so far, and the "
    shape += "method `async def close()`"
    problem = f"the {type(client).__name__} that it returned does not fit ({', '.join(wrong)}): {shape}"
    one.must(not wrong, "subscribe()", problem)
    if wrong:
        raise _Broken


def _said_right(one: _Adapter, events: Sequence[Delivered], action: str, arguments: Mapping[str, Any]) -> None:
    """Require the events of one run, of their types and with their payloads, and numbered."""
    wanted = said_by(_HELPER, action, arguments)
    types = [event.type for event in events]
    due_types = [said.type for said in wanted]
    remedy = "send a thought from `think=` of obey()"
    problem = f"one run with a thought sent {types}; the lab knows {due_types} of it; {remedy}"
    one.must(types == due_types, "subscribe()", problem)
    for event, due in zip(events, wanted, strict=False):
        if event.type != due.type:
            break
        fits = event.agent == _HELPER and _decoded(event.body) == _decoded(due.body)
        problem = f"{event.type} came with agent={event.agent!r} and body={event.body!r}; the contract has "
        problem += f"agent={_HELPER!r} and body={due.body!r}: drop other fields in the adapter"
        one.must(fits, "subscribe()", problem)
    numbers = [event.seq for event in events]
    one.must(numbers == list(range(1, len(numbers) + 1)), "subscribe()", f"a new user's events are numbered {numbers}; "
             "number them from 1, without a gap")  # fmt: skip


def _decoded(body: str) -> object:
    try:
        return json.loads(body)
    except (TypeError, ValueError):
        return body


async def _heard_alone(trial: Trial, one: _Adapter, handle: Handle, client: Subscription) -> None:
    """A run that fails sends its error, to its own user's client alone; ids that are named are there."""
    other = one.asked("subscribe()", lambda: one.target.subscribe("bob"))
    before = len(client.received())
    with suppress(RuntimeError, _Broken):
        await one.ends("run() of 'fail'", one.target.run(handle, Command("fail", {"message": "as told"})))
    await trial.waiting.until(lambda: len(client.received()) >= before + 2)
    got, wanted = client.received()[before:], said_by(_HELPER, "fail", {"message": "as told"})
    shown = [(event.type, event.body) for event in got]
    due = [(said.type, said.body) for said in wanted]
    same = [(kind, _decoded(body)) for kind, body in shown] == [(kind, _decoded(body)) for kind, body in due]
    one.must(same, "subscribe()", f"a run that failed sent {shown}; the contract has {due}")
    heard = list(other.received())
    one.must(not heard, "subscribe()", f"a client of another user received {heard[:2]}")
    await other.close()
    if one.can(Capability.RUN_IDS):
        before = len(client.received())
        await one.answer("run()", one.target.run(handle, Command("read", {"key": "note"}, run="run-of-ada")))
        await trial.waiting.until(lambda: len(client.received()) >= before + 2)
        runs = {event.run for event in client.received()[before:]}
        one.must(runs == {"run-of-ada"}, "run()", f"it names run_ids, and the events of run 'run-of-ada' bear {runs}")
    if one.can(Capability.AGENT_IDS):
        named = one.asked("agent_id()", lambda: one.target.agent_id(handle))
        borne = {event.agent_id for event in client.received()}
        one.must(borne == {named}, "agent_id()", f"it returned {named!r}, and the agent's events bear {borne}")


async def _parts(trial: Trial) -> None:
    one = await _opened(trial)
    if not one.can(Capability.PARTS):
        return
    handle = await one.create()
    parts = await one.answer("parts()", one.target.parts(handle))
    fits = isinstance(parts, Mapping) and bool(parts) and all(isinstance(name, str) for name in parts)
    one.must(fits, "parts()", f"it returned {parts!r}; it must map names, such as agent and context, to live objects")


async def _plan(trial: Trial) -> None:
    one = await _opened(trial)
    if not one.can(Capability.SUPERVISION):
        return
    plan = (PlannedStep("first", _HELPER), PlannedStep("second", _HELPER, after=("first",)))
    report = await one.answer("supervise()", one.target.supervise(_ADA, plan))
    statuses = dict(report.statuses) if isinstance(report, SupervisionReport) else report
    wanted = {"first": "completed", "second": "completed"}
    one.must(statuses == wanted, "supervise()", f"its statuses are {statuses!r}, not {wanted!r}")


async def _stopping(trial: Trial) -> None:
    one = await _opened(trial)
    handle = await one.create()
    await one.run(handle, "write", key="note", value="of an earlier trial")
    await trial.stop(one.target)
    try:
        await one.ends("run() after stop()", one.target.run(handle, Command("recall")))
    except _Broken:
        raise
    except Stuck:
        one.must(False, "stop()", "a run that is asked for afterwards never ends; answer it, if only by an error")
    except Exception:
        trial.expectations += 1


_PARTS: Final = (
    *(_beginning_empty, _making, _refusing, _no_ids, _failing, _running, _context_and_tools, _finding, _counting),
    *(_removing, _ending, _hanging, _outliving, _left, _values, _bounded, _types, _adopting, _plain_data),
    *(_events, _parts, _plan, _stopping),
)


async def _body(trial: Trial) -> None:
    for number, part in enumerate(_PARTS):
        trial.progress(part.__name__.strip("_").replace("_", " "), number / len(_PARTS))
        try:
            await part(trial)
        except _Broken:
            pass  # Its finding is made; the other parts are tried all the same.
        except _NotStarted as failure:
            return trial.find("start()", str(failure), "start() was called with three recipes and one user's rows")
        await trial.stop_all()
    return None


CONTRACT = Check(
    name="contract_of_the_adapter",
    category="registration_management",
    claim="Each method of the target, called alone, does its work as the contract describes it.",
    protects="stability",
    looks_like="A check blames a registry for the faults of its adapter.",
    body=_body,
    planted=("LookupCreates", "StaleHandleForgiven", "HidesCleanupErrors", "NoBoundaryCheck"),
)
