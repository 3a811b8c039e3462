"""Tools, and the dispatcher through which one user's agent calls them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from registry.context import UserExecutionContext
from registry.copying import copy_private
from registry.errors import (
    Containment,
    ContextBoundaryError,
    RegistryError,
    UnknownTool,
    a_type,
    described,
    shortened,
    shown,
)
from registry.events.types import EventBridge, EventType, send_event

__all__ = ["Dispatcher", "DispatcherFactory", "Tool", "ToolContext", "ToolDispatcher", "ToolResult", "check_owner"]

_log = logging.getLogger(__name__)
_TOOL: Final = Containment("a tool")


@dataclass(frozen=True, slots=True)
class ToolContext:
    """All that a tool gets beside its parameters: whose call it is. A dispatcher of another class may give more."""

    user_context: UserExecutionContext


@dataclass(frozen=True, slots=True)
class Tool:
    """A named function that agents may call. One object serves all users, so `run` must keep nothing between calls.

    `run(tool_context, parameters)` is sync or async; it gets a deep copy of the parameters, and its answer is copied
    deep before the agent sees it. `requires`: the permissions that the caller's context must have.
    """

    name: str
    run: Callable[[ToolContext, dict[str, object]], object]
    requires: frozenset[str] = frozenset()
    description: str = ""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a call. `output` is the caller's own copy."""

    tool: str
    output: Any


class Dispatcher(Protocol):
    """The dispatcher through which an agent calls tools. A `user_context`, where there is one, must be that of the
    agent that the dispatcher was made for."""

    async def execute_tool(self, name: str, parameters: Mapping[str, object] | None = None) -> ToolResult:
        """Run a tool in the name of the agent's user."""
        ...


DispatcherFactory = Callable[[UserExecutionContext, EventBridge], Dispatcher | Awaitable[Dispatcher]]
"""Makes the dispatcher of one agent, a new one at every call, sync or async; gets its context and its user's bridge."""


class ToolDispatcher:
    """Runs tools for one agent of one user; the only way from that agent to them.

    Guarantees: the dispatcher decides for which user a tool works, and no parameter changes that. Permissions are
    checked at every call. Nothing mutable is shared between caller and tool. No reference leads from a dispatcher to
    another user's objects. Each call that a tool was found and allowed for emits `tool_executing` and then
    `tool_completed`. Their payloads hold `tool` and `call` (numbered from 1 in this dispatcher), the second also
    `status`: "ok", "error" or "cancelled", the last two with `error` (its type) and `message` (its text, at most 2,000
    characters and a note). Calls may overlap.

    Events go to the bridge that the session has at the time; for a context without a session to the one given here,
    where None means no events. Raises `ContextBoundaryError` for another user's bridge, and `ValueError` for two tools
    of one name.
    """

    __slots__ = ("__weakref__", "_bridge", "_calls", "_tools", "user_context")

    def __init__(
        self, user_context: UserExecutionContext, bridge: EventBridge | None = None, tools: Iterable[Tool] = ()
    ) -> None:
        self.user_context = user_context
        if bridge is not None:
            check_owner(user_context, bridge)
        self._bridge = bridge
        # A tuple: small, and the same one may be shared by all users, for nobody can change it.
        self._tools = tuple(tools)
        if self._tools and len({tool.name for tool in self._tools}) != len(self._tools):
            raise ValueError(f"two tools have the same name: {shortened(', '.join(tool.name for tool in self._tools))}")
        self._calls = 0

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of the tools, in the order in which they were given."""
        return tuple(tool.name for tool in self._tools)

    async def execute_tool(self, name: str, parameters: Mapping[str, object] | None = None) -> ToolResult:
        """Run a tool and return its answer. An error of the tool is raised, after `tool_completed` was emitted with it.

        Raises `SessionClosed` once the session has ended, also when it ended during the call; before anything is
        emitted `UnknownTool`, `PermissionDenied`, `TypeError` for parameters that are not a mapping, and
        `UncopyableValue`.
        """
        context = self.user_context
        context.require_usable()
        tool = next((tool for tool in self._tools if tool.name == name), None)
        if tool is None:
            raise UnknownTool(name, self.tool_names)
        context.require_permission(tool.requires, f"tool {name!r}")
        if parameters is None:
            parameters = {}
        elif not isinstance(parameters, Mapping):
            raise TypeError(f"the parameters of tool {name!r} are {a_type(parameters)}; pass a mapping")
        strict = context.isolation_level == "strict"
        private = copy_private(dict(parameters), strict=strict, where="parameters", bounds=context._bounds)
        self._calls += 1
        call = {"tool": name, "call": self._calls}
        await self._emit(EventType.TOOL_EXECUTING, call)
        try:
            with _TOOL:
                answer = tool.run(self._tool_context(), private)
                if inspect.isawaitable(answer):
                    answer = await answer
            context.require_usable()
            where = f"the answer of tool {name!r}"
            output = copy_private(answer, strict=False, where=where, bounds=context._bounds)
        except BaseException as error:
            await self._report(call, error)
            raise
        await self._emit(EventType.TOOL_COMPLETED, {**call, "status": "ok"})
        return ToolResult(name, output)

    def _tool_context(self) -> ToolContext:
        """All that a tool gets beside its parameters, made at every call."""
        return ToolContext(self.user_context)

    async def _emit(self, event_type: EventType, payload: Mapping[str, object]) -> None:
        context = self.user_context
        if self._bridge is not None or context.has_session:
            await send_event(self._bridge, event_type, payload, context)

    async def _report(self, call: Mapping[str, object], error: BaseException) -> None:
        status = "error" if isinstance(error, Exception) else "cancelled"
        try:
            await self._emit(EventType.TOOL_COMPLETED, {**call, "status": status, **described(error)})
        except RegistryError as refusal:
            # The session or the run is over: no caller is left, and the tool's own error must not be hidden.
            _log.debug("%s of user %r was not reported: %s", call, self.user_context.user_id, refusal)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} user={self.user_context.user_id!r} tools={len(self._tools)} calls={self._calls}>"
        )


def check_owner(context: UserExecutionContext, owned: object) -> None:
    """Raise `ContextBoundaryError` for an object that names another user than the dispatcher's."""
    if owned is not None and getattr(owned, "user_id", context.user_id) != context.user_id:
        raise ContextBoundaryError(f"a dispatcher of user {context.user_id!r} was given {shown(owned)}")
