"""Writes the run of one user of agno into the session of another, whose next run reads it."""

import asyncio

from agno.agent import Agent
from agno.db.in_memory import InMemoryDb
from agno.models.base import Model
from agno.models.response import ModelResponse


class Scripted(Model):
    async def ainvoke(self, messages, *_, **__):
        return ModelResponse(role="assistant", content=" / ".join(str(message.content) for message in messages))

    invoke = invoke_stream = ainvoke_stream = _parse_provider_response = _parse_provider_response_delta = ainvoke


async def main():
    agent = Agent(model=Scripted(id="m"), db=InMemoryDb(), add_history_to_context=True, telemetry=False)
    await agent.arun("Ada's question", user_id="ada", session_id="chat-1")
    await agent.arun("Bob's secret", user_id="bob", session_id="chat-1")
    prompt = (await agent.arun("next", user_id="ada", session_id="chat-1")).content
    print(f"Bob named the session id of Ada, and the model of Ada's next run was sent {prompt!r}.")
    raise SystemExit("Bob's secret" not in prompt)


asyncio.run(main())
