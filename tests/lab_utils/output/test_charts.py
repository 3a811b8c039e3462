"""Figures say what they show in words, stay legible for any number of users, and never are an empty frame."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import matplotlib as mpl
import pandas as pd
import pytest

from lab_utils.output import charts, frames
from lab_utils.output.charts import Chart, NoChart
from lab_utils.values.result import Sample
from tests.lab_utils.made import op, result

PNG = b"\x89PNG\r\n\x1a\n"
Draw = Callable[[pd.DataFrame], Chart | NoChart]
OF_SAMPLES: list[Draw] = [charts.memory_over_time, charts.object_counts, charts.delivery_matrix]
OF_OPERATIONS: list[Draw] = [charts.timeline, charts.latencies]


def samples(*points: Sample) -> pd.DataFrame:
    return frames.samples("r1", [result(samples=points)])


def memory(series: str = "uss", last: float = 34e6, unit: str = "bytes") -> tuple[Sample, ...]:
    phases = (("baseline", 34e6), ("work", 36e6), ("work", 37e6), ("freed", last))
    return tuple(Sample(series, value, unit, float(at), phase) for at, (phase, value) in enumerate(phases))


def counts(after: float) -> tuple[Sample, ...]:
    return tuple(
        Sample("live_objects:Session", value, "objects", 0.0, phase)
        for phase, value in (("baseline", 1), ("work", 25), ("freed", after))
    )


def delivered(users: int, *foreign: tuple[str, str]) -> tuple[Sample, ...]:
    own = [(f"user-{number:04d}", f"user-{number:04d}") for number in range(users)]
    return tuple(Sample("delivered", 2, "events", x=x, y=y) for x, y in [*own, *foreign])


def shown(chart: Chart | NoChart) -> Chart:
    assert isinstance(chart, Chart)
    return chart


def test_a_chart_shows_itself_as_a_small_picture_with_words() -> None:
    chart = shown(charts.delivery_matrix(samples(*delivered(6))))
    data, about = chart._repr_mimebundle_()
    assert data["image/png"].startswith(PNG)
    assert len(data["image/png"]) < 40_000
    assert about["image/png"]["alt"] == chart.words


@pytest.mark.parametrize("draw", OF_SAMPLES)
def test_no_samples_are_said_in_words(draw: Draw) -> None:
    empty = draw(samples())
    assert isinstance(empty, NoChart)
    bundle = empty._repr_mimebundle_()
    assert "nothing was recorded" in bundle["text/html"]
    assert "image/png" not in bundle


@pytest.mark.parametrize("draw", OF_OPERATIONS)
def test_no_operations_are_said_in_words(draw: Draw) -> None:
    assert isinstance(draw(frames.operations("r1", [])), NoChart)


def test_memory_is_drawn_above_its_baseline_and_tells_what_is_left() -> None:
    chart = shown(charts.memory_over_time(samples(*memory(last=34e6 + 2**20), *memory("rss"))))
    assert "uss +1.00 MiB" in chart.words
    traced, process = chart.figure.axes
    assert traced.get_ylabel() == "MiB above baseline"
    assert "seconds" in process.get_xlabel()
    legend = process.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "baseline",
        "uss, freed +1.00",
        "rss, freed +0.00",
    ]
    assert "nothing was recorded" in [text.get_text() for text in traced.texts]


def test_anonymous_memory_is_drawn_with_that_of_the_process() -> None:
    chart = shown(charts.memory_over_time(samples(*memory("anonymous", last=34e6 + 2**20), *memory("uss"))))
    assert "anonymous +1.00 MiB, uss +0.00 MiB" in chart.words


def test_memory_in_an_unknown_unit_is_an_error_not_a_wrong_scale() -> None:
    with pytest.raises(ValueError, match="furlongs"):
        charts.memory_over_time(samples(*memory(unit="furlongs")))


def test_several_checks_have_a_panel_each_up_to_a_limit() -> None:
    every = [result(f"check-{number}", samples=memory()) for number in range(6)]
    chart = shown(charts.memory_over_time(frames.samples("r1", every)))
    assert len(chart.figure.axes) == 2 * 4
    assert any("2 other" in text.get_text() for text in chart.figure.texts)


def test_object_counts_say_what_is_left() -> None:
    assert "nothing is left" in shown(charts.object_counts(samples(*counts(after=1)))).words
    assert "3 more are left" in shown(charts.object_counts(samples(*counts(after=4)))).words
    uncounted = counts(after=1)[:2]
    assert "not counted" in shown(charts.object_counts(samples(*uncounted))).words


def test_a_foreign_event_is_counted_and_shown_among_a_thousand_users() -> None:
    chart = shown(charts.delivery_matrix(samples(*delivered(1000, ("user-0998", "user-0999")))))
    assert "2 of 2,002 events reached another user" in chart.words
    labels = [label.get_text() for label in chart.figure.axes[0].get_yticklabels()]
    assert len(labels) == 30
    assert {"user-0998", "user-0999"} <= set(labels)


def test_the_matrix_of_an_isolated_registry_says_zero() -> None:
    assert "0 of 12 events" in shown(charts.delivery_matrix(samples(*delivered(6)))).words


def test_the_timeline_of_a_thousand_users_shows_the_ones_longest_at_work() -> None:
    users = [op(number % 7, f"user-{number:04d}", took=5.0 if number == 512 else 0.1) for number in range(1000)]
    chart = shown(charts.timeline(frames.operations("r1", [result(operations=users)])))
    labels = [label.get_text() for label in chart.figure.axes[1].get_yticklabels()]
    assert len(labels) == 30
    assert "user-0512" in labels
    assert len(chart.png) < 80_000


def test_overlap_is_counted_from_the_operations() -> None:
    apart = frames.operations("r1", [result(operations=[op(0, took=0.5), op(1, "bo", took=0.5)])])
    over = frames.operations("r1", [result(operations=[op(0, took=1.5), op(1, "bo", took=0.5)])])
    assert "up to 1 operations" in shown(charts.timeline(apart)).words
    chart = shown(charts.timeline(over))
    assert "up to 2 operations" in chart.words
    # Half an operation is never in flight.
    assert all(float(place).is_integer() for place in chart.figure.axes[0].get_yticks())


def test_latencies_name_the_slowest_action_in_a_unit_that_reads_well() -> None:
    taken = [
        *(op(n, took=2e-6, action="get") for n in range(5)),
        *(op(n, took=5e-4, action="create") for n in range(5)),
    ]
    chart = shown(charts.latencies(frames.operations("r1", [result(operations=taken)])))
    assert "create, 500 µs" in chart.words
    assert "latency, µs" in chart.figure.axes[0].get_xlabel()


def test_operations_that_took_no_time_are_drawn() -> None:
    instant = frames.operations("r1", [result(operations=[op(0, took=0.0)])])
    assert shown(charts.latencies(instant)).png.startswith(PNG)
    assert shown(charts.timeline(instant)).png.startswith(PNG)


def test_hostile_user_ids_are_drawn() -> None:
    name = "$\\frac{a}$\n\x00\ud800" * 9
    drawn = [
        charts.timeline(frames.operations("r1", [result(operations=[op(0, name)])])),
        charts.delivery_matrix(samples(Sample("delivered", 1, "events", x=name, y=name))),
    ]
    # A glyph that the font lacks is a warning, and so an error here.
    assert all(shown(chart).png.startswith(PNG) for chart in drawn)


def test_drawing_leaves_the_notebooks_own_style_alone() -> None:
    before = dict(mpl.rcParams)
    charts.latencies(frames.operations("r1", [result()]))
    assert dict(mpl.rcParams) == before


def test_no_backend_is_chosen() -> None:
    code = "import sys; from lab_utils import charts; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
