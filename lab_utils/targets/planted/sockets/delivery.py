"""Defects of events over a socket: in another order, with other numbers, altered, late, or not sent at all."""

from __future__ import annotations

import json
import re

from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.sockets.base import LogWithHoles, OverSockets
from registry.testing import BATCH_EVENTS, ReplayLog

__all__ = ["PLANTED"]

_FRAME_LIMIT = 65_536
_ENDS = ("agent_completed", "agent_error")


def _type_of(text: str) -> str:
    return str(json.loads(text)["type"])


class _ByUrgency(ReplayLog):
    def batch(self, start: int) -> tuple[str | None, int]:
        text, following = super().batch(start)
        if text is not None:
            text = "\n".join(sorted(text.split("\n"), key=lambda line: _type_of(line) not in _ENDS))
        return text, following


class ReordersFrames(OverSockets):
    """Waiting events are sorted by urgency: an agent's end overtakes its thoughts."""

    log = _ByUrgency


class _Ring(ReplayLog):
    def _cut_off_slow(self) -> None:
        for subscription in self.open_subscriptions():
            subscription.next = max(subscription.next, self.first)


class LossWhenFull(OverSockets):
    """The buffer is a ring: a client that falls behind stays connected, and never learns of overwritten events."""

    log = _Ring


class _CountingForEver(ReplayLog):
    def move(self, old: int, new: int | None) -> None:
        size = self.size
        super().move(old, new)
        self.size = size


class BytesNeverGivenBack(OverSockets):
    """The bytes of an event are counted when it comes, and not taken off when everybody has acknowledged it: the buffer
    counts as full after its size in all, and whoever has not read the last event is cut off."""

    log = _CountingForEver


class _Marked(LogWithHoles):
    def append(self, text: str) -> None:
        event = json.loads(text)
        super().append(text.replace(f'"seq": {event["seq"]},', f'"seq": {self.last + 1},', 1))
        if event["type"] in _ENDS:
            super().append("")


class SkipsNumbers(OverSockets):
    """After each run a mark is put into the buffer, for the server alone; it is numbered as if it were an event."""

    log = _Marked


class _Capped(LogWithHoles):
    def append(self, text: str) -> None:
        super().append(text if len(text) <= _FRAME_LIMIT else "")


class OversizedFrameDropped(OverSockets):
    """An event larger than a frame of 64 KB is not sent; only the server's log shows it."""

    log = _Capped


class _EndsEarly(ReplayLog):
    def batch(self, start: int) -> tuple[str | None, int]:
        text, following = super().batch(start)
        if text is not None and following - start == BATCH_EVENTS:
            text = text.rpartition("\n")[0]
        return text, following


class BatchEndLost(OverSockets):
    """A message that is full ends one event early, and the next one begins where it should have ended."""

    log = _EndsEarly


class _ThreeBytes(ReplayLog):
    def append(self, text: str) -> None:
        super().append(re.sub("[\U00010000-\U0010ffff]", "\ufffd", text))


class ThreeByteText(OverSockets):
    """Events wait in a table whose UTF-8 has at most three bytes a character; events with longer characters are
    lost."""

    log = _ThreeBytes


class _NoSeparators(ReplayLog):
    def append(self, text: str) -> None:
        super().append(re.sub("[\u2028\u2029]", " ", text))


class SeparatorsCleaned(OverSockets):
    """Line separators, which once broke a page's script, are replaced by spaces before an event is sent."""

    log = _NoSeparators


class _HoldsTheEnd(ReplayLog):
    held: str | None = None

    def append(self, text: str) -> None:
        self._let_go()
        if _type_of(text) in _ENDS:
            self.held = text
        else:
            super().append(text)

    def close(self, reason: str) -> None:
        self._let_go()
        super().close(reason)

    def _let_go(self) -> None:
        held, self.held = self.held, None
        if held is not None:
            super().append(held)


class FinishedRunsEventLate(OverSockets):
    """A run's events are sent when the next one comes after them, so that its last waits for the next run."""

    log = _HoldsTheEnd


class _Everything(ReplayLog):
    def _drop(self, count: int) -> None:
        pass

    def _shrink(self) -> None:
        pass


class UnboundedReplay(OverSockets):
    """Every event is kept for as long as its user is there, acknowledged or not, for clients that may yet come."""

    log = _Everything


PLANTED = (
    planted_by(ReordersFrames, "reordered-events"),
    planted_by(LossWhenFull, "lost-event"),
    planted_by(BytesNeverGivenBack, "lost-event"),
    planted_by(SkipsNumbers, "gap-in-seq"),
    planted_by(OversizedFrameDropped, "lost-event"),
    planted_by(BatchEndLost, "lost-event"),
    planted_by(ThreeByteText, "altered-payload"),
    planted_by(SeparatorsCleaned, "altered-payload"),
    planted_by(FinishedRunsEventLate, "late-event"),
    planted_by(UnboundedReplay, "unbounded-buffer"),
)
