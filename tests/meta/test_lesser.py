"""Targets with fewer capabilities than ours: no check blames one for an ability that it never claimed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from inspect import isawaitable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lab_utils.checks import CHECKS
from lab_utils.runner import run_check, runner
from lab_utils.target import Bounds, Capability, Command, Handle, NotSupported, Recipe
from lab_utils.trial import Check, Trial
from lab_utils.values.verdict import Outcome
from tests.meta import sweep
from tests.meta.lesser import Lesser, lesser, named
from tests.meta.sweep import ADAPTERS, Swept, capabilities_of

RETAINING = {
    "factory_pattern_memory_leak_prevention_under_load",
    "memory_usage_validation_during_concurrent_operations",
    "long_running_session_resource_management",
}
"""Who never ends a session keeps it: by design a finding."""
RETAINED = {"retained-object", "memory-growth", "object-growth"}


def swept(folder: Path, way: str, *arguments: str) -> list[Swept]:
    """Sweep in two processes at once, each with half of the checks: one after the other they are the longest of all."""
    program = [sys.executable, "-m", "tests.meta.sweep"]
    files = [folder / "0", folder / "1"]
    halves = [subprocess.Popen([*program, str(file), file.name, way, *arguments]) for file in files]
    assert [half.wait(timeout=3_600) for half in halves] == [0, 0]
    return [one for file in files for one in msgspec.json.decode(file.read_bytes(), type=list[Swept])]


def not_well(found: list[Swept]) -> list[Swept]:
    """Those that neither passed nor did not apply."""
    return [one for one in found if one.outcome not in ("PASS", "NOT_APPLICABLE")]


def test_without_one_capability_every_check_passes_or_does_not_apply(tmp_path: Path) -> None:
    found = swept(tmp_path, "singles", "reference")
    wrong = not_well(found)
    assert {(one.check, one.lacks) for one in wrong} == {(check, (Capability.END,)) for check in RETAINING}, wrong
    assert all(one.outcome == "FAIL" and set(one.anomalies) <= RETAINED for one in wrong), wrong
    # Each capability was missed by somebody, and somebody had something left to pass.
    passed = {lack for one in found for lack in one.lacks if one.outcome == "PASS"}
    assert passed == capabilities_of("reference")
    assert Capability.LOOP_GUARD in {lack for one in found for lack in one.lacks if one.outcome == "NOT_APPLICABLE"}


def test_without_what_only_our_own_registry_can_do_it_is_the_same(tmp_path: Path) -> None:
    alone = capabilities_of("agent_registry") - capabilities_of("reference")
    # Expiry is asked for over a server's sockets only, and there are none here. The other two: requests to its own
    # parts instead.
    tried = alone - {Capability.EXPIRY} | {Capability.GET_OR_CREATE, Capability.REMOVE}
    found = swept(tmp_path, "singles", "agent_registry", *sorted(tried))
    assert not not_well(found), not_well(found)
    assert {lack for one in found for lack in one.lacks} == tried
    assert {one.check for one in found if one.outcome == "PASS" and not one.lacks} == set(sweep.OF_REGISTRIES)
    # Each check names what its body asks about: `list checks --target` shows it. Those of limits and time are made of
    # parts, whose needs say the same. The runner asks about services, and the trial about the model.
    for check, about in ((CHECKS[one.check], one.asked_about) for one in found if not one.lacks):
        if check.category != "limits_and_time":
            of_parts = frozenset().union(*(part.needs for part in check.parts))
            always = check.needs | {Capability.MODEL, Capability.SERVICE}
            assert of_parts.union(about) - always == check.uses - always, check.name


def test_on_small_adapters_every_check_passes_or_does_not_apply(tmp_path: Path) -> None:
    found = swept(tmp_path, "adapters", "reference")
    assert not not_well(found), not_well(found)
    # The least of them can leave: the memory that a user took is looked for there too.
    least = capabilities_of("reference") - ADAPTERS[0]
    passed = {one.check for one in found if one.outcome == "PASS" and set(one.lacks) == least}
    assert passed > RETAINING


_C = Capability


@pytest.mark.parametrize(
    ("check", "planted", "lacks", "anomaly"),
    [
        ("agent_lifecycle_management_per_user", "EndCutShort", {_C.REMOVE, _C.TOOLS, _C.POPULATION}, "never-closed"),
        ("agent_lifecycle_management_per_user", "UseAfterClose", {_C.CREATE_ANEW, _C.THREADS}, "use-after-close"),
        ("agent_lifecycle_management_per_user", "CleanupSkippedOnRemove", {_C.END}, "never-closed"),
        (
            "agent_registration_with_user_context_isolation",
            "LookupCreates",
            {_C.CREATE_ANEW, _C.REMOVE, _C.END, _C.THREADS, _C.PERMISSIONS, _C.CONTEXT_DATA},
            "lookup-created",
        ),
        ("agent_registration_with_user_context_isolation", "GhostSession", {_C.POPULATION}, "wrong-answer"),
        ("agent_registration_with_user_context_isolation", "ContextLoadedByOrder", {_C.POPULATION}, "cross-user-data"),
        ("bridge_communication_validation_per_user", "SilentErrors", {_C.TOOLS}, "lost-event"),
        ("websocket_connection_lifecycle_management", "DroppedConnectionKept", {_C.END}, "connection-left"),
        ("complete_agent_orchestration_flow_per_user", "CentsOnly", {_C.EVENTS, _C.TOOLS}, "wrong-figure"),
        (
            "resource_cleanup_after_user_session_termination",
            "ThreadLeft",
            {_C.LOOKUP, _C.TOOLS},
            "leaked-thread",
        ),
    ],
)
def test_a_defect_is_found_on_a_target_that_can_do_no_more_than_show_it(
    check: str, planted: str, lacks: set[Capability], anomaly: str
) -> None:
    result = run_check(check, target=named(planted, lacks), stop_at=frozenset({anomaly}), stuck_after=2.0)
    assert anomaly in {finding.anomaly for finding in result.verdict.findings}, result.verdict


class RunsOn(lesser("reference", {Capability.REMOVE, Capability.EVENTS})):  # type: ignore[misc]
    """A run goes on when its caller is cancelled, until its session ends."""

    async def run(self, handle: Handle, command: Command) -> Any:
        task = asyncio.ensure_future(super().run(handle, command))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(task)
        finally:
            # An error's traceback holds this frame, and the task holds the error: a cycle, if it stayed here.
            del task


def test_runs_that_outlive_their_callers_are_no_leak_where_nothing_can_be_removed() -> None:
    result = run_check("memory_usage_validation_during_concurrent_operations", target=RunsOn)
    assert result.outcome is Outcome.PASS, [result.verdict.reason, *map(str, result.verdict.findings[:2])]


CALLS = {
    Capability.EVENTS: lambda target: target.subscribe("ada"),
    Capability.AGENT_IDS: lambda target: target.agent_id(None),
    Capability.LOOKUP: lambda target: target.get("ada", "helper"),
    Capability.GET_OR_CREATE: lambda target: target.get_or_create("ada", "helper"),
    Capability.REMOVE: lambda target: target.reset("ada"),
    Capability.END: lambda target: target.end_all(),
    Capability.POPULATION: lambda target: target.population(),
    Capability.PARTS: lambda target: target.parts(None),
    Capability.PART_USE: lambda target: target.use_part("bridge", None),
    Capability.SUPERVISION: lambda target: target.supervise("ada", ()),
    Capability.ORCHESTRATION: lambda target: target.orchestrate("ada", ""),
    Capability.EXPIRY: lambda target: target.pass_time(1.0),
    Capability.AGENT_CAP: lambda target: target.limit(Bounds(agents_per_user=1)),
    Capability.USER_CAP: lambda target: target.limit(Bounds(users=1)),
    Capability.IDLE_END: lambda target: target.limit(Bounds(idle_s=1.0)),
    Capability.AGE_END: lambda target: target.limit(Bounds(age_s=1.0)),
    Capability.TYPE_CHANGES: lambda target: target.register(Recipe("helper")),
    Capability.ADOPTION: lambda target: target.adopt("ada", None),
    Capability.STRICT: lambda target: target.create_strict("ada", "helper", {}),
    Capability.SOCKETS: lambda target: target.asgi_app(),
    Capability.TOOLS: lambda target: target.run(None, Command("tool", {"name": "rows"})),
    Capability.CONTEXT_DATA: lambda target: target.run(None, Command("context")),
    Capability.MODEL: lambda target: target.run(None, Command("ask", {"text": "?"})),
}


@pytest.mark.parametrize("capability", CALLS)
def test_what_a_target_lacks_cannot_be_called_and_is_noted(capability: Capability) -> None:
    target = lesser("agent_registry", {capability})()

    async def call() -> None:
        answer = CALLS[capability](target)
        if isawaitable(answer):
            await answer

    Lesser.asked.clear()
    with pytest.raises(NotSupported, match=capability):
        asyncio.run(call())
    assert Lesser.asked == {capability}


def test_arguments_of_what_a_target_lacks_are_ignored() -> None:
    asyncio.run(_arguments_ignored())


async def _arguments_ignored() -> None:
    lacks = {Capability.THREADS, Capability.PERMISSIONS, Capability.CREATE_ANEW}
    target = lesser("reference", lacks)()
    await target.start([Recipe("helper", requires=frozenset({"admin"}))], {}, 5.0)
    first = await target.create("ada", "helper", thread="one")
    assert (first.thread, first.user) == ("main", "ada")
    assert (await target.create("ada", "helper", thread="two")).instance == first.instance
    assert (await target.get_or_create("ada", "helper", "three")).instance == first.instance
    assert (await target.create("bob", "helper", context_user="ada")).user == "bob"
    await target.stop()


def test_a_check_that_calls_what_a_target_lacks_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(trial: Trial) -> None:
        target = await trial.target()
        if Capability.REMOVE in target.capabilities:
            await target.get("ada", "helper")
        trial.require(await target.reset("ada") == 0, "wrong-count", "nobody is there")

    check = Check("made_up", "user_isolation", "claim", "data", "looks like", body, ("SharedDispatcher",))
    monkeypatch.setattr(runner, "RUNNABLE", {"made_up": check})
    monkeypatch.setattr(sweep, "CHECKS", {"made_up": check})
    found = {one.lacks: one.outcome for one in sweep.singles("reference", checks=["made_up"])}
    assert found == {(): "PASS", (Capability.LOOKUP,): "UNKNOWN", (Capability.REMOVE,): "UNKNOWN"}


def test_what_is_asked_in_another_way_than_is_noted_is_an_error() -> None:
    able = lesser("reference", ())().capabilities
    with pytest.raises(TypeError, match="issuperset"):
        able & {Capability.END}
    assert named("reference", {Capability.END}).endswith(":reference-end")
