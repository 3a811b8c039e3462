"""BaseAgent.run: serialised, first come first served, guarded, and its data the caller's own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from registry import (
    AgentRegistry,
    AgentRequest,
    AgentScope,
    BaseAgent,
    InvalidIdentifier,
    ReentrantRun,
    RunFinished,
    UncopyableValue,
    WebSocketManager,
)
from tests.registry.kit import Gate, busy, context, freed_at_once
from tests.running import settled, turns


async def agent_of(registry: AgentRegistry, kind: type[BaseAgent], user: str = "ada", manager: Any = None) -> Any:
    registry.register(kind.__name__, kind, replace=True)
    return await registry.create_agent_for_user(user, kind.__name__, context(user, run_id="r"), manager)


async def test_the_scope_is_frozen_and_all_there_is() -> None:
    async with AgentRegistry() as registry:
        agent = await agent_of(registry, BaseAgent)
        for name in ("context", "tools", "events", "llm", "other"):
            with pytest.raises(AttributeError):
                setattr(agent.scope, name, None)
        assert (agent.context, agent.tool_dispatcher, agent.llm) == (
            agent.scope.context,
            agent.scope.tools,
            agent.scope.llm,
        )
        assert agent.bridge is agent.scope.events


def test_an_agent_takes_a_scope_and_keeps_run_final() -> None:
    with pytest.raises(TypeError, match="AgentScope"):
        BaseAgent(context())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="run"):
        type("Unguarded", (BaseAgent,), {"run": lambda self: None})


async def test_a_run_answers_with_a_result() -> None:
    async with AgentRegistry() as registry:
        agent = await agent_of(registry, BaseAgent)
        result = await agent.run(AgentRequest("x", {"a": [1]}))
        assert (result.agent_type, result.agent_id, result.run_id) == ("BaseAgent", agent.agent_id, "r")
        assert result.output == {"text": "x", "parameters": {"a": [1]}}
        assert (await agent.run()).output["text"] == ""
        assert (await agent.run(AgentRequest("x", run_id="mine"))).run_id == "mine"
        for wrong in (1, None, {"text": "x"}):
            with pytest.raises(TypeError, match="AgentRequest"):
                await agent.run(wrong)
        with pytest.raises(InvalidIdentifier):
            await agent.run(AgentRequest("x", run_id=" "))
        with pytest.raises(TypeError, match="parameters"):
            await agent.run(AgentRequest("x", [1]))  # type: ignore[arg-type]
        assert not agent.is_running


async def test_runs_are_serialised_in_the_order_they_were_asked_for() -> None:
    class Counter(BaseAgent):
        total = 0
        inside = 0

        async def execute(self, request: AgentRequest) -> Any:
            self.inside += 1
            assert self.inside == 1
            seen = self.total
            for _ in range(int(request.text) % 4):
                await asyncio.sleep(0)
            self.total = seen + 1
            self.inside -= 1
            return self.total

    async with AgentRegistry() as registry:
        agent = await agent_of(registry, Counter)
        results = await asyncio.gather(*(agent.run(f"{n}") for n in range(40)))
        assert [result.output for result in results] == list(range(1, 41))


async def test_a_failing_or_cancelled_run_does_not_hold_up_the_next() -> None:
    gate = Gate()

    class Mixed(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            if request.text == "fail":
                raise ValueError("no")
            if request.text == "wait":
                await gate.pass_through()
            return request.text

    async with AgentRegistry() as registry:
        agent = await agent_of(registry, Mixed)
        tasks = [asyncio.create_task(agent.run(text)) for text in ("wait", "fail", "wait", "fine")]
        await gate.reached()
        tasks[2].cancel()
        tasks[0].cancel()
        answers = await settled(*tasks)
        assert [type(answer).__name__ for answer in answers] == [
            "CancelledError", "ValueError", "CancelledError", "AgentResult",
        ]  # fmt: skip


async def test_what_the_caller_holds_and_later_changes_changes_nothing() -> None:
    gate = Gate()

    class Keeps(BaseAgent):
        kept: Any = None

        async def execute(self, request: AgentRequest) -> Any:
            if request.text == "wait":
                await gate.pass_through()
            if request.text == "keep":
                self.kept = request.parameters["list"]
            return self.kept

    async with AgentRegistry() as registry:
        agent = await agent_of(registry, Keeps)
        first = asyncio.create_task(agent.run("wait"))
        await gate.reached()
        parameters = {"list": [1]}
        queued = asyncio.create_task(agent.run(AgentRequest("keep", parameters)))
        await turns(2)
        parameters["list"].append(2)
        gate.open()
        await first
        output = (await queued).output
        assert output == [1]
        output.append(3)
        assert (await agent.run("show")).output == [1]
        assert agent.kept == [1]


async def test_a_strict_agent_takes_plain_parameters_only() -> None:
    async with AgentRegistry() as registry:
        registry.register("helper", BaseAgent)
        strict = context(isolation_level="strict")
        agent = await registry.create_agent_for_user("ada", "helper", strict)
        with pytest.raises(UncopyableValue):
            await agent.run(AgentRequest("x", {"a": object()}))


async def test_an_output_that_cannot_be_copied_is_an_error_unless_the_class_says_so() -> None:
    class Streams(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            return (n for n in range(3))

    class Gives(Streams):
        copy_output = False

    async with AgentRegistry() as registry:
        with pytest.raises(UncopyableValue, match="output is a builtins"):
            await (await agent_of(registry, Streams)).run()
        assert list((await (await agent_of(registry, Gives)).run()).output) == [0, 1, 2]


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
                await asyncio.wait_for(one.run(text), 5)
        others[1] = await agent_of(registry, Nested)
        assert (await one.run("round")).output == "inner"
        assert not one.is_running
        assert not two.is_running


async def test_a_run_may_be_asked_for_from_a_task_left_by_an_earlier_one() -> None:
    async with AgentRegistry() as registry:
        left: list[asyncio.Task[Any]] = []
        gate = Gate()

        class Leaves(BaseAgent):
            async def execute(self, request: AgentRequest) -> Any:
                if request.text == "leave":

                    async def later() -> Any:
                        await gate.pass_through()
                        with pytest.raises(RunFinished):
                            await self.think("in the name of a run that is over")
                        return (await self.run("again")).output

                    left.append(asyncio.create_task(later()))
                return request.text

        agent = await agent_of(registry, Leaves)
        await agent.run("leave")
        gate.open()
        assert await left[0] == "again"


def events_of(client: Any) -> list[tuple[str, str]]:
    found = []
    while (event := client.receive_nowait()) is not None:
        found.append((event.type.value, event.origin.run_id))
    return found


async def test_every_run_says_started_and_then_completed_or_error_once() -> None:
    gate = Gate()

    class Mixed(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            if request.text == "fail":
                raise ValueError("no")
            if request.text == "wait":
                await gate.pass_through()
            await self.think(request.text)
            return object.__new__(type(lambda: 0)) if request.text == "never" else request.text

    manager = WebSocketManager()
    client = manager.connect("ada")
    async with AgentRegistry() as registry:
        agent = await agent_of(registry, Mixed, manager=manager)
        await agent.run(AgentRequest("fine", run_id="one"))
        with pytest.raises(ValueError, match="no"):
            await agent.run(AgentRequest("fail", run_id="two"))
        task = asyncio.create_task(agent.run(AgentRequest("wait", run_id="three")))
        await gate.reached()
        task.cancel()
        await settled(task)
        assert events_of(client) == [
            ("agent_started", "one"), ("agent_thinking", "one"), ("agent_completed", "one"),
            ("agent_started", "two"), ("agent_error", "two"),
            ("agent_started", "three"), ("agent_error", "three"),
        ]  # fmt: skip


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "error", [ValueError("\ud800"), Unspeakable(), ValueError("\0 ok")], ids=["surrogate", "str", "nul"]
)
async def test_the_error_of_a_run_is_raised_whatever_its_text(error: Exception) -> None:
    class Fails(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            raise error

    manager = WebSocketManager()
    client = manager.connect("ada")
    async with AgentRegistry() as registry:
        agent = await agent_of(registry, Fails, manager=manager)
        with pytest.raises(type(error)) as caught:
            await agent.run()
        assert caught.value is error
        assert [name for name, _ in events_of(client)] == ["agent_started", "agent_error"]
    error.__traceback__ = None


async def test_a_request_that_no_socket_can_carry_is_run_all_the_same() -> None:
    manager = WebSocketManager()
    client = manager.connect("ada")
    async with AgentRegistry() as registry:
        agent = await agent_of(registry, BaseAgent, manager=manager)
        assert (await agent.run("é\ud800")).output["text"] == "é\ud800"
        assert (await client.receive()).payload == {"request": "é\\ud800"}


async def test_agents_of_no_session_run_as_well() -> None:
    from registry.events.bridge import SilentBridge

    agent = BaseAgent(AgentScope(context(), None, SilentBridge("ada"), None))
    assert (await agent.run("x")).output["text"] == "x"
    assert agent.agent_type == "BaseAgent"


async def test_runs_are_freed_at_once() -> None:
    gate = Gate()

    class Fails(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            await asyncio.sleep(0)
            raise ValueError(request.text)

    async with AgentRegistry() as registry:
        registry.register("fails", Fails)
        registry.register("busy", busy(gate))

        async def story() -> None:
            agent = await registry.create_agent_for_user("ada", "fails", context())
            for _ in range(2):
                with suppress(ValueError):
                    await agent.run("x")
            other = await registry.create_agent_for_user("ada", "busy", context())
            tasks = [asyncio.create_task(other.run()) for _ in range(3)]
            await turns(3)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await registry.cleanup_user_session("ada")

        await story()
        await turns(3)
        with freed_at_once():
            await story()
            await turns(3)


async def test_a_run_that_failed_after_its_caller_left_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("while leaving")

    async with AgentRegistry() as registry:
        agent = await agent_of(registry, Fails)
        task = asyncio.create_task(agent.run())
        await turns(3)
        task.cancel()
        assert isinstance((await settled(task))[0], asyncio.CancelledError)
        assert "while leaving" in caplog.text
