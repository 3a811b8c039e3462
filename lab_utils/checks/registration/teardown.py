"""The check of endings across layers: their order and time, the calls that work until then, and the reports of late
failures."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from itertools import product
from typing import Any

from lab_utils.checks.histories import BEGINS_S, Histories, do, judge_histories
from lab_utils.interleavings import Stage
from lab_utils.target import Capability, EndReport, Handle, Hook, NotSupported, Recipe, Refusal, Refused, Target
from lab_utils.trial import Check, Trial
from lab_utils.trial.faults import Planned
from lab_utils.values.verdict import Verdict
from lab_utils.values.workload import canary, nested, rows_for

__all__ = ["CHECKS", "RUNS"]

_USER, _OTHER = "ann", "ben"
_FAILING, _FAILING_TOO, _CUT = "amy-cleanup-fails", "zoe-cleanup-fails", "bob-cleanup-cancels-itself"
_CLOSE_S = 1.0
"""Seconds of the loop's own clock in which an ending cuts off hanging work."""
_HANGS_S = 10 * _CLOSE_S
_MOST_IGNORED = 1_000
"""Cancellations that a run ignores."""
_IDLE_S = 1_000.0
"""Seconds on the registry's own clock after which an idle session is due."""
_LONG_S = 10.0
"""Seconds of the loop's own clock in which a registry has saved all that it ever saves."""
_MOST_TIMERS = 2
"""Timers of a registry that are waited for before a user leaves."""
_MORE = 0.5
"""The part of that by which five that hang may take longer than one."""
_MANY = 5
_CLEANS_S = _CLOSE_S / 20
"""Seconds that a cleanup takes which does not hang: those of all the others have time beside one that does."""
RUNS = frozenset({Capability.EVENTS, Capability.RUN_IDS, Capability.RUN_ORDER, Capability.TOOLS})
"""Those by which a registry has to do with runs. One without them, such as a store, may leave them to the app."""
_USABLE = ("dispatcher", "bridge", "llm")
_NO_CLEANUP = "its agents have no cleanup"

_CALLER: ContextVar[str] = ContextVar("_CALLER", default="")


async def _teardown(trial: Trial) -> None:
    done = await judge_histories(trial, _PARTS, "histories of endings, each as it should be", idle_s=_IDLE_S)
    if not trial.verdicts:
        trial.judge(Verdict.not_applicable("the target needs more than a loop whose clock is the lab's own"))
    trial.measure("histories of endings", done, "histories")


# Order and time.


async def _order(stage: Stage, target: Target) -> None:
    """Agents are closed newest first, by an end, by a reset and by a sweep."""
    begun: list[str] = []

    def recipe(name: str) -> Recipe:
        async def on_cleanup(_: str) -> None:
            begun.append(name)
            await asyncio.sleep(0)

        return Recipe(name, on_cleanup=on_cleanup)

    types = [f"helper-{number}" for number in range(4)]
    await target.start([recipe(name) for name in types], {}, _CLOSE_S)
    orders: dict[str, list[str]] = {}
    for what, close in _closings(target).items():
        begun.clear()
        for name in types:
            await target.create(_USER, name)
        await close()
        await stage.rest()
        orders[what] = begun.copy()
    if not any(orders.values()):
        raise NotSupported(_NO_CLEANUP)
    for what, order in orders.items():
        if order != types[::-1]:
            stage.find("teardown-order", f"{what} of agents made as {types} cleaned up as {order}, not newest first")


