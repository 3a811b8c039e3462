"""Formats frames as HTML, Markdown and JUnit; computes nothing."""

from lab_utils.output.pages.pages import (
    fit_output,
    notebook_page,
    quick_imports,
    reported_output,
    warm_up,
    write_notebook_page,
)
from lab_utils.output.pages.runs import runs_page, trends_page
from lab_utils.output.store import OpenRun

__all__ = [
    "fit_output",
    "notebook_page",
    "publish",
    "quick_imports",
    "reported_output",
    "runs_page",
    "trends_page",
    "warm_up",
    "write_notebook_page",
]


def publish(run: OpenRun, status: str) -> None:
    """Write the run's frames and its report; see `run.publish`."""
    # Not above: it needs pandas, which takes a second to import, and the pages of notebooks and runs need none of it.
    from lab_utils.output.pages import run as report

    report.publish(run, status)
