"""A FastAPI application with a registry in it: agents that work for a user, and that user's events over a WebSocket.

Run it with `uvicorn examples.fastapi_app:app`; it needs fastapi and the extra `server`. Set AGENT_REGISTRY_SECRET, or
every restart signs everybody out.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from registry import AgentRegistry, UserExecutionContext, WebSocketManager
from registry.errors import TokenError
from registry.events.tokens import TokenSigner
from registry.usage.records import InMemoryUsage
from registry.usage.tools import usage_dispatcher_factory

signer = TokenSigner(os.environ.get("AGENT_REGISTRY_SECRET") or secrets.token_hex(32))
manager, usage = WebSocketManager(), InMemoryUsage()  # usage.add(user, records): what the agents look into.


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AgentRegistry(tool_dispatcher_factory=usage_dispatcher_factory(usage)) as app.state.registry:
        app.state.registry.register_default_agents()
        yield


def current_user(sent: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    try:
        return signer.verify(sent.credentials).user_id
    except TokenError as error:
        raise HTTPException(401, str(error)) from error


app = FastAPI(lifespan=lifespan)
app.mount("/events", manager.asgi_app(signer))


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).parent / "static" / "events.html")


@app.post("/token")
def token(user: Annotated[str, Body(embed=True)]) -> dict[str, str]:
    return {"token": signer.issue(user)}  # Anybody's, for the asking: put your own login before it.


@app.post("/run")
async def run(text: Annotated[str, Body(embed=True)], user: Annotated[str, Depends(current_user)]) -> dict[str, Any]:
    agent = await app.state.registry.create_agent_for_user(user, "triage", UserExecutionContext(user), manager)
    return {"output": (await agent.run(text)).output}
