"""Runs are kept whole or marked as unfinished; several at once lose nothing."""

from __future__ import annotations

import json
import math
import os
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from lab_utils.output import frames, store
from lab_utils.output.pages import runs_page
from lab_utils.output.pages.bundle import bundle
from lab_utils.output.store import (
    CategoryResults,
    Store,
    StoreError,
    Summary,
    find_run,
    load_category,
    place,
    read_run,
    save_category,
    summaries,
)
from lab_utils.output.store.history import open_history
from lab_utils.values.result import Budget, CheckResult, Measurement
from lab_utils.values.verdict import Finding, Outcome
from tests.lab_utils.made import CATEGORY, HOSTILE, about, calibration, failed, op, record, result

NOON = datetime(2026, 1, 2, 12, 0, 0, 123_000, tzinfo=UTC)


def listing(runs: list[Summary]) -> str:
    return " ".join(f"{run.folder}={run.state}" for run in runs)


def test_a_run_gets_its_own_name_only_when_it_is_finished(tmp_path: Path) -> None:
    run = Store(tmp_path).begin(about())
    assert run.folder.name == f"{run.run_id}.partial"
    assert [found.state for found in summaries(tmp_path)] == ["running"]
    with pytest.raises(StoreError, match="no run 'latest'"):
        find_run(tmp_path)

    final = run.finish("passed", listing)
    assert final.name == run.run_id
    assert not (tmp_path / f"{run.run_id}.partial").exists()
    assert find_run(tmp_path) == final.resolve()
    assert (tmp_path / "index.html").read_text() == f"{run.run_id}=passed"
    recorded = json.loads((final / "run.json").read_text())
    assert recorded["status"] == "passed"
    assert recorded["finished_at"] >= recorded["started_at"]


def test_the_folder_of_the_run_has_a_name_only_where_a_run_has_set_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("", "outputs/one", "/outputs/$REGISTRY_LAB_RUN", "$HOME/one", "$REGISTRY_LAB_RUNS"):
        assert place(text) == Path(text)
    for unset in (None, ""):
        monkeypatch.delenv("REGISTRY_LAB_RUN", raising=False)
        if unset is not None:
            monkeypatch.setenv("REGISTRY_LAB_RUN", unset)
        with pytest.raises(StoreError, match=r"^\$REGISTRY_LAB_RUN/a is known only while .* runs; name a folder"):
            place("$REGISTRY_LAB_RUN/a")
    monkeypatch.setenv("REGISTRY_LAB_RUN", str(tmp_path))
    assert place("$REGISTRY_LAB_RUN") == tmp_path
    assert place("$REGISTRY_LAB_RUN/a/b.toml") == tmp_path / "a" / "b.toml"


def test_names_sort_by_time_and_differ_within_a_millisecond_from_those_of_finished_runs_too(tmp_path: Path) -> None:
    same = [Store(tmp_path, now=lambda: NOON, rng=random.Random(seed)) for seed in (1, 1, 1)]
    names = [each.begin(about()).run_id for each in same]
    assert len(set(names)) == 3
    assert all(name.startswith("20260102-120000-123-") for name in names)
    later = Store(tmp_path, now=lambda: NOON.replace(second=1)).begin(about()).run_id
    assert later > max(names)
    again = tmp_path / "again"
    first = Store(again, now=lambda: NOON, rng=random.Random(1)).begin(about())
    first.finish("passed", listing)
    assert Store(again, now=lambda: NOON, rng=random.Random(1)).begin(about()).run_id != first.run_id


def test_runs_that_end_at_once_are_all_listed(tmp_path: Path) -> None:
    runs = [Store(tmp_path).begin(about()) for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda run: run.finish("passed", listing), runs))
    index = (tmp_path / "index.html").read_text().split()
    assert index == sorted((f"{run.run_id}=passed" for run in runs), reverse=True)
    assert find_run(tmp_path).name in {run.run_id for run in runs}


