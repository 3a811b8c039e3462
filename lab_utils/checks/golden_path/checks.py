"""Checks of the category golden_path."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from lab_utils.checks.golden_path import whole_flow
from lab_utils.checks.golden_path.others_plans import judge_others_plans
from lab_utils.checks.histories import Histories, judge_histories
from lab_utils.interleavings import Stage
from lab_utils.target import Capability, PlannedStep, Recipe, Target
from lab_utils.trial import Check, Trial, loops
from lab_utils.trial.faults import Failure, Gate, Planned, SlowToStop
from lab_utils.values.canaries import word

__all__ = ["CHECKS"]

_MOST_TURNS = 40
"""Turns of the loop in which a plan has ended after its last step's hook."""


async def _supervision(trial: Trial) -> None:
    await _order_and_overlap(trial)
    await _no_waves(trial)
    await _failure(trial)
    await _time_out(trial)
    await _cancellation(trial)
    await _late_cancellation(trial)
    await _own_failures(trial)
    await judge_histories(trial, _LIMITS, "plans, each step of which had its own time")
    await judge_others_plans(trial)


def _diamond(timeout: float | None = None) -> tuple[PlannedStep, ...]:
    return (
        PlannedStep("first", "first"),
        PlannedStep("left", "left", ("first",), timeout),
        PlannedStep("right", "right", ("first",)),
        PlannedStep("join", "join", ("left", "right")),
        PlannedStep("last", "last", ("join",)),
    )


async def _supervised(trial: Trial, hooks: Mapping[str, Any]) -> Target:
    return await trial.target([Recipe(step.name, on_run=hooks.get(step.name)) for step in _diamond()])


async def _order_and_overlap(trial: Trial) -> None:
    begun: list[str] = []

    def noting(name: str, hook: Gate | None = None) -> Any:
        async def note(user: str) -> None:
            begun.append(name)
            if hook is not None:
                await hook(user)

        return note

    left, right = Gate(), Gate()
    hooks = {"left": left, "right": right}
    target = await _supervised(trial, {step.name: noting(step.name, hooks.get(step.name)) for step in _diamond()})
    running = asyncio.ensure_future(trial.timed(target.supervise("ada", _diamond())))
    both = all([await trial.waiting.reached(gate.reached, running) for gate in (left, right)])
    trial.require(both, "no-overlap", "left and right do not depend on each other, yet one waits for the other", begun)
    early = [name for name in begun if name in ("join", "last")]
    trial.require(not early, "step-order", "a step began before those it comes after had ended", begun)
    left.open()
    right.open()
    report = await trial.waiting.ends(running, "a plan whose steps can all end")
    completed = all(report.statuses.get(step.name) == "completed" for step in _diamond())
    trial.require(completed, "plan-failed", "a plan without faults did not complete", report)
    trial.require(sorted(begun[1:3]) == ["left", "right"] and begun[:1] + begun[3:] == ["first", "join", "last"],
                  "step-order", "the steps began in another order than the plan's", begun)  # fmt: skip
    for step in _diamond():
        got = sorted((report.outputs.get(step.name) or {"inputs": {}})["inputs"])
        sentence = f"step {step.name!r} received {got}; the plan gives it {sorted(step.after)}"
        trial.require(got == sorted(step.after), "result-leak", sentence, report.outputs.get(step.name))
    trial.measure("steps in the plan", len(begun), "steps")


async def _no_waves(trial: Trial) -> None:
    """A step begins as soon as those it comes after have ended, whatever else runs."""
    right, last = Gate(), Gate()
    target = await _supervised(trial, {"right": right, "last": last})
    plan = (PlannedStep("left", "left"), PlannedStep("right", "right"), PlannedStep("last", "last", ("left",)))
    running = asyncio.ensure_future(trial.timed(target.supervise("ada", plan)))
    began = all([await trial.waiting.reached(gate.reached, running) for gate in (right, last)])
    sentence = "last comes after left alone, which has ended, and waits for right"
    trial.require(began, "no-overlap", sentence, f"inside right: {right.inside}, inside last: {last.inside}")
    right.open()
    last.open()
    await trial.waiting.ends(running, "a plan of two branches")


async def _failure(trial: Trial) -> None:
    right = Gate()

    async def after_right(user: str) -> None:
        await right.reached.wait()

    target = await _supervised(trial, {"left": Failure("planned", before=after_right), "right": right})
    running = asyncio.ensure_future(trial.timed(target.supervise("ada", _diamond())))
    ended = await _ended(trial, running)
    sentence = "left failed, and its sibling went on running"
    trial.require(ended and right.inside == 0, "sibling-not-cancelled", sentence, f"inside right: {right.inside}")
    right.open()
    report = await trial.waiting.ends(running, "a plan with a failed step")
    expected = {"first": "completed", "left": "failed", "right": "cancelled", "join": "skipped", "last": "skipped"}
    if ended:
        sentence = f"a failing step gave {dict(report.statuses)}"
        trial.require(dict(report.statuses) == expected, "wrong-status", sentence, f"expected {expected}")
    named = "left" in report.error and "planned" in report.error
    trial.require(named, "error-lost", "the plan's error does not name the step and its cause", repr(report.error))


async def _time_out(trial: Trial) -> None:
    # The step is held for ever, so its limit passes on any machine; how soon decides nothing.
    left, right = Gate(), Gate()
    target = await _supervised(trial, {"left": left, "right": right})
    running = asyncio.ensure_future(trial.timed(target.supervise("ada", _diamond(timeout=0.02))))
    ended = await _ended(trial, running)
    trial.require(left.inside == 0, "limit-ignored", "a step with a limit of 0.02 s still runs", "left hangs for ever")
    if not left.inside:
        sentence = "left passed its limit, and its sibling went on running"
        trial.require(right.inside == 0, "sibling-not-cancelled", sentence, f"inside right: {right.inside}")
    for gate in (left, right):
        gate.open()
    if ended:
        status = running.result().statuses.get("left")
        trial.require(status == "timed_out", "wrong-status", f"a step past its limit is {status!r}", running.result())


async def _cancellation(trial: Trial) -> None:
    left, right = Gate(), SlowToStop()
    target = await _supervised(trial, {"left": left, "right": right})
    running = asyncio.ensure_future(trial.timed(target.supervise("ada", _diamond())))
    await trial.waiting.reached(right.reached, running)
    running.cancel()
    await _ended(trial, running)
    inside = (left.inside, right.inside)
    trial.require(running.cancelled(), "cancellation-lost", "a cancelled caller did not get its cancellation", running)
    trial.require(inside == (0, 0), "orphaned-step", "steps run on although their caller was cancelled", inside)
    left.open()
    right.open()
    make = target.get_or_create if Capability.GET_OR_CREATE in target.capabilities else target.create
    handle = await trial.waiting.ends(make("ada", "join"), "the next call after a cancelled plan")
    trial.require(handle.user == "ada", "wrong-answer", "the next call after a cancelled plan went wrong", handle)


