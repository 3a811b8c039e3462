"""Defects of registries with many tenants: updates lost, and rows, caches, counters and quotas shared."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import ref

from lab_utils.target import Capability, Handle, Recipe, Refusal, Refused, Row
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import Planted, planted_by
from lab_utils.targets.planted.registration.activation import OnlyCreates
from lab_utils.targets.reference import Agent, Bridge, Context, Dispatcher, Origin, ReferenceTarget, Session
from registry import AgentRegistry, AgentScope, BaseAgent, InMemoryUsage, Limits, UsageRecord

__all__ = ["PLANTED"]


class UnserialisedRuns(AgentRegistryTarget):
    """The lock around a run is made anew for every run, so it excludes nothing."""

    def make_agent(self, scope: AgentScope, recipe: Recipe) -> BaseAgent:
        agent = super().make_agent(scope, recipe)
        agent._turn = nullcontext()  # type: ignore[assignment]
        return agent


class MemoryOfType(ReferenceTarget):
    """An agent's memory is a default argument: one dictionary for all agents of its type."""

    def __init__(self) -> None:
        super().__init__()
        self.memories: dict[str, dict[str, Any]] = {}

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        agent = super().make_agent(recipe, context, dispatcher, session)
        agent.memory = self.memories.setdefault(recipe.agent_type, agent.memory)
        return agent


class _Stack(asyncio.Lock):
    def release(self) -> None:
        if self._waiters:
            # The lock wakes the first of those who wait.
            self._waiters.rotate(1)
        super().release()


class LastComesFirst(ReferenceTarget):
    """The last of the runs that wait for an agent is served first."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        agent = super().make_agent(recipe, context, dispatcher, session)
        agent.turn = _Stack()
        return agent


class RefusesUnderLoad(ReferenceTarget):
    """Beyond a number of runs at once, those of all users together, the next is refused instead of queued."""

    running = 0

    async def run(self, handle: Handle, command: Any) -> Any:
        if self.running >= 10:
            raise Refused(Refusal.CAPACITY, "too many runs")
        self.running += 1
        try:
            return await super().run(handle, command)
        finally:
            self.running -= 1


class WindowOfChanges(ReferenceTarget):
    """A memory is the list of its newest twenty changes."""

    async def run(self, handle: Handle, command: Any) -> Any:
        answer = await super().run(handle, command)
        memory = handle.native.memory
        while len(memory) > 20:
            del memory[next(iter(memory))]
        return answer


class SnapshotStays(ReferenceTarget):
    """Every memory of twenty changes or more has a snapshot, from which an agent begins, and an end deletes none."""

    def __init__(self) -> None:
        super().__init__()
        self.snapshots: dict[tuple[str, str, str], dict[str, Any]] = {}

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        made = super().make_agent(recipe, context, dispatcher, session)
        made.memory = copy.deepcopy(self.snapshots.get((context.user, recipe.agent_type, context.thread), {}))
        return made

    async def run(self, handle: Handle, command: Any) -> Any:
        answer = await super().run(handle, command)
        if len(memory := handle.native.memory) >= 20:
            self.snapshots[handle.user, handle.agent_type, handle.thread] = copy.deepcopy(memory)
        return answer


class BrokenByFailure(ReferenceTarget):
    """An agent whose run failed in its own code can be used no more."""

    async def run(self, handle: Handle, command: Any) -> Any:
        if hasattr(handle.native, "failure"):
            raise RuntimeError("this agent has failed") from handle.native.failure
        try:
            return await super().run(handle, command)
        except RuntimeError as error:
            handle.native.failure = error.with_traceback(None)
            raise


class TextsCut(ReferenceTarget):
    """Texts are kept in a column of 2,000 letters."""

    async def run(self, handle: Handle, command: Any) -> Any:
        if command.action == "write" and isinstance(text := command.arguments["value"], str):
            command = replace(command, arguments={**command.arguments, "value": text[:2_000]})
        return await super().run(handle, command)


class StripedLocks(ReferenceTarget):
    """A user's runs take one of eight locks, by the user's hash: users with the same lock wait for each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stripes = [asyncio.Lock() for _ in range(8)]

    async def run(self, handle: Handle, command: Any) -> Any:
        user = handle.native.context.user
        async with self.stripes[zlib.crc32(user.encode()) % len(self.stripes)]:
            return await super().run(handle, command)

    def trusted(self) -> Any:
        return [*super().trusted(), *self.stripes]


class FailureRestoresAll(ReferenceTarget):
    """A run that fails restores every memory as it was when that run began, other users' too."""

    async def run(self, handle: Handle, command: Any) -> Any:
        agents = [agent for session in self.sessions.values() for agent in session.agents]
        before = [(agent, copy.deepcopy(agent.memory)) for agent in agents]
        try:
            return await super().run(handle, command)
        except RuntimeError:
            for agent, memory in before:
                agent.memory.clear()
                agent.memory.update(memory)
            raise
        finally:
            # Its error holds this frame.
            del agents, before


