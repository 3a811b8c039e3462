"""Runs checks, each in a process of its own, on our registries and on those that were planted for them."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import cloudpickle

from lab_utils.checks import CHECKS, RUNNABLE
from lab_utils.runner.conduct import Conduct, Progress
from lab_utils.runner.forkserver import is_available
from lab_utils.runner.interpreter import PYTHON_VARIABLE, interpreter
from lab_utils.runner.server import SERVER_VARIABLE, slots
from lab_utils.runner.watch import Cancelled, Ended, Look, watch
from lab_utils.runner.worker import Job
from lab_utils.sockets.choice import require_sockets
from lab_utils.target import Capability, Target
from lab_utils.targets import PLANTED, TARGETS, is_foreign, module_of, target_factory
from lab_utils.trial import Check, protected
from lab_utils.values.profiles import CATEGORIES, DEFAULT_PROFILE, UsageError, Value, parameters_for, unknown
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Verdict

__all__ = [
    "CHECK_LIMITS",
    "DEFAULT_SEED",
    "STILL_AFTER",
    "AnyTarget",
    "Cancelled",
    "Look",
    "calibrate",
    "calibrated_on",
    "capabilities_of",
    "run_check",
    "target_name",
    "was_caught",
]

AnyTarget = str | Callable[[], Target]
"""A target's name or import path, or its maker: a class or a function without parameters, from a notebook's cell
too."""

DEFAULT_SEED = 20_261
STILL_AFTER = 60.0
"""Seconds for which a check stands still before it is given up: twice the longest wait of anything in it."""

CHECK_LIMITS: Mapping[str, float] = {"smoke": 120.0, "standard": 900.0, "stress": 3_600.0}
"""Seconds that one check may take, by profile: far beyond the need of any on a busy machine."""

SERVICE_STARTS_S: Final = 900.0
"""Seconds more for a check of a service: it starts the server up to three times, as long as its file allows."""

_OVER_HTTP: Final = ("interrupted_calls_leave_nothing_to_others", "enterprise_customer_data_protection")
"""Checks with a part that asks a model over HTTP, whatever the parameter `llm` is."""

CHECKS_AT_ONCE: Final = 2
JOBS_VARIABLE: Final = "REGISTRY_LAB_JOBS"
"""The environment variable with the number of checks that run at once, if not two."""
LIMIT_VARIABLE: Final = "REGISTRY_LAB_CHECK_TIMEOUT"
"""The environment variable with the seconds that one check may take, if not those of its profile."""


def run_check(
    name: str,
    *,
    target: AnyTarget = "agent_registry",
    profile: str = DEFAULT_PROFILE,
    seed: int = DEFAULT_SEED,
    parameters: Mapping[str, Value] | None = None,
    protects: str = "",
    on_progress: Progress | None = None,
    on_look: Callable[[Look], None] | None = None,
    stuck_after: float | None = None,
    still_after: float = STILL_AFTER,
    limit_s: float | None = None,
    stop_at: frozenset[str] = frozenset(),
    in_process: bool = False,
    cancelled: threading.Event | None = None,
    log: Path | None = None,
) -> CheckResult:
    """Run one check against one target and return its result; blocks until it is done.

    The check has a process of its own, with a plain event loop, a clean memory and no history; nothing that the target
    leaves there outlives it. A fault of the target costs this one result. A process that exits or crashes is the
    finding `process-died`. A body that waits for something that never ends is `never-ends`, once the process was idle
    and nothing moved for `still_after` seconds and for twice `stuck_after`. A body that holds up its loop or the
    interpreter is `loop-blocked`. Each is ended at `limit_s` seconds (by default `$REGISTRY_LAB_CHECK_TIMEOUT`, else
    the profile's in `CHECK_LIMITS`). A crash of the check itself is UNKNOWN, with its traceback kept.

    `stuck_after`: seconds after which an operation that should need none counts as stuck; if None, the parameter
    `patience`, but two at most for a planted target. A smaller value risks a false `never-ends` on a busy machine.
    `on_look` is called four times a second with memory and events of the check's process, as seen from outside.
    `stop_at`: anomalies; the first one found ends the check. `in_process`: run it in this process, as a debugger needs
    it; then nothing limits it, and the target's changes to the process stay. `cancelled`: once it is set, from another
    thread, the process is ended and `Cancelled` raised. The process's output stands in the result, head and tail; `log`
    is the file that has the rest.

    Raises `UsageError` for an unknown name or parameter, and for a target that cannot be made; `ServerFailed` if no
    process can be had. An interrupt ends the check's process and is raised again.
    """
    if name not in RUNNABLE:
        raise UsageError(unknown("check", name, CHECKS))
    check = RUNNABLE[name]
    values = parameters_for(check.category, profile, parameters)
    if values.get("transport") == "websocket":
        require_sockets(lambda: _serves_sockets(target, in_process))
    about = _About(check, target_name(target), profile, seed, values, protects, stuck_after)
    if in_process:
        return _here(about, _factory(target), on_progress)
    ended = watch(
        lambda folder: _job(target, folder, about, stop_at),
        imports=_imports(target, check, values),
        python=_python(target),
        still_after=still_after,
        limit_s=_limit(profile, check.category) if limit_s is None else limit_s,
        on_progress=on_progress,
        on_look=on_look,
        cancelled=cancelled,
        log=log,
    )
    return replace(_lost(about, ended) if ended.result is None else ended.result, printed=ended.printed)


def calibrate(
    name: str,
    *,
    profile: str = DEFAULT_PROFILE,
    seed: int = DEFAULT_SEED,
    parameters: Mapping[str, Value] | None = None,
    planted: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> tuple[CheckResult, ...]:
    """Run the check on registries that were planted with a defect it must catch, always on made-up records: on those of
    `planted`, by default on all of its own.

    Each run ends at the first finding that has the planted defect's name.
    """
    if name not in CHECKS:
        raise UsageError(unknown("check", name, CHECKS))
    planted = planted or CHECKS[name].planted
    # Whether a defect shows depends on the records: made-up ones are sure to show it, a user's own need not.
    left_out = {one.name for one in CATEGORIES[CHECKS[name].category].parameters if not one.calibrates}
    values = {key: value for key, value in (parameters or {}).items() if key not in left_out}
    cancelled = threading.Event()

    def run(one: str) -> CheckResult:
        attempt = partial(
            run_check,
            name,
            target=one,
            profile=profile,
            seed=seed,
            parameters=values,
            stop_at=PLANTED[one].anomalies,
            cancelled=cancelled,
        )
        result = attempt()
        # It may have been cut off before its defect showed, on a busy machine: once more, with all patience.
        return result if was_caught(result) else attempt(stuck_after=float(result.parameters["patience"]))

    with ThreadPoolExecutor(CHECKS_AT_ONCE + CHECKS_AT_ONCE // 2, thread_name_prefix="calibration") as pool:
        runs = [pool.submit(run, one) for one in planted]
        try:
            for done, _ in enumerate(as_completed(runs), 1):
                if on_progress is not None:
                    on_progress(f"{done} of {len(planted)} planted registries", done / len(planted))
            return tuple(each.result() for each in runs)
        except BaseException:
            cancelled.set()
            pool.shutdown(cancel_futures=True)
            raise


def calibrated_on(name: str, profile: str) -> tuple[str, ...]:
    """The planted registries that a run of this profile proves a check by: one for each anomaly that is planted for it,
    the first, in the profile smoke, where a defect that may show by several names stands for all of them; every one in
    a larger profile, and in the lab's own tests."""
    planted = CHECKS[name].planted
    if profile != DEFAULT_PROFILE:
        return planted
    firsts: dict[frozenset[str], str] = {}
    for one in planted:
        firsts.setdefault(PLANTED[one].anomalies, one)
    return tuple(firsts.values())


def was_caught(result: CheckResult) -> bool:
    """True if a planted defect was found under its own name; another finding does not count."""
    anomalies = PLANTED[result.target].anomalies
    return any(finding.anomaly in anomalies for finding in result.verdict.findings)


def capabilities_of(target: AnyTarget, *, limit_s: float | None = None) -> frozenset[Capability]:
    """The capabilities of a target. It is made in a process of its own, except one of ours, which is known to be
    harmless.

    Raises `UsageError` with the line at fault if it cannot be made, also where its module ends the process, or is not
    imported within `limit_s` seconds (by default as for a check).
    """
    if isinstance(target, str) and not is_foreign(target) and not _python(target):
        return target_factory(target)().capabilities
    about = _About(None, target_name(target), DEFAULT_PROFILE, DEFAULT_SEED, {}, "", None)
    ended = watch(
        lambda folder: _job(target, folder, about, frozenset()),
        imports=_imports(target, None, {}),
        python=_python(target),
        still_after=STILL_AFTER,
        limit_s=_limit(DEFAULT_PROFILE) if limit_s is None else limit_s,
    )
    if ended.finding is not None:
        raise UsageError(f"target {about.target!r} cannot be made: {ended.finding.sentence}")
    return frozenset(map(Capability, ended.capabilities))


def _limit(profile: str, category: str = "") -> float:
    named = os.environ.get(LIMIT_VARIABLE, "")
    try:
        starts_s = SERVICE_STARTS_S if category == "service" else 0.0
        limit_s = float(named) if named else CHECK_LIMITS[profile] + starts_s
    except ValueError:
        limit_s = math.nan
    if not limit_s > 0:
        raise UsageError(f"{LIMIT_VARIABLE}={named!r} is not a number of seconds above 0")
    return limit_s


def target_name(target: AnyTarget) -> str:
    """How a result names a target. Raises `UsageError` for an object: a target is made anew for each trial."""
    given: object = target
    if not isinstance(given, str) and not callable(given):
        kind = type(given).__name__
        raise UsageError(f"the target is one object of {kind}; hand over {kind} itself, or a function that makes one")
    return target if isinstance(target, str) else getattr(target, "__qualname__", repr(target))


@dataclass(frozen=True, slots=True)
class _About:
    """The facts about a result's run that are known before it begins."""

    check: Check | None
    target: str
    profile: str
    seed: int
    parameters: Mapping[str, Value]
    protects: str
    stuck_after: float | None


def _factory(target: AnyTarget) -> Callable[[], Target]:
    return target_factory(target) if isinstance(target, str) else target


def _serves_sockets(target: AnyTarget, in_process: bool) -> bool:
    capabilities = _factory(target)().capabilities if in_process else capabilities_of(target)
    return Capability.SOCKETS in capabilities


def _here(about: _About, make: Callable[[], Target], on_progress: Progress | None) -> CheckResult:
    """Run the check in this process: in this thread, or beside a loop that runs here, as in Jupyter, in another one."""
    assert about.check is not None
    conduct = Conduct(
        about.check,
        make,
        target=about.target,
        profile=about.profile,
        seed=about.seed,
        parameters=about.parameters,
        protects=about.protects,
        stuck_after=about.stuck_after,
        is_planted=about.target in PLANTED,
        on_progress=on_progress,
    )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        conduct.run()
    else:
        thread = threading.Thread(target=conduct.run, name=f"check {about.check.name}", daemon=True)
        thread.start()
        thread.join()
    return conduct.result()


def _imports(target: AnyTarget, check: Check | None, parameters: Mapping[str, Value]) -> tuple[str, ...]:
    """The modules that the process finds loaded, because they are large and each check would load them again.

    Of a target its module, but only within a batch: in a session of a person's it may change from one run to the next.
    """
    is_named_in_batch = SERVER_VARIABLE in os.environ and isinstance(target, str)
    if _python(target):
        return module_of(target) if is_named_in_batch and isinstance(target, str) else ()
    asks_over_http = parameters.get("llm") == "http" or (
        check is not None
        # The defects of prompts show over HTTP only, and so do answers that an interrupted call left behind.
        and ((check.category == "golden_path" and target in PLANTED) or (check.name in _OVER_HTTP and _is_ours(target)))
    )
    if check is not None and check.category == "service":
        bodies = ("answers", "denial", "leaving", "load")
        return ("lab_utils.service.target", *(f"lab_utils.checks.service.{one}" for one in bodies))
    needed = ["openai"] if asks_over_http and importlib.util.find_spec("openai") else []
    if is_named_in_batch and isinstance(target, str):
        needed += module_of(target)
    return tuple(needed)


def _python(target: AnyTarget) -> str:
    """The interpreter of a target's processes: of the lab's own targets always this one."""
    return "" if _is_ours(target) else os.environ.get(PYTHON_VARIABLE, "")


def _is_ours(target: AnyTarget) -> bool:
    return isinstance(target, str) and (target in TARGETS or target in PLANTED)


def _job(target: AnyTarget, folder: Path, about: _About, stop_at: frozenset[str]) -> Job:
    python = _python(target)
    other = interpreter(python)
    return Job(
        check=about.check.name if about.check else "",
        target=about.target,
        pickled=b"" if isinstance(target, str) else _pickled(target, python),
        profile=about.profile,
        seed=about.seed,
        parameters=about.parameters,
        protects=about.protects,
        stuck_after=about.stuck_after,
        stop_at=stop_at,
        slots=slots(),
        jobs=int(os.environ.get(JOBS_VARIABLE, CHECKS_AT_ONCE)) if about.check else 0,
        # A planted registry need only be caught, which no neighbour keeps it from.
        alone=about.check is not None and about.check.measures and not stop_at,
        began="was forked from one that had imported the lab" if is_available() else "was spawned for this check",
        folder=str(folder),
        environment=dict(os.environ),
        path=other.path,
        python=other.version,
        cwd=str(Path.cwd()),
    )


def _pickled(target: Callable[[], Target], python: str) -> bytes:
    """The target by cloudpickle: by value where the module cannot be imported elsewhere, as that of a notebook."""
    if python:
        name = target_name(target)
        raise UsageError(f"target {name!r} cannot be sent to {python}; name it by its import path, package.module:Name")
    module = sys.modules.get(getattr(target, "__module__", ""))
    by_value = module is not None and module.__name__ != "__main__" and not _is_importable(module.__name__)
    try:
        if by_value and module is not None:
            cloudpickle.register_pickle_by_value(module)
        pickled: bytes = cloudpickle.dumps(target)
        return pickled
    except Exception as error:
        raise UsageError(
            f"target {target_name(target)!r} cannot be sent to a process of its own: {type(error).__name__}: {error}; "
            "define it in a module, or run the check with in_process=True"
        ) from error
    finally:
        if by_value and module is not None:
            cloudpickle.unregister_pickle_by_value(module)


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _lost(about: _About, ended: Ended) -> CheckResult:
    """The result of a process that has sent none."""
    assert about.check is not None
    assert ended.finding is not None
    return CheckResult(
        check=about.check.name,
        category=about.check.category,
        claim=about.check.claim,
        protects=about.protects or protected(about.check.protects, about.target),
        target=about.target,
        profile=about.profile,
        seed=about.seed,
        parameters=about.parameters,
        verdict=Verdict.of([ended.finding], 1, ""),
        duration_s=ended.seconds,
        started_at=ended.started_at,
        notes=("The process of the check was lost, and with it its measurements and most of its operations.",),
    )