def test_an_interrupted_run_is_listed_as_such_and_never_latest(tmp_path: Path) -> None:
    finished = Store(tmp_path).begin(about())
    finished.finish("passed", listing)
    killed = Store(tmp_path).begin(about())
    # A process of that number lives, but it began at another time: numbers are given again.
    killed.note(process={"pid": os.getpid(), "created": 1.0})
    cancelled = Store(tmp_path).begin(about())
    cancelled.abandon("cancelled", listing)
    assert {run.folder: run.state for run in summaries(tmp_path)} == {
        finished.run_id: "passed",
        f"{killed.run_id}.partial": "interrupted",
        f"{cancelled.run_id}.partial": "cancelled",
    }
    assert find_run(tmp_path).name == finished.run_id


FINISHED = record(
    status="passed",
    started_at="2026-11-28T06:21:50+00:00",
    finished_at="2026-11-28T06:21:56+00:00",
    outcomes={"PASS": 1},
)


def damaged(**fields: object) -> str:
    return json.dumps({**FINISHED, **fields})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[]", "Expected `object`, got `array`"),
        ('{"status": 1', "Expecting"),
        ("{}", "missing required field"),
        ("[" * 100_000, "recursion"),
        (damaged(format=2), "r1/run.json has format 2, this version reads 1; read it with the version that wrote it"),
        ('{"format": 9, "name": "new"}', "r1/run.json has format 9"),
        (damaged(format="1"), "Expected `int`, got `str` - at `$.format`"),
        (damaged(outcomes=["PASS"]), "Expected `object`, got `array` - at `$.outcomes`"),
        (damaged(catalog=[{"name": "x"}]), "`$.catalog[0]`"),
        (damaged(checks={"first": {}}), "`$.checks`"),
        (damaged(provenance={"git": "clean"}), "`$.provenance"),
        (damaged(started_at=None), "`$.started_at`"),
    ],
)
def test_a_run_that_does_not_fit_is_listed_with_the_reason_and_stops_no_other(
    tmp_path: Path, text: str, why: str
) -> None:
    odd = tmp_path / "r1"
    odd.mkdir()
    (odd / "run.json").write_text(text)
    run = Store(tmp_path).begin(about())
    run.finish("passed", runs_page)
    assert {found.run_id: found.state for found in summaries(tmp_path)} == {"r1": "unreadable", run.run_id: "passed"}
    index = unescape((tmp_path / "index.html").read_text())
    assert why in index
    assert str(tmp_path) not in index
    with pytest.raises(StoreError) as refused:
        read_run(odd)
    assert why in str(refused.value)


def test_files_that_are_none_and_times_without_an_offset_leave_the_list_whole(tmp_path: Path) -> None:
    (tmp_path / "r1" / "run.json").mkdir(parents=True)
    for name in ("grid-1", "grid-2"):
        (tmp_path / name).mkdir()
    (tmp_path / "grid-1" / "grid.json").write_text("[" * 100_000)
    (tmp_path / "grid-2" / "grid.json").mkdir()
    (tmp_path / "r2").mkdir()
    (tmp_path / "r2" / "run.json").write_text(damaged(started_at="2026-01-01T00:00:00"))
    run = Store(tmp_path).begin(about())
    run.finish("passed", runs_page)
    states = {found.run_id: found.state for found in summaries(tmp_path)}
    unreadable = dict.fromkeys(("r1", "grid-1", "grid-2"), "unreadable")
    assert states == {**unreadable, "r2": "passed", run.run_id: "passed"}
    index = unescape((tmp_path / "index.html").read_text())
    assert "Is a directory" in index
    assert str(tmp_path) not in index


@pytest.fixture
def within_ten_seconds() -> Iterator[None]:
    """Raises in a test that would block for ever."""

    def give_up(number: int, frame: object) -> None:
        pytest.fail("still blocked")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.usefixtures("within_ten_seconds")