def _closings(target: Target) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every way to close all agents of the user. Only the reset keeps the session."""
    closings: dict[str, Callable[[], Awaitable[Any]]] = {"the end": lambda: target.end(_USER)}
    if Capability.REMOVE in target.capabilities:
        closings["the reset"] = lambda: target.reset(_USER)
    if Capability.IDLE_END in target.capabilities:

        async def sweep() -> None:
            target.move_clock(2 * _IDLE_S)
            await target.sweep()
            # It may return before those who are due have been ended.
            await asyncio.sleep(_MORE * _CLOSE_S)

        closings["the sweep"] = sweep
    return closings


async def _deadline(stage: Stage, target: Target) -> None:
    """Five cleanups that hang are cut off together, as one is, which takes none of the others with it; and so are five
    runs."""
    hanging: dict[str, int] = {}
    called: list[str] = []
    cleaned: list[str] = []

    async def on_cleanup(_: str) -> None:
        called.append("one")
        if hanging.get("cleanup", 0) > 0:
            hanging["cleanup"] -= 1
            await asyncio.Event().wait()
        await asyncio.sleep(_CLEANS_S)
        cleaned.append("one")

    async def on_run(_: str) -> None:
        if hanging.get("run", 0) > 0:
            hanging["run"] -= 1
            # One that ignores its cancellation, for as long as is waited for it and no longer. A library may cancel it
            # in each step of the loop (anyio), and the loop's clock does not move while a step is due.
            until = asyncio.get_running_loop().time() + _HANGS_S
            for _ignored in range(_MOST_IGNORED):
                if (left := until - asyncio.get_running_loop().time()) <= 0:
                    break
                try:
                    await asyncio.sleep(left)
                except asyncio.CancelledError:
                    continue

    types = [f"helper-{number}" for number in range(_MANY)]
    await target.start([Recipe(name, None, on_run, on_cleanup) for name in types], {}, _CLOSE_S)
    time = asyncio.get_running_loop().time
    for kind in ("cleanup", "run"):
        for what, close in _closings(target).items():
            if (kind, what) == ("run", "the sweep"):
                continue  # A session in which something runs is not idle.
            took: dict[int, float] = {}
            for count in (1, _MANY):
                handles = [await target.create(_USER, name) for name in types]
                hanging[kind] = count
                cleaned.clear()
                runs = [asyncio.ensure_future(do(target, one, "recall")) for one in handles if kind == "run"]
                await asyncio.sleep(BEGINS_S)
                # One user's calls may be done one after another: then a reset waits for each run that waits.
                is_judged = what == "the end" or kind == "cleanup" or not hanging[kind]
                began = time()
                await close()
                took[count] = time() - began if is_judged else 0.0
                # Agents may have no cleanups at all.
                others = _MANY - count if called and (kind == "cleanup" or what == "the end") else 0
                if len(cleaned) < others:
                    # It may go on behind the call's back, and give each agent a time of its own.
                    await asyncio.sleep(_MANY * _CLOSE_S)
                if len(cleaned) < others:
                    sentence = (
                        f"{what} of {_MANY} agents cut off {others - len(cleaned)} cleanups of {_CLEANS_S:g} s beside "
                        f"{count} {kind}s that hang; a cleanup has {_CLOSE_S:g} s"
                    )
                    stage.find("never-closed", sentence)
                hanging[kind] = 0
                for run in runs:
                    run.cancel()
                await asyncio.gather(*runs, return_exceptions=True)
            if took[_MANY] > max(took[1], _CLOSE_S) + _MORE * _CLOSE_S:
                sentence = (
                    f"{what} takes {took[1]:g} s beside one {kind} that hangs and {took[_MANY]:g} s beside {_MANY}; a "
                    f"cleanup has {_CLOSE_S:g} s"
                )
                stage.find("deadline-grows", sentence)
    # Until those runs have ended that ignored their cancellation.
    await asyncio.sleep(_HANGS_S)


async def _together(stage: Stage, target: Target) -> None:
    """An end that meets a create and a run that ignore their cancellation, and a cleanup that hangs, takes no longer
    than beside that cleanup alone; each agent is cleaned up once all the same."""
    free = asyncio.Event()
    called: Counter[str] = Counter()

    async def ignoring(_: str) -> None:
        for _ignored in range(_MOST_IGNORED):
            if free.is_set():
                break
            with suppress(asyncio.CancelledError):
                await free.wait()

    def recipe(name: str, on_create: Hook | None = None, on_run: Hook | None = None) -> Recipe:
        async def on_cleanup(_: str) -> None:
            called[name] += 1
            if name == "hanging":
                await asyncio.Event().wait()
            await asyncio.sleep(0)

        return Recipe(name, on_create, on_run, on_cleanup)

    names = ("helper", "hanging", "working")
    recipes = [recipe("helper"), recipe("hanging"), recipe("working", on_run=ignoring), recipe("making", ignoring)]
    await target.start(recipes, {}, _CLOSE_S)
    has_runs = not target.capabilities.isdisjoint(RUNS)
    time = asyncio.get_running_loop().time
    took: dict[bool, float] = {}
    for is_met in (False, True):
        called.clear()
        made = [await target.create(_USER, name) for name in names]
        calls: list[asyncio.Future[Any]] = []
        if is_met:
            if has_runs:
                calls.append(asyncio.ensure_future(do(target, made[-1], "recall")))
            calls.append(asyncio.ensure_future(target.create(_USER, "making")))
            await asyncio.sleep(BEGINS_S)
        made.clear()
        began = time()
        await target.end(_USER)
        took[is_met] = time() - began
        free.set()
        await asyncio.gather(*calls, return_exceptions=True)
        # It may go on behind the call's back.
        await asyncio.sleep(_MANY * _CLOSE_S)
        if not called:
            raise NotSupported(_NO_CLEANUP)
        beside = ", beside a create and a run that ignore their cancellation" if is_met else ""
        for name in names:
            if called[name] != 1:
                anomaly = "never-closed" if called[name] < 1 else "closed-twice"
                stage.find(anomaly, f"an end called the cleanup of the agent {name!r} {called[name]} times{beside}")
        free.clear()
        await target.end(_USER)
    if took[True] > max(took[False], _CLOSE_S) + _MORE * _CLOSE_S:
        sentence = (
            f"an end takes {took[False]:g} s beside a cleanup that hangs and {took[True]:g} s if a create and a run "
            f"ignore their cancellation, too; a cleanup has {_CLOSE_S:g} s"
        )
        stage.find("deadline-grows", sentence)


async def _line(stage: Stage, target: Target) -> None:
    """Runs that wait for their agent's turn when it is closed do not begin any more."""
    held = asyncio.Event()
    begun: list[str] = []

    async def on_run(user: str) -> None:
        begun.append(user)
        await held.wait()

    await target.start([Recipe("helper", None, on_run)], {}, _CLOSE_S)
    for what, close in _closings(target).items():
        if what == "the sweep":
            continue  # A session in which something runs is not idle.
        held.clear()
        handle = await target.create(_USER, "helper")
        runs = [asyncio.ensure_future(do(target, handle, "recall")) for _ in range(_MANY)]
        await asyncio.sleep(BEGINS_S)
        before = len(begun)
        closing = asyncio.ensure_future(close())
        await stage.rest()
        # One user's calls may be done one after another: then a reset waits for each run in the line.
        is_judged = what == "the end" or closing.done()
        if not is_judged:
            held.set()
        await closing
        held.set()
        await stage.rest()
        late = len(begun) - before if is_judged else 0
        if late:
            stage.find("use-after-close", f"{late} of {_MANY} runs of one agent began after {what} had closed it")
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)


