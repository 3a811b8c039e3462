"""Loses one of two updates of one agent of autogen-core."""

import asyncio
from dataclasses import dataclass, field

from autogen_core import AgentId, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, message_handler


@dataclass
class Note:
    texts: list[str] = field(default_factory=list)


class Keeper(RoutedAgent):
    notes = ()

    @message_handler
    async def on_note(self, message: Note, ctx: MessageContext) -> Note:
        before = self.notes
        await asyncio.sleep(0.01)
        self.notes = [*before, *message.texts]
        return Note(self.notes)


async def main():
    runtime = SingleThreadedAgentRuntime()
    await Keeper.register(runtime, "keeper", lambda: Keeper("a keeper"))
    runtime.start()
    ada = AgentId("keeper", "ada")
    await asyncio.gather(*(runtime.send_message(Note([text]), ada) for text in ("one", "two")))
    last = await runtime.send_message(Note(), ada)
    print(f"After two messages at once the agent of autogen-core has the notes {last.texts}.")
    raise SystemExit(len(last.texts) == 2)


asyncio.run(main())
