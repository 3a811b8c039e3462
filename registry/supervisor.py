"""Plans of agents as graphs, and the Supervisor that runs one for one user, with structured concurrency."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Protocol

from registry.agent import AgentRequest, AgentResult
from registry.context import UserExecutionContext
from registry.copying import copy_private
from registry.eager import begin, start
from registry.errors import (
    AgentClosed,
    Containment,
    InvalidIdentifier,
    PlanError,
    PlanFailed,
    StepTimedOut,
    a_type,
    describe,
    shortened,
    shown,
)
from registry.identity import check_id

__all__ = ["GOLDEN_PATH", "AgentSource", "Plan", "PlanResult", "Step", "StepOutcome", "StepStatus", "Supervisor"]

_STEP: Final = Containment("a step")


@dataclass(frozen=True, slots=True)
class Step:
    """One run of one agent. `after`: the steps that must be completed before, whose outputs it gets as parameters under
    their names. `timeout`: seconds for getting the agent and running it; None: no limit. `text`: the step's own
    request, "" for the plan's. Raises `PlanError` for a field of the wrong type."""

    name: str
    agent_type: str
    after: tuple[str, ...] = ()
    timeout: float | None = None
    text: str = ""

    def __post_init__(self) -> None:
        try:
            check_id("step name", self.name)
            check_id("agent type", self.agent_type)
        except InvalidIdentifier as error:
            raise PlanError(str(error)) from None
        if _is_text(self.after):
            raise PlanError(
                f"step {self.name!r}: after={shown(self.after)} is a single string; pass ({shown(self.after)},)"
            )
        object.__setattr__(self, "after", tuple(self.after))
        limit = self.timeout
        if limit is not None and (type(limit) not in (int, float) or not 0 < limit < math.inf):
            raise PlanError(f"step {self.name!r}: timeout={shown(limit)} is not a positive number of seconds, nor None")
        if not _is_text(self.text):
            raise PlanError(f"step {self.name!r}: text is {a_type(self.text)}; pass a str")


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps that make a graph without a cycle, in any order. Raises `PlanError`, naming every step at fault."""

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        problems = _problems(self.steps)
        if problems:
            raise PlanError(shortened("; ".join(problems), 4_000))


class StepStatus(StrEnum):
    """How a step ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"  # It was running when another step failed.
    SKIPPED = "skipped"  # It never began.


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How one step ended. `started` and `finished` are the supervisor's clock, in seconds, None where it never began.
    `error` is the text of its error, "" without one."""

    name: str
    agent_type: str
    status: StepStatus
    started: float | None = None
    finished: float | None = None
    result: AgentResult | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class PlanResult:
    """How every step of a plan ended, in the order of the plan."""

    outcomes: tuple[StepOutcome, ...]
    start_order: tuple[str, ...]
    finish_order: tuple[str, ...]

    def __getitem__(self, name: str) -> StepOutcome:
        """The outcome of the step of this name; `KeyError` if the plan has none."""
        for outcome in self.outcomes:
            if outcome.name == name:
                return outcome
        raise KeyError(name)

    @property
    def results(self) -> Mapping[str, AgentResult]:
        """The results of the completed steps by name."""
        return MappingProxyType({each.name: each.result for each in self.outcomes if each.result is not None})

    @property
    def outputs(self) -> Mapping[str, Any]:
        """The outputs of the completed steps by name."""
        return MappingProxyType({name: result.output for name, result in self.results.items()})


class RunnableAgent(Protocol):
    """The methods that a supervisor calls on an agent."""

    async def run(self, request: AgentRequest) -> AgentResult: ...


class AgentSource(Protocol):
    """The methods that a supervisor calls on a registry."""

    async def get_or_create_agent(self, user_context: UserExecutionContext, agent_type: str) -> RunnableAgent: ...


class Supervisor:
    """Runs plans over one registry, for any user, any number at once; keeps nothing between runs."""

    __slots__ = ("_clock", "_registry")

    def __init__(self, registry: AgentSource, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock

    async def run(self, plan: Plan, user_context: UserExecutionContext, request: AgentRequest | str = "") -> PlanResult:
        """Run every step as soon as the steps it comes after are completed; return when all are.

        A step gets the request's parameters and, under their names, deep copies of the outputs of the steps in its
        `after`: nothing of any other step. Steps that do not depend on each other run at the same time.

        When a step fails or passes its time limit, the running steps are cancelled and awaited, no other begins, and
        `PlanFailed` is raised. It names the step; its `__cause__` is the step's error (`StepTimedOut` for a time
        limit), and its `result` holds how each step ended. Cancelling the caller cancels the running steps and waits
        for them. An agent that ignores its cancellation is waited for.

        Raises `PlanError` before anything runs for a request whose parameters have the name of a step.
        """
        if isinstance(request, str):
            request = AgentRequest(request)
        elif not isinstance(request, AgentRequest):
            raise TypeError(f"run() takes a str or an AgentRequest, not {a_type(request)}")
        clash = sorted({step.name for step in plan.steps} & set(request.parameters))
        if clash:
            raise PlanError(f"the request's parameters {', '.join(clash)} have the names of steps; rename them")
        books = _Books(plan)
        cancelled = await self._run_all(books, user_context, request)
        if cancelled is not None:
            # Also where a step failed while it was being cancelled: the caller asked to stop, and gets its
            # cancellation.
            raise asyncio.CancelledError(*cancelled)
        result = books.result()
        for name in result.finish_order:
            if result[name].status in (StepStatus.FAILED, StepStatus.TIMED_OUT):
                message = f"step {name!r} ({result[name].agent_type}) {result[name].status}: {result[name].error}"
                raise PlanFailed(message, result) from books.tasks[name].exception()
        return result

    async def _run_all(
        self, books: _Books, user_context: UserExecutionContext, request: AgentRequest
    ) -> tuple[object, ...] | None:
        """Run the steps until all are completed or one has failed; return the arguments of a cancellation.

        No step outlives this call. Not an `asyncio.TaskGroup`: that of Python 3.11 does not take back its own
        cancellation when two tasks fail in one turn, and it could not be distinguished from the caller's.
        """
        cancellation: tuple[object, ...] | None = None
        fault: BaseException | None = None
        while True:
            try:
                if cancellation is None and fault is None and not books.has_failed:
                    for step in books.ready():
                        run = self._run_step(step, user_context, books.request_of(step, request), books.timed_out)
                        books.begin(step, run, self._clock)
                else:
                    books.cancel_running()
                running = books.running()
                if not running:
                    break
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError as error:
                cancellation = error.args
            except BaseException as error:
                # The supervisor's own fault: raised, but not before the steps that it began have ended.
                fault = error
        try:
            if fault is not None:
                raise fault
        finally:
            del fault
        return cancellation

    async def _run_step(
        self, step: Step, user_context: UserExecutionContext, request: AgentRequest, timed_out: set[str]
    ) -> AgentResult:
        await begin()
        limit = asyncio.timeout(step.timeout)
        try:
            async with limit:
                # Copied here and not by the caller: a value that cannot be copied is this step's failure.
                where = f"the inputs of step {step.name!r}"
                parameters = copy_private(request.parameters, strict=False, where=where, bounds=user_context._bounds)
                with _STEP:
                    agent = await self._registry.get_or_create_agent(user_context, step.agent_type)
                    return await agent.run(AgentRequest(request.text, parameters, request.run_id))
        except TimeoutError:
            if not limit.expired():
                raise
            timed_out.add(step.name)
        except asyncio.CancelledError:
            if _times_cancelled():
                raise
        finally:
            # It knows the task, whose exception knows this frame: a cycle.
            del limit
        if step.name in timed_out:
            raise StepTimedOut(f"step {step.name!r} took longer than its limit of {step.timeout} s")
        # A group takes a cancelled task for one that needs no notice, and the steps after it would never begin.
        raise AgentClosed(f"step {step.name!r} was cancelled from within")


class _Books:
    """Which steps of one run have begun and ended."""

    __slots__ = ("cancelled", "finished", "plan", "started", "tasks", "timed_out")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tasks: dict[str, asyncio.Task[AgentResult]] = {}
        self.started: dict[str, float] = {}
        self.finished: dict[str, float] = {}
        self.timed_out: set[str] = set()
        self.cancelled: set[str] = set()

    def ready(self) -> list[Step]:
        """The steps that may begin now, in the order of the plan."""
        return [
            step
            for step in self.plan.steps
            if step.name not in self.tasks and all(self._is_completed(name) for name in step.after)
        ]

    def request_of(self, step: Step, request: AgentRequest) -> AgentRequest:
        """The step's request, with the outputs of the steps that it names and of no other."""
        outputs = {name: self.tasks[name].result().output for name in step.after}
        return AgentRequest(step.text or request.text, {**request.parameters, **outputs}, request.run_id)

    def begin(self, step: Step, run: Coroutine[Any, Any, AgentResult], clock: Callable[[], float]) -> None:
        task = self.tasks[step.name] = start(run)
        finished = self.finished

        def note_end(ended: asyncio.Task[AgentResult]) -> None:
            if not ended.cancelled():
                # Retrieved in any case: a cancelled caller gets no step's error, and asyncio would log it as lost.
                ended.exception()
            # First without the clock, for the step counts as running until it stands here, and a clock may fail.
            finished[step.name] = math.nan
            finished[step.name] = clock()

        # A callback, for a task that is cancelled before its first step runs no line of its own.
        task.add_done_callback(note_end)
        self.started[step.name] = clock()

    @property
    def has_failed(self) -> bool:
        return any(task.done() and not task.cancelled() and task.exception() for task in self.tasks.values())

    def cancel_running(self) -> None:
        """Cancel every step that runs, once: a second cancellation would cut off its handling of the first."""
        for name, task in self.tasks.items():
            if name not in self.cancelled and not task.done():
                self.cancelled.add(name)
                task.cancel()

    def running(self) -> set[asyncio.Task[AgentResult]]:
        """The tasks whose end is not in the books yet; it is noted one turn of the loop after they are done."""
        return {task for name, task in self.tasks.items() if name not in self.finished}

    def result(self) -> PlanResult:
        """How every step ended. Holds errors as text only: an exception's traceback leads to the agent that ran."""
        outcomes = tuple(self._outcome(step) for step in self.plan.steps)
        return PlanResult(outcomes, tuple(self.started), tuple(self.finished))

    def _is_completed(self, name: str) -> bool:
        task = self.tasks.get(name)
        return task is not None and task.done() and not task.cancelled() and task.exception() is None

    def _outcome(self, step: Step) -> StepOutcome:
        task = self.tasks.get(step.name)
        if task is None:
            return StepOutcome(step.name, step.agent_type, StepStatus.SKIPPED)
        times = (self.started[step.name], self.finished[step.name])
        if task.cancelled():
            return StepOutcome(step.name, step.agent_type, StepStatus.CANCELLED, *times)
        error = task.exception()
        if error is None:
            return StepOutcome(step.name, step.agent_type, StepStatus.COMPLETED, *times, result=task.result())
        status = StepStatus.TIMED_OUT if step.name in self.timed_out else StepStatus.FAILED
        return StepOutcome(step.name, step.agent_type, status, *times, error=describe(error))


