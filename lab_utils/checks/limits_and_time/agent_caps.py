"""The part of the check of limits that fills one user's house, and many users' at once."""

from __future__ import annotations

import asyncio
from collections import Counter
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
    waits_for_run,
)
from lab_utils.target import Bounds, Capability, Command, Handle, Hook, Recipe, Refusal, Target
from lab_utils.trial import Trial
from lab_utils.trial.faults import Exited, Failure, Gate, counted, exiting

__all__ = ["agent_caps"]

_SOON = 0.25
"""The part of the trial's patience for which a cleanup that waits for nothing is waited for."""
_USER = "acme"
_THREADS = ("main", "another")


class _House:
    """A target in which each user may have so many agents. Counts which agents were made and closed, by user."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.cap = int(trial.parameters["agents_per_user"])
        self.made: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.target: Target

    async def open(self, types: int, making: Hook | None = None, running: Hook | None = None) -> None:
        """Open it with the types `kind-0` and so on, and one whose factory fails."""

        async def make(user: str) -> None:
            if making is not None:
                await making(user)
            # Now its factory is about to return it.
            self.made[user] += 1

        kinds = [Recipe(f"kind-{number}", make, running, counted(self.closed)) for number in range(types)]
        kinds.append(Recipe("failing", Failure("this factory never works")))
        kinds.append(Recipe("exiting", exiting))
        kinds.append(Recipe("guarded", requires=frozenset({"admin"})))
        self.target = await self.trial.target(kinds, bounds=Bounds(agents_per_user=self.cap))

    def thread(self, number: int) -> str:
        """The thread of the agent of this number: a limit is a user's, in whichever threads the agents are."""
        return _THREADS[number % len(_THREADS) if Capability.THREADS in self.target.capabilities else 0]

    async def fill(self, user: str, count: int) -> list[Handle]:
        """Make so many agents, of a type each, so that none takes another one's place."""
        answers = await self.asked(user, count)
        handles = [answer for answer in answers if isinstance(answer, Handle)]
        sentence = f"{user!r} may have {self.cap} agents, and received {len(handles)} of {count}"
        self.trial.require(len(handles) == count, cause("limit-too-early", *answers), sentence, *map(said, answers))
        return handles

    async def asked(self, user: str, count: int) -> list[Any]:
        """The answers to so many creates, each of a type of its own and in turn in each of the threads."""
        client = of(self.trial, self.target, user)
        creates = (client.create(f"kind-{n}", thread=self.thread(n)) for n in range(count))
        return [await attempt(self.trial, create, "a create") for create in creates]

    async def judge(self, user: str, handles: Sequence[Handle], when: str) -> None:
        """Require that no more agents live than may, that each other one was closed once, and that the counts agree."""
        trial, there = self.trial, await live(self.trial, self.target, handles)
        names = [handle.instance for handle in there]
        sentence = f"{len(there)} agents of {user!r} live {when}, and {self.cap} may"
        trial.require(len(there) <= self.cap, "over-limit", sentence, *names)
        gone = self.made[user] - len(there)
        await trial.waiting.until(lambda: self.closed[user] >= gone, _SOON)
        closed = self.closed[user]
        anomaly = "never-closed" if closed < gone else "closed-twice"
        sentence = f"of {self.made[user]} agents of {user!r} {len(there)} live {when}, and {closed} were closed"
        trial.require(closed == gone, anomaly, sentence)
        if Capability.POPULATION in self.target.capabilities:
            found = self.target.population()
            sentence = f"{when} the target counts {found.agents} agents, and {len(there)} live"
            trial.require(found.agents == len(there), "wrong-count", sentence, found)


async def agent_caps(trial: Trial) -> None:
    """Fill a house in every way; race for the last place; fail in it; evict beside a run; fill many houses at once."""
    for way in _ways(await trial.target()):
        await _full_house(_House(trial), way)
    await _last_place(_House(trial))
    await _places_given_back(_House(trial))
    await _beside_a_run(_House(trial))
    await _everybody_full(_House(trial))


