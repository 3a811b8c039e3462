"""Every error the package raises; each names the value at fault and the remedy."""

from __future__ import annotations

import difflib
import functools
import signal
from asyncio import CancelledError
from collections.abc import Iterable
from opcode import opname
from types import CodeType
from typing import Any, Final

__all__ = [
    "AgentClosed",
    "AgentCreationFailed",
    "BadToken",
    "CapacityExceeded",
    "Containment",
    "ContextBoundaryError",
    "DuplicateAgentType",
    "EventPayloadError",
    "ExpiredToken",
    "ForeignToken",
    "InvalidAgent",
    "InvalidIdentifier",
    "InvalidParameters",
    "InvalidUsageRecord",
    "InvalidUserId",
    "LLMFailed",
    "LLMTimedOut",
    "PermissionDenied",
    "PlanError",
    "PlanFailed",
    "ReadOnlyContext",
    "ReentrantCreate",
    "ReentrantRun",
    "RegistryClosed",
    "RegistryError",
    "RunFinished",
    "SessionClosed",
    "StepTimedOut",
    "TokenError",
    "UncopyableValue",
    "UnknownAgentType",
    "UnknownTool",
    "UserCodeExited",
    "WrongEventLoop",
    "describe",
    "described",
    "message_of",
    "sendable",
    "shortened",
    "shown",
]


class RegistryError(Exception):
    """The base of every error raised by this package."""


class InvalidIdentifier(RegistryError, ValueError):
    """A thread, run or request id that is not one."""


class InvalidUserId(InvalidIdentifier):
    """A value that can never be a user id."""


class ContextBoundaryError(RegistryError):
    """Something of one user was offered in the name of another."""


class PermissionDenied(RegistryError):
    """The context lacks a permission that the agent type or the tool requires."""


class UnknownAgentType(RegistryError, LookupError):
    """No recipe is registered under this name."""

    def __init__(self, agent_type: object, known: Iterable[str]) -> None:
        super().__init__(_unknown("agent type", agent_type, known, "register() it first"))


class UnknownTool(RegistryError, LookupError):
    """The dispatcher has no tool of this name."""

    def __init__(self, name: object, known: Iterable[str]) -> None:
        super().__init__(
            _unknown("tool", name, known, "give the registry a tool_dispatcher_factory whose dispatcher has it")
        )


class DuplicateAgentType(RegistryError):
    """An agent type was registered twice without `replace=True`."""


class InvalidAgent(RegistryError, TypeError):
    """A factory returned something that is not an agent built on the scope it was given."""


class AgentCreationFailed(RegistryError):
    """A factory was cancelled from within, so that its callers have no agent and no error of its own."""


class CapacityExceeded(RegistryError):
    """A limit is reached and nothing may be evicted to make room."""


class SessionClosed(RegistryError):
    """The user's session has ended; this handle belonged to it and reaches nothing any more."""


class AgentClosed(SessionClosed):
    """The agent was removed, superseded or closed; its session may live on."""


class RegistryClosed(RegistryError):
    """The registry was closed; open a new one."""


class WrongEventLoop(RegistryError, RuntimeError):
    """A registry was called from an event loop or thread other than its own."""


class UncopyableValue(RegistryError, TypeError):
    """A value that cannot be copied, and so cannot be made private to one user."""


class ReadOnlyContext(RegistryError, TypeError):
    """Somebody tried to change the data of a context."""


class ReentrantCreate(RegistryError, RuntimeError):
    """A factory asked, directly or through others, for the agent that it is making: both would wait for ever."""


class ReentrantRun(RegistryError, RuntimeError):
    """An agent was run from within its own run, which would wait for itself for ever."""


class UserCodeExited(RegistryError):
    """Code of an agent, a tool, a factory or a bridge raised an error that would have ended the process, and
    everybody's work with it: `SystemExit`, say. `__cause__` is that error."""


class RunFinished(RegistryError, RuntimeError):
    """Something left over from a finished run tried to emit an event in its name."""


class EventPayloadError(RegistryError, TypeError):
    """An event's payload is not JSON data."""


class TokenError(RegistryError, PermissionError):
    """A client's token gives it nothing."""


class BadToken(TokenError):
    """A token that was not signed here, or was altered."""


class ExpiredToken(TokenError):
    """A token that was good once."""


class ForeignToken(TokenError):
    """A good token of another service."""


class LLMFailed(RegistryError):
    """A model gave no whole answer. `status` is the HTTP status where the server refused, else None."""

    status: int | None = None


