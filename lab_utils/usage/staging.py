"""Keeps a CSV file's usage records in a database on disk, and gives each user's back a row at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, overload

from lab_utils.target import Row
from lab_utils.usage.csv_file import COLUMNS, UsageSummary, read_usage_csv

__all__ = ["StagedUsage", "UserRows", "staged"]

_NAMES: Final = tuple(name for name in COLUMNS if name != "user_id")
_SCHEMA: Final = """
    CREATE TABLE records (
        id INTEGER PRIMARY KEY, user INTEGER NOT NULL, at TEXT NOT NULL, model TEXT NOT NULL,
        tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, latency_ms REAL NOT NULL, cost_usd REAL NOT NULL,
        feature TEXT NOT NULL
    )"""
_INSERT: Final = f"INSERT INTO records (user, {', '.join(_NAMES)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_SELECT: Final = f"SELECT {', '.join(_NAMES)} FROM records WHERE user = ? ORDER BY id"


class UserRows(Sequence[Row]):
    """One user's rows, in the order of the file; each is read when it is asked for, and none is kept."""

    def __init__(self, connection: sqlite3.Connection, key: int, count: int) -> None:
        self._connection = connection
        self._key = key
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        with closing(self._connection.execute(_SELECT, (self._key,))) as cursor:
            for values in cursor:
                yield _row(values)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[place] for place in range(self._count)[index]]
        place = range(self._count)[index]
        return _row(self._connection.execute(f"{_SELECT} LIMIT 1 OFFSET ?", (self._key, place)).fetchone())

    def __repr__(self) -> str:
        return f"<UserRows rows={self._count}>"


class StagedUsage(Mapping[str, UserRows]):
    """Each user's rows, the users in the order in which the file names them; `summary` describes the file's content.

    Rows are read in the thread that staged them, and no longer once the block of `staged` has ended.
    """

    def __init__(self, connection: sqlite3.Connection, summary: UsageSummary) -> None:
        self.summary = summary
        self._rows = {user: UserRows(connection, key, count) for key, (user, count) in enumerate(summary.users.items())}

    def __getitem__(self, user: str) -> UserRows:
        return self._rows[user]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<StagedUsage users={len(self)} rows={self.summary.records}>"


@contextmanager
def staged(path: Path) -> Iterator[StagedUsage]:
    """Read the file once into a database on disk, and give its rows back from there for as long as the block lasts.

    No more than a row and SQLite's page cache (2 MB) are in memory. The database has no name: it goes with the block,
    and with the process however that ends. It takes about as much room as the file, in the folder for SQLite's
    temporary files (`SQLITE_TMPDIR`, else `TMPDIR`, else `/var/tmp`). Raises as `read_usage_csv`.
    """
    # SQLite's name for a file that it unlinks as soon as it is open.
    with closing(sqlite3.connect("", isolation_level=None)) as connection:
        connection.execute(_SCHEMA)
        summary = UsageSummary(path)
        keys: dict[str, int] = {}
        connection.execute("BEGIN")
        connection.executemany(
            _INSERT, ((keys.setdefault(user, len(keys)), *values) for user, *values in read_usage_csv(summary))
        )
        connection.execute("COMMIT")
        connection.execute("CREATE INDEX records_of_user ON records (user)")
        yield StagedUsage(connection, summary)


def _row(values: tuple[Any, ...]) -> Row:
    return dict(zip(_NAMES, values, strict=True))
