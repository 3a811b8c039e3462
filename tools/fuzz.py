"""Random calls of a registry from fifty tasks at once, with cancellations, failures, hangs, and code that exits.

    python -m tools.fuzz --seconds 600 --loop eager

A round is made from a seed: a registry with its limits, six users, and the calls of fifty tasks. The collector is off,
and at the end it must hold that

- every agent that a factory returned was closed exactly once, and never during a run of it;
- runs of one agent came one after another, and each sent its start and its end at most once;
- health, reports and the agents themselves give the same counts, and no limit was passed;
- each caller got its answer, an error of the registry, the error of the code that it called, or, if the caller was
  cancelled itself, a `CancelledError`; its task counts no other cancellation;
- a user who comes afterwards is served as if nothing had happened;
- no object of any user is alive, no task is left, and asyncio logged nothing.

A failed round prints its seed: `--seed SEED --rounds 1` runs it again. Cleanups have deadlines in real time, so a
fault may take several tries.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import itertools
import logging
import random
import sys
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from registry import (
    AgentRegistry,
    AgentRequest,
    AgentScope,
    BaseAgent,
    EventType,
    Limits,
    Origin,
    Plan,
    RegistryError,
    Step,
    Supervisor,
    Tool,
    ToolDispatcher,
    UserExecutionContext,
    WebSocketManager,
)
from registry.errors import stops

__all__ = ["LOOPS", "Round", "main", "run_round"]

TASKS: Final = 50
STEPS: Final = 8
USERS: Final = tuple(f"user-{number}" for number in range(6))
TYPES: Final = ("sync", "async")
THREADS: Final = ("main", "other")
CLOSE_TIMEOUT: Final = 0.02
MOST_SECONDS: Final = 10.0  # For calls that end at once unless they never end.
RUN: Final = "fuzz-"  # Begins the ids that no two runs share.
MakeRegistry = Callable[..., AgentRegistry]


class Odd(BaseException):
    """Neither an `Exception` nor one that asyncio knows."""


class Planned(Exception):
    """The error of the code of an agent, a tool or a bridge."""


EXITS: Final[tuple[type[BaseException], ...]] = (SystemExit, KeyboardInterrupt, GeneratorExit, Odd)


class Round:
    """One round: its random choices, its observations of each agent, and its findings."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.faults: list[str] = []
        self.serials = itertools.count(1)
        self.handed_over: set[int] = set()
        self.closed: Counter[int] = Counter()
        self.running: Counter[int] = Counter()
        self.deaf: set[int] = set()  # Agents that may be closed while they run: a run of theirs ignores cancellation.
        self.events: Counter[tuple[str, str]] = Counter()
        self.is_closed = False
        self.is_calm = False  # From now on no code fails or waits.
        self.seen: list[tuple[str, weakref.ref[Any]]] = []
        self.calls: Counter[str] = Counter()
        self.release = asyncio.Event()  # Set when all callers have ended: hanging work goes on.

    def fault(self, text: str) -> None:
        self.faults.append(f"seed {self.seed}: {text}")

    def watch(self, **things: Any) -> None:
        """Note objects that must not be alive at the end."""
        self.seen += [(name, weakref.ref(thing)) for name, thing in things.items()]

    # The behaviour of agents, factories, tools and bridges.

    def misbehave(self) -> None:
        """Raise something, or nothing; without an await."""
        draw = 1.0 if self.is_calm else self.rng.random()
        if draw < 0.08:
            raise Planned("as planned")
        if draw < 0.13:
            raise self.rng.choice(EXITS)
        if draw < 0.14:
            raise asyncio.CancelledError

    async def misbehave_later(self, serial: int | None = None) -> None:
        """Likewise, or take turns, or hang until it is cancelled. With a serial (of an agent; 0: of none) it may also
        ignore cancellation for some turns, or for longer than a closing lasts."""
        draw = 1.0 if self.is_calm else self.rng.random()
        if draw < 0.4:
            for _ in range(self.rng.randrange(4)):
                await asyncio.sleep(0)
        elif draw < 0.46:
            await self.release.wait()
        elif draw < 0.5 and serial is not None:
            self.deaf.add(serial)
            await _deaf(3 * CLOSE_TIMEOUT if draw < 0.47 else 0)
        self.misbehave()


