"""Judges whether leaving users are closed exactly once, and staying users neither delayed nor touched."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from lab_utils.values.history import History, OpType
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["Left", "closed_once", "undelayed"]


def undelayed(history: History, waiting: Collection[str], held_from: int, released_at: int) -> Verdict:
    """Judge that nobody waited for the operations of the users in `waiting`, whose cleanups were held from position
    `held_from` to position `released_at` in the order of invocations and completions.

    An operation of anybody else that was invoked in that time must have completed in it. By order alone: how long
    anything took does not matter.
    """
    findings: list[Finding] = []
    count = 0
    held = [op for op in history if op.user in waiting and op.invoked <= held_from and op.completed > released_at]
    if not held:
        return Verdict.unknown("no operation of the users with a held cleanup was under way all the time")
    for op in history:
        if op.user in waiting or not held_from < op.invoked < released_at:
            continue
        count += 1
        if op.completed > released_at:
            sentence = f"{op.user!r} had to wait until the cleanup of {held[0].user!r} was released"
            findings.append(Finding("delayed-by-neighbour", sentence, (f"held: {held[0]}", f"late: {op}")))
        elif op.type is OpType.INFO:
            sentence = f"an operation of {op.user!r} was given up while the cleanup of {held[0].user!r} was held"
            findings.append(Finding("delayed-by-neighbour", sentence, (f"held: {held[0]}", f"given up: {op}")))
    return Verdict.of(findings, count, f"operations of others completed while {len(held)} sessions could not end")


@dataclass(frozen=True, slots=True)
class Left:
    """The end of one session: how many agents it held, the target's report, and whether a cleanup of it `failed`, by
    raising or by being cut off."""

    user: str
    agents: int
    found: bool
    closed: int
    errors: tuple[str, ...]
    failed: bool


def closed_once(
    left: Iterable[Left],
    cleanups: Mapping[tuple[str, str], int] | None,
    agent_types: Iterable[str],
    stayed: Iterable[str],
) -> Verdict:
    """Judge that every agent of a departed user was closed exactly once, that the report agrees, and that no agent of
    a staying user was closed. `cleanups`: (user, agent type) -> how often its cleanup was called; None for agents that
    have no cleanups, of which the report alone tells."""
    findings: list[Finding] = []
    types = list(agent_types)
    count = 0
    for one in left:
        for agent_type in types:
            count += 1
            times = 1 if cleanups is None else cleanups.get((one.user, agent_type), 0)
            if times != 1:
                anomaly = "closed-twice" if times else "agent-not-closed"
                sentence = f"the cleanup of {agent_type} of {one.user!r} was called {times} times, not once"
                findings.append(Finding(anomaly, sentence, (str(one),)))
        if not one.found or one.closed != one.agents:
            sentence = f"the end of {one.user!r} reports {one.closed} agents closed of {one.agents}"
            findings.append(Finding("wrong-report", sentence, (str(one),)))
        if one.failed and not one.errors:
            sentence = f"a cleanup of {one.user!r} failed, and the end reports no error"
            findings.append(Finding("error-not-reported", sentence, (str(one),)))
        if one.errors and not one.failed:
            sentence = f"every cleanup of {one.user!r} went well, and the end reports errors"
            findings.append(Finding("error-of-others", sentence, (str(one),)))
    for user in stayed:
        for agent_type in types:
            count += 1
            if cleanups and (times := cleanups.get((user, agent_type), 0)):
                sentence = f"{user!r} stayed, and the cleanup of their {agent_type} was called {times} times"
                findings.append(Finding("neighbour-touched", sentence, (f"cleanup of {agent_type} of {user!r}",)))
    claim = "agents, each closed exactly once if its user left and not at all if not"
    return Verdict.of(findings, count, claim if cleanups is not None else "agents that the ends report as closed")
