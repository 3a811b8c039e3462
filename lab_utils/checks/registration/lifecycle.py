"""The check of the category registration_management that follows agents from their making to their end."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from lab_utils.checks.registration.cores import cancelled_cores, closing_cores
from lab_utils.checks.registration.schedules import explore_schedules
from lab_utils.judges.counts import closed_once, refused_after_close
from lab_utils.target import Capability, Command, Handle, Recipe, Refusal, Refused, Row, Target
from lab_utils.trial import Check, Part, Trial
from lab_utils.trial.faults import NO_CLEANUPS, Failure, OnlyFor, counted
from lab_utils.values.workload import rows_for

__all__ = ["CHECKS", "threads_of"]

_ROWS_EACH = 12
_LAST_REMOVED = "remove of the last agent"
_THREADS = ("main", "Main", "main-1", "m1", "m01")


def threads_of(trial: Trial) -> list[str]:
    """Threads of one user, the first of them easily mixed up."""
    count = int(trial.parameters["threads"])
    return [*_THREADS[:count], *(f"thread-{number}" for number in range(count - len(_THREADS)))]


class _Cleanups:
    """How many of each user's agents were made, and how many cleanups were called, up to some moments."""

    def __init__(self) -> None:
        self.called: Counter[str] = Counter()
        self._made: dict[str, dict[str, int]] = defaultdict(dict)
        self._called: dict[str, dict[str, int]] = defaultdict(dict)

    def note(self, user: str, made: int, when: str) -> None:
        self._made[when][user], self._called[when][user] = made, self.called[user]

    def judge(self, trial: Trial) -> None:
        """Judge each moment; agents may have no cleanups at all."""
        if not any(self.called.values()):
            trial.leave_out(NO_CLEANUPS)
            return
        for when, made in self._made.items():
            trial.judge(closed_once(made, self._called[when], when))


class _Lives:
    """Users whose agents are made and closed on one target."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.users = trial.user_ids(int(trial.parameters["users"]))
        self.rows = {user: rows_for(user, _ROWS_EACH, trial.rng) for user in self.users}
        self.cleanups = _Cleanups()
        self.attempts: list[tuple[str, str]] = []
        self.target: Target

    async def open(self) -> None:
        # The cleanup of one user always fails: it must be called as often as the others', and stop nothing. Others come
        # before and after, in whatever order all are ended.
        failing = OnlyFor({self.users[len(self.users) // 2]: Failure("this cleanup fails")})
        helper = Recipe("helper", on_cleanup=counted(self.cleanups.called, failing))
        self.target = await self.trial.target([helper, Recipe("analyst")], self.rows)

    def can(self, *capabilities: Capability) -> bool:
        return self.target.capabilities.issuperset(capabilities)

    async def all_at_once(self, live: Callable[[str], Coroutine[Any, Any, None]]) -> bool:
        """Let each user live so; False if anybody's operations failed."""
        answers = await self.trial.waiting.together(map(live, self.users))
        failures = [answer for answer in answers if answer is not None]
        self.trial.require(not failures, "failed-operation", "a user's operations failed", *map(repr, failures))
        return not failures

    async def use(self, handle: Handle) -> None:
        """Compare the figures of the agent's tools, where it has any."""
        if self.can(Capability.TOOLS):
            await _judge_figures(self.trial, self.target, handle, self.rows[handle.user])

    async def try_closed(self, handle: Handle, when: str) -> None:
        what = f"a run of {handle.user}'s {handle.instance} after {when}"
        self.attempts.append((what, await _attempt(self.target, handle)))

    def judge(self, closings: str) -> None:
        """Judge cleanups, refusals and counts when everybody has gone."""
        self.cleanups.judge(self.trial)
        self.trial.judge(refused_after_close(self.attempts))
        if self.can(Capability.POPULATION):
            population = self.target.population()
            sentence = "everybody has gone, and agents are left"
            self.trial.require(population.agents == 0, "wrong-count", sentence, population)
        self.trial.measure(f"agents closed by {closings}", self.cleanups.called.total(), "agents")


class _Owner:
    """One user with the agents that are there, oldest first. A create may find one that is there already."""

    def __init__(self, lives: _Lives, user: str) -> None:
        self.client = lives.trial.client(lives.target, f"client of {user}", user)
        self.there: list[Handle] = []
        self.counted = 0
        """Helpers that were made: their cleanups are counted."""

    async def make(self, agent_type: str = "helper", **options: Any) -> Handle:
        handle = await self.client.create(agent_type, **options)
        if handle.instance not in [one.instance for one in self.there]:
            self.there.append(handle)
            self.counted += agent_type == "helper"
        # A backend may begin a conversation, and count it, with its first run.
        await self.client.run(handle, Command("write", {"key": "begun", "value": "by a run"}))
        return handle


