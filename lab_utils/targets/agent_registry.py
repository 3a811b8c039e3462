"""The target of our own AgentRegistry; it, its models and the planted defects are all of the lab that imports that."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from lab_utils.target import (
    Bounds,
    Capability,
    Command,
    Delivered,
    EndReport,
    Handle,
    PlannedStep,
    Population,
    Prompted,
    Recipe,
    Refusal,
    Refused,
    Row,
    Subscription,
    SupervisionReport,
)
from lab_utils.targets.failing_model import FailingLLM
from lab_utils.targets.lab_agent import obey
from registry import (
    GOLDEN_PATH,
    USAGE_TOOLS,
    AgentRegistry,
    AgentRequest,
    AgentScope,
    BaseAgent,
    CapacityExceeded,
    Connection,
    ContextBoundaryError,
    DuplicateAgentType,
    EventType,
    InMemoryUsage,
    InvalidUserId,
    Limits,
    LLMManager,
    Origin,
    PermissionDenied,
    Plan,
    PlanFailed,
    PlanResult,
    Prompt,
    ScriptedLLM,
    SessionClosed,
    Step,
    Supervisor,
    TokenSigner,
    Tool,
    ToolContext,
    ToolDispatcher,
    UncopyableValue,
    UnknownAgentType,
    UnknownTool,
    UsageRecord,
    UsageToolContext,
    UserExecutionContext,
    WebSocketManager,
    WrongEventLoop,
    usage_dispatcher_factory,
)

__all__ = ["LAB_TOOLS", "AgentRegistryTarget", "LabAgent", "translated"]

_KINDS: tuple[tuple[type[Exception], Refusal], ...] = (
    (ContextBoundaryError, Refusal.BOUNDARY),
    (PermissionDenied, Refusal.PERMISSION),
    (UnknownAgentType, Refusal.UNKNOWN_TYPE),
    (UnknownTool, Refusal.UNKNOWN_TOOL),
    (InvalidUserId, Refusal.INVALID_USER),
    (SessionClosed, Refusal.CLOSED),
    (CapacityExceeded, Refusal.CAPACITY),
    (DuplicateAgentType, Refusal.DUPLICATE),
    (UncopyableValue, Refusal.NOT_PLAIN),
    (WrongEventLoop, Refusal.WRONG_LOOP),
)


_UNLESS_GIVEN = Limits()


class LabAgent(BaseAgent):
    """An agent of the lab in our own registry."""

    __slots__ = ("memory", "recipe")

    def __init__(self, scope: AgentScope, recipe: Recipe) -> None:
        super().__init__(scope)
        self.recipe = recipe
        self.memory: dict[str, Any] = {}

    async def execute(self, request: AgentRequest) -> Any:
        if self.recipe.on_run is not None:
            await self.recipe.on_run(self.context.user_id)
        if request.text == "ask":
            return (await self.llm.complete(Prompt.of(request.parameters["text"]))).text
        return await obey(
            request.text, request.parameters, self.memory, self.context.agent_context, self._call_tool, self.think
        )

    async def _call_tool(self, name: str, parameters: Mapping[str, Any]) -> Any:
        return (await self.tool_dispatcher.execute_tool(name, parameters)).output


class CleanedAgent(LabAgent):
    """One with a cleanup. The registry closes agents that have none in another way."""

    __slots__ = ()

    async def cleanup(self) -> None:
        if self.recipe.on_cleanup is not None:
            await self.recipe.on_cleanup(self.context.user_id)


def _rows(tool_context: ToolContext, _: dict[str, Any]) -> Sequence[Mapping[str, Any]]:
    usage = tool_context.usage if isinstance(tool_context, UsageToolContext) else None
    return usage.records() if usage is not None else []


def _total(tool_context: ToolContext, parameters: dict[str, Any]) -> float:
    return float(sum(row[parameters["column"]] for row in _rows(tool_context, {})))


LAB_TOOLS = (
    Tool("rows", _rows, description="All rows of the user."),
    Tool("total", _total, description="The sum of a column over the user's rows."),
    Tool("admin", lambda _, __: "admin", requires=frozenset({"admin"}), description="Needs the permission admin."),
)


class _LazyUsage(InMemoryUsage):
    """A source that reads a user's rows when a session is opened, and keeps none of them."""

    def __init__(self, rows: Mapping[str, Sequence[Row]]) -> None:
        super().__init__()
        self._rows = rows

    def records_for(self, user_id: str) -> Any:
        return (UsageRecord(**row) for row in self._rows.get(user_id, ()))


