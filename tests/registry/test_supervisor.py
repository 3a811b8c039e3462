"""Plans as data and as running graphs: order, failure, time limits, cancellation, and the answer to each caller."""

from __future__ import annotations

import asyncio
import gc
import math
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import pytest

from registry.agent import AgentRequest, AgentResult, AgentScope, BaseAgent
from registry.agent_registry import AgentRegistry
from registry.context import UserExecutionContext
from registry.errors import (
    AgentClosed,
    PlanError,
    PlanFailed,
    StepTimedOut,
    UncopyableValue,
)
from registry.supervisor import GOLDEN_PATH, Plan, PlanResult, Step, Supervisor
from tests.registry.events.peer import ByHand
from tests.registry.kit import Gate, busy, freed_at_once
from tests.running import turns

DIAMOND = Plan(
    (
        Step("first", "first"),
        Step("left", "left", after=("first",)),
        Step("right", "right", after=("first",)),
        Step("join", "join", after=("left", "right")),
    )
)
TWO = Plan((Step("left", "left"), Step("right", "right"), Step("later", "later", after=("left", "right"))))

Execute = Callable[[BaseAgent, AgentRequest], Coroutine[Any, Any, Any]]


def agent_of(execute: Execute) -> type[BaseAgent]:
    """A real agent whose work is the function."""

    class Scripted(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            return await execute(self, request)

    return Scripted


async def name_only(agent: BaseAgent, _: AgentRequest) -> str:
    return agent.agent_type


def registry_of(**executes: Execute | Gate) -> AgentRegistry:
    registry = AgentRegistry()
    for agent_type, execute in executes.items():
        registry.register(agent_type, busy(execute) if isinstance(execute, Gate) else agent_of(execute))
    return registry


def statuses(result: PlanResult) -> dict[str, str]:
    return {outcome.name: str(outcome.status) for outcome in result.outcomes}


ADA = UserExecutionContext("ada")


def counting_clock() -> Callable[[], float]:
    ticks: Iterator[float] = iter(map(float, range(1_000)))
    return lambda: next(ticks)


# ------------------------------------------------------------------------------------------------------ order, results


async def test_steps_run_in_the_order_of_the_graph_whatever_the_order_of_the_plan() -> None:
    plan = Plan(tuple(reversed(DIAMOND.steps)))
    async with registry_of(**dict.fromkeys(("first", "left", "right", "join"), name_only)) as registry:
        result = await Supervisor(registry, clock=counting_clock()).run(plan, ADA)
    assert result.start_order == ("first", "right", "left", "join")
    assert set(statuses(result).values()) == {"completed"}
    assert [outcome.name for outcome in result.outcomes] == ["join", "right", "left", "first"]
    assert dict(result.outputs) == {"join": "join", "right": "right", "left": "left", "first": "first"}
    assert result["left"].result is result.results["left"]
    assert result["left"].agent_type == "left"
    for step in plan.steps:
        outcome = result[step.name]
        assert outcome.started is not None
        assert outcome.finished is not None
        assert outcome.started < outcome.finished
        for before in step.after:
            earlier = result[before].finished
            assert earlier is not None
            assert earlier < outcome.started
    with pytest.raises(KeyError):
        result["no such step"]
    for mapping in (result.results, result.outputs):
        with pytest.raises(TypeError):
            mapping["left"] = None  # type: ignore[index]
    assert Plan([*plan.steps]) == plan  # type: ignore[arg-type]


async def test_a_step_begins_as_soon_as_its_own_dependencies_are_completed() -> None:
    """`after_left` must not wait for `right`, which it does not name."""
    plan = Plan((Step("left", "left"), Step("right", "right"), Step("after_left", "after_left", after=("left",))))
    right, after_left = Gate(), Gate()
    async with registry_of(left=name_only, right=right, after_left=after_left) as registry:
        running = asyncio.create_task(Supervisor(registry).run(plan, ADA))
        await asyncio.wait_for(asyncio.gather(right.reached(), after_left.reached()), 60)
        right.open()
        after_left.open()

        assert set(statuses(await running).values()) == {"completed"}


async def test_results_go_to_the_steps_that_name_them_and_to_no_other() -> None:
    seen: dict[str, Mapping[str, Any]] = {}
    texts: dict[str, str] = {}

    async def note(agent: BaseAgent, request: AgentRequest) -> Any:
        seen[agent.agent_type] = request.parameters
        texts[agent.agent_type] = request.text
        return {"from": agent.agent_type, "list": [agent.agent_type]}

    plan = Plan(
        (
            Step("first", "first"),
            Step("second", "second", after=("first",)),
            Step("third", "third", after=("second",)),
            Step("fourth", "fourth", after=("first", "third"), text="its own text"),
        )
    )
    request = AgentRequest("shared text", {"window": [1, 2]}, run_id="run-7")
    async with registry_of(first=note, second=note, third=note, fourth=note) as registry:
        result = await Supervisor(registry).run(plan, ADA, request)

    def output(name: str) -> dict[str, Any]:
        return {"from": name, "list": [name]}

    assert seen == {
        "first": {"window": [1, 2]},
        "second": {"window": [1, 2], "first": output("first")},
        "third": {"window": [1, 2], "second": output("second")},
        "fourth": {"window": [1, 2], "first": output("first"), "third": output("third")},
    }
    assert texts == dict.fromkeys(("first", "second", "third"), "shared text") | {"fourth": "its own text"}
    assert {each.run_id for each in result.results.values()} == {"run-7"}
    # Every step has a copy of its own: of the request, and of a result that two steps were given.
    assert len({id(parameters["window"]) for parameters in seen.values()}) == 4
    copies = [result.outputs["first"]["list"], seen["second"]["first"]["list"], seen["fourth"]["first"]["list"]]
    assert len({id(each) for each in copies}) == 3


async def test_an_agent_that_does_not_copy_its_request_still_shares_nothing() -> None:
    """The supervisor copies by itself: a registry of foreign agents need not."""
    given: list[AgentRequest] = []

    class Foreign:
        async def run(self, request: AgentRequest) -> AgentResult:
            given.append(request)
            request.parameters["list"].append("changed")
            return AgentResult("foreign", "id", "run", {"list": ["made"]})

    plan = Plan((Step("a", "x"), Step("b", "x", after=("a",)), Step("c", "x", after=("a",))))
    caller = {"list": ["caller's"]}
    result = await Supervisor(ForeignRegistry(x=Foreign())).run(plan, ADA, AgentRequest("", caller))
    assert caller == {"list": ["caller's"]}
    assert result.outputs["a"] == {"list": ["made"]}
    given[1].parameters["a"]["list"].append("changed")
    assert given[2].parameters["a"] == {"list": ["made"]}


# ------------------------------------------------------------------------------------------------------------- failure


async def test_a_failing_step_cancels_its_siblings_and_names_itself_and_its_cause() -> None:
    sibling = Gate()

    async def fail(_: BaseAgent, __: AgentRequest) -> None:
        await sibling.reached()
        raise LookupError("no such table")

    async with registry_of(left=fail, right=sibling, later=name_only) as registry:
        with pytest.raises(PlanFailed, match=r"step 'left' \(left\) failed: LookupError: no such table") as failure:
            await Supervisor(registry).run(TWO, ADA)
        agent = await registry.get_user_agent("ada", "right")
        # It was waited for: nothing of the plan still runs.
        assert agent is not None
        assert not agent.is_running
    error = failure.value
    assert isinstance(error.__cause__, LookupError)
    assert sibling.cancelled
    assert statuses(error.result) == {"left": "failed", "right": "cancelled", "later": "skipped"}
    ran = error.result["right"]
    assert ran.started is not None
    assert ran.finished is not None
    assert ran.started <= ran.finished
    assert error.result["left"].error == "LookupError: no such table"
    assert [(outcome.name, outcome.agent_type) for outcome in error.result.outcomes] == [
        (name, name) for name in ("left", "right", "later")
    ]
    assert error.result["right"].error == ""
    assert error.result["later"].started is None
    assert dict(error.result.results) == {}


class ForeignAgent:
    """An agent of somebody else's registry: it waits, and answers its cancellation with an error of its own."""

    def __init__(self, reached: asyncio.Event) -> None:
        self.reached = reached

    async def run(self, request: AgentRequest) -> AgentResult:
        self.reached.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("on the way out") from None
        raise AssertionError("unreachable")


class FailingAgent(ForeignAgent):
    async def run(self, request: AgentRequest) -> AgentResult:
        await self.reached.wait()
        raise LookupError("first")


class ForeignRegistry:
    """Hands out agents that are made already."""

    def __init__(self, **agents: Any) -> None:
        self.agents = agents

    async def get_or_create_agent(self, user_context: UserExecutionContext, agent_type: str) -> Any:
        return self.agents[agent_type]


async def test_the_first_failure_is_the_cause_and_a_second_one_is_kept_in_the_result() -> None:
    reached = asyncio.Event()
    registry = ForeignRegistry(left=ForeignAgent(reached), right=FailingAgent(reached))
    with pytest.raises(PlanFailed, match="step 'right'") as failure:
        await Supervisor(registry).run(TWO, ADA)

    error = failure.value
    assert isinstance(error.__cause__, LookupError)
    assert statuses(error.result) == {"left": "failed", "right": "failed", "later": "skipped"}
    assert error.result["left"].error == "OSError: on the way out"
    assert error.result.finish_order == ("right", "left")


async def test_an_output_that_cannot_be_copied_fails_the_step_that_was_to_get_it() -> None:
    class Streaming(BaseAgent):
        copy_output = False

        async def execute(self, request: AgentRequest) -> Any:
            return (n for n in range(3))

    async with registry_of(second=name_only) as registry:
        registry.register("stream", Streaming)
        plan = Plan((Step("one", "stream"), Step("two", "second", after=("one",))))
        with pytest.raises(PlanFailed, match="inputs of step 'two'") as failure:
            await Supervisor(registry).run(plan, ADA)
    assert isinstance(failure.value.__cause__, UncopyableValue)
    assert statuses(failure.value.result) == {"one": "completed", "two": "failed"}


async def test_a_step_that_is_cancelled_from_within_fails_and_does_not_hang() -> None:
    class CancelsItself:
        async def run(self, request: AgentRequest) -> AgentResult:
            raise asyncio.CancelledError

    plan = Plan((Step("a", "x"), Step("b", "x", after=("a",))))
    with pytest.raises(
        PlanFailed, match=r"^step 'a' \(\w+\) failed: AgentClosed: step 'a' was cancelled from within$"
    ) as failure:
        await asyncio.wait_for(Supervisor(ForeignRegistry(x=CancelsItself())).run(plan, ADA), 60)

    error = failure.value
    assert isinstance(error.__cause__, AgentClosed)
    assert statuses(error.result) == {"a": "failed", "b": "skipped"}


def test_a_fault_of_the_supervisor_itself_is_raised_and_never_taken_for_a_result() -> None:
    ticks = iter([0.0, 1.0])

    def clock() -> float:
        return next(ticks)  # Fails at the second step's start.

    async def scenario() -> None:
        async with registry_of(first=name_only, left=name_only, right=name_only, join=name_only) as registry:
            await Supervisor(registry, clock=clock).run(DIAMOND, ADA)

    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(scenario())


# ---------------------------------------------------------------------------------------------------------- time limits


def test_a_step_past_its_limit_is_cancelled_and_named() -> None:
    async def scenario() -> tuple[PlanFailed, list[int]]:
        slow, sibling = Gate(), Gate()
        plan = Plan((Step("left", "left", timeout=2.5), Step("right", "right"), Step("later", "later", ("left",))))
        async with registry_of(left=slow, right=sibling, later=name_only) as registry:
            running = asyncio.create_task(Supervisor(registry).run(plan, ADA))
            await slow.reached()
            await sibling.reached()
            loop = asyncio.get_running_loop()
            assert isinstance(loop, ByHand)
            loop.now += 2.5
            with pytest.raises(PlanFailed) as failure:
                await running
            return failure.value, [slow.cancelled, sibling.cancelled]

    with asyncio.Runner(loop_factory=ByHand) as runner:
        error, cancelled = runner.run(scenario())
    words = "step 'left' (left) timed_out: StepTimedOut: step 'left' took longer than its limit of 2.5 s"
    assert str(error) == words
    assert isinstance(error.__cause__, StepTimedOut)
    assert isinstance(error.__cause__, TimeoutError)
    assert cancelled == [1, 1]
    assert statuses(error.result) == {"left": "timed_out", "right": "cancelled", "later": "skipped"}


async def test_the_limit_holds_for_getting_the_agent_too() -> None:
    async def never(scope: AgentScope) -> BaseAgent:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with AgentRegistry() as registry:
        registry.register("never", never)
        with pytest.raises(PlanFailed, match="took longer"):
            await Supervisor(registry).run(Plan((Step("a", "never", timeout=0.01),)), ADA)
        await asyncio.sleep(0)
        assert registry.get_registry_health()["total_user_sessions"] == 0


async def test_a_time_out_inside_the_agent_is_a_failure_and_not_the_steps_limit() -> None:
    async def own_timeout(_: BaseAgent, __: AgentRequest) -> None:
        raise TimeoutError("the database took too long")

    async with registry_of(x=own_timeout) as registry:
        with pytest.raises(PlanFailed, match="the database took too long") as failure:
            await Supervisor(registry).run(Plan((Step("a", "x", timeout=600),)), ADA)
        assert statuses(failure.value.result) == {"a": "failed"}


# --------------------------------------------------------------------------------------------------------- cancellation


async def test_cancelling_the_caller_cancels_every_step_and_waits_for_it() -> None:
    cleaned: list[str] = []

    async def slow_to_leave(agent: BaseAgent, _: AgentRequest) -> None:
        reached[agent.agent_type].set()
        try:
            await asyncio.Event().wait()
        finally:
            for _turn in range(5):
                await asyncio.sleep(0)
            cleaned.append(agent.agent_type)

    reached: dict[str, asyncio.Event] = {}
    reached.update(left=asyncio.Event(), right=asyncio.Event())
    async with registry_of(left=slow_to_leave, right=slow_to_leave, later=name_only) as registry:
        running = asyncio.create_task(Supervisor(registry).run(TWO, ADA))
        await asyncio.gather(*(event.wait() for event in reached.values()))
        running.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await running
        assert sorted(cleaned) == ["left", "right"]
        assert await registry.get_user_agent("ada", "later") is None
        # The agents are as good as before.
        agent = await registry.get_user_agent("ada", "left")
        assert agent is not None
        assert not agent.is_running


async def test_a_caller_that_is_cancelled_gets_that_also_when_a_step_answers_with_an_error() -> None:
    reached = asyncio.Event()
    supervisor = Supervisor(ForeignRegistry(x=ForeignAgent(reached)))
    running = asyncio.create_task(supervisor.run(Plan((Step("a", "x"),)), ADA))
    await reached.wait()
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    # The error of the step is retrieved: this test would fail for an error that asyncio logs as lost.


# ------------------------------------------------------------------------------------------------------------ the books


@pytest.mark.parametrize("ending", ["completed", "failed", "timed_out", "cancelled"])
async def test_however_a_plan_ends_everything_is_freed_by_reference_counting(ending: str) -> None:
    gate = Gate()

    async def fail(_: BaseAgent, __: AgentRequest) -> None:
        await gate.reached()
        raise LookupError("failed")

    left = {"failed": fail, "completed": name_only}.get(ending, gate)
    plan = Plan((Step("left", "left", timeout=0.01 if ending == "timed_out" else None), Step("right", "right")))
    async with registry_of(left=left, right=name_only if ending == "completed" else gate) as registry:

        async def story() -> None:
            before = gate.arrived
            running = asyncio.create_task(Supervisor(registry).run(plan, ADA))
            if ending == "cancelled":
                while gate.arrived == before:
                    await turns()
                running.cancel()
            try:
                await running
                assert ending == "completed"
            except (PlanFailed, asyncio.CancelledError) as error:
                assert running.cancelled() == (ending == "cancelled")
                del error
            del running
            await registry.cleanup_user_session("ada")
            # The loop's own handle of the step that woke this task may hold the last error until the next turn.
            await turns(2)

        await story()
        with freed_at_once():
            await story()


async def test_a_supervisor_keeps_nothing_between_runs() -> None:
    async with registry_of(x=name_only) as registry:
        supervisor = Supervisor(registry)
        before = gc.get_referents(supervisor)
        for user in ("ada", "bob"):
            await supervisor.run(Plan((Step("a", "x"),)), UserExecutionContext(user))
        assert gc.get_referents(supervisor) == before
        assert not hasattr(supervisor, "__dict__")


# ---------------------------------------------------------------------------------------------------------------- plans


async def test_requests_that_cannot_be_are_refused_before_anything_runs() -> None:
    ran: list[str] = []

    async def note(agent: BaseAgent, _: AgentRequest) -> None:
        ran.append(agent.agent_type)

    async with registry_of(left=note, right=note, later=note) as registry:
        supervisor = Supervisor(registry)
        with pytest.raises(
            PlanError, match=r"^the request's parameters later, left have the names of steps; rename them$"
        ):
            await supervisor.run(TWO, ADA, AgentRequest("", {"left": 1, "later": 2, "other": 3}))
        with pytest.raises(TypeError, match=r"^run\(\) takes a str or an AgentRequest, not a dict$"):
            await supervisor.run(TWO, ADA, {})  # type: ignore[arg-type]
    assert ran == []


# -------------------------------------------------------------------------------------------------------- plans as data


def test_the_golden_path_is_triage_data_optimization_beside_goals_actions_reporting() -> None:
    assert {step.name: step.after for step in GOLDEN_PATH.steps} == {
        "triage": (),
        "data_helper": ("triage",),
        "optimization": ("triage", "data_helper"),
        "goals_triage": ("triage", "data_helper"),
        "actions": ("optimization", "goals_triage"),
        "reporting": ("data_helper", "optimization", "goals_triage", "actions"),
    }
    assert all((step.agent_type, step.timeout, step.text) == (step.name, None, "") for step in GOLDEN_PATH.steps)


NO_SECONDS = "is not a positive number of seconds, nor None"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "", "step name '' is empty; pass at least one character"),
        ("name", None, "step name None is None; pass a str"),
        ("agent_type", 3, "agent type 3 is an int; pass a str"),
        ("agent_type", " x", "agent type ' x' begins or ends with white space; strip it where the id is made"),
        ("after", "b", "step 'a': after='b' is a single string; pass ('b',)"),
        *(
            ("timeout", value, f"step 'a': timeout={value!r} {NO_SECONDS}")
            for value in (0, -1.5, math.inf, math.nan, True, "5")
        ),
        ("text", b"hi", "step 'a': text is a bytes; pass a str"),
    ],
)
def test_steps_that_cannot_be_are_refused(field: str, value: Any, words: str) -> None:
    given: dict[str, Any] = {"name": "a", "agent_type": "x"} | {field: value}
    with pytest.raises(PlanError, match=f"^{re.escape(words)}$"):
        Step(**given)


