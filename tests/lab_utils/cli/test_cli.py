"""registry-lab: wrong words are said before anything runs, and each way to end has its exit code."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab_utils.batch import Ended, Status
from lab_utils.checks import CHECKS
from lab_utils.cli import display, main, plan, running
from lab_utils.notebook import read_protects
from lab_utils.notebook.lab import CHECKS_VARIABLE
from lab_utils.output import pages
from lab_utils.output.store import summaries, writing
from lab_utils.runner import DEFAULT_SEED
from lab_utils.targets import PLANTED
from lab_utils.values.profiles import CATEGORIES, Parameter, UsageError
from lab_utils.values.quantities import counted
from lab_utils.values.verdict import Verdict
from tests.lab_utils.cli.notebooks import NAMES, Notebooks
from tests.lab_utils.made import CATEGORY, failed, result

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = next(name for name, check in CHECKS.items() if check.category == "golden_path")


def run(*words: str) -> int:
    return main(["run", CATEGORY, *words])


def states(folder: Path) -> list[str]:
    return [found.state for found in summaries(folder / "outputs")]


# ---------------------------------------------------------------------------------------------------------- how it ends


def test_a_run_where_all_passes_ends_with_0_and_the_path_of_its_report(
    notebooks: Notebooks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    report = Path(out.splitlines()[-1].removeprefix("report: "))
    assert (tmp_path / report).is_file()
    assert report.parent.resolve() == (tmp_path / "outputs" / "latest").resolve()
    assert f"{len(NAMES)}/{len(NAMES)}" in out
    assert states(tmp_path) == ["passed"]
    index = (tmp_path / "outputs" / "index.html").read_text()
    assert f'{report.parent.name}/index.html"' in index


@pytest.mark.parametrize("verdict", [failed(), Verdict.unknown("nothing was exercised")])
def test_findings_and_unknowns_end_with_1(notebooks: Notebooks, tmp_path: Path, verdict: Verdict) -> None:
    notebooks.results[-1] = result(NAMES[-1], verdict)
    notebooks.ended = Ended(Status.FAILED, 1.0, "gate")
    assert run() == 1
    assert states(tmp_path) == ["findings"]


def test_a_run_in_which_nothing_applied_says_why_it_is_no_pass(
    notebooks: Notebooks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebooks.results = [result(name, Verdict.not_applicable("no threads")) for name in NAMES]
    assert run() == 1
    assert states(tmp_path) == ["findings"]
    out = capsys.readouterr().out
    assert "no check passed, so nothing was shown" in out
    assert f"  {len(NAMES)} n/a" in out


def test_checks_with_one_reason_have_one_line(notebooks: Notebooks, capsys: pytest.CaptureFixture[str]) -> None:
    notebooks.results = [result(name, Verdict.unknown("nothing starts")) for name in NAMES]
    notebooks.results[-1] = result(NAMES[-1], Verdict.unknown("something else"))
    assert run() == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("UNKNOWN")]
    assert lines == [
        f"UNKNOWN {NAMES[0]} and {counted(len(NAMES) - 2, 'other check')}: nothing starts",
        f"UNKNOWN {NAMES[-1]}: something else",
    ]


def test_the_parts_that_were_left_out_are_a_number_in_the_summary(
    notebooks: Notebooks, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = "; left out: events (the target lacks: events); left out: " + "tools, " * 99
    notebooks.results[0] = result(NAMES[0], replace(failed(), reason=f"1 finding: canary-leak{parts}"))
    assert run() == 1
    assert f"FAIL {NAMES[0]}: 1 finding: canary-leak; 2 parts left out\n" in capsys.readouterr().out


def test_a_finding_counts_though_its_notebook_is_ok_and_what_does_not_apply_stands_beside(
    notebooks: Notebooks, capsys: pytest.CaptureFixture[str]
) -> None:
    notebooks.results[0] = result(NAMES[0], Verdict.not_applicable("no threads"))
    notebooks.results[1] = result(NAMES[1], failed())
    assert run() == 1
    assert f"{len(NAMES) - 2}/{len(NAMES) - 1}, 1 n/a" in capsys.readouterr().out


def test_a_check_that_left_no_result_is_no_pass(notebooks: Notebooks, capsys: pytest.CaptureFixture[str]) -> None:
    del notebooks.results[0]
    assert run() == 1
    assert f"UNKNOWN {NAMES[0]}" in capsys.readouterr().out


def test_a_planted_registry_that_was_not_caught_ends_with_1_and_is_said_loudly(
    notebooks: Notebooks, capsys: pytest.CaptureFixture[str]
) -> None:
    notebooks.caught = False
    assert run() == 1
    assert f"NOT CAUGHT SharedDispatcher by {NAMES[0]}" in capsys.readouterr().out


@pytest.mark.parametrize("status", [Status.ERROR, Status.TIMEOUT, Status.DEAD_KERNEL])
def test_a_lab_that_failed_ends_with_3_and_still_reports(
    notebooks: Notebooks, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: Status
) -> None:
    notebooks.ended = Ended(status, 1.0, "it was so")
    assert run() == 3
    assert f"{status.upper()} {CATEGORY}: it was so" in capsys.readouterr().out
    assert states(tmp_path) == ["error"]
    assert "it was so" in (tmp_path / "outputs" / "latest" / "index.html").read_text()


def interrupt() -> None:
    raise KeyboardInterrupt


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def hang_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.parametrize("stop", [interrupt, terminate, hang_up])
def test_an_interrupted_run_stays_partial_with_a_report(
    notebooks: Notebooks, tmp_path: Path, stop: Callable[[], None], request: pytest.FixtureRequest
) -> None:
    # The tests may run behind `nohup`, which has it ignored.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, before))
    notebooks.meanwhile = stop
    assert run() == 130
    assert states(tmp_path) == ["cancelled"]
    (partial,) = (tmp_path / "outputs").glob("*.partial")
    assert "Interrupted" in (partial / "index.html").read_text()
    assert not (tmp_path / "outputs" / "latest").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_a_terminal_that_is_closed_does_not_stop_a_run_under_nohup(notebooks: Notebooks, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        notebooks.meanwhile = hang_up
        assert run() == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert states(tmp_path) == ["passed"]


def test_a_lab_that_breaks_ends_with_3_and_says_where(
    notebooks: Notebooks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def boom() -> None:
        raise RuntimeError("disk on fire\x1b[31m")

    notebooks.meanwhile = boom
    for folder, more in (("outputs", ""), ("my runs", " --out 'my runs'")):
        assert run("--out", folder) == 3
        out, err = capsys.readouterr()
        assert "RuntimeError: disk on fire\\x1b[31m\n" in err
        assert [found.state for found in summaries(tmp_path / folder)] == ["error"]
        (partial,) = (tmp_path / folder).glob("*.partial")
        assert out.splitlines()[-2:] == [
            f"partial report: {folder}/{partial.name}/index.html",
            f"registry-lab run --resume {partial.name.removesuffix('.partial')}{more} makes what is missing",
        ]


def test_a_lab_that_breaks_before_a_run_has_begun_promises_none(
    notebooks: Notebooks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def boom() -> Path:
        raise RuntimeError("no notebooks")

    monkeypatch.setattr(running, "notebooks_folder", boom)
    assert run() == 3
    out, err = capsys.readouterr()
    assert "partial" not in out + err
    assert err.splitlines()[-1] == "registry-lab: the lab itself failed, see above"


def test_a_folder_that_cannot_be_written_ends_with_3(
    notebooks: Notebooks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert run("--out", "elsewhere") == 3
    assert "cannot write to" in capsys.readouterr().err
    assert notebooks.jobs == []


def test_a_full_disk_is_one_sentence_and_what_is_kept_is_named(
    notebooks: Notebooks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, _: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def fill() -> None:
        monkeypatch.setattr(writing, "write", full)
        # Pages are written by another process, which meets the same disk.
        monkeypatch.setattr(running, "publish", lambda opened, status: full(opened.folder, status))

    notebooks.meanwhile = fill
    assert run() == 3
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert re.search(r"nothing more can be written to .*run\.json: No space left on device; free some space", line)
    (partial,) = (tmp_path / "outputs").glob("*.partial")
    assert out.splitlines()[-1] == f"the unfinished run: outputs/{partial.name}"


def test_a_run_that_is_finished_is_told_by_its_exit_code_whatever_the_summary_does(
    notebooks: Notebooks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def boom(*_: object) -> None:
        raise UnicodeError("odd text")

    monkeypatch.setattr(display, "summary", boom)
    notebooks.results[0] = result(NAMES[0], failed())
    assert run() == 1
    assert states(tmp_path) == ["findings"]
    assert "the summary cannot be shown (UnicodeError: odd text); the report is in" in capsys.readouterr().err


def test_a_list_of_runs_that_cannot_be_written_changes_nothing_for_the_run(
    notebooks: Notebooks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def boom(*_: object) -> str:
        raise ValueError("an old run of another shape")

    monkeypatch.setattr(pages, "runs_page", boom)
    assert run() == 0
    out, err = capsys.readouterr()
    assert "the list of runs cannot be written (ValueError: an old run of another shape)" in err
    assert (tmp_path / out.splitlines()[-1].removeprefix("report: ")).is_file()
    assert list((tmp_path / "outputs").glob("*.partial")) == []


# ------------------------------------------------------------------------------------------------------ its arguments


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["user_isolatoin"], "did you mean 'user_isolation'"),
        ([CATEGORY, "--profile", "smok"], "did you mean 'smoke'"),
        ([CATEGORY, "--target", "agent_registri"], "did you mean 'agent_registry'"),
        ([CATEGORY, "--param", "user=3"], "did you mean 'users'"),
        ([CATEGORY, "--param", "users"], "name=value"),
        ([CATEGORY, "--param", "=3"], "name=value"),
        ([CATEGORY, "--param", "users=many"], "a whole number such as 8"),
        ([CATEGORY, "--param", "users=007"], "a whole number"),
        ([CATEGORY, "--param", "users=1"], "below 2"),
        ([CATEGORY, "--param", "user_isolaton.users=3"], "did you mean 'user_isolation'"),
        ([CATEGORY, "--param", "golden_path.users=3"], "not among the categories"),
        ([CATEGORY, "--param", f"{CATEGORY}.racers=3"], "unknown parameter 'racers'"),
        ([CATEGORY, "--seed", "-1"], "--seed -1"),
        ([CATEGORY, "--param", "users=99999999999999999999"], "users=99999999999999999999 is above 100,000 users"),
        ([CATEGORY, "--param", f"users={'9' * 5_000}"], "a whole number"),
        ([CATEGORY, "--check", "nothing"], "unknown check 'nothing'"),
        ([CATEGORY, "--check", CATEGORY], f"a category, not a check: registry-lab run {CATEGORY}"),
        (["golden_path", "--check", NAMES[0]], "none of the checks asked for is of golden_path"),
        ([CATEGORY, "--check", NAMES[0], "--check", GOLDEN], "golden_path is not among the categories to run"),
        (["--check", NAMES[0], "--param", "records_per_user=9"], "unknown parameter 'records_per_user'"),
        ([CATEGORY, "--calibrate", "sometimes"], "unknown calibration mode 'sometimes'"),
        ([CATEGORY, "--check-timeout", "0"], "--check-timeout 0"),
        ([CATEGORY, "--check-timeout", "inf"], "--check-timeout inf"),
        ([CATEGORY, "--out", ""], "--out is empty"),
        ([CATEGORY, "--out", __file__], "is not a folder"),
        ([CATEGORY, "--out", f"{__file__}/outputs"], "is not a folder"),
        ([CATEGORY, "--out", "x" * 5_000], "File name too long"),
        ([CATEGORY, "--out", "a\0b"], "a\\x00b is not text"),
        ([CATEGORY, "--out", "\udcff"], "\\udcff is not text"),
        ([CATEGORY, "--target", "\ud800:T"], "\\ud800:T is not text"),
        ([CATEGORY, "--history", ""], "--history is empty"),
        ([CATEGORY, "--history", __file__], "is not a folder"),
        ([CATEGORY, "--history", f"{__file__}/history"], "is not a folder"),
        ([CATEGORY, "--jobs", "0"], "--jobs 0"),
        ([CATEGORY, "--jobs", "100000000000"], "--jobs 100000000000"),
        ([CATEGORY, "--timeout", "0"], "--timeout 0"),
        ([CATEGORY, "--timeout", "nan"], "--timeout nan"),
        ([CATEGORY, "--protects", "nowhere.toml"], "cannot read nowhere.toml"),
    ],
)
def test_wrong_words_end_with_2_before_anything_runs(
    notebooks: Notebooks, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["run", *words]) == 2
    assert said in capsys.readouterr().err
    assert notebooks.jobs == []
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_that_does_not_take_the_parameters_is_found_before_anything_runs(
    notebooks: Notebooks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own").mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        (tmp_path / "own" / path.name).write_text(path.read_text().replace("users = ", "people = "))
    monkeypatch.setattr(running, "notebooks_folder", lambda: tmp_path / "own")
    assert run() == 2
    assert "unknown parameter 'users'" in capsys.readouterr().err
    assert notebooks.jobs == []
    assert not (tmp_path / "outputs").exists()


def test_the_notebooks_are_given_the_profiles_values_and_the_own_ones(notebooks: Notebooks, tmp_path: Path) -> None:
    words = ("--profile", "standard", "--param", "users=50", "-p", f"{CATEGORY}.cycles=12", "--seed", "7")
    assert run(*words, "--target", next(iter(PLANTED))) == 0
    category, *of_the_run = notebooks.jobs
    assert {**category.parameters, "save_to": None} == {
        "users": 50,
        "agents_per_user": 10,
        "cycles": 12,
        "patience": 30,
        "target": next(iter(PLANTED)),
        "profile": "standard",
        "seed": 7,
        "protects": "",
        "save_to": None,
        "fail_on_findings": True,
    }
    assert category.parameters["save_to"] == "$REGISTRY_LAB_RUN"
    assert [job.parameters for job in of_the_run] == [{"run": category.parameters["save_to"]}] * 3
    recorded = json.loads((tmp_path / "outputs" / "latest" / "run.json").read_text())
    assert recorded["seed"] == 7
    assert recorded["parameters"][CATEGORY] == {"users": 50, "agents_per_user": 10, "cycles": 12, "patience": 30}
    assert recorded["command"].endswith("--seed 7 --param users=50 --param user_isolation.cycles=12")


def test_single_checks_are_run_and_reported_alone(
    notebooks: Notebooks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CHECKS_VARIABLE, "left by somebody")
    asked: list[str] = []
    notebooks.meanwhile = lambda: asked.append(os.environ[CHECKS_VARIABLE])
    notebooks.results = [result(NAMES[1])]
    notebooks.caught = True
    assert main(["run", "--check", NAMES[1], "--check-timeout", "7"]) == 0
    # The notebook of its category, those of the run as a whole, and no other.
    assert [job.name for job in notebooks.jobs] == [CATEGORY, "overview", "planted_defects", "frameworks"]
    assert set(asked) == {NAMES[1]}
    assert os.environ[CHECKS_VARIABLE] == "left by somebody"
    about = json.loads((tmp_path / "outputs" / "latest" / "run.json").read_text())
    assert about["only_checks"] == [NAMES[1]]
    assert [row["check"] for row in about["checks"]] == [NAMES[1]]
    assert f"registry-lab run {CATEGORY} --check {NAMES[1]} --profile smoke" in about["command"]
    assert "--check-timeout 7" in about["command"]
    assert about["outcomes"] == {"PASS": 1}
    assert f"only: {NAMES[1]}" in capsys.readouterr().out
    assert f"Only these were asked for: {NAMES[1]}" in (tmp_path / "outputs" / "latest" / "index.html").read_text()
    asked.clear()
    assert run() == 1
    assert set(asked) == {""}


def test_without_words_all_categories_run_the_longest_first_with_the_fixed_seed(
    notebooks: Notebooks, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run"])
    names = [job.name for job in notebooks.jobs]
    registries = [name for name, category in CATEGORIES.items() if not category.of_services]
    assert sorted(names[:-3]) == sorted(registries)
    assert names[0] == max(CATEGORIES.values(), key=lambda category: category.weight).name
    assert names[-3:] == ["overview", "planted_defects", "frameworks"]
    # Shown, they stand as ever.
    shown = [
        line.split()[0]
        for line in capsys.readouterr().out.splitlines()
        if line.split()[1:2] == ["ok"] and ":" not in line
    ]
    assert shown == [*registries, "overview", "planted_defects", "frameworks"]
    assert {job.parameters["seed"] for job in notebooks.jobs if job.category} == {DEFAULT_SEED}


def test_a_service_is_not_shown_beside_the_frameworks(notebooks: Notebooks) -> None:
    main(["run", "--service", str(Path(running.__file__).parents[1] / "service" / "planted" / "service.toml")])
    assert [job.name for job in notebooks.jobs] == ["service", "overview", "planted_defects"]


def test_a_run_without_calibrations_has_no_page_of_planted_defects(notebooks: Notebooks) -> None:
    main(["run", CATEGORY, "--calibrate", "never"])
    assert [job.name for job in notebooks.jobs] == [CATEGORY, "overview", "frameworks"]


def test_a_parameter_goes_to_every_category_that_has_it(notebooks: Notebooks) -> None:
    main(["run", "golden_path", CATEGORY, CATEGORY, "--param", "users=9", "--param", "records_per_user=33"])
    given = {job.name: job.parameters for job in notebooks.jobs}
    assert list(given) == [CATEGORY, "golden_path", "overview", "planted_defects", "frameworks"]
    assert (given[CATEGORY]["users"], given["golden_path"]["users"]) == (9, 9)
    assert given["golden_path"]["records_per_user"] == 33
    assert "records_per_user" not in given[CATEGORY]


def test_own_texts_reach_the_notebooks_and_the_report(notebooks: Notebooks, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(f'{NAMES[0]} = "the Zürich \\"contract\\""\ndata = "ours"')
    del notebooks.results[:]
    run("--protects", "own.toml")
    assert notebooks.jobs[0].parameters["protects"] == "$REGISTRY_LAB_RUN/protects.toml"
    kept = tmp_path / "outputs" / "latest" / "protects.toml"
    assert read_protects(kept, (NAMES[0], "data")) == {NAMES[0]: 'the Zürich "contract"', "data": "ours"}
    recorded = json.loads((tmp_path / "outputs" / "latest" / "run.json").read_text())
    assert recorded["checks"][0]["protects"] == 'the Zürich "contract"'


FLAG = Parameter("flag", "switch", False, False, False, 0)
SHARE = Parameter("share", "of 1", 0.5, 0.5, 0.5, 0)
NAME = Parameter("name", "name", "a", "b", "c", 0)
REFUSED = {"flag": ("0", "no", ""), "share": ("nan", "inf", "1e999", "half")}


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        (FLAG, "false", False),
        (FLAG, "True", True),
        (SHARE, "1", 1.0),
        (SHARE, "-2.5e-3", -0.0025),
        (NAME, "007", "007"),
    ],
)
def test_values_arrive_with_their_own_type(parameter: Parameter, text: str, value: object) -> None:
    read = plan.read_value(parameter, text)
    assert (read, type(read)) == (value, type(value))
    for other in REFUSED.get(parameter.name, ()):
        with pytest.raises(UsageError, match=parameter.name):
            plan.read_value(parameter, other)


# ------------------------------------------------------------------------------------------------ the lists


def test_the_lists_name_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in (*CHECKS, *PLANTED, *CATEGORIES, "smoke", "reference", "agents_per_user"):
        assert name in out


def test_one_list_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "profiles"]) == 0
    out = capsys.readouterr().out
    assert "stress" in out
    assert "agents_per_user" not in out


def test_a_list_a_command_or_an_option_that_is_none_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, meant in ((["list", "profile"], "profiles"), (["chek"], "check")):
        assert main(words) == 2
        assert f"did you mean '{meant}'" in capsys.readouterr().err
    for words, said in (
        (["run", "--chek", "x"], "--chek; did you mean --check?"),
        (["run", "--seed", "x"], "'x'"),
        ([], "wrong usage"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------- the base install

WITHOUT = """
import sys
lab = "papermill nbclient nbconvert nbformat ipykernel IPython pandas numpy pyarrow jinja2 rich"
sys.modules |= dict.fromkeys([*lab.split(), *"jupyterlab jupyter_client jupyter_core pygments traitlets".split()])
from lab_utils.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_the_extra(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *words], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_the_base_install_lists_and_wrong_words_are_wrong_there_too() -> None:
    ran, wrong = without_the_extra("list"), without_the_extra("run", "user_isolatoin")
    assert (ran.returncode, ran.stderr, wrong.returncode) == (0, "", 2)
    assert "per_user_agent_registry_isolation_validation" in ran.stdout
    assert "did you mean" in wrong.stderr


@pytest.mark.parametrize("words", [["run"], ["lab"], ["run", "--protects", "x.toml"]])
def test_the_base_install_says_in_one_line_what_is_missing(words: list[str]) -> None:
    ran = without_the_extra(*words)
    assert (ran.returncode, ran.stdout) == (3, "")
    (line,) = ran.stderr.splitlines()
    assert "pip install 'agent-registry-lab[lab]'" in line


def test_a_registry_of_theirs_that_hides_the_labs_own_is_wrong_usage(tmp_path: Path) -> None:
    theirs = tmp_path / "registry.py"
    theirs.write_text("")
    code = f"import sys; sys.path.append({str(ROOT)!r}); from lab_utils.cli import main; sys.exit(main(['list']))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    (line,) = ran.stderr.splitlines()
    assert f"'registry' at {theirs} hides the lab's own package" in line
