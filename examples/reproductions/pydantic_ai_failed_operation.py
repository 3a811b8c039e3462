"""Refuses a user a conversation id of Pydantic AI that another user has in another scope."""

import asyncio

from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict, InMemoryConversationStore


async def main():
    store = InMemoryConversationStore()
    await store.save(Conversation(conversation_id="chat-1"), scope="ada")
    found = await store.load("chat-1", scope="bob")
    try:
        await store.save(Conversation(conversation_id="chat-1"), scope="bob")
        refused = False
    except ConversationConflict:
        refused = True
    print(f"Of an id of Ada's, Pydantic AI showed Bob {found}; that Bob's conversation was refused is {refused}.")
    raise SystemExit(not refused or found is not None)


asyncio.run(main())
