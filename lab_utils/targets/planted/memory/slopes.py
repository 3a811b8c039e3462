"""Defects too small for a budget: a few bytes a cycle, an object now and then, a socket or a callback a session.

Each releases its objects when its target stops, for the lab's own sake.
"""

from __future__ import annotations

import asyncio
import socket
from array import array
from typing import Any

from lab_utils.target import Subscription
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.golden_path.prompts import Asking, Between
from lab_utils.targets.reference import Bridge, ReferenceTarget, Session
from registry import Completion, Prompt

__all__ = ["PLANTED"]


class TimesInArray(ReferenceTarget):
    """The start of each session is kept in an array, eight bytes each, which grows by many entries at once."""

    def __init__(self) -> None:
        super().__init__()
        self.times = array("d")

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        if self.key(user) not in self.sessions:
            self.times.append(len(self.times) / 7)
        return super().session_for_create(user)


class SampleOfSessions(ReferenceTarget):
    """One session in six is written down, as a sample for a report that nobody ever asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0
        self.sample: list[tuple[int, float]] = []

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        if self.key(user) not in self.sessions:
            self.opened += 1
            if self.opened % 6 == 0:
                self.sample.append((1_000 + self.opened, self.opened / 7))
        return super().session_for_create(user)


class _Receipt:
    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class ReceiptsKept(ReferenceTarget):
    """Every third removal leaves a receipt, in case somebody asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self._removed = 0
        self._receipts: list[_Receipt] = []

    async def remove(self, user: str, agent_type: str) -> bool:
        self._removed += 1
        if self._removed % 3 == 0:
            self._receipts.append(_Receipt(self._removed))
        return await super().remove(user, agent_type)


class SocketLeft(ReferenceTarget):
    """Each session opens a socket to send its metrics, and never closes it."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[socket.socket] = []

    def make_bridge(self, user: str) -> Bridge:
        self.metrics.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        return super().make_bridge(user)

    async def stop(self) -> None:
        await super().stop()
        for one in self.metrics:
            one.close()


class CallsItselfAgain(ReferenceTarget):
    """Each session watches its queue by a callback that asks to be called again at the loop's next turn, for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = False

    def make_bridge(self, user: str) -> Bridge:
        self.look()
        return super().make_bridge(user)

    def look(self) -> None:
        """Look whether there is something to do, now and at every turn."""
        if not self.stopped:
            asyncio.get_running_loop().call_soon(self.look)

    async def stop(self) -> None:
        await super().stop()
        self.stopped = True


class DroppedClientsCounted(ReferenceTarget):
    """A session notes the number of each client that has come, and never looks whether it is there still."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = array("d")

    def subscribe(self, user: str) -> Subscription:
        self.numbers.append(len(self.numbers) / 7)
        return super().subscribe(user)


class _Recalling(Between):
    """Keeps its answers, for a page on the quality of the model that was never written."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.answers: list[Completion] = []

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        self.answers.append(answer := await super().ask(user_id, prompt))
        return answer


class AnswersKept(Asking):
    """The module in front of the model keeps every answer."""

    between = _Recalling


PLANTED = (
    planted_by(TimesInArray, "memory-growth"),
    planted_by(SampleOfSessions, "memory-growth"),
    planted_by(ReceiptsKept, "object-growth"),
    planted_by(SocketLeft, "leaked-socket"),
    planted_by(CallsItselfAgain, "leaked-handle"),
    planted_by(DroppedClientsCounted, "memory-growth"),
    planted_by(AnswersKept, "object-growth"),
)
