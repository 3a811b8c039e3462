"""`registry-lab serve`: serves a registry with the default agents on a loopback port, with a page that shows a user's
events.

Every user has records made up for it, always the same: the agents' statements about them can be looked at again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lab_utils.cli.exits import Exit, missing
from lab_utils.cli.terminal import say as remark
from lab_utils.service import is_loopback
from lab_utils.sockets.loopback import LoopbackServer, serving
from lab_utils.values.profiles import UsageError
from registry import (
    GOLDEN_PATH,
    AgentRegistry,
    InvalidIdentifier,
    PlanFailed,
    Supervisor,
    TokenError,
    TokenSigner,
    UsageRecord,
    UserExecutionContext,
    WebSocketManager,
    usage_dispatcher_factory,
)
from registry.usage.synthetic import synthetic_records

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Served", "arguments", "run", "serve", "served"]

_NEEDED: Final = ("itsdangerous", "starlette", "uvicorn", "websockets")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `serve`."""
    parser.epilog = "Ctrl-C stops it, with exit code 0."
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="default: %(default)s, which takes a free one")
    parser.add_argument("--user", default="ada", help="whose token is printed (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted. Raises `UsageError` for an address that cannot be served, and for a user id that is
    none."""
    if not 0 <= options.port < 2**16:
        raise UsageError(f"--port {options.port} is not between 0 and 65535")
    if absent := missing(_NEEDED, "server"):
        remark(absent)
        return Exit.LAB_FAILED
    try:
        # Flushed: a program that starts it with a pipe waits for the addresses.
        serve(options.host, options.port, user=options.user, say=partial(print, flush=True))
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        where = f"{options.host} port {options.port}"
        raise UsageError(f"cannot listen on {where}: {error.strerror or error}; --port 0 takes a free one") from error
    return Exit.PASSED


_MOST_BYTES = 65_536
"""The most bytes of a request's body."""


@dataclass(frozen=True, slots=True)
class Served:
    """The app that `served` runs."""

    server: LoopbackServer
    registry: AgentRegistry
    manager: WebSocketManager
    signer: TokenSigner

    @property
    def page(self) -> str:
        """The address of the page."""
        return self.server.url("/", "http")

    @property
    def events(self) -> str:
        """The address of the events."""
        return self.server.url("/events/")


def serve(host: str = "127.0.0.1", port: int = 0, *, user: str = "ada", say: Callable[[str], None] = print) -> None:
    """Serve until interrupted; say the addresses and a token of `user`.

    Port 0 takes a free one. Raises `ValueError` for a host that is not loopback: the page gives anybody who can reach
    it a token of any user. For the same reason a request in the name of another host is refused: a page of anybody's
    can have its own name lead here. Raises `OSError` if the port is taken.
    """

    async def main() -> None:
        async with served(host, port) as it:
            say(f"page:   {it.page}")
            say(f"events: {it.events}")
            say(f"token:  {it.signer.issue(user)}  (of user {user!r}, good for {it.signer.max_age / 60:.0f} minutes)")
            await asyncio.Event().wait()

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        say("stopped")


@asynccontextmanager
async def served(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Served]:
    """Serve for as long as the block lasts. Raises as `serve`."""
    if not is_loopback(host):
        raise ValueError(f"host {host!r} is not loopback, and the page gives anybody a token; use 127.0.0.1")
    signer = TokenSigner(secrets.token_hex(32))
    manager = WebSocketManager()
    async with AgentRegistry(tool_dispatcher_factory=usage_dispatcher_factory(_MadeUp())) as registry:
        registry.register_default_agents()
        async with serving(_app(registry, manager, signer, host), host=host, port=port) as server:
            yield Served(server, registry, manager, signer)


class _MadeUp:
    """Usage records of anybody who asks."""

    def records_for(self, user_id: str) -> Sequence[UsageRecord]:
        end = datetime(2026, 1, 31, tzinfo=UTC)
        return synthetic_records(zlib.crc32(user_id.encode()), 500, end=end, days=30)


class _Unfit(ValueError):
    """A request's body is malformed."""


async def _asked(request: Request, name: str) -> str:
    """The text under this name in a request's JSON. Raises `_Unfit`, whatever was sent."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BYTES:
            raise _Unfit(f"the body has more than {_MOST_BYTES} bytes")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Unfit(f"the body is not readable JSON ({type(error).__name__})") from None
    text = said.get(name) if isinstance(said, dict) else None
    if not isinstance(text, str):
        raise _Unfit(f"the body has no text under {name!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Unfit(f"the text under {name!r} holds half a character, which no answer can repeat") from None
    return text


def _app(registry: AgentRegistry, manager: WebSocketManager, signer: TokenSigner, host: str) -> Any:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import FileResponse, JSONResponse
    from starlette.routing import Mount, Route

    async def page(_: Request) -> Response:
        return FileResponse(_page())

    async def token(request: Request) -> Response:
        try:
            return JSONResponse({"token": signer.issue(await _asked(request, "user"))})
        except (InvalidIdentifier, _Unfit) as error:
            return JSONResponse({"detail": str(error)}, 422)

    async def run(request: Request) -> Response:
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            user = signer.verify(sent).user_id
            text = await _asked(request, "text")
        except TokenError as error:
            return JSONResponse({"detail": str(error)}, 401)
        except _Unfit as error:
            return JSONResponse({"detail": str(error)}, 422)
        session = await registry.get_user_session(user)
        if not session.get_metrics()["has_websocket_bridge"]:
            await session.set_websocket_manager(manager)
        try:
            result = await Supervisor(registry).run(GOLDEN_PATH, UserExecutionContext(user), text)
        except PlanFailed as error:
            return JSONResponse({"detail": str(error)}, 500)
        return JSONResponse({"output": dict(result.outputs)})

    # As they stand in the header: an address of IPv6 in brackets.
    names = {"localhost", "127.0.0.1", "[::1]", host, f"[{host}]"}
    return Starlette(
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=sorted(names), www_redirect=False)],
        routes=[
            Route("/", page),
            Route("/token", token, methods=["POST"]),
            Route("/run", run, methods=["POST"]),
            Mount("/events", manager.asgi_app(signer)),
        ],
    )


def _page() -> Path:
    # The wheel has the page inside the package; a checkout has it where people look for examples.
    here = Path(__file__).resolve().parents[1]
    packed = here / "_static" / "events.html"
    return packed if packed.exists() else here.parent / "examples" / "static" / "events.html"
