"""One run of one check: the target under test, the record of what was asked and answered, and what was measured."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from lab_utils.history import History, Op, OpType
from lab_utils.result import Budget, Measurement, Sample
from lab_utils.sockets import SocketTransport
from lab_utils.target import Capability, Handle, Recipe, Refused, Row, Subscription, Target
from lab_utils.transports import Transports
from lab_utils.verdict import Finding, Verdict

__all__ = ["ASKED", "LAB", "STUCK_AFTER", "Client", "Stuck", "Trial"]

T = TypeVar("T")
Value = int | float | str | bool

STUCK_AFTER = 30.0
"""Seconds after which an operation that should need none counts as stuck. Far beyond any correct target's time on a
busy machine, so it decides nothing but whether an operation ends at all."""


def ASKED(comparison: Any, limit: float) -> Budget:  # Reads as the constant it stands for.
    """A budget that the users asked for."""
    return Budget(comparison, limit, "asked")


def LAB(comparison: Any, limit: float) -> Budget:
    """The lab's own, tighter budget."""
    return Budget(comparison, limit, "lab")


class Stuck(Exception):
    """An operation did not end."""


class Trial:
    """What a check's body works with. One trial has one target, fresh, and one event loop."""

    def __init__(
        self,
        make_target: Callable[[], Target],
        parameters: Mapping[str, Value],
        seed: int,
        progress: Callable[[str, float], None] | None = None,
        stuck_after: float = STUCK_AFTER,
        target_name: str = "",
    ) -> None:
        self._make_target = make_target
        self.target_name = target_name
        self.parameters = parameters
        self.seed = seed
        self.rng = random.Random(seed)
        self.expectations = 0
        self.verdicts: list[Verdict] = []
        self.measurements: list[Measurement] = []
        self.samples: list[Sample] = []
        self.notes: list[str] = []
        self._ops: list[Op] = []
        self._position = 0
        self._began = time.perf_counter()
        self._progress = progress
        self._open: list[Target] = []
        self._transports = Transports(str(parameters.get("transport", "inprocess")))
        self._models: dict[int, str] = {}
        self._models_used: set[str] = set()
        self._prompted = 0
        self.stuck_after = stuck_after
        self.waited_in_vain = False

    # The target.

    async def target(
        self,
        recipes: Sequence[Recipe] = (Recipe("helper"),),
        rows: Mapping[str, Sequence[Row]] | None = None,
        close_timeout: float = 5.0,
        *,
        llm: str | None = None,
        llm_plan: Any = None,
    ) -> Target:
        """Open a fresh target. It is stopped when the trial ends; a check may open several, one after another.

        `llm`: what its agents ask, if not what the parameter of that name says; `llm_plan`: when an endpoint of the lab
        goes wrong.
        """
        target = self._make_target()
        model = self._chosen_model(target, llm, llm_plan)
        await target.start(recipes, rows or {}, close_timeout)
        self._models[id(target)] = model
        self._open.append(target)
        return target

    def make_target(self) -> Target:
        """Make a target that the trial neither starts nor stops: for work on a loop of its own."""
        return self._make_target()

    async def stop(self, target: Target) -> None:
        """Stop a target before the trial ends."""
        self._open.remove(target)
        self._count_prompts(target)
        try:
            await self._transports.close(target)
        finally:
            await target.stop()

    async def stop_all(self) -> None:
        """Stop every target that is still open, newest first, each with its server and its clients."""
        try:
            while self._open:
                await self.ends(self.stop(self._open[-1]), f"stopping the target {self._open[-1].name!r}")
        finally:
            await self._transports.close_all()
        self._note_model()
        if "transport" in self.parameters and (text := self._transports.note()):
            self.note(text)

    def asks_over_http(self, target: Target) -> bool:
        """Whether the agents of this open target ask a model over HTTP."""
        return self._models.get(id(target)) == "http"

    def _chosen_model(self, target: Target, llm: str | None, plan: Any) -> str:
        if "llm" not in self.parameters:
            return ""
        has_model = Capability.MODEL in target.capabilities
        model = target.choose_model(llm or str(self.parameters["llm"]), plan) if has_model else "none"
        self._models_used.add(model)
        return model

    def _count_prompts(self, target: Target) -> None:
        if self._models.pop(id(target), "") == "http":
            self._prompted += len(target.prompts())

    def _note_model(self) -> None:
        if "http" in self._models_used:
            self.note(f"Model over HTTP, the lab's stand-in: {self._prompted} prompts crossed it.")
        elif "none" in self._models_used:
            self.note("Model scripted: the target has no endpoint to ask.")
        elif self._models_used:
            self.note("Model scripted: no prompt crossed HTTP.")

    async def connect(self, target: Target, user: str) -> Subscription:
        """Connect a client of this user, over the trial's transport; return when it receives what is emitted."""
        transport = self.sockets(target)
        if transport is not None:
            return await transport.connect(user)
        self._transports.in_process += 1
        return target.subscribe(user)

    def sockets(self, target: Target) -> SocketTransport | None:
        """The target's sockets; None if this trial's clients are in process, by choice or because it serves none."""
        return self._transports.of(target, max(self.stuck_after, 10.0))

    async def replace(self, old: Target, new: Target) -> None:
        """Let `new` serve where `old` did, as after a deployment: every connection ends, and may come back to it."""
        await self._transports.replace(old, new)

    # What was asked and answered.

    def client(self, target: Target, name: str, user: str) -> Client:
        """Return a client whose operations on the target are recorded."""
        return Client(self, target, name, user)

    @property
    def history(self) -> History:
        """What has completed so far."""
        return History(self._ops)

    def now(self) -> float:
        """Seconds since the trial began."""
        return time.perf_counter() - self._began

    def next_position(self) -> int:
        """The next place in the order of invocations and completions."""
        self._position += 1
        return self._position

    def record(self, op: Op) -> None:
        """Add a completed operation."""
        self._ops.append(op)

    async def together(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T | BaseException]:
        """Run coroutines at once, each in a task, in an order drawn from the seed; return the answers in the order
        given, exceptions as values. Raises `Stuck` if one does not end."""
        coroutines = list(work)
        order = list(range(len(coroutines)))
        self.rng.shuffle(order)
        tasks: dict[int, asyncio.Task[T]] = {}
        for index in order:
            tasks[index] = asyncio.ensure_future(coroutines[index])
        if not tasks:
            return []
        pending = set(tasks.values())
        while pending:
            before = self._moved()
            done, pending = await asyncio.wait(pending, timeout=self.stuck_after)
            # A large workload may take long; it is stuck when nothing at all has moved in that time.
            if pending and not done and self._moved() == before:
                for task in pending:
                    task.cancel()
                await asyncio.wait(pending, timeout=self.stuck_after)
                raise Stuck(
                    f"{len(pending)} of {len(tasks)} concurrent operations did not end: nothing moved for "
                    f"{self.stuck_after:g} s"
                )
        return [_outcome(tasks[index]) for index in range(len(coroutines))]

    async def ends(self, work: Awaitable[T], what: str) -> T:
        """Await something that must end. Raises `Stuck`."""
        try:
            async with asyncio.timeout(self.stuck_after):
                return await work
        except TimeoutError:
            raise Stuck(f"{what} did not end in {self.stuck_after:g} s") from None

    async def reached(self, event: asyncio.Event) -> bool:
        """True once the event is set; False if it is not, in a time far beyond any correct target's."""
        try:
            async with asyncio.timeout(self.stuck_after):
                await event.wait()
        except TimeoutError:
            return False
        return True

    async def until(self, holds: Callable[[], bool]) -> bool:
        """Let the loop run until `holds()`, which is asked at every turn; False if it does not in a time far beyond any
        correct target's."""
        for _ in range(500):
            if holds():
                return True
            await asyncio.sleep(0)
        last, held, moved = self.now() + self.stuck_after / 4, holds(), self._moved()
        while not held:
            if self.now() >= last:
                before, moved = moved, self._moved()
                # A busy machine: as long as operations end and events arrive, what is waited for may be among them. But
                # when one wait was in vain, what moves is the one that waited, and so would all keep one another.
                if moved == before or self.waited_in_vain:
                    break
                last = self.now() + self.stuck_after / 4
            # What crosses a socket or a thread needs time as well as turns.
            await asyncio.sleep(0.002)
            held = holds()
        self.waited_in_vain = self.waited_in_vain or not held
        return held

    async def flush(self) -> None:
        """Let everything that is ready run, and every client receive what was sent to it so far: what should not come
        has then come as well."""
        await self.settle()
        await self._transports.flush()

    async def ended(self, work: asyncio.Future[Any]) -> bool:
        """True once it is done; False if it is not, and no operation has begun or ended in a time far beyond any
        correct target's."""
        while not work.done():
            before = self._moved()
            await asyncio.wait({work}, timeout=self.stuck_after / 2)
            if not work.done() and self._moved() == before:
                return False
        return True

    def _moved(self) -> tuple[int, int]:
        return self._position, self._transports.arrived()

    async def settle(self, turns: int = 20) -> None:
        """Let everything that is ready run; waits for no time."""
        for _ in range(turns):
            await asyncio.sleep(0)

    # What was found and measured.

    def judge(self, verdict: Verdict) -> None:
        """Add a checker's verdict."""
        self.verdicts.append(verdict)

    def find(self, anomaly: str, sentence: str, *witness: object) -> None:
        """Add a finding at once."""
        self.judge(Verdict.of([Finding(anomaly, sentence, tuple(str(item) for item in witness))], 1, ""))

    def require(self, holds: bool, anomaly: str, sentence: str, *witness: object) -> None:
        """Add a finding unless `holds`; what held is counted."""
        if holds:
            self.expectations += 1
        else:
            self.find(anomaly, sentence, *witness or (sentence,))

    def measure(
        self,
        metric: str,
        value: float,
        unit: str,
        *budgets: Budget,
        anomaly: str = "budget-exceeded",
        explained: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Add a measurement, held against each budget; a broken one is a finding, whose witness ends with `explained`
        (asked only then)."""
        if not budgets:
            self.measurements.append(Measurement(metric, float(value), unit))
        for budget in budgets:
            self.measurements.append(Measurement(metric, float(value), unit, budget))
            if not budget.holds(value):
                sentence = f"{metric} is {value:g} {unit}, budget {budget}"
                self.find(anomaly, sentence, f"measured {value!r} {unit}", budget, *explained())

    def show(self, metric: str, value: float, unit: str, budget: Budget) -> None:
        """Add a measurement whose budget is shown but does not decide, such as one of RSS."""
        self.measurements.append(Measurement(metric, float(value), unit, budget, decides=False))

    def sample(self, series: str, value: float, unit: str, *, phase: str = "", x: str = "", y: str = "") -> None:
        """Add a point of a series for the figures."""
        self.samples.append(Sample(series, float(value), unit, self.now(), phase, x, y))

    def note(self, text: str) -> None:
        """Add a remark for the reader of the report."""
        self.notes.append(text)

    def progress(self, stage: str, fraction: float) -> None:
        """Tell the one who waits how far the trial is, 0 to 1."""
        if self._progress is not None:
            self._progress(stage, fraction)


class Client:
    """One client of one user: calls the target and records each operation with its outcome.

    `Refused` and what user code raises count as FAIL (certainly no effect) and are raised on; a cancellation and a
    time-out count as INFO (the effect is unknown).
    """

    def __init__(self, trial: Trial, target: Target, name: str, user: str) -> None:
        self._trial = trial
        self._target = target
        self.name = name
        self.user = user

    def can(self, *capabilities: Capability) -> bool:
        """Whether the target has all of these."""
        return self._target.capabilities.issuperset(capabilities)

    async def create(self, agent_type: str, **options: Any) -> Handle:
        work = self._target.create(self.user, agent_type, **options)
        return await self.call("create", work, agent_type, options.get("thread", "main"))

    async def get(self, agent_type: str, thread: str | None = None) -> Handle | None:
        return await self.call("get", self._target.get(self.user, agent_type, thread), agent_type, thread or "")

    async def get_or_create(self, agent_type: str, thread: str = "main", **options: Any) -> Handle:
        work = self._target.get_or_create(self.user, agent_type, thread, **options)
        return await self.call("get_or_create", work, agent_type, thread)

    async def run(self, handle: Handle, command: Any) -> Any:
        work = self._target.run(handle, command)
        return await self.call(f"run:{command.action}", work, handle.agent_type, handle.thread)

    async def remove(self, agent_type: str) -> bool:
        return await self.call("remove", self._target.remove(self.user, agent_type), agent_type)

    async def reset(self) -> int:
        return await self.call("reset", self._target.reset(self.user))

    async def end(self) -> Any:
        return await self.call("end", self._target.end(self.user))

    async def call(self, action: str, work: Awaitable[T], agent_type: str = "", thread: str = "") -> T:
        """Await `work` and record it as this client's operation."""
        trial = self._trial
        invoked, start = trial.next_position(), trial.now()
        outcome, value, error = OpType.INFO, None, "CancelledError"
        try:
            answer = await work
            outcome, value, error = OpType.OK, _recorded(answer), ""
            return answer
        except Refused as refusal:
            outcome, value, error = OpType.FAIL, str(refusal), f"Refused[{refusal.kind}]"
            raise
        except TimeoutError as failure:
            outcome, value, error = OpType.INFO, str(failure), "TimeoutError"
            raise
        except Exception as failure:
            outcome, value, error = OpType.FAIL, str(failure), type(failure).__name__
            raise
        finally:
            completed = trial.next_position()
            index = invoked
            trial.record(
                Op(
                    index,
                    self.name,
                    self.user,
                    action,
                    agent_type,
                    thread,
                    outcome,
                    invoked,
                    completed,
                    start,
                    trial.now(),
                    value,
                    error,
                )
            )


def _recorded(answer: Any) -> Any:
    # The history must not keep agents alive: a handle is recorded by the name of its instance.
    if isinstance(answer, Handle):
        return answer.instance
    return answer


def _outcome(task: asyncio.Task[T]) -> T | BaseException:
    if task.cancelled():
        return asyncio.CancelledError()
    error = task.exception()
    return task.result() if error is None else error
