"""The gallery shows the checks' findings on planted registries: caught, missed, and not run are three things."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lab_utils.notebook import Gallery
from lab_utils.output import charts, frames
from lab_utils.output.charts import Chart, NoChart
from lab_utils.output.store import Calibration, StoreError
from lab_utils.values.profiles import UsageError
from tests.lab_utils.made import calibration, failed, finished, result

SVG = "{http://www.w3.org/2000/svg}"
CHECK = "per_user_agent_registry_isolation_validation"


def kept(outputs: Path, *calibrations: Calibration) -> str:
    return str(finished(outputs, result("first"), result("second"), calibrations=calibrations, status="passed"))


def test_a_runs_calibrations_are_shown_with_their_witnesses(tmp_path: Path) -> None:
    gallery = Gallery(run=kept(tmp_path, calibration("first"), calibration("second", caught=False)))
    assert "planted=1 pairs=2 caught=1" in repr(gallery)
    assert "1 of 2 pairs" in gallery._repr_html_()
    assert list(gallery.witnesses()["witness"]) == ["ada.tools", "op 3: write ada -> ok 'ada/1'"]
    assert list(gallery.missed()["check"]) == ["second"]
    # One of the two checks that it was planted for missed it.
    assert gallery.by_anomaly().to_dict("records") == [{"anomaly": "shared-object", "planted": 1, "caught": 0}]


def test_a_registry_that_two_checks_caught_is_counted_once(tmp_path: Path) -> None:
    gallery = Gallery(run=kept(tmp_path, calibration("first"), calibration("second")))
    assert gallery.by_anomaly().to_dict("records") == [{"anomaly": "shared-object", "planted": 1, "caught": 1}]


def test_each_check_is_unfolded_where_it_missed_something(tmp_path: Path) -> None:
    gallery = Gallery(run=kept(tmp_path, calibration("first"), calibration("second", caught=False)))
    first, second = re.findall(r"<details.*?</details>", gallery.by_check()._repr_html_(), flags=re.DOTALL)
    assert " open " not in first
    assert "1 of 1 by first" in first
    assert "ada.tools" in first
    assert '<details class="kept" open ' in second
    assert "0 of 1 by second" in second
    assert "one for all" in second
    assert "**NOT CAUGHT** 0 of 1 by second" in repr(gallery.by_check())


def test_without_a_run_it_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="registry-lab run"):
        Gallery()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pairs": "al"}, "did you mean 'all'"),
        ({"pairs": "all", "checks": ["nobody"]}, "unknown check 'nobody'"),
        ({"pairs": "all", "planted": ["JoinedKey"]}, "did you mean 'JoinedKeys'"),
    ],
)
def test_a_name_that_is_none_is_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Gallery(**given)  # type: ignore[arg-type]


def test_all_pairs_are_run_and_tell_what_was_planted_for_whom() -> None:
    gallery = Gallery(pairs="all", checks=[CHECK], planted=["JoinedKeys", "CachedFailure"])
    rows = gallery.calibrations().set_index("planted")
    assert list(rows["own"]) == [True, False]
    assert rows.loc["JoinedKeys", "caught"]
    assert rows.loc["CachedFailure", "verdict"] == "PASS"
    assert list(gallery.witnesses()["planted"]) == ["JoinedKeys"]
    assert "found by a check that was not made for it" in gallery._repr_html_()


# ---------------------------------------------------------------------------------------------------------- the figure


def drawn(*calibrations: Calibration, own: tuple[bool, ...] = ()) -> Chart | NoChart:
    frame = frames.calibrations("r1", calibrations)
    return charts.kill_matrix(frame.assign(own=own) if own else frame)


def panels(chart: Chart | NoChart) -> list[list[str]]:
    """Of each panel the names of its rows, then the numbers of its columns."""
    assert isinstance(chart, Chart)
    pictures = [each for each in ET.fromstring(chart.html).iter(f"{SVG}svg") if each.get("role") == "img"]
    return [["".join(line.itertext()) for line in each.iter(f"{SVG}text")] for each in pictures]


def words(chart: Chart | NoChart) -> str:
    assert isinstance(chart, Chart)
    return "\n".join(ET.fromstring(chart.html).itertext())


def test_the_figure_counts_defects_and_names_those_that_a_check_missed() -> None:
    missed = calibration("second", caught=False)
    assert "1 of 1 planted registries are caught" in drawn(calibration("first")).words
    chart = drawn(calibration("first"), missed)
    assert chart.words.endswith("0 of 1 planted registries are caught by every check they were planted for. "
                                "Missed: SharedDispatcher.")  # fmt: skip
    assert "second missed SharedDispatcher" in words(chart)
    assert "× missed a defect planted for it" in words(chart)
    assert "1  first  1/1\n2  second  0/1 MISSED" in words(chart)


def test_each_category_has_a_panel_of_its_own_checks_under_their_numbers() -> None:
    one = calibration("first")
    other = replace(calibration("third"), result=replace(calibration("third").result, category="golden_path"))
    chart = drawn(one, calibration("second"), other)
    # Planted for checks of both categories, it is a row of both.
    assert panels(chart) == [["SharedDispatcher", "first1", "second2"], ["SharedDispatcher", "third3"]]
    assert "1 of 1 planted" in chart.words


def test_where_checks_ran_on_everything_each_panel_has_all_of_them_and_each_defect_one_row() -> None:
    other = replace(calibration("third"), result=replace(calibration("third").result, category="golden_path"))
    stranger = Calibration("SharedDispatcher", "one for all", ("shared-object",), result("second"))
    chart = drawn(calibration("first"), stranger, other, own=(True, False, True))
    assert panels(chart) == [["SharedDispatcher", "first1", "second2", "third3"]]
    assert "1 first, 2 second, 3 third" in words(chart)


def test_a_check_that_a_defect_was_not_planted_for_misses_nothing() -> None:
    other = Calibration("SharedDispatcher", "one for all", ("shared-object",), result("second"))
    chart = drawn(calibration("first"), other, own=(True, False))
    assert "1 of 1 planted" in chart.words
    assert "missed" not in words(chart)
    assert "caught under its own name\nrun, nothing found\n" in words(chart)


def test_another_name_is_shown_as_another_name() -> None:
    other = Calibration("SharedDispatcher", "one for all", ("shared-object",), result("second", failed()))
    assert "found, under another name" in words(drawn(calibration("first"), other, own=(True, False)))


def test_nothing_calibrated_is_said_in_words() -> None:
    assert isinstance(drawn(), NoChart)
    assert isinstance(drawn(calibration("first"), own=(False,)), NoChart)
    assert isinstance(charts.kill_matrix(pd.DataFrame()), NoChart)
