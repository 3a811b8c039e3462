"""Defects of coming back: a client that was away receives its events again, twice, not at all, or another user's."""

from __future__ import annotations

import hashlib
from typing import Any

from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.sockets.base import Hub, OverSockets
from registry.testing import Channel, ReplayLog, Resumption, Subscription

__all__ = ["PLANTED"]


class _FromSeq(ReplayLog):
    def subscribe(self, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        subscription, how = super().subscribe(stream, seq)
        if how is Resumption.RESUMED and seq >= self.first:
            subscription.next = seq
        return subscription, how

    def move(self, old: int, new: int | None) -> None:
        # The event that was acknowledged last is kept, since it is counted among those to come.
        if new is not None:
            self._stand(new)
        if self._unstand(old):
            self._drop(min(self._acked, default=self.last + 1) - self.first)


class DuplicateAfterReconnect(OverSockets):
    """A client that comes back receives events from its last one on, in place of the next one."""

    log = _FromSeq


class _AlwaysNew(ReplayLog):
    def subscribe(self, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        return super().subscribe()


class _FromOne(ReplayLog):
    def __init__(self, stream: str, next_seq: int, max_events: int, max_bytes: int) -> None:
        super().__init__(stream, 1, max_events, max_bytes)


class LogBeginsAtOne(OverSockets):
    """The log is made for the first client and counts from 1: one that comes in the middle of the stream is greeted
    with a wrong number, and its acknowledgements are refused."""

    log = _FromOne


class ForgetsMissed(OverSockets):
    """A client that comes back begins like a new one: events emitted meanwhile are not sent, and it gets no warning."""

    log = _AlwaysNew


class _WhatIsLeft(ReplayLog):
    def subscribe(self, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        subscription, how = super().subscribe(stream, seq)
        if how is Resumption.NO_LONGER_KEPT:
            subscription.next, how = self.first, Resumption.RESUMED
        return subscription, how


class ResyncUntold(OverSockets):
    """A client that comes back too late receives the kept events, as if it had missed no others."""

    log = _WhatIsLeft


class _OneTooEarly(ReplayLog):
    def subscribe(self, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        subscription, how = super().subscribe(stream, seq)
        if how is Resumption.NO_LONGER_KEPT and seq + 2 == self.first:
            subscription.next, how = self.first, Resumption.RESUMED
        return subscription, how


class ResumesOneTooEarly(OverSockets):
    """A client that had all but the last of the dropped events resumes with the first kept one, without that one."""

    log = _OneTooEarly


class _OneTooLate(ReplayLog):
    def subscribe(self, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        subscription, how = super().subscribe(stream, seq)
        if how is Resumption.RESUMED and seq + 1 == self.first:
            subscription.next, how = self.last + 1, Resumption.NO_LONGER_KEPT
        return subscription, how


class ResumesOneTooLate(OverSockets):
    """A client that needs all kept events, from the first on, is refused as too late."""

    log = _OneTooLate


class _AsNumbered(ReplayLog):
    def subscribe(self, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        subscription, how = super().subscribe(stream, seq)
        if how is Resumption.NOT_YET_SENT:
            subscription.next, how = seq + 1, Resumption.RESUMED
        return subscription, how


class _NamedForUsers(Hub):
    def _channel(self, user_id: str) -> Channel:
        channel = super()._channel(user_id)
        channel.stream = hashlib.sha256(user_id.encode()).hexdigest()[:16]
        return channel


class RestartKeepsStreamName(OverSockets):
    """A stream is named for its user, in every life of it: a client with ten events waits for the eleventh."""

    def make_manager(self) -> Any:
        return _NamedForUsers(_AsNumbered)


class _ByStream(Hub):
    def subscribe(self, user_id: str, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        for owner, channel in list(self._channels.items()):
            if channel.stream == stream and not channel.closed:
                return super().subscribe(owner, stream, seq)
        return super().subscribe(user_id, stream, seq)


class ResumesAnyStream(OverSockets):
    """A client that comes back is looked up by the name of the stream alone, which is taken for a secret."""

    def make_manager(self) -> Any:
        return _ByStream()


class _PrunedByFirst(ReplayLog):
    def move(self, old: int, new: int | None) -> None:
        super().move(old, new)
        if new is not None:
            self._drop(new + 1 - self.first)
            self._cut_off_slow()


class AckOfOneDevicePrunes(OverSockets):
    """Events acknowledged by one of a user's devices are deleted, even if another needs them."""

    log = _PrunedByFirst


PLANTED = (
    planted_by(DuplicateAfterReconnect, "duplicate-event"),
    planted_by(LogBeginsAtOne, "missed-untold"),
    planted_by(ForgetsMissed, "lost-event"),
    planted_by(ResyncUntold, "lost-event"),
    planted_by(ResumesOneTooEarly, "missed-untold"),
    planted_by(ResumesOneTooLate, "needless-resync"),
    planted_by(RestartKeepsStreamName, "lost-event", "undetected-restart"),
    planted_by(ResumesAnyStream, "foreign-event"),
    planted_by(AckOfOneDevicePrunes, "lost-event"),
)
