"""AgentLifecycleManager: ends sessions, on demand and by age or idleness, and tells what each user holds."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import types
from collections.abc import Iterable
from typing import Final

from registry._sessions.closing import ClosingReport, log_errors
from registry._sessions.directory import Directory
from registry._sessions.reports import (
    AllCleanupReport,
    AllUsersReport,
    CleanupReport,
    EndingsReport,
    Level,
    NoSessionReport,
    SweepReport,
    UserReport,
)
from registry._sessions.session import UserAgentSession
from registry._sessions.shared import Runtime
from registry.agent import BaseAgent
from registry.errors import RegistryClosed
from registry.identity import check_user_id
from registry.lease import Uncopyable

__all__ = ["AgentLifecycleManager", "Ending"]

_WARN_AT: Final = 0.8
_MAX_SWEEP_INTERVAL: Final = 60.0
_WALK_LIMIT: Final = 100_000
# The user, and the report of a session that ended at once or the task that ends it.
Ending = tuple[str, "CleanupReport | asyncio.Task[CleanupReport]"]
# Shared by the whole process, or leading to what is: they belong to no user.
_SHARED = (
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, types.FrameType),
    *(asyncio.AbstractEventLoop, asyncio.Future, contextvars.Context),
)


class AgentLifecycleManager(Uncopyable):
    """Ends sessions and watches them. Times by the registry's clock, in seconds."""

    __slots__ = ("_directory", "_ending", "_guard", "_runtime", "_sweeper")

    def __init__(self, directory: Directory, runtime: Runtime) -> None:
        self._directory = directory
        self._runtime = runtime
        self._guard = runtime.guard
        runtime.on_unused = self._drop_unused
        self._ending: dict[str, asyncio.Task[CleanupReport]] = {}
        self._sweeper: asyncio.Task[None] | None = None

    async def trigger_cleanup(self, user_id: str) -> CleanupReport:
        """End the user's session now; same as `AgentRegistry.cleanup_user_session`."""
        self._guard.enter()
        return await self.end(user_id)

    async def cleanup_agent_resources(self, user_id: str, agent_id: str) -> bool:
        """Close the user's agent with this `agent_id`, or the newest of this type; False if there is none."""
        self._guard.enter()
        session = self._directory.find(user_id)
        if session is None:
            return False
        agent = next((agent for agent in session.iter_agents() if agent._agent_id == agent_id), None)
        if agent is None:
            agent = session.find(agent_id, None)
        if agent is None:
            return False
        await session.close_one(agent)
        return True

    async def monitor_memory_usage(self, user_id: str) -> UserReport | NoSessionReport:
        """Return what the user holds: counts, times, and the bytes reachable from the session.

        `approximate_bytes` sums `sys.getsizeof` over what the session and its agents refer to, shared code and modules
        left out; `complete` is False when it stopped at 100,000 objects. Native memory (a database) is not seen.
        """
        self._guard.enter()
        session = self._directory.find(user_id)
        if session is None or session.is_provisional:
            return {"status": "no_session", "user_id": user_id, "total_agents": 0, "approximate_bytes": 0}
        return self._describe(session)

    async def monitor_all_users(self) -> AllUsersReport:
        """Return `monitor_memory_usage` of every user, with totals and the users who are near a limit."""
        self._guard.enter()
        users = {session.user_id: self._describe(session) for session in self._directory if not session.is_provisional}
        return {
            "total_users": len(users),
            "total_agents": sum(user["total_agents"] for user in users.values()),
            "approximate_bytes": sum(user["approximate_bytes"] for user in users.values()),
            "near_limit": sorted(name for name, user in users.items() if user["status"] != "healthy"),
            "users": users,
        }

    async def sweep(self) -> SweepReport:
        """End every session that is over age or idle and in which nothing runs.

        Return `{"ended": [user ids], "errors": [...]}` when all of them have been closed.
        """
        self._guard.enter()
        due = [session for session in self._directory if self._is_due(session)]
        reports = await _reports_of(self._begin_each(due))
        return {"ended": [session.user_id for session in due], "errors": _all_errors(reports)}

    async def emergency_cleanup_all(self) -> AllCleanupReport:
        """End every session at once, going on past those that fail; the registry stays open."""
        self._guard.enter()
        return {"status": "emergency_cleanup_complete", **await self.end_all()}

    # What follows is for the registry.

    async def end(self, user_id: str) -> CleanupReport:
        """End one user's session, or join its ending."""
        session = self._directory.find(user_id)
        if session is None:
            user_id = check_user_id(user_id)
            ending = self._ending.get(user_id)
            if ending is None:
                return {"status": "no_session", "user_id": user_id, "cleaned_agents": 0, "errors": []}
            return await _joined(ending)
        before = self._ending.get(session.user_id) if self._ending else None
        answer = self._begin_end(session)
        if isinstance(answer, asyncio.Task):
            return await _joined(answer)
        if before is not None:
            # The session before this one is still closing: what returns must find nothing of the user left.
            await asyncio.wait({before})
        return answer

    async def end_all(self) -> EndingsReport:
        """End every session, and wait for those that are ending already."""
        return await self.finish_all(self.begin_all())

    def begin_all(self) -> list[Ending]:
        """Begin to end every session, newest first. No await: each has begun before any of them is waited for."""
        return [*self._ending.items(), *self._begin_each(reversed(list(self._directory)))]

    async def finish_all(self, endings: list[Ending]) -> EndingsReport:
        """Wait for endings that were begun, and sum them up."""
        reports = await _reports_of(endings)
        return {
            "users_cleaned": len(reports),
            "agents_cleaned": sum(report["cleaned_agents"] for _, report in reports),
            "errors": _all_errors(reports),
        }

    def watch(self) -> None:
        """See to it that sessions are swept while there are any."""
        limits = self._runtime.limits
        if self._sweeper is None and (limits.idle_timeout is not None or limits.max_session_age is not None):
            self._sweeper = self._runtime.own(self._sweep_for_ever())
            self._sweeper.add_done_callback(self._sweeper_ended)

    def stop_watching(self) -> None:
        """Cancel the sweeping task."""
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            sweeper.cancel()

    @property
    def ending_count(self) -> int:
        """Sessions that are being closed now."""
        return len(self._ending)

    def level(self, held: int, limit: int | None) -> Level:
        """How near a limit is: "healthy", "warning" past 80%, "critical" at it."""
        if limit is None:
            return "healthy"
        return "critical" if held >= limit else "warning" if held > _WARN_AT * limit else "healthy"

    def _begin_each(self, sessions: Iterable[UserAgentSession]) -> list[Ending]:
        return [(session.user_id, self._begin_end(session)) for session in sessions]

    def _begin_end(self, session: UserAgentSession) -> CleanupReport | asyncio.Task[CleanupReport]:
        if self._directory.remove(session):
            self.stop_watching()
        report = ClosingReport()
        left = session.end_at_once(report)
        if left is None:
            return _report(session, report)
        user_id = session.user_id
        before = self._ending.get(user_id)
        task = self._runtime.own(_finish_end(session, left, report, before))
        self._ending[user_id] = task
        task.add_done_callback(lambda done: self._end_finished(user_id, done))
        return task

    def _drop_unused(self, session: UserAgentSession) -> None:
        """End a provisional session that came to nothing."""
        answer = self._begin_end(session)
        if not isinstance(answer, asyncio.Task):
            log_errors(session.user_id, answer["errors"])

    def _end_finished(self, user_id: str, task: asyncio.Task[CleanupReport]) -> None:
        if self._ending.get(user_id) is task:
            del self._ending[user_id]

    def _is_due(self, session: UserAgentSession) -> bool:
        if session.is_busy or session.is_provisional:
            return False
        limits = self._runtime.limits
        now = self._runtime.clock()
        too_old = limits.max_session_age is not None and now - session.created_at >= limits.max_session_age
        idle = limits.idle_timeout is not None and now - session.last_used >= limits.idle_timeout
        return too_old or idle

    async def _sweep_for_ever(self) -> None:
        limits = self._runtime.limits
        periods = [period for period in (limits.idle_timeout, limits.max_session_age) if period is not None]
        interval = min(_MAX_SWEEP_INTERVAL, min(periods) / 4)
        while True:
            await asyncio.sleep(interval)
            await self.sweep()

    def _sweeper_ended(self, task: asyncio.Task[None]) -> None:
        if self._sweeper is task:
            self._sweeper = None
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    def _describe(self, session: UserAgentSession) -> UserReport:
        size, complete = _reachable_bytes(session)
        limit = self._runtime.limits.max_agents_per_user
        return {
            "status": self.level(session.agent_count, limit),
            **session.get_metrics(),
            "max_agents": limit,
            "approximate_bytes": size,
            "complete": complete,
        }


