"""A target that does nothing well is judged by one finding, quickly; one whose adapter answers by itself is named."""

from __future__ import annotations

import cProfile
import inspect
import itertools
import pstats
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab_utils.checks import CHECKS
from lab_utils.checks.registration import keys
from lab_utils.interleavings import threads
from lab_utils.runner import run_check
from lab_utils.runner.preflight import IS_SLOW
from lab_utils.target import (
    BaseTarget,
    Command,
    Delivered,
    EndReport,
    Handle,
    Refusal,
    Refused,
    Subscription,
    Target,
)
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import checked
from lab_utils.trial.faults import WrongAnswer
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome

ANY = "concurrent_user_operations_isolation"
PATIENCE_S = 300.0
SOON_S = PATIENCE_S / 3
"""So long that a check which has waited for all of its patience took longer, and one which has not took less, on however
busy a machine."""


def run(check: str, target: type[ReferenceTarget] | str, **parameters: int | str) -> CheckResult:
    return run_check(check, target=target, parameters=parameters, stuck_after=PATIENCE_S, in_process=True)


def instead(call: str, end: Callable[[], Any]) -> type[ReferenceTarget]:
    """A target whose one call always ends so."""
    if not inspect.iscoroutinefunction(getattr(ReferenceTarget, call)):
        return type("Broken", (ReferenceTarget,), {call: lambda *_, **__: end()})

    async def ends(*_: object, **__: object) -> Any:
        return end()

    return type("Broken", (ReferenceTarget,), {call: ends})


def failing(call: str, error: type[BaseException], *words: object) -> type[ReferenceTarget]:
    """A target whose one call always raises this error."""

    def fail() -> None:
        raise error(*words)

    return instead(call, fail)


NO_DATABASE = (ConnectionError, "no database at port 5432")
UNKNOWN_USER = (Refused, Refusal.INVALID_USER, "'first-user' is not in the directory")
APPLIES = [name for name, check in CHECKS.items() if not check.lacking(ReferenceTarget.capabilities)]


@pytest.mark.parametrize("check", APPLIES)
@pytest.mark.parametrize(
    ("target", "what"),
    [
        (
            failing("start", *NO_DATABASE),
            "the target cannot be started, with ConnectionError: no database at port 5432",
        ),
        (failing("create", *NO_DATABASE), "every create fails, with ConnectionError: no database at port 5432"),
        (failing("create", *UNKNOWN_USER), "every create fails, with Refused: 'first-user' is not in the directory"),
        (failing("run", *NO_DATABASE), "every run fails, with ConnectionError: no database at port 5432"),
    ],
)
def test_one_cause_is_one_finding_in_every_check(check: str, target: type[ReferenceTarget], what: str) -> None:
    result = run(check, target)
    (finding,) = result.verdict.findings
    assert finding.anomaly == "failed-operation"
    assert finding.sentence.startswith(what), finding.sentence
    assert finding.sentence.endswith("; nothing else was judged")
    assert Path(__file__).name in str(finding)
    assert "Not part of this result: the rest of the check" in result.claim
    assert result.duration_s < SOON_S


CLEANUP, LIFE = "resource_cleanup_after_user_session_termination", "agent_lifecycle_management_per_user"


@pytest.mark.parametrize(
    ("check", "target", "what"),
    [
        (
            CLEANUP,
            instead("create", lambda: None),
            "create fails, with WrongAnswer: create returned None; the contract requires Handle",
        ),
        (CLEANUP, instead("run", lambda: None), "run fails, with TypeError: run returned None for the command collect"),
        (
            CLEANUP,
            failing("create", BaseExceptionGroup, "no database", [GeneratorExit()]),
            "create fails, with BaseExceptionGroup: no database",
        ),
        (CLEANUP, failing("end", *NO_DATABASE), "end fails, with ConnectionError: no database at port 5432"),
        (CLEANUP, failing("get", KeyError, "first-user"), "lookup fails, with KeyError: 'first-user'"),
        (
            CLEANUP,
            failing("subscribe", ConnectionError, "no broker"),
            "subscription fails, with ConnectionError: no broker",
        ),
        (LIFE, failing("reset", KeyError, "sessions"), "reset fails, with KeyError: 'sessions'"),
        (LIFE, failing("get_or_create", KeyError, "sessions"), "get_or_create fails, with KeyError: 'sessions'"),
    ],
    ids=["no-agent", "no-answer", "past-exception", "end", "lookup", "subscription", "reset", "get-or-create"],
)
def test_a_call_that_always_fails_is_the_one_finding_of_a_check_that_needs_it(
    check: str, target: type[ReferenceTarget], what: str
) -> None:
    (finding,) = run(check, target).verdict.findings
    assert finding.anomaly == "failed-operation"
    assert finding.sentence.startswith(f"every {what}"), finding.sentence


