"""Checks of the category user_isolation."""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from itertools import pairwise
from typing import Any

from lab_utils.checks.isolation.aliasing import judge_aliasing, spoil
from lab_utils.checks.isolation.identities import judge_identities
from lab_utils.checks.isolation.interrupted import CHECKS as INTERRUPTED
from lab_utils.checks.isolation.leaks import CHECKS as LEAK_CHECKS
from lab_utils.checks.isolation.reachable import judge_reach
from lab_utils.checks.isolation.traces import judge_traces
from lab_utils.judges.isolation import (
    Seen,
    distinct_objects,
    foreign_canaries,
    holds_only_others,
    own_answers,
    same_after_mutation,
)
from lab_utils.target import Capability, Command, Handle, Recipe, Refusal, Refused, Target
from lab_utils.trial import ASKED, LAB, Check, Client, Part, Trial
from lab_utils.values.canaries import Writers
from lab_utils.values.history import OpType
from lab_utils.values.workload import canary, hostile_pairs, rows_for

__all__ = ["CHECKS"]

_NO_IDS: tuple[object, ...] = (
    *(None, 0, False, b"ada", "", " ada", "ada ", "a\nda", "ada\x00", "a" * 10_000),
    # White space, a control character and half of a letter, none of them ASCII.
    *("\u3000ada", "ada\xa0", "a\x85da", "ada\udc80"),
)
"""Values that are no user ids."""
_Mutation = tuple[str, str, Any, Any]
"""The anomaly, the changed object in words, what must be there, and what is there."""


async def _distinct(trial: Trial) -> None:
    # Three at least: the first two are one up to a separator, the first and the third without case.
    users = trial.neighbours(max(3, int(trial.parameters["users"])))
    types = [f"helper-{number}" for number in range(int(trial.parameters["agents_per_user"]))]
    target = await trial.target([Recipe(name) for name in types])

    has_parts = Capability.PARTS in target.capabilities
    made: dict[tuple[str, str], Handle] = {}

    async def fill(user: str) -> None:
        client = trial.client(target, f"client of {user}", user)
        for agent_type in types:
            made[user, agent_type] = await client.create(agent_type)

    failures = [failure for failure in await trial.waiting.together(map(fill, users)) if failure is not None]
    trial.require(not failures, "failed-operation", "creating agents failed", *failures)
    parts: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for user in users:
        client = trial.client(target, f"client of {user}", user)
        for agent_type in types:
            handle = await _found(client, made.get((user, agent_type)), agent_type)
            if handle is None:
                trial.find("lost-agent", f"{user!r} does not find their {agent_type}", *trial.history.where(user=user))
                continue
            for kind, part in (await target.parts(handle)).items() if has_parts else ():
                parts[kind][user].append(part)
    if has_parts:
        trial.judge(distinct_objects(parts))
    else:
        trial.leave_out("the objects behind agents, which the target does not show (parts)")
    trial.judge(own_answers(trial.history))
    if Capability.POPULATION in target.capabilities:
        population = target.population()
        expected = (len(users), len(users) * len(types))
        found = (population.sessions, population.agents)
        trial.require(found == expected, "wrong-count", f"the target holds {found}, made were {expected}", population)
    trial.measure("agents created", len(users) * len(types), "agents")


async def _found(client: Client, handle: Handle | None, agent_type: str) -> Handle | None:
    """The agent that the user finds; where the target has no lookup, the answer of the create."""
    return await client.get(agent_type) if client.can(Capability.LOOKUP) else handle


async def _waits(_: str) -> None:
    """User code that waits, for a database perhaps: all others are at work meanwhile."""
    for _turn in range(2):
        await asyncio.sleep(0)


