"""Keeps an entry of each user whose sessions were deleted: InMemorySessionService of Google ADK."""

import asyncio

from google.adk.sessions import InMemorySessionService


async def main():
    service = InMemorySessionService()
    for number in range(1_000):
        user = f"user-{number}"
        session = await service.create_session(app_name="app", user_id=user, state={"user:note": "x" * 1_000})
        await service.delete_session(app_name="app", user_id=user, session_id=session.id)
    left = [len(service.sessions["app"]), len(service.user_state["app"])]
    print(f"After the sessions of 1,000 users had been deleted, InMemorySessionService held {left} entries of users.")
    raise SystemExit(left != [1_000, 1_000])


asyncio.run(main())
