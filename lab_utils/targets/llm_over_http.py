"""The lab's model over HTTP: the stand-in server and the client that talks to it, opened and closed together."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from lab_utils.standin import Asked, Plan, Reply
from lab_utils.standin.llm_server import StandInLLM
from registry import Message, OpenAICompatibleLLM, Prompt, ScriptedLLM

__all__ = ["LLMOverHTTP", "scripted_reply"]


async def scripted_reply(messages: Sequence[tuple[str, str]]) -> Reply:
    """Answer as `ScriptedLLM` does, so that agents give the same texts over either model."""
    prompt = Prompt(tuple(Message(role, content) for role, content in messages))  # type: ignore[arg-type]
    completion = await ScriptedLLM().complete(prompt)
    return Reply(completion.text, completion.tokens_in, completion.tokens_out)


class LLMOverHTTP:
    """Owner of a running stand-in and of a client of it; `aclose` ends both. `options` are the client's."""

    def __init__(self, plan: Plan | None = None, **options: Any) -> None:
        self.key = key = secrets.token_hex(8)
        self.server = StandInLLM(scripted_reply, plan=plan, keys={key: ""}).start()
        # Loopback never goes through a proxy; the server learns who asks, to record it.
        own = {"send_user": True, "trust_env": False}
        try:
            self.llm = OpenAICompatibleLLM(self.server.base_url, ScriptedLLM.model, key, **(own | options))
        except BaseException:
            self.server.stop()
            raise

    @property
    def asked(self) -> tuple[Asked, ...]:
        """Every request that the server got, with who sent it."""
        return self.server.asked

    async def aclose(self) -> None:
        """Close the client's connections, then the server. Safe to call again."""
        self.server.release()
        await self.llm.aclose()
        await self.server.aclose()
