"""What an agent says of itself, of its runs and of their ends, to callers, to clients and to the log."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from registry import (
    AgentClosed,
    AgentRegistry,
    AgentRequest,
    AgentResult,
    AgentScope,
    BaseAgent,
    EventType,
    Limits,
    ReentrantRun,
    SessionClosed,
    UncopyableValue,
)
from registry.agent import close_handles
from registry.context import managed_user_context
from registry.events.bridge import SilentBridge
from registry.events.types import Origin
from registry.lease import Lifetime
from tests.registry.kit import Gate, busy, context
from tests.running import settled, turns

SHORT = Limits(close_timeout=0.05)


class Heard:
    """A bridge that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any], Origin]] = []

    def emit(self, event_type: EventType, payload: Mapping[str, Any], origin: Origin) -> None:
        self.told.append((event_type.value, dict(payload), origin))


def alone(kind: type[BaseAgent], bridge: Any = None, **rest: Any) -> BaseAgent:
    """An agent of no session."""
    return kind(AgentScope(context(**rest), None, bridge or SilentBridge("ada"), None))


async def made(registry: AgentRegistry, kind: Any, name: str = "helper") -> BaseAgent:
    registry.register(name, kind)
    return await registry.create_agent_for_user("ada", name, context())


class Fails(BaseAgent):
    """Fails with the request's text."""

    async def execute(self, request: AgentRequest) -> Any:
        raise ValueError(request.text)


# ------------------------------------------------------------------------------------------------------- its own words


def test_what_is_no_scope_and_what_would_lose_the_guards_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"^Fails\(\) takes the AgentScope that the registry hands to factories$"):
        Fails(context())  # type: ignore[arg-type]
    told = "Unguarded overrides run(), which keeps the guards and the events; override execute()"
    with pytest.raises(TypeError, match=f"^{re.escape(told)}$"):
        type("Unguarded", (BaseAgent,), {"run": lambda self: None})


def test_an_agent_s_name_is_random_and_stays() -> None:
    one, other = alone(BaseAgent), alone(BaseAgent)
    assert re.fullmatch(r"agent-[0-9a-f]{16}", one.agent_id)
    assert one.agent_id == one.agent_id
    assert one.agent_id != other.agent_id


async def test_an_agent_shows_its_kind_its_user_and_its_state() -> None:
    gate = Gate()
    async with AgentRegistry() as registry:
        agent = await made(registry, busy(gate))
        assert repr(agent) == "<Busy helper user='ada'>"
        assert (agent.is_running, agent.is_closed) == (False, False)
        tasks = [asyncio.create_task(agent.run()) for _ in range(2)]
        await gate.reached()
        assert repr(agent) == "<Busy helper user='ada' runs=2>"
        assert agent.is_running is True
        gate.open()
        await settled(*tasks)
        assert repr(agent) == "<Busy helper user='ada'>"
        await registry.remove_user_agent("ada", "helper")
        assert repr(agent) == "<Busy helper user='ada' closed>"
        assert agent.is_closed is True
    assert repr(alone(Fails)) == "<Fails Fails user='ada'>"
    assert alone(Fails).is_closed is False


# ----------------------------------------------------------------------------------------------- refused and ended runs


