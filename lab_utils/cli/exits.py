"""How a command ends: its exit code, and the sentence about a package that it lacks."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

__all__ = ["CODES", "DONE", "LAB", "Exit", "missing"]


class Exit(IntEnum):
    """The exit codes of registry-lab."""

    PASSED = 0
    FINDINGS = 1
    WRONG_USAGE = 2
    LAB_FAILED = 3
    ANOTHER_FINDING = 4
    """Only `replay` returns it."""
    INTERRUPTED = 130


CODES: Final = "exit codes: 0 all pass, 1 findings or unknowns, 2 wrong usage, 3 the lab itself failed, 130 interrupted"
DONE: Final = "exit codes: 0 done, 2 wrong usage, 3 the lab itself failed, 130 interrupted"
"""The exit codes of a command that gives no verdict."""
LAB: Final = (
    *("papermill", "nbclient", "nbconvert", "nbformat", "ipykernel"),
    *("pandas", "pyarrow", "jinja2", "rich", "detangle"),
)
"""The modules of the extra `lab` that `run` and `lab` import."""


def missing(modules: Sequence[str], extra: str = "lab") -> str:
    """One line on missing packages, or ""."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    return f"{', '.join(absent)} not installed; this command needs: pip install 'agent-registry-lab[{extra}]'"
