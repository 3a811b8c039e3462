"""Takes two session ids of one user for one in Google ADK, since InMemorySessionService strips them."""

import asyncio

from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.sessions import InMemorySessionService


async def main():
    service = InMemorySessionService()
    await service.create_session(app_name="app", user_id="ada", session_id="chat", state={"note": "of chat"})
    found = await service.get_session(app_name="app", user_id="ada", session_id=" chat ")
    try:
        await service.create_session(app_name="app", user_id="ada", session_id="chat\u2003")
        refused = False
    except AlreadyExistsError:
        refused = True
    print(f"Ids ' chat ' and 'chat\\u2003' were taken for 'chat': found {found and found.state}, refused {refused}.")
    raise SystemExit(not (found and refused))


asyncio.run(main())
