"""A day in the life of a registry without `registry/usage/`: a script, run in a copy that lacks it."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Any

import pytest

import registry
from registry import (
    AgentRegistry,
    AgentRequest,
    BaseAgent,
    Plan,
    Step,
    Supervisor,
    Tool,
    ToolDispatcher,
    UserExecutionContext,
    WebSocketManager,
)


class Counter(BaseAgent):
    """Counts by a tool, and adds an earlier step's count."""

    async def execute(self, request: AgentRequest) -> int:
        counted = (await self.tool_dispatcher.execute_tool("count", {"text": request.text})).output
        return int(counted + request.parameters.get("first", 0))


def dispatcher(user_context: UserExecutionContext, bridge: Any) -> ToolDispatcher:
    return ToolDispatcher(user_context, bridge, [Tool("count", lambda _, parameters: len(str(parameters["text"])))])


async def main() -> None:
    events = WebSocketManager()
    client = events.connect("ada")
    async with AgentRegistry(tool_dispatcher_factory=dispatcher) as agents:
        agents.register("counter", Counter)
        context = UserExecutionContext("ada")
        agent = await agents.create_agent_for_user("ada", "counter", context, events)
        assert (await agent.run("four")).output == 4
        assert [(await client.receive()).type for _ in range(4)] == [
            "agent_started",
            "tool_executing",
            "tool_completed",
            "agent_completed",
        ]
        plan = Plan((Step("first", "counter"), Step("second", "counter", after=("first",), text="xx")))
        result = await Supervisor(agents).run(plan, context, "four")
        assert result.outputs == {"first": 4, "second": 6}
        assert (await agents.monitor_all_users())["total_agents"] == 1
        assert (await agents.cleanup_user_session("ada"))["cleaned_agents"] == 1
        with pytest.raises(ModuleNotFoundError, match=r"registry\.usage"):
            agents.register_default_agents()
        assert agents.list_agents() == ["counter"]


assert importlib.util.find_spec("registry.usage") is None, registry.__file__
asyncio.run(main())
