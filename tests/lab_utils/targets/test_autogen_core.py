"""The lab on a foreign runtime: its findings, its passes, and the checks that do not apply."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Coroutine, Mapping
from typing import Any

import pytest

from lab_utils.checks import CHECKS
from lab_utils.cli import main
from lab_utils.runner import run_check
from lab_utils.target import Command, NotSupported, Recipe, Refusal, Refused
from lab_utils.targets import FRAMEWORKS, frameworks, target_factory
from lab_utils.targets.autogen_core import AutogenCoreTarget, key_of, user_of
from lab_utils.targets.loading import problems_of
from lab_utils.trial.faults import Failure, Gate, Hang
from lab_utils.values.profiles import UsageError
from lab_utils.values.verdict import Outcome
from lab_utils.values.workload import hostile_pairs

FOUND: Mapping[str, frozenset[str]] = {
    "interrupted_calls_leave_nothing_to_others": frozenset({"unhandled-error"}),
    "factory_pattern_memory_leak_prevention_under_load": frozenset({"retained-object"}),
    "shared_state_contamination_detection": frozenset(
        {"aliased-input", "aliased-output", "shared-object", "cross-user-data"}
    ),
    "concurrent_agent_registration_safety": frozenset({"double-activation", "left-waiting"}),
    "concurrent_user_operations_isolation": frozenset({"lost-update"}),
    "memory_usage_validation_during_concurrent_operations": frozenset({"retained-object"}),
    "long_running_session_resource_management": frozenset({"memory-growth", "object-growth", "retained-object"}),
}
"""The required findings on 0.7.5; each is shown again without the lab by a script in
`examples/reproductions/`."""

PASSED = (
    "per_user_agent_registry_isolation_validation",
    "agent_retrieval_by_user_and_thread_isolation",
    "enterprise_customer_data_protection",
    "multi_tenant_agent_execution_boundaries",
    "capacity_given_back_by_interrupted_calls",
    "independent_registries_in_one_process",
)
SMALL: Mapping[str, Mapping[str, int]] = {
    "user_isolation": {"users": 3, "agents_per_user": 2, "cycles": 4},
    "registration_management": {"users": 2, "threads": 2, "racers": 3, "deviations": 0},
    "enterprise_multi_user": {"users": 6},
    "memory_management": {"users": 3, "cycles": 4, "long_cycles": 12, "interruptions": 4},
    "limits_and_time": {},
}
"""Parameters that are enough here: the findings do not depend on the size."""
OTHERS = sorted(set(CHECKS) - set(FOUND) - set(PASSED))


_SLOW = "long_running_session_resource_management"


@pytest.mark.parametrize("name", [pytest.param(one, marks=pytest.mark.slow) if one == _SLOW else one for one in FOUND])
def test_a_finding_has_its_name_and_a_witness(name: str) -> None:
    # A caller that is left waiting waits for ever; how long the lab looks on decides nothing here.
    parameters = SMALL[CHECKS[name].category]
    # Where one name is asked for, it is enough.
    stop_at = FOUND[name] if len(FOUND[name]) == 1 else frozenset()
    result = run_check(name, target="autogen_core", parameters=parameters, stuck_after=2.0, stop_at=stop_at)
    assert result.outcome is Outcome.FAIL, f"{result.verdict.reason}\n{result.traceback}"
    assert FOUND[name] <= {finding.anomaly for finding in result.verdict.findings}
    assert result.traceback == ""
    # A request's context is nothing that this runtime has, so nothing is found about one.
    assert not [finding for finding in result.verdict.findings if finding.sentence.startswith("changing the data that")]


@pytest.mark.parametrize("name", PASSED)
def test_what_the_runtime_does_right_passes(name: str) -> None:
    result = run_check(name, target="autogen_core", parameters=SMALL[CHECKS[name].category])
    assert result.outcome is Outcome.PASS, "\n".join(map(str, result.verdict.findings[:3])) + result.traceback


@pytest.mark.parametrize("name", OTHERS)
def test_what_it_has_no_words_for_is_not_applicable_and_says_what_is_lacking(name: str) -> None:
    result = run_check(name, target="autogen_core", in_process=True)
    assert result.outcome is Outcome.NOT_APPLICABLE
    lacking = CHECKS[name].lacking(AutogenCoreTarget.capabilities)
    assert lacking
    assert all(capability.value in result.verdict.reason for capability in lacking)


def test_it_fits_the_protocol() -> None:
    assert problems_of(AutogenCoreTarget()) == []


def test_it_is_loaded_only_when_it_is_asked_for() -> None:
    code = "import lab_utils.targets, lab_utils.runner, sys; print('autogen_core' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "False"


def test_where_it_is_not_installed_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(frameworks, "distributions", lambda name: iter(()))
    remedy = r"pip install 'agent-registry-lab\[autogen\]'"
    with pytest.raises(UsageError, match=f"'autogen_core' needs the package 'autogen-core'; {remedy}"):
        target_factory("autogen_core")
    assert main(["list", "targets"]) == 0
    assert "(not installed: pip install 'agent-registry-lab[autogen]')" in capsys.readouterr().out


def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "targets"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"autogen_core +{re.escape(FRAMEWORKS['autogen_core'].summary)}\n", out)


def test_a_mistyped_name_is_corrected() -> None:
    with pytest.raises(UsageError, match="did you mean 'autogen_core'"):
        target_factory("autogen-core")


@pytest.mark.parametrize(
    ("user", "other"), [*hostile_pairs(), ("a", "a/b"), ("a/b", "a_00002fb"), ("a", "a__main"), ("_", "__")]
)
def test_no_two_users_or_threads_share_a_key(user: str, other: str) -> None:
    keys = {key_of(one, thread) for one in (user, other) for thread in ("main", "b/main", user, other)}
    assert len(keys) == 2 * len({"main", "b/main", user, other})
    assert all(re.fullmatch("[a-z][A-Za-z0-9_]*", key) for key in keys)
    assert user_of(key_of(user, other)) == user


def test_the_methods_of_what_is_lacking_say_so() -> None:
    async def calls(target: AutogenCoreTarget) -> None:
        awaited: list[Coroutine[Any, Any, Any]] = [
            target.get("ada", "helper"), target.attach("ada"), target.remove("ada", "helper"), target.reset("ada"),
            target.end("ada"), target.end_all(), target.supervise("ada", ()), target.orchestrate("ada", "why?"),
        ]  # fmt: skip
        for call in awaited:
            with pytest.raises(NotSupported, match="has no "):
                await call
        for plain in (target.population, target.connections, target.prompts, target.asgi_app):
            with pytest.raises(NotSupported, match="has no "):
                plain()
        for asked in (target.subscribe, target.choose_model, target.token):
            with pytest.raises(NotSupported, match="has no "):
                asked("ada")
        with pytest.raises(NotSupported, match="has no "):
            target.pass_time(1.0)

    with_target(calls)


def test_a_command_reaches_the_agent_of_that_user_and_thread() -> None:
    async def talk(target: AutogenCoreTarget) -> None:
        ada = await target.create("ada", "helper")
        other = await target.get_or_create("ada", "helper", "other")
        await target.run(ada, Command("write", {"key": "note", "value": 1}))
        assert await target.run(ada, Command("read", {"key": "note"})) == 1
        assert await target.run(other, Command("read", {"key": "note"})) is None
        assert await target.create("ada", "helper") == ada
        assert ada.instance != other.instance
        assert await target.run(ada, Command("context")) == {}
        assert await target.run(ada, Command("think", {"thoughts": ["one"]})) is None
        with pytest.raises(RuntimeError, match="as it was told"):
            await target.run(ada, Command("fail", {"message": "as it was told"}))
        assert (await target.parts(ada))["agent"] is ada.native

    with_target(talk)


def test_tools_answer_from_the_user_s_own_rows_whatever_the_parameters_claim() -> None:
    async def ask(target: AutogenCoreTarget) -> None:
        ada = await target.create("ada", "helper")
        claim = {"user_id": "bob", "user": "bob"}
        assert await target.run(ada, Command("tool", {"name": "rows", "parameters": claim})) == [{"n": 1}, {"n": 2}]
        total = Command("tool", {"name": "total", "parameters": {"column": "n", **claim}})
        assert await target.run(ada, total) == 3
        nobody = await target.create("nobody", "helper")
        assert await target.run(nobody, Command("tool", {"name": "rows"})) == []
        with pytest.raises(Refused) as refused:
            await target.run(ada, Command("tool", {"name": "drop_table"}))
        assert refused.value.kind is Refusal.UNKNOWN_TOOL

    with_target(ask)


def test_an_unknown_type_is_refused_and_an_error_of_a_factory_comes_through() -> None:
    async def make(target: AutogenCoreTarget) -> None:
        with pytest.raises(Refused) as refused:
            await target.create("ada", "hepler")
        assert refused.value.kind is Refusal.UNKNOWN_TYPE
        with pytest.raises(Exception, match="planted"):
            await target.create("ada", "flaky")
        assert (await target.create("ada", "flaky")).agent_type == "flaky"

    with_target(make)


async def test_hooks_are_called_with_the_user() -> None:
    calls: list[tuple[str, str]] = []

    def noting(name: str) -> Any:
        async def note(user: str) -> None:
            calls.append((name, user))

        return note

    target = AutogenCoreTarget()
    recipe = Recipe("helper", noting("create"), noting("run"), noting("cleanup"))
    await target.start([recipe], {}, 5.0)
    await target.run(await target.create("a/b", "helper"), Command("recall"))
    assert {*recipe_hooks(recipe), recipe} <= {*target.trusted()}
    await target.stop()
    assert calls == [("create", "a/b"), ("run", "a/b"), ("cleanup", "a/b")]


def test_a_stop_lets_what_is_under_way_end_and_has_a_deadline() -> None:
    async def stop(close_timeout: float) -> set[asyncio.Task[Any]]:
        gate, hang = Gate(), Hang()
        target = AutogenCoreTarget()
        await target.start([Recipe("short", on_run=gate), Recipe("endless", on_run=hang)], {}, close_timeout)
        short = asyncio.ensure_future(target.run(await target.create("ada", "short"), Command("recall")))
        await gate.reached.wait()
        if close_timeout < 1:
            endless = asyncio.ensure_future(target.run(await target.create("ada", "endless"), Command("recall")))
            await hang.reached.wait()
            await target.stop()
            assert not short.done()
            mine = {asyncio.current_task(), short, endless}
            left = {task for task in asyncio.all_tasks() if task not in mine}
            short.cancel()
            endless.cancel()
            return left
        stopping = asyncio.ensure_future(target.stop())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not stopping.done()
        gate.open()
        await stopping
        assert await short == {}
        return set()

    left = asyncio.run(stop(0.01))
    # The two handlers are left, and nothing of the runtime's own loop.
    assert {getattr(task.get_coro(), "__qualname__", "") for task in left} == {
        "SingleThreadedAgentRuntime._process_send"
    }
    asyncio.run(stop(600.0))


def recipe_hooks(recipe: Recipe) -> list[object]:
    return [recipe.on_create, recipe.on_run, recipe.on_cleanup]


def with_target(use: Any) -> None:
    """Use a started target on a loop of its own, with rows of two users, and stop it."""

    async def used() -> None:
        target = AutogenCoreTarget()
        recipes = [Recipe("helper"), Recipe("flaky", Failure("planted", times=1))]
        await target.start(recipes, {"ada": [{"n": 1}, {"n": 2}], "bob": [{"n": 10}]}, 5.0)
        try:
            await use(target)
        finally:
            await target.stop()

    asyncio.run(used())
