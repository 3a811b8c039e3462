"""Leaves a run of CrewAI that ran out of its time in the context of its task, so that the next run is a part of it."""

import asyncio
import os
from contextlib import suppress

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", CREWAI_TRACING_ENABLED="false", OTEL_SDK_DISABLED="true")
from crewai.events.event_context import get_current_parent_id
from crewai.flow.flow import Flow, start


class Chat(Flow):
    @start()
    async def answer(self):
        await asyncio.sleep(self.state["seconds"])


async def run(seconds, limit):
    with suppress(TimeoutError):  # as for a run that is longer than its limit
        async with asyncio.timeout(limit):
            await Chat(suppress_flow_events=True).kickoff_async(inputs={"seconds": seconds})
    return get_current_parent_id() is not None


async def main():
    ended, ran_out = await run(0, 60), await run(60, 2)
    print(f"Inside a run of CrewAI: {ended} after one that ended, {ran_out} after one that ran out of its time.")
    raise SystemExit(ended or not ran_out)


asyncio.run(main())