async def _reports_of(endings: list[Ending]) -> list[tuple[str, CleanupReport]]:
    return [
        (user_id, await _joined(answer) if isinstance(answer, asyncio.Task) else answer) for user_id, answer in endings
    ]


async def _finish_end(
    session: UserAgentSession, left: list[BaseAgent], report: ClosingReport, before: asyncio.Task[CleanupReport] | None
) -> CleanupReport:
    await session.end(left, report)
    if before is not None:
        await asyncio.wait({before})
    return _report(session, report)


def _report(session: UserAgentSession, report: ClosingReport) -> CleanupReport:
    return {"status": "cleaned", "user_id": session.user_id, "cleaned_agents": report.closed, "errors": report.errors}


async def _joined(ending: asyncio.Task[CleanupReport]) -> CleanupReport:
    # wait(), not await: cancelling a caller must not stop the closing.
    await asyncio.wait({ending})
    if ending.cancelled():
        raise RegistryClosed("the closing was cut off with its event loop; what it had not closed is lost")
    report = ending.result()
    return {**report, "errors": list(report["errors"])}


def _all_errors(reports: Iterable[tuple[str, CleanupReport]]) -> list[str]:
    return [f"user {user_id!r}: {error}" for user_id, report in reports for error in report["errors"]]


def _reachable_bytes(session: UserAgentSession) -> tuple[int, bool]:
    runtime = session._runtime
    # The manager knows all users.
    seen = {id(runtime), id(runtime.clock), id(session._manager)}
    size = 0
    todo: list[object] = [session]
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, _SHARED):
            continue
        seen.add(id(item))
        size += sys.getsizeof(item)
        if len(seen) > _WALK_LIMIT:
            return size, False
        todo.extend(gc.get_referents(item))
    return size, True
