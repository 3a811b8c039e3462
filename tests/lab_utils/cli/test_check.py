"""`registry-lab check`: one check, no notebook, and all that is to be known of its result."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lab_utils.checks import CHECKS
from lab_utils.cli import main
from lab_utils.cli.check import _findings
from lab_utils.runner import calibrations, watch
from lab_utils.runner.calibrations import KEPT_VARIABLE, Calibrated
from lab_utils.values.verdict import Finding, Verdict
from tests.lab_utils.made import failed, result

PARTS = "per_user_agent_registry_isolation_validation"
SCHEDULES = "concurrent_agent_registration_safety"
THREADS = "agent_retrieval_by_user_and_thread_isolation"
STRICT = "strict_context_enforcement"

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run the command; return its exit code and its output. No calibration is kept yet."""
    monkeypatch.setenv(KEPT_VARIABLE, str(tmp_path / "kept"))
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["check", *words])
        return code, *capsys.readouterr()

    return run


def module(folder: Path, body: str) -> str:
    """The name of a target that a test's own module has; a name of its own, for modules that were imported are kept."""
    name = f"their_{folder.name}"
    (folder / f"{name}.py").write_text(f"from lab_utils.targets.reference import ReferenceTarget\n{body}")
    return f"{name}:T"


def test_a_check_that_passes_says_what_it_did_and_whether_it_was_calibrated(check: Said) -> None:
    code, out, err = check(PARTS, "--param", "users=5")
    assert (code, err) == (0, "")
    first, *lines = out.splitlines()
    assert first == f"PASS {PARTS} on agent_registry"
    assert any(re.fullmatch(r"  \d+ pairs of users compared, .*", line) for line in lines)
    assert "  agents created: 20 agents" in lines
    assert any(line.startswith("  not calibrated") and "--calibrate changed" in line for line in lines)
    assert any(
        re.fullmatch(r"  took: [\d,]+ operations in \d+\.\d\d s, profile smoke, seed \d+", line) for line in lines
    )
    again = next(line for line in lines if line.startswith("  again: registry-lab check"))
    assert again.endswith("--param users=5")


def test_a_finding_is_told_with_its_witness_and_its_replay(check: Said) -> None:
    code, out, _ = check(SCHEDULES, "--target", "ResurrectedByLateInstall")
    assert code == 1
    assert out.startswith(f"FAIL {SCHEDULES} on ResurrectedByLateInstall\n")
    assert "\n  A call that should have succeeded failed. " in out
    assert re.search(r"^  failed-operation: #\d is held and found, and does not work", out, re.MULTILINE)
    assert re.search(r"^ +1  the first: create: begins$", out, re.MULTILINE)
    assert re.search(r"^      and \d+ more lines, which `registry-lab run` keeps$", out, re.MULTILINE)
    token = re.search(r"^      replay: registry-lab replay (rl2~\S+)$", out, re.MULTILINE)
    assert token is not None
    assert main(["replay", token[1]]) == 1


def test_a_difference_that_two_users_met_alike_is_shown_once() -> None:
    found = [
        Finding("aliased-input", sentence, (f"before: ['canary<{user}|list|0>']", after))
        for user, sentence, after in (
            ("ada", "the list of 'ada' changed later", "after: ['canary<ada|list|0>', 'spoiled']"),
            ("bo", "the list of 'bo' changed later", "after: ['canary<bo|list|0>', 'spoiled']"),
            ("bo", "the note of 'bo' changed later", "after: []"),
        )
    ]
    lines = [*_findings(result("first", failed(*found)))]
    assert sum("spoiled" in line for line in lines) == 1
    assert sum("the same kind of difference for this user" in line for line in lines) == 1
    assert sum("changed later" in line for line in lines) == 3
    assert "      + []" in lines


def test_a_zero_is_shown_where_a_budget_limits_it_and_is_no_news_elsewhere(check: Said) -> None:
    code, out, _ = check("shared_state_contamination_detection", "--target", "reference")
    assert code == 0
    assert "\n  foreign data seen: 0 canaries (asked == 0 canaries: PASS" in out
    assert "events received over sockets" not in out


