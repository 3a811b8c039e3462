"""Interrupts one user's call at every suspension point, in every way, and compares what others observe."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from heapq import heappop, heappush

from lab_utils.checks.isolation.cuts import BESIDE, CROWD, FAILING, HOOKS, SHARED, Cut, calls_of, mixed
from lab_utils.checks.isolation.line import Line
from lab_utils.checks.isolation.logged import recorded_logs
from lab_utils.checks.isolation.scene import Scene, Size, users_of
from lab_utils.interleavings import (
    Missing,
    NotExplorable,
    Problem,
    Stage,
    Token,
    Workload,
    run_schedule,
    virtual_clocks,
)
from lab_utils.interleavings.threads import OwnTime
from lab_utils.judges.interruption import Record, after_interruption
from lab_utils.target import Capability, Command, NotSupported, Recipe, Target
from lab_utils.trial import OutOfTime, Trial
from lab_utils.values.verdict import REPLAY, Finding, Verdict

__all__ = ["Exploration", "explore_interruptions", "lived", "seconds_a_call", "workload_of"]

_ENOUGH = 4
"""Findings of different names and calls after which the rest is not tried: more of them rarely add anything."""
_HEARD = ("tool", "think")
"""Calls in the midst of which the user's client is lost: events are sent meanwhile."""
_BETWEEN = (1, 2)
"""Steps of the loop between two cancellations, of every call."""
_CALLS, _BRIEF_CALLS = 110, 24
"""Calls of one history with a crowd, beside the interrupted ones, as a whole and in brief."""
_FEW_TIMES = 10
"""Interruptions at one place that are always tried, however slow the target is."""
_LONGEST = 12
"""Steps at most for calls that give back for longer."""
_TIMED, _LONG_CALL_S = 3, 1.0
"""How often a call's time is taken, and a time that no busy machine makes of a short one."""
_WORST = (
    "cross-user-data",
    "not-refused",
    "cancellation-left",
    "cancelled-others",
    "lost-write",
    "context-left",
    "cancellation-lost",
    "two-end-events",
    "capacity-lost",
    "over-limit",
    "next-call-fails",
    "wrong-rows",
    "lost-event",
    "connection-left",
    "left-behind",
    "stop-failed",
    "never-ends",
    "interference",
    "failed-operation",
)
"""The findings in one history, the cause before its effects."""


async def explore_interruptions(
    trial: Trial, shown_by: Mapping[str, str], kind: type[Exploration] | None = None
) -> Exploration:
    """Explore the interruptions on a deterministic loop, which is in a thread of its own; judge and measure. Return the
    exploration, which names the calls that need more than such a loop. `shown_by`: the one call that is interrupted in
    a calibration, by the names of planted registries."""
    loop = asyncio.get_running_loop()

    def found(finding: Finding) -> None:
        # At once, for a check may end with its first finding.
        loop.call_soon_threadsafe(trial.judge, Verdict.of([finding], 1, ""))

    def took(seconds: float) -> None:
        if trial.is_out_of_time:
            # Its thread would keep the process from ending.
            raise OutOfTime("the exploration is given up")
        trial.took(seconds)
        trial.give_way()

    exploration = (kind or Exploration)(trial.make_target, trial.target_name, trial.seed, found, took)
    exploration.times = int(trial.parameters.get("interruptions", 1))
    if trial.stops_at:
        exploration.only = shown_by.get(trial.target_name, "")
    # A target's log of the errors planted here reaches no handler: other checks judge it.
    with recorded_logs():
        missing = await loop.run_in_executor(
            None, exploration.whole, lambda part: trial.progress("interrupting one user, asking others", part)
        )
    if missing:
        trial.judge(Verdict.unknown(f"nothing was interrupted: {missing}"))
    for text in dict.fromkeys(exploration.left_out):
        trial.leave_out(text)
    if exploration.histories and not exploration.found:
        trial.judge(Verdict.passed(f"{exploration.observations} observations of others, each as if uninterrupted"))
    if exploration.unexplored and not exploration.histories:
        trial.note("Nothing was interrupted on a loop without sockets and threads, which the target needs.")
    trial.measure("suspension points interrupted", exploration.points, "points")
    trial.measure("histories compared", exploration.histories, "histories")
    return exploration


class _FailsAlone(Exception):
    """A call that should succeed fails though nothing was interrupted; the finding is recorded."""


