"""Limits: how much a registry may hold, and for how long."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, fields

from registry.copying import MOST_DEPTH, MOST_MEMBERS, Bounds
from registry.errors import shown

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one registry may hold, and for how long. Times in seconds; None: no limit.

    `max_agents_per_user`: live agents of one user. `max_session_age`: a session older than this is ended when nothing
    of it runs. `idle_timeout`: likewise one that was not used (no create, get_or_create, adoption or run) for so long.
    `close_timeout`: the one deadline for all of a session's closing. `max_users`: sessions at once.

    `max_creates_per_user`: agents and bridges of one user that are being made. `max_runs_per_agent`: runs of one agent,
    under way and waiting for their turn. `max_abandoned_per_user`: pieces of one user's work that ignored their
    cancellation and still run (cleanups, runs, factories, the closing of bridges); while there are so many, nothing is
    made for that user. Anything above a limit is refused with `CapacityExceeded`.

    `max_value_depth`, `max_value_members`: bounds of a value that is copied for a user (data of a context, parameters,
    outputs): how deep it may be nested, and how many members its lists, dicts, tuples and sets may have in all. A
    context that is made outside of the registry is held to the defaults.
    """

    max_agents_per_user: int = 50
    max_session_age: float | None = 86_400.0
    idle_timeout: float | None = None
    close_timeout: float = 5.0
    max_users: int | None = None
    max_creates_per_user: int | None = 100
    max_runs_per_agent: int | None = 1_000
    max_abandoned_per_user: int | None = 100
    max_value_depth: int | None = MOST_DEPTH
    max_value_members: int | None = MOST_MEMBERS

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name not in ("max_agents_per_user", "close_timeout"):
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"Limits.{field.name}={shown(value)} is not a positive number")
            if field.name.startswith("max_") and field.name != "max_session_age" and not isinstance(value, int):
                raise ValueError(f"Limits.{field.name}={shown(value)} is not a whole number")
        if not math.isfinite(self.close_timeout):
            raise ValueError(f"Limits.close_timeout={self.close_timeout!r} would let one cleanup hang for ever")

    @property
    def bounds(self) -> Bounds:
        """Those of a copied value."""
        depth, members = self.max_value_depth, self.max_value_members
        return (sys.maxsize if depth is None else depth, sys.maxsize if members is None else members)
