"""Makes two agents of autogen-core for one AgentId, while its factory waits."""

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
        self.notes = [*self.notes, *message.texts]
        return Note(self.notes)


async def main():
    runtime = SingleThreadedAgentRuntime()
    made = []

    async def make():
        await asyncio.sleep(0.01)
        made.append(Keeper("a keeper"))
        return made[-1]

    await Keeper.register(runtime, "keeper", make)
    runtime.start()
    ada = AgentId("keeper", "ada")
    await asyncio.gather(*(runtime.send_message(Note([text]), ada) for text in ("one", "two")))
    print(f"Two first messages to one AgentId made {len(made)} agents with notes {[one.notes for one in made]}.")
    raise SystemExit(len(made) == 1)


asyncio.run(main())
