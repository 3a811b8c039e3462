"""How far the checks of a run are: a line as each ends, a heartbeat in between, a row each on a terminal."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from lab_utils.cli import checks_display
from lab_utils.cli.checks_display import Progress, beating
from lab_utils.notebook.progress import PROGRESS_VARIABLE, announce


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(PROGRESS_VARIABLE, str(tmp_path / "checks"))
    return tmp_path / "checks"


def test_each_check_that_ends_is_said_once(file: Path) -> None:
    progress = Progress(["a", "b"], file, Clock())
    assert progress.news() == []
    announce("a", "running")
    announce("a", "ended", "PASS", 1.5)
    assert progress.news() == ["1 of 2: PASS a, 1.5 s"]
    assert progress.news() == []
    announce("b", "ended", "NOT_APPLICABLE", 0.1)
    assert progress.news() == ["2 of 2: NOT APPLICABLE b, 0.1 s"]


def test_a_remark_on_the_target_is_said_once_and_stays_below_the_rows(file: Path) -> None:
    progress = Progress(["a", "b"], file, Clock())
    announce("a", "ended", "PASS", 1.5, "The target is slow: it is.")
    assert progress.news() == ["1 of 2: PASS a, 1.5 s", "The target is slow: it is."]
    announce("b", "ended", "PASS", 1.5, "The target is slow: it is.")
    assert progress.news() == ["2 of 2: PASS b, 1.5 s"]
    assert str(progress.table(9).caption) == "The target is slow: it is."


def test_a_line_that_is_being_written_waits_for_its_end(file: Path) -> None:
    progress = Progress(["a"], file, Clock())
    announce("a", "ended", "PASS", 1.0)
    text = file.read_text()
    file.write_text(text[:10])
    assert progress.news() == []
    file.write_text(text)
    assert progress.news() == ["1 of 1: PASS a, 1.0 s"]


def test_the_heartbeat_says_what_is_going_on_and_how_long_it_takes_still(file: Path) -> None:
    clock = Clock()
    progress = Progress(["a", "b", "c"], file, clock, {"a": 2.0, "b": 4.0, "c": 2.0})
    announce("a", "ended", "PASS", 4.0)
    announce("b", "calibrating")
    progress.news()
    clock.now = 8.0
    assert progress.heartbeat() == "8 s: 1 of 3 checks done; calibrating b (8 s), about 24 s left"


def test_the_heartbeat_names_the_checks_that_have_run_longest_and_counts_the_others(file: Path) -> None:
    clock = Clock()
    progress = Progress(list("abcd"), file, clock)
    for clock.now, name in enumerate("cabd"):
        announce(name, "running")
        progress.news()
    assert progress.heartbeat() == "3 s: 0 of 4 checks done; running c (3 s), running a (2 s), and 2 more"


def test_rows_show_each_check_and_leave_out_what_passed_where_there_is_no_room(file: Path) -> None:
    progress = Progress(["a", "b", "c"], file, Clock())
    begun = [progress.has_begun]
    announce("a", "ended", "PASS", 1.0)
    announce("b", "ended", "FAIL", 2.0)
    assert [*begun, progress.has_begun] == [False, True]

    def drawn(height: int) -> list[str]:
        console = Console(file=io.StringIO(), width=80)
        with console.capture() as text:
            console.print(progress.table(height))
        return [" ".join(line.split()) for line in text.get().splitlines()]

    assert drawn(20) == ["a PASS 1 s", "b FAIL 2 s", "c waiting", "2 of 3 checks done"]
    assert drawn(3) == ["b FAIL 2 s", "c waiting", "2 of 3 checks done"]


def test_a_run_without_a_terminal_has_lines_and_a_heartbeat(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks_display, "_LOOK_EACH_S", 0.001)
    monkeypatch.setattr(checks_display, "HEARTBEAT_S", 0.002)
    said: list[str] = []
    beat, ended = threading.Event(), threading.Event()

    def say(text: str) -> None:
        said.append(text)
        (beat if "checks done" in text else ended).set()

    with beating(Progress(["a", "b"], file, Clock()), say):
        assert beat.wait(60)
        announce("a", "ended", "PASS", 1.0)
        assert ended.wait(60)
        announce("b", "ended", "PASS", 1.0)
    assert said[0].startswith("0 s: 0 of 2 checks done")
    assert [text for text in said if "PASS" in text] == ["1 of 2: PASS a, 1.0 s", "2 of 2: PASS b, 1.0 s"]
