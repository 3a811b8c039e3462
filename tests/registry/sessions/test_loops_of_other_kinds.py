"""Out of others' reach, and freed by reference counting, also with eager tasks and on a loop of another make."""

from __future__ import annotations

import asyncio
import gc
import importlib
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import pytest

from registry import (
    AgentRegistry,
    AgentRequest,
    AgentScope,
    BaseAgent,
    Limits,
    Plan,
    PlanFailed,
    RegistryClosed,
    Step,
    Supervisor,
    Tool,
    ToolDispatcher,
    UserExecutionContext,
    WebSocketManager,
)
from tests.registry.kit import (
    ForeignBridge,
    ForeignManager,
    Gate,
    Raising,
    RaisingLate,
    Waiting,
    busy,
    closings,
    context,
    freed_at_once,
    hanging,
    received,
    registry_of,
    slow,
    with_tools,
)
from tests.running import settled, turns

uvloop: Any = None
with suppress(ImportError):
    uvloop = importlib.import_module("uvloop")

EAGER = getattr(asyncio, "eager_task_factory", None)
KINDS = [
    "plain",
    pytest.param("eager", marks=pytest.mark.skipif(EAGER is None, reason="eager tasks came with Python 3.12")),
    pytest.param("uvloop", marks=pytest.mark.skipif(uvloop is None, reason="uvloop is not installed")),
]
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


T = TypeVar("T")


