"""The small cores: which there are, how they are named, and how the answers of two callers at once are judged."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("detangle")

from lab_utils.checks.registration import schedules
from lab_utils.checks.registration.callers import workload_of
from lab_utils.checks.registration.cores import Core, cancelled_cores, closing_cores, making_cores, points_of
from lab_utils.checks.registration.schedules import explore_schedules
from lab_utils.checks.registration.sequential import Asked, Held, Judged, State, judged
from lab_utils.interleavings import AT_ITS_TURN, Schedule, explore, run_schedule, suspensions_of, threads
from lab_utils.interleavings.observing import STEPS
from lab_utils.runner import runner
from lab_utils.target import Capability, Command, EndReport, Handle, NotSupported, Refusal, Refused
from lab_utils.targets import target_factory
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Check, Trial
from lab_utils.values.profiles import UsageError
from lab_utils.values.verdict import Outcome

ALL = frozenset(Capability)
SIX = ("create", "get_or_create", "remove", "reset", "end", "end_all")
ONE = State(("#1",), True)
NONE = State()


# ------------------------------------------------------------------------------------------------------------ the cores


def test_every_unordered_pair_of_the_six_is_a_core() -> None:
    pairs = {frozenset((core.first, core.second)) for core in (*making_cores(ALL), *closing_cores(ALL))}
    assert {frozenset((one, other)) for one in SIX for other in SIX} <= pairs


def test_what_a_target_lacks_is_in_no_core() -> None:
    lacking = ALL - {Capability.REMOVE, Capability.END, Capability.LOOKUP, Capability.ORCHESTRATION}
    cores = [*making_cores(lacking), *closing_cores(lacking), *cancelled_cores((*SIX, "get", "orchestrate"), lacking)]
    asked = {one for core in cores for one in (core.first, core.second)}
    assert asked == {"create", "get_or_create", "run", "nothing"}


def test_a_create_that_may_find_an_agent_comes_where_there_is_none() -> None:
    able = frozenset({Capability.END})
    assert list(map(str, making_cores(able))) == ["registration/create+end@0", "registration/create+end_all@0"]
    assert list(map(str, cancelled_cores(("create", "get_or_create"), able))) == [
        "registration/create+nothing@0",
        "registration/create+end@0",
        "registration/end+create@0",
    ]


class BeginsWithARun(ReferenceTarget):
    """An end counts no agent that has never run, which is right for a target without POPULATION."""

    capabilities = frozenset({Capability.END})

    async def end(self, user: str) -> EndReport:
        await super().end(user)
        return EndReport(False, 0)


@pytest.mark.parametrize(
    ("capabilities", "anomalies"),
    [({Capability.END}, []), ({Capability.END, Capability.POPULATION}, ["wrong-count"])],
)
def test_an_agent_need_not_count_before_its_first_run_where_nobody_counts(
    capabilities: set[Capability], anomalies: list[str]
) -> None:
    make = type("Made", (BeginsWithARun,), {"capabilities": frozenset(capabilities)})
    explored = explore(workload_of(Core("create", "end", 0), make, 1), deviations=2)
    found = [] if explored.failing is None else [explored.failing.problem.anomaly]
    assert found == anomalies


def test_each_operation_is_cancelled_alone_and_on_either_side_of_another_caller() -> None:
    cores = cancelled_cores(("create", "end", "run"), ALL)
    assert {str(core) for core in cores if core.watched == 0} == {
        "registration/create+nothing@0",
        "registration/create+get_or_create@0",
        "registration/create+end@1",
        "registration/end+nothing@2",
        "registration/end+get_or_create@2",
        "registration/end+end@2",
        "registration/end+run@2",
        "registration/run+nothing@2",
        "registration/run+get_or_create@2",
        "registration/run+end@2",
        "registration/run+run@2",
    }
    assert {str(core.cancelled_at(1, 0)) for core in cores if core.watched == 1} == {
        "registration/get_or_create+create.cancelled-1-0@0",
        "registration/end+create.cancelled-1-0@1",
        "registration/get_or_create+end.cancelled-1-0@2",
        "registration/end+end.cancelled-1-0@2",
        "registration/run+end.cancelled-1-0@2",
        "registration/get_or_create+run.cancelled-1-0@2",
        "registration/end+run.cancelled-1-0@2",
        "registration/run+run.cancelled-1-0@2",
    }
    assert [(core.point, core.after) for core in points_of(cores[0], 2)] == [
        *((1, after) for after in (0, 1, 3, AT_ITS_TURN)),
        *((2, after) for after in (0, 1, 3, AT_ITS_TURN)),
    ]


@pytest.mark.parametrize(
    "core",
    [
        *making_cores(ALL),
        *closing_cores(ALL),
        *(core.cancelled_at(12, AT_ITS_TURN) for core in cancelled_cores(SIX, ALL)),
        *(core.cancelled_at(12, 3) for core in cancelled_cores((*SIX, "supervise", "orchestrate", "attach"), ALL)),
    ],
    ids=str,
)
def test_a_core_is_read_from_its_name(core: Core) -> None:
    assert Core.parse(str(core)) == core


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("registration/creat+end@0", "unknown workload 'registration/creat"),
        ("memory/create+end@0", "unknown workload"),
        ("registration/create.cancelled-0-1+end@0", "unknown workload"),
        ("registration/create.cancelled-1-1+end.cancelled-1-1@0", "at most one"),
        ("registration/nothing+end@0", "somebody must come first"),
        ("registration/end+nothing.cancelled-1-0@0", "at most one"),
        ("registration/run+end@0", "a run needs an agent"),
    ],
)
def test_a_name_that_is_none_says_why(name: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        Core.parse(name)


def test_a_correct_target_is_right_with_one_deviation_and_at_every_await() -> None:
    able = ReferenceTarget.capabilities
    for core in (*making_cores(able), *closing_cores(able)):
        explored = explore(workload_of(core, ReferenceTarget, 1), deviations=1)
        assert explored.failing is None, explored.failing
        assert explored.exhausted
        assert explored.bounded > 3
    for core in cancelled_cores((*SIX, "run", "attach", "supervise"), able):
        for cancelled in points_of(core, suspensions_of(workload_of(core, ReferenceTarget, 1))):
            outcome = run_schedule(workload_of(cancelled, ReferenceTarget, 1))
            assert outcome.problems == (), cancelled
            # One that comes late may find the caller done; one that comes at once may not.
            assert outcome.was_cancelled or cancelled.after


# ------------------------------------------------------------------------------------------------------- the judgement


def asked(operation: str, value: Any = None, when: tuple[int, int] = (1, 4), **fields: Any) -> Asked:
    return Asked(operation, value, *when, **fields)


FINE = {
    "two made": (NONE, [asked("create", "#1"), asked("create", "#2")], Held(1, 2, "#1")),
    "one for both": (NONE, [asked("get_or_create", "#1"), asked("get_or_create", "#1")], Held(1, 1, "#1")),
    "made, then found": (NONE, [asked("create", "#1"), asked("get_or_create", "#1")], Held(1, 1, "#1")),
    "made beside": (NONE, [asked("create", "#2"), asked("get_or_create", "#1")], Held(1, 2, "#2")),
    "an end between": (
        NONE,
        [asked("get_or_create", "#1"), asked("get_or_create", "#2"), asked("end", 1)],
        Held(1, 1, "#2"),
    ),
    "refused by the end": (NONE, [asked("create", is_refused=True), asked("end", 0)], Held(0, 0, None)),
    "ended first": (NONE, [asked("create", "#1"), asked("end", 0)], Held(1, 1, "#1")),
    "joined ends": (ONE, [asked("end", 1), asked("end_all", 1)], Held(0, 0, None)),
    "removed once": (ONE, [asked("remove", True), asked("remove", False)], Held(1, 0, None)),
    "removed once, and the session with it": (
        ONE,
        [asked("remove", True), asked("remove", False)],
        Held(0, 0, None),
    ),
    "newest removed": (ONE, [asked("create", "#2"), asked("remove", True)], Held(1, 1, "#1")),
    "reset": (ONE, [asked("reset", 1), asked("end", 0)], Held(0, 0, None)),
    "found": (ONE, [asked("get", "#1"), asked("end", 1)], Held(0, 0, None)),
    "a run cut off": (ONE, [asked("run", subject="#1", is_refused=True), asked("remove", True)], Held(1, 0, None)),
    "a run too late": (
        ONE,
        [asked("run", when=(5, 6), subject="#1", is_refused=True), asked("remove", True)],
        Held(1, 0, None),
    ),
    "cancelled create": (NONE, [asked("create", is_unknown=True)], Held(0, 0, None)),
    "cancelled, found": (NONE, [asked("get_or_create", is_unknown=True)], Held(1, 1, "#7")),
    "cancelled, then found by another": (
        NONE,
        [asked("get_or_create", is_unknown=True), asked("get_or_create", "#7")],
        Held(1, 1, "#7"),
    ),
    "cancelled, undone": (NONE, [asked("get_or_create", is_unknown=True)], Held(0, 0, None)),
    "cancelled end": (State(("#1", "#2"), True), [asked("end", is_unknown=True)], Held(0, 0, None)),
    "cancelled end, not begun": (State(("#1", "#2"), True), [asked("end", is_unknown=True)], Held(1, 2, "#2")),
}

LATE = (5, 6)
WRONG = {
    "two for one": ("double-activation", NONE, [asked("get_or_create", f"#{n}") for n in (1, 2)], Held(1, 2, "#2")),
    "removed twice": ("not-sequential", ONE, [asked("remove", True), asked("remove", True)], Held(1, 0, None)),
    "reset twice": ("not-sequential", ONE, [asked("reset", 1), asked("reset", 1)], Held(1, 0, None)),
    "closed twice, one after another": (
        "not-sequential",
        ONE,
        [asked("end", 1), asked("end", 1, LATE)],
        Held(0, 0, None),
    ),
    "refused for nothing": (
        "not-sequential",
        NONE,
        [asked("create", is_refused=True, when=LATE), asked("end", 0)],
        Held(0, 0, None),
    ),
    "a run refused for nothing": (
        "not-sequential",
        ONE,
        [asked("run", subject="#1", is_refused=True)],
        Held(1, 1, "#1"),
    ),
    "a run of a closed agent": (
        "not-sequential",
        ONE,
        [asked("remove", True), asked("run", subject="#1", when=LATE)],
        Held(1, 0, None),
    ),
    "not made anew": ("not-sequential", ONE, [asked("create", "#1")], Held(1, 1, "#1")),
    "found though removed": (
        "not-sequential",
        ONE,
        [asked("remove", True), asked("get", "#1", LATE)],
        Held(1, 0, None),
    ),
    "made though there": ("not-sequential", ONE, [asked("get_or_create", "#2")], Held(1, 2, "#2")),
    "lost": ("orphaned-agent", NONE, [asked("create", "#1"), asked("end", 0)], Held(0, 0, None)),
    "kept": ("left-behind", NONE, [asked("create", is_refused=True), asked("end", 0)], Held(1, 1, "#1")),
    "session kept": ("left-behind", ONE, [asked("end", 1)], Held(1, 0, None)),
    "half ended": ("wrong-count", State(("#1", "#2"), True), [asked("end", is_unknown=True)], Held(1, 1, "#1")),
    "one too few": ("wrong-count", NONE, [asked("create", "#1"), asked("create", "#2")], Held(1, 1, "#2")),
    "another one found": ("not-sequential", ONE, [asked("create", "#2"), asked("remove", True)], Held(1, 1, "#3")),
    "cancelled create left one": ("left-behind", NONE, [asked("create", is_unknown=True)], Held(1, 1, "#1")),
    "cancelled create left a session": ("left-behind", NONE, [asked("create", is_unknown=True)], Held(1, 0, None)),
    "made for nobody": (
        "left-behind",
        NONE,
        [asked("get_or_create", is_unknown=True, may_have_made=False)],
        Held(1, 1, "#1"),
    ),
}


@pytest.mark.parametrize(("before", "calls", "held"), FINE.values(), ids=FINE.keys())
@pytest.mark.parametrize("turned", [False, True])
def test_answers_that_some_order_explains_are_right(
    before: State, calls: list[Asked], held: Held, turned: bool
) -> None:
    verdict = judged(before, calls[::-1] if turned else calls, held)
    assert (verdict.anomaly, verdict.sentence) == ("", "")
    assert verdict.working is not None
    assert len(verdict.working) == held.agents


@pytest.mark.parametrize(("anomaly", "before", "calls", "held"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("turned", [False, True])
def test_answers_that_no_order_explains_are_found(
    anomaly: str, before: State, calls: list[Asked], held: Held, turned: bool
) -> None:
    verdict = judged(before, calls[::-1] if turned else calls, held)
    assert verdict.anomaly == anomaly
    assert all(str(call) in verdict.sentence for call in calls)
    assert verdict.working is None


def test_without_counts_only_the_answers_are_judged() -> None:
    assert judged(NONE, [asked("create", is_unknown=True)], None) == Judged()
    two = [asked("get_or_create", "#1"), asked("get_or_create", "#2")]
    assert judged(NONE, two, None).anomaly == "double-activation"


# ----------------------------------------------------------------------------------- findings of a core's run, by name


class RefusesOddly(ReferenceTarget):
    """Says "capacity" where nothing is full."""

    async def create(self, *_: Any, **__: Any) -> Handle:
        raise Refused(Refusal.CAPACITY, "full")


class Raises(ReferenceTarget):
    """Fails where nothing went wrong."""

    async def create(self, *_: Any, **__: Any) -> Handle:
        raise KeyError("mine")


class ReportsErrors(ReferenceTarget):
    """Reports errors that did not happen, if there was one agent."""

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        return replace(report, errors=("an error",)) if report.closed == 1 else report


class MiscountsTwo(ReferenceTarget):
    """Reports one agent too many, if there were two."""

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        return replace(report, closed=3) if report.closed == 2 else report


class KeepsAfterTwo(ReferenceTarget):
    """Keeps a session whose end closed two agents."""

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        if report.closed == 2:
            self.session_for_create(user)[0].provisional = False
        return report


class ClosesAtFirstUse(ReferenceTarget):
    """An agent that is there refuses to run."""

    async def run(self, handle: Handle, command: Command) -> Any:
        raise Refused(Refusal.CLOSED, "as if closed")


class OneOfTwoConflicts(ReferenceTarget):
    """A store without locks: of two runs at once the second one is asked to try again."""

    at_work = 0
    refuses_from = 1
    conflicts = 0

    async def run(self, handle: Handle, command: Command) -> Any:
        self.at_work += 1
        try:
            await asyncio.sleep(0)
            if self.at_work > self.refuses_from:
                self.conflicts += 1
                raise Refused(Refusal.CONFLICT, "somebody else writes")
            return await super().run(handle, command)
        finally:
            self.at_work -= 1


class AllConflict(OneOfTwoConflicts):
    """Each run is asked to try again, and none is done."""

    refuses_from = 0


class BothConflict(OneOfTwoConflicts):
    """Two runs at once are both asked to try again."""

    async def run(self, handle: Handle, command: Command) -> Any:
        self.at_work += 1
        await asyncio.sleep(0)
        if self.at_work > 1:
            raise Refused(Refusal.CONFLICT, "somebody else writes")
        return await ReferenceTarget.run(self, handle, command)


class LeavesATask(ReferenceTarget):
    """Its stop leaves a task running."""

    async def stop(self) -> None:
        await super().stop()
        self.left = asyncio.ensure_future(asyncio.Event().wait())


class CannotStop(ReferenceTarget):
    """Its stop fails."""

    async def stop(self) -> None:
        raise KeyError("mine")


BY_NAME = [
    ("closed-twice", "DoubleClose", "create+remove@1", ()),
    ("never-closed", "CleanupSkippedOnRemove", "create+remove@1", ()),
    ("cancelled-others", "CancelledCallerCancelsOthers", "get_or_create.cancelled-1-0+get_or_create@0", ()),
    ("next-call-fails", "CachedFailure", "get_or_create+end@0", ((1, 1),)),
    ("left-behind", "ActivationOutlivesCallers", "get_or_create.cancelled-1-0+nothing@0", ()),
    ("use-after-close", "EndCutShort", "end.cancelled-1-0+nothing@2", ()),
    ("double-activation", "CheckThenAwait", "get_or_create+get_or_create@0", ()),
    ("orphaned-agent", "InstalledAfterEnd", "create+end@0", ()),
    ("wrong-refusal", RefusesOddly, "create+end@0", ()),
    ("wrong-refusal", AllConflict, "run+nothing@1", ()),
    ("wrong-refusal", BothConflict, "run+run@1", ()),
    ("failed-operation", Raises, "create+end@0", ()),
    ("wrong-report", ReportsErrors, "create+end@1", ((0, 1),)),
    ("wrong-report", ReportsErrors, "get_or_create+nothing@0", ()),
    ("wrong-count", MiscountsTwo, "create+nothing@1", ()),
    ("left-behind", KeepsAfterTwo, "create+nothing@1", ()),
    ("failed-operation", ClosesAtFirstUse, "create+nothing@0", ()),
    ("stop-failed", CannotStop, "create+nothing@0", ()),
    ("task-left", LeavesATask, "create+nothing@0", ()),
]


@pytest.mark.parametrize(("anomaly", "target", "core", "schedule"), BY_NAME)
def test_each_defect_is_found_by_its_name(anomaly: str, target: Any, core: str, schedule: Schedule) -> None:
    make = target_factory(target) if isinstance(target, str) else target
    outcome = run_schedule(workload_of(Core.parse(f"registration/{core}"), make, 1), schedule)
    assert outcome.followed
    assert outcome.problems[0].anomaly == anomaly


@pytest.mark.parametrize(("core", "conflicts"), [("run+run@1", 1), ("run.cancelled-1-1+run@1", 0)])
def test_one_of_two_runs_at_once_may_be_asked_to_try_again(core: str, conflicts: int) -> None:
    target = OneOfTwoConflicts()
    outcome = run_schedule(workload_of(Core.parse(f"registration/{core}"), lambda: target, 1), ())
    assert outcome.problems == ()
    assert target.conflicts == conflicts


class TellsLate(ReferenceTarget):
    """Answers a turn after the agent is there."""

    async def get_or_create(self, *given: Any, **options: Any) -> Handle:
        handle = await super().get_or_create(*given, **options)
        await asyncio.sleep(0)
        return handle


class LosesCleanupsOfOne(ReferenceTarget):
    """No cleanup of the first user who comes is called, and each of any other user's is."""

    first = ""

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        made = await super().create(user, agent_type, **options)
        self.first = self.first or user
        if user == self.first:
            made.native.recipe = replace(made.native.recipe, on_cleanup=None)
        return made


