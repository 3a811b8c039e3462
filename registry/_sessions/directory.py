"""The only map from user to session. Nothing in this file is async: no step of it can be interrupted."""

from __future__ import annotations

from collections.abc import Callable

from registry._sessions.session import UserAgentSession
from registry._sessions.shared import Runtime
from registry.errors import CapacityExceeded
from registry.identity import check_user_id

__all__ = ["Directory"]


class Directory:
    """Every live session of one registry, by user id, code point for code point.

    `get(user_id)`: the session, or None, of an id that was checked before, or of one of `users`.
    """

    __slots__ = ("_runtime", "_sessions", "get")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._sessions: dict[str, UserAgentSession] = {}
        self.get: Callable[[str], UserAgentSession | None] = self._sessions.get

    def find(self, user_id: str) -> UserAgentSession | None:
        """Return the user's session, or None. Raises `InvalidUserId` for a value that cannot be a user id."""
        # A key in the dict was checked when it came in. Anything else, unhashable values included, is checked now.
        session = self.get(user_id) if type(user_id) is str else None
        return session if session is not None else self.get(check_user_id(user_id))

    def find_or_add(self, user_id: str) -> UserAgentSession:
        """Return the user's session; add a provisional one if there is none. Raises as `find`, `CapacityExceeded`."""
        return self.find_or_add_checked(check_user_id(user_id))

    def find_or_add_checked(self, user_id: str) -> UserAgentSession:
        """The same for the id of a context, which was checked when the context was made."""
        session = self.get(user_id)
        if session is None:
            limit = self._runtime.limits.max_users
            if limit is not None and len(self._sessions) >= limit:
                raise CapacityExceeded(
                    f"the limit of users with a session, {limit}, is reached; end one, or raise Limits.max_users"
                )
            session = self._sessions[user_id] = UserAgentSession(user_id, self._runtime)
        return session

    def remove(self, session: UserAgentSession) -> bool:
        """Forget this very session; True if none is left."""
        sessions = self._sessions
        there = sessions.pop(session._life.user_id, None)
        if there is not None and there is not session:
            sessions[there.user_id] = there
        return not sessions

    def users(self) -> list[str]:
        """The users as they are now, the oldest session first, provisional ones included. Ids, not sessions: a caller
        that goes through them in slices keeps no session alive."""
        return list(self._sessions)

    def __len__(self) -> int:
        return len(self._sessions)