async def _under_way(stage: Stage, target: Target) -> None:
    """An end cancels every run, under way or in line, of agents with a cleanup and without one."""
    held = asyncio.Event()
    going: list[str] = []
    cancelled: list[str] = []

    async def tidy(user: str) -> None:
        await asyncio.sleep(0)

    def recipe(name: str, on_cleanup: Hook | None) -> Recipe:
        async def on_run(_: str) -> None:
            going.append(name)
            while not held.is_set():
                try:
                    await held.wait()
                except asyncio.CancelledError:
                    cancelled.append(name)
                    if name != "ignoring" or len(cancelled) > _MOST_IGNORED:
                        break
            going.remove(name)
            if not held.is_set():
                raise asyncio.CancelledError

        return Recipe(name, None, on_run, on_cleanup)

    can_run = [one for one in RUNS if one in target.capabilities]
    cleaned, plain, ignoring = recipe("helper", tidy), recipe("plain", None), recipe("ignoring", None)
    await target.start([cleaned, plain, ignoring, Recipe("second")], {}, _CLOSE_S)
    ends: dict[str, Callable[[], Awaitable[Any]]] = {
        "the end": lambda: target.end(_USER),
        "the end of all": target.end_all,
    }
    for what, end in ends.items():
        for recipes in ((cleaned, plain), (ignoring,)):
            held.clear()
            cancelled.clear()
            other = await target.create(_USER, "second")
            made = [await target.create(_USER, one.agent_type) for one in recipes]
            runs = [asyncio.ensure_future(do(target, one, "recall")) for one in made for _ in range(_MANY)]
            await asyncio.sleep(BEGINS_S)
            # Where all calls of one user are in one line, nobody leaves it before the first.
            beside = asyncio.ensure_future(do(target, other, "recall"))
            await asyncio.sleep(BEGINS_S)
            has_one_line, begun = not beside.done(), len(going)
            await end()
            await stage.rest()
            left, ignored = sum(not run.done() for run in runs), len(going) if ignoring in recipes else 0
            has_runs = bool(cancelled or can_run)
            is_judged = has_runs and not (ignored and (has_one_line or ignored > 1))
            # Its caller may wait for it, too.
            if is_judged and left > ignored:
                where = "behind one that ignores its cancellation" if ignored else f"of which {begun} had begun"
                sentence = f"{what} left {left - ignored} of {len(runs)} runs waiting or at work, {where}"
                stage.find("leaked-task", f"{sentence}; at work are those of {sorted(set(going))}")
            held.set()
            await stage.rest()
            for run in (beside, *runs):
                run.cancel()
            await asyncio.gather(beside, *runs, return_exceptions=True)
            await target.end(_USER)


