"""Changes what an agent of autogen-core keeps through the answer that was received."""

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
        self.notes = list(message.texts)
        return Note(self.notes)


async def main():
    runtime = SingleThreadedAgentRuntime()
    await Keeper.register(runtime, "keeper", lambda: Keeper("a keeper"))
    runtime.start()
    ada = AgentId("keeper", "ada")
    answer = await runtime.send_message(Note(["mine"]), ada)
    answer.texts.append("changed by the receiver")
    kept = (await runtime.try_get_underlying_agent_instance(ada, Keeper)).notes
    print(f"After the receiver had changed its own answer, the agent of autogen-core kept {kept}.")
    raise SystemExit(kept == ["mine"])


asyncio.run(main())
