"""Refuses answers of a target that are not of the kind that the contract names, where they are given."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, wraps
from types import NoneType
from typing import Any, Final

from lab_utils.interleavings.observing import STEPS
from lab_utils.target import (
    BaseTarget,
    Delivered,
    EndReport,
    Handle,
    Population,
    Subscription,
    SupervisionReport,
    Target,
)
from lab_utils.trial.faults import WrongAnswer

__all__ = ["checked"]

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "create": (Handle,),
    "create_strict": (Handle,),
    "make_apart": (Handle,),
    "get_or_create": (Handle,),
    "get": (Handle, NoneType),
    "reset": (int,),
    "end": (EndReport,),
    "end_all": (EndReport,),
    "population": (Population,),
    "connections": (int,),
    "run": (object,),
    "remove": (object,),
    "supervise": (SupervisionReport,),
    "orchestrate": (SupervisionReport,),
    "subscribe": (object,),
}
_TEXTS: Final = ("user", "type", "agent", "run", "body", "stream", "thread", "agent_id")
"""The fields of an event that are texts."""


def checked(target: Target) -> Target:
    """Return the same target, whose methods raise `WrongAnswer` from now on in place of an answer of a wrong kind.

    Its class becomes a subclass of the same name, if it is written in Python. Its clients raise the same error for
    events. A call that was cancelled may answer anything: that it answers at all is a finding of its own.
    """
    with suppress(TypeError):
        target.__class__ = _checking(type(target))
    return target


@cache
def _checking(kind: type[Target]) -> type[Target]:
    own = {name: method for name in _KINDS if (method := getattr(kind, name, None)) is not getattr(BaseTarget, name)}
    # Capabilities follow from the methods that a target overrides: none more must be overridden here.
    methods = {name: _required(name, method) for name, method in own.items() if method}
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    # An object with slots can only take a class that adds none.
    return type(kind.__name__, (kind,), {**methods, **names, "__slots__": ()})


class _Client:
    """A client of the target, whose events are checked as they are read."""

    def __init__(self, client: Subscription) -> None:
        self._client = client
        self._checked = 0

    @property
    def is_open(self) -> bool:
        return self._client.is_open

    def received(self) -> Sequence[Delivered]:
        events = self._client.received()
        if not isinstance(events, Sequence):
            raise WrongAnswer(f"received() returned {events!r:.80}; the contract requires a list of Delivered")
        for event in events[self._checked :]:
            if flaw := _flaw_of(event):
                raise WrongAnswer(flaw)
        self._checked = len(events)
        return events

    async def close(self) -> None:
        await self._client.close()


def _flaw_of(event: object) -> str:
    if not isinstance(event, Delivered):
        return f"received() holds {event!r:.80}; the contract requires Delivered"
    if type(event.seq) is not int:
        return f"an event has the number {event.seq!r:.80}, which is not an int"
    wrong = next((name for name in _TEXTS if not isinstance(getattr(event, name), str)), "")
    return f"an event has {wrong} {getattr(event, wrong)!r:.80}, which is not a text" if wrong else ""


def _required(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    kinds = _KINDS[name]

    def required(answer: Any) -> Any:
        if name == "subscribe":
            return _Client(answer) if hasattr(answer, "received") else answer
        if _is_cancelled():
            return answer
        if not isinstance(answer, kinds):
            raise WrongAnswer(f"{name} returned {answer!r:.80}; the contract requires {kinds[0].__name__}")
        if isinstance(answer, Handle) and not isinstance(answer.instance, str):
            raise WrongAnswer(f"{name} answered a Handle of the instance {answer.instance!r:.80}, which is not a text")
        return answer

    @wraps(method)
    async def ask(self: Target, *arguments: Any, **options: Any) -> Any:
        try:
            return required(await method(self, *arguments, **options))
        finally:
            # Seen from outside: a check may make many calls, or live whole histories, and record none of them.
            STEPS.answers += 1

    @wraps(method)
    def ask_at_once(self: Target, *arguments: Any, **options: Any) -> Any:
        answer = method(self, *arguments, **options)
        return answer if inspect.isawaitable(answer) else required(answer)

    return ask if inspect.iscoroutinefunction(method) else ask_at_once


def _is_cancelled() -> bool:
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0
