"""A registry that takes plain ids only: every check judges it, and blames it for nothing."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab_utils.runner import run_check
from lab_utils.target import Command, Handle, Recipe, Refusal, Refused
from lab_utils.targets.agent_registry import AgentRegistryTarget
from lab_utils.trial import Check, Trial
from lab_utils.values.verdict import Outcome
from tests.meta.sweep import OF_REGISTRIES
from tests.meta.test_lesser import not_well, swept

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,39}")
"""What practically every store, topic, file name and framework takes."""
_IDS = frozenset({"user", "context_user", "thread"})


def _strict(method: Callable[..., Any]) -> Callable[..., Any]:
    parameters = inspect.signature(method)

    def look_at(*arguments: Any, **named: Any) -> None:
        for name, given in parameters.bind(*arguments, **named).arguments.items():
            is_none = given is None and name in ("context_user", "thread")
            if name in _IDS and not is_none and not (isinstance(given, str) and _PLAIN.fullmatch(given)):
                raise Refused(Refusal.INVALID_USER, f"the {name} {given!r:.80} is not plain")

    async def soon(*arguments: Any, **named: Any) -> Any:
        look_at(*arguments, **named)
        return await method(*arguments, **named)

    def now(*arguments: Any, **named: Any) -> Any:
        look_at(*arguments, **named)
        return method(*arguments, **named)

    return functools.wraps(method)(soon if inspect.iscoroutinefunction(method) else now)


class PlainIdsOnly(AgentRegistryTarget):
    """Refuses each user and each thread whose id is not plain; an odd run id is an error."""

    async def run(self, handle: Handle, command: Command) -> Any:
        if command.run and not _PLAIN.fullmatch(command.run):
            raise ValueError(f"the run {command.run!r} is not plain")
        return await super().run(handle, command)


for _name, _method in inspect.getmembers(AgentRegistryTarget, inspect.isfunction):
    # Connections of nobody in particular are those of all.
    if _name != "connections" and not _IDS.isdisjoint(inspect.signature(_method).parameters):
        setattr(PlainIdsOnly, _name, _strict(_method))


def test_every_check_passes_on_a_registry_that_takes_plain_ids_only(tmp_path: Path) -> None:
    found = swept(tmp_path, "one", f"{__name__}:{PlainIdsOnly.__name__}")
    assert not not_well(found), not_well(found)
    assert {one.check for one in found if one.outcome == "PASS"} == set(OF_REGISTRIES)


@pytest.mark.parametrize("user", ["the resident", "ada_1", "1st", "a" * 41])
async def test_an_id_that_is_not_plain_is_refused(user: str) -> None:
    target = PlainIdsOnly()
    await target.start([Recipe("helper")], {}, 1.0)
    with pytest.raises(Refused) as refused:
        await target.create(user, "helper")
    assert refused.value.kind is Refusal.INVALID_USER
    assert (await target.create("resident-1", "helper")).user == "resident-1"
    await target.stop()


@pytest.mark.parametrize(("user", "outcome"), [("the resident", Outcome.UNKNOWN), ("resident", Outcome.PASS)])
def test_a_check_that_takes_an_odd_id_of_its_own_is_seen(
    monkeypatch: pytest.MonkeyPatch, user: str, outcome: Outcome
) -> None:
    async def body(trial: Trial) -> None:
        target = await trial.target([Recipe("helper")])
        made = await trial.client(target, "a client", user).create("helper")
        trial.require(made.user == user, "wrong-answer", "somebody else got the agent")

    check = Check("made_up", "user_isolation", "claim", "data", "looks like", body, ("SharedDispatcher",))
    monkeypatch.setattr("lab_utils.runner.runner.RUNNABLE", {"made_up": check})
    assert run_check("made_up", target=PlainIdsOnly, in_process=True).outcome is outcome
