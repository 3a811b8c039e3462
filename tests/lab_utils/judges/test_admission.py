"""Each attempt here is wrong in one way, which must be named, or right, and must pass."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lab_utils.judges.admission import Attempt, let_in_by_token
from lab_utils.target import Delivered
from lab_utils.values.verdict import Outcome


def event(user: str, body: str = "{}") -> Delivered:
    return Delivered(user, 1, "agent_thinking", "helper", "run-1", body, "s", "main", "a", "s")


CANARY = json.dumps({"thought": "canary<bob|thought|1>"})
TOKEN = "eyJzdWIiOiJhbm4ifQ.signature"
OWN = Attempt("a client that names another user", "ann", "bob", None, "token-not-bound", True, None, (event("ann"),))
REFUSED = Attempt("a client with an expired token", "", "bob", 4403, "token-not-bound", False, 4403, ())


@pytest.mark.parametrize(
    ("attempt", "anomaly"),
    [
        (replace(OWN, events=(event("ann"), event("bob"))), "token-not-bound"),
        (replace(OWN, anomaly="foreign-event", events=(event("bob"),)), "foreign-event"),
        (replace(OWN, events=(event("ann", body=CANARY),)), "token-not-bound"),
        (replace(REFUSED, greeted=True, code=None), "bad-token-accepted"),
        (replace(REFUSED, events=(event("bob"),)), "bad-token-accepted"),
        (replace(OWN, with_victims_stream=True), "wrong-stream"),
        (replace(REFUSED, code=4402), "wrong-refusal"),
        (replace(REFUSED, code=None), "wrong-refusal"),
        (replace(REFUSED, answered=f"X-Refused: {TOKEN}", tokens=("another", TOKEN)), "token-echoed"),
    ],
)
def test_what_is_wrong_is_named_among_attempts_that_are_right(attempt: Attempt, anomaly: str) -> None:
    verdict = let_in_by_token([OWN, attempt, REFUSED])
    (finding,) = verdict.findings
    assert finding.anomaly == anomaly
    assert attempt.what in finding.sentence
    assert str(attempt) in finding.witness


def test_what_is_right_passes() -> None:
    closed = replace(OWN, greeted=False, code=4400, events=())
    right = [OWN, REFUSED, closed, replace(OWN, code=4410), replace(OWN, answered="Server: x", tokens=(TOKEN,))]
    assert let_in_by_token(right).outcome is Outcome.PASS


def test_a_finding_does_not_repeat_the_token_itself() -> None:
    answered = f"Server: x\nX-Token: {TOKEN}"
    (finding,) = let_in_by_token([replace(OWN, answered=answered, tokens=(TOKEN,))]).findings
    assert TOKEN not in str(finding)
    assert "X-Token: eyJzdW..." in str(finding)
