"""Leaves an error unhandled in autogen-core's own task, when a handler fails after its sender left."""

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
        raise ValueError("the handler failed")


go_on = asyncio.Event()


async def main():
    runtime = SingleThreadedAgentRuntime()
    await Keeper.register(runtime, "keeper", lambda: Keeper("a keeper"))
    runtime.start()
    ada = AgentId("keeper", "ada")
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(repr(context["exception"])))
    sender = asyncio.create_task(runtime.send_message(Note(), ada))
    await asyncio.sleep(0.1)
    sender.cancel()
    go_on.set()
    await asyncio.sleep(0.1)
    print(f"Nobody handled the error of autogen-core's task: {errors}.")
    raise SystemExit(not any("InvalidStateError" in error for error in errors))


asyncio.run(main())
