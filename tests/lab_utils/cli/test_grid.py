"""A grid of runs from the command line: its words, its record, how it is taken up again and shown, and how it ends."""

from __future__ import annotations

import io
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lab_utils.batch import places
from lab_utils.batch.errand import Brought, Errand
from lab_utils.cli import main
from lab_utils.output import pages
from lab_utils.output.store import CategoryResults, Store, save_category
from lab_utils.output.store.grids import GridFolder
from lab_utils.values.verdict import Finding
from tests.lab_utils.made import CATEGORY, HOSTILE, MEASURED, about, failed, result

CHECK = "shared_state_contamination_detection"
LEAK = Finding("cross-user-data", HOSTILE, ("w",))


class Runs:
    """Makes runs at once, by their words alone: `users` and the seed decide their findings and measurements."""

    def __init__(self, folder: Path) -> None:
        self.made: list[tuple[int, int]] = []
        self.before: Callable[[Errand], None] = lambda errand: None
        self._folder = folder

    def work(self, errand: Errand) -> Brought:
        self.before(errand)
        words = list(errand.words)
        users = int(next(word for word in words if word.startswith("users=")).partition("=")[2])
        seed = int(words[words.index("--seed") + 1])
        self.made.append((users, seed))
        if users == 13:
            return Brought(3, "a kernel died\n", zipped(self._folder, None), 1.0)
        grown = replace(MEASURED[1], value=0.001 * users**2)
        verdict = failed(LEAK) if users == 100 else None
        one = result(CHECK, verdict, measurements=(grown,), seed=seed)
        store = Store(self._folder / f"{users}-{seed}-{len(self.made)}")
        run = store.begin(about(CHECK))
        save_category(run.folder, CategoryResults(CATEGORY, True, (one,), ()))
        run.finish("findings" if verdict is not None else "passed", pages.runs_page)
        return Brought(int(verdict is not None), "", zipped(store.outputs, run.run_id), 1.0)

    @contextmanager
    def place(self, at_once: int, calibrations: Path) -> Iterator[places.Place]:
        with ThreadPoolExecutor(1) as executor:
            yield places.Place(executor, self.work, lambda: 1, lambda: "one at once")


def zipped(outputs: Path, run_id: str | None) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        for path in (outputs / run_id).rglob("*") if run_id else ():
            writing.write(path, path.relative_to(outputs))
    return archive.getvalue()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runs:
    made = Runs(tmp_path / "elsewhere")
    monkeypatch.setattr(places, "here", made.place)
    monkeypatch.chdir(tmp_path)
    return made


def run(*words: str) -> int:
    return main(["run", *words])