async def _removed(trial: Trial) -> None:
    lives = _Lives(trial)
    await lives.open()
    # Call after which clients are closed, or receive nothing -> their users.
    cut_off: dict[str, list[str]] = defaultdict(list)
    deaf: list[str] = []
    ends_session = await _ending_calls(trial, lives.target)

    async def live(user: str) -> None:
        owner = _Owner(lives, user)
        client = owner.client
        listener = lives.target.subscribe(user) if client.can(Capability.EVENTS) else None

        def look(call: str) -> None:
            is_closed = listener is not None and not listener.is_open and call not in ends_session
            if is_closed and not any(user in users for users in cut_off.values()):
                cut_off[call].append(user)

        for thread in threads_of(trial):
            await lives.use(await owner.make(thread=thread))
        made = list(owner.there)
        await client.remove("helper")
        look("remove")
        lives.cleanups.note(user, 1, "by the first remove")
        await _judge_removed(trial, lives.target, user, made)
        await lives.try_closed(owner.there.pop(), "its removal")
        for handle in owner.there[:1]:
            await lives.use(handle)
        made += [await owner.make(), await owner.make()]
        expected = len(owner.there)
        count = await client.reset()
        owner.there.clear()
        look("reset")
        trial.require(count == expected, "wrong-count", f"a reset of {expected} agents of {user!r} said {count}")
        lives.cleanups.note(user, owner.counted, "by the reset")
        for handle in made:
            await lives.try_closed(handle, "the reset")
        # The last one of all is removed, too; the session may go on, and with it its connections.
        await owner.make()
        await client.remove("helper")
        owner.there.clear()
        look(_LAST_REMOVED)
        last = await owner.make()
        if listener is not None and listener.is_open:
            thought = "after a reset and a removal"
            await client.run(last, Command("think", {"thoughts": [thought]}))
            heard = await trial.waiting.until(lambda: any(thought in event.body for event in listener.received()))
            if not heard and listener.is_open:
                deaf.append(user)
        if client.can(Capability.END):
            await client.end()
        else:
            await client.reset()
        lives.cleanups.note(user, owner.counted, "by the end" if client.can(Capability.END) else "by the last reset")

    await lives.all_at_once(live)
    for call, of in cut_off.items():
        sentence = f"a {call} closes clients of a session that goes on, those of {of[0]!r} and {len(of) - 1} more users"
        trial.find("connection-lost", sentence, *(f"client of {user!r}: closed after a {call}" for user in of))
    sentence = (
        f"{len(deaf)} users have open clients, and new agents' events do not reach them after the last one had gone"
    )
    trial.require(not deaf, "lost-event", sentence, *map(repr, deaf))
    lives.judge("removals")
    if not lives.can(Capability.END):
        await _beside_others(trial, lives.target)


async def _ended(trial: Trial) -> None:
    lives = _Lives(trial)
    await lives.open()

    async def live(user: str) -> None:
        owner = _Owner(lives, user)
        for agent_type in ("helper", "helper", "analyst"):
            await owner.make(agent_type)
        await lives.use(owner.there[-1])
        report = await owner.client.end()
        right = report.found and report.closed == len(owner.there)
        trial.require(
            right, "wrong-count", f"the end of {len(owner.there)} agents of {user!r} was reported as {report}"
        )
        await owner.client.end()
        lives.cleanups.note(user, owner.counted, "by the end")
        for handle in owner.there:
            await lives.try_closed(handle, "the end")

    if await lives.all_at_once(live):
        await _ended_with_all(lives)
    lives.judge("ends")
    await _beside_others(trial, lives.target)


async def _beside_others(trial: Trial, target: Target) -> None:
    able = target.capabilities
    ways = ("run", "remove", "reset", "end", "end_all")
    await explore_schedules(trial, closing_cores(able), cancelled_cores(ways, able))


async def _ended_with_all(lives: _Lives) -> None:
    """Let every user have an agent, and end all sessions by one call."""
    owners = [_Owner(lives, user) for user in lives.users]
    made = [await owner.make() for owner in owners]
    expected = {user: lives.cleanups.called[user] + 1 for user in lives.users}
    operator = lives.trial.client(lives.target, "the operator", "everybody")
    report = await operator.call("end_all", lives.target.end_all())
    right = report.found and report.closed == len(made)
    lives.trial.require(right, "wrong-count", f"the end of all, of {len(made)} agents, was reported as {report}")
    for user in lives.users:
        lives.cleanups.note(user, expected[user], "by the end of all")
    for handle in made:
        await lives.try_closed(handle, "the end of all")


