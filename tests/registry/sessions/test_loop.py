"""A registry belongs to one event loop: another loop or thread gets a clear error, never a corrupted map."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from registry import AgentRegistry, BaseAgent, RegistryClosed, SessionClosed, WebSocketManager, WrongEventLoop
from tests.registry.kit import context, registry_of


def in_a_thread(call: Callable[[], Any]) -> Any:
    """The result or error of the call in a thread of its own."""
    answers: list[Any] = []

    def work() -> None:
        try:
            answers.append(call())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    return answers[0]


def every_async_call(registry: AgentRegistry, session: Any, agent: Any) -> list[Callable[[], Any]]:
    return [
        lambda: registry.create_agent_for_user("ada", "helper", context()),
        lambda: registry.get_or_create_agent(context(), "helper"),
        lambda: registry.get_user_agent("ada", "helper"),
        lambda: registry.get_user_session("bob"),
        lambda: registry.remove_user_agent("ada", "helper"),
        lambda: registry.reset_user_agents("ada"),
        lambda: registry.cleanup_user_session("ada"),
        registry.monitor_all_users,
        registry.emergency_cleanup_all,
        registry.aclose,
        registry.__aenter__,
        registry.lifecycle.sweep,
        lambda: registry.lifecycle.trigger_cleanup("ada"),
        lambda: registry.lifecycle.monitor_memory_usage("ada"),
        lambda: registry.lifecycle.cleanup_agent_resources("ada", "helper"),
        lambda: session.get_agent("helper"),
        lambda: session.set_websocket_manager(WebSocketManager()),
        session.cleanup_all_agents,
        lambda: agent.run("x"),
        lambda: agent.think("x"),
    ]


def every_sync_call(registry: AgentRegistry, session: Any) -> list[Callable[[], Any]]:
    return [
        lambda: registry.register("late", BaseAgent),
        registry.list_agents,
        registry.get_registry_health,
        session.get_metrics,
        lambda: session.register_agent("x", None),
    ]


def test_a_second_asyncio_run_is_refused() -> None:
    registry = AgentRegistry()
    registry.register("helper", BaseAgent)

    async def first() -> Any:
        agent = await registry.create_agent_for_user("ada", "helper", context())
        return await registry.get_user_session("ada"), agent

    session, agent = asyncio.run(first())

    async def second() -> None:
        for call in every_async_call(registry, session, agent):
            with pytest.raises(WrongEventLoop, match="closed"):
                await call()
        for call in every_sync_call(registry, session):
            with pytest.raises(WrongEventLoop, match="closed"):
                call()

    asyncio.run(second())
    # Without a running loop the counts can still be read.
    assert registry.get_registry_health()["total_user_agents"] == 1
    with pytest.warns(ResourceWarning, match="was never closed"):
        registry.__del__()
    registry._guard.close()


async def test_a_closed_registry_refuses_everything_and_closes_again() -> None:
    registry = registry_of(helper=BaseAgent)
    agent = await registry.create_agent_for_user("ada", "helper", context())
    session = await registry.get_user_session("ada")
    assert (await registry.aclose())["status"] == "closed"
    refused = 0
    for call in every_async_call(registry, session, agent):
        if call == registry.aclose:
            continue
        with pytest.raises((RegistryClosed, SessionClosed)) as caught:
            await call()
        refused += caught.type is RegistryClosed and "make a new AgentRegistry" in str(caught.value)
    assert refused == 14, "all but the calls of the session and the agent"
    with pytest.raises(RegistryClosed):
        registry.register("late", BaseAgent)
    assert (await registry.cleanup())["status"] == "closed"
    assert registry.get_registry_health()["total_user_sessions"] == 0
    assert "closed" in repr(registry)


def test_the_loop_is_bound_at_the_first_call() -> None:
    registry = AgentRegistry()
    registry.register("helper", BaseAgent)
    in_a_thread(lambda: registry.register("other", BaseAgent))
    assert registry.list_agents() == ["helper", "other"]

    async def main() -> None:
        await registry.create_agent_for_user("ada", "helper", context())
        await registry.aclose()

    in_a_thread(lambda: asyncio.run(main()))

    async def later() -> None:
        with pytest.raises((WrongEventLoop, RegistryClosed)):
            await registry.get_user_session("ada")

    asyncio.run(later())


async def test_a_thread_without_a_loop_is_refused_while_the_registry_s_loop_runs() -> None:
    async with AgentRegistry() as registry:
        session = await registry.get_user_session("ada")
        for call in every_sync_call(registry, session):
            assert isinstance(in_a_thread(call), WrongEventLoop)
        assert registry.list_agents() == []
