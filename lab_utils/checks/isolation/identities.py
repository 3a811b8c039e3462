"""A part of user_context_boundary_enforcement: every call that takes a user, with ids that a careless one merges."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

from lab_utils.target import (
    Capability,
    Command,
    EndReport,
    Handle,
    PlannedStep,
    Recipe,
    Refusal,
    Refused,
    Subscription,
    Target,
    brings_a_manager,
)
from lab_utils.trial import Trial
from lab_utils.trial.allowance import Allowance
from lab_utils.values.quantities import counted
from lab_utils.values.workload import LONG_IDS, canary, hostile_pairs

__all__ = ["NOTHING", "NO_IDS", "Impostor", "calls_with_a_user", "judge_identities"]


class Impostor(str):
    """A text that claims to equal another one, and hashes like it: a registry that believes it merges two users."""

    __slots__ = ("_claimed",)

    _claimed: str

    def __new__(cls, text: str, claimed: str) -> Impostor:
        made = super().__new__(cls, text)
        made._claimed = claimed
        return made

    def __eq__(self, other: object) -> bool:
        return bool(other == self._claimed)

    def __ne__(self, other: object) -> bool:
        return bool(other != self._claimed)

    def __hash__(self) -> int:
        return hash(self._claimed)

    def __repr__(self) -> str:
        return f"Impostor({str.__repr__(self)}, claiming {self._claimed!r})"


NO_IDS: Final[tuple[tuple[Any, str], ...]] = (
    (None, "None"), (0, "0"), (False, "False"), (1, "1"), ("", "anonymous"), (" ada", "ada"), ("ada ", "ada"),
    ("ada\n", "ada"), ("a\nda", "ada"), ("ada\x00", "ada"), ("\x00", "anonymous"), (b"ada", "ada"), (b"ada", "b'ada'"),
    (("ada",), "ada"), ("n" * 10_000, LONG_IDS[2]), ("ada\ud800", "ada"), (["ada"], "ada"),
)  # fmt: skip
"""Values that are not user ids, each with the user whom a careless conversion makes of it."""

_IDS_S: Final = 10.0
"""Seconds (`Allowance`) for all of them on a slow target, which may take more until the check is `_AGE_S` old."""
_AGE_S: Final = 75.0

NOTHING: Final = (None, False, 0, EndReport(False, 0))
"""Answers of a call that found nothing."""


@dataclass(slots=True)
class _Owner:
    """A present user, who must not notice anything. `worked`: the users for whom factories and runs have worked
    since."""

    name: str
    handle: Handle
    client: Subscription | None
    note: str
    worked: list[str]


async def judge_identities(trial: Trial) -> None:
    """Call every method that takes a user with each wrong id and each id that reads alike, beside the user whom it may
    be taken for. Require that it is refused or kept apart. Needs END."""
    worked: list[str] = []

    async def at_work(user: Any) -> None:
        # A careless target calls with whatever it was called with.
        worked.append("".join(user) if isinstance(user, str) else repr(user))

    target = await trial.target([Recipe("helper", on_create=at_work, on_run=at_work)])
    cases = [(wrong, "ada" if owner in trial.refused_ids else owner, False) for wrong, owner in NO_IDS]
    # A subclass of str is as good an id as its text, or none.
    cases += [(Impostor(f"not {owner}", owner), owner, True) for owner in ("acme", "caf\u00e9")
              if owner not in trial.refused_ids]  # fmt: skip
    alike = [pair for pair in (*hostile_pairs(), LONG_IDS[:2]) if not trial.refused_ids.intersection(pair)]
    cases += [(one, other, True) for pair in alike for one, other in (pair, pair[::-1])]
    left_over: set[str] = set()
    allowance, tried, lived = Allowance(_IDS_S), 0, set[str]()
    # Ids that read alike in turn with values that are none: a slow target is asked both.
    for number, (other, name, is_id) in enumerate(_in_turn(cases)):
        if allowance.is_over() and trial.now() > _AGE_S:
            trial.leave_out(f"{len(cases) - number} of {len(cases)} ids that read alike or are none, for want of time")
            break
        tried += 1
        if name in left_over or (is_id and other in left_over):
            continue
        before = _counted(target)
        try:
            owner = await _settled(target, name, number, worked)
        except Refused as refusal:
            if is_id or refusal.kind is not Refusal.INVALID_USER:
                raise
            # Nobody can be taken for this value then: somebody else looks on while it is tried.
            name = "ada"
            owner = await _settled(target, name, number, worked)
        is_accepted = is_id
        for what, call in calls_with_a_user(target, owner.name).items():
            asked = Asked(what, other, is_id, is_accepted, is_id and other in lived)
            # Asked between calls, of which each takes long on such a target; the case is tried to its end.
            allowance.is_over()
            # A value that was accepted as a user is one from then on: the end finds that user's own session.
            is_accepted |= await _kept_apart(trial, target, owner, asked, call)
        if is_id:
            with suppress(Refused):
                await target.end(other)
        await target.end(name)
        lived.update((name, other) if is_id else (name,))
        if owner.client is not None:
            # The next life of either would not be alone with its client.
            left_over.update(user for user in (name, other)[: 1 + is_id] if not _has_hung_up(trial, target, user))
        now = _counted(target)
        sentence = f"after calls for {_short(other)} beside {_short(name)}, both ended, the target holds {now}"
        trial.require(now == before, "session-left", sentence, f"before them {before}")
    trial.measure("ids tried on every call", tried, "ids")
    return await trial.stop(target)


def _in_turn(cases: Sequence[tuple[Any, str, bool]]) -> list[tuple[Any, str, bool]]:
    kinds = [[case for case in cases if case[2] is is_id] for is_id in (False, True)]
    return [case for pair in zip_longest(*kinds) for case in pair if case is not None]


def _has_hung_up(trial: Trial, target: Target, user: str) -> bool:
    try:
        count = target.connections(user)
    except Refused:
        return True
    sentence = f"the target holds {counted(count, 'connection')} of {_short(user)} after the session had ended"
    return trial.require(not count, "connection-left", sentence)


def _counted(target: Target) -> object:
    return target.population() if Capability.POPULATION in target.capabilities else None


async def _settled(target: Target, name: str, number: int, worked: list[str]) -> _Owner:
    client = target.subscribe(name) if Capability.EVENTS in target.capabilities else None
    try:
        handle = await target.create(name, "helper")
    except Refused:
        if client is not None:
            await client.close()
        raise
    note = canary(name, "identity", number)
    await target.run(handle, Command("write", {"key": "note", "value": note}))
    return _Owner(name, handle, client, note, worked)


def calls_with_a_user(target: Target, owner: str) -> Mapping[str, Callable[[Any], Awaitable[Any]]]:
    """Every call that takes a user, by name: first those that find or take, which must find nothing, then those that
    make, and the end. `owner`: the user for whom a create with another user's context is asked."""
    able = target.capabilities
    calls: dict[str, Callable[[Any], Awaitable[Any]]] = {}
    if Capability.LOOKUP in able:
        calls["get"] = lambda user: target.get(user, "helper")
    if Capability.REMOVE in able:
        calls |= {"remove": lambda user: target.remove(user, "helper"), "reset": target.reset}
    if Capability.EVENTS in able:
        calls["connections"] = _soon(target.connections)
        if brings_a_manager(target):
            calls["attach"] = target.attach
        calls["subscribe"] = _soon(target.subscribe)
    if Capability.PERMISSIONS in able:
        calls[_FOREIGN] = lambda user: target.create(owner, "helper", context_user=user)
    calls["create"] = lambda user: target.create(user, "helper")
    if Capability.GET_OR_CREATE in able:
        calls["get_or_create"] = lambda user: target.get_or_create(user, "helper")
    if Capability.SUPERVISION in able:
        calls["supervise"] = lambda user: target.supervise(user, (PlannedStep("one", "helper"),))
    if Capability.END in able:
        calls["end"] = target.end
    return calls