def test_budgets_stand_beside_what_was_measured_in_units_that_people_read(check: Said) -> None:
    code, out, _ = check("resource_cleanup_after_user_session_termination")
    assert code == 0
    assert re.search(
        r"traced growth, after everybody left: [\d.]+ kB \(asked < 50 MB: PASS; lab <= 500 kB: PASS\)", out
    )


def test_a_check_that_does_not_apply_is_no_failure_and_says_so(check: Said, tmp_path: Path) -> None:
    target = module(
        tmp_path,
        "from lab_utils.target import Capability\n"
        "class T(ReferenceTarget):\n    capabilities = ReferenceTarget.capabilities - {Capability.STRICT}\n",
    )
    code, out, _ = check(STRICT, "--target", target, "--calibrate", "always")
    assert code == 0
    assert out.startswith(f"NOT APPLICABLE {STRICT} on {target}\n  the target lacks: strict\n")
    assert "calibrated" not in out
    code, out, _ = check(STRICT, PARTS, "--target", target)
    assert (code, out.splitlines()[-1]) == (0, "2 checks: 1 PASS, 1 NOT APPLICABLE")


def test_odd_text_of_a_target_is_escaped_and_cut(check: Said, tmp_path: Path) -> None:
    target = module(
        tmp_path,
        "class T(ReferenceTarget):\n"
        "    async def get(self, *args, **more):\n"
        "        for number in range(100):\n"
        "            print('line', number, '\\x1b[31m')\n"
        "        raise RuntimeError('\\udc80 \\x1b]0;title\\x07 \\x00' + 'x' * 100_000)\n",
    )
    code, out, _ = check("user_context_boundary_enforcement", "--target", target)
    assert code == 1
    assert out.replace("\n", "").isprintable()
    assert "FAIL user_context_boundary_enforcement" in out
    assert "RuntimeError: \\udc80 \\x1b]0;title\\x07 \\x00xxx" in out
    assert "printed: line 0 \n" in out
    assert "printed: line 99 \n" in out
    assert re.search(r"printed: \.\.\. \d+0 lines are left out here \.\.\.", out)
    assert len(out) < 10_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shared_state"], "unknown check 'shared_state'; known: adopted_agent_ownership, "),
        # Of many names those that fit, none of them cut, and the one that was meant.
        (["shared_state"], " more, see `registry-lab list`; did you mean 'shared_state_contamination_detection'?"),
        (["user_isolation"], "'user_isolation' is a category, not a check: registry-lab run user_isolation"),
        ([PARTS, "--target", "agent_registri"], "did you mean 'agent_registry'"),
        ([PARTS, "--param", "racers=3"], "unknown parameter 'racers'"),
        ([PARTS, "--in-process", "--check-timeout", "5"], "leave --check-timeout out"),
    ],
)
def test_wrong_words_end_with_2(check: Said, words: list[str], said: str) -> None:
    code, out, err = check(*words)
    assert (code, out) == (2, "")
    assert said in err