async def _contamination(trial: Trial) -> None:
    users = trial.user_ids(int(trial.parameters["users"]))
    types = [f"helper-{number}" for number in range(int(trial.parameters["agents_per_user"]))]
    rows = {user: rows_for(user, 3, trial.rng) for user in users}
    recipes = [Recipe(name, on_create=_waits, on_run=_waits) for name in (*types, "bare")]
    target = await trial.target(recipes, rows)
    can = target.capabilities
    clients = {user: target.subscribe(user) for user in users} if Capability.EVENTS in can else {}
    made: dict[tuple[str, str], Handle] = {}
    seen: list[Seen] = []
    mutations: list[_Mutation] = []
    roots: dict[str, dict[str, object]] = {user: {} for user in users}

    async def write(user: str) -> None:
        client = trial.client(target, f"client of {user}", user)
        for agent_type in types:
            handle = made[user, agent_type] = await _spoiled_data(trial, client, agent_type, mutations)
            await _spoiled_memory(client, handle, mutations)
            await client.run(handle, Command("think", {"thoughts": [canary(user, "thought", 0)]}))
        if Capability.CONTEXT_DATA in can:
            inside = await client.run(await client.create("bare"), Command("context"))
            sentence = f"an agent of {user!r} that was made without data holds the data of another agent"
            trial.require(not [*Writers(users).of(inside)], "wrong-context", sentence, inside)

    commands = [Command("recall")]
    commands += [Command("context")] if Capability.CONTEXT_DATA in can else []
    commands += [Command("tool", {"name": "rows"})] if Capability.TOOLS in can else []

    async def read(user: str) -> None:
        client = trial.client(target, f"client of {user}", user)
        for agent_type in types:
            handle = await _found(client, made.get((user, agent_type)), agent_type)
            if handle is None:
                trial.find("lost-agent", f"{user!r} does not find their {agent_type}", *trial.history.where(user=user))
                continue
            for command in commands:
                seen.append(Seen(user, f"{command.action} of {agent_type}", await client.run(handle, command)))
            try:
                await client.run(handle, Command("fail", {"message": canary(user, "error", 0)}))
            except RuntimeError as error:
                seen.append(Seen(user, f"an error of {agent_type}", str(error)))
            for kind, part in (await target.parts(handle)).items() if Capability.PARTS in can else ():
                # A session is never in an agent's hands: it is distinct by the check above, and no root here.
                if kind != "session" and part is not None:
                    roots[user][f"agents[{agent_type!r}].{kind}"] = part

    for stage in (write, read):
        failures = [answer for answer in await trial.waiting.together(map(stage, users)) if answer is not None]
        trial.require(not failures, "failed-operation", f"{stage.__name__} failed", *failures)
    events = [Seen(user, "an event", event.body) for user, one in clients.items() for event in one.received()]
    seen += [Seen(user, "the repr of its content", repr(part)) for user in users for part in roots[user].values()]
    written = len(users) * len(types) * 20
    trial.judge(same_after_mutation(mutations))
    trial.judge(foreign_canaries(seen, users, written))
    if clients:
        # On their own: silence proves nothing for clients that were sent nothing.
        trial.judge(foreign_canaries(events, users, len(users) * len(types)))
    # The answers are judged without it: a store behind a database has answers, and nothing to walk.
    if Capability.PARTS in can:
        in_reach = judge_reach(trial, target, roots, users, written)
    else:
        in_reach = 0
        trial.leave_out("the objects users can reach by references (the target lacks: parts)")
    await judge_aliasing(trial)
    await judge_traces(trial)
    trial.measure("foreign data seen", sum(f.anomaly == "cross-user-data" for v in trial.verdicts for f in v.findings),
                  "canaries", ASKED("==", 0), LAB("==", 0), anomaly="cross-user-data")  # fmt: skip
    trial.measure("values looked at", len(seen) + len(events) + in_reach, "values")


async def _spoiled_data(trial: Trial, client: Client, agent_type: str, mutations: list[_Mutation]) -> Handle:
    """Make an agent on data that is changed afterwards: its context must hold what was handed in."""
    handed_in = client.nested(agent_type)
    expected = copy.deepcopy(handed_in)
    handle = await client.create(agent_type, data=handed_in)
    spoil(handed_in)
    if client.can(Capability.CONTEXT_DATA):
        inside = await client.run(handle, Command("context"))
        if holds_only_others(expected, inside):
            sentence = f"the context of {agent_type} of {client.user!r} holds only the data of another agent"
            trial.find("wrong-context", sentence, f"handed in: {expected!r}", f"in the context: {inside!r}")
        else:
            mutations.append(("aliased-input", f"the data that {client.user!r} had passed in", expected, inside))
    return handle


async def _spoiled_memory(client: Client, handle: Handle, mutations: list[_Mutation]) -> None:
    """Write a value and change it afterwards, then change the answer that brings it: the memory keeps it as it was."""
    value = client.nested(f"{handle.agent_type} memory")
    kept = copy.deepcopy(value)
    await client.run(handle, Command("write", {"key": "note", "value": value}))
    spoil(value)
    answer = await client.run(handle, Command("read", {"key": "note"}))
    answered = copy.deepcopy(answer)
    mutations.append(("aliased-input", f"a value that {client.user!r} had written", kept, answered))
    spoil(answer)
    again = await client.run(handle, Command("read", {"key": "note"}))
    # Compared to the answer, not to the value: that may have been changed from outside before.
    mutations.append(("aliased-output", f"an answer that {client.user!r} had received", answered, again))


