"""`BaseTarget`: capabilities follow from the overridden methods, and live objects have one name each."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from lab_utils.target import BaseTarget, Capability, Handle, NotSupported, Population, Recipe, Refusal, Refused


class Counts(BaseTarget):
    also = frozenset({Capability.TOOLS})

    def population(self) -> Population:
        return Population(0, 0)

    async def remove(self, user: str, agent_type: str) -> bool:
        return False


class Looks(Counts):
    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        return None


def test_capabilities_are_those_of_overridden_methods_and_those_named() -> None:
    # Not `remove`, which goes with `reset`.
    assert Counts().capabilities == {Capability.TOOLS, Capability.POPULATION}
    assert Looks().capabilities == {Capability.TOOLS, Capability.POPULATION, Capability.LOOKUP}
    assert BaseTarget().capabilities == frozenset()
    assert Counts().name == "Counts"


async def test_what_is_not_overridden_is_not_supported() -> None:
    with pytest.raises(NotSupported, match=r"Counts does not override reset\(\)"):
        await Counts().reset("ada")
    with pytest.raises(NotSupported, match="attach"):
        await Counts().attach("ada")


async def test_it_keeps_what_the_lab_brings_and_refuses_other_types() -> None:
    target = Counts()
    recipe = Recipe("helper")
    await target.start([recipe], {"ada": []}, 2.0)
    assert target.recipe("helper") is recipe
    assert target.close_timeout == 2.0
    with pytest.raises(Refused) as caught:
        target.recipe("hepler")
    assert caught.value.kind is Refusal.UNKNOWN_TYPE


class Native:
    pass


def test_one_object_has_one_instance_and_another_never_has_it() -> None:
    target, one = Counts(), Native()
    first = target.handle("ada", "helper", one)
    assert target.handle("ada", "helper", one) == first
    seen = {first.instance}
    for _ in range(100):
        # Freed at once: the next has the same id().
        seen.add(target.handle("ada", "helper", Native()).instance)
    assert len(seen) == 101
    gc.collect()


def test_what_cannot_be_watched_needs_a_name_of_the_registrys() -> None:
    native: Any = {"a": "dict"}
    with pytest.raises(TypeError, match="pass instance"):
        Counts().handle("ada", "helper", native)
    assert Counts().handle("ada", "helper", native, instance="session-7").instance == "session-7"
