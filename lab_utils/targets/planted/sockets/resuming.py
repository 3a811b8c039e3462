"""Defects of coming back: what a client that was away is given again, twice, not at all, or of somebody else's."""

from __future__ import annotations

import hashlib
from typing import Any

from lab_utils.targets.planted.events.connections import planted_by
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
    """Who comes back is sent the events from the last one that it had, where it should be from the next."""

    log = _FromSeq


class _AlwaysNew(ReplayLog):
    def subscribe(self, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        return super().subscribe()


class ForgetsMissed(OverSockets):
    """Who comes back begins like a new client: what was emitted meanwhile is not sent, and nothing is said of it."""

    log = _AlwaysNew


class _WhatIsLeft(ReplayLog):
    def subscribe(self, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        subscription, how = super().subscribe(stream, seq)
        if how is Resumption.NO_LONGER_KEPT:
            subscription.next, how = self.first, Resumption.RESUMED
        return subscription, how


class ResyncUntold(OverSockets):
    """Who comes back too late is sent what is still kept, as if that were all that it had missed."""

    log = _WhatIsLeft


class _OneTooEarly(ReplayLog):
    def subscribe(self, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        subscription, how = super().subscribe(stream, seq)
        if how is Resumption.NO_LONGER_KEPT and seq + 2 == self.first:
            subscription.next, how = self.first, Resumption.RESUMED
        return subscription, how


class ResumesOneTooEarly(OverSockets):
    """Who had all but the last of what is no longer kept is let go on with the first that is, without that one."""

    log = _OneTooEarly


class _OneTooLate(ReplayLog):
    def subscribe(self, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        subscription, how = super().subscribe(stream, seq)
        if how is Resumption.RESUMED and seq + 1 == self.first:
            subscription.next, how = self.last + 1, Resumption.NO_LONGER_KEPT
        return subscription, how


class ResumesOneTooLate(OverSockets):
    """Who needs all that is kept, from the first event on, is told that it is too late."""

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
    """A stream is named for its user, in every life of it, and who has had ten events waits for the eleventh."""

    def make_manager(self) -> Any:
        return _NamedForUsers(_AsNumbered)


class _ByStream(Hub):
    def subscribe(self, user_id: str, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        for owner, channel in list(self._channels.items()):
            if channel.stream == stream and not channel.closed:
                return super().subscribe(owner, stream, seq)
        return super().subscribe(user_id, stream, seq)


class ResumesAnyStream(OverSockets):
    """Who comes back is looked up by the name of the stream alone, which is taken for a secret."""

    def make_manager(self) -> Any:
        return _ByStream()


class _PrunedByFirst(ReplayLog):
    def move(self, old: int, new: int | None) -> None:
        super().move(old, new)
        if new is not None:
            self._drop(new + 1 - self.first)
            self._cut_off_slow()


class AckOfOneDevicePrunes(OverSockets):
    """What one of a user's devices has acknowledged is deleted, needed by another or not."""

    log = _PrunedByFirst


PLANTED = (
    planted_by(DuplicateAfterReconnect, "duplicate-event"),
    planted_by(ForgetsMissed, "lost-event"),
    planted_by(ResyncUntold, "lost-event"),
    planted_by(ResumesOneTooEarly, "missed-untold"),
    planted_by(ResumesOneTooLate, "needless-resync"),
    planted_by(RestartKeepsStreamName, "lost-event", "undetected-restart"),
    planted_by(ResumesAnyStream, "foreign-event"),
    planted_by(AckOfOneDevicePrunes, "lost-event"),
)
