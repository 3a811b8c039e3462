"""Runs a coroutine of a test on a loop of its own, and looks for its leftovers there. Imports nothing of ours: a test
of a package that cannot be imported must fail by itself, not with all others."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")


def run(
    main: Callable[[], Coroutine[Any, Any, T]], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> T:
    """Run `main` on a new loop; fail for a task or timer that it left, and for all that asyncio would only log."""
    complaints: list[str] = []

    async def whole() -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(f"{context}"))
        answer = await main()
        await turns(3)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left: {left}"
        timers = live_timers()
        assert not timers, f"timers left: {timers}"
        return answer

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        answer = runner.run(whole())
    # An exception that nobody retrieved is reported when its future is freed; objects of this test are young.
    gc.collect(1)
    assert not complaints, complaints
    return answer


def live_timers() -> list[Any]:
    """The timers of the running loop that were not cancelled."""
    loop: Any = asyncio.get_running_loop()
    return [handle for handle in loop._scheduled if not handle.cancelled()]


def skip(seconds: float) -> None:
    """Put the running loop's clock forward: as for a process that was stopped, all timers are overdue at once."""
    loop: Any = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds


async def turns(count: int = 1) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def settled(*tasks: asyncio.Future[Any]) -> list[Any]:
    """The answer or the error of each task, cancellation included."""
    return await asyncio.gather(*tasks, return_exceptions=True)


def load(file: Path) -> ModuleType:
    """A file as a module of its own, made anew at each call."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
