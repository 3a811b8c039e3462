"""Figures state their content in words, stay legible for any number of users, and never are an empty frame."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pandas as pd
import pytest

from lab_utils.output import charts, frames
from lab_utils.output.charts import Chart, NoChart
from lab_utils.values.history import Op, OpType
from lab_utils.values.result import Budget, Measurement, Sample
from lab_utils.values.verdict import Finding
from tests.lab_utils.made import HOSTILE, failed, op, result

SVG = "{http://www.w3.org/2000/svg}"
Draw = Callable[[pd.DataFrame], Chart | NoChart]
OF_SAMPLES: list[Draw] = [charts.memory_over_time, charts.object_counts, charts.delivery_matrix]
OF_OPERATIONS: list[Draw] = [charts.timeline, charts.latencies]
# One user after another: differences of case, of invisible characters, and of letters that look the same.
ALIKE = (
    *("acme", "acm\u0435", "ac\u200bme", "acme ", " acme", "ac  me", "ac me"),
    *("caf\u00e9", "cafe\u0301", "\u202eacme", "acme\x00"),
)


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


def cycles(*values: float, low: float, high: float) -> tuple[tuple[Sample, ...], tuple[Measurement, ...]]:
    """A check's readings after each cycle, and the slope that it measures."""
    what, middle = "traced memory of factories", (low + high) / 2
    points = tuple(
        Sample(f"cycles: {what}", one, "bytes", 0.0, "series 1", x=str(n)) for n, one in enumerate(values, 1)
    )
    ends = (("slope", middle), ("slope, at least", low), ("slope, at most", high))
    slopes = tuple(Measurement(f"{name}, of {what} (95%)", value, "bytes/cycle") for name, value in ends)
    steady = Measurement(f"steady growth of {what}", max(low, 0.0), "bytes/cycle", Budget("<=", 0, "lab"))
    return points, (*slopes, steady)


def shown(chart: Chart | NoChart) -> Chart:
    assert isinstance(chart, Chart)
    return chart


def drawn(chart: Chart | NoChart) -> ET.Element:
    """The figure, which is well-formed and holds nothing that runs or is fetched."""
    tree = ET.fromstring(shown(chart).html)
    assert not {"script", "style", "image", "a", "foreignObject"} & {
        each.tag.rpartition("}")[2] for each in tree.iter()
    }
    assert not any(name.startswith("on") or name.endswith("href") for each in tree.iter() for name in each.attrib)
    return tree


def texts(chart: Chart | NoChart) -> list[str]:
    """Every line of text of the drawings, without tooltips."""
    lines = [each for each in drawn(chart).iter(f"{SVG}text") if each.get("display") != "none"]
    return ["".join([each.text or "", *(part.tail or "" for part in each)]) for each in lines]


def names(chart: Chart | NoChart) -> list[str]:
    """Every tooltip or, where there is none, the text itself."""
    return [each.findtext(f"{SVG}title") or each.text or "" for each in drawn(chart).iter(f"{SVG}text")]


def finding(*witness: str, sentence: str = "two were made") -> pd.DataFrame:
    return frames.findings("r1", [result(verdict=failed(Finding("double-activation", sentence, witness)))])


# ------------------------------------------------------------------------------------------------------- shared rules


def test_a_chart_shows_itself_as_a_small_picture_with_words() -> None:
    chart = shown(charts.delivery_matrix(samples(*delivered(6))))
    bundle = chart._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert chart.words in bundle["text/plain"]
    assert len(bundle["text/html"].encode()) < 8_000
    (picture,) = (each for each in drawn(chart).iter(f"{SVG}svg") if each.get("role") == "img")
    assert picture.findtext(f"{SVG}title") == chart.claim
    assert picture.findtext(f"{SVG}desc") == chart.words


def test_every_colour_is_a_variable_or_that_of_the_page() -> None:
    tree = drawn(charts.object_counts(samples(*counts(after=4))))
    used = {each.get(name) for each in tree.iter() for name in ("fill", "stroke")} - {None, "none"}
    assert used
    assert all(colour == "currentColor" or colour.startswith("var(--") for colour in used if colour)
    assert "--c1:var(--lab-c1,#" in tree.attrib["style"]


def test_where_nothing_was_recorded_that_is_said_in_words() -> None:
    nothing = [draw(samples()) for draw in OF_SAMPLES]
    for empty in (*nothing, *(draw(frames.operations("r1", [])) for draw in OF_OPERATIONS)):
        assert isinstance(empty, NoChart)
        bundle = empty._repr_mimebundle_()
        assert "nothing was recorded" in bundle["text/html"]
        assert "<svg" not in bundle["text/html"]


