"""The ways in which sessions end, and their effect on others who wait."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from registry import AgentRegistry, AgentScope, BaseAgent, SessionClosed
from registry.errors import AgentCreationFailed, WrongEventLoop
from registry.events.bridge import SilentBridge
from registry.lease import SessionLifetime
from tests.registry.kit import Clock, Gate, Waiting, context, hanging, registry_of, same, slow
from tests.registry.sessions.virtual import virtually
from tests.running import settled, turns


async def test_what_a_session_s_end_took_is_refused_in_the_session_s_name() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(agent_context={"a": 1}))
        await registry.cleanup_user_session("ada")
        for call in (lambda: agent.context.agent_context, lambda: agent.context.create_child_context("c")):
            with pytest.raises(SessionClosed) as caught:
                call()
            assert type(caught.value) is SessionClosed
            assert str(caught.value) == ("the session of user 'ada' has ended; nothing of it can be used any more")


async def test_a_caller_that_is_cancelled_while_its_session_ends_stays_cancelled() -> None:
    gate = Gate()
    async with registry_of(helper=slow(gate)) as registry:
        cancelling: list[int] = []

        async def caller() -> None:
            try:
                await registry.create_agent_for_user("ada", "helper", context())
            finally:
                task = asyncio.current_task()
                assert task is not None
                cancelling.append(task.cancelling())

        task = asyncio.create_task(caller())
        await gate.reached()
        ending = asyncio.create_task(registry.cleanup_user_session("ada"))
        task.cancel()
        await ending
        await settled(task)
        assert task.cancelled()
        # The registry took back its own cancellation, once, and left the caller's.
        assert cancelling == [1]


@pytest.mark.parametrize("how", ["cancels itself", "is ended"])
async def test_a_cancellation_that_a_caller_ignored_long_ago_is_not_taken_for_a_new_one(how: str) -> None:
    gate = Gate()

    async def factory(scope: AgentScope) -> BaseAgent:
        await gate.pass_through()
        raise asyncio.CancelledError

    async with registry_of(helper=factory) as registry:

        async def caller() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await registry.create_agent_for_user("ada", "helper", context())

        task = asyncio.create_task(caller())
        await turns(1)
        task.cancel()
        await gate.reached()
        if how == "is ended":
            await registry.cleanup_user_session("ada")
        gate.open()
        [error] = await settled(task)
        assert type(error) is (SessionClosed if how == "is ended" else AgentCreationFailed)
        assert task.cancelling() == 1


async def test_an_activation_that_ends_leaves_the_others_findable() -> None:
    quick, long = Gate(), Gate()
    async with registry_of(quick=slow(quick), long=slow(long)) as registry:
        callers = [asyncio.create_task(registry.get_or_create_agent(context(), kind)) for kind in ("quick", "long")]
        await long.reached()
        quick.open()
        await callers[0]
        callers.append(asyncio.create_task(registry.get_or_create_agent(context(), "long")))
        await turns(3)
        long.open()
        agents = await asyncio.gather(*callers)
        assert same(agents[1], agents[2])
        assert long.arrived == 1


async def test_who_waits_for_an_activation_gets_the_very_error_of_its_factory() -> None:
    class Detailed(Exception):
        """Cannot be made anew of its arguments."""

        def __init__(self, place: str, reason: str) -> None:
            super().__init__(f"{place}: {reason}")

    raised: list[Detailed] = []

    async def factory(scope: AgentScope) -> BaseAgent:
        await asyncio.sleep(0)
        raised.append(Detailed("disk", "full"))
        raise raised[-1]

    async with registry_of(helper=factory) as registry:
        answers = await settled(
            *(asyncio.create_task(registry.get_or_create_agent(context(), "helper")) for _ in range(2))
        )
        assert [id(answer) for answer in answers] == [id(raised[0])] * 2
        assert len(raised) == 1
        raised.clear()


async def test_the_end_of_a_second_session_waits_for_the_first_one_s() -> None:
    gate = Gate()
    async with registry_of(hanging=hanging(gate), waiting=Waiting) as registry:
        await registry.create_agent_for_user("ada", "hanging", context())
        first = asyncio.create_task(registry.cleanup_user_session("ada"))
        await gate.reached()
        await registry.create_agent_for_user("ada", "waiting", context())
        second = asyncio.create_task(registry.cleanup_user_session("ada"))
        await turns(20)
        assert not second.done()
        gate.open()
        assert (await second)["cleaned_agents"] == 1
        assert first.done()
        await first


@virtually
async def test_what_was_abandoned_may_end_as_it_likes() -> None:
    """Nobody waits for it any more: neither its error nor its cancellation reaches the loop's handler."""
    for ends_with in (None, ValueError("at last"), asyncio.CancelledError()):
        gate = Gate()

        class Stubborn(BaseAgent):
            async def cleanup(self, gate: Gate = gate, ends_with: Any = ends_with) -> None:
                await gate.pass_stubbornly()
                if ends_with is not None:
                    raise ends_with

        async with registry_of(helper=Stubborn) as registry:
            await registry.create_agent_for_user("ada", "helper", context())
            await registry.cleanup_user_session("ada")
            assert registry.get_registry_health()["abandoned_cleanups"] == 1
            gate.open()
            await turns(3)
            assert registry.get_registry_health()["abandoned_cleanups"] == 0


def test_a_method_without_a_loop_refuses_another_one_and_says_whether_its_own_is_there() -> None:
    registry = AgentRegistry()
    asyncio.run(_bind(registry))
    assert registry.list_agents() == []  # No loop runs: there is nothing to be in the way of.

    async def elsewhere() -> None:
        with pytest.raises(WrongEventLoop, match=r"its first call, which is closed; make one registry for each loop"):
            registry.list_agents()

    asyncio.run(elsewhere())


async def _bind(registry: AgentRegistry) -> None:
    await registry.get_user_agent("ada", "helper")


def test_uses_are_numbered_from_one() -> None:
    clock = Clock()
    life = SessionLifetime("ada", clock, None, SilentBridge, (9, 9))
    assert (life.last_used, life.uses) == (1_000.0, 0)
    clock.now += 5
    assert (life.touch(), life.last_used) == (1, 1_005.0)
    assert (life.touch(), life.touch()) == (2, 3)


@pytest.mark.parametrize("waits", [False, True])
async def test_an_agent_is_closed_to_new_work_before_its_cleanup_begins(waits: bool) -> None:
    seen: list[bool] = []

    class AtOnce(BaseAgent):
        async def cleanup(self) -> None:
            seen.append(self.is_closed)

    class Suspending(BaseAgent):
        async def cleanup(self) -> None:
            seen.append(self.is_closed)
            await turns()

    async with registry_of(helper=Suspending if waits else AtOnce) as registry:
        await registry.create_agent_for_user("ada", "helper", context())
        assert await registry.remove_user_agent("ada", "helper") is True
    assert seen == [True]