def test_a_target_whose_only_agents_are_not_cleaned_up_is_not_taken_for_one_without_cleanups() -> None:
    outcome = run_schedule(workload_of(Core("create", "nothing", 0), LosesCleanupsOfOne, 1))
    assert [problem.anomaly for problem in outcome.problems] == ["never-closed"]


@pytest.mark.parametrize("point", [1, 2, 3])
def test_an_agent_that_was_ready_when_its_caller_was_cancelled_may_stay(point: int) -> None:
    core = Core("get_or_create", "nothing", 0, point=point)
    outcome = run_schedule(workload_of(core, TellsLate, 1))
    assert outcome.was_cancelled
    assert outcome.problems == ()


# ----------------------------------------------------------------------------------------------- in a trial of a check


def explored(make: Any, *, cores: Any = None) -> Trial:
    trial = Trial(make, {"deviations": 1}, 1, target_name="made up")
    able = make().capabilities
    cores = closing_cores(able)[:2] if cores is None else cores
    asyncio.run(explore_schedules(trial, cores, cancelled_cores(("end",), able)[:1]))
    return trial


def test_a_trial_states_the_bound_and_measures_the_schedules() -> None:
    trial = explored(ReferenceTarget)
    counts = {one.metric: one.value for one in trial.measurements}
    (note,) = trial.notes
    assert f"2 small cores: every schedule with up to one deviation: {counts['schedules explored'] - 8:.0f}" in note
    assert "8 seeded ones" in note
    assert f"each of {counts['suspension points cancelled']:.0f} suspension points" in note
    assert [verdict.outcome for verdict in trial.verdicts] == [Outcome.PASS]


