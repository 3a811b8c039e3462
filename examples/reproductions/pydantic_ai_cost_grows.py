"""Deletes one conversation at a cost that grows with all others: InMemoryConversationStore of Pydantic AI."""

import asyncio
import time

from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import InMemoryConversationStore
from pydantic_ai.messages import ModelRequest


async def cost(others):
    store = InMemoryConversationStore()
    for number in range(others + 20):
        message = ModelRequest.user_text_prompt("hello")
        await store.save(Conversation(conversation_id=str(number), messages=[message]), scope=f"user-{number}")
    begun = time.process_time()
    for number in range(20):
        await store.delete(str(number), scope=f"user-{number}")
    return (time.process_time() - begun) / 20


async def main():
    few, many = await cost(100), await cost(10_000)
    print(f"Deleting one conversation took {few * 1e6:.0f} us beside 100 others and {many * 1e6:.0f} us beside 10,000.")
    raise SystemExit(many < 10 * few)


asyncio.run(main())
