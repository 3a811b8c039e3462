"""A model in the process that goes wrong by a plan, as the stand-in over HTTP does."""

from __future__ import annotations

import asyncio

from lab_utils.standin import Asked, Fault, Plan
from registry import Completion, LLMFailed, LLMTimedOut, Prompt, ScriptedLLM

__all__ = ["FailingLLM"]

_STATUSES = {Fault.RATE_LIMITED: 429, Fault.SERVER_ERROR: 500}


class FailingLLM:
    """Answers as `ScriptedLLM` does, or fails as the plan decides: whatever goes wrong on a wire is an error here."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def for_user(self, user_id: str) -> _AskedBy:
        return _AskedBy(self.plan, user_id)


class _AskedBy:
    def __init__(self, plan: Plan, user: str) -> None:
        self.plan, self.user = plan, user

    async def complete(self, prompt: Prompt) -> Completion:
        messages = tuple((message.role, message.content) for message in prompt.messages)
        odd = self.plan(Asked(0, self.user, 0, stream=False, messages=messages))
        if odd is None or odd.fault is Fault.SLOW:
            if odd is not None:
                await asyncio.sleep(odd.pause_s)
            return await ScriptedLLM().complete(prompt)
        error = (LLMTimedOut if odd.fault in (Fault.SILENT, Fault.STALLED) else LLMFailed)(f"set to be {odd.fault}")
        error.status = _STATUSES.get(odd.fault)
        raise error
