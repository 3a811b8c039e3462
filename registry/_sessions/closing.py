"""Closes agents: newest first, once each, within one deadline, and keeps every error."""

from __future__ import annotations

import asyncio
import dis
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Literal, TypeVar
from weakref import WeakKeyDictionary

from registry._sessions.shared import Runtime
from registry.agent import AgentResult, BaseAgent, abandon_runs, cancel_runs, close_handles
from registry.eager import begin, start
from registry.errors import Containment, describe, stops

__all__ = [
    "ClosingReport",
    "cleanup_of",
    "close_agents",
    "close_at_once",
    "let_obey",
    "log_errors",
    "stop_agents",
    "wait_for",
]

T = TypeVar("T")

_log = logging.getLogger(__name__)
_CLEANUP: Final = Containment("a cleanup")

# A cancelled task that obeys needs a turn to be told, one to leave its awaits and one to say so; a few more serve
# clean-up code of its own. Turns, not seconds: who obeys is decided the same way on a busy machine.
_TURNS_TO_OBEY = 10

# What closing an agent takes.
NOTHING: Final = "nothing"  # It has the cleanup of `BaseAgent`, which does nothing and need not be called.
AT_ONCE: Final = "at once"  # Its cleanup surely ends without giving up the processor: no task is needed.
MAY_SUSPEND: Final = "may suspend"
Cleanup = Literal["nothing", "at once", "may suspend"]
# Weak, so that classes made in a function or a notebook cell can be freed.
_KNOWN: WeakKeyDictionary[Callable[..., object], Cleanup] = WeakKeyDictionary()
# The one instruction at which a coroutine gives up the processor: `await`, `async for` and `async with` all have it.
_SUSPENDING = "YIELD_VALUE"


class ClosingReport:
    """What closing did. `errors` are texts: an exception would keep its frames, and so the user's objects, alive."""

    __slots__ = ("closed", "errors")

    def __init__(self) -> None:
        self.closed = 0
        self.errors: list[str] = []


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


def close_at_once(agents: Sequence[BaseAgent], report: ClosingReport) -> list[BaseAgent]:
    """Close agents, newest first, without giving up the processor; return those left, from the first that may suspend.

    No task and no timer is made.
    """
    for index in range(len(agents) - 1, -1, -1):
        agent = agents[index]
        takes = cleanup_of(agent)
        if takes is MAY_SUSPEND or agent._pending:
            left = list(agents[: index + 1])
            stop_agents(left)
            return left
        if takes is AT_ONCE:
            if agent._life is not None:
                agent._life.close()
            _run_without_suspending(agent, report)
        close_handles(agent)
        report.closed += 1
    return []


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
    """Close what `close_at_once` left, newest first, until `deadline` (loop time; else `close_timeout` from now).

    Runs are cancelled and awaited first. A cleanup that takes long does not use up the time of the older agents: when
    it has had its share, the next one is begun beside it, and it still has until the deadline. What is not done by
    then is cancelled; what ignores that is abandoned and reported.
    """
    loop = asyncio.get_running_loop()
    if deadline is None:
        deadline = loop.time() + runtime.limits.close_timeout
    runs: set[asyncio.Task[AgentResult]] = set()
    for agent in agents:
        runs.update(cancel_runs(agent))
    try:
        if runs:
            await wait_for(runs, deadline - (deadline - loop.time()) / 2)
        cleanups: dict[asyncio.Task[None], BaseAgent] = {}
        for index in range(len(agents) - 1, -1, -1):
            agent = agents[index]
            task = start(_cleanup(agent))
            cleanups[task] = agent
            await wait_for({task}, loop.time() + (deadline - loop.time()) / (index + 1))
        await wait_for(cleanups, deadline)
        late: list[asyncio.Task[object]] = [task for task in (*cleanups, *runs) if not task.done()]
        for each in late:
            each.cancel()
        await let_obey(late)
        for task, agent in cleanups.items():
            _note(task, agent, task in late, report, runtime)
        for agent in agents:
            for run in abandon_runs(agent):
                report.errors.append(f"{_name(agent)}: a run ignores its cancellation; abandoned")
                runtime.abandon(run, agent.scope.context.user_id)
        report.closed += len(agents)
    finally:
        for agent in agents:
            close_handles(agent)


async def wait_for(tasks: Iterable[asyncio.Future[T]], until: float) -> None:
    """Wait for tasks or futures until a loop time; a timer is made only if one of them is not done."""
    pending = [task for task in tasks if not task.done()]
    if pending:
        await asyncio.wait(pending, timeout=max(0.0, until - asyncio.get_running_loop().time()))


async def let_obey(tasks: Sequence[asyncio.Future[T]]) -> None:
    """Give cancelled tasks the loop turns that they need to end."""
    for _ in range(_TURNS_TO_OBEY):
        if all(task.done() for task in tasks):
            return
        await asyncio.sleep(0)


def log_errors(user_id: str, errors: list[str]) -> None:
    """For closings whose caller is given no report."""
    for error in errors:
        _log.warning("while closing for user %r: %s", user_id, error)


def _is_await_free(function: Callable[..., object]) -> bool:
    if not inspect.iscoroutinefunction(function) or not inspect.isfunction(function):
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


def _note(task: asyncio.Task[None], agent: BaseAgent, was_late: bool, report: ClosingReport, runtime: Runtime) -> None:
    limit = f"{runtime.limits.close_timeout:g} s"
    if not task.done():
        report.errors.append(f"{_name(agent)}: cleanup did not end within {limit} and ignores cancellation; abandoned")
        runtime.abandon(task, agent.scope.context.user_id)
    elif was_late:
        report.errors.append(f"{_name(agent)}: cleanup did not end within {limit}; cancelled")
        if not task.cancelled():
            task.exception()
    elif task.cancelled():
        report.errors.append(f"{_name(agent)}: cleanup raised CancelledError")
    elif (error := task.exception()) is not None:
        report.errors.append(f"{_name(agent)}: cleanup raised {describe(error)}")


def _name(agent: BaseAgent) -> str:
    return f"{agent._agent_type} ({agent.agent_id})"
