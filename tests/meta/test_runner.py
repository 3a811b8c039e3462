"""The runner's results for checks that crash, judge nothing, hang, or leave errors on the loop."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar

import pytest

from lab_utils.checks.memory.leak_hunt import Caller
from lab_utils.checks.registration.stopping import stopped_meanwhile
from lab_utils.checks.tenants.counted_cost import judge_cost_of_ending
from lab_utils.runner import runner
from lab_utils.sockets.choice import Transports
from lab_utils.target import Capability, Command, EndReport, Handle, Recipe, Target
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import ASKED, LAB, Check, OutOfTime, Stuck, Trial
from lab_utils.trial.faults import Planned
from lab_utils.values.limits import SLICES
from lab_utils.values.profiles import UsageError
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome, Verdict
from tests.running import skip, turns

Run = Callable[..., CheckResult]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a body as if it were a check."""

    def run(
        body: Callable[[Trial], Awaitable[None]],
        target: Any = "reference",
        needs: frozenset[Capability] = frozenset(),
        category: str = "user_isolation",
        **options: Any,
    ) -> CheckResult:
        check = Check("made_up", category, "claim", "data", "looks like", body, ("SharedDispatcher",), needs)
        monkeypatch.setattr(runner, "RUNNABLE", {"made_up": check})
        return runner.run_check("made_up", target=target, in_process=True, **options)

    return run


def test_a_crash_is_unknown_with_its_traceback(run: Run) -> None:
    async def body(trial: Trial) -> None:
        trial.judge(Verdict.passed("so far so good"))
        raise KeyError("the check's own mistake")

    result = run(body)
    assert result.outcome is Outcome.UNKNOWN
    assert "the check's own mistake" in result.traceback
    # A reader of the report learns nothing of the folders of this machine.
    assert 'File "tests/meta/test_runner.py"' in result.traceback
    assert not re.search(r'File "/', result.traceback)


def test_a_target_that_cannot_be_made_again_is_unknown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(trial: Trial) -> None:
        await trial.target()

    def refuse() -> Target:
        raise RuntimeError("no more licences")

    monkeypatch.setattr(runner, "target_factory", lambda _: refuse)
    result = run(body, category="websocket_bridge")
    assert result.outcome is Outcome.UNKNOWN
    assert "no more licences" in result.traceback


class NeverStops(ReferenceTarget):
    """Its stop waits, and can be cancelled."""

    async def stop(self) -> None:
        await asyncio.Event().wait()


class IgnoresCancellation(ReferenceTarget):
    """Its stop waits, and goes on waiting whenever it is cancelled."""

    released: ClassVar[list[str]] = []

    async def stop(self) -> None:
        await ignoring(asyncio.Event(), self.released)


class CannotStop(ReferenceTarget):
    """Its stop raises."""

    error: ClassVar[Exception] = KeyError("no such pool")

    async def stop(self) -> None:
        await super().stop()
        raise self.error


class Older(ReferenceTarget):
    """Notes its stop."""

    stopped: ClassVar[list[str]] = []

    async def stop(self) -> None:
        self.stopped.append("stopped")


class NeverStarts(ReferenceTarget):
    """Its start waits."""

    async def start(self, *_: Any) -> None:
        await asyncio.Event().wait()


class EndIgnoresCancellation(ReferenceTarget):
    """An end goes on waiting whenever it is cancelled, but that of all."""

    async def end(self, user: str) -> EndReport:
        await ignoring(asyncio.Event(), [])
        raise AssertionError

    async def stop(self) -> None:
        self.sessions.clear()


# A task that waits for an event which nobody else holds is garbage, and once collected no task that is left.
HELD: list[asyncio.Event] = []


async def ignoring(never: asyncio.Event, released: list[str]) -> None:
    HELD.append(never)
    try:
        while True:
            with suppress(asyncio.CancelledError):
                await never.wait()
    finally:
        released.append("released")


def anomalies(result: CheckResult) -> list[str]:
    return [finding.anomaly for finding in result.verdict.findings]


