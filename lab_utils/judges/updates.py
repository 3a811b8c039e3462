"""Judges whether counters that many clients add to at once lose, double or mix up an update."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lab_utils.values.history import Op, OpType
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["Update", "counters_add_up"]


@dataclass(frozen=True, slots=True)
class Update:
    """One addition to its user's counter, which begins at 0; `op.value` is the number that was answered.

    Amounts are positive and no two updates of the history have the same one. So every number that an update began with
    (its answer less its amount) names the update that wrote it.
    """

    op: Op
    amount: int

    def __str__(self) -> str:
        return f"{self.op} (added {self.amount})"


def counters_add_up(
    updates: Iterable[Update], finals: Mapping[str, int | None], *, are_answered: bool = True
) -> Verdict:
    """Judge that each user's counter behaved as if the updates had come one after another, in an order that real time
    allows. `finals`: user -> the number read when all updates had ended. Without `are_answered` the answers hold no
    number by design, and the final numbers alone are judged.

    | anomaly            | meaning                                                                               |
    |--------------------|---------------------------------------------------------------------------------------|
    | lost-update        | two updates began with the same number, or the final number lacks one                 |
    | cross-user-update  | an update began with a number of another user's counter                               |
    | phantom-update     | an update began with a number that no update wrote, or the final number is too high   |
    | stale-update       | an update did not see one that had ended before it was invoked                        |
    | wrong-answer       | an update was answered with something that is no number                               |

    Complete for these counters: answers that form one chain from 0 in an order that real time allows are linearisable.
    Updates of type INFO may count or not; a user with one is spared every finding that it could explain.
    """
    by_user: dict[str, list[Update]] = defaultdict(list)
    for update in updates:
        by_user[update.op.user].append(update)
    wrote = {update.op.value: update for of_user in by_user.values() for update in of_user if _ended(update)}
    findings: list[Finding] = []
    count = 0
    for user, of_user in by_user.items():
        done = [update for update in of_user if _ended(update) or (_took(update) and not are_answered)]
        for update in of_user:
            if are_answered and _took(update) and not _ended(update):
                sentence = f"an update of {user!r} returned {update.op.value!r}"
                findings.append(Finding("wrong-answer", sentence, (str(update),)))
        count += len(done)
        unsure = [update for update in of_user if update.op.type is OpType.INFO]
        if are_answered:
            findings += _chain(user, done, wrote, unsure)
            findings += _order(user, done)
        if user in finals:
            findings += _final(user, done, unsure, finals[user])
    return Verdict.of(findings, count, "updates, each of them in its user's final number, one after another")


def _took(update: Update) -> bool:
    return update.op.type is OpType.OK


def _ended(update: Update) -> bool:
    return _took(update) and isinstance(update.op.value, int)


def _chain(user: str, done: list[Update], wrote: Mapping[object, Update], unsure: list[Update]) -> Iterator[Finding]:
    began: dict[int, Update] = {}
    own = {update.op.value for update in done}
    for update in done:
        base = update.op.value - update.amount
        other = began.setdefault(base, update)
        if other is not update:
            sentence = f"two updates of {user!r} began with {base}, so one of them is lost"
            source = (str(wrote[base]),) if base in own else ()
            yield Finding("lost-update", sentence, (*source, str(other), str(update)))
        if base == 0 or base in own:
            continue
        if base in wrote:
            sentence = f"an update of {user!r} began with {base}, the number of {wrote[base].op.user!r}"
            yield Finding("cross-user-update", sentence, (str(wrote[base]), str(update)))
        elif not unsure:
            sentence = f"an update of {user!r} began with {base}, which no update wrote"
            yield Finding("phantom-update", sentence, (str(update),))


def _order(user: str, done: list[Update]) -> Iterator[Finding]:
    # The highest number answered before each invocation; one pass over both orders.
    by_end = sorted(done, key=lambda update: update.op.completed)
    highest: Update | None = None
    ended = 0
    for update in sorted(done, key=lambda update: update.op.invoked):
        while ended < len(by_end) and by_end[ended].op.completed < update.op.invoked:
            if highest is None or by_end[ended].op.value > highest.op.value:
                highest = by_end[ended]
            ended += 1
        if highest is not None and update.op.value <= highest.op.value:
            sentence = f"{user!r} received {update.op.value} after an answer of {highest.op.value}"
            yield Finding("stale-update", sentence, (str(highest), str(update)))
            return


def _final(user: str, done: list[Update], unsure: list[Update], final: int | None) -> Iterator[Finding]:
    total = sum(update.amount for update in done)
    slack = sum(update.amount for update in unsure)
    read = final or 0
    if read < total:
        last = sorted(done, key=lambda update: update.op.value if _ended(update) else 0)[-3:]
        sentence = f"the final number of {user!r} is {final}, {total - read} less than {len(done)} updates add up to"
        yield Finding("lost-update", sentence, tuple(map(str, last)))
    elif read > total + slack:
        sentence = f"the final number of {user!r} is {final}, {read - total} more than was added"
        yield Finding("phantom-update", sentence, tuple(str(update) for update in done[-3:]) or (f"read {final}",))
