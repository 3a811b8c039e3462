"""A server of notes on the official MCP SDK: a note belongs to the protocol's session. Arguments: port, `tokens` or
`open`: whether users prove who they are."""

import sys

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context, MCPServer

TOKENS = {"token-of-ada": "ada", "token-of-bob": "bob", "token-of-cleo": "cleo"}
NOTES: dict[str, list[str]] = {}


class Tokens:
    async def verify_token(self, token: str) -> AccessToken | None:
        if token not in TOKENS:
            return None
        return AccessToken(token=token, client_id=TOKENS[token], subject=TOKENS[token], scopes=[])


port, mode = int(sys.argv[1]), sys.argv[2]
base = f"http://127.0.0.1:{port}"
proving = {"auth": AuthSettings(issuer_url=base, resource_server_url=base), "token_verifier": Tokens()}
server = MCPServer("notes", **(proving if mode == "tokens" else {}))


@server.tool()
def remember(text: str, ctx: Context) -> str:
    NOTES.setdefault(ctx.request_context.request.headers["mcp-session-id"], []).append(text)
    return "ok"


@server.tool()
def recall(ctx: Context) -> list[str]:
    return NOTES.get(ctx.request_context.request.headers["mcp-session-id"], [])


uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=port, log_level="warning")