@pytest.mark.parametrize("name", [HOSTILE, "$\\frac{a}$\n\x00\ud800" * 9, "]]>&amp;'\"<b>", "\u202e\u2066", "W" * 200])
def test_whatever_a_target_calls_itself_is_drawn_as_text(name: str) -> None:
    witness = [
        f"   1  {name}: begins",
        f"   2* the second: get: goes on at a/b.py:3 {name}; answers {name}  (ahead of {name})",
    ]
    point = Sample(f"live_objects:{name}", 3, "objects", 0.0, "work", x=name, y=f"{name}!")
    alike = [op(0, name, action=name), op(1, f"{name}!")]
    points, slopes = cycles(1, 2, 3, 4, low=0, high=1)
    done = [result(operations=alike, samples=[point, Sample("delivered", 2, "events", x=name, y=f"{name}!"), *points],
                   measurements=[*slopes, Measurement(name, 2, name, Budget("<", 3, "lab"))],
                   verdict=failed(Finding(name, name, ("\n".join(witness), f"{name}.agents['{name}'] -> {name}"))))]  # fmt: skip
    found, operations, sampled = frames.findings("r1", done), frames.operations("r1", done), frames.samples("r1", done)
    measured = frames.measurements("r1", done)
    for chart in (
        charts.timeline(operations),
        charts.latencies(operations),
        charts.delivery_matrix(sampled),
        charts.object_counts(sampled),
        charts.slopes(sampled, measured),
        charts.budgets(measured),
        charts.interleaving(found),
        charts.reference_path(finding(f"{name}.agents['{name}'] -> {name}", sentence=name)),
        charts.interleaving(finding("op 0 c: a -> ok", "op 1 c: b -> ok", sentence=name), operations),
    ):
        if "\n" in name and isinstance(chart, NoChart):
            continue  # A witness has a line an entry: broken in two it is no chain and no step.
        markup = "".join(drawn(chart).itertext()) + shown(chart).html
        assert markup.isprintable()
        assert len(markup) < 60_000 + 12 * len(name)


def test_ids_that_look_alike_are_not_drawn_alike() -> None:
    operations = frames.operations("r1", [result(operations=[op(n, name) for n, name in enumerate(ALIKE)])])
    shown_names = [name for name in names(charts.timeline(operations)) if "ac" in name.lower() or "caf" in name]
    assert len(shown_names) == len(set(shown_names)) == len(ALIKE)
    # A page drops spaces at the ends, and all but one of several.
    assert all(name == " ".join(name.split()) for name in shown_names)