def test_no_pipe_in_the_place_of_a_record_blocks_a_reader(tmp_path: Path) -> None:
    run = Store(tmp_path / "outputs").begin(about())
    save_category(run.folder, CategoryResults(CATEGORY, True, (result(),), ()))
    run.write_frames(frames.frames_of(run.run_id, [result()]))
    folder = run.finish("passed", runs_page)
    history = open_history(str(tmp_path / "history"))
    for pipe in (
        *(folder / name for name in ("digest.json", f"results/{CATEGORY}.json", "index.html", "notebooks/n.html")),
        *(folder / f"frames/{name}.parquet" for name in ("operations", "findings")),
        tmp_path / "history" / "r.json",
        tmp_path / "outputs" / "grid-1" / "grid.json",
        tmp_path / "outputs" / "r1" / "run.json",
    ):
        pipe.parent.mkdir(parents=True, exist_ok=True)
        pipe.unlink(missing_ok=True)
        os.mkfifo(pipe)
    assert {one.run_id: (one.state, one.digest) for one in summaries(tmp_path / "outputs")} == {
        run.run_id: ("passed", None),
        "r1": ("unreadable", None),
        "grid-1": ("unreadable", None),
    }
    assert "regular file" in runs_page(summaries(tmp_path / "outputs"))
    (unread,) = read_run(folder).results
    assert (unread.outcome, f"{CATEGORY}.json" in unread.verdict.reason) == (Outcome.UNKNOWN, True)
    with pytest.raises(StoreError, match="no report"):
        bundle(folder)
    (folder / "index.html").unlink()
    (folder / "index.html").write_text("<body></body>")
    assert "notebooks/n.html" not in bundle(folder).page
    with pytest.raises(frames.FrameError, match="regular file"):
        frames.load(folder / "frames")
    assert history.runs() == []
    assert Store(tmp_path / "outputs").prune(1, runs_page) == []


@pytest.mark.parametrize(
    "noted",
    [{"status": "passed"}, {"process": {"pid": -1, "created": 1}}, {"process": {"pid": 10**30, "created": 1.0}}],
    ids=["killed between its last word and its renaming", "no process", "no number of a process"],
)
def test_a_run_that_nobody_works_at_and_that_was_not_renamed_is_interrupted(
    tmp_path: Path, noted: dict[str, Any]
) -> None:
    Store(tmp_path).begin(about()).note(**noted)
    assert [run.state for run in summaries(tmp_path)] == ["interrupted"]


def test_a_record_keeps_what_others_have_added(tmp_path: Path) -> None:
    (tmp_path / "r1").mkdir()
    (tmp_path / "r1" / "run.json").write_text(damaged(theirs=[1]))
    assert [found.state for found in summaries(tmp_path)] == ["passed"]
    assert read_run(tmp_path / "r1").about == {**FINISHED, "theirs": [1]}


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "latest").mkdir()
    run = Store(tmp_path).begin(about())
    run.finish("passed", listing)
    assert [found.run_id for found in summaries(tmp_path)] == [run.run_id]
    assert (tmp_path / "latest").is_dir()
    assert not list(tmp_path.glob(".latest*"))


def test_without_symbolic_links_latest_is_a_text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no privilege")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    run = Store(tmp_path).begin(about())
    final = run.finish("passed", listing)
    assert (tmp_path / "latest").read_text() == f"{run.run_id}\n"
    assert find_run(tmp_path) == final.resolve()


def test_an_unknown_run_is_told_with_those_there_are(tmp_path: Path) -> None:
    run = Store(tmp_path).begin(about())
    run.finish("passed", listing)
    with pytest.raises(StoreError, match=run.run_id):
        find_run(tmp_path, "2020")
    with pytest.raises(StoreError, match="registry-lab run"):
        find_run(tmp_path / "nowhere")


def test_where_nothing_can_be_written_the_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file").begin(about())


MANY = tuple(op(number, HOSTILE if number == 7 else "ada", value=number) for number in range(12))


