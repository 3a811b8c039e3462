"""Endings across layers: a defect has one name, right targets of other designs none, and what cannot be asked is left
out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lab_utils.checks.histories import live_all
from lab_utils.checks.registration.teardown import _IDLE_S, _PARTS
from lab_utils.target import Command, EndReport, Handle, Target
from lab_utils.targets import PLANTED, make_target
from lab_utils.targets.planted.registration import teardown
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.values.verdict import Finding


class LooksEveryTwoMilliseconds(ReferenceTarget):
    """A task of the registry looks for idle sessions all the time."""

    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        self.looking = asyncio.ensure_future(self.look())

    async def look(self) -> None:
        while True:
            await asyncio.sleep(0.002)
            await self.sweep()

    async def stop(self) -> None:
        await super().stop()
        self.looking.cancel()
        await asyncio.wait({self.looking})


class WithoutCleanups(ReferenceTarget):
    """Its agents have nothing to give back."""

    async def start(self, recipes: Any, rows: Any, close_timeout: float) -> None:
        await super().start([replace(recipe, on_cleanup=None) for recipe in recipes], rows, close_timeout)


class ComesBackWithARun(ReferenceTarget):
    """A run on an agent that was closed makes its like, as where the client chooses the id of a session."""

    async def run(self, handle: Handle, command: Command) -> Any:
        if handle.native.closed:
            handle = await self.get_or_create(handle.user, handle.agent_type, handle.thread)
        return await super().run(handle, command)


def lived(
    make: Callable[[], Target], took: Callable[[float], None] = lambda _: None
) -> tuple[list[Finding], list[str], int]:
    return live_all(make, took, _PARTS, idle_s=_IDLE_S)


@pytest.mark.parametrize("name", [one.name for one in teardown.PLANTED])
def test_an_ending_that_is_wrong_in_one_way_is_found_by_that_name_alone(name: str) -> None:
    findings, left_out, done = lived(lambda: make_target(name))
    assert {finding.anomaly for finding in findings} == PLANTED[name].anomalies
    assert (left_out, done) == ([], 17)


def test_a_registry_that_sweeps_all_the_time_has_nothing_to_find() -> None:
    taken: list[float] = []
    findings, left_out, done = lived(LooksEveryTwoMilliseconds, taken.append)
    assert (findings, left_out, done, len(taken)) == ([], [], 17, 17)


class SumsUpItsErrors(ReferenceTarget):
    """One text names all cleanups that failed."""

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        return replace(report, errors=("; ".join(report.errors),) if report.errors else ())


class CountsItsErrors(ReferenceTarget):
    """A text for each cleanup that failed, which does not say whose it is."""

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        return replace(report, errors=tuple("a cleanup failed" for _ in report.errors))


@pytest.mark.parametrize("make", [SumsUpItsErrors, CountsItsErrors])
def test_errors_in_one_text_or_without_names_are_right_as_well(make: Callable[[], Target]) -> None:
    assert lived(make)[0] == []


def test_what_needs_a_cleanup_is_said_to_be_left_out_on_a_target_without_one() -> None:
    findings, left_out, done = lived(WithoutCleanups)
    assert (findings, done) == ([], 11)
    assert left_out == [
        "agents are closed newest first: its agents have no cleanup",
        "what ignores its end and what hangs take one time together: its agents have no cleanup",
        "a run that comes during a cleanup does not outlive it: its agents have no cleanup",
        "an end names each of several cleanups that failed: its agents have no cleanup",
        "an end takes the session that was opened while another was closing: its agents have no cleanup",
        "parts work while a cleanup runs: its agents have no cleanup",
    ]


def test_a_handle_that_works_after_every_end_is_not_blamed_on_the_end_of_all() -> None:
    findings, left_out, _ = lived(ComesBackWithARun)
    assert "agent-not-closed" not in {finding.anomaly for finding in findings}
    assert left_out == ["the end of all goes on past a cleanup that fails: a handle works after every end"]
