"""The caller, by their token; and, in `owned`, that a thread belongs to its maker."""

from langgraph_sdk import Auth

USERS = {f"Bearer token-of-{user}": user for user in ("ada", "bob", "cleo")}
authenticated, owned = Auth(), Auth()


@authenticated.authenticate
@owned.authenticate
async def who(authorization: str | None) -> str:
    if authorization not in USERS:
        raise Auth.exceptions.HTTPException(status_code=401, detail="no valid token")
    return USERS[authorization]


@owned.on
async def owner(ctx: Auth.types.AuthContext, value: dict) -> dict:
    value.setdefault("metadata", {})["owner"] = ctx.user.identity
    return {"owner": ctx.user.identity}
