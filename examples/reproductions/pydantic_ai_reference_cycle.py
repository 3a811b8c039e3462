"""Leaves objects of each run to the cyclic collector: Agent.run of Pydantic AI."""

import asyncio
import gc

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel
from pydantic_graph.step import NodeStep


async def respond(messages, info):
    return ModelResponse(parts=[TextPart("done")])


def steps():
    return sum(type(one) is NodeStep for one in gc.get_objects())


async def main():
    agent = Agent(FunctionModel(respond))
    await agent.run("hello")
    gc.collect()
    gc.disable()
    before = steps()
    for _ in range(100):
        await agent.run("hello")
    left = steps() - before
    gc.collect()
    print(f"After 100 runs {left} NodeSteps were left, and after a collection {steps() - before}.")
    raise SystemExit(left < 100 or steps() > before)


asyncio.run(main())
