"""How a session gets its bridge and gives it back: refusals, and the report of one that would not close."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from inline_snapshot import snapshot

from registry import (
    AgentCreationFailed,
    AgentRegistry,
    BaseAgent,
    ContextBoundaryError,
    EventType,
    Limits,
    SessionClosed,
    UserExecutionContext,
    WebSocketManager,
)
from tests.registry.kit import ForeignBridge, ForeignManager, Gate, context, registry_of
from tests.registry.refusing import Refusals
from tests.registry.sessions.virtual import virtually
from tests.running import settled, turns


def exactly(words: str) -> str:
    return f"^{re.escape(words)}$"


class Silly:
    """A manager that hands out its constructor's argument."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def create_bridge(self, _: UserExecutionContext) -> Any:
        return self.made


def closed_bridge() -> Any:
    bridge = WebSocketManager().create_bridge(context())
    bridge.close()
    return bridge


async def test_what_is_no_manager_or_makes_no_bridge_of_the_user_is_refused_with_the_remedy() -> None:
    refused, other = Refusals(), context("bob")
    async with AgentRegistry() as registry:
        offer: Any = (await registry.get_user_session("ada")).set_websocket_manager
        await refused.awaited(TypeError, offer(3), offer(Silly(3)))
        await refused.awaited(
            ContextBoundaryError, offer(Silly(ForeignBridge("bob"))), offer(WebSocketManager(), other)
        )
        await refused.awaited(SessionClosed, offer(Silly(closed_bridge())))
    assert refused.texts == snapshot(
        [
            "a int is not a websocket manager: it has no create_bridge(user_context)",
            "create_bridge() returned a int without emit(event_type, payload, origin); return an AgentWebSocketBridge or an object with that method",
            "create_bridge() gave user 'ada' a bridge of user 'bob'",
            "context of user 'bob' was offered to the session of user 'ada'",
            "create_bridge() gave user 'ada' a bridge that is closed; make a new one every time",
        ]
    )


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


class FailsToClose(ForeignBridge):
    def close(self) -> None:
        super().close()
        raise OSError("no such socket")


class FailsToCloseLate(ForeignBridge):
    async def close(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        raise OSError("no such socket")


class IsCancelled(ForeignBridge):
    async def close(self) -> None:  # type: ignore[override]
        raise asyncio.CancelledError


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
        (FailsToClose, RAISED),
        (FailsToCloseLate, RAISED),
        (HasAclose, RAISED),
        (IsCancelled, ["bridge: close() raised CancelledError"]),
        (ForeignBridge, []),
        (HasNone, []),
    ],
)
async def test_how_a_foreign_bridge_closed_is_reported_and_where_it_was_replaced_logged(
    caplog: pytest.LogCaptureFixture, make: Any, errors: list[str]
) -> None:
    async with AgentRegistry() as registry:
        session = await registry.get_user_session("ada")
        await session.set_websocket_manager(Silly(make()))
        await session.set_websocket_manager(Silly(make()))
        report = await registry.cleanup_user_session("ada")
        assert report["errors"] == errors
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


@pytest.mark.parametrize(("make", "closed"), [(ForeignBridge, 1), (lambda _: ForeignBridge("bob"), 0), (str, None)])
async def test_a_bridge_that_comes_after_the_end_is_closed_if_it_is_ours(
    make: Callable[[str], Any], closed: int | None
) -> None:
    gate = Gate()

    class Stubborn(ForeignManager):
        async def create_bridge(self, user_context: UserExecutionContext) -> Any:
            await gate.pass_stubbornly()
            return await super().create_bridge(user_context)

    manager = Stubborn(make=make)
    async with AgentRegistry(limits=Limits(close_timeout=0.02)) as registry:
        session = await registry.get_user_session("ada")
        setting = asyncio.create_task(session.set_websocket_manager(manager))
        await gate.reached()
        await registry.cleanup_user_session("ada")
        gate.open()
        assert [type(answer) for answer in await settled(setting)] == [SessionClosed]
        await turns(6)
        (made,) = manager.made
        assert getattr(made, "closed", None) == closed


async def test_an_agent_speaks_over_the_bridge_that_is_set_now() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), Silly(first := ForeignBridge()))
        await agent.think("one")
        session = await registry.get_user_session("ada")
        assert session.bridge is first
        await session.set_websocket_manager(Silly(second := ForeignBridge()))
        await agent.think("two")
        heard = [bridge.sent for bridge in (first, second)]
        assert heard == [[("agent_thinking", {"thought": "one"})], [("agent_thinking", {"thought": "two"})]]


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


@pytest.mark.parametrize("late", [False, True])
async def test_a_cancellation_that_a_bridge_raises_on_its_own_stops_no_run(*, late: bool) -> None:
    class Cancels(ForeignBridge):
        def emit(self, *_: Any) -> Any:
            if late:
                return self._later()
            raise asyncio.CancelledError

        async def _later(self) -> None:
            raise asyncio.CancelledError

    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), Silly(Cancels()))
        assert (await agent.run("x")).output["text"] == "x"
        await agent.think("hm")


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
