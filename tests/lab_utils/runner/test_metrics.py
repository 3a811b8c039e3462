"""Every check is measured in the same way."""

from __future__ import annotations

import asyncio

from lab_utils.runner.metrics import common_metrics
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Trial
from lab_utils.values.verdict import Finding, Outcome, Verdict


async def answer() -> int:
    return 7


def test_latencies_growth_and_counts_are_rows() -> None:
    trial = Trial(ReferenceTarget, {}, 7)
    for milliseconds in range(1, 101):
        trial.took(milliseconds / 1e3)
    rows = {row.metric: row for row in common_metrics(trial, before=1_000, after=70_000_000)}
    taken = [round(rows[f"latency of operations, {name}"].value) for name in ("p50", "p95", "p99", "max")]
    assert taken == [51, 95, 99, 100]
    growth = rows["anonymous memory growth over the check"]
    assert (growth.value, growth.outcome, growth.decides) == (69_999_000, Outcome.FAIL, False)
    assert rows["operations that succeeded"].value == 100


def test_each_judge_s_count_is_a_row_also_where_it_found_something_and_the_check_s_own_row_stands() -> None:
    trial = Trial(ReferenceTarget, {}, 7)
    leak = Finding("cross-user-data", "bo read what ada wrote", ("op 3",))
    trial.judge(Verdict.of([], 210, "pairs of users compared, over every kind of object"))
    trial.judge(Verdict.of([leak], 5, "pairs of users compared, once more"))
    trial.judge(Verdict.of([], 9, "objects reached, each by one user only"))
    trial.measure("objects reached", 8, "objects")
    trial.judge(Verdict.passed("2 expectations held"))
    rows = {row.metric: (row.value, row.unit) for row in common_metrics(trial, before=0, after=0)}
    assert rows["pairs of users compared"] == (215.0, "pairs")
    assert "objects reached" not in rows
    assert not any("expectations held" in metric for metric in rows)


def test_what_no_client_does_is_timed_and_a_long_trial_keeps_the_last() -> None:
    trial = Trial(ReferenceTarget, {}, 7)
    assert asyncio.run(trial.timed(answer())) == 7
    assert len(trial.latencies) == trial.succeeded == 1
    for _ in range(100_000):
        trial.took(1.0)
    assert set(trial.latencies) == {1.0}
    assert len(trial.latencies) < trial.succeeded == 100_001