async def _boundaries(trial: Trial) -> None:
    drawn = trial.user_ids(int(trial.parameters["users"]))
    # Each pair of two users once, and no user with itself.
    hostile = [pair for pair in hostile_pairs() if not trial.refused_ids.intersection(pair)]
    users = list(dict.fromkeys([*drawn, *(user for pair in hostile for user in pair)]))
    both = frozenset({"vault", "board"})
    recipes = [Recipe("helper"), Recipe("vault", requires=frozenset({"vault"})), Recipe("board", requires=both)]
    rows = {user: rows_for(user, 2, trial.rng) for user in users}
    target = await trial.target(recipes, rows)
    pairs = [*hostile, *pairwise(users)]
    for user, other in pairs:
        client = trial.client(target, f"client of {user}", user)
        await _refused(trial, target, Refusal.BOUNDARY, f"{user!r} with the context of {other!r}",
                       client.create("helper", context_user=other), (user, other))  # fmt: skip
    for user in users:
        client = trial.client(target, f"client of {user}", user)
        await _refused(trial, target, Refusal.PERMISSION, f"{user!r} without the permission",
                       client.create("vault"), (user,))  # fmt: skip
        await _refused(trial, target, Refusal.PERMISSION, f"{user!r} with one permission of two",
                       client.create("board", permissions=frozenset({"vault"})), (user,))  # fmt: skip
        await _refused(trial, target, Refusal.UNKNOWN_TYPE, f"{user!r} with an unknown type",
                       client.create("hepler"), (user,))  # fmt: skip
    for wrong in _NO_IDS:
        client = trial.client(target, "a client of nobody", repr(wrong))
        await _refused(trial, target, Refusal.INVALID_USER, f"user id {wrong!r}",
                       client.call("create", target.create(wrong, "helper")), ())  # type: ignore[arg-type]  # fmt: skip
    await _own_use(trial, target, users)
    refused = len(trial.history.where(action="create", type=OpType.FAIL))
    trial.measure("refused attempts", refused, "attempts")


async def _refused(
    trial: Trial, target: Target, kind: Refusal, what: str, work: Awaitable[Any], users: Sequence[str]
) -> None:
    """Require a refusal of this kind that leaves nothing behind."""
    before = target.population()
    try:
        answer = await work
    except Refused as refusal:
        sentence = f"{what}: refused as {refusal.kind}, expected {kind}"
        trial.require(refusal.kind is kind, "wrong-refusal", sentence, refusal)
    except Exception as error:
        sentence = f"{what}: raised {type(error).__name__}, expected a refusal as {kind}"
        trial.find("wrong-refusal", sentence, repr(error))
    else:
        trial.find("not-refused", f"{what}: not refused ({kind} expected)", trial.history[-1], answer)
        return
    after = target.population()
    trial.require(before == after, "left-behind", f"{what}: the refusal left something behind", before, after)
    for user in users:
        found = await target.get(user, "helper")
        trial.require(found is None, "left-behind", f"{what}: {user!r} now has an agent", found)


async def _own_use(trial: Trial, target: Target, users: Sequence[str]) -> None:
    """Permitted calls work, and an agent's forbidden calls are refused."""
    for user in users:
        client = trial.client(target, f"client of {user}", user)
        allowed = await client.get_or_create("vault", permissions=frozenset({"vault"}))
        try:
            again = await client.get_or_create("vault")
        except Refused as refusal:
            trial.require(refusal.kind is Refusal.PERMISSION, "wrong-refusal", "a hit without permission", refusal)
        else:
            sentence = f"{user!r} found the agent although this context lacks the permission"
            trial.find("not-refused", sentence, allowed, again)
        for name, kind in (("admin", Refusal.PERMISSION), ("delete_all", Refusal.UNKNOWN_TOOL)):
            try:
                answer = await client.run(allowed, Command("tool", {"name": name}))
            except Refused as refusal:
                trial.require(refusal.kind is kind, "wrong-refusal", f"tool {name!r}: {refusal.kind}", refusal)
            else:
                trial.find("not-refused", f"{user!r} ran the tool {name!r}", answer)
        other = next(each for each in users if each != user)
        foreign = {"name": "rows", "parameters": {"user_id": other, "user": other}}
        answer = await client.run(allowed, Command("tool", foreign))
        trial.judge(foreign_canaries([Seen(user, "rows asked for another user", answer)], users, 2))


