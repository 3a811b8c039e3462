"""One run of a workload on the deterministic loop; the only module that imports detangle, so that it can be exchanged.

A schedule is a list of deviations from asyncio's own order. The order is chosen only while a workload's callers are at
work: preparation and judgement run in asyncio's own order.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from lab_utils.interleavings.observing import Observer, place
from lab_utils.interleavings.quick import QUICKENED, SimTask, quicken
from lab_utils.interleavings.stage import NotExplorable, Problem, Stage, Workload
from lab_utils.interleavings.threads import times
from lab_utils.values.quantities import counted

if TYPE_CHECKING:
    import detangle

__all__ = [
    "Missing",
    "Outcome",
    "Schedule",
    "by_priority",
    "run_once",
    "run_schedule",
    "uniformly",
]

Schedule = tuple[tuple[int, int], ...]
"""Deviations: at the decision of this number, the task that stands at this place in asyncio's own order runs first."""

_LOCKS = tuple((kind, name) for kind in (asyncio.Lock, asyncio.Semaphore) for name in ("acquire", "release"))
_telling: dict[tuple[type, str], Any] = {}
_MOST_NAMED: Final = 3
_LAST_TURNS: Final = 20
_MOST_STEPS = 20_000
_MOST_TIME = 7 * 86_400.0
"""Steps, and virtual seconds, after which a run counts as one that never ends."""


class Missing(ImportError):
    """The library that explores is not installed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: its findings, its choices (alternatives, taken), and the interleaving if it was asked."""

    problems: tuple[Problem, ...]
    decisions: tuple[tuple[int, int], ...]
    steps: int
    suspensions: int
    was_cancelled: bool
    followed: bool
    interleaving: tuple[str, ...] = ()

    @property
    def schedule(self) -> Schedule:
        """The deviations of this run."""
        return tuple((place, taken) for place, (_, taken) in enumerate(self.decisions) if taken)


class _Steering:
    """Answers the loop's questions: asyncio's own order, except where the schedule differs.

    To detangle this is a strategy. Numbers other than the next task's (a seed, a delay) are always the default.
    """

    def __init__(self, pick: Callable[[int, Sequence[Any]], int]) -> None:
        self.is_open = False
        self.decisions: list[tuple[int, int]] = []
        self._pick = pick

    def choosing(self, is_open: bool) -> None:
        """From here on the order is chosen, or is asyncio's own."""
        self.is_open = is_open

    def schedule(self, lanes: Sequence[Any]) -> int:
        if not self.is_open:
            return 0
        taken = min(self._pick(len(self.decisions), lanes), len(lanes) - 1)
        self.decisions.append((len(lanes), taken))
        return taken

    def choose(self, n: int, kind: str) -> int:
        return 0

    def flip(self, p: float, kind: str) -> bool:
        return False


_REPLACED: Final = (
    "call_soon_threadsafe",
    "create_connection",
    "create_future",
    "create_unix_connection",
    "run_in_executor",
)
"""The loop's methods that `_prepare` puts others in place of."""

_SLICE_S: Final = 0.05
_SLICES_OF_A_JOB: Final = 40
"""Slices of time in which a job of a thread pool must end while the loop waits for it."""

_OF_A_THREAD: Final = "_chain_future.<locals>._call_check_cancel"


class _Future(asyncio.Future[Any]):
    """A future that is hashed by its number. One that is to have the result of another thread goes to `on_thread`."""

    def __init__(self, number: int, on_thread: Callable[[Any], None], **options: Any) -> None:
        self._number, self._on_thread = number, on_thread
        super().__init__(**options)

    def __hash__(self) -> int:
        return self._number

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        # By `asyncio.wrap_future`, which cannot be recognized by anything else.
        if getattr(callback, "__qualname__", "") == _OF_A_THREAD:
            self._on_thread(self)
        super().add_done_callback(callback, context=context)


def run_schedule(
    workload: Workload, schedule: Schedule = (), *, trace: bool = False, most_steps: int = _MOST_STEPS
) -> Outcome:
    """Run the workload once under a schedule; the empty one is asyncio's own order. More than `most_steps` steps of the
    loop count as a run that never ends.

    Call it where no loop runs. Raises `Missing`, `NotExplorable`, and the workload's own errors.
    """
    deviations = dict(schedule)
    outcome = run_once(workload, lambda number, _: deviations.get(number, 0), trace=trace, most_steps=most_steps)
    followed = all((number, taken) in outcome.schedule for number, taken in schedule)
    return replace(outcome, followed=followed)


