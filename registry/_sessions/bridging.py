"""How one session gets its bridge: asked of a manager, ours or a foreign one, checked, replaced and closed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from contextlib import suppress
from types import CoroutineType
from typing import Any

from registry._sessions.attempts import SharedAttempt
from registry._sessions.closing import ClosingReport, let_obey, wait_for
from registry._sessions.shared import Runtime
from registry._sessions.work import SessionWork, log_errors
from registry.context import UserExecutionContext
from registry.errors import ContextBoundaryError, RegistryError, SessionClosed, describe
from registry.events.bridge import AgentWebSocketBridge, SilentBridge

__all__ = ["BridgeClaim", "SessionBridging", "close_bridge", "closes_at_once"]


class BridgeClaim:
    """The creates that brought a manager and of which none has succeeded yet. With the last of them to fail goes the
    bridge that was made for them, so that a failed create leaves none."""

    __slots__ = ("bridge", "creates", "is_settled")

    def __init__(self) -> None:
        self.bridge: Any = None
        self.creates = 0
        self.is_settled = False


class SessionBridging(SessionWork):
    """The bridge of one session: made once, by one attempt at a time, and kept until it is set again."""

    __slots__ = ("_bridging", "_claim")

    # Set by the session, as those of `SessionWork`.
    _bridging: SharedAttempt[Any] | None
    _claim: BridgeClaim | None

    @property
    def bridge(self) -> Any:
        """The bridge that is set now."""
        return self._life.bridge

    async def set_websocket_manager(self, manager: Any, user_context: UserExecutionContext | None = None) -> None:
        """Ask the manager for a new bridge, which replaces the old one for every agent of the session.

        None goes back to no manager. The old bridge is closed once the new one is there; if making it fails, the old
        one stays. Raises `SessionClosed`, `ContextBoundaryError` for another user's context or bridge, `TypeError`.
        """
        self._life.require_home()
        self._life.require_open()
        if user_context is not None and user_context.user_id != self.user_id:
            raise ContextBoundaryError(
                f"context of user {user_context.user_id!r} was offered to the session of user {self.user_id!r}"
            )
        while self._bridging is not None:
            # One bridge is made at a time. Whether an earlier one fails is told to those who asked for it.
            with suppress(Exception):
                await self._bridging.join()
            self._life.require_open()
        if manager is None:
            self._replace_bridge(SilentBridge(self.user_id))
        else:
            await self._make_bridge(manager, user_context or UserExecutionContext(self.user_id))
        self._settle_claim()

    def needs_bridge(self) -> bool:
        """True while a create that brings a manager has to see to the bridge."""
        return self._claim is not None or type(self._life.bridge) is SilentBridge

    async def claim_bridge(self, manager: Any, context: UserExecutionContext) -> BridgeClaim:
        """See to it that there is a bridge; to be followed by `release_claim`."""
        claim = self._claim
        if claim is None:
            claim = self._claim = BridgeClaim()
        claim.creates += 1
        try:
            if self._bridging is not None:
                await self._bridging.join()
            elif claim.bridge is None:
                # No await from the look at _bridging to the insert: one bridge is made at a time.
                await self._make_bridge(manager, context)
            if not claim.is_settled:
                claim.bridge = self._life.bridge
        except BaseException:
            self.release_claim(claim, succeeded=False)
            raise
        return claim

    def release_claim(self, claim: BridgeClaim, *, succeeded: bool) -> None:
        """A create that had claimed the bridge has ended."""
        claim.creates -= 1
        if succeeded:
            claim.is_settled = True
        if self._claim is claim and (claim.is_settled or not claim.creates):
            self._claim = None
        # Once the session ends, that closes the bridge.
        if claim.creates or claim.is_settled or not self._life.is_open or claim.bridge is not self._life.bridge:
            return
        self._life.bridge = SilentBridge(self.user_id)
        if type(claim.bridge) is AgentWebSocketBridge:
            claim.bridge.withdraw()
        else:
            self._close_replaced(claim.bridge)

    def _settle_claim(self) -> None:
        if self._claim is not None:
            self._claim.is_settled = True
            self._claim = None

    async def _make_bridge(self, manager: Any, context: UserExecutionContext) -> None:
        create_bridge = getattr(manager, "create_bridge", None)
        if not callable(create_bridge):
            raise TypeError(
                f"a {type(manager).__name__} is no websocket manager: it has no create_bridge(user_context)"
            )
        made = create_bridge(context)
        if type(made) is AgentWebSocketBridge or not inspect.isawaitable(made):
            self._replace_bridge(check_bridge(made, self.user_id))
            return
        self._bridging = SharedAttempt(
            made if type(made) is CoroutineType else _awaited(made),
            accept=self._accept_bridge,
            reject=self._reject_bridge,
            forget=self._forget_bridging,
            ended=self.end_work,
        )
        self.begin_work(self._bridging)
        await self._bridging.join()

    def _accept_bridge(self, bridge: Any) -> Any:
        self._replace_bridge(check_bridge(bridge, self.user_id))
        return bridge

    def _reject_bridge(self, bridge: Any) -> None:
        # A bridge of somebody else's is not ours to close.
        with suppress(RegistryError, TypeError):
            self._close_replaced(check_bridge(bridge, self.user_id))

    def _forget_bridging(self, attempt: SharedAttempt[Any]) -> None:
        if self._bridging is attempt:
            self._bridging = None

    def _replace_bridge(self, bridge: Any) -> None:
        old, self._life.bridge = self._life.bridge, bridge
        if old is not bridge:
            self._close_replaced(old)

    def _close_replaced(self, bridge: Any) -> None:
        if closes_at_once(bridge):
            bridge.close()
        else:
            self.keep_closing(_close_and_log(bridge, self.user_id, self._runtime))


def check_bridge(bridge: Any, user_id: str) -> Any:
    """Return it, or raise: `ContextBoundaryError` for another user's, `SessionClosed` for a used one, `TypeError`."""
    if not callable(getattr(bridge, "emit", None)):
        raise TypeError(
            f"create_bridge() returned a {type(bridge).__name__} without emit(event_type, payload, origin); "
            "return an AgentWebSocketBridge or an object with that method"
        )
    owner = getattr(bridge, "user_id", user_id)
    if isinstance(owner, str) and owner != user_id:
        raise ContextBoundaryError(f"create_bridge() gave user {user_id!r} a bridge of user {owner!r}")
    if closes_at_once(bridge) and bridge.closed:
        raise SessionClosed(f"create_bridge() gave user {user_id!r} a bridge that is closed; make a new one every time")
    return bridge


def closes_at_once(bridge: Any) -> bool:
    """True for our own bridges, whose `close()` neither waits nor fails."""
    return type(bridge) is AgentWebSocketBridge or type(bridge) is SilentBridge


async def close_bridge(bridge: Any, report: ClosingReport, runtime: Runtime, deadline: float) -> None:
    """Call a foreign bridge's `close()` or `aclose()`, if it has one, until `deadline` (loop time)."""
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
    elif task.cancelled():
        report.errors.append("bridge: close() raised CancelledError")
    elif (error := task.exception()) is not None:
        report.errors.append(f"bridge: close() raised {describe(error)}")


async def _close_and_log(bridge: Any, user_id: str, runtime: Runtime) -> None:
    report = ClosingReport()
    deadline = asyncio.get_running_loop().time() + runtime.limits.close_timeout
    await close_bridge(bridge, report, runtime, deadline)
    log_errors(user_id, report.errors)


async def _call(close: Any) -> None:
    answer = close()
    if inspect.isawaitable(answer):
        await answer


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer
