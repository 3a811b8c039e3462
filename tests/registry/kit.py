"""Shared by the tests of the registry: gates, clocks, agents, foreign bridges, and the objects that are alive."""

from __future__ import annotations

import asyncio
import gc
import time
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from registry import (
    AgentRegistry,
    AgentRequest,
    AgentScope,
    BaseAgent,
    Connection,
    Event,
    EventType,
    Limits,
    Tool,
    ToolDispatcher,
    UserExecutionContext,
)

T = TypeVar("T")


def same(one: Any, other: Any) -> bool:
    """Whether both are one object; unlike a bare `is` it reveals nothing about either to a type checker."""
    return one is other


class Gate:
    """A place that code under test passes through when the test lets it."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.arrived = 0
        self.cancelled = 0
        self._reached = asyncio.Event()
        self._open = asyncio.Event()
        if is_open:
            self._open.set()

    async def pass_through(self) -> None:
        self.arrived += 1
        self._reached.set()
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def pass_stubbornly(self) -> None:
        """Ignores every cancellation until the gate opens."""
        self.arrived += 1
        self._reached.set()
        while not self._open.is_set():
            try:
                await self._open.wait()
            except asyncio.CancelledError:
                self.cancelled += 1

    async def reached(self) -> None:
        await self._reached.wait()

    def open(self) -> None:
        self._open.set()


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def context(user_id: str = "ada", thread_id: str = "main", **rest: Any) -> UserExecutionContext:
    return UserExecutionContext(user_id, thread_id, **rest)


def registry_of(
    *,
    limits: Limits = Limits(),  # noqa: B008 - frozen.
    clock: Callable[[], float] = time.monotonic,
    **factories: Any,
) -> AgentRegistry:
    """A registry with these factories, each registered under its name here."""
    registry = AgentRegistry(limits=limits, clock=clock)
    for agent_type, factory in factories.items():
        registry.register(agent_type, factory)
    return registry


def keeping(made: list[Closable]) -> type[Closable]:
    """A class of agents that puts all that are made into the list."""

    class Kept(Closable):
        def __init__(self, scope: AgentScope) -> None:
            super().__init__(scope)
            made.append(self)

    return Kept


class Closable(BaseAgent):
    """Counts its closings; the cleanup never suspends."""

    closed = 0

    async def cleanup(self) -> None:
        self.closed += 1


class Waiting(Closable):
    """The cleanup gives up the processor once."""

    async def cleanup(self) -> None:
        self.closed += 1
        await asyncio.sleep(0)


class Raising(Closable):
    """A cleanup that fails."""

    async def cleanup(self) -> None:
        self.closed += 1
        raise ValueError("the disk is on fire")


class RaisingLate(Raising):
    """A cleanup that fails after it has suspended."""

    async def cleanup(self) -> None:
        await asyncio.sleep(0)
        await super().cleanup()


def failing(error: BaseException, *, late: bool) -> type[BaseAgent]:
    """A class of agents whose cleanup raises the error: at once, or after it has suspended."""

    class Fails(Closable):
        async def cleanup(self) -> None:
            self.closed += 1
            raise error

    class FailsLate(Closable):
        async def cleanup(self) -> None:
            self.closed += 1
            await asyncio.sleep(0)
            raise error

    return FailsLate if late else Fails


def hanging(gate: Gate, *, stubborn: bool = False) -> type[BaseAgent]:
    """A class of agents whose cleanup waits at the gate."""

    class Hanging(Closable):
        async def cleanup(self) -> None:
            self.closed += 1
            await (gate.pass_stubbornly() if stubborn else gate.pass_through())

    return Hanging


def busy(gate: Gate, *, stubborn: bool = False) -> type[BaseAgent]:
    """A class of agents whose runs wait at the gate."""

    class Busy(Closable):
        async def execute(self, request: AgentRequest) -> Any:
            await (gate.pass_stubbornly() if stubborn else gate.pass_through())
            return request.text

    return Busy


def slow(
    gate: Gate, made: type[BaseAgent] = Closable, *, stubborn: bool = False
) -> Callable[..., Awaitable[BaseAgent]]:
    """A factory that waits at the gate."""

    async def factory(scope: AgentScope) -> BaseAgent:
        await (gate.pass_stubbornly() if stubborn else gate.pass_through())
        return made(scope)

    return factory


def closings(
    registry: AgentRegistry, user: str = "ada", agent_type: str = "helper"
) -> dict[str, Callable[[], Coroutine[Any, Any, Any]]]:
    """Every call that closes agents of a user."""

    async def session() -> Any:
        session = registry._directory.find(user)
        return None if session is None else await session.cleanup_all_agents()

    return {
        "remove": lambda: registry.remove_user_agent(user, agent_type),
        "resources": lambda: registry.lifecycle.cleanup_agent_resources(user, agent_type),
        "reset": lambda: registry.reset_user_agents(user),
        "session": session,
        "cleanup": lambda: registry.cleanup_user_session(user),
        "trigger": lambda: registry.lifecycle.trigger_cleanup(user),
        "sweep": registry.lifecycle.sweep,
        "emergency": registry.emergency_cleanup_all,
        "aclose": registry.aclose,
    }


class ForeignBridge:
    """A bridge that is not ours."""

    def __init__(self, user_id: str = "ada") -> None:
        self.user_id = user_id
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.closed = 0

    def emit(self, event_type: EventType, payload: Mapping[str, Any], origin: Any) -> None:
        self.sent.append((event_type.value, dict(payload)))

    def close(self) -> None:
        self.closed += 1


class ForeignManager:
    """Makes foreign bridges, asynchronously, through a gate."""

    def __init__(self, gate: Gate | None = None, make: Callable[[str], Any] = ForeignBridge) -> None:
        self.gate = gate
        self.make = make
        self.made: list[Any] = []

    async def create_bridge(self, user_context: UserExecutionContext) -> Any:
        if self.gate is not None:
            await self.gate.pass_through()
        bridge = self.make(user_context.user_id)
        self.made.append(bridge)
        return bridge


def with_tools(*tools: Tool) -> Callable[..., Awaitable[ToolDispatcher]]:
    """A dispatcher factory that gives every agent these tools."""

    async def factory(user_context: UserExecutionContext, bridge: Any) -> ToolDispatcher:
        return ToolDispatcher(user_context, bridge, tools)

    return factory


def received(client: Connection) -> list[Event]:
    """The events that wait for a client, oldest first."""
    found = []
    while (event := client.receive_nowait()) is not None:
        found.append(event)
    return found


_TRUSTED = (type, types.ModuleType, types.BuiltinFunctionType, types.CodeType, types.MethodDescriptorType)


def reachable(root: object, *trusted: object) -> dict[int, Any]:
    """Everything that a chain of references leads to, by its id; of a function its closure and defaults, not its
    globals. Not looked into: the code itself, the event loop, which knows every task, and what is trusted."""
    seen: dict[int, Any] = {}
    todo = [root]
    while todo:
        thing = todo.pop()
        is_shared = isinstance(thing, (*_TRUSTED, asyncio.AbstractEventLoop)) or any(thing is one for one in trusted)
        if id(thing) in seen or is_shared:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, types.FunctionType):
            todo += [thing.__closure__, thing.__defaults__, thing.__kwdefaults__, thing.__dict__]
        else:
            todo += gc.get_referents(thing)
    return seen


def population() -> Counter[str]:
    """The registry's objects, and asyncio's, coroutines and exceptions, that exist now, by type."""
    counted = (asyncio.Future, BaseException, types.CoroutineType)
    return Counter(
        type(thing).__qualname__
        for thing in gc.get_objects()
        if str(type(thing).__module__).startswith(("registry.", "tests.registry")) or isinstance(thing, counted)
    )


@contextmanager
def freed_at_once() -> Iterator[None]:
    """Fail if anything that the block made outlives it, with the collector off: reference counting alone must do."""
    gc.collect()
    gc.disable()
    try:
        before = population()
        yield
        left = population() - before
        assert not left, f"left behind: {dict(left)}"
    finally:
        gc.enable()
