"""The registry's reports about sessions: plain dicts, each with the keys that are declared here."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = [
    "AgentsReport",
    "AllCleanupReport",
    "AllUsersReport",
    "CleanupReport",
    "EndingsReport",
    "Level",
    "NoSessionReport",
    "RegistryHealth",
    "ResetReport",
    "SessionMetrics",
    "SweepReport",
    "UserReport",
]

Level = Literal["healthy", "warning", "critical"]
"""How near a limit is: "warning" past 80%, "critical" at it."""


class AgentsReport(TypedDict):
    """The outcome of closing agents. `errors` are texts, one for each member that failed, as in all reports."""

    user_id: str
    cleaned_agents: int
    errors: list[str]


class CleanupReport(AgentsReport):
    """How one user's session ended."""

    status: Literal["cleaned", "no_session"]


class ResetReport(TypedDict):
    """How the agents of one user were closed while the session stays."""

    status: Literal["reset_complete", "no_session"]
    user_id: str
    agents_reset: int
    errors: list[str]


class SweepReport(TypedDict):
    """Whose sessions a sweep ended."""

    ended: list[str]
    errors: list[str]


class EndingsReport(TypedDict):
    """The outcome of ending many sessions."""

    users_cleaned: int
    agents_cleaned: int
    errors: list[str]


class AllCleanupReport(EndingsReport):
    """How all sessions ended, of a registry that stays open or of one that is closed."""

    status: Literal["emergency_cleanup_complete", "closed"]


class SessionMetrics(TypedDict):
    """Counts of one session, and times in seconds by the registry's clock."""

    user_id: str
    total_agents: int
    running_agents: int
    agent_types: list[str]
    has_websocket_bridge: bool
    in_flight: int
    uptime_seconds: float
    idle_seconds: float


class UserReport(SessionMetrics):
    """The holdings of one user. `complete` is False when counting the bytes stopped at 100,000 objects."""

    status: Level
    max_agents: int
    approximate_bytes: int
    complete: bool


class NoSessionReport(TypedDict):
    """The report on a user without a session."""

    status: Literal["no_session"]
    user_id: str
    total_agents: int
    approximate_bytes: int


class AllUsersReport(TypedDict):
    """The holdings of every user, with totals; `near_limit` names the users whose status is not "healthy"."""

    total_users: int
    total_agents: int
    approximate_bytes: int
    near_limit: list[str]
    users: dict[str, UserReport]


class RegistryHealth(TypedDict):
    """Exact counts of a registry; a limit is None where there is none. `issues`: why the status is not "healthy", in
    words. `uptime_seconds`: since it was made, by its clock."""

    status: Level
    issues: list[str]
    uptime_seconds: float
    total_user_sessions: int
    total_user_agents: int
    largest_user_agents: int
    ending_sessions: int
    abandoned_cleanups: int
    registered_agent_types: int
    max_users: int | None
    max_agents_per_user: int