def targets_in_turn(monkeypatch: pytest.MonkeyPatch, *kinds: type[ReferenceTarget]) -> None:
    """Let a trial's targets be of these kinds; the runner makes one more, to see its capabilities."""
    following = iter([kinds[0], *kinds])

    def make() -> Target:
        return next(following)()

    monkeypatch.setattr(runner, "target_factory", lambda _: make)


async def opens(trial: Trial) -> Target:
    trial.waiting.stuck_after = 0.01
    trial.require(True, "anything", "holds")
    return await trial.target()


async def opens_two(trial: Trial) -> Target:
    """Open two targets, and leave an error on the loop; return the newer target."""
    await opens(trial)
    target = await opens(trial)
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await trial.waiting.settle()
    return target


@pytest.mark.parametrize(
    ("kind", "words"),
    [(NeverStarts, "starting the target 'reference'"), (NeverStops, "stopping the target 'reference'")],
)
def test_a_start_and_a_stop_that_never_end_are_found(
    run: Run, monkeypatch: pytest.MonkeyPatch, kind: type[ReferenceTarget], words: str
) -> None:
    targets_in_turn(monkeypatch, kind)
    result = run(opens)
    assert anomalies(result) == ["never-ends"]
    assert f"{words} did not end in 0.01 s" in result.verdict.findings[0].sentence
    (_, place) = result.verdict.findings[0].witness
    assert re.search(rf"> {kind.__name__}.st\w+, test_runner.py:\d+ > Event.wait, locks.py:\d+$", place)


def test_a_stop_that_ignores_its_cancellation_is_found_and_holds_up_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []
    released: list[str] = []
    targets_in_turn(monkeypatch, Older, IgnoresCancellation)
    monkeypatch.setattr(Older, "stopped", stopped)
    monkeypatch.setattr(IgnoresCancellation, "released", released)
    result = run(opens_two)
    assert stopped == ["stopped"]
    assert anomalies(result) == ["never-ends", "unhandled-error", "task-left"]
    stuck, _, left = result.verdict.findings
    assert "stopping the target 'reference' did not end in 0.01 s, and ignored its cancellation" in stuck.sentence
    assert re.search(r"waits in .* > Event.wait, locks.py:\d+$", left.witness[0])
    assert re.search(r" > IgnoresCancellation.stop, .* > ignoring, .* > Event.wait, locks.py:\d+$", stuck.witness[-1])
    # Its objects are released all the same.
    assert released == ["released"]
    assert result.traceback == ""


def test_an_operation_that_ignores_its_cancellation_is_found_and_the_target_stopped(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(trial: Trial) -> None:
        target = await opens(trial)
        await trial.client(target, "c", "ada").create("helper")
        await trial.waiting.ends(target.end("ada"), "an end")
        raise AssertionError("was given up")

    targets_in_turn(monkeypatch, EndIgnoresCancellation)
    result = run(body)
    assert anomalies(result) == ["never-ends", "task-left"]
    assert "an end did not end in 0.01 s, and ignored its cancellation" in result.verdict.findings[0].sentence
    assert "create ada/helper" in result.verdict.findings[0].witness[0]


@pytest.mark.parametrize("early", [True, False])
def test_a_stop_that_raises_is_found_and_costs_no_evidence(
    run: Run, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    stopped: list[str] = []

    async def body(trial: Trial) -> None:
        target = await opens_two(trial)
        if early:
            await trial.stop(target)

    targets_in_turn(monkeypatch, Older, CannotStop)
    monkeypatch.setattr(Older, "stopped", stopped)
    result = run(body)
    assert stopped == ["stopped"]
    assert anomalies(result) == ["stop-failed", "unhandled-error"]
    assert "stopping the target 'reference' raised KeyError: 'no such pool'" in result.verdict.findings[0].sentence
    assert result.traceback == ""


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Planned("a cleanup"), Outcome.PASS),
        (ExceptionGroup("cleanups", [Planned("one"), Planned("two")]), Outcome.PASS),
        (ExceptionGroup("cleanups", [Planned("one"), KeyError("its own")]), Outcome.FAIL),
        (TimeoutError("its own"), Outcome.FAIL),
    ],
    ids=repr,
)
def test_a_stop_may_tell_what_the_lab_planted(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: Outcome
) -> None:
    targets_in_turn(monkeypatch, CannotStop)
    monkeypatch.setattr(CannotStop, "error", error)
    result = run(opens)
    assert result.outcome is outcome
    assert anomalies(result) == ["stop-failed"] * (outcome is Outcome.FAIL)