def run_on(kind: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `main` on a loop of this kind; fail for a task that it left and for errors that asyncio would only log."""
    complaints: list[str] = []

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        if "eager" in kind:
            loop.set_task_factory(EAGER)
        loop.set_exception_handler(lambda _, about: complaints.append(f"{about}"))
        # In a task that is made as all others are.
        await loop.create_task(main())
        await turns(3)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left: {left}"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if "uvloop" in kind else None) as runner:
        runner.run(whole())
    gc.collect(1)
    assert not complaints, complaints


def by_itself(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that is not eager: an eager one that raises at once is kept by its own error."""
    return asyncio.Task(work, loop=asyncio.get_running_loop())


class Ends(BaseAgent):
    """Runs and cleanups that end as the request and the type say: at once, or after they gave up the processor."""

    async def execute(self, request: AgentRequest) -> Any:
        how, _, when = request.text.partition(" ")
        if when == "late":
            await asyncio.sleep(0)
        if how == "tool":
            return (await self.tool_dispatcher.execute_tool("fail")).output
        if how == "raises":
            raise ValueError("no")
        if how == "exits":
            raise SystemExit("no")
        if how == "cancels":
            raise asyncio.CancelledError
        return {"said": [how]}


class MayWait(Raising):
    """A cleanup that fails at once, though its code could give up the processor."""

    async def cleanup(self) -> None:
        if self.closed:
            await asyncio.sleep(0)
        await super().cleanup()


class ExitsInCleanup(BaseAgent):
    async def cleanup(self) -> None:
        await asyncio.sleep(0)
        raise SystemExit(1)


def fail(*_: Any) -> Any:
    raise ValueError("no")


def leave(*_: Any) -> Any:
    raise SystemExit(1)


async def fail_later(*_: Any) -> Any:
    await asyncio.sleep(0)
    raise ValueError("no")


async def fail_at_once(*_: Any) -> Any:
    raise ValueError("no")


FAILING = with_tools(Tool("fail", fail_at_once))


class AsyncManager:
    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    async def create_bridge(self, user_context: UserExecutionContext) -> Any:
        return await self.make(user_context)


class AsyncBridge(ForeignBridge):
    """Its emitting and closing are awaited, and fail at once."""

    async def emit(self, *_: Any) -> None:  # type: ignore[override]
        raise OSError("no")

    async def close(self) -> None:  # type: ignore[override]
        raise OSError("no")


async def async_bridge(*_: Any) -> Any:
    return AsyncBridge()


Story = Callable[[AgentRegistry], Awaitable[None]]
MOST = 4
"""Agents of one user."""


def runs(*texts: str, at_once: bool = False) -> Story:
    async def story(registry: AgentRegistry) -> None:
        agent = await registry.create_agent_for_user("ada", "ends", context(), WebSocketManager())
        if at_once:
            await settled(*(by_itself(agent.run(text)) for text in texts))
        else:
            for text in texts:
                await settled(by_itself(agent.run(text)))
                try:
                    await agent.run(text)
                except Exception as error:
                    del error

    return story


def cleanups(*kinds: str) -> Story:
    async def story(registry: AgentRegistry) -> None:
        for kind in kinds:
            await registry.create_agent_for_user("ada", kind, context())
        await registry.reset_user_agents("ada")
        for kind in kinds:
            await registry.create_agent_for_user("ada", kind, context())
        await registry.remove_user_agent("ada", kinds[0])

    return story


def makings(kind: str, manager: Callable[[], Any] = lambda: None) -> Story:
    async def story(registry: AgentRegistry) -> None:
        brought = manager()
        asks: list[Callable[[], Coroutine[Any, Any, BaseAgent]]] = [
            lambda: registry.create_agent_for_user("ada", kind, context(), brought),
            lambda: registry.get_or_create_agent(context(), kind, brought),
        ]
        for ask in asks:
            await settled(*(by_itself(ask()) for _ in range(3)))
            try:
                await ask()
            except Exception as error:
                del error

    return story


async def evicting(registry: AgentRegistry) -> None:
    for kind in ("waits in cleanup", "raises in cleanup", "raises in cleanup late"):
        for _ in range(MOST + 2):
            await registry.create_agent_for_user("ada", kind, context())
    await turns(4)
    await registry.emergency_cleanup_all()


async def setting(registry: AgentRegistry) -> None:
    session = await registry.get_user_session("ada")
    for make in (fail_at_once, fail_later, async_bridge, async_bridge):
        await settled(*(by_itself(session.set_websocket_manager(AsyncManager(make))) for _ in range(2)))


async def plans(registry: AgentRegistry) -> None:
    plan = Plan((Step("one", "ends", text="says"), Step("two", "ends", after=("one",), text="raises")))
    for _ in range(2):
        try:
            await Supervisor(registry).run(plan, context())
        except PlanFailed as error:
            del error


async def leaving(registry: AgentRegistry) -> None:
    """Callers that are cancelled, and agents that are closed while they run or are made."""
    for how in ("cancelled", "closed", "ended"):
        agent = await registry.create_agent_for_user("ada", "busy", context())
        calls: list[Coroutine[Any, Any, Any]] = [agent.run(), agent.run()]
        if how != "closed":
            calls.append(registry.create_agent_for_user("ada", "slow", context()))
            calls.append(registry.get_or_create_agent(context(), "slow"))
            calls.append(registry.create_agent_for_user("ada", "slow", context(), ForeignManager(Gate())))
        running = [by_itself(call) for call in calls]
        await turns(3)
        if how == "cancelled":
            for task in running:
                task.cancel()
        elif how == "closed":
            await registry.remove_user_agent("ada", "busy")
        else:
            await registry.cleanup_user_session("ada")
        await settled(*running)
        del agent, calls, running


async def asking_for_itself(registry: AgentRegistry) -> None:
    """Factories that ask for their own agent, and are refused."""
    await settled(by_itself(registry.get_or_create_agent(context(), "own")))


async def replacing(registry: AgentRegistry) -> None:
    """Managers that later calls bring, of which some fail."""
    for kind in ("ends", "fails"):
        for manager in (WebSocketManager(), ForeignManager()):
            await settled(by_itself(registry.create_agent_for_user("ada", kind, context(), manager)))
            await settled(by_itself(registry.get_or_create_agent(context(), kind, manager)))
            await settled(by_itself((await registry.get_user_session("ada")).set_websocket_manager(manager)))


async def adopting(registry: AgentRegistry) -> None:
    own = context()
    agent = BaseAgent(AgentScope(own, ToolDispatcher(own), None, None))
    await (await registry.get_user_session("ada")).register_agent("mine", agent)
    await agent.run("x")


STORIES: dict[str, Story] = {
    "adopting": adopting,
    "a cleanup that exits": cleanups("exits in cleanup"),
    "a factory that exits": makings("exits"),
    "runs that say": runs("says", "says late"),
    "runs that raise": runs("raises", "raises late"),
    "runs that exit": runs("exits", "exits late"),
    "runs that cancel themselves": runs("cancels", "cancels late"),
    "runs with failing tools": runs("tool", "tool late"),
    "runs side by side": runs("raises", "says", "raises late", "tool", at_once=True),
    "a cleanup that raises at once": cleanups("raises in cleanup"),
    "a cleanup that raises late": cleanups("raises in cleanup late"),
    "a cleanup that waits": cleanups("waits in cleanup"),
    "cleanups that hang": cleanups("hangs in cleanup", "waits in cleanup"),
    "evictions and the end of all": evicting,
    "cleanups of many kinds": cleanups("raises in cleanup", "waits in cleanup", "raises in cleanup late", "ends"),
    "a factory that raises": makings("fails"),
    "a factory that raises at once": makings("fails at once"),
    "a factory that raises late": makings("fails late"),
    "a manager that raises at once": makings("ends", lambda: AsyncManager(fail_at_once)),
    "a manager that raises late": makings("ends", lambda: AsyncManager(fail_later)),
    "a bridge that raises": makings("ends", lambda: AsyncManager(async_bridge)),
    "managers that are set": setting,
    "plans": plans,
    "leaving": leaving,
    "factories that ask for their own agent": asking_for_itself,
    "managers that are replaced": replacing,
}


@EACH_KIND
@pytest.mark.parametrize("name", STORIES)
def test_everything_of_a_user_is_freed_at_once(kind: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    # A log's handlers keep its records, with the frames of an error.
    caplog.set_level("CRITICAL", logger="registry")

    async def main() -> None:
        limits = Limits(close_timeout=0.02 if "hang" in name else 5.0, max_agents_per_user=MOST)
        async with AgentRegistry(None, FAILING, limits=limits) as registry:
            registry.register("ends", Ends)
            registry.register("hangs in cleanup", hanging(Gate()))
            registry.register("busy", busy(Gate()))
            registry.register("slow", slow(Gate()))
            registry.register("own", lambda _: registry.get_or_create_agent(context(), "own"))
            registry.register("raises in cleanup", MayWait)
            registry.register("raises in cleanup late", RaisingLate)
            registry.register("waits in cleanup", Waiting)
            registry.register("fails", fail)
            registry.register("fails at once", fail_at_once)
            registry.register("fails late", fail_later)
            registry.register("exits", leave)
            registry.register("exits in cleanup", ExitsInCleanup)

            async def whole() -> None:
                await STORIES[name](registry)
                await registry.cleanup_user_session("ada")
                await turns(4)

            await whole()
            with freed_at_once():
                for _ in range(3):
                    await whole()
            assert registry.get_registry_health()["total_user_sessions"] == 0
            assert not registry._runtime.tasks.keys() - {registry.lifecycle._sweeper}

    run_on(kind, main)


@EACH_KIND
def test_answers_orders_and_counts_are_the_same_everywhere(kind: str) -> None:
    async def main() -> None:
        manager = WebSocketManager()
        client = manager.connect("ada")
        async with AgentRegistry(None, FAILING) as registry:
            registry.register("ends", Ends)
            registry.register("waits in cleanup", Waiting)
            agents = await asyncio.gather(
                *(registry.get_or_create_agent(context(), "ends", manager) for _ in range(5)),
                *(registry.create_agent_for_user("ada", "waits in cleanup", context(), manager) for _ in range(2)),
            )
            assert len({id(agent) for agent in agents}) == 3
            answers = await asyncio.gather(
                *(agents[0].run(text) for text in ("says", "raises", "says late", "exits")), return_exceptions=True
            )
            assert [type(answer).__name__ for answer in answers] == [
                "AgentResult",
                "ValueError",
                "AgentResult",
                "UserCodeExited",
            ]
            heard = [event.type.value.removeprefix("agent_") for event in received(client)]
            assert heard == ["started", "completed", "started", "error", "started", "completed", "started", "error"]
            report = await registry.cleanup_user_session("ada")
            assert (report["cleaned_agents"], report["errors"]) == (3, [])
            assert [agent.closed for agent in agents[5:]] == [1, 1]  # type: ignore[attr-defined]

    run_on(kind, main)


def test_a_bridge_that_is_refused_before_its_making_has_begun_leaves_no_coroutine() -> None:
    async def main() -> None:
        async with registry_of(helper=BaseAgent) as registry:
            asked = by_itself(registry.create_agent_for_user("ada", "helper", context(), AsyncManager(async_bridge)))
            ended = by_itself(registry.cleanup_user_session("ada"))
            answers = await settled(asked, ended)
            assert [type(answer).__name__ for answer in answers] == ["SessionClosed", "dict"]

    # A coroutine that was never awaited is a warning, and here an error.
    run_on("plain", main)


@EACH_KIND
@pytest.mark.parametrize("how", ["remove", "reset", "cleanup"])
@pytest.mark.filterwarnings("ignore:.*was never closed:ResourceWarning")
def test_a_closing_that_its_loop_cut_off_closes_what_it_can_and_says_that_something_is_lost(
    kind: str, how: str
) -> None:
    agents: list[Any] = []
    said: list[BaseException] = []

    async def main() -> None:
        if kind == "eager":
            asyncio.get_running_loop().set_task_factory(EAGER)
        gate = Gate()
        registry = AgentRegistry()
        registry.register("hanging", hanging(gate))
        agents.append(await registry.create_agent_for_user("ada", "hanging", context()))

        async def close() -> None:
            try:
                await closings(registry, agent_type="hanging")[how]()
            except asyncio.CancelledError:
                # As a program that catches the end of its loop, and asks once more.
                try:
                    await registry.cleanup_user_session("ada")
                except RegistryClosed as error:
                    said.append(error)
                raise

        asyncio.create_task(close())  # noqa: RUF006  # asyncio.run cancels it.
        await gate.reached()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if kind == "uvloop" else None) as runner:
        runner.run(main())
    gc.collect()  # Or its warning would be another test's.
    assert (agents[0].closed, agents[0].is_closed) == (1, True)
    if how == "cleanup":
        assert [str(error) for error in said] == [
            "the closing was cut off with its event loop; anything not yet closed is lost"
        ]
