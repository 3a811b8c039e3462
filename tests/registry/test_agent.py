"""BaseAgent.run: serialised, first come first served, guarded, its data the caller's own; and how an agent shows."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from inline_snapshot import snapshot

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
    RunFinished,
    SessionClosed,
    UncopyableValue,
)
from registry.events.bridge import SilentBridge
from registry.events.types import Origin
from registry.tools import Tool, ToolContext, ToolDispatcher
from tests.registry.kit import Gate, context, with_tools
from tests.registry.refusing import Refusals
from tests.running import settled, turns


async def agent_of(registry: AgentRegistry, kind: type[BaseAgent], user: str = "ada", manager: Any = None) -> Any:
    registry.register(kind.__name__, kind, replace=True)
    return await registry.create_agent_for_user(user, kind.__name__, context(user, run_id="r"), manager)


async def test_a_run_answers_with_a_result() -> None:
    async with AgentRegistry() as registry:
        agent = await agent_of(registry, BaseAgent)
        result = await agent.run(AgentRequest("x", {"a": [1]}))
        assert (result.agent_type, result.agent_id, result.run_id) == ("BaseAgent", agent.agent_id, "r")
        assert result.output == {"text": "x", "parameters": {"a": [1]}}
        assert (await agent.run()).output["text"] == ""
        assert (await agent.run(AgentRequest("x", run_id="mine"))).run_id == "mine"
        by_its_context = await registry.create_agent_for_user("ada", "BaseAgent", context(run_id="run-7"))
        assert (await by_its_context.run("hello")).run_id == "run-7"
        assert not agent.is_running


async def test_what_the_caller_holds_and_later_changes_changes_nothing() -> None:
    gate = Gate()

    class Keeps(BaseAgent):
        kept: Any = None

        async def execute(self, request: AgentRequest) -> Any:
            await gate.pass_through()
            self.kept = request.parameters.get("list", self.kept)
            return self.kept

    async with AgentRegistry() as registry:
        agent = await agent_of(registry, Keeps)
        first = asyncio.create_task(agent.run())
        parameters = {"list": [1]}
        queued = asyncio.create_task(agent.run(AgentRequest("", parameters)))
        await turns(3)
        parameters["list"].append(2)
        gate.open()
        await first
        output = (await queued).output
        assert output == [1]
        output.append(3)
        assert (await agent.run()).output == agent.kept == [1]


async def test_a_reentrant_run_is_refused() -> None:
    others: list[Any] = []

    class Nested(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            if request.text == "self":
                return (await self.run("inner")).output
            if request.text == "task":
                return (await asyncio.create_task(self.run("inner"))).output
            if request.text == "round":
                return (await others[0].run("back")).output
            if request.text == "back":
                return (await others[1].run("inner")).output
            return "inner"

    async with AgentRegistry() as registry:
        one, two = await agent_of(registry, Nested), await agent_of(registry, Nested)
        others += [two, one]
        for text in ("self", "task", "round"):
            with pytest.raises(ReentrantRun):
                await asyncio.wait_for(one.run(text), 60)
        others[1] = await agent_of(registry, Nested)
        assert (await one.run("round")).output == "inner"
        assert not one.is_running
        assert not two.is_running


async def test_a_run_may_be_asked_for_from_a_task_left_by_an_earlier_one() -> None:
    ran: list[str] = []

    async with AgentRegistry(None, with_tools(Tool("note", lambda *_: ran.append("note")))) as registry:
        left: list[asyncio.Task[Any]] = []
        gate = Gate()

        class Leaves(BaseAgent):
            async def execute(self, request: AgentRequest) -> Any:
                if request.text == "leave":

                    async def later() -> Any:
                        await gate.pass_through()
                        with pytest.raises(RunFinished, match="run 'r' has ended; agent_thinking cannot"):
                            await self.think("in the name of a run that is over")
                        with pytest.raises(RunFinished):
                            await self.tool_dispatcher.execute_tool("note")
                        return (await self.run("again")).output

                    left.append(asyncio.create_task(later()))
                return request.text

        agent = await agent_of(registry, Leaves)
        await agent.run("leave")
        gate.open()
        assert (await left[0], ran) == ("again", [])


SHORT = Limits(close_timeout=0.05)


class Heard:
    """A bridge that keeps its events."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any], Origin]] = []

    def emit(self, event_type: EventType, payload: Mapping[str, Any], origin: Origin) -> None:
        self.told.append((event_type.value, dict(payload), origin))


