"""Calibrations are made once for one state of all that they depend on, and believed only whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lab_utils.checks import CHECKS
from lab_utils.runner import calibrated_on, calibrations
from lab_utils.runner.calibrations import Calibrated, _Record, calibrated
from lab_utils.targets import PLANTED
from lab_utils.values.profiles import UsageError
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Finding, Verdict
from tests.lab_utils.made import result

CHECK = "per_user_agent_registry_isolation_validation"
NAMES = CHECKS[CHECK].planted


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The requests to the runner, which finds each planted registry by its name at once."""
    asked: list[dict[str, Any]] = []

    def calibrate(check: str, *, planted: Sequence[str], **options: Any) -> tuple[CheckResult, ...]:
        asked.append(options)
        return tuple(found(name, min(PLANTED[name].anomalies)) for name in planted)

    monkeypatch.setattr(calibrations, "calibrate", calibrate)
    monkeypatch.setattr(calibrations, "is_available", lambda: False)
    return asked


def found(target: str, anomaly: str) -> CheckResult:
    finding = Finding(anomaly, "seen", ("op 1",))
    return result(CHECK, Verdict.of([finding], 1, ""), target=target)


def ask(folder: Path, **options: Any) -> Calibrated:
    return calibrated(CHECK, folder=folder, run="r1", **{"profile": "smoke", "seed": 1, **options})


def only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_was_made_is_not_made_again_and_says_when_and_by_whom(made: list[dict[str, Any]], tmp_path: Path) -> None:
    first, second = ask(tmp_path), ask(tmp_path)
    assert first == second
    assert (len(made), second.made_by) == (1, "r1")
    assert second.made_at
    assert tuple(one.target for one in second.results) == ("SharedDispatcher", "CaseFoldedKeys")


def test_a_smoke_run_takes_one_for_each_anomaly_and_a_larger_one_or_all_every_one(
    made: list[dict[str, Any]], tmp_path: Path
) -> None:
    for check in CHECKS.values():
        few, every = calibrated_on(check.name, "smoke"), calibrated_on(check.name, "standard")
        assert [PLANTED[one].anomalies for one in few] == list(dict.fromkeys(PLANTED[one].anomalies for one in every))
        assert every == check.planted
    for asked in ({"profile": "standard"}, {"mode": "all"}):
        assert tuple(one.target for one in ask(tmp_path, **asked).results) == NAMES
    assert len(ask(tmp_path).results) < len(NAMES)


@pytest.mark.parametrize(
    "changed",
    [{"seed": 2}, {"profile": "standard"}, {"parameters": {"users": 3}}, {"mode": "always"}],
    ids=str,
)
def test_what_has_changed_makes_it_again(made: list[dict[str, Any]], tmp_path: Path, changed: dict[str, Any]) -> None:
    ask(tmp_path)
    ask(tmp_path, **changed)
    assert len(made) == 2


