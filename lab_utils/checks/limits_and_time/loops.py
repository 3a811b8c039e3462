"""The check of calls that come from other threads and event loops than the registry's own."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any

from lab_utils.checks.limits_and_time.asking import attempt, live, of, require_refused, said
from lab_utils.target import Capability, Command, Handle, Recipe, Refusal, Target, brings_a_manager
from lab_utils.trial import Trial
from lab_utils.trial.faults import counted
from lab_utils.values.limits import limited

__all__ = ["foreign_loops", "in_thread"]

Call = Callable[[], Coroutine[Any, Any, Any]]


async def foreign_loops(trial: Trial) -> None:
    """Make each call from a loop in another thread, and from another loop of one thread."""
    made, closed = Counter[str](), Counter[str]()
    target = await trial.target([Recipe("helper", counted(made), on_cleanup=counted(closed))])
    handle = await of(trial, target, "ada").create("helper")
    await target.run(handle, Command("write", {"key": "memo", "value": "ada's"}))
    made.clear()
    before = target.population() if Capability.POPULATION in target.capabilities else None
    for name, call in _calls(target, handle).items():
        answer = await attempt(trial, asyncio.wrap_future(_elsewhere(trial, call)), f"{name} from another thread")
        require_refused(trial, answer, Refusal.WRONG_LOOP, "wrong-loop-accepted", f"{name} from another thread's loop")
        effects = [f"{number} agents of {user!r} were made" for user, number in made.items()]
        effects += [f"{number} agents of {user!r} were closed" for user, number in closed.items()]
        if before is not None and target.population() != before:
            effects.append(f"{before} became {target.population()}")
        sentence = f"{name} from another thread's loop had an effect, though it was not to be done there"
        if not trial.require(not effects, "left-behind", sentence, *effects):
            break
    there = await live(trial, target, [handle])
    answer = await attempt(trial, target.run(handle, Command("read", {"key": "memo"})), "a run") if there else None
    sentence = f"after calls from other loops the agent {said(answer)} on its own one"
    trial.require(answer == "ada's", "lost-agent", sentence)
    outcome = await attempt(trial, asyncio.wrap_future(in_thread(lambda: _two_loops(trial))), "two loops in a thread")
    require_refused(trial, outcome, Refusal.WRONG_LOOP, "wrong-loop-accepted", "a run from a second loop of its thread")


def _calls(target: Target, handle: Handle) -> Mapping[str, Call]:
    able = target.capabilities
    calls: dict[str, Call] = {
        "a create": lambda: target.create("bob", "helper"),
        "a run": lambda: target.run(handle, Command("write", {"key": "memo", "value": "of another loop"})),
    }
    if Capability.GET_OR_CREATE in able:
        calls["get_or_create"] = lambda: target.get_or_create("bob", "helper")
    if Capability.LOOKUP in able:
        calls["get"] = lambda: target.get("ada", "helper")
    if brings_a_manager(target):
        calls["attach"] = lambda: target.attach("bob")
    if Capability.REMOVE in able:
        calls["reset"] = lambda: target.reset("ada")
        calls["remove"] = lambda: target.remove("ada", "helper")
    if Capability.END in able:
        calls["end"] = lambda: target.end("ada")
        calls["end_all"] = target.end_all
    if Capability.STRICT in able:
        calls["a strict create"] = lambda: target.create_strict("bob", "helper", {})
    if {Capability.IDLE_END, Capability.AGE_END} & able:
        calls["a sweep"] = target.sweep
    return calls


def _elsewhere(trial: Trial, call: Call) -> Future[Any]:
    """Await it on an event loop of a thread of its own."""
    return in_thread(lambda: asyncio.run(_within(trial, call)))


async def _within(trial: Trial, call: Call) -> Any:
    # A target that does not refuse may wait for something that only its own loop would bring: it is answered so before
    # the trial gives the call up.
    async with limited(trial.waiting.stuck_after / 2):
        return await call()


def in_thread(work: Callable[[], Any]) -> Future[Any]:
    """Do it in a thread of its own, which does not keep the process from ending."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error.with_traceback(None))

    threading.Thread(target=run, name="another loop", daemon=True).start()
    return future


def _two_loops(trial: Trial) -> Any:
    """Start a target on one loop, and run an agent of it on a second one; return the outcome."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    target = trial.make_target()
    try:
        first.run_until_complete(target.start([Recipe("helper")], {}, 5.0))
        handle = first.run_until_complete(target.create("ada", "helper"))
        try:
            return second.run_until_complete(_within(trial, lambda: target.run(handle, Command("recall"))))
        except Exception as error:
            return error.with_traceback(None)
    finally:
        first.run_until_complete(target.stop())
        for loop in (first, second):
            loop.close()
