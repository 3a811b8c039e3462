"""Carries out a command for every agent of the lab, in any registry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from lab_utils.target import Refusal, Refused

__all__ = ["Odd", "obey"]

Speak = Callable[[str], Awaitable[None]]
CallTool = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


async def _no_tool(name: str, parameters: Mapping[str, Any]) -> Any:
    raise Refused(Refusal.UNKNOWN_TOOL, f"no tool {name!r}: there are none")


async def _unheard(thought: str) -> None:
    pass


class Odd:
    """An answer that fails where it is copied, packed or printed: after the work."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __deepcopy__(self, _: object) -> NoReturn:
        self._refuse()

    def __reduce_ex__(self, _: object) -> NoReturn:
        self._refuse()

    def __repr__(self) -> str:
        if self.how != "copy":
            self._refuse()
        return "an odd answer"

    def _refuse(self) -> NoReturn:
        raise RuntimeError("the lab's answer cannot be copied, packed or put into words")


async def obey(
    action: str,
    arguments: Mapping[str, Any],
    memory: dict[str, Any],
    context_data: Mapping[str, Any] = MappingProxyType({}),
    call_tool: CallTool = _no_tool,
    think: Speak = _unheard,
) -> Any:
    """Carry out a `lab_utils.target.Command` on one agent's memory.

    Without `call_tool` every tool is refused as unknown; without `think` nobody is sent the thoughts.
    """
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
        case "odd":
            return Odd(arguments["how"])
    raise ValueError(f"unknown command {action!r}; see lab_utils.target.Command")
