"""AgentRegistry: a user's agents, made by factories, found by user and thread, given back together."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from registry._sessions.directory import Directory
from registry._sessions.lifecycle import AgentLifecycleManager, Ends
from registry._sessions.reports import (
    AllCleanupReport,
    AllUsersReport,
    CleanupReport,
    EndingsReport,
    Level,
    RegistryHealth,
    ResetReport,
)
from registry._sessions.session import UserAgentSession
from registry._sessions.shared import Runtime
from registry.agent import AgentFactory, BaseAgent
from registry.context import UserExecutionContext
from registry.errors import ContextBoundaryError, DuplicateAgentType, UnknownAgentType, a_type, shown
from registry.events.types import BridgeSource
from registry.identity import check_id, check_user_id, plain_str
from registry.lease import Uncopyable
from registry.limits import Limits
from registry.llm.base import LLMManager, ModelHandleSource
from registry.tools import DispatcherFactory, ToolDispatcher

__all__ = ["AgentRegistry"]


@dataclass(frozen=True, slots=True)
class _Recipe:
    agent_type: str
    factory: AgentFactory
    requires: frozenset[str]


class AgentRegistry(Uncopyable):
    """Live agents of many users in one process, kept apart and given back.

    Isolation: no chain of references leads from an agent to another user's objects or to the registry. One user's slow,
    hanging or failing code delays no other user. Lifetime: when `cleanup_user_session` has returned, everything of that
    user has been closed exactly once and is freed by reference counting alone.

    An async context manager; also works without `async with`, then call `aclose()`. It belongs to the event loop of
    its first call and raises `WrongEventLoop` from any other loop or thread, `RegistryClosed` once closed.

    `llm_manager`: an object with `create_handle(user_context)`; default `LLMManager()` with a `ScriptedLLM`.
    `tool_dispatcher_factory`: `async (user_context, websocket_bridge) -> dispatcher`; every agent gets its dispatcher
    from it; default: a dispatcher without tools. `clock`: seconds that never go back, for ages and idle times.
    """

    __slots__ = ("__weakref__", "_closing", "_directory", "_guard", "_recipes", "_runtime", "lifecycle")

    def __init__(
        self,
        llm_manager: ModelHandleSource | None = None,
        tool_dispatcher_factory: DispatcherFactory | None = None,
        *,
        limits: Limits = Limits(),  # noqa: B008  # Frozen.
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if llm_manager is not None and not callable(getattr(llm_manager, "create_handle", None)):
            raise TypeError(
                f"llm_manager is {a_type(llm_manager)} without create_handle(user_context); an agent may hold "
                "a handle of its own only, so wrap it, for instance as LLMManager(your_llm)"
            )
        if tool_dispatcher_factory is not None and not callable(tool_dispatcher_factory):
            raise TypeError(f"tool_dispatcher_factory {shown(tool_dispatcher_factory)} cannot be called")
        if not isinstance(limits, Limits):
            raise TypeError(f"limits is {a_type(limits)}; pass Limits(...)")
        self._recipes: dict[str, _Recipe] = {}
        self._closing: asyncio.Task[EndingsReport] | None = None
        self._runtime = Runtime(limits, clock, llm_manager or LLMManager(), tool_dispatcher_factory or ToolDispatcher)
        self._guard = self._runtime.guard
        self._directory = Directory(self._runtime)
        self.lifecycle = AgentLifecycleManager(self._directory, self._runtime)

    @property
    def limits(self) -> Limits:
        """The limits this registry keeps."""
        return self._runtime.limits

    def register(
        self,
        agent_type: str,
        factory: AgentFactory,
        *,
        requires: Iterable[str] = frozenset(),
        replace: bool = False,
    ) -> None:
        """Keep a recipe: `factory(scope)`, sync or async, makes a new agent on that scope at every call.

        `requires`: permissions that a context must have to be given such an agent. Agents that live already stay as
        they are. Raises `DuplicateAgentType` for a type that is there, unless `replace=True`, and `InvalidIdentifier`.
        """
        self._guard.enter_sync()
        self._guard.require_open()
        agent_type = check_id("agent_type", agent_type)
        if not callable(factory):
            raise TypeError(f"factory {shown(factory)} of {agent_type!r} cannot be called")
        if isinstance(requires, str):
            raise TypeError(f"requires={shown(requires)} is a single string; pass a set such as {{{shown(requires)}}}")
        if agent_type in self._recipes and not replace:
            raise DuplicateAgentType(f"agent type {agent_type!r} is registered already; pass replace=True")
        self._recipes[agent_type] = _Recipe(agent_type, factory, frozenset(requires))

    def register_default_agents(self, *, replace: bool = False) -> None:
        """Register the eight default agents, or none of them if one is there already and `replace` is False."""
        # Imported here, for the agents bring a database and texts that a registry of other agents never needs.
        from registry.usage.agents import DEFAULT_AGENTS

        self._guard.enter_sync()
        there = sorted(DEFAULT_AGENTS.keys() & self._recipes.keys())
        if there and not replace:
            raise DuplicateAgentType(f"registered already: {', '.join(there)}; pass replace=True to replace them")
        for agent_type, recipe in DEFAULT_AGENTS.items():
            self.register(agent_type, recipe.factory, requires=recipe.requires, replace=replace)

    def list_agents(self) -> list[str]:
        """The registered agent types, sorted."""
        self._guard.enter_sync()
        return sorted(self._recipes)

    async def create_agent_for_user(
        self,
        user_id: str,
        agent_type: str,
        user_context: UserExecutionContext,
        websocket_manager: BridgeSource | None = None,
    ) -> BaseAgent:
        """Make a new agent of this user, with its own child context, dispatcher and LLM handle, and return it.

        The session's bridge is made by `websocket_manager.create_bridge(user_context)` (sync or async) at the first
        create that brings a manager. A later one that brings another manager replaces it once the agent is there, as
        `set_websocket_manager` does; one that brings the same manager or none keeps it. Of creates that run at the
        same time, the last that was called and succeeds decides. Each event goes over the one bridge that is set when
        it is emitted. A refused, failed or cancelled create leaves nothing behind.

        Raises `InvalidUserId`, `ContextBoundaryError` (a context of another user), `UnknownAgentType`,
        `PermissionDenied`, `CapacityExceeded`, `SessionClosed` (ended meanwhile), `InvalidAgent`, and the factories'
        own errors, as `UserCodeExited` if they would end the process.
        """
        self._guard.enter()
        self._check_context(user_context)
        if type(user_id) is not str:
            # A subclass of str may lie about its equality.
            user_id = check_user_id(user_id)
        if user_context.user_id != user_id:
            check_user_id(user_id)
            raise ContextBoundaryError(
                f"context of user {user_context.user_id!r} was offered for user {user_id!r}; "
                "make a UserExecutionContext for that user"
            )
        recipe = self._recipe(agent_type, user_context)
        if self._runtime.abandoned:
            self._runtime.require_obedience(user_context.user_id)
        session = self._directory.find_or_add_checked(user_context.user_id)
        self.lifecycle.watch()
        return await session.create(recipe.agent_type, recipe.factory, user_context, websocket_manager)

    async def get_or_create_agent(
        self, user_context: UserExecutionContext, agent_type: str, websocket_manager: BridgeSource | None = None
    ) -> BaseAgent:
        """Return the one agent of (user, type, thread); make it if there is none, once for all who ask meanwhile.

        A cancelled caller does not cancel the others; when the last one is cancelled, so is the making. A failure
        reaches every caller and is forgotten. Permissions are checked for every caller, on a hit too; the context of
        the first caller stays with the agent. A manager is used as by `create_agent_for_user`, on a hit too. Raises as
        that does.
        """
        self._guard.enter()
        self._check_context(user_context)
        recipe = self._recipe(agent_type, user_context)
        if self._runtime.abandoned:
            self._runtime.require_obedience(user_context.user_id)
        session = self._directory.find_or_add_checked(user_context.user_id)
        self.lifecycle.watch()
        if websocket_manager is None:
            return await session.activate(recipe.agent_type, recipe.factory, user_context)
        return await session.create(recipe.agent_type, recipe.factory, user_context, websocket_manager, single=True)

    async def get_user_agent(self, user_id: str, agent_type: str, thread_id: str | None = None) -> BaseAgent | None:
        """Return the user's newest agent of this type (in this thread, or in any), or None. Creates nothing."""
        self._guard.enter()
        session = self._directory.find(user_id)
        if session is not None:
            return session.find(agent_type, thread_id)
        if thread_id is not None:
            check_id("thread_id", thread_id)
        return None

    async def get_user_session(self, user_id: str) -> UserAgentSession:
        """Return the user's session, made if there is none. Raises `InvalidUserId`, `CapacityExceeded`."""
        self._guard.enter()
        session = self._directory.find_or_add(user_id)
        session.count()
        self.lifecycle.watch()
        return session

    async def remove_user_agent(self, user_id: str, agent_type: str) -> bool:
        """Close the user's newest agent of this type, in any thread; False if there is none.

        The next newest takes its place. Errors of its cleanup are logged; it is gone all the same.
        """
        self._guard.enter()
        session = self._directory.find(user_id)
        agent = None if session is None else session.find(agent_type, None)
        if session is None or agent is None:
            return False
        await session.close_one(agent)
        return True

    async def reset_user_agents(self, user_id: str) -> ResetReport:
        """Close every agent of the user and keep the session with its bridge.

        Return `{"status": "reset_complete" or "no_session", "user_id": ..., "agents_reset": n, "errors": [...]}`.
        """
        self._guard.enter()
        session = self._directory.find(user_id)
        if session is None:
            return {"status": "no_session", "user_id": check_user_id(user_id), "agents_reset": 0, "errors": []}
        report = await session.close_all()
        return {
            "status": "reset_complete",
            "user_id": session.user_id,
            "agents_reset": report.closed,
            "errors": report.errors,
        }

    async def cleanup_user_session(self, user_id: str) -> CleanupReport:
        """End the user's session: cancel everything in flight, close every agent, free everything.

        Other users are not delayed. Done within `Limits.close_timeout`; a cleanup that ignores its cancellation is
        abandoned and reported. Cancelling the caller does not stop it; a second call joins the first, and one after
        the end reports `no_session`. Return
        `{"status": "cleaned" or "no_session", "user_id": ..., "cleaned_agents": n, "errors": [texts]}`.
        """
        self._guard.enter()
        answer = self.lifecycle.end(user_id)
        return answer if isinstance(answer, dict) else await answer

    def get_registry_health(self) -> RegistryHealth:
        """Return exact counts, and "warning" past 80% of a limit or with an abandoned cleanup, "critical" at a limit.

        The limits that count are `max_users` and `max_agents_per_user`; `issues` names in words the limits that are
        near, each with a remedy. As quick with many users as with few.
        """
        self._guard.enter_sync()
        census = self._runtime.census
        sessions = sum(census)
        limits = self._runtime.limits
        largest = max((held for held, count in enumerate(census) if count), default=0)
        abandoned = len(self._runtime.abandoned)
        users, most = limits.max_users, limits.max_agents_per_user
        found: tuple[tuple[Level, str], ...] = (
            (self.lifecycle.level(sessions, users), f"{sessions} of {users} users (Limits.max_users)"),
            (self.lifecycle.level(largest, most), f"{largest} of {most} agents (Limits.max_agents_per_user) of a user"),
            ("warning" if abandoned else "healthy", f"{abandoned} tasks ignore their cancellation and were abandoned"),
        )
        levels = {level for level, _ in found}
        worst_first: tuple[Level, ...] = ("critical", "warning", "healthy")
        return {
            "status": next(level for level in worst_first if level in levels),
            "issues": [issue for level, issue in found if level != "healthy"],
            "uptime_seconds": self._runtime.clock() - self._runtime.started,
            "total_user_sessions": sessions,
            "total_user_agents": self._count_agents(),
            "largest_user_agents": largest,
            "ending_sessions": self.lifecycle.ending_count,
            "abandoned_cleanups": abandoned,
            "registered_agent_types": len(self._recipes),
            "max_users": limits.max_users,
            "max_agents_per_user": limits.max_agents_per_user,
        }

    async def monitor_all_users(self) -> AllUsersReport:
        """Return the holdings of every user; see `AgentLifecycleManager.monitor_all_users`."""
        return await self.lifecycle.monitor_all_users()

    async def emergency_cleanup_all(self) -> AllCleanupReport:
        """End every session, going on past failing ones; the registry stays open.

        See `AgentLifecycleManager.emergency_cleanup_all`. Return
        `{"status", "users_cleaned", "agents_cleaned", "errors"}`, an error for each member that failed.
        """
        return await self.lifecycle.emergency_cleanup_all()

    async def aclose(self) -> AllCleanupReport:
        """End every session and refuse every later call. Safe to call again; cancelling the caller stops nothing.

        As `emergency_cleanup_all`, and returns the same report with status "closed".
        """
        if self._closing is None:
            self._guard.enter()
            self._guard.close()
            self._runtime.close()
            self._closing = asyncio.get_running_loop().create_task(self._close_all(self.lifecycle.begin_all()))
        # wait(), not await: cancelling a caller must not stop the closing.
        await asyncio.wait({self._closing})
        report = self._closing.result()
        return {"status": "closed", **report, "errors": list(report["errors"])}

    cleanup = aclose

    async def __aenter__(self) -> Self:
        self._guard.enter()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        guard = getattr(self, "_guard", None)
        if guard is not None and not guard.is_closed and len(self._directory):
            warnings.warn(f"{self!r} was never closed; call aclose() or use async with", ResourceWarning, stacklevel=2)

    async def _close_all(self, ends: Ends) -> EndingsReport:
        report = await self.lifecycle.finish_all(ends)
        if self._runtime.tasks:
            await asyncio.wait(self._runtime.tasks)
        return report

    def _check_context(self, user_context: object) -> None:
        if not isinstance(user_context, UserExecutionContext):
            raise TypeError(f"user_context is {a_type(user_context)}; pass a UserExecutionContext")
        user_context.require_open()

    def _recipe(self, agent_type: str, user_context: UserExecutionContext) -> _Recipe:
        recipe = self._recipes.get(plain_str(agent_type))
        if recipe is None:
            raise UnknownAgentType(agent_type, self._recipes)
        if recipe.requires:
            user_context.require_permission(recipe.requires, f"agent type {agent_type!r}")
        return recipe

    def __repr__(self) -> str:
        state = " closed" if self._guard.is_closed else ""
        held = f"users={len(self._directory)} agents={self._count_agents()} types={len(self._recipes)}"
        return f"<AgentRegistry {held}{state}>"

    def _count_agents(self) -> int:
        return sum(held * count for held, count in enumerate(self._runtime.census))
