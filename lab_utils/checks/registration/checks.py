"""Checks of the category registration_management."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any

from lab_utils.checks.registration import lifecycle, races, teardown
from lab_utils.checks.registration.absent import judge_absent
from lab_utils.checks.registration.keys import judge_keys
from lab_utils.checks.registration.lifecycle import threads_of
from lab_utils.judges.counts import Reading, answers_follow, population_follows
from lab_utils.judges.isolation import Seen, foreign_canaries, own_answers
from lab_utils.judges.lookups import lookups_find_newest
from lab_utils.target import Capability, Command, Handle, Recipe, Refused, Target
from lab_utils.trial import Check, Client, Trial
from lab_utils.trial.faults import Failure, planned_in
from lab_utils.values.history import OpType
from lab_utils.values.workload import canary

__all__ = ["CHECKS"]


async def _registration(trial: Trial) -> None:
    users = trial.user_ids(int(trial.parameters["users"]))
    threads = threads_of(trial)
    target = await trial.target(
        [Recipe("helper"), Recipe("analyst"), Recipe("flaky", on_create=Failure("this factory never works"))]
    )
    able = target.capabilities
    if Capability.POPULATION not in able:
        trial.leave_out(f"the counts after each step (the target lacks: {Capability.POPULATION})")
    if Capability.CONTEXT_DATA not in able:
        trial.leave_out(f"each agent's context (the target lacks: {Capability.CONTEXT_DATA})")
    readings: list[Reading] = []
    seen: list[Seen] = []

    async def step(work: Awaitable[Any]) -> Any:
        answer = None
        try:
            answer = await trial.waiting.ends(work, "an operation")
        except Refused:
            pass  # The program asks for refusals too: the counts after each are judged.
        except Exception as error:
            if planned_in(error) is None:
                raise
        if Capability.POPULATION in able:
            population = target.population()
            readings.append(Reading(trial.next_position(), population.sessions, population.agents))
        return answer

    async def use(handle: Handle) -> None:
        """Ask for the agent's context, or at least let it begin: some agents count from their first run on."""
        with suppress(Refused):
            if Capability.CONTEXT_DATA in able:
                context = await target.run(handle, Command("context"))
                seen.append(Seen(handle.user, "its agent's context", context))
            else:
                await target.run(handle, Command("write", {"key": "begun", "value": "by a run"}))

    programs = [_program(trial, trial.client(target, f"client of {user}", user), threads) for user in users]
    while programs:
        # One operation at a time, so that every count is exact; users take turns as the seed has it.
        program = trial.rng.choice(programs)
        work = next(program, None)
        if work is None:
            programs.remove(program)
            continue
        answer = await step(work)
        if isinstance(answer, Handle):
            await use(answer)
    if Capability.POPULATION in able:
        trial.judge(population_follows(trial.history, readings))
        trial.measure("counts compared", len(readings), "counts")
    elif able.issuperset({Capability.REMOVE}) or able.issuperset({Capability.END}):
        trial.judge(answers_follow(trial.history))
    if Capability.CONTEXT_DATA in able:
        trial.judge(foreign_canaries(seen, users, len(users)))
    trial.judge(own_answers(trial.history))
    left = len(trial.history.where(type=OpType.OK))
    trial.measure("operations that took effect", left, "operations")


def _program(trial: Trial, client: Client, threads: list[str]) -> Any:
    """One user's work, one operation at a time; every attempt that must leave nothing comes before and after."""
    user, first = client.user, threads[0]
    data = client.nested("context")
    can_find, can_refuse = client.can(Capability.LOOKUP), client.can(Capability.PERMISSIONS)
    can_remove, can_end = client.can(Capability.REMOVE), client.can(Capability.END)
    if can_find:
        yield client.get("helper")
    if can_refuse:
        yield client.create("helper", context_user=f"not-{user}")
    yield client.create("no-such-type")
    yield client.create("flaky", data=data)
    for thread in threads:
        yield client.create("helper", thread=thread, data=data)
    if can_refuse:
        yield client.create("helper", context_user=f"not-{user}")
    if can_find:
        yield client.get("helper", "unused-thread")
    yield client.create("helper", thread=first, data=data)
    yield client.create("analyst", thread=first, data=data, connect=False)
    yield client.create("flaky", data=data)
    if can_remove:
        yield client.remove("helper")
        yield client.remove("analyst")
        yield client.remove("analyst")
        yield client.reset()
        yield client.reset()
    yield client.create("flaky", data=data)
    yield client.create("helper", data=data)
    if (trial.rng.random() < 0.5 or not can_remove) and can_end:
        yield client.end()
        yield client.end()
        if can_find:
            yield client.get("helper")
        yield client.create("flaky", data=data)
        yield client.end()


