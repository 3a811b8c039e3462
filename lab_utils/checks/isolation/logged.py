"""Log records written while users work, each kept with the user in whose task it was logged.

A task, a callback and `asyncio.to_thread` carry the user with their context. To work given to an executor of threads
the lab itself adds the user, and nothing else of that context. A record from any other thread, such as one that the
target has started to write the entries of a queue, has no owner.
"""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from lab_utils.judges.traces import Trace

__all__ = ["IN_THE_NAME_OF", "recorded_logs", "told_by"]

IN_THE_NAME_OF: ContextVar[str] = ContextVar("IN_THE_NAME_OF")
"""The user for whom a task works: set by the lab, inherited by every task and callback that the target makes."""

# Attributes of every record, which reveal no user.
_PLAIN = frozenset(vars(logging.makeLogRecord({})))


class _Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.traces: list[Trace] = []

    def emit(self, record: logging.LogRecord) -> None:
        # Put into words at once: neither a record nor its error may keep anything alive.
        texts = [_said(record), *map(repr, _arguments(record))]
        texts += [repr(value) for name, value in vars(record).items() if name not in _PLAIN]
        if record.exc_info and record.exc_info[1] is not None:
            texts += told_by(record.exc_info[1])
        self.traces.append(Trace(IN_THE_NAME_OF.get(""), "log", f"a record of {record.name!r}", texts))


@contextmanager
def recorded_logs() -> Iterator[list[Trace]]:
    """Record everything that is logged below the root logger, of every level, and every warning shown, each with the
    user whose task is at work (`IN_THE_NAME_OF`), "" for none. Other handlers receive the same records as before."""
    root, recorder = logging.getLogger(), _Recorder()
    level, others = root.level, [(handler, handler.level) for handler in root.handlers]
    show = warnings.showwarning

    def showwarning(message: Any, category: type[Warning], *args: Any, **options: Any) -> None:
        texts = [str(message), repr(message)]
        recorder.traces.append(Trace(IN_THE_NAME_OF.get(""), "log", f"a {category.__name__}", texts))
        show(message, category, *args, **options)

    for handler, own in others:
        handler.setLevel(max(own, level))
    root.addHandler(recorder)
    root.setLevel(1)
    warnings.showwarning = showwarning
    try:
        with _carried_to_threads():
            yield recorder.traces
    finally:
        warnings.showwarning = show
        root.setLevel(level)
        root.removeHandler(recorder)
        for handler, own in others:
            handler.setLevel(own)


@contextmanager
def _carried_to_threads() -> Iterator[None]:
    """Run the work that a user's task gives to a pool of threads in that user's name: pools carry no context along."""
    submit = ThreadPoolExecutor.submit

    def submit_named(self: ThreadPoolExecutor, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        return submit(self, _in_the_name_of, IN_THE_NAME_OF.get(""), work, args, options)

    ThreadPoolExecutor.submit = submit_named  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]


def _in_the_name_of(user: str, work: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    # A worker thread has one context for all that it ever does.
    token = IN_THE_NAME_OF.set(user)
    try:
        return work(*args, **options)
    finally:
        IN_THE_NAME_OF.reset(token)


def told_by(error: BaseException) -> list[str]:
    """The whole content of an error: its printed form, and the arguments and the notes of it and of every error that it
    came from or is made of, even where print hides them."""
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
