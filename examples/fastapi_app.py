"""A FastAPI application with a registry in it: agents that work for a user, and that user's events over a WebSocket.

Run it with `uvicorn examples.fastapi_app:app`; it needs fastapi and the extra `server`. Set AGENT_REGISTRY_SECRET, or
every restart signs everybody out, and AGENT_REGISTRY_HOSTS to its own names, or any but a local one is refused.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator

from registry import AgentRegistry, UserExecutionContext, WebSocketManager
from registry.errors import TokenError
from registry.events.tokens import TokenSigner
from registry.identity import check_user_id
from registry.usage.records import InMemoryUsage
from registry.usage.tools import usage_dispatcher_factory

signer = TokenSigner(os.environ.get("AGENT_REGISTRY_SECRET") or secrets.token_hex(32))
manager, usage = WebSocketManager(), InMemoryUsage()  # usage.add(user, records): the agents' data.


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
# A page of anybody's can have its own name lead here, and would be taken for this one.
hosts = os.environ.get("AGENT_REGISTRY_HOSTS", "localhost 127.0.0.1 [::1]").split()
app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
app.mount("/events", manager.asgi_app(signer))


@app.exception_handler(400)
@app.exception_handler(RequestValidationError)
def unfit(_: object, error: Exception) -> JSONResponse:
    # FastAPI's own answer repeats the request, which may be too deep or too odd to be sent back.
    said = [each["msg"] for each in error.errors()] if isinstance(error, RequestValidationError) else "unreadable JSON"
    return JSONResponse({"detail": said}, 422)


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).parent / "static" / "events.html")


@app.post("/token")
def token(user: Annotated[str, Body(embed=True), AfterValidator(check_user_id)]) -> dict[str, str]:
    return {"token": signer.issue(user)}  # Anybody's, for the asking: put your own login before it.


@app.post("/run")
async def run(text: Annotated[str, Body(embed=True)], user: Annotated[str, Depends(current_user)]) -> dict[str, Any]:
    agent = await app.state.registry.create_agent_for_user(user, "triage", UserExecutionContext(user), manager)
    return {"output": (await agent.run(text)).output}