def test_a_call_that_always_fails_does_not_matter_to_a_check_that_does_not_need_it() -> None:
    assert run(ANY, failing("get", KeyError, "first-user")).outcome is Outcome.PASS


class TakesNoColon(ReferenceTarget):
    def check_user(self, user: object) -> None:
        super().check_user(user)
        if ":" in str(user):
            raise Refused(Refusal.INVALID_USER, "letters, digits and hyphens only")


class FailsForAColon(ReferenceTarget):
    def check_user(self, user: object) -> None:
        super().check_user(user)
        if ":" in str(user):
            raise ValueError("letters, digits and hyphens only")


DRAWN = pytest.mark.parametrize(
    ("check", "parameters"),
    [
        ("per_user_agent_registry_isolation_validation", {}),
        ("user_context_boundary_enforcement", {}),
        ("agent_retrieval_by_user_and_thread_isolation", {"deviations": 0}),
        ("concurrent_user_operations_isolation", {}),
        ("agent_and_user_limit_enforcement", {}),
    ],
)


@pytest.fixture
def few_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes of ids that are drawn shows with a few pairs of keys as with 500."""
    monkeypatch.setattr(keys, "SEPARATORS", (":", "-"))


@DRAWN
@pytest.mark.usefixtures("few_keys")
def test_ids_that_a_target_refuses_are_named_once_and_the_check_goes_on_with_others(
    check: str, parameters: dict[str, int]
) -> None:
    result = run(check, TakesNoColon, **parameters)
    assert result.outcome is Outcome.PASS
    assert result.verdict.reason.count("users such as 'acme:1': 2 of 19 ids are refused as invalid") == 1


def test_ids_that_a_slow_target_refuses_are_left_out_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()
    clocks = SimpleNamespace(perf_counter=lambda: float(next(now)), thread_time=lambda: 0.0)
    monkeypatch.setattr(threads, "time", clocks)
    assert run("user_context_boundary_enforcement", TakesNoColon).outcome is Outcome.PASS


def test_a_slow_target_is_named_with_the_call_and_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Slow(ReferenceTarget):
        takes_s = 0.125

        async def run(self, handle: Handle, command: Command) -> Any:
            nonlocal now
            now += self.takes_s
            return await super().run(handle, command)

    class SlowAtFirst(Slow):
        """It imports."""

        async def run(self, handle: Handle, command: Command) -> Any:
            self.takes_s = 9.0 if handle.user == "fourth-user" else 0.0
            return await super().run(handle, command)

    clocks = SimpleNamespace(perf_counter=lambda: now, thread_time=lambda: now)
    monkeypatch.setattr(threads, "time", clocks)

    def notes(target: type[ReferenceTarget]) -> list[str]:
        result = run_check("user_context_boundary_enforcement", target=target, in_process=True)
        return [note for note in result.notes if note.startswith(IS_SLOW)]

    assert notes(ReferenceTarget) == notes(SlowAtFirst) == []
    (note,) = notes(Slow)
    assert "a run takes 125 ms of its own time" in note


@DRAWN
@pytest.mark.usefixtures("few_keys")
def test_ids_that_fail_are_one_finding_and_the_check_goes_on_with_others(
    check: str, parameters: dict[str, int]
) -> None:
    result = run(check, FailsForAColon, **parameters)
    (finding,) = result.verdict.findings
    assert finding.sentence.startswith("2 of 19 ordinary user ids fail, such as 'acme:1'; others were judged.")
    assert "raise Refused(Refusal.INVALID_USER, message)" in finding.sentence
    assert result.measurements


class EverySecondRun(ReferenceTarget):
    """Every second run ends as `instead` does."""

    ran = 0
    instead: Callable[[], Any]

    async def run(self, handle: Handle, command: Command) -> Any:
        self.ran += 1
        return await super().run(handle, command) if self.ran % 2 else type(self).instead()


def no_database() -> None:
    raise ConnectionError("no database at port 5432")


def every_second_run(end: Callable[[], Any]) -> type[ReferenceTarget]:
    return type("Wrong", (EverySecondRun,), {"instead": staticmethod(end)})


def test_after_a_failure_of_the_targets_own_nothing_is_waited_for_long() -> None:
    result = run("multi_tenant_agent_execution_boundaries", every_second_run(no_database))
    assert {finding.anomaly for finding in result.verdict.findings} == {"failed-operation"}
    assert result.duration_s < SOON_S


def test_a_run_that_is_over_is_not_waited_for_to_begin() -> None:
    result = run("bridge_communication_validation_per_user", every_second_run(lambda: None), users=3)
    assert any("its agent never began" in finding.sentence for finding in result.verdict.findings)
    assert result.duration_s < SOON_S


def test_an_agent_that_answers_wrongly_is_not_waited_for_as_if_it_were_gone() -> None:
    result = run("agent_and_user_limit_enforcement", every_second_run(lambda: "wrong"))
    assert "wrong-answer" in {finding.anomaly for finding in result.verdict.findings}
    assert result.duration_s < SOON_S


class FailsLater(ReferenceTarget):
    """It works for those whom the preflight knows."""

    async def create(self, user: str, agent_type: str, **given: Any) -> Handle:
        if not user.endswith("-user"):
            raise ConnectionError("no database at port 5432")
        return await super().create(user, agent_type, **given)


def test_what_the_target_raises_in_a_check_is_a_finding_and_no_crash() -> None:
    result = run("strict_context_enforcement", FailsLater)
    assert result.outcome is Outcome.PASS, "it creates by another call"
    result = run("foreign_thread_and_loop_refusal", FailsLater)
    (finding,) = result.verdict.findings
    assert (finding.anomaly, result.traceback) == ("failed-operation", "")
    assert "ConnectionError: no database at port 5432" in finding.sentence
    assert any(line.startswith("raised in create, test_preflight.py:") for line in finding.witness)
    assert "Not part of this result: the rest of the check after a call that failed." in result.claim


def test_ours_are_usable_and_nothing_is_said_of_them() -> None:
    for target in ("reference", "agent_registry"):
        result = run(ANY, target)
        assert (result.outcome, "left out" in result.verdict.reason) == (Outcome.PASS, False)


ADAPTER = """
import json
from lab_utils.target import Capability, EndReport, Handle, NotSupported
from lab_utils.targets.lab_agent import obey
{imports}

class Theirs:
    name = "theirs"
    capabilities = frozenset()

    async def start(self, recipes, rows, close_timeout):
        self.book = {{}}

    async def stop(self):
        pass

    async def create(self, user, agent_type, *, thread="main", data=None, permissions=frozenset(), context_user=None,
                     connect=True):
        made = {make}
        self.book.setdefault((user, agent_type), made)
        return Handle(user, agent_type, "main", f"{{user}}/{{agent_type}}", (user, agent_type))

    async def run(self, handle, command):
        return await obey(command.action, json.loads(json.dumps(dict(command.arguments))), self.book[handle.native],
                          {{}}, None, None)

    def __getattr__(self, name):
        raise AttributeError(name)
"""
OWN = "any code but that of own_book.py"
WATCHED = "any code but that of watched.py"
UNCALLED = "any code of iniconfig, which a_library.py names"
CALL = "{'made by': packaging.version.parse('1')} and {}"


@pytest.mark.parametrize(
    ("name", "imports", "make", "says"),
    [
        ("own_book", "", "{}", OWN),
        # As the thread does that watches the loop, if it is so late that its calls are noted.
        ("watched", "from lab_utils.targets.loading import is_theirs", "is_theirs('') or {}", WATCHED),
        ("no_book", "import packaging.version", CALL, ""),
        ("a_library", "import iniconfig, packaging.version", f"(iniconfig.IniConfig and {CALL})", UNCALLED),
    ],
    ids=[
        "answers from its own book",
        "is watched meanwhile",
        "calls a package",
        "calls a library and not the framework",
    ],
)
def test_an_adapter_that_answers_from_its_own_book_is_named(
    name: str, imports: str, make: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"{name}.py").write_text(ADAPTER.format(imports=imports, make=make))
    module = __import__(name)
    # In a process of its own: here, objects of earlier tests may end meanwhile, and call code of others.
    result = run_check(ANY, target=module.Theirs, stuck_after=PATIENCE_S)
    for text in (OWN, WATCHED, UNCALLED):
        assert (text in result.verdict.reason) is (text == says), result.verdict.reason
        assert (f"Not part of this result: {text}" in result.claim) is (text == says)


def test_a_check_can_be_profiled() -> None:
    profiler = cProfile.Profile()
    result = profiler.runcall(run, ANY, ReferenceTarget)
    assert result.outcome is Outcome.PASS, result.verdict
    # The body of the check, which runs after the preflight has looked at all calls.
    assert "_operations" in pstats.Stats(profiler).get_stats_profile().func_profiles


class AnswersNothingToEverySecond(ReferenceTarget):
    """It works for those whom the preflight knows."""

    ended = 0

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        self.ended += not user.endswith("-user")
        return report if self.ended % 2 == 0 else cast(EndReport, None)


def test_an_answer_of_a_wrong_kind_is_a_finding_and_no_crash() -> None:
    result = run("concurrent_agent_registration_safety", AnswersNothingToEverySecond)
    assert (result.outcome, result.traceback) == (Outcome.FAIL, "")
    assert "WrongAnswer: end returned None; the contract requires EndReport" in str(result.verdict.findings)


class NamesByNumber(BaseTarget):
    async def create(self, user: str, agent_type: str, **_: Any) -> Handle:
        return self.handle(user, agent_type, None, instance=cast(str, [7]))

    async def run(self, handle: Handle, command: Command) -> Any:
        return {"inputs": dict(command.arguments)}


def test_a_handle_whose_instance_is_no_text_is_a_failed_call() -> None:
    (finding,) = run_check(ANY, target=NamesByNumber, in_process=True).verdict.findings
    assert "a Handle of the instance [7], which is not a text" in finding.sentence


class Slotted:
    __slots__ = ()

    async def end(self, user: str) -> None:
        return None


async def test_the_answers_of_a_target_with_slots_are_checked() -> None:
    with pytest.raises(WrongAnswer, match="end returned None"):
        await checked(cast(Target, Slotted())).end("ada")


class AnswersOddEvents(ReferenceTarget):
    """`odd` makes the list that a client answers."""

    odd: Callable[[Sequence[Delivered]], Any]

    def subscribe(self, user: str) -> Subscription:
        client = super().subscribe(user)
        real = client.received
        client.received = lambda: type(self).odd(real())  # type: ignore[method-assign]
        return client


@pytest.mark.parametrize(
    ("odd", "what"),
    [
        (lambda events: [{"type": event.type, "body": event.body} for event in events], "received() holds {'type': "),
        (lambda events: [None for _ in events], "received() holds None; the contract requires Delivered"),
        (iter, "the contract requires a list of Delivered"),
        (
            lambda events: [replace(event, seq=str(event.seq)) for event in events],
            "the number '1', which is not an int",
        ),
        (lambda events: [replace(event, body={}) for event in events], "an event has body {}, which is not a text"),
    ],
)
def test_an_event_of_a_wrong_kind_is_a_finding_and_no_crash(odd: Callable[..., Any], what: str) -> None:
    target = type("AnswersOddEvents", (AnswersOddEvents,), {"odd": staticmethod(odd)})
    result = run("adopted_agent_ownership", target)
    assert (result.outcome, result.traceback) == (Outcome.FAIL, "")
    assert "a call that should succeed raised WrongAnswer: " in result.verdict.findings[0].sentence
    assert what in result.verdict.findings[0].sentence


class CreatesAndRuns(BaseTarget):
    async def create(self, user: str, agent_type: str, **_: Any) -> Handle:
        return self.handle(user, agent_type, None, instance=user)


@pytest.mark.parametrize("kind", [CreatesAndRuns, ReferenceTarget])
def test_a_target_whose_answers_are_checked_has_the_same_capabilities_and_name(kind: type[Target]) -> None:
    target, same = kind(), kind()
    assert checked(same) is same
    assert (same.capabilities, same.name) == (target.capabilities, target.name)
    assert isinstance(same, kind)
