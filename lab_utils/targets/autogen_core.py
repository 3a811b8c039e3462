"""The target of autogen-core's SingleThreadedAgentRuntime, used as its documentation recommends.

Agents are registered by type and made by the runtime on demand, one for each `AgentId`. The key is the application's
data, one for each session in the documentation: here one for each user and conversation, of the characters that the
documentation allows. A run is a message sent to that id. Tools are `BaseTool`s that the factory gives to the agent,
over its own user's rows.

These are no capabilities here, because the runtime does not have them: sessions, permissions, a context of each
request, a lookup that makes nothing, giving an agent back (only the whole runtime is closed), counts, and clients
outside the runtime that receive events. Its topics join agents; the way from an agent to a browser is the app's own.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn
from weakref import WeakKeyDictionary

from autogen_core import (
    AgentId,
    AgentInstantiationContext,
    CancellationToken,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    message_handler,
)
from autogen_core.tools import BaseTool
from opentelemetry.trace import get_tracer_provider
from pydantic import BaseModel

from lab_utils.target import (
    Capability,
    Command,
    EndReport,
    Handle,
    NotSupported,
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
from lab_utils.targets.lab_agent import obey

__all__ = ["AutogenCoreTarget", "LabAgent", "Order", "key_of", "user_of"]

# A library's warnings go to stderr while nobody has configured logging; the lab's own output stands there.
logging.getLogger("autogen_core").addHandler(logging.NullHandler())

_ESCAPED = re.compile("[^A-Za-z0-9]")


class Order(BaseModel):
    """A command of the lab as a message."""

    action: str
    arguments: dict[str, Any]


class Answer(BaseModel):
    """The answer of an agent."""

    value: Any


class _Rows(BaseModel):
    """Arguments of the tool `rows`: none."""


class _Total(BaseModel):
    """Arguments of the tool `total`."""

    column: str


class _RowsAnswer(BaseModel):
    rows: list[dict[str, Any]]


class _TotalAnswer(BaseModel):
    total: float


class RowsTool(BaseTool[_Rows, _RowsAnswer]):
    """All rows of one user."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(_Rows, _RowsAnswer, "rows", "All rows of the user.")
        self._own = rows

    async def run(self, args: _Rows, cancellation_token: CancellationToken) -> _RowsAnswer:
        return _RowsAnswer(rows=[dict(row) for row in self._own])


class TotalTool(BaseTool[_Total, _TotalAnswer]):
    """The sum of a column over one user's rows."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(_Total, _TotalAnswer, "total", "The sum of a column over the user's rows.")
        self._own = rows

    async def run(self, args: _Total, cancellation_token: CancellationToken) -> _TotalAnswer:
        return _TotalAnswer(total=sum(row[args.column] for row in self._own))


class LabAgent(RoutedAgent):
    """An agent of the lab in the runtime."""

    def __init__(self, recipe: Recipe, user: str, rows: Sequence[Row]) -> None:
        super().__init__("An agent of the lab.")
        self.recipe = recipe
        self.user = user
        self.memory: dict[str, Any] = {}
        self.tools: list[BaseTool[Any, Any]] = [RowsTool(rows), TotalTool(rows)]

    @message_handler
    async def on_order(self, message: Order, ctx: MessageContext) -> Answer:
        """Carry out the lab's command."""
        if self.recipe.on_run is not None:
            await self.recipe.on_run(self.user)

        async def call_tool(name: str, parameters: Mapping[str, Any]) -> Any:
            tool = next((tool for tool in self.tools if tool.name == name), None)
            if tool is None:
                raise Refused(Refusal.UNKNOWN_TOOL, f"no tool {name!r}; known: rows, total")
            result = await tool.run_json(parameters, ctx.cancellation_token)
            # As text: a model receives a tool's result in this form.
            return json.loads(tool.return_value_as_string(result))[name]

        return Answer(value=await obey(message.action, message.arguments, self.memory, {}, call_tool, _think))

    async def close(self) -> None:
        if self.recipe.on_cleanup is not None:
            await self.recipe.on_cleanup(self.user)


async def _think(thought: str) -> None:
    # Nobody listens: the runtime has no clients.
    return None


def key_of(user: str, thread: str) -> str:
    """The agent key of a user's conversation: letters, digits and underscores; no two pairs have the same."""
    return f"u{_ESCAPED.sub(_escape, user)}__{_ESCAPED.sub(_escape, thread)}"


def user_of(key: str) -> str:
    """The user of an agent key."""
    return re.sub("_([0-9a-f]{6})", lambda found: chr(int(found[1], 16)), key[1:].partition("__")[0])


def _escape(found: re.Match[str]) -> str:
    return f"_{ord(found[0]):06x}"


