"""UserAgentSession: its adopted agents, and its one bridge: how it gets it, refuses it and gives it back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest

from registry import (
    AgentCreationFailed,
    AgentRegistry,
    AgentScope,
    BaseAgent,
    ContextBoundaryError,
    EventType,
    Limits,
    LLMManager,
    Origin,
    SessionClosed,
    ToolDispatcher,
    UserExecutionContext,
    WebSocketManager,
)
from registry.events.bridge import AgentWebSocketBridge, SilentBridge
from tests.registry.kit import (
    Closable,
    ForeignBridge,
    ForeignManager,
    Gate,
    context,
    registry_of,
    same,
)
from tests.registry.sessions.virtual import virtually
from tests.running import settled, turns


def made_by_hand(user_id: str = "ada", made: type[BaseAgent] = Closable, thread_id: str = "main") -> Any:
    own = context(user_id, thread_id, agent_context={"a": [1]})
    return made(AgentScope(own, ToolDispatcher(own, None), SilentBridge(user_id), LLMManager().create_handle(own)))


async def test_agents_is_a_read_only_view_of_the_newest_of_each_type() -> None:
    async with AgentRegistry() as registry:
        for name in ("a", "b"):
            registry.register(name, BaseAgent)
        session = await registry.get_user_session("ada")
        a1 = await registry.create_agent_for_user("ada", "a", context("ada", "one"))
        a2 = await registry.create_agent_for_user("ada", "a", context("ada", "two"))
        b1 = await registry.create_agent_for_user("ada", "b", context())
        assert session.agents == {"a": a2, "b": b1}
        assert isinstance(session.agents, MappingProxyType)
        with pytest.raises(TypeError):
            session.agents["a"] = a1  # type: ignore[index]
        assert await session.get_agent("a") is a2
        assert await session.get_agent("a", "one") is a1
        assert await session.get_agent("c") is None
        assert session.agent_count == 3


async def test_what_is_adopted_shares_the_sessions_life() -> None:
    async with AgentRegistry() as registry:
        session = await registry.get_user_session("ada")
        agent = made_by_hand()
        dispatcher, handle, its_context = agent.tool_dispatcher, agent.llm, agent.context
        await session.register_agent("mine", agent)
        connection = (manager := WebSocketManager()).connect("ada")
        await session.set_websocket_manager(manager)
        await agent.run()
        assert [event.type for event in (connection.receive_nowait(), connection.receive_nowait()) if event] == [
            "agent_started",
            "agent_completed",
        ]
        assert agent.bridge is session.bridge
        assert (agent.tool_dispatcher, agent.llm) == (dispatcher, handle)
        bridge = agent.bridge
        await registry.cleanup_user_session("ada")
        with pytest.raises(SessionClosed):
            await agent.run()
        with pytest.raises(SessionClosed):
            its_context.agent_context  # noqa: B018
        with pytest.raises(SessionClosed):
            await dispatcher.execute_tool("x", {})
        with pytest.raises(SessionClosed):
            await handle.complete(None)
        with pytest.raises(SessionClosed):
            bridge.emit(EventType.AGENT_THINKING, {}, Origin("main", "run", "helper", ""))


async def test_agents_that_equal_each_other_or_are_falsy_are_told_apart() -> None:
    class Same(Closable):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

        def __bool__(self) -> bool:
            return False

        def __len__(self) -> int:
            return 0

    async with registry_of(same=Same, limits=Limits(max_agents_per_user=3)) as registry:
        made: list[Any] = [
            await registry.create_agent_for_user("ada", "same", context("ada", f"{n}")) for n in range(3)
        ]
        assert await registry.get_or_create_agent(context("ada", "1"), "same") is made[1]
        assert await registry.remove_user_agent("ada", "same") is True
        assert [agent.closed for agent in made] == [0, 0, 1]
        assert await registry.get_user_agent("ada", "same") is made[1]
        assert await registry.lifecycle.cleanup_agent_resources("ada", made[1].agent_id) is True
        assert [agent.closed for agent in made] == [0, 1, 1]
        newer: Any = [await registry.create_agent_for_user("ada", "same", context("ada", "9")) for _ in range(3)]
        assert [agent.closed for agent in (*made, *newer)] == [0, 1, 1, 1, 0, 0]
        await registry.cleanup_user_session("ada")
        assert [agent.closed for agent in (*made, *newer)] == [1] * 6


async def test_a_stale_session_refuses_everything_and_reaches_nothing_new() -> None:
    async with registry_of(helper=Closable) as registry:
        old = await registry.get_user_session("ada")
        await registry.cleanup_user_session("ada")
        new = await registry.get_user_session("ada")
        agent = await registry.create_agent_for_user("ada", "helper", context())
        assert new is not old
        for call in (
            lambda: old.get_agent("helper"),
            lambda: old.set_websocket_manager(WebSocketManager()),
            lambda: old.set_websocket_manager(None),
            old.cleanup_all_agents,
        ):
            with pytest.raises(SessionClosed, match="session of user 'ada' has ended"):
                await call()
        with pytest.raises(SessionClosed):
            old.register_agent("helper", made_by_hand())
        assert dict(old.agents) == {}
        assert old.get_metrics()["total_agents"] == 0
        assert same(await registry.get_user_agent("ada", "helper"), agent)
        assert not agent.is_closed
        assert old.is_closed
        assert "closed" in repr(old)


@pytest.mark.parametrize("is_async", [True, False])
async def test_the_bridge_is_made_once_at_the_first_create_that_brings_a_manager(*, is_async: bool) -> None:
    gate = Gate()
    slow = ForeignManager(gate)

    class Quick(ForeignManager):
        def create_bridge(self, user_context: UserExecutionContext) -> Any:
            self.made.append(ForeignBridge(user_context.user_id))
            return self.made[0]

    async with registry_of(helper=BaseAgent) as registry:
        before = await registry.create_agent_for_user("ada", "helper", context())
        silent = before.bridge
        manager = slow if is_async else Quick()
        tasks = [
            asyncio.create_task(registry.create_agent_for_user("ada", "helper", context(), manager)) for _ in range(5)
        ]
        await turns(3)
        assert gate.arrived == is_async
        tasks[0].cancel()
        await turns(3)
        plain = await registry.create_agent_for_user("ada", "helper", context())
        gate.open()
        first, *others = await settled(*tasks)
        assert isinstance(first, asyncio.CancelledError) == is_async
        last = await registry.create_agent_for_user("ada", "helper", context(), manager)
        (bridge,) = manager.made
        assert all(same(agent.bridge, bridge) for agent in (before, plain, *others, last))
        assert isinstance(silent, SilentBridge)
        assert silent.closed


def closed_bridge() -> Any:
    bridge = WebSocketManager().create_bridge(context())
    bridge.close()
    return bridge


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (
            lambda: WebSocketManager().create_bridge(context("bob")),
            ContextBoundaryError,
            "gave user 'ada' a bridge of user 'bob'",
        ),
        (lambda: ForeignBridge("bob"), ContextBoundaryError, "gave user 'ada' a bridge of user 'bob'"),
        (lambda: None, TypeError, "returned None without emit"),
        (object, TypeError, "returned an object without emit"),
        (closed_bridge, SessionClosed, "a bridge that is closed; make a new one every time"),
    ],
    ids=["bob's", "bob's foreign", "none", "object", "closed"],
)
async def test_what_is_no_bridge_of_this_user_is_refused(make: Any, error: Any, words: str, *, is_async: bool) -> None:
    made = make()

    class Manager:
        def create_bridge(self, _: Any) -> Any:
            async def later() -> Any:
                return made

            return later() if is_async else made

    async with registry_of(helper=BaseAgent) as registry:
        with pytest.raises(error, match=words):
            await registry.create_agent_for_user("ada", "helper", context(), Manager())
        assert len(registry._directory) == 0
        session = await registry.get_user_session("ada")
        old = session.bridge
        with pytest.raises(error, match=words):
            await session.set_websocket_manager(Manager())
        assert session.bridge is old
        # Somebody else's is not ours to close.
        if isinstance(made, ForeignBridge):
            assert made.closed == 0


async def test_what_is_no_manager_and_a_context_of_another_are_refused() -> None:
    async with AgentRegistry() as registry:
        offer: Any = (await registry.get_user_session("ada")).set_websocket_manager
        with pytest.raises(TypeError, match="an int is not a websocket manager: it has no create_bridge"):
            await offer(3)
        with pytest.raises(ContextBoundaryError, match="of user 'bob' was offered to the session of user 'ada'"):
            await offer(WebSocketManager(), context("bob"))


async def test_setting_does_not_wait_for_a_bridge_that_is_being_made_and_stays() -> None:
    gate = Gate()
    slow_one, quick = ForeignManager(gate), ForeignManager()
    async with registry_of(helper=BaseAgent) as registry:
        session = await registry.get_user_session("ada")
        create = asyncio.create_task(registry.create_agent_for_user("ada", "helper", context(), slow_one))
        await gate.reached()
        await session.set_websocket_manager(quick, context(run_id="mine"))
        assert session.bridge is quick.made[0]
        gate.open()
        agent = await create
        await turns(4)
        assert agent.bridge is quick.made[0]
        assert slow_one.made[0].closed == 1


async def test_a_falsy_bridge_is_a_bridge() -> None:
    class Empty(ForeignBridge):
        def __len__(self) -> int:
            return 0

    manager = ForeignManager(make=Empty)
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        await agent.run()
        assert len(manager.made[0].sent) == 2
        assert type(agent.bridge) is not AgentWebSocketBridge


class Silly:
    """A manager that hands out its constructor's argument."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def create_bridge(self, _: UserExecutionContext) -> Any:
        return self.made


