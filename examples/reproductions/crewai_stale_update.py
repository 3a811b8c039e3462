"""Takes back an update of one state in SQLiteFlowPersistence of CrewAI when a slower one ends."""

import asyncio
import os
import tempfile

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", CREWAI_TRACING_ENABLED="false", OTEL_SDK_DISABLED="true")
from crewai.flow.flow import Flow, start
from crewai.flow.persistence import SQLiteFlowPersistence, persist

began, go_on = asyncio.Event(), asyncio.Event()


async def number(said):
    if said[-1] == "slow":
        began.set()
        await go_on.wait()
    return str(int(next((one for one in reversed(said) if one.isdecimal()), 0)) + 1)


@persist(SQLiteFlowPersistence(tempfile.mkdtemp() + "/flows.db"))
class Chat(Flow):
    @start()
    async def answer(self):
        said = [*self.state.get("said", []), self.state["order"]]
        self.state["said"] = [*said, await number(said)]
        return self.state["said"][-1]


async def run(text):
    return await Chat(suppress_flow_events=True).kickoff_async(inputs={"id": "ada", "order": text})


async def main():
    slow = asyncio.create_task(run("slow"))
    await began.wait()
    answers = [await run("one"), await run("two"), go_on.set() or await slow, await run("three")]
    print(f"Four updates of one state in SQLiteFlowPersistence of CrewAI gave {answers}.")
    raise SystemExit(answers != ["1", "2", "1", "2"])


asyncio.run(main())