_REFUSALS = frozenset(
    {
        Capability.PERMISSIONS,
        Capability.POPULATION,
        Capability.TOOLS,
        Capability.GET_OR_CREATE,
        Capability.LOOKUP,
    }
)

CHECKS = (
    Check(
        name="per_user_agent_registry_isolation_validation",
        category="user_isolation",
        claim="Sessions, agents, dispatchers, bridges and contexts are distinct over all pairs of users.",
        protects="data",
        looks_like=(
            "Two customers' agents share a tool dispatcher: the second caller works on the first one's rows, and "
            "every test with one user passes."
        ),
        body=_distinct,
        planted=("SharedDispatcher", "CaseFoldedKeys", "JoinedKeys"),
        uses=frozenset({Capability.LOOKUP, Capability.PARTS, Capability.POPULATION}),
        extra_markers=frozenset({"enterprise_critical"}),
    ),
    # The longest comes early: in a batch it would be the last one at work.
    *INTERRUPTED,
    *LEAK_CHECKS,
    Check(
        name="shared_state_contamination_detection",
        category="user_isolation",
        claim=(
            "Values that one user writes, nested and of every type, never appear in anything that another user "
            "reads, receives or can reach, also while the code of many users waits, nor in the log records, reprs "
            "and errors of another user's work; no log record without an owner holds values of two users. Changing an "
            "object after passing it in, or after receiving it, changes nothing that any user reads later."
        ),
        protects="data",
        looks_like=(
            "A default argument, a cache, a shallow copy: for weeks nothing happens, then one customer's prompt shows "
            "up in another one's answer, and nobody can say since when."
        ),
        body=_contamination,
        planted=(
            "AliasedContext",
            "ContextOfTheFirst",
            "DataOfTheAgentBefore",
            "SharedMemory",
            "ServesTheLastCaller",
            "MakesForTheLastCaller",
            "CacheWithoutUser",
            "AliasedAnswers",
            "CounterInClosure",
            "SharedBuffer",
            "SharedEmptyDict",
            "SharedGenerator",
            "ViewOfAnothers",
            "BoundToTheFirst",
            "ListInContextVar",
            "HistoryOnTheClass",
            "RowsInModuleCache",
            "MemoizedMethod",
            "SourceRowsAnswered",
            "ListsLent",
            "ContextLent",
            "FlatValuesLent",
            "CopiedToADepth",
            "LongListsLent",
            "MetAgainLent",
            "NumbersPooled",
            "LoggerOfTheFirst",
            "ErrorsLoggedInBatches",
            "ErrorsLoggedByAPool",
            "ErrorsLoggedByAThread",
            "BreakerKeepsTheCause",
            "OneRefusalForAll",
            "NeighboursInRepr",
        ),
        uses=frozenset(
            {
                Capability.ANY_VALUES,
                Capability.CONTEXT_DATA,
                Capability.END,
                Capability.EVENTS,
                Capability.LOOKUP,
                Capability.PARTS,
                Capability.TOOLS,
            }
        ),
        extra_markers=frozenset({"enterprise_critical"}),
    ),
    Check(
        name="user_context_boundary_enforcement",
        category="user_isolation",
        claim=(
            "A foreign context, a missing permission, an unknown type or tool, and an invalid user id are refused "
            "with the right error, and a refusal leaves nothing behind. Every call that takes an id keeps ids apart "
            "that look alike or claim to be equal."
        ),
        protects="compliance",
        looks_like=(
            "A support engineer's token is checked once; the agent that it made is then found by everyone of that "
            "user, with or without the permission, and refused requests pile up as empty sessions."
        ),
        body=(
            Part(
                "contexts, permissions, types and tools",
                _boundaries,
                _REFUSALS,
                planted=(
                    "NoBoundaryCheck",
                    "PermissionOnlyAtCreate",
                    "OnePermissionOfTwo",
                    "SessionBeforeTheCheck",
                    "StrippedUserIds",
                    "IdsCheckedAsASCII",
                ),
            ),
            Part(
                "user ids that are wrong or read alike",
                judge_identities,
                frozenset({Capability.END}),
                planted=(
                    "EqualityBelieved",
                    "FoundByEquality",
                    "PlansFolded",
                    "EndFoldsForms",
                    "TruncatedIds",
                ),
            ),
        ),
        uses=_REFUSALS | {Capability.END, Capability.EVENTS, Capability.REMOVE, Capability.SUPERVISION},
        extra_markers=frozenset({"enterprise_critical"}),
    ),
)
