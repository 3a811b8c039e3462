"""The check of several registries in one process, for the same users."""

from __future__ import annotations

import asyncio
from collections import Counter

from lab_utils.checks.limits_and_time.asking import attempt, live, of, said
from lab_utils.checks.limits_and_time.loops import in_thread
from lab_utils.target import Bounds, Capability, Command, Handle, Recipe, Target
from lab_utils.trial import Trial
from lab_utils.trial.faults import Gate, counted
from lab_utils.values.workload import rows_for

__all__ = ["several_registries"]

_USER, _MAKER = "acme", "maker"
_MEMO = Command("read", {"key": "memo"})
_CROWD = 6


class _One:
    """A registry of the process, with recipes, rows and counts of its own."""

    def __init__(self, trial: Trial, name: str) -> None:
        self.trial, self.name = trial, name
        self.rows = rows_for(name, 5, trial.rng)
        self.runs: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.making = Gate()
        self.target: Target
        self.handle: Handle

    async def open(self) -> None:
        cap = int(self.trial.parameters["agents_per_user"])
        recipes = [
            Recipe("helper", None, counted(self.runs), counted(self.closed)),
            Recipe(f"only-{self.name}"),
            Recipe("slow", self.making),
            *(Recipe(f"kind-{number}") for number in range(cap)),
        ]
        able = self.trial.make_target().capabilities
        bounds = Bounds(agents_per_user=cap) if Capability.AGENT_CAP in able else None
        self.target = await self.trial.target(recipes, {_USER: self.rows}, bounds=bounds)

    async def make(self) -> None:
        client = of(self.trial, self.target, _USER, f"client at {self.name}")
        self.handle = await client.create("helper")

    async def run(self, command: Command) -> object:
        run = of(self.trial, self.target, _USER, f"client at {self.name}").run(self.handle, command)
        return await attempt(self.trial, run, f"a run at {self.name}")


async def several_registries(trial: Trial) -> None:
    """Use two registries for one user, end the user in one, stop it, and open a third."""
    here, there = _One(trial, "here"), _One(trial, "there")
    await here.open()
    await there.open()
    able = here.target.capabilities
    client = there.target.subscribe(_USER) if Capability.EVENTS in able else None
    await here.make()
    await here.run(Command("write", {"key": "memo", "value": "written here"}))
    if Capability.LOOKUP in able:
        found = await there.target.get(_USER, "helper")
        sentence = "an agent was made in one registry, and is found in another one"
        trial.require(found is None, "registries-mixed", sentence, said(found))
    if Capability.POPULATION in able:
        found_there = there.target.population()
        sentence = f"an agent was made in one registry, and another one counts {found_there}"
        trial.require((found_there.sessions, found_there.agents) == (0, 0), "registries-mixed", sentence)
    if client is not None:
        await trial.flush()
        received = client.received()
        sentence = f"a client of one registry received {len(received)} events of another one"
        trial.require(not received, "registries-mixed", sentence, *received[:3])
    await there.make()
    read = await there.run(_MEMO)
    sentence = f"the same user's agent in another registry {said(read)}, which was written in the first"
    trial.require(read is None, "registries-mixed", sentence, said(read))
    for one, other in ((here, there), (there, here)):
        await _own_things(trial, one, other)
    await _own_making(trial, here, there)
    await _own_caps(trial, here, there)
    await _own_ends(trial, here, there)
    await _own_loops(trial)


async def _own_things(trial: Trial, one: _One, other: _One) -> None:
    """Require that an agent is made and run by its own registry's recipe, on its own registry's rows."""
    before = other.runs.total(), one.runs.total()
    answer = await one.run(Command("recall"))
    trial.require(isinstance(answer, dict), "failed-operation", f"a run {said(answer)}", said(answer))
    after = other.runs.total(), one.runs.total()
    sentence = f"an agent of the registry {one.name!r} ran by the recipe of the registry {other.name!r}"
    is_own = after == (before[0], before[1] + 1)
    trial.require(is_own, "registries-mixed", sentence, f"runs before {before}", f"after {after}")
    call = of(trial, one.target, _USER, f"client at {one.name}").create(f"only-{other.name}")
    made = await attempt(trial, call, "a create of another registry's type")
    sentence = f"a type that only another registry knows {said(made)}"
    trial.require(not isinstance(made, Handle), "registries-mixed", sentence, said(made))
    if Capability.TOOLS in one.target.capabilities:
        rows = await one.run(Command("tool", {"name": "rows"}))
        features = sorted(row["feature"] for row in rows) if isinstance(rows, list) else [said(rows)]
        expected = sorted(row["feature"] for row in one.rows)
        sentence = f"a tool of the registry {one.name!r} answered with rows that are not its own"
        trial.require(features == expected, "registries-mixed", sentence, features[:3], expected[:3])


