"""The model of a check's agents, its faults, and the judgement of the checks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from lab_utils.checks.golden_path import whole_flow
from lab_utils.checks.golden_path.model_trouble import Trouble, answered_in_the_end, judge_unlucky
from lab_utils.runner import run_check
from lab_utils.standin import Asked, Fault, Misbehaviour
from lab_utils.target import Capability, Delivered, NotSupported, Recipe, Row, SupervisionReport, Target
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Trial
from lab_utils.values.profiles import Value
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome, Verdict
from lab_utils.values.workload import canary, rows_for
from tests.running import run

FLOW = ("triage", "data_helper", "optimization", "goals_triage", "actions", "reporting")
WHOLE_FLOW = "complete_agent_orchestration_flow_per_user"


# ------------------------------------------------------------------------------------------- which model is asked


class Noting(AgentRegistryTarget):
    """Notes the calls, in order, and starts no server."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def choose_model(self, over: str, plan: Any = None) -> str:
        self.calls.append((over, plan))
        super().choose_model("scripted")
        return over

    async def start(self, recipes: Sequence[Recipe], rows: Mapping[str, Sequence[Row]], close_timeout: float) -> None:
        self.calls.append("start")
        await super().start(recipes, rows, close_timeout)

    def prompts(self) -> Sequence[Any]:
        return [Asked(1, "ada", 0, True, ()), Asked(2, "ada", 0, True, ())]


def opened(
    make: Callable[[], Target], parameters: Mapping[str, Any], **options: Any
) -> tuple[Any, bool, tuple[str, ...]]:
    """A target that a trial opened, whether it is asked over HTTP, and the notes about the model."""

    async def scenario() -> tuple[Target, bool, tuple[str, ...]]:
        trial = Trial(make, parameters, 1)
        target = await trial.target(**options)
        over_http = trial.asks_over_http(target)
        await trial.stop_all()
        return target, over_http, tuple(note for note in trial.notes if "odel" in note)

    return run(scenario)


def test_the_parameter_chooses_the_model_before_the_target_starts() -> None:
    def plan(_: Asked) -> None: ...

    target, over_http, notes = opened(Noting, {"llm": "http"}, llm_plan=plan)
    assert target.calls == [("http", plan), "start"]
    assert over_http
    assert notes == ("Model over HTTP, the lab's stand-in: 2 prompts crossed it.",)
    target, over_http, notes = opened(Noting, {"llm": "scripted"})
    assert target.calls == [("scripted", None), "start"]
    assert not over_http
    assert notes == ("Model scripted: no prompt crossed HTTP.",)


def test_a_check_may_choose_another_model_than_the_parameter() -> None:
    target, over_http, _ = opened(Noting, {"llm": "http"}, llm="scripted")
    assert target.calls == [("scripted", None), "start"]
    assert not over_http


def test_without_the_parameter_nothing_is_chosen_or_noted() -> None:
    target, over_http, notes = opened(Noting, {"users": 3})
    assert (target.calls, over_http, notes) == (["start"], False, ())


def test_a_target_without_a_model_is_left_alone_and_the_result_says_so() -> None:
    _, over_http, notes = opened(ReferenceTarget, {"llm": "http"})
    assert not over_http
    assert notes == ("Model scripted: the target has no endpoint to ask.",)
    target = ReferenceTarget()
    assert Capability.MODEL not in target.capabilities
    with pytest.raises(NotSupported):
        target.choose_model("http")
    with pytest.raises(NotSupported):
        target.prompts()


def test_our_target_answers_with_what_it_will_ask_and_knows_two_models() -> None:
    target = AgentRegistryTarget()
    assert [target.choose_model(over) for over in ("http", "scripted")] == ["http", "scripted"]
    assert target.prompts() == ()
    with pytest.raises(ValueError, match="'https' is unknown; choose scripted or http"):
        target.choose_model("https")


# ---------------------------------------------------------------------------------------------- failures


def asked(user: str, text: str, attempt: int = 0, fault: Fault | None = None, number: int = 1) -> Asked:
    return Asked(number, user, attempt, True, (("user", text),), fault)


def fault_of(told: Misbehaviour | None) -> Fault | None:
    return None if told is None else told.fault


def test_a_users_first_request_is_refused_and_some_answers_break_off_once() -> None:
    users = ["a", "b", "c", "d", "e"]
    plan = Trouble(1, users, "z")
    assert [fault_of(plan(asked(user, "hello"))) for user in users] == [Fault.RATE_LIMITED] * 5
    assert plan.broken == {"b": "cut_off", "c": "malformed", "d": "unfinished"}
    # A question with data of the user does not break off: it is asked once only.
    assert fault_of(plan(asked("b", canary("b", "x", 1), attempt=1))) is None
    broken = [fault_of(plan(asked(user, "figures", attempt=1))) for user in users]
    assert broken == [None, Fault.CUT_OFF, Fault.MALFORMED, Fault.UNFINISHED, None]
    assert [fault_of(plan(asked(user, "figures", attempt=1))) for user in users] == [None] * 5


