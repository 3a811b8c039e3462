"""Defects that keep a trace of operations on a session rather than in it: a cancelled run, a reset, a manager that is
attached, a plan, a socket. Each releases its objects when its target stops, for the lab's own sake."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from lab_utils.target import Command, Handle, PlannedStep, SupervisionReport
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.sockets.admission import NeverGivenBack
from lab_utils.targets.planted.sockets.base import OverSockets
from lab_utils.targets.reference import Bridge, ReferenceTarget, Session
from registry.testing import EventsApp, Receive, Scope, Send

__all__ = ["PLANTED"]


class CancelledRunKept(ReferenceTarget):
    """The request of a cancelled run is kept, so that the run may be repeated, which it never is."""

    def __init__(self) -> None:
        super().__init__()
        self.to_repeat: list[tuple[str, Command]] = []

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except asyncio.CancelledError:
            self.to_repeat.append((handle.instance, command))
            raise


class ResetsJournalled(ReferenceTarget):
    """Every reset leaves an entry in a journal: how many agents the user had."""

    def __init__(self) -> None:
        super().__init__()
        self.journal: list[dict[str, int]] = []

    async def reset(self, user: str) -> int:
        closed = await super().reset(user)
        self.journal.append({user: closed})
        return closed


class ReplacedBridgesKept(ReferenceTarget):
    """A bridge that is replaced, when an event manager is attached again, is kept for possible holders."""

    def __init__(self) -> None:
        super().__init__()
        self.replaced: list[Bridge] = []

    def associate(self, session: Session) -> None:
        if session.bridge is not None:
            self.replaced.append(session.bridge)
        super().associate(session)


class PlansKept(OverSockets):
    """The report of every plan is kept, for a timeline that nobody looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[SupervisionReport] = []

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        report = await super().supervise(user, plan)
        self.reports.append(report)
        return report


class _Lingering(EventsApp):
    def __init__(self, hub: Any, authenticate: Any) -> None:
        super().__init__(hub, authenticate)
        self.buffers: list[bytearray] = []

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.buffers.append(bytearray(5_000))
        await super().serve(scope, receive, send)


class SocketBuffersKept(OverSockets):
    """Each connection has a buffer of 5 KB for its client's messages, and the buffer outlives it."""

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        return _Lingering(manager, signer)


class LeakedAdmissionsOfMany(OverSockets):
    """A user may have sixteen sockets, and those that have ended count: only who comes again and again is shut out."""

    def make_manager(self) -> Any:
        manager = super().make_manager()
        manager.admissions = NeverGivenBack(manager.limits)
        return manager


PLANTED = (
    planted_by(CancelledRunKept, "memory-growth"),
    planted_by(ResetsJournalled, "memory-growth"),
    planted_by(ReplacedBridgesKept, "object-growth"),
    planted_by(PlansKept, "memory-growth", "object-growth"),
    planted_by(SocketBuffersKept, "memory-growth"),
    planted_by(LeakedAdmissionsOfMany, "connection-left"),
)