async def test_a_manager_is_asked_with_the_context_that_was_given() -> None:
    asked: list[UserExecutionContext] = []

    class Asking(ForeignManager):
        async def create_bridge(self, user_context: UserExecutionContext) -> Any:
            asked.append(user_context)
            return await super().create_bridge(user_context)

    async with AgentRegistry() as registry:
        session = await registry.get_user_session("ada")
        given = context("ada", "t")
        await session.set_websocket_manager(Asking(), given)
        await session.set_websocket_manager(Asking())
        assert asked[0] is given
        assert asked[1].user_id == "ada"


def fails_to_close(error: BaseException, *, late: bool) -> type[ForeignBridge]:
    """A class of bridges whose closing raises: at once, or when it is awaited."""

    class Fails(ForeignBridge):
        def close(self) -> Any:
            super().close()
            if late:
                return self._fail()
            raise error

        async def _fail(self) -> None:
            await asyncio.sleep(0)
            raise error

    return Fails


class HasAclose:
    """A bridge that calls its closing otherwise."""

    user_id = "ada"

    def emit(self, *_: Any) -> None:
        raise AssertionError("nothing is sent")

    async def aclose(self) -> None:
        raise OSError("no such socket")


class HasNone:
    """A bridge that needs no closing."""

    def emit(self, *_: Any) -> None:
        raise AssertionError("nothing is sent")


