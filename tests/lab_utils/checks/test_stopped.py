"""A process that was stopped, or starved, in the midst of a call of a check on a real loop: nobody is blamed for that."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import pytest

from lab_utils.checks.isolation.cuts import Cut
from lab_utils.checks.isolation.sampled import _lived
from lab_utils.checks.limits_and_time.loops import foreign_loops
from lab_utils.checks.registration.racing import Races
from lab_utils.service.door import Session
from lab_utils.service.target import ServiceTarget
from lab_utils.target import Command, EndReport, Handle, Refusal, Refused
from lab_utils.targets.planted.services import planted_file
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Trial, checked
from lab_utils.values.limits import limited


class Clock:
    """The clock of every loop; it goes on by an hour at each stop."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stopped_s = 0.0
        monkeypatch.setattr(asyncio.BaseEventLoop, "time", lambda _: time.monotonic() + self.stopped_s)

    async def stop(self) -> None:
        """Be stopped, and then need some turns of the loop, as what comes from a thread or a socket does."""
        self.stopped_s += 3_600
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_a_limit_loses_a_slice_and_is_over_in_the_end(clock: Clock) -> None:
    async with limited(600.0) as limit:
        for _ in range(9):
            await clock.stop()
    assert not limit.expired()
    with suppress(TimeoutError):
        async with limited(600.0) as limit:
            for _ in range(11):
                await clock.stop()
    assert limit.expired()


async def test_a_history_on_a_real_loop(clock: Clock) -> None:
    class Stops(ReferenceTarget):
        async def run(self, handle: Handle, command: Command) -> Any:
            await clock.stop()
            return await super().run(handle, command)

        async def end(self, user: str) -> EndReport:
            await clock.stop()
            return await super().end(user)

    scene = await _lived(Trial(lambda: checked(Stops()), {}, 1, stuck_after=30.0), Cut("write"))
    observed = [one for answers in scene.record.observed.values() for one in answers]
    assert len(observed) > 20
    assert scene.record.outcome.startswith("answered")
    assert not [one for one in observed if one.what.startswith("no answer")]


async def test_a_call_from_another_loop_that_is_refused_late(clock: Clock) -> None:
    class RefusesLate(ReferenceTarget):
        async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
            if asyncio.get_running_loop() is not home:
                await clock.stop()
                raise Refused(Refusal.WRONG_LOOP, "another loop")
            return await super().get(user, agent_type, thread)

    home = asyncio.get_running_loop()
    trial = Trial(RefusesLate, {}, 1, stuck_after=30.0)
    await foreign_loops(trial)
    await trial.stop_all()
    assert not [one.sentence for verdict in trial.verdicts for one in verdict.findings]


async def test_a_cancelled_caller_that_gives_back_for_long(clock: Clock) -> None:
    class GivesBack(ReferenceTarget):
        async def get_or_create(self, *args: Any, **more: Any) -> Handle:
            try:
                return await super().get_or_create(*args, **more)
            except asyncio.CancelledError:
                # It is awaited after some turns.
                for _ in range(3):
                    await clock.stop()
                raise

    trial = Trial(GivesBack, {"racers": 2}, 1, stuck_after=30.0)
    races = Races(trial)
    gates = await races.open(["held"])
    callers = races.callers("ada", "held", 2)
    await races.arrived(gates["held"], "an agent")
    await races.cancel(callers, [0, 1])
    await trial.stop_all()
    assert not trial.verdicts
    assert all(task.cancelled() for task in callers.values())


async def test_a_request_to_a_server(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    target = ServiceTarget(planted_file("right"))
    await target.launch()
    door = target.door("ada")
    whole = door._whole

    async def stopped(*request: Any) -> Any:
        await clock.stop()
        return await whole(*request)

    monkeypatch.setattr(door, "_whole", stopped)
    answer = await door.do("open", Session("ada", {"session": "s"}), {})
    await target.stop()
    assert answer.is_done
