"""Keeps runs: the only writer below outputs/, and the reader of what it wrote."""

from lab_utils.store.provenance import provenance
from lab_utils.store.reading import LATEST, PARTIAL, Run, Summary, find_run, read_run, summaries
from lab_utils.store.results import Calibration, CategoryResults, StoreError, load_category, save_category
from lab_utils.store.writing import OpenRun, Store

__all__ = [
    "LATEST",
    "PARTIAL",
    "Calibration",
    "CategoryResults",
    "OpenRun",
    "Run",
    "Store",
    "StoreError",
    "Summary",
    "find_run",
    "load_category",
    "provenance",
    "read_run",
    "save_category",
    "summaries",
]
