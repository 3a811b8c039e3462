"""One run of one check: the target under test, the record of calls and answers, and the measurements."""

from __future__ import annotations

import itertools
import random
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from lab_utils.sockets.choice import Transports
from lab_utils.sockets.transport import SocketTransport
from lab_utils.target import Bounds, Capability, Recipe, Row, Subscription, Target
from lab_utils.trial.client import Client
from lab_utils.trial.faults import planned_in
from lab_utils.trial.waiting import STUCK_AFTER, OutOfTime, Stuck, Waiting
from lab_utils.values.history import History, Op
from lab_utils.values.profiles import Value
from lab_utils.values.quantities import quantity
from lab_utils.values.result import Budget, Measurement, Sample
from lab_utils.values.verdict import Finding, Verdict
from lab_utils.values.workload import neighbours, user_ids

__all__ = ["ASKED", "LAB", "STUCK_AFTER", "Client", "StopFailed", "Stuck", "Trial"]

T = TypeVar("T")
_MOST_TAKEN: Final = 1 << 14
_MOST_NAMED: Final = 8


def ASKED(comparison: Any, limit: float) -> Budget:  # Reads as the constant it stands for.
    """A budget that the users asked for."""
    return Budget(comparison, limit, "asked")


def LAB(comparison: Any, limit: float) -> Budget:
    """The lab's own, tighter budget."""
    return Budget(comparison, limit, "lab")


class StopFailed(Exception):
    """A target's `stop` raised an error of its own; the cause is that error."""


class _Models:
    """The model of each open target's agents, where the trial chooses it: `chosen` is "" where it has none."""

    def __init__(self, chosen: str) -> None:
        self._chosen = chosen
        self._open: dict[int, str] = {}
        self._used: set[str] = set()
        self._prompted = 0

    def choose(self, target: Target, instead: str | None, plan: Any) -> str:
        if not (instead or self._chosen):
            return ""
        has_model = Capability.MODEL in target.capabilities
        model = target.choose_model(instead or self._chosen, plan) if has_model else "none"
        self._used.add(model)
        return model

    def opened(self, target: Target, model: str) -> None:
        self._open[id(target)] = model

    def of(self, target: Target) -> str:
        return self._open.get(id(target), "")

    def closing(self, target: Target) -> None:
        """Count the prompts of a target that is about to be stopped."""
        if self._open.pop(id(target), "") == "http":
            self._prompted += len(target.prompts())

    def note(self) -> str:
        """A sentence for the reader of the report; "" where there is nothing to say."""
        if "http" in self._used:
            return f"Model over HTTP, the lab's stand-in: {self._prompted} prompts crossed it."
        if "none" in self._used:
            return "Model scripted: the target has no endpoint to ask."
        return "Model scripted: no prompt crossed HTTP." if self._used else ""