class AutogenCoreTarget:
    """A SingleThreadedAgentRuntime behind the lab's door: one runtime for all users, one agent key a conversation.

    `create` and `get_or_create` are one to it: the runtime makes the agent unless it is there. `stop` lets the runtime
    become idle, for at most the time that a cleanup has, and closes it.
    """

    name = "autogen_core"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.ANY_VALUES, Capability.THREADS, Capability.TOOLS, Capability.GET_OR_CREATE, Capability.PARTS}
    )

    def __init__(self) -> None:
        self._instances: WeakKeyDictionary[LabAgent, str] = WeakKeyDictionary()
        self._numbers = itertools.count(1)
        self._recipes: Sequence[Recipe] = ()
        self._rows: Mapping[str, Sequence[Row]] = {}
        self._close_timeout = 5.0
        self.runtime: SingleThreadedAgentRuntime

    async def start(self, recipes: Sequence[Recipe], rows: Mapping[str, Sequence[Row]], close_timeout: float) -> None:
        self._recipes, self._rows, self._close_timeout = recipes, rows, close_timeout
        self.runtime = SingleThreadedAgentRuntime()
        for recipe in recipes:
            await LabAgent.register(self.runtime, recipe.agent_type, self._factory(recipe))
        self.runtime.start()

    def _factory(self, recipe: Recipe) -> Any:
        async def make() -> LabAgent:
            user = user_of(AgentInstantiationContext.current_agent_id().key)
            if recipe.on_create is not None:
                await recipe.on_create(user)
            return LabAgent(recipe, user, self._rows.get(user, ()))

        return make

    async def stop(self) -> None:
        idle = asyncio.ensure_future(self.runtime.stop_when_idle())
        await asyncio.wait({idle}, timeout=self._close_timeout)
        try:
            await self.runtime.close()
        finally:
            # Not before: a cancelled `stop_when_idle` leaves the runtime's own loop running.
            idle.cancel()
            await asyncio.wait({idle})

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
        return await self.get_or_create(user, agent_type, thread)

    async def attach(self, user: str) -> None:
        _lacking(Capability.EVENTS)

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        _lacking(Capability.LOOKUP)

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        if all(recipe.agent_type != agent_type for recipe in self._recipes):
            raise Refused(Refusal.UNKNOWN_TYPE, f"no agent type {agent_type!r} is registered")
        agent_id = AgentId(agent_type, key_of(user, thread))
        agent = await self.runtime.try_get_underlying_agent_instance(agent_id, LabAgent)
        name = self._instances.get(agent)
        if name is None:
            name = self._instances[agent] = f"#{next(self._numbers)}"
        return Handle(user, agent_type, thread, name, agent)

    async def run(self, handle: Handle, command: Command) -> Any:
        order = Order(action=command.action, arguments=dict(command.arguments))
        answer = await self.runtime.send_message(order, AgentId(handle.agent_type, key_of(handle.user, handle.thread)))
        return answer.value

    async def remove(self, user: str, agent_type: str) -> bool:
        _lacking(Capability.REMOVE)

    async def reset(self, user: str) -> int:
        _lacking(Capability.REMOVE)

    async def end(self, user: str) -> EndReport:
        _lacking(Capability.END)

    async def end_all(self) -> EndReport:
        _lacking(Capability.END)

    def subscribe(self, user: str) -> Subscription:
        _lacking(Capability.EVENTS)

    def connections(self, user: str | None = None) -> int:
        _lacking(Capability.EVENTS)

    def agent_id(self, handle: Handle) -> str:
        _lacking(Capability.AGENT_IDS)

    def population(self) -> Population:
        _lacking(Capability.POPULATION)

    async def parts(self, handle: Handle) -> Mapping[str, Any]:
        agent: LabAgent = handle.native
        return {"agent": agent, "dispatcher": agent.tools}

    def trusted(self) -> Sequence[object]:
        # The lab's recipes with their faults, the handler that the framework has wrapped (code, which keeps nothing),
        # and the process's tracer provider. Not the runtime: it holds everybody's agents.
        hooks = [hook for recipe in self._recipes for hook in (recipe.on_create, recipe.on_run, recipe.on_cleanup)]
        handlers = [LabAgent.on_order, inspect.unwrap(LabAgent.on_order)]
        return [*self._recipes, *(hook for hook in hooks if hook), *handlers, get_tracer_provider()]

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        _lacking(Capability.SUPERVISION)

    async def orchestrate(self, user: str, request: str) -> SupervisionReport:
        _lacking(Capability.ORCHESTRATION)

    def asgi_app(self) -> Any:
        _lacking(Capability.SOCKETS)

    def token(self, user: str, *, audience: str | None = None, max_age: float | None = None) -> str:
        _lacking(Capability.SOCKETS)

    def pass_time(self, seconds: float) -> None:
        _lacking(Capability.EXPIRY)

    def choose_model(self, over: str, plan: Any = None) -> str:
        _lacking(Capability.MODEL)

    def prompts(self) -> Sequence[Prompted]:
        _lacking(Capability.MODEL)


def _lacking(capability: Capability) -> NoReturn:
    raise NotSupported(f"autogen-core's SingleThreadedAgentRuntime has no {capability}")
