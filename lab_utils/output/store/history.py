"""Keeps a digest of each run where it outlives the machine that made it: one file a run, never changed.

A folder of such files may be cached, committed to a branch or copied into another one: the union of two histories is a
history. Every run writes a file of its own name, so writers at the same time lose nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol

from lab_utils.output.store.files import read, write
from lab_utils.output.store.results import StoreError
from lab_utils.values.digest import Digest, read_digest, written_digest

__all__ = ["History", "open_history"]

_END: Final = ".json"


class _Place(Protocol):
    """Where the files are. A file that cannot be read or written raises `OSError`."""

    def names(self) -> list[str]:
        """The names of all files; none if the place does not exist yet."""

    def read(self, name: str) -> bytes: ...
    def write(self, name: str, text: bytes) -> None:
        """Write a file whole or not at all."""

    def remove(self, name: str) -> None: ...


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return [path.name for path in self._folder.iterdir() if path.is_file()] if self._folder.is_dir() else []

    def read(self, name: str) -> bytes:
        return read(self._folder / name)

    def write(self, name: str, text: bytes) -> None:
        write(self._folder / name, [text])

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)


class _Remote:
    """A place that fsspec knows, such as `s3://bucket/history`."""

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise StoreError(f"{url}: an address needs: pip install 'agent-registry-lab[remote]'") from error
        try:
            self._files, self._folder = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StoreError(f"{url}: {error}") from error

    def names(self) -> list[str]:
        try:
            self._files.invalidate_cache()
            found: list[dict[str, Any]] = self._files.ls(self._folder, detail=True)
        except FileNotFoundError:
            return []
        return [str(one["name"]).rpartition("/")[2] for one in found if one["type"] == "file"]

    def read(self, name: str) -> bytes:
        text: bytes = self._files.cat_file(f"{self._folder}/{name}")
        return text

    def write(self, name: str, text: bytes) -> None:
        self._files.makedirs(self._folder, exist_ok=True)
        self._files.pipe_file(f"{self._folder}/{name}", text)

    def remove(self, name: str) -> None:
        self._files.rm_file(f"{self._folder}/{name}")


class History:
    """The digests of many runs, oldest first. `unreadable` names unreadable files, once `runs` was called."""

    def __init__(self, where: str, place: _Place) -> None:
        self.where = where
        self._place = place
        self.unreadable: list[str] = []

    def add(self, run: Digest) -> str:
        """Keep a run; return the name of its file. The same run again changes nothing. Raises `StoreError`."""
        text = written_digest(run)
        name = f"{run.run_id}-{zlib.crc32(text):08x}{_END}"
        try:
            if name not in self._place.names():
                self._place.write(name, text)
        except OSError as error:
            raise StoreError(f"the history {self.where} cannot be written: {error}") from error
        return name

    def runs(self) -> list[Digest]:
        """All runs, oldest first, each once. Raises `StoreError` where the place itself cannot be read."""
        return list(self._by_name().values())

    def merge(self, other: History) -> int:
        """Add the runs of another history that this one lacks; return their number."""
        there = self._by_name()
        known = {run.run_id for run in there.values()}
        new = [run for run in other.runs() if run.run_id not in known]
        for run in new:
            self.add(run)
        return len(new)

    def prune(self, keep: int) -> int:
        """Keep the newest `keep` runs of each target and profile; return how many were removed."""
        newest: dict[tuple[str, str], int] = {}
        removed = 0
        for name, run in reversed(self._by_name().items()):
            kind = run.target, run.profile
            newest[kind] = newest.get(kind, 0) + 1
            if newest[kind] > keep:
                self._place.remove(name)
                removed += 1
        return removed

    def _by_name(self) -> dict[str, Digest]:
        self.unreadable = []
        found: list[tuple[str, Digest]] = []
        try:
            for name in sorted(self._place.names()):
                if name.endswith(_END) and not name.startswith("."):
                    found += self._read(name)
        except OSError as error:
            raise StoreError(f"the history {self.where} cannot be read: {error}") from error
        found.sort(key=lambda one: (one[1].started_at, one[1].run_id))
        # A run that was kept twice, as before and after it was judged anew: the last word counts.
        last = {run.run_id: name for name, run in found}
        return {name: run for name, run in found if last[run.run_id] == name}

    def _read(self, name: str) -> Iterable[tuple[str, Digest]]:
        try:
            return [(name, read_digest(self._place.read(name)))]
        except FileNotFoundError:
            # Somebody pruned it meanwhile.
            return []
        except ValueError as error:
            self.unreadable.append(f"{name}: {error}")
            return []


def open_history(where: str) -> History:
    """The history in a folder, or at an address that fsspec knows. Nothing is made until something is added.

    Raises `StoreError` for an address that is not known, or where fsspec is not installed.
    """
    return History(where, _Remote(where) if "://" in where else _Folder(Path(where)))
