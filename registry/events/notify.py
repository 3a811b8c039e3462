"""Adapts an object with one method for each event (`notify_agent_started`, `notify_tool_executing`, ...) to a bridge.

    registry.create_agent_for_user(user, "triage", context, manager := NotifyManager(notified))

`notified` is such an object, or a function of a user's context that returns one, sync or async. Prefer the function:
one object for all users knows them all, and agents can reach it. The function's result is closed with the session, by
its `close()` or `aclose()`. Make one `NotifyManager` for the process.

A method is called with those of these arguments that it has parameters for, by name:

| parameter | value |
|---|---|
| `user_id`, `thread_id`, `run_id`, `agent_id` | where the event comes from |
| `agent_name`, `agent_type` | the agent's type |
| `thought`, `reasoning` | the thought of `agent_thinking` |
| `tool_name` | the tool of `tool_executing` and `tool_completed` |
| `error` | `Type: message` of `agent_error`, and of a call that failed |
| `payload`, `context`, `metadata`, `data`, `parameters`, `result`, `error_context` | the event's payload, a dict |

One that takes `**kwargs` and names no parameter is called with `user_id`, `run_id`, `agent_name` and `payload`, and
with `thought`, `tool_name` and `error` where there are such. An event that there is no method for is not sent.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from registry.context import UserExecutionContext
from registry.errors import a_type
from registry.events.types import EventBridge, EventType, Origin, encode_payload

__all__ = ["NotifyBridge", "NotifyManager"]

_PAYLOAD: Final = frozenset({"payload", "context", "metadata", "data", "parameters", "result", "error_context"})
_ALWAYS: Final = frozenset({"user_id", "thread_id", "run_id", "agent_id", "agent_name", "agent_type"}) | _PAYLOAD
_ALSO: Final = {
    EventType.AGENT_THINKING: frozenset({"thought", "reasoning"}),
    EventType.TOOL_EXECUTING: frozenset({"tool_name"}),
    EventType.TOOL_COMPLETED: frozenset({"tool_name", "error"}),
    EventType.AGENT_ERROR: frozenset({"error"}),
}
_TO_KWARGS: Final = frozenset({"user_id", "run_id", "agent_name", "payload", "thought", "tool_name", "error"})


class NotifyBridge:
    """A bridge of one user that calls methods; `close` is called when it is closed. Raises `TypeError` for an object
    that has none of the methods, and for a method that requires an argument that no event gives."""

    __slots__ = ("_calls", "_close", "user_id")

    def __init__(self, notified: object, user_id: str, close: Callable[[], object] | None = None) -> None:
        self.user_id = user_id
        self._close = close
        self._calls = {
            event_type: (method, _names(method, event_type)) for event_type, method in _methods(notified).items()
        }
        if not self._calls:
            known = ", ".join(f"notify_{event_type.value}" for event_type in EventType)
            raise TypeError(f"{a_type(notified)} has none of the methods {known}")

    def emit(self, event_type: EventType, payload: Mapping[str, object], origin: Origin) -> object:
        """Call the event's method; where it is async, the answer is to be awaited. Raises `EventPayloadError`."""
        text = encode_payload(event_type, payload)
        call = self._calls.get(event_type)
        if call is None:
            return None
        method, names = call
        error = f"{payload.get('error')}: {payload.get('message')}" if "error" in payload else ""
        values = {
            "user_id": self.user_id,
            "thread_id": origin.thread_id,
            "run_id": origin.run_id,
            "agent_id": origin.agent_id,
            "agent_name": origin.agent_type,
            "agent_type": origin.agent_type,
            "thought": payload.get("thought", ""),
            "reasoning": payload.get("thought", ""),
            "tool_name": payload.get("tool", ""),
            "error": error,
        }
        # A payload for each: a change by one reader changes nothing for another.
        return method(**{name: json.loads(text) if name in _PAYLOAD else values[name] for name in names})

    def close(self) -> object:
        """Close the object that was made for this user alone; if its close is async, await the result."""
        return None if self._close is None else self._close()

    def __repr__(self) -> str:
        return f"<NotifyBridge user={self.user_id!r} methods={len(self._calls)}>"


class NotifyManager:
    """Makes a `NotifyBridge` for each user. Raises `TypeError` as that does; for a function, when its answer does."""

    __slots__ = ("__weakref__", "_make", "_notified")

    def __init__(self, notified: object) -> None:
        self._notified = notified
        self._make = notified if callable(notified) and not _methods(notified) else None
        if self._make is None:
            NotifyBridge(notified, "")

    def create_bridge(self, user_context: UserExecutionContext) -> EventBridge | Awaitable[EventBridge]:
        """Return the bridge of the context's user."""
        if self._make is None:
            return NotifyBridge(self._notified, user_context.user_id)
        made = self._make(user_context)
        return _later(made, user_context.user_id) if inspect.isawaitable(made) else _own(made, user_context.user_id)


def _own(made: object, user_id: str) -> EventBridge:
    return NotifyBridge(made, user_id, getattr(made, "close", None) or getattr(made, "aclose", None))


async def _later(made: Awaitable[object], user_id: str) -> EventBridge:
    return _own(await made, user_id)


def _methods(notified: object) -> dict[EventType, Callable[..., object]]:
    found = {event_type: getattr(notified, f"notify_{event_type.value}", None) for event_type in EventType}
    return {event_type: method for event_type, method in found.items() if callable(method)}


def _names(method: Callable[..., object], event_type: EventType) -> frozenset[str]:
    """The arguments that a method is called with."""
    given = _ALWAYS | _ALSO.get(event_type, frozenset())
    parameters = inspect.signature(method).parameters.values()
    named = {each.name: each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    for name, each in named.items():
        if each.default is each.empty and (name not in given or each.kind is each.POSITIONAL_ONLY):
            raise TypeError(
                f"notify_{event_type.value} requires {name!r}; an event gives {', '.join(sorted(given))}, by name"
            )
    if not named and any(each.kind is each.VAR_KEYWORD for each in parameters):
        return given & _TO_KWARGS
    return given & {name for name, each in named.items() if each.kind is not each.POSITIONAL_ONLY}
