"""Keeps runs: the only writer below outputs/, and the reader of its files."""

from lab_utils.output.store.provenance import provenance
from lab_utils.output.store.reading import (
    DIGEST,
    LATEST,
    PARTIAL,
    RUN_VARIABLE,
    Run,
    Summary,
    find_run,
    open_run,
    place,
    read_run,
    summaries,
)
from lab_utils.output.store.record import RunRecord
from lab_utils.output.store.results import Calibration, CategoryResults, StoreError, load_category, save_category
from lab_utils.output.store.writing import OpenRun, Store

__all__ = [
    "DIGEST",
    "LATEST",
    "PARTIAL",
    "RUN_VARIABLE",
    "Calibration",
    "CategoryResults",
    "OpenRun",
    "Run",
    "RunRecord",
    "Store",
    "StoreError",
    "Summary",
    "find_run",
    "load_category",
    "open_run",
    "place",
    "provenance",
    "read_run",
    "save_category",
    "summaries",
]