class Exploration:
    """Lives the history of each call without an interruption, which shows where it waits, and then with each."""

    only = ""
    """The one call that is interrupted; "" for all."""
    times = 1
    """How often each interruption is repeated where it is one that is."""
    then_twice, each = "timed-out", 1
    """The way after which a call that gives back for longer is cancelled again, and at each so many of its steps."""
    own_s = 30.0
    """Seconds of its own (`OwnTime`) after which each call of a slow target is interrupted once at most."""
    most_s = 60.0
    """Seconds of its own after which no other call is begun."""
    step_s = 25.0
    """Seconds of its own that a history may take, with the same one uninterrupted; more is lived in brief."""

    def __init__(
        self,
        make_target: Callable[[], Target],
        target: str,
        seed: int,
        on_finding: Callable[[Finding], None],
        took: Callable[[float], None],
    ) -> None:
        self.points = self.histories = self.observations = self.found = 0
        self.left_out: list[str] = []
        self.unexplored: dict[str, None] = {}
        self._size = Size.WHOLE
        self._planned, self._late = Counter[str](), Counter[str]()
        self._make, self._target, self._seed = make_target, target, seed
        self._on_finding, self._took = on_finding, took
        self.capabilities = make_target().capabilities
        self._before: dict[Cut, Record] = {}
        self._known: set[tuple[str, str]] = set()

    def whole(self, progress: Callable[[float], None]) -> str:
        """Interrupt everything, each call beside each of `BESIDE` once before any is interrupted again: so a fault of
        one call is found early, and a slow target has none of them left out. Return the name of a missing package, or
        ""."""
        own = OwnTime(2 * self.step_s)
        self._fit()
        calls = [call for call in calls_of(self.capabilities) if self.only in ("", call)]
        kinds = [(call, one) for one in (*BESIDE, CROWD) for call in calls if one in self.besides(call)]
        walks = [(0, number, self._walk(call, one, own)) for number, (call, one) in enumerate(kinds)]
        done = dict.fromkeys(kinds, 0.0)
        longest_s = 0.0
        try:
            while walks:
                began_s = own.seconds()
                if began_s + longest_s > self.most_s and (self.histories or began_s > self.most_s):
                    untried = ", ".join(dict.fromkeys(kinds[number][0] for _, number, _ in sorted(walks)))
                    self.left_out.append(f"more interruptions of {untried}, for want of time")
                    break
                turn, number, walk = heappop(walks)
                kind = kinds[number]
                done[kind] = next(walk, 1.0)
                longest_s = max(longest_s, own.seconds() - began_s)
                progress(sum(done.values()) / len(kinds))
                if self.found >= _ENOUGH:
                    self.left_out.append(
                        f"interruptions after the first {_ENOUGH} findings, the last of them in {kind[0]!r}"
                    )
                    break
                if done[kind] < 1.0:
                    heappush(walks, (turn + 1, number, walk))
        except Missing as missing:
            return str(missing)
        for call, late in self._late.items():
            self.left_out.append(f"{late} of {self._planned[call]} interruptions of {call!r}, for want of time")
        return ""

    def _fit(self) -> None:
        """Live shorter histories, with fewer interruptions, where each call takes long of the time of the lab's own
        process, such as in a thread. A wait on the loop takes none of it."""
        seconds = seconds_a_call(self._make, users_of(self._seed))
        if seconds * (2 * _CALLS + self.times) <= self.step_s:
            return
        self._size = Size.BRIEF
        self.left_out.append(
            f"most of what others ask after an interruption, for want of time: a call takes {seconds:.2g} s"
        )
        if self.times > 1:
            wanted, at_most = self.times, int(self.step_s / seconds) - 2 * _BRIEF_CALLS
            self.times = min(wanted, max(_FEW_TIMES, at_most))
            self.left_out.append(
                f"more than {self.times} of {wanted} interruptions at one place, and crowds of more than {Size.BRIEF}, "
                "for want of time"
            )

    def _walk(self, call: str, beside: str, own: OwnTime) -> Iterator[float]:
        """Interrupt one call with the same one beside it, and yield the part that is done after each interruption but
        the last."""
        try:
            cuts = mixed(self.cuts(call, beside))
            # It grows with each observation: a call that gives back for long is cancelled again at each step of that.
            for number, cut in enumerate(cuts):
                if number and own.seconds() > self.own_s:
                    self._late[call] += len(cuts) - number
                    break
                scene = self._try(cut)
                if cut.way == self.then_twice and beside == "nobody" and scene.gave_back > _BETWEEN[-1]:
                    more = range(_BETWEEN[-1] + 1, min(scene.gave_back, _LONGEST) + 1, self.each)
                    cuts += (Cut(call, "twice", cut.at, again, times=cut.times) for again in more)
                if number + 1 < len(cuts):
                    yield (number + 1) / len(cuts)
            self._planned[call] += len(cuts)
        except NotSupported as lacking:
            self.left_out.append(f"the interruption of {call!r}: {lacking}")
        except NotExplorable:
            self.unexplored[call] = None
        except _FailsAlone as step:
            self.left_out.append(f"the interruption of {call!r}, as {step} fails without one")

    def besides(self, call: str) -> Sequence[str]:
        """Which of `BESIDE` this call is interrupted with."""
        if call in FAILING:
            return ("nobody",)
        return BESIDE if call in SHARED else ("nobody", "before", "after")

    def cuts(self, call: str, beside: str) -> Iterator[Cut]:
        """Every interruption of this call beside that other one. Where it waits is seen while it is not
        interrupted."""
        if call in FAILING:
            yield from self._beside_a_writer(call, ())
            return
        places = self.points_of(Cut(call, beside=beside))
        if call in _HEARD and beside in ("nobody", "before") and Capability.EVENTS in self.capabilities:
            yield from (Cut(call, "dropped", at, beside=beside) for at in places)
        if beside != "nobody":
            yield from (Cut(call, "cancelled", at, beside=beside) for at in places)
        else:
            self.points += len(places)
            for at in places:
                yield Cut(call, "timed-out", at)
                yield from (Cut(call, "twice", at, again) for again in _BETWEEN)
            if call in HOOKS:
                yield from (Cut(call, way, turn) for way in ("raised", "exited") for turn in (0, 1))
            yield from self._beside_a_writer(call, places)
        if beside != "just-after":
            yield Cut(call, "cancelled", 0, beside=beside)

    def _beside_a_writer(self, call: str, places: Sequence[int]) -> Iterator[Cut]:
        """The call fails, or is cancelled where it waits last, while another user's write is at this step."""
        ways = {
            "fail": (("failed", 0),),
            "uncopied-answer": (("failed", 0),),
            "refused-create": (("failed", 0),),
            "refused-tool": (("failed", 0),),
            "write": (("raised", 1), ("cancelled", max(places))) if places else (("raised", 1),),
            "tool": (("cancelled", max(places)),) if places else (),
            "create": (("raised", 1),),
        }
        if call not in ways:
            return
        for way, at in ways[call]:
            yield from (Cut(call, way, at, beside="before", lead=lead) for lead in self._leads)

    @cached_property
    def _leads(self) -> list[int]:
        """The steps by which a write is ahead of a call that begins at each of its places."""
        far = 10_000
        leads = lived(Cut("nothing", beside="before", lead=far), self._make, self._seed)[0].leads
        return sorted(set(leads.values()))

    def points_of(self, cut: Cut) -> list[int]:
        """The steps after which the call waits at each of its places, as is seen while it is not interrupted; the first
        of them last, for there a call has rarely taken anything yet."""
        scene, problems = self._lived(cut)
        if scene.record.failed:
            # A step that fails here may need a server that only a real loop reaches.
            raise NotExplorable(scene.record.failed)
        self._before[cut] = scene.record
        self.histories += 1
        # A fault that shows without an interruption has no other cause to be looked for here.
        if findings := self.judge(cut, scene, problems, scene.record):
            # The same call fails in the histories of other calls, too.
            self.tell(cut, scene.record.broken[0], findings)
            if scene.record.broken[0]:
                raise _FailsAlone(scene.record.broken[0])
            return []
        places = sorted(set(scene.points.values()))
        return places[1:] + places[:1]

    def _lived(self, cut: Cut) -> tuple[Scene, tuple[Problem, ...]]:
        """Live a history, which counts as one operation of the check: within it all clocks are simulated."""
        began = time.perf_counter()
        ended = lived(cut, self._make, self._seed, self._size)
        self._took(time.perf_counter() - began)
        return ended

    def _try(self, cut: Cut) -> Scene:
        if cut.uncut not in self._before:
            self._before[cut.uncut] = lived(cut.uncut, self._make, self._seed, self._size)[0].record
        before = self._before[cut.uncut]
        scene, problems = self._lived(cut)
        self.histories += 1
        self.observations += sum(map(len, scene.record.observed.values()))
        findings = self.judge(cut, scene, problems, before)
        if not findings:
            return scene
        # A target that does not do the same twice is not blamed for it: answers that differ without an interruption are
        # left out.
        again, _ = lived(cut.uncut, self._make, self._seed, self._size)
        noise = {finding.anomaly for finding in self.judge(cut.uncut, again, (), before)}
        if noise:
            self.left_out.append("answers of the target that differ from one history to the next, uninterrupted")
        self.tell(cut, scene.record.place, [finding for finding in findings if finding.anomaly not in noise])
        return scene

    def judge(self, cut: Cut, scene: Scene, problems: Iterable[Problem], before: Record) -> list[Finding]:
        """The faults in a history, the cause first."""
        users = users_of(self._seed)
        happened = cut.told(users[0], scene.record.place)
        findings = list(after_interruption(users[0], happened, before, scene.record, users))
        if cut.times > 1 and scene.record.broken[0] and not before.broken[0]:
            sentence = f"{scene.record.broken[1]}, as {happened}"
            findings.append(Finding("failed-operation", sentence, (scene.record.broken[1],)))
        findings += (Finding(one.anomaly, f"{one.sentence}, after {happened}", (str(cut),)) for one in problems)
        return sorted(findings, key=lambda one: _WORST.index(one.anomaly) if one.anomaly in _WORST else -1)

    def tell(self, cut: Cut, place: str, findings: Sequence[Finding], *, can_replay: bool = True) -> None:
        """Report one finding for each cause. Other findings in the same history are derived from it; of each name, the
        first of a call is reported, and the first of a place where calls wait."""
        if not findings:
            return
        worst, *others = findings
        if self.found >= _ENOUGH:
            return
        causes = {(worst.anomaly, cut.call), (worst.anomaly, place or cut.call)}
        if causes & self._known:
            return
        self._known |= causes
        happened = f", after {cut.told(users_of(self._seed)[0], place)}"
        derived = (f"and so: {other.anomaly}: {other.sentence.removesuffix(happened)}" for other in others)
        token = Token(str(cut), self._target, worst.anomaly, self._seed, ())
        again = (f"{REPLAY}{token}",) if can_replay else ()
        witness = (*worst.witness, *derived, *again)
        self.found += 1
        self._on_finding(Finding(worst.anomaly, worst.sentence, witness))


