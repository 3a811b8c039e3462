"""Shows a user the conversation of another who chose the same id: state in SQLiteFlowPersistence of CrewAI."""

import asyncio
import os
import tempfile

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", CREWAI_TRACING_ENABLED="false", OTEL_SDK_DISABLED="true")
from crewai.flow.flow import Flow, start
from crewai.flow.persistence import SQLiteFlowPersistence, persist


async def number(said):
    return " ".join(said)  # a model that repeats the conversation


@persist(SQLiteFlowPersistence(tempfile.mkdtemp() + "/flows.db"))
class Chat(Flow):
    @start()
    async def answer(self):
        said = [*self.state.get("said", []), self.state["order"]]
        self.state["said"] = [*said, await number(said)]
        return self.state["said"][-1]


async def run(user, text):  # the user has no place in the call
    return await Chat(suppress_flow_events=True).kickoff_async(inputs={"id": "chat-1", "order": text})


async def main():
    await run("ada", "ada's secret")
    answer = await run("bob", "hello")
    print(f"Bob chose the id of Ada's state in SQLiteFlowPersistence of CrewAI: {answer!r}.")
    raise SystemExit("ada's secret" not in answer)


asyncio.run(main())
