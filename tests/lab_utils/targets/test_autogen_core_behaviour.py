"""The behaviour of autogen-core 0.7.5 by itself, where the lab's findings about it end. The scripts in
`examples/reproductions/` show each finding again without the lab.

A test here that begins to fail after an upgrade is news about the framework, not a fault of the lab.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from autogen_core import AgentId, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, message_handler

ADA = AgentId("counter", "ada")


@dataclass
class Add:
    amount: int = 1


class Counter(RoutedAgent):
    """Reads its number, waits until it may go on, and writes the number."""

    def __init__(self, may_go_on: Callable[[], Awaitable[Any]]) -> None:
        super().__init__("A counter.")
        self.number = 0
        self._may_go_on = may_go_on

    @message_handler
    async def on_add(self, message: Add, ctx: MessageContext) -> Add:
        number = self.number
        await self._may_go_on()
        self.number = number + message.amount
        return Add(self.number)


async def at_once() -> None:
    return


async def counters(
    may_go_on: Callable[[], Awaitable[Any]] = at_once,
) -> tuple[SingleThreadedAgentRuntime, list[Counter]]:
    """A started runtime with counters, made by a factory that does not wait."""
    runtime, made = SingleThreadedAgentRuntime(), list[Counter]()

    def make() -> Counter:
        made.append(Counter(may_go_on))
        return made[-1]

    await Counter.register(runtime, "counter", make)
    runtime.start()
    return runtime, made


async def quiet() -> None:
    """Let everything run that can: no test here has a timer, so that a task that has not moved then never will."""
    for _ in range(200):
        await asyncio.sleep(0)


async def test_a_factory_that_does_not_await_makes_one_agent() -> None:
    runtime, made = await counters()
    answers = await asyncio.gather(*(runtime.send_message(Add(), ADA) for _ in range(2)))
    assert len(made) == 1
    assert sorted(answer.amount for answer in answers) == [1, 2]
    await runtime.close()


async def test_a_lookup_makes_the_agent() -> None:
    runtime, made = await counters()
    assert await runtime.get(ADA) == ADA
    assert made == []
    await runtime.try_get_underlying_agent_instance(ADA, Counter)
    assert len(made) == 1
    await runtime.close()


async def test_a_call_that_succeeds_is_freed_at_once() -> None:
    async def succeed(runtime: SingleThreadedAgentRuntime) -> weakref.ref[Add]:
        message = Add()
        await runtime.send_message(message, ADA)
        return weakref.ref(message)

    runtime, _ = await counters()
    gc.collect()
    gc.disable()
    try:
        kept = await succeed(runtime)
        await quiet()
        assert kept() is None
    finally:
        gc.enable()
    await runtime.close()


async def test_a_stop_when_idle_answers_who_is_being_served() -> None:
    go = asyncio.Event()
    runtime, _ = await counters(go.wait)
    caller = asyncio.ensure_future(runtime.send_message(Add(), ADA))
    await quiet()
    stopping = asyncio.ensure_future(runtime.stop_when_idle())
    await quiet()
    assert not stopping.done()
    go.set()
    await stopping
    assert (await caller).amount == 1


async def test_a_call_to_a_runtime_that_has_stopped_waits_for_ever() -> None:
    runtime, _ = await counters()
    await runtime.stop_when_idle()
    await runtime.close()
    caller = asyncio.ensure_future(runtime.send_message(Add(), ADA))
    await quiet()
    assert_waits(caller)


def assert_waits(caller: asyncio.Future[Any]) -> None:
    """Require that the caller waits although nothing else is left in the loop that could answer."""
    assert not caller.done()
    assert asyncio.all_tasks() == {caller, asyncio.current_task()}
    caller.cancel()
