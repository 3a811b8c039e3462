"""A finding of a run is run again by its key or by its token, and the new finding is compared by its fingerprint."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from lab_utils.cli import main
from lab_utils.interleavings import CheckToken
from lab_utils.judges.identity import identified
from lab_utils.runner import run_check
from lab_utils.runner.again import token_of
from lab_utils.values.result import CheckResult
from tests.lab_utils.made import finished

CHECK = "agent_registration_with_user_context_isolation"
PLANTED = "LookupCreates"


@pytest.fixture(scope="module")
def failing() -> CheckResult:
    return run_check(CHECK, target=PLANTED, parameters={"users": 3})


@pytest.fixture
def outputs(failing: CheckResult, tmp_path: Path) -> Path:
    finished(tmp_path, failing, target=PLANTED)
    return tmp_path


def test_a_finding_of_a_run_comes_again_by_its_key(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["latest", "F1"], [str(outputs / "latest"), "f1"]):
        assert main(["replay", *words, "--out", str(outputs)]) == 1
        said = capsys.readouterr().out
        assert f"{CHECK} on {PLANTED}, profile smoke, seed 20261, users=3" in said
        assert said.endswith("The finding came again: lookup-created.\n")


def test_its_token_does_the_same_and_a_right_registry_has_nothing(
    failing: CheckResult, capsys: pytest.CaptureFixture[str]
) -> None:
    token = token_of(identified([failing])[0])
    assert isinstance(token, CheckToken)
    assert main(["replay", *shlex.split(str(token))]) == 1
    assert main(["replay", str(replace(token, target="reference"))]) == 0
    assert "Nothing was found: lookup-created did not come again." in capsys.readouterr().out


def test_another_finding_is_not_called_the_same(failing: CheckResult, capsys: pytest.CaptureFixture[str]) -> None:
    token = token_of(identified([failing])[0])
    assert isinstance(token, CheckToken)
    assert main(["replay", str(replace(token, target="GhostSession"))]) == 4
    said = capsys.readouterr().out
    assert "Another finding: left-behind" in said
    assert said.endswith("; the token's was lookup-created.\n")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["latest", "F99"], "unknown finding 'F99'; run latest has F1 to F"),
        (["never", "F1"], "no run 'never'"),
        (["latest", "F1", "F2"], "give a run and the key of a finding"),
        (["rc1~x"], "copy it whole"),
    ],
)
def test_what_cannot_be_run_is_wrong_usage(
    outputs: Path, words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", *words, "--out", str(outputs)]) == 2
    assert why in capsys.readouterr().err
