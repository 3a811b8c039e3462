"""Judges activations that race: one agent for all concurrent callers, failures forgotten, and nobody cancelled by
others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from itertools import pairwise

from lab_utils.values.history import History, Op, OpType
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["failures_forgotten", "only_own_cancellations", "single_activation"]


def single_activation(history: History) -> Verdict:
    """Judge that each (user, type, thread) had one agent at a time, however many callers asked for it at once.

    Two answers may differ only if a successful `remove`, `reset` or `end` of that user could have come between them: it
    began before the later answer was there and ended after the earlier one was asked for.
    """
    answers: dict[tuple[str, str, str], list[Op]] = defaultdict(list)
    closings: dict[str, list[Op]] = defaultdict(list)
    for op in history:
        if op.type is OpType.OK and op.action == "get_or_create":
            answers[op.user, op.agent_type, op.thread].append(op)
        elif op.type is not OpType.FAIL and op.action in ("remove", "reset", "end"):
            closings[op.user].append(op)
    findings, count = [], 0
    for (user, agent_type, thread), ops in answers.items():
        ops.sort(key=lambda op: op.completed)
        for first, second in pairwise(ops):
            count += 1
            between = [op for op in closings[user] if op.invoked < second.completed and op.completed > first.invoked]
            if first.value != second.value and not between:
                sentence = f"{user}/{agent_type} in thread {thread!r} answered as {first.value} and as {second.value}"
                findings.append(Finding("double-activation", sentence, (str(first), str(second))))
    return Verdict.of(findings, count, "pairs of answers, each to one and the same agent")


def failures_forgotten(history: History) -> Verdict:
    """Judge that no later call gets the failure of an earlier one.

    Every failure that the lab plants has a text of its own. Callers that asked at once may share one; a caller that
    asked when the failure had been answered already must have caused a new attempt. UNKNOWN unless a planted failure
    is followed by a successful call for the same agent: otherwise nothing was shown.
    """
    first_seen: dict[tuple[str, str, str, str], Op] = {}
    pending: set[tuple[str, str, str]] = set()
    findings, recovered = [], 0
    for op in sorted(history, key=lambda op: op.completed):
        if op.action not in ("create", "get_or_create"):
            continue
        key = (op.user, op.agent_type, op.thread)
        if op.type is OpType.OK and key in pending:
            pending.discard(key)
            recovered += 1
        if op.error != "Planned":
            continue
        pending.add(key)
        first = first_seen.setdefault((*key, str(op.value)), op)
        if op.invoked > first.completed:
            sentence = f"op {op.index} received the failure that op {first.index} had received before"
            findings.append(Finding("cached-failure", sentence, (str(first), str(op))))
    return Verdict.of(findings, recovered, "activations failed and then succeeded")


def only_own_cancellations(history: History, cancelled: Collection[str]) -> Verdict:
    """Judge that no caller but the clients named in `cancelled` got a cancellation."""
    findings, count = [], 0
    for op in history:
        if op.client in cancelled:
            continue
        count += 1
        if op.error == "CancelledError":
            sentence = (
                f"{op.client} was cancelled, and nobody had cancelled it; others had been: {sorted(cancelled)[:3]}"
            )
            near = [other for other in history if other.client in cancelled and other.user == op.user]
            findings.append(Finding("cancelled-others", sentence, (*map(str, near[:3]), str(op))))
    exercised = count if any(op.client in cancelled for op in history) else 0
    return Verdict.of(findings, exercised, "operations beside cancelled ones, none cancelled with them")