async def _meanwhile(stage: Stage, target: Target) -> None:
    """A run that is asked for while its agent's cleanup is under way is refused, or ends with its agent, also where the
    session stays."""
    held = asyncio.Event()
    asked: list[asyncio.Future[Any]] = []
    handles: list[Handle] = []

    async def on_run(_: str) -> None:
        await held.wait()

    async def on_cleanup(_: str) -> None:
        asked.append(asyncio.ensure_future(do(target, handles[-1], "recall")))
        await asyncio.sleep(_CLEANS_S)

    await target.start([Recipe("helper", None, on_run, on_cleanup)], {}, _CLOSE_S)
    if target.capabilities.isdisjoint(RUNS):
        raise NotSupported("it leaves runs to the app")
    ends: dict[str, Callable[[], Awaitable[Any]]] = {
        "the end": lambda: target.end(_USER),
        "the end of all": target.end_all,
    }
    if Capability.REMOVE in target.capabilities:
        ends["the reset"] = lambda: target.reset(_USER)
        ends["the removal"] = lambda: target.remove(_USER, "helper")
    for what, end in ends.items():
        held.clear()
        handles.append(await target.create(_USER, "helper"))
        await end()
        await asyncio.sleep(BEGINS_S)
        if any(not run.done() for run in asked):
            sentence = f"a run that was asked for during the cleanup of its agent began, and goes on after {what}"
            stage.find("use-after-close", sentence)
        held.set()
        await asyncio.gather(*asked, return_exceptions=True)
    if not asked:
        raise NotSupported(_NO_CLEANUP)


async def _end_of_all(stage: Stage, target: Target) -> None:
    """The end of all ends everybody's session, though two users' cleanups fail; a report of errors holds both."""
    users = (_USER, _FAILING, _OTHER, _FAILING_TOO)

    async def on_cleanup(user: str) -> None:
        await asyncio.sleep(0)
        if user in (_FAILING, _FAILING_TOO):
            raise Planned(f"the cleanup of {user} fails")

    await target.start([Recipe("helper", on_cleanup=on_cleanup)], {}, _CLOSE_S)
    before = await target.create(_OTHER, "helper")
    await target.end_all()
    if not await _is_refused(stage, do(target, before, "recall")):
        # That is a cause of its own, which other checks name.
        raise NotSupported("a handle works after every end")
    handles = [await target.create(user, "helper") for user in users]
    ended, report = "", None
    try:
        report = await target.end_all()
    except Exception as error:
        stage.require_explorable(error)
        ended = f", and raised {type(error).__name__}: {error}"
    await stage.rest()
    there = [one.user for one in handles if not await _is_refused(stage, do(target, one, "recall"))]
    if there:
        sentence = f"the end of all, in which the cleanup of {_FAILING!r} fails, did not end the sessions of {there}"
        stage.find("agent-not-closed", sentence + ended)
    if isinstance(report, EndReport) and len(report.errors) == 1:
        unnamed = [user for user in (_FAILING, _FAILING_TOO) if user not in report.errors[0]]
        # One text may stand for all.
        if len(unnamed) == 1:
            sentence = f"the end of all, in which two users' cleanups fail, does not name that of {unnamed[0]!r}"
            stage.find("error-not-reported", f"{sentence}: {list(report.errors)}")


async def _alone(stage: Stage, target: Target) -> None:
    """An end leaves those alone whose ids begin as the user's does, and names each cleanup that failed."""
    called: list[str] = []

    async def on_cleanup(user: str) -> None:
        called.append(user)
        if user == _FAILING:
            raise Planned("this cleanup fails")
        if user == _CUT:
            # As of a library that gives up work of its own.
            raise asyncio.CancelledError

    await target.start([Recipe("helper", on_cleanup=on_cleanup)], {}, _CLOSE_S)
    handles = [await target.create(user, "helper") for user in (_USER, f"{_USER}a", f"{_USER}-2", _FAILING, _CUT)]
    await target.end(_USER)
    for handle in handles[1:]:
        # Users who were given one agent are another check's matter.
        is_their_own = handle.instance != handles[0].instance
        if is_their_own and await _is_refused(stage, do(target, handle, "recall")):
            stage.find("neighbour-touched", f"the end of {_USER!r} has ended the session of {handle.user!r}, too")
    for user in (_FAILING, _CUT):
        ended = await asyncio.gather(target.end(user), return_exceptions=True)
        if isinstance(ended[0], Exception):
            raise ended[0]
        # Agents may have no cleanups at all.
        if user in called and not getattr(ended[0], "errors", ()):
            stage.find("error-not-reported", f"the cleanup of {user!r} failed, and the end reports no error")


async def _each_named(stage: Stage, target: Target) -> None:
    """An end in which several cleanups fail or are cut off names each of them, by its error or its agent's type, also
    one that makes no fuss about being cut off."""
    called: list[str] = []

    def recipe(name: str) -> Recipe:
        async def on_cleanup(_: str) -> None:
            called.append(name)
            if name in hanging:
                await asyncio.sleep(_HANGS_S)
            if name == yielding:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(_HANGS_S)
            elif name != well:
                raise Planned(f"the cleanup of {name} fails")

        return Recipe(name, on_cleanup=on_cleanup)

    failing, well = ["agent-one", "agent-two", "agent-three"], "agent-four"
    hanging = ["agent-five", "agent-six", "agent-seven"]
    yielding = "agent-eight"
    types = [*failing, *hanging, yielding, well]
    await target.start([recipe(name) for name in types], {}, _CLOSE_S)
    for name in types:
        await target.create(_USER, name)
    errors = (await target.end(_USER)).errors
    if not called:
        raise NotSupported(_NO_CLEANUP)
    due = [name for name in (*failing, *hanging, yielding) if name in called]
    unnamed = [name for name in due if not any(name in error for error in errors)]
    # A text that names none of them may stand for any.
    if errors and len(errors) < len(due) and unnamed:
        sentence = f"the cleanups of {due} failed or were cut off, and the end does not name those of {unnamed}"
        stage.find("error-not-reported", f"{sentence}: {list(errors)}")
    for pair in (failing, hanging):
        await _at_once_named(stage, target, pair)


