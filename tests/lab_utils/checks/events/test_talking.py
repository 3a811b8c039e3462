"""A check's knowledge of a run before its events come: the ids that they must bear."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from lab_utils.checks.events.talking import Talk, heard
from lab_utils.judges.speech import Ran, Said
from lab_utils.target import Capability, Command, Handle, Recipe
from lab_utils.targets.reference import ReferenceTarget
from lab_utils.trial import Trial
from lab_utils.trial.faults import Hang
from tests.running import run


class Noting(ReferenceTarget):
    """Notes its requests."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []

    async def run(self, handle: Handle, command: Command) -> Any:
        self.asked.append((handle.instance, command.run))
        return await super().run(handle, command)


class Quiet(Noting):
    """Returns no ids to its callers."""

    capabilities = Noting.capabilities - {Capability.THREADS, Capability.RUN_IDS, Capability.AGENT_IDS}

    def agent_id(self, handle: Handle) -> str:
        raise AssertionError("it was not to be asked")


def talked(target: Noting) -> Talk:
    """Every way in which a check speaks to an agent, the first of two."""
    hang = Hang()
    talks: list[Talk] = []

    async def main() -> None:
        trial = Trial(lambda: target, {}, 1)
        await trial.target([Recipe("helper"), Recipe("held", on_run=hang)])
        talk = Talk(trial, target, "ada")
        talks.append(talk)
        helper = await talk.client.create("helper", thread="one")
        held = await talk.client.create("held", thread="two")
        await talk.run(helper, "think", thoughts=["x"])
        await talk.run_unheard(helper, "y")
        await talk.run(helper, "fail", message="no")
        await talk.run_cancelled(held, hang.reached)
        hang.release()
        await talk.run(held, "tool", name="rows", parameters={})
        await asyncio.gather(*(talk.run(held, "tool", name="rows", parameters={}) for _ in range(2)))
        await trial.stop_all()

    run(main)
    return talks[0]


def ids(talk: Talk) -> list[tuple[str, str, str]]:
    """Of each run with due events: its run, thread and agent."""
    runs = list(dict.fromkeys(said.ran for said in talk.said if isinstance(said.ran, Ran)))
    return [(one.run, one.thread, one.agent_id) for one in runs]


def test_each_run_but_the_first_of_an_agent_is_asked_for_under_an_id() -> None:
    target = Noting()
    talk = talked(target)
    helper, held = (target.asked[place][0] for place in (0, 3))
    names = ["", "lab-run-1", "lab-run-2", "", "lab-run-3", "lab-run-4", "lab-run-5"]
    assert target.asked == list(zip([helper] * 3 + [held] * 4, names, strict=True))
    # An event without a listener is asked for like any other run, and none of it is due.
    assert [run for run, _, _ in ids(talk)] == [*names[:1], *names[2:]]


def test_what_is_due_has_the_thread_and_the_name_of_its_agent() -> None:
    found = [(thread, agent_id) for _, thread, agent_id in ids(talked(Noting()))]
    (one,), (two,) = ({agent_id for thread, agent_id in found if thread == name} for name in ("one", "two"))
    assert one != two
    assert all(agent_id.startswith("agent-") for agent_id in (one, two))


def test_tool_calls_are_counted_for_each_agent() -> None:
    said = talked(Noting()).said
    assert [one.call for one in said if one.type == "tool_executing"] == [1, 2, 3]
    assert [one.call for one in said if one.type == "tool_completed"] == [1, 2, 3]


@pytest.mark.parametrize("target", [Quiet, Noting])
def test_what_callers_are_not_told_is_said(target: type[Noting]) -> None:
    talk = talked(target())
    is_quiet = target is Quiet
    assert talk.untold() == (["run", "thread", "agent"] if is_quiet else [])
    assert (set(ids(talk)) == {("", "", "")}) == is_quiet


@pytest.mark.parametrize("step_s", [0.05, 100.0], ids=["a clock", "a process that is stopped again and again"])
async def test_clients_of_this_process_are_waited_for_as_long_as_something_comes(
    monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    trial = Trial(ReferenceTarget, {}, 1)
    talk = Talk(trial, await trial.target(), "ada")
    phone = await talk.connect("phone")
    talk.said.append(Said.of("helper", "agent_completed", {}))
    looks = itertools.count()
    monkeypatch.setattr(trial, "now", lambda: next(looks) * step_s)
    await heard(trial, phone)
    assert trial.waiting.waited_in_vain
    assert 80 <= next(looks) <= 500
    await trial.stop_all()
