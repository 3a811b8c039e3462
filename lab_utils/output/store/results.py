"""What one notebook has found, on its way from the kernel to the run's folder and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab_utils.output.store.files import write
from lab_utils.values.result import CheckResult, from_json, to_json
from lab_utils.values.verdict import Outcome

__all__ = ["Calibration", "CategoryResults", "StoreError", "load_category", "save_category"]

_FORMAT: Final = 1


class StoreError(Exception):
    """A run cannot be written or read; the message names the place and what to do."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """One check on one planted registry: its defect, the anomalies of which one must be found, and what was found;
    when that was, in UTC, and by which run ("" for none)."""

    planted: str
    defect: str
    expected: tuple[str, ...]
    result: CheckResult
    made_at: str = ""
    made_by: str = ""

    @property
    def caught(self) -> bool:
        """True if the check failed, and with an anomaly that was planted: any other may be a fluke."""
        return self.result.outcome is Outcome.FAIL and any(
            finding.anomaly in self.expected for finding in self.result.verdict.findings
        )


@dataclass(frozen=True, slots=True)
class CategoryResults:
    """What one notebook has found so far. `complete` is False until it was saved for good."""

    category: str
    complete: bool
    results: tuple[CheckResult, ...]
    calibrations: tuple[Calibration, ...]

    def not_passed(self) -> list[str]:
        """The checks with findings or unknown, and the planted registries that were not caught."""
        bad = [result.check for result in self.results if result.outcome in (Outcome.FAIL, Outcome.UNKNOWN)]
        return [*bad, *(one.planted for one in self.calibrations if not one.caught)]


def save_category(folder: Path, found: CategoryResults) -> Path:
    """Write what a notebook has found to `results/<category>.json`, whole or not at all."""
    data = {
        "format": _FORMAT,
        "category": found.category,
        "complete": found.complete,
        "results": [to_json(result) for result in found.results],
        "calibrations": [
            {
                "planted": one.planted,
                "defect": one.defect,
                "expected": one.expected,
                "result": to_json(one.result),
                "made_at": one.made_at,
                "made_by": one.made_by,
            }
            for one in found.calibrations
        ],
    }
    path = folder / "results" / f"{found.category}.json"
    write(path, json.dumps(data))
    return path


def load_category(folder: Path, category: str) -> CategoryResults | None:
    """Read it back; None where nothing was saved. Raises `StoreError` for a file that is not one of ours."""
    path = folder / "results" / f"{category}.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return CategoryResults(
            data["category"],
            data["complete"],
            tuple(from_json(row) for row in data["results"]),
            tuple(
                Calibration(
                    row["planted"],
                    row["defect"],
                    tuple(row["expected"]),
                    from_json(row["result"]),
                    row.get("made_at", ""),
                    row.get("made_by", ""),
                )
                for row in data["calibrations"]
            ),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is not a results file of this version: {error!r}") from error
