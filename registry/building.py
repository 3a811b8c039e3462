"""Makes one agent with its own context, dispatcher and handle, and refuses what a foreign factory gets wrong."""

from __future__ import annotations

import inspect
from types import CoroutineType
from typing import Any

from registry.agent import AgentFactory, AgentScope, BaseAgent, make_scope
from registry.context import UserExecutionContext
from registry.errors import ContextBoundaryError, InvalidAgent
from registry.lifetime import Lifetime, SessionLifetime
from registry.runtime import Runtime

__all__ = ["build_agent"]


async def build_agent(
    agent_type: str,
    factory: AgentFactory,
    context: UserExecutionContext,
    session_life: SessionLifetime,
    runtime: Runtime,
) -> BaseAgent:
    """Return a new agent that nobody else holds. If anything fails, what was handed out for it is dead."""
    life = Lifetime(f"agent {agent_type}", session_life)
    try:
        child = context._child(agent_type, life)
        tools = runtime.make_dispatcher(child, session_life.bridge)
        if type(tools) is CoroutineType or inspect.isawaitable(tools):
            tools = await tools
        _check_dispatcher(tools, child)
        handle = runtime.llm_manager.create_handle(child)
        scope = make_scope(child, tools, session_life, handle)
        agent: Any = factory(scope)
        if not isinstance(agent, BaseAgent) and inspect.isawaitable(agent):
            agent = await agent
        _check_agent(agent_type, agent, scope)
        agent._life = life
        agent._agent_type = agent_type
        return agent  # type: ignore[no-any-return]  # _check_agent saw that it is one.
    except BaseException:
        life.end()
        raise


def _check_dispatcher(tools: Any, child: UserExecutionContext) -> None:
    owner = getattr(tools, "user_context", child)
    if owner is not child and isinstance(owner, UserExecutionContext) and owner.user_id != child.user_id:
        raise ContextBoundaryError(
            f"the tool_dispatcher_factory gave user {child.user_id!r} a dispatcher of user {owner.user_id!r}"
        )


def _check_agent(agent_type: str, agent: Any, scope: AgentScope) -> None:
    if not isinstance(agent, BaseAgent):
        raise InvalidAgent(
            f"the factory of {agent_type!r} returned a {type(agent).__name__}; return a BaseAgent made on the scope"
        )
    if getattr(agent, "scope", None) is not scope:
        raise InvalidAgent(
            f"the factory of {agent_type!r} returned an agent that was not made on the scope it was given; "
            "make a new agent at every call, or two callers share one"
        )