@pytest.mark.parametrize(
    "results",
    [
        (),
        (result("first"), result("second", failed()), result("third", operations=())),
        (result("first", operations=MANY), result("second")),
        (result("first", measurements=(Measurement("ratio", math.inf, "", Budget("<", math.inf, "lab")),)),),
        (result("first", failed(Finding("odd", HOSTILE, (HOSTILE,))), notes=(HOSTILE,)),),
    ],
)
def test_results_come_back_as_they_were(
    tmp_path: Path, results: tuple[CheckResult, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three chunks: two whole ones, and a last one that is not.
    monkeypatch.setattr("lab_utils.values.result._CHUNK", 5)
    found = CategoryResults(CATEGORY, True, results, (calibration(), calibration(caught=False)))
    path = save_category(tmp_path, found)
    with monkeypatch.context() as by_lines:
        # The lab's own layout is read line by line, for all of a large file does not fit into memory.
        by_lines.setattr("lab_utils.output.store.results._whole", None)
        assert load_category(tmp_path, CATEGORY) == found
    assert [row["check"] for row in json.loads(path.read_bytes())["results"]] == [one.check for one in results]
    for kept in (json.dumps(json.loads(path.read_bytes())), json.dumps(json.loads(path.read_bytes()), indent=2)):
        path.write_text(kept)
        assert load_category(tmp_path, CATEGORY) == found


def changed(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: "", "Expecting value"),
        (lambda text: text[: len(text) // 2], ""),
        (lambda text: "[]", "Expected `object`, got `array`"),
        (lambda text: text + text, "Extra data"),
        (changed('"seed":7', '"seed":"7"'), r"Expected `int`, got `str` - at `\$.*results\[0\].seed`"),
        (changed('"thread":"main"', '"thread":7'), r"Expected `str`, got `int` - at `\$.*operations\[0\].thread`"),
        (changed('"complete":true', '"complete":1'), r"Expected `bool`, got `int` - at `\$.complete`"),
        (changed('"format":1', '"format":2'), "it has format 2, this version reads 1; read it with the version"),
        (changed('"format":1,"category"', '"format":3,"kind"'), "it has format 3, this version reads 1"),
    ],
)
def test_a_results_file_that_does_not_fit_is_refused_with_its_name_and_the_place(
    tmp_path: Path, change: Callable[[str], str], why: str
) -> None:
    path = save_category(tmp_path, CategoryResults(CATEGORY, True, (result(), result("second")), ()))
    path.write_text(change(path.read_text()))
    with pytest.raises(StoreError, match=f"{CATEGORY}.json cannot be read as results: .*{why}"):
        load_category(tmp_path, CATEGORY)


def test_a_check_without_a_result_is_unknown_and_stays_in_its_place(tmp_path: Path) -> None:
    run = Store(tmp_path).begin(about("first", "second", "third"))
    save_category(run.folder, CategoryResults(CATEGORY, False, (result("second"),), ()))
    run.note(notebooks={CATEGORY: {"status": "dead-kernel", "seconds": 1.0, "message": "killed"}})
    read = run.read()
    assert [(found.check, found.outcome) for found in read.results] == [
        ("first", Outcome.UNKNOWN),
        ("second", Outcome.PASS),
        ("third", Outcome.UNKNOWN),
    ]
    assert "dead-kernel" in read.results[0].verdict.reason


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Store(tmp_path).begin(about())
    run.write("page.html", "old")
    real = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "page.html":
            raise OSError("no space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        run.write("page.html", "new")
    assert (run.folder / "page.html").read_text() == "old"
    assert sorted(path.name for path in run.folder.iterdir()) == ["page.html", "run.json"]


def test_the_provenance_names_no_machine_and_no_person() -> None:
    made = store.provenance()
    assert made["packages"]["psutil"]
    assert made["machine"]["cpus"] == os.cpu_count()
    text = json.dumps({**made, "packages": {}, "machine": {**made["machine"], "processor": ""}})
    assert os.uname().nodename not in text
    assert str(Path.home()) not in text
