"""Defects of identity: two users who are one to a call that finds them by something else than their id."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lab_utils.target import EndReport, Handle, PlannedStep, Refused, SupervisionReport
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import ReferenceTarget

__all__ = ["PLANTED"]


class EqualityBelieved(ReferenceTarget):
    """Any subclass of text is taken as an id and looked up by its own equality."""

    def check_user(self, user: object) -> None:
        super().check_user("".join(user) if isinstance(user, str) else user)


class FoundByEquality(ReferenceTarget):
    """The user id of a lookup is compared with the present users by its own `==`."""

    async def get_or_create(self, user: str, *arguments: Any, **options: Any) -> Handle:
        same = next((other for other in self.sessions if user == other), user)
        return await super().get_or_create(same, *arguments, **options)


class PlansFolded(AgentRegistryTarget):
    """A plan is run for the user id in its usual spelling, with the agents of that user."""

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        usual: object = user
        if isinstance(usual, str):
            usual = unicodedata.normalize("NFC", usual)
        return await super().supervise(usual, plan)  # type: ignore[arg-type]


class EndFoldsForms(ReferenceTarget):
    """The user to end is read from a form, whose field normalises the typed id."""

    async def end(self, user: str) -> EndReport:
        self.check_user(user)
        return await super().end(unicodedata.normalize("NFKC", user))


class TruncatedIds(ReferenceTarget):
    """Sessions are kept by the first 64 characters of the id, the width of a column."""

    def key(self, user: str) -> str:
        return user[:64]


class CountingMakesEntry(ReferenceTarget):
    """Connections are counted in a table that makes an entry for every user who is looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: defaultdict[str, int] = defaultdict(int)

    def connections(self, user: str | None = None) -> int:
        return super().connections(user) + (0 if user is None else self.counts[user])


class UnknownRemembered(ReferenceTarget):
    """User ids looked up in vain are remembered, so that the next lookup need not ask the database."""

    def __init__(self) -> None:
        super().__init__()
        self.unknown: set[str] = set()

    async def reset(self, user: str) -> int:
        if user not in self.sessions:
            self.unknown.add(user)
        return await super().reset(user)


class ThreadLookupMakesEntry(ReferenceTarget):
    """Threads of present users are looked up in a table that makes an entry for each lookup."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        found = await super().get(user, agent_type, thread)
        if thread is not None and self.key(user) in self.sessions:
            self.threads[user, thread]
        return found


class MissesCached(ReferenceTarget):
    """Failed lookups are cached under a text of all their arguments, without a bound."""

    def __init__(self) -> None:
        super().__init__()
        self.misses: dict[str, None] = {}

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        found = await super().get(user, agent_type, thread)
        if found is None:
            self.misses[f"{user}/{agent_type}/{thread}"] = None
        return found


class RefusedTypesCounted(ReferenceTarget):
    """Refusals are counted for each requested type, as labels of a metric without a bound."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: defaultdict[str, int] = defaultdict(int)

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        if agent_type not in self.recipes:
            self.refusals[f"refused_total{{type={agent_type}}}"] += 1
        return await super().create(user, agent_type, **options)


class RefusedIdsRemembered(ReferenceTarget):
    """Values that are no user ids are kept for ever, to see who sends them."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []

    def check_user(self, user: object) -> None:
        try:
            super().check_user(user)
        except Refused:
            self.refused.append(repr(user))
            raise


class RefusedStrictRemembered(ReferenceTarget):
    """Users whose strict create was refused are remembered for ever, to be looked at by support."""

    def __init__(self) -> None:
        super().__init__()
        self.suspects: list[str] = []

    async def create_strict(self, user: str, agent_type: str, data: Mapping[str, Any]) -> Handle:
        try:
            return await super().create_strict(user, agent_type, data)
        except Refused:
            self.suspects.append(user)
            raise


PLANTED = (
    planted_by(EqualityBelieved, "merged-identity"),
    planted_by(FoundByEquality, "merged-identity"),
    planted_by(PlansFolded, "merged-identity"),
    planted_by(EndFoldsForms, "merged-identity"),
    planted_by(TruncatedIds, "merged-identity"),
    planted_by(CountingMakesEntry, "lookup-created"),
    planted_by(UnknownRemembered, "lookup-created"),
    planted_by(ThreadLookupMakesEntry, "lookup-created"),
    planted_by(MissesCached, "lookup-created"),
    planted_by(RefusedTypesCounted, "lookup-created"),
    planted_by(RefusedIdsRemembered, "lookup-created"),
    planted_by(RefusedStrictRemembered, "lookup-created"),
)
