"""The body of complete_agent_orchestration_flow_per_user: many users at once, from the question to the report."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from lab_utils.checks.golden_path.model_trouble import Trouble, answered_in_the_end, judge_unlucky, patiently_over_http
from lab_utils.checks.golden_path.records import FlowRecords, flow_records
from lab_utils.judges.isolation import Seen, foreign_canaries
from lab_utils.judges.prompts import Sent, own_prompts
from lab_utils.target import Capability, Command, Delivered, Handle, Prompted, Recipe, Row, SupervisionReport, Target
from lab_utils.trial import ASKED, LAB, Trial
from lab_utils.usage.expected_figures import compare_report, judge_reports
from lab_utils.values.workload import canary

__all__ = ["body"]

_FLOW = ("triage", "data_helper", "optimization", "goals_triage", "actions", "reporting")
# A user's question, the day from which on it means records, and the goals that it puts in focus.
_REQUESTS: tuple[tuple[str, datetime | None, frozenset[str]], ...] = (
    ("Write me a report on our usage", None, frozenset()),
    ("Where can we save cost since 2026-03-01?", datetime(2026, 3, 1, tzinfo=UTC), frozenset({"reduce_cost"})),
    ("Why is it slow since 2026-07-15, and what tokens do we use?", datetime(2026, 7, 15, tzinfo=UTC),
     frozenset({"reduce_latency", "reduce_tokens"})),
)  # fmt: skip
_CLERK = Recipe("clerk")
_MOST_AT_ONCE = 200
"""Flows: in the middle of each the records are in memory several times."""


@dataclass(slots=True)
class _User:
    """One user of the flow: its rows and question, and everything it receives."""

    name: str
    rows: Sequence[Row]
    request: str
    since: datetime | None
    focus: frozenset[str]
    answers: list[SupervisionReport] = field(default_factory=list)
    words: list[Any] = field(default_factory=list)
    events: Sequence[Delivered] = ()

    @property
    def report(self) -> Mapping[str, Any] | None:
        """The report that the last flow ended in."""
        done = self.answers and self.answers[-1].statuses.get("reporting") == "completed"
        return self.answers[-1].outputs["reporting"] if done else None

    @property
    def ends_due(self) -> int:
        """How many runs of its agents have ended; each must reach its client as an event."""
        ended = [status for answer in self.answers for status in answer.statuses.values()]
        return sum(status in ("completed", "failed") for status in ended) + len(self.words)

    def own_words(self, number: int) -> str:
        """Its question to the model beside the flow, whose own prompts hold figures and no text. Every user's question
        begins alike, and then holds data that no other user may receive."""
        return f"Please put this note for the head of our department into words:\n- note: {self._note(number)}"

    def has_own_words(self) -> bool:
        """Whether each answer of the model quotes its question."""
        return all(isinstance(word, str) and self._note(number) in word for number, word in enumerate(self.words))

    def _note(self, number: int) -> str:
        return canary(self.name, "prompt", number)


async def body(trial: Trial) -> None:
    """Run the flow for all users at once, once more with the scripted model where it was another, and judge."""
    with flow_records(trial) as records:
        await _flow(trial, records)


async def _flow(trial: Trial, records: FlowRecords) -> None:
    *served, unlucky = _users(records)
    trouble = Trouble(trial.seed, [user.name for user in served], unlucky.name)
    target = await trial.target([_CLERK], {user.name: user.rows for user in (*served, unlucky)}, llm_plan=trouble)
    trouble.is_on = over_http = patiently_over_http(trial, target)
    present = [*served, unlucky] if over_http else served
    if len(present) > _MOST_AT_ONCE:
        trial.leave_out(f"that more than {_MOST_AT_ONCE} of the {len(present)} flows are under way at once")
    await _run(trial, target, present, served, trouble.broken if over_http else ())
    is_heard = Capability.EVENTS in target.capabilities
    if not is_heard:
        trial.leave_out(f"the events of the flow (the target lacks: {Capability.EVENTS})")
    _judge_served(trial, served, records, is_heard=is_heard)
    _judge_isolation(trial, present, records)
    if over_http:
        _judge_model(trial, target.prompts(), present, unlucky)
        await trial.stop(target)
        await _same_words(trial, served)
    trial.measure("events received", sum(len(user.events) for user in present), "events")


def _users(records: FlowRecords) -> list[_User]:
    """The users, and one more, who only takes part where the model can fail for it."""
    return [
        _User(name, rows, *_REQUESTS[index // 2 % len(_REQUESTS)])
        for index, (name, rows) in enumerate(records.rows.items())
    ]


async def _run(
    trial: Trial, target: Target, users: Sequence[_User], served: Sequence[_User], ask_again: Container[str] = ()
) -> None:
    """Let all users work at once, and wait until their clients have received the ends of the runs."""
    can_listen = Capability.EVENTS in target.capabilities
    clients = {user.name: await trial.connect(target, user.name) for user in users} if can_listen else {}

    def told(user: _User) -> int:
        return sum(event.type in ("agent_completed", "agent_error") for event in clients[user.name].received())

    works = {user.name: _Work(trial, target, user) for user in users}
    turns = asyncio.Semaphore(_MOST_AT_ONCE)

    async def flow(user: _User) -> None:
        async with turns:
            await works[user.name].flow(again=user.name in ask_again)

    first = await trial.waiting.together(map(flow, users))
    # Once more when all is over: data that a failure left behind goes out with the next prompt of any user.
    last = await trial.waiting.together(works[user.name].ask() for user in served)
    for answer in (*first, *last):
        if isinstance(answer, BaseException):
            trial.find("failed-operation", f"a user's work failed with {type(answer).__name__}", repr(answer))
    if not can_listen:
        return
    await trial.waiting.until(lambda: all(told(user) >= user.ends_due for user in users))
    for user in users:
        user.events = clients[user.name].received()
        sentence = f"{user.ends_due} runs of {user.name!r} have ended, and its client received the ends of {told(user)}"
        trial.require(told(user) >= user.ends_due, "lost-event", sentence, *user.events[-3:])


class _Work:
    """The work of one user: the flow, and before and after it a question to the model, where there is one."""

    def __init__(self, trial: Trial, target: Target, user: _User) -> None:
        self._target = target
        self._user = user
        self._client = trial.client(target, f"client of {user.name}", user.name)
        self._clerk: Handle | None = None

    async def flow(self, *, again: bool) -> None:
        """Ask for the report, and once more if it did not come and `again` says so."""
        if Capability.MODEL in self._target.capabilities:
            self._clerk = await self._client.create("clerk")
        await self.ask()
        for _ in range(1 + again):
            if self._user.report is None:
                work = self._target.orchestrate(self._user.name, self._user.request)
                self._user.answers.append(await self._client.call("orchestrate", work, "golden_path"))
        await self.ask()

    async def ask(self) -> None:
        """Have an agent of the lab ask the model; its error is kept as its answer."""
        if self._clerk is None:
            return
        text = self._user.own_words(len(self._user.words))
        try:
            self._user.words.append(await self._client.run(self._clerk, Command("ask", {"text": text})))
        except Exception as error:
            self._user.words.append(error)


def _judge_served(trial: Trial, users: Sequence[_User], records: FlowRecords, *, is_heard: bool) -> None:
    """Judge the reports, the model's answers and the events, if they are heard, of those who must be served."""
    reports = {user.name: user.report for user in users if user.report is not None}
    compared = []
    for user in users:
        if user.report is None:
            trial.find("failed-operation", f"the flow of {user.name!r} did not end in a report", user.answers[-1:])
        else:
            compared.append(compare_report(user.name, user.report, records.expected(user.name, user.since, user.focus)))
        sentence = f"the model's answers to {user.name!r} do not quote the questions"
        trial.require(user.has_own_words(), "wrong-answer", sentence, *map(repr, user.words))
        if is_heard:
            _judge_events(trial, user)
    trial.judge(judge_reports(compared))
    trial.measure("users at once", min(len(users), _MOST_AT_ONCE), "users")
    trial.measure("users served", len(users), "users")
    trial.measure("reports right", len(reports) / len(users), "share", ASKED(">", 0.95), LAB("==", 1.0))
    trial.measure("figures recomputed", sum(number for _, number in compared), "figures")