def test_a_changed_lab_makes_it_again(
    made: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(tmp_path)
    monkeypatch.setattr(calibrations, "_surroundings", lambda: "another state of code, Python and packages")
    ask(tmp_path)
    assert len(made) == 2


def test_code_python_and_packages_are_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("registry", "lab_utils"):
        (tmp_path / name / "room").mkdir(parents=True)
        (tmp_path / name / "room" / "code.py").write_text("x = 1")
    (tmp_path / "site" / "one-1.0.dist-info").mkdir(parents=True)
    monkeypatch.setattr(calibrations, "_PACKAGES", (tmp_path / "registry", tmp_path / "lab_utils"))
    monkeypatch.setattr("sys.path", [str(tmp_path / "site")])
    monkeypatch.setattr(calibrations, "code_digest", calibrations.code_digest.__wrapped__)
    digest = calibrations._surroundings.__wrapped__
    seen = [digest()]
    (tmp_path / "lab_utils" / "room" / "code.py").write_text("x = 2")
    seen.append(digest())
    (tmp_path / "lab_utils" / "room" / "service.toml").write_text("x = 2")
    seen.append(digest())
    (tmp_path / "site" / "one-1.0.dist-info").rename(tmp_path / "site" / "one-1.1.dist-info")
    seen.append(digest())
    monkeypatch.setattr("sys.version", "another")
    seen.append(digest())
    assert len(set(seen)) == 5
    assert digest() == seen[-1]


def rewrite(path: Path, **changed: Any) -> None:
    """A record that fits its digest."""
    record = msgspec.json.decode(json.dumps({**json.loads(path.read_text()), **changed}), type=_Record)
    path.write_bytes(msgspec.json.encode(replace(record, digest=calibrations._digest(record))))


def of_another_seed(path: Path) -> None:
    """Under the name and key of this one, as by a copy that was mended by hand."""
    this, key = path.read_bytes(), json.loads(path.read_text())["key"]
    ask(path.parent, seed=2)
    (other,) = set(path.parent.iterdir()) - {path}
    text = json.dumps({**json.loads(other.read_text()), "key": key})
    other.unlink()
    path.write_text(text)
    assert path.read_bytes() != this


def results(path: Path) -> list[str]:
    kept: list[str] = json.loads(path.read_text())["results"]
    return kept


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a word": lambda path: path.write_text(path.read_text().replace("seen", "sewn")),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "another day": lambda path: path.write_text(path.read_text().replace('"made_at":"20', '"made_at":"21')),
    "another key": lambda path: rewrite(path, key="0" * 64),
    "another format": lambda path: rewrite(path, format=99),
    "another seed": of_another_seed,
    "one less": lambda path: rewrite(path, results=results(path)[1:]),
    "not caught": lambda path: rewrite(
        path, results=[text.replace('"anomaly":"', '"anomaly":"other-') for text in results(path)]
    ),
}


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_or_foreign_record_is_not_believed(
    made: list[dict[str, Any]], tmp_path: Path, change: Callable[[Path], Any]
) -> None:
    ask(tmp_path)
    before = only(tmp_path).read_bytes()
    change(only(tmp_path))
    assert only(tmp_path).read_bytes() != before
    known = len(made)
    assert ask(tmp_path).results
    assert len(made) == known + 1


def test_what_was_not_caught_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missed = tuple(found(name, "another") for name in calibrated_on(CHECK, "smoke"))
    monkeypatch.setattr(calibrations, "calibrate", lambda check, **_: missed)
    assert [one.outcome for one in ask(tmp_path).results] == [one.outcome for one in missed]
    assert list(tmp_path.iterdir()) == []


def test_code_that_changes_meanwhile_keeps_nothing(
    made: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The checks' processes have the code of before, and the digest may be of that afterwards.
    for name in ("registry", "lab_utils"):
        (tmp_path / name).mkdir()
    code, kept = tmp_path / "lab_utils" / "code.py", tmp_path / "kept"
    code.touch()
    monkeypatch.setattr(calibrations, "_PACKAGES", (tmp_path / "registry", tmp_path / "lab_utils"))
    os.utime(code, (calibrations._IMPORTED_AT + 1, calibrations._IMPORTED_AT + 1))
    assert ask(kept).results
    assert not kept.exists()
    os.utime(code, (calibrations._IMPORTED_AT - 1, calibrations._IMPORTED_AT - 1))
    assert ask(kept) == ask(kept)
    assert len(made) == 2


def test_never_makes_none(made: list[dict[str, Any]], tmp_path: Path) -> None:
    assert ask(tmp_path, mode="never") == Calibrated((), "", "")
    assert made == []


def test_a_folder_that_cannot_be_written_keeps_nothing_and_fails_nothing(
    made: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert ask(tmp_path / "file").results


def test_old_records_go(made: list[dict[str, Any]], tmp_path: Path) -> None:
    for seed in range(12):
        ask(tmp_path, seed=seed)
    assert len(list(tmp_path.iterdir())) == 8


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'always'"):
        calibrated(CHECK, mode="allways", profile="smoke", seed=1)
    with pytest.raises(UsageError, match="did you mean"):
        calibrated(f"{CHECK}s", profile="smoke", seed=1)