def test_a_trial_that_only_cancels_states_what_it_cancelled() -> None:
    trial = explored(ReferenceTarget, cores=[])
    counts = {one.metric: one.value for one in trial.measurements}
    (note,) = trial.notes
    assert note.startswith(f"Cancelled at each of {counts['suspension points cancelled']:.0f} suspension points")
    assert [verdict.outcome for verdict in trial.verdicts] == [Outcome.PASS]


async def test_a_trial_that_has_found_something_runs_each_core_once() -> None:
    trial = Trial(ReferenceTarget, {"deviations": 1}, 1)
    trial.find("anything", "at all", "seen")
    await explore_schedules(trial, closing_cores(ALL), ())
    counts = {one.metric: one.value for one in trial.measurements}
    assert counts == {"schedules explored": len(closing_cores(ALL)), "suspension points cancelled": 0}
    assert "each core was run once: the plain runs have findings" in trial.notes[0]


class NeedsASocket(ReferenceTarget):
    """Asks the loop for something that only a real one has."""

    async def get_or_create(self, *_: Any, **__: Any) -> Handle:
        await asyncio.get_running_loop().sock_recv(None, 1)  # type: ignore[arg-type]
        raise AssertionError


class NeedsAThread(ReferenceTarget):
    """Waits for somebody outside of the loop."""

    async def get_or_create(self, *_: Any, **__: Any) -> Handle:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


