"""Objects of the `notify_*` family as bridges and managers."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from registry import (
    AgentRegistry,
    AgentRequest,
    BaseAgent,
    EventPayloadError,
    EventType,
    NotifyBridge,
    NotifyManager,
    Origin,
    Tool,
    UserExecutionContext,
)
from tests.registry.kit import context, registry_of, with_tools

ORIGIN = Origin("t-1", "run-1", "helper", "agent-1")


class Notified:
    """One of the family, with the parameters that are usual in it."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.closed = 0

    async def notify_agent_started(self, run_id: str, agent_name: str, context: dict[str, Any] | None = None) -> bool:
        self.said.append(("started", run_id, agent_name, context))
        return True

    async def notify_agent_thinking(
        self, run_id: str, agent_name: str, reasoning: str, step_number: int | None = None
    ) -> bool:
        self.said.append(("thinking", run_id, agent_name, reasoning, step_number))
        return True

    def notify_tool_executing(self, agent_name: str, tool_name: str, parameters: dict[str, Any]) -> None:
        self.said.append(("executing", agent_name, tool_name, parameters))

    def notify_tool_completed(self, tool_name: str, result: dict[str, Any], **rest: Any) -> None:
        self.said.append(("executed", tool_name, result["status"], rest))

    async def notify_agent_completed(self, agent_name: str) -> None:
        self.said.append(("completed", agent_name))

    async def notify_agent_error(self, user_id: str, error: str) -> None:
        self.said.append(("error", user_id, error))

    async def aclose(self) -> None:
        self.closed += 1


class Helper(BaseAgent):
    async def execute(self, request: AgentRequest) -> Any:
        await self.think("hm")
        await self.tool_dispatcher.execute_tool("echo", {"a": 1})
        if request.text == "fail":
            raise ValueError("no such thing")
        return request.text


ECHO = with_tools(Tool("echo", lambda _, parameters: parameters))


async def two_runs(registry: AgentRegistry, manager: NotifyManager) -> None:
    registry.register("helper", Helper)
    agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
    await agent.run(AgentRequest("go", run_id="r-1"))
    with pytest.raises(ValueError, match="no such thing"):
        await agent.run(AgentRequest("fail", run_id="r-2"))


SAID = [
    ("started", "r-1", "helper", {"request": "go"}),
    ("thinking", "r-1", "helper", "hm", None),
    ("executing", "helper", "echo", {"tool": "echo", "call": 1}),
    ("executed", "echo", "ok", {}),
    ("completed", "helper"),
    ("started", "r-2", "helper", {"request": "fail"}),
    ("thinking", "r-2", "helper", "hm", None),
    ("executing", "helper", "echo", {"tool": "echo", "call": 2}),
    ("executed", "echo", "ok", {}),
    ("error", "ada", "ValueError: no such thing"),
]


@pytest.mark.parametrize("how", ["shared", "made", "made later"])
async def test_each_method_is_called_in_order_with_what_it_has_parameters_for(how: str) -> None:
    notified = Notified()

    async def later(_: UserExecutionContext) -> Notified:
        await asyncio.sleep(0)
        return notified

    manager = NotifyManager({"shared": notified, "made": lambda _: notified, "made later": later}[how])
    async with AgentRegistry(None, ECHO) as registry:
        await two_runs(registry, manager)
        assert notified.said == SAID
    assert notified.closed == (0 if how == "shared" else 1), "one for all users is not closed with one's session"


async def test_a_function_makes_one_for_each_user() -> None:
    made: dict[str, Notified] = {}

    def make(user_context: UserExecutionContext) -> Notified:
        return made.setdefault(user_context.user_id, Notified())

    manager = NotifyManager(make)
    async with registry_of(helper=BaseAgent) as registry:
        for user in ("ada", "bob", "ada"):
            agent = await registry.create_agent_for_user(user, "helper", context(user), manager)
            await agent.run(AgentRequest(user, run_id="r"))
    assert {user: [said[0] for said in one.said] for user, one in made.items()} == {
        "ada": ["started", "completed"] * 2,
        "bob": ["started", "completed"],
    }
    assert [one.closed for one in made.values()] == [1, 1]


