"""Never answers a message that autogen-core was handling when its runtime stopped."""

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
        await go_on.wait()
        return Note(message.texts)


go_on = asyncio.Event()


async def main():
    runtime = SingleThreadedAgentRuntime()
    await Keeper.register(runtime, "keeper", lambda: Keeper("a keeper"))
    runtime.start()
    ada = AgentId("keeper", "ada")
    caller = asyncio.create_task(runtime.send_message(Note(["mine"]), ada))
    await asyncio.sleep(0.1)
    await runtime.stop()
    go_on.set()
    done, _ = await asyncio.wait({caller}, timeout=2)
    print(f"Two seconds after its handler had ended, the sender of autogen-core has an answer: {bool(done)}.")
    raise SystemExit(bool(done))


asyncio.run(main())