def test_a_check_is_ended_at_the_limit_that_is_given(
    check: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is over once the target waits: on a busy machine a real one might be over before.
    begun = tmp_path / "begun"
    monkeypatch.setattr(watch, "is_overdue", lambda seconds, in_line, limit_s: limit_s == 0.5 and begun.exists())
    monkeypatch.setattr(watch, "is_going_on", lambda *_: False)
    target = module(
        tmp_path,
        "import asyncio, pathlib\n"
        "class T(ReferenceTarget):\n"
        "    async def create(self, *args, **more):\n"
        f"        pathlib.Path({str(begun)!r}).touch()\n"
        "        await asyncio.Event().wait()\n",
    )
    code, out, _ = check(PARTS, "--target", target, "--check-timeout", "0.5")
    assert code == 1
    assert "  never-ends: the check did not end within its limit of 0.5 s" in out
    assert re.search(r"waits in .* > T.create, their_\S+.py:\d > Event.wait", out)
    assert "--check-timeout 0.5" in out


def test_a_slow_target_that_comes_further_until_the_limit_is_not_blamed(
    check: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "is_overdue", lambda seconds, in_line, limit_s: True)
    monkeypatch.setattr(watch, "is_going_on", lambda since, limit_s, patience: since < limit_s)
    # Each call ends, and takes all the time that there is.
    target = module(
        tmp_path,
        "import asyncio\n"
        "class T(ReferenceTarget):\n"
        "    async def create(self, *args, **more):\n"
        "        await asyncio.sleep(0.05)\n"
        "        return await super().create(*args, **more)\n",
    )
    code, out, _ = check(PARTS, "--target", target, "--check-timeout", "1000")
    assert code == 1
    assert out.startswith(f"UNKNOWN {PARTS}")
    assert "did not end within its limit of 1000 s, and nothing stood still" in out


def test_a_debugger_gets_the_check_in_this_very_process(check: Said, tmp_path: Path) -> None:
    target = module(
        tmp_path,
        "import os, sys\n"
        "class T(ReferenceTarget):\n"
        "    async def start(self, *args, **more):\n"
        "        print('in process', os.getpid())\n"
        "        await super().start(*args, **more)\n",
    )
    code, out, _ = check(PARTS, "--target", target, "--in-process")
    assert code == 0
    assert f"\nin process {os.getpid()}\n" in f"\n{out}"
    code, out, _ = check(PARTS, "--target", target)
    assert f"printed: in process {os.getpid()}" not in out
    assert "printed: in process " in out


def test_a_calibration_is_made_when_asked_for_and_known_from_then_on(check: Said) -> None:
    code, out, _ = check(PARTS, "--calibrate", "changed")
    assert code == 0
    made = re.search(
        r"^  calibrated: all 2 planted registries were caught, one for each anomaly, \S+ \S+ UTC$", out, re.MULTILINE
    )
    assert made is not None
    assert made[0] in check(PARTS)[1]
    assert "not calibrated, as was asked for" in check(PARTS, "--calibrate", "never")[1]
    assert "not calibrated with these parameters" in check(PARTS, "--seed", "3")[1]


def test_a_planted_registry_that_was_not_caught_ends_with_1_though_the_check_passes(
    check: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed = Calibrated((result(PARTS, Verdict.passed("all well"), target="SharedDispatcher"),), "", "")
    monkeypatch.setattr(calibrations, "calibrated", lambda name, **_: missed)
    code, out, _ = check(PARTS, "--calibrate", "always")
    assert code == 1
    assert out.startswith(f"PASS {PARTS}")
    assert "NOT CAUGHT: SharedDispatcher: until it catches the planted defects, its pass means nothing" in out


def test_the_list_of_checks_says_which_apply_to_a_target(
    check: Said, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = module(
        tmp_path,
        "from lab_utils.target import Capability\n"
        "class T(ReferenceTarget):\n"
        "    capabilities = ReferenceTarget.capabilities - {Capability.STRICT, Capability.THREADS}\n",
    )
    assert main(["list", "--target", target]) == 0
    out = capsys.readouterr().out
    # A line or two for each check: their claims are in the list without a target.
    assert f"\n  {STRICT}: NOT APPLICABLE: lacks strict\n" in out
    assert f"\n  {THREADS}: RUNS, leaves out model, strict, threads\n" in out
    assert f"\n  {PARTS}: RUNS\n" in out
    assert "\n  event_delivery_isolation_between_users: RUNS, leaves out sockets, threads\n" in out
    assert CHECKS[PARTS].claim[:40] not in out
    added = out.partition(f"checks run on {target}. The missing capabilities would add:")[2]
    threads = " ".join(re.split(r"\n  (?=[a-z])", added.partition("  threads: ")[2])[0].split())
    assert threads.startswith(
        "several agents of one user and type, each with a memory of its own (name it in `also`); "
    )
    assert f"runs {STRICT}" in " ".join(added.partition("  strict: ")[2].split())
    assert re.search(r"; adds to \d+ checks that run", threads)
    assert "SharedDispatcher" not in out
    assert main(["list", "profiles", "--target", target]) == 2
    assert "registry-lab list checks --target" in capsys.readouterr().err
