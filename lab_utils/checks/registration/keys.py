"""A part of agent_retrieval_by_user_and_thread_isolation: ids that differ, but become one text when they are joined,
folded, normalised or cut."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Any

from lab_utils.target import Capability, Command, Handle, Recipe, Refusal, Refused, Subscription, Target
from lab_utils.trial import Stuck, Trial
from lab_utils.trial.allowance import Allowance
from lab_utils.values.canaries import Writers
from lab_utils.values.texts import cut
from lab_utils.values.workload import canary, rows_for, texts_in

__all__ = ["Alike", "Key", "alike", "judge_keys"]

SEPARATORS = (
    *(":", "::", "/", "|", "||", "-", "--", "_", "__", ".", "#", ",", ";", "@", "+", "=", "~", "%", "$", "&"),
    *("!", "?", "->", " ", ""),
)
"""Separators with which people join keys, and none."""
_IN_TYPES = frozenset({"-", "--", "_", "__", ".", ""})
"""Those that the name of a type may hold."""
_LONG = "n" * 240
FOLDS = {
    "folds case": ("Report", "report"),
    "takes underscores for hyphens": ("monthly_report", "monthly-report"),
    "keeps the first 240 characters or fewer": (f"{_LONG}1", f"{_LONG}2"),
    "reads digits as a number": ("0042", "42"),
    "reads numbers": ("1.0", "1"),
    "drops dots": ("ann.lee", "annlee"),
    "drops a tag of a mail address": ("ann+work@mail.example", "ann@mail.example"),
    "drops dots of a mail address": ("ann.lee@mail.example", "annlee@mail.example"),
    "keeps the part before an at sign": ("ann@one.example", "ann@two.example"),
    "keeps the part after an at sign": ("ann@mail.example", "ben@mail.example"),
    "keeps the part before a colon": ("acme:1", "acme:2"),
    "keeps the part after a colon": ("1:ann", "2:ann"),
    "keeps the part before a slash": ("acme/1", "acme/2"),
    "composes accents": ("cafe\u0301", "caf\u00e9"),
    "normalises compatible letters": ("\uff11st floor", "1st floor"),
    "drops accents": ("r\u00e9sum\u00e9", "resume"),
    "drops invisible letters": ("re\u200bport", "report"),
    "collapses blanks": ("my  report", "my report"),
    "decodes percent signs": ("a%20report", "a report"),
    "decodes a plus sign": ("a+report", "a report"),
    "ends at a slash": ("report/", "report"),
    "matches by a pattern": ("rep%rt", "report"),
    "matches a glob": ("rep*", "report"),
    "matches one level of a topic": ("+", "report"),
    "matches all levels of a topic": ("#", "report"),
    "compares the beginning": ("report", "report-2"),
    "compares the end": ("report", "my-report"),
}
"""Careless comparisons, and two ids that each of them takes for one. The first is the odder one."""
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
"""An id that may be the name of a type."""
_MERGED = {"user": "merged-identity", "agent_type": "merged-types", "thread": "wrong-thread"}
_DEFAULT = "main"
"""The thread of calls that name none."""
_LONGEST_S = 30.0
"""Seconds (`Allowance`) for all pairs on a slow target."""
_ENOUGH = 3
"""Findings after which no more keys are tried."""


@dataclass(frozen=True, slots=True)
class Key:
    """The key of one agent; `thread` is "" where a target has no threads."""

    user: str
    agent_type: str
    thread: str

    @property
    def asked(self) -> str:
        """The thread that calls name."""
        return self.thread or _DEFAULT

    def __str__(self) -> str:
        place = f" in thread {_short(self.thread)}" if self.thread else ""
        return f"type {_short(self.agent_type)} of user {_short(self.user)}{place}"


@dataclass(frozen=True, slots=True)
class Alike:
    """Two keys that are one text where the parts in `order` are joined by `separators`, forwards or backwards, or where
    a comparison `folds` the part that is the only one of the order. A thread `main` is left out of the text.

    Without an order they are not alike; their owners choose the same ids for their runs, unless they are `apart`.
    """

    first: Key
    second: Key
    separators: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    folds: str = ""
    apart: bool = False

    def anomaly(self, if_apart: str) -> str:
        """The name of a finding on them; of two who have nothing alike, another one."""
        if self.apart:
            return if_apart
        if self.folds:
            return _MERGED[self.order[0]]
        return "joined-key" if self.order else "shared-run-id"

    @property
    def is_one_of_many(self) -> bool:
        """Whether it is one of the many pairs of which only lookups and data are looked at."""
        return len(set(self.separators)) > 1 or (bool(self.order) and self.first.thread == _DEFAULT)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of ids, in words."""
        if self.folds:
            return (f"such as {_short(getattr(self.first, self.order[0]))}",)
        return tuple(f"that hold {separator!r}" for separator in dict.fromkeys(self.separators))

    def without_threads(self) -> Alike:
        """The same pair, of two keys in one thread, for a target that has none."""
        return replace(self, first=replace(self.first, thread=""), second=replace(self.second, thread=""))

    def joined(self, key: Key) -> str:
        """The text of a key."""
        parts: list[str] = [part for one in self.order if (part := getattr(key, one)) not in (_DEFAULT, "")]
        return parts[0] + "".join(map("{}{}".format, self.separators, parts[1:]))

    def __str__(self) -> str:
        if self.folds:
            (part,) = self.order
            one, other = getattr(self.first, part), getattr(self.second, part)
            return f"a comparison that {self.folds} takes {_short(one)} for {_short(other)}"
        if self.apart:
            return "neither the keys nor the ids of runs are alike"
        if not self.order:
            return "the keys are not alike; both users chose the same ids for their runs"
        separators = " and ".join(map(repr, dict.fromkeys(self.separators)))
        without = f" without the thread {_DEFAULT}" if _DEFAULT in (self.first.thread, self.second.thread) else ""
        order = f"joined by {separators} in the order {', '.join(self.order)} or backwards{without}"
        return f"{order}, both keys are {self.joined(self.first)!r}"