class LLMTimedOut(LLMFailed, TimeoutError):
    """A model gave no whole answer in time."""


class InvalidParameters(RegistryError, ValueError):
    """A tool or a default agent was called with a parameter that is unknown, missing or of the wrong kind."""


class InvalidUsageRecord(RegistryError, ValueError):
    """A usage record has a column that holds no such thing."""


class PlanError(RegistryError, ValueError):
    """A supervisor's plan is not a graph that can be run."""


class StepTimedOut(RegistryError, TimeoutError):
    """A step of a plan did not end within its time limit."""


class PlanFailed(RegistryError):
    """A step of a plan failed; `__cause__` is its error, and `result` says how every step ended."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


def message_of(error: BaseException) -> str:
    """The error's own text, even if computing that text fails, without characters that no socket could carry."""
    try:
        text = str(error)
    except BaseException as failure:
        if stops(failure):
            raise
        return f"<{type(error).__name__} whose text failed>"
    return sendable(text)


def shortened(text: str, most: int = 300) -> str:
    """The text, its middle left out where it is long."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}...({len(text) - most} more)...{text[-(most - most // 2) :]}"


def a_type(value: object) -> str:
    """The name of the value's type with its article, "an int" or "a list"; "None" for None."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"


def shown(value: object, most: int = 300) -> str:
    """The value's `repr`, also of one whose `repr` fails, shortened."""
    try:
        # Not of a long text as a whole: its repr would be as long, or longer.
        return sendable(shortened(repr(shortened(value, most) if type(value) is str else value), most + 20))
    except BaseException as failure:
        if stops(failure):
            raise
        return f"<{type(value).__name__} whose repr failed>"


_SIGNALS: Final = tuple(signal.valid_signals())


class Containment:
    """For a `with` around user code: an error that would end the process leaves the block as `UserCodeExited`.

    It must do so before a task sees it, for asyncio throws `SystemExit` and `KeyboardInterrupt` out of the loop. One
    object serves all blocks of a kind.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, (Exception, CancelledError)) or stops(error):
            return
        exited = UserCodeExited(f"{self._what} raised {describe(error)}, which would end the process")
        try:
            raise exited from error
        finally:
            # Its traceback holds this frame: a cycle, if it stayed here.
            del exited, error


def stops(error: BaseException) -> bool:
    """True for an error that is to stop the process or a coroutine: raised by a signal's handler, Ctrl-C's above all,
    or thrown in from outside. False for an error that user code raised of its own accord."""
    if isinstance(error, Exception):
        return False
    trace, codes = error.__traceback__, set[CodeType]()
    if trace is None:
        return True
    while True:
        codes.add(trace.tb_frame.f_code)
        if trace.tb_next is None:
            break
        trace = trace.tb_next
    # Python's own handler has no frame, nor has a `close()`: they raise where a `raise` is not.
    if isinstance(error, (KeyboardInterrupt, GeneratorExit, CancelledError)) and (
        opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] != "RAISE_VARARGS"
    ):
        return True
    # Last, for there are five dozen signals.
    return any(_code_of(signal.getsignal(number)) in codes for number in _SIGNALS)


def _code_of(handler: object) -> CodeType | None:
    while isinstance(handler, functools.partial):
        handler = handler.func
    return getattr(getattr(handler, "__func__", handler), "__code__", None)


def sendable(text: str) -> str:
    """The text with its lone surrogates, which no socket can carry, written as escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def describe(error: BaseException, most: int = 2_000) -> str:
    """`Type: message`, the middle of a long message left out.

    Reports hold this: an error itself would keep its frames, and so a user's objects, alive.
    """
    return ": ".join(described(error, most).values())


def described(error: BaseException, most: int = 2_000) -> dict[str, str]:
    """The two parts of `describe` as events hold them: `error`, the name of the type, and `message`."""
    return {"error": shortened(type(error).__name__), "message": shortened(message_of(error), most)}


def _unknown(kind: str, value: object, known: Iterable[str], if_none: str) -> str:
    names = sorted(known)
    if not names:
        return f"unknown {kind} {shown(value)}: none is known; {if_none}"
    message = f"unknown {kind} {shown(value)}; known: {shortened(', '.join(names), 2_000)}"
    # Not of a long one: that takes the square of its length.
    near = difflib.get_close_matches(value, names, n=1) if isinstance(value, str) and len(value) < 100 else []
    return f"{message}; did you mean {near[0]!r}?" if near else f"{message}; {if_none}"