def test_a_share_of_the_other_requests_fails_once_and_the_unlucky_users_always() -> None:
    plan = Trouble(1, ["a"], "z")
    plan(asked("a", "first"))
    drawn = [fault_of(plan(asked("a", f"question {number}"))) for number in range(200)]
    assert {*drawn} == {None, Fault.RATE_LIMITED, Fault.SERVER_ERROR, Fault.SLOW}
    assert 60 < sum(fault is not None for fault in drawn) < 100
    again = Trouble(1, ["a"], "z")
    again(asked("a", "first"))
    assert [fault_of(again(asked("a", f"question {number}"))) for number in range(200)] == drawn
    assert all(plan(asked("a", f"question {number}", attempt=1)) is None for number in range(200))
    unlucky = [fault_of(plan(asked("z", f"question {number}", attempt=number))) for number in range(5)]
    assert unlucky == [Fault.SERVER_ERROR] * 5


def test_what_went_wrong_must_be_answered_in_the_end() -> None:
    refused, broken, slow = (asked("a", "q", fault=f) for f in (Fault.SERVER_ERROR, Fault.CUT_OFF, Fault.SLOW))
    fine = asked("a", "q", attempt=1, number=2)
    doomed = asked("z", "q", fault=Fault.SERVER_ERROR)
    passed = Verdict.passed("2 requests refused, delayed or broken off, each answered in the end")
    assert answered_in_the_end([refused, broken, fine, doomed], "z") == passed
    assert answered_in_the_end([slow], "z").outcome is Outcome.PASS
    assert answered_in_the_end([fine, doomed], "z").outcome is Outcome.UNKNOWN
    for last in (refused, broken):
        (finding,) = answered_in_the_end([fine, last, asked("b", "q"), asked("a", "other")], "z").findings
        assert finding.anomaly == "not-asked-again"
        assert finding.witness[-1] == f"prompt 1 from 'a': {last.fault}"


def statuses(*given: str) -> dict[str, str]:
    return dict(zip(FLOW, given, strict=True))


DESIGNED = statuses("completed", "failed", *["skipped"] * 4)
ERROR = "step 'data_helper' (data_helper) failed: LLMFailed: it answered 500"
TOLD = Delivered("z", 2, "agent_error", "data_helper", "r", '{"error": "LLMFailed", "message": "it answered 500"}')


@pytest.mark.parametrize(
    ("report", "events", "anomalies"),
    [
        (SupervisionReport(DESIGNED, {}, ERROR), [TOLD], []),
        (None, [TOLD], ["failed-operation"]),
        (SupervisionReport(statuses(*["completed"] * 6), {}), [TOLD], ["failure-hidden"]),
        (SupervisionReport(DESIGNED | {"actions": "completed"}, {}, ERROR), [TOLD], ["wrong-status"]),
        (SupervisionReport(DESIGNED | {"reporting": "failed"}, {}, ERROR), [TOLD], ["wrong-status", "error-lost"]),
        (SupervisionReport(DESIGNED | {"triage": "skipped"}, {}, ERROR), [TOLD], ["wrong-status"]),
        (SupervisionReport(DESIGNED | {"actions": "cancelled"}, {}, ERROR), [TOLD], []),
        (SupervisionReport(DESIGNED, {}, "something failed: 500"), [TOLD], ["error-lost"]),
        (SupervisionReport(DESIGNED, {}, "step 'data_helper' failed"), [TOLD], ["error-lost"]),
        (SupervisionReport(DESIGNED, {}, ERROR), [], ["error-lost"]),
        (SupervisionReport(DESIGNED, {}, ERROR), [TOLD, TOLD], ["error-lost"]),
        (SupervisionReport(DESIGNED, {}, ERROR), [Delivered("z", 2, "agent_error", "data_helper", "r", "{}")],
         ["error-lost"]),
        (SupervisionReport(DESIGNED, {}, ERROR), [Delivered("z", 2, "agent_error", "triage", "r", TOLD.body)],
         ["error-lost"]),
        (SupervisionReport(DESIGNED, {}, ERROR), [TOLD, Delivered("z", 1, "agent_error", "clerk", "r", "{}")], []),
    ],
)  # fmt: skip
def test_the_unlucky_users_flow_fails_as_designed_and_says_why(
    report: SupervisionReport | None, events: list[Delivered], anomalies: list[str]
) -> None:
    trial = Trial(ReferenceTarget, {}, 1)
    judge_unlucky(trial, "z", FLOW, report, events)
    assert [finding.anomaly for verdict in trial.verdicts for finding in verdict.findings] == anomalies
    assert bool(trial.expectations) or bool(anomalies)


