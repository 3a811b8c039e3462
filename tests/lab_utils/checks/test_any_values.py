"""A store that takes JSON alone is given JSON alone, unless it says that it takes any value."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lab_utils.runner import run_check
from lab_utils.target import Capability, Command, Handle
from lab_utils.targets.skeleton import MyTarget
from lab_utils.values.verdict import Outcome


class TakesJson(MyTarget):
    async def run(self, handle: Handle, command: Command) -> Any:
        stored = json.loads(json.dumps(dict(command.arguments)))
        return json.loads(json.dumps(await super().run(handle, replace(command, arguments=stored))))


class SaysItTakesMore(TakesJson):
    also = frozenset({Capability.ANY_VALUES})


@pytest.mark.parametrize("check", ["shared_state_contamination_detection", "concurrent_user_operations_isolation"])
def test_what_json_holds_is_all_that_is_written(check: str) -> None:
    found = {one.anomaly for one in run_check(check, target=TakesJson, in_process=True).verdict.findings}
    # The skeleton's registry does not serialise the runs of one agent.
    assert found <= {"lost-update", "stale-update"}


def test_whoever_says_that_it_takes_more_is_given_more() -> None:
    result = run_check("shared_state_contamination_detection", target=SaysItTakesMore, in_process=True)
    assert result.outcome is Outcome.FAIL
    assert "is not JSON serializable" in str(result.verdict.findings[0])
