"""A model for frameworks that keep conversations: it reads one and does the last command, as text.

The framework brings back the memory of the lab's agent: each answer names its notes, and the next run finds them in the
conversation. A framework's own model class calls `reply` with the texts that the framework gives to its model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lab_utils.target import Command, Recipe
from lab_utils.targets.lab_agent import obey

__all__ = ["answer_of", "key_of", "order_of", "reply"]


def key_of(*parts: str) -> str:
    """One text for several, of letters, digits and hyphens: no two lists of texts have the same."""
    return "-".join(part.encode("utf-8", "surrogatepass").hex() or "empty" for part in parts)


def order_of(user: str, command: Command) -> str:
    """The command as the text that the user sends."""
    return json.dumps({"user": user, "action": command.action, "arguments": dict(command.arguments)})


async def reply(recipe: Recipe, texts: Iterable[str]) -> str:
    """Carry out the last command of a conversation; `texts` are all messages of user and agent, oldest first."""
    said = [json.loads(text) for text in texts]
    order = said[-1]
    if recipe.on_run is not None:
        await recipe.on_run(order["user"])
    memory: dict[str, Any] = {}
    for one in said:
        memory.update(one.get("noted", {}))
    before = dict(memory)
    answer = await obey(order["action"], order["arguments"], memory)
    noted = {key: value for key, value in memory.items() if key not in before or before[key] != value}
    return json.dumps({"answer": answer, "noted": noted})


def answer_of(text: str) -> Any:
    """The answer to the command, from the text of `reply`."""
    return json.loads(text)["answer"]
