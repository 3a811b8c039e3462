"""The expected figures in typed columns: equal to those of plain loops over the rows, whatever the rows."""

from __future__ import annotations

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("pandas")

# ruff: noqa: E402
from lab_utils.usage.csv_file import check_usage_csv
from lab_utils.usage.expected_figures import expected_figures
from lab_utils.usage.expected_figures_frame import FrameFigures, _whole
from lab_utils.usage.staging import staged

NAMES = ("at", "model", "tokens_in", "tokens_out", "latency_ms", "cost_usd", "feature", "user_id")
START = datetime(2026, 2, 26, tzinfo=UTC)
CASES = [
    (None, frozenset[str]()),
    (START + timedelta(days=3), frozenset({"reduce_cost"})),
    (START + timedelta(days=3, microseconds=1), frozenset({"reduce_latency", "reduce_tokens"})),
    (START + timedelta(days=400), frozenset[str]()),
]


def time_text(at: datetime, rng: random.Random) -> str:
    """One moment in one of the ways in which it may be written."""
    zone = rng.choice([timedelta(0), timedelta(hours=5, minutes=30), timedelta(hours=-11)])
    local = (at + zone).replace(tzinfo=None).isoformat(sep=rng.choice("T "))
    sign = "-" if zone < timedelta(0) else "+"
    hours, minutes = divmod(abs(zone) // timedelta(minutes=1), 60)
    # Digits beyond the microsecond are cut off, and no date rounds up.
    more = "999" if at.microsecond else ""
    return f"{local}{more}{f'{sign}{hours:02}:{minutes:02}' if zone or rng.random() < 0.5 else 'Z'}"


def random_row(rng: random.Random, user: str) -> dict[str, str]:
    """A row with equal moments, repeated calls, values at every limit, and sums that depend on the order of adding."""
    days = rng.choice([0, 1, 2, 3, 3, 4, 30, -365 * 60])
    at = START + timedelta(days=days, microseconds=rng.choice([0, 0, 1, 86_399_999_999]))
    return {
        "at": time_text(at, rng),
        "model": rng.choice(["small", "large", "NA", "nan", "1e5", "caf\u00e9", "cafe\u0301"]),
        "tokens_in": rng.choice(["0", "400", "600", "601", "5000", str(10**12)]),
        "tokens_out": rng.choice(["0", "400", "401", "0600"]),
        "latency_ms": rng.choice(["0.1", "33.3", "1999.9", "2000.0", "2000.1", "3333333.3333333335", "1e-7", "5."]),
        "cost_usd": rng.choice(["0", "0.1", "1e-9", "0.0011", ".7", "333333.33333333331", "0.30000000000000004"]),
        "feature": rng.choice(["", "chat", "null", "a,b", 'a"b']),
        "user_id": user,
    }


def write(path: Path, rows: list[dict[str, str]], names: tuple[str, ...] = NAMES) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["note", *names], extrasaction="ignore", restval="two\nlines")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("chunk", [7, 100_000])
def test_it_equals_plain_loops_over_the_rows(tmp_path: Path, seed: int, chunk: int) -> None:
    rng = random.Random(seed)
    users = ["ada", "bob", "7"][: 1 + seed % 3]
    rows = [random_row(rng, rng.choice(users)) for _ in range(rng.choice([1, 2, 19, 20, 21, 150]))]
    path = write(tmp_path / "a.csv", rows)
    frame = FrameFigures(path, "nobody", chunk)
    assert frame.users == check_usage_csv(path).users
    with staged(path) as usage:
        for user, own in usage.items():
            plain = [dict(row) for row in own]
            for since, focus in CASES:
                assert frame.expected(user, since, focus) == expected_figures(plain, since, focus)


def test_of_repeated_calls_in_one_moment_the_first_in_the_file_is_the_one_that_is_paid(tmp_path: Path) -> None:
    row = random_row(random.Random(0), "ada") | {"at": "2026-03-01T00:00:00Z"}
    costs = ["1.0", "2.0", "4.0", "8.0"]
    path = write(tmp_path / "a.csv", [row | {"cost_usd": cost} for cost in costs])
    savings = FrameFigures(path, "x").expected("ada", None, frozenset())["savings"]
    assert (savings["cache_calls"], savings["cache_saving_usd"]) == (3, 14.0)


def test_values_are_plain_numbers_of_python(tmp_path: Path) -> None:
    rng = random.Random(1)
    path = write(tmp_path / "a.csv", [random_row(rng, "ada") for _ in range(60)])

    def kinds(value: Any) -> set[type]:
        if isinstance(value, dict):
            return set().union(*map(kinds, value.values()))
        if isinstance(value, list):
            return set().union(*map(kinds, value))
        return {type(value)}

    assert kinds(FrameFigures(path, "x").expected("ada", None, frozenset())) == {int, float, str, type(None)}


def test_without_the_optional_columns_all_is_one_users(tmp_path: Path) -> None:
    rng = random.Random(2)
    rows = [random_row(rng, "ada") | {"feature": ""} for _ in range(40)]
    bare = FrameFigures(write(tmp_path / "bare.csv", rows, NAMES[:6]), "me")
    whole = FrameFigures(write(tmp_path / "whole.csv", rows), "me")
    assert (bare.users, whole.users) == ({"me": 40}, {"ada": 40})
    assert bare.expected("me", *CASES[1]) == whole.expected("ada", *CASES[1])


def test_sums_beyond_64_bits_are_whole() -> None:
    assert _whole(np.full(10_000_000, 10**12)) == 10**19 > 2**63