async def _deaf(seconds: float) -> None:
    """Wait so long and three turns more, whatever cancels it."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    turns = 3
    while loop.time() < until or turns:
        turns = max(0, turns - 1)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.005 if loop.time() < until else 0)


class Fuzzed(BaseAgent):
    """Counts its runs and closings in the round."""

    def __init__(self, scope: AgentScope, round_: Round) -> None:
        super().__init__(scope)
        self.round = round_
        self.serial = next(round_.serials)

    async def execute(self, request: AgentRequest) -> Any:
        it = self.round
        it.running[self.serial] += 1
        if it.running[self.serial] > 1:
            it.fault(f"two runs of agent {self.serial} at once")
        try:
            # Work that ignored its cancellation and then hung would hang for ever, and its caller with it.
            await it.misbehave_later(self.serial if request.text == "plain" else None)
            if request.text == "think":
                await self.think("hm")
            elif request.text == "tool":
                await self.tool_dispatcher.execute_tool("tool", {"a": [1]})
            return {"of": self.context.user_id, "text": request.text}
        finally:
            it.running[self.serial] -= 1

    async def cleanup(self) -> None:
        it = self.round
        it.closed[self.serial] += 1
        if it.running[self.serial] and self.serial not in it.deaf:
            it.fault(f"agent {self.serial} was closed while it ran")
        await it.misbehave_later(self.serial)


class FuzzedAtOnce(Fuzzed):
    """Its cleanup never gives up the processor."""

    async def cleanup(self) -> None:
        self.round.closed[self.serial] += 1
        self.round.misbehave()


class Bridge:
    """Counts the starts and ends of runs, and fails now and then."""

    def __init__(self, user_id: str, round_: Round) -> None:
        self.user_id = user_id
        self.round = round_

    def emit(self, event_type: EventType, payload: Any, origin: Origin) -> Any:
        if not origin.run_id.startswith(RUN):
            pass
        elif event_type in (EventType.AGENT_COMPLETED, EventType.AGENT_ERROR):
            self.round.events[("ends", origin.run_id)] += 1
        elif event_type is EventType.AGENT_STARTED:
            self.round.events[("starts", origin.run_id)] += 1
        self.round.misbehave()

    async def close(self) -> None:
        await self.round.misbehave_later(0)


class Manager:
    """Makes such bridges, some of them asynchronously."""

    def __init__(self, round_: Round) -> None:
        self.round = round_

    def create_bridge(self, user_context: UserExecutionContext) -> Any:
        self.round.misbehave()
        bridge = Bridge(user_context.user_id, self.round)
        return self._later(bridge) if self.round.rng.random() < 0.5 else bridge

    async def _later(self, bridge: Bridge) -> Bridge:
        await self.round.misbehave_later(0)
        return bridge


class Play:
    """The tasks of one round and their calls of one registry."""

    def __init__(self, it: Round, make_registry: MakeRegistry) -> None:
        self.it = it
        rng = it.rng
        times = (None, None, 0.01)
        self.limits = Limits(
            max_agents_per_user=rng.choice((3, 8)),
            max_users=rng.choice((4, None)),
            idle_timeout=rng.choice(times),
            max_session_age=rng.choice(times),
            close_timeout=CLOSE_TIMEOUT,
            max_runs_per_agent=rng.choice((3, None)),
            max_creates_per_user=rng.choice((3, None)),
            max_abandoned_per_user=rng.choice((3, None)),
        )
        self.registry = make_registry(None, self.make_dispatcher, limits=self.limits)
        self.registry.register("sync", self.make)
        self.registry.register("async", self.make_later)
        self.managers: tuple[Any, ...] = (WebSocketManager(), Manager(it), Manager(it))
        self.run_ids = itertools.count(1)

    def make(self, scope: AgentScope) -> BaseAgent:
        it = self.it
        it.misbehave()
        agent = (Fuzzed if it.rng.random() < 0.5 else FuzzedAtOnce)(scope, it)
        it.watch(agent=agent, context=scope.context, handle=scope.llm)
        it.handed_over.add(agent.serial)
        return agent

    async def make_later(self, scope: AgentScope) -> BaseAgent:
        await self.it.misbehave_later(0)
        return self.make(scope)

    async def make_dispatcher(self, user_context: UserExecutionContext, bridge: Any) -> ToolDispatcher:
        self.it.misbehave()
        if self.it.rng.random() < 0.3:
            await asyncio.sleep(0)

        async def tool(*_: object) -> Any:
            await self.it.misbehave_later()
            return {"rows": [1, 2]}

        return ToolDispatcher(user_context, bridge, [Tool("tool", tool)])

    # The calls.

    def context(self, user: str) -> UserExecutionContext:
        return UserExecutionContext(user, self.it.rng.choice(THREADS), agent_context={"of": [user]})

    def manager(self) -> Any:
        return self.it.rng.choice((None, *self.managers))

    async def create(self, user: str) -> None:
        await self.registry.create_agent_for_user(user, self.it.rng.choice(TYPES), self.context(user), self.manager())

    async def get_or_create(self, user: str) -> None:
        await self.registry.get_or_create_agent(self.context(user), self.it.rng.choice(TYPES), self.manager())

    async def run(self, user: str) -> None:
        agent = await self.registry.get_or_create_agent(self.context(user), self.it.rng.choice(TYPES))
        text = self.it.rng.choice(("plain", "think", "tool"))
        result = await agent.run(AgentRequest(text, {"a": [user]}, f"{RUN}{next(self.run_ids)}"))
        if result.output != {"of": user, "text": text}:
            self.it.fault(f"{user} was answered {result.output!r}")

    async def plan(self, user: str) -> None:
        limit = self.it.rng.choice((None, 0.005))
        steps = (Step("one", "sync", timeout=limit), Step("two", "async"), Step("three", "sync", after=("one", "two")))
        await Supervisor(self.registry).run(Plan(steps), self.context(user), AgentRequest("plain"))

    async def adopt(self, user: str) -> None:
        session = await self.registry.get_user_session(user)
        agent = Fuzzed(AgentScope(self.context(user), None, None, None), self.it)
        session.register_agent("adopted", agent)
        self.it.handed_over.add(agent.serial)
        self.it.watch(agent=agent, context=agent.context)

    async def remove(self, user: str) -> None:
        await self.registry.remove_user_agent(user, self.it.rng.choice(TYPES))

    async def reset(self, user: str) -> None:
        report = await self.registry.reset_user_agents(user)
        if report["user_id"] != user:
            self.it.fault(f"a report of {user} is about {report['user_id']}")

    async def end(self, user: str) -> None:
        await self.registry.cleanup_user_session(user)

    async def set_manager(self, user: str) -> None:
        session = await self.registry.get_user_session(user)
        await session.set_websocket_manager(self.manager())

    async def clean(self, user: str) -> None:
        await (await self.registry.get_user_session(user)).cleanup_all_agents()

    async def look(self, user: str) -> None:
        agent = await self.registry.get_user_agent(user, self.it.rng.choice(TYPES))
        if agent is not None and agent.context.user_id != user:
            self.it.fault(f"{user} was given an agent of {agent.context.user_id}")
        self.compare_with_limits()
        for name, report in (await self.registry.monitor_all_users())["users"].items():
            most = self.limits.max_creates_per_user
            if report["user_id"] != name or (most is not None and report["in_flight"] > most + 1):
                self.it.fault(f"{name} has more in flight than {most}: {report}")

    def compare_with_limits(self) -> None:
        """The counts of this moment must be within the limits."""
        health, limits = self.registry.get_registry_health(), self.limits
        if limits.max_users is not None and health["total_user_sessions"] > limits.max_users:
            self.it.fault(f"a limit was passed: {health['total_user_sessions']} users of {limits.max_users}")
        if health["largest_user_agents"] > limits.max_agents_per_user:
            self.it.fault(f"a limit was passed: {health['largest_user_agents']} agents of {limits.max_agents_per_user}")

    async def sweep(self, _: str) -> None:
        await self.registry.lifecycle.sweep()

    async def end_all(self, _: str) -> None:
        await self.registry.emergency_cleanup_all()

    def calls(self) -> list[tuple[Callable[[str], Coroutine[Any, Any, None]], int]]:
        """Each call, and how often it is chosen."""
        return [
            (self.create, 8), (self.get_or_create, 8), (self.run, 14), (self.remove, 3), (self.reset, 2), (self.end, 4),
            (self.set_manager, 2), (self.clean, 1), (self.look, 2), (self.sweep, 1), (self.end_all, 1), (self.plan, 2),
            (self.adopt, 1),
        ]  # fmt: skip

    # The tasks.

    async def work(self) -> None:
        """The steps of one task: a call each, as a rule left alone, else cancelled after some turns or some time."""
        rng = self.it.rng
        calls, weights = zip(*self.calls(), strict=True)
        for _ in range(STEPS):
            (call,) = rng.choices(calls, weights)
            self.it.calls[call.__name__] += 1
            # Not by the loop's factory: an eager task that raises at once is kept by its own error.
            caller = Caller(self.it, call, rng.choice(USERS))
            task = asyncio.Task(caller.observe(), loop=asyncio.get_running_loop())
            if rng.random() < 0.3:
                for _ in range(rng.randrange(8)):
                    await asyncio.sleep(0)
                caller.cancel(task)
            done, _ = await asyncio.wait({task}, timeout=2 * CLOSE_TIMEOUT)
            if not done:
                caller.cancel(task)
                done, _ = await asyncio.wait({task}, timeout=MOST_SECONDS)
                if not done:
                    self.it.fault(f"{caller.name}: a caller was cancelled and still waits after {MOST_SECONDS} s")
            self.compare_with_limits()

    async def whole(self) -> None:
        """All tasks, then silence, then the end."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, about: self.it.fault(f"asyncio complains: {complaint(about)}"))
        workers = [asyncio.Task(self.work(), loop=loop) for _ in range(TASKS)]
        await asyncio.wait(workers)
        for worker in workers:
            # An error of a worker is a fault of this file.
            worker.result()
        del workers, worker
        self.it.release.set()
        self.it.is_calm = True
        await self.settle()
        if self.it.rng.random() < 0.5:
            for user in USERS:
                await self.registry.cleanup_user_session(user)
            if self.limits.idle_timeout is None and self.limits.max_session_age is None:
                # With either, the session may end between any two of its calls.
                await self.serve("newcomer")
        await self.registry.aclose()
        self.it.is_closed = True
        await self.settle()
        health = self.registry.get_registry_health()
        if health["total_user_sessions"] or health["total_user_agents"] or health["ending_sessions"]:
            self.it.fault(f"a closed registry holds something: {health}")
        # It is garbage from here on.
        del health
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            self.it.fault(f"tasks are left: {sorted(name_of(task) for task in left)}")

    async def serve(self, user: str) -> None:
        """A user of whom nothing was there before gets all that a registry gives."""
        client = self.managers[0].connect(user)
        try:
            agent = await self.registry.create_agent_for_user(user, "sync", self.context(user), self.managers[0])
            result = await agent.run(AgentRequest("tool"))
            types = []
            while (event := client.receive_nowait()) is not None:
                types.append(event.type.value)
            report = await self.registry.cleanup_user_session(user)
        except Exception as error:
            self.it.fault(f"a user who came afterwards got {type(error).__name__}: {error}")
        else:
            if result.output != {"of": user, "text": "tool"} or report["cleaned_agents"] != 1 or report["errors"]:
                self.it.fault(f"a user who came afterwards got {result.output} and {report}")
            if types != ["agent_started", "tool_executing", "tool_completed", "agent_completed"]:
                self.it.fault(f"a user who came afterwards received {types}")

    async def settle(self) -> None:
        """Wait until the counts agree and nothing is under way or closing."""
        until = time.monotonic() + MOST_SECONDS
        while (noise := await self.noise()) and time.monotonic() < until:  # noqa: ASYNC110  # There is no such event.
            await asyncio.sleep(0.002)
        if noise:
            self.it.fault(f"not so after {MOST_SECONDS} s of silence: {noise}")

    async def noise(self) -> str:
        """Calls still under way, or counted differently here and there."""
        it = self.it
        everybody = None if it.is_closed else await self.registry.monitor_all_users()
        # No await from here: sessions are swept meanwhile.
        health = self.registry.get_registry_health()
        living = len(it.handed_over - set(it.closed))
        counts = {"health": (health["total_user_sessions"], health["total_user_agents"])}
        if everybody is not None:
            users = everybody["users"].values()
            counts["totals"] = (everybody["total_users"], everybody["total_agents"])
            counts["users"] = (len(users), sum(user["total_agents"] for user in users))
            if any(user["in_flight"] or user["running_agents"] for user in users):
                return f"some are busy: {everybody['users']}"
        if health["abandoned_cleanups"] or health["ending_sessions"] or any(it.running.values()):
            return f"something closes or runs: {health}, {+it.running}"
        if len(set(counts.values())) > 1 or living != health["total_user_agents"]:
            return f"the counts of users and agents differ: {counts}, and {living} agents live"
        return ""


