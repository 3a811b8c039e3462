"""A user's plug-ins as mypy sees them: right parts, which are also run, and wrong ones, which are not.

A wrong use stands beside a `type: ignore` of its error. mypy warns of an ignore that nothing needs, so it fails as soon
as a wrong use begins to pass.
"""

from __future__ import annotations

from collections.abc import Mapping

from registry import (
    LLM,
    AgentRegistry,
    AgentRequest,
    AgentScope,
    BaseAgent,
    BridgeSource,
    CleanupReport,
    Completion,
    Dispatcher,
    DispatcherFactory,
    EventBridge,
    EventType,
    InMemoryUsage,
    LLMManager,
    ModelHandle,
    ModelHandleSource,
    Origin,
    Prompt,
    RegistryHealth,
    SessionMetrics,
    Supervisor,
    Tool,
    ToolContext,
    ToolDispatcher,
    ToolResult,
    UsageToolContext,
    UserExecutionContext,
    WebSocketManager,
    usage_dispatcher_factory,
)
from tests.running import run

# ------------------------------------------------------------------------------------------------------- right parts


class Heard:
    """A bridge that keeps the types of its events; it has neither `close` nor `user_id`, which it need not have."""

    def __init__(self) -> None:
        self.types: list[EventType] = []

    def emit(self, event_type: EventType, payload: Mapping[str, object], origin: Origin) -> None:
        self.types.append(event_type)


class HeardLater:
    """Likewise, by an `emit` that is awaited; it says whose it is."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.types: list[EventType] = []

    async def emit(self, event_type: EventType, payload: Mapping[str, object], origin: Origin) -> None:
        self.types.append(event_type)


class Bridges:
    """A manager that is not ours."""

    def create_bridge(self, user_context: UserExecutionContext) -> Heard:
        return Heard()


class BridgesLater:
    """Likewise, by a `create_bridge` that is awaited."""

    async def create_bridge(self, user_context: UserExecutionContext) -> HeardLater:
        return HeardLater(user_context.user_id)


class Echo:
    """A model that repeats its question; as good a handle, for it keeps nothing."""

    async def complete(self, prompt: Prompt) -> Completion:
        return Completion(prompt.text)


class Handles:
    """A source of handles that are not ours."""

    def create_handle(self, user_context: UserExecutionContext) -> Echo:
        return Echo()


class Upper:
    """A dispatcher that is not ours: its one tool answers with the tool's name in capitals."""

    def __init__(self, user_context: UserExecutionContext, bridge: EventBridge) -> None:
        self.user_context = user_context

    async def execute_tool(self, name: str, parameters: Mapping[str, object] | None = None) -> ToolResult:
        return ToolResult(name, name.upper())


async def upper_later(user_context: UserExecutionContext, bridge: EventBridge) -> Upper:
    return Upper(user_context, bridge)


def count(tool_context: ToolContext, parameters: Mapping[str, object]) -> int:
    return len(parameters)


async def calls(tool_context: ToolContext, parameters: dict[str, object]) -> int:
    assert isinstance(tool_context, UsageToolContext)
    assert tool_context.usage is not None
    return tool_context.usage.totals()["calls"]


class Asking(BaseAgent):
    """An agent that uses all it holds; its answer has a type of its own."""

    async def execute(self, request: AgentRequest) -> list[str]:
        await self.think(request.text)
        tool = await self.tool_dispatcher.execute_tool("count", {"a": 1})
        completion = await self.llm.complete(Prompt.of(request.text))
        return [str(tool.output), completion.text]


async def asking_later(scope: AgentScope) -> Asking:
    return Asking(scope)


def ours(user_context: UserExecutionContext, bridge: EventBridge) -> ToolDispatcher:
    return ToolDispatcher(user_context, bridge, [Tool("count", count)])


MANAGERS: tuple[BridgeSource, ...] = (WebSocketManager(), Bridges(), BridgesLater())
MODEL: LLM = Echo()
HANDLES: tuple[ModelHandleSource, ...] = (LLMManager(MODEL), Handles())
FACTORIES: tuple[DispatcherFactory, ...] = (
    ours,
    Upper,
    upper_later,
    usage_dispatcher_factory(InMemoryUsage(), tools=[Tool("calls", calls), Tool("count", count)]),
)