async def _ending_calls(trial: Trial, target: Target) -> set[str]:
    """The calls by which a session may end with its last agent, and its clients with it."""
    client = trial.client(target, "the first user of all", "first")
    able = target.capabilities
    found = set()
    for call, close in ((_LAST_REMOVED, lambda: client.remove("helper")), ("reset", client.reset)):
        await client.create("helper")
        await close()
        if Capability.POPULATION in able:
            has_ended = target.population().sessions == 0
        else:
            has_ended = Capability.END not in able or not (await client.end()).found
        if has_ended:
            found.add(call)
    if Capability.END in able:
        await client.end()
    return found


async def _judge_figures(trial: Trial, target: Target, handle: Handle, rows: Sequence[Row]) -> None:
    """The agent's tools answer with its own user's rows, and with their sums."""
    user = handle.user
    for column in ("tokens_in", "tokens_out"):
        expected = sum(row[column] for row in rows)
        command = Command("tool", {"name": "total", "parameters": {"column": column}})
        found = await trial.client(target, f"client of {user}", user).run(handle, command)
        sentence = f"the tool's total of {column} for {user!r} is {found!r}; their rows sum to {expected}"
        trial.require(found == expected, "wrong-figure", sentence, *(f"{column}={row[column]}" for row in rows))
    answer = await target.run(handle, Command("tool", {"name": "rows"}))
    features = sorted(row["feature"] for row in answer)
    right = features == sorted(row["feature"] for row in rows)
    trial.require(right, "wrong-figure", f"the tool did not answer with the rows of {user!r}", features[:3])


async def _judge_removed(trial: Trial, target: Target, user: str, made: list[Handle]) -> None:
    """One of the agents, made in this order, was removed: only the newest may no longer work."""
    works = [await _attempt(target, handle) for handle in made]
    expected = ["answered None"] * (len(made) - 1)
    # The outcome of the newest is judged by its refusal; here: that none of the others was taken.
    sentence = f"removing the newest helper of {user!r} took another one"
    trial.require(
        works[:-1] == expected,
        "wrong-agent-removed",
        sentence,
        *(f"{handle.instance} (thread {handle.thread}): {answer}" for handle, answer in zip(made, works, strict=True)),
    )


async def _attempt(target: Target, handle: Handle) -> str:
    try:
        answer = await target.run(handle, Command("read", {"key": "a key that nobody writes"}))
    except Refused as refusal:
        return "closed" if refusal.kind is Refusal.CLOSED else f"refused: {refusal.kind}"
    except (Exception, asyncio.CancelledError) as error:
        return f"raised {type(error).__name__}: {error}"
    return f"answered {answer!r}"


CHECKS = (
    Check(
        name="agent_lifecycle_management_per_user",
        category="registration_management",
        claim="Agents are created, work on their user's data (the tools' figures are recomputed), are removed newest "
        "first, are closed exactly once, and refuse calls afterwards. A cleanup that fails stops nothing. The "
        "same holds when two callers close at once, in every order within the bound, and when one of them is "
        "cancelled at any of its awaits.",
        protects="stability",
        looks_like="A removed agent still answers on a connection somebody kept, and bills for it; its database "
        "handle was closed twice, the second time it was the handle of another customer that had got the same number.",
        body=(
            Part(
                "agents that are removed",
                _removed,
                frozenset({Capability.REMOVE}),
                planted=(
                    "RemoveTakesOldest",
                    "DoubleClose",
                    "CleanupSkippedOnRemove",
                    "CloseStopsAtFirstError",
                    "ResetForgetsSuperseded",
                    "UseAfterClose",
                    "CannedTool",
                    "ResetLosesClients",
                ),
            ),
            Part(
                "agents whose session ends",
                _ended,
                frozenset({Capability.END}),
                planted=(
                    "RemovedTwice",
                    "EndCutShort",
                    "OneLeftOver",
                    "EndOfAllStopsAtError",
                    "RunTurnLost",
                    "ReadsInOneTask",
                ),
            ),
        ),
        uses=frozenset(
            {
                Capability.CREATE_ANEW,
                Capability.END,
                Capability.EVENTS,
                Capability.GET_OR_CREATE,
                Capability.LOOKUP,
                Capability.POPULATION,
                Capability.REMOVE,
                Capability.TOOLS,
            }
        ),
    ),
)
