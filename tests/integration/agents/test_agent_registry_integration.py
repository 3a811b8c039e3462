"""The 31 checks as tests, by name: the same `Check` objects that the notebooks run, at the smoke profile.

`-s` prints the measurements of each check, with budgets and verdicts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from lab_utils.checks import CHECKS
from lab_utils.runner import run_check
from lab_utils.values.result import CheckResult
from lab_utils.values.verdict import Outcome

COMMON = {
    "anonymous memory at the end of the check",
    "anonymous memory growth over the check",
    "operations that succeeded",
    *(f"latency of operations, {name}" for name in ("p50", "p95", "p99", "max")),
}
"""The metrics of every check."""

Test = TypeVar("Test", bound=Callable[..., Any])


def checked(test: Test) -> Test:
    """Give a test the markers of the check it is named after."""
    for marker in sorted(CHECKS[test.__name__.removeprefix("test_")].markers):
        test = getattr(pytest.mark, marker)(test)
    return test


@pytest.fixture
def require_pass(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Run the check that the requesting test is named after, and require PASS.

    In this process, where a debugger or the measurement of coverage is to see it.
    """
    in_process = bool(request.config.getoption("usepdb") or request.config.getoption("cov_source", None))

    def run() -> None:
        # No list of them: where the check runs in this process, that would be memory that grows with each cycle.
        seen: dict[str, bool] = {}

        def saw(step: str, done: float) -> None:
            seen["well formed"] = bool(step) and 0 <= done <= 1 and seen.get("well formed", True)

        name = request.node.name.removeprefix("test_")
        result = run_check(name, in_process=in_process, on_progress=saw)
        print(report(result))
        # The others may be done before the first report is due.
        assert seen.get("well formed", result.category != "memory_management")
        measured = {row.metric for row in result.measurements}
        assert measured > COMMON, f"not measured: {COMMON - measured}"
        findings = "\n".join(map(str, result.verdict.findings[:5]))
        assert result.outcome is Outcome.PASS, f"{result.verdict.reason}\n{findings}\n{result.traceback}"

    return run


def report(result: CheckResult) -> str:
    """The check's measurements, a line each."""
    lines = [f"\n{result.outcome} {result.check} ({result.duration_s:.2f} s): {result.verdict.reason}"]
    for row in result.measurements:
        held = f"  budget {row.budget}: {row.outcome}" if row.budget is not None else ""
        lines.append(f"  {row.metric:<44} {row.value:>14,.4g} {row.unit:<12}{held}")
    return "\n".join([*lines, *(f"  note: {note}" for note in result.notes)])


class TestAgentRegistryUserIsolationIntegration:
    @checked
    def test_per_user_agent_registry_isolation_validation(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_interrupted_calls_leave_nothing_to_others(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_factory_pattern_memory_leak_prevention_under_load(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_shared_state_contamination_detection(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_user_context_boundary_enforcement(self, require_pass: Callable[[], None]) -> None:
        require_pass()


class TestAgentRegistryRegistrationManagementIntegration:
    @checked
    def test_agent_registration_with_user_context_isolation(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_agent_retrieval_by_user_and_thread_isolation(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_agent_lifecycle_management_per_user(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_concurrent_agent_registration_safety(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_teardown_across_layers(self, require_pass: Callable[[], None]) -> None:
        require_pass()


class TestAgentRegistryWebSocketBridgeIntegration:
    @checked
    def test_websocket_manager_association_with_user_context(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_bridge_communication_validation_per_user(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_event_delivery_isolation_between_users(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_websocket_connection_lifecycle_management(self, require_pass: Callable[[], None]) -> None:
        require_pass()


class TestAgentRegistryEnterpriseMultiUserIntegration:
    @checked
    def test_concurrent_user_operations_isolation(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_enterprise_customer_data_protection(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_multi_tenant_agent_execution_boundaries(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_user_session_cleanup_and_isolation(self, require_pass: Callable[[], None]) -> None:
        require_pass()


class TestAgentRegistryGoldenPathIntegration:
    @checked
    def test_complete_agent_orchestration_flow_per_user(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_agent_coordination_with_supervisor_integration(self, require_pass: Callable[[], None]) -> None:
        require_pass()


class TestAgentRegistryMemoryManagementIntegration:
    @checked
    def test_memory_usage_validation_during_concurrent_operations(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_resource_cleanup_after_user_session_termination(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_long_running_session_resource_management(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_capacity_given_back_by_interrupted_calls(self, require_pass: Callable[[], None]) -> None:
        require_pass()


class TestAgentRegistryLimitsAndTimeIntegration:
    @checked
    def test_agent_and_user_limit_enforcement(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_idle_and_over_age_session_ending(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_agent_type_registration_and_replacement(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_adopted_agent_ownership(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_strict_context_enforcement(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_foreign_thread_and_loop_refusal(self, require_pass: Callable[[], None]) -> None:
        require_pass()

    @checked
    def test_independent_registries_in_one_process(self, require_pass: Callable[[], None]) -> None:
        require_pass()
