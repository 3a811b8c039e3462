"""Defects that keep objects that should be gone. Each releases its objects when its target stops, for the lab's own
sake."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from lab_utils.target import Command, EndReport, Handle, Recipe
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Bridge, Context, Dispatcher, ReferenceTarget, Session
from registry import AgentScope, BaseAgent

__all__ = ["PLANTED"]

_ALL_SESSIONS: list[Session] = []


class HoardsPerOperation(AgentRegistryTarget):
    """Every answer is kept, with a trace of 20 KB, in a list that was meant for debugging."""

    def __init__(self) -> None:
        super().__init__()
        self._trace: list[bytes] = []

    async def run(self, handle: Handle, command: Command) -> Any:
        self._trace.append(bytes(20_000))
        return await super().run(handle, command)


class SessionsInModuleList(ReferenceTarget):
    """Every session is appended to a list of the module, for an admin page, and never taken out."""

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        session, is_new = super().session_for_create(user)
        if session not in _ALL_SESSIONS:
            _ALL_SESSIONS.append(session)
        return session, is_new

    async def stop(self) -> None:
        await super().stop()
        _ALL_SESSIONS.clear()


class FactoryClosureKeeps(AgentRegistryTarget):
    """The factory is a closure over a list of everything it has made."""

    def _factory(self, recipe: Recipe) -> Any:
        made: list[BaseAgent] = []
        inner = super()._factory(recipe)

        async def make(scope: AgentScope) -> BaseAgent:
            agent: BaseAgent = await inner(scope)
            made.append(agent)
            return agent

        return make


class LastAgentCached(AgentRegistryTarget):
    """The last agent of each type is kept for reuse, beyond its session."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, BaseAgent] = {}

    def make_agent(self, scope: AgentScope, recipe: Recipe) -> BaseAgent:
        agent = self._last[recipe.agent_type] = super().make_agent(scope, recipe)
        return agent


class MetricsLabels(ReferenceTarget):
    """A counter of requests has the user's session as its label, so it has an entry for every past user."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()
        self.opened = 0

    def make_bridge(self, user: str) -> Bridge:
        self.opened += 1
        self.requests[f"requests{{user={user!r}, session={self.opened}}}"] += 1
        return super().make_bridge(user)


class ContextKeptAfterEnd(ReferenceTarget):
    """Contexts are kept by the number of their request, to be looked up in an error report."""

    def __init__(self) -> None:
        super().__init__()
        self.contexts: dict[int, Context] = {}

    def make_context(self, user: str, thread: str, data: Mapping[str, Any], permissions: frozenset[str]) -> Context:
        context = super().make_context(user, thread, data, permissions)
        self.contexts[len(self.contexts)] = context
        return context


class SweeperOfTheFirst(ReferenceTarget):
    """The task that looks for idle sessions is begun in the first call, and keeps that call's context variables."""

    def __init__(self) -> None:
        super().__init__()
        self.sweeper: asyncio.Task[None] | None = None

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        if self.sweeper is None:
            self.sweeper = asyncio.create_task(self._sweep_for_ever())
        return super().session_for_create(user)

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(60.0)
            await self.sweep()

    async def stop(self) -> None:
        await super().stop()
        if self.sweeper is not None:
            self.sweeper.cancel()


class TracebackKept(AgentRegistryTarget):
    """The last errors are kept for a report, with their tracebacks, and so with every frame's variables."""

    def __init__(self) -> None:
        super().__init__()
        self._errors: list[BaseException] = []

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except RuntimeError as error:
            self._errors = [*self._errors[-9:], error]
            raise


class _Knowing(Agent):
    def __init__(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> None:
        super().__init__(recipe, context, dispatcher, session)
        self.session = session
        self.siblings: list[Agent] = []


class AgentSessionCycle(ReferenceTarget):
    """An agent holds its siblings, and so itself: only the cyclic collector frees it."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        agent = _Knowing(recipe, context, dispatcher, session)
        agent.siblings.append(agent)
        return agent


class _Logging(Agent):
    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        log: list[str] = self.session.log  # type: ignore[attr-defined]
        log.append(f"{run}: {action}")
        return await super().run(action, arguments, run)

    def __init__(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> None:
        super().__init__(recipe, context, dispatcher, session)
        self.session = session


class SessionLogGrows(ReferenceTarget):
    """A session keeps a line for every run in it."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        if not hasattr(session, "log"):
            session.log = []  # type: ignore[attr-defined]
        return _Logging(recipe, context, dispatcher, session)


class SupersededKept(ReferenceTarget):
    """A removed agent is closed, and stays in the session's history until the session ends."""

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Agent]] = {}

    async def remove(self, user: str, agent_type: str) -> bool:
        session = self.sessions.get(user)
        agent = None if session is None else self.find(session, agent_type, None)
        if agent is not None:
            self.history.setdefault(user, []).append(agent)
        return await super().remove(user, agent_type)

    async def end(self, user: str) -> EndReport:
        self.history.pop(user, None)
        return await super().end(user)


PLANTED = (
    planted_by(HoardsPerOperation, "memory-growth"),
    planted_by(SessionsInModuleList, "retained-object"),
    planted_by(FactoryClosureKeeps, "retained-object"),
    planted_by(LastAgentCached, "retained-object"),
    planted_by(MetricsLabels, "memory-growth"),
    planted_by(ContextKeptAfterEnd, "retained-object"),
    planted_by(SweeperOfTheFirst, "retained-object"),
    planted_by(TracebackKept, "retained-object"),
    planted_by(AgentSessionCycle, "reference-cycle"),
    planted_by(SessionLogGrows, "memory-growth"),
    planted_by(SupersededKept, "retained-object", "object-growth"),
)
