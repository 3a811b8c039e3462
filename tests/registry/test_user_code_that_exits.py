"""User code that raises an error that would end the process: an error like any other, to its own caller and nobody
else."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from registry import (
    AgentRegistry,
    AgentRequest,
    AgentScope,
    BaseAgent,
    EventPayloadError,
    EventType,
    InvalidUserId,
    Plan,
    PlanFailed,
    RegistryError,
    Step,
    Supervisor,
    Tool,
    ToolDispatcher,
    UncopyableValue,
    UserCodeExited,
    UserExecutionContext,
    WebSocketManager,
)
from tests.registry.kit import Closable, ForeignBridge, ForeignManager, context, received, with_tools
from tests.running import run, settled, turns


class Odd(BaseException):
    """Neither an `Exception` nor one that asyncio knows."""


class Mute(SystemExit):
    """Cannot even be emitted."""

    def __str__(self) -> str:
        raise SystemExit(4)

    __repr__ = __str__


ERRORS: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "Odd": lambda: Odd("no"),
    "Mute": Mute,
    "group": lambda: BaseExceptionGroup("many", [SystemExit(1), ValueError()]),
}
FACTORIES = ("agent", "dispatcher", "llm", "bridge")
EACH = pytest.mark.parametrize("make", ERRORS.values(), ids=ERRORS.keys())


class Hook:
    """A value whose copying ends badly, from some copy on."""

    def __init__(self, make: Callable[[], BaseException], after: int = 0) -> None:
        self.make = make
        self.left = after

    def __deepcopy__(self, _: Any) -> Hook:
        if not self.left:
            raise self.make()
        return Hook(self.make, self.left - 1)


class Spared(Closable):
    """Whom nothing of it may touch."""


@asynccontextmanager
async def beside_others(**options: Any) -> AsyncIterator[AgentRegistry]:
    """A registry in which another user's run is under way, and one waits for its turn; both end well."""
    gate = asyncio.Event()

    class Slow(Spared):
        async def execute(self, request: AgentRequest) -> Any:
            await gate.wait()
            return request.text

    async with AgentRegistry(**options) as registry:
        registry.register("slow", Slow)
        slow = await registry.create_agent_for_user("bob", "slow", context("bob"))
        runs = [asyncio.ensure_future(slow.run(f"{number}")) for number in range(2)]
        await turns(3)
        yield registry
        gate.set()
        assert [result.output for result in await asyncio.gather(*runs)] == ["0", "1"]
        assert registry.get_registry_health()["total_user_agents"] == 1
        report = await registry.cleanup_user_session("bob")
        assert (report["cleaned_agents"], report["errors"]) == (1, [])


def is_told(caught: UserCodeExited, error: BaseException) -> None:
    assert isinstance(caught, RegistryError)
    assert type(caught.__cause__) is type(error)
    assert type(error).__name__ in str(caught)