RAISED = ["bridge: close() raised OSError: no such socket"]


@pytest.mark.parametrize(
    ("make", "errors"),
    [
        (fails_to_close(OSError("no such socket"), late=False), RAISED),
        (fails_to_close(OSError("no such socket"), late=True), RAISED),
        (HasAclose, RAISED),
        (fails_to_close(asyncio.CancelledError(), late=True), ["bridge: close() raised CancelledError"]),
        (ForeignBridge, []),
        (HasNone, []),
    ],
)
async def test_how_a_foreign_bridge_closed_is_reported_and_where_it_was_replaced_logged(
    caplog: pytest.LogCaptureFixture, make: Any, errors: list[str]
) -> None:
    async with AgentRegistry() as registry:
        session = await registry.get_user_session("ada")
        bridges = [make(), make()]
        for bridge in bridges:
            await session.set_websocket_manager(Silly(bridge))
        report = await registry.cleanup_user_session("ada")
        assert report["errors"] == errors
        assert [bridge.closed for bridge in bridges if isinstance(bridge, ForeignBridge)] in ([], [1, 1])
    warned = [record for record in caplog.records if record.name == "registry._sessions.closing"]
    assert [record.getMessage() for record in warned] == [f"while closing for user 'ada': {error}" for error in errors]
    assert all(record.levelno == logging.WARNING for record in warned)


