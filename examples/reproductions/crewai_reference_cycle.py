"""Leaves each flow of CrewAI that has run in reference cycles, so that only the cyclic collector frees it."""

import asyncio
import gc
import os

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", CREWAI_TRACING_ENABLED="false", OTEL_SDK_DISABLED="true")
from crewai.flow.flow import Flow, start


class Chat(Flow):
    @start()
    async def answer(self):
        return "done"


def flows():
    return sum(type(one) is Chat for one in gc.get_objects())


async def main():
    gc.disable()
    for _ in range(50):
        await Chat(suppress_flow_events=True).kickoff_async()
    left = flows()
    gc.collect()
    print(f"Of 50 flows of CrewAI that had run, {left} were left, and {flows()} after a collection.")
    raise SystemExit(left < 40 or flows() > 5)


asyncio.run(main())
