"""Supervisor: runs a plan of agents for one user as a graph, with structured concurrency."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from registry.agent import AgentRequest, AgentResult
from registry.context import UserExecutionContext
from registry.copying import copy_private
from registry.errors import AgentClosed, PlanError, PlanFailed, StepTimedOut, describe
from registry.plan import GOLDEN_PATH, Plan, PlanResult, Step, StepOutcome, StepStatus

__all__ = ["GOLDEN_PATH", "AgentSource", "Plan", "PlanResult", "Step", "StepOutcome", "StepStatus", "Supervisor"]


class AgentSource(Protocol):
    """What a supervisor needs of a registry."""

    async def get_or_create_agent(self, user_context: UserExecutionContext, agent_type: str) -> Any: ...


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
        `PlanFailed` is raised: it names the step, its `__cause__` is what the step raised (`StepTimedOut` for a time
        limit), and its `result` tells how each step ended. Cancelling the caller cancels the running steps and waits
        for them. An agent that ignores its cancellation is waited for.

        Raises `PlanError` before anything runs for a request whose parameters have the name of a step.
        """
        if isinstance(request, str):
            request = AgentRequest(request)
        elif not isinstance(request, AgentRequest):
            raise TypeError(f"run() takes a str or an AgentRequest, not a {type(request).__name__}")
        clash = sorted({step.name for step in plan.steps} & set(request.parameters))
        if clash:
            raise PlanError(f"the request's parameters {', '.join(clash)} have the names of steps; rename them")
        books = _Books(plan)
        cancelled = await self._run_all(books, user_context, request)
        if cancelled is not None:
            # Also where a step failed while it was being cancelled: the caller asked to stop, and is told so.
            raise asyncio.CancelledError(*cancelled)
        result = books.result()
        for name in result.finish_order:
            if result[name].status in (StepStatus.FAILED, StepStatus.TIMED_OUT):
                message = f"step {name!r} ({result[name].agent_type}) {result[name].status}: {result[name].error}"
                raise PlanFailed(message, result) from books.tasks[name].exception()
        return result

    async def _run_all(
        self, books: _Books, user_context: UserExecutionContext, request: AgentRequest
    ) -> tuple[Any, ...] | None:
        """Run the steps until all are completed or one has failed; return the arguments of a cancellation.

        No step outlives this call. Not an `asyncio.TaskGroup`: that of Python 3.11 does not take back its own
        cancellation when two tasks fail in one turn, and the caller's could not be told from it.
        """
        cancellation: tuple[Any, ...] | None = None
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
        limit = asyncio.timeout(step.timeout)
        try:
            async with limit:
                # Copied here and not by the caller: what cannot be copied is this step's failure.
                parameters = copy_private(request.parameters, strict=False, where=f"the inputs of step {step.name!r}")
                agent = await self._registry.get_or_create_agent(user_context, step.agent_type)
                result: AgentResult = await agent.run(AgentRequest(request.text, parameters, request.run_id))
                return result
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
        """What the step is asked, with the outputs of the steps that it names and of no other."""
        outputs = {name: self.tasks[name].result().output for name in step.after}
        return AgentRequest(step.text or request.text, {**request.parameters, **outputs}, request.run_id)

    def begin(self, step: Step, run: Coroutine[Any, Any, AgentResult], clock: Callable[[], float]) -> None:
        task = self.tasks[step.name] = asyncio.get_running_loop().create_task(run)
        finished = self.finished

        def note_end(_: object) -> None:
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
        """Cancel every step that runs, once: a second cancellation would cut off what it does about the first."""
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
