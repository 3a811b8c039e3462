"""Makes one agent with its own context, dispatcher and handle, and refuses the mistakes of a foreign factory."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import CoroutineType
from typing import Final

from registry._sessions.shared import Runtime
from registry.agent import AgentFactory, AgentScope, BaseAgent, make_scope
from registry.context import UserExecutionContext
from registry.errors import Containment, ContextBoundaryError, InvalidAgent, a_type, shown
from registry.events.types import EventBridge
from registry.lease import Lifetime, SessionLifetime
from registry.tools import Dispatcher, ToolDispatcher

__all__ = ["build_agent"]

_MAKING: Final = Containment("a factory")


def _nothing() -> None:
    """For callers that do not need the call."""


async def build_agent(
    agent_type: str,
    factory: AgentFactory,
    context: UserExecutionContext,
    session_life: SessionLifetime,
    runtime: Runtime,
    bridge: EventBridge | None = None,
    begin_waiting: Callable[[], None] = _nothing,
) -> BaseAgent:
    """Return a new agent that nobody else holds. If anything fails, everything handed out for the agent is dead.

    `bridge`: the bridge for its dispatcher; None: the session's. `begin_waiting` is called before anything is awaited:
    most agents are made without an await.
    """
    life = Lifetime(agent_type, session_life)
    try:
        child = context._child(agent_type, life)
        make_dispatcher = runtime.make_dispatcher
        if make_dispatcher is ToolDispatcher:
            # It gets the session's bridge from the context when it has something to emit.
            tools: Dispatcher = ToolDispatcher(child, bridge)
        else:
            made = make_dispatcher(child, session_life.bridge if bridge is None else bridge)
            if type(made) is CoroutineType or inspect.isawaitable(made):
                begin_waiting()
                made = await made
            if type(made) is not ToolDispatcher or made.user_context is not child:
                _check_dispatcher(made, child)
            tools = made
        handle = runtime.llm_manager.create_handle(child)
        _check_owner(handle, "LLM handle", child)
        scope = make_scope(child, tools, session_life, handle)
        agent = factory(scope)
        if not isinstance(agent, BaseAgent) and inspect.isawaitable(agent):
            begin_waiting()
            agent = await agent
        _check_agent(agent_type, agent, scope)
        agent._life = life
        agent._agent_type = agent_type
        return agent
    except BaseException:
        life.end()
        with _MAKING:
            raise


def _check_dispatcher(tools: object, child: UserExecutionContext) -> None:
    if not callable(getattr(tools, "execute_tool", None)):
        raise TypeError(f"the tool_dispatcher_factory returned {a_type(tools)} without execute_tool(name, parameters)")
    _check_owner(tools, "dispatcher", child)


def _check_owner(part: object, what: str, child: UserExecutionContext) -> None:
    owner = getattr(part, "user_context", None)
    if owner is None or owner is child:
        return
    user_id = getattr(owner, "user_id", None)
    if isinstance(user_id, str) and user_id != child.user_id:
        raise ContextBoundaryError(f"user {child.user_id!r} was given a {what} of user {shown(user_id)}")
    if isinstance(owner, UserExecutionContext) and owner._life is not None and owner._life is not child._life:
        raise ContextBoundaryError(
            f"user {child.user_id!r} was given a {what} that belongs to another agent; make a new one at every call"
        )


def _check_agent(agent_type: str, agent: object, scope: AgentScope) -> None:
    if not isinstance(agent, BaseAgent):
        raise InvalidAgent(
            f"the factory of {agent_type!r} returned {a_type(agent)}; return a BaseAgent made on the scope"
        )
    if getattr(agent, "scope", None) is not scope:
        raise InvalidAgent(
            f"the factory of {agent_type!r} returned an agent that was not made on the scope it was given; "
            "make a new agent at every call, or two callers share one"
        )
