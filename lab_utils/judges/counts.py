"""Judges the counts that a target reports, and its closings, against its earlier answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from lab_utils.values.history import History, Op, OpType
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["Reading", "answers_follow", "closed_once", "population_follows", "refused_after_close"]


@dataclass(frozen=True, slots=True)
class Reading:
    """The counts that a target reported, at a position between the operations of a history."""

    position: int
    sessions: int
    agents: int


@dataclass(slots=True)
class _Books:
    """The sessions and agents that a target must hold after the operations so far: user -> (type, instance), oldest
    first.

    `ends_with_last`: whether a session ends with its last agent, None until a count shows it. Either is right, and must
    stay so.
    """

    held: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    ends_with_last: bool | None = None

    def enter(self, op: Op) -> str:
        """Book an operation; return the fault of its answer, or ""."""
        if op.type is not OpType.OK:
            return ""
        mine = self.held.get(op.user, [])
        match op.action:
            case "create" | "get_or_create":
                if op.value not in [instance for _, instance in mine]:
                    self.held.setdefault(op.user, []).append((op.agent_type, str(op.value)))
            case "remove":
                places = [place for place, (agent_type, _) in enumerate(mine) if agent_type == op.agent_type]
                if places:
                    del mine[places[-1]]
                return _unless(op.value is bool(places), f"there {'was one' if places else 'was none'} to remove")
            case "reset":
                expected = len(mine)
                mine.clear()
                return _unless(op.value == expected, f"{expected} agents were there to reset")
            case "end":
                found = bool(mine) or (op.user in self.held and not self.ends_with_last)
                expected = len(self.held.pop(op.user, []))
                right = (bool(_get(op.value, "found")), _get(op.value, "closed")) == (found, expected)
                return _unless(right, f"the session {'held' if found else 'was not there; it held'} {expected} agents")
        return ""

    def totals(self, counted: int) -> tuple[int, int]:
        """Sessions and agents. `counted`: the sessions that the target counts, less those counted wrongly before."""
        every, filled = len(self.held), sum(map(bool, self.held.values()))
        if self.ends_with_last is None and every != filled and counted in (every, filled):
            self.ends_with_last = counted == filled
        return filled if self.ends_with_last else every, sum(map(len, self.held.values()))


def population_follows(history: History, readings: Iterable[Reading]) -> Verdict:
    """Judge that after every operation the target held exactly the agents that its answers so far imply.

    The operations must come one after another; UNKNOWN if two overlap or one has no known outcome. A difference is
    reported where it arises, once, and the answers of `remove`, `reset` and `end` are judged by the same books. A
    session ends with its last agent or stays, as the target has it.
    """
    ops = _in_order(history)
    if isinstance(ops, Verdict):
        return ops
    books, findings, done = _Books(), [], 0
    drift, count = (0, 0), 0
    for reading in sorted(readings, key=lambda reading: reading.position):
        since: list[Op] = []
        while done < len(ops) and ops[done].completed < reading.position:
            op = ops[done]
            done += 1
            since.append(op)
            findings += _entered(books, op)
        expected = books.totals(reading.sessions - drift[0])
        now = (reading.sessions - expected[0], reading.agents - expected[1])
        count += 1
        if now != drift:
            last = since[-1] if since else None
            sentence = (
                f"the target says it holds {reading.sessions} sessions and {reading.agents} agents; "
                f"its answers imply {expected[0]} and {expected[1]}"
            )
            findings.append(Finding(_name_of(last, now, drift), sentence, tuple(map(str, since)) or (sentence,)))
            drift = now
    return Verdict.of(findings, count, "counts compared, each exact")


def answers_follow(history: History) -> Verdict:
    """Judge that the answers of `remove`, `reset` and `end` follow from what came before, where nothing is counted.

    UNKNOWN if two operations overlap or one has no known outcome.
    """
    ops = _in_order(history)
    if isinstance(ops, Verdict):
        return ops
    books = _Books()
    findings = [finding for op in ops for finding in _entered(books, op)]
    closings = sum(op.action in ("remove", "reset", "end") and op.type is OpType.OK for op in ops)
    return Verdict.of(findings, closings, "answers of removals, resets and ends, each exact")


def _in_order(history: History) -> list[Op] | Verdict:
    ops = sorted(history, key=lambda op: op.completed)
    for before, after in pairwise(ops):
        if after.invoked < before.completed:
            return Verdict.unknown(
                f"operations overlap, so exact counts are not known between them: {before} / {after}"
            )
    if unknown := next((op for op in ops if op.type is OpType.INFO), None):
        return Verdict.unknown(f"its effect is unknown: {unknown}")
    return ops


def _entered(books: _Books, op: Op) -> list[Finding]:
    wrong = books.enter(op)
    return [Finding("wrong-answer", f"{op.action} answered {op.value!r}, but {wrong}", (str(op),))] if wrong else []


def _name_of(op: Op | None, now: tuple[int, int], drift: tuple[int, int]) -> str:
    grew = now[0] > drift[0] or now[1] > drift[1]
    if op is not None and grew and op.action == "get":
        return "lookup-created"
    if op is not None and grew and op.type is OpType.FAIL:
        return "left-behind"
    return "wrong-count"


def closed_once(made: Mapping[str, int], closed: Mapping[str, int], when: str) -> Verdict:
    """Judge that for each name as many were closed as were made. `when`: the time by which."""
    findings = []
    for name in sorted({*made, *closed}):
        had, got = made.get(name, 0), closed.get(name, 0)
        if got == had:
            continue
        anomaly = "closed-twice" if got > had else "never-closed"
        sentence = f"{name}: {had} agents were to be closed {when}, and cleanup was called {got} times"
        findings.append(Finding(anomaly, sentence, (f"to be closed: {had}", f"cleanups: {got}")))
    return Verdict.of(findings, sum(made.values()), f"agents closed, each exactly once, {when}")


def refused_after_close(attempts: Sequence[tuple[str, str]]) -> Verdict:
    """Judge attempts to use closed objects: (the attempt, "closed" if it was refused as such)."""
    findings = []
    for what, answer in attempts:
        if answer != "closed":
            anomaly = "use-after-close" if answer.startswith("answered") else "wrong-refusal"
            findings.append(Finding(anomaly, f"{what} was not refused as closed", (f"{what}: {answer}",)))
    return Verdict.of(findings, len(attempts), "uses after the close, all refused")


def _unless(right: bool, what: str) -> str:
    return "" if right else what


def _get(value: Any, name: str) -> Any:
    return getattr(value, name, None)