def _times_cancelled() -> int:
    # The task is asked for anew each time: a frame that keeps it makes a cycle with the task's own exception.
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _problems(steps: tuple[Any, ...]) -> Iterable[str]:
    """Everything that keeps the steps from being a graph that can be run."""
    problems: list[str] = []
    if not steps:
        return ["a plan without steps does nothing; pass at least one Step"]
    for step in steps:
        if not isinstance(step, Step):
            return [f"{shown(step)} is {a_type(step)}; a plan is made of Step values"]
    names = [step.name for step in steps]
    problems += [f"two steps are named {name!r}" for name in sorted(set(names)) if names.count(name) > 1]
    for step in steps:
        unknown = [name for name in step.after if name not in names]
        problems += [
            f"step {step.name!r} comes after {shown(name)}, which is not a step of the plan" for name in unknown
        ]
        problems += [
            f"step {step.name!r} names {shown(name)} twice" for name in set(step.after) if step.after.count(name) > 1
        ]
    cycle = [] if problems else _cycle({step.name: step.after for step in steps})
    if cycle:
        problems.append(f"the steps wait for each other: {' after '.join(map(repr, cycle))}")
    return problems


def _cycle(after: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Names along one cycle, the first repeated at the end; empty where there is none."""
    left = dict(after)
    while free := [name for name, needed in left.items() if not any(each in left for each in needed)]:
        for name in free:
            del left[name]
    if not left:
        return []
    # Every step that is left waits for another that is left, so this walk must come back to where it was.
    path = [min(left)]
    while True:
        following = next(name for name in left[path[-1]] if name in left)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


GOLDEN_PATH: Final = Plan(
    (
        Step("triage", "triage"),
        Step("data_helper", "data_helper", after=("triage",)),
        Step("optimization", "optimization", after=("triage", "data_helper")),
        Step("goals_triage", "goals_triage", after=("triage", "data_helper")),
        Step("actions", "actions", after=("optimization", "goals_triage")),
        Step("reporting", "reporting", after=("data_helper", "optimization", "goals_triage", "actions")),
    )
)
"""From a user's request to the report: triage, data, then optimization beside goals, then actions, then reporting."""
