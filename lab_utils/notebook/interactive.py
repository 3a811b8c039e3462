"""A registry kept open across cells and called without `await`: the one home of nest-asyncio.

Importing this changes nothing. From the first `enable` or `open_registry` on, asyncio is patched for as long as the
process lives: its tasks are other ones, and they may run inside sections that have no await. The checks of `Lab` are
not touched by that, because each has a process of its own.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from lab_utils.target import Recipe, Row, Target
from lab_utils.targets import make_target

__all__ = ["OpenRegistry", "enable", "open_registry"]

T = TypeVar("T")


def enable(loop: asyncio.AbstractEventLoop | None = None) -> asyncio.AbstractEventLoop:
    """Let `asyncio.run` and `run_until_complete` work inside a loop that runs already, as in a notebook's cell.

    Returns the loop: the one given, else the running one, else a new one. May be called again.
    """
    try:
        import nest_asyncio2 as nest  # type: ignore[import-untyped]
    except ImportError:
        import nest_asyncio as nest
    if loop is None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = asyncio.new_event_loop()
    nest.apply(loop)
    return loop


def open_registry(
    name: str = "agent_registry",
    recipes: Sequence[Recipe] = (Recipe("helper"),),
    rows: Mapping[str, Sequence[Row]] | None = None,
    close_timeout: float = 5.0,
) -> OpenRegistry:
    """Start a target by its name and keep it open until `close`. Raises `UsageError` for an unknown name."""
    target = make_target(name)
    opened = OpenRegistry(target, enable(), name)
    opened.call(target.start(recipes, rows or {}, close_timeout))
    return opened


class OpenRegistry:
    """An open target whose methods are called plainly: `registry.create("ada", "helper")` returns the handle.

    Every call runs on the one loop that the registry belongs to, so that agents keep living from cell to cell. A
    context manager; `close` may be called again.
    """

    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self.target, self.name = target, name
        self._loop = loop
        self._owns_loop = not loop.is_running()
        self._closed = False

    def __repr__(self) -> str:
        return f"<OpenRegistry {self.name}{' closed' if self._closed else ''}>"

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.target, name)
        if not inspect.iscoroutinefunction(found):
            return found

        @functools.wraps(found)
        def call(*arguments: Any, **options: Any) -> Any:
            return self.call(found(*arguments, **options))

        return call

    def call(self, work: Awaitable[T]) -> T:
        """Wait for anything awaitable on the registry's loop and return its answer, or raise its error."""

        async def answer() -> T:
            return await work

        return self._loop.run_until_complete(answer())

    def close(self) -> None:
        """Stop the registry, and its loop where that was made for it."""
        if self._closed:
            return
        self._closed = True
        self.call(self.target.stop())
        if self._owns_loop:
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
