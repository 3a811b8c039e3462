"""Defects of the flow from a user's request to the report, and of the supervisor that runs it."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from lab_utils.target import Command, Handle, PlannedStep, SupervisionReport
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import planted_by
from registry import (
    AgentRegistry,
    AgentRequest,
    InMemoryUsage,
    Limits,
    Plan,
    PlanFailed,
    PlanResult,
    Step,
    StepOutcome,
    StepStatus,
    Supervisor,
    UsageRecord,
    UserExecutionContext,
)

__all__ = ["PLANTED"]

_BEGAN: ContextVar[float] = ContextVar("_BEGAN")


class AnswersCachedByRequest(AgentRegistryTarget):
    """Reports are cached by the text of the request, without the user."""

    def __init__(self) -> None:
        super().__init__()
        self._cache: dict[str, SupervisionReport] = {}

    async def orchestrate(self, user: str, request: str) -> SupervisionReport:
        answer = await super().orchestrate(user, request)
        return self._cache.setdefault(request, answer)


class _FirstUsersRows(InMemoryUsage):
    """A source that reads the user once, when it is first asked."""

    def __init__(self, source: InMemoryUsage) -> None:
        super().__init__()
        self.source = source
        self.first: str | None = None

    def records_for(self, user_id: str) -> Any:
        self.first = self.first or user_id
        return self.source.records_for(self.first)


class RowsOfFirstUser(AgentRegistryTarget):
    """The data source is bound to the first user it is opened for."""

    def make_registry(self, source: InMemoryUsage, limits: Limits) -> AgentRegistry:
        return super().make_registry(_FirstUsersRows(source), limits)


class CentsOnly(AgentRegistryTarget):
    """Each record's cost is rounded to cents before it is summed."""

    def make_registry(self, source: InMemoryUsage, limits: Limits) -> AgentRegistry:
        return super().make_registry(
            _Changed(source, lambda one: replace(one, cost_usd=round(one.cost_usd, 2))), limits
        )


class _Changed(InMemoryUsage):
    """The records of a source, each of them changed."""

    def __init__(self, source: InMemoryUsage, change: Callable[[UsageRecord], UsageRecord]) -> None:
        super().__init__()
        self.source, self.change = source, change

    def records_for(self, user_id: str) -> Any:
        return list(map(self.change, self.source.records_for(user_id)))


class FeaturesForgotten(AgentRegistryTarget):
    """Records are read without their features: two calls that differ in nothing else count as one repeated."""

    def make_registry(self, source: InMemoryUsage, limits: Limits) -> AgentRegistry:
        return super().make_registry(_Changed(source, lambda one: replace(one, feature="any")), limits)


class _StepByStep(Supervisor):
    """Runs the steps one after another, each as a plan of its own."""

    def __init__(self, registry: AgentRegistry) -> None:
        super().__init__(registry)

    async def run(self, plan: Plan, user_context: UserExecutionContext, request: AgentRequest | str = "") -> PlanResult:
        outcomes: list[StepOutcome] = []
        outputs: dict[str, Any] = {}
        text = request if isinstance(request, str) else request.text
        for step in plan.steps:
            asked = AgentRequest(step.text or text, self.inputs(step, outputs))
            try:
                result = await super().run(Plan((replace(step, after=()),)), user_context, asked)
            except PlanFailed as failure:
                outcomes.extend(failure.result.outcomes)
                names = [outcome.name for outcome in outcomes]
                skipped = [each for each in plan.steps if each.name not in names]
                outcomes.extend(StepOutcome(each.name, each.agent_type, StepStatus.SKIPPED) for each in skipped)
                raise PlanFailed(str(failure), PlanResult(tuple(outcomes), (), ())) from failure
            outcomes.extend(result.outcomes)
            outputs |= result.outputs
        names_run = tuple(outcome.name for outcome in outcomes)
        return PlanResult(tuple(outcomes), names_run, names_run)

    def inputs(self, step: Step, outputs: dict[str, Any]) -> dict[str, Any]:
        return {name: outputs[name] for name in step.after}


class OneStepAtATime(AgentRegistryTarget):
    """The supervisor runs independent steps one after another."""

    def make_supervisor(self) -> Any:
        return _StepByStep(self.registry)


class SiblingsRunOn(AgentRegistryTarget):
    """A failing step does not cancel its siblings: the supervisor gathers, and waits for all."""

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        statuses: dict[str, str] = {}
        outputs: dict[str, Any] = {}
        error = ""
        for wave in _waves(plan):
            if error:
                statuses |= {step.name: "skipped" for step in wave}
                continue
            parts = await asyncio.gather(*(self._one(user, step, outputs) for step in wave))
            for part in parts:
                statuses |= part.statuses
                outputs |= part.outputs
                error = error or part.error
        return SupervisionReport(statuses, outputs, error)

    async def _one(self, user: str, step: PlannedStep, outputs: dict[str, Any]) -> SupervisionReport:
        context = UserExecutionContext(user)
        inputs = {name: outputs[name] for name in step.after}
        request = AgentRequest("collect", inputs)
        try:
            plan = Plan((Step(step.name, step.agent_type, (), step.timeout),))
            result = await Supervisor(self.registry).run(plan, context, request)
        except PlanFailed as failure:
            return SupervisionReport({step.name: failure.result[step.name].status.value}, {}, str(failure))
        return SupervisionReport({step.name: "completed"}, dict(result.outputs))


class LimitsDropped(AgentRegistryTarget):
    """The steps' time limits are not passed on to the supervisor."""

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        return await super().supervise(user, [replace(step, timeout=None) for step in plan])


class _Shared(Supervisor):
    """Hands every step the outputs of all the earlier ones."""

    def __init__(self, registry: AgentRegistry) -> None:
        super().__init__(registry)

    async def run(self, plan: Plan, user_context: UserExecutionContext, request: AgentRequest | str = "") -> PlanResult:
        names: list[str] = []
        steps: list[Step] = []
        for step in plan.steps:
            siblings = {other.name for other in plan.steps if other.after == step.after}
            steps.append(replace(step, after=tuple(name for name in names if name not in siblings)))
            names.append(step.name)
        return await super().run(Plan(tuple(steps)), user_context, request)


class ResultsForAll(AgentRegistryTarget):
    """Every step receives the results of all earlier steps, not only of those it names."""

    def make_supervisor(self) -> Any:
        return _Shared(self.registry)


