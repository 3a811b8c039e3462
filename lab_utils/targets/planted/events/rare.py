"""Defects of rare events: of a run that leaves the line, of one that cannot be sent, of one that is read late, and of
clients that are many or come late."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakSet

from lab_utils.target import Delivered, Recipe, Refusal, Refused, Subscription
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Bridge, Client, Context, Dispatcher, Origin, ReferenceTarget, Session

__all__ = ["PLANTED"]


class _Announcing(Agent):
    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        self.check_open()
        super()._emit(run)("agent_started", {"request": action})
        return await super().run(action, arguments, run)

    def _emit(self, run: str) -> Any:
        emit = super()._emit(run)
        return lambda event, payload: None if event == "agent_started" else emit(event, payload)


class StartedInLine(ReferenceTarget):
    """A run is reported as begun before it waits for its turn, and has no end where its caller leaves the line."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _Announcing(recipe, context, dispatcher, session)


class _NumbersFirst(Bridge):
    def emit(self, kind: str, payload: Mapping[str, Any], origin: Origin) -> None:
        try:
            json.dumps(payload, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            self.seq += 1
            raise
        super().emit(kind, payload, origin)


class NumberedBeforeEncoded(ReferenceTarget):
    """An event takes its number before its text is encoded: one that no socket can carry leaves a gap."""

    def make_bridge(self, user: str) -> Bridge:
        return _NumbersFirst(user, self.clients_of(user))


class UnreadLostAtEnd(ReferenceTarget):
    """The end of a session empties the queues of its clients: events that they have not read yet are lost."""

    def subscribe(self, user: str) -> Subscription:
        return self.queued(user, None)

    def queued(self, user: str, most: int | None) -> Subscription:
        client = _Queued(user, most)
        self.clients_of(user).add(client)
        return client

    def close_clients(self, session: Session) -> None:
        for client in self.clients_of(session.user):
            assert isinstance(client, _Queued)
            client.unread.clear()
        super().close_clients(session)


class OldestUnreadDropped(UnreadLostAtEnd):
    """A client's queue holds a thousand events: one that reads late loses the oldest, and is not cut off."""

    def subscribe(self, user: str) -> Subscription:
        return self.queued(user, 1_000)

    def close_clients(self, session: Session) -> None:
        ReferenceTarget.close_clients(self, session)


class _Queued(Client):
    def __init__(self, user: str, most: int | None) -> None:
        super().__init__(user)
        self.unread: deque[Delivered] = deque(maxlen=most)

    def deliver(self, event: Delivered) -> None:
        if self.open:
            self.unread.append(event)

    def received(self) -> Sequence[Delivered]:
        self._received += self.unread
        self.unread.clear()
        return super().received()


class _Numbered(Client):
    number = 0


class _ToSix(Bridge):
    def send(self, event: Delivered) -> None:
        there = [client for client in self.clients if client.open]
        for client in sorted(there, key=lambda one: one.number if isinstance(one, _Numbered) else 0)[:6]:
            client.deliver(event)


class SixClientsServed(ReferenceTarget):
    """Events go to the first six clients of a user: the others are connected, and receive nothing."""

    def subscribe(self, user: str) -> Subscription:
        client = _Numbered(user)
        client.number = len(self.clients_of(user))
        self.clients_of(user).add(client)
        return client

    def make_bridge(self, user: str) -> Bridge:
        return _ToSix(user, self.clients_of(user))


class _ToThoseOfTheStart(Bridge):
    def __init__(self, user: str, clients: WeakSet[Client]) -> None:
        super().__init__(user, clients)
        self.audiences: dict[str, WeakSet[Client]] = {}

    def send(self, event: Delivered) -> None:
        if event.type == "agent_started":
            self.audiences[event.run] = WeakSet(self.clients)
        for client in [client for client in self.audiences.get(event.run, ()) if client.open]:
            client.deliver(event)
        if event.type in ("agent_completed", "agent_error"):
            self.audiences.pop(event.run, None)


class AudienceOfTheStart(ReferenceTarget):
    """A run's events go to the clients that were there when it began: one that comes meanwhile waits for the next."""

    def make_bridge(self, user: str) -> Bridge:
        return _ToThoseOfTheStart(user, self.clients_of(user))


class _Debounced(Agent):
    def _think(self, emit: Any) -> Any:
        said: list[str] = []

        async def think(thought: str) -> None:
            if said[-1:] != [thought]:
                emit("agent_thinking", {"thought": thought})
            said.append(thought)

        return think


class EqualThoughtsOnce(ReferenceTarget):
    """A thought that equals the one before is taken for a double click, and not sent."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _Debounced(recipe, context, dispatcher, session)


class _WithContent(Bridge):
    def emit(self, kind: str, payload: Mapping[str, Any], origin: Origin) -> None:
        if kind != "agent_thinking" or payload["thought"]:
            super().emit(kind, payload, origin)


class EmptyThoughtsDropped(ReferenceTarget):
    """A thought without text is not sent."""

    def make_bridge(self, user: str) -> Bridge:
        return _WithContent(user, self.clients_of(user))


class _Shortening(Bridge):
    def emit(self, kind: str, payload: Mapping[str, Any], origin: Origin) -> None:
        super().emit(
            kind, {**payload, "message": payload["message"][:255]} if "message" in payload else payload, origin
        )


class ErrorsShortened(ReferenceTarget):
    """The text of an error is cut to fit a column of 255 characters."""

    def make_bridge(self, user: str) -> Bridge:
        return _Shortening(user, self.clients_of(user))


class EachManagerHoldsClients(ReferenceTarget):
    """A manager that is attached again holds the user's clients as the first does; an end lets the last one go."""

    def __init__(self) -> None:
        super().__init__()
        self.holders: Counter[str] = Counter()

    def associate(self, session: Session) -> None:
        super().associate(session)
        self.holders[session.user] += 1

    def close_clients(self, session: Session) -> None:
        if self.holders.pop(session.user, 0) <= 1:
            super().close_clients(session)


class EndKeepsPlacesOfClients(ReferenceTarget):
    """A client takes one of sixteen places of its user, and leaves it as it closes, but not where its session closes
    it."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def subscribe(self, user: str) -> Subscription:
        if self.places[user] >= 16:
            raise Refused(Refusal.CAPACITY, f"{user!r} has sixteen clients")
        self.places[user] += 1
        client = super().subscribe(user)
        assert isinstance(client, Client)
        client.left = self.left
        return client

    def left(self, user: str) -> None:
        self.places[user] -= 1
        self.forget_clients(user)


class FirstToLeaveTakesAll(ReferenceTarget):
    """When a client of a user without a session leaves, the user is forgotten, with the clients who are there still."""

    def forget_clients(self, user: str) -> None:
        if self.key(user) not in self.sessions:
            self.clients.pop(user, None)


PLANTED = (
    planted_by(StartedInLine, "no-end-event"),
    planted_by(NumberedBeforeEncoded, "gap-in-seq"),
    planted_by(UnreadLostAtEnd, "lost-event"),
    planted_by(OldestUnreadDropped, "lost-event"),
    planted_by(SixClientsServed, "lost-event"),
    planted_by(AudienceOfTheStart, "lost-event"),
    planted_by(EqualThoughtsOnce, "lost-event"),
    planted_by(EmptyThoughtsDropped, "lost-event"),
    planted_by(ErrorsShortened, "altered-payload"),
    planted_by(EachManagerHoldsClients, "connection-left"),
    planted_by(EndKeepsPlacesOfClients, "connection-left"),
    planted_by(FirstToLeaveTakesAll, "lost-event"),
)
