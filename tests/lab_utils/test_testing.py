"""The checks as somebody's own tests: chosen, marked, expected to fail; and the plugin without any file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab_utils.checks import CHECKS
from lab_utils.cli import main
from lab_utils.targets.skeleton import MyTarget
from lab_utils.testing import (
    MARKERS,
    FindingsError,
    NoVerdictError,
    TargetCheck,
    _told,
    checks_of,
    parametrize_with_checks,
)
from lab_utils.values.profiles import UsageError
from lab_utils.values.verdict import Finding, Outcome
from tests.lab_utils.made import failed, result

SHARED = "shared_state_contamination_detection"
DISTINCT = "per_user_agent_registry_isolation_validation"

_TARGETS = """
from lab_utils.targets.skeleton import MyTarget, Registry

class Right(MyTarget):
    pass

class Leaks(MyTarget):
    memory = {}

    async def create(self, user, agent_type, **_):
        made = await super().create(user, agent_type)
        made.native.memory = self.memory
        return made
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "targets.py").write_text(_TARGETS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\npythonpath = .\naddopts = --strict-markers\nfilterwarnings = error\n"
    )
    return tmp_path


def pytested(folder: Path, *words: str, test: str = "") -> tuple[int, str]:
    """Run pytest with the plugin in the folder; return its exit code and output."""
    if test:
        (folder / "test_lab.py").write_text(f"from lab_utils.testing import parametrize_with_checks\n{test}")
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "lab_utils.testing", "-p", "no:cacheprovider", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_plugin_imports_nothing_of_the_lab_before_it_is_used() -> None:
    code = (
        "import pytest, sys; before = set(sys.modules); import lab_utils.testing; "
        "print(*sorted({one for one in set(sys.modules) - before if not one.startswith('_')}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["lab_utils", "lab_utils.testing"]


def test_every_marker_is_registered_with_the_plugin() -> None:
    assert set(MARKERS) == {marker for check in CHECKS.values() for marker in check.markers}


def test_wrong_names_are_told_before_anything_runs() -> None:
    with pytest.raises(UsageError, match=f"did you mean '{SHARED}'"):
        list(checks_of(MyTarget, checks=["shared_state_contamination_detections"]))
    with pytest.raises(UsageError, match="does not apply to 'MyTarget', which lacks events"):
        list(checks_of(MyTarget, checks=["event_delivery_isolation_between_users"]))
    with pytest.raises(UsageError, match="unknown parameter 'user'"):
        list(checks_of(MyTarget, parameters={"user": 3}))
    with pytest.raises(UsageError, match="is below 2 users"):
        list(checks_of(MyTarget, parameters={"users": 1}))
    with pytest.raises(UsageError, match="unknown profile 'smokey'"):
        list(checks_of(MyTarget, profile="smokey"))
    with pytest.raises(UsageError, match="needs a target"):
        parametrize_with_checks()
    with pytest.raises(
        UsageError, match=f"expected_failures: unknown check of these targets 'shared'; known: {SHARED}"
    ):
        parametrize_with_checks(MyTarget, checks=[SHARED], expected_failures={"shared": "a reason"})


def one(name: str, target: type[MyTarget], **parameters: int) -> TargetCheck:
    (check,) = checks_of(target, checks=[name], parameters=parameters)
    return check


class Crashes(MyTarget):
    async def create(self, *_: object, **__: object) -> None:  # type: ignore[override]
        return None


def test_a_pass_returns_its_result_and_a_crash_is_no_finding() -> None:
    assert one(DISTINCT, MyTarget, users=2)(in_process=True).outcome is Outcome.PASS
    with pytest.raises((FindingsError, NoVerdictError)) as caught:
        one(DISTINCT, Crashes, users=2)(in_process=True)
    again = f"again: registry-lab check {DISTINCT} --target {__name__}:Crashes --profile smoke"
    assert again in str(caught.value)


def test_a_failure_ends_with_the_remedy_of_its_anomaly() -> None:
    finding = Finding("aliased-input", "a later change of a value changed the stored data", ("before", "after"))
    own = Finding("two-bills", "a customer was billed twice", ("bill 1",))
    text = _told(result("made_up", failed(finding, finding, own)), "")
    assert text.count("remedy: Make a deep copy") == 1
    assert text.index("remedy:") < text.index("two-bills: ")


def test_what_has_no_name_on_a_command_line_is_not_to_be_run_again_there() -> None:
    class Nested(Crashes):
        pass

    with pytest.raises((FindingsError, NoVerdictError)) as caught:
        one(DISTINCT, Nested, users=2)(in_process=True)
    assert "again:" not in str(caught.value)


def test_the_tests_of_a_target_are_the_checks_that_run_on_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "checks", "--target", "lab_utils.targets.skeleton:MyTarget"]) == 0
    runs = re.findall(r"^  ([a-z_]+): RUNS", capsys.readouterr().out, re.MULTILINE)
    assert [check.name for check in checks_of(MyTarget)] == runs
    assert len(runs) > 8
    with pytest.raises(UsageError, match="does not apply"):
        list(checks_of(MyTarget, checks=["agent_and_user_limit_enforcement"]))


