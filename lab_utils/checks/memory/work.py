"""The work of the users of the memory checks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import cycle as endlessly
from itertools import islice
from typing import Final

from lab_utils.checks.memory.leak_hunt import attempt
from lab_utils.target import Capability, Command, Handle
from lab_utils.trial import Client
from lab_utils.trial.faults import UNKNOWN_TOOL

__all__ = ["PAYLOAD", "kinds_of_work", "operate", "write_note"]

PAYLOAD: Final = 2_000
"""Characters in each note that is written."""


def write_note(user: str, number: int) -> Command:
    return Command("write", {"key": "note", "value": f"{user}/{number:06d}/".ljust(PAYLOAD, ".")})


def kinds_of_work(client: Client, handle: Handle, *, tools: bool = True) -> list[Callable[[int], Awaitable[object]]]:
    """One call of each kind that the target can do with an agent: writes, reads, failures, and tools and lookups."""
    work: list[Callable[[int], Awaitable[object]]] = [
        lambda number: client.run(handle, write_note(client.user, number)),
        lambda _: client.run(handle, Command("read", {"key": "note"})),
        lambda _: attempt(
            client, client.run(handle, Command("fail", {"message": "as it was asked to"})), may_fail=True
        ),
        lambda _: client.run(handle, Command("think", {"thoughts": ["one", "two"]})),
    ]
    if client.can(Capability.TOOLS):
        work.append(
            lambda _: attempt(client, client.run(handle, Command("tool", {"name": UNKNOWN_TOOL})), may_fail=True)
        )
    if client.can(Capability.LOOKUP):
        work.append(lambda _: client.get("helper"))
    if client.can(Capability.CONTEXT_DATA):
        work.append(lambda _: client.run(handle, Command("context")))
    if tools and client.can(Capability.TOOLS):
        work[2:2] = [
            lambda _: client.run(handle, Command("tool", {"name": "total", "parameters": {"column": "tokens_in"}})),
            lambda _: client.run(handle, Command("tool", {"name": "rows"})),
        ]
    return work


async def operate(
    client: Client,
    count: int,
    *,
    tools: bool = True,
    agent: Handle | None = None,
    see: Callable[[Handle], Awaitable[None]] | None = None,
) -> None:
    """So many operations on a new agent: its making, and each kind of work in turn.

    `agent`: one that is there, instead of a new one, with one operation less; `see` is shown the agent first."""
    handle = agent if agent is not None else await client.create("helper", data=client.nested("context"))
    if see is not None:
        await see(handle)
    work = kinds_of_work(client, handle, tools=tools)
    for number, one in enumerate(islice(endlessly(work), count - 1)):
        await one(number)
