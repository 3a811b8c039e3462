"""A fault of a target in its process costs the one result, which names it, and the next check runs."""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import psutil
import pytest

from lab_utils.runner import Look, run_check, runner, watch
from lab_utils.runner.forkserver import ForkedChild, ForkServer, ServerFailed
from lab_utils.runner.holding import MOST_S, holder
from lab_utils.runner.server import SERVER_VARIABLE, server
from lab_utils.target import Handle
from lab_utils.targets.reference import Context, ReferenceTarget
from lab_utils.values.profiles import UsageError
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome
from tests.processes import gone, left

CHECK = "per_user_agent_registry_isolation_validation"


class Hostile(ReferenceTarget):
    """Does something to its process when the third agent is made."""

    made = 0

    def act(self) -> object:
        raise NotImplementedError

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        handle = await super().create(user, agent_type, **options)
        self.made += 1
        if self.made == 3:
            self.act()
        return handle


class Exits(Hostile):
    def act(self) -> object:
        sys.exit(0)


class ExitsAtOnce(Hostile):
    def act(self) -> object:
        os._exit(0)


class Crashes(Hostile):
    def act(self) -> object:
        return ctypes.string_at(0)


class IsKilled(Hostile):
    def act(self) -> object:
        signal.raise_signal(signal.SIGKILL)
        return threading.Event().wait()


class IsStopped(Hostile):
    def act(self) -> object:
        signal.raise_signal(signal.SIGSTOP)
        return None


class HoldsTheInterpreter(Hostile):
    def act(self) -> object:
        return ctypes.PyDLL(None).sleep(60)


class BlocksTheLoop(Hostile):
    def act(self) -> object:
        return threading.Event().wait()


class BlocksACallback(Hostile):
    def act(self) -> object:
        def act_later() -> None:
            threading.Event().wait()

        return asyncio.get_running_loop().call_soon(act_later)


class SpinsOnTheLoop(Hostile):
    def act(self) -> object:
        while True:
            pass


class SleepsInEachCreate(ReferenceTarget):
    """Each time so short that every wait of the lab is longer."""

    def make_context(self, *given: Any) -> Context:
        time.sleep(0.7)
        return super().make_context(*given)


class ImportsForLong(Hostile):
    def act(self) -> object:
        name = f"slow_{self.made}"
        with TemporaryDirectory() as folder:
            Path(folder, f"{name}.py").write_text(f"import time; time.sleep({MOST_S + 1})")
            sys.path.insert(0, folder)
            return importlib.import_module(name)


class NeverReturns(Hostile):
    begun: ClassVar[Path] = Path(os.devnull)

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        self.begun.touch()
        await asyncio.get_running_loop().create_future()
        raise AssertionError


class Forks(Hostile):
    """Its copy goes on with the check and comes to an end of its own."""

    def act(self) -> object:
        return os.fork()


class PrintsWithoutEnd(Hostile):
    def act(self) -> object:
        for _ in range(200):
            print("spam " * 20_000)
        return os.write(1, b"the last words\n")


class LeavesAPool(Hostile):
    """A thread of the loop's own pool never ends; no interpreter that waits for it would ever exit."""

    def act(self) -> object:
        return asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)


class StartsAProcess(Hostile):
    started: ClassVar[str] = ""

    def act(self) -> object:
        with Path(self.started).open("w") as file:
            file.write(str(subprocess.Popen(["sleep", "600"]).pid))
        return os._exit(3)


def run(target: type[Hostile], **options: Any) -> CheckResult:
    return run_check(CHECK, target=target, stuck_after=0.5, **{"still_after": 600.0, "limit_s": 600.0, **options})


def test_a_target_that_calls_sys_exit_is_found_with_the_place(capsys: pytest.CaptureFixture[str]) -> None:
    (finding,) = run(Exits).verdict.findings
    assert finding.anomaly == "process-died"
    assert "SystemExit(0)" in finding.sentence
    assert "act, test_processes.py:" in finding.witness[-1]


