"""Stand-ins for the notebooks, so that a test of the command line need not wait for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lab_utils.batch import Ended, Event, Job, Status
from lab_utils.checks import CHECKS
from lab_utils.output.store import CategoryResults, OpenRun, save_category
from lab_utils.values.result import CheckResult
from tests.lab_utils.made import CATEGORY, calibration, result

NAMES = [name for name, check in CHECKS.items() if check.category == CATEGORY]
OK = Ended(Status.OK, 1.0)


class Notebooks:
    """Stand-ins for the notebooks: they end and find as they were set to."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.results: list[CheckResult] = [result(name) for name in NAMES]
        self.caught = True
        self.ended = OK
        self.meanwhile: Callable[[], None] = lambda: None

    def run(
        self, jobs: Sequence[Job], run: OpenRun, *, on_event: Callable[[Event], None], **_: Any
    ) -> dict[str, Ended]:
        self.jobs += jobs
        for job in jobs:
            on_event(Event(job.name))
            self.meanwhile()
            if job.category and self.ended.status in (Status.OK, Status.FAILED):
                calibrations = tuple(calibration(name, caught=self.caught) for name in NAMES)
                save_category(run.folder, CategoryResults(job.category, True, tuple(self.results), calibrations))
            ended = self.ended if job.category else OK
            on_event(Event(job.name, ended=ended))
            told = {job.name: {"status": ended.status, "seconds": 1.0, "message": ended.message}}
            run.note(notebooks=run.about.get("notebooks", {}) | told)
        return {job.name: self.ended if job.category else OK for job in jobs}
