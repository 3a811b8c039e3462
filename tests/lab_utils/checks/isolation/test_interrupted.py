"""Histories with one interruption: where a call waits, and that each place is interrupted once."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest

from lab_utils.checks.isolation import sampled
from lab_utils.checks.isolation.cuts import BESIDE, CALLS, CROWD, WAYS, Cut, calls_of, mixed
from lab_utils.checks.isolation.exploration import Exploration, lived, seconds_a_call
from lab_utils.checks.isolation.scene import Scene, users_of
from lab_utils.checks.replaying import replayable
from lab_utils.interleavings import run_schedule, threads
from lab_utils.interleavings.threads import OwnTime
from lab_utils.judges.interruption import after_interruption
from lab_utils.runner import run_check
from lab_utils.target import Capability, Command, Handle
from lab_utils.targets.planted.isolation.interrupted import ReplyLeftOnTheWire, _Working
from lab_utils.targets.planted.isolation.over_http import SocketClosedWhenLeft
from lab_utils.targets.planted.memory.capacity import LineLeftRightly, PlaceLostAtItsTurn, PoolThatReconnects
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.values.profiles import UsageError
from lab_utils.values.verdict import Outcome

CHECK = "interrupted_calls_leave_nothing_to_others"


class Waits(ReferenceTarget):
    """Every run waits at three places of its own, and counts how often it is cancelled at each."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled_at: deque[int] = deque()

    async def run(self, handle: Handle, command: Command) -> Any:
        place = 1
        try:
            await asyncio.sleep(0)
            place = 2
            await asyncio.sleep(1)
            place = 3
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled_at.append(place)
            raise
        return await super().run(handle, command)


def test_each_place_where_the_call_waits_can_be_cancelled_at() -> None:
    points = sorted(set(lived(Cut("write"), Waits, 1)[0].points.values()))
    made: list[Waits] = []

    def make() -> Waits:
        made.append(Waits())
        return made[-1]

    for at in points:
        scene = lived(Cut("write", "cancelled", at), make, 1)[0]
        assert scene.record.outcome == "cancelled"
        assert scene.record.place
    assert {1, 2, 3} <= {place for target in made for place in target.cancelled_at}


class Lean(ReferenceTarget):
    """Agents without tools and without a model, as a store of memories is."""

    capabilities = ReferenceTarget.capabilities - {Capability.TOOLS, Capability.MODEL, Capability.CONTEXT_DATA}


