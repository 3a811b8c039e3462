"""What the runner makes of checks that crash, judge nothing, hang, or leave errors on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lab_utils import runner
from lab_utils.check import Check
from lab_utils.profiles import UsageError
from lab_utils.result import CheckResult
from lab_utils.target import Capability, Recipe, Target
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import LAB, Trial
from lab_utils.verdict import Outcome, Verdict


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., CheckResult]:
    """Run a body as if it were a check, on the reference registry."""

    def run(
        body: Callable[[Trial], Awaitable[None]],
        needs: frozenset[Capability] = frozenset(),
        category: str = "user_isolation",
    ) -> CheckResult:
        check = Check("made_up", category, "claim", "data", "looks like", body, ("SharedDispatcher",), needs)
        monkeypatch.setattr(runner, "CHECKS", {"made_up": check})
        return runner.run_check("made_up", target="reference")

    return run


def test_a_crash_is_unknown_with_its_traceback(run: Callable[..., CheckResult]) -> None:
    async def body(trial: Trial) -> None:
        trial.judge(Verdict.passed("so far so good"))
        raise KeyError("the check's own mistake")

    result = run(body)
    assert result.outcome is Outcome.UNKNOWN
    assert "the check's own mistake" in result.traceback


def test_a_target_that_cannot_be_made_again_is_unknown(
    run: Callable[..., CheckResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(trial: Trial) -> None:
        await trial.target()

    def refuse() -> Target:
        raise RuntimeError("no more licences")

    monkeypatch.setattr(runner, "target_factory", lambda _: refuse)
    result = run(body, category="websocket_bridge")
    assert result.outcome is Outcome.UNKNOWN
    assert "no more licences" in result.traceback


def test_a_stop_that_never_ends_is_unknown_and_says_so(
    run: Callable[..., CheckResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    class NeverStops(ReferenceTarget):
        async def stop(self) -> None:
            await asyncio.Event().wait()

    async def body(trial: Trial) -> None:
        trial.stuck_after = 0.01
        await trial.target()
        trial.judge(Verdict.passed("1 thing"))

    monkeypatch.setattr(runner, "target_factory", lambda _: NeverStops)
    result = run(body)
    assert result.outcome is Outcome.UNKNOWN
    assert "stopping the target 'reference' did not end in 0.01 s" in result.verdict.reason


def test_a_check_that_judges_nothing_is_unknown(run: Callable[..., CheckResult]) -> None:
    async def body(trial: Trial) -> None:
        await trial.target()

    assert run(body).outcome is Outcome.UNKNOWN


def test_a_broken_budget_fails_and_a_kept_one_does_not(run: Callable[..., CheckResult]) -> None:
    async def broken(trial: Trial) -> None:
        trial.judge(Verdict.passed("1 thing"))
        trial.measure("growth", 2.0, "MB", LAB("<", 1.0))

    async def kept(trial: Trial) -> None:
        trial.judge(Verdict.passed("1 thing"))
        trial.measure("growth", 0.5, "MB", LAB("<", 1.0))

    assert run(broken).outcome is Outcome.FAIL
    assert run(kept).outcome is Outcome.PASS


def test_a_budget_that_is_only_shown_does_not_decide(run: Callable[..., CheckResult]) -> None:
    async def body(trial: Trial) -> None:
        trial.judge(Verdict.passed("1 thing"))
        trial.show("rss", 2.0, "MB", LAB("<", 1.0))

    result = run(body)
    assert result.outcome is Outcome.PASS
    assert result.measurements[0].outcome is Outcome.FAIL


def test_what_never_ends_is_found_with_a_witness(run: Callable[..., CheckResult]) -> None:
    async def body(trial: Trial) -> None:
        trial.stuck_after = 0.01
        target = await trial.target([Recipe("helper")])
        await trial.client(target, "c", "ada").create("helper")
        await trial.together([asyncio.Event().wait()])

    result = run(body)
    assert [finding.anomaly for finding in result.verdict.findings] == ["never-ends"]
    assert "create ada/helper" in result.verdict.findings[0].witness[0]


def test_an_error_that_nobody_handles_is_found(run: Callable[..., CheckResult]) -> None:
    async def body(trial: Trial) -> None:
        trial.judge(Verdict.passed("1 thing"))
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await trial.settle()

    assert [finding.anomaly for finding in run(body).verdict.findings] == ["unhandled-error"]


def test_a_missing_capability_is_not_applicable_and_named(run: Callable[..., CheckResult]) -> None:
    async def body(trial: Trial) -> None:
        raise AssertionError("must not run")

    result = run(body, frozenset({Capability.ORCHESTRATION}))
    assert result.outcome is Outcome.NOT_APPLICABLE
    assert "orchestration" in result.verdict.reason


def test_targets_are_stopped_even_after_a_crash(run: Callable[..., CheckResult]) -> None:
    cleaned: list[str] = []

    async def on_cleanup(user: str) -> None:
        cleaned.append(user)

    async def body(trial: Trial) -> None:
        target = await trial.target([Recipe("helper", on_cleanup=on_cleanup)])
        await trial.client(target, "c", "ada").create("helper")
        raise RuntimeError("crash")

    run(body)
    assert cleaned == ["ada"]


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'shared_state_contamination_detection'"):
        runner.run_check("shared_state_contamination")
    with pytest.raises(UsageError, match="did you mean 'agent_registry'"):
        runner.run_check("shared_state_contamination_detection", target="agent_regstry")
    with pytest.raises(UsageError, match="did you mean 'users'"):
        runner.run_check("shared_state_contamination_detection", parameters={"user": 5})


def test_the_same_seed_gives_the_same_operations() -> None:
    def operations(seed: int) -> list[tuple[str, str, str]]:
        result = runner.run_check("shared_state_contamination_detection", target="reference", seed=seed)
        return [(op.client, op.action, op.agent_type) for op in result.operations]

    assert operations(1) == operations(1)
    assert operations(1) != operations(2)
