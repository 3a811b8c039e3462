"""Defects that only the object graph shows: objects that users share without seeing it, and holders that outlive their
use.

Each releases its objects when its target stops, for the lab's own sake.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lab_utils.target import Recipe, Row
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Bridge, Context, Dispatcher, ReferenceTarget, Session
from registry import AgentScope, BaseAgent

__all__ = ["PLANTED"]


class _Equipped(Agent):
    """An agent with something more in its hands."""

    extra: Any = None


class _Giving(ReferenceTarget):
    """Gives every agent something more."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        agent = _Equipped(recipe, context, dispatcher, session)
        agent.extra = self.give(agent)
        return agent

    def give(self, agent: Agent) -> Any:
        raise NotImplementedError


# Objects that users share.


class CounterInClosure(_Giving):
    """Runs are numbered by one function over one counter, so users can see how busy others are."""

    def __init__(self) -> None:
        super().__init__()
        self._next = _numbering()

    def give(self, agent: Agent) -> Any:
        return self._next


def _numbering() -> Callable[[], int]:
    count = 0

    def number() -> int:
        nonlocal count
        count += 1
        return count

    return number


class SharedBuffer(_Giving):
    """One buffer is made once and reused for the answers of all users, to save allocations."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer = bytearray(64)

    def give(self, agent: Agent) -> Any:
        return self._buffer


class SharedEmptyDict(_Giving):
    """Preferences start as one empty dictionary, the same object for all users without any."""

    def __init__(self) -> None:
        super().__init__()
        self._nothing: dict[str, Any] = {}

    def give(self, agent: Agent) -> Any:
        return (agent.context.user, self._nothing)


class SharedGenerator(_Giving):
    """Ids come from one generator, which every agent holds, and which keeps the last user it served."""

    def __init__(self) -> None:
        super().__init__()
        self._ids = _ids(self.rows)
        next(self._ids)

    def give(self, agent: Agent) -> Any:
        return self._ids


def _ids(rows: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    served: list[int] = []
    while True:
        served.append(len(rows))
        yield f"id-{len(served)}"


class ViewOfAnothers(_Giving):
    """Agents get a read-only view of the settings; the first one gets the settings themselves, and changes them for
    all."""

    def __init__(self) -> None:
        super().__init__()
        self._settings: dict[str, Any] | None = None

    def give(self, agent: Agent) -> Any:
        if self._settings is None:
            self._settings = {"model": "standard"}
            return self._settings
        return MappingProxyType(self._settings)


class BoundToTheFirst(_Giving):
    """Alerts go through a bound method of the first user's bridge."""

    def __init__(self) -> None:
        super().__init__()
        self._alert: Any = None

    def give(self, agent: Agent) -> Any:
        if self._alert is None:
            self._alert = functools.partial(agent.bridge.emit if agent.bridge else print, "alert")
        return self._alert


_TRAIL: contextvars.ContextVar[list[str]] = contextvars.ContextVar("trail")