async def test_a_run_within_itself_is_refused_by_name() -> None:
    class Again(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            return await self.run("again")

    agent = alone(Again)
    told = "<Again Again user='ada' runs=1> was run from within its own run; call execute() for a recursion"
    with pytest.raises(ReentrantRun, match=f"^{re.escape(told)}$"):
        await agent.run("first")


async def test_an_output_that_cannot_be_copied_is_called_that() -> None:
    class Holds(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            return [threading.Lock()]

    with pytest.raises(UncopyableValue, match=r"^output\[\] is a _thread\.lock, which cannot be copied deep "):
        await alone(Holds).run()


@pytest.mark.parametrize(("ends", "told"), [(False, AgentClosed), (True, SessionClosed)])
async def test_a_run_that_is_cut_off_says_what_was_closed(ends: bool, told: type[Exception]) -> None:
    gate = Gate()
    async with AgentRegistry() as registry:
        agent = await made(registry, busy(gate))
        task = asyncio.create_task(agent.run())
        await gate.reached()
        if ends:
            await registry.cleanup_user_session("ada")
        else:
            await registry.remove_user_agent("ada", "helper")
        (error,) = await settled(task)
        words: dict[type[Exception], str] = {
            AgentClosed: "<Busy helper user='ada' closed> was closed while it was running",
            SessionClosed: "the session of user 'ada' ended while it was running (helper)",
        }
        assert (type(error), str(error)) == (told, words[told])


async def test_a_run_that_ignores_the_end_is_said_to() -> None:
    gate = Gate()
    async with AgentRegistry(limits=SHORT) as registry:
        agent = await made(registry, busy(gate, stubborn=True))
        tasks = [asyncio.create_task(agent.run())]
        await gate.reached()
        tasks.append(asyncio.create_task(agent.run()))
        await turns(2)
        await registry.cleanup_user_session("ada")
        ended = "the session of user 'ada' ended while it was running"
        assert [str(error) for error in await settled(*tasks)] == [
            f"{ended}, and its run ignores cancellation (helper)",
            f"{ended} (helper)",
        ]
        assert {type(task.exception()) for task in tasks} == {SessionClosed}
        gate.open()
        await turns(10)


@pytest.mark.parametrize("in_session", [True, False])
async def test_a_run_that_cancels_itself_is_an_error_and_no_cancellation_of_its_caller(in_session: bool) -> None:
    class Cancels(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            raise asyncio.CancelledError

    async with AgentRegistry() as registry:
        agent = await made(registry, Cancels, "Cancels") if in_session else alone(Cancels)
        told = "the run of <Cancels Cancels user='ada'> was cancelled from within"
        with pytest.raises(AgentClosed, match=f"^{re.escape(told)}$"):
            await agent.run()


async def test_a_closed_agent_refuses_before_it_looks_at_the_request() -> None:
    async with AgentRegistry() as registry:
        agent = await made(registry, BaseAgent)
        await registry.remove_user_agent("ada", "helper")
        wrong: Any = 7
        with pytest.raises(AgentClosed, match=r"is closed and can no longer be used$"):
            await agent.run(wrong)
        with pytest.raises(AgentClosed):
            await agent.emit(EventType.AGENT_THINKING)
    with pytest.raises(SessionClosed):
        await agent.run(wrong)


async def test_an_agent_of_a_managed_context_ends_with_it() -> None:
    async with managed_user_context("ada") as given:
        agent = BaseAgent(AgentScope(given, None, SilentBridge("ada"), None))
        assert (await agent.run("x")).output["text"] == "x"
    assert agent.is_closed
    with pytest.raises(SessionClosed):
        await agent.run("x")


def test_closing_the_handles_of_an_agent_of_no_session_is_nothing() -> None:
    agent = alone(BaseAgent)
    close_handles(agent)
    assert not agent.is_closed
    assert agent.context.user_id == "ada"
    assert isinstance(agent._life, (Lifetime, type(None)))


# ------------------------------------------------------------------------------------------------- clients and the log


async def test_an_agent_of_no_session_tells_its_bridge_everything_in_its_name() -> None:
    class Thinks(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            await self.think("hm")
            await self.emit(EventType.AGENT_THINKING)
            return 7

    bridge = Heard()
    agent = alone(Thinks, bridge, run_id="r-1", thread_id="side")

    result = await agent.run("hello \ud800")
    assert result == AgentResult("Thinks", agent.agent_id, "r-1", 7)
    assert [told[:2] for told in bridge.told] == [
        ("agent_started", {"request": "hello \\ud800"}),
        ("agent_thinking", {"thought": "hm"}),
        ("agent_thinking", {}),
        ("agent_completed", {}),
    ]
    assert {origin for _, _, origin in bridge.told} == {Origin("side", "r-1", "Thinks", agent.agent_id)}


async def test_a_run_that_fails_tells_the_error_s_name_and_words() -> None:
    bridge = Heard()
    with pytest.raises(ValueError, match="too much"):
        await alone(Fails, bridge).run("too much")
    assert [told[:2] for told in bridge.told] == [
        ("agent_started", {"request": "too much"}),
        ("agent_error", {"error": "ValueError", "message": "too much"}),
    ]


async def test_what_nobody_is_left_to_hear_is_logged_under_the_agent_s_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "registry.agent")

    class FailsLate(BaseAgent):
        gate = Gate()

        async def execute(self, request: AgentRequest) -> Any:
            await self.gate.pass_stubbornly()
            raise ValueError("too late")

    async with AgentRegistry(limits=SHORT) as registry:
        agent = await made(registry, FailsLate)
        task = asyncio.create_task(agent.run())
        await agent.gate.reached()  # type: ignore[attr-defined]
        await registry.cleanup_user_session("ada")
        await settled(task)
        agent.gate.open()  # type: ignore[attr-defined]
        await turns(10)
    ours = [record for record in caplog.records if record.name == "registry.agent"]
    shown = "<FailsLate helper user='ada' closed>"
    ended = "the session of user 'ada' has ended; nothing of it can be used any more"
    assert [(record.levelname, record.getMessage()) for record in ours] == [
        ("DEBUG", f"the end of a run of {shown} was not told: {ended}"),
        ("WARNING", f"run of {shown} failed after its caller had left: ValueError: too late"),
    ]


async def test_an_error_that_its_caller_got_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "registry.agent")
    for text in ("one", "two"):
        with pytest.raises(ValueError, match=text):
            await alone(Fails).run(text)
    assert caplog.records == []
