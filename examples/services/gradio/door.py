"""gradio's queue: one call joins it, another one listens for the answer, by the session's hash."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from lab_utils.service.answers import Answer
from lab_utils.service.door import Door, Session


class GradioDoor(Door):
    """Joins the queue by the file's request, then listens on `/gradio_api/queue/data` until the call is complete."""

    _turns: dict[str, asyncio.Lock] | None = None

    async def do(self, word: str, session: Session | None, values: Mapping[str, Any]) -> Answer:
        # Two listeners of one session would take each other's events: a page has one stream, and so has a session here.
        self._turns = self._turns or {}
        async with self._turns.setdefault(session.id if session else "", asyncio.Lock()):
            return await self._called(word, session, values)

    async def _called(self, word: str, session: Session | None, values: Mapping[str, Any]) -> Answer:
        joined = await super().do(word, session, values)
        if not joined.is_done or session is None:
            return joined
        await self.traffic.admit()
        try:
            async with asyncio.timeout(self.service.bounds.deadline_s):
                return await self._listened(session, json.loads(joined.text)["event_id"])
        except TimeoutError:
            return Answer(0, error=f"no whole answer in {self.service.bounds.deadline_s:g} s")

    async def _listened(self, session: Session, event: str) -> Answer:
        url = f"/gradio_api/queue/data?session_hash={session.id}"
        async with self._client.stream("GET", url, headers=self.headers) as answer:
            async for line in answer.aiter_lines():
                told = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if told.get("msg") == "process_completed" and told.get("event_id") == event:
                    output = told.get("output", {})
                    text = json.dumps(output, ensure_ascii=False)
                    return Answer(200, text, is_done=bool(told.get("success")), value=output.get("data"))
        return Answer(0, error="the queue's stream ended without the answer")
