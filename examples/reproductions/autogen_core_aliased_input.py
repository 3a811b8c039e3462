"""Changes what an agent of autogen-core keeps through the message that was sent."""

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
        self.notes = message.texts
        return Note(list(self.notes))


async def main():
    runtime = SingleThreadedAgentRuntime()
    await Keeper.register(runtime, "keeper", lambda: Keeper("a keeper"))
    runtime.start()
    ada = AgentId("keeper", "ada")
    sent = Note(["mine"])
    await runtime.send_message(sent, ada)
    sent.texts.append("changed by the sender afterwards")
    kept = (await runtime.try_get_underlying_agent_instance(ada, Keeper)).notes
    print(f"After the sender had changed its own message, the agent of autogen-core kept {kept}.")
    raise SystemExit(kept == ["mine"])


asyncio.run(main())
