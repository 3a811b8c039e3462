"""Runs notebooks headless in kernels of their own, and reports reliably how each one ended."""

from lab_utils.batch.forked import publish
from lab_utils.batch.parameters import NotebookError, check_parameters, notebook_parameters, notebooks_folder
from lab_utils.batch.pool import KERNEL_MODE, Ended, Event, Job, Status, run_notebooks

__all__ = [
    "KERNEL_MODE",
    "Ended",
    "Event",
    "Job",
    "NotebookError",
    "Status",
    "check_parameters",
    "notebook_parameters",
    "notebooks_folder",
    "publish",
    "run_notebooks",
]
