"""Leaves each message whose handler failed to the cyclic collector: SingleThreadedAgentRuntime of autogen-core."""

import asyncio
import gc
from contextlib import suppress
from dataclasses import dataclass

from autogen_core import AgentId, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, message_handler


@dataclass
class Note:
    text: str


class Keeper(RoutedAgent):
    @message_handler
    async def on_note(self, message: Note, ctx: MessageContext) -> Note:
        raise ValueError("the handler failed")


async def main():
    runtime = SingleThreadedAgentRuntime()
    await Keeper.register(runtime, "keeper", lambda: Keeper("a keeper"))
    runtime.start()
    gc.disable()
    for _ in range(100):
        with suppress(ValueError):
            await runtime.send_message(Note("hello"), AgentId("keeper", "ada"))
    await asyncio.sleep(0.1)
    left, _ = sum(type(one) is Note for one in gc.get_objects()), gc.collect()
    now = sum(type(one) is Note for one in gc.get_objects())
    print(f"Of 100 messages whose handler failed, {left} were left, and {now} after a collection.")
    raise SystemExit(left < 100 or now > 0)


asyncio.run(main())