def _source_of(rows: Mapping[str, Sequence[Row]]) -> InMemoryUsage:
    if all(isinstance(given, list) for given in rows.values()):
        return InMemoryUsage({user: [UsageRecord(**row) for row in given] for user, given in rows.items()})
    return _LazyUsage(rows)


class _Clock:
    """A clock, and as far ahead of it as time was made to pass."""

    def __init__(self, real: Callable[[], float]) -> None:
        self._real = real
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._real() + self.ahead


class AgentRegistryTarget:
    """Our own registry behind the lab's door. Subclasses plant a defect by making another registry or manager.

    `llm_over` and `llm_plan` are the choice of `choose_model`: whether agents get `ScriptedLLM`, or the same words from
    the lab's stand-in server, and when either misbehaves. `llm_options` go to the client of it.
    """

    name = "agent_registry"
    capabilities = frozenset(Capability) - {Capability.SERVICE}
    llm_over = "scripted"
    llm_plan: Any = None
    llm_options: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        self._instances: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._count = 0
        self._recipes: dict[str, Recipe] = {}
        self._http: Any = None
        self.secret = secrets.token_hex(32)
        self.clock = _Clock(time.time)
        self.bounds = Bounds()
        # Agents hold their session's clock. One of the lab's would be an object that all users share.
        self.uptime: Callable[[], float] = time.monotonic
        self._heartbeats: WeakSet[Any] = WeakSet()
        self._signer: Any = None
        self._issuers: dict[tuple[str, float], TokenSigner] = {}
        self.llm: Any = ScriptedLLM()
        self.manager = WebSocketManager()
        self.registry: AgentRegistry = AgentRegistry()

    def make_llm(self) -> Any:
        """The model of all agents."""
        if self._http is not None:
            return self._http.llm
        return ScriptedLLM() if self.llm_plan is None else FailingLLM(self.llm_plan)

    def make_manager(self) -> Any:
        """The event manager that every create brings."""
        return WebSocketManager()

    def make_signer(self) -> Any:
        """Issues and checks clients' tokens, by `secret`."""
        return TokenSigner(self.secret, clock=self.clock)

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        """The ASGI app that carries the manager's events."""
        return self.timed(manager.asgi_app(signer))

    def timed(self, app: Any) -> Any:
        """Let an events app go by the target's clock; without that it never notices `pass_time`."""
        app.heartbeat.clock = self.clock
        self._heartbeats.add(app.heartbeat)
        return app

    def make_registry(self, source: InMemoryUsage, limits: Limits) -> AgentRegistry:
        """The registry under test."""
        dispatchers = usage_dispatcher_factory(source, tools=LAB_TOOLS)
        return AgentRegistry(LLMManager(self.llm), dispatchers, limits=limits, clock=self.uptime)

    def make_agent(self, scope: AgentScope, recipe: Recipe) -> BaseAgent:
        """An agent of the lab on this scope."""
        # Most have one, as most agents do.
        has_none = recipe.on_run is not None and recipe.on_cleanup is None
        return LabAgent(scope, recipe) if has_none else CleanedAgent(scope, recipe)

    async def start(self, recipes: Sequence[Recipe], rows: Mapping[str, Sequence[Row]], close_timeout: float) -> None:
        source = _source_of(rows)
        self._http = _llm_over_http(self.llm_plan, self.llm_options) if self.llm_over == "http" else None
        self.llm = self.make_llm()
        self.manager = self.make_manager()
        self.registry = self.make_registry(source, self._limits(close_timeout))
        self.registry.register_default_agents()
        for recipe in recipes:
            self.register(recipe)

    def _limits(self, close_timeout: float) -> Limits:
        bounds = self.bounds
        return Limits(
            close_timeout=close_timeout,
            max_agents_per_user=bounds.agents_per_user or _UNLESS_GIVEN.max_agents_per_user,
            max_users=bounds.users,
            idle_timeout=bounds.idle_s,
            max_session_age=bounds.age_s or _UNLESS_GIVEN.max_session_age,
        )

    def _factory(self, recipe: Recipe) -> Any:
        async def make(scope: AgentScope) -> BaseAgent:
            if recipe.on_create is not None:
                await recipe.on_create(scope.context.user_id)
            return self.make_agent(scope, recipe)

        return make

    async def stop(self) -> None:
        try:
            await self.registry.aclose()
            self.manager.close()
        finally:
            if self._http is not None:
                await self._http.aclose()

    def choose_model(self, over: str, plan: Any = None) -> str:
        if over not in ("scripted", "http"):
            raise ValueError(f"a model over {over!r} is unknown; choose scripted or http")
        self.llm_over, self.llm_plan = over, plan
        return over

    def prompts(self) -> Sequence[Prompted]:
        return () if self._http is None else tuple(self._http.asked)

    async def create(
        self,
        user: str,
        agent_type: str,
        *,
        thread: str = "main",
        data: Mapping[str, Any] | None = None,
        permissions: frozenset[str] = frozenset(),
        context_user: str | None = None,
        connect: bool = True,
    ) -> Handle:
        with translated():
            owner = user if context_user is None else context_user
            context = UserExecutionContext(owner, thread, agent_context=data, permissions=permissions)
            manager = self.manager if connect else None
            return self._handle(await self.registry.create_agent_for_user(user, agent_type, context, manager))

    async def attach(self, user: str) -> None:
        with translated():
            session = await self.registry.get_user_session(user)
            await session.set_websocket_manager(self.manager)

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        with translated():
            agent = await self.registry.get_user_agent(user, agent_type, thread)
            return None if agent is None else self._handle(agent)

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        with translated():
            context = UserExecutionContext(user, thread, permissions=permissions)
            return self._handle(await self.registry.get_or_create_agent(context, agent_type))

    async def run(self, handle: Handle, command: Command) -> Any:
        with translated():
            request = AgentRequest(command.action, command.arguments, command.run or None)
            return (await handle.native.run(request)).output

    async def remove(self, user: str, agent_type: str) -> bool:
        with translated():
            return await self.registry.remove_user_agent(user, agent_type)

    async def reset(self, user: str) -> int:
        with translated():
            return int((await self.registry.reset_user_agents(user))["agents_reset"])

    async def end(self, user: str) -> EndReport:
        with translated():
            report = await self.registry.cleanup_user_session(user)
            return EndReport(report["status"] == "cleaned", report["cleaned_agents"], tuple(report["errors"]))

    async def end_all(self) -> EndReport:
        with translated():
            report = await self.registry.emergency_cleanup_all()
        return EndReport(report["users_cleaned"] > 0, report["agents_cleaned"], tuple(report["errors"]))

    def subscribe(self, user: str) -> Subscription:
        with translated():
            return _Client(self.manager.connect(user))

    @property
    def signer(self) -> Any:
        """Made when it is first needed: without the extra `server` there is nothing to sign with, nor a need to."""
        if self._signer is None:
            self._signer = self.make_signer()
        return self._signer

    def asgi_app(self) -> Any:
        return self.make_events_app(self.manager, self.signer)

    def token(self, user: str, *, audience: str | None = None, max_age: float | None = None) -> str:
        good_for = self.signer.max_age
        # A token holds its time of issue, in whole seconds, but not its lifetime.
        ago = 0.0 if max_age is None else good_for - max_age + (2.0 if max_age <= 0 else 0.0)
        kind = (audience or self.signer.audience, ago)
        if kind not in self._issuers:
            # Kept: each signer has a class of its own, which only the cyclic collector frees.
            self._issuers[kind] = TokenSigner(
                self.secret, max_age=good_for, audience=kind[0], clock=lambda: self.clock() - ago
            )
        return self._issuers[kind].issue(user)

    def pass_time(self, seconds: float) -> None:
        self.clock.ahead += seconds
        for heartbeat in self._heartbeats:
            heartbeat.beat_now()

    def connections(self, user: str | None = None) -> int:
        with translated():
            return int(self.manager.connection_count(user))

    def agent_id(self, handle: Handle) -> str:
        return str(handle.native.agent_id)

    def population(self) -> Population:
        health = self.registry.get_registry_health()
        return Population(health["total_user_sessions"], health["total_user_agents"])

    async def parts(self, handle: Handle) -> Mapping[str, Any]:
        agent = handle.native
        return {
            "session": await self.registry.get_user_session(handle.user),
            "agent": agent,
            "context": agent.context,
            "dispatcher": agent.tool_dispatcher,
            "bridge": agent.bridge,
            "llm": agent.llm,
        }

    async def use_part(self, part: str, held: Any) -> Any:
        with translated():
            if held is None:
                return None
            if part == "dispatcher":
                return (await held.execute_tool("rows", {})).output
            if part == "bridge":
                held.emit(EventType.AGENT_THINKING, {"thought": "a part is used"}, Origin("main", "lab", "lab", "lab"))
            return (await held.complete(Prompt.of("a part is used"))).text if part == "llm" else None

    def trusted(self) -> Sequence[object]:
        # Frozen tools, the stateless LLM, and the lab's own recipes with the faults that hang on them.
        recipes = self._recipes.values()
        hooks = [hook for recipe in recipes for hook in (recipe.on_create, recipe.on_run, recipe.on_cleanup)]
        tools = (*USAGE_TOOLS, *LAB_TOOLS)
        return [self.llm, *tools, *(tool.run for tool in tools), *recipes, *(hook for hook in hooks if hook)]

    def limit(self, bounds: Bounds) -> None:
        self.bounds = bounds
        if (bounds.idle_s, bounds.age_s) != (None, None):
            self.uptime = _Clock(time.monotonic)

    def move_clock(self, seconds: float) -> None:
        assert isinstance(self.uptime, _Clock), "no bound of time was set"
        self.uptime.ahead += seconds

    async def sweep(self) -> Sequence[str]:
        with translated():
            return (await self.registry.lifecycle.sweep())["ended"]

    def register(self, recipe: Recipe, *, replace: bool = False) -> None:
        with translated():
            factory = self._factory(recipe)
            self.registry.register(recipe.agent_type, factory, requires=recipe.requires, replace=replace)
            self._recipes[recipe.agent_type] = recipe

    def make_apart(self, user: str, agent_type: str, thread: str = "main") -> Handle:
        with translated():
            context = UserExecutionContext(user, thread)
            llm = LLMManager(self.llm).create_handle(context)
            scope = AgentScope(context, ToolDispatcher(context, None, LAB_TOOLS), None, llm)
            return self._named(self.make_agent(scope, self._recipes[agent_type]), agent_type)

    async def adopt(self, user: str, handle: Handle) -> None:
        with translated():
            before = self.population().sessions
            session = await self.registry.get_user_session(user)
            was_opened = self.population().sessions > before
            try:
                session.register_agent(handle.agent_type, handle.native)
            except Exception:
                if was_opened:
                    # Opened for this agent alone, as an app would know.
                    await self.registry.cleanup_user_session(user)
                raise

    async def create_strict(self, user: str, agent_type: str, data: Mapping[str, Any]) -> Handle:
        with translated():
            context = UserExecutionContext(user, agent_context=data, isolation_level="strict")
            return self._handle(await self.registry.create_agent_for_user(user, agent_type, context))

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        steps = Plan(tuple(Step(step.name, step.agent_type, step.after, step.timeout, "collect") for step in plan))
        return await self._supervised(steps, user, "collect")

    async def orchestrate(self, user: str, request: str) -> SupervisionReport:
        return await self._supervised(GOLDEN_PATH, user, request)

    def make_supervisor(self) -> Any:
        """The supervisor under test."""
        return Supervisor(self.registry)

    async def _supervised(self, plan: Plan, user: str, request: str) -> SupervisionReport:
        with translated():
            context = UserExecutionContext(user)
            await self.attach(user)
            try:
                result: PlanResult = await self.make_supervisor().run(plan, context, request)
                error = ""
            except PlanFailed as failure:
                result, error = failure.result, str(failure)
            statuses = {outcome.name: outcome.status.value for outcome in result.outcomes}
            return SupervisionReport(statuses, dict(result.outputs), error)

    def _handle(self, agent: BaseAgent) -> Handle:
        return self._named(agent, agent.agent_type)

    def _named(self, agent: BaseAgent, agent_type: str) -> Handle:
        name = self._instances.get(agent)
        if name is None:
            self._count += 1
            name = self._instances[agent] = f"#{self._count}"
        return Handle(agent.context.user_id, agent_type, agent.context.thread_id, name, agent)