async def _late_cancellation(trial: Trial) -> None:
    """Cancel plans while their last step ends, each a turn of the loop later: as long as a plan can be cancelled, its
    caller gets the cancellation."""
    plan = (PlannedStep("first", "first"), PlannedStep("last", "last", ("first",)))
    running: list[asyncio.Future[Any]] = []
    accepted: list[bool] = []

    def cancel(turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(cancel, turns - 1)
        else:
            accepted.append(running[-1].cancel())

    async def on_last(_: str) -> None:
        cancel(len(accepted))

    target = await _supervised(trial, {"last": on_last})
    for turns in range(_MOST_TURNS):
        running.append(asyncio.ensure_future(trial.timed(target.supervise("ada", plan))))
        await _ended(trial, running[-1])
        if len(accepted) <= turns or not accepted[-1]:
            break
        sentence = f"a caller who was cancelled {turns} turns of the loop after the plan's last step got its report"
        if not trial.require(running[-1].cancelled(), "cancellation-lost", sentence, running[-1]):
            break
    trial.measure("plans cancelled as they ended", len(accepted), "plans")


async def _own_failures(trial: Trial) -> None:
    """Plans with the same steps fail one after another, each with an error of its own."""
    words: dict[str, str] = {}

    async def failing(user: str) -> None:
        raise Planned(f"planned for {words[user]}")

    target = await trial.target([Recipe("left", on_run=failing)])
    users = trial.user_ids(2)
    plans = [(user, word(user, number)) for user, number in ((users[0], 0), (users[1], 0), (users[0], 1))]
    for user, own in plans:
        words[user] = own
        supervised = target.supervise(user, (PlannedStep("left", "left"),))
        report = await trial.waiting.ends(trial.timed(supervised), "a plan whose step fails")
        others = [other for other, text in plans if other != user and text in report.error]
        sentence = f"the error of the plan of {user!r} holds words of the error of {others}"
        if not trial.require(not others, "canary-in-error", sentence, repr(report.error)):
            return
        sentence = f"the error of a plan of {user!r} does not hold the words of its own step's error"
        trial.require(own in report.error, "error-lost", sentence, repr(report.error))


async def _limit_of_its_own(stage: Stage, target: Target) -> None:
    """A step that comes after a slow one has its whole time limit."""

    async def slow(_: str) -> None:
        await asyncio.sleep(_TAKES_S)

    await target.start([Recipe("first", on_run=slow), Recipe("second", on_run=slow)], {}, 5.0)
    plan = (PlannedStep("first", "first"), PlannedStep("second", "second", ("first",), _LIMIT_S))
    report = await target.supervise("ada", plan)
    if report.statuses.get("second") == "timed_out":
        took = f"took {_TAKES_S:g} s, after one that took as long"
        stage.find("wrong-status", f"a step with a limit of {_LIMIT_S:g} s {took}, and is 'timed_out'")


async def _limit_of_the_making(stage: Stage, target: Target) -> None:
    """A step's time limit holds also where its agent is made as it begins."""
    ended: list[str] = []
    is_made_in_it: list[bool] = []

    async def first(_: str) -> None:
        ended.append("first")

    async def slow(_: str) -> None:
        is_made_in_it.append("first" in ended)
        await asyncio.sleep(_HANGS_S)

    await target.start([Recipe("first", on_run=first), Recipe("second", on_create=slow)], {}, 5.0)
    plan = (PlannedStep("first", "first"), PlannedStep("second", "second", ("first",), _LIMIT_S))
    report = await target.supervise("ada", plan)
    # Agents may be made before the steps begin, and then no step's time counts it.
    if is_made_in_it == [True] and report.statuses.get("second") == "completed":
        sentence = f"a step with a limit of {_LIMIT_S:g} s, whose agent took {_HANGS_S:g} s to make, completed"
        stage.find("limit-ignored", sentence)


async def _time_out_of_its_own(stage: Stage, target: Target) -> None:
    """A step in whose code something times out has failed with the words of that, and did not pass its own limit."""
    words = "the step's own library gave up"

    async def gives_up(_: str) -> None:
        raise TimeoutError(words)

    await target.start([Recipe("first", on_run=gives_up)], {}, 5.0)
    for limit in (None, _LIMIT_S):
        report = await target.supervise("ada", (PlannedStep("first", "first", (), limit),))
        if words not in report.error:
            bound = "without a limit" if limit is None else f"with a limit of {limit:g} s"
            sentence = f"a step {bound} raised at once TimeoutError({words!r}), and the plan's error does not say so"
            stage.find("error-lost", f"{sentence}: {report.error!r}")


_TAKES_S, _LIMIT_S, _HANGS_S = 60.0, 80.0, 600.0
"""Seconds of the loop's own clock."""
_LIMITS: Histories = (
    ("a step's time limit counts from its own beginning", frozenset({Capability.SUPERVISION}), _limit_of_its_own),
    ("a step's time limit counts the making of its agent", frozenset({Capability.SUPERVISION}), _limit_of_the_making),
    ("a time-out in a step's code is no time limit", frozenset({Capability.SUPERVISION}), _time_out_of_its_own),
)


async def _ended(trial: Trial, task: asyncio.Future[Any]) -> bool:
    """True if the task ends by itself; it is not cancelled."""
    return not await loops.done_in(trial.waiting.stuck_after, {task})


CHECKS = (
    Check(
        name="complete_agent_orchestration_flow_per_user",
        category="golden_path",
        claim=(
            "Triage, data, optimization beside goals, actions and reporting run for many users at once, and every "
            "figure in each final report equals an independent computation over that user's own records. A model "
            "over HTTP receives each user's own data alone, and its failures change no figure."
        ),
        protects="golden_path",
        looks_like=(
            "A customer opens the savings report they pay for. It is well written, and the amount in it belongs to "
            "another company: a cache was keyed by the question, and both had asked the same one."
        ),
        body=whole_flow.body,
        planted=(
            "AnswersCachedByRequest",
            "RowsOfFirstUser",
            "CentsOnly",
            "FeaturesForgotten",
            "PreviousPromptInMetadata",
            "PromptHistoryShared",
            "FirstUsersName",
            "RetriesLastPrompt",
            "FailedPromptKept",
            "AnswersCachedByHead",
            "FailureAnswersNothing",
            "PartTakenForWhole",
        ),
        uses=frozenset({Capability.EVENTS, Capability.MODEL, Capability.SOCKETS}),
        needs=frozenset({Capability.ORCHESTRATION}),
        extra_markers=frozenset({"golden_path"}),
    ),
    Check(
        name="agent_coordination_with_supervisor_integration",
        category="golden_path",
        claim=(
            "Steps run in the plan's order, independent ones overlap, a failing step cancels its siblings, a step "
            "ends at its time limit, results go only to the steps that the plan names, a cancelled caller "
            "leaves nothing running, and each plan runs its own steps on its own results, whatever becomes of others' "
            "plans, or of another one of the same user."
        ),
        protects="golden_path",
        looks_like=(
            "One step of a plan fails and the customer sees the error at once; its siblings go on for minutes, spend "
            "tokens and write into a session that the customer believes is over."
        ),
        body=_supervision,
        planted=(
            "OneStepAtATime",
            "StepsInWaves",
            "TimeOutLeavesSiblings",
            "SiblingsRunOn",
            "LimitsDropped",
            "ResultsForAll",
            "CancelledPlanLeavesSteps",
            "OutputsByStepName",
            "OutputsByUser",
            "CancelledPlanStopsAnother",
            "ErrorOfAnotherPlan",
            "LimitFromThePlansBeginning",
            "ErrorOfThePlansFirstFailure",
            "InputsLaidOut",
            "PlansResumed",
            "FailedPlansResumed",
            "PlansResumedByAnyone",
            "StepAgentsLeft",
            "ReportInPlaceOfCancellation",
            "MakingNotLimited",
            "AnyTimeOutIsTheLimit",
        ),
        uses=frozenset({Capability.GET_OR_CREATE, Capability.MODEL, Capability.POPULATION}),
        needs=frozenset({Capability.SUPERVISION}),
        extra_markers=frozenset({"golden_path"}),
    ),
)
