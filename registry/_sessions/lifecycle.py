"""AgentLifecycleManager: ends sessions, on demand and by age or idleness, and reports the holdings of each user."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from registry._sessions.closing import ClosingReport, log_errors
from registry._sessions.directory import Directory
from registry._sessions.driver import Driven, Slice
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
from registry._sessions.weighing import Scales
from registry.identity import check_user_id
from registry.lease import Uncopyable

__all__ = ["AgentLifecycleManager", "Ends"]

_WARN_AT: Final = 0.8
_MAX_SWEEP_INTERVAL: Final = 60.0


class Ends:
    """The ends of many sessions. `todo`: the users whose sessions are still to be ended, the last of them first."""

    __slots__ = ("_open", "agents", "errors", "todo", "users")

    def __init__(self, todo: list[str]) -> None:
        self.todo = todo
        self.users: list[str] = []
        self.agents = 0
        self.errors: list[str] = []
        self._open: deque[tuple[str, ClosingReport | Driven[ClosingReport]]] = deque()

    def add(self, user_id: str, answer: ClosingReport | Driven[ClosingReport]) -> None:
        """Note the report of a session that ended at once, or the work that ends it."""
        self.users.append(user_id)
        # Errors are listed in the order in which the ends were begun.
        if isinstance(answer, Driven) or (answer.errors and self._open):
            self._open.append((user_id, answer))
        else:
            self._count(user_id, answer)

    async def settle(self) -> None:
        """Wait for all of them, in slices."""
        pace = Slice()
        while self._open:
            user_id, answer = self._open.popleft()
            self._count(user_id, await answer.joined() if isinstance(answer, Driven) else answer)
            if pace.is_over():
                await asyncio.sleep(0)
                pace.begin()

    def _count(self, user_id: str, report: ClosingReport) -> None:
        self.agents += report.closed
        if report.errors:
            self.errors += [f"user {user_id!r}: {error}" for error in report.errors]


class AgentLifecycleManager(Uncopyable):
    """Ends sessions and watches them. Times by the registry's clock, in seconds."""

    __slots__ = ("_directory", "_ending", "_guard", "_runtime", "_sweeper")

    def __init__(self, directory: Directory, runtime: Runtime) -> None:
        self._directory = directory
        self._runtime = runtime
        self._guard = runtime.guard
        runtime.on_unused = self._drop_unused
        self._ending: dict[str, Driven[ClosingReport]] = {}
        self._sweeper: asyncio.Task[None] | None = None

    async def trigger_cleanup(self, user_id: str) -> CleanupReport:
        """End the user's session now; same as `AgentRegistry.cleanup_user_session`."""
        self._guard.enter()
        answer = self.end(user_id)
        return answer if isinstance(answer, dict) else await answer

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
        """Return the user's holdings: counts, times, and the bytes reachable from the session.

        `approximate_bytes` sums `sys.getsizeof` over all objects that the session and its agents refer to, without
        shared code and modules. Native memory (a database) is not seen. It pauses in a large session, and is then the
        sum of several moments; `complete` is False when it stopped at 100,000 objects, or because the session ended.
        """
        self._guard.enter()
        session = self._directory.find(user_id)
        if session is None or session.is_provisional:
            return {"status": "no_session", "user_id": user_id, "total_agents": 0, "approximate_bytes": 0}
        describing = self._describe(session, Scales(Slice()))
        # It may pause, and this must not keep the session alive meanwhile.
        del session
        return await describing

    async def monitor_all_users(self) -> AllUsersReport:
        """Return `monitor_memory_usage` of every user, with totals and the users who are near a limit.

        Taken in slices of less than a millisecond, between which everything else goes on: two users are described as
        of two moments, and the totals are of no one moment. A user whose session lives from the call to the answer is
        in it, once; one whose session begins or ends meanwhile may be missing, and nothing of theirs is kept alive.
        """
        self._guard.enter()
        users: dict[str, UserReport] = {}
        agents = size = 0
        near: list[list[str]] = [[]]
        pace = Slice()
        scales = Scales(pace)
        for user_id in self._directory.users():
            session = self._directory.get(user_id)
            if session is None or session.is_provisional:
                continue
            describing = self._describe(session, scales)
            del session
            user = users[user_id] = await describing
            agents += user["total_agents"]
            size += user["approximate_bytes"]
            if user["status"] != "healthy":
                near[-1].append(user_id)
            if pace.is_over():
                near[-1].sort()
                near.append([])
                await asyncio.sleep(0)
                pace.begin()
        near[-1].sort()
        near_limit = []
        for user_id in heapq.merge(*near):
            near_limit.append(user_id)
            if pace.is_over():
                await asyncio.sleep(0)
                pace.begin()
        return {
            "total_users": len(users),
            "total_agents": agents,
            "approximate_bytes": size,
            "near_limit": near_limit,
            "users": users,
        }

    async def sweep(self) -> SweepReport:
        """End every session that is over age or idle and in which nothing runs.

        Return `{"ended": [user ids], "errors": [...]}` when all of them have been closed. In slices, as
        `monitor_all_users`: each session is judged, and ended if it is due, in one moment, two sessions in two. One
        that begins meanwhile waits for the next sweep. A cancelled caller ends the sweep, but not the endings that it
        has begun.
        """
        self._guard.enter()
        # The oldest is the first to be popped.
        ends = Ends(self._directory.users()[::-1])
        while not self._begin_some(ends, self._is_due):  # noqa: ASYNC110  # It waits for nothing: it takes turns.
            await asyncio.sleep(0)
        await ends.settle()
        return {"ended": ends.users, "errors": ends.errors}

    async def emergency_cleanup_all(self) -> AllCleanupReport:
        """End every session, newest first, going on past those that fail; the registry stays open.

        In slices, as `monitor_all_users`, and no faster than cleanups that await come to their ends; to its end also
        when the caller is cancelled. A session works until it is its turn, and from then on nothing new begins in it.
        All that were there at the call have ended when this returns; one that begins meanwhile may be ended or stay.
        Each has `Limits.close_timeout` from when its own closing begins, in which the time for which something holds
        the loop does not count.
        """
        self._guard.enter()
        return {"status": "emergency_cleanup_complete", **await self.end_all()}

    # For the registry only.

    def end(self, user_id: str) -> CleanupReport | Coroutine[Any, Any, CleanupReport]:
        """End one user's session, or join its ending. Return the report, or an awaitable for it: most ends take no turn
        of the loop."""
        # Most ask for the session that is there, and by an id that needs no check.
        session = self._directory.get(user_id) if type(user_id) is str else None
        if session is None and (session := self._directory.find(user_id)) is None:
            user_id = check_user_id(user_id)
            ending = self._ending.get(user_id)
            if ending is None:
                return {"status": "no_session", "user_id": user_id, "cleaned_agents": 0, "errors": []}
            return _joined(user_id, ending)
        user_id = session._life.user_id
        before = self._ending.get(user_id) if self._ending else None
        if before is None and (closed := session.end_plainly()) is not None:
            self._forget(session)
            return {"status": "cleaned", "user_id": user_id, "cleaned_agents": closed, "errors": []}
        answer = self._begin_end(session)
        if isinstance(answer, Driven):
            return _joined(user_id, answer)
        # The session before this one may still be closing: nothing of the user may be left when this returns.
        return _told(user_id, answer) if before is None else _joined(user_id, before, answer)

    async def end_all(self) -> EndingsReport:
        """End every session, and wait for those that are ending already."""
        ends = self.begin_all()
        if not ends.todo:
            return await self.finish_all(ends)
        # A task, and wait(): cancelling a caller must not stop the endings that have not begun yet.
        work = self._runtime.own(self.finish_all(ends))
        await asyncio.wait({work})
        return work.result()

    def begin_all(self) -> Ends:
        """Begin to end every session, newest first, for one slice; the rest is left to `finish_all`."""
        ends = Ends(self._directory.users())
        for user_id, ending in self._ending.items():
            ends.add(user_id, ending)
        self._begin_some(ends)
        return ends

    async def finish_all(self, ends: Ends) -> EndingsReport:
        """End those that are left, wait for all, and sum them up."""
        while ends.todo:
            await asyncio.sleep(0)
            self._begin_some(ends)
        await ends.settle()
        return {"users_cleaned": len(ends.users), "agents_cleaned": ends.agents, "errors": ends.errors}

    def watch(self) -> None:
        """See to it that sessions are swept while there are any."""
        if self._sweeper is not None:
            return
        limits = self._runtime.limits
        if limits.idle_timeout is not None or limits.max_session_age is not None:
            self._sweeper = self._runtime.own_for_all(self._sweep_for_ever(), self._sweeper_ended)

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

    def _begin_some(self, ends: Ends, is_due: Callable[[UserAgentSession], bool] | None = None) -> bool:
        """Begin to end the sessions of the next users, those that are due, for one slice; True if none is left."""
        pace = Slice()
        # Not faster than they are closed, or those that wait for their turn would fill the memory.
        while ends.todo and not self._runtime.driver.is_behind:
            session = self._directory.get(ends.todo.pop())
            # No await from the look to the end: a session that is due is not in use when it ends.
            if session is not None and (is_due is None or is_due(session)):
                ends.add(session.user_id, self._begin_end(session))
            if pace.is_over():
                break
        return not ends.todo

    def _forget(self, session: UserAgentSession) -> None:
        if self._directory.remove(session):
            self.stop_watching()

    def _begin_end(self, session: UserAgentSession) -> ClosingReport | Driven[ClosingReport]:
        """Begin to end a session; return the report if that was all, else the work that ends it."""
        self._forget(session)
        report = ClosingReport()
        left = session.end_at_once(report)
        if left is None:
            return report
        user_id = session.user_id
        work = session.end(left, report, self._ending.get(user_id))
        ending = self._ending[user_id] = self._runtime.drive(work, self, user_id)
        return ending

    def driven_ended(self, driven: Driven[ClosingReport]) -> None:
        """The end of a session is over."""
        # Keep an ending that was cut off: a later call must not report that nothing was there.
        if self._ending.get(driven.key) is driven and not driven.is_cut_off:
            del self._ending[driven.key]

    def _drop_unused(self, session: UserAgentSession) -> None:
        """End a provisional session that came to nothing."""
        answer = self._begin_end(session)
        if isinstance(answer, ClosingReport):
            log_errors(session.user_id, answer.errors)

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

    async def _describe(self, session: UserAgentSession, scales: Scales) -> UserReport:
        limit = self._runtime.limits.max_agents_per_user
        status, metrics = self.level(session.agent_count, limit), session.get_metrics()
        weighing = scales.weigh(session)
        # It pauses in a large session, which this must not keep alive meanwhile.
        del session
        size, is_complete = await weighing
        return {
            "status": status,
            **metrics,
            "max_agents": limit,
            "approximate_bytes": size,
            "complete": is_complete,
        }


def _told(user_id: str, report: ClosingReport) -> CleanupReport:
    return {"status": "cleaned", "user_id": user_id, "cleaned_agents": report.closed, "errors": report.errors}


async def _joined(user_id: str, ending: Driven[ClosingReport], own: ClosingReport | None = None) -> CleanupReport:
    """Wait for an ending; return its report, or that of an end which the caller itself made before."""
    report = await ending.joined()
    told = _told(user_id, own or report)
    # Many may wait for one ending: each gets its own.
    return {**told, "errors": list(told["errors"])}