def ended(seq: int, agent: str, kind: str = "agent_completed") -> Delivered:
    return Delivered("ada", seq, kind, agent, "r", "{}")


def test_of_a_flow_that_was_asked_for_again_every_end_is_due_and_the_last_order_counts() -> None:
    user = whole_flow._User("ada", (), "a report", None, frozenset())
    user.answers = [
        SupervisionReport(statuses("completed", "failed", *["skipped"] * 4), {}),
        SupervisionReport(statuses(*["completed"] * 6), {}),
    ]
    user.words = ["one", RuntimeError()]
    assert user.ends_due == 2 + 6 + 2
    first = [ended(1, "triage"), ended(2, "data_helper", "agent_error"), ended(3, "clerk", "agent_error")]
    for again, anomalies in ((FLOW, []), (FLOW[1:], ["event-order"]), (tuple(reversed(FLOW)), ["event-order"])):
        trial = Trial(ReferenceTarget, {}, 1)
        user.events = [*first, *(ended(seq, agent) for seq, agent in enumerate(again, 4))]
        whole_flow._judge_events(trial, user)
        assert [finding.anomaly for verdict in trial.verdicts for finding in verdict.findings] == anomalies


# ------------------------------------------------------------------------------------------ in our own registry


async def test_a_model_that_fails_for_ever_for_one_user_ends_in_agent_error_and_touches_nobody_else() -> None:
    rows = {user: rows_for(user, 20, random.Random(7)) for user in ("ada", "bob")}

    async def scenario() -> tuple[list[SupervisionReport], dict[str, Sequence[Delivered]], Sequence[Any]]:
        target = AgentRegistryTarget()
        target.choose_model("http", lambda one: Misbehaviour(Fault.SERVER_ERROR, "0") if one.user == "bob" else None)
        await target.start((), rows, 5.0)
        try:
            clients = {user: target.subscribe(user) for user in rows}
            reports = await asyncio.gather(*(target.orchestrate(user, "a report") for user in rows))
            return reports, {user: client.received() for user, client in clients.items()}, target.prompts()
        finally:
            await target.stop()

    (ada, bob), events, prompts = await scenario()
    assert set(ada.statuses.values()) == {"completed"}
    assert dict(bob.statuses) == statuses("failed", *["skipped"] * 5)
    assert "LLMFailed" in bob.error
    assert "it answered 500: set to answer 500 (try 3 of 3)" in bob.error
    (told,) = [event for event in events["bob"] if event.type == "agent_error"]
    assert (told.agent, "it answered 500" in told.body) == ("triage", True)
    assert [event.type for event in events["bob"]][-1] == "agent_error"
    assert not [event for event in events["ada"] if event.type == "agent_error"]
    assert [one.user for one in prompts].count("bob") == 3


def flow_over_http(users: int) -> CheckResult:
    parameters: dict[str, Value] = {"users": users, "records_per_user": 12, "llm": "http", "transport": "inprocess"}
    return run_check(WHOLE_FLOW, parameters=parameters)


def test_the_whole_flow_over_http_passes_on_our_registry() -> None:
    result = flow_over_http(4)
    assert result.outcome is Outcome.PASS, f"{result.verdict.findings}\n{result.traceback}"
    assert "prompts of 5 users hold canaries of their senders and of nobody else" in result.verdict.reason
    assert "each answered in the end" in result.verdict.reason
    measured = {one.metric: one.value for one in result.measurements}
    assert measured["users at once"] == 4
    # Six agents and three questions of each user, and the unlucky one's two questions and a step, three times each.
    plain = measured["prompts over HTTP"] - measured["prompts gone wrong"]
    assert plain >= 4 * 9 - 4
    assert measured["prompts gone wrong"] >= 4 + 3 + 9
    # The second run, to compare with, is the scripted model's.
    crossed = f"Model over HTTP, the lab's stand-in: {measured['prompts over HTTP']:g} prompts crossed it."
    assert crossed in result.notes


def test_with_the_least_users_there_is_still_something_of_everything() -> None:
    result = flow_over_http(2)
    assert result.outcome is Outcome.PASS, f"{result.verdict.findings}\n{result.traceback}"


def test_customers_are_protected_where_the_model_is_told_over_http() -> None:
    parameters: dict[str, Value] = {"users": 6, "records_per_user": 5, "llm": "http", "transport": "inprocess"}
    result = run_check("enterprise_customer_data_protection", parameters=parameters)
    assert result.outcome is Outcome.PASS, f"{result.verdict.findings}\n{result.traceback}"
    assert "6 prompts of 6 users hold canaries of their senders and of nobody else" in result.verdict.reason
    shared = run_check(
        "enterprise_customer_data_protection",
        target="PromptHistoryShared",
        parameters=parameters,
        stop_at=frozenset({"cross-user-prompt"}),
    )
    assert "cross-user-prompt" in {finding.anomaly for finding in shared.verdict.findings}
