"""The targets of Pydantic AI: conversations kept by its `InMemoryConversationStore`, the user as their scope.

A run is the three lines of the store's documentation: load the conversation, run the agent with it, save the result.
`scope` is the user in each call ("keep it to its owner"). The documentation asks the app to guard one thing, and the
target does: a `ConversationConflict` means that somebody else saved in between ("catch it, load the conversation again,
and retry"). Whatever a run did before its conflict is done again. These are no capabilities here, because the framework
does not have them: permissions, counts, a cleanup of agents.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

from pydantic_ai import Agent
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict, InMemoryConversationStore
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import UsageLimits

from lab_utils.target import BaseTarget, Capability, Command, EndReport, Handle, Recipe, Refusal, Refused
from lab_utils.targets.conversation import answer_of, key_of, known, order_of, reply

__all__ = ["PydanticAIClientIdsTarget", "PydanticAITarget"]

_MOST_RETRIES: Final = 100
# By default a conversation may make 50 requests in all, for its usage is carried from run to run.
_NO_LIMITS: Final = UsageLimits(request_limit=None)


def _scripted(recipe: Recipe) -> FunctionModel:
    """A model that does the last command of the conversation."""

    async def respond(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        parts = [part for message in messages for part in message.parts]
        said = [part.content for part in parts if isinstance(part, (UserPromptPart, TextPart))]
        return ModelResponse(parts=[TextPart(await reply(recipe, map(str, said)))])

    return FunctionModel(respond)


class PydanticAITarget(BaseTarget):
    """Pydantic AI with a conversation for each user, agent type and thread. Its id begins with the two last and is new
    for each conversation, so that the next one of a thread has another."""

    name = "pydantic_ai"
    also = frozenset({Capability.THREADS})

    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        self.store = InMemoryConversationStore()
        self.agents = {one.agent_type: Agent(_scripted(one), name=one.agent_type) for one in recipes}

    async def find(self, user: str, agent_type: str, thread: str) -> Conversation | None:
        """The conversation, as the store lists it: without its messages."""
        begins = key_of(agent_type, thread) + "."
        listed = (one.conversation_id for one in await self.store.list_conversations(scope=user))
        return next((Conversation(conversation_id=one) for one in listed if one.startswith(begins)), None)

    def begun(self, agent_type: str, thread: str) -> Conversation:
        return Conversation(conversation_id=f"{key_of(agent_type, thread)}.{Conversation().conversation_id}")

    def instance_of(self, conversation: Conversation) -> str:
        name: str = conversation.conversation_id
        return name

    def id_of(self, handle: Handle) -> str:
        return handle.instance

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        user = known(user)
        recipe, conversation = self.recipe(agent_type), await self.find(user, agent_type, thread)
        if conversation is None:
            if recipe.on_create is not None:
                await recipe.on_create(user)
            conversation = self.begun(agent_type, thread)
            try:
                await self.store.save(conversation, scope=user)
            except ConversationConflict as error:
                conversation = await self.store.load(conversation.conversation_id, scope=user)
                if conversation is None:
                    raise Refused(Refusal.CONFLICT, str(error)) from error
        # Nothing of a conversation is alive between two runs.
        return self.handle(user, agent_type, None, thread=thread, instance=self.instance_of(conversation))

    async def run(self, handle: Handle, command: Command) -> Any:
        agent, order, name = self.agents[handle.agent_type], order_of(handle.user, command), self.id_of(handle)
        for _ in range(_MOST_RETRIES):
            conversation = await self.store.load(name, scope=handle.user)
            if conversation is None:
                raise Refused(Refusal.CLOSED, f"the store has no conversation {name!r}")
            result = await agent.run(order, conversation=conversation, usage_limits=_NO_LIMITS)
            try:
                await self.store.save(result, scope=handle.user)
            except ConversationConflict:
                continue
            return answer_of(result.output)
        raise Refused(Refusal.CONFLICT, f"{name!r} was saved by others {_MOST_RETRIES} times")

    async def end(self, user: str) -> EndReport:
        user = known(user)
        found = await self.store.list_conversations(scope=user)
        for record in found:
            await self.store.delete(record.conversation_id, scope=user)
        return EndReport(bool(found), len(found))

    async def end_all(self) -> EndReport:
        found = await self.store.list_conversations()
        for record in found:
            await self.store.delete(record.conversation_id)
        return EndReport(bool(found), len(found))


class PydanticAIClientIdsTarget(PydanticAITarget):
    """The same where the client chooses the conversation id, as it may in a web app: the store is given it as it comes,
    and the user as its scope. A number in its first message distinguishes a conversation from the next one of its id.
    """

    name = "pydantic_ai_client_ids"

    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        self._numbers = itertools.count(1)

    async def find(self, user: str, agent_type: str, thread: str) -> Conversation | None:
        return await self.store.load(f"{agent_type}/{thread}", scope=user)

    def begun(self, agent_type: str, thread: str) -> Conversation:
        first = ModelRequest([SystemPromptPart(f"conversation {next(self._numbers)}")])
        return Conversation(messages=[first], conversation_id=f"{agent_type}/{thread}")

    def instance_of(self, conversation: Conversation) -> str:
        part = conversation.messages[0].parts[0]
        assert isinstance(part, SystemPromptPart)
        name: str = part.content
        return name

    def id_of(self, handle: Handle) -> str:
        return f"{handle.agent_type}/{handle.thread}"
