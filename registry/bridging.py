"""Checks and closes the bridges that a manager, ours or a foreign one, makes."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from registry.bridge import AgentWebSocketBridge, SilentBridge
from registry.closing import ClosingReport, let_obey, wait_for
from registry.errors import ContextBoundaryError
from registry.runtime import Runtime

__all__ = ["check_bridge", "close_bridge", "closes_at_once"]


def check_bridge(bridge: Any, user_id: str) -> None:
    """Raise `ContextBoundaryError` for another user's bridge and `TypeError` for what cannot emit."""
    if not callable(getattr(bridge, "emit", None)):
        raise TypeError(
            f"create_bridge() returned a {type(bridge).__name__} without emit(event_type, payload, origin); "
            "return an AgentWebSocketBridge or an object with that method"
        )
    owner = getattr(bridge, "user_id", user_id)
    if isinstance(owner, str) and owner != user_id:
        raise ContextBoundaryError(f"create_bridge() gave user {user_id!r} a bridge of user {owner!r}")


def closes_at_once(bridge: Any) -> bool:
    """True for our own bridges, whose `close()` neither waits nor fails."""
    return type(bridge) is AgentWebSocketBridge or type(bridge) is SilentBridge


async def close_bridge(bridge: Any, report: ClosingReport, runtime: Runtime, deadline: float | None) -> None:
    """Call a foreign bridge's `close()` or `aclose()`, if it has one, until `deadline` (loop time)."""
    if deadline is None:
        deadline = asyncio.get_running_loop().time() + runtime.limits.close_timeout
    close = getattr(bridge, "close", None) or getattr(bridge, "aclose", None)
    if close is None:
        return
    task = asyncio.get_running_loop().create_task(_call(close))
    await wait_for({task}, deadline)
    if not task.done():
        task.cancel()
        await let_obey([task])
        report.errors.append("bridge: close() did not end in time; cancelled")
        runtime.abandon(task)
    elif not task.cancelled() and (error := task.exception()) is not None:
        report.errors.append(f"bridge: close() raised {type(error).__name__}: {error}")


async def _call(close: Any) -> None:
    answer = close()
    if inspect.isawaitable(answer):
        await answer