async def _at_once_named(stage: Stage, target: Target, types: Sequence[str]) -> None:
    """Of users whose sessions end at once, with agents whose cleanups fail, each report names its own."""
    users = {_USER: types[:1], _OTHER: types[1:]}
    for user, names in users.items():
        for name in names:
            await target.create(user, name)
    reports = await asyncio.gather(*(target.end(user) for user in users), return_exceptions=True)
    for user, report in zip(users, reports, strict=True):
        if not isinstance(report, EndReport):
            continue
        others = [name for name in types if name not in users[user]]
        errors = list(report.errors)
        if wrong := [name for name in others if any(name in error for error in errors)]:
            sentence = f"the end of {user!r}, who has no {wrong[0]}, reports the error of that cleanup: {errors}"
            stage.find("canary-in-error", sentence)
        elif not errors:
            sentence = f"the cleanup of {user!r} failed as another user's did, and the end reports no error"
            stage.find("error-not-reported", sentence)


async def _again_meanwhile(stage: Stage, target: Target) -> None:
    """An end of a session that was opened while the one before it was closing ends that session, too."""

    called: list[str] = []
    asked = 0

    async def on_cleanup(user: str) -> None:
        called.append(user)
        await asyncio.sleep(_MORE * _CLOSE_S)

    await target.start([Recipe("helper", on_cleanup=on_cleanup), Recipe("plain")], {}, _CLOSE_S)
    ends: dict[str, Callable[[], Awaitable[Any]]] = {
        "an end": lambda: target.end(_USER),
        "an end of all": target.end_all,
    }
    for what, end in ends.items():
        for name in ("helper", "plain"):
            await target.create(_USER, "helper")
            first = asyncio.ensure_future(target.end(_USER))
            await asyncio.sleep(_CLEANS_S)
            # It may wait until the session before has been closed.
            coming = asyncio.ensure_future(target.create(_USER, name))
            await asyncio.wait({first, coming}, return_when=asyncio.FIRST_COMPLETED)
            # Or be refused.
            if coming.done() and not first.done() and coming.exception() is None:
                asked += 1
                second = await end()
                await first
                is_there = Capability.POPULATION in target.capabilities and bool(target.population().agents)
                if is_there or not await _is_refused(stage, do(target, await coming, "recall")):
                    sentence = f"{what} came while the session before was closing, and answered {second}: the session"
                    stage.find(
                        "session-left", f"{sentence} that was opened meanwhile, with the agent {name!r}, is there"
                    )
            await asyncio.gather(first, coming, return_exceptions=True)
            await target.end(_USER)
    if not asked:
        raise NotSupported("a create waits for the session before, or is refused" if called else _NO_CLEANUP)


async def _long_after(stage: Stage, target: Target) -> None:
    """Who writes, leaves at once and comes back long after finds nothing, however late the registry saves its data."""
    await target.start([Recipe("helper")], {}, _CLOSE_S)
    leavings = _closings(target) | {"the end of all": target.end_all}
    if Capability.REMOVE in target.capabilities:
        leavings["the removal"] = lambda: target.remove(_USER, "helper")
    for what, leave in leavings.items():
        await _comes_back(stage, target, what, leave)


async def _as_it_saves(stage: Stage, target: Target) -> None:
    """Who writes, leaves just after a timer of the registry has come, in the middle of what that has begun, and comes
    back long after finds nothing."""
    await target.start([Recipe("helper")], {}, _CLOSE_S)
    leavings: dict[str, Callable[[], Awaitable[Any]]] = {"the end": lambda: target.end(_USER)}
    if Capability.REMOVE in target.capabilities:
        leavings["the removal"] = lambda: target.remove(_USER, "helper")
    for what, leave in leavings.items():
        for timers in range(1, _MOST_TIMERS + 1):
            await _comes_back(stage, target, what, leave, timers)


