"""For adapters of frameworks: an app's check of user ids, and a model that does a conversation's last command, as text.

The framework brings back the memory of the lab's agent: each answer names its notes, and the next run finds them in the
conversation. A framework's own model class calls `reply` with the texts that the framework gives to its model.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from typing import Any, Final

from lab_utils.target import Command, Recipe, Refusal, Refused
from lab_utils.targets.lab_agent import obey

__all__ = ["answer_of", "key_of", "known", "order_of", "reply"]

_LONGEST_ID: Final = 256


def known(user: object) -> str:
    """Return a user's id, as an app's login returns it, or refuse it: to a framework any text is an id, and None often
    means everybody."""
    # A subclass of str may lie about its equality.
    valid = type(user) is str and 0 < len(user) <= _LONGEST_ID and user == user.strip()
    # Control characters, and halves of characters, which no database or socket takes.
    if not valid or not isinstance(user, str) or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in user):
        raise Refused(Refusal.INVALID_USER, f"{user!r} is not a user id")
    return user


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
