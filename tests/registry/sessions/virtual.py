"""An event loop whose seconds pass only when nothing is left to do but wait: deadlines become exact figures."""

from __future__ import annotations

import asyncio
import gc
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["run_virtually"]

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Does not wait: it sets the loop's time to when the wait would be over."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everything waits for something that nobody will do"
        self.now += max(0.0, timeout)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._seconds = _Selector()
        super().__init__(self._seconds)

    def time(self) -> float:
        return self._seconds.now


def run_virtually(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main` on a loop that begins at second 0; fail for all that asyncio would only log."""
    complaints: list[str] = []
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: complaints.append(f"{context}"))
        answer = runner.run(main())
    # An exception that nobody retrieved is told when its future is freed; what this test made is young.
    gc.collect(1)
    assert not complaints, complaints
    return answer
