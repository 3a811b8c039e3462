"""Runs the body of one check on a plain event loop, in this process and thread, and gathers its findings."""

from __future__ import annotations

import asyncio
import math
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from lab_utils.checks import CHECKS
from lab_utils.probes.memory import TracingEnded, anonymous_now
from lab_utils.runner.metrics import common_metrics
from lab_utils.runner.preflight import is_usable, raised_by
from lab_utils.target import Capability, NotSupported, Target
from lab_utils.trial import Check, StopFailed, Stuck, Trial, checked, loops, protected
from lab_utils.trial.faults import is_checks_own
from lab_utils.values.profiles import Value
from lab_utils.values.quantities import agreed, counted
from lab_utils.values.result import REST_OF_THE_CHECK, CheckResult
from lab_utils.values.texts import worded
from lab_utils.values.verdict import Outcome, Verdict

__all__ = ["Conduct", "Progress"]

Progress = Callable[[str, float], None]

PATIENCE_WITH_PLANTED = 2.0
_LAST = 8
_UNHANDLED = "the event loop reported errors that nobody handled"


class Conduct:
    """One run of a check. `run` does the work; the trial may be read, and its work given up, from another thread."""

    def __init__(
        self,
        check: Check,
        make: Callable[[], Target],
        *,
        target: str,
        profile: str,
        seed: int,
        parameters: Mapping[str, Value],
        protects: str = "",
        stuck_after: float | None = None,
        is_planted: bool = False,
        on_progress: Progress | None = None,
        began: str = "runs other code too",
    ) -> None:
        self.check = check
        # A planted registry works but for its defect, the contract tries each method by itself, and a service has none.
        self._is_asked_first = check.name in CHECKS and Capability.SERVICE not in check.needs and not is_planted
        self._make: Callable[[], Target] = (lambda: checked(make())) if self._is_asked_first else make
        self._profile = profile
        self._protects = protects or protected(check.protects, target)
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._began = time.perf_counter()
        self._away_s = 0.0
        self._traceback = ""
        self._memory_before = anonymous_now()
        # A planted registry may hang by design: its trial need not be patient, a false "never-ends" there is harmless.
        if stuck_after is None:
            stuck_after = min(float(parameters["patience"]), PATIENCE_WITH_PLANTED if is_planted else math.inf)
        self.trial = Trial(self._make, parameters, seed, on_progress, stuck_after, target, is_hasty=is_planted)
        if check.measures:
            self.trial.note(f"Memory was measured in a process that {began}.")

    def run(self) -> None:
        """Run the body to its end. Raises nothing: a crash is UNKNOWN, with its traceback kept."""
        check, trial, left = self.check, self.trial, list[str]()
        self._memory_before = anonymous_now()
        kind: type[Target] | None = None
        try:
            target = self._make()
            kind, capabilities = type(target), target.capabilities
            del target
            if missing := check.lacking(capabilities):
                trial.judge(Verdict.not_applicable(f"the target lacks: {', '.join(sorted(missing))}"))
                return
            if Capability.SERVICE in capabilities and Capability.SERVICE not in check.needs:
                trial.judge(Verdict.not_applicable("it judges registries, and the target is a service"))
                return
            work = _drive(check, trial, capabilities, self._is_asked_first)
            loops.run(work, lambda: trial.waiting.stuck_after / 4, left.append)
        except SystemExit as error:
            # No check raises it: it comes of the target, in a task of its own or of a caller, and would end any server.
            calls = [f"{frame.name}, {frame.filename.rpartition('/')[2]}:{frame.lineno}"
                     for frame in traceback.extract_tb(error.__traceback__)]  # fmt: skip
            sentence = f"the target raised SystemExit({error.code!r}), which ends the process that it runs in"
            trial.find("process-died", sentence, *trial.history[-8:], f"raised in {' > '.join(calls[-4:])}")
        except TracingEnded as error:
            trial.leave_out(f"{REST_OF_THE_CHECK} after measurements were lost")
            trial.judge(Verdict.unknown(str(error)))
        except BaseException as error:
            calls = raised_by(kind, error) if not isinstance(error, KeyboardInterrupt) else []
            if calls and not isinstance(error, NotSupported):
                raised = f"{type(error).__name__}: {worded(str, error)}"
                raised += ", in the check's own code, which the target had called" * is_checks_own(error)
                sentence = f"a call that should succeed raised {raised}; nothing after it was judged"
                trial.find("failed-operation", sentence, *trial.history[-_LAST:], *calls)
                trial.leave_out(f"{REST_OF_THE_CHECK} after a call that failed")
            else:
                if any(one.findings for one in trial.verdicts):
                    trial.leave_out(f"{REST_OF_THE_CHECK} after it crashed")
                trial.judge(Verdict.unknown(f"the check crashed: {type(error).__name__}: {worded(str, error)}"))
                self._traceback = traceback.format_exc()
            if isinstance(error, KeyboardInterrupt):
                raise
        sentence = "tasks are left that ignore their cancellation; no loop that has one can be closed"
        # A task of the check's own may go on where it was cut off at its limit.
        _blame(trial, "task-left", sentence, left, is_check_well=not self._traceback and not trial.is_out_of_time)

    @contextmanager
    def away(self) -> Iterator[None]:
        """While inside, time does not count for the check."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._away_s += time.perf_counter() - began

    def result(self) -> CheckResult:
        """The findings so far."""
        trial = self.trial
        verdict = Verdict.combined(tuple(trial.verdicts))
        left_out = tuple(trial.left_out)
        does_apply = verdict.outcome is not Outcome.NOT_APPLICABLE
        common = common_metrics(trial, before=self._memory_before, after=anonymous_now()) if does_apply else ()
        return CheckResult(
            check=self.check.name,
            category=self.check.category,
            # Less than the check claims, where the target let a part be tried by nobody.
            claim=" ".join([self.check.claim, *(f"Not part of this result: {text}." for text in left_out)]),
            protects=self._protects,
            target=trial.target_name,
            profile=self._profile,
            seed=trial.seed,
            parameters=trial.parameters,
            verdict=replace(verdict, reason="; ".join([verdict.reason, *(f"left out: {text}" for text in left_out)])),
            duration_s=time.perf_counter() - self._began - self._away_s,
            started_at=self._started_at,
            measurements=(*trial.measurements, *common),
            operations=tuple(trial.history),
            samples=tuple(trial.samples),
            traceback=self._traceback,
            notes=tuple(trial.notes),
        )


async def _drive(check: Check, trial: Trial, capabilities: frozenset[Capability], is_asked_first: bool) -> None:
    unhandled: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(_describe(context)))
    is_well = False
    try:
        work = _body(check, trial, capabilities, is_asked_first)
        # A call that was given up keeps its task; targets still open are stopped in the next.
        while (stuck := await trial.waiting.unless_given_up(work)) is not None:
            trial.find_failure(stuck)
            work = trial.stop_all()
        # Work that was cut off at its limit goes on beside a target that is stopped: what it drops is the check's own.
        is_well = not trial.is_out_of_time
    finally:
        if is_well and trial.failed_calls and not any(one.findings for one in trial.verdicts):
            # Whatever the check made of their answers: an ordinary call that fails is never a pass.
            count = counted(trial.failures, "call")
            trial.find("failed-operation", f"{count} failed with an error that is not a refusal", *trial.failed_calls)
        if trial.expectations:
            trial.judge(Verdict.passed(f"{trial.expectations} {agreed(trial.expectations, 'expectations')} held"))
        _blame(trial, "unhandled-error", _UNHANDLED, unhandled, is_check_well=is_well)


async def _body(check: Check, trial: Trial, capabilities: frozenset[Capability], is_asked_first: bool) -> None:
    try:
        if is_asked_first and not await is_usable(trial, check.asks_for):
            trial.leave_out(f"{REST_OF_THE_CHECK}, for want of a target that can be used")
            return
        # In a calibration, the part that a planted registry is named for must show its defect without the others.
        named = [part for part in check.parts if trial.stops_at and trial.target_name in part.planted]
        for part in named or check.parts:
            if missing := part.needs - capabilities:
                trial.leave_out(f"{part.name} (the target lacks: {', '.join(sorted(missing))})")
            else:
                await part.body(trial)
    except (Stuck, StopFailed) as failure:
        trial.find_failure(failure)
    finally:
        await trial.stop_all()


def _blame(trial: Trial, anomaly: str, sentence: str, witness: Collection[str], *, is_check_well: bool) -> None:
    """Find it on the target; the remains of a check that crashed or was cut off may be its own, and are only noted."""
    if witness and is_check_well:
        trial.find(anomaly, sentence, *witness)
    elif witness:
        trial.note(f"After the {'limit' if trial.is_out_of_time else 'crash'} {sentence}: {'; '.join(witness)}")


def _describe(context: Mapping[str, object]) -> str:
    """The loop's message with the error, or with the task that was dropped while it still waited."""
    error, task = context.get("exception"), context.get("task")
    if error is None and isinstance(task, asyncio.Task):
        return f"{context.get('message')} {task.get_name()!r} ({getattr(task.get_coro(), '__qualname__', '')})"
    return f"{context.get('message')}: {worded(repr, error)}"
