"""Defects of a target that gives a question to the model up after half a minute: what it keeps, and who is given the
answer that comes late."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable
from typing import Any

from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.golden_path.prompts import Asking, Between
from registry import Completion, LLMTimedOut, Prompt

__all__ = ["PLANTED", "ModelTimeLimit"]

_LIMIT_S = 30.0
_PLACES = 20


class _Wire:
    """A connection to the model: its answers are read in the order in which they come."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[asyncio.Task[Completion]] = asyncio.Queue()
        self.sending: set[asyncio.Task[Completion]] = set()

    async def answer(self, work: Awaitable[Completion]) -> Completion:
        """Send a question, and return the next answer."""
        task = asyncio.ensure_future(work)
        self.sending.add(task)
        task.add_done_callback(self.arrived)
        return (await self.answers.get()).result()

    def arrived(self, task: asyncio.Task[Completion]) -> None:
        self.sending.discard(task)
        if not task.cancelled():
            self.answers.put_nowait(task)

    def close(self) -> None:
        for task in self.sending:
            task.cancel()


class _Limited(Between):
    """A user asks one question at a time, some users at once, each over a connection that is used again."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.places = asyncio.Semaphore(_PLACES)
        self.idle: list[_Wire] = []

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        is_late = False
        await self.turns[user_id].acquire()
        try:
            await self.places.acquire()
            try:
                wire = self.wire_of(user_id)
                try:
                    async with asyncio.timeout(_LIMIT_S):
                        answer = await wire.answer(super().ask(user_id, prompt))
                except TimeoutError as error:
                    is_late = True
                    self.give_up(user_id, wire)
                    raise LLMTimedOut(f"the model did not answer within {_LIMIT_S:g} s") from error
                except BaseException:
                    wire.close()
                    raise
                self.put_back(user_id, wire)
                return answer
            finally:
                self.free_place(is_late)
        finally:
            self.free_turn(user_id, is_late)

    def wire_of(self, user_id: str) -> _Wire:
        """The connection for a question of this user."""
        return self.idle.pop() if self.idle else _Wire()

    def put_back(self, user_id: str, wire: _Wire) -> None:
        """A question has been answered on this connection."""
        self.idle.append(wire)

    def give_up(self, user_id: str, wire: _Wire) -> None:
        """The model has not answered in time on this connection."""
        wire.close()

    def free_place(self, is_late: bool) -> None:
        self.places.release()

    def free_turn(self, user_id: str, is_late: bool) -> None:
        self.turns[user_id].release()


class ModelTimeLimit(Asking):
    """Right: a question that the model does not answer in time is given up with all that it had taken."""

    between = _Limited


class _ReusesWires(_Limited):
    def give_up(self, user_id: str, wire: _Wire) -> None:
        self.idle.append(wire)


class LateAnswerToTheNext(ModelTimeLimit):
    """A connection on which the model did not answer in time is used again, by anybody, and the answer comes there."""

    between = _ReusesWires


class _KeepsWires(_Limited):
    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.wires: dict[str, _Wire] = {}

    def wire_of(self, user_id: str) -> _Wire:
        return self.wires.pop(user_id, None) or _Wire()

    def put_back(self, user_id: str, wire: _Wire) -> None:
        self.wires[user_id] = wire

    give_up = put_back


class LateAnswerToTheNextQuestion(ModelTimeLimit):
    """Each user has a connection, which is used again when the model did not answer in time: the next question of that
    user is answered with the late answer."""

    between = _KeepsWires


class _KeepsPlaces(_Limited):
    def free_place(self, is_late: bool) -> None:
        if not is_late:
            super().free_place(is_late)


class PlaceKeptByTheLate(ModelTimeLimit):
    """A question that is given up keeps its place among those that may be asked at once."""

    between = _KeepsPlaces


class _KeepsTurns(_Limited):
    def free_turn(self, user_id: str, is_late: bool) -> None:
        if not is_late:
            super().free_turn(user_id, is_late)


class TurnKeptByTheLate(ModelTimeLimit):
    """A question that is given up keeps its user's turn: for the target that user asks for ever."""

    between = _KeepsTurns


PLANTED = (
    planted_by(LateAnswerToTheNext, "cross-user-data", twin=ModelTimeLimit),
    planted_by(LateAnswerToTheNextQuestion, "wrong-answer", twin=ModelTimeLimit),
    planted_by(PlaceKeptByTheLate, "capacity-lost", twin=ModelTimeLimit),
    planted_by(TurnKeptByTheLate, "next-call-fails", twin=ModelTimeLimit),
)
