"""Defects of a model's prompts, of the user in whose name they go, and of its answers and failures."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import planted_by
from registry import Completion, LLMFailed, Message, Prompt

__all__ = ["PLANTED", "Asking", "Between"]


class Between:
    """Stands between all agents and the model, as a team's own module for its prompts does."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm

    def for_user(self, user_id: str) -> _Call:
        return _Call(self, user_id)

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        """Ask in this user's name."""
        llm = self.llm.for_user(user_id) if hasattr(self.llm, "for_user") else self.llm
        completion: Completion = await llm.complete(prompt)
        return completion


class _Call:
    def __init__(self, between: Between, user_id: str) -> None:
        self.between = between
        self.user_id = user_id

    async def complete(self, prompt: Prompt) -> Completion:
        return await self.between.ask(self.user_id, prompt)


class Asking(AgentRegistryTarget):
    """Its agents ask a model through a module of its own."""

    between: type[Between]

    def make_llm(self) -> Any:
        return self.between(super().make_llm())


class _OverHTTP(Asking):
    """Always asks over HTTP: the defect is in the messages."""

    llm_over = "http"

    def choose_model(self, over: str, plan: Any = None) -> str:
        return super().choose_model("http", plan)


class _Remembering(Between):
    """Sends the model the last prompts again, so that it can follow a conversation: everybody's."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.history: deque[Message] = deque(maxlen=4)

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        told = Prompt((*self.history, *prompt.messages))
        self.history.extend(message for message in prompt.messages if message.role == "user")
        return await super().ask(user_id, told)


class PromptHistoryShared(_OverHTTP):
    """The model's history of prompts is one list for all users."""

    between = _Remembering


class _Naming(Between):
    first = ""

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        self.first = self.first or user_id
        return await super().ask(self.first, prompt)


class FirstUsersName(_OverHTTP):
    """The client of the model is made for the first user, and asks in that user's name for all."""

    between = _Naming


class _Caching(Between):
    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.answers: dict[str, Completion] = {}

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        head = prompt.messages[-1].content[:40]
        if head not in self.answers:
            self.answers[head] = await super().ask(user_id, prompt)
        return self.answers[head]


class AnswersCachedByHead(_OverHTTP):
    """The model's answers are cached by the first 40 letters of the prompt."""

    between = _Caching


class _Retrying(Between):
    prompt: Prompt

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        self.prompt = prompt
        for _ in range(3):
            try:
                return await super().ask(user_id, self.prompt)
            except LLMFailed:
                await asyncio.sleep(0.001)
        return await super().ask(user_id, self.prompt)


class RetriesLastPrompt(_OverHTTP):
    """A call is tried again with the prompt that was sent last, by any user."""

    between = _Retrying
    llm_options: Mapping[str, Any] = MappingProxyType({"max_retries": 0})


class _Keeping(Between):
    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.unanswered: list[Message] = []

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        told = Prompt((*self.unanswered, *prompt.messages))
        self.unanswered.clear()
        try:
            return await super().ask(user_id, told)
        except LLMFailed:
            self.unanswered += [message for message in prompt.messages if message.role == "user"]
            raise


class FailedPromptKept(_OverHTTP):
    """The messages of a call that failed stay in the buffer, and go out with the next call of any user."""

    between = _Keeping


class _Tracing(Between):
    """Sends the prompt before along, so that who reads the provider's log can follow a conversation: everybody's."""

    previous = ""

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        if self.previous:
            self.llm._options = {"metadata": {"previous_prompt": self.previous[-512:]}}
        self.previous = prompt.text
        return await super().ask(user_id, prompt)


class PreviousPromptInMetadata(_OverHTTP):
    """A call carries the previous call's prompt, of any user, in a field beside the messages."""

    between = _Tracing


class _Hiding(Between):
    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        try:
            return await super().ask(user_id, prompt)
        except LLMFailed:
            return Completion("")


class FailureAnswersNothing(_OverHTTP):
    """A failed call answers with an empty text, and the run goes on as if it had succeeded."""

    between = _Hiding


class _Hasty(Between):
    """Speaks with the endpoint by the client library's own stream."""

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        client: Any = self.llm._client.with_options(max_retries=3)
        asked = [{"role": message.role, "content": message.content} for message in prompt.messages]
        text = ""
        try:
            stream = await client.chat.completions.create(
                model=self.llm.model, messages=asked, stream=True, user=user_id
            )
            async with stream:
                async for chunk in stream:
                    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        except Exception as error:
            if not text:
                raise LLMFailed(str(error)) from None
        return Completion(text)


class PartTakenForWhole(_OverHTTP):
    """The part of an answer that arrived before it broke off is taken for the whole."""

    between = _Hasty


class _Guarded(Between):
    """Asks no more for half a minute, once twenty calls in a row have failed."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.failures: Counter[str] = Counter()
        self.opened_at = 0.0

    def circuit_of(self, user_id: str) -> str:
        """The name under which failures are counted."""
        return "the model"

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        circuit = self.circuit_of(user_id)
        if self.failures[circuit] >= 20 and time.monotonic() < self.opened_at + 30.0:
            raise LLMFailed("the model is asked again in half a minute")
        try:
            answer = await super().ask(user_id, prompt)
        except LLMFailed:
            self.failures[circuit] += 1
            self.opened_at = time.monotonic()
            raise
        del self.failures[circuit]
        return answer


class _GuardedRightly(_Guarded):
    def circuit_of(self, user_id: str) -> str:
        return user_id


class BreakerOfModel(Asking):
    """A circuit breaker before the model opens for everybody when one user's calls fail."""

    between = _Guarded


class BreakerOfModelForEach(Asking):
    """The same, for that user alone."""

    between = _GuardedRightly


