"""The table of public frameworks: each promise has a script that shows its anomaly against the framework alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils.judges.anomalies import SENTENCES
from lab_utils.targets import FRAMEWORKS

REPRODUCTIONS = Path(__file__).parents[3] / "examples" / "reproductions"
BY_STEM = {
    promise.reproduction: framework for framework in FRAMEWORKS.values() for promise in framework.promises.values()
}


def test_each_promise_is_of_a_known_anomaly_and_has_its_short_reproduction() -> None:
    assert {anomaly for one in FRAMEWORKS.values() for anomaly in one.promises} <= set(SENTENCES)
    lines = {path.stem: path.read_text().splitlines() for path in REPRODUCTIONS.glob("*.py")}
    assert set(lines) == set(BY_STEM)
    assert {stem for stem, text in lines.items() if sum(bool(line.strip()) for line in text) > 30} == set()


@pytest.mark.parametrize("stem", sorted(BY_STEM))
def test_each_reproduction_shows_its_anomaly(stem: str) -> None:
    framework = BY_STEM[stem]
    if not framework.is_installed:
        pytest.skip(framework.remedy)
    shown = subprocess.run([sys.executable, REPRODUCTIONS / f"{stem}.py"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert len(shown.stdout.splitlines()) >= 1
