"""Judges whether lookups find the user's newest agent, of the type and in the thread that was asked for."""

from __future__ import annotations

from collections import defaultdict

from lab_utils.values.history import History, Op, OpType
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["lookups_find_newest"]

_CHANGES = ("create", "get_or_create", "remove", "reset", "end")


def lookups_find_newest(history: History) -> Verdict:
    """Judge every successful `get` by the changes of the same user that had completed before it was invoked.

    A lookup that overlaps a change of its own user, or comes after one with an unknown outcome, is not judged.
    """
    changes: dict[str, list[Op]] = defaultdict(list)
    owners: dict[str, Op] = {}
    for op in history:
        if op.action in _CHANGES and op.type is not OpType.FAIL:
            changes[op.user].append(op)
            if op.action in ("create", "get_or_create") and op.type is OpType.OK:
                owners.setdefault(str(op.value), op)
    findings, judged = [], 0
    for get in history.where(action="get", type=OpType.OK):
        earlier = [op for op in changes[get.user] if op.invoked < get.completed]
        if any(op.type is OpType.INFO or op.completed > get.invoked for op in earlier):
            continue
        judged += 1
        finding = _judge(get, _live(earlier), owners)
        if finding is not None:
            findings.append(finding)
    return Verdict.of(findings, judged, "lookups, each answered with the newest agent of its type and thread")


def _live(changes: list[Op]) -> list[Op]:
    """The operations whose agents are live after the changes, oldest first."""
    live: list[Op] = []
    for op in sorted(changes, key=lambda op: op.completed):
        if op.action in ("reset", "end"):
            live.clear()
        elif op.action == "remove":
            places = [place for place, made in enumerate(live) if made.agent_type == op.agent_type]
            if places and op.value:
                del live[places[-1]]
        elif all(made.value != op.value for made in live):
            live.append(op)
    return live


def _judge(get: Op, live: list[Op], owners: dict[str, Op]) -> Finding | None:
    fitting = [op for op in live if op.agent_type == get.agent_type and get.thread in ("", op.thread)]
    expected = fitting[-1] if fitting else None
    if get.value == (None if expected is None else expected.value):
        return None
    asked = f"{get.user}/{get.agent_type}" + (f" in thread {get.thread!r}" if get.thread else " in any thread")
    if get.value is None:
        assert expected is not None
        return Finding("lost-agent", f"{asked} was not found although it is there", (str(expected), str(get)))
    maker = owners.get(str(get.value))
    if maker is None:
        return Finding("phantom-agent", f"{asked} returned {get.value}, which nobody made", (str(get),))
    if maker.user != get.user:
        anomaly = "cross-user-answer"
    elif maker not in live:
        anomaly = "closed-agent-found"
    elif maker.agent_type != get.agent_type:
        anomaly = "wrong-type"
    elif get.thread and maker.thread != get.thread:
        anomaly = "wrong-thread"
    else:
        anomaly = "stale-agent"
    right = "none" if expected is None else f"{expected.value} (op {expected.index})"
    sentence = f"{asked} returned {get.value}, made by op {maker.index}; the right answer is {right}"
    witness = (maker, get) if expected is None else (*sorted((maker, expected), key=lambda op: op.index), get)
    return Finding(anomaly, sentence, tuple(map(str, witness)))