def _judge_events(trial: Trial, user: _User) -> None:
    foreign = [event for event in user.events if event.user != user.name]
    trial.require(not foreign, "cross-user-event", f"{user.name!r} received another user's events", *foreign[:3])
    numbers = [event.seq for event in user.events]
    in_order = numbers == list(range(1, len(numbers) + 1))
    trial.require(in_order, "event-order", f"the events of {user.name!r} are not numbered 1, 2, 3, ...", numbers[:50])
    done: list[str] = []
    for event in user.events:
        if event.agent in _FLOW and event.type == "agent_error":
            done.clear()  # If the user had to ask for the flow again, only the last one counts.
        elif event.agent in _FLOW and event.type == "agent_completed":
            done.append(event.agent)
    right = sorted(done) == sorted(_FLOW) and done[:2] == list(_FLOW[:2]) and done[4:] == list(_FLOW[4:])
    trial.require(right, "event-order", f"the agents of {user.name!r} did not complete in the flow's order", done)


def _judge_isolation(trial: Trial, users: Sequence[_User], records: FlowRecords) -> None:
    """Judge that nothing which anybody was given holds data of another."""
    seen = [
        Seen(user.name, place, value)
        for user in users
        for place, value in (
            ("its own flow", [answer.outputs for answer in user.answers]),
            ("the model's answers", user.words),
            ("its events", [event.body for event in user.events]),
        )
    ]
    written = records.canaries + sum(len(user.words) for user in users)
    if written:
        trial.judge(foreign_canaries(seen, [user.name for user in users], written))


