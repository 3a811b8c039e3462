"""Faults as hooks: gates that hold a factory or a cleanup, failures, and hangs; nothing here waits for time."""

from __future__ import annotations

import asyncio
import sysconfig
import traceback
from collections import Counter
from pathlib import Path
from typing import ClassVar, Final

from lab_utils.target import Hook, Refused

__all__ = [
    "NO_CLEANUPS",
    "UNKNOWN_TOOL",
    "Exited",
    "Failure",
    "Gate",
    "Hang",
    "OnlyFor",
    "Planned",
    "SlowToStop",
    "WrongAnswer",
    "counted",
    "exiting",
    "is_checks_own",
    "is_targets_own",
    "planned_in",
]


NO_CLEANUPS: Final = "cleanups: none was called, and agents may have none"
"""The part of a claim that is left out where no cleanup was called for anybody's agent."""

UNKNOWN_TOOL: Final = "no-such-tool"
"""The name of a tool that no agent has: a run that asks for it may fail in whatever way."""
_LAB: Final = str(Path(__file__).parents[1])
_CHECKS: Final = str(Path(__file__).parents[1] / "checks")
_TARGETS: Final = str(Path(__file__).parents[1] / "targets")
_AGENT: Final = str(Path(__file__).parents[1] / "targets" / "lab_agent.py")
_TURNS_TO_STOP: Final = 30
_PYTHONS: Final = sysconfig.get_path("stdlib")


class Planned(Exception):
    """The error that the lab plants; anything else is the target's own. `so_far`: how many there were."""

    so_far: ClassVar[int] = 0

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        Planned.so_far += 1


class Exited(BaseException):
    """An error that the lab plants in user code and that derives from BaseException, not Exception."""


async def exiting(user: str) -> None:
    """A hook that always fails so."""
    raise Exited("planted in user code")


class WrongAnswer(TypeError):
    """A call of the target answered something that is not of the kind that the contract names."""


def planned_in(error: BaseException | None) -> Planned | None:
    """The planted error that a target let through or wrapped in an error of its own; None where there is none.

    A refusal is the target's own decision, whatever caused it. Of a group every member must be planted.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, Planned):
            return error
        if isinstance(error, Refused):
            return None
        if isinstance(error, BaseExceptionGroup):
            members = [planned_in(member) for member in error.exceptions]
            return members[0] if None not in members else None
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def is_targets_own(error: BaseException, since: int | None = None) -> bool:
    """Whether code of the target raised the error, or gave a wrong answer: it is no refusal, and neither the lab's code
    nor an error of the lab's has caused it. `since`: `Planned.so_far` when the call began; an error planted meanwhile
    may be the cause, though the target passes on nothing of it but the failure."""
    if since is not None and since != Planned.so_far:
        return False
    seen: set[int] = set()
    while id(error) not in seen:
        if isinstance(error, (Refused, TimeoutError, asyncio.CancelledError)) or planned_in(error) is not None:
            return False
        seen.add(id(error))
        if isinstance(error, WrongAnswer):
            return True
        error = error.__cause__ or error.__context__ or error
    file = _raised_in(error)
    return bool(file) and (not file.startswith(_LAB) or file.startswith(_TARGETS)) and file != _AGENT


def is_checks_own(error: BaseException) -> bool:
    """Whether code of a check raised the error itself, and did not plant it: a mistake of the lab's."""
    return _raised_in(error).startswith(_CHECKS) and planned_in(error) is None


def _raised_in(error: BaseException) -> str:
    """The file of the innermost call on the way to it that is not the standard library's."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((file for file in reversed(files) if not file.startswith(_PYTHONS) or "-packages" in file), "")


class Gate:
    """Holds every comer until it is opened. `reached` is set when the first one is inside; `held` is how many were
    inside when it was opened last."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.inside = 0
        self.held = 0
        self.entered = 0

    async def __call__(self, user: str) -> None:
        self.entered += 1
        self.inside += 1
        self.reached.set()
        try:
            await self.opened.wait()
        finally:
            self.inside -= 1

    def open(self) -> None:
        """Let everybody through, now and later."""
        self.held = self.inside
        self.opened.set()

    def shut(self) -> None:
        """Hold every comer from now on."""
        self.opened.clear()
        self.reached.clear()


class SlowToStop(Gate):
    """Stops some turns of the loop after its cancellation, as code does that gives something back."""

    async def __call__(self, user: str) -> None:
        try:
            await super().__call__(user)
        except asyncio.CancelledError:
            self.inside += 1
            try:
                for _ in range(_TURNS_TO_STOP):
                    await asyncio.sleep(0)
            finally:
                self.inside -= 1
            raise


class Hang:
    """Never ends by itself; obeys its cancellation unless `stubborn`, and then ends when `release` is called."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.reached = asyncio.Event()
        self._stubborn = stubborn
        self._released = asyncio.Event()

    async def __call__(self, user: str) -> None:
        self.reached.set()
        while not self._released.is_set():
            try:
                await self._released.wait()
            except asyncio.CancelledError:
                if not self._stubborn:
                    raise

    def release(self) -> None:
        """Let a stubborn one end, so that the trial leaves nothing behind."""
        self._released.set()


class Failure:
    """Fails the first `times` times (always, if None), after passing through `before`."""

    def __init__(self, message: str, *, times: int | None = None, before: Hook | None = None) -> None:
        self.message = message
        self.failed = 0
        self.times = times
        self._before = before

    async def __call__(self, user: str) -> None:
        if self._before is not None:
            await self._before(user)
        if self.times is None or self.failed < self.times:
            self.failed += 1
            raise Planned(f"{self.message} (user {user!r}, failure {self.failed})")


class OnlyFor:
    """A fault for some users; the others pass."""

    def __init__(self, faults: dict[str, Hook]) -> None:
        self._faults = faults

    async def __call__(self, user: str) -> None:
        fault = self._faults.get(user)
        if fault is not None:
            await fault(user)


def counted(calls: Counter[str], fault: Hook | None = None) -> Hook:
    """Count the calls of each user, then pass on to the fault."""

    async def hook(user: str) -> None:
        calls[user] += 1
        if fault is not None:
            await fault(user)

    return hook