def alike(rng: random.Random) -> Iterator[Alike]:
    """Return pairs of keys for each separator: any two parts differ, as neighbours and apart, and where the default
    thread is left out. Of two separators, one that the name of a type may hold makes one text of that name and its
    neighbour, whatever the other is; all others are paired, around the type."""
    for separator in SEPARATORS:
        for left, right in combinations(("user", "agent_type", "thread"), 2):
            if "agent_type" in (left, right) and separator not in _IN_TYPES:
                continue
            (third,) = {"user", "agent_type", "thread"} - {left, right}
            yield _pair((separator,), (left, right), _name(rng), _name(rng))
            yield _pair((separator, separator), (left, third, right), _name(rng), _name(rng))
        one = _name(rng)
        parts = ("user", "agent_type") if separator in _IN_TYPES else ("user",)
        for part in parts:
            rest = {"user": one, "agent_type": one}
            first = Key(**rest | {part: f"{one}{separator}{one}"}, thread=_DEFAULT)
            yield Alike(first, Key(**rest, thread=one), (separator, separator), ("user", "agent_type", "thread"))
    for separators in permutations([one for one in SEPARATORS if one not in _IN_TYPES], 2):
        yield _pair(separators, ("user", "agent_type", "thread"), _name(rng), "helper")


def _pair(separators: tuple[str, ...], order: tuple[str, ...], one: str, same: str) -> Alike:
    # Whatever stands between the two in the joined text stands within one of them. The rest of both is one text, so
    # that they are alike backwards, too.
    between = separators[0] if len(order) == 2 else f"{separators[0]}{same}{separators[1]}"
    rest = {"user": same, "agent_type": same, "thread": same} | {order[0]: one, order[-1]: one}
    longer = f"{one}{between}{one}"
    return Alike(Key(**rest | {order[0]: longer}), Key(**rest | {order[-1]: longer}), separators, order)


def _name(rng: random.Random) -> str:
    return f"{rng.choice('abcdk')}{rng.randrange(10**6):06d}"


def folded(rng: random.Random) -> Iterator[Alike]:
    """Return pairs of keys that differ in one part, in each way that a careless comparison overlooks."""
    for folds, (odd, plain) in FOLDS.items():
        for part in ("user", "agent_type", "thread"):
            if part == "agent_type" and not (_NAME.fullmatch(odd) and _NAME.fullmatch(plain)):
                continue
            same = f"s{rng.randrange(10**6):06d}"
            rest = {"user": same, "agent_type": same, "thread": same}
            yield Alike(Key(**rest | {part: odd}), Key(**rest | {part: plain}), (), (part,), folds)


