"""Writes runs: to the side first, under their own name only when they are done."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import psutil

from lab_utils.output.store.files import read, write
from lab_utils.output.store.reading import LATEST, PARTIAL, Run, Summary, read_run, summaries
from lab_utils.output.store.record import FORMAT, Process
from lab_utils.output.store.results import StoreError, load_category, save_category

try:
    import fcntl
except ImportError:  # Windows: of two runs that end in the same instant, the list may then lack one
    fcntl = None  # type: ignore[assignment]

__all__ = ["OpenRun", "Store", "locked", "this_process"]


def this_process() -> Process:
    """This process, as a record names it."""
    return {"pid": os.getpid(), "created": psutil.Process().create_time()}


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file while inside; whether it could be had, where nothing is waited for."""
    with path.open("a") as handle:
        is_mine = True
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                is_mine = False
        yield is_mine


class Frame(Protocol):
    """The properties of a frame that the store uses."""

    def to_parquet(self, path: Path, /) -> Any: ...


class OpenRun:
    """The owner of one unfinished run: a folder `<run_id>.partial`, until `finish` renames it.

    Left by a crash or an interruption it stays under that name, readable, and is never taken for a finished run.
    """

    def __init__(self, store: Store, run_id: str, about: Mapping[str, Any]) -> None:
        self.run_id = run_id
        self.folder = store.outputs / f"{run_id}{PARTIAL}"
        self._store = store
        self.about: dict[str, Any] = {
            "format": FORMAT,
            "run_id": run_id,
            "status": "running",
            "started_at": store.now().isoformat(timespec="seconds"),
            "finished_at": None,
            "process": this_process(),
            **about,
        }

    def __repr__(self) -> str:
        return f"<OpenRun {self.run_id} status={self.about['status']}>"

    def note(self, **about: Any) -> None:
        """Add to run.json at once, so that an interrupted run shows how far it came."""
        self.about |= about
        self.write("run.json", json.dumps(self.about, indent=2) + "\n")

    def reload(self) -> None:
        """Take over the notes of another process."""
        self.about |= json.loads(read(self.folder / "run.json"))

    def path(self, name: str) -> Path:
        """A place in the run's folder for a file that another tool writes; its parent is there."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, text: str) -> Path:
        """Write a file of the run, whole or not at all."""
        return write(self.folder / name, text)

    def write_frames(self, frames: Mapping[str, Frame]) -> None:
        """Write each frame to `frames/<name>.parquet`."""
        for name, frame in frames.items():
            frame.to_parquet(self.path(f"frames/{name}.parquet"))

    def read(self) -> Run:
        """The results of the run so far."""
        return read_run(self.folder)

    def take_results(self, other: Run) -> None:
        """Take over the results of another run so far, each category by itself."""
        for category in other.about["categories"]:
            found = load_category(other.folder, category)
            if found is not None:
                save_category(self.folder, found)

    def finish(self, status: str, index: Callable[[list[Summary]], str]) -> Path:
        """End the run: its folder gets its own name, `latest` points to it, and `index` lists it. Returns the folder.

        Runs that end at the same time wait for each other here, so that none is missing from the list.
        """
        self.note(status=status, finished_at=self._store.now().isoformat(timespec="seconds"))
        final = self._store.outputs / self.run_id
        with self._store.alone():
            self.folder.rename(final)
            self.folder = final
            self._store.point_latest(self.run_id)
            self._store.write_index(index)
        return final

    def abandon(self, status: str, index: Callable[[list[Summary]], str]) -> Path:
        """End the run unfinished: it stays `<run_id>.partial` and is listed as such. Returns the folder."""
        self.note(status=status, finished_at=self._store.now().isoformat(timespec="seconds"))
        with self._store.alone():
            self._store.write_index(index)
        return self.folder


class Store:
    """An outputs folder: any number of runs, each in a folder that is never changed once finished.

    Several processes may run into one folder at once.
    """

    def __init__(
        self,
        outputs: Path,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        self.outputs = outputs.absolute()
        self.now = now
        # The system's own randomness: two runs that start in the same millisecond must not share a name.
        self._rng = rng or random.SystemRandom()

    def begin(self, about: Mapping[str, Any]) -> OpenRun:
        """Make a new run's folder and its run.json. Raises `StoreError` where that cannot be written."""
        try:
            self.outputs.mkdir(parents=True, exist_ok=True)
            while True:
                run = OpenRun(self, self.new_name(), about)
                # A finished run of that name is looked for too: rename would replace an empty folder without a word.
                if not (self.outputs / run.run_id).exists():
                    try:
                        run.folder.mkdir()
                        break
                    except FileExistsError:
                        continue
            run.note()
        except OSError as error:
            raise StoreError(f"cannot write to {self.outputs}: {error.strerror}; name another folder") from error
        return run

    def resume(self, run_id: str) -> OpenRun:
        """The unfinished run of that name as it stands, for another process than the one that began it."""
        run = OpenRun(self, run_id, {})
        run.reload()
        return run

    def prune(self, keep: int, index: Callable[[list[Summary]], str], *, is_dry: bool = False) -> list[str]:
        """Remove all but the newest `keep` runs and grids, unfinished ones too, and list the rest anew; return the
        names of those removed. One that is under way, one that `latest` names, and a folder that cannot be read stay.
        """
        with self.alone():
            latest = self.outputs / LATEST
            named = latest.read_text(encoding="utf-8").strip() if latest.is_file() else latest.resolve().name
            known = [one for one in summaries(self.outputs) if one.about is not None or one.page]
            going = [one for one in known[keep:] if one.state != "running" and one.folder != named]
            if not is_dry:
                for one in going:
                    # Out of the way first: a folder that is removed in part must not be taken for a run.
                    aside = (self.outputs / one.folder).rename(self.outputs / f".{one.folder}.removed")
                    shutil.rmtree(aside)
                self.write_index(index)
        return [one.folder for one in going]

    def new_name(self) -> str:
        """A name that sorts by the time, and that no other run has."""
        now = self.now()
        return f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}-{self._rng.getrandbits(16):04x}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder's lock: one run at a time lists the runs and moves `latest`."""
        with locked(self.outputs / ".lock"):
            yield

    def write_index(self, index: Callable[[list[Summary]], str]) -> None:
        """Write `index.html`, the list of runs; the caller is `alone`."""
        write(self.outputs / "index.html", index(summaries(self.outputs)))

    def point_latest(self, run_id: str) -> None:
        """Make `latest` name the run: a symbolic link, or a text file where there are none; the caller is `alone`."""
        latest, made = self.outputs / LATEST, self.outputs / f".{LATEST}-{run_id}"
        try:
            made.symlink_to(run_id, target_is_directory=True)
        except (OSError, NotImplementedError):
            made.write_text(f"{run_id}\n", encoding="utf-8")
        if latest.is_dir() and not latest.is_symlink():
            # Somebody's own folder of that name: the run itself must not fail because of it.
            made.unlink()
            return
        made.replace(latest)
