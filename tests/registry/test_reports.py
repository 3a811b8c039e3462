"""The registry's own reports, word for word: health and its issues, reports, logs, reprs, and the notes on failures."""

from __future__ import annotations

import asyncio
import logging

import pytest

from registry import AgentRegistry, BaseAgent, Limits, WebSocketManager
from tests.registry.kit import Clock, Closable, Gate, Raising, RaisingLate, busy, context, hanging, registry_of
from tests.running import turns

HEALTHY = {
    "status": "healthy",
    "issues": [],
    "uptime_seconds": 0.0,
    "total_user_sessions": 0,
    "total_user_agents": 0,
    "largest_user_agents": 0,
    "ending_sessions": 0,
    "abandoned_cleanups": 0,
    "registered_agent_types": 0,
    "max_users": None,
    "max_agents_per_user": 50,
}


def name(agent: BaseAgent) -> str:
    return f"{agent.agent_type} ({agent.agent_id})"


async def test_the_health_in_full() -> None:
    async with AgentRegistry(clock=(clock := Clock())) as registry:
        assert registry.get_registry_health() == HEALTHY
        clock.now += 90.5
        registry.register("helper", Closable)
        registry.register("other", hanging(gate := Gate()))
        for user, count in (("ada", 2), ("bob", 3)):
            for _ in range(count):
                await registry.create_agent_for_user(user, "helper", context(user))
        await registry.create_agent_for_user("eve", "other", context("eve"))
        ending = asyncio.create_task(registry.cleanup_user_session("eve"))
        await gate.reached()
        assert registry.get_registry_health() == HEALTHY | {
            "uptime_seconds": 90.5,
            "total_user_sessions": 2,
            "total_user_agents": 5,
            "largest_user_agents": 3,
            "ending_sessions": 1,
            "registered_agent_types": 2,
        }
        gate.open()
        await ending
        assert registry.get_registry_health()["ending_sessions"] == 0


def test_how_near_a_limit_is() -> None:
    level = AgentRegistry().lifecycle.level
    assert [level(held, 10) for held in (0, 8, 9, 10, 11)] == ["healthy", "healthy", "warning", "critical", "critical"]
    assert level(10**9, None) == "healthy"
    assert [level(held, 1) for held in (0, 1)] == ["healthy", "critical"]


async def test_who_has_no_session_is_told_so() -> None:
    async with AgentRegistry(clock=Clock()) as registry:
        nobody = {"status": "no_session", "user_id": "ada"}
        assert await registry.reset_user_agents("ada") == nobody | {"agents_reset": 0, "errors": []}
        assert await registry.cleanup_user_session("ada") == nobody | {"cleaned_agents": 0, "errors": []}
        assert await registry.lifecycle.trigger_cleanup("ada") == nobody | {"cleaned_agents": 0, "errors": []}
        assert await registry.lifecycle.monitor_memory_usage("ada") == nobody | {
            "total_agents": 0,
            "approximate_bytes": 0,
        }
        assert await registry.remove_user_agent("ada", "helper") is False
        assert await registry.lifecycle.cleanup_agent_resources("ada", "helper") is False
        assert await registry.monitor_all_users() == {
            "total_users": 0,
            "total_agents": 0,
            "approximate_bytes": 0,
            "near_limit": [],
            "users": {},
        }
        assert registry.get_registry_health() == HEALTHY


@pytest.mark.parametrize("kind", [Raising, RaisingLate])
@pytest.mark.parametrize("how", ["removed", "evicted"])
async def test_the_log_names_user_and_agent_where_no_report_is_given(
    caplog: pytest.LogCaptureFixture, kind: type[BaseAgent], how: str
) -> None:
    async with registry_of(raising=kind, limits=Limits(max_agents_per_user=1)) as registry:
        agent = await registry.create_agent_for_user("ada", "raising", context())
        if how == "removed":
            assert await registry.remove_user_agent("ada", "raising") is True
        else:
            await registry.create_agent_for_user("ada", "raising", context())
            await turns(5)
        assert [(record.name, record.levelno, record.getMessage()) for record in caplog.records] == [
            (
                "registry._sessions.closing",
                logging.WARNING,
                f"while closing for user 'ada': {name(agent)}: cleanup raised ValueError: the disk is on fire",
            )
        ]


async def test_resources_are_kept_by_their_keys_and_closed_newest_first_with_every_error() -> None:
    closed: list[str] = []

    def close(resource: str) -> None:
        closed.append(resource)
        raise OSError(f"no {resource}")

    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context())
        for key in ("db", "disk", "db"):
            assert agent.context.session_resource(key, key.upper, close) == key.upper()
        report = await registry.cleanup_user_session("ada")
        assert closed == ["DISK", "DB"]
        assert report["errors"] == [
            "while closing the session's resource 'disk': OSError: no DISK",
            "while closing the session's resource 'db': OSError: no DB",
        ]


