"""The health in words, and whose session a report is about."""

from __future__ import annotations

import asyncio

from registry import AgentRegistry, BaseAgent, Limits
from tests.registry.kit import Clock, Gate, context, hanging
from tests.running import turns


async def test_a_healthy_registry_has_no_issues_and_tells_how_long_it_has_been_up() -> None:
    clock = Clock()
    async with AgentRegistry(clock=clock) as registry:
        health = registry.get_registry_health()
        assert (health["status"], health["issues"], health["uptime_seconds"]) == ("healthy", [], 0.0)
        clock.now += 90.5
        assert registry.get_registry_health()["uptime_seconds"] == 90.5


async def test_each_issue_names_the_figure_and_the_limit() -> None:
    gate = Gate()
    limits = Limits(max_users=2, max_agents_per_user=3, close_timeout=0.01)
    async with AgentRegistry(limits=limits) as registry:
        registry.register("helper", BaseAgent)
        registry.register("stubborn", hanging(gate, stubborn=True))
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


async def test_reports_name_the_user() -> None:
    async with AgentRegistry() as registry:
        registry.register("helper", BaseAgent)
        for user in ("ada", "bob"):
            await registry.create_agent_for_user(user, "helper", context(user))
        session = await registry.get_user_session("ada")
        reports = [
            await session.cleanup_all_agents(),
            await registry.reset_user_agents("ada"),
            await registry.cleanup_user_session("ada"),
            await registry.reset_user_agents("ada"),
            await registry.cleanup_user_session("ada"),
            await registry.lifecycle.trigger_cleanup("ada"),
        ]
        assert [report["user_id"] for report in reports] == ["ada"] * 6
        both = await asyncio.gather(*(registry.cleanup_user_session(user) for user in ("bob", "ada", "bob")))
        assert [(report["user_id"], report["status"]) for report in both] == [
            ("bob", "cleaned"),
            ("ada", "no_session"),
            ("bob", "no_session"),
        ]


class Liar(str):
    """Calls itself eve."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other == "eve"

    def __hash__(self) -> int:
        return hash("eve")

    def __str__(self) -> str:
        return "eve"


async def test_a_report_names_the_user_that_was_looked_for_whatever_the_id_says_of_itself() -> None:
    async with AgentRegistry() as registry:
        liar = Liar("ada")
        told = [(await registry.cleanup_user_session(liar))["user_id"]]
        told.append((await registry.reset_user_agents(liar))["user_id"])
        assert [(type(user), str.__str__(user)) for user in told] == [(str, "ada")] * 2
