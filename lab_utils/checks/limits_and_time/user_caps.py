"""The part of the check of limits that fills a registry with users."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from lab_utils.checks.limits_and_time.asking import (
    attempt,
    cause,
    in_vain,
    is_refused,
    live,
    of,
    refused_often,
    require_refused,
    said,
)
from lab_utils.target import Bounds, Capability, Handle, Hook, Recipe, Refusal, Target, brings_a_manager
from lab_utils.trial import Stuck, Trial
from lab_utils.trial.faults import Exited, Failure, Gate, OnlyFor, exiting

__all__ = ["user_caps"]

_FAILING = "cleanup-fails"
_TURNS = 5
"""Steps of the loop, from none on, after which a create is cancelled."""
Way = Callable[[Target, str], Awaitable[Any]]


async def user_caps(trial: Trial) -> None:
    """Fill a registry; race for the last place in it; fail in it."""
    for way in _ways(await trial.target()):
        await _full_house(trial, way)
    await _last_place(trial)
    await _places_given_back(trial)


def _ways(target: Target) -> Mapping[str, Way]:
    """Every call that may bring one user more."""
    able = target.capabilities
    ways: dict[str, Way] = {"create": lambda target, user: target.create(user, "helper")}
    if Capability.GET_OR_CREATE in able:
        ways["get_or_create"] = lambda target, user: target.get_or_create(user, "helper")
    if Capability.STRICT in able:
        ways["create_strict"] = lambda target, user: target.create_strict(user, "helper", {})
    if brings_a_manager(target):
        ways["attach"] = lambda target, user: target.attach(user)
    if Capability.ADOPTION in able:
        ways["call of adopt"] = lambda target, user: target.adopt(user, target.make_apart(user, "helper"))
    return ways


def _places(trial: Trial) -> int:
    return int(trial.parameters["places"])


async def _opened(trial: Trial, making: Hook | None = None) -> Target:
    recipes = [
        Recipe("helper", making, on_cleanup=OnlyFor({_FAILING: Failure("this cleanup fails")})),
        Recipe("analyst"),
        Recipe("failing", Failure("this factory never works")),
        Recipe("exiting", exiting),
        Recipe("guarded", requires=frozenset({"admin"})),
    ]
    return await trial.target(recipes, bounds=Bounds(users=_places(trial)))


async def _fill(trial: Trial, target: Target, users: list[str]) -> list[Handle]:
    answers = await _at_once(trial, [(user, of(trial, target, user).create("helper")) for user in users])
    handles = [answer for answer in answers if isinstance(answer, Handle)]
    sentence = f"{_places(trial)} users may be there, and {len(handles)} of {len(users)} were let in"
    trial.require(len(handles) == len(users), cause("limit-too-early", *answers), sentence, *map(said, answers))
    return handles


async def _at_once(trial: Trial, creates: Sequence[tuple[str, Awaitable[Handle]]]) -> list[Any]:
    """The answers to creates of several users, as of `attempt`, in the order given."""
    answers = await trial.waiting.together([attempt(trial, work, f"a create of {user!r}") for user, work in creates])
    for answer in answers:
        if isinstance(answer, Stuck):
            raise answer
    return answers


def _count(trial: Trial, target: Target, expected: int, when: str) -> None:
    if Capability.POPULATION in target.capabilities:
        found = target.population().sessions
        anomaly = "left-behind" if found > expected else "wrong-count"
        trial.require(found == expected, anomaly, f"{when} the target counts {found} users, not {expected}")


async def _full_house(trial: Trial, way: str) -> None:
    users = [_FAILING, *trial.user_ids(_places(trial) - 1)]
    target = await _opened(trial)
    more = _ways(target)[way]

    async def come(user: str) -> Any:
        return await attempt(trial, of(trial, target, user, "a newcomer").call(way, more(target, user)), f"a {way}")

    handles = await _fill(trial, target, users)
    if Capability.LOOKUP in target.capabilities:
        await of(trial, target, "stranger").get("helper")
    require_refused(trial, await come("late-0"), Refusal.CAPACITY, "over-limit", f"a {way} of one user too many")
    await refused_often(trial, lambda number: more(target, f"late-{number}"), f"a {way} of one user too many")
    _count(trial, target, len(users), "after users who were refused")
    there = await live(trial, target, handles)
    trial.require(len(there) == len(handles), "evicted-live", "users who were there had to go for those who were not")
    answers = await _at_once(trial, [(user, of(trial, target, user).create("analyst")) for user in users])
    for user, answer in zip(users, answers, strict=True):
        sentence = f"{user!r} is there, and a create is refused since the house is full: {said(answer)}"
        trial.require(isinstance(answer, Handle), cause("insider-refused", answer), sentence, said(answer))
    if Capability.END not in target.capabilities:
        return
    for user in users[:2]:
        for _ in range(2):
            # Of the second one too many users are known to be let in: it ends nobody, and makes no room.
            await attempt(trial, of(trial, target, user).end(), "an end")
        answer = await come(f"next-after-{user}")
        is_in = not isinstance(answer, BaseException)
        sentence = f"{user!r} has left, and the place is lost: the next {way} {said(answer)}"
        trial.require(is_in, cause("place-lost", answer), sentence, said(answer))
        if is_in:
            again = await come(f"too-many-after-{user}")
            require_refused(trial, again, Refusal.CAPACITY, "over-limit", f"the {way} after it")


async def _last_place(trial: Trial) -> None:
    gate, racers = Gate(), [f"racer-{number}" for number in range(int(trial.parameters["racers"]))]
    target = await _opened(trial, OnlyFor(dict.fromkeys(racers, gate)))
    handles = await _fill(trial, target, trial.user_ids(_places(trial) - 1))
    tasks = [asyncio.ensure_future(of(trial, target, user).create("helper")) for user in racers]
    await trial.waiting.until(lambda: gate.reached.is_set() or all(task.done() for task in tasks))
    await trial.waiting.settle()
    gate.open()
    answers = await trial.waiting.together([attempt(trial, task, "a racing create") for task in tasks])
    given = [answer for answer in answers if isinstance(answer, Handle)]
    sentence = f"a place was free, {len(racers)} new users raced for it, and nobody got it"
    trial.require(bool(given), cause("limit-too-early", *answers), sentence, *map(said, answers))
    there = await live(trial, target, [*handles, *given])
    sentence = f"{len(there)} users are there after a race for the last place, and {_places(trial)} may be"
    trial.require(len(there) <= _places(trial), "over-limit", sentence, *map(said, answers))
    others = [said(one) for one in answers if not isinstance(one, Handle) and not is_refused(one, Refusal.CAPACITY)]
    trial.require(not others, "wrong-refusal", "who lost the race should be refused as capacity", *others)
    _count(trial, target, len(there), "after a race for the last place")


async def _places_given_back(trial: Trial) -> None:
    gate, cancelled = Gate(), [f"cancelled-{number}" for number in range(_places(trial))]
    early = [f"cancelled-after-{turns}" for turns in range(_TURNS)]
    target = await _opened(trial, OnlyFor(dict.fromkeys([*cancelled, *early], gate)))
    handles = await _fill(trial, target, trial.user_ids(_places(trial) - 1))
    await in_vain(trial, target, "asks-in-vain-{}".format, "helper")
    for number in range(_places(trial)):
        await attempt(trial, of(trial, target, f"failing-{number}").create("failing"), "a create that fails")
        with suppress(Exited):
            exits = of(trial, target, f"exiting-{number}").create("exiting")
            await attempt(trial, exits, "a create that fails with a BaseException")
    for user in cancelled:
        task = asyncio.ensure_future(of(trial, target, user).create("helper"))
        await trial.waiting.until(lambda task=task: gate.inside > 0 or task.done())  # type: ignore[misc]
        task.cancel()
        await attempt(trial, task, "a create that is cancelled")
    for turns, user in enumerate(early):
        task = asyncio.ensure_future(of(trial, target, user).create("helper"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await attempt(trial, task, "a create that is cancelled")
    await trial.waiting.settle()
    _count(trial, target, len(handles), "after newcomers whose create was refused, failed or was cancelled")
    last = await attempt(trial, of(trial, target, "last").create("helper"), "a create")
    sentence = f"newcomers whose create was refused, failed or was cancelled keep their places: the next {said(last)}"
    if trial.require(isinstance(last, Handle), cause("place-lost", last), sentence, said(last)):
        more = await attempt(trial, of(trial, target, "one-too-many").create("helper"), "a create")
        what = "a create of one user too many, after newcomers whose create was refused, failed or was cancelled,"
        require_refused(trial, more, Refusal.CAPACITY, "over-limit", what)