@pytest.mark.parametrize("fails", [False, True])
@virtually
async def test_a_foreign_bridge_that_does_not_close_in_time_is_cancelled_and_reported(*, fails: bool) -> None:
    gate = Gate()

    class Hanging(ForeignBridge):
        async def close(self) -> None:  # type: ignore[override]
            try:
                await gate.pass_through()
            finally:
                if fails:
                    # Retrieved by the registry, or the loop would log it as lost.
                    raise OSError("no such socket")

    async with AgentRegistry(limits=Limits(close_timeout=5.0)) as registry:
        session = await registry.get_user_session("ada")
        await session.set_websocket_manager(Silly(Hanging()))
        report = await registry.cleanup_user_session("ada")
        assert report["errors"] == ["bridge: close() did not end in time; cancelled"]
        assert (gate.arrived, gate.cancelled) == (1, 1)


@pytest.mark.parametrize("how", ["its session ended", "its caller left"])
@pytest.mark.parametrize(("make", "closed"), [(ForeignBridge, 1), (lambda _: ForeignBridge("bob"), 0), (str, None)])
async def test_a_bridge_that_comes_too_late_is_closed_if_it_is_ours(
    make: Callable[[str], Any], closed: int | None, how: str
) -> None:
    gate = Gate()

    class Stubborn(ForeignManager):
        async def create_bridge(self, user_context: UserExecutionContext) -> Any:
            await gate.pass_stubbornly()
            return await super().create_bridge(user_context)

    manager = Stubborn(make=make)
    async with registry_of(helper=BaseAgent, limits=Limits(close_timeout=0.02)) as registry:
        if how == "its session ended":
            session = await registry.get_user_session("ada")
            asked: asyncio.Task[Any] = asyncio.create_task(session.set_websocket_manager(manager))
            await gate.reached()
            await registry.cleanup_user_session("ada")
            gate.open()
            assert [type(answer) for answer in await settled(asked)] == [SessionClosed]
        else:
            asked = asyncio.create_task(registry.create_agent_for_user("ada", "helper", context(), manager))
            await gate.reached()
            asked.cancel()
            assert [type(answer) for answer in await settled(asked)] == [asyncio.CancelledError]
            gate.open()
        await turns(10)
        (made,) = manager.made
        assert getattr(made, "closed", None) == closed
        assert registry.get_registry_health()["total_user_sessions"] == 0


@pytest.mark.parametrize("late", [False, True])
async def test_a_bridge_whose_making_raises_a_cancellation_of_its_own_fails_the_create(*, late: bool) -> None:
    class Cancels:
        def create_bridge(self, _: UserExecutionContext) -> Any:
            if late:
                return self._later()
            raise asyncio.CancelledError

        async def _later(self) -> None:
            raise asyncio.CancelledError

    async with registry_of(helper=BaseAgent) as registry:
        with pytest.raises(AgentCreationFailed):
            await registry.create_agent_for_user("ada", "helper", context(), Cancels())
        with pytest.raises(AgentCreationFailed):
            await registry.get_or_create_agent(context(), "helper", Cancels())
        assert registry.get_registry_health()["total_user_sessions"] == 0
        session = await registry.get_user_session("ada")
        with pytest.raises(AgentCreationFailed):
            await session.set_websocket_manager(Cancels())
        await registry.create_agent_for_user("ada", "helper", context(), ForeignManager())


async def test_a_run_that_is_cancelled_while_its_bridge_emits_its_completion_does_not_emit_an_error_as_well() -> None:
    gate = Gate()

    class Slow(ForeignBridge):
        async def emit(self, event_type: EventType, *rest: Any) -> None:  # type: ignore[override]
            super().emit(event_type, *rest)
            if event_type is EventType.AGENT_COMPLETED:
                await gate.pass_through()

    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), Silly(bridge := Slow()))
        running = asyncio.create_task(agent.run())
        await gate.reached()
        running.cancel()
        await asyncio.wait({running})
        # A bridge that swallows no cancellation hands it on: the caller's own is not taken for the bridge's.
        assert running.cancelled()
        assert [name for name, _ in bridge.sent] == ["agent_started", "agent_completed"]