class OwnSupervisor(AgentRegistryTarget):
    """Right: runs the steps of a plan in tasks of its own."""

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        await self.attach(user)
        statuses: dict[str, str] = {}
        outputs = self.outputs_before(user)
        error = ""
        tasks: dict[str, asyncio.Task[Any]] = {}
        try:
            while True:
                is_busy = len(tasks) > len(statuses)
                for step in plan:
                    if not error and self.is_next(step, statuses, is_busy) and step.name not in tasks:
                        tasks[step.name] = asyncio.create_task(self._step(user, step, outputs))
                running = [task for name, task in tasks.items() if name not in statuses]
                if not running:
                    break
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for name, task in tasks.items():
                    if name in statuses or not task.done():
                        continue
                    status, failure = _outcome(task)
                    statuses[name] = status
                    if status == "completed":
                        outputs[name] = task.result()
                    elif not error:
                        error = f"step {name!r} {status}: {failure}"
                        self.stop_after(status, tasks)
        except asyncio.CancelledError:
            await self.stop_cancelled(tasks)
            self.keep_cancelled(user, outputs)
            raise
        if error:
            self.keep_failed(user, outputs)
        statuses |= {step.name: "skipped" for step in plan if step.name not in statuses}
        return SupervisionReport(statuses, outputs, error)

    async def _step(self, user: str, step: PlannedStep, outputs: dict[str, Any]) -> Any:
        async with asyncio.timeout(step.timeout):
            handle = await self.agent(user, step)
            return await self.run(handle, Command("collect", {name: outputs[name] for name in step.after}))

    async def agent(self, user: str, step: PlannedStep) -> Handle:
        """The agent for this step."""
        return await self.get_or_create(user, step.agent_type)

    def outputs_before(self, user: str) -> dict[str, Any]:
        """The outputs that a plan of this user begins with."""
        return {}

    def keep_cancelled(self, user: str, outputs: dict[str, Any]) -> None:
        """What is kept of a cancelled plan: nothing."""

    def keep_failed(self, user: str, outputs: dict[str, Any]) -> None:
        """What is kept of a failed plan: nothing."""

    def is_next(self, step: PlannedStep, statuses: dict[str, str], is_busy: bool) -> bool:
        """True if the step may begin; `is_busy`: some other step runs."""
        return all(statuses.get(name) == "completed" for name in step.after)

    def stop_after(self, status: str, tasks: dict[str, asyncio.Task[Any]]) -> None:
        """Cancel the others, one step having failed or passed its limit. They are waited for."""
        for task in tasks.values():
            task.cancel()

    async def stop_cancelled(self, tasks: dict[str, asyncio.Task[Any]]) -> None:
        """Cancel all steps, for their caller was cancelled, and wait for them."""
        for task in tasks.values():
            task.cancel()
        if tasks:
            await asyncio.wait(tasks.values())


class StepsInWaves(OwnSupervisor):
    """Steps begin in waves: the slowest of one holds up what comes after any other of them."""

    def is_next(self, step: PlannedStep, statuses: dict[str, str], is_busy: bool) -> bool:
        return super().is_next(step, statuses, is_busy) and not is_busy


class TimeOutLeavesSiblings(OwnSupervisor):
    """A step that fails cancels its siblings; one that passes its time limit does not."""

    def stop_after(self, status: str, tasks: dict[str, asyncio.Task[Any]]) -> None:
        if status != "timed_out":
            super().stop_after(status, tasks)


class CancelledPlanLeavesSteps(OwnSupervisor):
    """A cancelled caller's steps are cancelled and not waited for: they work on while the caller goes on."""

    async def stop_cancelled(self, tasks: dict[str, asyncio.Task[Any]]) -> None:
        self.stop_after("cancelled", tasks)


class ReportInPlaceOfCancellation(OwnSupervisor):
    """A plan that is cancelled as its last step ends returns its report, and its caller goes on."""

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        working = asyncio.ensure_future(super().supervise(user, plan))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            if working.done():
                return working.result()
            working.cancel()
            await asyncio.wait({working})
            raise


class OutputsByStepName(OwnSupervisor):
    """The outputs of steps are kept by the step's name, for the plans of all users."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {}

    async def _step(self, user: str, step: PlannedStep, outputs: dict[str, Any]) -> Any:
        answer = await super()._step(user, step, self.kept)
        self.kept[step.name] = answer
        return answer


class OutputsByUser(OwnSupervisor):
    """The outputs of steps are kept for their user by the step's name, for two plans at once, too."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: defaultdict[str, dict[str, Any]] = defaultdict(dict)

    async def _step(self, user: str, step: PlannedStep, outputs: dict[str, Any]) -> Any:
        answer = await super()._step(user, step, self.kept[user])
        self.kept[user][step.name] = answer
        return answer


