"""Defects that leave tasks, timers, descriptors, threads and connections behind, until the target stops."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from lab_utils.target import Command, EndReport, Handle, Population, Recipe, Subscription
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Bridge, Client, ReferenceTarget, Session
from registry import AgentScope, BaseAgent

__all__ = ["PLANTED"]


class TaskNeverAwaited(ReferenceTarget):
    """Each session starts a task that watches it, and nobody cancels it."""

    def __init__(self) -> None:
        super().__init__()
        self.watchers: list[asyncio.Task[None]] = []

    def make_bridge(self, user: str) -> Bridge:
        self.watchers.append(asyncio.create_task(_wait_for_ever()))
        return super().make_bridge(user)

    async def stop(self) -> None:
        await super().stop()
        for task in self.watchers:
            task.cancel()
        await asyncio.gather(*self.watchers, return_exceptions=True)


async def _wait_for_ever() -> None:
    await asyncio.Event().wait()


class TimerNeverCancelled(AgentRegistryTarget):
    """Each agent sets a timer for its own expiry, which stays when the agent has gone."""

    def __init__(self) -> None:
        super().__init__()
        self._timers: list[asyncio.TimerHandle] = []

    def make_agent(self, scope: AgentScope, recipe: Recipe) -> BaseAgent:
        self._timers.append(asyncio.get_running_loop().call_later(3_600.0, _expire, scope.context.user_id))
        return super().make_agent(scope, recipe)

    async def stop(self) -> None:
        await super().stop()
        for timer in self._timers:
            timer.cancel()


def _expire(_: str) -> None:
    """The agent's time is over."""


class DescriptorLeft(ReferenceTarget):
    """Each session opens a log of its own and never closes it."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: list[int] = []

    def make_bridge(self, user: str) -> Bridge:
        self.logs.append(os.open(os.devnull, os.O_WRONLY))
        return super().make_bridge(user)

    async def stop(self) -> None:
        await super().stop()
        for log in self.logs:
            os.close(log)


class ThreadLeft(ReferenceTarget):
    """Each session has a worker thread for blocking calls, which stays when the session has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = threading.Event()
        self.workers: list[threading.Thread] = []

    def make_bridge(self, user: str) -> Bridge:
        worker = threading.Thread(target=self.stopped.wait, daemon=True)
        self.workers.append(worker)
        worker.start()
        return super().make_bridge(user)

    async def stop(self) -> None:
        await super().stop()
        self.stopped.set()
        for worker in self.workers:
            worker.join()


class ConnectionLeft(ReferenceTarget):
    """A client that goes away is only forgotten when it sends its next message, which it never does."""

    def __init__(self) -> None:
        super().__init__()
        self.ever: list[Client] = []

    def subscribe(self, user: str) -> Subscription:
        client = _Lingering(user)
        self.clients_of(user).add(client)
        self.ever.append(client)
        return client

    def close_clients(self, session: Session) -> None:
        if session.bridge is not None:
            session.bridge.closed = True


class _Lingering(Client):
    async def close(self) -> None:
        """The other side has gone; this side is not notified."""


class SavedAfterTheEnd(ReferenceTarget):
    """A run that ends with its session saves the session's record once more, and the registry counts its records."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: set[str] = set()

    async def run(self, handle: Handle, command: Command) -> Any:
        handle.native.check_open()
        try:
            return await super().run(handle, command)
        finally:
            self.saved.add(handle.user)

    async def end(self, user: str) -> EndReport:
        self.saved.discard(user)
        return await super().end(user)

    def population(self) -> Population:
        found = super().population()
        return Population(found.sessions + len(self.saved - self.sessions.keys()), found.agents)


PLANTED = (
    planted_by(TaskNeverAwaited, "leaked-task"),
    planted_by(TimerNeverCancelled, "leaked-timer"),
    planted_by(DescriptorLeft, "leaked-descriptor"),
    planted_by(ThreadLeft, "leaked-thread"),
    planted_by(ConnectionLeft, "leaked-connection"),
    planted_by(SavedAfterTheEnd, "session-left"),
)
