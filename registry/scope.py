"""What an agent is given and what it answers: its scope (all that it may hold), its requests and its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from registry.context import UserExecutionContext
from registry.copying import copy_private
from registry.identity import check_id
from registry.lease import SessionLifetime

__all__ = ["AgentRequest", "AgentResult", "AgentScope", "ToolDispatcherLike", "make_scope", "private_request"]


class ToolDispatcherLike(Protocol):
    """What a dispatcher factory must return."""

    @property
    def user_context(self) -> UserExecutionContext: ...

    async def execute_tool(self, name: str, parameters: Mapping[str, Any]) -> Any: ...


class _ScopeFields:
    __slots__ = ("_events", "context", "llm", "tools")

    context: UserExecutionContext
    tools: Any
    llm: Any
    _events: Any


class AgentScope(_ScopeFields):
    """All that an agent may hold: `context`, `tools` (its dispatcher), `events` (its bridge), `llm` (its handle).

    Frozen. From none of the four does a chain of references lead to another user's objects or to the registry.
    """

    __slots__ = ()

    def __new__(cls, context: UserExecutionContext, tools: Any, events: Any, llm: Any) -> AgentScope:
        return make_scope(context, tools, events, llm)

    @property
    def events(self) -> Any:
        """The bridge of the user's session: the one that is set now, also for agents made before it was set."""
        source = self._events
        return source.bridge if type(source) is SessionLifetime else source

    def __setattr__(self, name: str, _: object) -> NoReturn:
        raise AttributeError(f"AgentScope is frozen: {name!r} cannot be set")

    def __repr__(self) -> str:
        return f"<AgentScope {self.context!r}>"


def make_scope(context: UserExecutionContext, tools: Any, events: Any, llm: Any) -> AgentScope:
    """Return a scope; `events` is a bridge, or the lifetime of the session whose bridge is to be used."""
    fields = _ScopeFields()
    fields.context = context
    fields.tools = tools
    fields.llm = llm
    fields._events = events
    fields.__class__ = AgentScope
    return fields  # type: ignore[return-value]  # It is one, by the line above.


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """What an agent is asked. `parameters` are copied deep before the agent sees them; `run_id` defaults to the
    context's."""

    text: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class AgentResult:
    """What a run gave. `output` was copied deep: changing it changes nothing inside the agent."""

    agent_type: str
    agent_id: str
    run_id: str
    output: Any


def private_request(request: object, context: UserExecutionContext) -> AgentRequest:
    """Return a request that shares nothing with what the caller holds. Raises `TypeError`, `UncopyableValue`,
    `InvalidIdentifier`."""
    if isinstance(request, str):
        return AgentRequest(request, {}, context.run_id)
    if not isinstance(request, AgentRequest):
        raise TypeError(f"run() takes a str or an AgentRequest, not a {type(request).__name__}")
    if not isinstance(request.parameters, Mapping):
        raise TypeError(f"the request's parameters are a {type(request.parameters).__name__}; pass a mapping")
    return AgentRequest(
        request.text,
        copy_private(dict(request.parameters), strict=context._strict, where="request.parameters"),
        context.run_id if request.run_id is None else check_id("run_id", request.run_id),
    )
