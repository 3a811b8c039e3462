"""Closing: exactly once in every race, newest first, within one deadline, keeping every error; and the calls
afterwards."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from registry import (
    AgentClosed,
    AgentRegistry,
    AgentRequest,
    BaseAgent,
    Limits,
    Origin,
    SessionClosed,
    WebSocketManager,
)
from tests.registry.kit import (
    Closable,
    Gate,
    Raising,
    RaisingLate,
    Waiting,
    busy,
    context,
    freed_at_once,
    hanging,
    registry_of,
    same,
)
from tests.registry.sessions.virtual import virtually
from tests.running import live_timers, settled, turns

SHORT = Limits(close_timeout=0.2)


async def filled(registry: AgentRegistry, *kinds: type[BaseAgent], user: str = "ada") -> list[Any]:
    made = []
    for n, kind in enumerate(kinds):
        registry.register(f"kind{n}", kind, replace=True)
        made.append(await registry.create_agent_for_user(user, f"kind{n}", context(user)))
    return made


async def test_remove_takes_the_newest_of_the_type_in_any_thread() -> None:
    async with registry_of(helper=Closable, other=Closable) as registry:
        one: Any = await registry.create_agent_for_user("ada", "helper", context("ada", "one"))
        two: Any = await registry.create_agent_for_user("ada", "helper", context("ada", "two"))
        other: Any = await registry.create_agent_for_user("ada", "other", context("ada", "two"))
        bobs: Any = await registry.create_agent_for_user("bob", "helper", context("bob"))
        assert await registry.remove_user_agent("ada", "helper") is True
        assert (one.closed, two.closed, other.closed, bobs.closed) == (0, 1, 0, 0)
        assert same(await registry.get_user_agent("ada", "helper"), one)
        assert await registry.remove_user_agent("ada", "helper") is True
        assert await registry.remove_user_agent("ada", "helper") is False
        assert (one.closed, two.closed) == (1, 1)
        # The session stays, also without agents.
        assert registry.get_registry_health()["total_user_sessions"] == 2


@pytest.mark.parametrize("kind", [Closable, Waiting, BaseAgent])
async def test_reset_and_cleanup_answer_with_exact_numbers(kind: type[BaseAgent]) -> None:
    async with registry_of(helper=kind) as registry:
        for _ in range(3):
            await registry.create_agent_for_user("ada", "helper", context())
        session = await registry.get_user_session("ada")
        assert await registry.reset_user_agents("ada") == {
            "status": "reset_complete", "user_id": "ada", "agents_reset": 3, "errors": [],
        }  # fmt: skip
        assert await registry.reset_user_agents("ada") == {
            "status": "reset_complete", "user_id": "ada", "agents_reset": 0, "errors": [],
        }  # fmt: skip
        assert await registry.get_user_session("ada") is session
        for _ in range(4):
            await registry.create_agent_for_user("ada", "helper", context())
        await registry.remove_user_agent("ada", "helper")
        assert await registry.cleanup_user_session("ada") == {
            "status": "cleaned", "user_id": "ada", "cleaned_agents": 3, "errors": [],
        }  # fmt: skip
        assert await registry.cleanup_user_session("ada") == {
            "status": "no_session", "user_id": "ada", "cleaned_agents": 0, "errors": [],
        }  # fmt: skip
        assert registry.get_registry_health()["total_user_sessions"] == 0


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


class Odd(BaseException):
    """Not an Exception."""


def failing(error: BaseException, *, late: bool) -> type[BaseAgent]:
    class Fails(BaseAgent):
        closed = 0

        async def cleanup(self) -> None:
            self.closed += 1
            raise error

    class FailsLate(BaseAgent):
        closed = 0

        async def cleanup(self) -> None:
            self.closed += 1
            await asyncio.sleep(0)
            raise error

    return FailsLate if late else Fails


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "error",
    [ValueError("no"), Odd("no"), asyncio.CancelledError(), SystemExit(3), GeneratorExit(), StopIteration(),
     SessionClosed("no"), Unspeakable()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_a_cleanup_that_raises_is_reported_and_the_others_are_closed(error: BaseException, *, late: bool) -> None:
    async with AgentRegistry() as registry:
        for newer in (Waiting, Closable):
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


async def test_every_error_is_kept() -> None:
    async with AgentRegistry() as registry:
        await filled(registry, Raising, RaisingLate, Raising)
        report = await registry.reset_user_agents("ada")
        assert [error.split(" ", 1)[0] for error in report["errors"]] == ["kind2", "kind1", "kind0"]
        assert all("ValueError: the disk is on fire" in error for error in report["errors"])


async def test_remove_is_true_and_logs_when_the_cleanup_fails(caplog: pytest.LogCaptureFixture) -> None:
    async with AgentRegistry() as registry:
        for kind in (Raising, RaisingLate):
            caplog.clear()
            (agent,) = await filled(registry, kind)
            assert await registry.remove_user_agent("ada", "kind0") is True
            assert agent.closed == 1
            assert "the disk is on fire" in caplog.text
            assert same(await registry.get_user_agent("ada", "kind0"), None)


async def test_a_plain_cleanup_is_taken_for_what_it_is() -> None:
    class Plain(BaseAgent):
        closed = 0

        def cleanup(self) -> None:  # type: ignore[override]
            self.closed += 1

    async with AgentRegistry() as registry:
        (agent,) = await filled(registry, Plain)
        assert (await registry.cleanup_user_session("ada"))["errors"] == []
        assert agent.closed == 1


@pytest.mark.parametrize("stubborn", [False, True])
@virtually
async def test_a_cleanup_that_hangs_is_cut_off_at_the_deadline(*, stubborn: bool) -> None:
    gate = Gate()
    async with AgentRegistry(limits=Limits(close_timeout=8.0)) as registry:
        agents = await filled(registry, Waiting, hanging(gate, stubborn=stubborn), Waiting)
        report = await registry.cleanup_user_session("ada")
        assert asyncio.get_running_loop().time() == 8.0
        assert report["cleaned_agents"] == 3
        assert [agent.closed for agent in agents] == [1, 1, 1]
        (error,) = report["errors"]
        assert "kind1" in error
        assert "did not end within 8 s" in error
        assert ("abandoned" in error) is stubborn
        health = registry.get_registry_health()
        assert health["abandoned_cleanups"] == int(stubborn)
        assert health["status"] == ("warning" if stubborn else "healthy")
        with pytest.raises(SessionClosed):
            agents[1].context.agent_context  # noqa: B018
        gate.open()
        await turns(5)
        assert registry.get_registry_health()["abandoned_cleanups"] == 0
        assert registry.get_registry_health()["status"] == "healthy"


@virtually
async def test_the_deadline_is_one_for_the_session() -> None:
    gate = Gate()
    async with AgentRegistry(limits=Limits(close_timeout=8.0)) as registry:
        registry.register("helper", hanging(gate, stubborn=True))
        registry.register("busy", busy(gate, stubborn=True))
        agents: list[Any] = [await registry.create_agent_for_user("ada", "helper", context()) for _ in range(10)]
        runner = await registry.create_agent_for_user("ada", "busy", context())
        task = asyncio.create_task(runner.run())
        await turns(3)
        report = await registry.cleanup_user_session("ada")
        assert asyncio.get_running_loop().time() == 8.0
        assert report["cleaned_agents"] == 11
        assert [agent.closed for agent in agents] == [1] * 10
        assert registry.get_registry_health()["abandoned_cleanups"] == 11
        assert [type(answer) for answer in await settled(task)] == [SessionClosed]
        gate.open()
        await turns(10)


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


async def test_a_run_is_over_before_its_agents_cleanup_begins() -> None:
    order: list[str] = []
    reached = asyncio.Event()

    class Orderly(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            reached.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                order.append("run")

        async def cleanup(self) -> None:
            order.append("cleanup")

    async with AgentRegistry() as registry:
        (agent,) = await filled(registry, Orderly)
        task = asyncio.create_task(agent.run())
        await reached.wait()
        await registry.cleanup_user_session("ada")
        assert order == ["run", "cleanup"]
        await settled(task)


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


def closers(registry: AgentRegistry) -> dict[str, Callable[[], Coroutine[Any, Any, Any]]]:
    async def session_cleanup() -> Any:
        session = registry._directory.find("ada")
        return None if session is None else await session.cleanup_all_agents()

    async def evict() -> Any:
        return await registry.create_agent_for_user("ada", "kind0", context())

    return {
        "remove": lambda: registry.remove_user_agent("ada", "kind0"),
        "reset": lambda: registry.reset_user_agents("ada"),
        "cleanup": lambda: registry.cleanup_user_session("ada"),
        "trigger": lambda: registry.lifecycle.trigger_cleanup("ada"),
        "resources": lambda: registry.lifecycle.cleanup_agent_resources("ada", "kind0"),
        "session": session_cleanup,
        "emergency": registry.emergency_cleanup_all,
        "sweep": registry.lifecycle.sweep,
        "evict": evict,
    }


NAMES = ("remove", "reset", "cleanup", "trigger", "resources", "session", "emergency", "sweep", "evict")


@pytest.mark.parametrize(("one", "two"), list(itertools.product(NAMES, NAMES)))
async def test_closed_exactly_once_whoever_races(one: str, two: str) -> None:
    """Both at once and one a few turns into the other, over cleanups that end at once, late, never and badly."""

    async def main() -> None:
        for kind in (Closable, Waiting, RaisingLate):
            for apart in range(4):
                now = [0.0]
                limits = Limits(idle_timeout=10.0, max_agents_per_user=3)
                registry = AgentRegistry(limits=limits, clock=functools.partial(now.__getitem__, 0))
                agents = await filled(registry, kind, kind, kind)
                now[0] = 100.0
                first = asyncio.create_task(closers(registry)[one]())
                await turns(apart)
                second = asyncio.create_task(closers(registry)[two]())
                answers = await settled(first, second)
                for answer in answers:
                    assert not isinstance(answer, BaseException) or isinstance(answer, SessionClosed), answer
                health = registry.get_registry_health()
                sessions = [registry._directory.get(user) for user in registry._directory.users()]
                assert health["total_user_agents"] == sum(len(s._agents) for s in sessions if s is not None)
                await registry.aclose()
                assert [agent.closed for agent in agents] == [1, 1, 1], (kind, apart)

    import logging

    logging.disable(logging.CRITICAL)
    try:
        await main()
    finally:
        logging.disable(logging.NOTSET)


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


async def test_one_users_hanging_cleanup_delays_nobody_else() -> None:
    gate = Gate()
    async with AgentRegistry() as registry:
        await filled(registry, hanging(gate), user="ada")
        ending = asyncio.create_task(registry.cleanup_user_session("ada"))
        await gate.reached()
        registry.register("helper", Waiting)
        # Each of these needs a few turns and no time.
        bob = await registry.create_agent_for_user("bob", "helper", context("bob"))
        await bob.run()
        assert await registry.get_or_create_agent(context("bob"), "helper") is bob
        assert (await registry.reset_user_agents("bob"))["agents_reset"] == 1
        assert (await registry.cleanup_user_session("bob"))["status"] == "cleaned"
        assert not ending.done()
        gate.open()
        await ending


async def test_emergency_goes_on_past_failing_members_and_reports_each() -> None:
    gate = Gate()
    async with AgentRegistry(limits=SHORT) as registry:
        fine = await filled(registry, Closable, Waiting, user="fine")
        bad = await filled(registry, Raising, RaisingLate, user="bad")
        stuck = await filled(registry, hanging(gate, stubborn=True), Closable, user="stuck")
        late = await filled(registry, Closable, user="late")
        answer = await registry.emergency_cleanup_all()
        assert answer["users_cleaned"] == 4
        assert answer["agents_cleaned"] == 7
        assert len(answer["errors"]) == 3
        assert sum("user 'bad'" in error for error in answer["errors"]) == 2
        assert sum("user 'stuck'" in error for error in answer["errors"]) == 1
        assert [agent.closed for agent in (*fine, *bad, *stuck, *late)] == [1] * 7
        assert registry.get_registry_health()["total_user_sessions"] == 0
        # The registry stays open.
        await filled(registry, Closable)
        gate.open()
        await turns(5)


async def test_aclose_reports_and_is_idempotent() -> None:
    registry = AgentRegistry()
    await filled(registry, Raising, Closable)
    answers = await asyncio.gather(registry.aclose(), registry.cleanup(), registry.aclose())
    assert [answer["agents_cleaned"] for answer in answers] == [2, 2, 2]
    assert [len(answer["errors"]) for answer in answers] == [1, 1, 1]
    assert await registry.aclose() == answers[0]


async def test_leaving_the_block_ends_everything_also_after_an_error() -> None:
    agents: list[Any] = []
    registry = AgentRegistry()

    async def fails() -> None:
        async with registry:
            agents.extend(await filled(registry, Closable, Waiting))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    assert [agent.closed for agent in agents] == [1, 1]


# --------------------------------------------------------------------------------------------------- afterwards


async def test_a_bridge_that_is_asked_for_only_after_the_end_is_closed() -> None:
    from registry import EventType, Origin

    async with AgentRegistry() as registry:
        registry.register("helper", Closable)
        agent = await registry.create_agent_for_user("ada", "helper", context())
        await registry.cleanup_user_session("ada")
        assert agent.bridge is agent.bridge
        with pytest.raises(SessionClosed):
            agent.bridge.emit(EventType.AGENT_THINKING, {}, Origin("main", "run", "helper", ""))


async def test_every_handle_raises_after_the_end() -> None:
    from registry import EventType, Tool
    from registry.llm.base import Prompt
    from registry.tools import ToolDispatcher

    async def dispatcher(user_context: Any, bridge: Any) -> ToolDispatcher:
        return ToolDispatcher(user_context, bridge, [Tool("t", lambda *_: 1)])

    async def story(manager: Any) -> None:
        async with AgentRegistry(None, dispatcher) as registry:
            registry.register("helper", Closable)
            agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
            child = agent.context.create_child_context("x")
            bridge, tools, llm = agent.bridge, agent.tool_dispatcher, agent.llm
            await tools.execute_tool("t", {})
            await llm.complete(Prompt.of("x"))
            await registry.cleanup_user_session("ada")
            # The same user's next session must not be reached by any of them.
            client = manager.connect("ada") if manager else None
            new = await registry.create_agent_for_user("ada", "helper", context(), manager)
            for attempt in (
                agent.run,
                lambda: agent.think("x"),
                lambda: agent.emit(EventType.AGENT_THINKING, {}),
                lambda: tools.execute_tool("t", {}),
                lambda: llm.complete(Prompt.of("x")),
                lambda: registry.create_agent_for_user("ada", "helper", agent.context),
                lambda: registry.get_or_create_agent(child, "helper"),
            ):
                with pytest.raises(SessionClosed):
                    await attempt()
            refusals: list[Callable[[], Any]] = [
                lambda: agent.context.agent_context,
                lambda: child.agent_context,
                lambda: child.create_child_context("y"),
                lambda: agent.context.session_resource("k", list, lambda _: None),
                lambda: bridge.emit(EventType.AGENT_THINKING, {}, Origin("main", "run", "helper", "")),
                lambda: agent.bridge.emit(EventType.AGENT_THINKING, {}, Origin("main", "run", "helper", "")),
            ]
            for refuse in refusals:
                with pytest.raises(SessionClosed):
                    refuse()
            assert agent.context.user_id == "ada"  # For logs.
            if client:
                assert client.pending == 0
            assert (await registry.get_user_session("ada")).agent_count == 1
            assert not new.is_closed

    for manager in (None, WebSocketManager()):
        await story(manager)


@pytest.mark.parametrize("again", ["cleanup", "reset", "aclose"])
async def test_the_same_user_may_return_while_the_old_session_is_closing(again: str) -> None:
    gate = Gate()
    manager = WebSocketManager()
    registry = AgentRegistry()
    registry.register("old", hanging(gate))
    registry.register("new", Closable)
    old: Any = await registry.create_agent_for_user("ada", "old", context(), manager)
    old_session = await registry.get_user_session("ada")
    ending = asyncio.create_task(registry.cleanup_user_session("ada"))
    await gate.reached()
    assert same(await registry.get_user_agent("ada", "old"), None)
    new: Any = await registry.get_or_create_agent(context(), "new")
    session = await registry.get_user_session("ada")
    assert session is not old_session
    await session.set_websocket_manager(manager)
    client = manager.connect("ada")
    await new.run()
    with pytest.raises(SessionClosed):
        await old.run()
    assert client.pending == 2
    assert registry.get_registry_health()["total_user_agents"] == 1
    if again == "reset":
        assert (await registry.reset_user_agents("ada"))["agents_reset"] == 1
        assert not ending.done()
        gate.open()
        await ending
        assert not session.is_closed
        assert client.closed_reason is None
    else:
        second = asyncio.create_task(registry.cleanup_user_session("ada") if again == "cleanup" else registry.aclose())
        await turns(5)
        # When an end returns nothing of the user is left: it waits for the session before.
        assert not second.done()
        gate.open()
        assert (await ending)["cleaned_agents"] == 1
        answer = dict(await second)
        assert answer.get("agents_cleaned") == (2 if again == "aclose" else None)
        assert answer.get("cleaned_agents") == (None if again == "aclose" else 1)
    assert (old.closed, new.closed) == (1, 1)
    await registry.aclose()


async def test_the_end_of_the_old_session_does_not_touch_the_new_one() -> None:
    gate = Gate()
    async with AgentRegistry(limits=SHORT) as registry:
        await filled(registry, hanging(gate, stubborn=True))
        ending = asyncio.create_task(registry.cleanup_user_session("ada"))
        await gate.reached()
        (new,) = await filled(registry, Closable)
        await ending
        assert same(await registry.get_user_agent("ada", "kind0"), new)
        assert new.closed == 0
        gate.open()
        await turns(5)
        await new.run()


# ------------------------------------------------------------------------------------------------------- costs


@pytest.mark.parametrize("kind", [BaseAgent, Closable, Raising])
async def test_a_cleanup_that_does_not_suspend_takes_no_task_and_no_timer(kind: type[BaseAgent]) -> None:
    async def main() -> None:
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

    import logging

    logging.disable(logging.CRITICAL)
    try:
        await main()
    finally:
        logging.disable(logging.NOTSET)


async def test_ended_sessions_are_freed_at_once() -> None:
    async def main() -> None:
        manager = WebSocketManager()
        gate = Gate()
        async with AgentRegistry(limits=Limits(close_timeout=0.02, max_agents_per_user=8)) as registry:
            await registry.get_user_session("bystander")

            async def story() -> None:
                for end in ("cleanup", "emergency", "each"):
                    kinds = (Closable, Waiting, Raising, RaisingLate, hanging(gate), BaseAgent, BaseAgent, BaseAgent)
                    agents = await filled(registry, *kinds)
                    evicted = await filled(registry, Closable, Waiting)
                    await (await registry.get_user_session("ada")).set_websocket_manager(manager)
                    for agent in (*agents[2:4], *evicted):
                        await agent.run("x")
                    del agent
                    if end == "cleanup":
                        await registry.cleanup_user_session("ada")
                    elif end == "each":
                        await registry.remove_user_agent("ada", "kind1")
                        await registry.reset_user_agents("ada")
                        await registry.cleanup_user_session("ada")
                    else:
                        await registry.emergency_cleanup_all()
                        await registry.get_user_session("bystander")
                    del agents, evicted
                await turns(4)

            await story()
            with freed_at_once():
                await story()

    import logging

    logging.disable(logging.CRITICAL)
    try:
        await main()
    finally:
        logging.disable(logging.NOTSET)


async def test_a_removed_agent_says_so() -> None:
    async with AgentRegistry() as registry:
        (agent,) = await filled(registry, Closable)
        await registry.remove_user_agent("ada", "kind0")
        with pytest.raises(AgentClosed, match="agent kind0 is closed"):
            await agent.run()
        with pytest.raises(AgentClosed):
            await agent.think("x")