def _judge_model(trial: Trial, prompts: Sequence[Prompted], users: Sequence[_User], unlucky: _User) -> None:
    """Judge the model's prompts, that its failures were passing for all but one, and that this one received an
    error."""
    trial.judge(own_prompts((Sent(one.number, one.user, one.whole) for one in prompts), [user.name for user in users]))
    trial.judge(answered_in_the_end(prompts, unlucky.name))
    judge_unlucky(trial, unlucky.name, _FLOW, unlucky.answers[-1] if unlucky.answers else None, unlucky.events)
    refused = all(isinstance(word, Exception) for word in unlucky.words)
    sentence = f"the model always fails for {unlucky.name!r}, who received an answer"
    trial.require(refused, "failure-hidden", sentence, *map(repr, unlucky.words))
    trial.measure("prompts over HTTP", len(prompts), "requests")
    trial.measure("prompts gone wrong", sum(one.fault is not None for one in prompts), "requests")


async def _same_words(trial: Trial, served: Sequence[_User]) -> None:
    """Judge that the scripted model, which never fails, gives the same reports, figures and words."""
    target = await trial.target([_CLERK], {user.name: user.rows for user in served}, llm="scripted")
    again = [_User(user.name, user.rows, user.request, user.since, user.focus) for user in served]
    await _run(trial, target, again, again)
    for user, scripted in zip(served, again, strict=True):
        pairs = [(user.answers[-1:], scripted.answers[-1:]), (user.words, scripted.words)]
        unlike = next(((one, other) for one, other in pairs if one != other), None)
        sentence = f"{user.name!r} received another report over HTTP than from the scripted model"
        trial.require(unlike is None, "differs-by-model", sentence, *_first_difference(unlike))


def _first_difference(unlike: tuple[Any, Any] | None) -> Sequence[str]:
    if unlike is None:
        return ()
    texts = [repr(side) for side in unlike]
    place = next((n for n, (one, other) in enumerate(zip(*texts, strict=False)) if one != other), 0)
    cut = slice(max(0, place - 60), place + 120)
    return f"over HTTP: ...{texts[0][cut]}", f"scripted: ...{texts[1][cut]}"
