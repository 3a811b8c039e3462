"""The behaviour of autogen-core 0.7.5 by itself: each finding of the lab about it, again in a few lines without the
lab.

A test here that begins to fail after an upgrade is news about the framework, not a fault of the lab.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from autogen_core import AgentId, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, message_handler

ADA, BOB = AgentId("counter", "ada"), AgentId("counter", "bob")


@dataclass
class Add:
    amount: int = 1
    note: list[str] = field(default_factory=list)


class Counter(RoutedAgent):
    """Reads its number, waits until it may go on, and writes the number."""

    def __init__(self, may_go_on: Callable[[], Awaitable[Any]]) -> None:
        super().__init__("A counter.")
        self.number = 0
        self.notes: list[list[str]] = []
        self.inside = 0
        self._may_go_on = may_go_on

    @message_handler
    async def on_add(self, message: Add, ctx: MessageContext) -> Add:
        number = self.number
        self.inside += 1
        await self._may_go_on()
        if message.amount < 0:
            raise ValueError("amounts are positive")
        self.number = number + message.amount
        self.notes.append(message.note)
        return Add(self.number, message.note)


async def at_once() -> None:
    return


async def counters(
    may_go_on: Callable[[], Awaitable[Any]] = at_once, in_factory: Callable[[], Awaitable[Any]] | None = None
) -> tuple[SingleThreadedAgentRuntime, list[Counter]]:
    """A started runtime with counters, made by a factory that waits for `in_factory` if it is given."""
    runtime, made = SingleThreadedAgentRuntime(), list[Counter]()

    def make() -> Counter:
        made.append(Counter(may_go_on))
        return made[-1]

    async def make_slowly() -> Counter:
        assert in_factory is not None
        await in_factory()
        return make()

    if in_factory is None:
        await Counter.register(runtime, "counter", make)
    else:
        await Counter.register(runtime, "counter", make_slowly)
    runtime.start()
    return runtime, made


async def quiet() -> None:
    """Let everything run that can: no test here has a timer, so that a task that has not moved then never will."""
    for _ in range(200):
        await asyncio.sleep(0)


@contextmanager
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_two_first_messages_at_once_make_two_agents_of_an_awaiting_factory() -> None:
    go = asyncio.Event()
    runtime, made = await counters(in_factory=go.wait)
    sent = [asyncio.ensure_future(runtime.send_message(Add(), ADA)) for _ in range(2)]
    await quiet()
    go.set()
    answers = [(await one).amount for one in sent]
    assert len(made) == 2
    # Each message went to an agent of its own, and one of the two agents is gone with its count.
    assert answers == [1, 1]
    await runtime.close()


async def test_a_factory_that_does_not_await_makes_one_agent() -> None:
    runtime, made = await counters()
    answers = await asyncio.gather(*(runtime.send_message(Add(), ADA) for _ in range(2)))
    assert len(made) == 1
    assert sorted(answer.amount for answer in answers) == [1, 2]
    await runtime.close()


async def test_messages_to_one_agent_are_handled_at_the_same_time() -> None:
    go = asyncio.Event()
    runtime, made = await counters(go.wait)
    sent = [asyncio.ensure_future(runtime.send_message(Add(), ADA)) for _ in range(3)]
    await quiet()
    assert made[0].inside == 3
    go.set()
    await asyncio.gather(*sent)
    assert made[0].number == 1
    await runtime.close()


async def test_keys_are_kept_apart() -> None:
    runtime, made = await counters()
    await runtime.send_message(Add(5), ADA)
    await runtime.send_message(Add(7), BOB)
    assert [(one.id.key, one.number) for one in made] == [("ada", 5), ("bob", 7)]
    await runtime.close()


async def test_a_message_and_an_answer_are_the_sender_s_own_objects() -> None:
    runtime, made = await counters()
    note = ["mine"]
    answer = await runtime.send_message(Add(note=note), ADA)
    note.append("changed by the sender afterwards")
    assert made[0].notes == [["mine", "changed by the sender afterwards"]]
    answer.note.append("changed by who was answered")
    assert made[0].notes[0][-1] == "changed by who was answered"
    await runtime.close()


async def test_an_agent_reaches_every_other_agent_through_its_runtime() -> None:
    runtime, made = await counters()
    await runtime.send_message(Add(5), ADA)
    await runtime.send_message(Add(7), BOB)
    assert await made[1].runtime.try_get_underlying_agent_instance(ADA, Counter) is made[0]
    await runtime.close()


async def test_a_lookup_makes_the_agent() -> None:
    runtime, made = await counters()
    assert await runtime.get(ADA) == ADA
    assert made == []
    await runtime.try_get_underlying_agent_instance(ADA, Counter)
    assert len(made) == 1
    await runtime.close()


async def test_an_agent_lives_as_long_as_its_runtime() -> None:
    runtime, made = await counters()
    await runtime.send_message(Add(), ADA)
    agent = weakref.ref(made.pop())
    gc.collect()
    assert agent() is not None
    await runtime.close()
    gc.collect()
    assert agent() is not None
    del runtime
    gc.collect()
    assert agent() is None


async def test_a_failed_call_is_freed_by_the_collector_alone() -> None:
    async def fail(runtime: SingleThreadedAgentRuntime) -> weakref.ref[Add]:
        message = Add(-1)
        try:
            await runtime.send_message(message, ADA)
        except ValueError:
            return weakref.ref(message)
        raise AssertionError("it did not fail")

    runtime, _ = await counters()
    with collector_off():
        kept = await fail(runtime)
        await quiet()
        assert kept() is not None
        gc.collect()
        assert kept() is None
    await runtime.close()


async def test_a_call_that_succeeds_is_freed_at_once() -> None:
    async def succeed(runtime: SingleThreadedAgentRuntime) -> weakref.ref[Add]:
        message = Add()
        await runtime.send_message(message, ADA)
        return weakref.ref(message)

    runtime, _ = await counters()
    with collector_off():
        kept = await succeed(runtime)
        await quiet()
        assert kept() is None
    await runtime.close()


async def test_a_caller_whose_message_is_queued_at_the_stop_waits_for_ever() -> None:
    runtime, made = await counters()
    caller = asyncio.ensure_future(runtime.send_message(Add(), ADA))
    await asyncio.sleep(0)
    assert runtime.unprocessed_messages_count == 1
    await runtime.stop()
    await quiet()
    assert made == []
    assert_waits(caller)


async def test_a_caller_whose_message_is_handled_at_the_stop_waits_for_ever() -> None:
    go = asyncio.Event()
    runtime, made = await counters(go.wait)
    caller = asyncio.ensure_future(runtime.send_message(Add(), ADA))
    await quiet()
    await runtime.stop()
    go.set()
    await quiet()
    assert made[0].number == 1
    assert_waits(caller)


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


async def test_a_handler_that_fails_after_its_sender_has_left_fails_the_task_of_the_runtime() -> None:
    go, unhandled = asyncio.Event(), list[str]()
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: unhandled.append(type(context.get("exception")).__name__)
    )
    runtime, _ = await counters(go.wait)
    sent = asyncio.ensure_future(runtime.send_message(Add(-1), ADA))
    await quiet()
    sent.cancel()
    go.set()
    await quiet()
    # The error is set on the future of a sender who has cancelled it.
    gc.collect()
    assert unhandled == ["InvalidStateError"]
    await runtime.close()