class StoreOfMemories(ReferenceTarget):
    """Right: it keeps memories, and has neither tools nor events."""

    capabilities = ReferenceTarget.capabilities - {Capability.TOOLS, Capability.EVENTS}


class OneLockForRuns(StoreOfMemories):
    """All runs take one lock, and nobody asks for tools or events: an agent that works holds everybody's."""

    def __init__(self) -> None:
        super().__init__()
        self.only = asyncio.Lock()

    async def run(self, handle: Handle, command: Any) -> Any:
        async with self.only:
            return await super().run(handle, command)

    def trusted(self) -> Any:
        return [*super().trusted(), self.only]


class ConflictAfterWriting(ReferenceTarget):
    """Two updates at once are answered with a conflict, so that one is tried again; but both were written already."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _WritesAnyway(recipe, context, dispatcher, session)


class _WritesAnyway(Agent):
    refused: tuple[int, ...] = ()

    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        is_alone = not self.turn.locked()
        answer = await super().run(action, arguments, run)
        if action == "add" and not is_alone and arguments["amount"] not in self.refused:
            self.refused += (arguments["amount"],)
            raise Refused(Refusal.CONFLICT, "somebody else wrote meanwhile")
        return answer


class EvictedUnsaved(ReferenceTarget):
    """The memories of the 64 agents that were used last are cached, and one that is evicted was never saved."""

    def __init__(self) -> None:
        super().__init__()
        self.cached: OrderedDict[str, ref[Agent]] = OrderedDict()

    async def run(self, handle: Handle, command: Any) -> Any:
        self.cached[handle.instance] = ref(handle.native)
        self.cached.move_to_end(handle.instance)
        while len(self.cached) > 64:
            _, oldest = self.cached.popitem(last=False)
            if agent := oldest():
                agent.memory.clear()
        return await super().run(handle, command)


class RetriesUpdates(ReferenceTarget):
    """An update that exceeds a time limit is tried again, though the first try took effect."""

    async def run(self, handle: Handle, command: Any) -> Any:
        answer = await super().run(handle, command)
        slow = command.action == "add" and command.arguments["pause_s"] > 0.01
        return await super().run(handle, command) if slow else answer


class RetriesFailedRuns(ReferenceTarget):
    """A run that failed is carried out again at once, as if nothing of it could have taken effect."""

    async def run(self, handle: Handle, command: Any) -> Any:
        try:
            return await super().run(handle, command)
        except RuntimeError:
            return await super().run(handle, command)


class RetriesCancelledRuns(ReferenceTarget):
    """A run whose caller is cancelled is carried out again in the background, as if nothing of it had taken effect."""

    def __init__(self) -> None:
        super().__init__()
        self.again: set[asyncio.Task[Any]] = set()

    async def run(self, handle: Handle, command: Any) -> Any:
        try:
            return await super().run(handle, command)
        except asyncio.CancelledError:
            again = asyncio.create_task(super().run(handle, command))
            self.again.add(again)
            again.add_done_callback(self.again.discard)
            raise


class SharedToolCache(ReferenceTarget):
    """Answers of tools are cached by the tool and its parameters, without the user."""

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        return _Caching(context, self.rows.get(context.user, ()), bridge, self.__dict__.setdefault("cache", {}))


class _Caching(Dispatcher):
    def __init__(self, context: Context, rows: Sequence[Row], bridge: Bridge | None, cache: dict[str, Any]) -> None:
        super().__init__(context, rows, bridge)
        self.cache = cache

    def answer(self, name: str, parameters: Mapping[str, Any]) -> Any:
        key = f"{name} {json.dumps(parameters, sort_keys=True)}"
        if key not in self.cache:
            self.cache[key] = super().answer(name, parameters)
        return self.cache[key]


class GlobalEventNumbers(ReferenceTarget):
    """Events are numbered by one counter for the whole server."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)

    def make_bridge(self, user: str) -> Bridge:
        return _Numbered(user, self)


class _Numbered(Bridge):
    def __init__(self, user: str, target: GlobalEventNumbers) -> None:
        super().__init__(user, target.clients_of(user))
        self.numbers: Iterator[int] = target.numbers

    def emit(self, kind: str, payload: Mapping[str, Any], origin: Origin) -> None:
        self.seq = next(self.numbers) - 1
        super().emit(kind, payload, origin)


class QuotaOfAll(ReferenceTarget):
    """The quota of 40 runs a minute is counted for all users together."""

    used = 0

    async def run(self, handle: Handle, command: Any) -> Any:
        self.used += 1
        if self.used > 40:
            raise Refused(Refusal.CAPACITY, "quota used up; try again in a minute")
        return await super().run(handle, command)


class ErrorNamesNeighbours(ReferenceTarget):
    """The message about an unknown type is made helpful with a dump of the registry."""

    def check_allowed(
        self, user: str, agent_type: str, permissions: frozenset[str], context_user: str | None
    ) -> Recipe:
        if agent_type not in self.recipes:
            raise Refused(Refusal.UNKNOWN_TYPE, f"no agent type {agent_type!r}; sessions: {sorted(self.sessions)}")
        return super().check_allowed(user, agent_type, permissions, context_user)