def test_no_backend_and_no_picture_library_is_loaded() -> None:
    code = (
        "import sys; from lab_utils import charts; charts.timeline, charts.kill_matrix, charts.slopes; "
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --------------------------------------------------------------------------------------------------------------- memory


def test_memory_is_drawn_above_its_baseline_and_tells_what_is_left() -> None:
    chart = shown(charts.memory_over_time(samples(*memory(last=34e6 + 2**20), *memory("rss"))))
    assert "uss +1.00 MiB" in chart.words
    assert {"uss, freed +1.00", "rss, freed +0.00", "baseline"} <= set(drawn(chart).itertext())
    assert "nothing was recorded" in texts(chart)
    assert "seconds since the trial began" in texts(chart)
    other = shown(charts.memory_over_time(samples(*memory("anonymous", last=34e6 + 2**20), *memory("uss"))))
    assert "anonymous +1.00 MiB, uss +0.00 MiB" in other.words


def test_memory_in_an_unknown_unit_is_an_error_not_a_wrong_scale() -> None:
    with pytest.raises(ValueError, match="furlongs"):
        charts.memory_over_time(samples(*memory(unit="furlongs")))


def test_several_checks_have_a_panel_each_up_to_a_limit() -> None:
    every = [result(f"check-{number}", samples=memory()) for number in range(6)]
    chart = shown(charts.memory_over_time(frames.samples("r1", every)))
    assert sum(each.get("role") == "img" for each in drawn(chart).iter()) == 2 * 4
    assert "2 other" in chart.remark


def test_of_many_readings_the_highest_is_drawn() -> None:
    points = [Sample("traced", 9e6 if at == 1234 else 1e6, "bytes", float(at), "work") for at in range(5_000)]
    chart = shown(charts.memory_over_time(samples(*points)))
    lines = [each.attrib["d"] for each in drawn(chart).iter(f"{SVG}path") if each.get("stroke") == "var(--c1)"]
    assert len(chart.html) < 12_000
    # The axis ends a twentieth above the highest.
    assert min(map(float, re.findall(r"[ML][\d.]+ ([\d.]+)", lines[0]))) < 112 * 0.06


def test_object_counts_say_what_is_left() -> None:
    assert "nothing is left" in shown(charts.object_counts(samples(*counts(after=1)))).words
    assert "3 more are left" in shown(charts.object_counts(samples(*counts(after=4)))).words
    uncounted = counts(after=1)[:2]
    assert "not counted" in shown(charts.object_counts(samples(*uncounted))).words


def test_no_claim_contradicts_the_verdict() -> None:
    left = failed(Finding("retained-object", "32 are left", ("a -> b",)))
    points, slopes = cycles(5, 5, 5, 5, low=-1, high=1)
    every = (*counts(after=1), *delivered(3), *memory(), *points)
    done = [
        result("good", samples=every),
        result("bad", verdict=left, samples=(*every, *delivered(1)), measurements=slopes),
    ]
    sampled = frames.samples("r1", done)
    for chart in (*(draw(sampled) for draw in OF_SAMPLES), charts.slopes(sampled, frames.measurements("r1", done))):
        assert "nothing is left" not in shown(chart).words
        assert "Nothing grows" not in shown(chart).claim
        assert shown(chart).claim.endswith("verdict FAIL")
        assert "bad: FAIL: 1 finding: retained-object" in shown(chart).remark
        assert "good" not in shown(chart).remark.replace("good: ", "")
    for draw in OF_SAMPLES:
        assert "FAIL" not in shown(draw(frames.samples("r1", done[:1]))).claim


def test_a_slope_is_drawn_with_its_interval() -> None:
    points, slopes = cycles(*(1_000 * n for n in range(1, 20)), low=990, high=1_010)
    done = [result(samples=points, measurements=slopes)]
    chart = shown(charts.slopes(frames.samples("r1", done), frames.measurements("r1", done)))
    assert chart.claim.startswith("Grows from cycle to cycle: traced memory of factories")
    assert "1 kB a cycle (95%: 990 bytes to 1.01 kB)" in "".join(drawn(chart).itertext())
    flat, none = cycles(*[7.0] * 9, low=0, high=0)
    done = [result(samples=flat, measurements=none)]
    calm = shown(charts.slopes(frames.samples("r1", done), frames.measurements("r1", done)))
    assert calm.claim == "Nothing grows steadily over cycles"
    assert isinstance(charts.slopes(samples(), frames.measurements("r1", done)), NoChart)


def test_a_value_is_drawn_against_both_of_its_budgets() -> None:
    kept = Measurement("growth", 17_000.0, "bytes", Budget("<", 5e7, "asked"))
    own = Measurement("growth", 17_000.0, "bytes", Budget("<=", 5e5, "lab"))
    late = Measurement("longest", 3.0, "s", Budget("<", 2.0, "lab"))
    rss = Measurement("rss", 70e6, "bytes", Budget("<", 5e7, "asked"), decides=False)
    none = Measurement("foreign", 0, "canaries", Budget("==", 0, "asked"))
    chart = shown(charts.budgets(frames.measurements("r1", [result(measurements=(kept, own, late, rss, none))])))
    assert chart.claim == "2 of 3 measured values keep their budgets"
    assert "1 budget of zero without a bar, 1 kept" in chart.remark
    words = list(drawn(chart).itertext())
    assert words.index("longest") < words.index("growth") < words.index("rss")
    # That rss is beyond its budget is no failure, and does not look like one.
    assert {"value, not kept", "not kept, decides nothing"} <= set(drawn(chart).itertext())
    assert "lab <= 500 kB · asked < 50 MB, logarithmic" in words
    assert "asked < 50 MB · decides nothing" in words
    assert "Not kept: longest." in chart.words
    assert isinstance(charts.budgets(frames.measurements("r1", [result(measurements=())])), NoChart)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5.0, 0.0, 1e300, 1e-300])
def test_any_value_has_a_bar(value: float) -> None:
    odd = Measurement("odd", value, "x", Budget("<", 10.0, "lab"))
    chart = charts.budgets(frames.measurements("r1", [result(measurements=(odd,))]))
    assert "odd" in drawn(chart).itertext()