def x(name: str, *after: str) -> Step:
    return Step(name, "x", after=after)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((), "a plan without steps does nothing; pass at least one Step"),
        ((x("a"), 3), "3 is an int; a plan is made of Step values"),
        (("a",), "'a' is a str; a plan is made of Step values"),
        ((x("b"), x("a"), x("b"), Step("b", "y")), "two steps are named 'b'"),
        ((x("a", "z"),), "step 'a' comes after 'z', which is not a step of the plan"),
        ((x("a"), x("b", "a", "a")), "step 'b' names 'a' twice"),
        ((x("a", "a"),), "the steps wait for each other: 'a' after 'a'"),
        (
            (x("c", "b"), x("b", "o", "c"), x("o"), x("a", "b")),
            "the steps wait for each other: 'b' after 'c' after 'b'",
        ),
        ((x("end", "a"), x("a", "b"), x("b", "a")), "the steps wait for each other: 'a' after 'b' after 'a'"),
        (
            (x("ok"), x("a", "c", "ok"), x("b", "a"), x("c", "b")),
            "the steps wait for each other: 'a' after 'c' after 'b' after 'a'",
        ),
        (
            (x("b", "y"), x("a", "z", "a"), x("a")),
            "two steps are named 'a'; step 'b' comes after 'y', which is not a step of the plan; step 'a' comes after 'z'",
        ),
    ],
)
def test_plans_that_cannot_be_are_refused_with_every_step_at_fault(steps: Any, words: str) -> None:
    with pytest.raises(PlanError, match=f"^{re.escape(words)}"):
        Plan(steps)


@pytest.mark.parametrize(
    "make",
    [
        lambda long: Plan((Step("a", "x", after=(long,)),)),
        lambda long: Plan((Step("a", "x", after=("b", long, long)), Step("b", "x"))),
        lambda long: Plan((Step("a", "x", after=tuple(f"{n}" for n in range(10_000))),)),
        lambda long: Plan((long,)),
        lambda long: Step("a", "x", after=long),
        lambda long: Step("a", "x", timeout=long),
    ],
)
def test_a_refusal_of_a_plan_is_short_whatever_the_plan_holds(make: Callable[[Any], Any]) -> None:
    with pytest.raises(PlanError) as caught:
        make("x" * 100_000)
    assert len(str(caught.value)) < 4_100
