"""Loses one of two updates of one state in SQLiteFlowPersistence of CrewAI."""

import asyncio
import os
import tempfile

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", CREWAI_TRACING_ENABLED="false", OTEL_SDK_DISABLED="true")
from crewai.flow.flow import Flow, start
from crewai.flow.persistence import SQLiteFlowPersistence, persist

both = asyncio.Barrier(2)


async def number(said):
    await asyncio.wait_for(both.wait(), 10)  # until two runs have got so far
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
    answers = list(await asyncio.gather(run("one"), run("two")))
    print(f"Two updates at once of one state in SQLiteFlowPersistence of CrewAI gave {answers}.")
    raise SystemExit(answers != ["1", "1"])


asyncio.run(main())
