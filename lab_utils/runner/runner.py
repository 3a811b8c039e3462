"""Runs checks, each on a plain event loop of its own in a worker thread, and turns trials into results."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from lab_utils.checks import CHECKS
from lab_utils.runner.leaving import Switches, let_go
from lab_utils.runner.stillness import Looks
from lab_utils.sockets.choice import require_sockets
from lab_utils.target import Capability, Target
from lab_utils.targets import PLANTED, target_factory
from lab_utils.trial import loops
from lab_utils.trial.check import PROTECTS, Check
from lab_utils.trial.trial import StopFailed, Stuck, Trial, Value
from lab_utils.values.profiles import CATEGORIES, DEFAULT_PROFILE, UsageError, parameters_for, unknown
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Verdict

__all__ = ["DEFAULT_SEED", "STILL_AFTER", "calibrate", "run_check"]

DEFAULT_SEED = 20_261
STILL_AFTER = 60.0
"""Seconds for which a check stands still before it is given up: twice what anything in it waits for on its own."""

_LOOKS = 12
_PATIENCE_WITH_PLANTED = 2.0

Progress = Callable[[str, float], None]

_UNHANDLED = "the event loop was told of errors that nobody handled"


def run_check(
    name: str,
    *,
    target: str = "agent_registry",
    profile: str = DEFAULT_PROFILE,
    seed: int = DEFAULT_SEED,
    parameters: Mapping[str, Value] | None = None,
    protects: str | None = None,
    on_progress: Progress | None = None,
    stuck_after: float | None = None,
    still_after: float = STILL_AFTER,
) -> CheckResult:
    """Run one check against one target and return its result; blocks until it is done.

    Never raises for what the target or the check does: a crash of the check is UNKNOWN, with its traceback kept. A stop
    that fails or does not end is a finding, and so is a task that is left and ignores its cancellation: neither is
    waited for longer than half of `stuck_after` beyond it.
    A body that waits for what never ends, or whose loop waits for a lock, is given up with a finding when the process
    has been idle, and all in it at the same places, for `still_after` seconds and for twice `stuck_after`; where even
    the loop does not turn, its thread is left to itself. What never ends and is busy all the while is not found so.
    `stuck_after`: seconds after which an operation that should need none counts as stuck; if None, the parameter
    `patience`, but two at most for a planted target. Whoever asks for less risks a false "never-ends" on a busy
    machine. Raises `UsageError` for a name or a parameter that is none. Works wherever a loop is running already, such
    as in Jupyter, because the trial has a loop and a thread of its own, which nothing has patched.
    """
    if name not in CHECKS:
        raise UsageError(unknown("check", name, CHECKS))
    check = CHECKS[name]
    values = parameters_for(check.category, profile, parameters)
    make = target_factory(target)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    began = time.perf_counter()
    if values.get("transport") == "websocket":
        _require_sockets(make)
    # A planted registry may hang by design: its trial need not be patient, a false "never-ends" there is harmless.
    is_planted = target in PLANTED
    if stuck_after is None:
        stuck_after = min(float(values["patience"]), _PATIENCE_WITH_PLANTED if is_planted else math.inf)
    trial = Trial(make, values, seed, on_progress, stuck_after, target, is_hasty=is_planted)
    trace = _conduct(check, trial, make, still_after)
    return CheckResult(
        check=check.name,
        category=check.category,
        claim=_claim(check, trial),
        protects=protects or PROTECTS[check.protects],
        target=target,
        profile=profile,
        seed=seed,
        parameters=values,
        verdict=_verdict(trial),
        duration_s=time.perf_counter() - began,
        started_at=started_at,
        measurements=tuple(trial.measurements),
        operations=tuple(trial.history),
        samples=tuple(trial.samples),
        traceback=trace,
        notes=tuple(trial.notes),
    )


def calibrate(
    name: str,
    *,
    profile: str = DEFAULT_PROFILE,
    seed: int = DEFAULT_SEED,
    parameters: Mapping[str, Value] | None = None,
    on_progress: Progress | None = None,
) -> tuple[CheckResult, ...]:
    """Run the check on each registry that was planted with a defect it must catch, always on made-up records."""
    if name not in CHECKS:
        raise UsageError(unknown("check", name, CHECKS))
    # Whether a defect shows depends on the records: made-up ones are sure to show it, a user's own need not.
    left_out = {one.name for one in CATEGORIES[CHECKS[name].category].parameters if not one.calibrates}
    values = {key: value for key, value in (parameters or {}).items() if key not in left_out}
    return tuple(
        run_check(name, target=planted, profile=profile, seed=seed, parameters=values, on_progress=on_progress)
        for planted in CHECKS[name].planted
    )


def was_caught(result: CheckResult) -> bool:
    """True if a planted defect was found under its own name; another finding does not count."""
    anomalies = PLANTED[result.target].anomalies
    return any(finding.anomaly in anomalies for finding in result.verdict.findings)


def _require_sockets(make: Callable[[], Target]) -> None:
    try:
        require_sockets()
    except UsageError:
        # Only now is the target asked, for nobody watches here whether that ends.
        if _serves_sockets(make):
            raise


def _serves_sockets(make: Callable[[], Target]) -> bool:
    try:
        return Capability.SOCKETS in make().capabilities
    except Exception:
        # A target that cannot be made: the trial meets it again, and keeps the traceback.
        return False


def _claim(check: Check, trial: Trial) -> str:
    """What the result claims: less than the check does, where the target let a part be tried by nobody."""
    return " ".join([check.claim, *(f"Not part of this result: {text}." for text in trial.left_out)])


def _verdict(trial: Trial) -> Verdict:
    verdict = Verdict.combined(trial.verdicts)
    return replace(verdict, reason="; ".join([verdict.reason, *(f"left out: {text}" for text in trial.left_out)]))


def _conduct(check: Check, trial: Trial, make: Callable[[], Target], still_after: float) -> str:
    """Run the body in a thread of its own; return the traceback of a crash, or ""."""
    crash: list[str] = []
    left: list[str] = []

    def work() -> None:
        try:
            missing = check.needs - make().capabilities
            if missing:
                trial.judge(Verdict.not_applicable(f"the target lacks: {', '.join(sorted(missing))}"))
                return
            loops.run(_drive(check, trial), lambda: trial.stuck_after / 4, left.append)
        except BaseException as error:
            trial.judge(Verdict.unknown(f"the check crashed: {type(error).__name__}: {error}"))
            crash.append(traceback.format_exc())
        sentence = "tasks are left that ignore their cancellation; no loop that has one can be closed"
        _blame(trial, "task-left", sentence, left, is_check_well=not crash)

    looks, switches = Looks(lambda: trial.loop, trial.moved), Switches()
    # A daemon: one that never ends must not keep the process from ending.
    thread = threading.Thread(target=work, name=f"check {check.name}", daemon=True)
    thread.start()
    try:
        _wait(thread, trial, looks, still_after)
    except BaseException:
        # Whoever interrupts one check may run the next, which must not find this one at work beside it.
        trial.give_up(Stuck("the check was interrupted"))
        thread.join(trial.stuck_after)
        raise
    finally:
        if thread.is_alive():
            switches.turn_back()
        if thread.is_alive() or _has_hung(trial):
            let_go(looks.threads())
    return crash[0] if crash else ""


def _has_hung(trial: Trial) -> bool:
    return any(finding.anomaly == "never-ends" for verdict in tuple(trial.verdicts) for finding in verdict.findings)


def _wait(thread: threading.Thread, trial: Trial, looks: Looks, still_after: float) -> None:
    """Wait until the thread ends; give up its work if all stands still, and then the thread."""
    # Most checks have ended by then: nobody looks at them.
    thread.join(still_after / 4)
    given_up: Stuck | None = None
    while thread.is_alive():
        looks.look()
        # A check may be more patient than usual, with a million records to read.
        still = max(still_after, 2 * trial.stuck_after)
        if given_up is None and looks.alike >= _LOOKS:
            sentence = f"the check waits for what does not end: nothing moved for {still:g} s"
            given_up, looks.alike = Stuck(sentence, *looks.places()), 0
            trial.give_up(given_up)
        elif given_up is not None and looks.alike >= (_LOOKS if trial.has_given_up else _LOOKS / 4):
            # What comes after the work, such as a stop, is itself waited for no longer than half of that.
            turns = trial.has_given_up
            what = "what comes after the work does not end either" if turns else "the event loop does not turn"
            sentence = f"{given_up}, and {what}: its thread is left as it is"
            trial.find_failure(Stuck(sentence, *looks.places()))
            return
        thread.join(still / _LOOKS)


async def _drive(check: Check, trial: Trial) -> None:
    unhandled: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(_describe(context)))
    is_well = False
    try:
        work = _body(check, trial)
        # What was given up keeps its task; what is open still is stopped in the next.
        while (stuck := await trial.unless_given_up(work)) is not None:
            trial.find_failure(stuck)
            work = trial.stop_all()
        is_well = True
    finally:
        if trial.expectations:
            trial.judge(Verdict.passed(f"{trial.expectations} expectations held"))
        _blame(trial, "unhandled-error", _UNHANDLED, unhandled, is_check_well=is_well)


async def _body(check: Check, trial: Trial) -> None:
    try:
        await check.body(trial)
    except (Stuck, StopFailed) as failure:
        trial.find_failure(failure)
    finally:
        await trial.stop_all()


def _blame(trial: Trial, anomaly: str, sentence: str, witness: Sequence[str], *, is_check_well: bool) -> None:
    """Find it on the target; what a check that has crashed leaves may be its own, and is only noted."""
    if witness and is_check_well:
        trial.find(anomaly, sentence, *witness)
    elif witness:
        trial.note(f"After the crash {sentence}: {'; '.join(witness)}")


def _describe(context: Mapping[str, object]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"