class ListInContextVar(_Giving):
    """A context variable is set once, to a list; every agent's copy of the context has the same list in it."""

    async def start(self, recipes: Sequence[Recipe], rows: Mapping[str, Sequence[Row]], close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        self._context = contextvars.copy_context()
        self._context.run(_TRAIL.set, [])

    def give(self, agent: Agent) -> Any:
        return self._context.copy()


class _Remembering(Agent):
    history: dict[str, Any] = {}  # noqa: RUF012  # The defect.

    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        self.history[f"{self.context.user}/{action}"] = str(arguments)
        return await super().run(action, arguments, run)


class HistoryOnTheClass(ReferenceTarget):
    """The history of requests is a dictionary of the class, not of the object: `self.history[...] = ` fills it."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _Remembering(recipe, context, dispatcher, session)

    async def stop(self) -> None:
        await super().stop()
        _Remembering.history.clear()


_LAST_ROWS: dict[str, Any] = {}


class _Caching(Dispatcher):
    def answer(self, name: str, parameters: Mapping[str, Any]) -> Any:
        _LAST_ROWS[self.context.user] = self.rows
        return super().answer(name, parameters)


class RowsInModuleCache(ReferenceTarget):
    """The rows that each user last saw stay in a dictionary of the module, for a faster second look."""

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        return _Caching(context, self.rows.get(context.user, ()), bridge)

    async def stop(self) -> None:
        await super().stop()
        _LAST_ROWS.clear()


class _Memoized(Dispatcher):
    @functools.lru_cache(maxsize=None)  # noqa: B019, UP033  # The defect.
    def columns(self) -> tuple[str, ...]:
        return tuple(sorted({name for row in self.rows for name in row}))


class MemoizedMethod(ReferenceTarget):
    """A method is cached with `lru_cache`: the cache is the class's, and its keys hold every object ever asked."""

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        dispatcher = _Memoized(context, self.rows.get(context.user, ()), bridge)
        dispatcher.columns()
        return dispatcher

    async def stop(self) -> None:
        await super().stop()
        _Memoized.columns.cache_clear()


# Who goes on holding.


class _Noting(AgentRegistryTarget):
    """Does something with every agent made."""

    def make_agent(self, scope: AgentScope, recipe: Recipe) -> BaseAgent:
        agent = super().make_agent(scope, recipe)
        self.note(agent)
        return agent

    def note(self, agent: BaseAgent) -> None:
        raise NotImplementedError


class DoneCallbackKeeps(_Noting):
    """Every agent adds a callback to the one shutdown future, and never takes it off."""

    def __init__(self) -> None:
        super().__init__()
        self._shutdown: asyncio.Future[None] | None = None

    def note(self, agent: BaseAgent) -> None:
        if self._shutdown is None:
            self._shutdown = asyncio.get_running_loop().create_future()
        self._shutdown.add_done_callback(functools.partial(_say_goodbye, agent))

    async def stop(self) -> None:
        await super().stop()
        self._shutdown = None


def _say_goodbye(agent: BaseAgent, _: asyncio.Future[None]) -> None:
    """Notify the agent's user that the service ends."""


class FinalizerKeeps(_Noting):
    """A finalizer that is to log when an agent is freed holds the agent itself: so it is never freed."""

    def __init__(self) -> None:
        super().__init__()
        self._finalizers: list[Any] = []

    def note(self, agent: BaseAgent) -> None:
        self._finalizers.append(weakref.finalize(agent, repr, agent))

    async def stop(self) -> None:
        await super().stop()
        for finalizer in self._finalizers:
            finalizer.detach()


_CURRENT: contextvars.ContextVar[Any] = contextvars.ContextVar("current")


class ContextOfTimer(_Noting):
    """One timer sweeps; each caller that sets it anew gives it a copy of their context, and with it their agent."""

    def __init__(self) -> None:
        super().__init__()
        self._sweep: asyncio.TimerHandle | None = None

    def note(self, agent: BaseAgent) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        context = contextvars.copy_context()
        context.run(_CURRENT.set, agent)
        self._sweep = asyncio.get_running_loop().call_later(3_600.0, _sweep, context=context)

    async def stop(self) -> None:
        await super().stop()
        if self._sweep is not None:
            self._sweep.cancel()


def _sweep() -> None:
    """Look for sessions that nobody uses."""


class ThreadLocalKeeps(_Noting):
    """The agent at work is kept in a `threading.local`, as it was when every request had a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._local = threading.local()

    def note(self, agent: BaseAgent) -> None:
        self._local.agent = agent


class MetricLabelledByObject(_Noting):
    """A counter's label is the agent itself, in place of its name."""

    def __init__(self) -> None:
        super().__init__()
        self._made: Counter[tuple[str, BaseAgent]] = Counter()

    def note(self, agent: BaseAgent) -> None:
        self._made["made", agent] += 1


class CoroutineNeverAwaited(_Noting):
    """A coroutine is made for every agent, to be awaited at the shutdown; it holds the agent."""

    def __init__(self) -> None:
        super().__init__()
        self._farewells: list[Coroutine[Any, Any, None]] = []

    def note(self, agent: BaseAgent) -> None:
        self._farewells.append(_farewell(agent))

    async def stop(self) -> None:
        await super().stop()
        for farewell in self._farewells:
            farewell.close()


async def _farewell(agent: BaseAgent) -> None:
    repr(agent)


def _remember(agent: BaseAgent, seen: list[BaseAgent] = []) -> int:  # noqa: B006  # The defect.
    seen.append(agent)
    return len(seen)


class DefaultArgumentKeeps(_Noting):
    """A default argument is a list: it is made once, and every call appends to it."""

    def note(self, agent: BaseAgent) -> None:
        _remember(agent)

    async def stop(self) -> None:
        await super().stop()
        (_remember.__defaults__ or ([],))[0].clear()


PLANTED = (
    planted_by(CounterInClosure, "shared-object"),
    planted_by(SharedBuffer, "shared-object"),
    planted_by(SharedEmptyDict, "shared-object"),
    planted_by(SharedGenerator, "shared-object"),
    planted_by(ViewOfAnothers, "shared-object"),
    planted_by(BoundToTheFirst, "shared-object"),
    planted_by(ListInContextVar, "shared-object"),
    planted_by(HistoryOnTheClass, "shared-state"),
    planted_by(RowsInModuleCache, "shared-state"),
    planted_by(MemoizedMethod, "shared-state", "retained-object"),
    planted_by(DoneCallbackKeeps, "retained-object"),
    planted_by(FinalizerKeeps, "retained-object"),
    planted_by(ContextOfTimer, "retained-object"),
    planted_by(ThreadLocalKeeps, "retained-object"),
    planted_by(MetricLabelledByObject, "retained-object"),
    planted_by(CoroutineNeverAwaited, "retained-object"),
    planted_by(DefaultArgumentKeeps, "retained-object"),
)
