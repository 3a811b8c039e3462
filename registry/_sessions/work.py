"""What is under way in one session: what is being made for it, and what of it is being closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from registry._sessions.attempts import InFlight
from registry._sessions.closing import ClosingReport, close_agents, close_at_once
from registry._sessions.shared import Runtime
from registry.agent import BaseAgent
from registry.lease import SessionLifetime, Uncopyable

__all__ = ["SessionWork", "log_errors"]

_log = logging.getLogger(__name__)


class SessionWork(Uncopyable):
    """Keeps the books of one session's work, made when first needed: most sessions most of the time have none."""

    __slots__ = ("_closings", "_in_flight", "_life", "_runtime", "is_provisional")

    # Set by the session: a constructor in each of its bases would cost more than all that they do.
    _life: SessionLifetime
    _runtime: Runtime
    _in_flight: set[InFlight] | None
    _closings: set[asyncio.Task[None]] | None
    is_provisional: bool

    @property
    def user_id(self) -> str:
        """The one user all of this belongs to."""
        return self._life.user_id

    def begin_work(self, entry: InFlight) -> None:
        """Note something that is being made: ending the session cancels it and waits for it."""
        if self._in_flight is None:
            self._in_flight = set()
        self._in_flight.add(entry)

    def end_work(self, entry: InFlight) -> None:
        """It has been made or has failed; with the last of a provisional session that has nothing the session goes."""
        if self._in_flight is not None:
            self._in_flight.discard(entry)
            if not self._in_flight:
                self._in_flight = None
                if self.is_provisional and self._life.is_open:
                    self._runtime.on_unused(self)

    async def close_agents(self, agents: list[BaseAgent]) -> ClosingReport:
        """Close agents that the session holds no more, in a task that outlives a cancelled caller if one needs time."""
        report = ClosingReport()
        left = close_at_once(agents, report)
        if left:
            # wait(), not await: a cancelled caller must not stop the closing.
            await asyncio.wait({self.keep_closing(close_agents(left, report, self._runtime))})
        return report

    def throw_away(self, agent: BaseAgent) -> None:
        """Close an agent for which nobody waits."""
        report = ClosingReport()
        if close_at_once([agent], report):
            self.keep_closing(_close_and_log(agent, report, self._runtime))
        else:
            log_errors(self.user_id, report.errors)

    def keep_closing(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a closing in a task of the registry's, for which the session's end waits."""
        task = self._runtime.own(work)
        if self._closings is None:
            self._closings = set()
        self._closings.add(task)
        task.add_done_callback(self._closing_ended)
        return task

    def _closing_ended(self, task: asyncio.Task[None]) -> None:
        if self._closings is not None:
            self._closings.discard(task)
            if not self._closings:
                self._closings = None


async def _close_and_log(agent: BaseAgent, report: ClosingReport, runtime: Runtime) -> None:
    user_id = agent.scope.context.user_id
    await close_agents([agent], report, runtime)
    log_errors(user_id, report.errors)


def log_errors(user_id: str, errors: list[str]) -> None:
    """For closings whose caller is given no report."""
    for error in errors:
        _log.warning("while closing for user %r: %s", user_id, error)
