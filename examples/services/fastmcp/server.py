"""A server of notes on FastMCP, which keeps them in its session state. Arguments: port, `stateful` or `stateless`."""

import sys

from fastmcp import Context, FastMCP
from fastmcp.server.auth.providers.jwt import StaticTokenVerifier

USERS = ("ada", "bob", "cleo")
server = FastMCP("notes", auth=StaticTokenVerifier({f"token-of-{user}": {"client_id": user} for user in USERS}))


@server.tool
async def remember(text: str, ctx: Context) -> str:
    await ctx.set_state("notes", [*(await ctx.get_state("notes") or []), text])
    return "ok"


@server.tool
async def recall(ctx: Context) -> list[str]:
    return await ctx.get_state("notes") or []


stateless = sys.argv[2] == "stateless"
server.run("http", host="127.0.0.1", port=int(sys.argv[1]), stateless_http=stateless, show_banner=False)
