"""The events that agents emit, the run they are emitted in, and the methods that every bridge must have."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol, runtime_checkable

from registry.context import UserExecutionContext
from registry.errors import (
    Containment,
    EventPayloadError,
    RegistryError,
    RunFinished,
    UserCodeExited,
    message_of,
    shortened,
    stops,
)

__all__ = [
    "BridgeSource",
    "Event",
    "EventBridge",
    "EventType",
    "Origin",
    "encode_payload",
    "origin_json",
    "send_event",
]

_log = logging.getLogger(__name__)
_EMIT: Final = Containment("a bridge")
# json.dumps() would make an encoder for each event.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class EventType(StrEnum):
    """The kind of an event."""

    AGENT_STARTED = "agent_started"
    AGENT_THINKING = "agent_thinking"
    TOOL_EXECUTING = "tool_executing"
    TOOL_COMPLETED = "tool_completed"
    AGENT_COMPLETED = "agent_completed"
    AGENT_ERROR = "agent_error"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an event comes from."""

    thread_id: str
    run_id: str
    agent_type: str
    agent_id: str


@dataclass(frozen=True, slots=True)
class Event:
    """One event of one user.

    `seq` counts from 1 without a gap within `stream`, which names one life of the user's channel. The payload is kept
    encoded: every receiver decodes a copy of its own, and none can change another's.
    """

    stream: str
    seq: int
    type: EventType
    user_id: str
    origin: Origin
    payload_json: str

    @property
    def payload(self) -> dict[str, Any]:
        """The payload, decoded anew at every read."""
        decoded: dict[str, Any] = json.loads(self.payload_json)
        return decoded

    def to_json(self) -> str:
        """The event as one JSON object on one line, the form that crosses a socket; always the same for one event."""
        return self.to_json_with(origin_json(self.user_id, self.origin))

    def to_json_with(self, origin: str) -> str:
        """Likewise, where `origin_json` of the event's user and origin is at hand: a run has one for all its events."""
        return (
            f'{{"stream": "{self.stream}", "seq": {self.seq}, "type": "{self.type}", {origin}, '
            f'"payload": {self.payload_json}}}'
        )


def origin_json(user_id: str, origin: Origin) -> str:
    """The middle of an event's JSON object: the user, and where the event comes from."""
    middle = {
        "user_id": user_id,
        "thread_id": origin.thread_id,
        "run_id": origin.run_id,
        "agent_type": origin.agent_type,
        "agent_id": origin.agent_id,
    }
    return json.dumps(middle, ensure_ascii=False)[1:-1]


@runtime_checkable
class EventBridge(Protocol):
    """The methods that an agent calls on a bridge. `emit` may be sync or async. A `close()` or `aclose()`, where there
    is one, is called when the session ends; a `user_id`, where there is one, must be that of the session's user."""

    def emit(self, event_type: EventType, payload: Mapping[str, object], origin: Origin) -> object: ...


class BridgeSource(Protocol):
    """A websocket manager: makes the bridge of one user's session, a new one at every call, sync or async."""

    def create_bridge(self, user_context: UserExecutionContext) -> EventBridge | Awaitable[EventBridge]: ...


class Run:
    """One run of one agent; it lives in a context variable of the run's own task and of the tasks that it starts."""

    __slots__ = ("active", "agent_key", "origin", "outer")

    def __init__(self, origin: Origin, agent_key: int, outer: Run | None) -> None:
        self.origin = origin
        self.agent_key = agent_key  # id() of the agent: a reference would outlive it in left-over tasks.
        self.outer = outer
        self.active = True

    def is_within(self, agent_key: int) -> bool:
        """True if this run, or one that waits for it, is a run of that agent."""
        run: Run | None = self
        while run is not None:
            if run.active and run.agent_key == agent_key:
                return True
            run = run.outer
        return False


current_run: ContextVar[Run | None] = ContextVar("registry_current_run", default=None)


def active_run() -> Run | None:
    """The innermost run under way that this task belongs to; runs that are over are passed by, and so forgotten."""
    run = current_run.get()
    while run is not None and not run.active:
        run = run.outer
    return run


def encode_payload(event_type: EventType, payload: Mapping[str, object]) -> str:
    """Return the payload as JSON.

    Raises `EventPayloadError` for a value that JSON cannot hold, NaN, infinity and lone surrogates included.
    """
    try:
        text = _encode(payload if type(payload) is dict else dict(payload))
        if not text.isascii():
            # A lone surrogate is a str that no socket can carry.
            text.encode()
        return text
    except BaseException as error:
        # A mapping or number of somebody's own may raise anything.
        if stops(error):
            raise
        why = shortened(message_of(error), 2_000)
        raise EventPayloadError(f"payload of {event_type.value} is not JSON data: {why}") from error


async def send_event(
    bridge: EventBridge | None, event_type: EventType, payload: Mapping[str, object], context: UserExecutionContext
) -> None:
    """Emit over a bridge in the name of the current run, or of the context where nothing runs.

    Raises `RunFinished` for a task left over from a run that has ended, `SessionClosed` after the session's end, and
    `EventPayloadError`. Any other error of a bridge is logged and not raised, a `CancelledError` of its own included: a
    bridge that fails must not stop the work.
    """
    context.require_usable()
    run = current_run.get()
    if run is None:
        origin = Origin(context.thread_id, context.run_id, context.name, "")
    elif run.active:
        origin = run.origin
    else:
        raise RunFinished(f"run {run.origin.run_id!r} has ended; {event_type.value} cannot be emitted in its name")
    # A bridge that was set later serves also those who were made before it.
    current = context.current_bridge()
    if current is not None:
        bridge = current
    if bridge is None:
        return
    try:
        with _EMIT:
            answer = bridge.emit(event_type, payload, origin)
            if inspect.isawaitable(answer):
                await answer
    except UserCodeExited:
        _log.exception("bridge of user %r failed to emit %s", context.user_id, event_type.value)
    except RegistryError:
        raise
    except asyncio.CancelledError:
        if _is_cancelled():
            raise
        _log.exception("bridge of user %r failed to emit %s", context.user_id, event_type.value)
    except Exception:
        _log.exception("bridge of user %r failed to emit %s", context.user_id, event_type.value)


def _is_cancelled() -> bool:
    # A frame of its own: the task holds the exception, and the exception the frame that raised it, which must not hold
    # the task.
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