async def judge_keys(trial: Trial) -> None:
    """Let the owners of each two keys live beside each other; require that every call that takes one finds its own."""
    same_runs = Alike(Key("ann-of-keys", "helper", "main"), Key("ben-of-keys", "helper", "main"))
    # First two who have nothing alike: where these are mixed up, keys are not the cause.
    apart = Alike(Key("ann-apart", "helper", "main"), Key("ben-apart", "helper", "main"), apart=True)
    # Those of two separators last, of which a slow target is not asked all.
    many = sorted([*alike(trial.rng), *folded(trial.rng)], key=lambda pair: len(set(pair.separators)) > 1)
    pairs = [apart, same_runs, *many]
    keys = [key for pair in pairs for key in (pair.first, pair.second)]
    rows = {user: rows_for(user, 1, trial.rng) for user in dict.fromkeys(key.user for key in keys)}
    recipes = [Recipe(name) for name in dict.fromkeys(key.agent_type for key in keys)]
    target = await trial.target(recipes, rows)
    if Capability.THREADS not in target.capabilities:
        pairs = [pair.without_threads() for pair in pairs if pair.first.thread == pair.second.thread]
    refused: dict[str, str] = {}
    findings, tried, allowance = 0, len(pairs), Allowance(_LONGEST_S)
    for number, pair in enumerate(pairs):
        if allowance.is_over():
            tried = number
            trial.leave_out(f"{len(pairs) - tried} of {len(pairs)} pairs of keys, for want of time")
            break
        if findings >= _ENOUGH or (pair.order and not refused.keys().isdisjoint(pair.kinds)):
            continue
        lives = _Lives(trial, target, pair, allowance)
        try:
            await trial.waiting.ends(lives.beside_each_other(), f"the lives of {pair.first} and {pair.second}")
        except Refused as refusal:
            if pair.order:
                refused |= dict.fromkeys(pair.kinds, f"refuses as {refusal.kind}")
            else:
                trial.leave_out(f"two users of whom {pair}: refused as {refusal.kind}")
        except Stuck:
            raise
        except Exception as error:
            if not lives.is_begun and (pair.folds or (pair.order and trial.refused_ids)):
                # An odd id, which the target's store does not take; or one like those that were named before.
                refused |= dict.fromkeys(pair.kinds, f"answers with {type(error).__name__}")
                continue
            # One cause, one finding: who fails with these keys is not asked for the next.
            sentence = f"two users with ordinary ids, and one of the calls fails with {type(error).__name__}: {error}"
            trial.find("failed-operation", sentence, f"keys: {pair.first} and {pair.second}")
            return
        findings += lives.findings
        if pair.apart and findings:
            return
    for kind, how in refused.items():
        trial.leave_out(f"ids {kind}, which the target {how}")
    trial.measure("pairs of keys that are one when joined or folded", tried, "pairs")


