"""A loop of its own: it is closed for any behaviour of its tasks, and their objects are released."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from lab_utils.trial import loops
from tests.running import skip, turns

PATIENCE_S = 0.01


def run(main: Callable[[], Awaitable[object]]) -> tuple[object, list[str]]:
    """The answer of `main`, or its error, and the tasks that were left."""
    left: list[str] = []

    async def awaited() -> object:
        return await main()

    try:
        return loops.run(awaited(), lambda: PATIENCE_S, left.append), left
    except Exception as error:
        return error, left


async def ignoring(released: list[str]) -> None:
    try:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
    finally:
        released.append("released")


def test_the_answer_comes_back_and_so_does_the_error() -> None:
    async def answers() -> str:
        return "an answer"

    async def fails() -> None:
        raise KeyError("an error")

    assert run(answers) == ("an answer", [])
    error, left = run(fails)
    assert (repr(error), left) == ("KeyError('an error')", [])


@pytest.mark.parametrize("fails", [False, True])
def test_a_task_that_ignores_its_cancellation_is_left_and_what_it_holds_released(
    fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    released: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        tasks.append(asyncio.create_task(ignoring(released), name="a heartbeat"))
        await asyncio.sleep(0)
        if fails:
            raise KeyError("an error")

    error, (line,) = run(main)
    assert isinstance(error, KeyError) is fails
    assert re.fullmatch(r"a heartbeat waits in .* > Event.wait, locks.py:\d+", line)
    assert released == ["released"]
    assert tasks[0].get_loop().is_closed()
    del error
    tasks.clear()
    gc.collect()
    assert caplog.messages == []


def test_a_task_that_can_be_cancelled_is_and_its_error_is_nobodys() -> None:
    told: list[object] = []
    ended: list[str] = []

    async def fails_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")
            raise KeyError("an error")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        main.left = asyncio.create_task(fails_when_cancelled())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    assert run(main) == (None, [])
    del main.left  # type: ignore[attr-defined]
    assert (ended, told) == (["ended"], [])


def test_handlers_that_wait_again_are_run_to_their_end() -> None:
    seen: list[str] = []

    async def stubborn() -> None:
        try:
            await ignoring(seen)
        finally:
            try:
                # There is no loop any more on which anything could be awaited.
                await asyncio.sleep(0)
            finally:
                seen.append("the outer one, too")

    async def main() -> None:
        main.left = asyncio.create_task(stubborn())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    _, left = run(main)
    assert len(left) == 1
    assert seen == ["released", "the outer one, too"]


def test_generators_are_closed_though_the_process_was_stopped_and_one_that_does_not_close_holds_up_nothing() -> None:
    closed: list[str] = []

    async def numbers(*, closes: bool) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            if not closes:
                await ignoring([])
            skip(2 * PATIENCE_S)
            await turns(3)
            closed.append("closed")

    async def main() -> list[AsyncIterator[int]]:
        made = [numbers(closes=True), numbers(closes=False)]
        for one in made:
            await anext(one)
        return made

    _, left = run(main)
    assert closed == ["closed"]
    assert len(left) == 1


def test_threads_of_the_loop_have_ended() -> None:
    threads: list[threading.Thread] = []

    async def main() -> None:
        await asyncio.to_thread(lambda: threads.append(threading.current_thread()))

    run(main)
    assert not threads[0].is_alive()


def test_patience_is_asked_for_at_the_end() -> None:
    events: list[str] = []

    async def main() -> None:
        events.append("main has ended")

    def patience() -> float:
        events.append("asked")
        return PATIENCE_S

    loops.run(main(), patience, events.append)
    assert events[:2] == ["main has ended", "asked"]


def test_a_task_that_has_not_begun_waits_in_its_first_line() -> None:
    async def main() -> str:
        task = asyncio.create_task(ignoring([]), name="new")
        text = loops.where(task)
        task.cancel()
        return text

    assert asyncio.run(main()).startswith("new waits in ignoring, test_loops.py:")