_FOREIGN = "create with a context"
_FINDS = frozenset({"get", "remove", "reset", "connections"})


def _soon(call: Callable[[Any], Any]) -> Callable[[Any], Awaitable[Any]]:
    async def asked(user: Any) -> Any:
        return call(user)

    return asked


@dataclass(frozen=True, slots=True)
class Asked:
    """One call with one id. `is_id`: the id may be somebody's, and so need not be refused. `may_hold`: it may be the id
    of a session by now. `has_lived`: it was the id of a session that has ended."""

    what: str
    user: Any
    is_id: bool
    may_hold: bool
    has_lived: bool = False

    def __str__(self) -> str:
        return f"{self.what} of {_short(self.user)}"


async def _kept_apart(
    trial: Trial, target: Target, owner: _Owner, asked: Asked, call: Callable[[Any], Awaitable[Any]]
) -> bool:
    """Ask once, and require that the owner has nothing to do with it. Return whether a call that makes accepted the
    value as a user."""
    if asked.user is None and asked.what in ("connections", _FOREIGN):
        return False  # None asks for the connections of all, and for the user's own context.
    owner.worked.clear()
    is_accepted = False
    try:
        # A subscription stays until its user, if it is one, ends.
        answer = await call(asked.user)
    except Refused as refusal:
        kinds = (Refusal.INVALID_USER, Refusal.BOUNDARY)[: 2 if asked.what == _FOREIGN else 1]
        sentence = f"{asked} was refused as {refusal.kind}, expected {' or '.join(kinds)}"
        trial.require(refusal.kind in kinds, "wrong-refusal", sentence, refusal)
    except Exception as error:
        anomaly, instead = ("failed-operation", "") if asked.is_id else ("wrong-refusal", ", expected a refusal")
        trial.find(anomaly, f"{asked} raised {type(error).__name__}{instead}", repr(error))
    else:
        finds = asked.what in _FINDS or (asked.what == "end" and not asked.may_hold)
        if finds:
            is_old = asked.has_lived and isinstance(answer, Handle) and answer.instance != owner.handle.instance
            sentence = f"{asked}, {'whose session has ended' if is_old else 'who has nothing'}, returned {answer!r}"
            trial.require(answer in NOTHING, "old-agent-found" if is_old else "merged-identity", sentence)
        else:
            allowed = asked.is_id and asked.what != _FOREIGN
            if asked.what != "end" or asked.is_id:
                trial.require(allowed, "not-refused", f"{asked} was not refused", repr(answer)[:200])
            is_accepted = asked.what != _FOREIGN
            _answered_to(trial, owner, asked, answer)
    await _unnoticed(trial, target, owner, asked)
    return is_accepted


