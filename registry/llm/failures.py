"""Causes of failed calls over HTTP, without the objects that the client library's errors hold; when to try again."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Final, NamedTuple

from registry.errors import LLMFailed, LLMTimedOut
from registry.llm.stream import BadAnswer, message_in

__all__ = ["LONGEST_ASKED", "Failure", "failure_of", "forget", "is_passing", "library", "pause_asked", "pause_before"]

LONGEST_ASKED: Final = 120.0
"""Seconds: a server that asks for a longer pause has refused."""

_FIRST, _LONGEST = 0.5, 8.0
_JITTER: Final = 0.25


class Failure(NamedTuple):
    """Why a call gave no answer. The error is made of it where it is raised, with nothing attached.

    `may_pass`: nothing of an answer had begun, so it can be tried again; `asked`: the pause that the server wants.
    """

    why: str
    status: int | None = None
    timed_out: bool = False
    may_pass: bool = False
    asked: float | None = None

    def error(self, where: str) -> LLMFailed:
        """The error to be raised; `where` names the model."""
        error = (LLMTimedOut if self.timed_out else LLMFailed)(f"{where}: {self.why}")
        error.status = self.status
        return error


def library() -> tuple[ModuleType, ModuleType]:
    """The client library and the one that it speaks HTTP with. Raises `ImportError` naming the extra without them."""
    try:
        import httpx2
        import openai
    except ImportError as error:
        raise ImportError("OpenAICompatibleLLM needs openai: pip install 'agent-registry-lab[openai]'") from error
    return openai, httpx2


def failure_of(error: Exception, silence: float, key: str) -> Failure | None:
    """The failure in an error of one try; None for an error that neither a server nor a connection caused.

    `silence`: the limit that a time-out was of; `key`: never shown, even where the server repeats it.
    """
    openai, httpx2 = library()
    match error:
        case BadAnswer():
            return Failure(str(error))
        case openai.APITimeoutError():
            return Failure(f"it was silent for {silence:g} s", timed_out=True, may_pass=True)
        case httpx2.TimeoutException():
            return Failure(f"it fell silent for {silence:g} s in the middle of its answer", timed_out=True)
        case openai.APIStatusError():
            words = message_in(error.body).replace(key, "***")
            headers = error.response.headers
            return Failure(
                f"it answered {error.status_code}{f': {words}' if words else ''}",
                error.status_code,
                may_pass=is_passing(error.status_code, headers),
                asked=pause_asked(headers, time.time()),
            )
        case openai.APIConnectionError():
            cause = error.__cause__ or error
            return Failure(f"no connection: {type(cause).__name__}: {cause}", may_pass=True)
        case httpx2.RequestError():
            return Failure(f"its answer was cut off: {type(error).__name__}: {error}")
        case openai.OpenAIError():
            return Failure(f"{type(error).__name__}: {error}".replace(key, "***"))
    return None


def is_passing(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a refusal may pass: time-out, conflict, too many requests, an error of the server; or as the server
    itself states."""
    said = headers.get("x-should-retry", "")
    return said == "true" or (said != "false" and (status in (408, 409, 429) or status >= 500))


def pause_asked(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that the server asks for, in `retry-after-ms` or `retry-after` (seconds, or the date of their end);
    None where it asks for nothing that can be understood. `now`: seconds since 1970."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if seconds >= 0:
            return seconds
    try:
        seconds = parsedate_to_datetime(headers["retry-after"]).timestamp() - now
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return max(0.0, seconds)


def pause_before(retry: int, asked: float | None, rng: random.Random) -> float | None:
    """Seconds to wait before this retry (the first is 1); None for not to try again.

    As long as the server asks for and up to a quarter more, so that not all come back in the same moment. Otherwise
    half a second, doubled at each retry up to eight, and up to a quarter less.
    """
    if asked is not None:
        return asked * (1 + _JITTER * rng.random()) if asked <= LONGEST_ASKED else None
    return min(_FIRST * math.pow(2, min(retry - 1, 10)), _LONGEST) * (1 - _JITTER * rng.random())


def forget(error: BaseException) -> None:
    """Cut the frames off an error and all that led to it.

    Some of those frames hold the very error that knows them, and through their callers they know the prompt and the
    agent: without this, a user's objects would wait for the garbage collector.
    """
    waiting: list[BaseException | None] = [error]
    for each in waiting:
        if each is not None and each.__traceback__ is not None:
            each.__traceback__ = None
            waiting += [each.__cause__, each.__context__]
