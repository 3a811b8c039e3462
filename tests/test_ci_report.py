"""The parts of the hosted action, run here as scripts: their arguments, their reports, and the places of these."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from lab_utils.interleavings import CheckToken
from lab_utils.judges.causes import causes
from lab_utils.judges.identity import identified
from lab_utils.output import pages
from lab_utils.output.store import CategoryResults, Store, read_run, save_category
from lab_utils.values.verdict import Finding, Verdict
from tests.lab_utils.made import CATEGORY, about, failed, result
from tests.running import load

ROOT = Path(__file__).resolve().parent.parent


ci_report = load(ROOT / "tools" / "ci_report.py")
LEAKS = [
    Finding("cross-user-data", f"number {n} %", ("raised in", "go, mine/agents.py:41, absent.py:3")) for n in range(5)
]
OTHER = Finding("lost-event", "one is missing\n::error::injected", ("w",))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "agents.py").write_text("...")
    opened = Store(tmp_path / "outputs").begin(about("first", "second", "third"))
    results = (
        result("first", failed(*LEAKS, OTHER)),
        result("second", Verdict.unknown("nothing was exercised")),
        result("third"),
    )
    save_category(opened.folder, CategoryResults(CATEGORY, True, results, ()))
    pages.publish(opened, "findings")
    return opened.finish("findings", pages.runs_page)


@pytest.mark.parametrize("name", ["mine/agents.py", "{root}/mine/agents.py", "{above}/{root}/mine/agents.py"])
def test_the_evidence_may_name_folders_above_the_root(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "agents.py").touch()
    place = name.format(root=tmp_path.name, above=tmp_path.parent.name)
    finding = Finding(
        "retained-object", "one is left", (f"other/mine/agents.py:3, its memory allocated at {place}:41",)
    )
    (cause,) = causes(identified([result("first", failed(finding))]))
    assert ci_report.place_of(cause, tmp_path) == ("mine/agents.py", 41)


def test_each_cause_is_one_error_at_the_users_line_with_its_replay(run: Path, tmp_path: Path) -> None:
    leak, lost, unknown = ci_report.errors(read_run(run), tmp_path)
    assert leak.startswith("::error file=mine/agents.py,line=41,title=cross-user-data in first::One user received data")
    assert "number 0 %25%0ARun it again: registry-lab replay rc1~" in leak
    CheckToken.parse(leak.rpartition(" ")[2])
    assert lost.startswith("::error title=lost-event in first::Clients never received some of their events.")
    assert "\n" not in lost
    assert unknown == "::error title=UNKNOWN second::nothing was exercised"


def test_a_known_cause_is_no_error(run: Path, tmp_path: Path) -> None:
    found = read_run(run)
    fingerprints = [one.fingerprint for one in ci_report.identified(found.results)]
    known = [{"check": "first", "fingerprint": one, "reason": "r", "expires": ""} for one in set(fingerprints)]
    found.about["baseline"] = {"source": "f", "known": known, "new": 0, "expired": 0, "regressions": 0, "gone": 0}  # type: ignore[typeddict-item]
    assert [line.partition("::")[2][:30] for line in ci_report.errors(found, tmp_path)] == [
        "error title=UNKNOWN second::no"
    ]


def test_the_summary_the_outputs_and_the_comment_are_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs.txt"))
    words = ["--comment", str(tmp_path / "comment.md"), "--root", str(tmp_path), "--report", "https://example.com/r"]
    assert ci_report.main([str(run), *words]) == 0
    assert (tmp_path / "summary").read_text() == (run / "summary.md").read_text()
    outputs = dict(line.split("=", 1) for line in (tmp_path / "outputs.txt").read_text().splitlines())
    assert (outputs["run"], outputs["status"], outputs["findings"]) == (run.name, "findings", "6")
    comment = (tmp_path / "comment.md").read_text()
    assert comment.startswith("<!-- agent-registry-lab agent_registry -->\n# AgentRegistry validation")
    assert comment.endswith("[The whole report](https://example.com/r)\n")
    assert capsys.readouterr().out.count("::error ") == 3


FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$@" >>"$SAID"
echo --- >>"$SAID"
case "$1" in
run) mkdir -p out/r1 && ln -sfn r1 out/latest && exit "$CODE" ;;
esac
"""


def ran(tmp_path: Path, **environment: str) -> tuple[list[list[str]], dict[str, str]]:
    """The script's calls, and its outputs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "registry-lab").write_text(FAKE)
    (tmp_path / "bin" / "registry-lab").chmod(0o755)
    said, outputs = tmp_path / "said", tmp_path / "outputs.txt"
    usual = {"TARGET": "mine:T", "OUT": "out", "CODE": "1", "SAID": str(said), "GITHUB_OUTPUT": str(outputs)}
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", str(ROOT / "tools" / "ci_run.sh")],
        env={"PATH": path, **usual, **environment},
        cwd=tmp_path,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    calls = [call.splitlines() for call in (said.read_text() if said.exists() else "").split("---\n") if call]
    return calls, dict(line.split("=", 1) for line in outputs.read_text().splitlines())


def test_the_script_runs_the_lab_bundles_the_report_and_keeps_the_code(tmp_path: Path) -> None:
    calls, outputs = ran(
        tmp_path, ARGUMENTS="--check a_check  --param users=3;touch$IFS$(touch x)", HISTORY="h", BASELINE="latest"
    )
    assert calls[0] == [
        *("run", "--target", "mine:T", "--profile", "smoke", "--out", "out", "--check", "a_check", "--param"),
        *("users=3;touch$IFS$(touch", "x)", "--history", "h", "--baseline", "latest"),
    ]
    assert calls[1][:2] == ["bundle", "latest"]
    assert not (tmp_path / "x").exists()
    assert outputs["code"] == "1"
    assert outputs["folder"] == str((tmp_path / "out" / "r1").resolve())


def test_a_service_is_judged_in_place_of_a_target_and_neither_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    calls, _ = ran(tmp_path / "one", TARGET="", SERVICE="service.toml")
    assert calls[0] == ["run", "--service", "service.toml", "--profile", "smoke", "--out", "out"]
    (tmp_path / "none").mkdir()
    assert ran(tmp_path / "none", TARGET="") == ([], {"code": "2"})


def test_wrong_usage_reports_no_earlier_run(tmp_path: Path) -> None:
    calls, outputs = ran(tmp_path, CODE="2")
    assert len(calls) == 1
    assert outputs == {"code": "2"}


def test_the_action_names_scripts_that_are_there_and_runs_no_text_of_an_input() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    scripts = [step["run"] for step in action["runs"]["steps"] if "run" in step]
    named = {
        word for text in scripts for word in text.replace('"', " ").replace("/", " ").split() if word.startswith("ci_")
    }
    assert named == {"ci_install.sh", "ci_run.sh", "ci_report.py"}
    assert all((ROOT / "tools" / name).is_file() for name in named)
    assert not [text for text in scripts if "inputs." in text or "outputs." in text]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "lab.yml").read_text())
    (used,) = [step for step in workflow["jobs"]["judge"]["steps"] if step.get("uses") == "./"]
    assert set(used["with"]) <= set(action["inputs"])
    given = next(step["env"] for step in action["runs"]["steps"] if step.get("id") == "run")
    assert {"TARGET": "${{ inputs.target }}", "SERVICE": "${{ inputs.service }}"}.items() <= given.items()