def uniformly(seed: int, run: int) -> Callable[[int, Sequence[Any]], int]:
    """A random schedule: at each decision any of the tasks that can run."""
    strategy = _detangle().RandomWalk(seed)
    strategy.start(run)
    return lambda _, lanes: int(strategy.schedule(lanes))


def by_priority(seed: int, run: int, decisions: int) -> Callable[[int, Sequence[Any]], int]:
    """A priority-based schedule (PCT): the highest of random priorities runs; at two random decisions it is demoted."""
    strategy = _detangle().PCT(seed, depth=3, horizon=max(2, decisions))
    strategy.start(run)
    return lambda _, lanes: int(strategy.schedule(lanes))


def run_once(
    workload: Workload,
    pick: Callable[[int, Sequence[Any]], int],
    *,
    trace: bool = False,
    most_steps: int = _MOST_STEPS,
) -> Outcome:
    """Run the workload once, with `pick(number of the decision, runnable callbacks)` as the schedule."""
    library = _detangle()
    steering, observer = _Steering(pick), Observer(trace)
    stage = Stage(steering.choosing, observer, lambda error: _impossible(library, error))
    impossible: list[str] = []
    threads = set(threading.enumerate())
    config = library.SimConfig(max_steps=most_steps, max_time=_MOST_TIME)

    async def whole() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name("the lab")
        await workload(stage)
        # A task that was cancelled and not waited for has its turns to end in. Those of this loop: `asyncio.all_tasks`
        # walks through the tasks of earlier runs that the collector has not freed yet.
        loop: Any = asyncio.get_running_loop()
        for _ in range(_LAST_TURNS):
            if not any(other.cancelling() and not other.done() for other in loop.tasks if other is not task):
                break
            await asyncio.sleep(0)

    loops: list[detangle.SimLoop] = []

    def prepare(loop: detangle.SimLoop) -> None:
        loops.append(loop)
        _prepare(loop, observer, impossible.append)
        quicken(loop, observer, steering)

    with _locks_that_tell():
        result = library.execute(whole, config=config, strategy=steering, setup=prepare)
    _let_go(loops[0])
    # A job of a pool has been waited for, and may only be slow to leave.
    began = {one for one in threading.enumerate() if not isinstance(one, _Job)} - threads
    if result.failure is not None and result.failure.kind == "deadlock" and began:
        impossible.append("a real thread that began meanwhile may call the loop")
    if impossible:
        raise NotExplorable(impossible[0])
    problems = (*stage.problems, *_problems(library, result))
    if result.leaked and not problems:
        names = sorted(result.leaked)
        more = f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        left = f"{', '.join(names[:_MOST_NAMED])}{more}"
        problems += (Problem("task-left", f"{counted(len(names), 'task')} left when all was closed: {left}"),)
    return Outcome(
        tuple(problems),
        tuple(steering.decisions),
        result.steps,
        observer.suspensions,
        observer.has_cancelled,
        True,
        tuple(observer.lines),
    )


@contextmanager
def _locks_that_tell() -> Iterator[None]:
    """While inside, locks record their holders, as detangle patches them; outside, asyncio is unchanged.

    Without this, detangle patches them at its first run and for good, and so changes every later measurement.
    """
    before = {(kind, name): getattr(kind, name) for kind, name in _LOCKS}
    for (kind, name), telling in _telling.items():
        setattr(kind, name, telling)
    try:
        yield
    finally:
        for (kind, name), own in before.items():
            _telling[kind, name] = getattr(kind, name)
            setattr(kind, name, own)