async def _own_making(trial: Trial, here: _One, there: _One) -> None:
    """Ask for the same user's agent in both at once: each makes its own. Another user's house is to be filled."""
    able = here.target.capabilities
    if Capability.GET_OR_CREATE not in able:
        return
    calls = [asyncio.ensure_future(one.target.get_or_create(_MAKER, "slow")) for one in (here, there)]
    await trial.waiting.until(lambda: here.making.inside + there.making.inside == 2 or any(one.done() for one in calls))
    await trial.waiting.settle()
    for one in (here, there):
        one.making.open()
    answers = [await attempt(trial, call, "a get_or_create in one of two registries") for call in calls]
    entered = here.making.entered, there.making.entered
    sentence = f"an agent was asked for in two registries at once, and their factories were called {entered} times"
    trial.require(0 not in entered or not any(entered), "registries-mixed", sentence, *map(said, answers))
    natives = [answer.native for answer in answers if isinstance(answer, Handle)]
    is_one = len(natives) == 2 and natives[0] is not None and natives[0] is natives[1]
    trial.require(not is_one, "registries-mixed", "two registries gave one user the same agent", *map(said, answers))


async def _own_caps(trial: Trial, here: _One, there: _One) -> None:
    """Fill the user's house in one registry: there is as much room in the other as before."""
    if Capability.AGENT_CAP not in here.target.capabilities:
        return
    cap = int(trial.parameters["agents_per_user"])
    for one in (here, there):
        client = of(trial, one.target, _USER, f"client at {one.name}")
        answers = [await attempt(trial, client.create(f"kind-{number}"), "a create") for number in range(cap - 1)]
        given = sum(isinstance(answer, Handle) for answer in answers)
        sentence = f"{given + 1} of {cap} agents found a place in the registry {one.name!r}: its limit is shared"
        trial.require(given == cap - 1, "limit-shared", sentence, *map(said, answers))


async def _own_ends(trial: Trial, here: _One, there: _One) -> None:
    """End the user in one registry, then stop it: the other one goes on, and a third knows nothing of either."""
    if Capability.END in here.target.capabilities:
        await here.target.end(_USER)
        await _require_untouched(trial, there, "the user was ended in another registry")
    await trial.stop(here.target)
    await _require_untouched(trial, there, "another registry was stopped")
    third = _One(trial, "third")
    await third.open()
    await third.make()
    read = await third.run(_MEMO)
    sentence = f"an agent of a registry that was opened later {said(read)}"
    trial.require(read is None, "registries-mixed", sentence, said(read))


async def _own_loops(trial: Trial) -> None:
    """Let a crowd use a registry on this loop, then one on the loop of a thread, and one on the next loop there, as the
    tests of an application do."""
    await trial.waiting.ends(_crowded(trial.make_target()), "a crowd in a registry")

    def elsewhere() -> None:
        for _ in range(2):
            asyncio.run(asyncio.wait_for(_crowded(trial.make_target()), trial.waiting.stuck_after))

    answer = await attempt(trial, asyncio.wrap_future(in_thread(elsewhere)), "a crowd in a registry of another loop")
    sentence = f"a registry was used on one event loop, and a new one on another loop {said(answer)}"
    trial.require(answer is None, "registries-mixed", sentence, said(answer))


async def _crowded(target: Target) -> None:
    """Open it, let some users come and work at once, twice, and stop it. Raises the first error."""
    await target.start([Recipe("helper")], {}, 5.0)
    try:

        async def work(user: str) -> None:
            await target.run(await target.create(user, "helper"), Command("write", {"key": "memo", "value": user}))
            if Capability.END in target.capabilities:
                await target.end(user)

        for _ in range(2):
            await asyncio.gather(*(work(f"user-{number}") for number in range(_CROWD)))
    finally:
        await target.stop()


async def _require_untouched(trial: Trial, one: _One, when: str) -> None:
    await trial.waiting.settle()
    there = await live(trial, one.target, [one.handle])
    closed = one.closed[_USER]
    sentence = f"{when}, and in this one the same user's agent is gone ({closed} cleanups)"
    trial.require(bool(there) and not closed, "registries-mixed", sentence)
