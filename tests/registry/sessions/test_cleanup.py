"""Closing: exactly once in every race, newest first, keeping every error; and which cleanups are run without a task."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from registry import (
    AgentRegistry,
    AgentScope,
    BaseAgent,
    Limits,
    SessionClosed,
    WebSocketManager,
)
from registry._sessions.closing import cleanup_of
from tests.registry.kit import (
    Closable,
    Gate,
    Raising,
    RaisingLate,
    Waiting,
    closings,
    context,
    failing,
    hanging,
    registry_of,
)
from tests.running import live_timers, settled, turns


@pytest.fixture
def unlogged() -> Iterator[None]:
    """Nothing is logged: a log's handlers keep its records, with the frames of an error."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def filled(registry: AgentRegistry, *kinds: type[BaseAgent], user: str = "ada") -> list[Any]:
    made = []
    for n, kind in enumerate(kinds):
        registry.register(f"kind{n}", kind, replace=True)
        made.append(await registry.create_agent_for_user(user, f"kind{n}", context(user)))
    return made


async def test_every_agent_is_closed_once_the_end_of_its_session_has_begun() -> None:
    agents: list[BaseAgent] = []
    seen: list[list[bool]] = []

    class Looks(BaseAgent):
        async def cleanup(self) -> None:
            seen.append([agent.is_closed for agent in agents])

    async with registry_of(looks=Looks) as registry:
        agents += [await registry.create_agent_for_user("ada", "looks", context()) for _ in range(2)]
        await registry.cleanup_user_session("ada")
        # The older one is cleaned up when the newer has been.
        assert seen == [[True, True], [True, True]]


async def test_newest_first() -> None:
    order: list[str] = []

    class Notes(BaseAgent):
        async def cleanup(self) -> None:
            order.append(self.context.thread_id)

    class NotesLate(BaseAgent):
        async def cleanup(self) -> None:
            await asyncio.sleep(0)
            order.append(self.context.thread_id)

    async with registry_of(now=Notes, late=NotesLate) as registry:
        for kinds in itertools.product(["now", "late"], repeat=3):
            for n, kind in enumerate(kinds):
                await registry.create_agent_for_user("ada", kind, context("ada", f"{n}"))
            await registry.cleanup_user_session("ada")
            assert order == ["2", "1", "0"], kinds
            order.clear()


class Plain(Closable):
    """Its cleanup is not even a coroutine function."""

    def cleanup(self) -> None:  # type: ignore[override]
        self.closed += 1


class Odd(BaseException):
    """Not an Exception."""


class Unspeakable(SystemExit):
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "error",
    [ValueError("no"), Odd("no"), asyncio.CancelledError(), SystemExit(3), GeneratorExit(), StopIteration(),
     SessionClosed("no"), Unspeakable(), KeyboardInterrupt(), BaseExceptionGroup("many", [SystemExit(1), ValueError()])],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_a_cleanup_that_raises_is_reported_and_the_others_are_closed(error: BaseException, *, late: bool) -> None:
    async with AgentRegistry() as registry:
        for newer in (Waiting, Closable, Plain):
            agents = await filled(registry, Closable, failing(error, late=late), newer, Closable)
            report = await registry.cleanup_user_session("ada")
            assert report["cleaned_agents"] == 4
            assert [agent.closed for agent in agents] == [1, 1, 1, 1]
            assert len(report["errors"]) == 1
            assert "kind1" in report["errors"][0]
            assert all(agent.is_closed for agent in agents)
        assert await registry.cleanup_user_session("ada") == {
            "status": "no_session", "user_id": "ada", "cleaned_agents": 0, "errors": [],
        }  # fmt: skip


async def test_what_is_abandoned_is_kept_referenced_until_it_ends() -> None:
    import gc
    import weakref

    class Hangs(BaseAgent):
        async def cleanup(self) -> None:
            # Nobody else holds the future that it waits for: without an owner the task would be collected.
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            while True:
                try:
                    await future
                except asyncio.CancelledError:
                    if released:
                        raise
                    future = asyncio.get_running_loop().create_future()

    released = False
    registry = AgentRegistry(limits=Limits(close_timeout=0.01))
    await filled(registry, Hangs)
    await registry.cleanup_user_session("ada")
    (task,) = registry._runtime.abandoned
    ref = weakref.ref(task)
    del task
    gc.collect()
    kept: Any = ref()
    assert kept is not None
    assert await registry.aclose() is not None  # Does not wait for it.
    assert not kept.done()
    released = True
    kept.cancel()
    await turns(3)
    assert not registry._runtime.abandoned


async def test_a_cleanup_may_use_what_the_agent_holds_and_begin_nothing() -> None:
    manager = WebSocketManager()
    said: list[Any] = []

    class Talks(BaseAgent):
        async def cleanup(self) -> None:
            said.append(dict(self.context.agent_context))
            await self.think("goodbye")
            with pytest.raises(SessionClosed):
                await self.run()
            with pytest.raises(SessionClosed):
                await registry.create_agent_for_user("ada", "kind0", self.context)
            with pytest.raises(SessionClosed):
                await registry.get_or_create_agent(self.context, "kind0")

    async with registry_of(kind0=Talks) as registry:
        given = context(agent_context={"a": 1})
        await registry.create_agent_for_user("ada", "kind0", given, manager)
        client = manager.connect("ada")
        report = await registry.cleanup_user_session("ada")
        assert report["errors"] == []
        assert said == [{"a": 1}]
        assert (await client.receive()).payload == {"thought": "goodbye"}
        assert client.closed_reason == "session_ended"
        assert len(registry._directory) == 0


