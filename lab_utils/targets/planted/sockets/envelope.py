"""Defects of the text that an event becomes on its way to a socket: its origin, and its other fields."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Any

from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.sockets.base import Hub, OverSockets
from registry.testing import Receive, ReplayLog, Resumption, Scope, Send, Subscription

__all__ = ["PLANTED"]


def _with(text: str, **fields: Any) -> str:
    """The event with other values. Its payload comes out as it went in: it was written in the same way."""
    return json.dumps({**json.loads(text), **fields}, ensure_ascii=False)


def _told(text: str, name: str) -> str:
    return str(json.loads(text)[name])


class _Borrowing(ReplayLog):
    """Fills one field of every event from data that all users share."""

    shared: dict[str, str]
    field = ""

    def append(self, text: str) -> None:
        super().append(_with(text, **{self.field: self.shared.setdefault(self.field, _told(text, self.field))}))


class _Sharing(Hub):
    def __init__(self, log: type[_Borrowing]) -> None:
        super().__init__(log)
        self.shared: dict[str, str] = {}

    def subscribe(self, user_id: str, stream: str | None = None, seq: int = 0) -> tuple[Subscription, Resumption]:
        subscription, how = super().subscribe(user_id, stream, seq)
        assert isinstance(subscription.log, _Borrowing)
        subscription.log.shared = self.shared
        return subscription, how


class _FirstStream(_Borrowing):
    field = "stream"


class StreamOfFirstUser(OverSockets):
    """The beginning of an event's text is a template, filled in once with the stream of the first user."""

    def make_manager(self) -> Any:
        return _Sharing(_FirstStream)


class _LatestRun(_Borrowing):
    def append(self, text: str) -> None:
        if _told(text, "type") == "agent_started":
            self.shared["run_id"] = _told(text, "run_id")
        ReplayLog.append(self, _with(text, run_id=self.shared["run_id"]))


class NeighboursRun(OverSockets):
    """The run is kept in a variable of the process until the next run of any user starts."""

    def make_manager(self) -> Any:
        return _Sharing(_LatestRun)


class _FirstRun(ReplayLog):
    run = ""

    def append(self, text: str) -> None:
        self.run = self.run or _told(text, "run_id")
        super().append(_with(text, run_id=self.run))


class RunOfFirstEvent(OverSockets):
    """The middle of an event's text is kept for the user's next one, with the run of the first."""

    log = _FirstRun


class _MainThread(ReplayLog):
    def append(self, text: str) -> None:
        super().append(_with(text, thread_id="main"))


class ThreadLeftToDefault(OverSockets):
    """The thread did not fit into the message of an older client, so the server fills in the default."""

    log = _MainThread


class _TypeForId(ReplayLog):
    def append(self, text: str) -> None:
        super().append(_with(text, agent_id=_told(text, "agent_type")))


class AgentNamedByType(OverSockets):
    """An agent is identified by its type, and a user may have two of one type."""

    log = _TypeForId


class _UserAppended(ReplayLog):
    def append(self, text: str) -> None:
        super().append(f'{text[:-1]}, "user_id": {json.dumps(_told(text, "user_id"))}}}')


class UserToldTwice(OverSockets):
    """A gateway appends the user to every message, which has the field already: readers differ in which one counts."""

    log = _UserAppended


class _Defaulting(ReplayLog):
    def append(self, text: str) -> None:
        if _told(text, "type") == "agent_started":
            text = text.replace('"payload": {', '"payload": {"request": "unknown", ', 1)
        super().append(text)


class RequestDefaulted(OverSockets):
    """A default for the request is written in front of the payload, for the case that it has none."""

    log = _Defaulting


class _Regional(ReplayLog):
    def append(self, text: str) -> None:
        if _told(text, "type") == "agent_started":
            text = text.replace('"payload": {', '"payload": {"region": "eu-2", ', 1)
        super().append(text)


class RegionInStarts(OverSockets):
    """A gateway notes in the payload of agent_started through which region it went."""

    log = _Regional


class _Traced(ReplayLog):
    def append(self, text: str) -> None:
        super().append(f'{text[:-1]}, "trace": "00-4bf9-01"}}')


class TraceInEnvelope(OverSockets):
    """The trace of the request, meant for the next service, stays in the event and is sent to the client."""

    log = _Traced


class _FromZero:
    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: MutableMapping[str, Any]) -> None:
            text = message.get("text") or ""
            if text.startswith('{"type": "hello"'):
                message["text"] = _with(text, seq=json.loads(text)["seq"] - 1)
            await send(message)

        await self._app(scope, receive, answer)


class GreetsFromZero(OverSockets):
    """The greeting counts events from zero, the events themselves from one: clients wait for an event that never
    comes."""

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        return _FromZero(super().make_events_app(manager, signer))


class _AsAsked:
    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked: list[str] = []

        async def listen() -> MutableMapping[str, Any]:
            message = await receive()
            text = message.get("text") or ""
            if '"start"' in text and '"stream"' in text:
                asked.append(_told(text, "stream"))
            return message

        async def answer(message: MutableMapping[str, Any]) -> None:
            text = message.get("text") or ""
            if asked and text.startswith('{"type": "resync_required"'):
                message["text"] = _with(text, stream=asked[0])
            await send(message)

        await self._app(scope, listen, answer)


class GreetsAsAsked(OverSockets):
    """A greeting repeats the stream that the client asked for, even if it is another user's."""

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        return _AsAsked(super().make_events_app(manager, signer))


PLANTED = (
    planted_by(StreamOfFirstUser, "wrong-stream"),
    planted_by(NeighboursRun, "wrong-run"),
    planted_by(RunOfFirstEvent, "wrong-run"),
    planted_by(ThreadLeftToDefault, "wrong-thread"),
    planted_by(AgentNamedByType, "wrong-agent"),
    planted_by(UserToldTwice, "repeated-name"),
    planted_by(RequestDefaulted, "repeated-name"),
    planted_by(RegionInStarts, "extra-field"),
    planted_by(TraceInEnvelope, "extra-field"),
    planted_by(GreetsFromZero, "gap-in-seq"),
    planted_by(GreetsAsAsked, "wrong-stream"),
)
