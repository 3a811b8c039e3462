"""The results of one notebook, on their way from the kernel to the run's folder and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Final

from lab_utils.output.store.files import opened, write
from lab_utils.values.decoding import decodable
from lab_utils.values.result import CheckResult, compact, parsed, plain, read, unparsed, written
from lab_utils.values.verdict import Outcome

__all__ = ["Calibration", "CategoryResults", "StoreError", "load_category", "save_category"]

_FORMAT: Final = 1


class StoreError(Exception):
    """A run cannot be written or read; the message names the place and the remedy."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """One check on one planted registry: its defect, the anomalies (one of them must be found), the findings, the time
    in UTC, and the run that made it ("" for none)."""

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
    """The results of one notebook so far. `complete` is False until it was saved for good."""

    category: str
    complete: bool
    results: tuple[CheckResult, ...]
    calibrations: tuple[Calibration, ...]

    def beside(self, other: CategoryResults) -> CategoryResults:
        """The results of both; of a check that both have, the other's."""
        known = {one.check for one in other.results} | {one.result.check for one in other.calibrations}
        return CategoryResults(
            self.category,
            self.complete and other.complete,
            (*other.results, *(one for one in self.results if one.check not in known)),
            (*other.calibrations, *(one for one in self.calibrations if one.result.check not in known)),
        )

    def not_passed(self) -> list[str]:
        """The checks with findings or unknown, and the planted registries that were not caught."""
        bad = [result.check for result in self.results if result.outcome in (Outcome.FAIL, Outcome.UNKNOWN)]
        return [*bad, *(one.planted for one in self.calibrations if not one.caught)]


@dataclass(frozen=True, slots=True)
class _Format:
    format: int


@dataclass(frozen=True, slots=True)
class _Written(_Format):
    """A results file, as JSON has it."""

    category: str
    complete: bool
    calibrations: tuple[Calibration, ...]
    results: tuple[CheckResult, ...] = ()

    @property
    def found(self) -> CategoryResults:
        calibrations = tuple(replace(one, result=compact(one.result)) for one in self.calibrations)
        return CategoryResults(self.category, self.complete, tuple(map(compact, self.results)), calibrations)


decodable(_Format, _Written)


def save_category(folder: Path, found: CategoryResults) -> Path:
    """Write a notebook's results to `results/<category>.json`, whole or not at all."""
    return write(folder / "results" / f"{found.category}.json", _pieces(found))


def _pieces(found: CategoryResults) -> Iterator[bytes]:
    calibrations = tuple(replace(one, result=plain(one.result)) for one in found.calibrations)
    yield unparsed(_Written(_FORMAT, found.category, found.complete, calibrations)).removesuffix(b"]}")
    for number, result in enumerate(found.results):
        yield b",\n" if number else b"\n"
        yield from written(result)
    yield b"\n]}\n"


def load_category(folder: Path, category: str) -> CategoryResults | None:
    """Read it back; None where nothing was saved. Raises `StoreError` for a file that is not one of ours."""
    path = folder / "results" / f"{category}.json"
    try:
        with opened(path) as file:
            try:
                return _by_lines(file)
            except ValueError:
                # Another layout: that of older versions, or of a tool. If it is damaged, the message names the place.
                file.seek(0)
                return _whole(file.read())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        # Not the whole path: it becomes the reason of a verdict, in a report that is given to others.
        raise StoreError(f"{path.relative_to(folder.parent)} cannot be read as results: {error}") from error


def _by_lines(lines: Iterator[bytes]) -> CategoryResults:
    """Read the output of `_pieces`: at most a few thousand lines of it are in memory at once."""
    head = parsed(next(lines, b"") + b"]}", _Written)
    results = tuple(read(line, lines) for line in takewhile(lambda line: not line.startswith(b"]"), lines))
    if head.format != _FORMAT or next(lines, b""):
        raise ValueError("the file has other lines")
    return replace(head, results=results).found


def _whole(text: bytes) -> CategoryResults:
    form = parsed(text, _Format).format
    if form != _FORMAT:
        raise ValueError(f"it has format {form}, this version reads {_FORMAT}; read it with the version that wrote it")
    return parsed(text, _Written).found
