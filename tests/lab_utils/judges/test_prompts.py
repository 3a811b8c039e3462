"""The judge of prompts: passes, findings, and verdicts of unknown."""

from __future__ import annotations

import pytest

from lab_utils.judges.prompts import Sent, own_prompts
from lab_utils.values.canaries import cookie_of
from lab_utils.values.verdict import Outcome, Verdict
from lab_utils.values.workload import canary, hostile_pairs

USERS = ("ada", "bob")


def sent(number: int, user: str, *canaries: str) -> Sent:
    return Sent(number, user, f"Word this: {' and '.join(canaries) or 'nothing'}.")


def test_prompts_with_their_senders_data_alone_pass() -> None:
    prompts = [sent(1, "ada", canary("ada", "x", 1)), sent(2, "bob", canary("bob", "x", 1)), sent(3, "ada")]
    verdict = own_prompts(prompts, USERS)
    assert verdict == Verdict.passed(
        "2 prompts of 2 users hold canaries of their senders and of nobody else (1 held none)"
    )


def test_a_prompt_with_anothers_data_is_named_with_both_users() -> None:
    prompts = [sent(1, "ada", canary("ada", "x", 1)), sent(2, "bob", canary("bob", "x", 1), canary("ada", "x", 1))]
    verdict = own_prompts(prompts, USERS)
    assert verdict.outcome is Outcome.FAIL
    (finding,) = verdict.findings
    assert finding.anomaly == "cross-user-prompt"
    assert finding.sentence == "a prompt of 'bob' sent the model data of 'ada'"
    assert finding.witness == ("prompt 2, from 'bob': ...Word this: canary<bob|x|1> and canary<ada|x|1>....",)


def test_nobodys_prompt_may_hold_nobodys_data() -> None:
    prompts = [
        *(sent(n, user, canary(user, "x", 1)) for n, user in enumerate(USERS)),
        sent(9, "", "x" * 5_000, canary("ada", "x", 2), "x" * 5_000),
    ]
    (finding,) = own_prompts(prompts, USERS).findings
    assert finding.sentence == "a prompt of nobody named sent the model data of 'ada'"
    # Of a long prompt the place is shown.
    assert canary("ada", "x", 2) in finding.witness[0]
    assert len(finding.witness[0]) < 400


@pytest.mark.parametrize(
    "prompts",
    [
        [],
        [sent(1, "ada"), sent(2, "bob")],
        [sent(1, "ada", canary("ada", "x", 1)), sent(2, "bob")],
        [sent(1, "ada", canary("ada", "x", 1))],
    ],
)
def test_where_a_leak_could_not_have_been_seen_the_verdict_is_unknown(prompts: list[Sent]) -> None:
    assert own_prompts(prompts, USERS).outcome is own_prompts(prompts, ()).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(("one", "other"), hostile_pairs())
def test_users_that_read_alike_are_told_apart(one: str, other: str) -> None:
    fine = [sent(1, one, canary(one, "x", 1)), sent(2, other, canary(other, "x", 1))]
    assert own_prompts(fine, (one, other)).outcome is Outcome.PASS
    swapped = [sent(1, one, canary(other, "x", 1)), sent(2, other, canary(one, "x", 1))]
    assert len(own_prompts(swapped, (one, other)).findings) == 2


def test_the_cookie_of_another_is_found_once_for_each_two_users_and_ones_own_may_come_back() -> None:
    ada, bob = (f"{canary(user, 'question', 0)} session={cookie_of('ada')}" for user in USERS)
    prompts = [Sent(1, "ada", ada), Sent(2, "bob", bob), Sent(3, "bob", bob)]
    (finding,) = own_prompts(prompts, ["ada", "bob"]).findings
    assert finding.anomaly == "foreign-cookie"
    assert "'bob'" in finding.sentence
    assert "'ada'" in finding.sentence