def test_sockets_of_the_lab_that_do_not_close_are_its_own_failure_and_the_target_is_stopped(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[str] = []

    async def cannot_close(*_: object) -> None:
        raise OSError("the lab's own")

    targets_in_turn(monkeypatch, Older, Older)
    monkeypatch.setattr(Older, "stopped", stopped)
    monkeypatch.setattr(Transports, "close", cannot_close)
    result = run(opens_two)
    assert stopped == ["stopped"] * 2
    assert result.outcome is Outcome.UNKNOWN
    assert result.traceback.count("OSError: the lab's own") == 2
    assert [note.partition(":")[0] for note in result.notes] == [
        "After the crash the event loop reported errors that nobody handled"
    ]


def test_callers_are_judged_though_the_stop_ignores_its_cancellation(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(trial: Trial) -> None:
        trial.waiting.stuck_after = 1.0
        await stopped_meanwhile(trial)

    targets_in_turn(monkeypatch, IgnoresCancellation)
    result = run(body)
    # Not a second time: it is the check that waits for this stop, and no limit of the trial's ends the check meanwhile.
    assert anomalies(result) == ["never-ends", "task-left"]
    assert result.verdict.findings[0].sentence.startswith("a stop with calls under way did not end")


def test_what_ends_with_a_timeout_of_its_own_has_ended(run: Run) -> None:
    async def times_out() -> None:
        raise TimeoutError("its own")

    async def body(trial: Trial) -> None:
        with pytest.raises(TimeoutError, match="its own"):
            await trial.waiting.ends(times_out(), "anything")
        trial.judge(Verdict.passed("1 thing"))

    assert run(body).outcome is Outcome.PASS


def test_a_task_that_ignores_its_cancellation_is_found(run: Run) -> None:
    async def body(trial: Trial) -> None:
        await opens(trial)
        trial.left = [  # type: ignore[attr-defined]
            asyncio.create_task(ignoring(asyncio.Event(), []), name="a heartbeat"),
            asyncio.create_task(asyncio.Event().wait(), name="one that can be cancelled"),
        ]
        await trial.waiting.settle()

    result = run(body)
    assert anomalies(result) == ["task-left"]
    (line,) = result.verdict.findings[0].witness
    assert line.startswith("a heartbeat waits in ")


@pytest.mark.parametrize(("how", "when"), [("crashes", "After the crash"), ("is cut off", "After the limit")])
def test_what_a_check_leaves_or_finds_that_did_not_end_is_noted_and_not_blamed_on_the_target(
    run: Run, how: str, when: str
) -> None:
    async def body(trial: Trial) -> None:
        await opens(trial)
        trial.left = asyncio.create_task(ignoring(asyncio.Event(), []), name="its own")  # type: ignore[attr-defined]
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await trial.waiting.settle()
        if how == "crashes":
            raise RuntimeError("crash")
        trial.waiting.give_up(OutOfTime("late"))
        try:
            await asyncio.Event().wait()
        finally:
            trial.find("merged-identity", "the target, which was stopped meanwhile, answered nothing")

    result = run(body)
    assert (result.outcome, result.verdict.findings) == (Outcome.UNKNOWN, ())
    assert [note.partition(":")[0] for note in result.notes] == [
        f"{when} the event loop reported errors that nobody handled",
        f"{when} tasks are left that ignore their cancellation; no loop that has one can be closed",
    ]


def test_what_is_left_out_is_no_part_of_the_claim(run: Run) -> None:
    async def body(trial: Trial) -> None:
        await opens(trial)
        trial.leave_out("the schedules")

    result = run(body)
    assert result.claim == "claim Not part of this result: the schedules."
    assert (result.outcome, result.verdict.reason) == (Outcome.PASS, "1 expectation held; left out: the schedules")


def test_a_check_that_judges_nothing_is_unknown(run: Run) -> None:
    async def body(trial: Trial) -> None:
        await trial.target()

    assert run(body).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("note", "value", "of_measurement", "of_check"),
    [
        (Trial.measure, 0.5, Outcome.PASS, Outcome.PASS),
        (Trial.measure, 2.0, Outcome.FAIL, Outcome.FAIL),
        (Trial.show, 2.0, Outcome.FAIL, Outcome.PASS),
    ],
    ids=["kept", "broken", "broken and only shown"],
)
def test_a_budget_decides_unless_it_is_only_shown(
    run: Run, note: Callable[..., None], value: float, of_measurement: Outcome, of_check: Outcome
) -> None:
    async def body(trial: Trial) -> None:
        trial.judge(Verdict.passed("1 thing"))
        note(trial, "growth", value, "MB", LAB("<", 1.0))

    result = run(body)
    assert (result.measurements[0].outcome, result.outcome) == (of_measurement, of_check)


def test_one_measurement_beyond_two_budgets_is_one_finding(run: Run) -> None:
    async def body(trial: Trial) -> None:
        trial.measure("leaks", 2, "leaks", ASKED("==", 0), LAB("==", 0))
        trial.measure("freed", 0.5, "share", ASKED(">", 0.8), LAB("==", 1.0))

    result = run(body)
    assert [finding.sentence for finding in result.verdict.findings] == [
        "leaks is 2 leaks, budget == 0 leaks (asked and lab)",
        "freed is 50%, budget > 80% (asked) and == 100% (lab)",
    ]
    assert [one.outcome for one in result.measurements if one.metric == "freed"] == [Outcome.FAIL] * 2


def test_a_task_that_is_dropped_while_it_waits_is_named(run: Run) -> None:
    async def waits_for_nobody() -> None:
        await asyncio.get_running_loop().create_future()

    async def body(trial: Trial) -> None:
        trial.judge(Verdict.passed("1 thing"))
        asyncio.get_running_loop().create_task(waits_for_nobody(), name="actor of ada")
        await trial.waiting.settle()
        gc.collect()

    (finding,) = run(body).verdict.findings
    assert finding.anomaly == "unhandled-error"
    assert "'actor of ada'" in finding.witness[0]
    assert finding.witness[0].endswith("waits_for_nobody)")


def test_a_finding_without_a_witness_is_its_own(run: Run) -> None:
    async def body(trial: Trial) -> None:
        trial.find("phantom-agent", "a lookup was answered")

    assert [finding.witness for finding in run(body).verdict.findings] == [("a lookup was answered",)]


def test_a_missing_capability_is_not_applicable_and_named(run: Run) -> None:
    async def body(trial: Trial) -> None:
        raise AssertionError("must not run")

    result = run(body, needs=frozenset({Capability.ORCHESTRATION}))
    assert result.outcome is Outcome.NOT_APPLICABLE
    assert "orchestration" in result.verdict.reason


def test_targets_are_stopped_even_after_a_crash(run: Run) -> None:
    cleaned: list[str] = []

    async def on_cleanup(user: str) -> None:
        cleaned.append(user)

    async def body(trial: Trial) -> None:
        target = await trial.target([Recipe("helper", on_cleanup=on_cleanup)])
        await trial.client(target, "c", "ada").create("helper")
        raise RuntimeError("crash")

    run(body)
    assert cleaned == ["ada"]


def test_concurrent_calls_that_never_end_are_told_with_where_they_wait(run: Run) -> None:
    class RunNeverEnds(ReferenceTarget):
        async def run(self, handle: Handle, command: Command) -> Any:
            if handle.user == "ada":
                await asyncio.Event().wait()

    async def body(trial: Trial) -> None:
        target = await trial.target([Recipe("helper")])

        async def use(user: str) -> None:
            client = trial.client(target, "c", user)
            await client.run(await client.create("helper"), Command("get"))

        await trial.waiting.together(map(use, ("ada", "grace")))
        raise AssertionError("was given up")

    (finding,) = run(body, RunNeverEnds, stuck_after=0.01).verdict.findings
    assert finding.anomaly == "never-ends"
    assert finding.sentence.startswith("1 of 2 concurrent operations did not end: nothing moved for 0.01 s;")
    (place,) = (line for line in finding.witness if "waits in" in line)
    assert re.search(r"> Client.call, .* > RunNeverEnds.run, test_runner.py:\d+ > Event.wait, locks", place)


def test_what_is_given_up_twice_is_found_once(run: Run) -> None:
    async def body(trial: Trial) -> None:
        trial.waiting.give_up(Stuck("the first"))
        trial.waiting.give_up(Stuck("the second"))
        await asyncio.Event().wait()

    (finding,) = run(body, ReferenceTarget, stuck_after=0.01).verdict.findings
    assert finding.anomaly == "never-ends"
    assert finding.sentence.startswith("the first;")


def test_what_is_stopped_for_longer_than_the_patience_still_has_its_time(run: Run) -> None:
    class Slow(ReferenceTarget):
        async def start(self, *args: Any) -> None:
            skip(0.3)
            await turns(4)
            await super().start(*args)

    async def body(trial: Trial) -> None:
        trial.waiting.stuck_after = 0.2
        await trial.target()
        event = asyncio.Event()
        asyncio.get_running_loop().call_soon(skip, 0.3)
        # Set some turns later, when a timer of all the time at once would have been over.
        setting = asyncio.create_task(trial.waiting.settle(4))
        setting.add_done_callback(lambda _: event.set())
        trial.require(await trial.waiting.reached(event), "not-reached", "the event was set")

    assert run(body, Slow, stuck_after=0.01).outcome is Outcome.PASS


def test_what_ended_in_time_is_given_up_no_more(run: Run) -> None:
    given_up: list[bool] = []

    async def slow_to_be_cancelled() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def body(trial: Trial) -> None:
        event = asyncio.Event()
        event.set()
        trial.require(await trial.waiting.reached(event), "not-reached", "the event was set")
        with suppress(Stuck):
            await trial.waiting.ends(slow_to_be_cancelled(), "this")
        # Longer than any timer of the two, which all begin before this one.
        for _ in range(2 * SLICES):
            skip(trial.waiting.stuck_after / SLICES)
            await turns(2)
        given_up.append(trial.waiting.has_given_up)

    assert run(body, ReferenceTarget, stuck_after=0.01).outcome is Outcome.PASS
    assert given_up == [False]


def test_calls_that_are_not_recorded_move_the_trial(run: Run) -> None:
    seen: list[object] = []

    class Looked(ReferenceTarget):
        trial: Trial

        async def create(self, *args: Any, **options: Any) -> Handle:
            seen.append(self.trial.moved())
            handle = await super().create(*args, **options)
            seen.append(self.trial.moved())
            return handle

    async def body(trial: Trial) -> None:
        Looked.trial = trial
        target = await trial.target()
        await Caller(trial, target, "c", "ada").create("helper")
        await Caller(trial, target, "c", "grace").create("helper")
        trial.require(not list(trial.history), "recorded", "these are not recorded")
        seen.append(trial.moved())
        await judge_cost_of_ending(trial)

    assert run(body, Looked, stuck_after=0.01).outcome is Outcome.PASS
    assert seen[:5] == [(1, 0), (1, 0), (3, 0), (3, 0), (4, 0)]
    # Each of the thousand that make the others is a movement of its own.
    assert len(set(seen[5:])) >= 1_000


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'shared_state_contamination_detection'"):
        runner.run_check("shared_state_contamination")
    with pytest.raises(UsageError, match="did you mean 'agent_registry'"):
        runner.run_check("shared_state_contamination_detection", target="agent_regstry")
    with pytest.raises(UsageError, match="did you mean 'users'"):
        runner.run_check("shared_state_contamination_detection", parameters={"user": 5})


def test_the_same_seed_gives_the_same_operations() -> None:
    def operations(seed: int) -> list[tuple[str, str, str]]:
        result = runner.run_check("shared_state_contamination_detection", target="reference", seed=seed)
        return [(op.client, op.action, op.agent_type) for op in result.operations]

    assert operations(1) == operations(1)
    assert operations(1) != operations(2)
