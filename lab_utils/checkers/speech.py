"""What an agent of the lab says when it is given a command: the events that its run must emit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Said", "said_by"]

_TOLD: Mapping[str, tuple[str, ...]] = {
    "agent_started": ("request",),
    "tool_executing": ("tool",),
    "tool_completed": ("tool", "status"),
    "agent_completed": (),
    "agent_error": ("error", "message"),
}
"""What of a payload the lab knows beforehand. The payload of any other type, agent_thinking first, is known whole."""


@dataclass(frozen=True, slots=True)
class Said:
    """An event that an agent emitted: the agent's type, the event's, and what is known of its payload, as JSON text."""

    agent: str
    type: str
    told: str

    @classmethod
    def of(cls, agent: str, kind: str, payload: Any) -> Said:
        """Two are equal exactly if nothing that the lab knows of them differs."""
        if kind in _TOLD and isinstance(payload, dict):
            payload = {name: payload.get(name) for name in _TOLD[kind]}
        return cls(agent, kind, json.dumps(payload, sort_keys=True))

    def __str__(self) -> str:
        told = self.told if len(self.told) <= 160 else f"{self.told[:130]}... ({len(self.told)} characters)"
        return f"{self.agent}: {self.type} {told}"


def said_by(agent: str, action: str, arguments: Mapping[str, Any]) -> tuple[Said, ...]:
    """What one run of a command of the lab (`target.Command`) emits, in order."""
    started: tuple[str, Any] = ("agent_started", {"request": action})
    ended: tuple[str, Any] = ("agent_completed", {})
    between: list[tuple[str, Any]] = []
    if action == "think":
        between = [("agent_thinking", {"thought": thought}) for thought in arguments["thoughts"]]
    elif action == "tool":
        tool = {"tool": arguments["name"]}
        between = [("tool_executing", tool), ("tool_completed", {**tool, "status": "ok"})]
    elif action == "fail":
        ended = ("agent_error", {"error": "RuntimeError", "message": arguments["message"]})
    return tuple(Said.of(agent, kind, payload) for kind, payload in (started, *between, ended))
