"""Frames have the declared columns, always; a row that does not fit is an error that names it."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from lab_utils.output import frames
from lab_utils.output.frames import FRAMES, FrameError
from lab_utils.values.quantities import quantity
from lab_utils.values.result import Sample
from tests.lab_utils.made import HOSTILE, calibration, op, result


def test_frames_of_nothing_have_all_the_declared_columns() -> None:
    made = {**frames.frames_of("run", []), "operations": frames.operations("run", [])}
    assert {name: [(column, str(dtype)) for column, dtype in frame.dtypes.items()] for name, frame in made.items()} == {
        name: [(column.name, column.dtype) for column in columns] for name, columns in FRAMES.items()
    }
    assert all(frame.empty for frame in made.values())


def test_a_measurement_with_two_budgets_has_two_rows() -> None:
    frame = frames.measurements("r1", [result()])
    growth = frame[frame["metric"] == "growth"]
    assert growth[["budget", "limit", "budget_source", "verdict"]].values.tolist() == [
        ["< 50 MB", 50.0, "asked", "PASS"],
        ["< 0.5 MB", 0.5, "lab", "PASS"],
    ]
    rss = frame[frame["metric"] == "rss"].iloc[0]
    assert (rss["verdict"], bool(rss["decides"])) == ("FAIL", False)
    bare = frame[frame["metric"] == "agents"].iloc[0]
    assert (bare["budget"], bare["verdict"], math.isnan(bare["limit"])) == ("", "", True)
    assert set(frame["run"]) == {"r1"}


def test_operations_have_their_latency_in_seconds() -> None:
    frame = frames.operations("r1", [result(operations=(op(2, took=0.5, value={"k": 1}), op(3, value="x" * 500)))])
    assert frame["latency"].tolist() == [0.5, 0.25]
    assert frame.attrs["units"]["latency"] == "s"
    assert frame["value"][0] == "{'k': 1}"
    assert len(frame["value"][1]) == 201


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"value": "12"}, ["column 'value'", "'12'", "str"]),
        ({"at": True}, ["column 'at'", "True", "bool"]),
        ({"series": None}, ["column 'series'", "None"]),
        ({"extra": 1}, ["not declared ['extra']"]),
    ],
)
def test_a_row_that_does_not_fit_is_named(change: dict[str, object], named: list[str]) -> None:
    good = dict.fromkeys(("run", "check", "category", "target", "series", "unit", "phase", "x", "y"), "")
    row = {**good, "value": 1.0, "at": 0.0}
    assert len(frames.fill("samples", [row])) == 1
    with pytest.raises(FrameError) as caught:
        frames.fill("samples", [row, {**row, **change}])
    assert all(part in str(caught.value) for part in [*named, "row 1", "samples"])


def test_a_missing_column_an_unknown_frame_a_huge_number_and_a_bool_for_a_count_are_named() -> None:
    with pytest.raises(FrameError, match=r"missing \['run'"):
        frames.fill("samples", [{}])
    with pytest.raises(FrameError, match="known: measurements"):
        frames.fill("smaples", [])
    with pytest.raises(FrameError, match="64 bits"):
        frames.verdicts("r1", [result(seed=2**63)])
    with pytest.raises(FrameError, match="True is of type bool"):
        frames.verdicts("r1", [result(seed=True)])


def test_frames_come_back_from_parquet_as_they_were(tmp_path: Path) -> None:
    hostile = result(claim=HOSTILE, samples=(Sample("uss", math.nan, "bytes", x=HOSTILE),))
    made = frames.frames_of("r1", [hostile], [calibration()])
    for name, frame in made.items():
        frame.to_parquet(tmp_path / f"{name}.parquet")
    frames.OperationsFile("r1", [hostile]).to_parquet(tmp_path / "operations.parquet")
    made["operations"] = frames.operations("r1", [hostile])
    for name, frame in frames.load(tmp_path).items():
        pd.testing.assert_frame_equal(frame, made[name])
        assert frame.attrs == made[name].attrs


@pytest.mark.parametrize("counts", [(), (0,), (3, 0, 2), (60, 1)])
def test_a_file_of_operations_reads_as_if_it_were_written_at_once(
    tmp_path: Path, counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab_utils.output.frames.rows._PART", 50)
    shown = (None, HOSTILE, 7, {"rows": [1]})
    results = [result(f"check {n}", operations=[op(i, value=shown[i % 4]) for i in range(n)]) for n in counts]
    whole = frames.operations("r1", results)
    assert len(whole) == sum(counts)
    frames.OperationsFile("r1", results).to_parquet(tmp_path / "parts.parquet")
    whole.to_parquet(tmp_path / "whole.parquet")
    parts = pd.read_parquet(tmp_path / "parts.parquet")
    pd.testing.assert_frame_equal(parts, pd.read_parquet(tmp_path / "whole.parquet"))
    assert parts.attrs == whole.attrs


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    for name in FRAMES:
        frames.fill(name, []).to_parquet(tmp_path / f"{name}.parquet")
    frames.fill("findings", []).astype({"number": "float64"}).to_parquet(tmp_path / "findings.parquet")
    with pytest.raises(FrameError, match=r"findings\.parquet"):
        frames.load(tmp_path)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (227_421.0, "bytes", "227.4 kB"),
        (5e7, "bytes", "50 MB"),
        (-1500.0, "bytes/cycle", "-1.5 kB/cycle"),
        (12.0, "bytes", "12 bytes"),
        (1.0, "histories", "1 history"),
        (1.0, "objects/cycle", "1 object/cycle"),
        (1.0, "ms", "1 ms"),
        (1366.0, "ms", "1.366 s"),
        (999.5, "ms", "999.5 ms"),
        (0.985, "share", "98.5%"),
        (math.nan, "share", "none share"),
        (0.0, "", "0"),
        (-2.0, "", "-2"),
        (1234567.0, "", "1,234,567"),
        (98765.4, "", "98,765"),
        (0.123456, "", "0.1235"),
    ],
)
def test_quantities_read_well(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_a_name_may_be_broken_between_its_words_and_is_text_in_html() -> None:
    assert frames.breakable("user_id") == "user_<wbr>id"
    assert frames.breakable("LossWhenFull") == "Loss<wbr>When<wbr>Full"
    assert frames.breakable("<b>&HTTPOnly") == "&lt;b&gt;&amp;HTTPOnly"