def _answered_to(trial: Trial, owner: _Owner, asked: Asked, answer: Any) -> None:
    """Require that a call gave nothing of the owner's, and that no agent worked in the owner's name for it."""
    if isinstance(answer, Handle):
        sentence = f"{asked} returned the agent of {_short(owner.name)}"
        trial.require(answer.instance != owner.handle.instance, "merged-identity", sentence, answer)
    sentence = f"for {asked} an agent worked in the name of {_short(owner.name)}"
    trial.require(owner.name not in owner.worked, "merged-identity", sentence, *map(_short, owner.worked[:3]))


async def _unnoticed(trial: Trial, target: Target, owner: _Owner, asked: Asked) -> None:
    """Require that the owner has their agent, with its memory, and their connection, and these alone."""
    read: Any = None
    try:
        can_look = Capability.LOOKUP in target.capabilities
        found = await target.get(owner.name, "helper") if can_look else owner.handle
        if found is not None:
            read = await target.run(found, Command("read", {"key": "note"}))
    except Refused as refusal:
        found, read = None, str(refusal)
    same = found is not None and found.instance == owner.handle.instance and read == owner.note
    sentence = f"after {asked}, {_short(owner.name)} does not find their agent as it was"
    trial.require(same, "merged-identity", sentence, f"found {found}", f"it remembers {read!r}")
    if owner.client is not None:
        count = target.connections(owner.name)
        sentence = f"after {asked}, {_short(owner.name)} has {count} connections, not the one"
        trial.require(owner.client.is_open and count == 1, "merged-identity", sentence)


def _short(user: Any) -> str:
    text = repr(user)
    return text if len(text) <= 60 else f"{text[:30]}...{text[-20:]} ({len(user)} characters)"