class _FallingBack(Between):
    """Answers a question that has failed before with a fixed text."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.answers: dict[tuple[str, Prompt], Completion] = {}

    def asker_of(self, user_id: str) -> str:
        """The part of the key that names who asks."""
        return ""

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        key = (self.asker_of(user_id), prompt)
        if key in self.answers:
            return self.answers[key]
        try:
            return await super().ask(user_id, prompt)
        except LLMFailed:
            self.answers[key] = Completion("I cannot answer this at the moment.")
            raise


class _FallingBackForEach(_FallingBack):
    def asker_of(self, user_id: str) -> str:
        return user_id


class FallbackForAll(Asking):
    """Whoever asks a question that has failed for one user is answered with the fallback text."""

    between = _FallingBack


class FallbackForEach(Asking):
    """The same, for that user alone."""

    between = _FallingBackForEach


class _Closing(Between):
    """Closes its client when an answer breaks off, since nobody knows what is still on the way."""

    opens_again = False
    is_closed = False

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        if self.is_closed:
            raise LLMFailed("the client of the model has been closed")
        try:
            return await super().ask(user_id, prompt)
        except LLMFailed as error:
            self.is_closed = error.status is None and not self.opens_again
            raise


class _OpeningAgain(_Closing):
    opens_again = True


class ClientClosedForAll(Asking):
    """An answer that breaks off closes the client of the model, which serves all users, for good."""

    between = _Closing


class ClientOpenedAgain(Asking):
    """The same, which opens it again."""

    between = _OpeningAgain


class _AskingAgain(Between):
    """Asks again, once, where the model has failed, and in the name that it has noted."""

    noted = ""

    def name_for(self, user_id: str) -> str:
        """The name in which a question is asked again."""
        return self.noted

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        self.noted = user_id
        try:
            return await super().ask(user_id, prompt)
        except LLMFailed:
            return await super().ask(self.name_for(user_id), prompt)


class _AskingAgainForEach(_AskingAgain):
    def name_for(self, user_id: str) -> str:
        return user_id


class AskedAgainForTheLast(Asking):
    """A question that failed is asked again in the name of whoever has asked since."""

    between = _AskingAgain


class AskedAgainForEach(Asking):
    """The same, in the name of its own user."""

    between = _AskingAgainForEach


class _Queueing(Between):
    """Prompts wait in one line, and each call sends the first; one that failed goes back to its place."""

    keeps_failed = True

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.line: deque[tuple[str, Prompt]] = deque()

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        self.line.append((user_id, prompt))
        first = self.line.popleft()
        try:
            return await super().ask(*first)
        except LLMFailed:
            if self.keeps_failed:
                self.line.appendleft(first)
            raise


class _QueueingOnce(_Queueing):
    keeps_failed = False


class FailedPromptAnsweredToTheNext(Asking):
    """A prompt that failed is sent again by the next call, of any user, which returns the answer."""

    between = _Queueing


class FailedPromptTakenOut(Asking):
    """The same line, from which a prompt that failed is taken."""

    between = _QueueingOnce


class _NotAsking(Between):
    """Raises the last error again for half a minute, and spares the model the call."""

    raises_for_all = True

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.errors: dict[str, tuple[float, str]] = {}

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        key = "" if self.raises_for_all else user_id
        until, words = self.errors.get(key, (0.0, ""))
        if time.monotonic() < until:
            raise LLMFailed(words)
        try:
            return await super().ask(user_id, prompt)
        except LLMFailed as error:
            words = f"{error}, asked by {user_id!r}: {prompt.text}"
            self.errors[key] = (time.monotonic() + 30.0, words)
            raise LLMFailed(words) from None


class _NotAskingForEach(_NotAsking):
    raises_for_all = False


class LastErrorForAll(Asking):
    """For half a minute after a failed call everybody's calls raise the same error, with the prompt in its text."""

    between = _NotAsking


class LastErrorForEach(Asking):
    """The same, for that user alone."""

    between = _NotAskingForEach


class _TakingTurns(Between):
    """Asks one question at a time."""

    is_for_all = True

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        async with self.turns["" if self.is_for_all else user_id]:
            return await super().ask(user_id, prompt)


class _TakingTurnsForEach(_TakingTurns):
    is_for_all = False


class OneQuestionAtATime(Asking):
    """The model is asked one question at a time: while it is silent to one user, all others wait."""

    between = _TakingTurns


class OneQuestionOfEachUser(Asking):
    """The same, of each user."""

    between = _TakingTurnsForEach


PLANTED = (
    planted_by(PromptHistoryShared, "cross-user-prompt"),
    planted_by(FirstUsersName, "cross-user-prompt"),
    planted_by(RetriesLastPrompt, "cross-user-prompt"),
    planted_by(FailedPromptKept, "cross-user-prompt"),
    planted_by(PreviousPromptInMetadata, "cross-user-prompt"),
    planted_by(AnswersCachedByHead, "cross-user-data"),
    planted_by(FailureAnswersNothing, "failure-hidden"),
    planted_by(PartTakenForWhole, "differs-by-model"),
    planted_by(BreakerOfModel, "bystander-harmed", "interference", twin=BreakerOfModelForEach),
    planted_by(FallbackForAll, "interference", twin=FallbackForEach),
    planted_by(ClientClosedForAll, "bystander-harmed", "interference", twin=ClientOpenedAgain),
    planted_by(FailedPromptAnsweredToTheNext, "cross-user-data", twin=FailedPromptTakenOut),
    planted_by(LastErrorForAll, "canary-in-error", twin=LastErrorForEach),
    planted_by(OneQuestionAtATime, "waits-for-other", twin=OneQuestionOfEachUser),
    planted_by(AskedAgainForTheLast, "cross-user-prompt", twin=AskedAgainForEach),
)
