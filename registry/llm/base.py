"""Language models: the protocol of a model, and the per-user handle, which is all that an agent gets of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

from registry.context import UserExecutionContext
from registry.errors import a_type

__all__ = [
    "LLM",
    "Completion",
    "LLMHandle",
    "LLMManager",
    "Message",
    "ModelHandle",
    "ModelHandleSource",
    "Prompt",
    "Role",
    "ScriptedLLM",
]

Role = Literal["system", "user", "assistant"]
_ROLES: Final = get_args(Role)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation, in the form that chat models take."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise ValueError(f"role {self.role!r} is unknown; use one of {', '.join(_ROLES)}")
        if not isinstance(self.content, str):
            raise TypeError(f"the content of a {self.role} message is {a_type(self.content)}; pass a str")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The whole input of a model: messages, oldest first. Two equal prompts are the same question."""

    messages: tuple[Message, ...]

    def __post_init__(self) -> None:
        messages = tuple(self.messages)
        if not messages:
            raise ValueError("a prompt without messages asks nothing; pass at least one Message")
        for message in messages:
            if not isinstance(message, Message):
                raise TypeError(f"a prompt's messages are Message values, not {type(message).__name__}")
        object.__setattr__(self, "messages", messages)

    @classmethod
    def of(cls, user: str, *, system: str = "") -> Prompt:
        """A prompt of one user message, after one system message if there is one."""
        head = (Message("system", system),) if system else ()
        return cls((*head, Message("user", user)))

    @property
    def text(self) -> str:
        """The contents of all messages, one after another."""
        return "\n".join(message.content for message in self.messages)


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer: `text`, the `model` that wrote it, and the token counts of the prompt and the text."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    model: str = ""


class LLM(Protocol):
    """A language model. One object serves all users, so it must keep nothing of a prompt beyond its answer.

    A model that must know the user of a call, to be fair between users say, also has a method `for_user(user_id)`:
    handles then call `complete` on its result, asked for anew at each call.
    """

    async def complete(self, prompt: Prompt) -> Completion:
        """Answer the prompt. Errors are raised to the agent that asked."""
        ...


class ModelHandle(Protocol):
    """One agent's way to a model, which leads to nobody else's. A `user_context`, where there is one, must be that of
    the agent that the handle was made for."""

    async def complete(self, prompt: Prompt) -> Completion:
        """Answer the prompt in the name of the agent's user."""
        ...


class ModelHandleSource(Protocol):
    """Makes a new handle for every agent; keeps none of them. `LLMManager` is one."""

    def create_handle(self, user_context: UserExecutionContext) -> ModelHandle: ...


class ScriptedLLM:
    """A model without a model: it puts the figures that it finds in the prompt into sentences.

    Guarantees: the same prompt always gives the same completion; nothing is kept between calls, so one object serves
    all users; every figure of the answer stands in the prompt. Figures are lines `- name: value` of user messages,
    the line before them is their heading. A prompt without such lines is acknowledged by quoting its last user message.
    Tokens are counted as words between white space.
    """

    __slots__ = ()

    model: Final = "scripted"

    async def complete(self, prompt: Prompt) -> Completion:
        asked = [message.content for message in prompt.messages if message.role == "user"]
        text = " ".join(sentence for content in asked for sentence in _sentences(content))
        if not text:
            text = _quote(asked[-1] if asked else prompt.messages[-1].content)
        return Completion(text, len(prompt.text.split()), len(text.split()), self.model)


_FIGURE: Final = re.compile(r"- (?P<name>.+?): (?P<value>.+)")
_QUOTED: Final = 200  # Characters of a request that are repeated to its author.