async def _retrieval(trial: Trial) -> None:
    users = trial.user_ids(int(trial.parameters["users"]))
    target = await trial.target([Recipe("helper"), Recipe("analyst")])
    has_threads = Capability.THREADS in target.capabilities
    threads = threads_of(trial) if has_threads else ["main"]
    if not has_threads:
        trial.leave_out("several threads of one user (the target lacks: threads)")
    made: dict[tuple[str, str, str], Handle] = {}

    memos = {
        (user, agent_type, thread): _memo(user, agent_type, thread)["value"]
        for user in users
        for agent_type in ("helper", "analyst")
        for thread in threads
    }

    async def live(user: str) -> None:
        client = trial.client(target, f"client of {user}", user)
        for agent_type in ("helper", "analyst"):
            for thread in trial.rng.sample(threads, len(threads)):
                handle = made[user, agent_type, thread] = await client.create(agent_type, thread=thread)
                await client.run(handle, Command("write", _memo(user, agent_type, thread)))
        await look(client)
        if client.can(Capability.CREATE_ANEW, Capability.REMOVE):
            await client.create("helper", thread=trial.rng.choice(threads))
            await look(client)
            await client.remove("helper")
            await look(client)
        for agent_type in ("helper", "analyst"):
            for thread in threads:
                found = await find(client, agent_type, thread)
                read = None if found is None else await client.run(found, Command("read", {"key": "memo"}))
                written = _memo(user, agent_type, thread)["value"]
                others = {value for (owner, *_), value in memos.items() if owner != user}
                anomaly, what = ("cross-thread-data", "another's") if has_threads else ("wrong-answer", "another one")
                if read is None:
                    anomaly, what = "lost-agent", "nothing"
                elif read in others:
                    anomaly, what = "cross-user-data", "another user's"
                place = f" in thread {thread!r}" if has_threads else ""
                sentence = f"{user!r} wrote one memo to each {agent_type} and read {what}{place}"
                trial.require(read == written, anomaly, sentence, f"wrote {written}", f"read {read}")

    async def find(client: Client, agent_type: str, thread: str) -> Handle | None:
        if client.can(Capability.LOOKUP):
            found = await client.get(agent_type, thread)
            if found is not None and client.can(Capability.GET_OR_CREATE):
                again = await client.get_or_create(agent_type, thread)
                sentence = f"get_or_create of {agent_type} of {client.user!r} in {thread!r} gave another agent than get"
                anomaly = "double-activation" if again.thread == thread else "wrong-thread"
                trial.require(again.instance == found.instance, anomaly, sentence, found, again)
            return found
        if client.can(Capability.GET_OR_CREATE):
            return await client.get_or_create(agent_type, thread)
        return made[client.user, agent_type, thread]

    async def look(client: Client) -> None:
        if not client.can(Capability.LOOKUP):
            return
        for agent_type in ("helper", "analyst"):
            for thread in (*threads, None, *(["unused-thread"] if has_threads else [])):
                await client.get(agent_type, thread)

    failures = [failure for failure in await trial.waiting.together(map(live, users)) if failure is not None]
    trial.require(not failures, "failed-operation", "a user's operations failed", *failures)
    trial.judge(own_answers(trial.history))
    if Capability.LOOKUP in target.capabilities:
        trial.judge(lookups_find_newest(trial.history))
    await judge_keys(trial)
    # Last, for it takes longest: a calibration ends with the finding that it must make.
    if Capability.LOOKUP in target.capabilities:
        await _strangers(trial, target, users)
    trial.measure("lookups", len(trial.history.where(action="get")), "lookups")


async def _strangers(trial: Trial, target: Target, users: Sequence[str]) -> None:
    """Require that looking up something that is not there finds nothing, and makes nothing if the target reports its
    counts."""
    counted = Capability.POPULATION in target.capabilities
    before = target.population() if counted else None
    for user in users:
        stranger = trial.client(target, "a stranger", f"not-{user}")
        trial.require(await stranger.get("helper") is None, "phantom-agent", f"{stranger.user!r} has an agent")
        found = await trial.client(target, f"client of {user}", user).get("no-such-type")
        trial.require(found is None, "phantom-agent", f"{user!r} has an agent of a type that nobody made")
    after = target.population() if counted else None
    trial.require(
        before == after, "lookup-created", "looking up something that is not there changed the counts", before, after
    )
    await judge_absent(trial, target)


