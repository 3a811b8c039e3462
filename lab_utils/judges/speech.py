"""The events of the lab's agent: those that a run of a given command must emit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Ran", "Said", "said_by"]

_NUMBERED = ("tool_executing", "tool_completed")
"""Types whose payload may hold `call`, the number of the call in its agent, from 1."""
_in_json = json.JSONEncoder(sort_keys=True).encode


@dataclass(frozen=True, eq=False, slots=True)
class Ran:
    """One run as its caller knows it: the agent (by the lab's own name of the very object), and the ids that the run's
    events must bear; "" for one that the caller did not receive. Each is another, for any content."""

    agent: str
    run: str = ""
    thread: str = ""
    agent_id: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """An event that an agent emitted: the agent's type, the event's, and `body`, the payload as JSON text,
    its `call` apart.

    `ran`: in which run, None if that is not known. `call`: the number of a tool call, None if the target does not send
    it.
    """

    agent: str
    type: str
    body: str
    ran: Ran | None = field(default=None, compare=False, repr=False)
    call: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, agent: str, kind: str, payload: Any, ran: Ran | None = None) -> Said:
        """Two are equal exactly if nothing differs but the run and the number of a tool call, which not every target
        sends."""
        call = None
        if kind in _NUMBERED and isinstance(payload, dict) and type(payload.get("call")) is int:
            call = payload["call"]
            payload = {name: value for name, value in payload.items() if name != "call"}
        return cls(agent, kind, _in_json(payload), ran, call)

    def fields_beside(self, other: Said) -> tuple[str, ...]:
        """The names that this payload holds beside all that the other one does, if that is all that differs."""
        own, others = json.loads(self.body), json.loads(other.body)
        if not isinstance(own, dict) or not isinstance(others, dict):
            return ()
        kept = {name: value for name, value in own.items() if name in others}
        # As text: to Python 1 is True.
        same = _in_json(kept) == other.body
        return tuple(sorted(own.keys() - others.keys())) if same else ()

    def __str__(self) -> str:
        body = self.body if len(self.body) <= 160 else f"{self.body[:130]}... ({len(self.body)} characters)"
        return f"{self.agent}: {self.type} {body}"


def said_by(
    agent: str, action: str, arguments: Mapping[str, Any], ran: Ran | None = None, call: int = 1
) -> tuple[Said, ...]:
    """The events that one run of a command of the lab (`target.Command`) emits, in order. `call`: the number of its
    tool call."""
    started: tuple[str, Any] = ("agent_started", {"request": action})
    ended: tuple[str, Any] = ("agent_completed", {})
    between: list[tuple[str, Any]] = []
    if action == "think":
        between = [("agent_thinking", {"thought": thought}) for thought in arguments["thoughts"]]
    elif action == "tool":
        tool = {"tool": arguments["name"], "call": call}
        between = [("tool_executing", tool), ("tool_completed", {**tool, "status": "ok"})]
    elif action == "fail":
        ended = ("agent_error", {"error": "RuntimeError", "message": arguments["message"]})
    return tuple(Said.of(agent, kind, payload, ran) for kind, payload in (started, *between, ended))
