"""Keeps the part of a stream that its clients may still need: bounded, numbered, resumable, sent once to each."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final

__all__ = ["LEFT_AS_SLOW", "ReplayLog", "Resumption", "Subscription"]

LEFT_AS_SLOW: Final = "slow_consumer"
MOST_REMEMBERED: Final = 16
BATCH_EVENTS: Final = 64
BATCH_BYTES: Final = 32_768
LINGER_TURNS: Final = 3
STREAMS_FROM: Final = 8


class Resumption(Enum):
    """How a subscription begins; the values of all but the first two are reasons to resynchronise."""

    FROM_NOW = "from_now"
    RESUMED = "resumed"
    UNKNOWN_STREAM = "unknown_stream"
    NO_LONGER_KEPT = "no_longer_kept"
    NOT_YET_SENT = "not_yet_sent"

    @property
    def is_resync(self) -> bool:
        """True if the client may have missed something that cannot be given to it."""
        return self not in (Resumption.FROM_NOW, Resumption.RESUMED)


class ReplayLog:
    """The end of one stream: the events that some client has not acknowledged, at most so many and so many bytes.

    Every event is kept once, however many connections it goes to: a connection is a place in this log. Appending never
    waits. Past a bound the oldest event goes; a connection that had not sent it is cut off, and nobody else notices.
    Positions of clients that were cut off or dropped are remembered (the last 16), so that their missed events are kept
    for them within the bounds. With no client, present or remembered, nothing is kept.
    """

    __slots__ = (
        "__weakref__", "_acked", "_batch", "_came_since", "_has_more", "_in_a_row", "_remembered", "_rests_in",
        "_slowest", "_subscriptions", "closed_reason", "first", "max_bytes", "max_events", "size", "stream", "texts",
    )  # fmt: skip

    def __init__(self, stream: str, next_seq: int, max_events: int, max_bytes: int) -> None:
        self.stream = stream
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.first = next_seq  # The number of texts[0], or of the next event if there is none.
        self.texts: list[str] = []
        self.size = 0  # Bytes of the texts, as UTF-8.
        self.closed_reason: str | None = None
        # Weak: from a user's bridge no chain of references may lead to a socket, and so to the server.
        self._subscriptions: list[weakref.ref[Subscription]] = []
        self._remembered: deque[int] | None = None
        # The loop in which readers were woken a few turns ago; not merely whether: one that has stopped never turns.
        self._rests_in: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._came_since = False  # Something was appended since, and went out at once.
        self._in_a_row = 0  # How often that has been so.
        self._has_more = False  # Something was appended after those, and waits.
        self._slowest = next_seq  # No open subscription's next event comes before this one.
        self._batch: tuple[int, int, str] | None = None
        self._acked: dict[int, int] = {}  # Acknowledged position -> how many subscriptions or memories stand there.

    @property
    def last(self) -> int:
        """The number of the last event; 0 before the first."""
        return self.first + len(self.texts) - 1

    @property
    def is_wanted(self) -> bool:
        """True if a client is there, or was there and may come back for its missed events."""
        return bool(self._acked)

    def skip(self) -> None:
        """Count an event that nobody wants."""
        self._drop(len(self.texts))
        self.first += 1

    def append(self, text: str) -> None:
        """Keep the next event and wake every subscription. No await: the order is the order of the calls."""
        self.texts.append(text)
        self.size += _size(text)
        if len(self.texts) > self.max_events or self.size > self.max_bytes:
            self._shrink()
            if self.first > self._slowest:
                self._cut_off_slow()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # No loop, and so no reader that waits.
        if self._rests_in is None or self._rests_in() is not loop:
            self._flush(loop)
        elif self._in_a_row >= STREAMS_FROM:
            self._has_more = True
        else:
            self._in_a_row += 1
            self._came_since = True
            self._wake_readers()

    def batch(self, start: int) -> tuple[str | None, int]:
        """Events from `start` on, as many as go well into one message, one a line; and the number of the next.

        Connections at the same place get the very same text.
        """
        texts = self.texts
        index = start - self.first
        if index < 0 or index >= len(texts):
            return None, start
        if index == len(texts) - 1:
            return texts[index], start + 1
        known = self._batch
        if known is not None and known[0] == start:
            return known[2], known[1]
        chosen: list[str] = []
        size = 0
        for text in texts[index : index + BATCH_EVENTS]:
            size += _size(text)
            if size > BATCH_BYTES and chosen:
                break
            chosen.append(text)
        joined = "\n".join(chosen)
        self._batch = (start, start + len(chosen), joined)
        return joined, start + len(chosen)

    def rested(self, loop: asyncio.AbstractEventLoop) -> None:
        """The turns since the last flush are over."""
        if self._has_more:
            self._flush(loop)
        elif self._came_since:
            self._came_since = False
            _rest(loop, self)
        else:
            self._rests_in, self._in_a_row = None, 0

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        # An event goes out at once, unless it is one of many that come within a few turns of the loop from each other:
        # those go out together every few turns. A turn of an idle loop is a matter of microseconds; a busy one's is
        # longer, and it is then that fewer, larger messages count.
        self._rests_in, self._has_more = weakref.ref(loop), False
        _rest(loop, self)
        self._wake_readers()

    def _wake_readers(self) -> None:
        self._batch = None
        for ref in self._subscriptions:
            subscription = ref()
            if subscription is not None and (wake := subscription._wake) is not None:
                subscription._wake = None
                if not wake.done():
                    wake.set_result(None)

    def _cut_off_slow(self) -> None:
        for subscription in self.open_subscriptions():
            if subscription.next < self.first:
                subscription.end(LEFT_AS_SLOW)
        self._subscriptions = [ref for ref in self._subscriptions if (one := ref()) and one.ended_reason is None]
        # An event that has been sent once is not unsent: until the log has lost all of those, no client can have fallen
        # behind it.
        self._slowest = min((one.next for one in self.open_subscriptions()), default=self.last + 1)

    def subscribe(self, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        """Begin after `seq` of `stream`, or with the next event if no stream is named or it cannot be resumed."""
        if stream is None:
            how = Resumption.FROM_NOW
        elif stream != self.stream:
            how = Resumption.UNKNOWN_STREAM
        elif seq > self.last:
            how = Resumption.NOT_YET_SENT
        elif seq + 1 < self.first:
            how = Resumption.NO_LONGER_KEPT
        else:
            how = Resumption.RESUMED
            self._recall(seq)
        subscription = Subscription(self, seq + 1 if how is Resumption.RESUMED else self.last + 1)
        self._stand(subscription.acked)
        self._slowest = min(self._slowest, subscription.next)
        self._subscriptions.append(weakref.ref(subscription))
        return subscription, how

    def close(self, reason: str) -> None:
        """Nothing more will come; subscriptions send the remaining events and end."""
        if self.closed_reason is None:
            self.closed_reason = reason
            for subscription in self.open_subscriptions():
                subscription.end(reason)

    def open_subscriptions(self) -> list[Subscription]:
        """Those that are open, oldest first."""
        return [found for ref in self._subscriptions if (found := ref()) and found.ended_reason is None]

    def leave(self, subscription: Subscription) -> None:
        """Forget a subscription, but not where it stood."""
        self._subscriptions = [ref for ref in self._subscriptions if ref() not in (None, subscription)]
        if self._remembered is None:
            self._remembered = deque()
        self._remembered.append(subscription.acked)
        while len(self._remembered) > MOST_REMEMBERED:
            self.move(self._remembered.popleft(), None)

    def _recall(self, seq: int) -> None:
        """A client that left with an older position is the one that is back: its last acknowledgement arrived late."""
        fitting = [position for position in self._remembered or () if position <= seq]
        if fitting and self._remembered is not None:
            position = max(fitting)
            self._remembered.remove(position)
            # The subscription to come stands at `seq` or before anything is dropped: see subscribe().
            self._unstand(position)

    def _stand(self, position: int) -> None:
        self._acked[position] = self._acked.get(position, 0) + 1

    def _unstand(self, position: int) -> bool:
        left = self._acked[position] - 1
        if left:
            self._acked[position] = left
            return False
        del self._acked[position]
        return True

    def move(self, old: int, new: int | None) -> None:
        """A position has advanced, or is forgotten; drop the events that nobody needs any more."""
        if new is not None:
            self._stand(new)
        # Only when the last one has left a position can it have been the lowest: amortised, a step costs the same
        # whether one or a thousand clients acknowledge.
        if self._unstand(old):
            self._drop(min(self._acked, default=self.last) + 1 - self.first)

    def _drop(self, count: int) -> None:
        if count > 0:
            self.size -= sum(map(_size, self.texts[:count]))
            self._forget(count)

    def _forget(self, count: int) -> None:
        self._batch = None
        del self.texts[:count]
        self.first += count

    def _shrink(self) -> None:
        count = 0
        while (left := len(self.texts) - count) > self.max_events or (self.size > self.max_bytes and left > 1):
            self.size -= _size(self.texts[count])
            count += 1
        self._forget(count)

    def __repr__(self) -> str:
        return f"<ReplayLog stream={self.stream} events={len(self.texts)} bytes={self.size} last={self.last}>"


class Subscription:
    """One connection's place in its user's log. For one reader; `close()` it when the connection is gone."""

    __slots__ = ("__weakref__", "_left", "_wake", "acked", "ended_reason", "keeps", "log", "next", "on_end")

    def __init__(self, log: ReplayLog, next_seq: int) -> None:
        self.log = log
        self.next = next_seq  # The number of the event to be sent next.
        self.acked = next_seq - 1
        self.ended_reason: str | None = None
        self.on_end: Callable[[str], None] | None = None
        self.keeps: object = None  # Objects that must live as long as this is open.
        self._wake: asyncio.Future[None] | None = None
        self._left = False

    def take(self) -> str | None:
        """The next events to send, one a line; None if there are none now, or nothing may be sent any more."""
        if self.ended_reason == LEFT_AS_SLOW:
            return None
        text, self.next = self.log.batch(self.next)
        return text

    @property
    def lag(self) -> int:
        """Events that wait to be sent."""
        return self.log.last + 1 - self.next

    async def wait(self) -> None:
        """Return when there may be something to do: an event, the end, or a `wake()`."""
        if self.ended_reason is None and self.next > self.log.last:
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def wake(self) -> None:
        """Let a waiting reader look again."""
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)

    def acknowledge(self, seq: int) -> bool:
        """Note that the client needs nothing up to `seq`; False if it was never sent that far."""
        if seq >= self.next:
            return False
        if seq > self.acked and not self._left:
            old, self.acked = self.acked, seq
            self.log.move(old, seq)
        return True

    def end(self, reason: str) -> None:
        """Receive nothing more. Safe to call again; the first reason stays."""
        if self.ended_reason is None:
            self.ended_reason = reason
            self.wake()
            if self.on_end is not None:
                self.on_end(reason)

    def close(self) -> None:
        """Leave the log. Safe to call again."""
        if not self._left:
            self._left = True
            self.on_end = self.keeps = None
            self.end("client_closed")
            self.log.leave(self)

    def __repr__(self) -> str:
        return f"<Subscription next={self.next} acked={self.acked} {self.ended_reason or 'open'}>"


_resting: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, list[ReplayLog]]] = weakref.WeakKeyDictionary()


def _rest(loop: asyncio.AbstractEventLoop, log: ReplayLog) -> None:
    # All logs of a loop rest together: callbacks of each log's own would be a third of the cost of an event.
    resting = _resting.get(loop)
    if resting is None:
        loop.call_soon(_turn, loop, LINGER_TURNS - 1)
        _resting[loop] = [log]
    else:
        resting.append(log)


def _turn(loop: asyncio.AbstractEventLoop, turns_left: int) -> None:
    if turns_left:
        loop.call_soon(_turn, loop, turns_left - 1)
        return
    for log in _resting.pop(loop):
        log.rested(loop)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