def test_a_long_name_of_a_value_and_of_its_check_are_shown_whole() -> None:
    name = "traced growth over all cycles, without a step that came once and a half of another one"
    one = Measurement(name, 3.0, "x", Budget("<", 10.0, "lab"))
    check = "memory_usage_validation_during_concurrent_operations_of_very_many_users"
    both = [result(check, measurements=(one,)), result("second", measurements=(one,))]
    chart = charts.budgets(frames.measurements("r1", both))
    assert list(drawn(chart).itertext()).count(name) >= 2
    assert check in "".join(drawn(chart).itertext())


# ------------------------------------------------------------------------------------------------------------- activity


def test_a_foreign_event_is_counted_and_shown_among_a_thousand_users_and_without_one_there_is_no_matrix() -> None:
    chart = shown(charts.delivery_matrix(samples(*delivered(1000, ("user-0998", "user-0999")))))
    assert "2 of 2,002 events reached another user" in chart.words
    assert texts(chart).count("user-0998") == 1
    assert "user-0001" not in texts(chart)
    cells = [cell.text for cell in drawn(chart).iter("td")]
    assert cells == ["user-0998", "1  user-0999", "2"]
    chart = shown(charts.delivery_matrix(samples(*delivered(1000))))
    assert "0 of 2,000 events" in chart.words
    assert len(chart.html) < 6_000
    assert not any("user-" in text for text in texts(chart))


def test_the_timeline_of_a_thousand_users_shows_the_ones_longest_at_work() -> None:
    users = [op(number % 7, f"user-{number:04d}", took=5.0 if number == 512 else 0.1) for number in range(1000)]
    chart = shown(charts.timeline(frames.operations("r1", [result(operations=users)])))
    labels = [text for text in texts(chart) if text.startswith("user-")]
    assert len(labels) == 30
    assert "user-0512" in labels


def test_thousands_of_operations_are_a_small_figure() -> None:
    many = [op(number, f"user-{number % 60:04d}", took=0.4, action=f"act-{number % 30}") for number in range(4_000)]
    operations = frames.operations("r1", [result(operations=many)])
    for draw in OF_OPERATIONS:
        assert len(shown(draw(operations)).html) < 30_000
    assert shown(charts.latencies(operations)).remark.endswith(" 20 faster actions not shown.")
    # Of 160 operations, those beyond the first and the 99th percentile, some are drawn.
    spread = [op(number, took=1.0 + number) for number in range(8_000)]
    paths = drawn(charts.latencies(frames.operations("r1", [result(operations=spread)]))).iter(f"{SVG}path")
    (dots,) = (each.attrib["d"].count("M") for each in paths if each.get("opacity") == "0.45")
    assert 20 <= dots <= 40


def test_overlap_is_counted_from_the_operations() -> None:
    apart = frames.operations("r1", [result(operations=[op(0, took=0.5), op(1, "bo", took=0.5)])])
    over = frames.operations("r1", [result(operations=[op(0, took=1.5), op(1, "bo", took=0.5)])])
    assert "up to 1 operation in flight" in shown(charts.timeline(apart)).words
    chart = shown(charts.timeline(over))
    assert "up to 2 operations" in chart.words
    # Half an operation is never in flight.
    assert {"0", "1", "2"} <= set(texts(chart))
    assert not {"0.5", "1.5"} & set(texts(chart)[: texts(chart).index("operations in flight")])


def test_latencies_name_the_slowest_action_in_a_unit_that_reads_well() -> None:
    taken = [
        *(op(n, took=2e-6, action="get") for n in range(5)),
        *(op(n, took=5e-4, action="create") for n in range(5)),
    ]
    chart = shown(charts.latencies(frames.operations("r1", [result(operations=taken)])))
    assert "create, 500 µs" in chart.words
    assert "µs, logarithmic" in texts(chart)
    assert [cell.text for cell in drawn(chart).iter("td")][:3] == ["create", "5", "500"]


def test_operations_that_took_no_time_are_drawn() -> None:
    instant = frames.operations("r1", [result(operations=[op(0, took=0.0)])])
    for draw in OF_OPERATIONS:
        assert list(drawn(draw(instant)).iter(f"{SVG}path"))


# ------------------------------------------------------------------------------------------------------------- findings

STEPS = (
    "   1  the first: get_or_create: begins",
    "   2* the second: get_or_create: begins  (ahead of the first: get_or_create)",
    "      -- the second: get_or_create is cancelled",
    "   3  Target._make#4: goes on at pack/age.py:7 _make, within pack/other.py:9 call; ends",
    "   4  the first: get_or_create: goes on at pack/age.py:12 get_or_create; answers '#1'",
    "      -- the callers have ended; the lab looks at the remains",
    "   5  the lab: goes on at lab_utils/checks/callers.py:69 whole",
    "   6  Target.stop#5: begins; ends",
    "replay: registry-lab replay rl2~x",
)


