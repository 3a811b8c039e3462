"""Tells which agents can be closed without a task: those whose cleanup surely ends in one go."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

from registry.agent import BaseAgent

__all__ = ["AT_ONCE", "MAY_SUSPEND", "NOTHING", "cleanup_of"]

NOTHING: Final = "nothing"  # It has the cleanup of `BaseAgent`, which does nothing and need not be called.
AT_ONCE: Final = "at once"  # Its cleanup surely ends without giving up the processor: no task is needed.
MAY_SUSPEND: Final = "may suspend"
Cleanup = Literal["nothing", "at once", "may suspend"]


def cleanup_of(agent: BaseAgent) -> Cleanup:
    """Tell what closing an agent takes, by the code of its cleanup: a coroutine function without a single await cannot
    suspend.

    Starting it to see is no way: a started coroutine cannot be handed to a task, for what it asked of
    `asyncio.current_task()` (every `asyncio.timeout()` does) would be the wrong one.
    """
    function = getattr(agent.cleanup, "__func__", None)
    if function is BaseAgent.cleanup:
        return NOTHING
    if function is None:
        # Not a method of the class: something was put in its place on the instance.
        return MAY_SUSPEND
    known = _KNOWN.get(function)
    if known is None:
        known = _KNOWN[function] = AT_ONCE if _is_await_free(function) else MAY_SUSPEND
    return known


# Weak, so that classes made in a function or a notebook cell can be freed.
_KNOWN: WeakKeyDictionary[Any, Cleanup] = WeakKeyDictionary()
# The one instruction at which a coroutine gives up the processor: `await`, `async for` and `async with` all have it.
_SUSPENDING = "YIELD_VALUE"


def _is_await_free(function: Callable[..., Any]) -> bool:
    if not inspect.iscoroutinefunction(function) or not inspect.isfunction(function):
        return False
    return not any(step.opname == _SUSPENDING for step in dis.get_instructions(function))
