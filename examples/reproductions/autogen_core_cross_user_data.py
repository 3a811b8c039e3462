"""Reaches another user's agent through the runtime that each agent of autogen-core holds."""

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
    await Keeper.register(runtime, "keeper", lambda: Keeper("a keeper"))
    runtime.start()
    ada = AgentId("keeper", "ada")
    await runtime.send_message(Note(["ada's secret"]), ada)
    bob = await runtime.try_get_underlying_agent_instance(AgentId("keeper", "bob"), Keeper)
    found = await bob.runtime.try_get_underlying_agent_instance(ada, Keeper)
    print(f"Bob's agent of autogen-core read {found.notes} through its own runtime.")
    raise SystemExit(found.notes != ["ada's secret"])


asyncio.run(main())