async def test_mocks_are_called_with_the_usual_names() -> None:
    mock = Mock()
    for event_type in EventType:
        setattr(mock, f"notify_{event_type.value}", AsyncMock())
    async with AgentRegistry(None, ECHO) as registry:
        await two_runs(registry, NotifyManager(mock))
    always = {"user_id": "ada", "run_id": "r-1", "agent_name": "helper"}
    assert mock.notify_agent_started.await_args_list[0].kwargs == always | {"payload": {"request": "go"}}
    mock.notify_agent_completed.assert_awaited_once_with(**always, payload={})
    thinking = {"thought": "hm", "payload": {"thought": "hm"}}
    assert mock.notify_agent_thinking.await_args_list[0].kwargs == always | thinking
    told = mock.notify_agent_error.await_args.kwargs
    assert (told["run_id"], told["error"]) == ("r-2", "ValueError: no such thing")


def test_an_event_without_a_method_is_not_sent_and_a_payload_is_checked_all_the_same() -> None:
    class Few:
        said: list[str]

        def notify_agent_completed(self, run_id: str) -> None:
            self.said.append(run_id)

    few = Few()
    few.said = []
    bridge = NotifyBridge(few, "ada")
    bridge.emit(EventType.AGENT_STARTED, {"request": "x"}, ORIGIN)
    bridge.emit(EventType.AGENT_COMPLETED, {}, ORIGIN)
    assert few.said == ["run-1"]
    for event_type in (EventType.AGENT_STARTED, EventType.AGENT_COMPLETED):
        with pytest.raises(EventPayloadError):
            bridge.emit(event_type, {"a": object()}, ORIGIN)


def test_what_one_method_does_to_a_payload_changes_nothing() -> None:
    class Greedy:
        def notify_agent_started(self, context: dict[str, Any], metadata: dict[str, Any]) -> None:
            context["list"].append("mine")
            assert metadata == {"list": []}

    payload = {"list": list[str]()}
    NotifyBridge(Greedy(), "ada").emit(EventType.AGENT_STARTED, payload, ORIGIN)
    assert payload == {"list": []}


class Wants:
    def notify_tool_executing(self, tool_name: str, priority: int) -> None: ...


class WantsByPlace:
    def notify_tool_executing(self, tool_name: str, /) -> None: ...


@pytest.mark.parametrize(
    ("notified", "words"),
    [
        (object(), "an object has none of the methods notify_agent_started"),
        (Wants(), "notify_tool_executing requires 'priority'; an event gives .*tool_name"),
        (WantsByPlace(), "notify_tool_executing requires 'tool_name'; an event gives .*, by name"),
    ],
)
def test_what_cannot_be_adapted_is_refused_when_it_is_wrapped(notified: object, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        NotifyManager(notified)


async def test_a_function_whose_answer_cannot_be_adapted_fails_the_create_and_leaves_nothing() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        with pytest.raises(TypeError, match="has none of the methods"):
            await registry.create_agent_for_user("ada", "helper", context(), NotifyManager(lambda _: 3))
        assert registry.get_registry_health()["total_user_sessions"] == 0


async def test_one_that_is_not_wrapped_is_refused_with_the_way_to_wrap_it() -> None:
    class Makes:
        def create_bridge(self, _: UserExecutionContext) -> Any:
            return Notified()

    async with registry_of(helper=BaseAgent) as registry:
        for manager in (Notified(), Makes()):
            with pytest.raises(TypeError, match=r"wrap it as registry.NotifyManager\(...\)"):
                await registry.create_agent_for_user("ada", "helper", context(), manager)  # type: ignore[arg-type]
