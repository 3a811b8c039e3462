"""Keeps grids: a folder with a record of the swept parameters, and the run of each point as it came back."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict, cast

import msgspec

from lab_utils.output.store.digests import digest_of
from lab_utils.output.store.files import read, write
from lab_utils.output.store.reading import DIGEST, GRID, PARTIAL, read_run
from lab_utils.output.store.record import Process, reason
from lab_utils.output.store.results import StoreError
from lab_utils.output.store.writing import Store, locked, this_process
from lab_utils.values.decoding import decodable
from lab_utils.values.digest import Digest, read_digest, written_digest
from lab_utils.values.grid import Axis, Point, points_of

__all__ = ["Cell", "GridFolder", "GridRecord", "find_grid"]

FORMAT: Final = 1
_SAID: Final = "printed.txt"


class AxisRecord(TypedDict):
    """A parameter, and its values."""

    name: str
    values: list[int | float | str | bool]


class GridRecord(TypedDict):
    """The content of grid.json. `words`: the options that make the rest of the grid; `again`: those to be given again,
    since they name files of the machine of the run; `outcomes`: how many checks of all runs had each verdict."""

    format: int
    grid_id: str
    status: str
    started_at: str
    finished_at: str | None
    command: str
    target: str
    profile: str
    seed: int
    axes: list[AxisRecord]
    repeats: int
    words: dict[str, Any]
    again: list[str]
    lab: str
    process: Process
    outcomes: NotRequired[dict[str, int]]


decodable(GridRecord)


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of a grid as it stands. `link`: its run, below the folder of the grid; `why`: the reason why it was not
    made. Without a digest and a reason it was not made yet."""

    point: Point
    digest: Digest | None
    link: str = ""
    why: str = ""


