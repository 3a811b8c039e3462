"""tests/unified_test_runner.py: its call of pytest, and that nothing collected is a failure."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unified_test_runner import command

ROOT = Path(__file__).resolve().parent.parent


def chosen(*arguments: str) -> list[str]:
    return command(arguments, argparse.ArgumentParser())


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    runner = [sys.executable, "tests/unified_test_runner.py", *arguments]
    return subprocess.run(runner, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_reaches_pytest() -> None:
    assert chosen() == ["tests"]
    assert chosen("--golden-path-validation") == ["tests", "-m", "golden_path"]
    assert chosen("--include-path", "tests/test_environment.py", "--", "-k", "x") == [
        "tests/test_environment.py",
        "-k",
        "x",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--category", "integraton"], "did you mean 'integration'"),
        (["--include-path", "tests/nowhere"], "there is no tests/nowhere"),
        (["--category", "meta", "--include-path", "tests/test_environment.py"], "outside the category meta"),
        (["--categories"], "unrecognized"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_known(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        chosen(*arguments)
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_pytests_exit_code_comes_back() -> None:
    here = ["--include-path", "tests/test_environment.py", "--", "-q", "-p", "no:cacheprovider"]
    assert ran(*here, "-k", "every_requirement_has_one_lower_bound").returncode == 0
    none = ran(*here, "-k", "no_test_has_this_name")
    assert none.returncode == 5
    assert "this is a failure" in none.stderr
