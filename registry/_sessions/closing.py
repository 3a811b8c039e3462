"""Closes agents: newest first, once each, within one deadline, and keeps every error."""

from __future__ import annotations

import asyncio
import dis
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal
from weakref import WeakKeyDictionary

from registry._sessions.driver import Until
from registry._sessions.shared import Runtime
from registry.agent import AgentResult, BaseAgent, abandon_runs, cancel_runs, close_handles
from registry.eager import begin, start
from registry.errors import Containment, describe, stops

__all__ = [
    "NO_CLEANUP",
    "ClosingReport",
    "cleanup_of",
    "close_agents",
    "close_at_once",
    "log_errors",
    "stop_agents",
]

_log = logging.getLogger(__name__)
_CLEANUP: Final = Containment("a cleanup")

NO_CLEANUP: Final = BaseAgent.cleanup
"""Does nothing, and need not be called."""
# The three costs of closing an agent.
NOTHING: Final = "nothing"  # It has `NO_CLEANUP`.
AT_ONCE: Final = "at once"  # Its cleanup surely ends without giving up the processor: no task is needed.
MAY_SUSPEND: Final = "may suspend"
Cleanup = Literal["nothing", "at once", "may suspend"]
# Weak, so that classes made in a function or a notebook cell can be freed.
_KNOWN: WeakKeyDictionary[Callable[..., object], Cleanup] = WeakKeyDictionary()
# The one instruction at which a coroutine gives up the processor: `await`, `async for` and `async with` all have it.
_SUSPENDING = "YIELD_VALUE"


class ClosingReport:
    """The outcome of a closing. `errors` are texts: an exception would keep its frames, and so the user's objects,
    alive."""

    __slots__ = ("closed", "errors")

    def __init__(self) -> None:
        self.closed = 0
        self.errors: list[str] = []


def cleanup_of(agent: BaseAgent) -> Cleanup:
    """Return the cost of closing an agent, read from the code of its cleanup: a coroutine function without a single
    await cannot suspend.

    Starting the cleanup to find out does not work: a started coroutine cannot be handed to a task, because
    `asyncio.current_task()` (used by every `asyncio.timeout()`) would have returned the wrong one.
    """
    try:
        function = getattr(agent.cleanup, "__func__", None)
    except BaseException as error:
        if stops(error):
            raise
        # A property, for instance: its error is contained and reported where the cleanup is called.
        return MAY_SUSPEND
    if function is NO_CLEANUP:
        return NOTHING
    if not inspect.isfunction(function):
        # Not a method of the class: something was put in its place.
        return MAY_SUSPEND
    known = _KNOWN.get(function)
    if known is None:
        known = _KNOWN[function] = AT_ONCE if _is_await_free(function) else MAY_SUSPEND
    return known


def close_at_once(agents: list[BaseAgent], report: ClosingReport) -> list[BaseAgent]:
    """Close agents, newest first, without giving up the processor; leave and return those from the first that may
    suspend.

    No task and no timer is made.
    """
    while agents:
        agent = agents[-1]
        takes = cleanup_of(agent)
        if takes is MAY_SUSPEND or agent._pending:
            stop_agents(agents)
            return agents
        if takes is AT_ONCE:
            if agent._life is not None:
                agent._life.close()
            _run_without_suspending(agent, report)
        close_handles(agent)
        report.closed += 1
        del agents[-1]
    return agents


def stop_agents(agents: Sequence[BaseAgent]) -> None:
    """Let nothing new begin in them, and cancel their runs: at once, also where the closing has to wait for a task."""
    for agent in agents:
        if agent._life is not None:
            agent._life.close()
        if agent._pending:
            cancel_runs(agent)


async def close_agents(
    agents: Sequence[BaseAgent], report: ClosingReport, runtime: Runtime, deadline: float | None = None
) -> None:
    """Close the agents that `close_at_once` left, newest first, until `deadline` (the driver's time; else
    `close_timeout` from now). To be driven.

    Runs are cancelled and awaited first. A slow cleanup does not use up the time of the older agents: after its share
    of the time, the next one is begun beside it, and it still has until the deadline. A cleanup that is not done by
    then is cancelled; one that ignores its cancellation is abandoned and reported.
    """
    time = runtime.driver.time
    if deadline is None:
        deadline = time() + runtime.limits.close_timeout
    runs: list[asyncio.Task[AgentResult]] = []
    cleanups: list[asyncio.Task[None]] = []
    late: Sequence[asyncio.Task[object]] = ()
    try:
        for agent in agents:
            if agent._pending:
                runs += cancel_runs(agent)
        if runs:
            now = time()
            await Until(runs, now + (deadline - now) / 2)
        for left in range(len(agents), 0, -1):
            cleanups.append(start(_cleanup(agents[left - 1])))
            if left > 1:
                now = time()
                await Until(cleanups[-1:], now + (deadline - now) / left)
        if not await Until(cleanups, deadline) or runs:
            late = [task for task in (*cleanups, *runs) if not task.done()]
            for task in late:
                task.cancel()
            await Until(late, deadline)
        for task, agent in zip(cleanups, reversed(agents), strict=True):
            if task in late or task.cancelled() or task.exception() is not None:
                _note(task, agent, report, runtime, is_late=task in late)
        if runs:
            for agent in agents:
                for run in abandon_runs(agent):
                    report.errors.append(f"{_name(agent)}: a run ignores its cancellation; abandoned")
                    runtime.abandon(run, agent.scope.context.user_id)
        report.closed += len(agents)
    finally:
        for agent in agents:
            close_handles(agent)


def log_errors(user_id: str, errors: list[str]) -> None:
    """For closings whose caller is given no report."""
    for error in errors:
        _log.warning("while closing for user %r: %s", user_id, error)


def _is_await_free(function: Callable[..., object]) -> bool:
    if not inspect.iscoroutinefunction(function):
        return False
    return not any(step.opname == _SUSPENDING for step in dis.get_instructions(function))


async def _cleanup(agent: BaseAgent) -> None:
    await begin()
    with _CLEANUP:
        # A plain `def cleanup` is a mistake that many make; it has done its work when it returns.
        answer: Awaitable[object] | None = agent.cleanup()
        if answer is not None:
            await answer


def _run_without_suspending(agent: BaseAgent, report: ClosingReport) -> None:
    steps = agent.cleanup()
    try:
        steps.send(None)
    except StopIteration:
        return
    except BaseException as error:
        if stops(error):
            raise
        # Whatever else it is, the closing of the others goes on.
        report.errors.append(f"{_name(agent)}: cleanup raised {describe(error)}")
        return
    steps.close()
    raise AssertionError(f"{_name(agent)}: a cleanup without an await was suspended")


def _note(
    task: asyncio.Task[None], agent: BaseAgent, report: ClosingReport, runtime: Runtime, *, is_late: bool
) -> None:
    """Report a cleanup that did not end well; keep it if it has not ended."""
    error = None if not task.done() or task.cancelled() else task.exception()
    if not is_late:
        said = "raised CancelledError" if error is None else f"raised {describe(error)}"
    else:
        said = f"did not end within {runtime.limits.close_timeout:g} s"
        said += "; cancelled" if task.done() else " and ignores cancellation; abandoned"
    report.errors.append(f"{_name(agent)}: cleanup {said}")
    runtime.abandon(task, agent.scope.context.user_id)


def _name(agent: BaseAgent) -> str:
    return f"{agent._agent_type} ({agent.agent_id})"
