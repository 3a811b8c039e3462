"""Which cleanups are run without a task: those whose code cannot give up the processor."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registry import AgentScope, BaseAgent
from registry._sessions.closing import cleanup_of
from tests.registry.kit import (
    Closable,
    Raising,
    Waiting,
    context,
)


def held(agent: BaseAgent) -> Any:
    """Whatever the agent holds."""
    return agent.scope.llm


class Quiet(BaseAgent):
    """Has nothing to give back."""


class Plain(BaseAgent):
    def cleanup(self) -> Any:
        """Not even a coroutine function."""


class For(BaseAgent):
    async def cleanup(self) -> None:
        async for _ in aiter(held(self)):
            pass


class With(BaseAgent):
    async def cleanup(self) -> None:
        async with held(self):
            pass


class InAComprehension(BaseAgent):
    async def cleanup(self) -> None:
        [item async for item in held(self)]


class Within(BaseAgent):
    """Defines a coroutine function, and does not run it."""

    async def cleanup(self) -> None:
        async def later() -> None:
            await asyncio.sleep(0)

        held(self).append(later)


@pytest.mark.parametrize(
    ("kind", "takes"),
    [
        (BaseAgent, "nothing"),
        (Quiet, "nothing"),
        (Closable, "at once"),
        (Raising, "at once"),
        (Within, "at once"),
        (Waiting, "may suspend"),
        (For, "may suspend"),
        (With, "may suspend"),
        (InAComprehension, "may suspend"),
        (Plain, "may suspend"),
    ],
)
def test_what_closing_takes_is_read_from_the_code(kind: type[BaseAgent], takes: str) -> None:
    agent = kind(AgentScope(context(), None, None, None))
    assert [cleanup_of(agent), cleanup_of(agent)] == [takes, takes]


def test_a_cleanup_put_in_the_place_of_a_method_may_suspend() -> None:
    async def nothing() -> None: ...

    agent = Closable(AgentScope(context(), None, None, None))
    agent.cleanup = nothing  # type: ignore[method-assign]
    assert cleanup_of(agent) == "may suspend"
