"""A model over HTTP, on any server that speaks chat completions, by the official client library."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final
from urllib.parse import urlsplit

from registry.llm.base import LLM, Completion, Prompt
from registry.llm.failures import Failure, failure_of, forget, library, pause_before
from registry.llm.fair_queue import Turns, TurnsClosed
from registry.llm.stream import BodyReader, StreamReader

__all__ = ["OpenAICompatibleLLM"]

_OURS: Final = frozenset({"messages", "model", "n", "stream", "stream_options", "user"})


class OpenAICompatibleLLM:
    """A model behind `POST {base_url}/chat/completions`. One object serves all users of one event loop.

    Guarantees: an answer is whole, or the call raises. A stream that is cut off, invalid JSON and an answer that ran
    into a limit are errors and never a shorter text. At most `concurrency` calls of one user are under way, that user's
    others wait in line, and nobody else waits for them; nothing is kept of a user who has no call under way. Nothing
    that the server sends in one user's name goes out in another's: no cookie is kept, no redirect followed, and no
    connection used for a second call. No message, repr or log line holds the key.

    A call is tried again if it was answered with 408, 409, 429 or 5xx, or if it failed before an answer began (no
    connection, silence). It is tried `max_retries` times, after the pauses of `registry.llm.failures`: as `Retry-After`
    asks, else growing, both with jitter. The user's turn is kept meanwhile. A call that failed after its answer had
    begun is not repeated: it may have been paid for.

    `timeout`: seconds that the server may be silent, for each try. `deadline`: seconds that a call may take in all,
    waiting between tries included and for its turn excluded. `stream`: ask for the answer in pieces, so that `timeout`
    finds a server that died. `send_user`: send the user's id to the server, in the field `user`. `trust_env`: use the
    proxies that the environment names. `options` goes into each request as it is (`temperature`, `max_tokens`),
    `headers` too. `sleep` and `rng` are those of the pauses.

    Raises `LLMTimedOut`, and `LLMFailed` for all else, with the cause in its message; both end the agent's run with
    `agent_error`. The constructor raises `ImportError` naming the extra without the library, and `ValueError`.
    """

    __slots__ = (
        "__weakref__",
        "_client",
        "_deadline",
        "_max_retries",
        "_options",
        "_rng",
        "_send_user",
        "_silence",
        "_sleep",
        "_stream",
        "_turns",
        "base_url",
        "model",
    )

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str,
        timeout: float = 60.0,
        max_retries: int = 2,
        *,
        deadline: float = 600.0,
        concurrency: int = 4,
        stream: bool = True,
        send_user: bool = False,
        trust_env: bool = True,
        options: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        for name, number in (("timeout", timeout), ("deadline", deadline), ("concurrency", concurrency)):
            if not number > 0:
                raise ValueError(f"{name}={number!r} lets no call through; pass a number above 0")
        if max_retries < 0:
            raise ValueError(f"max_retries={max_retries!r} is negative; 0 is for one try")
        if taken := sorted(_OURS & set(options or {})):
            raise ValueError(f"options {', '.join(taken)} are set by the call itself; leave them out")
        self.base_url = _checked(base_url)
        self.model = model
        self._silence = timeout
        self._max_retries = max_retries
        self._deadline = deadline
        self._sleep = sleep
        self._rng = random.Random() if rng is None else rng
        self._stream = stream
        self._send_user = send_user
        self._options = dict(options or {})
        self._turns = Turns(concurrency)
        openai, httpx2 = library()
        self._client = openai.AsyncOpenAI(
            base_url=self.base_url,
            # Some local servers take any key; an empty one cannot be sent as a header.
            api_key=api_key or "none",
            # No limit on the wait for a connection: whose turn it is has been decided before.
            timeout=httpx2.Timeout(timeout, pool=None),
            max_retries=0,
            default_headers=dict(headers or {}),
            http_client=openai.DefaultAsyncHttpxClient(
                trust_env=trust_env,
                # A prompt goes to the server that was named, and nowhere that this one points to.
                follow_redirects=False,
                # A connection ends with its call: servers and proxies sign in whole connections, and a second answer
                # that one sends would be read as the next user's.
                limits=httpx2.Limits(max_connections=1_000, max_keepalive_connections=0),
                # No cookie is taken from any domain: it would go out with the next user's request.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            ),
        )
        # These come from the environment, where they are meant for one server; this may be another.
        self._client.organization = self._client.project = self._client.admin_api_key = None
        # The library would find this out in a thread, at the first call, for a header that says where it runs.
        self._client._platform = "Unknown"
        # Imported here, not at the first call, where it would hold up the loop.
        _ = self._client.chat.completions

    async def complete(self, prompt: Prompt) -> Completion:
        """Answer the prompt, for no user in particular."""
        return await self._ask("", prompt)

    def for_user(self, user_id: str) -> LLM:
        """Return this model for one user; the result is small and need not be kept or closed."""
        return _OneUsers(self, user_id)

    @property
    def in_flight(self) -> Mapping[str, int]:
        """How many calls each user has under way, those that wait for their turn included."""
        return self._turns.calls

    async def aclose(self) -> None:
        """Close the model. Calls under way fail, new ones are refused. Safe to call again."""
        await self._turns.close()
        await self._client.close()

    async def _ask(self, user: str, prompt: Prompt) -> Completion:
        try:
            answer = await self._turns.take(user, lambda: self._tried(user, prompt), self._deadline)
        except TurnsClosed as error:
            forget(error)
            answer = Failure("it was closed")
        except TimeoutError as error:
            forget(error)
            answer = Failure(f"it gave no whole answer in {self._deadline:g} s", timed_out=True)
        if isinstance(answer, Failure):
            # Not from within an `except`: the library's errors hold the request, and with it key and prompt.
            raise answer.error(f"model {self.model!r} at {self.base_url}")
        return answer

    async def _tried(self, user: str, prompt: Prompt) -> Completion | Failure:
        """Try until there is an answer, or a failure that stays.

        Not left to the library: it keeps the frames of an error that it tries again, in cycles, and so the agent. And
        where the server says when to come back, it would send everybody back in the same moment.
        """
        retry = 0
        while True:
            try:
                return await self._exchanged(user, prompt, retry)
            except Exception as error:
                failure = failure_of(error, self._silence, self._client.api_key)
                if failure is None:
                    raise
                forget(error)
            retry += 1
            pause = pause_before(retry, failure.asked, self._rng) if failure.may_pass else None
            if pause is None or retry > self._max_retries:
                return failure._replace(why=f"{failure.why} (try {retry} of {self._max_retries + 1})")
            await self._sleep(pause)

    async def _exchanged(self, user: str, prompt: Prompt, retry: int) -> Completion:
        reader = StreamReader() if self._stream else BodyReader()
        asked = [{"role": message.role, "content": message.content} for message in prompt.messages]
        body = {**self._options, **({"user": user} if self._send_user and user else {})}
        if self._stream:
            body["stream_options"] = {"include_usage": True}
        create = self._client.chat.completions.with_streaming_response.create
        # The bytes are read here and not by the library's stream. That stream takes an early end for a whole answer,
        # and leaves generators half read, which the loop then closes in tasks that nobody owns.
        request = create(
            model=self.model,
            messages=asked,
            stream=self._stream,
            extra_body=body,
            extra_headers={"x-stainless-retry-count": str(retry)},
        )
        async with request as response:
            try:
                async for piece in response.iter_bytes():
                    reader.feed(piece)
                    if reader.too_long:
                        break
            except library()[1].RequestError:
                # Anything after the end of the answer is not missed.
                if not (isinstance(reader, StreamReader) and reader.done):
                    raise
        answer = reader.completion()
        return answer if answer.model else Completion(answer.text, answer.tokens_in, answer.tokens_out, self.model)

    def __repr__(self) -> str:
        calls = self.in_flight
        state = "closed" if self._turns.is_closed else f"calls={sum(calls.values())} users={len(calls)}"
        return f"<OpenAICompatibleLLM {self.model!r} at {self.base_url} {state}>"


class _OneUsers:
    """The model, and whose calls these are."""

    __slots__ = ("_llm", "_user_id")

    def __init__(self, llm: OpenAICompatibleLLM, user_id: str) -> None:
        self._llm = llm
        self._user_id = user_id

    async def complete(self, prompt: Prompt) -> Completion:
        return await self._llm._ask(self._user_id, prompt)

    def __repr__(self) -> str:
        return f"<{self._llm!r} for {self._user_id!r}>"


def _checked(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"base_url {base_url!r} is not the address of a server; pass one such as http://127.0.0.1:8000/v1"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        # Not shown: it may be a secret.
        raise ValueError("base_url holds a user, a password, a query or a fragment; pass the key as api_key")
    return base_url.rstrip("/")