async def _comes_back(
    stage: Stage, target: Target, what: str, leave: Callable[[], Awaitable[Any]], timers: int = 0
) -> None:
    """Write, leave when so many timers have come, come back, and look. Nothing is asked of a loop without timers."""
    made = await target.create(_USER, "helper")
    await do(target, made, "write", key=what, value=canary(_USER, what, timers))
    waited = 0.0
    for _ in range(timers):
        pause = stage.until_next_timer()
        if pause is None or waited + pause > _LONG_S:
            await target.end(_USER)
            return
        await asyncio.sleep(pause)
        waited += pause
    await leave()
    del made
    await asyncio.sleep(_LONG_S)
    if Capability.POPULATION in target.capabilities and (found := target.population()).agents:
        stage.find("session-left", f"long after {what} the target holds {found}, though nobody has come back")
    back = await target.create(_USER, "helper")
    if recalled := await do(target, back, "recall"):
        when = f"{waited:g} s later, as the registry was at work," if timers else "at once,"
        sentence = f"{_USER!r} wrote, left by {what} {when} and came back long after to {recalled!r}"
        stage.find("old-life-read", sentence)
    await target.end(_USER)


# The calls that work, and until when.


async def _layers(stage: Stage, target: Target) -> None:
    """An agent's own tools, events and model work while its cleanup runs, and no longer once it has ended."""
    held: dict[str, Any] = {}
    early: list[str] = []
    cleaned: list[str] = []
    begun = asyncio.Event()

    async def on_cleanup(user: str) -> None:
        cleaned.append(user)
        begun.set()
        for seconds in (0.0, 0.0, _MORE * _CLOSE_S / 2):
            await asyncio.sleep(seconds)
            errors = {name: await _use(stage, target, name, held[name]) for name in _USABLE if name in held}
            words = f"of {user!r} fails while its agent's cleanup runs"
            early.extend(f"the {name} {words}: {error}" for name, error in errors.items() if error)

    await target.start([Recipe("helper", on_cleanup=on_cleanup)], _rows(), _CLOSE_S)
    closings = _closings(target)

    async def removal_and_end() -> None:
        begun.clear()
        removal = asyncio.ensure_future(target.remove(_USER, "helper"))
        waiting = asyncio.ensure_future(begun.wait())
        await asyncio.wait({removal, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        # The bridge is the session's, which ends now.
        held.pop("bridge", None)
        await target.end(_USER)
        await removal

    if Capability.REMOVE in target.capabilities:
        closings["the removal"] = lambda: target.remove(_USER, "helper")
        closings["the removal, and an end meanwhile"] = removal_and_end
    for what, close in closings.items():
        early.clear()
        held.clear()
        held.update(await target.parts(await target.create(_USER, "helper")))
        await close()
        await stage.rest()
        for sentence in early[:1]:
            stage.find("torn-down-early", f"{what}: {sentence}")
        held.clear()
        await target.end(_USER)
    if not cleaned:
        raise NotSupported(_NO_CLEANUP)


async def _stale(stage: Stage, target: Target) -> None:
    """Parts and handles that were kept are refused and have no effect. This holds beside a session that was opened
    anew, and for an adopted agent, too."""
    can = target.capabilities

    async def adopted() -> Handle:
        apart = target.make_apart(_USER, "helper")
        await target.adopt(_USER, apart)
        return apart

    async def fails(_: str) -> None:
        raise Planned("this cleanup fails")

    makings: dict[str, Callable[[], Awaitable[Handle]]] = {
        "agent": lambda: target.create(_USER, "helper"),
        "agent whose cleanup failed": lambda: target.create(_USER, "untidy"),
    }
    if Capability.ADOPTION in can:
        makings["adopted agent"] = adopted
    recipes = [Recipe("helper"), Recipe("second"), Recipe("untidy", on_cleanup=fails)]
    await target.start(recipes, _rows(), _CLOSE_S)
    closings = _closings(target)
    if Capability.REMOVE in can:
        closings["the removal"] = lambda: target.remove(_USER, handle.agent_type)
    for (kind, make), (what, close) in product(makings.items(), closings.items()):
        ends_session = what in ("the end", "the sweep")
        for again in (False, True):
            await target.create(_USER, "second")
            handle = await make()
            held = dict(await target.parts(handle))
            try:
                await close()
            except Exception as raised:
                # A closing may raise what a cleanup raises.
                stage.require_explorable(raised)
                if kind != "agent whose cleanup failed":
                    raise
            fresh = await target.create(_USER, "helper") if again else None
            client = target.subscribe(_USER) if Capability.EVENTS in can else None
            then = f"after {what}" + (" and a new create" if again else "")
            for name in _USABLE:
                # The bridge is the session's: one that lives serves the agents that are left. So may the parts that an
                # adopted agent has brought: its maker may have given them to others, too.
                is_shared = name == "bridge" or kind == "adopted agent"
                if held.get(name) is None or (is_shared and not ends_session):
                    continue
                error = await _use(stage, target, name, held[name])
                if not error:
                    stage.find("stale-part-works", f"the {name} of a closed {kind} of {_USER!r} works {then}")
            if not await _is_refused(stage, do(target, handle, "write", key="stale", value="written")):
                stage.find("use-after-close", f"a handle of a closed {kind} of {_USER!r} works {then}")
            if client is not None and (heard := [event for event in client.received() if event.type != "resync"]):
                stage.find(
                    "stale-part-works", f"a part that a closed {kind} kept reaches the clients {then}: {heard[0]}"
                )
            if fresh is not None and await do(target, fresh, "recall"):
                stage.find("stale-part-works", f"a part that a closed {kind} kept writes into the new one {then}")
            await target.end(_USER)


async def _use(stage: Stage, target: Target, name: str, held: object) -> str:
    """Use a part; return the error that it raised, or ""."""
    try:
        await target.use_part(name, held)
    except Exception as error:
        stage.require_explorable(error)
        return f"{type(error).__name__}: {error}"
    return ""


async def _is_refused(stage: Stage, work: Awaitable[Any]) -> bool:
    try:
        await work
    except Refused as refusal:
        return refusal.kind is Refusal.CLOSED
    except Exception as error:
        stage.require_explorable(error)
        return True
    return False


async def _variables(stage: Stage, target: Target) -> None:
    """The code of a user's agents, cleanups included, sees no context variable of another user's caller."""
    seen: dict[tuple[str, str], str] = {}

    def hook(what: str) -> Hook:
        async def look(user: str) -> None:
            for _ in range(2):
                if (other := _CALLER.get()) not in ("", user):
                    seen.setdefault((what, user), other)
                await asyncio.sleep(0)

        return look

    async def live(user: str) -> None:
        _CALLER.set(user)
        handle = await target.create(user, "helper")
        await do(target, handle, "recall")
        if Capability.REMOVE in target.capabilities:
            await target.remove(user, "helper")
            await target.create(user, "helper")
        await target.end(user)

    await target.start([Recipe("helper", hook("factory"), hook("run"), hook("cleanup"))], {}, _CLOSE_S)
    await asyncio.gather(*map(live, (_USER, _OTHER)))
    for (what, user), other in seen.items():
        sentence = f"in a {what} of {user!r} a context variable has the value that the caller {other!r} has given it"
        stage.find("cross-user-data", sentence)


# Reported ends, and shared parts.


async def _late(stage: Stage, target: Target) -> None:
    """A run fails after its work: exactly one of completed and error is emitted, and it is true; the next run works."""
    await target.start([Recipe("helper")], {}, _CLOSE_S)
    client = target.subscribe(_USER)
    handle = await target.create(_USER, "helper")
    await do(target, handle, "recall")
    for how in ("copy", "words"):
        known = len(client.received())
        answered, error = True, ""
        try:
            await do(target, handle, "odd", how=how)
        except Exception as raised:
            stage.require_explorable(raised)
            answered, error = False, f"{type(raised).__name__}"
        await stage.rest()
        ends = [one.type for one in client.received()[known:] if one.type in ("agent_completed", "agent_error")]
        came = "was answered" if answered else f"failed with {error}"
        sentence = f"a run of {_USER!r} whose answer cannot be {'copied' if how == 'copy' else 'put into words'} {came}"
        if len(ends) != 1:
            stage.find(
                "two-end-events" if ends else "no-end-event", f"{sentence}, and was reported as {ends or 'nothing'}"
            )
        elif (ends == ["agent_completed"]) != answered:
            stage.find("false-end-event", f"{sentence}, and was reported as {ends[0]}")
        try:
            await do(target, handle, "recall")
        except Exception as raised:
            stage.require_explorable(raised)
            stage.find("next-call-fails", f"{sentence}, and the next run fails with {type(raised).__name__}: {raised}")


async def _one_request(stage: Stage, target: Target) -> None:
    """Agents made from one request's data hold no container with it in common."""
    types = [f"helper-{number}" for number in range(3)]
    await target.start([Recipe(name) for name in types], {}, _CLOSE_S)
    data = nested(_USER, "request")
    owners: dict[int, str] = {}
    kept: list[object] = []
    for name in types:
        handle = await target.create(_USER, name, data=data)
        context = (await target.parts(handle)).get("context")
        for found in _containers(context, canary(_USER, "request", 2)):
            kept.append(found)
            other = owners.setdefault(id(found), name)
            if other != name:
                sentence = f"{other} and {name} of {_USER!r}, made from one request, share the {type(found).__name__}"
                stage.find("shared-object", f"{sentence} {str(found)[:80]}")
                return
    await do(target, handle, "recall")


def _containers(root: object, text: str) -> list[object]:
    """The lists, dicts and sets within reach of an object that hold this text."""
    found: list[object] = []
    seen: set[int] = set()
    todo: list[tuple[object, int]] = [(root, 0)]
    while todo:
        item, depth = todo.pop()
        if id(item) in seen or depth > 8 or isinstance(item, (type, str, bytes, int, float)) or callable(item):
            continue
        seen.add(id(item))
        members = list(item.values()) if isinstance(item, dict) else item if isinstance(item, (list, set)) else ()
        if any(type(one) is str and one == text for one in members):
            found.append(item)
        todo += ((one, depth + 1) for one in gc.get_referents(item))
    return found


def _rows() -> Mapping[str, Sequence[Any]]:
    return {user: rows_for(user, 2, random.Random(1)) for user in (_USER, _OTHER)}


_C = Capability
_PARTS: Histories = (
    ("agents are closed newest first", frozenset({_C.END, _C.CREATE_ANEW}), _order),
    ("five that hang take as long as one, and one leaves the others their time", frozenset({_C.END}), _deadline),
    ("what ignores its end and what hangs take one time together", frozenset({_C.END}), _together),
    ("runs that wait for their turn never begin", frozenset({_C.END}), _line),
    ("an end cancels every run", frozenset({_C.END}), _under_way),
    ("a run that comes during a cleanup does not outlive it", frozenset({_C.END}), _meanwhile),
    ("the end of all goes on past a cleanup that fails", frozenset({_C.END}), _end_of_all),
    ("an end ends one user's session alone, and names the cleanups that failed", frozenset({_C.END}), _alone),
    ("an end names each of several cleanups that failed", frozenset({_C.END}), _each_named),
    ("an end takes the session that was opened while another was closing", frozenset({_C.END}), _again_meanwhile),
    ("who writes and leaves at once comes back to nothing", frozenset({_C.END}), _long_after),
    ("who leaves as the registry saves comes back to nothing", frozenset({_C.END}), _as_it_saves),
    ("parts work while a cleanup runs", frozenset({_C.END, _C.PARTS, _C.PART_USE}), _layers),
    ("parts and handles are refused afterwards", frozenset({_C.END, _C.PARTS, _C.PART_USE}), _stale),
    ("agents see no context variables of another user's caller", frozenset({_C.END}), _variables),
    ("a late failure is reported once, with its true outcome", frozenset({_C.EVENTS}), _late),
    ("agents of one request share nothing", frozenset({_C.PARTS, _C.CONTEXT_DATA}), _one_request),
)
CHECKS = (
    Check(
        name="teardown_across_layers",
        category="registration_management",
        claim="Agents are closed newest first and within one deadline, however many hang, and all of them though one "
        "fails; an end ends one user's session alone, also one that was opened as another was closing, and names the "
        "cleanups that failed, its own user's alone. "
        "Their tools, events and model work until their cleanup has ended and are refused afterwards, as is "
        "every handle, also beside a new session. Every run is cancelled, and those that wait for their turn or come "
        "during a cleanup do not outlive it. Nothing that is saved late comes back. A run that fails after its work is "
        "reported once, with its true outcome. Agents of one request share nothing, and no agent's code sees context "
        "variables of another user's caller.",
        protects="stability",
        looks_like="The cleanup writes the last results through a tool that was closed a line earlier, so they are "
        "lost without an error. Five customers' connections hang, and the deployment that has ten seconds needs fifty.",
        body=_teardown,
        needs=frozenset({Capability.END}),
        planted=(
            "OldestClosedFirst",
            "ResetInAnyOrder",
            "SweptOldestFirst",
            "SweptToolsWork",
            "DeadlineForEach",
            "FirstHangTakesAll",
            "EndOfAllStopsAtError",
            "EndsByPrefix",
            "HidesCleanupErrors",
            "ReportsTheFirstError",
            "HidesCancelledCleanups",
            "SavesAfterwards",
            "BatchUndoesEnd",
            "ToolsClosedFirst",
            "EventsClosedFirst",
            "EndTakesToolsOfTheRemoved",
            "ToolsOutliveAgent",
            "AdoptedToolsWork",
            "BridgeOutlivesSession",
            "ToolsOpenedAgain",
            "LineOutlivesReset",
            "ForgottenRuns",
            "UntidyRunsGoOn",
            "LineWaitsOn",
            "RunsBesideCleanup",
            "CompletedBeforeCopied",
            "LateFailureToldAsSuccess",
            "DeadlineForRunsAndCleanups",
            "NoCleanupBesideRun",
            "UntidyToolsWork",
            "ErrorsOfAllEnds",
            "EndJoinsTheOneBefore",
            "CutOffCountsAsDone",
            "RunsBesideRemoval",
            "RunsTakeTheTime",
            "LastErrorOfAll",
            "ContextOfTheRequest",
            "ClosedInTheFirstsContext",
        ),
        uses=frozenset(
            {
                Capability.ADOPTION,
                Capability.CONTEXT_DATA,
                Capability.CREATE_ANEW,
                Capability.EVENTS,
                Capability.IDLE_END,
                Capability.PARTS,
                Capability.PART_USE,
                Capability.POPULATION,
                Capability.REMOVE,
                Capability.RUN_IDS,
                Capability.RUN_ORDER,
                Capability.TOOLS,
            }
        ),
    ),
)
