"""Refuses answers of a target that are not of the kind that the contract names, where they are given."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from types import NoneType
from typing import Any, Final

from lab_utils.target import BaseTarget, EndReport, Handle, Population, SupervisionReport, Target
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
    "supervise": (SupervisionReport,),
    "orchestrate": (SupervisionReport,),
}


def checked(target: Target) -> Target:
    """Return the same target, whose methods raise `WrongAnswer` from now on in place of an answer of a wrong kind.

    Its class becomes a subclass of the same name; where that is impossible, as with slots, nothing changes. A call that
    was cancelled may answer anything: that it answers at all is a finding of its own.
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
    return type(kind.__name__, (kind,), {**methods, **names})


def _required(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    kinds = _KINDS[name]

    def required(answer: Any) -> Any:
        if _is_cancelled():
            return answer
        if not isinstance(answer, kinds):
            raise WrongAnswer(f"{name} answered {answer!r:.80}; the contract asks for {kinds[0].__name__}")
        if isinstance(answer, Handle) and not isinstance(answer.instance, str):
            raise WrongAnswer(f"{name} answered a Handle of the instance {answer.instance!r:.80}, which is not a text")
        return answer

    @wraps(method)
    async def ask(self: Target, *arguments: Any, **options: Any) -> Any:
        return required(await method(self, *arguments, **options))

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