async def test_reprs_count_and_show_no_data() -> None:
    registry = AgentRegistry()
    assert repr(registry) == "<AgentRegistry users=0 agents=0 types=0>"
    registry.register("helper", BaseAgent)
    given = context(run_id="run-7", agent_context={"secret": 1, "other": 2})
    shown = "user='ada' thread='main' run='run-7' values="
    assert repr(given) == f"<UserExecutionContext {shown}2>"
    assert repr(context(run_id="run-7")) == f"<UserExecutionContext {shown}0>"
    agent = await registry.create_agent_for_user("ada", "helper", given)
    session = await registry.get_user_session("ada")
    assert repr(registry) == "<AgentRegistry users=1 agents=1 types=1>"
    assert repr(session) == "<UserAgentSession user='ada' agents=1>"
    assert repr(agent.context) == f"<UserExecutionContext helper {shown}2>"
    assert repr(agent.scope) == f"<AgentScope <UserExecutionContext helper {shown}2>>"
    await registry.aclose()
    assert repr(registry) == "<AgentRegistry users=0 agents=0 types=1 closed>"
    assert repr(session) == "<UserAgentSession user='ada' agents=0 closed>"


async def test_the_registry_s_clock_is_nobody_s_memory() -> None:
    class Heavy(Clock):
        def __init__(self) -> None:
            super().__init__()
            self.ballast = b"x" * 1_000_000

    async with AgentRegistry(clock=Heavy()) as registry:
        await registry.get_user_session("ada")
        report = await registry.lifecycle.monitor_memory_usage("ada")
        assert report["status"] != "no_session"
        assert report["complete"] is True
        assert 0 < report["approximate_bytes"] < 100_000


async def test_what_users_hold_in_full() -> None:
    clock, gate = Clock(), Gate()
    async with registry_of(helper=busy(gate), limits=Limits(max_agents_per_user=1), clock=clock) as registry:
        data = context(agent_context={"data": ["x" * 100_000]})
        agent = await registry.create_agent_for_user("ada", "helper", data, WebSocketManager())
        await registry.get_user_session("bob")
        clock.now += 2
        running = asyncio.create_task(agent.run())
        await gate.reached()
        clock.now += 3
        one = {user: await registry.lifecycle.monitor_memory_usage(user) for user in ("ada", "bob")}
        assert one["ada"] == {
            "status": "critical",
            "user_id": "ada",
            "total_agents": 1,
            "running_agents": 1,
            "agent_types": ["helper"],
            "has_websocket_bridge": True,
            "in_flight": 0,
            "uptime_seconds": 5.0,
            "idle_seconds": 3.0,
            "max_agents": 1,
            "approximate_bytes": one["ada"]["approximate_bytes"],
            "complete": True,
        }
        assert one["bob"]["status"] == "healthy"
        # Neither the loop nor another user is reached through tasks.
        assert 100_000 < one["ada"]["approximate_bytes"] < 115_000
        assert 100 < one["bob"]["approximate_bytes"] < 10_000
        assert await registry.monitor_all_users() == {
            "total_users": 2,
            "total_agents": 1,
            "approximate_bytes": sum(user["approximate_bytes"] for user in one.values()),
            "near_limit": ["ada"],
            "users": one,
        }
        gate.open()
        await running
        metrics = (await registry.get_user_session("ada")).get_metrics()
        assert (metrics["running_agents"], metrics["idle_seconds"]) == (0, 0.0)


async def test_each_issue_names_the_figure_and_the_limit() -> None:
    gate = Gate()
    limits = Limits(max_users=2, max_agents_per_user=3, close_timeout=0.01)
    async with registry_of(helper=BaseAgent, stubborn=hanging(gate, stubborn=True), limits=limits) as registry:
        await registry.create_agent_for_user("ada", "stubborn", context())
        await registry.cleanup_user_session("ada")
        health = registry.get_registry_health()
        assert health["status"] == "warning"
        assert health["issues"] == ["1 tasks ignore their cancellation and were abandoned"]
        for user in ("ada", "bob"):
            for _ in range(3):
                await registry.create_agent_for_user(user, "helper", context(user))
        health = registry.get_registry_health()
        assert health["status"] == "critical"
        assert health["issues"] == [
            "2 of 2 users (Limits.max_users)",
            "3 of 3 agents (Limits.max_agents_per_user) of a user",
            "1 tasks ignore their cancellation and were abandoned",
        ]
        gate.open()
        await turns(3)
        await registry.cleanup_user_session("ada")
        await registry.reset_user_agents("bob")
        assert registry.get_registry_health()["issues"] == []