def alone(kind: type[BaseAgent], bridge: Any = None, **rest: Any) -> BaseAgent:
    """An agent of no session."""
    return kind(AgentScope(context(**rest), None, bridge or SilentBridge("ada"), None))


async def made(registry: AgentRegistry, kind: Any, name: str = "helper") -> BaseAgent:
    registry.register(name, kind, replace=True)
    return await registry.create_agent_for_user("ada", name, context())


class Fails(BaseAgent):
    """Fails with the request's text."""

    async def execute(self, request: AgentRequest) -> Any:
        raise ValueError(request.text)


async def test_what_an_agent_refuses_and_what_its_runs_may_not_do() -> None:
    class Does(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            if request.text == "again":
                return await self.run("within")
            if request.text == "cancel":
                raise asyncio.CancelledError
            return [threading.Lock()]

    refused, wrong = Refusals(), context()
    refused.by(TypeError, lambda: Fails(wrong))  # type: ignore[arg-type]
    refused.by(TypeError, lambda: type("Unguarded", (BaseAgent,), {"run": lambda self: None}))
    agent = alone(Does)
    await refused.awaited(ReentrantRun, agent.run("again"))
    await refused.awaited(AgentClosed, agent.run("cancel"))
    await refused.awaited(UncopyableValue, agent.run())
    async with AgentRegistry() as registry:
        await refused.awaited(AgentClosed, (await made(registry, Does)).run("cancel"))
    assert refused.texts == snapshot(
        [
            "Fails() takes the AgentScope that the registry hands to factories",
            "Unguarded overrides run(), which keeps the guards and the events; override execute()",
            "<Does Does user='ada' runs=1> was run from within its own run; call execute() for a recursion",
            "the run of <Does Does user='ada'> was cancelled from within",
            "output[] is a _thread.lock, which cannot be copied deep (TypeError: cannot pickle '_thread.lock' object); pass plain data, or an object with a __deepcopy__",
            "the run of <Does helper user='ada'> was cancelled from within",
        ]
    )


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
    with pytest.raises(ValueError, match="too much"):
        await alone(Fails, bridge).run("too much")
    assert bridge.told[-1][:2] == ("agent_error", {"error": "ValueError", "message": "too much"})


async def test_the_events_of_failures_hold_a_bounded_part_of_an_error_s_text() -> None:
    class Loud(ValueError):
        def __str__(self) -> str:
            return "\ud800" * 1_000_000

    Loud.__name__ = "L" * 100_000

    class FailsLoudly(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            raise Loud

    async def fails(_: ToolContext, __: Mapping[str, object]) -> object:
        raise Loud

    bridge = Heard()
    with pytest.raises(Loud) as caught:
        await alone(FailsLoudly, bridge).run()
    dispatcher = ToolDispatcher(context(), bridge, [Tool("loud", fails)])
    with pytest.raises(Loud):
        await dispatcher.execute_tool("loud")
    assert len(str(caught.value)) == 1_000_000
    failures = [payload for kind, payload, _ in bridge.told if "error" in payload]
    assert len(failures) == 2
    assert all(2_000 < len(str(payload)) < 3_000 for payload in failures)


async def test_an_execute_that_forgot_its_async_is_named_with_the_remedy() -> None:
    class Plain(BaseAgent):
        def execute(self, request: AgentRequest) -> str:  # type: ignore[override]
            return "done"

    async with AgentRegistry() as registry:
        agent = await made(registry, Plain)
        with pytest.raises(
            TypeError, match=r"Plain\.execute returned a str, not an awaitable; write `async def execute`"
        ):
            await agent.run()


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
    ended, failed = [record for record in caplog.records if record.name == "registry.agent"]
    assert (ended.levelname, failed.levelname) == ("DEBUG", "WARNING")
    assert ended.getMessage().startswith(
        "the end of a run of <FailsLate helper user='ada' closed> was not emitted: the session"
    )
    assert failed.getMessage().endswith("user='ada' closed> failed after its caller had left: ValueError: too late")


async def test_an_error_that_its_caller_got_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "registry.agent")
    for text in ("one", "two"):
        with pytest.raises(ValueError, match=text):
            await alone(Fails).run(text)
    assert caplog.records == []