def _memo(user: str, agent_type: str, thread: str) -> dict[str, str]:
    return {"key": "memo", "value": canary(user, f"{agent_type} in {thread}", 0)}


CHECKS = (
    Check(
        name="agent_registration_with_user_context_isolation",
        category="registration_management",
        claim="After every step of many users, the counts of sessions and agents are exact, whether the step "
        "succeeded, was refused or failed, and each agent holds its own user's context.",
        protects="stability",
        looks_like="The dashboard says 1,204 sessions, and nobody knows why 300 of them have no agent: a bot looked "
        "up strangers, and each lookup made a session. Two weeks later the limit is reached, and customers who "
        "pay are turned away.",
        body=_registration,
        planted=("LookupCreates", "DriftingCounter", "GhostSession"),
        uses=frozenset(
            {
                Capability.ANY_VALUES,
                Capability.CONTEXT_DATA,
                Capability.END,
                Capability.LOOKUP,
                Capability.PERMISSIONS,
                Capability.POPULATION,
                Capability.REMOVE,
            }
        ),
        one_of=frozenset({Capability.CONTEXT_DATA, Capability.END, Capability.POPULATION, Capability.REMOVE}),
    ),
    Check(
        name="agent_retrieval_by_user_and_thread_isolation",
        category="registration_management",
        claim="Every lookup finds the user's newest agent of that type in that thread, or none. A lookup of a user, "
        "type or thread that does not exist creates nothing and stores nothing of the request. Two keys stay "
        "apart even if they are the same text when joined, by any one or two of the usual separators in any order, and "
        "so do the runs of two users who choose the same run id.",
        protects="data",
        looks_like="A customer has two conversations open, one about an acquisition that nobody may know of. In the "
        "other one, shared with the whole team, the assistant goes on where the first left off: agents were found "
        "by type, and the thread was accepted and ignored.",
        body=_retrieval,
        planted=(
            "ThreadIgnored",
            "CaseFoldedThreads",
            "DefaultThreadOnly",
            "OldestFound",
            "CountingMakesEntry",
            "UnknownRemembered",
            "ThreadLookupMakesEntry",
            "MissesCached",
            "RefusedTypesCounted",
            "RefusedIdsRemembered",
            "RefusedStrictRemembered",
            "MainIsAnyThread",
            "JoinedByColon",
            "JoinedByDashTypeFirst",
            "JoinedByNothing",
            "JoinedByDotInUser",
            "JoinedBySlashAndColon",
            "JoinedWithoutMain",
            "TypesByTheirBeginning",
            "MemoryByJoinedKey",
            "MakingsByJoinedKey",
            "EndsByJoinedKey",
            "SecondOfAKeyRefused",
            "AnswersByRunId",
            "ChannelByRunId",
            "DuplicatesByRunId",
            "RunsJoinedById",
            "TypesWithoutCase",
            "ThreadsNormalised",
            "ThreadsCut",
            "RowsInFlightByMailbox",
            "RowsInFlightByName",
            "RowsInFlightWithoutAccents",
            "CreatesInFlightJoined",
            "CreatesInFlightByThread",
            "CreatesInFlightOfUser",
            "CreatesInFlightByMailbox",
            "QuestionsWaitingByMailbox",
            "MailAddressesFolded",
            "DigitsReadAsNumbers",
            "WildcardTopics",
            "EndsByPattern",
            "MailboxesWithoutThreads",
        ),
        uses=frozenset(
            {
                Capability.CREATE_ANEW,
                Capability.END,
                Capability.EVENTS,
                Capability.GET_OR_CREATE,
                Capability.LOOKUP,
                Capability.MODEL,
                Capability.PERMISSIONS,
                Capability.POPULATION,
                Capability.REMOVE,
                Capability.RUN_IDS,
                Capability.STRICT,
                Capability.THREADS,
                Capability.TOOLS,
            }
        ),
    ),
    *lifecycle.CHECKS,
    *races.CHECKS,
    *teardown.CHECKS,
)
