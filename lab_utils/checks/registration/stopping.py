"""The part of concurrent_agent_registration_safety in which the target is stopped while callers wait."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from lab_utils.target import Capability, Command, Recipe, Target
from lab_utils.trial import Trial, loops
from lab_utils.trial.faults import Gate, Hang

__all__ = ["stopped_meanwhile"]

_CLOSE_S = 0.05
"""Seconds that the target has for the calls under way: so few that it stops while the runs of the lab are held."""
_RUNS = 3
_USER = "ada"


async def stopped_meanwhile(trial: Trial) -> None:
    """Stop a target with calls under way, call it once more, and require that every caller is answered.

    The kind of answer, a value or an error, is the target's choice. Everything that the lab holds is let go before a
    caller counts as left waiting.
    """
    factory, run = Gate(), Hang()
    recipes = [Recipe("busy", on_run=run), Recipe("slow", factory)]
    target = await trial.target(recipes, close_timeout=_CLOSE_S)
    busy = await trial.client(target, "a caller", _USER).create("busy")
    # Not by a client, which notes each error that is not a refusal: here any error is an answer.
    read = Command("read", {"key": "note"})
    waiting: dict[str, asyncio.Task[Any]] = {}
    try:
        for number in range(_RUNS):
            waiting[f"run {number + 1}, asked before the stop"] = asyncio.create_task(target.run(busy, read))
        name = "get_or_create" if Capability.GET_OR_CREATE in target.capabilities else "create"
        # Another user: one user's calls may come one after another.
        waiting[f"a {name}, asked before the stop"] = asyncio.create_task(getattr(target, name)("eve", "slow"))
        await trial.waiting.ends(factory.reached.wait(), "reaching a factory")
        await trial.waiting.ends(run.reached.wait(), "reaching a run")
        await trial.waiting.settle()
        # Another one for whatever queue the target has: nothing has been done for it when the stop begins.
        waiting["a run, asked just before the stop"] = asyncio.create_task(target.run(busy, read))
        await asyncio.sleep(0)
        await _stopped(trial, target)
        waiting["a run, asked after the stop"] = asyncio.create_task(target.run(busy, read))
        await trial.waiting.settle()
        factory.open()
        run.release()
        await _answered(trial, waiting)
    finally:
        factory.open()
        run.release()
        for task in waiting.values():
            task.cancel()
        await loops.done_in(trial.waiting.stuck_after, waiting.values())


async def _stopped(trial: Trial, target: Target) -> None:
    stopping = asyncio.create_task(trial.stop(target, is_watched=True))
    ended = await trial.waiting.until(stopping.done)
    sentence = f"a stop with calls under way did not end (close_timeout {_CLOSE_S:g} s)"
    trial.require(ended, "never-ends", sentence, *trial.history[-3:])
    stopping.cancel()
    await loops.done_in(trial.waiting.stuck_after / 4, {stopping})
    error = None if not stopping.done() or stopping.cancelled() else stopping.exception()
    trial.require(error is None, "stop-failed", f"stopping raised {error!r}", repr(error))


async def _answered(trial: Trial, waiting: Mapping[str, asyncio.Task[Any]]) -> None:
    await trial.waiting.until(lambda: all(task.done() for task in waiting.values()))
    left = [what for what, task in waiting.items() if not task.done()]
    sentence = f"the target has stopped and nothing is held any more; {len(left)} of {len(waiting)} callers still wait"
    witness = [f"{what}: {_state(task)}" for what, task in waiting.items()]
    trial.require(not left, "left-waiting", sentence, *witness)
    counting = [what for what, task in waiting.items() if task.done() and not task.cancelled() and task.cancelling()]
    sentence = f"{len(counting)} of {len(waiting)} callers have their answer and still count a cancellation by the stop"
    trial.require(not counting, "cancellation-left", sentence, *counting)


def _state(task: asyncio.Task[Any]) -> str:
    if not task.done():
        return "waits"
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return f"answered {task.result()!r}" if error is None else f"raised {type(error).__name__}: {error}"
