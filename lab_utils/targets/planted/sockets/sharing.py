"""Defects of shared parts of sockets: one audience, one cache, one pace."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.sockets.base import Hub, OverSockets
from registry import AgentWebSocketBridge, Event, EventType, Origin, UserExecutionContext
from registry.testing import Channel, ReplayLog, Resumption, Subscription

__all__ = ["PLANTED"]


class _Paced(ReplayLog):
    def __init__(self, stream: str, next_seq: int, max_events: int, max_bytes: int) -> None:
        super().__init__(stream, next_seq, max_events, max_bytes)
        self.waiting: list[asyncio.Future[None]] = []

    async def taken(self) -> None:
        """Return when every socket has taken all events, which is when it had room for the earlier ones."""
        while any(one.lag > 0 for one in self.open_subscriptions()):
            self.waiting.append(asyncio.get_running_loop().create_future())
            await self.waiting[-1]

    def batch(self, start: int) -> tuple[str | None, int]:
        # Who asks has not advanced yet.
        asyncio.get_running_loop().call_soon(self._go_on)
        return super().batch(start)

    def leave(self, subscription: Subscription) -> None:
        super().leave(subscription)
        self._go_on()

    def _go_on(self) -> None:
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


class _InStep:
    """A bridge whose `emit` returns when the event is on its way to every socket."""

    def __init__(self, bridge: AgentWebSocketBridge, channel: Channel) -> None:
        self.user_id = bridge.user_id
        self._bridge = bridge
        self._channel = channel

    async def emit(self, event_type: EventType, payload: Mapping[str, Any], origin: Origin) -> Event:
        event = self._bridge.emit(event_type, payload, origin)
        if isinstance(self._channel.log, _Paced):
            await self._channel.log.taken()
        return event

    def close(self) -> None:
        self._bridge.close()


class _InStepHub(Hub):
    def create_bridge(self, user_context: UserExecutionContext) -> Any:
        return _InStep(super().create_bridge(user_context), self._channel(user_context.user_id))


class StalledReaderStopsAll(OverSockets):
    """Emitting sends an event to each socket in turn: the slowest sets the pace of all, and of the agent."""

    def make_manager(self) -> Any:
        return _InStepHub(_Paced)


class _ToEverySocket(ReplayLog):
    hub: _OneAudience

    def append(self, text: str) -> None:
        for log in self.hub.logs():
            super(_ToEverySocket, log).append(text)


class _OneAudience(Hub):
    def logs(self) -> list[_ToEverySocket]:
        return [log for channel in self._channels.values() if isinstance(log := channel.log, _ToEverySocket)]

    def subscribe(self, user_id: str, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        subscription, how = super().subscribe(user_id, stream, seq)
        assert isinstance(subscription.log, _ToEverySocket)
        subscription.log.hub = self
        return subscription, how


class BroadcastOverSockets(OverSockets):
    """All sockets are one audience: each receives every event, and the page shows those of its user."""

    def make_manager(self) -> Any:
        return _OneAudience(_ToEverySocket)


class _SharedFrames(ReplayLog):
    frames: dict[int, tuple[str | None, int]]

    def batch(self, start: int) -> tuple[str | None, int]:
        if not self.first <= start <= self.last:
            return None, start
        if start not in self.frames:
            if not self.frames:
                asyncio.get_running_loop().call_soon(self.frames.clear)
            self.frames[start] = super().batch(start)
        return self.frames[start]


class _OneCache(Hub):
    def __init__(self, log: type[ReplayLog]) -> None:
        super().__init__(log)
        self.frames: dict[int, tuple[str | None, int]] = {}

    def subscribe(self, user_id: str, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        subscription, how = super().subscribe(user_id, stream, seq)
        assert isinstance(subscription.log, _SharedFrames)
        subscription.log.frames = self.frames
        return subscription, how


class SharedFrameCache(OverSockets):
    """A message is encoded once for all sockets at the same place, and is found again by that number alone."""

    def make_manager(self) -> Any:
        return _OneCache(_SharedFrames)


class _Keeping(ReplayLog):
    hub: _Redelivering

    def leave(self, subscription: Subscription) -> None:
        text, _ = self.batch(subscription.acked + 1)
        self.hub.unacknowledged += (text or "").split("\n") if text else []
        super().leave(subscription)


class _Redelivering(Hub):
    def __init__(self, log: type[ReplayLog]) -> None:
        super().__init__(log)
        self.unacknowledged: list[str] = []

    def subscribe(self, user_id: str, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        subscription, how = super().subscribe(user_id, stream, seq)
        assert isinstance(subscription.log, _Keeping)
        subscription.log.hub = self
        texts, self.unacknowledged = self.unacknowledged, []
        for text in texts:
            subscription.log.append(text)
        return subscription, how


class RedeliveredToTheNext(OverSockets):
    """Events that a lost connection had not acknowledged are kept for the next connection of any user."""

    def make_manager(self) -> Any:
        return _Redelivering(_Keeping)


PLANTED = (
    planted_by(RedeliveredToTheNext, "foreign-event"),
    planted_by(BroadcastOverSockets, "foreign-event"),
    planted_by(SharedFrameCache, "foreign-event"),
    planted_by(StalledReaderStopsAll, "waits-for-other"),
)