def _prepare(loop: detangle.SimLoop, observer: Observer, on_impossible: Callable[[str], None]) -> None:
    numbers, run_in_executor, call_from_a_thread = itertools.count(1), loop.run_in_executor, loop.call_soon_threadsafe
    home = threading.get_ident()

    def on_thread(_: object) -> None:
        # Time is simulated: it may be waited for in vain, and come in another order in the next run.
        on_impossible("the result of a real thread was awaited")

    def in_executor(executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        return run_in_executor(executor, partial(_in_a_thread, loop, refused, function, *arguments))

    def refused() -> Exception:
        on_impossible("a job in a thread waits for the loop")
        error: Exception = _detangle().RealIOError("a job in a thread waits for the loop")
        return error

    def from_a_thread(*arguments: Any, **options: Any) -> asyncio.Handle:
        if not isinstance(threading.current_thread(), _Job) and threading.get_ident() != home:
            on_impossible("a real thread called the loop")
        return call_from_a_thread(*arguments, **options)

    def reaching(connect: Callable[..., Any]) -> Callable[..., Any]:
        async def connected(*arguments: Any, **options: Any) -> Any:
            try:
                return await connect(*arguments, **options)
            except OSError:
                # On a real loop a server may be there.
                on_impossible("a server was not reached over the simulated network")
                raise

        return connected

    loop.create_connection = reaching(loop.create_connection)  # type: ignore[method-assign]
    loop.create_unix_connection = reaching(loop.create_unix_connection)  # type: ignore[method-assign]
    loop.call_soon_threadsafe = from_a_thread  # type: ignore[method-assign]
    loop.set_task_factory(lambda loop, coroutine, **options: SimTask(coroutine, next(numbers), loop=loop, **options))
    loop.create_future = lambda: _Future(next(numbers), on_thread, loop=loop)  # type: ignore[method-assign]
    loop.run_in_executor = in_executor  # type: ignore[method-assign, assignment]
    observer.attach(loop)
    loop.tracer = observer


def _let_go(loop: detangle.SimLoop) -> None:
    """Break the reference cycles of a loop that is over, so that its tasks are freed at once.

    Left to the collector, they stand in asyncio's set of all tasks, where a task of a later run is compared with all
    that have its number.
    """
    for name in (*_REPLACED, *QUICKENED):
        delattr(loop, name)
    for task in loop.tasks:
        if isinstance(task, SimTask):
            task.lane = None
    for held in vars(loop).values():
        if isinstance(held, (list, dict)):
            held.clear()


class _Job(threading.Thread):
    """Does a job of a thread pool. It may call the loop, which waits for it."""


def _in_a_thread(
    loop: detangle.SimLoop, refused: Callable[[], Exception], function: Callable[..., Any], *arguments: Any
) -> Any:
    """Do a job of a thread pool in a thread of its own, while the loop waits, so that the order of events is certain.

    Raises `refused()` for a job that itself waits for the loop, and so would never end.
    """
    done: Future[Any] = Future()
    before = loop.external_events
    # A daemon: a job that never ends keeps no process from ending.
    thread = _Job(target=_do, args=(done, partial(function, *arguments)), daemon=True)
    thread.start()
    worked_s = -1.0
    for _ in range(_SLICES_OF_A_JOB):
        if wait([done], _SLICE_S).done:
            break
        # One that called the loop and does nothing more waits for it. On a busy machine a job may take longer.
        before_s, (worked_s, _, is_ready) = worked_s, times(thread)
        if loop.external_events != before and worked_s == before_s and not is_ready:
            break
    try:
        if done.done():
            return done.result()
        raise refused()
    finally:
        # An error that it holds refers to this frame.
        del done


def _do(done: Future[Any], job: Callable[[], Any]) -> None:
    try:
        done.set_result(job())
    except BaseException as error:
        done.set_exception(error)


def _problems(library: Any, result: Any) -> Iterator[Problem]:
    failures = [failure for failure in (result.failure, *result.secondary) if failure is not None]
    for failure in failures:
        if impossible := _impossible(library, failure.exception):
            raise NotExplorable(impossible)
        match failure.kind:
            case "deadlock":
                yield Problem(
                    "never-ends", f"deadlock: no task can run, and some are unfinished: {_waiting(failure.deadlock)}"
                )
            case "step-limit" | "time-limit":
                yield Problem("never-ends", f"not done after {result.steps:,} steps, {result.virtual_time:g} s of time")
            case "unobserved-exception" | "callback-error":
                yield Problem("unhandled-error", failure.message)
            case _:
                # The workload's own mistake, which must not pass for the target's.
                raise failure.exception


def _impossible(library: Any, error: BaseException | None) -> str:
    """The unsupported feature that was asked of the loop, wherever in the chain of errors it is named; "" for another
    error."""
    while error is not None:
        if isinstance(error, library.RealIOError):
            return str(error).partition(". ")[0]
        error = error.__cause__ or error.__context__
    return ""


def _waiting(report: Any) -> str:
    texts = []
    for task in report.blocked:
        at = f" at {place(*task.location)}" if task.location is not None else ""
        held = f", held by {', '.join(task.blockers)}" if task.blockers else ""
        texts.append(f"{task.label} waits {task.waiting_for}{held}{at}")
    return "; ".join(texts)


def _detangle() -> Any:
    try:
        # Here, for the base install has it not.
        import detangle
    except ImportError as error:
        raise Missing("detangle is not installed; schedules need: pip install 'agent-registry-lab[lab]'") from error
    return detangle
