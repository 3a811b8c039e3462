"""get_registry_health: exact counts after every step, and how near a limit is."""

from __future__ import annotations

import asyncio

import pytest

from registry import AgentRegistry, BaseAgent, Limits
from tests.registry.kit import Clock, Closable, Gate, context, hanging, registry_of, slow
from tests.running import turns


def counts(registry: AgentRegistry) -> tuple[int, int]:
    health = registry.get_registry_health()
    return health["total_user_sessions"], health["total_user_agents"]


async def test_exact_counts_after_every_step() -> None:
    registry = AgentRegistry()
    assert registry.get_registry_health()["status"] == "healthy"
    registry.register("helper", BaseAgent)
    assert registry.get_registry_health()["registered_agent_types"] == 1
    assert counts(registry) == (0, 0)
    await registry.create_agent_for_user("ada", "helper", context())
    assert counts(registry) == (1, 1)
    await registry.create_agent_for_user("ada", "helper", context())
    assert counts(registry) == (1, 2)
    await registry.get_or_create_agent(context(), "helper")
    assert counts(registry) == (1, 2)
    await registry.get_or_create_agent(context("ada", "other"), "helper")
    assert counts(registry) == (1, 3)
    await registry.get_user_session("bob")
    assert counts(registry) == (2, 3)
    with pytest.raises(LookupError):
        await registry.create_agent_for_user("eve", "nothing", context("eve"))
    assert counts(registry) == (2, 3)
    await registry.remove_user_agent("ada", "helper")
    assert counts(registry) == (2, 2)
    await registry.reset_user_agents("ada")
    assert counts(registry) == (2, 0)
    await registry.cleanup_user_session("bob")
    assert counts(registry) == (1, 0)
    await registry.emergency_cleanup_all()
    assert counts(registry) == (0, 0)
    await registry.aclose()
    assert counts(registry) == (0, 0)


@pytest.mark.parametrize(("held", "status"), [(0, "healthy"), (8, "healthy"), (9, "warning"), (10, "critical")])
async def test_users_against_their_limit(held: int, status: str) -> None:
    async with AgentRegistry(limits=Limits(max_users=10)) as registry:
        for n in range(held):
            await registry.get_user_session(f"user{n}")
        assert registry.get_registry_health()["status"] == status


@pytest.mark.parametrize(("held", "status"), [(4, "healthy"), (5, "critical")])
async def test_agents_of_one_user_against_their_limit(held: int, status: str) -> None:
    async with registry_of(helper=BaseAgent, limits=Limits(max_agents_per_user=5)) as registry:
        await registry.create_agent_for_user("bob", "helper", context("bob"))
        for _ in range(held):
            await registry.create_agent_for_user("ada", "helper", context())
        health = registry.get_registry_health()
        assert (health["status"], health["largest_user_agents"]) == (status, held)
        assert (await registry.lifecycle.monitor_memory_usage("ada"))["status"] == status
        assert (await registry.lifecycle.monitor_memory_usage("bob"))["status"] == "healthy"


async def test_what_closes_is_told_apart_from_what_is_open() -> None:
    gate = Gate()
    async with registry_of(hanging=hanging(gate), slow=slow(gate), helper=Closable, clock=Clock()) as registry:
        await registry.create_agent_for_user("ada", "hanging", context())
        ending = asyncio.create_task(registry.cleanup_user_session("ada"))
        making = asyncio.create_task(registry.create_agent_for_user("bob", "slow", context("bob")))
        await turns(3)
        health = registry.get_registry_health()
        assert counts(registry) == (0, 0)
        assert health["ending_sessions"] == 1
        gate.open()
        await asyncio.gather(ending, making)
        assert counts(registry) == (1, 1)
        assert registry.get_registry_health()["ending_sessions"] == 0
