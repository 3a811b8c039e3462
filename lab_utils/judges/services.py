"""Judges a service's answers from outside: whose data stands where, the effect of each attempt, and the memory that its
process tree keeps."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

from lab_utils.judges.isolation import Seen
from lab_utils.values.canaries import Writers, mark
from lab_utils.values.quantities import counted
from lab_utils.values.verdict import Finding, Verdict

__all__ = [
    "Attempt",
    "Growth",
    "Listened",
    "counted_up",
    "denied",
    "events_own",
    "guessable",
    "id_keys",
    "ids_under",
    "no_keys_of_others",
    "nothing_kept",
    "only_own",
]

_SHOWN = 200
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[\w-]+")
_LEAST_SHARE = 0.25
"""The share of the data written in a cycle that must be found again in each series: less is an allocator's or a
cache's."""


def only_own(seen: Iterable[Seen], users: Iterable[str]) -> Verdict:
    """Judge that no answer held a canary of another user: one finding for each word, because it has one cause."""
    writers = Writers(users)
    own = 0
    leaks: dict[str, dict[tuple[str, str], str]] = {}
    for item in seen:
        for writer, text in writers.of(item.value):
            if writer == item.user:
                own += 1
            else:
                at = max(0, text.find(str(mark(writer))) - _SHOWN // 2)
                shown = f"{item.place} of {item.user!r}, {writer!r} wrote: ...{text[at : at + _SHOWN]}"
                leaks.setdefault(item.place, {}).setdefault((item.user, writer), shown)
    findings = []
    for place, pairs in leaks.items():
        (user, writer), *more = pairs
        also = f", and so did {counted(len(more), 'more pair')}" if more else ""
        sentence = f"{user!r} received data of {writer!r} by {place}{also}"
        findings.append(Finding("cross-user-data", sentence, _few(list(pairs.values()))))
    return Verdict.of(findings, own, "values answered to their own writers, none to others")


def no_keys_of_others(seen: Iterable[Seen], keys: Mapping[str, str], masked: Callable[[str], str]) -> Verdict:
    """Judge that no answer showed a key of another user, the id of a session or a token: one finding for each word.
    `keys`: text -> its owner; `masked`: a text as it may be shown."""
    words = {key for key in keys if _WORD.fullmatch(key)}
    others = [key for key in keys if key not in words]
    shown: dict[str, tuple[str, str]] = {}
    count = 0
    for item in seen:
        count += 1
        for text in item.value:
            # As a whole: the id of another session may begin with this one.
            held = [*words.intersection(_WORD.findall(text)), *(key for key in others if key in text)]
            for key in held:
                if keys[key] != item.user and item.place not in shown:
                    at = max(0, text.find(key) - _SHOWN // 2)
                    shown[item.place] = (
                        f"{item.user!r} was shown the session id or the token of {keys[key]!r} by {item.place}",
                        f"{item.place} of {item.user!r}: ...{masked(text)[at : at + _SHOWN]}",
                    )
    findings = [Finding("cross-user-data", sentence, (witness,)) for sentence, witness in shown.values()]
    return Verdict.of(findings, count, "answers without the session ids and tokens of others")


def counted_up(alone: str, beside: str) -> bool:
    """Whether two answers differ, and in numbers alone that are larger in the second one: ids or counts that go up with
    every user's actions. Both begin with their status, which is no such number."""
    (status, one), (other_status, other) = (text.split(" ", 1) for text in (alone, beside))
    if status != other_status or one == other or _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
        return False
    numbers = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(int(before) <= int(after) for before, after in numbers)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt on a session by somebody else than its owner.

    `by`: who tried, in words; `anomaly`: the finding if it worked. `granted`: whether the owner's own request of this
    kind works. `achieved`: its effect, as the owner's next read or the answer itself shows; "" for none. `of`: the
    owner, in words.
    """

    word: str
    by: str
    anomaly: str
    granted: bool
    achieved: str
    answer: str
    of: str = "another user"


def denied(attempts: Sequence[Attempt]) -> Verdict:
    """Judge that no attempt had an effect, for any status; one finding for each kind of attempt. An attempt
    at something that the owner cannot do either shows nothing."""
    findings = []
    worked: dict[tuple[str, str, str], list[Attempt]] = {}
    for attempt in attempts:
        if attempt.achieved:
            worked.setdefault((attempt.anomaly, attempt.by, attempt.of), []).append(attempt)
    for (anomaly, by, of), of_kind in worked.items():
        words = ", ".join(dict.fromkeys(attempt.word for attempt in of_kind))
        witness = tuple(f"{one.word}: answered {one.answer[:_SHOWN]}; {one.achieved}" for one in of_kind)
        sentence = f"{by} can {words} in a session of {of}"
        if anomaly == "cross-user-data":
            sentence = f"{by} may not {words} in a session of {of}, and the refusal shows that user's data"
        findings.append(Finding(anomaly, sentence, witness))
    tried = [attempt for attempt in attempts if attempt.granted]
    words = ", ".join(dict.fromkeys(attempt.word for attempt in tried))
    kinds = len({attempt.by for attempt in tried})
    return Verdict.of(findings, len(tried), f"attempts of {counted(kinds, 'kind')} without effect ({words})")


def guessable(ids: Sequence[str]) -> str:
    """The reason why somebody could guess one of these ids from the others; "" if nobody could."""
    if len(set(ids)) < len(ids):
        return "an id was given twice"
    numbers = [int(found[-1]) for found in (re.findall(r"\d+", one) for one in ids) if found]
    if len(numbers) == len(ids) > 2:
        steps = {after - before for before, after in pairwise(numbers)}
        if steps and all(0 < step <= 16 for step in steps) and len({re.sub(r"\d+", "", one) for one in ids}) == 1:
            return "ids are counted up"
    if min(map(len, ids), default=99) < 8:
        return "ids are shorter than eight characters"
    # Places in which many ids are alike hold a time, a machine or a version; chance leaves none of them.
    drawn = [place for place in zip(*ids, strict=False) if len(set(place)) > 1]
    if len(ids) > 4 and len(drawn) < 8:
        return f"ids differ in {len(drawn)} of their characters"
    return ""


def id_keys(value: object, known: Collection[str]) -> set[str]:
    """The keys under which one list of this value has all of the `known` ids; "" where they are its elements."""
    found = {
        key
        for rows in _lists(value)
        for key in {name for row in rows for name in row}
        if known and set(known) <= {str(row[key]) for row in rows if key in row}
    }
    # Of several columns with these numbers, the name decides.
    return found if len(found) == 1 else {key for key in found if "id" in key.lower()}


def ids_under(value: object, keys: Collection[str]) -> set[str]:
    """All that the lists of this value have under these keys."""
    return {str(row[key]) for rows in _lists(value) for row in rows for key in keys if key in row}


def _lists(value: object) -> Iterator[list[Mapping[str, object]]]:
    """Each list in a value, its elements as rows: one that is no object has itself under the key ""."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with suppress(ValueError):
            yield from _lists(json.loads(value))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _lists(one)
    elif isinstance(value, list):
        yield [one if isinstance(one, Mapping) else {"": one} for one in value]
        for one in value:
            if isinstance(one, (Mapping, list)):
                yield from _lists(one)


@dataclass(frozen=True, slots=True)
class Listened:
    """The content of one user's stream: `expected` are the values that were written to its session, in any order."""

    user: str
    expected: tuple[str, ...]
    received: tuple[str, ...]
    is_whole: bool
    """Whether everything had to arrive."""


def events_own(listened: Sequence[Listened], users: Iterable[str], own_only: bool) -> Verdict:
    """Judge that each stream brought its own session's values, each once, and those of nobody else."""
    writers = Writers(users)
    findings = []
    count = 0
    for one in listened:
        foreign = [text for text in one.received for writer, _ in writers.of(text) if writer != one.user]
        if foreign and own_only:
            sentence = f"the stream of {one.user!r} brought {counted(len(foreign), 'event')} of other users"
            findings.append(Finding("cross-user-event", sentence, _few(foreign)))
        times = Counter({token: sum(token in text for text in one.received) for token in one.expected})
        missing = [token for token, number in times.items() if number == 0]
        doubled = [token for token, number in times.items() if number > 1]
        count += len(one.expected) - len(missing)
        if one.is_whole and missing and len(missing) < len(one.expected):
            sentence = f"the stream of {one.user!r} never brought {len(missing)} of {len(one.expected)} events"
            findings.append(Finding("lost-event", sentence, _few(missing)))
        if one.is_whole and doubled:
            sentence = f"the stream of {one.user!r} brought {counted(len(doubled), 'event')} more than once"
            findings.append(Finding("doubled-event", sentence, _few(doubled)))
    return Verdict.of(findings, count, "events, each on its own user's stream alone")


@dataclass(frozen=True, slots=True)
class Growth:
    """How one quantity of a process tree grew a cycle: least and most (95%) of each series, measured one after another.

    `limit` is the growth a cycle from which on something is kept; `unit` "bytes" or "objects". `between_rests`: the
    growth a cycle of each series more, from a rest before it to one after it, in which abandoned runs had time to end;
    () if nobody measured it. One alone shows nothing: an allocator gives back to the system at one rest what it keeps
    for the next series at another.
    """

    what: str
    unit: str
    intervals: tuple[tuple[float, float], ...]
    limit: float
    between_rests: tuple[float, ...] = ()

    @property
    def is_kept(self) -> bool:
        return self._grows and all(growth >= self.limit for growth in self.between_rests)

    @property
    def is_open(self) -> bool:
        """Whether it grows by the limit or more on the whole, and no series excludes that it does not: too few cycles
        for the steps of an allocator."""
        if not self.intervals or self._grows or any(high < self.limit for _, high in self.intervals):
            return False
        return self.middle >= self.limit

    @property
    def middle(self) -> float:
        """The mean of the middles of the intervals."""
        return sum(low + high for low, high in self.intervals) / (2 * len(self.intervals))

    @property
    def _grows(self) -> bool:
        return bool(self.intervals) and all(low >= self.limit for low, _ in self.intervals)


def nothing_kept(growths: Sequence[Growth], users: int, written: float, control: Mapping[str, float]) -> Verdict:
    """Judge that a tree of processes keeps nothing of users who have left.

    Memory is kept if it grows, in every series, by at least a quarter of the data written, and without the payload
    (`control`, a cycle's growth) by less than half of that. An allocator's steps are the same in both. UNKNOWN where
    nothing is found and one of these `is_open`.
    """

    def is_of_the_allocator(growth: Growth, grown: float) -> bool:
        return growth.unit == "bytes" and control.get(growth.what, 0.0) > grown / 2

    findings = []
    for growth in growths:
        if not growth.is_kept or is_of_the_allocator(growth, growth.intervals[-1][0]):
            continue
        shown = [f"series {n}: {low:,.0f} to {high:,.0f} {growth.unit} a cycle (95%)" for n, (low, high)
                 in enumerate(growth.intervals, 1)]  # fmt: skip
        if growth.between_rests:
            rests = " and ".join(f"{grown:,.0f}" for grown in growth.between_rests)
            shown.append(f"and from one rest to the next one: {rests} {growth.unit} a cycle")
        without = f"without payload: {control.get(growth.what, 0.0):,.0f} a cycle"
        per = f"a cycle in which {users} users come, write {written:,.0f} bytes in all, and leave"
        name = "memory-kept" if growth.unit == "bytes" else f"{growth.what}-kept"
        findings.append(Finding(name, f"{growth.what} of the server's processes grows with {per}", (*shown, without)))
    cycles = sum(len(growth.intervals) for growth in growths)
    unclear = [one.what for one in growths if one.is_open and not is_of_the_allocator(one, one.middle)]
    if unclear and not findings:
        return Verdict.unknown(
            f"whether {' and '.join(unclear)} of the server's processes grows is not clear from so few cycles: raise "
            "--param service.cycles, with fewer users for a slow server"
        )
    return Verdict.of(findings, cycles, "series of cycles without growth by what users leave")


def limit_of(written: float) -> float:
    """The growth of memory a cycle from which on it is kept, where so many bytes are written in one."""
    return _LEAST_SHARE * written


def _few(lines: Sequence[str]) -> tuple[str, ...]:
    more = [f"and {len(lines) - 3} more"] if len(lines) > 3 else []
    return (*(line[: 2 * _SHOWN] for line in lines[:3]), *more)
