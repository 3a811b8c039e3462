"""Checks of the category memory_management."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, ContextVar
from weakref import ReferenceType, ref

from lab_utils.checks.memory import long_running
from lab_utils.checks.memory.capacity import CHECKS as CAPACITY
from lab_utils.checks.memory.incidents import judge_incidents
from lab_utils.checks.memory.interruptions import judge_interruptions
from lab_utils.checks.memory.leak_hunt import (
    MOST_ASKED_BYTES,
    MOST_BYTES,
    MOST_BYTES_AN_OPERATION,
    Caller,
    LeakHunt,
    attempt,
    in_a_moment,
)
from lab_utils.checks.memory.work import operate, write_note
from lab_utils.probes.memory import Memory, memory_now
from lab_utils.target import Capability, Command, Handle, Recipe, Refused, Target
from lab_utils.trial import ASKED, LAB, Body, Check, Client, Part, Trial
from lab_utils.trial.faults import UNKNOWN_TOOL, Failure, Gate
from lab_utils.values.workload import rows_for

__all__ = ["CHECKS"]

_WARM_UPS = 2
_FEW = 50
"""Users of the second round to warm up, if there are more: the first was as large as it gets."""
_ROWS_EACH = 8
_MB = 1_000_000
_ANCHOR = "anchor"
_REQUEST: ContextVar[_Request] = ContextVar("_REQUEST")


async def _concurrent(trial: Trial) -> None:
    users = trial.user_ids(int(trial.parameters["users"]))
    count = int(trial.parameters["operations_per_user"])
    rows = {user: rows_for(user, _ROWS_EACH, trial.rng) for user in users}
    operations = len(users) * count
    async with LeakHunt.opened(trial, [Recipe("helper")], rows) as hunt:
        target = hunt.target

        async def all_at_once(make: type[Client], users: Sequence[str]) -> None:
            clients = [make(trial, target, f"client of {user}", user) for user in users]
            # A target that finds no agent again shows it when it makes it.
            see = None if hunt.finds_agents else hunt.see
            answers = await trial.waiting.together([operate(client, count, see=see) for client in clients])
            failures = [f"{type(answer).__name__}: {answer}" for answer in answers if answer is not None]
            hunt.require(not failures, "failed-operation", "operations failed", *failures[:3])

        async def all_leave(users: Sequence[str]) -> None:
            await trial.waiting.together([hunt.leave(user) for user in users])
            await hunt.at_rest()

        await _keep_anchor(hunt)
        few = users[:_FEW]
        for make, some in ((Client, users), (Caller, few)):
            trial.progress("warming up", 0.1)
            await all_at_once(make, some)
            await _see_all(hunt, some)
            await all_leave(some)
        trial.note(
            f"Warmed up before the baseline: a round of the same work by all {len(users)} users, who then left, and "
            f"another by {len(few)} of them; one anchor user stays throughout, so that tasks the target keeps running "
            "for any user (a sweeper) are in the baseline. The operations shown are those of the first round; the "
            "measured round is not recorded, for the record itself would be memory."
        )
        hunt.baseline()
        trial.progress("everybody at work", 0.4)
        process, before = memory_now(), hunt.traced()
        await all_at_once(Caller, users)
        at_work = hunt.traced() - before
        await _see_all(hunt, users)
        hunt.show("work", hunt.counts())
        process_at_work = memory_now()
        await all_leave(users)
        after = hunt.traced() - before
        await hunt.judge_back(operations, "after the users had left")
        hunt.measure_growth("traced growth, everybody at work", at_work, "bytes", ASKED("<", MOST_ASKED_BYTES))
        at_work, after = await hunt.grown_again(
            (at_work, after), lambda: all_at_once(Caller, users), lambda: all_leave(users)
        )
        limits = ASKED("<", MOST_ASKED_BYTES), LAB("<=", MOST_BYTES)
        hunt.measure_growth("traced growth, after everybody left", after, "bytes", *limits)
        limits = (ASKED("<", 1 * _MB), LAB("<", MOST_BYTES_AN_OPERATION))
        hunt.measure_growth("traced growth an operation, at work", at_work / operations, "bytes", *limits)
        _show_growth(trial, "everybody at work", process, process_at_work)
        _show_growth(trial, "after everybody left", process, memory_now())
        trial.measure("concurrent operations", operations, "operations")


def _in_cycles(judge: Callable[[Trial, int], Awaitable[None]]) -> Body:
    return lambda trial: judge(trial, int(trial.parameters["long_cycles"]) // 5)


def _show_growth(trial: Trial, when: str, before: Memory, after: Memory) -> None:
    for name in ("anonymous", "uss", "rss"):
        word = "anonymous memory" if name == "anonymous" else name.upper()
        more = getattr(after, name) - getattr(before, name)
        trial.show(f"{word} growth, {when}", more, "bytes", ASKED("<", MOST_ASKED_BYTES))


async def _see_all(hunt: LeakHunt, users: Sequence[str]) -> None:
    for answer in await hunt.trial.waiting.together([hunt.see_agent_of(user, "helper") for user in users]):
        if isinstance(answer, BaseException):
            raise answer


async def _keep_anchor(hunt: LeakHunt) -> Handle:
    """A user who stays: an innocent bystander, and whatever runs while there is any user at all."""
    anchor = await hunt.target.create(_ANCHOR, "helper")
    await hunt.see(anchor)
    return anchor


async def _cleanup(trial: Trial) -> None:
    users = trial.user_ids(int(trial.parameters["users"]))
    rows = {user: rows_for(user, _ROWS_EACH, trial.rng) for user in users}
    held = {"factory": Gate(), "run": Gate()}
    recipes = [
        Recipe("helper"),
        Recipe("flaky", on_create=Failure("this factory never works")),
        Recipe("untidy", on_cleanup=Failure("this cleanup never works")),
        Recipe("held-in-its-factory", on_create=held["factory"]),
        Recipe("held-in-a-run", on_run=held["run"]),
    ]
    async with LeakHunt.opened(trial, recipes, rows) as hunt:
        anchor: Handle | None = await _keep_anchor(hunt)
        warm_ups = [f"warm-up-{number}" for number in range(_WARM_UPS)]
        trial.progress("warming up", 0.1)
        for user in warm_ups:
            await _all_visit(trial, hunt, [user])
        await _all_visit(trial, hunt, users)
        await hunt.at_rest()
        trial.note(
            f"Warmed up before the baseline: {_WARM_UPS} single visits, and one of all {len(users)} users at once; one "
            "anchor user stays throughout, so that tasks the target keeps running for any user are in the baseline."
        )
        hunt.baseline()
        trial.progress("everybody comes and leaves", 0.5)
        before = hunt.traced()

        async def all_visit(shown: str = "") -> None:
            await _all_visit(trial, hunt, users, shown)
            await hunt.at_rest()

        await all_visit(users[0])
        grown = [hunt.traced() - before]
        # A target whose agents are not alive between two calls has made sessions.
        await hunt.judge_back(hunt.watch.seen or len(users), "after the users had left")
        (after,) = await hunt.grown_again(grown, all_visit)
        limits = ASKED("<", MOST_ASKED_BYTES), LAB("<=", MOST_BYTES)
        hunt.measure_growth("traced growth, after everybody left", after, "bytes", *limits)
        trial.measure("objects made and watched", hunt.watch.seen, "objects")
        if Capability.POPULATION in hunt.target.capabilities:
            # What came back behind the end may be a row of a database, which is no object.
            found = hunt.target.population()
            sentence = f"everybody has left but one user, who has one agent, and the target counts {found}"
            trial.require((found.sessions, found.agents) == (1, 1), "session-left", sentence)
        if Capability.LOOKUP in hunt.target.capabilities:
            anchor = await hunt.target.get(_ANCHOR, "helper")
        works = anchor is not None and await _still_works(hunt.target, anchor)
        trial.require(works, "bystander-harmed", "the user who stayed lost their agent when the others left")
        del anchor
    await _request_is_let_go(trial)


async def _still_works(target: Target, handle: Handle) -> bool:
    try:
        return await target.run(handle, Command("read", {"key": "note"})) is None
    except Refused:
        return False


class _Request:
    """Stands for a request that an app keeps in a context variable while it serves it."""


async def _request_is_let_go(trial: Trial) -> None:
    """The first user of all leaves, others stay: a task or a timer that serves all, and was begun in the first one's
    request, keeps nothing of it."""
    target = await trial.target([Recipe("helper")])
    first, *others = trial.user_ids(3)

    async def served(user: str) -> ReferenceType[_Request]:
        request = _Request()
        _REQUEST.set(request)
        if Capability.EVENTS in target.capabilities:
            await target.subscribe(user).close()
        await target.run(await target.create(user, "helper"), write_note(user, 0))
        if user == first:
            for other in others:
                # Users who are there from now on.
                await asyncio.create_task(served(other), context=Context())
        return ref(request)

    request = await asyncio.create_task(served(first), context=Context())
    await target.end(first)
    # A timer that is over in a moment may keep it until then.
    await in_a_moment(lambda: request() is None)
    sentence = f"the request in which {first!r}, who has left, was the first of all users is still in memory"
    trial.require(request() is None, "retained-object", sentence, "held by the context variables of a task or timer")
    await trial.stop(target)


async def _all_visit(trial: Trial, hunt: LeakHunt, users: Sequence[str], shown: str = "") -> None:
    answers = await trial.waiting.together([_visit(hunt, user, shown=user == shown) for user in users])
    failures = [f"{type(answer).__name__}: {answer}" for answer in answers if isinstance(answer, BaseException)]
    del answers
    hunt.require(not failures, "failed-operation", "a user's visit failed", *failures[:3])


async def _visit(hunt: LeakHunt, user: str, *, shown: bool = False) -> None:
    """One session with everything that may be left behind: it fails, is refused, and is ended in the middle.

    `shown`: the objects alive just before the end go into the figures."""
    client = Caller(hunt.trial, hunt.target, f"client of {user}", user)
    subscription = hunt.target.subscribe(user) if Capability.EVENTS in hunt.target.capabilities else None
    data = client.nested("context")
    await attempt(client, client.create("flaky", data=data))
    await attempt(client, client.create("helper", data=data, context_user=f"not-{user}"))
    handles = [await client.create("helper", data=data), await client.create("helper"), await client.create("untidy")]
    for handle in handles:
        await client.run(handle, write_note(user, 0))
        await attempt(client, client.run(handle, Command("fail", {"message": "as it was asked to"})), may_fail=True)
        if client.can(Capability.TOOLS):
            await client.run(handle, Command("tool", {"name": "total", "parameters": {"column": "tokens_in"}}))
            await attempt(client, client.run(handle, Command("tool", {"name": UNKNOWN_TOOL})), may_fail=True)
        await hunt.see(handle)
    if client.can(Capability.REMOVE):
        await client.remove("helper")
    busy = await client.create("held-in-a-run")
    await hunt.see(busy)
    if client.can(Capability.GET_OR_CREATE):
        # Before any factory is held: one user's calls may be done one after another.
        await attempt(client, client.get_or_create("flaky"))
    in_flight = [
        asyncio.create_task(attempt(client, client.run(busy, write_note(user, 1)), may_fail=True)),
        asyncio.create_task(attempt(client, client.create("held-in-its-factory", data=data), may_fail=True)),
    ]
    if client.can(Capability.GET_OR_CREATE):
        for _ in range(2):
            waiting = client.get_or_create("held-in-its-factory", "another")
            in_flight.append(asyncio.create_task(attempt(client, waiting, may_fail=True)))
    await hunt.trial.waiting.settle()
    if shown:
        hunt.show("work", hunt.counts())
    await client.end()
    # A create that goes on when its session has ended is held by the lab, not by the target: it is let go.
    for task in in_flight:
        if not task.done():
            task.cancel()
    await asyncio.wait(in_flight)
    if subscription is not None:
        await subscription.close()


CHECKS = (
    Check(
        name="memory_usage_validation_during_concurrent_operations",
        category="memory_management",
        claim="Users who work at once use little memory, and when they have left, every count of objects, tasks, "
        "timers and handles is back at its baseline. Repeated disruptions of their work (cancelled calls, "
        "resets, event managers, plans, sockets that come and go) leave nothing, cycle after cycle, and nor do calls "
        "that are refused, fail or come too late, types that are replaced, sessions that a sweep ends, and users who "
        "only connect.",
        protects="stability",
        looks_like="The service is restarted every night, and nobody remembers why. Every request leaves 20 KB in a "
        "list that was meant for debugging; at ten requests a second that is 17 GB a day.",
        body=(
            Part(
                "users who work at once",
                _concurrent,
                planted=(
                    "HoardsPerOperation",
                    "SessionsInModuleList",
                ),
            ),
            Part(
                "repeated interruptions",
                _in_cycles(judge_interruptions),
                planted=(
                    "ResetsJournalled",
                    "CancelledRunKept",
                    "ReplacedBridgesKept",
                    "PlansKept",
                    "SocketBuffersKept",
                    "LeakedAdmissionsOfMany",
                ),
            ),
            Part(
                "repeated incidents",
                _in_cycles(judge_incidents),
                planted=(
                    "LateRunsQueued",
                    "DeniedToolsLogged",
                    "FailedNewcomersNoted",
                    "CleanupErrorsKept",
                    "CancelledEndsNoted",
                    "MailOfTheGoneKept",
                    "VisitorsCounted",
                    "ChannelsOfTheConnectedKept",
                    "BadTokensKept",
                    "CutPlansKept",
                    "FailedPlansKept",
                    "QuestionsKept",
                    "ReplacedRecipesKept",
                    "RefusedAdoptionsParked",
                    "TurnedAwayListed",
                    "IdleSessionsArchived",
                    "AgesReported",
                    "CountsCharted",
                    "RequestsKept",
                    "StrayCallsNoted",
                    "ExpiredTokensKept",
                    "ExpiredClientsAwaited",
                    "TokensIssuedKept",
                    "CancelledStayInTheList",
                    "SweepErrorsKept",
                ),
            ),
        ),
        measures=True,
        uses=frozenset(
            {
                Capability.ADOPTION,
                Capability.AGENT_CAP,
                Capability.AGE_END,
                Capability.ANY_VALUES,
                Capability.CONTEXT_DATA,
                Capability.END,
                Capability.EVENTS,
                Capability.EXPIRY,
                Capability.GET_OR_CREATE,
                Capability.IDLE_END,
                Capability.LOOKUP,
                Capability.LOOP_GUARD,
                Capability.MODEL,
                Capability.ORCHESTRATION,
                Capability.PARTS,
                Capability.PART_USE,
                Capability.PERMISSIONS,
                Capability.POPULATION,
                Capability.REMOVE,
                Capability.SOCKETS,
                Capability.STRICT,
                Capability.SUPERVISION,
                Capability.TOOLS,
                Capability.TYPE_CHANGES,
                Capability.USER_CAP,
            }
        ),
    ),
    Check(
        name="resource_cleanup_after_user_session_termination",
        category="memory_management",
        claim="When a session has ended, in the middle of any work, nothing of it is left or counted: no agent, "
        "context, task, timer, handle, thread, descriptor, socket or connection. All of it is freed by reference "
        "counting alone.",
        protects="compliance",
        looks_like="A customer cancels and asks for their data to be deleted. It is deleted, from every database; and "
        "a month later it is in a heap dump that support sends to a contractor, held by a timer that nobody cancelled.",
        body=_cleanup,
        measures=True,
        planted=(
            "ContextKeptAfterEnd",
            "TaskNeverAwaited",
            "TimerNeverCancelled",
            "TracebackKept",
            "AgentSessionCycle",
            "DescriptorLeft",
            "ThreadLeft",
            "ConnectionLeft",
            "DoneCallbackKeeps",
            "FinalizerKeeps",
            "ContextOfTimer",
            "SweeperOfTheFirst",
            "ThreadLocalKeeps",
            "MetricLabelledByObject",
            "CoroutineNeverAwaited",
            "SocketLeft",
            "CallsItselfAgain",
            "SavedAfterTheEnd",
        ),
        uses=frozenset(
            {
                Capability.ANY_VALUES,
                Capability.EVENTS,
                Capability.GET_OR_CREATE,
                Capability.LOOKUP,
                Capability.PARTS,
                Capability.POPULATION,
                Capability.REMOVE,
                Capability.TOOLS,
            }
        ),
        needs=frozenset({Capability.END}),
    ),
    *long_running.CHECKS,
    *CAPACITY,
)
