"""Whose records the whole flow works on: made up from the seed, or a user's own from a CSV file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lab_utils.target import Row
from lab_utils.trial import Trial
from lab_utils.usage.csv_file import ONE_USER, usage_place
from lab_utils.usage.expected_figures import expected_figures
from lab_utils.usage.staging import StagedUsage, staged
from lab_utils.values.workload import rows_for

__all__ = ["FlowRecords", "flow_records"]

_PATIENCE_S = 5e-4
"""Seconds for each row of a file before the flow counts as stuck, about ten times the need of a row."""


@dataclass(frozen=True, slots=True)
class FlowRecords:
    """Each user's rows, the user for whom the model fails last, and the figures that reports on them must hold.

    `canaries`: how many of the rows hold one.
    """

    rows: Mapping[str, Sequence[Row]]
    expected: Callable[[str, datetime | None, frozenset[str]], dict[str, Any]]
    canaries: int


@contextmanager
def flow_records(trial: Trial) -> Iterator[FlowRecords]:
    """The records for this trial's parameters; those of a file can be read for as long as the block lasts.

    Raises `UsageError` for a file that is malformed.
    """
    count = int(trial.parameters["records_per_user"])
    if path := str(trial.parameters["usage_csv"]):
        with staged(usage_place(path)) as usage:
            yield _from_file(trial, usage)
        return
    names = trial.user_ids(int(trial.parameters["users"]) + 1)
    rows = {name: rows_for(name, count, trial.rng) for name in names}
    yield FlowRecords(rows, lambda user, since, focus: expected_figures(rows[user], since, focus), count * len(names))


def _from_file(trial: Trial, usage: StagedUsage) -> FlowRecords:
    # Here, for it needs pandas, which the base install does not have.
    from lab_utils.usage.expected_figures_frame import FrameFigures

    figures = FrameFigures(usage.summary.path, ONE_USER)
    if figures.users != usage.summary.users:
        raise RuntimeError(f"two readings of {usage.summary.path} differ; was it changed meanwhile?")
    trial.waiting.stuck_after = max(trial.waiting.stuck_after, _PATIENCE_S * usage.summary.records)
    trial.note(
        f"Own records: {usage.summary}. The parameters users and records_per_user count for the calibration alone, "
        "which is done on made-up records: whether a defect shows depends on the records."
    )
    trial.note(
        "Own records hold no canaries. That a report holds no other user's data is shown by its figures, each "
        "compared with a second reading of the file; canaries were looked for in the users' own questions to the "
        "model."
    )
    unlucky = next(name for name in trial.user_ids(len(usage) + 1) if name not in usage)
    return FlowRecords({**usage, unlucky: rows_for(unlucky, 10, trial.rng)}, figures.expected, 0)