def test_an_interleaving_has_two_lanes_and_its_teardown_is_folded() -> None:
    chart = shown(charts.interleaving(finding(*STEPS)))
    words = texts(chart)
    assert words[:2] == ["the first: get_or_create", "the second: get_or_create"]
    assert {"answers '#1'", "⇅ ahead of the first: get_or_create", "the second: get_or_create is cancelled"} <= set(
        words
    )
    # The target's own line stands there, not the lab's that it called.
    assert "Target._make#4: goes on in call" in words
    assert not any("the lab" in word or "Target.stop" in word for word in words)
    assert "2 steps of teardown folded" in chart.remark
    # All of it is there to be read.
    assert [cell.text for cell in drawn(chart).iter("td")][-2:] == ["6", "Target.stop#5: begins; ends"]
    beside = charts.picture("two were made", "\n".join(STEPS))
    assert beside is not None
    assert beside.words == chart.words
    # The sentence and the witness stand there already.
    assert beside.remark == chart.remark.removeprefix("two were made. ")
    assert not list(drawn(beside).iter("table"))


def test_the_operations_of_a_witness_are_drawn_over_time() -> None:
    first = Op(3, "c1", "ada", "create", "triage", "", OpType.OK, 4, 8, 1.0, 1.5, "#1")
    second = Op(4, "c2", "ada", "create", "triage", "", OpType.OK, 5, 7, 1.2, 1.4, "#2")
    done = [result(operations=[op(0), first, second])]
    witness = (str(first), str(second))
    chart = shown(charts.interleaving(finding(*witness), frames.operations("r1", done)))
    assert "op 4: create ada/triage → ok #2" in texts(chart)
    assert {"c1", "c2"} <= set(texts(chart))
    assert isinstance(charts.interleaving(finding(*witness)), NoChart)


def test_two_users_ways_lead_to_the_object_that_both_reach() -> None:
    held = "<Bridge object at 0x7f>"
    witness = (f"caf\u00e9.agents['helper-0'].agent.extra -> {held}", f"01.agents['a.b: [c'].bridge -> {held}")
    chart = shown(charts.reference_path(finding(*witness, sentence="'caf\u00e9' and '01' can both reach one object")))
    assert texts(chart) == [
        *("caf\\xe9", ".agents['helper-0']", ".agent", ".extra"),
        *("01", ".agents['a.b: [c']", ".bridge", held),
    ]  # fmt: skip
    assert r"from caf\xe9" in chart.html


def test_a_text_without_room_on_a_phone_is_there_shortened_as_well() -> None:
    chart = shown(charts.reference_path(finding(f"pack.module._ALL.{'long_' * 12}name -> <it>")))
    (narrow,) = [each for each in drawn(chart).iter(f"{SVG}text") if each.get("display") == "none"]
    whole = f".{'long_' * 12}name"
    assert narrow.findtext(f"{SVG}title") == whole in texts(chart)
    assert narrow[0].tail
    assert len(narrow[0].tail) < len(whole)
    assert narrow[0].tail.endswith("name")


def test_who_holds_what_should_be_gone_is_a_chain_from_its_module() -> None:
    witness = ("before: 25", "session of 'ada': pack.age.module._ALL[25].bridge -> <Bridge>; allocated at a.py:3")
    chart = shown(charts.reference_path(finding(*witness)))
    assert texts(chart) == ["pack.age.module", "._ALL[25]", ".bridge", "<Bridge>", "allocated at a.py:3"]
    unnamed = "pack.module._DESK.task.<CancelledError>.__traceback__<frame work> -> <it>"
    assert texts(charts.reference_path(finding(unnamed)))[4:6] == [".<CancelledError>", ".__traceback__"]
    long = f"ada{''.join(f'.part{n}' for n in range(40))} -> <it>"
    assert "… 26 more steps …" in texts(charts.reference_path(finding(long, sentence="'ada' reaches it")))


@pytest.mark.parametrize(
    "witness", ["before: 25", "op 3 c: create ada -> ok '#2'", "   1 ada waits", "a -> b", "[ -> ]"]
)
def test_a_witness_of_another_kind_has_no_picture(witness: str) -> None:
    assert charts.picture("it is so", witness) is None
    assert isinstance(charts.interleaving(finding(witness)), NoChart)
    assert isinstance(charts.reference_path(finding(witness)), NoChart)