class CannotReset(ReferenceTarget):
    """Says that it has a capability, and has half of it."""

    async def reset(self, user: str) -> int:
        raise NotSupported("no reset here")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (NeedsASocket, "^schedules, for the target needs more than a loop: .*sock_recv"),
        (NeedsAThread, "^schedules, for one caller alone never ends on a loop that has no sockets and no threads"),
    ],
)
def test_what_needs_sockets_or_threads_is_said_not_to_be_explored(make: Any, why: str) -> None:
    trial = explored(make)
    (text,) = trial.left_out
    assert re.search(why, text)
    assert trial.verdicts == []
    assert trial.measurements == []


@pytest.mark.parametrize("make", [NeedsASocket, NeedsAThread])
def test_what_cannot_be_explored_is_no_part_of_the_checks_claim(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(trial: Trial) -> None:
        trial.require(True, "anything", "holds")
        await explore_schedules(trial, closing_cores(ALL)[:1], ())

    check = Check("made_up", "registration_management", "Well.", "data", "looks like", body, ("DoubleClose",))
    monkeypatch.setattr(runner, "RUNNABLE", {"made_up": check})
    result = runner.run_check("made_up", target=make, in_process=True)
    assert result.claim.startswith("Well. Not part of this result: schedules, for ")
    assert result.verdict.reason.startswith("1 expectation held; left out: schedules, for ")


def test_a_core_that_a_target_cannot_do_is_left_out_and_named() -> None:
    cores = [Core("reset", "reset", 1), Core("remove", "remove", 1)]
    trial = explored(CannotReset, cores=cores)
    assert trial.left_out == ["the schedules of registration/reset+reset@1: no reset here"]
    assert "1 small cores" in trial.notes[0]
    assert [verdict.outcome for verdict in trial.verdicts] == [Outcome.PASS]


@pytest.mark.parametrize("works", [True, False], ids=["works", "waits"])
def test_a_slow_target_is_explored_for_a_while_and_the_rest_is_named(
    monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    now = 0.0

    class Slow(ReferenceTarget):
        async def create(self, *args: Any, **more: Any) -> Handle:
            nonlocal now
            now += 3.0
            return await super().create(*args, **more)

    clocks = SimpleNamespace(perf_counter=lambda: now, thread_time=lambda: now if works else 0.0)
    monkeypatch.setattr(threads, "time", clocks)
    monkeypatch.setattr(threads, "_in_line_s", lambda: 0.0)
    # As in a process in which no other thread shows by its beats whether it was stopped.
    monkeypatch.setattr(STEPS, "beats", 0)
    cores = [Core("create", "end", 0)] * 50
    tally, _ = schedules._Schedules(Slow, "slow", 1, 2).of(cores, (), lambda _: None)
    # In 30 s each core in turn has a quarter of what is left, in 30 s more each one schedule.
    assert 60 < now < 70
    assert 10 < tally.cores < 20
    assert not tally.exhausted
    assert list(dict.fromkeys(tally.left_out)) == [
        "some schedules of small cores, for want of time",
        f"the schedules of {50 - tally.cores} of 50 small cores, for want of time",
    ]