class _Client:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._received: list[Delivered] = []

    @property
    def is_open(self) -> bool:
        return self._connection.closed_reason is None

    def received(self) -> Sequence[Delivered]:
        while (event := self._connection.receive_nowait()) is not None:
            origin = event.origin
            self._received.append(
                Delivered(
                    user=event.user_id,
                    seq=event.seq,
                    type=event.type.value,
                    agent=origin.agent_type,
                    run=origin.run_id,
                    body=event.payload_json,
                    stream=event.stream,
                    thread=origin.thread_id,
                    agent_id=origin.agent_id,
                )
            )
        return tuple(self._received)

    async def close(self) -> None:
        self._connection.close()


def _llm_over_http(plan: Any, options: Mapping[str, Any]) -> Any:
    try:
        # Here, for the base install has no HTTP server.
        from lab_utils.targets.llm_over_http import LLMOverHTTP
    except ImportError as error:
        raise ImportError("a model over HTTP needs more: pip install 'agent-registry-lab[openai,server]'") from error
    return LLMOverHTTP(plan, **options)


class translated:  # It is used as a function is.
    """Translate a refusal of the registry into the lab's words.

    No generator. From Python 3.12 on, a generator that answers an error with another leaves the first in a reference
    cycle, with all objects of its traceback. A registry would then be blamed for objects that only its door to the lab
    keeps.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        for refused, refusal in _KINDS:
            if isinstance(error, refused):
                raise Refused(refusal, str(error)) from error