@EACH
@pytest.mark.parametrize("late", [False, True])
async def test_in_execute(make: Callable[[], BaseException], *, late: bool) -> None:
    class Leaving(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            if late:
                await asyncio.sleep(0)
            if request.text == "leave":
                raise make()
            return request.text

    manager = WebSocketManager()
    async with beside_others() as registry:
        registry.register("leaving", Leaving)
        client = manager.connect("ada")
        agent = await registry.create_agent_for_user("ada", "leaving", context(), manager)
        with pytest.raises(UserCodeExited) as caught:
            await agent.run("leave")
        is_told(caught.value, make())
        started, ended = received(client)
        assert (started.type, ended.type) == (EventType.AGENT_STARTED, EventType.AGENT_ERROR)
        assert ended.payload["error"] == "UserCodeExited"
        assert type(make()).__name__ in ended.payload["message"]
        assert (await agent.run("stay")).output == "stay"
        assert not agent.is_running
        assert (await registry.cleanup_user_session("ada"))["cleaned_agents"] == 1


@EACH
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("within_a_run", [False, True])
async def test_in_a_tool(make: Callable[[], BaseException], *, late: bool, within_a_run: bool) -> None:
    def leave(*_: Any) -> Any:
        raise make()

    async def leave_late(*_: Any) -> Any:
        await asyncio.sleep(0)
        raise make()

    class Using(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            with pytest.raises(UserCodeExited) as caught:
                await self.tool_dispatcher.execute_tool("leave")
            is_told(caught.value, make())
            return "went on"

    manager = WebSocketManager()
    async with beside_others(
        tool_dispatcher_factory=with_tools(Tool("leave", leave_late if late else leave))
    ) as registry:
        registry.register("using", Using)
        client = manager.connect("ada")
        agent = await registry.create_agent_for_user("ada", "using", context(), manager)
        if within_a_run:
            assert (await agent.run()).output == "went on"
        else:
            with pytest.raises(UserCodeExited):
                await agent.tool_dispatcher.execute_tool("leave")
        (completed,) = (event.payload for event in received(client) if event.type is EventType.TOOL_COMPLETED)
        assert (completed["status"], completed["error"]) == ("error", "UserCodeExited")
        await registry.cleanup_user_session("ada")


@EACH
@pytest.mark.parametrize(
    ("where", "how"),
    [
        *itertools.product([*FACTORIES, "late agent", "late dispatcher", "late bridge"], ["create", "get_or_create"]),
        *(("bridge", "set"), ("late bridge", "set")),
    ],
)
async def test_in_a_factory(make: Callable[[], BaseException], where: str, how: str) -> None:
    is_on = False

    def leave(*_: Any) -> Any:
        raise make()

    async def leave_late(*_: Any) -> Any:
        await asyncio.sleep(0)
        raise make()

    def named(place: str, otherwise: Any) -> Any:
        def call(*given: Any) -> Any:
            if is_on and place in where:
                return leave_late() if "late" in where else leave()
            return otherwise(*given)

        return call

    class LLM:
        create_handle = staticmethod(named("llm", lambda _: None))

    class Manager:
        create_bridge = staticmethod(named("bridge", lambda _: ForeignBridge()))

    makers: dict[str, Any] = {
        "llm_manager": LLM() if where == "llm" else None,
        "tool_dispatcher_factory": named("dispatcher", with_tools()),
    }
    async with beside_others(**makers) as registry:
        registry.register("helper", named("agent", BaseAgent))
        is_on = True
        manager: Any = Manager()
        if how == "set":
            session = await registry.get_user_session("ada")
            with pytest.raises(UserCodeExited) as caught:
                await session.set_websocket_manager(manager)
            is_told(caught.value, make())
            await registry.cleanup_user_session("ada")
        else:
            for _ in range(2):
                asked = [
                    asyncio.ensure_future(
                        registry.create_agent_for_user("ada", "helper", context(), manager)
                        if how == "create"
                        else registry.get_or_create_agent(context(), "helper", manager if "bridge" in where else None)
                    )
                    for _ in range(2)
                ]
                for answer in await settled(*asked):
                    assert isinstance(answer, UserCodeExited), answer
                    is_told(answer, make())
        await turns(5)
        assert registry.get_registry_health()["total_user_sessions"] == 1
        is_on = False


@EACH
@pytest.mark.parametrize("where", ["create", "get_or_create", "parameters", "output", "tool parameters", "tool answer"])
async def test_in_a_copy_hook(make: Callable[[], BaseException], where: str) -> None:
    class Helper(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            return Hook(make) if where == "output" else request.text

    async with beside_others(tool_dispatcher_factory=with_tools(Tool("echo", lambda *_: Hook(make)))) as registry:
        registry.register("helper", Helper)
        # The copy of the one who made it goes well, the agent's does not.
        given = context(agent_context={"hook": Hook(make, 1)})
        agent = await registry.create_agent_for_user("ada", "helper", context(thread_id="another"))
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "create": lambda: registry.create_agent_for_user("ada", "helper", given),
            "get_or_create": lambda: registry.get_or_create_agent(given, "helper"),
            "parameters": lambda: agent.run(AgentRequest("x", {"hook": Hook(make)})),
            "output": agent.run,
            "tool parameters": lambda: agent.tool_dispatcher.execute_tool("echo", {"hook": Hook(make)}),
            "tool answer": lambda: agent.tool_dispatcher.execute_tool("echo"),
        }
        with pytest.raises(UncopyableValue) as caught:
            await calls[where]()
        assert type(make()).__name__ in str(caught.value)
        await registry.cleanup_user_session("ada")


@pytest.mark.parametrize("make", [*ERRORS.values(), asyncio.CancelledError], ids=[*ERRORS, "CancelledError"])
@pytest.mark.parametrize("late", [False, True])
async def test_in_a_bridge(make: Callable[[], BaseException], *, late: bool) -> None:
    """A client that cannot be reached does not stop the work, for any error."""

    class Bridge(ForeignBridge):
        def emit(self, *_: Any) -> Any:
            if late:
                return self._late()
            raise make()

        async def _late(self) -> None:
            await asyncio.sleep(0)
            raise make()

        def close(self) -> Any:
            if late:
                return self._late()
            raise make()

    async with beside_others() as registry:
        manager, later = (ForeignManager(make=lambda _: Bridge()) for _ in range(2))
        registry.register("helper", BaseAgent)
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        assert (await agent.run("x")).output["text"] == "x"
        await agent.think("hm")
        # Replaced, and then at the end.
        await (await registry.get_user_session("ada")).set_websocket_manager(later)
        await turns(5)
        (error,) = (await registry.cleanup_user_session("ada"))["errors"]
        assert error.startswith("bridge: close() raised ")
        assert type(make()).__name__ in error


class Unspeakable(Exception):
    """An error whose text cannot be computed."""

    def __str__(self) -> str:
        raise SystemExit(5)

    __repr__ = __str__


class BadKey:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        raise SystemExit(6)


@pytest.mark.parametrize("make", [*ERRORS.values(), Unspeakable], ids=[*ERRORS, "Unspeakable"])
async def test_in_the_close_of_a_session_s_resource(make: Callable[[], BaseException]) -> None:
    async with beside_others() as registry:
        registry.register("helper", BaseAgent)
        agent = await registry.create_agent_for_user("ada", "helper", context())
        closed: list[str] = []

        def close(name: str) -> None:
            closed.append(name)
            if name != "middle":
                raise make()

        for name in ("oldest", "older", "middle", "newest"):
            key = BadKey(name)
            for made in (name, "not made again"):
                kept = agent.context.session_resource(key, lambda made=made: made, close)  # type: ignore[misc]
                assert kept == name
        report = await registry.cleanup_user_session("ada")
        assert closed == ["newest", "middle", "older", "oldest"]
        assert report["cleaned_agents"] == 1
        assert len(report["errors"]) == 3
        told = rf"^while closing the session's resource .*{type(make()).__name__}"
        assert all(re.match(told, error) for error in report["errors"]), report["errors"]


@EACH
async def test_in_a_step_of_a_plan_over_agents_of_another_kind(make: Callable[[], BaseException]) -> None:
    class Foreign:
        async def run(self, _: AgentRequest) -> Any:
            raise make()

    class Source:
        async def get_or_create_agent(self, user_context: UserExecutionContext, agent_type: str) -> Any:
            if agent_type == "missing":
                raise make()
            return Foreign()

    async with beside_others():
        for agent_type in ("there", "missing"):
            plan = Plan((Step("one", agent_type), Step("two", "there", after=("one",))))
            with pytest.raises(PlanFailed) as caught:
                await Supervisor(Source()).run(plan, context())
            assert isinstance(caught.value.__cause__, UserCodeExited)
            assert [outcome.status.value for outcome in caught.value.result.outcomes] == ["failed", "skipped"]


@EACH
async def test_in_authenticate(make: Callable[[], BaseException]) -> None:
    def leave(_: str) -> str:
        raise make()

    manager = WebSocketManager()
    async with beside_others():
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "headers": [(b"authorization", b"Bearer x")]}
        await manager.asgi_app(leave)(scope, receive, send)
        assert [message.get("code") for message in sent] == [None, 1011]


@pytest.mark.parametrize("error", [SystemExit(1), StopIteration(1), asyncio.CancelledError(), Odd()], ids=repr)
async def test_in_a_property_of_a_bridge(error: BaseException) -> None:
    class Sly:
        def emit(self, *_: Any) -> None: ...

        @property
        def user_id(self) -> str:
            raise error

    async with beside_others() as registry:
        registry.register("helper", BaseAgent)
        manager = ForeignManager(make=lambda _: Sly())
        asked = asyncio.ensure_future(registry.create_agent_for_user("ada", "helper", context(), manager))
        (answer,) = await settled(asked)
        assert isinstance(answer, Exception), answer
        assert not asked.cancelled()


def test_a_coroutine_that_is_closed_ends_by_generator_exit() -> None:
    """`close()` must find that its GeneratorExit came through, or it raises RuntimeError."""

    class Waiting(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            await asyncio.Event().wait()

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    async def main() -> None:
        dispatcher = ToolDispatcher(context(), None, [Tool("never", never)])
        for begun in (dispatcher.execute_tool("never"), Waiting(scope())._run_in_turn(AgentRequest("x", {}, "r"))):
            begun.send(None)
            begun.close()

    def scope() -> AgentScope:
        return AgentScope(context(), None, None, None)

    run(main)


INTERRUPTED = """
import asyncio, os, signal, sys, threading, time
from registry import AgentRegistry, BaseAgent, UserExecutionContext

class Busy(BaseAgent):
    async def execute(self, request):
        print("begun", flush=True)
        if {blocking}:
            while True:
                pass
        await asyncio.sleep(60)

async def main():
    async with AgentRegistry() as registry:
        registry.register("busy", Busy)
        agent = await registry.create_agent_for_user("ada", "busy", UserExecutionContext("ada"))
        try:
            await agent.run()
        except Exception as error:
            print("an error like any other:", repr(error), flush=True)

# In the background of a script interrupts are ignored, and whatever is started there inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
{how}
"""
RUN = "asyncio.new_event_loop().run_until_complete(main())"
HOWS = {
    "Runner": "asyncio.run(main())",
    "loop": RUN,
    "handler": f"def leave(*_):\n    sys.exit(7)\nsignal.signal(signal.SIGINT, leave)\n{RUN}",
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("how", HOWS)
def test_a_real_interrupt_stops_the_process(how: str, *, blocking: bool) -> None:
    """Ctrl-C, once while everybody waits and twice while an agent's code holds the loop (asyncio takes the first for a
    cancellation); and a signal handler of the application's own that exits."""
    code = textwrap.dedent(INTERRUPTED.format(blocking=blocking, how=HOWS[how]))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGINT)
            if how == "Runner" and blocking:
                # Two at once are one: the second goes out until the process has taken it.
                while process.poll() is None:
                    process.send_signal(signal.SIGINT)
                    try:
                        process.wait(0.2)
                    except subprocess.TimeoutExpired:
                        continue
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "an error like any other" not in out
    assert process.returncode == (7 if how == "handler" else -signal.SIGINT), err


async def test_nothing_of_a_mapping_is_run_where_it_would_end_the_process() -> None:
    class Odd(Mapping[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise SystemExit(1)

        def __iter__(self) -> Any:
            return iter(["a"])

        def __len__(self) -> int:
            return 1

    class Emitting(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            await self.emit(EventType.AGENT_THINKING, Odd())

    async with beside_others() as registry:
        registry.register("emitting", Emitting)
        agent = await registry.create_agent_for_user("ada", "emitting", context())
        with pytest.raises(EventPayloadError):
            await agent.run()
        await registry.cleanup_user_session("ada")


@EACH
async def test_in_a_property_of_an_agent_or_a_manager_and_in_the_repr_of_an_id(
    make: Callable[[], BaseException],
) -> None:
    def leave(*_: Any) -> Any:
        raise make()

    class Leaving(Closable):
        cleanup = property(leave)

    class Manager:
        create_bridge = property(leave)

    class Unshowable:
        __repr__ = __str__ = leave

    async with beside_others() as registry:
        registry.register("old", Closable)
        registry.register("leaving", Leaving)
        manager, user, session = Manager(), Unshowable(), await registry.get_user_session("ada")
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: registry.create_agent_for_user("ada", "old", context(), manager),
            lambda: registry.get_or_create_agent(context(), "old", manager),
            lambda: session.set_websocket_manager(manager),
        ]
        for call in calls:
            with pytest.raises(UserCodeExited):
                await call()
        with pytest.raises(InvalidUserId, match="repr failed"):
            await registry.cleanup_user_session(user)  # type: ignore[arg-type]
        with pytest.raises(InvalidUserId, match="repr failed"):
            await registry.create_agent_for_user(user, "old", context())  # type: ignore[arg-type]
        agents: list[Any] = [
            await registry.create_agent_for_user("ada", kind, context()) for kind in ("old", "leaving", "old")
        ]
        with pytest.raises(TypeError, match="text is an Unshowable; pass a str"):
            await agents[0].run(AgentRequest(user))  # type: ignore[arg-type]
        report = await registry.cleanup_user_session("ada")
        assert report["cleaned_agents"] == 3
        (error,) = report["errors"]
        assert type(make()).__name__ in error
        assert (agents[0].closed, agents[2].closed) == (1, 1)
        # One whose closing needs nothing else.
        await registry.create_agent_for_user("cyd", "leaving", context("cyd"))
        assert len((await registry.cleanup_user_session("cyd"))["errors"]) == 1