class Caller:
    """One call in a task of its own, as its caller sees it."""

    def __init__(self, it: Round, call: Callable[[str], Awaitable[None]], user: str) -> None:
        self.it = it
        self.call = call
        self.user = user
        self.name = call.__name__
        self.cancelled = 0

    def cancel(self, task: asyncio.Task[None]) -> None:
        self.cancelled += task.cancel()

    async def observe(self) -> None:
        try:
            await self.call(self.user)
        except asyncio.CancelledError:
            if not self.cancelled:
                self.it.fault(f"{self.name}: a caller that nobody cancelled got CancelledError")
        except (RegistryError, Planned):
            pass
        except BaseException as error:
            self.it.fault(f"{self.name}: a caller got {type(error).__name__}: {error}")
        task = asyncio.current_task()
        if task is not None and task.cancelling() != self.cancelled:
            self.it.fault(
                f"{self.name}: its caller's task counts {task.cancelling()} cancellations of {self.cancelled}"
            )


async def _whole(it: Round, make_registry: MakeRegistry) -> None:
    await Play(it, make_registry).whole()


def run_round(seed: int, loop: str = "plain", make_registry: MakeRegistry = AgentRegistry) -> Round:
    """Play one round on a loop of this kind; return its findings."""
    it = Round(seed)
    logging.disable()
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(_whole(it, make_registry))
        _judge(it)
        # asyncio logs about an object when that is freed.
        gc.collect()
    except EXITS as error:
        if stops(error):
            raise
        it.fault(f"the loop was ended by {type(error).__name__}")
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)
    return it


