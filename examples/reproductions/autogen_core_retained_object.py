"""Keeps an agent of autogen-core for as long as its runtime: no call releases one."""

import asyncio
import gc
import weakref
from dataclasses import dataclass, field

from autogen_core import AgentId, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, message_handler


@dataclass
class Note:
    texts: list[str] = field(default_factory=list)


class Keeper(RoutedAgent):
    notes = ()

    @message_handler
    async def on_note(self, message: Note, ctx: MessageContext) -> Note:
        self.notes = [*self.notes, *message.texts]
        return Note(self.notes)


async def main():
    runtime = SingleThreadedAgentRuntime()
    await Keeper.register(runtime, "keeper", lambda: Keeper("a keeper"))
    runtime.start()
    ada = AgentId("keeper", "ada")
    await runtime.send_message(Note(["mine"]), ada)
    agent = weakref.ref(await runtime.try_get_underlying_agent_instance(ada, Keeper))
    await runtime.stop_when_idle()
    gc.collect()
    print(f"With no message and no reference left, the agent of autogen-core lives: {agent() is not None}.")
    raise SystemExit(agent() is None)


asyncio.run(main())