Way = Callable[[Target, str, str], Awaitable[Any]]
"""A target, a type of agents and a thread."""


def _ways(target: Target) -> Mapping[str, Way]:
    """Every call that may bring one agent more."""
    able = target.capabilities
    ways: dict[str, Way] = {
        "create": lambda target, kind, thread: target.create(_USER, kind, thread=thread),
    }
    if Capability.GET_OR_CREATE in able:
        ways["get_or_create"] = lambda target, kind, thread: target.get_or_create(_USER, kind, thread)
    if Capability.STRICT in able:
        ways["create_strict"] = lambda target, kind, _: target.create_strict(_USER, kind, {})
    return ways


async def _full_house(house: _House, way: str) -> None:
    trial = house.trial
    await house.open(house.cap + 2)
    more, client = _ways(house.target)[way], of(trial, house.target, _USER)

    async def one_more(number: int) -> Any:
        kind, thread = f"kind-{number}", house.thread(number)
        return await attempt(trial, client.call(way, more(house.target, kind, thread), kind, thread), f"a {way}")

    handles = await house.fill(_USER, house.cap)
    answer = await one_more(house.cap)
    if isinstance(answer, Handle):
        # It took the place of one that was idle, or one too many is there.
        return await house.judge(_USER, [*handles, answer], f"after a {way} more")
    require_refused(trial, answer, Refusal.CAPACITY, "over-limit", f"a {way} in a full house")
    await refused_often(trial, lambda _: more(house.target, f"kind-{house.cap}", "main"), f"a {way} in a full house")
    there = await live(trial, house.target, handles)
    sentence = f"{len(handles) - len(there)} of the agents of a full house went, though no {way} got a place"
    trial.require(len(there) == len(handles), "evicted-live", sentence)
    await house.judge(_USER, handles, f"after refused {way}s")
    if client.can(Capability.REMOVE):
        await client.remove("kind-0")
        again = await one_more(house.cap)
        sentence = f"one of {house.cap} agents was removed, and its place is lost: the next {way} {said(again)}"
        trial.require(isinstance(again, Handle), cause("place-lost", again), sentence, said(again))
        require_refused(trial, await one_more(house.cap + 1), Refusal.CAPACITY, "over-limit", f"the {way} after it")
    return None


async def _last_place(house: _House) -> None:
    trial, gate, racers = house.trial, Gate(), int(house.trial.parameters["racers"])
    gate.open()
    await house.open(house.cap + racers, gate)
    handles = await house.fill(_USER, house.cap - 1)
    gate.shut()
    client = of(trial, house.target, _USER, "a racer")
    kinds = [f"kind-{house.cap + number}" for number in range(racers)]
    tasks = [asyncio.ensure_future(client.create(kind)) for kind in kinds]
    await trial.waiting.until(lambda: gate.reached.is_set() or all(task.done() for task in tasks))
    await trial.waiting.settle()
    gate.open()
    answers = await trial.waiting.together([attempt(trial, task, "a racing create") for task in tasks])
    given = [answer for answer in answers if isinstance(answer, Handle)]
    sentence = f"a place was free, {racers} raced for it, and nobody got it"
    trial.require(bool(given), cause("limit-too-early", *answers), sentence, *map(said, answers))
    others = [said(one) for one in answers if not isinstance(one, Handle) and not is_refused(one, Refusal.CAPACITY)]
    trial.require(not others, "wrong-refusal", "who lost the race should be refused as capacity", *others)
    await house.judge(_USER, [*handles, *given], "after a race for the last place")