class _Lives:
    """The owners of two keys, or the one of both."""

    def __init__(self, trial: Trial, target: Target, pair: Alike, allowance: Allowance) -> None:
        self.findings = 0
        self._trial, self._target, self._pair, self._allowance = trial, target, pair, allowance
        self._without = {Capability.EVENTS, Capability.TOOLS} if pair.is_one_of_many else set()
        self._handles: dict[Key, Handle] = {}
        self._clients: dict[str, Subscription] = {}
        self._asked: Counter[Key] = Counter()

    @property
    def is_begun(self) -> bool:
        """Whether the first agent has been made."""
        return bool(self._handles)

    def _can(self, wanted: set[Capability]) -> bool:
        return self._without.isdisjoint(wanted) and self._target.capabilities.issuperset(wanted)

    async def beside_each_other(self) -> None:
        """Make both agents, then ask for each, then close the second and look at the first."""
        first, second = self._pair.first, self._pair.second
        for key in (first, second):
            if self._can({Capability.EVENTS}) and key.user not in self._clients:
                self._clients[key.user] = self._target.subscribe(key.user)
            try:
                made = await self._target.create(key.user, key.agent_type, thread=key.asked)
            except Refused as refusal:
                if key == first or refusal.kind is Refusal.INVALID_USER:
                    raise
                # The first was not refused: the second one fails because it lacks a key of its own.
                sentence = f"the create of {key} is refused as {refusal.kind} beside {_words(first, key)}"
                return self._require(False, key, sentence, refusal, if_apart="failed-operation")
            self._handles[key] = made
            self._found("create", key, made)
            await self._run(key, "write", key="memo", value=_memo(key))
        for key in (first, second):
            await self._ask(key)
        if not self._pair.order:
            answers = await asyncio.gather(*(self._run(key, "recall") for key in (first, second)))
            for key, answer in zip((first, second), answers, strict=True):
                self._own("recall beside a run of the same id", key, answer, (_memo(key),))
        self._hear()
        if not self._pair.order:
            await self._hear_as_much(first, second)
        await self._close(first, second)
        return await self._at_once(first, second)

    async def _at_once(self, first: Key, second: Key) -> None:
        """Both are made by one call each, at the same time, and then read: what is under way has a key, too."""
        if self._pair.is_one_of_many or not self._can({Capability.END}):
            return
        target, keys = self._target, (first, second)
        await self._make_at_once(keys, "create", lambda key: target.create(key.user, key.agent_type, thread=key.asked))
        if first.user != second.user and self._can({Capability.MODEL}):
            texts = {key: f"A note:\n- note: {_memo(key)}" for key in keys}
            await self._read_at_once(keys, "ask", lambda key: self._run(key, "ask", text=texts[key]))
        await target.end(first.user)
        if first.user != second.user:
            # The odder id comes first: an end may take it for a pattern, and the other way round there is none.
            await self._works(second, f"the end of the session of {_words(first, second)}")
            await target.end(second.user)
        if self._can({Capability.GET_OR_CREATE}):
            make = target.get_or_create
            await self._make_at_once(keys, "get_or_create", lambda key: make(key.user, key.agent_type, key.asked))
            if first.user != second.user:
                action, given = ("tool", {"name": "rows"}) if self._can({Capability.TOOLS}) else ("recall", {})
                await self._read_at_once(keys, action, lambda key: self._run(key, action, **given))
            await self._all_end(keys)

    async def _make_at_once(self, keys: tuple[Key, Key], call: str, make: Callable[[Key], Awaitable[Handle]]) -> None:
        self._handles.clear()
        for key, found in zip(keys, await asyncio.gather(*map(make, keys)), strict=True):
            self._found(f"{call} beside that of the other", key, found)
            self._handles[key] = found

    async def _read_at_once(self, keys: tuple[Key, Key], what: str, read: Callable[[Key], Awaitable[Any]]) -> None:
        """A read or a question that is under way may be shared by those who ask for the same."""
        for key, answer in zip(keys, await asyncio.gather(*map(read, keys)), strict=True):
            self._own(f"{what} beside that of the other", key, answer, (_memo(key),) if what == "ask" else ())

    async def _all_end(self, keys: tuple[Key, Key]) -> None:
        for user in dict.fromkeys(key.user for key in keys):
            await self._target.end(user)

    async def _ask(self, key: Key) -> None:
        target = self._target
        if self._can({Capability.LOOKUP}):
            self._found("get", key, await target.get(key.user, key.agent_type, key.asked))
        if self._can({Capability.GET_OR_CREATE}):
            found = await target.get_or_create(key.user, key.agent_type, key.asked)
            self._found("get_or_create", key, found)
        self._own("recall", key, await self._run(key, "recall"), (_memo(key),))
        if self._can({Capability.TOOLS}):
            self._own("the tool rows", key, await self._run(key, "tool", name="rows"), ())
        if self._can({Capability.EVENTS}):
            await self._run(key, "think", thoughts=[_memo(key)])

    def _run(self, key: Key, action: str, /, **arguments: Any) -> Awaitable[Any]:
        self._asked[key] += 1
        is_alike = not (self._pair.order or self._pair.apart)
        chosen = f"run-{self._asked[key]}" if is_alike else self._trial.run_id()
        run = chosen if self._can({Capability.RUN_IDS}) else ""
        return self._target.run(self._handles[key], Command(action, arguments, run))

    async def _close(self, first: Key, second: Key) -> None:
        """Close the second's agent, and then its session; the first's must be untouched."""
        if self._can({Capability.REMOVE}) and (first.user, first.agent_type) != (second.user, second.agent_type):
            await self._target.remove(second.user, second.agent_type)
            await self._works(first, f"the removal of the agent of {_words(second, first)}", {"memo": _memo(first)})
        if self._can({Capability.END}) and first.user != second.user:
            before = self._target.connections(first.user) if self._can({Capability.EVENTS}) else 0
            await self._target.end(second.user)
            await self._works(first, f"the end of the session of {_words(second, first)}", {"memo": _memo(first)})
            if self._can({Capability.EVENTS}):
                held = self._target.connections(first.user)
                sentence = f"{first.user!r} has {held} connections, not {before}, after that end"
                self._require(held == before, first, sentence, held)
        if self._can({Capability.END}):
            await self._all_end((first, second))

    async def _works(self, key: Key, after: str, remembers: dict[str, str] | None = None) -> None:
        """Require that the agent runs, and what it remembers if that is given."""
        try:
            recalled = await self._run(key, "recall")
        except Refused as refusal:
            self._require(
                False, key, f"the agent of {key.user!r} is closed by {after}", refusal, if_apart="neighbour-touched"
            )
            return
        sentence = f"the agent of {key.user!r} recalls something else after {after}"
        self._require(remembers in (None, recalled), key, sentence, recalled, if_apart="neighbour-touched")

    def _found(self, call: str, key: Key, found: Handle | None) -> None:
        other = self._pair.second if key == self._pair.first else self._pair.first
        is_own = found is not None and (found.user, found.agent_type, found.thread) == (
            *(key.user, key.agent_type),
            key.thread if self._can({Capability.THREADS}) else found.thread,
        )
        is_first = key not in self._handles or found is None or found.instance == self._handles[key].instance
        given = "nothing" if found is None else str(Key(found.user, found.agent_type, found.thread))
        whose = "another agent than that of the key" if found is None else _words(other, key)
        sentence = f"{call} of {key} returned {given}: {whose}"
        self._require(is_own and is_first, key, sentence, given, if_apart="cross-user-answer")

    def _own(self, what: str, key: Key, value: Any, wanted: tuple[str, ...]) -> None:
        other = self._pair.second if key == self._pair.first else self._pair.first
        others = [who for who, _ in Writers([other.user]).of(value)] if other.user != key.user else []
        # Not its repr, which escapes what cannot be seen.
        texts = "\n".join(texts_in(value))
        foreign = _memo(other) in texts
        missing = [one for one in wanted if one not in texts]
        sentence = f"{what} of {key} returned data that is {_words(other, key)}"
        self._require(not (others or foreign or missing), key, sentence, str(value)[:200])

    async def _hear_as_much(self, first: Key, second: Key) -> None:
        """Two users who asked for the same are sent as many events of each type."""
        if self.findings or not self._can({Capability.EVENTS}) or first.user == second.user:
            return
        # The whole of these lives may take no longer than the trial's patience.
        waiting = self._trial.waiting
        until = self._trial.now() + waiting.patience_s / (8 if waiting.is_hasty else 2)

        def heard(key: Key) -> Counter[str]:
            return Counter(event.type for event in self._clients[key.user].received())

        await waiting.until(lambda: heard(first) == heard(second) or self._trial.now() > until)
        sentence = f"{first} and {second} were asked for the same runs, and their clients received different events"
        given = [f"{key.user!r}: {dict(heard(key))}" for key in (first, second)]
        self._require(heard(first) == heard(second), second, sentence, *given, if_apart="lost-event")

    def _hear(self) -> None:
        for user, client in self._clients.items():
            for key in (self._pair.first, self._pair.second):
                if key.user != user:
                    heard = [event for event in client.received() if _memo(key) in event.body or event.user == key.user]
                    sentence = f"{user!r} was sent an event of another user, {key.user!r}"
                    self._require(not heard, key, sentence, *heard[:1], if_apart="foreign-event")

    def _require(self, holds: bool, key: Key, sentence: str, *given: object, if_apart: str = "cross-user-data") -> None:
        # Asked after each call: on a slow target each takes long.
        self._allowance.is_over()
        if self.findings:
            # One cause, one finding: the rest follows from the first.
            return
        self.findings += not holds
        self._trial.require(holds, self._pair.anomaly(if_apart), sentence, str(self._pair), *given)


def _words(key: Key, beside: Key) -> str:
    """The owner, in the words of somebody else."""
    if key.user != beside.user:
        return f"another user's, {_short(key.user)}"
    return f"another {'thread' if key.thread != beside.thread else 'type'}'s of the same user, {key}"


def _short(part: str) -> str:
    return cut(repr(part), 64)


def _memo(key: Key) -> str:
    return canary(key.user, f"{key.agent_type} in {key.thread}", 0)
