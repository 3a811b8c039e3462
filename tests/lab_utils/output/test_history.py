"""A history keeps every run that anybody adds, at the same time too, and any two of them are one."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lab_utils.output.store import StoreError
from lab_utils.output.store.history import open_history
from tests.lab_utils.judges.test_comparison import check, found, run


def added(where: Path, *names: str) -> None:
    for number, name in enumerate(names):
        open_history(str(where)).add(run(check(), run_id=name, started_at=f"2026-01-02T03:04:{number:02}+00:00"))


def names(where: Path | str) -> list[str]:
    return [one.run_id for one in open_history(str(where)).runs()]


def test_runs_come_back_oldest_first_and_the_same_one_twice_is_one(tmp_path: Path) -> None:
    assert names(tmp_path / "none") == []
    added(tmp_path / "h", "b", "a", "c")
    before = sorted(path.name for path in (tmp_path / "h").iterdir())
    added(tmp_path / "h", "b", "a", "c")
    assert names(tmp_path / "h") == ["b", "a", "c"]
    assert sorted(path.name for path in (tmp_path / "h").iterdir()) == before


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    gate = threading.Barrier(8)

    def write(number: int) -> None:
        history = open_history(str(tmp_path))
        gate.wait()
        for each in range(20):
            history.add(run(check("a", found("x")), run_id=f"r{number}-{each}"))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(set(names(tmp_path))) == 160


def test_the_union_of_two_folders_is_a_history_and_merging_adds_what_is_missing(tmp_path: Path) -> None:
    added(tmp_path / "one", "a", "b")
    added(tmp_path / "two", "a", "b", "c")
    assert open_history(str(tmp_path / "one")).merge(open_history(str(tmp_path / "two"))) == 1
    assert open_history(str(tmp_path / "one")).merge(open_history(str(tmp_path / "two"))) == 0
    assert names(tmp_path / "one") == ["a", "b", "c"]
    for path in (tmp_path / "two").iterdir():
        (tmp_path / "one" / path.name).write_bytes(path.read_bytes())
    assert names(tmp_path / "one") == ["a", "b", "c"]


def test_pruning_keeps_the_newest_of_each_target_and_profile(tmp_path: Path) -> None:
    added(tmp_path, "a", "b", "c")
    open_history(str(tmp_path)).add(run(run_id="other", target="other:T"))
    assert open_history(str(tmp_path)).prune(2) == 1
    assert sorted(names(tmp_path)) == ["b", "c", "other"]


def test_a_file_that_is_none_is_named_and_hides_no_other(tmp_path: Path) -> None:
    added(tmp_path, "a")
    (tmp_path / "zz.json").write_text('{"format": 9}')
    (tmp_path / "README").write_text("a history")
    history = open_history(str(tmp_path))
    assert [one.run_id for one in history.runs()] == ["a"]
    assert len(history.unreadable) == 1
    assert history.unreadable[0].startswith("zz.json: ")


def test_a_place_that_is_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        open_history(str(tmp_path / "file")).add(run())


def test_an_address_is_a_history_too() -> None:
    pytest.importorskip("fsspec")
    where = "memory://lab/history"
    history = open_history(where)
    assert history.runs() == []
    for name in ("a", "b"):
        history.add(run(check(), run_id=name, started_at=f"2026-01-02T03:04:0{ord(name) % 10}+00:00"))
    assert sorted(names(where)) == ["a", "b"]
    assert history.prune(1) == 1
    assert len(names(where)) == 1
    with pytest.raises(StoreError, match="nowhere://x"):
        open_history("nowhere://x")


def test_without_the_library_an_address_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(StoreError, match=r"pip install 'agent-registry-lab\[remote\]'"):
        open_history("s3://bucket/history")