async def _places_given_back(house: _House) -> None:
    trial, gate = house.trial, Gate()
    gate.open()
    await house.open(house.cap + 2, gate)
    target, handles = house.target, await house.fill(_USER, house.cap - 1)
    client = of(trial, target, _USER)
    for _ in range(house.cap):
        await attempt(trial, client.create("failing"), "a create that fails")
        with suppress(Exited):
            await attempt(trial, client.create("exiting"), "a create that fails with a BaseException")
        await in_vain(trial, target, lambda _: _USER, f"kind-{house.cap}")
    gate.shut()
    for _ in range(house.cap):
        task = asyncio.ensure_future(client.create(f"kind-{house.cap}"))
        await trial.waiting.until(lambda task=task: gate.inside > 0 or task.done())  # type: ignore[misc]
        # One user's calls may be done one after another: this one may be in line.
        behind = asyncio.ensure_future(target.create(_USER, f"kind-{house.cap + 1}"))
        await trial.waiting.settle()
        for one in (behind, task):
            one.cancel()
            await attempt(trial, one, "a create that is cancelled")
    gate.open()
    last = await attempt(trial, client.create(f"kind-{house.cap}"), "a create")
    sentence = f"creates that failed, were refused or cancelled keep their places: the last of {house.cap} {said(last)}"
    if trial.require(isinstance(last, Handle), cause("place-lost", last), sentence, said(last)):
        # Given back twice, a place is one too many.
        more = await attempt(trial, client.create(f"kind-{house.cap + 1}"), "a create")
        there = [one for one in (*handles, last, more) if isinstance(one, Handle)]
        await house.judge(_USER, there, "after creates that failed, were refused or cancelled")


async def _beside_a_run(house: _House) -> None:
    trial, gate = house.trial, Gate()
    await house.open(3 * house.cap + 1, running=gate)
    client = of(trial, house.target, _USER)
    # Where agents of one kind take one another's place, the one that runs is the oldest of them.
    is_anew = client.can(Capability.CREATE_ANEW)
    handles = [await client.create("kind-0")]
    run = asyncio.ensure_future(client.run(handles[0], Command("write", {"key": "memo", "value": "kept"})))
    await trial.waiting.until(lambda: gate.reached.is_set() or run.done())
    for number in range(1, 3 * house.cap + 1):
        making = asyncio.ensure_future(client.create("kind-0" if is_anew else f"kind-{number}"))
        if await waits_for_run(making):
            trial.leave_out("creates beside a run in a full house: a create waits for its user's run")
            gate.open()
            await attempt(trial, run, "a run")
            return
        answer = await attempt(trial, making, "a create beside a run")
        if isinstance(answer, Handle):
            handles.append(answer)
        elif not require_refused(trial, answer, Refusal.CAPACITY, "over-limit", "a create in a full house"):
            break
    gate.open()
    answer = await attempt(trial, run, "a run beside creates in a full house")
    sentence = f"a run in a full house {said(answer)}: its agent had to make place while it ran"
    trial.require(answer is None, "busy-ended", sentence, said(answer))
    newest = await live(trial, house.target, handles[-1:])
    sentence = f"the newest agent {handles[-1].instance} was returned to its caller, and was closed before older ones"
    trial.require(bool(newest), "evicted-live", sentence)
    await house.judge(_USER, handles, "after creates beside a run")


async def _everybody_full(house: _House) -> None:
    trial = house.trial
    users = trial.user_ids(int(trial.parameters["users"]))
    await house.open(house.cap)

    async def fill(user: str) -> tuple[str, list[Any]]:
        return user, await house.asked(user, house.cap)

    refused = {}
    handles: list[Handle] = []
    for answer in await trial.waiting.together(map(fill, users)):
        if isinstance(answer, BaseException):
            raise answer
        user, given = answer
        handles += [one for one in given if isinstance(one, Handle)]
        if others := [said(one) for one in given if not isinstance(one, Handle)]:
            refused[user] = others[0]
    sentence = f"{len(refused)} of {len(users)} users could not have {house.cap} agents each: their limits are shared"
    trial.require(not refused, "limit-shared", sentence, *(f"{user!r}: {words}" for user, words in refused.items()))
    there = await live(trial, house.target, handles)
    sentence = f"{len(handles) - len(there)} agents had to go for those of other users"
    trial.require(len(there) == len(handles), "limit-shared", sentence)
    trial.measure("users at their own limit at once", len(users), "users")
