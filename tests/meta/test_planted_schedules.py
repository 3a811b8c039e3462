"""Each defect planted for schedules is caught by one alone, and comes again from its token, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("detangle")

from lab_utils.checks import CHECKS
from lab_utils.checks.registration.callers import workload_of
from lab_utils.checks.registration.cores import Core
from lab_utils.cli import main
from lab_utils.cli.exits import Exit
from lab_utils.cli.replay import replay
from lab_utils.interleavings import Token, explore
from lab_utils.runner import run_check, was_caught
from lab_utils.targets import PLANTED
from lab_utils.targets.planted.registration import schedules
from lab_utils.values.verdict import Outcome

ROOT = Path(__file__).resolve().parents[2]
NAMES = [planted.name for planted in schedules.PLANTED]
LAST = "replay: registry-lab replay "


@pytest.mark.parametrize("name", NAMES)
def test_it_is_caught_and_its_token_runs_it_again_and_blames_no_twin(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (check,) = [check.name for check in CHECKS.values() if name in check.planted]
    # Within fewer deviations than the smoke profile has, in which the gallery's test runs them.
    result = run_check(check, target=name, parameters={"deviations": 1})
    assert was_caught(result), f"{result.verdict.reason}\n{result.traceback}"
    # Every finding is of a schedule: the plain runs of the check saw nothing.
    assert all(finding.witness[-1].startswith(LAST) for finding in result.verdict.findings)
    finding = next(one for one in result.verdict.findings if one.anomaly in PLANTED[name].anomalies)
    token = Token.parse(finding.witness[-1].removeprefix(LAST))
    assert (token.target, token.anomaly) == (name, finding.anomaly)

    def replayed(token: Token) -> tuple[int, str]:
        return main(["replay", str(token)]), capsys.readouterr().out

    code, said = replayed(token)
    assert code == 1
    assert "\n".join(finding.witness[:-1]) in said
    assert f"{finding.anomaly}: " in said
    assert said.endswith(f"The finding came again: {finding.anomaly}.\n")
    code, said = replayed(replace(token, anomaly="lost-event"))
    assert code == 4
    assert f"Another finding: {finding.anomaly}" in said
    assert said.endswith("; the token's was lost-event.\n")
    code, said = replayed(replace(token, target=PLANTED[name].twin))
    assert code == 0
    assert f"Nothing was found: {token.anomaly} did not come again." in said


def test_a_replay_is_the_same_in_other_processes() -> None:
    make = PLANTED["ResurrectedByLateInstall"].make
    failing = explore(workload_of(Core("create", "end", 0), make, 3), deviations=2).failing
    assert failing is not None
    token = Token("registration/create+end@0", "ResurrectedByLateInstall", failing.problem.anomaly, 3, failing.schedule)
    command = "import sys; from lab_utils.cli import main; sys.exit(main(sys.argv[1:]))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", command, "replay", str(token)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert said[0] == said[1]
    assert "\n".join(failing.interleaving) in said[0]


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("hello", "is not a token: a token begins with rl2~ or rc1~"),
        ("rl1~x", "is of version rl1"),
        (str(Token("registration/create+end@0", "agent_registri", "leak", 1, ())), "did you mean 'agent_registry'"),
        (str(Token("registration/create+ends@0", "agent_registry", "leak", 1, ())), "unknown workload"),
        (str(Token("registration/orchestrate+end@0", "reference", "leak", 1, ())), "cannot be run on reference"),
    ],
)
def test_a_token_that_cannot_be_run_is_wrong_usage(token: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", token]) == 2
    assert why in capsys.readouterr().err


def test_without_the_library_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["replay", "anything"]) == 3
    assert (
        "detangle not installed; this command needs: pip install 'agent-registry-lab[lab]'" in capsys.readouterr().err
    )


@pytest.mark.parametrize("check", [name for name, one in CHECKS.items() if set(NAMES) & set(one.planted)])
def test_without_the_library_a_check_does_not_pass_and_says_what_to_install(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "detangle", None)
    result = run_check(check, target="reference", in_process=True)
    assert result.outcome is Outcome.UNKNOWN
    assert result.verdict.reason == (
        "schedules were not explored: detangle is not installed; schedules need: pip install 'agent-registry-lab[lab]'"
    )
    assert "schedules explored" not in {one.metric for one in result.measurements}


def test_without_the_library_what_the_plain_runs_find_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detangle", None)
    result = run_check("agent_lifecycle_management_per_user", target="RemoveTakesOldest", in_process=True)
    assert was_caught(result)


def test_a_schedule_that_no_longer_fits_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    token = Token("registration/create+end@0", "reference", "leak", 1, ((500, 1),))
    assert replay(str(token)) is Exit.PASSED
    assert "could not be followed to its end" in capsys.readouterr().out
