"""TokenSigner: signed tokens that expire, each for one user of one service; the cryptography is itsdangerous's."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from registry.errors import BadToken, ExpiredToken, ForeignToken, InvalidUserId
from registry.identity import check_user_id

__all__ = ["Grant", "TokenSigner"]

SHORTEST_SECRET: Final = 16


@dataclass(frozen=True, slots=True)
class Grant:
    """The grant of a token: this user's events, until `expires_at` (seconds since the epoch; None: no end)."""

    user_id: str
    expires_at: float | None = None


class TokenSigner:
    """Issues and checks tokens; pass an instance to `WebSocketManager.asgi_app` as `authenticate`.

    A token names its user and the `audience` (your service) in the clear and is signed with HMAC-SHA-256. It is good
    for `max_age` seconds. Keep the secret out of the source; several may be given, oldest first, to change them
    without signing everybody out: the last one signs. A token cannot be revoked: keep `max_age` short.

    Raises `ImportError` naming the extra when itsdangerous is not installed.
    """

    __slots__ = ("_serializer", "audience", "max_age")

    def __init__(
        self,
        secret: str | bytes | Sequence[str | bytes],
        *,
        max_age: float = 3_600.0,
        audience: str = "agent-registry",
        clock: Callable[[], float] = time.time,
    ) -> None:
        given = [secret] if isinstance(secret, (str, bytes)) else list(secret)
        secrets = [one.encode() if isinstance(one, str) else one for one in given]
        if not secrets or any(len(one) < SHORTEST_SECRET for one in secrets):
            raise ValueError(
                f"a secret of fewer than {SHORTEST_SECRET} characters can be guessed; use secrets.token_hex(32)"
            )
        if not max_age > 0:
            raise ValueError(f"max_age={max_age!r} seconds is not above 0")
        self._serializer = _serializer(secrets, clock)
        self.max_age = max_age
        self.audience = audience

    def issue(self, user_id: str) -> str:
        """Return a new token of this user, safe in a header. Raises `InvalidUserId`."""
        text: str = self._serializer.dumps({"sub": check_user_id(user_id), "aud": self.audience})
        return text

    def verify(self, token: str) -> Grant:
        """Return whose token it is. Raises `BadToken`, `ExpiredToken`, `ForeignToken` (another audience's)."""
        import itsdangerous

        try:
            claims, issued_at = self._serializer.loads(token, max_age=self.max_age, return_timestamp=True)
        except itsdangerous.BadData as error:
            # Without its frames, which hold the error: such a cycle would stay until the next collection.
            cause = error.with_traceback(None)
            if isinstance(error, itsdangerous.SignatureExpired):
                raise ExpiredToken("the token has expired; fetch a new one") from cause
            raise BadToken("the token was not signed here") from cause
        if type(claims) is not dict or set(claims) != {"sub", "aud"}:
            raise BadToken("the token was signed here for something else")
        if claims["aud"] != self.audience:
            raise ForeignToken(f"the token is for another audience; this one is {self.audience!r}")
        try:
            return Grant(check_user_id(claims["sub"]), issued_at.timestamp() + self.max_age)
        except InvalidUserId as error:
            raise BadToken("the token names no user") from error

    __call__ = verify

    def __repr__(self) -> str:
        return f"<TokenSigner audience={self.audience!r} max_age={self.max_age}>"


def _serializer(secrets: list[bytes], clock: Callable[[], float]) -> Any:
    try:
        from itsdangerous import TimestampSigner, URLSafeTimedSerializer
    except ImportError as error:
        raise ImportError("TokenSigner needs itsdangerous: pip install 'agent-registry-lab[server]'") from error

    class Signer(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(clock())

    return URLSafeTimedSerializer(
        secrets,
        salt="agent-registry.events",
        signer=Signer,
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )
