"""Customers who call or fail again and again: which ids are taken for one, and who is not blamed."""

from __future__ import annotations

import asyncio
import itertools
import time
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest

from lab_utils.checks.tenants import often
from lab_utils.checks.tenants.often import _Comparison, alike_to
from lab_utils.target import Command, Handle, Refusal, Refused
from lab_utils.targets.planted.golden_path.prompts import Asking, Between
from lab_utils.targets.planted.tenants.counting import BreakerOfTool, LimitOfAlikeIds, LimitOfEachUser
from lab_utils.targets.reference import ReferenceTarget, Session
from registry import Completion, LLMFailed, Prompt

ID = "Ann.b-c@d:e\u00e9 \ufb01"


@pytest.mark.parametrize(
    "careless",
    [
        str.casefold,
        lambda user: unicodedata.normalize("NFKC", user),
        lambda user: unicodedata.normalize("NFC", user),
        lambda user: user.partition(":")[0],
        lambda user: user.rpartition(":")[2],
        lambda user: user.partition("@")[0],
        lambda user: user.rpartition("@")[2],
        lambda user: user.replace(".", ""),
        lambda user: user.replace("\u200b", ""),
        lambda user: user.rstrip("/"),
        lambda user: user[:10],
        lambda user: user[-5:],
    ],
)
def test_each_careless_comparison_takes_some_id_for_the_one(careless: Callable[[str], str]) -> None:
    others = alike_to(ID, ":@")
    assert ID not in others
    assert careless(ID) in map(careless, others)


def compared(make: Callable[[], Any]) -> _Comparison:
    comparison = _Comparison(make, lambda _: None)
    assert comparison.whole() == ""
    return comparison


def test_a_target_that_never_answers_twice_the_same_is_not_blamed_for_it() -> None:
    class Dated(ReferenceTarget):
        numbers = itertools.count()

        async def run(self, handle: Handle, command: Command) -> Any:
            return await super().run(handle, command), f"answer {next(self.numbers)}"

    comparison = compared(Dated)
    assert comparison.findings == []
    assert any("from one history to the next" in text for text in comparison.left_out)


class PlainIds(ReferenceTarget):
    """Only ids of plain letters are users."""

    refused = 0

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        if not user.isascii() or len(user.split()) != 1:
            type(self).refused += 1
            raise Refused(Refusal.INVALID_USER, "plain ids only")
        return super().session_for_create(user)


def test_a_customer_whose_id_is_refused_is_not_missed_afterwards() -> None:
    assert compared(PlainIds).findings == []
    assert PlainIds.refused


@pytest.mark.parametrize(("base", "is_found"), [(LimitOfAlikeIds, True), (LimitOfEachUser, False)])
def test_a_limit_is_tried_by_plain_ids_where_odd_ones_are_refused(base: Any, is_found: bool) -> None:
    class Strict(base):  # type: ignore[misc]
        async def create(self, user: str, agent_type: str, **given: Any) -> Handle:
            if not user.replace("-", "").isalnum() or not user[0].isalpha():
                raise Refused(Refusal.INVALID_USER, "plain ids only")
            return await super().create(user, agent_type, **given)  # type: ignore[no-any-return]

    comparison = compared(Strict)
    assert bool(comparison.findings) is is_found
    assert any("has an odd id, which is refused" in text for text in comparison.left_out)


def test_a_target_that_needs_more_than_a_loop_is_left_out() -> None:
    class NoDatabase(ReferenceTarget):
        async def start(self, *_: Any) -> None:
            raise OSError("no database")

    comparison = compared(NoDatabase)
    assert comparison.findings == []
    assert any("no database" in text for text in comparison.left_out)


def test_a_slow_target_is_left_out_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(often, "seconds_a_call", lambda *_: 0.5)
    comparison = compared(LimitOfAlikeIds)
    assert comparison.histories == 0
    assert "a call takes 0.5 s" in comparison.left_out[0]


class _OnTrial(Between):
    """Closes a model that fails for five users for ten minutes; then one question at a time goes on trial, and three
    answers open it to everybody."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.failing: set[str] = set()
        self.closed_until = 0.0
        self.is_trying = False
        self.answers = 0

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        is_trial = len(self.failing) >= 5
        if is_trial and (self.is_trying or time.monotonic() < self.closed_until):
            raise LLMFailed("the model is out of order")
        self.is_trying = is_trial
        try:
            await asyncio.sleep(0.1)
            answer = await super().ask(user_id, prompt)
        except LLMFailed:
            self.failing.add(user_id)
            self.closed_until, self.answers = time.monotonic() + 600.0, 0
            raise
        finally:
            self.is_trying = self.is_trying and not is_trial
        self.answers += is_trial
        if not is_trial or self.answers == 3:
            self.failing.clear()
        return answer


def test_a_model_that_was_closed_to_everybody_may_be_asked_on_trial_by_one_at_a_time() -> None:
    class Target(Asking):
        between = _OnTrial

    comparison = compared(Target)
    assert not comparison.findings
    assert not comparison.left_out


def test_a_crowd_does_not_repeat_the_finding_of_one_customer() -> None:
    comparison = compared(BreakerOfTool)
    (finding,) = comparison.findings
    assert "60 calls of a tool that failed" in finding.sentence
    assert comparison.left_out == [
        "failures of each kind of each of 8 customers, for those of one or two are enough for a finding"
    ]
