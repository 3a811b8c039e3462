"""What every agent of the lab does with a command, whatever registry it lives in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

__all__ = ["obey"]

Speak = Callable[[str], Awaitable[None]]
CallTool = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


async def obey(
    action: str,
    arguments: Mapping[str, Any],
    memory: dict[str, Any],
    context_data: Mapping[str, Any],
    call_tool: CallTool,
    think: Speak,
) -> Any:
    """Do what `lab_utils.target.Command` describes, on one agent's memory."""
    match action:
        case "write":
            memory[arguments["key"]] = arguments["value"]
            return None
        case "read":
            return memory.get(arguments["key"])
        case "recall":
            return dict(memory)
        case "add":
            value = memory.get(arguments["key"], 0)
            # The very gap in which an unserialised registry loses updates.
            await asyncio.sleep(arguments["pause_s"])
            memory[arguments["key"]] = value + arguments["amount"]
            return memory[arguments["key"]]
        case "context":
            return dict(context_data)
        case "tool":
            return await call_tool(arguments["name"], arguments.get("parameters", {}))
        case "think":
            for thought in arguments["thoughts"]:
                await think(thought)
            return None
        case "fail":
            raise RuntimeError(arguments["message"])
        case "collect":
            return {"inputs": dict(arguments)}
    raise ValueError(f"unknown command {action!r}; see lab_utils.target.Command")