class _StepsOfUser(OwnSupervisor):
    def __init__(self) -> None:
        super().__init__()
        self.under_way: defaultdict[str, set[asyncio.Task[Any]]] = defaultdict(set)

    async def _step(self, user: str, step: PlannedStep, outputs: dict[str, Any]) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self.under_way[user].add(task)
        try:
            return await super()._step(user, step, outputs)
        finally:
            self.under_way[user].discard(task)

    def others_of(self, tasks: dict[str, asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
        """The steps of the user whose steps these are, of all plans."""
        users = [user for user, steps in self.under_way.items() if not steps.isdisjoint(tasks.values())]
        return [step for user in users for step in self.under_way[user]]


class CancelledPlanStopsAnother(_StepsOfUser):
    """A cancelled plan cancels all steps of its user, those of another plan, too."""

    async def stop_cancelled(self, tasks: dict[str, asyncio.Task[Any]]) -> None:
        for step in self.others_of(tasks):
            step.cancel()
        await super().stop_cancelled(tasks)


class ErrorOfAnotherPlan(OwnSupervisor):
    """The error of a failed step is kept for its user, and each plan that ends reports it while another is under
    way."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = Counter[str]()
        self.errors: dict[str, str] = {}

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        self.under_way[user] += 1
        try:
            report = await super().supervise(user, plan)
            self.errors[user] = self.errors.get(user) or report.error
            return replace(report, error=self.errors[user])
        finally:
            self.under_way[user] -= 1
            if not self.under_way[user]:
                self.errors.pop(user, None)


class LimitFromThePlansBeginning(OwnSupervisor):
    """A step's time limit counts from the beginning of its plan: one that comes after a slow one is cut off early."""

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        _BEGAN.set(asyncio.get_running_loop().time())
        return await super().supervise(user, plan)

    async def _step(self, user: str, step: PlannedStep, outputs: dict[str, Any]) -> Any:
        async with asyncio.timeout_at(None if step.timeout is None else _BEGAN.get() + step.timeout):
            return await super()._step(user, replace(step, timeout=None), outputs)


class MakingNotLimited(OwnSupervisor):
    """A step's time limit begins when its agent has been made, which may take for ever."""

    async def _step(self, user: str, step: PlannedStep, outputs: dict[str, Any]) -> Any:
        await self.agent(user, step)
        return await super()._step(user, step, outputs)


class AnyTimeOutIsTheLimit(OwnSupervisor):
    """Every TimeoutError of a step is taken for its time limit: the words of a library's own are lost."""

    async def _step(self, user: str, step: PlannedStep, outputs: dict[str, Any]) -> Any:
        try:
            return await super()._step(user, step, outputs)
        except TimeoutError:
            raise TimeoutError(f"took longer than {step.timeout} s") from None


class ErrorOfThePlansFirstFailure(OwnSupervisor):
    """The words of a failed plan are kept by its steps: whoever fails in a like plan later is given them."""

    def __init__(self) -> None:
        super().__init__()
        self.words: dict[tuple[PlannedStep, ...], str] = {}

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        report = await super().supervise(user, plan)
        return replace(report, error=report.error and self.words.setdefault(tuple(plan), report.error))


class InputsLaidOut(OwnSupervisor):
    """A step's inputs are laid out under its name, and its agent, once it is made, takes what lies there."""

    def __init__(self) -> None:
        super().__init__()
        self.laid_out: dict[str, dict[str, Any]] = {}

    async def _step(self, user: str, step: PlannedStep, outputs: dict[str, Any]) -> Any:
        self.laid_out[step.name] = {name: outputs[name] for name in step.after}
        async with asyncio.timeout(step.timeout):
            handle = await self.agent(user, step)
            return await self.run(handle, Command("collect", self.laid_out[step.name]))


class _Checkpoints(OwnSupervisor):
    def __init__(self) -> None:
        super().__init__()
        self.checkpoints: dict[str, dict[str, Any]] = {}

    def key(self, user: str) -> str:
        """Under which a checkpoint is kept."""
        return user

    def outputs_before(self, user: str) -> dict[str, Any]:
        return self.checkpoints.pop(self.key(user), {})

    async def _step(self, user: str, step: PlannedStep, outputs: dict[str, Any]) -> Any:
        return outputs[step.name] if step.name in outputs else await super()._step(user, step, outputs)


class PlansResumed(_Checkpoints):
    """A cancelled plan leaves a checkpoint, from which the user's next plan resumes, whatever it was asked for."""

    def keep_cancelled(self, user: str, outputs: dict[str, Any]) -> None:
        self.checkpoints[self.key(user)] = outputs


class FailedPlansResumed(_Checkpoints):
    """A failed plan leaves a checkpoint, from which the user's next plan resumes, whatever it was asked for."""

    def keep_failed(self, user: str, outputs: dict[str, Any]) -> None:
        self.checkpoints[self.key(user)] = dict(outputs)


class PlansResumedByAnyone(PlansResumed):
    """A cancelled plan leaves a checkpoint, from which the next plan resumes, whoever asks for it."""

    def key(self, user: str) -> str:
        return "the last"


class StepAgentsLeft(OwnSupervisor):
    """Each step has an agent of its own, in a thread of its own, which stays when the plan has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.made = Counter[str]()

    async def agent(self, user: str, step: PlannedStep) -> Handle:
        self.made[user] += 1
        return await self.create(user, step.agent_type, thread=f"step-{self.made[user]}")


def _outcome(task: asyncio.Task[Any]) -> tuple[str, BaseException | None]:
    if task.cancelled():
        return "cancelled", None
    error = task.exception()
    if error is None:
        return "completed", None
    return "timed_out" if isinstance(error, TimeoutError) else "failed", error


def _waves(plan: Sequence[PlannedStep]) -> list[list[PlannedStep]]:
    waves: list[list[PlannedStep]] = []
    done: set[str] = set()
    left = list(plan)
    while left:
        wave = [step for step in left if done.issuperset(step.after)]
        waves.append(wave)
        done |= {step.name for step in wave}
        left = [step for step in left if step.name not in done]
    return waves


PLANTED = (
    planted_by(AnswersCachedByRequest, "wrong-figure"),
    planted_by(RowsOfFirstUser, "wrong-figure"),
    planted_by(CentsOnly, "wrong-figure"),
    planted_by(FeaturesForgotten, "wrong-figure"),
    planted_by(OneStepAtATime, "no-overlap"),
    planted_by(StepsInWaves, "no-overlap", twin=OwnSupervisor),
    planted_by(SiblingsRunOn, "sibling-not-cancelled"),
    planted_by(LimitsDropped, "limit-ignored"),
    planted_by(ResultsForAll, "result-leak"),
    planted_by(TimeOutLeavesSiblings, "sibling-not-cancelled", twin=OwnSupervisor),
    planted_by(CancelledPlanLeavesSteps, "orphaned-step", twin=OwnSupervisor),
    planted_by(ReportInPlaceOfCancellation, "cancellation-lost", twin=OwnSupervisor),
    planted_by(OutputsByStepName, "cross-user-data", twin=OwnSupervisor),
    planted_by(OutputsByUser, "wrong-answer", twin=OwnSupervisor),
    planted_by(CancelledPlanStopsAnother, "plan-failed", twin=OwnSupervisor),
    planted_by(ErrorOfAnotherPlan, "plan-failed", twin=OwnSupervisor),
    planted_by(LimitFromThePlansBeginning, "wrong-status", twin=OwnSupervisor),
    planted_by(MakingNotLimited, "limit-ignored", twin=OwnSupervisor),
    planted_by(AnyTimeOutIsTheLimit, "error-lost", twin=OwnSupervisor),
    planted_by(ErrorOfThePlansFirstFailure, "canary-in-error", twin=OwnSupervisor),
    planted_by(InputsLaidOut, "cross-user-data", twin=OwnSupervisor),
    planted_by(PlansResumed, "wrong-status", twin=OwnSupervisor),
    planted_by(FailedPlansResumed, "wrong-status", twin=OwnSupervisor),
    planted_by(PlansResumedByAnyone, "cross-user-data", twin=OwnSupervisor),
    planted_by(StepAgentsLeft, "left-behind", twin=OwnSupervisor),
)
