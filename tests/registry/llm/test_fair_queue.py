"""Turns: one line of callers a user, first come first served, limited in time, closed once and for all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from registry.llm.fair_queue import Turns, TurnsClosed
from tests.registry.kit import Gate
from tests.running import settled, turns

LONG = 1_000.0


async def begun(line: Turns, user: str, work: Callable[[], Awaitable[str]]) -> asyncio.Task[str]:
    """A call that has its turn, or stands in line."""
    task = asyncio.create_task(line.take(user, work, LONG))
    await turns(2)
    return task


def at(gate: Gate, answer: str) -> Callable[[], Awaitable[str]]:
    async def work() -> str:
        await gate.pass_through()
        return answer

    return work


async def test_as_many_calls_of_a_user_as_allowed_and_the_others_in_the_order_they_came() -> None:
    line = Turns(2)
    gates = [Gate() for _ in range(4)]
    tasks = [await begun(line, "ada", at(gate, f"answer {n}")) for n, gate in enumerate(gates)]
    assert [gate.arrived for gate in gates] == [1, 1, 0, 0]
    assert line.calls == {"ada": 4}
    gates[1].open()
    assert await tasks[1] == "answer 1"
    await gates[2].reached()
    assert [gate.arrived for gate in gates] == [1, 1, 1, 0]
    assert line.calls == {"ada": 3}
    for gate in gates:
        gate.open()
    assert await settled(*tasks) == [f"answer {n}" for n in range(4)]
    assert line.calls == {}
    assert not line.is_closed


async def test_users_do_not_wait_for_each_other() -> None:
    line, held, free = Turns(1), Gate(), Gate(is_open=True)
    ada = [await begun(line, "ada", at(held, "ada")) for _ in range(2)]
    assert await line.take("bob", at(free, "bob"), LONG) == "bob"
    assert line.calls == {"ada": 2}
    held.open()
    assert await settled(*ada) == ["ada", "ada"]


async def test_the_time_is_counted_from_the_turn_on() -> None:
    line, gate, never = Turns(1), Gate(), Gate()
    first = await begun(line, "ada", at(gate, "first"))
    # No time at all: were it counted in the line, this call would end before the first.
    second = asyncio.create_task(line.take("ada", at(never, "second"), 0))
    await turns(5)
    assert (second.done(), never.arrived) == (False, 0)
    gate.open()
    assert await first == "first"
    with pytest.raises(TimeoutError):
        await second
    assert line.calls == {}


async def test_errors_of_the_work_are_raised_its_own_time_out_too_and_give_the_turn_on() -> None:
    line, free = Turns(1), Gate(is_open=True)

    async def fails() -> str:
        raise TimeoutError("of the work's own")

    for _ in range(2):
        with pytest.raises(TimeoutError, match="of the work's own"):
            await line.take("ada", fails, LONG)
    assert line.calls == {}
    assert await line.take("ada", at(free, "next"), LONG) == "next"


async def test_a_cancelled_call_gives_its_place_on() -> None:
    line, gate = Turns(1), Gate()
    first, second, third = [await begun(line, "ada", at(gate, str(n))) for n in range(3)]
    second.cancel()
    first.cancel()
    assert all(isinstance(each, asyncio.CancelledError) for each in await settled(first, second))
    assert line.calls == {"ada": 1}
    gate.open()
    assert await third == "2"


async def test_closing_ends_who_has_a_turn_refuses_who_waits_and_returns_when_none_is_left() -> None:
    line, gate = Turns(1), Gate()
    calls = [await begun(line, user, at(gate, user)) for user in ("ada", "ada", "bob")]
    closings = [asyncio.create_task(line.close()) for _ in range(2)]
    await turns(1)
    assert line.is_closed
    await settled(*closings)
    # None of the calls was released: the closer has waited for all.
    assert [call.done() for call in calls] == [True] * 3
    assert [type(told) for told in await settled(*calls)] == [TurnsClosed] * 3
    assert (gate.arrived, line.calls) == (2, {})
    with pytest.raises(TurnsClosed):
        await line.take("ada", at(gate, "late"), LONG)
    assert (gate.arrived, line.calls) == (2, {})
    await line.close()


async def test_whoever_gives_up_closing_does_not_give_it_up_for_others() -> None:
    line, gate = Turns(1), Gate()

    async def stubborn() -> str:
        await gate.pass_stubbornly()
        return "late"

    call = await begun(line, "ada", stubborn)
    impatient, patient = [asyncio.create_task(line.close()) for _ in range(2)]
    await turns(3)
    impatient.cancel()
    await settled(impatient)
    await turns(3)
    assert (patient.done(), call.done()) == (False, False)
    gate.open()
    await patient
    # It was not ended, it came to its end.
    assert await settled(call) == ["late"]


async def test_a_call_that_fails_by_itself_while_closing_keeps_its_error() -> None:
    line, gate = Turns(1), Gate()

    async def fails() -> str:
        await gate.pass_stubbornly()
        raise ValueError("of the work's own")

    call = await begun(line, "ada", fails)
    closing = asyncio.create_task(line.close())
    await turns(3)
    gate.open()
    assert str((await settled(call))[0]) == "of the work's own"
    await closing
