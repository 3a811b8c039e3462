"""The check of contexts that take plain data only."""

from __future__ import annotations

import asyncio
import datetime
import gc
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from lab_utils.checks.limits_and_time.asking import attempt, of, require_refused, said
from lab_utils.target import Capability, Command, Handle, Refusal
from lab_utils.trial import Trial

__all__ = ["strict_contexts"]

_USER = "acme"
_DEEP = 60
"""Levels: more than a copy by recursion may go at once."""
_PLAIN: Mapping[str, Any] = {
    "none": None,
    "numbers": [True, 7, 0.5, -(10**20)],
    "texts": {"text": "caf\u00e9", "bytes": b"\x00\xff"},
    "times": (datetime.date(2026, 1, 31), datetime.timedelta(seconds=5)),
    "nested": {"list": [{"deep": [({"deeper": {1, 2}},)]}]},
}


class _Thing:
    """The objects that two holders would share."""


class _Dict(dict[str, int]):
    """A dict by inheritance, which may hide anything."""


class _Text(str):
    __slots__ = ()


async def strict_contexts(trial: Trial) -> None:
    """Hand in plain data and others, at every depth, to a create and to a run."""
    target = await trial.target()
    client = of(trial, target, _USER)
    able = target.capabilities
    tried = 0
    for name, data in _others():
        tried += 1
        call = client.call("create_strict", target.create_strict(_USER, "helper", data), "helper")
        answer = await attempt(trial, call, "a strict create")
        what = f"a strict create with {name}"
        if not require_refused(trial, answer, Refusal.NOT_PLAIN, "not-refused", what):
            continue
        if Capability.POPULATION in able:
            found = target.population()
            sentence = f"{what} was refused, and left {found.sessions} sessions and {found.agents} agents"
            trial.require((found.sessions, found.agents) == (0, 0), "left-behind", sentence)
    await _nothing_kept(trial, lambda data: target.create_strict(_USER, "helper", data), "a strict create")
    plain = dict(_PLAIN)
    handle = await attempt(
        trial, client.call("create_strict", target.create_strict(_USER, "helper", plain)), "a create"
    )
    sentence = f"a strict create with plain data {said(handle)}"
    if not trial.require(isinstance(handle, Handle), "failed-operation", sentence, said(handle)):
        return
    # An approval is of these data alone.
    call = client.call("create_strict", target.create_strict(_USER, "helper", {"key": _Thing()}), "helper")
    again = await attempt(trial, call, "a strict create")
    require_refused(
        trial, again, Refusal.NOT_PLAIN, "not-refused", "a strict create with an object, after a plain one,"
    )
    if Capability.CONTEXT_DATA in able:
        read = await client.run(handle, Command("context"))
        trial.require(read == plain, "altered-payload", "plain data came back changed", repr(plain), repr(read))
    for name, data in _others():
        tried += 1
        answer = await attempt(trial, client.run(handle, Command("collect", data)), "a run of a strict agent")
        what = f"a run of a strict agent with {name}"
        require_refused(trial, answer, Refusal.NOT_PLAIN, "not-refused", what)
    looked_up: dict[str, Handle | None] = {}
    if Capability.LOOKUP in able:
        looked_up["get"] = await client.get("helper")
    if Capability.GET_OR_CREATE in able:
        looked_up["get_or_create"] = await client.get_or_create("helper")
    for how, agent in looked_up.items():
        if agent is not None:
            answer = await attempt(trial, client.run(agent, Command("collect", {"key": _Thing()})), "a run")
            what = f"a run of a strict agent, found by {how}, with an object"
            require_refused(trial, answer, Refusal.NOT_PLAIN, "not-refused", what)
    await _nothing_kept(trial, lambda data: target.run(handle, Command("collect", data)), "a run of a strict agent")
    answer = await attempt(trial, client.run(handle, Command("collect", plain)), "a run of a strict agent")
    is_right = answer == {"inputs": plain}
    sentence = f"a run of a strict agent with plain data {said(answer)}"
    trial.require(is_right, "failed-operation", sentence, repr(plain), said(answer))
    trial.measure("values that are not plain", tried, "values")


def _others() -> Iterator[tuple[str, dict[str, Any]]]:
    """Values that are not plain data, in each kind of place."""
    values: Mapping[str, Any] = {
        "an object": _Thing(),
        "a function": lambda: None,
        "a lock": asyncio.Lock(),
        "a subclass of dict": _Dict(a=1),
        "a subclass of str": _Text("text"),
        "an exception": ValueError("held"),
    }
    for name, value in values.items():
        yield f"{name} as a value", {"key": value}
        yield f"{name} in a list", {"key": [1, [value]]}
        yield f"{name} within {_DEEP} lists", {"key": _within(value)}
        yield f"{name} in a tuple", {"key": (1, {"deep": (value,)})}
        if not isinstance(value, dict):
            yield f"{name} as a key", {"key": {value: 1}}
            yield f"{name} in a set", {"key": [{value}]}


def _within(value: object) -> object:
    for _ in range(_DEEP):
        value = [value]
    return value


async def _nothing_kept(trial: Trial, ask: Any, what: str) -> None:
    thing = _Thing()
    seen = weakref.ref(thing)
    await attempt(trial, ask({"key": [thing]}), what)
    del thing
    await trial.waiting.settle()
    if seen() is not None:
        gc.collect()
    sentence = f"{what} was refused for an object, which is kept all the same"
    trial.require(seen() is None, "retained-object", sentence)