NAMES = ("remove", "reset", "cleanup", "trigger", "resources", "session", "emergency", "sweep", "evict")


@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize(("one", "two"), list(itertools.product(NAMES, NAMES)))
async def test_closed_exactly_once_whoever_races(one: str, two: str) -> None:
    """Both at once and one a few turns into the other, over cleanups that end late, well and badly."""

    for kind in (Waiting, RaisingLate):
        for apart in range(4):
            now = [0.0]
            limits = Limits(idle_timeout=10.0, max_agents_per_user=3)
            registry = AgentRegistry(limits=limits, clock=functools.partial(now.__getitem__, 0))
            agents = await filled(registry, kind, kind, kind)
            now[0] = 100.0
            calls = closings(registry, agent_type="kind0")
            calls["evict"] = lambda registry=registry: registry.create_agent_for_user("ada", "kind0", context())  # type: ignore[misc]
            first = asyncio.create_task(calls[one]())
            await turns(apart)
            second = asyncio.create_task(calls[two]())
            answers = await settled(first, second)
            for answer in answers:
                assert not isinstance(answer, BaseException) or isinstance(answer, SessionClosed), answer
            health = registry.get_registry_health()
            sessions = [registry._directory.get(user) for user in registry._directory.users()]
            assert health["total_user_agents"] == sum(len(s._agents) for s in sessions if s is not None)
            await registry.aclose()
            assert [agent.closed for agent in agents] == [1, 1, 1], (kind, apart)


async def test_a_second_end_joins_the_first() -> None:
    gate = Gate()
    async with AgentRegistry() as registry:
        (agent,) = await filled(registry, hanging(gate))
        ends = [asyncio.create_task(registry.cleanup_user_session("ada")) for _ in range(3)]
        await gate.reached()
        ends.append(asyncio.create_task(registry.lifecycle.trigger_cleanup("ada")))
        everything = asyncio.create_task(registry.emergency_cleanup_all())
        await turns(5)
        assert not any(end.done() for end in [*ends, everything])
        assert registry.get_registry_health()["ending_sessions"] == 1
        gate.open()
        answers = await asyncio.gather(*ends)
        assert answers == [{"status": "cleaned", "user_id": "ada", "cleaned_agents": 1, "errors": []}] * 4
        answers[0]["errors"].append("mine")
        assert answers[1]["errors"] == []
        assert (await everything)["agents_cleaned"] == 1
        assert agent.closed == 1
        assert registry.get_registry_health()["ending_sessions"] == 0


async def test_aclose_reports_and_is_idempotent() -> None:
    registry = AgentRegistry()
    await filled(registry, Raising, Closable)
    answers: Any = await asyncio.gather(registry.aclose(), registry.cleanup(), registry.aclose())
    error = answers[0]["errors"][0]
    assert re.fullmatch(r"user 'ada': kind0 \(agent-\w+\): cleanup raised ValueError: the disk is on fire", error)
    report = {"status": "closed", "users_cleaned": 1, "agents_cleaned": 2, "errors": [error]}
    assert [*answers] == [report] * 3
    answers[0]["errors"].clear()
    assert await registry.aclose() == answers[1], "a report is its reader's own"


@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize("kind", [BaseAgent, Closable, Raising])
async def test_a_cleanup_that_does_not_suspend_takes_no_task_and_no_timer(kind: type[BaseAgent]) -> None:
    loop: Any = asyncio.get_running_loop()
    async with AgentRegistry() as registry:
        made: list[str] = []

        def refuse(_: Any, coroutine: Any, **__: Any) -> Any:
            made.append(coroutine.__qualname__)
            return asyncio.Task(coroutine, loop=loop)

        await registry.get_user_session("other")  # The sweeping task is there already.
        loop.set_task_factory(refuse)
        timers = len(live_timers())
        await filled(registry, kind, kind)
        await registry.remove_user_agent("ada", "kind0")
        await registry.reset_user_agents("ada")
        await filled(registry, kind)
        await registry.cleanup_user_session("ada")
        assert made == []
        assert len(live_timers()) == timers
        loop.set_task_factory(None)


def held(agent: BaseAgent) -> Any:
    """Whatever the agent holds."""
    return agent.scope.llm


class Quiet(BaseAgent):
    """Has nothing to give back."""


class For(BaseAgent):
    async def cleanup(self) -> None:
        async for _ in aiter(held(self)):
            pass


class With(BaseAgent):
    async def cleanup(self) -> None:
        async with held(self):
            pass


class InAComprehension(BaseAgent):
    async def cleanup(self) -> None:
        [item async for item in held(self)]


class Within(BaseAgent):
    """Defines a coroutine function, and does not run it."""

    async def cleanup(self) -> None:
        async def later() -> None:
            await asyncio.sleep(0)

        held(self).append(later)


@pytest.mark.parametrize(
    ("kind", "takes"),
    [
        (BaseAgent, "nothing"),
        (Quiet, "nothing"),
        (Closable, "at once"),
        (Raising, "at once"),
        (Within, "at once"),
        (Waiting, "may suspend"),
        (For, "may suspend"),
        (With, "may suspend"),
        (InAComprehension, "may suspend"),
        (Plain, "may suspend"),
    ],
)
def test_what_closing_takes_is_read_from_the_code(kind: type[BaseAgent], takes: str) -> None:
    agent = kind(AgentScope(context(), None, None, None))
    assert [cleanup_of(agent), cleanup_of(agent)] == [takes, takes]
