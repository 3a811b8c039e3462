"""Defects of the envelope of an event, and of names in it that no agent gave; in process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakSet

from lab_utils.target import Delivered
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Bridge, Client, Context, Dispatcher, Origin, ReferenceTarget, Session

__all__ = ["PLANTED"]


class OneStreamForAll(Bridge):
    """The stream is named for the server, which once had one user."""

    def __init__(self, user: str, clients: WeakSet[Client]) -> None:
        super().__init__(user, clients)
        self.stream = "events"


class RunOfSession(Bridge):
    """The id of the first run of a session is kept for logs, and put into every event that follows."""

    run = ""

    def emit(self, kind: str, payload: Mapping[str, Any], origin: Origin) -> None:
        self.run = self.run or origin.run
        super().emit(kind, payload, replace(origin, run=self.run))


class ThreadOfSession(Bridge):
    """A session's thread is the one that was opened first; agents in others speak under its name."""

    thread = ""

    def emit(self, kind: str, payload: Mapping[str, Any], origin: Origin) -> None:
        self.thread = self.thread or origin.thread
        super().emit(kind, payload, replace(origin, thread=self.thread))


class LastAgentsName(ReferenceTarget):
    """The speaker is read from a field of the target that each new agent of any user sets."""

    last = ""

    def make_agent(self, recipe: Any, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        target = self

        class Misnamed(Agent):
            def origin(self, run: str) -> Origin:
                return replace(super().origin(run), agent_id=target.last)

        agent = Misnamed(recipe, context, dispatcher, session)
        self.last = agent.agent_id
        return agent


class SpeakerOfTheRequest(Bridge):
    """The speaker is looked up by the run's id: of two agents that work on one request, the first."""

    def __init__(self, user: str, clients: WeakSet[Client]) -> None:
        super().__init__(user, clients)
        self.speakers: dict[str, Origin] = {}

    def emit(self, kind: str, payload: Mapping[str, Any], origin: Origin) -> None:
        super().emit(kind, payload, self.speakers.setdefault(origin.run, origin))


class HostInCompletions(Bridge):
    """The name of the machine is added to agent_completed for the support, and is sent to the clients with it."""

    def emit(self, kind: str, payload: Mapping[str, Any], origin: Origin) -> None:
        if kind == "agent_completed":
            payload = {**payload, "host": "worker-3.internal"}
        super().emit(kind, payload, origin)


class RequestToldTwice(Bridge):
    """A field is written before a payload that may have it already: the log shows one value, the browser another."""

    def send(self, event: Delivered) -> None:
        if event.type == "agent_started":
            event = replace(event, body='{"request": "redacted", ' + event.body[1:])
        super().send(event)


class _Restarting(Dispatcher):
    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        def numbered(event: str, payload: Mapping[str, Any]) -> None:
            emit(event, {**payload, "call": 1})

        return await super().call(name, parameters, numbered)


class CallsRestart(ReferenceTarget):
    """Tool calls are counted in a variable of the call, so each has number one."""

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        return _Restarting(context, self.rows.get(context.user, ()), bridge)


PLANTED = (
    planted_by(OneStreamForAll, "wrong-stream"),
    planted_by(RunOfSession, "wrong-run"),
    planted_by(ThreadOfSession, "wrong-thread"),
    planted_by(LastAgentsName, "wrong-agent"),
    planted_by(SpeakerOfTheRequest, "wrong-agent"),
    planted_by(HostInCompletions, "extra-field"),
    planted_by(RequestToldTwice, "repeated-name"),
    planted_by(CallsRestart, "altered-payload"),
)