def test_the_parts_that_type_check_also_work_together() -> None:
    async def main() -> None:
        for manager in MANAGERS:
            for handles in HANDLES:
                for factory in FACTORIES:
                    await one_day(AgentRegistry(handles, factory), manager)

    async def one_day(registry: AgentRegistry, manager: BridgeSource) -> None:
        registry.register("asking", Asking)
        registry.register("later", asking_later)
        agent = await registry.create_agent_for_user("ada", "asking", UserExecutionContext("ada"), manager)
        assert (await agent.run("x")).output in (["1", "x"], ["COUNT", "x"])
        session = await registry.get_user_session("ada")
        metrics: SessionMetrics = session.get_metrics()
        assert metrics["has_websocket_bridge"]
        health: RegistryHealth = registry.get_registry_health()
        assert health["total_user_agents"] == 1
        report: CleanupReport = await registry.cleanup_user_session("ada")
        assert report["errors"] == []
        Supervisor(registry)
        await registry.aclose()

    run(main)


# ------------------------------------------------------------------------------------------------------- wrong parts


class Sends:
    """No bridge: its method has another name."""

    def send(self, event_type: EventType, payload: Mapping[str, object], origin: Origin) -> None: ...


class MakesText:
    """No manager: its product is no bridge."""

    def create_bridge(self, user_context: UserExecutionContext) -> str:
        return user_context.user_id


class Blocking:
    """No model: it does not wait."""

    def complete(self, prompt: Prompt) -> Completion:
        return Completion(prompt.text)


class TextHandles:
    """No source of handles: its product is a text."""

    def create_handle(self, user_context: UserExecutionContext) -> str:
        return user_context.user_id


class Runs:
    """No dispatcher: its method has another name."""

    async def run_tool(self, name: str, parameters: Mapping[str, object] | None = None) -> ToolResult:
        return ToolResult(name, None)


def runs(user_context: UserExecutionContext, bridge: EventBridge) -> Runs:
    return Runs()


def without_bridge(user_context: UserExecutionContext) -> Dispatcher:
    return ToolDispatcher(user_context)


def of_text(scope: AgentScope) -> str:
    return scope.context.user_id


async def wrong_uses(registry: AgentRegistry, agent: BaseAgent, context: UserExecutionContext) -> None:
    """Never called: mypy reads it."""
    bridge: EventBridge = Sends()  # type: ignore[assignment]
    await registry.create_agent_for_user("ada", "x", context, MakesText())  # type: ignore[arg-type]
    await registry.create_agent_for_user("ada", "x", context, bridge)  # type: ignore[arg-type]
    await registry.create_agent_for_user(7, "x", context)  # type: ignore[arg-type]
    await (await registry.get_user_session("ada")).set_websocket_manager(MakesText())  # type: ignore[arg-type]
    handle: ModelHandle = Blocking()  # type: ignore[assignment]
    handle = agent.llm
    await handle.complete("a text")  # type: ignore[arg-type]
    LLMManager(Blocking())  # type: ignore[arg-type]
    AgentRegistry(Echo())  # type: ignore[arg-type]
    AgentRegistry(TextHandles())  # type: ignore[arg-type]
    AgentRegistry(None, runs)  # type: ignore[arg-type]
    AgentRegistry(None, without_bridge)  # type: ignore[arg-type]
    registry.register("x", of_text)  # type: ignore[arg-type]
    Tool("x", lambda parameters: parameters)  # type: ignore[arg-type,misc]
    ToolDispatcher(context, Sends())  # type: ignore[arg-type]
    Supervisor(context)  # type: ignore[arg-type]
    await agent.tool_dispatcher.execute_tool("x", ["a list"])  # type: ignore[arg-type]
    agent.bridge.emit("agent_started", {}, Origin("", "", "", ""))  # type: ignore[arg-type]
    agent.bridge.emit(EventType.AGENT_STARTED, {}, None)  # type: ignore[arg-type]
    await agent.emit("agent_started")  # type: ignore[arg-type]
    (await registry.cleanup_user_session("ada"))["error"]  # type: ignore[typeddict-item]
    registry.get_registry_health()["total_user_agents"].upper()  # type: ignore[attr-defined]
    (await registry.lifecycle.monitor_memory_usage("ada"))["complete"]  # type: ignore[typeddict-item]