class GridFolder:
    """A grid: `runs/<number>` is the outputs folder of one point, there or not, never changed; `failed/<number>` that
    of the last attempt that the lab itself failed, which a later one replaces."""

    def __init__(self, folder: Path, about: GridRecord) -> None:
        self.folder, self.about = folder, about

    def __repr__(self) -> str:
        return f"<GridFolder {self.grid_id} status={self.about['status']}>"

    @classmethod
    def begin(cls, outputs: Path, about: Mapping[str, Any]) -> GridFolder:
        """Make a new grid's folder. Raises `StoreError` where that cannot be written."""
        store = Store(outputs)
        try:
            while True:
                grid_id = f"grid-{store.new_name()}"
                folder = store.outputs / grid_id
                folder.parent.mkdir(parents=True, exist_ok=True)
                try:
                    folder.mkdir()
                    break
                except FileExistsError:
                    continue
            started = store.now().isoformat(timespec="seconds")
            about = {**about, "process": this_process()}
            mine = {"format": FORMAT, "grid_id": grid_id, "status": "running", "started_at": started}
            made = cls(folder, cast(GridRecord, {**mine, "finished_at": None, **about}))
            made.note()
        except OSError as error:
            raise StoreError(f"cannot write to {store.outputs}: {error.strerror}; name another folder") from error
        return made

    @classmethod
    def read(cls, folder: Path) -> GridFolder:
        """Read a grid, finished or not. Raises `StoreError` for a record of another version."""
        try:
            data = json.loads(read(folder / GRID))
            if isinstance(data, dict) and data.get("format") != FORMAT:
                raise StoreError(f"{folder.name} has format {data.get('format')}, this version reads {FORMAT}")
            msgspec.convert(data, GridRecord)
        except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
            raise StoreError(f"{folder.name} is not a grid of this version: {error}") from error
        return cls(folder, cast(GridRecord, data))

    @property
    def grid_id(self) -> str:
        return self.about["grid_id"]

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(Axis(one["name"], tuple(one["values"])) for one in self.about["axes"])

    @property
    def points(self) -> list[Point]:
        return list(points_of(self.axes, self.about["repeats"]))

    def note(self, **about: Any) -> None:
        """Add to the record at once."""
        self.about = cast(GridRecord, {**self.about, **about})
        write(self.folder / GRID, json.dumps(self.about, indent=2) + "\n")

    def end(self, status: str) -> None:
        """Note how the grid ended, when, and the number of each verdict."""
        digests = (cell.digest for cell in self.cells())
        outcomes = Counter(check.outcome.value for digest in digests if digest for check in digest.checks)
        self.note(status=status, finished_at=datetime.now(UTC).isoformat(timespec="seconds"), outcomes=dict(outcomes))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While inside, no other process works at this grid. Raises `StoreError` if one does."""
        with locked(self.folder / ".lock", wait=False) as is_mine:
            if not is_mine:
                raise StoreError(f"{self.grid_id} is under way in another process; wait for its end, or interrupt it")
            shutil.rmtree(self.folder / ".arriving", ignore_errors=True)
            self.note(status="running", finished_at=None, process=this_process())
            yield

    def missing(self) -> list[Point]:
        """The points whose run is not there, or cannot be read."""
        return [cell.point for cell in self.cells() if cell.digest is None]

    def take(self, point: Point, archive: bytes) -> Digest | None:
        """Keep the run that came back of a point, whole or not at all; of a second copy, nothing. Returns the run's
        digest.

        None where the archive holds no finished run that can be read: it is kept as a failed attempt.
        """
        arriving = self.folder / ".arriving" / f"{point.number}"
        shutil.rmtree(arriving, ignore_errors=True)
        arriving.mkdir(parents=True)
        with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
            zipped.extractall(arriving)
        runs = [path for path in arriving.iterdir() if (path / "run.json").is_file()]
        digest = None
        if len(runs) == 1 and not runs[0].name.endswith(PARTIAL):
            with suppress(StoreError):
                digest = digest_of(read_run(runs[0]))
        if digest is None or digest.status not in ("passed", "findings"):
            self._replace(arriving, self._failed(point))
            return None
        write(arriving / DIGEST, [written_digest(digest)])
        if self._cell(point).digest is not None:
            shutil.rmtree(arriving)
        else:
            self._replace(arriving, self._place(point))
            shutil.rmtree(self._failed(point), ignore_errors=True)
        return digest

    def fail(self, point: Point, said: str) -> None:
        """Note the reason why a point's run was not made, beside the remains of the attempt."""
        write(self._failed(point) / _SAID, said)

    def cells(self) -> list[Cell]:
        """Every point as it stands."""
        return [self._cell(point) for point in self.points]

    def _cell(self, point: Point) -> Cell:
        place, failed = self._place(point), self._failed(point)
        if place.is_dir():
            try:
                digest = read_digest(read(place / DIGEST))
            except (OSError, ValueError) as error:
                return Cell(point, None, "", f"its record cannot be read: {reason(error)}")
            return Cell(point, digest, f"runs/{place.name}/{digest.run_id}/index.html")
        if not failed.is_dir():
            return Cell(point, None)
        pages = sorted(failed.glob("*/index.html"))
        link = pages[0].relative_to(self.folder).as_posix() if pages else ""
        said = failed / _SAID
        return Cell(point, None, link, said.read_text(encoding="utf-8") if said.is_file() else "the lab itself failed")

    def _place(self, point: Point) -> Path:
        return self.folder / "runs" / f"{point.number:04d}"

    def _failed(self, point: Point) -> Path:
        return self.folder / "failed" / f"{point.number:04d}"

    @staticmethod
    def _replace(arriving: Path, place: Path) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        arriving.rename(place)


def find_grid(outputs: Path, name: str) -> GridFolder | None:
    """The grid of that name below `outputs`, or in the folder of that path; None where there is none."""
    for folder in (Path(name), outputs / name):
        if (folder / GRID).is_file():
            return GridFolder.read(folder.resolve())
    return None