def grid(tmp_path: Path) -> GridFolder:
    return GridFolder.read(next((tmp_path / "outputs").glob("grid-*")))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sweep", "usres=3"], "did you mean 'users'"),
        (["--sweep", "users"], "users=10,100"),
        (["--sweep", "users="], "users=10,100"),
        (["--sweep", "=3"], "users=10,100"),
        (["--sweep", "users=3,,4"], "a value is empty"),
        (["--sweep", "users=3,03"], "a whole number such as"),
        (["--sweep", "users=3,4,3"], "3 stands twice; --repeat 2"),
        (["--sweep", "users=3..5,4"], "4 stands twice"),
        (["--sweep", "users=5..3"], "write 3..5"),
        (["--sweep", "users=1"], "below 2"),
        (["--sweep", "users=9999999"], "above"),
        (["--sweep", "user_isolation.users=3", "--sweep", "users=4"], "swept already"),
        (["--sweep", "memory_management.cycles=4"], "not among the categories"),
        (["--sweep", "users=3", "-p", "users=4"], "--param users gives users one value"),
        (["--sweep", "users=3", "-p", "user_isolation.users=4"], "one value"),
        (["--sweep", "seed=3", "--seed", "4"], "--seed gives seed one value"),
        (["--sweep", "seed=-1"], "between 0 and"),
        (["--sweep", "seed=1..1000", "--sweep", "users=2..9"], "8,000 runs, more than 2,000"),
        (["--sweep", "seed=0..999999999999"], "more than 2,000"),
        (["--repeat", "0"], "from 1 on"),
        (["--resume", "latest", "--on", "local"], "no grid of that name"),
        (["--repeat", "2", "--shard", "1/2"], "--shard is of one run"),
        (["--on", "scheduler:8786"], "tcp://scheduler:8786"),
        (["--on", "tcp://scheduler:8786", "--python", sys.executable], "only this machine has"),
    ],
)
def test_wrong_words_are_said_before_anything_runs(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert run(CATEGORY, *words) == 2
    assert said in capsys.readouterr().err
    assert not runs.made
    assert not (tmp_path / "outputs").exists()


def test_the_runs_are_shown_and_none_is_made(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(CATEGORY, "--sweep", "users=3..5,10", "--sweep", "seed=1..2", "--repeat", "2", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "16 runs would be made:"
    assert "users=3 seed=1, 2 of 2: registry-lab run user_isolation" in lines[2]
    assert "--seed 2 --param users=10" in lines[-1]
    # Each seed and size would be calibrated anew.
    assert [line.rpartition(" --calibrate ")[2] for line in lines[1:]] == ["changed", *["never"] * 15]
    assert run(CATEGORY, "--sweep", "users=3,4", "--calibrate", "always", "--dry-run") == 0
    assert capsys.readouterr().out.count("--calibrate always") == 2
    assert not runs.made


def test_each_point_is_run_once_and_the_page_shows_them_all(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [CATEGORY, "--check", CHECK, "--sweep", "users=10,20,100", "--sweep", "seed=1..3", "--history", "kept"]
    assert run(*words) == 1, "that of the worst run"
    assert runs.made == [(users, seed) for users in (10, 20, 100) for seed in (1, 2, 3)]
    out = capsys.readouterr().out
    assert "9 of 9: findings users=100 seed=3" in out
    made = grid(tmp_path)
    assert made.about["status"] == "findings"
    page = (made.folder / "index.html").read_text()
    for text in ("9 runs, 3 FAIL, 6 PASS", "3 of 9", "runs/0009/", "in the first run only, users=10 seed=1"):
        assert text in page
    assert "<script>alert" not in page
    assert "2.00 to 2.00" in page, "value = users ** 2"
    assert "-1900%" in page, "the worst margin: 10 MB of 0.5"
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")
    listed = (tmp_path / "outputs" / "index.html").read_text()
    assert made.grid_id in listed
    assert "9 runs: " in listed
    assert {"6 PASS<", "3 FAIL<"} <= set(re.findall(r"\d (?:PASS|FAIL)<", listed))
    assert re.search(r'data-value="[\d.]+">\d+ s<', listed)
    assert len(list((tmp_path / "kept").iterdir())) == 9


def test_an_interrupted_grid_is_taken_up_where_it_was_left(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(errand: Errand) -> None:
        if len(runs.made) == 2:
            raise KeyboardInterrupt

    runs.before = interrupted
    words = [CATEGORY, "--check", CHECK, "--sweep", "users=10,20", "--sweep", "seed=1,2"]
    assert run(*words) == 130
    made = grid(tmp_path)
    assert f"--resume {made.grid_id}" in capsys.readouterr().err
    assert made.about["status"] == "cancelled"
    assert "2 NOT RUN" in (made.folder / "index.html").read_text()
    runs.before = lambda errand: None
    first = runs.made.copy()
    assert run("--resume", made.grid_id, "--check", CHECK) == 2
    assert run("--resume", made.grid_id) == 0
    assert first + runs.made[2:] == [(10, 1), (10, 2), (20, 1), (20, 2)]
    assert run("--resume", made.grid_id) == 0
    assert len(runs.made) == 4, "nothing was missing"


def test_a_run_that_the_lab_failed_is_made_again(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(CATEGORY, "--check", CHECK, "--sweep", "users=10,13") == 3
    assert "LAB FAILED users=13: a kernel died" in capsys.readouterr().out
    made = grid(tmp_path)
    assert "a kernel died" in (made.folder / "index.html").read_text()
    assert run("--resume", made.grid_id) == 3
    assert [users for users, _ in runs.made] == [10, 13, 13]


def test_a_second_copy_of_a_run_changes_nothing(runs: Runs, tmp_path: Path) -> None:
    assert run(CATEGORY, "--check", CHECK, "--sweep", "users=10,20") == 0
    made = grid(tmp_path)
    before = {path: path.read_bytes() for path in (made.folder / "runs").rglob("*") if path.is_file()}
    other = runs.work(Errand("grid", 1, ("--seed", "7", "users=100")))
    made.take(made.points[0], other.archive)
    assert {path: path.read_bytes() for path in (made.folder / "runs").rglob("*") if path.is_file()} == before


def test_two_processes_do_not_work_at_one_grid(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(CATEGORY, "--check", CHECK, "--sweep", "users=10") == 0
    made = grid(tmp_path)
    with made.alone():
        assert run("--resume", made.grid_id) == 3
    assert "under way in another process" in capsys.readouterr().err


def test_a_grid_of_another_version_of_the_lab_is_not_taken_up(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(CATEGORY, "--check", CHECK, "--sweep", "users=10") == 0
    made = grid(tmp_path)
    made.note(lab="agent-registry-lab 0.0")
    assert run("--resume", made.grid_id) == 2
    assert "make a new grid" in capsys.readouterr().err
    (made.folder / "grid.json").write_text(json.dumps({"format": 9}))
    assert run("--resume", made.grid_id) == 2
    assert "has format 9" in capsys.readouterr().err


def test_a_run_of_a_grid_that_cannot_be_read_is_made_again(runs: Runs, tmp_path: Path) -> None:
    words = (CATEGORY, "--check", CHECK, "--sweep", "users=10,20")
    assert run(*words) == 0
    made = grid(tmp_path)
    (made.folder / "runs" / "0001" / "digest.json").write_text("[]")
    assert [cell.digest is None for cell in made.cells()].count(True) == 1
    assert run("--resume", made.grid_id) == 0
    assert not any(cell.digest is None for cell in grid(tmp_path).cells())
    assert len(runs.made) == 3