def seconds_a_call(make_target: Callable[[], Target], users: Sequence[str]) -> float:
    """The seconds of its own that the slower of a create and a run takes on a loop whose clock is simulated: the least
    of a few times, for a busy machine may make one of them slow, and none of them quick."""
    took_s: list[float] = []

    async def work(_: Stage) -> None:
        target = make_target()
        await target.start([Recipe("helper")], {}, 5.0)
        slowest = 0.0
        # Those of the second user count: the first calls may import.
        for user in users[:2]:
            began = own.seconds()
            handle = await target.create(user, "helper")
            made = own.seconds()
            await target.run(handle, Command("read", {"key": "note"}))
            slowest = max(made - began, own.seconds() - made)
        took_s.append(slowest)
        await target.stop()

    # A call takes a millisecond, and a turn of another process's a few: of each wait it is asked what it was for.
    own = OwnTime(least_s=0.0)
    for _ in range(_TIMED):
        # What fails here fails in the histories too, and is judged there.
        with suppress(Exception):
            run_schedule(work)
        if not took_s or min(took_s) >= _LONG_CALL_S:
            break
    return min(took_s, default=0.0)


def lived(
    cut: Cut, make_target: Callable[[], Target], seed: int, size: Size = Size.WHOLE
) -> tuple[Scene, tuple[Problem, ...]]:
    """Live one history on a deterministic loop; return it, with the loop's own findings."""
    scenes: list[Scene] = []

    async def work(stage: Stage) -> None:
        scenes.append(_scene(cut, make_target(), seed, stage, size=size))
        await scenes[0].whole()

    with virtual_clocks():
        outcome = run_schedule(work, most_steps=20_000 + 2_000 * cut.times)
    return scenes[0], outcome.problems


def _scene(cut: Cut, target: Target, seed: int, stage: Stage, *, size: Size = Size.WHOLE) -> Scene:
    return (Line if cut.beside == CROWD else Scene)(cut, target, seed, stage, size=size)


def workload_of(cut: Cut, make_target: Callable[[], Target], seed: int) -> Workload:
    """The work of a replay: the history of one interruption, judged against the one without it, which is lived
    first."""
    uncut = lived(cut.uncut, make_target, seed)[0].record

    async def work(stage: Stage) -> None:
        scene = _scene(cut, make_target(), seed, stage)
        with virtual_clocks():
            await scene.whole()
        before = uncut if cut.is_cut else scene.record
        users = users_of(seed)
        happened = cut.told(users[0], scene.record.place)
        for finding in after_interruption(users[0], happened, before, scene.record, users):
            stage.find(finding.anomaly, finding.sentence)

    return work
