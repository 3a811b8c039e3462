"""Findings of one cause are one group, the one that explains it first; none is lost."""

from __future__ import annotations

import pytest

from lab_utils.judges.anomalies import FOLLOWS, SENTENCES, severity
from lab_utils.judges.causes import Cause, causes, may_follow
from lab_utils.judges.identity import identified
from lab_utils.targets import PLANTED
from lab_utils.values.verdict import Finding
from tests.lab_utils.made import failed, op, result


def grouped(**of_checks: tuple[Finding, ...]) -> list[Cause]:
    every = identified(result(check, failed(*findings)) for check, findings in of_checks.items())
    made = causes(every)
    assert sorted(one.key for cause in made for one in cause.all) == sorted(one.key for one in every)
    return made


def one(anomaly: str, *witness: str, sentence: str = "s") -> Finding:
    return Finding(anomaly, sentence, witness or ("w",))


def test_every_planted_anomaly_has_a_sentence_for_people() -> None:
    planted = {anomaly for each in PLANTED.values() for anomaly in each.anomalies}
    named = planted | set(FOLLOWS) | {one for follow in FOLLOWS.values() for one in follow}
    assert named <= set(SENTENCES)
    assert all(text[0].isupper() and text.endswith(".") and len(text) <= 90 for text in SENTENCES.values())


def test_what_follows_is_below_what_it_follows_from_in_the_same_check_only() -> None:
    followers = (one("never-closed"), one("wrong-count"), one("never-closed"))
    first, second = grouped(a=(*followers, one("double-activation")), b=(one("never-closed"),))
    assert (first.anomaly, first.consequences) == ("double-activation", (("never-closed", 2), ("wrong-count", 1)))
    assert (second.anomaly, second.checks) == ("never-closed", ("b",))
    assert may_follow(second, first)
    assert not may_follow(first, second)


def test_what_follows_from_a_follower_is_of_the_first_cause() -> None:
    (cause,) = grouped(a=(one("budget-exceeded"), one("memory-growth"), one("never-closed"), one("double-activation")))
    assert (cause.anomaly, len(cause.followers)) == ("double-activation", 3)


def test_one_anomaly_in_two_checks_is_one_cause_unless_both_name_calls_and_these_differ() -> None:
    def about(action: str) -> Finding:
        return one("wrong-answer", str(op(1, action=action)))

    every = identified(
        result(check, failed(about(action) if action else one("wrong-answer")), operations=(op(1, action=action),))
        for check, action in (("a", "remove"), ("b", "remove"), ("c", "end"), ("d", ""))
    )
    assert [cause.checks for cause in causes(every)] == [("a", "b", "d"), ("c",)]
    assert [set(cause.checks) for cause in causes([every[3], every[0]])] == [{"a", "d"}]


def test_the_finding_that_can_be_replayed_explains_the_cause() -> None:
    long, short = one("race", "1", "2", "3"), one("race", "1")
    replayed = one("race", "1", "2", "3", "4", "replay: registry-lab replay rl2~...")
    (cause,) = grouped(a=(long, short, replayed))
    assert [len(each.finding.witness) for each in cause.findings] == [5, 1, 3]


def test_names_that_need_no_escape_are_shown_first() -> None:
    odd, plain = one("race", "1", sentence=r"'acm\u0435' lost it"), one("race", "1", "2", sentence="'acme' lost it")
    (cause,) = grouped(a=(odd, plain))
    assert cause.first.finding == plain


def test_each_finding_that_is_shown_says_something_new() -> None:
    ops = (op(1, "ada"), op(2, "bo", action="end"), op(3, "cyd"))
    lines = [*[str(ops[0])] * 3, str(ops[1]), str(ops[0]), str(ops[2])]
    verdict = failed(*(one("wrong-answer", line) for line in lines))
    cause, of_the_end = causes(identified([result("a", verdict, operations=ops)]))
    assert [each.users for each in cause.telling(3)] == [("ada",), ("cyd",), ("ada",)]
    assert {each.key for each in cause.telling(99)} == {each.key for each in cause.findings}
    assert [each.users for each in of_the_end.telling(3)] == [("bo",)]


def test_the_most_serious_cause_comes_first_and_an_unknown_anomaly_speaks_for_itself() -> None:
    made = grouped(a=(one("of-my-own", sentence="what I found"), one("memory-growth"), one("foreign-rows")))
    assert [cause.anomaly for cause in made] == ["foreign-rows", "memory-growth", "of-my-own"]
    assert made[2].sentence == "what I found."
    assert severity("of-my-own") > severity("memory-growth")


def test_the_effect_of_a_cause_is_the_worst_that_follows_from_it() -> None:
    shared, alone = grouped(a=(one("shared-object"), one("cross-user-data")), b=(one("memory-growth"),))
    assert (shared.anomaly, shared.effect) == ("shared-object", SENTENCES["cross-user-data"])
    assert alone.effect == alone.sentence == SENTENCES["memory-growth"]


def test_who_is_affected_is_counted_over_all_findings() -> None:
    ops = (op(1, "ada"), op(2, "bo"))
    verdict = failed(
        one("wrong-answer", str(ops[0])), one("wrong-answer", str(ops[1])), one("wrong-answer", str(ops[1]))
    )
    (cause,) = causes(identified([result("a", verdict, operations=ops)]))
    assert (cause.users, cause.affected) == (("ada", "bo"), "2 users affected; 3 findings in 1 check.")


@pytest.mark.parametrize(
    ("sentence", "heading"),
    [
        ("a customer was billed twice", "A customer was billed twice."),
        ("bo read what ada wrote", "bo read what ada wrote."),
        ("'a' was billed twice!", "'a' was billed twice!"),
    ],
)
def test_a_sentence_of_somebody_s_own_is_a_heading_that_alters_no_name(sentence: str, heading: str) -> None:
    (made,) = grouped(a=(one("of-my-own", sentence=sentence),))
    assert made.sentence == heading
