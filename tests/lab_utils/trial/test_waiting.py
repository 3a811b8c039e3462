"""How long a trial waits for a condition, on a clock that moves a second whenever it is read."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

import pytest

from lab_utils.runner import runner
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Check, Stuck, Trial
from lab_utils.trial.waiting import Waiting


class ByHand(Waiting):
    """`seconds`: the time of its clock. `moves_at`: the seconds at which an operation ends; `stopped_at`: those at
    which the process stands still for a thousand."""

    def __init__(
        self, stuck_after: float, is_hasty: bool, moves_at: tuple[int, ...] = (), stopped_at: int | None = None
    ) -> None:
        super().__init__(random.Random(1), stuck_after, self._read, self._count, is_hasty)
        self.seconds = 0
        self._moves_at, self._stopped_at = moves_at, stopped_at

    def _read(self) -> float:
        self.seconds += 1 if self.seconds != self._stopped_at else 1_000
        return float(self.seconds)

    def _count(self) -> tuple[int, ...]:
        return (sum(at <= self.seconds for at in self._moves_at),)


@pytest.fixture(autouse=True)
def no_real_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda _: turn(0))


@pytest.mark.parametrize(
    ("is_hasty", "holds_at", "held", "waited"),
    [
        # The first reading is where the wait begins, the last one where it is over.
        (False, 40, True, 40),
        (False, 41, False, 41),
        (True, 10, True, 10),
        (True, 11, False, 11),
    ],
)
def test_a_condition_has_all_the_patience_and_where_a_false_finding_does_no_harm_a_quarter(
    is_hasty: bool, holds_at: int, held: bool, waited: int
) -> None:
    patience = ByHand(40.0, is_hasty)
    assert asyncio.run(patience.until(lambda: patience.seconds >= holds_at)) is held
    assert (patience.seconds, patience.waited_in_vain) == (waited, not held)


def test_after_one_wait_in_vain_no_movement_makes_another_longer() -> None:
    patience = ByHand(40.0, is_hasty=False, moves_at=(50,))
    assert [asyncio.run(patience.until(lambda: False)) for _ in range(2)] == [False, False]
    assert patience.seconds == 41 + 11


def test_while_operations_end_a_condition_is_waited_for() -> None:
    patience = ByHand(40.0, is_hasty=False, moves_at=(39, 70))
    assert asyncio.run(patience.until(lambda: False)) is False
    # 1 + 40: it has moved; it begins anew at 42. 42 + 40: again, from 83 on. 83 + 40: it has not.
    assert patience.seconds == 123


def test_a_process_that_was_stopped_has_lost_a_tenth_of_its_patience() -> None:
    # It is stopped when 4 seconds are over, loses 4, and has the 32 that are left.
    for holds_at, held in ((1_005 + 31, True), (1_005 + 32, False)):
        patience = ByHand(40.0, is_hasty=False, stopped_at=5)
        assert asyncio.run(patience.until(lambda: patience.seconds >= holds_at)) is held  # noqa: B023


@pytest.mark.parametrize(
    ("target", "given", "patience", "is_hasty"),
    [
        ("reference", {}, 30.0, False),
        ("reference", {"patience": 100}, 100.0, False),
        ("SharedDispatcher", {"patience": 100}, 2.0, True),
        ("SharedDispatcher", {"patience": 1}, 1.0, True),
    ],
)
def test_the_parameter_is_the_patience_of_a_trial_but_not_with_what_hangs_by_design(
    target: str, given: dict[str, Any], patience: float, is_hasty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, bool]] = []

    async def body(trial: Trial) -> None:
        seen.append((trial.waiting.stuck_after, trial.waiting.is_hasty))

    monkeypatch.setattr(runner, "target_factory", lambda _: ReferenceTarget)
    texts = ("made_up", "user_isolation", "claim", "data", "looks like")
    check = Check(*texts, body, ("SharedDispatcher",), frozenset())
    monkeypatch.setattr(runner, "RUNNABLE", {"made_up": check})
    runner.run_check("made_up", target=target, parameters=given, in_process=True)
    assert seen == [(patience, is_hasty)]


def test_where_many_wait_at_the_same_place_it_is_told_once_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    async def main() -> list[str]:
        never, others = asyncio.Event(), [asyncio.Event() for _ in range(9)]

        async def waits() -> None:
            await never.wait()

        # Functions of their own, for a place is a function and a line.
        scope: dict[str, Any] = {}
        for number in range(len(others)):
            exec(f"async def waits_{number}(event): await event.wait()", scope)
        single = [scope[f"waits_{number}"](event) for number, event in enumerate(others)]
        patience = ByHand(0.01, is_hasty=False)
        with pytest.raises(Stuck) as caught:
            await patience.together([waits(), waits(), waits(), *single])
        return list(caught.value.places)

    first, *more, last = asyncio.run(main())
    assert re.fullmatch(r"3 tasks wait in waits, test_waiting.py:\d+ > Event.wait, locks.py:\d+", first)
    assert len(more) == 7
    assert all(re.fullmatch(r"\S+ waits in waits_\d, <string>:1 > Event.wait, locks.py:\d+", line) for line in more)
    assert last == "and at 2 places more"


def test_who_waits_by_tasks_is_shown_where_the_targets_code_of_these_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    async def main() -> list[str]:
        lost = asyncio.get_running_loop().create_future()
        # Code of a file that is neither the lab's nor the standard library's, as a registry's is.
        scope: dict[str, Any] = {}
        exec(compile("async def opens(future):\n    await future", "/srv/desk/service.py", "exec"), scope)
        caller = asyncio.create_task(scope["opens"](lost), name="caller 1")
        patience = ByHand(0.01, is_hasty=False)
        with pytest.raises(Stuck) as caught:
            await patience.ends(asyncio.wait([caller]), "a caller")
        caller.cancel()
        return list(caught.value.places)

    lab, theirs = asyncio.run(main())
    assert "waiting.py" in lab
    assert theirs == "caller 1 waits in opens, service.py:2"