def test_the_skeleton_passes_the_check_that_it_names() -> None:
    assert one(SHARED, MyTarget)().outcome is Outcome.PASS


def test_findings_are_the_message_and_an_expected_failure_that_passes_fails(suite: Path) -> None:
    test = f"""
from targets import Leaks, Right

@parametrize_with_checks(Leaks, checks=["{SHARED}", "{DISTINCT}"], expected_failures={{"{DISTINCT}": "never true"}})
def test_leaks(check):
    check()

@parametrize_with_checks("targets:Leaks", checks=["{SHARED}"], expected_failures={{"{SHARED}": "issue 12"}})
def test_known(check):
    check()
"""
    code, out = pytested(suite, "-ra", test=test)
    assert code == 1
    assert re.search(r"1 xfailed", out)
    assert "2 failed" in out
    assert "cross-user-data: " in out
    assert f"FAILED test_lab.py::test_leaks[{DISTINCT}]" in out
    assert "[XPASS(strict)] never true" in out
    assert f"XFAIL test_lab.py::test_known[{SHARED}] - issue 12" in out
    assert "lab_utils/testing.py" not in out.partition("short test summary")[0].replace("plugins:", "")


def test_no_verdict_is_not_an_expected_failure(suite: Path) -> None:
    test = f"""
from lab_utils.testing import TargetCheck, NoVerdictError

def crash(self, **_):
    raise NoVerdictError("nothing was exercised")

TargetCheck.__call__ = crash

@parametrize_with_checks("targets:Right", checks=["{SHARED}"], expected_failures={{"{SHARED}": "issue 12"}})
def test_known(check):
    check()
"""
    code, out = pytested(suite, test=test)
    assert code == 1
    assert "1 failed" in out
    assert "nothing was exercised" in out


def test_the_command_line_needs_no_file_and_choices_work(suite: Path) -> None:
    (suite / "test_other.py").write_text("def test_other(): assert False\n")
    code, out = pytested(
        suite, "--lab-target", "targets:Leaks", "-m", "user_isolation", "-k", "state or per_user", "-v"
    )
    assert code == 1
    assert "1 failed, 1 passed" in out
    assert f"FAILED targets:Leaks::{SHARED}" in out
    assert f"targets:Leaks::{DISTINCT} PASSED" in out
    assert "test_mine" not in out
    assert "cross-user-data: " in out


def test_tests_that_are_only_collected_are_counted(suite: Path) -> None:
    code, out = pytested(suite, "--lab-target", "targets:Right", "-k", f"state or {DISTINCT}", "--collect-only")
    assert code == 0, out
    assert re.search(r"2/\d+ tests collected", out), out


def test_the_command_line_beside_files_and_with_workers(suite: Path) -> None:
    (suite / "test_mine.py").write_text("def test_mine(): pass\n")
    words = (
        "-p",
        "xdist.plugin",
        "-n",
        "2",
        "--lab-target",
        "targets:Right",
        "-k",
        f"mine or {DISTINCT}",
        "test_mine.py",
    )
    code, out = pytested(suite, *words)
    assert code == 0, out
    assert "2 passed" in out


def test_a_target_that_cannot_be_made_is_wrong_usage(suite: Path) -> None:
    code, out = pytested(suite, "--lab-target", "targets:Rigth")
    assert code == 4
    assert "did you mean 'Right'?" in out