@pytest.mark.parametrize(
    ("target", "how"),
    [(ExitsAtOnce, "it exited with code 0"), (Crashes, "SIGSEGV"), (IsKilled, "it was killed by SIGKILL")],
)
def test_a_process_that_ends_is_a_finding_with_the_operation_it_died_in(target: type[Hostile], how: str) -> None:
    result = run(target)
    (finding,) = result.verdict.findings
    assert finding.anomaly == "process-died"
    assert how in finding.sentence
    began = [line for line in finding.witness if line.endswith("began")]
    assert "create" in began[-1]
    # A crash in C names the line of Python that it came from.
    assert target is not Crashes or any('"test_processes.py"' in at and "in act" in at for at in finding.witness)
    assert result.notes[0].startswith("The process of the check was lost")


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (HoldsTheInterpreter, {"still_after": 1.0}, "nothing moved for 1 s, and its process does not answer"),
        (IsStopped, {"still_after": 1.0}, "nothing moved for 1 s, and its process does not answer"),
        (BlocksACallback, {"still_after": 1.0}, "nothing moved for 1 s: the event loop does not turn"),
        (BlocksTheLoop, {"still_after": 30.0}, "the event loop was held up for 2"),
        (SpinsOnTheLoop, {}, "the event loop was held up for 2"),
    ],
)
def test_a_loop_that_is_held_up_is_found_with_the_place(
    target: type[Hostile], options: dict[str, float], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "does not answer" in words:
        monkeypatch.setattr(watch, "_TURN_SECONDS", 0.5)
    (finding,) = run(target, **options).verdict.findings
    assert finding.anomaly == "loop-blocked"
    assert words in finding.sentence
    # A stopped process runs no code that could report it.
    assert target is IsStopped or any("act" in line and "test_processes.py" in line for line in finding.witness)


def test_an_interpreter_that_is_held_is_found_long_before_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_HELD_SECONDS", 1.0)
    (finding,) = run(HoldsTheInterpreter, still_after=30.0, limit_s=600.0).verdict.findings
    assert finding.anomaly == "loop-blocked"
    assert re.search(r"the interpreter was held for \d s .* at .*test_processes.py:\d+ in act", finding.sentence)
    assert any("act" in line and "test_processes.py" in line for line in finding.witness)


@pytest.mark.parametrize(
    ("calls", "held_at"),
    [
        (["/there/shop.py in lookup", "/there/shop.py in create", "{lab}/trial/client.py in create"], "lookup"),
        (["{python}/json/decoder.py in decode", "/there/shop.py in run"], "run"),
        (["{lab}/targets/reference.py in create"], "create"),
        (["{lab}/probes/memory.py in read", "{lab}/runner/conduct.py in run"], ""),
        (["/there/shop.py in connect", "/there/shop.py in start"], ""),
        (["/there/shop.py in <module>", "<frozen importlib._bootstrap> in _load", "/there/shop.py in create"], ""),
        (["{python}/selectors.py in select"], "other"),
    ],
)
def test_an_interpreter_is_held_by_the_target_where_its_code_serves_somebody(calls: list[str], held_at: str) -> None:
    folders = {"lab": str(Path(watch.__file__).parents[1]), "python": sysconfig.get_path("stdlib")}
    stacks = [[one.format_map(folders) for one in calls], ["/there/shop.py in other"], [f"{folders['lab']}/a.py in b"]]
    text = ""
    for head, stack in zip(("Current thread 0x3", "Thread 0x2", "Thread 0x1"), stacks, strict=True):
        lines = [re.sub("(.*) in (.*)", r'  File "\1", line 7 in \2', call) for call in stack]
        text += "\n".join([f"{head} (most recent call first):", *lines, "", ""])
    assert holder(text).rpartition(" in ")[2] == held_at


@pytest.mark.parametrize("check", [CHECK, "interrupted_calls_leave_nothing_to_others"])
def test_a_loop_that_is_held_again_and_again_is_found_before_any_wait_is_over(check: str) -> None:
    result = run_check(check, target=SleepsInEachCreate, stuck_after=300.0)
    (finding,) = result.verdict.findings
    assert finding.anomaly == "loop-blocked"
    assert "SleepsInEachCreate.make_context, test_processes.py:" in finding.witness[-1]
    assert result.duration_s < 300


@pytest.mark.parametrize("target", [Forks, ImportsForLong])
def test_a_fork_and_an_import_within_a_call_do_no_harm_to_the_claim(target: type[Hostile]) -> None:
    assert run(target).outcome is Outcome.PASS


def test_a_check_that_waits_for_ever_is_given_up_and_its_result_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waits(NeverReturns):
        begun = tmp_path / "begun"

    # Its time is over once it waits, and not before, on a busy machine.
    monkeypatch.setattr(watch, "is_overdue", lambda seconds, in_line, limit_s: limit_s == 3.0 and Waits.begun.exists())
    monkeypatch.setattr(watch, "is_going_on", lambda *_: False)
    result = run_check(CHECK, target=Waits, still_after=1.0, stuck_after=30.0, limit_s=3.0)
    (finding,) = result.verdict.findings
    assert finding.anomaly == "never-ends"
    assert "did not end within its limit of 3 s" in finding.sentence
    assert any("NeverReturns.create, test_processes.py:" in line for line in finding.witness)
    assert not result.notes


def test_a_target_that_holds_its_start_at_the_limit_is_not_blamed_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loads(ReferenceTarget):
        begun = tmp_path / "begun"

        async def start(self, *args: Any, **more: Any) -> None:
            self.begun.touch()
            threading.Event().wait()

    monkeypatch.setattr(watch, "is_overdue", lambda *_: Loads.begun.exists())
    monkeypatch.setattr(watch, "is_going_on", lambda *_: True)
    result = run_check(CHECK, target=Loads, still_after=1.0, stuck_after=0.5)
    assert result.outcome is Outcome.UNKNOWN
    assert "the target is being started" in result.verdict.reason


def test_what_is_idle_for_long_is_found_before_its_limit() -> None:
    result = run_check(CHECK, target=NeverReturns, still_after=0.5, stuck_after=1.0, limit_s=600.0)
    assert [finding.anomaly for finding in result.verdict.findings] == ["never-ends"]


def test_a_thread_that_never_ends_costs_no_more_than_its_result() -> None:
    looks: list[Look] = []
    (finding,) = run(LeavesAPool, still_after=1.0, on_look=looks.append).verdict.findings
    # Seen from outside meanwhile.
    assert len(looks) >= 3
    assert looks[-1].events > 0
    assert all(look.memory > 1_000_000 for look in looks)
    assert finding.anomaly == "never-ends"
    assert any(line.startswith("thread 'asyncio_0' is in ") for line in finding.witness)


def test_of_endless_output_head_and_tail_are_kept() -> None:
    result = run(PrintsWithoutEnd)
    assert result.outcome is Outcome.PASS
    printed = result.printed
    assert printed.startswith("spam spam")
    assert "bytes are left out here" in printed
    assert printed.endswith("the last words\n")
    assert len(printed) < 200_000


def test_what_a_target_has_started_ends_with_its_check(tmp_path: Path) -> None:
    class Starts(StartsAProcess):
        started = str(tmp_path / "pid")

    assert "it exited with code 3" in run(Starts).verdict.findings[0].sentence
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where forking is not safe."""
    for module in (watch, runner):
        monkeypatch.setattr(module, "is_available", lambda: False)


@pytest.mark.usefixtures("spawned")
def test_a_spawned_process_costs_its_own_result_too(monkeypatch: pytest.MonkeyPatch) -> None:
    (died,) = run(ExitsAtOnce).verdict.findings
    assert (died.anomaly, "it exited with code 0" in died.sentence) == ("process-died", True)
    monkeypatch.setattr(watch, "_TURN_SECONDS", 0.5)
    (held,) = run(HoldsTheInterpreter, still_after=1.0).verdict.findings
    assert held.anomaly == "loop-blocked"
    before = set(Path().iterdir())
    result = run_check("resource_cleanup_after_user_session_termination", target="reference", parameters={"users": 4})
    assert result.outcome is Outcome.PASS
    assert "Memory was measured in a process that was spawned for this check." in result.notes
    assert set(Path().iterdir()) == before


@pytest.mark.usefixtures("spawned")
def test_a_process_that_cannot_be_spawned_is_no_endless_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UsageError, match="it exited with code 1 while the target was imported or made"):
        run_check(CHECK, target="reference")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("import os; os._exit(0)", r"it exited with code 0 .*\(at leaves_at_import.py:1\)"),
        ("raise KeyboardInterrupt", r"KeyboardInterrupt \(at leaves_at_import.py:1\)"),
    ],
)
def test_a_module_that_ends_the_process_at_import_is_wrong_usage_in_a_batch_too(
    line: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As elsewhere, which test_harmful_targets.py shows."""
    monkeypatch.setenv(SERVER_VARIABLE, server().address)
    (tmp_path / "leaves_at_import.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=words):
        run_check(CHECK, target="leaves_at_import:Target")


def test_a_module_that_has_ended_the_process_of_imports_before_anybody_asks_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ForkServer.start

    def refused(self: ForkServer, entry: str, *, imports: Sequence[str] = ()) -> ForkedChild:
        if imports:
            raise ServerFailed("no fork server answers: Connection refused")
        return start(self, entry)

    monkeypatch.setattr(ForkServer, "start", refused)
    (tmp_path / "leaves_at_import.py").write_text("import os; os._exit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="it exited with code 0"):
        run_check(CHECK, target="leaves_at_import:Target")


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_a_limit_of_the_environment_that_is_none_is_wrong_usage(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_LAB_CHECK_TIMEOUT", text)
    with pytest.raises(UsageError, match=f"REGISTRY_LAB_CHECK_TIMEOUT='{text}' is not a number of seconds above 0"):
        run_check(CHECK, target="reference")


def test_a_class_that_no_module_holds_travels_by_value() -> None:
    class Local(ReferenceTarget):
        name = "local"

    assert run_check(CHECK, target=Local).outcome is Outcome.PASS


def test_an_interrupt_ends_the_process_of_the_check() -> None:
    class Interrupted(Exception):
        pass

    def interrupt(step: str, fraction: float) -> None:
        raise Interrupted

    run_check(CHECK)  # The fork server is there from here on.
    before = {one.pid for one in psutil.Process().children(recursive=True)}
    with pytest.raises(Interrupted):
        run_check("concurrent_agent_registration_safety", on_progress=interrupt)
    assert left(one for one in psutil.Process().children(recursive=True) if one.pid not in before) == []