class Trial:
    """The tools of a check's body. One trial has one target, fresh, and one event loop.

    `waiting` bounds each wait for the target.
    """

    def __init__(
        self,
        make_target: Callable[[], Target],
        parameters: Mapping[str, Value],
        seed: int,
        progress: Callable[[str, float], None] | None = None,
        stuck_after: float = STUCK_AFTER,
        target_name: str = "",
        is_hasty: bool = False,
    ) -> None:
        self.rng = random.Random(seed)
        self.waiting = Waiting(self.rng, stuck_after, self.now, self.moved, is_hasty)
        self._make_target = make_target
        self.target_name = target_name
        self.parameters = parameters
        self.seed = seed
        self.expectations = 0
        self.is_out_of_time = False
        self.verdicts: list[Verdict] = []
        self.measurements: list[Measurement] = []
        self.samples: list[Sample] = []
        self.notes: list[str] = []
        self._ops: list[Op] = []
        self._position = 0
        # Set aside beforehand: its memory must not grow the measured figure.
        self._took, self._taken = array("d", bytes(8 * _MOST_TAKEN)), 0
        self._run_numbers = itertools.count(1)
        self._began = time.perf_counter()
        self._progress = progress
        self._open: list[Target] = []
        self._transports = Transports(str(parameters.get("transport", "inprocess")))
        self._models = _Models(str(parameters.get("llm", "")))
        self.stops_at: frozenset[str] = frozenset()
        """The first finding of one of these anomalies ends the check, as in a calibration."""
        self.left_out: list[str] = []
        self.failures, self.failed_calls = 0, list[str]()
        """Calls that raised an error of the target's own, each with that error. A check without another finding has one
        for them."""
        self.refused_ids: frozenset[str] = frozenset()
        """Ordinary ids that the target was seen to refuse: named once, and then left out."""
        self.journal: Callable[[str], None] | None = None
        """Where each recorded operation is written as it begins and ends."""
        self.on_position: Callable[[int], None] | None = None
        self.on_finding: Callable[[Finding], None] = lambda _: None
        self.is_starting = False
        """Whether a target is being made or started: nobody is served yet."""
        self.on_starting: Callable[[bool], None] = lambda _: None
        self.give_way: Callable[[], None] = lambda: None
        """To be called by long work between two of its steps, where nothing waits in real time: a check that must be
        alone on the machine has its turn meanwhile."""

    # The target.

    async def target(
        self,
        recipes: Sequence[Recipe] = (Recipe("helper"),),
        rows: Mapping[str, Sequence[Row]] | None = None,
        close_timeout: float = 5.0,
        *,
        llm: str | None = None,
        llm_plan: Any = None,
        bounds: Bounds | None = None,
    ) -> Target:
        """Open a fresh target. It is stopped when the trial ends; a check may open several, one after another.

        `llm`: the model of its agents, if not that of the parameter of this name; `llm_plan`: when an endpoint of the
        lab goes wrong. `bounds`: the registry's limits, where the target can be limited.
        """
        with self.starting():
            target = self._make_target()
            if bounds is not None:
                target.limit(bounds)
            model = self._models.choose(target, llm, llm_plan)
            await self.waiting.ends(
                target.start(recipes, rows or {}, close_timeout), f"starting the target {target.name!r}"
            )
        self._models.opened(target, model)
        self._open.append(target)
        return target

    @contextmanager
    def starting(self) -> Iterator[None]:
        """While inside, a target is made or started, and may hold the loop."""
        self.is_starting = True
        self.on_starting(True)
        try:
            yield
        finally:
            self.is_starting = False
            self.on_starting(False)

    def make_target(self) -> Target:
        """Make a target that the trial neither starts nor stops: for work on a loop of its own."""
        return self._make_target()

    async def stop(self, target: Target, *, is_watched: bool = False) -> None:
        """Stop a target before the trial ends, with its server and its clients. Raises `Stuck` or `StopFailed`.

        With `is_watched` it may take any time: the caller waits for it no longer than it wants to."""
        self._open.remove(target)
        self._models.closing(target)
        try:
            await self._transports.close(target)
        finally:
            what = f"stopping the target {target.name!r}"
            try:
                await (target.stop() if is_watched else self.waiting.ends(target.stop(), what))
            except Stuck:
                raise
            except Exception as error:
                # A target's `stop` may raise the errors of its agents' cleanups, which the lab itself provoked.
                if planned_in(error) is None:
                    raise StopFailed(f"{what} raised {type(error).__name__}: {error}") from error

    async def stop_all(self) -> None:
        """Stop every target that is still open, newest first, each with its server and its clients.

        One that does not stop is a finding and keeps no other one from being stopped. Other errors are raised when all
        is done, as a group.
        """
        errors: list[Exception] = []
        while self._open:
            try:
                await self.stop(self._open[-1])
            except (Stuck, StopFailed) as failure:
                self.find_failure(failure)
            except Exception as error:
                errors.append(error)
        try:
            await self._transports.close_all()
        except Exception as error:
            errors.append(error)
        if text := self._models.note():
            self.note(text)
        if "transport" in self.parameters and (text := self._transports.note()):
            self.note(text)
        if errors:
            raise ExceptionGroup("targets were not stopped", errors)

    def asks_over_http(self, target: Target) -> bool:
        """Whether the agents of this open target ask a model over HTTP."""
        return self._models.of(target) == "http"

    async def connect(self, target: Target, user: str) -> Subscription:
        """Connect a client of this user, over the trial's transport; return when it receives emitted events."""
        transport = self.sockets(target)
        if transport is not None:
            return await transport.connect(user)
        self._transports.in_process += 1
        return target.subscribe(user)

    def sockets(self, target: Target) -> SocketTransport | None:
        """The target's sockets; None if this trial's clients are in process, by choice or because it serves none."""
        return self._transports.of(target, max(self.waiting.stuck_after, 10.0))

    async def replace(self, old: Target, new: Target) -> None:
        """Let `new` serve where `old` did, as after a deployment: every connection ends, and may come back to it."""
        await self._transports.replace(old, new)

    def user_ids(self, count: int) -> list[str]:
        """`count` distinct user ids, the first of them easily mixed up; none that the target is known to refuse."""
        return user_ids(count, self.rng, self.refused_ids)

    def neighbours(self, count: int) -> list[str]:
        """`count` distinct user ids of which two neighbours each read alike; none that the target refuses."""
        return neighbours(count, self.rng, self.refused_ids)

    # Calls and answers.

    def client(self, target: Target, name: str, user: str) -> Client:
        """Return a client whose operations on the target are recorded."""
        return Client(self, target, name, user)

    @property
    def history(self) -> History:
        """The operations that have completed so far."""
        return History(self._ops)

    def now(self) -> float:
        """Seconds since the trial began."""
        return time.perf_counter() - self._began

    def next_position(self) -> int:
        """The next place in the order of invocations and completions."""
        self._position += 1
        if self.on_position is not None:
            self.on_position(self._position)
        return self._position

    def took(self, seconds: float) -> None:
        """Record the duration of a successful operation, whether or not the operation is recorded."""
        self._took[self._taken % _MOST_TAKEN] = seconds
        self._taken += 1

    async def timed(self, work: Awaitable[T]) -> T:
        """Await an operation that no client makes, and record its duration."""
        began = self.now()
        answer = await work
        self.took(self.now() - began)
        return answer

    def has_failed(self, call: str = "") -> None:
        """Wait shortly from now on: the target has raised an error of its own, in this call."""
        self.waiting.has_failed = True
        if call:
            self.failures += 1
            # A witness, and no memory that grows.
            if len(self.failed_calls) < _MOST_NAMED:
                self.failed_calls.append(call)

    @property
    def latencies(self) -> Sequence[float]:
        """The durations of operations in seconds; of a long trial the last of them."""
        return self._took[: min(self._taken, _MOST_TAKEN)]

    @property
    def succeeded(self) -> int:
        """How many operations succeeded."""
        return self._taken

    def run_id(self) -> str:
        """An id for a run, unlike any other of this trial."""
        return f"lab-run-{next(self._run_numbers)}"

    def record(self, op: Op) -> None:
        """Add a completed operation."""
        self._ops.append(op)

    async def flush(self) -> None:
        """Let everything that is ready run, and every client receive all that was sent to it so far: an event that
        should not come has then come as well."""
        await self.waiting.settle()
        await self._transports.flush()

    def events_received(self) -> int:
        """How many events the trial's clients have received over sockets."""
        return self._transports.received()

    @property
    def position(self) -> int:
        """A count that changes with each recorded operation."""
        return self._position

    def moved(self) -> tuple[int, ...]:
        """Counts that change with each recorded operation and with each event that arrives."""
        return self._position, self._transports.arrived()

    # Findings and measurements.

    def judge(self, verdict: Verdict) -> None:
        """Add a judge's verdict; none of work that was given up."""
        if self.waiting.is_abandoned:
            return
        self.verdicts.append(verdict)
        for finding in verdict.findings:
            if finding.anomaly == "failed-operation":
                self.has_failed()
            self.on_finding(finding)

    def judge_early(self, verdict: Verdict) -> None:
        """Add the verdict on a part of what is judged as a whole later, if it ends the check; else do nothing."""
        if any(finding.anomaly in self.stops_at for finding in verdict.findings):
            self.judge(verdict)

    @property
    def explains(self) -> bool:
        """Whether findings name the holders of what was left: not where only their anomaly is asked for."""
        return not self.stops_at

    def find(self, anomaly: str, sentence: str, *witness: object) -> None:
        """Add a finding at once. Without a witness, such as where no operation was recorded, the sentence is it."""
        seen = tuple(str(item) for item in witness) or (sentence,)
        self.judge(Verdict.of([Finding(anomaly, sentence, seen)], 1, ""))

    def find_failure(self, failure: Stuck | StopFailed, anomaly: str = "") -> None:
        """Add a failure of the target as a finding, with the last operations before it. A check that is out of time is
        none, and is UNKNOWN.

        The anomaly is `never-ends` or `stop-failed`, unless another one is named."""
        if isinstance(failure, OutOfTime):
            self.is_out_of_time = True
            self.judge(
                Verdict.unknown(
                    f"{failure}, and nothing stood still for longer than a slow call may take: allow more by "
                    "--check-timeout"
                )
            )
            return
        anomaly = anomaly or ("never-ends" if isinstance(failure, Stuck) else "stop-failed")
        witness = [str(op) for op in self.history[-8:]] or ["no operation was recorded"]
        witness += failure.places if isinstance(failure, Stuck) else ()
        self.find(anomaly, f"{failure}; the last operations before it are the witness", *witness)

    def require(self, holds: bool, anomaly: str, sentence: str, *witness: object) -> bool:
        """Add a finding unless `holds`; conditions that held are counted. Returns `holds`."""
        if holds:
            self.expectations += 1
        else:
            self.find(anomaly, sentence, *witness or (sentence,))
        return holds

    def measure(
        self,
        metric: str,
        value: float,
        unit: str,
        *budgets: Budget,
        anomaly: str = "budget-exceeded",
        explained: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Add a measurement, held against each budget. If it breaks any, that is one finding, whose witness ends with
        `explained` (called only then)."""
        self.measurements += [Measurement(metric, float(value), unit, budget) for budget in budgets or (None,)]
        broken: dict[str, list[str]] = {}
        for budget in budgets:
            if not budget.holds(value):
                broken.setdefault(f"{budget.comparison} {quantity(budget.limit, unit)}", []).append(budget.source)
        if broken:
            measured = quantity(value, unit)
            limit = " and ".join(f"{limit} ({' and '.join(sources)})" for limit, sources in broken.items())
            sentence = f"{metric} is {measured}, budget {limit}"
            self.find(anomaly, sentence, f"measured {measured}", f"budget {limit}", *explained())

    def show(self, metric: str, value: float, unit: str, budget: Budget) -> None:
        """Add a measurement whose budget is shown but does not decide, such as one of RSS."""
        self.measurements.append(Measurement(metric, float(value), unit, budget, decides=False))

    def sample(self, series: str, value: float, unit: str, *, phase: str = "", x: str = "", y: str = "") -> None:
        """Add a point of a series for the figures."""
        self.samples.append(Sample(series, float(value), unit, self.now(), phase, x, y))

    def leave_out(self, text: str) -> None:
        """Record the part of the check's claim that was not tried, and why: it is stated with the claim, and with the
        reason of a verdict that is not FAIL."""
        self.left_out.append(text)

    def note(self, text: str) -> None:
        """Add a remark for the reader of the report."""
        self.notes.append(text)

    def progress(self, stage: str, fraction: float) -> None:
        """Report the trial's progress, 0 to 1."""
        if self._progress is not None:
            self._progress(stage, fraction)
