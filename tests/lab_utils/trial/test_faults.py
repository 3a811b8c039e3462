"""The errors that the lab plants are recognised in whatever a target wraps them."""

from __future__ import annotations

from typing import Any

import pytest

from lab_utils.runner import run_check
from lab_utils.target import Handle, Refusal, Refused
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial.faults import Planned, planned_in
from lab_utils.values.verdict import Outcome


def raised(error: Exception, cause: Exception | None, *, on_purpose: bool = True) -> Exception:
    """This error as raised while another one was handled, from it or not."""
    try:
        if cause is None:
            raise error
        try:
            raise cause
        except Exception as known:
            if on_purpose:
                raise error from known
            raise error  # noqa: B904
    except Exception as whole:
        return whole


PLANNED = Planned("it")


@pytest.mark.parametrize(
    ("error", "is_planned"),
    [
        (PLANNED, True),
        (raised(ValueError("own"), PLANNED), True),
        (raised(ValueError("own"), PLANNED, on_purpose=False), True),
        (raised(ValueError("own"), raised(KeyError("own"), PLANNED)), True),
        (ExceptionGroup("both", [PLANNED, raised(ValueError("own"), PLANNED)]), True),
        (ExceptionGroup("one", [PLANNED, ValueError("own")]), False),
        (raised(Refused(Refusal.CAPACITY, "own"), PLANNED), False),
        (raised(ValueError("own"), KeyError("own")), False),
    ],
)
def test_a_planned_error_is_found_in_the_chain_of_its_causes(error: Exception, is_planned: bool) -> None:
    assert planned_in(error) is (PLANNED if is_planned else None)


class Wraps(ReferenceTarget):
    """Whatever a create raises that is no refusal comes out as an error of the framework."""

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        try:
            return await super().create(user, agent_type, **options)
        except Planned as error:
            raise LookupError(f"no {agent_type}") from error


def test_a_target_that_wraps_a_planned_error_is_right() -> None:
    result = run_check("agent_registration_with_user_context_isolation", target=Wraps, in_process=True)
    assert result.outcome is Outcome.PASS, [result.verdict.reason, *map(str, result.verdict.findings)]