class BrokenByACancellation(Lean):
    """A cancelled run leaves the connection of its user to the store in the middle of an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    async def run(self, handle: Handle, command: Command) -> Any:
        if handle.user in self.broken:
            raise ConnectionError("the answer before was never read")
        try:
            await asyncio.sleep(0)
            return await super().run(handle, command)
        except asyncio.CancelledError:
            self.broken.add(handle.user)
            raise


@pytest.mark.parametrize(("target", "anomalies"), [(BrokenByACancellation, {"next-call-fails"}), (Lean, set())])
def test_a_run_that_is_cancelled_spoils_nothing_for_its_own_user_where_agents_have_no_tools(
    target: type[Lean], anomalies: set[str]
) -> None:
    result = run_check(CHECK, target=target)
    assert {finding.anomaly for finding in result.verdict.findings} == anomalies, result.verdict
    assert result.outcome is (Outcome.FAIL if anomalies else Outcome.PASS)


def test_a_call_that_is_over_is_not_interrupted_any_more() -> None:
    record = lived(Cut("write", "cancelled", 10_000), ReferenceTarget, 1)[0].record
    assert (record.outcome, record.is_interrupted) == ("answered null", False)


def test_a_call_that_is_cancelled_before_its_first_step_never_reaches_the_target() -> None:
    record = lived(Cut("write", "cancelled", 0), ReferenceTarget, 1)[0].record
    assert (record.outcome, record.place) == ("cancelled", "its beginning")


def test_the_same_cut_is_the_same_history() -> None:
    one, other = (lived(Cut("tool", "timed-out", 2), ReferenceTarget, 7)[0].record for _ in range(2))
    assert one.place == other.place
    assert [seen.what for seen in one.own] == [seen.what for seen in other.own]


@pytest.mark.parametrize("beside", [*BESIDE, CROWD])
def test_a_name_is_read_as_the_cut_that_it_names(beside: str) -> None:
    for call in CALLS:
        for way in WAYS:
            cut = Cut(call, way, 3, 1, beside, 2, 200)
            assert Cut.parse(str(cut)) == cut


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="known: interruption/CALL"):
        Cut.parse("interruption/dance.cancelled-1-0+nobody-0x1")


@pytest.mark.parametrize(
    ("name", "planted", "right", "anomaly"),
    [
        ("interruption/tool.timed-out-3-0+nobody-0x1", ReplyLeftOnTheWire, ReferenceTarget, "cross-user-data"),
        ("interruption/tool.cancelled-1-1+crowd-0x60", PlaceLostAtItsTurn, LineLeftRightly, "capacity-lost"),
    ],
)
def test_a_finding_is_replayed_from_the_name_of_its_history(
    name: str, planted: type[ReferenceTarget], right: type[ReferenceTarget], anomaly: str
) -> None:
    make = replayable(name)
    assert anomaly in {problem.anomaly for problem in run_schedule(make(planted, 20261)).problems}
    assert not run_schedule(make(right, 20261)).problems


def test_a_replay_has_the_clocks_of_its_history() -> None:
    spans: list[float] = []

    class Slow(ReferenceTarget):
        async def run(self, handle: Handle, command: Command) -> Any:
            began = time.monotonic()
            await asyncio.sleep(2)
            spans.append(time.monotonic() - began)
            return await super().run(handle, command)

    work = replayable("interruption/tool.cancelled-1-0+nobody-0x1")(Slow, 1)
    spans.clear()
    run_schedule(work)
    assert set(spans) == {2.0}


def test_users_are_three_and_the_same_for_a_seed() -> None:
    assert len(set(users_of(5))) == 3
    assert users_of(5) == users_of(5)


class NoDatabase(ReferenceTarget):
    async def create(self, *_: Any, **__: Any) -> Handle:
        raise OSError("no database")


class Dated(ReferenceTarget):
    """Every answer bears a number that no other has."""

    numbers = 0

    async def run(self, handle: Handle, command: Command) -> Any:
        Dated.numbers += 1
        return {"answer": await super().run(handle, command), "number": Dated.numbers}


def test_a_target_that_does_nothing_is_one_finding_and_judged_no_further() -> None:
    result = run_check(CHECK, target=NoDatabase)
    assert [finding.anomaly for finding in result.verdict.findings] == ["failed-operation"]
    assert "no database" in result.verdict.findings[0].sentence


def test_a_target_that_never_answers_twice_the_same_is_not_blamed_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every call of an agent has such an answer: one of them shows it.
    monkeypatch.setattr(Exploration, "besides", lambda self, call: ("nobody",) if call == "write" else ())
    result = run_check(CHECK, target=Dated, in_process=True)
    assert result.outcome is Outcome.PASS, result.verdict.findings[:2]
    assert "from one history to the next" in result.verdict.reason


class _AnswersInJson(_Working):
    """An answer that is no JSON is refused by an error of its own."""

    def copy_out(self, answer: Any) -> Any:
        return json.loads(json.dumps(answer))


class OverASocketInJson(SocketClosedWhenLeft):
    agent = _AnswersInJson


def test_what_needs_a_real_socket_is_interrupted_at_drawn_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the right twin of a planted registry, through a socket, which no deterministic loop has."""
    monkeypatch.setattr(sampled, "_SECONDS", 1.0)
    right = run_check(CHECK, target=OverASocketInJson, in_process=True)
    assert right.outcome is Outcome.PASS, right.verdict.findings[:2]
    assert "a sample was drawn" in right.verdict.reason
    drawn = next(one.value for one in right.measurements if one.metric == "interruptions drawn on the real loop")
    assert drawn >= 1


STEP: ContextVar[str] = ContextVar("step", default="")