def complaint(about: dict[str, Any]) -> str:
    """The log record of asyncio, as one line."""
    work = about.get("task") or about.get("future")
    return f"{about.get('message')} {name_of(work)} {about.get('exception')!r}"


def name_of(work: object) -> str:
    """Of a task the name of its function, of anything else that of its type."""
    coroutine = work.get_coro() if isinstance(work, asyncio.Task) else None
    return getattr(coroutine, "__qualname__", type(work).__name__)


def _judge(it: Round) -> None:
    never = sorted(it.handed_over - set(it.closed))
    often = sorted(serial for serial, count in it.closed.items() if count > 1)
    strange = sorted(set(it.closed) - it.handed_over)
    for what, serials in (("never closed", never), ("closed more than once", often), ("closed, not made", strange)):
        if serials:
            it.fault(f"{len(serials)} agents were {what}: {serials[:5]}")
    for (what, run_id), count in it.events.items():
        if count > 1:
            it.fault(f"{run_id} {what} {count} times")
    alive = Counter(name for name, ref in it.seen if ref() is not None)
    if alive:
        it.fault(f"alive without the collector: {dict(alive)} of {len(it.seen)}")


def _eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]  # Python 3.12.
    return loop


def _uvloop() -> asyncio.AbstractEventLoop:
    made: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    return made


LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop] | None]] = {
    "plain": None,
    "eager": _eager,
    "uvloop": _uvloop,
}


def rounds(seed: int, count: int | None, seconds: float) -> Iterator[int]:
    """Seeds, until there were so many or the time is over."""
    until = time.monotonic() + seconds
    for number in itertools.count():
        if number == count or time.monotonic() >= until:
            return
        yield seed + number


def main(words: Sequence[str] | None = None) -> int:
    """Run rounds; 1 if any found a fault."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description="Random calls of a registry.")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=None, help="at most so many")
    parser.add_argument("--loop", choices=LOOPS, default="plain", help="eager: Python 3.12; uvloop: if it is installed")
    options = parser.parse_args(words)
    done, found = 0, 0
    calls: Counter[str] = Counter()
    begun = time.monotonic()
    for seed in rounds(options.seed, options.rounds, options.seconds):
        it = run_round(seed, options.loop)
        done += 1
        calls += it.calls
        found += bool(it.faults)
        for fault in it.faults[:10]:
            print(fault, flush=True)
    took = time.monotonic() - begun
    print(f"{done} rounds on {options.loop}, {sum(calls.values())} calls, {took:.0f} s: {found} rounds with faults")
    print(", ".join(f"{name} {count}" for name, count in calls.most_common()))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
