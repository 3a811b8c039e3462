"""The lab's door to a registry: `MyTarget` calls it, and the lab calls `MyTarget`.

It runs as it is, on the small registry below. Put your own in its place, one method after another, and after each:

    registry-lab check-target {spec}

docs/target.md of the lab is the contract of each method.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from lab_utils.target import BaseTarget, Command, EndReport, Handle, Population, Recipe, Refusal, Refused
from lab_utils.targets.lab_agent import obey

# ---------------------------------------------------------------------- a stand-in for your registry: delete this part


class Agent:
    """One user's agent."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.memory: dict[str, Any] = {}
        self.turn = asyncio.Lock()
        self.runs: set[asyncio.Future[Any]] = set()


class Registry:
    """One agent for each user and type."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Agent]] = {}

    def open(self, user: str, agent_type: str) -> Agent:
        """Find the agent, or make it."""
        return self.users.setdefault(user, {}).setdefault(agent_type, Agent(user))

    def find(self, user: str, agent_type: str) -> Agent | None:
        """Find the agent; make none."""
        return self.users.get(user, {}).get(agent_type)

    def close(self, user: str) -> list[str]:
        """Forget the user and cancel their runs; return the types of the agents that they had, the newest first."""
        agents = self.users.pop(user, {})
        for agent in agents.values():
            for run in agent.runs:
                run.cancel()
        return list(reversed(agents))


# ------------------------------------------------------------------------------------------------ the lab's door to it


class MyTarget(BaseTarget):
    """One object serves one trial: `start`, calls from one event loop, `stop`."""

    # Capabilities that no method shows, for example: also = {Capability.THREADS, Capability.TOOLS}

    def __init__(self) -> None:
        # Opened anew for each trial, and empty: one trial's data must not be there in the next.
        self.registry = Registry()
        self.cleanups: set[asyncio.Task[str]] = set()

    async def create(self, user: str, agent_type: str, **_: Any) -> Handle:
        # Refuses what is not a user id, as your app does at login. If your registry refuses it, translate its error:
        # raise Refused(Refusal.INVALID_USER, message).
        self.user_id(user)
        # `self.recipe` refuses a type that the lab has not brought, as the contract asks.
        recipe = self.recipe(agent_type)
        if self.registry.find(user, agent_type) is None and recipe.on_create is not None:
            # Where your factory does its own work. This is how the lab holds a factory, or lets it fail.
            await recipe.on_create(user)
        return self.handle(user, agent_type, self.registry.open(user, agent_type))

    async def run(self, handle: Handle, command: Command) -> Any:
        agent = self._current(handle)
        # A task of its own: the end of the session cancels it, and its caller is refused instead of cancelled. Leave
        # this out where your registry cancels its runs itself.
        work = asyncio.ensure_future(self._work(agent, handle, command))
        agent.runs.add(work)
        try:
            return await work
        except asyncio.CancelledError:
            if work.cancelled() and not self._is_caller_cancelled():
                raise Refused(Refusal.CLOSED, f"the session of {handle.user!r} ended meanwhile") from None
            raise
        finally:
            agent.runs.discard(work)
            del work  # It holds its error, whose traceback holds this frame: a cycle that only the collector frees.

    async def _work(self, agent: Agent, handle: Handle, command: Command) -> Any:
        recipe: Recipe = self.recipe(handle.agent_type)
        if recipe.on_run is not None:
            await recipe.on_run(handle.user)
        # `obey` carries out the lab's commands, on a dict that your registry keeps for this agent. The stand-in copies
        # nothing and runs nothing in turn, so this does. Leave the copies and the lock out for your registry: the lab
        # is to judge the objects that your registry hands out, and its own order of runs.
        async with agent.turn:
            return copy.deepcopy(await obey(command.action, copy.deepcopy(command.arguments), agent.memory))

    def _is_caller_cancelled(self) -> bool:
        caller = asyncio.current_task()
        return caller is not None and caller.cancelling() > 0

    def _current(self, handle: Handle) -> Agent:
        agent = self.registry.find(handle.user, handle.agent_type)
        if agent is None or agent is not handle.native:
            raise Refused(Refusal.CLOSED, f"this agent of {handle.user!r} is closed")
        return agent

    # From here on everything is optional. Delete every method that your registry has no call for: the checks, or the
    # parts of checks, that need it are left out, and every result says so.

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        self.user_id(user)
        agent = self.registry.find(user, agent_type)
        return None if agent is None else self.handle(user, agent_type, agent)

    async def end(self, user: str) -> EndReport:
        self.user_id(user)
        closed = self.registry.close(user)
        # Where your registry calls the cleanups of the agents. They begin newest first and run at the same time: one
        # that hangs leaves the others their time. Each is a task, which goes on if the caller of the end is cancelled.
        cleanups = [asyncio.create_task(self._clean_up(user, agent_type)) for agent_type in closed]
        self.cleanups.update(cleanups)
        for cleanup in cleanups:
            cleanup.add_done_callback(self.cleanups.discard)
        if cleanups:
            await asyncio.wait(cleanups)
        errors = tuple(error for cleanup in cleanups if (error := cleanup.result()))
        return EndReport(found=bool(closed), closed=len(closed), errors=errors)

    async def _clean_up(self, user: str, agent_type: str) -> str:
        """Call the agent's cleanup; return its error as text, or ""."""
        on_cleanup = self.recipe(agent_type).on_cleanup
        if on_cleanup is None:
            return ""
        cleanup = asyncio.ensure_future(on_cleanup(user))
        # Not `asyncio.timeout`, which waits for as long as a cleanup ignores its cancellation.
        await asyncio.wait([cleanup], timeout=self.close_timeout)
        if not cleanup.done():
            cleanup.cancel()
            return "TimeoutError: the cleanup was cut off"
        if cleanup.cancelled():
            return "CancelledError: the cleanup was cancelled from within"
        error = cleanup.exception()
        return "" if error is None else f"{type(error).__name__}: {error}"

    async def end_all(self) -> EndReport:
        reports = await asyncio.gather(*map(self.end, list(self.registry.users)))
        errors = tuple(error for report in reports for error in report.errors)
        return EndReport(bool(reports), sum(report.closed for report in reports), errors)

    def population(self) -> Population:
        users = self.registry.users
        return Population(sessions=len(users), agents=sum(map(len, users.values())))

    async def stop(self) -> None:
        await self.end_all()
        if self.cleanups:
            await asyncio.wait(self.cleanups)