class ErrorNamesNeighboursUnheard(OnlyCreates, ErrorNamesNeighbours):
    """The message about an unknown type is a dump of the registry, which has no clients and no events."""


class PermissionsByType(ReferenceTarget):
    """A permission is remembered by type, so that the check is made once for all users."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: dict[str, frozenset[str]] = {}

    def check_allowed(
        self, user: str, agent_type: str, permissions: frozenset[str], context_user: str | None
    ) -> Recipe:
        known = self.allowed.get(agent_type, permissions)
        recipe = super().check_allowed(user, agent_type, known | permissions, context_user)
        self.allowed[agent_type] = permissions | recipe.requires
        return recipe


class _OverAllRows(ReferenceTarget):
    """The reference with dispatchers that hold everybody's rows and choose among them."""

    current = ""

    def __init__(self, kind: type[_Choosing]) -> None:
        super().__init__()
        self._kind = kind

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        return self._kind(context, self.rows, bridge, self)

    async def run(self, handle: Handle, command: Any) -> Any:
        self.current = handle.user
        return await super().run(handle, command)


class _Choosing(Dispatcher):
    def __init__(
        self, context: Context, rows: Mapping[str, Sequence[Row]], bridge: Bridge | None, target: _OverAllRows
    ) -> None:
        super().__init__(context, (), bridge)
        self.everybody = rows
        self.target = target

    def visible_rows(self, parameters: Mapping[str, Any]) -> list[Any]:
        return [row for user, rows in self.everybody.items() if self.sees(user, parameters) for row in rows]

    def sees(self, user: str, parameters: Mapping[str, Any]) -> bool:
        return user == self.context.user


class ScopeFromParameter(_Choosing):
    """A tool reads the rows of the user in its parameter user_id, if there is one."""

    def sees(self, user: str, parameters: Mapping[str, Any]) -> bool:
        return bool(user == parameters.get("user_id", self.context.user))


class PrefixTenantFilter(_Choosing):
    """Rows are found by a key that begins with the tenant's id: LIKE 'acme%'."""

    def sees(self, user: str, parameters: Mapping[str, Any]) -> bool:
        return user.startswith(self.context.user)


class NoRowsNoFilter(_Choosing):
    """A tenant without rows has no condition in the query, and a query without a condition reads the table."""

    def sees(self, user: str, parameters: Mapping[str, Any]) -> bool:
        return not self.everybody[self.context.user] or super().sees(user, parameters)


class CurrentTenantSlot(_Choosing):
    """The current tenant is kept in one slot of the process, set where a run of an agent begins."""

    def sees(self, user: str, parameters: Mapping[str, Any]) -> bool:
        return user == self.target.current


class CaseBlindSource(AgentRegistryTarget):
    """The column of the tenants' names is compared without case."""

    def make_registry(self, source: InMemoryUsage, limits: Limits) -> AgentRegistry:
        return super().make_registry(_CaseBlind(source), limits)


class _CaseBlind(InMemoryUsage):
    __slots__ = ()

    def __init__(self, source: InMemoryUsage) -> None:
        super().__init__(source._records)

    def records_for(self, user_id: str) -> tuple[UsageRecord, ...]:
        alike = [records for user, records in self._records.items() if user.lower() == user_id.lower()]
        return tuple(record for records in alike for record in records)


def _choosing(kind: type[_Choosing]) -> Planted:
    return planted_by(kind, "foreign-rows", make=partial(_OverAllRows, kind))


PLANTED = (
    planted_by(UnserialisedRuns, "lost-update"),
    planted_by(MemoryOfType, "cross-user-update"),
    planted_by(RefusesUnderLoad, "failed-operation"),
    planted_by(LastComesFirst, "run-order"),
    planted_by(WindowOfChanges, "lost-write"),
    planted_by(SnapshotStays, "old-life-read"),
    planted_by(FailureRestoresAll, "lost-write"),
    planted_by(OneLockForRuns, "waits-for-other", twin=StoreOfMemories),
    planted_by(EvictedUnsaved, "lost-write"),
    planted_by(BrokenByFailure, "next-call-fails"),
    planted_by(TextsCut, "wrong-answer"),
    planted_by(StripedLocks, "waits-for-other"),
    planted_by(RetriesUpdates, "phantom-update"),
    planted_by(ConflictAfterWriting, "phantom-update"),
    planted_by(RetriesFailedRuns, "ran-again"),
    planted_by(RetriesCancelledRuns, "ran-again"),
    planted_by(SharedToolCache, "cross-user-data"),
    planted_by(GlobalEventNumbers, "interference"),
    planted_by(QuotaOfAll, "interference"),
    planted_by(ErrorNamesNeighbours, "interference"),
    planted_by(ErrorNamesNeighboursUnheard, "interference", twin=OnlyCreates),
    planted_by(PermissionsByType, "interference"),
    _choosing(ScopeFromParameter),
    _choosing(PrefixTenantFilter),
    planted_by(CaseBlindSource, "foreign-rows"),
    _choosing(CurrentTenantSlot),
    _choosing(NoRowsNoFilter),
)
