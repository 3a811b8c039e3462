"""The faults that a check makes in the model's endpoint, and its judgement of the outcome."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lab_utils.standin import Fault, Misbehaviour, seeded_faults
from lab_utils.target import Delivered, Prompted, SupervisionReport, Target
from lab_utils.trial import STUCK_AFTER, Trial
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["Trouble", "answered_in_the_end", "judge_unlucky", "patiently_over_http"]

_SHARE = 0.4
"""The share of the calls that are refused or delayed at their first try."""
_PASSING = ("rate_limited", "server_error", "slow")
_BROKEN = ("cut_off", "malformed", "unfinished")
CAUSE = "500"
"""The status that the unlucky user's calls are answered with, which an error must name."""


class Trouble:
    """A plan (`lab_utils.standin.Plan`): many calls go wrong once, one user's always.

    Every user's first request is refused with 429. Of all other calls a share is refused with 429 or 500, or answered
    slowly, at the first try. For each of `broken` users (one for each way to break off an answer) the first answer
    without a canary is broken off. For `unlucky` every call is answered with 500. Nothing goes wrong while not `is_on`.
    """

    def __init__(self, seed: int, users: Sequence[str], unlucky: str) -> None:
        self.seed = seed
        self.unlucky = unlucky
        self.is_on = True
        self.broken = dict(zip(users[1:], _BROKEN, strict=False))
        self._to_break = dict(self.broken)
        self._known: set[str] = set()

    def __call__(self, asked: Any) -> Any:
        if not self.is_on:
            return None
        if asked.user == self.unlucky:
            return Misbehaviour(Fault("server_error"), "0.001")
        if asked.user not in self._known:
            self._known.add(asked.user)
            return Misbehaviour(Fault("rate_limited"), "0.01")
        if asked.user in self._to_break and "canary<" not in asked.text:
            return Misbehaviour(Fault(self._to_break.pop(asked.user)))
        return seeded_faults(self.seed, _SHARE, tuple(map(Fault, _PASSING)))(asked)


def patiently_over_http(trial: Trial, target: Target) -> bool:
    """Whether the target's agents ask over HTTP. If so even a planted registry, which may hang by design, is given the
    time of a real one: many flows that wait for their answers are not stuck."""
    over_http = trial.asks_over_http(target)
    if over_http:
        trial.waiting.stuck_after = max(trial.waiting.stuck_after, STUCK_AFTER)
    return over_http


def answered_in_the_end(prompts: Sequence[Prompted], unlucky: str) -> Verdict:
    """Judge that whatever went wrong was asked again by the same user until it was answered; the unlucky one's cannot
    be. UNKNOWN if nothing went wrong."""
    tries: dict[tuple[str, str], list[Prompted]] = defaultdict(list)
    for prompt in prompts:
        if prompt.user != unlucky:
            tries[prompt.user, prompt.text].append(prompt)
    findings: list[Finding] = []
    for (user, _), each in tries.items():
        if each[-1].fault not in (None, "slow"):
            sentence = f"a prompt of {user!r} went wrong ({each[-1].fault}) and was not sent again"
            findings.append(Finding("not-asked-again", sentence, tuple(_shown(prompt) for prompt in each)))
    wrong = sum(prompt.fault is not None for each in tries.values() for prompt in each)
    return Verdict.of(findings, wrong, "requests refused, delayed or broken off, each answered in the end")


def judge_unlucky(
    trial: Trial, user: str, flow: Sequence[str], report: SupervisionReport | None, events: Sequence[Delivered]
) -> None:
    """Judge the flow of the user whose model always fails: one step failed, the plan's error and the step's
    `agent_error` explain it, no step after it ran, and nothing was made up in its place."""
    if report is None:
        return trial.find("failed-operation", f"the flow of {user!r} gave no account of its steps", "no report")
    statuses = [str(report.statuses.get(step)) for step in flow]
    failed = [step for step, status in zip(flow, statuses, strict=True) if status == "failed"]
    if not failed:
        sentence = f"every call of the model failed for {user!r}, and no step of the flow did"
        return trial.find("failure-hidden", sentence, dict(report.statuses))
    place = flow.index(failed[0])
    stopped = all(status in ("skipped", "cancelled") for status in statuses[place + 1 :])
    as_designed = statuses[:place] == ["completed"] * place and stopped
    sentence = f"step {failed[0]!r} of {user!r} failed; those before it must be completed, those after it not begun"
    trial.require(as_designed, "wrong-status", sentence, _in_order(flow, report.statuses))
    sentence = f"the error of the plan of {user!r} does not name the step and the answer {CAUSE}"
    trial.require(failed[0] in report.error and CAUSE in report.error, "error-lost", sentence, repr(report.error))
    told = [event for event in events if event.type == "agent_error" and event.agent in flow]
    explained = [event.agent for event in told] == failed and CAUSE in told[0].body
    sentence = f"{user!r} did not receive one agent_error that {failed[0]!r} failed, with the answer {CAUSE}"
    trial.require(explained, "error-lost", sentence, *told[:3])
    return None


def _shown(prompt: Prompted) -> str:
    return f"prompt {prompt.number} from {prompt.user!r}: {prompt.fault or 'answered'}"


def _in_order(flow: Sequence[str], statuses: Mapping[str, str]) -> str:
    return ", ".join(f"{step}: {statuses.get(step)}" for step in flow)
