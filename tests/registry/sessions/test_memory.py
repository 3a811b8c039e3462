"""The objects in reach of one user's objects, and that all of them go with the session, by reference counting alone."""

from __future__ import annotations

import asyncio
import functools
import gc
import tracemalloc
import types
import weakref
from typing import Any

from registry import AgentRegistry, BaseAgent, Limits, LLMManager, UserExecutionContext, WebSocketManager
from registry.tools import ToolDispatcher
from tests.registry.kit import Closable, Gate, busy, context, freed_at_once, registry_of, slow
from tests.running import settled, turns

SHARED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType)


def reached_from(roots: list[Any], trusted: tuple[Any, ...]) -> dict[int, Any]:
    seen: dict[int, Any] = {}
    todo = list(roots)
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, SHARED) or any(thing is one for one in trusted):
            continue
        seen[id(thing)] = thing
        todo += gc.get_referents(thing)
    return seen


async def test_from_what_an_agent_holds_nothing_leads_to_another_user_or_the_registry() -> None:
    manager = WebSocketManager()
    clock = functools.partial(float, 0)
    async with AgentRegistry(LLMManager(), clock=clock) as registry:
        registry.register("helper", BaseAgent)
        ada = await registry.create_agent_for_user("ada", "helper", context(agent_context={"a": [1]}), manager)
        bob = await registry.create_agent_for_user("bob", "helper", context("bob"), manager)
        for agent in (ada, bob):
            await agent.run()
        bobs = reached_from([bob], (asyncio.get_running_loop(), clock))
        session = await registry.get_user_session("bob")
        forbidden = (registry, registry._runtime, registry._directory, registry.lifecycle, manager, session)
        found = reached_from([ada], (asyncio.get_running_loop(), clock))
        for thing in forbidden:
            assert id(thing) not in found, thing
        shared = [
            bobs[key]
            for key in found.keys() & bobs.keys()
            if not isinstance(bobs[key], (str, int, float, bytes, frozenset, tuple, type(None)))
        ]
        # The one model behind all handles keeps nothing.
        assert {type(thing).__name__ for thing in shared} <= {"ScriptedLLM"}


async def test_everything_of_a_user_is_freed_when_the_session_has_ended() -> None:
    manager = WebSocketManager()

    class Data:
        pass

    async with registry_of(helper=Closable) as registry:
        await registry.get_user_session("bystander")
        gc.collect()
        gc.disable()
        try:
            refs = []
            for made_by in ("create", "get_or_create", "adopt"):
                given = context(agent_context={"data": Data()})
                if made_by == "create":
                    agent = await registry.create_agent_for_user("ada", "helper", given, manager)
                elif made_by == "get_or_create":
                    agent = await registry.get_or_create_agent(given, "helper")
                else:
                    from registry import AgentScope

                    agent = BaseAgent(AgentScope(given, ToolDispatcher(given), None, None))
                    (await registry.get_user_session("ada")).register_agent("mine", agent)
                await agent.run("x")
                parts = (agent, agent.context, agent.bridge, agent._life, agent.context.agent_context["data"])
                refs += [weakref.ref(part) for part in parts]
                refs.append(weakref.ref(agent.tool_dispatcher))
                del agent, parts, given
            refs.append(weakref.ref(await registry.get_user_session("ada")))
            assert all(ref() is not None for ref in refs)
            await registry.cleanup_user_session("ada")
            assert [ref() for ref in refs if ref() is not None] == []
        finally:
            gc.enable()


async def test_evicted_removed_and_reset_agents_are_freed() -> None:
    async with registry_of(helper=Closable, limits=Limits(max_agents_per_user=2)) as registry:
        await registry.create_agent_for_user("ada", "helper", context())
        await registry.reset_user_agents("ada")
        with freed_at_once():
            for _ in range(10):
                await registry.create_agent_for_user("ada", "helper", context())
            for _ in range(2):
                await registry.remove_user_agent("ada", "helper")
            for _ in range(2):
                await registry.create_agent_for_user("ada", "helper", context())
            await registry.reset_user_agents("ada")


async def test_what_is_in_flight_when_all_ends_is_freed() -> None:
    async with AgentRegistry() as registry:
        gate = Gate()
        registry.register("slow", slow(gate))
        registry.register("busy", busy(gate))

        async def story() -> None:
            tasks: list[asyncio.Task[Any]] = []
            for n in range(3):
                user = f"user{n}"
                agent = await registry.create_agent_for_user(user, "busy", context(user))
                tasks += [
                    asyncio.create_task(agent.run()),
                    asyncio.create_task(registry.create_agent_for_user(user, "slow", context(user))),
                    asyncio.create_task(registry.get_or_create_agent(context(user), "slow")),
                ]
            del agent
            await turns(3)
            await registry.emergency_cleanup_all()
            await asyncio.wait(tasks)
            for task in tasks:
                task.exception()
            await turns(3)

        await story()
        with freed_at_once():
            await story()


async def test_a_user_who_left_leaves_no_bytes() -> None:
    async with registry_of(helper=BaseAgent, waits=Closable) as registry:
        await registry.get_user_session("bystander")

        async def come_and_go(count: int) -> None:
            for n in range(count):
                user = f"user-{n}"
                await registry.create_agent_for_user(user, "helper", UserExecutionContext(user))
                await registry.cleanup_user_session(user)

        await come_and_go(300)
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            await come_and_go(50)
            before = tracemalloc.get_traced_memory()[0]
            await come_and_go(500)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
            gc.enable()
        # A few free lists may fill up; a record a user would be 500 × 50 bytes and more.
        assert grown < 4_000, grown


async def test_a_closed_registry_is_freed_as_well() -> None:
    async def story() -> None:
        async with registry_of(helper=Closable) as registry:
            await registry.create_agent_for_user("ada", "helper", context())
        await turns(2)

    await story()
    with freed_at_once():
        await story()


async def test_a_failed_set_of_a_manager_is_freed() -> None:
    class Broken:
        async def create_bridge(self, _: Any) -> Any:
            await asyncio.sleep(0)
            raise OSError

    async with AgentRegistry() as registry:
        session = await registry.get_user_session("ada")

        async def story() -> None:
            tasks = [asyncio.create_task(session.set_websocket_manager(Broken())) for _ in range(2)]
            assert all(isinstance(answer, OSError) for answer in await settled(*tasks))
            await turns(2)

        await story()
        with freed_at_once():
            await story()
