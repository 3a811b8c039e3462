"""Staged records: each user's own, in the file's order, on disk and not in memory, and gone afterwards."""

from __future__ import annotations

import random
import sqlite3
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from lab_utils.usage import csv_file
from lab_utils.usage.csv_file import UsageSummary, read_usage_csv
from lab_utils.usage.staging import UserRows, staged
from lab_utils.values.profiles import UsageError

NAMES = ("at", "model", "tokens_in", "tokens_out", "latency_ms", "cost_usd", "feature")


def written(
    path: Path, count: int, users: tuple[str, ...] = ("bob", "ada", "caf\u00e9", "cafe\u0301"), name: str = "m"
) -> Path:
    rng = random.Random(count)
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{','.join(NAMES)},user_id\n")
        for number in range(count):
            user = users[number] if number < len(users) else rng.choice(users)
            file.write(
                f"2026-01-01T00:00:{rng.randrange(60):02}Z,{name}{number},{number},2,{rng.random()!r},0.1,f,{user}\n"
            )
    return path


def test_each_user_has_its_own_rows_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 500)
    expected: dict[str, list[dict[str, Any]]] = {}
    for user, *values in read_usage_csv(UsageSummary(path)):
        expected.setdefault(user, []).append(dict(zip(NAMES, values, strict=True)))
    with staged(path) as usage:
        assert list(usage) == list(expected) == ["bob", "ada", "caf\u00e9", "cafe\u0301"]
        assert {user: list(rows) for user, rows in usage.items()} == expected
        assert {user: len(rows) for user, rows in usage.items()} == usage.summary.users
        rows, all_of_ada = usage["ada"], expected["ada"]
        assert [rows[0], rows[7], rows[-1]] == [all_of_ada[0], all_of_ada[7], all_of_ada[-1]]
        assert rows[3:9:2] == all_of_ada[3:9:2]
        assert "nobody" not in usage
        assert repr(usage) == "<StagedUsage users=4 rows=500>"
        for place in (len(rows), -len(rows) - 1):
            with pytest.raises(IndexError):
                rows[place]
        # Two users' rows at the same time, and one user's twice.
        pairs = list(zip(usage["bob"], usage["ada"], usage["ada"], strict=False))
        assert pairs == list(zip(expected["bob"], all_of_ada, all_of_ada, strict=False))
        assert len(pairs) > 50


def deleted_files() -> int:
    """Files that this process holds open and that no folder names any more."""
    links = [str(name.readlink()) for name in Path("/proc/self/fd").iterdir() if name.is_symlink()]
    return sum(link.endswith(" (deleted)") for link in links)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_the_rows_are_in_a_file_without_a_name_that_goes_with_an_interrupt_and_a_malformed_line_too(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "a.csv", 12_000, name="m" * 240)
    before = deleted_files()
    held: list[UserRows] = []

    def interrupted() -> None:
        with staged(path) as usage:
            held.append(usage["ada"])
            assert deleted_files() > before
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(sqlite3.ProgrammingError):
        next(iter(held[0]))
    with path.open("a") as file:
        file.write("bad\n")
    with pytest.raises(UsageError, match="line 12002: 1 fields"), staged(path):
        raise AssertionError("it was staged")
    assert deleted_files() == before


def test_neither_staging_nor_reading_back_holds_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "_REMEMBERED", 100)
    path = written(tmp_path / "a.csv", 3_000, users=("ada",))
    tracemalloc.start()
    try:
        with staged(path) as usage:
            assert sum(1 for rows in usage.values() for _ in rows) == 3_000
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 3,000 rows as Python objects would take 1.5 MB.
    assert peak < 250_000, peak
