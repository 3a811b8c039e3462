"""Carries out a grid of runs: hands its points to this machine or to a cluster, and keeps what comes back."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lab_utils.batch import places
from lab_utils.batch.errand import Brought, Errand, lab_here
from lab_utils.cli import display
from lab_utils.cli.checks_display import HEARTBEAT_S
from lab_utils.cli.exits import Exit, missing
from lab_utils.cli.plan import Plan, make_plan
from lab_utils.cli.running import ended_as_interrupted, path_here, resuming
from lab_utils.cli.sending import files_of
from lab_utils.cli.sweep import LOCAL, read_place, read_sweep
from lab_utils.cli.terminal import say
from lab_utils.output import pages
from lab_utils.output.pages.grid import cell_word, grid_page
from lab_utils.output.store import Store, StoreError
from lab_utils.output.store.files import write
from lab_utils.output.store.grids import GridFolder
from lab_utils.values.digest import Digest
from lab_utils.values.grid import SEED, Axis, Point, count_of, points_of, spelled
from lab_utils.values.profiles import UsageError
from lab_utils.values.texts import shown

__all__ = ["run"]

_MOST_SHOWN: Final = 20
_MOST_LETTERS: Final = 300
_OF_ONE_RUN: Final = ("baseline", "failed_from", "shard")
_KEPT: Final = (
    *("categories", "checks", "profile", "target", "service", "allow_host", "param", "transport", "llm", "seed"),
    *("check_timeout", "timeout", "calibrate", "sweep", "repeat"),
)
"""The options that make a grid and name nothing of this machine: the record keeps them for `--resume`."""
_AGAIN: Final = ("usage_csv", "protects", "python")


@dataclass(frozen=True, slots=True)
class _Grid:
    plan: Plan
    axes: tuple[Axis, ...]
    repeats: int
    place: str
    calibrate: str
    """"" for the first run only."""
    timeout: float | None
    protects: Path | None

    @property
    def points(self) -> list[Point]:
        return list(points_of(self.axes, self.repeats))

    @property
    def is_here(self) -> bool:
        return self.place == LOCAL

    def words(self, point: Point) -> tuple[str, ...]:
        """The command line of a point, without the folder it writes to; elsewhere with files as they are sent."""
        plan, setting = self.plan, self.plan.setting
        texts = [f"{name}={spelled(value)}" for name, value in point.values.items() if name != SEED]
        seed = int(point.values.get(SEED, setting.seed))
        setting = replace(setting, seed=seed, given=(*setting.given, *texts))
        words = ["run", *plan.categories, *(word for name in plan.checks for word in ("--check", name))]
        words += setting.words if self.is_here else setting.words_for_others
        # Each seed and size would be calibrated anew, which takes far longer than the run.
        is_first = point.number == next(iter(points_of(self.axes, self.repeats))).number
        words += ["--jobs", str(plan.jobs), "--calibrate", self.calibrate or (plan.calibrate if is_first else "never")]
        words += ["--timeout", f"{self.timeout:g}"] if self.timeout is not None else []
        if self.protects is not None:
            words += ["--protects", str(self.protects) if self.is_here else self.protects.name]
        return tuple(words)

    @property
    def command(self) -> str:
        """The command line of the grid, as it may be given to others."""
        words = shlex.split(self.plan.command)
        if any(axis.name == SEED for axis in self.axes):
            place = words.index("--seed")
            del words[place : place + 2]
        words += [word for axis in self.axes for word in ("--sweep", f"{axis.name}={_written(axis)}")]
        return shlex.join([*words, *(["--repeat", str(self.repeats)] if self.repeats > 1 else [])])


def _written(axis: Axis) -> str:
    """The values as `--sweep` takes them."""
    values = axis.values
    numbers = [value for value in values if type(value) is int]
    if len(numbers) == len(values) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}..{numbers[-1]}"
    return ",".join(map(spelled, values))


def run(options: argparse.Namespace, resumed: GridFolder | None) -> int:
    """Make the runs that the grid lacks; the exit code is that of its worst run. Raises `UsageError` before anything
    runs."""
    grid = _grid(options, resumed)
    if options.dry_run:
        _show(grid, resumed)
        return Exit.PASSED
    try:
        with ended_as_interrupted(), _place(grid) as place:
            sent = {} if grid.is_here else files_of(grid.plan.setting, grid.protects)
            folder = resumed or GridFolder.begin(grid.plan.outputs, _about(grid, options))
            with folder.alone():
                return _carry_out(grid, folder, place, sent, Console(file=sys.stdout))
    except StoreError as error:
        say(str(error))
        return Exit.LAB_FAILED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _grid(options: argparse.Namespace, resumed: GridFolder | None) -> _Grid:
    place = read_place(options.on)
    for name in _OF_ONE_RUN:
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')} is of one run; leave it out, or --sweep, --repeat and --on")
    if place != LOCAL and (absent := missing(("distributed",), "dask")):
        raise UsageError(absent)
    if resumed is not None:
        _take_up(options, resumed)
    elif options.resume:
        raise UsageError(
            f"--resume {options.resume}: there is no grid of that name; a grid is taken up by its own name"
        )
    for name in ("service", "python"):
        if place != LOCAL and getattr(options, name):
            remedy = "start the workers in its environment" if name == "python" else "make the grid with --on local"
            raise UsageError(f"--{name} names something that only this machine has; {remedy}")
    given = [*options.param, *(f"{name}=" for name in ("transport", "llm") if getattr(options, name) is not None)]
    options.resume = None
    plan = make_plan(options)
    axes, repeats = read_sweep(options, plan.categories, given)
    return _Grid(plan, axes, repeats, place, options.calibrate, options.timeout, options.protects)


def _take_up(options: argparse.Namespace, resumed: GridFolder) -> None:
    """Fill in the options that the record of an unfinished grid holds. Raises `UsageError` for what cannot be known."""
    about = resumed.about
    if any(getattr(options, name) for name in _KEPT):
        raise UsageError("--resume: the grid fixes checks and parameters; leave the other options out")
    for name in about["again"]:
        if not getattr(options, name):
            raise UsageError(f"{resumed.grid_id} was made with --{name.replace('_', '-')}; give it again")
    if about["lab"] != lab_here():
        raise UsageError(f"{resumed.grid_id} is of {about['lab']}, this is {lab_here()}; make a new grid")
    vars(options).update(about["words"])


def _about(grid: _Grid, options: argparse.Namespace) -> dict[str, Any]:
    setting = grid.plan.setting
    return {
        "command": grid.command,
        "target": setting.target,
        "profile": setting.profile,
        "seed": setting.seed,
        "axes": [{"name": axis.name, "values": list(axis.values)} for axis in grid.axes],
        "repeats": grid.repeats,
        "words": {name: getattr(options, name) for name in _KEPT},
        "again": [name for name in _AGAIN if getattr(options, name)],
        "lab": lab_here(),
    }


def _show(grid: _Grid, resumed: GridFolder | None) -> None:
    points = resumed.missing() if resumed else grid.points
    print(f"{len(points):,} runs{f' of {count_of(grid.axes, grid.repeats):,}' if resumed else ''} would be made:")
    for point in points[:_MOST_SHOWN]:
        print(f"  {shown(point.name)}: {shown(shlex.join(['registry-lab', *grid.words(point)]), _MOST_LETTERS)}")
    if len(points) > _MOST_SHOWN:
        print(f"  and {len(points) - _MOST_SHOWN:,} more")


def _carry_out(
    grid: _Grid, folder: GridFolder, place: places.Place, sent: Mapping[str, bytes], console: Console
) -> int:
    points = {point.number: point for point in folder.missing()}
    progress = _Progress(len(points), len(folder.points) - len(points), console)
    status, why = "error", ""
    try:
        lab = "" if grid.is_here else lab_here()
        errands = (Errand(folder.grid_id, number, grid.words(point), sent, lab) for number, point in points.items())
        with progress.shown(place.about):
            for errand, brought in places.made(place, errands, progress.wait):
                point = points[errand.number]
                progress.ended(point, *_keep(grid, folder, point, brought))
        status = _status(folder)
    except places.PlaceLost as error:
        why = str(error)
    except KeyboardInterrupt:
        status = "cancelled"
        raise
    finally:
        _end(folder, status, console)
        if status == "cancelled" or why:
            again = resuming(folder.folder.parent, folder.grid_id)
            say(f"{why or 'interrupted'}; {again} makes the runs that are missing")
    return {"passed": Exit.PASSED, "findings": Exit.FINDINGS}.get(status, Exit.LAB_FAILED)


def _place(grid: _Grid) -> AbstractContextManager[places.Place]:
    if grid.is_here:
        return places.here(grid.plan.jobs, grid.plan.outputs.absolute() / ".calibrations")
    return places.cluster(grid.place)


def _keep(grid: _Grid, folder: GridFolder, point: Point, brought: Brought | Exception) -> tuple[str, str]:
    """Keep what came of a point; a word for it, and what is wrong where the lab failed."""
    if isinstance(brought, Exception):
        why = f"{type(brought).__name__}: {brought}"
        folder.fail(point, why)
        return "LAB FAILED", why
    digest = folder.take(point, brought.archive)
    if digest is None:
        folder.fail(point, f"exit code {brought.exit_code}\n{brought.said}")
        lines = [line for line in brought.said.splitlines() if line.strip()]
        return "LAB FAILED", lines[-1] if lines else f"exit code {brought.exit_code}"
    if grid.plan.history is not None:
        _remember(grid.plan.history.add, digest)
    return digest.status, ""


def _remember(add: Callable[[Digest], object], digest: Digest) -> None:
    try:
        add(digest)
    except StoreError as error:
        say(str(error))


def _status(folder: GridFolder) -> str:
    """That of the worst run."""
    words = {cell_word(cell) for cell in folder.cells()}
    if words & {"LAB FAILED", "NOT RUN"}:
        return "error"
    return "passed" if words == {"PASS"} else "findings"


def _end(folder: GridFolder, status: str, console: Console) -> None:
    folder.end(status)
    write(folder.folder / "index.html", grid_page(folder))
    store = Store(folder.folder.parent)
    with store.alone():
        store.write_index(pages.runs_page)
    words = [cell_word(cell) for cell in folder.cells()]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(sorted(words)))
    display.line(f"\n{folder.grid_id}: {counts}", console)
    display.line(f"grid: {path_here(folder.folder / 'index.html')}", console)


@dataclass(slots=True)
class _Progress:
    """Shows the runs as they end: a bar on a terminal; elsewhere a line each, and a heartbeat after silence."""

    total: int
    had: int
    console: Console
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    _began: float = 0.0
    _said: float = 0.0
    _ended_at: float = 0.0
    _last: list[str] = field(default_factory=list)
    _about: Callable[[], str] = str

    @contextmanager
    def shown(self, about: Callable[[], str]) -> Iterator[None]:
        self._began = self._said = self.clock()
        self._about = about
        kept = f"{self.had} runs are there already; " if self.had else ""
        display.line(f"{kept}{self.total} runs to make: {about()}", self.console)
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, get_renderable=self._drawn, refresh_per_second=2):
            yield

    def ended(self, point: Point, word: str, why: str) -> None:
        """A run has ended."""
        self.done += 1
        self._ended_at = self.clock()
        line = f"{self.done} of {self.total}: {word} {point.name}{f': {why}' if why else ''}"
        self._last = [*self._last[-4:], line]
        if not self.console.is_terminal:
            display.line(shown(line, _MOST_LETTERS), self.console)
            self._said = self.clock()

    def wait(self) -> None:
        """Nothing has ended for a while."""
        if not self.console.is_terminal and self.clock() - self._said >= HEARTBEAT_S:
            self._said = self.clock()
            display.line(f"{self.clock() - self._began:.0f} s: {self._state()}", self.console)

    def _state(self) -> str:
        # At the pace up to the last end: while nothing ends, what is left does not grow.
        left_s = (self._ended_at - self._began) / max(self.done, 1) * (self.total - self.done)
        left_s -= self.clock() - self._ended_at
        left = f", about {left_s:.0f} s left" if self.done and left_s > 0 else ""
        return f"{self.done} of {self.total} runs done, {self._about()}{left}"

    def _drawn(self) -> Group:
        bar = Table.grid(padding=(0, 2, 0, 0))
        bar.add_row(
            ProgressBar(total=max(self.total, 1), completed=self.done, width=24), Text(self._state(), style="dim")
        )
        return Group(*(Text(shown(line, _MOST_LETTERS)) for line in self._last), bar)
