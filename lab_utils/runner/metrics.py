"""Measures every check in the same way: the memory of its process, the latency of its operations, and how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from lab_utils.trial import Trial
from lab_utils.values.history import OpType
from lab_utils.values.result import Budget, Measurement

__all__ = ["common_metrics"]

_PERCENTILES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}
_GROWTH: Final = Budget("<", 50_000_000, "asked")


def common_metrics(trial: Trial, *, before: int, after: int) -> Iterator[Measurement]:
    """Yield the rows that every check has. `before`, `after`: bytes of anonymous memory of its process.

    Memory of the process is shown and does not decide: it holds the lab's own record of the check as well. Memory is
    traced by the checks of memory alone: tracing makes others take 1.35 to 3.9 times as long.
    """
    yield Measurement("anonymous memory at the end of the check", float(after), "bytes")
    yield Measurement("anonymous memory growth over the check", float(after - before), "bytes", _GROWTH, decides=False)
    # Latencies of the operations that succeeded, whatever they waited for.
    taken = sorted(trial.latencies)
    for name, share in _PERCENTILES.items() if taken else ():
        yield Measurement(f"latency of operations, {name}", 1e3 * taken[round(share * (len(taken) - 1))], "ms")
    history = trial.history
    yield Measurement("operations that succeeded", float(trial.succeeded), "operations")
    failed = sum(op.type is OpType.FAIL for op in history)
    yield Measurement("recorded operations that failed", float(failed), "operations")
    yield Measurement("users whose operations were recorded", float(len({op.user for op in history})), "users")
    yield Measurement("events received over sockets", float(trial.events_received()), "events")
    yield Measurement("expectations that held", float(trial.expectations), "expectations")
    yield from _exercised(trial)


def _exercised(trial: Trial) -> Iterator[Measurement]:
    """The number of things that each judge looked at, in all parts of the check."""
    own = {one.metric for one in trial.measurements}
    counts: Counter[str] = Counter()
    for verdict in trial.verdicts:
        if verdict.exercised is not None:
            what, number = verdict.exercised
            counts[what] += number
    for what, number in counts.items():
        if what not in own:
            yield Measurement(what, float(number), what.split()[0])
