"""The check of the category registration_management that follows agents from their making to their end."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence

from lab_utils.checks.registration.cores import cancelled_cores, closing_cores
from lab_utils.checks.registration.schedules import explore_schedules
from lab_utils.judges.counts import closed_once, refused_after_close
from lab_utils.target import Capability, Command, Handle, Recipe, Refusal, Refused, Row, Target
from lab_utils.trial import Check, Trial
from lab_utils.trial.faults import NO_CLEANUPS, Failure, OnlyFor, counted
from lab_utils.values.workload import rows_for

__all__ = ["CHECKS", "threads_of"]

_ROWS_EACH = 12
_LAST_REMOVED = "remove of the last agent"
_THREADS = ("main", "Main", "main:1", "1", "01")


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


async def _lifecycle(trial: Trial) -> None:
    users = trial.user_ids(int(trial.parameters["users"]))
    rows = {user: rows_for(user, _ROWS_EACH, trial.rng) for user in users}
    cleanups = _Cleanups()
    # The cleanup of one user always fails: it must be called as often as the others', and stop nothing. Others come
    # before and after, in whatever order all are ended.
    failing = OnlyFor({users[len(users) // 2]: Failure("this cleanup fails")})
    target = await trial.target(
        [Recipe("helper", on_cleanup=counted(cleanups.called, failing)), Recipe("analyst")], rows
    )
    attempts: list[tuple[str, str]] = []

    async def use(handle: Handle, user: str) -> None:
        await _judge_figures(trial, target, handle, rows[user])

    async def try_closed(handle: Handle, when: str) -> None:
        attempts.append((f"a run of {handle.user}'s {handle.instance} after {when}", await _attempt(target, handle)))

    # Call after which clients are closed, or receive nothing -> their users.
    cut_off: dict[str, list[str]] = defaultdict(list)
    deaf: list[str] = []

    ends_session = await _ending_calls(trial, target)

    async def live(user: str) -> None:
        client = trial.client(target, f"client of {user}", user)
        listener = target.subscribe(user) if client.can(Capability.EVENTS) else None

        def look(call: str) -> None:
            is_closed = listener is not None and not listener.is_open and call not in ends_session
            if is_closed and not any(user in users for users in cut_off.values()):
                cut_off[call].append(user)

        made = [await client.create("helper", thread=thread) for thread in threads_of(trial)]
        for handle in made:
            await use(handle, user)
        await client.remove("helper")
        look("remove")
        cleanups.note(user, 1, "by the first remove")
        await _judge_removed(trial, target, user, made)
        await try_closed(made[-1], "its removal")
        await use(made[0], user)
        made += [await client.create("helper"), await client.create("helper")]
        count = await client.reset()
        look("reset")
        expected = len(made) - 1
        trial.require(count == expected, "wrong-count", f"a reset of {expected} agents of {user!r} said {count}")
        cleanups.note(user, len(made), "by the reset")
        for handle in made:
            await try_closed(handle, "the reset")
        # The last one of all is removed, too; the session may go on, and with it its connections.
        await client.create("helper")
        await client.remove("helper")
        look(_LAST_REMOVED)
        again = [await client.create("helper"), await client.create("helper"), await client.create("analyst")]
        await use(again[-1], user)
        if listener is not None and listener.is_open:
            thought = "after a reset and a removal"
            await client.run(again[0], Command("think", {"thoughts": [thought]}))
            heard = await trial.waiting.until(lambda: any(thought in event.body for event in listener.received()))
            if not heard and listener.is_open:
                deaf.append(user)
        report = await client.end()
        right = report.found and report.closed == len(again)
        trial.require(right, "wrong-count", f"the end of {len(again)} agents of {user!r} was reported as {report}")
        await client.end()
        cleanups.note(user, len(made) + 3, "by the end")
        for handle in again:
            await try_closed(handle, "the end")

    failures = [failure for failure in await trial.waiting.together(map(live, users)) if failure is not None]
    for call, of in cut_off.items():
        sentence = f"a {call} closes clients of a session that goes on, those of {of[0]!r} and {len(of) - 1} more users"
        trial.find("connection-lost", sentence, *(f"client of {user!r}: closed after a {call}" for user in of))
    sentence = (
        f"{len(deaf)} users have open clients, and new agents' events do not reach them after the last one had gone"
    )
    trial.require(not deaf, "lost-event", sentence, *map(repr, deaf))
    trial.require(not failures, "failed-operation", "a user's operations failed", *map(repr, failures))
    if not failures:
        for handle in await _ended_with_all(trial, target, users, cleanups):
            await try_closed(handle, "the end of all")
    cleanups.judge(trial)
    trial.judge(refused_after_close(attempts))
    population = target.population()
    trial.require(population.agents == 0, "wrong-count", "everybody has gone, and agents are left", population)
    trial.measure("agents made and closed", cleanups.called.total(), "agents")
    able = target.capabilities
    ways = ("run", "remove", "reset", "end", "end_all")
    await explore_schedules(trial, closing_cores(able), cancelled_cores(ways, able))


async def _ended_with_all(trial: Trial, target: Target, users: Sequence[str], cleanups: _Cleanups) -> list[Handle]:
    """Let every user have an agent, and end all sessions by one call; return the agents."""
    clients = [trial.client(target, f"client of {user}", user) for user in users]
    made = [await client.create("helper") for client in clients]
    expected = {user: cleanups.called[user] + 1 for user in users}
    operator = trial.client(target, "the operator", "everybody")
    report = await operator.call("end_all", target.end_all())
    right = report.found and report.closed == len(made)
    trial.require(right, "wrong-count", f"the end of all, of {len(made)} agents, was reported as {report}")
    for user in users:
        cleanups.note(user, expected[user], "by the end of all")
    return made


async def _ending_calls(trial: Trial, target: Target) -> set[str]:
    """The calls by which a session ends with its last agent, as it may, and its clients with it."""
    client = trial.client(target, "the first user of all", "first")
    found = set()
    for call, close in ((_LAST_REMOVED, lambda: client.remove("helper")), ("reset", client.reset)):
        await client.create("helper")
        await close()
        if target.population().sessions == 0:
            found.add(call)
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
        body=_lifecycle,
        planted=(
            "RemoveTakesOldest",
            "DoubleClose",
            "CleanupSkippedOnRemove",
            "CloseStopsAtFirstError",
            "ResetForgetsSuperseded",
            "UseAfterClose",
            "CannedTool",
            "RemovedTwice",
            "EndCutShort",
            "OneLeftOver",
            "EndOfAllStopsAtError",
            "ResetLosesClients",
        ),
        uses=frozenset({Capability.EVENTS, Capability.GET_OR_CREATE, Capability.LOOKUP}),
        needs=frozenset(
            {
                Capability.CREATE_ANEW,
                Capability.REMOVE,
                Capability.END,
                Capability.TOOLS,
                Capability.THREADS,
                Capability.POPULATION,
            }
        ),
    ),
)