class SetsAVariable(ReferenceTarget):
    """Every run leaves a variable in its caller's context, whatever becomes of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    async def run(self, handle: Handle, command: Command) -> Any:
        self.runs += 1
        STEP.set(f"run {self.runs}")
        return await super().run(handle, command)


@pytest.mark.parametrize("way", ["cancelled", "twice", "timed-out"])
def test_a_context_that_every_run_leaves_is_not_blamed_on_an_interruption(way: str) -> None:
    cut = Cut("write", way, 1, 1)
    before, after = (lived(one, SetsAVariable, 1)[0].record for one in (cut.uncut, cut))
    assert "step" in before.changed
    assert after.changed == before.changed


class HandsOver(ReferenceTarget):
    """Every run is done by a task of its own, which waits at two places, and the caller waits for an event."""

    async def run(self, handle: Handle, command: Command) -> Any:
        ended = asyncio.Event()
        worker = asyncio.create_task(self.work(ended))
        await ended.wait()
        await worker
        return await super().run(handle, command)

    async def work(self, ended: asyncio.Event) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        ended.set()


def test_the_place_of_an_interruption_is_the_callers_own_and_that_of_another_task_stands_beside_it() -> None:
    points = sorted(set(lived(Cut("write"), HandsOver, 1)[0].points.values()))
    places = [lived(Cut("write", "cancelled", at), HandsOver, 1)[0].record.place for at in points]
    of_the_caller, of_the_worker = zip(
        *(place.partition(", while another task waited at ")[::2] for place in places), strict=True
    )
    assert all(place.endswith(" run") for place in of_the_caller), places
    assert any(place.endswith(" work") for place in of_the_worker), places


def test_interruptions_are_drawn_of_each_call_and_way_before_the_second_of_any() -> None:
    cuts = [
        Cut("write", "timed-out", 1),
        Cut("write", "timed-out", 2),
        Cut("tool", "twice", 1),
        Cut("tool", "twice", 2),
    ]
    assert mixed(cuts) == [cuts[0], cuts[2], cuts[1], cuts[3]]


def test_a_slow_target_is_interrupted_in_every_way_before_the_time_ends_and_the_rest_is_named() -> None:
    class Counted(Exploration):
        own_s = 0.0

    exploration = Counted(ReferenceTarget, "reference", 1, lambda _: None, lambda _: None)
    assert exploration.whole(lambda _: None) == ""
    assert exploration.histories < 100
    assert any("interruptions of 'tool', for want of time" in text for text in exploration.left_out)


def test_of_a_target_too_slow_for_that_the_calls_that_were_never_interrupted_are_named() -> None:
    class Late(Exploration):
        most_s = 0.0

    exploration = Late(ReferenceTarget, "reference", 1, lambda _: None, lambda _: None)
    assert exploration.whole(lambda _: None) == ""
    assert (exploration.histories, len(exploration.left_out)) == (0, 1)
    assert all(call in exploration.left_out[0] for call in ("tool", "create", "end", "for want of time"))


def test_every_call_is_interrupted_once_before_any_is_a_second_time() -> None:
    tried: list[tuple[str, str]] = []

    class Ordered(Exploration):
        def besides(self, call: str) -> Sequence[str]:
            return ("nobody", "after") if call == "write" else ("nobody",)

        def cuts(self, call: str, beside: str) -> Iterator[Cut]:
            yield from (Cut(call, "cancelled", at, beside=beside) for at in range(3 if call == "create" else 2))

        def _try(self, cut: Cut) -> Scene:
            tried.append((cut.call, cut.beside))
            return super()._try(cut)

    progress: list[float] = []
    exploration = Ordered(ReferenceTarget, "reference", 1, lambda _: None, lambda _: None)
    assert exploration.whole(progress.append) == ""
    once = [*((call, "nobody") for call in calls_of(exploration.capabilities)), ("write", "after")]
    assert tried == [*once, *once, ("create", "nobody")]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0


def test_the_calls_that_are_not_tried_after_enough_findings_are_named() -> None:
    class Finds(Exploration):
        def _walk(self, call: str, beside: str, own: OwnTime) -> Iterator[float]:
            self.found += 2
            yield 0.5

    exploration = Finds(ReferenceTarget, "reference", 1, lambda _: None, lambda _: None)
    assert exploration.whole(lambda _: None) == ""
    assert exploration.found == 4
    assert ["after the first 4 findings" in text for text in exploration.left_out] == [True]


def test_a_pool_that_takes_a_second_to_connect_again_has_lost_nothing() -> None:
    for at in range(1, 6):
        record = lived(Cut("tool", "timed-out", at), PoolThatReconnects, 1)[0].record
        before = lived(Cut("tool"), PoolThatReconnects, 1)[0].record
        assert not list(after_interruption("ann", "it", before, record, ["ann"]))


class FailedBeforeCancelled(ReferenceTarget):
    """A run that has failed says so, also where its caller was cancelled in the same moment."""

    async def run(self, handle: Handle, command: Command) -> Any:
        task = asyncio.ensure_future(super().run(handle, command))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error from None
            raise
        finally:
            del task


def test_a_call_that_fails_in_the_moment_of_its_time_limit_has_left_no_cancellation() -> None:
    before = lived(Cut("fail"), FailedBeforeCancelled, 1)[0].record
    outcomes = set()
    for at in range(1, 12):
        record = lived(Cut("fail", "timed-out", at), FailedBeforeCancelled, 1)[0].record
        outcomes.add((record.outcome == before.outcome, record.is_cancelled))
        assert not list(after_interruption("01", "it", before, record, ["01"])), at
    # Of those that were cancelled, some failed.
    assert (True, True) in outcomes


@pytest.mark.parametrize(
    ("slow_from", "slow_to", "in_line", "expected"),
    [(0, 99, 0.0, 0.028), (0, 99, 1.0, 0.0), (0, 2, 0.0, 0.0)],
    ids=["each call waits", "each is in line for a processor", "the first two wait"],
)
def test_the_time_that_a_busy_machine_takes_is_not_that_of_a_call(
    slow_from: int, slow_to: int, in_line: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a check would leave out what takes a thousand calls."""
    now, calls = 0.0, 0

    class Timed(ReferenceTarget):
        async def run(self, handle: Handle, command: Command) -> Any:
            nonlocal now, calls
            now += 0.028 if slow_from <= calls < slow_to else 0.0
            calls += 1
            return await super().run(handle, command)

    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: now, thread_time=lambda: 0.0))
    monkeypatch.setattr(threads, "_in_line_s", lambda: now * in_line)
    assert seconds_a_call(Timed, users_of(1)) == pytest.approx(expected)


def test_the_time_of_a_call_that_takes_long_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = 0.0, 0

    class Slow(ReferenceTarget):
        async def run(self, handle: Handle, command: Command) -> Any:
            nonlocal now, calls
            now, calls = now + 3.0, calls + 1
            return await super().run(handle, command)

    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: now, thread_time=lambda: now))
    assert (seconds_a_call(Slow, users_of(1)), calls) == (3.0, 2)
