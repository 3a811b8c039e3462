"""Tools over one user's usage records, and the dispatchers that give them these records."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from registry.context import UserExecutionContext
from registry.errors import RegistryError
from registry.events.types import EventBridge
from registry.tools import Tool, ToolContext, ToolDispatcher, check_owner
from registry.usage.database import UsageDatabase
from registry.usage.questions import QUESTIONS
from registry.usage.records import UsageSource

__all__ = [
    "USAGE_TOOLS",
    "OwningDispatcher",
    "UsageDispatcher",
    "UsageDispatcherFactory",
    "UsageToolContext",
    "usage_dispatcher_factory",
]


@dataclass(frozen=True, slots=True)
class UsageToolContext(ToolContext):
    """The arguments that a tool gets from a `UsageDispatcher`: also the records of its user, where there are any."""

    usage: UsageDatabase | None


class UsageDispatcher(ToolDispatcher):
    """A dispatcher whose tools get the records of its user. Raises `ContextBoundaryError` for another user's records,
    else as `ToolDispatcher`."""

    __slots__ = ("_usage",)

    def __init__(
        self,
        user_context: UserExecutionContext,
        bridge: EventBridge | None = None,
        tools: Iterable[Tool] = (),
        usage: UsageDatabase | None = None,
    ) -> None:
        super().__init__(user_context, bridge, tools)
        check_owner(user_context, usage)
        self._usage = usage

    def _tool_context(self) -> UsageToolContext:
        return UsageToolContext(self.user_context, self._usage)


class OwningDispatcher(UsageDispatcher):
    """A dispatcher whose records are its own, for a context that belongs to no session: its maker closes it."""

    __slots__ = ()

    def close(self) -> None:
        """Close the records; tools that need them then raise `SessionClosed`. Safe to call again."""
        if self._usage is not None:
            self._usage.close()


class UsageDispatcherFactory(Protocol):
    """A `DispatcherFactory` whose dispatchers have records; the bridge may be left out."""

    def __call__(
        self, user_context: UserExecutionContext, websocket_bridge: EventBridge | None = None
    ) -> Awaitable[UsageDispatcher]: ...


def usage_dispatcher_factory(source: UsageSource, *, tools: Iterable[Tool] = ()) -> UsageDispatcherFactory:
    """Return a `tool_dispatcher_factory` whose dispatchers have `USAGE_TOOLS`, and `tools`, over the user's records.

    The source is asked once a session, with the user id of the session's context, and all agents of the session share
    one `UsageDatabase`, closed when the session ends. For a context without a session every dispatcher has its own,
    to be closed with `OwningDispatcher.close()`. No dispatcher holds the source or this factory.
    """
    all_tools = (*USAGE_TOOLS, *tools)
    # A plain object: two factories in one session keep two databases, and nothing can be reached from the key.
    key = object()

    async def make_dispatcher(
        user_context: UserExecutionContext, websocket_bridge: EventBridge | None = None
    ) -> UsageDispatcher:
        def open_database() -> UsageDatabase:
            user_id = user_context.user_id
            return UsageDatabase(user_id, source.records_for(user_id))

        if not user_context.has_session:
            return OwningDispatcher(user_context, websocket_bridge, all_tools, open_database())
        usage = user_context.session_resource(key, open_database, UsageDatabase.close)
        return UsageDispatcher(user_context, websocket_bridge, all_tools, usage)

    return make_dispatcher


@dataclass(frozen=True, slots=True)
class _Asks:
    """Asks one question of the caller's records. Holds its name only: an object that all users share must not be
    changeable."""

    name: str

    def __call__(self, tool_context: ToolContext, parameters: dict[str, object]) -> object:
        usage = tool_context.usage if isinstance(tool_context, UsageToolContext) else None
        if usage is None:
            raise RegistryError(f"tool {self.name!r} needs usage records; pass usage= to the dispatcher")
        return QUESTIONS[self.name].ask(usage, parameters)


USAGE_TOOLS: Final = tuple(
    Tool(question.name, _Asks(question.name), question.requires, question.description)
    for question in QUESTIONS.values()
)
"""A tool for each of `registry.usage.questions.QUESTIONS`; its parameters and answers are described there."""
