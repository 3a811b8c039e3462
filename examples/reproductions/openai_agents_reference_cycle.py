"""Leaves connections of closed sessions to the cyclic collector: cancelled runs of the OpenAI Agents SDK."""

import asyncio
import gc
import sqlite3
import tempfile

from agents import Agent, Model, RunConfig, Runner, SQLiteSession


class Waits(Model):
    async def get_response(self, *_, **__):
        await asyncio.sleep(3600)

    stream_response = get_response


async def main():
    agent, config = Agent(name="agent", model=Waits()), RunConfig(tracing_disabled=True)
    gc.disable()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(60):
            session = SQLiteSession(f"user-{number}", f"{folder}/db")
            run = asyncio.create_task(Runner.run(agent, "hello", session=session, run_config=config))
            await asyncio.sleep(number / 10_000)
            run.cancel()
            await asyncio.wait([run])
            session.close()
        del session, run
        await asyncio.sleep(1)
        left, _ = sum(type(one) is sqlite3.Connection for one in gc.get_objects()), gc.collect()
        now = sum(type(one) is sqlite3.Connection for one in gc.get_objects())
    print(f"Of 60 closed sessions {left} connections were left, and {now} after a collection.")
    raise SystemExit(left <= now)


asyncio.run(main())