def _sentences(content: str) -> list[str]:
    """One sentence for each heading of figures, in the order of the text."""
    found: list[str] = []
    heading = ""
    clauses: list[str] = []
    for line in [*content.split("\n"), ""]:
        if match := _FIGURE.fullmatch(line.strip()):
            clauses.append(f"{match['name'].strip()} is {match['value'].strip()}")
            continue
        if clauses:
            start = f"{heading}: " if heading else ""
            found.append(f"{start}{'; '.join(clauses)}.")
            clauses = []
        heading = line.strip().rstrip(":.")
    return found


def _quote(content: str) -> str:
    words = " ".join(content.split())
    return f'You asked: "{words if len(words) <= _QUOTED else words[: _QUOTED - 3] + "..."}"' if words else "Noted."


class LLMHandle:
    """One agent's way to the model: the model, which knows users by their ids at most, and the agent's own context.

    Once the session has ended every call raises `SessionClosed`, and an answer that arrives later is not delivered.
    `calls` counts the calls that were made, `tokens_in` and `tokens_out` the tokens of the answered ones.
    """

    __slots__ = ("__weakref__", "_context", "_llm", "calls", "tokens_in", "tokens_out")

    def __init__(self, llm: LLM, user_context: UserExecutionContext) -> None:
        self._llm = llm
        self._context = user_context
        self.calls = 0
        self.tokens_in = 0
        self.tokens_out = 0

    @property
    def user_context(self) -> UserExecutionContext:
        """The context of the agent that this handle was made for."""
        return self._context

    async def complete(self, prompt: Prompt) -> Completion:
        """Return the model's answer. Raises `SessionClosed`, `TypeError` for an argument that is not a prompt or an
        answer that is not a completion, and the model's own errors."""
        self._context.require_usable()
        if not isinstance(prompt, Prompt):
            raise TypeError(f"complete() takes a Prompt, not {a_type(prompt)}; Prompt.of(text) makes one")
        self.calls += 1
        # Nothing is bound to the user between calls: a model need keep nothing of a user who asks nothing.
        for_user = getattr(self._llm, "for_user", None)
        llm: LLM = self._llm if for_user is None else for_user(self._context.user_id)
        completion = await llm.complete(prompt)
        if not isinstance(completion, Completion):
            raise TypeError(f"{type(self._llm).__name__} answered with {a_type(completion)}, no Completion")
        self._context.require_usable()
        self.tokens_in += completion.tokens_in
        self.tokens_out += completion.tokens_out
        return completion

    def __repr__(self) -> str:
        return f"<LLMHandle user={self._context.user_id!r} calls={self.calls}>"


class LLMManager:
    """Makes one handle for each agent, all over one model; keeps no handle.

    A registry takes any object with this `create_handle(user_context)` in its place. Raises `TypeError` for an object
    without `complete(prompt)`, and for a class in the place of its object.
    """

    __slots__ = ("__weakref__", "_llm")

    def __init__(self, llm: LLM | None = None) -> None:
        if llm is not None:
            _check_model(llm)
        self._llm: LLM = ScriptedLLM() if llm is None else llm

    def create_handle(self, user_context: UserExecutionContext) -> LLMHandle:
        """Return a handle of the context's user. Raises `SessionClosed` for a context whose session has ended."""
        user_context.require_usable()
        return LLMHandle(self._llm, user_context)

    def __repr__(self) -> str:
        return f"<LLMManager {type(self._llm).__name__}>"


def _check_model(llm: object) -> None:
    if isinstance(llm, type):
        raise TypeError(f"LLMManager was given the class {llm.__name__}; pass an object of it, as {llm.__name__}(...)")
    # A model with `for_user` is only ever asked through the object that this returns.
    if not callable(getattr(llm, "complete", None)) and not hasattr(llm, "for_user"):
        hint = "; an AgentRegistry takes it as it is" if callable(getattr(llm, "create_handle", None)) else ""
        raise TypeError(f"LLMManager was given {a_type(llm)} without `async def complete(prompt)`{hint}")
    if not callable(getattr(llm, "for_user", _check_model)):
        raise TypeError(f"{type(llm).__name__}.for_user cannot be called; make it a method for_user(user_id)")
