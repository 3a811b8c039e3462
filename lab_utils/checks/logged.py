"""What is logged while users work, each record kept with the user in whose task it was logged."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from lab_utils.checkers.traces import Trace

__all__ = ["IN_THE_NAME_OF", "recorded_logs", "told_by"]

IN_THE_NAME_OF: ContextVar[str] = ContextVar("IN_THE_NAME_OF")
"""The user for whom a task works: set by the lab, inherited by every task and callback that the target makes."""

# What every record has, and says nothing of a user.
_PLAIN = frozenset(vars(logging.makeLogRecord({})))


class _Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.traces: list[Trace] = []

    def emit(self, record: logging.LogRecord) -> None:
        user = IN_THE_NAME_OF.get("")
        if not user:
            return
        # Put into words at once: neither a record nor its error may keep anything alive.
        texts = [_said(record), *map(repr, _arguments(record))]
        texts += [repr(value) for name, value in vars(record).items() if name not in _PLAIN]
        if record.exc_info and record.exc_info[1] is not None:
            texts += told_by(record.exc_info[1])
        self.traces.append(Trace(user, "log", f"a record of {record.name!r}", texts))


@contextmanager
def recorded_logs() -> Iterator[list[Trace]]:
    """Record everything that is logged below the root logger, of every level, and every warning shown, while a user's
    task is at work (`IN_THE_NAME_OF`). What others hear of the log stays the same."""
    root, recorder = logging.getLogger(), _Recorder()
    level, others = root.level, [(handler, handler.level) for handler in root.handlers]
    show = warnings.showwarning

    def showwarning(message: Any, category: type[Warning], *args: Any, **options: Any) -> None:
        if user := IN_THE_NAME_OF.get(""):
            recorder.traces.append(Trace(user, "log", f"a {category.__name__}", [str(message), repr(message)]))
        show(message, category, *args, **options)

    for handler, own in others:
        handler.setLevel(max(own, level))
    root.addHandler(recorder)
    root.setLevel(1)
    warnings.showwarning = showwarning
    try:
        yield recorder.traces
    finally:
        warnings.showwarning = show
        root.setLevel(level)
        root.removeHandler(recorder)
        for handler, own in others:
            handler.setLevel(own)


def told_by(error: BaseException) -> list[str]:
    """All that an error tells: how it is printed, and of it and every error that it came from or is made of, wherever
    that is hidden from print, the arguments and the notes."""
    texts, chain, seen = ["".join(traceback.format_exception(error))], [error], {id(error)}
    while chain:
        one = chain.pop()
        texts += [repr(one.args), *map(repr, getattr(one, "__notes__", ()))]
        grouped = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        for other in (one.__cause__, one.__context__, *grouped):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                chain.append(other)
    return texts


def _said(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        # A wrong number of arguments: logging itself prints the error, and goes on.
        return str(record.msg)


def _arguments(record: logging.LogRecord) -> Iterable[object]:
    return record.args.values() if isinstance(record.args, dict) else record.args or ()
