"""Checks of the category enterprise_multi_user."""

from __future__ import annotations

import asyncio
import copy
import random
import statistics
import sys
from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from lab_utils.checks.crowds import limits_itself
from lab_utils.checks.events.talking import require_of
from lab_utils.checks.tenants import departures, protection
from lab_utils.checks.tenants.failing_model import judge_failing_model
from lab_utils.checks.tenants.late_model import judge_late_model
from lab_utils.checks.tenants.often import judge_often
from lab_utils.judges.tenants import Asked, own_rows_only, row_text
from lab_utils.judges.updates import Update, counters_add_up
from lab_utils.target import Capability, Command, Handle, Recipe, Refusal, Refused, Target
from lab_utils.trial import ASKED, LAB, Check, Client, Part, Trial
from lab_utils.trial.faults import Gate, counted
from lab_utils.values.history import History, OpType
from lab_utils.values.workload import canary, rows_for

__all__ = ["CHECKS"]

_PAUSES_S = (0.05, 0.0, 0.001)
"""Seconds between the read and the write of an update: a long wait, none, and a short one."""
_WORKERS = 4
_MOST_TRIES = 100
_STEP_S = 0.001
"""Seconds by which each pause before a new try is longer than the last."""
_WAITING = 8
"""Runs that wait for one agent at once."""
_WRITERS = 2
_NOTES = 24
"""More than a window of the newest changes holds, or a page."""
_FAILS_EVERY = 6
_LONGEST = 4_000
"""Letters: more than a column of 255, or a preview."""
_A_FEW_TURNS = 10
"""Turns of the loop after which a call has come to the place where it waits."""


async def _operations(trial: Trial) -> None:
    users = trial.neighbours(int(trial.parameters["users"]))
    each = int(trial.parameters["operations_per_user"])
    # Others begin their runs between the beginning of a run and its work.
    target = await trial.target([Recipe("ledger", on_run=lambda _: asyncio.sleep(0))])
    owners = {user: trial.client(target, f"owner {user}", user) for user in users}
    made = await trial.waiting.together(owner.create("ledger") for owner in owners.values())
    ledgers = {user: handle for user, handle in zip(users, made, strict=True) if isinstance(handle, Handle)}
    trial.require(len(ledgers) == len(users), "failed-operation", "some ledgers could not be made", *trial.history[-3:])
    amounts: dict[str, int] = {}
    for user in ledgers:
        for number, amount in enumerate(_amounts(each, len(amounts), trial.rng)):
            amounts[f"{user} update {number}"] = amount

    async def work(user: str, worker: int) -> None:
        # One after another within a worker, at once among workers: both orders are there to be violated.
        for number in range(worker, each, _WORKERS):
            client = trial.client(target, f"{user} update {number}", user)
            add = {"key": "balance", "amount": amounts[client.name], "pause_s": _PAUSES_S[number % len(_PAUSES_S)]}
            # A failure is in the history, and does not keep this worker from the rest.
            with suppress(Exception):
                await _added(client, ledgers[user], add)

    await trial.waiting.together(work(user, worker) for user in ledgers for worker in range(_WORKERS))
    updates = [Update(op, amounts[op.client]) for op in trial.history.where(action="run:add")]
    finals: dict[str, int | None] = {}
    for user, ledger in ledgers.items():
        memory = await trial.waiting.ends(owners[user].run(ledger, Command("recall")), f"the last read of {user!r}")
        finals[user] = memory.get("balance")
        sentence = f"the ledger of {user!r} remembers an amount that nobody wrote there"
        trial.require(set(memory) <= {"balance"}, "foreign-memory", sentence, memory)
    trial.judge(counters_add_up(updates, finals))
    # If an update was refused for a conflict and tried again, the last try counts.
    last = {update.op.client: update.op for update in updates}
    failed = [op for op in last.values() if op.type is not OpType.OK]
    trial.require(not failed, "failed-operation", f"{len(failed)} of {len(last)} updates failed", *failed[:3])
    trial.measure("updates tried again after a conflict", len(updates) - len(last), "updates")
    share = 100.0 * (len(last) - len(failed)) / max(1, len(users) * each)
    trial.measure("updates that succeeded", share, "%", ASKED(">", 95), LAB("==", 100), anomaly="failed-operation")
    trial.show("users updating at once", len(ledgers), "users", ASKED(">=", 15))
    _latencies(trial, trial.history.where(action="run:add"))
    await _notes(trial, users[:_WRITERS])
    await _beside_one_that_is_held(trial, users)
    if Capability.RUN_ORDER in target.capabilities and not any(verdict.findings for verdict in trial.verdicts):
        await _order(trial)


async def _notes(trial: Trial, users: Sequence[str]) -> None:
    """Let agents of a few users write notes of all sizes at once, and fail in between. Each must go on after a failed
    run, carry each run out once, and hold every note as it was written."""
    begun: Counter[str] = Counter()
    # Others write while a run is under way that will fail.
    target = await trial.target([Recipe("notebook", on_run=counted(begun, lambda _: asyncio.sleep(0)))])

    async def keep(place: int, user: str) -> None:
        owner = trial.client(target, f"writer {user}", user)
        notebook = await owner.create("notebook")
        notes = {f"note {number:02}": _note(user, number) for number in range(_NOTES)}
        # Nobody waits for this one, and nobody has asked for it again.
        given_up = asyncio.ensure_future(owner.run(notebook, Command("read", {"key": "nothing yet"})))
        for _ in range(_A_FEW_TURNS):
            if not (begun[user] or given_up.done()):
                await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait({given_up})
        if not given_up.cancelled():
            given_up.exception()
        for number, (key, value) in enumerate(notes.items()):
            fails = (number + place) % _FAILS_EVERY == _FAILS_EVERY - 1
            if fails:
                with suppress(Exception):
                    await owner.run(notebook, Command("fail", {"message": "between two notes"}))
            try:
                await _tried(owner, notebook, Command("write", {"key": key, "value": value}))
            except Exception as error:
                failed = trial.history.where(user=user, action="run:fail")[-1:]
                anomaly = "next-call-fails" if fails else "failed-operation"
                sentence = f"a write of {user!r} failed with {type(error).__name__}: {error}"
                trial.find(anomaly, sentence, *failed, *trial.history.where(user=user)[-1:])
                return
        kept = await owner.run(notebook, Command("recall"))
        lost = [key for key in notes if key not in kept]
        sentence = f"{len(lost)} of {_NOTES} notes that {user!r} wrote to one agent are gone"
        trial.require(not lost, "lost-write", sentence, f"gone: {lost}", f"kept: {[*kept]}")
        # A store that loads a whole conversation for each run takes time for each: the longest text, and plain data.
        answers = {
            key: await owner.run(notebook, Command("read", {"key": key})) for key in [*notes][-2:] if key in kept
        }
        for how, values in (("recalled", kept), ("read", answers)):
            wrong = [key for key, value in values.items() if value != notes.get(key)]
            written = (
                "another value than the one written to" if set(wrong[:1]) <= notes.keys() else "what nobody wrote to"
            )
            sentence = f"{user!r} {how} {written} {', '.join(wrong[:1])}"
            shown = [f"wrote: {notes.get(key)!r:.200}" for key in wrong[:1]]
            shown += [f"{how}: {values[key]!r:.200}" for key in wrong[:1]]
            trial.require(not wrong, "wrong-answer", sentence, *shown)
        asked = sum(op.client == owner.name and op.action.startswith("run:") for op in trial.history.where(user=user))
        sentence = f"the agent of {user!r} began {begun[user]} runs and was asked for {asked}, some failed or cancelled"
        trial.require(begun[user] <= asked, "ran-again", sentence)
        if owner.can(Capability.END):
            # A store that folds its old changes may keep these and delete the new ones alone.
            await owner.end()
            back = await owner.run(await owner.create("notebook"), Command("recall"))
            sentence = f"{user!r} wrote {_NOTES} notes and left, and their next session recalls {len(back)} of them"
            trial.require(not back, "old-life-read", sentence, f"recalled: {[*back]}")

    for answer in await trial.waiting.together(keep(place, user) for place, user in enumerate(users)):
        if isinstance(answer, BaseException):
            raise answer
    await trial.stop(target)


async def _beside_one_that_is_held(trial: Trial, users: Sequence[str]) -> None:
    """Hold one user's run: a run of each other user must end meanwhile."""
    slow, *others = users
    gate = Gate()

    async def on_run(user: str) -> None:
        if user == slow:
            await gate(user)

    target = await trial.target([Recipe("desk", on_run=on_run)])
    clients = {user: trial.client(target, f"client of {user}", user) for user in users}
    desks = {user: await client.create("desk") for user, client in clients.items()}
    runs = {slow: asyncio.ensure_future(clients[slow].run(desks[slow], Command("recall")))}
    if await trial.waiting.until(lambda: gate.reached.is_set() or runs[slow].done()) and not runs[slow].done():
        runs |= {user: asyncio.ensure_future(clients[user].run(desks[user], Command("recall"))) for user in others}
        if not await trial.waiting.until(lambda: all(runs[user].done() for user in others)):
            waiting = [user for user in others if not runs[user].done()]
            sentence = f"runs of {len(waiting)} of {len(others)} users waited for that of another user, {slow!r}"
            trial.find("waits-for-other", sentence, f"{slow!r} was held in a run", f"waited: {waiting[:5]}")
    else:
        trial.leave_out("runs beside one that is held: the target's runs do not call the lab's hook")
    gate.open()
    answers = await trial.waiting.ends(asyncio.gather(*runs.values(), return_exceptions=True), "runs beside each other")
    failed = [user for user, answer in zip(runs, answers, strict=True) if isinstance(answer, BaseException)]
    sentence = f"runs of {failed[:5]} failed beside that of another user, {slow!r}"
    trial.require(not failed, "failed-operation", sentence, *trial.history[-3:])
    trial.measure("runs beside one that is held", len(runs) - 1, "runs")
    await trial.stop(target)


def _note(user: str, number: int) -> Any:
    """A text of any length up to `_LONGEST`, or, every fourth time, plain data."""
    text = canary(user, "note", number).ljust(_LONGEST * number // _NOTES, "é")
    return {"text": text, "list": [number, 0.5, True, None, ""], "empty": {}} if number % 4 == 3 else text


async def _order(trial: Trial) -> None:
    """Let runs wait for one that is held, and one of them give up. The others must be served in the order of their
    calls: each adds one to a number, and is answered its place."""
    gate = Gate()
    target = await trial.target([Recipe("desk", on_run=gate)])
    owner = trial.client(target, "owner in line", "waits-in-line")
    desk = await owner.create("desk")
    one_more = Command("add", {"key": "served", "amount": 1, "pause_s": 0.0})
    runs: list[asyncio.Future[Any]] = [asyncio.ensure_future(owner.run(desk, one_more))]
    await trial.waiting.ends(gate.reached.wait(), "the first run reaching the lab's hook")
    for number in range(1, _WAITING):
        client = trial.client(target, f"number {number} in line", owner.user)
        runs.append(asyncio.ensure_future(client.run(desk, one_more)))
        await trial.waiting.settle(_A_FEW_TURNS)
    gives_up = runs.pop(_WAITING // 2)
    gives_up.cancel()
    await trial.waiting.settle(_A_FEW_TURNS)
    gate.open()
    served = asyncio.gather(*runs, return_exceptions=True)
    answers = await trial.waiting.ends(served, "the runs of one agent that waited")
    # One that is refused for a conflict did not wait.
    answers = [one for one in answers if getattr(one, "kind", None) is not Refusal.CONFLICT]
    history = trial.history.where(user=owner.user)[1:]
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    if trial.require(not failures, "failed-operation", "some runs that waited for another one failed", *history):
        sentence = f"runs of one agent that waited, in the order of their calls, were served at the places {answers}"
        trial.require(answers == sorted(answers, key=str), "run-order", sentence, *history)
    await trial.stop(target)


async def _tried(client: Client, handle: Handle, command: Command) -> None:
    """Run a command, and try again as often as it is refused for a conflict: this serialises updates in a store without
    locks. Raises what else the run raises."""
    for tries in range(_MOST_TRIES):
        try:
            await client.run(handle, command)
        except Refused as refused:
            if refused.kind is not Refusal.CONFLICT or tries == _MOST_TRIES - 1:
                raise
            await asyncio.sleep(min(tries * _STEP_S, _PAUSES_S[0] / 2))
        else:
            return


async def _added(client: Client, ledger: Handle, add: dict[str, Any]) -> None:
    with suppress(Refused):
        await _tried(client, ledger, Command("add", add))


def _amounts(count: int, already: int, rng: random.Random) -> list[int]:
    """Positive amounts, each unlike all others of the trial, so that a sum reveals its parts."""
    return [rng.randrange(1, 1_000_000) * 1_000_000 + already + number for number in range(count)]


def _latencies(trial: Trial, history: History) -> None:
    taken = sorted(1_000 * (op.end_s - op.start_s) for op in history)
    if taken:
        trial.measure("update latency, median", statistics.median(taken), "ms")
        trial.measure("update latency, 99th percentile", taken[int(0.99 * (len(taken) - 1))], "ms")


async def _boundaries(trial: Trial) -> None:
    tenants = trial.neighbours(int(trial.parameters["users"]))
    # The last tenant has no rows: a filter that is left out for want of anything to filter shows everybody's.
    counts = [int(trial.parameters["records_per_user"])] * (len(tenants) - 1) + [0]
    rows = {tenant: rows_for(tenant, count, trial.rng) for tenant, count in zip(tenants, counts, strict=True)}
    gate = Gate()

    async def on_run(user: str) -> None:
        await gate(user)
        await trial.waiting.settle(trial.rng.randrange(4))

    target = await trial.target([Recipe("analyst", on_run=on_run)], copy.deepcopy(rows))
    asked: list[Asked] = []
    analysts: list[tuple[str, Client, Handle]] = []

    async def analyse(position: int, tenant: str) -> None:
        client = trial.client(target, f"client of {tenant}", tenant)
        permissions = frozenset({"admin"}) if position % 2 else frozenset[str]()
        analyst = await client.create("analyst", permissions=permissions)
        analysts.append((tenant, client, analyst))
        victim = tenants[position - 1]
        claims: list[dict[str, Any]] = [{}, {"user_id": victim}, {"tenant_id": victim, "user": victim}]
        for claim in claims:
            asked.append(_answered(tenant, f"rows {claim}", await _rows(target, client, analyst, claim)))
            for column in ("tokens_in", "cost_usd"):
                command = Command("tool", {"name": "total", "parameters": {"column": column, **claim}})
                total = await client.run(analyst, command)
                asked.append(Asked(tenant, f"total of {column} {claim}", total, column))
        spoilt = await _rows(target, client, analyst, {})
        for row in spoilt:
            row["feature"] = "spoilt by the caller"
        spoilt.append({"feature": "added by the caller"})
        asked.append(_answered(tenant, "rows after changing its answer", await _rows(target, client, analyst, {})))
        await _tools_refused(trial, client, analyst, may="admin" in permissions)

    async def ask_again(made: tuple[str, Client, Handle]) -> None:
        tenant, client, analyst = made
        asked.append(_answered(tenant, "rows among fewer", await _rows(target, client, analyst, {})))

    drawn = trial.rng.sample(list(enumerate(tenants)), len(tenants))
    begun = {tenant: asyncio.ensure_future(analyse(position, tenant)) for position, tenant in drawn}
    # All tenants are inside a run before the first of them asks anything. Until then they are given up by nobody: those
    # whom a limit keeps out wait for the gate as well.
    # Who has failed before comes no more.
    await trial.waiting.until(lambda: gate.inside + _done(begun.values()) >= len(tenants))
    early = _done(begun.values())
    gate.open()
    ended = await trial.waiting.together(map(_joined, begun.values()))
    for tenant, failure in zip(begun, ended, strict=True):
        sentence = f"an operation of {tenant!r} failed: {failure!r}"
        require_of(trial, failure is None, "failed-operation", sentence, tenant, 2)
    at_once = gate.held
    is_fair = at_once + early >= len(tenants) or await limits_itself(trial, gate, at_once, analysts, ask_again)
    sentence = f"only {at_once} of {len(tenants)} tenants could run at once, in {trial.waiting.stuck_after:g} s at most"
    trial.require(is_fair, "waits-for-other", sentence)
    verdict = own_rows_only(asked, rows)
    trial.judge(verdict)
    leaks = sum(finding.anomaly == "foreign-rows" for finding in verdict.findings)
    clean = 100.0 * (len(tenants) - leaks) / len(tenants)
    metric = "tenants who saw only their own rows"
    trial.measure(metric, clean, "%", ASKED("==", 100), LAB("==", 100), anomaly="foreign-rows")
    trial.measure("tool answers compared with the data", len(asked), "answers")


def _done(work: Iterable[asyncio.Future[None]]) -> int:
    return sum(one.done() for one in work)


async def _joined(work: Awaitable[None]) -> None:
    await work


def _answered(tenant: str, question: str, rows: Any) -> Asked:
    # Interned: the same row is answered many times, and all of it is kept until it is judged.
    texts = [sys.intern(row_text(row)) for row in rows] if isinstance(rows, list) else rows
    return Asked(tenant, question, texts)


async def _rows(target: Target, client: Client, analyst: Handle, claim: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask for the rows; the history keeps their number alone, for thousands of them would be kept many times."""
    answer: list[Any] = []

    async def counted() -> str:
        rows = await target.run(analyst, Command("tool", {"name": "rows", "parameters": claim}))
        answer.append(rows)
        return f"{len(rows)} rows"

    await client.call("run:tool", counted(), analyst.agent_type, analyst.thread)
    rows: list[dict[str, Any]] = answer[0]
    return rows


async def _tools_refused(trial: Trial, client: Client, analyst: Handle, *, may: bool) -> None:
    wanted_of: dict[str, Refusal | None] = {"drop_table": Refusal.UNKNOWN_TOOL}
    if client.can(Capability.PERMISSIONS):
        wanted_of["admin"] = None if may else Refusal.PERMISSION
    for name, refusal in wanted_of.items():
        try:
            await client.run(analyst, Command("tool", {"name": name}))
            met: Refusal | None = None
        except Refused as refused:
            met = refused.kind
        wanted, got = refusal or "an answer", met or "an answer"
        sentence = f"{client.user!r} called tool {name!r} and met {got}, not {wanted}"
        # Without an answer's refusal there is nothing to be wrong: it was carried out.
        anomaly = "not-refused" if met is None else "wrong-refusal"
        require_of(trial, met is refusal, anomaly, sentence, client.user)


CHECKS = (
    Check(
        name="concurrent_user_operations_isolation",
        category="enterprise_multi_user",
        claim="Many users update at once, with and without waits inside the updates: all succeed, none is lost, and "
        "none lands in another user's number. An agent keeps each of many notes, works on after a failed run, does "
        "nothing again that failed, and does not wait for another user's. Where the order is promised, runs that wait "
        "for one agent are served in the order of their calls.",
        protects="data",
        looks_like="The balance on the dashboard is short by one order in a few hundred. No error was logged and no "
        "test is red: two workers read the same number, waited for the database, and the second wrote over the first.",
        body=_operations,
        planted=(
            "UnserialisedRuns",
            "MemoryOfType",
            "RefusesUnderLoad",
            "RetriesUpdates",
            "RetriesFailedRuns",
            "RetriesCancelledRuns",
            "ConflictAfterWriting",
            "LastComesFirst",
            "WindowOfChanges",
            "SnapshotStays",
            "OneLockForRuns",
            "FailureRestoresAll",
            "BrokenByFailure",
            "TextsCut",
        ),
        uses=frozenset({Capability.END, Capability.RUN_ORDER}),
        extra_markers=frozenset({"enterprise_critical"}),
    ),
    Check(
        name="enterprise_customer_data_protection",
        category="enterprise_multi_user",
        claim="Customers of three tiers observe exactly the same answers, errors and events, whether the others act "
        "or not, however often another one calls or fails, also where the model fails for that one alone, and however "
        "alike their ids are; a model over HTTP receives no customer's data in another customer's name.",
        protects="data",
        looks_like="A prospect on the free tier notices that its event numbers jump by thousands at nine o'clock, and "
        "so learns how busy its competitor is; an error message lists the names of other customers; and one morning a "
        "cached answer is somebody else's.",
        body=(
            Part(
                "customers beside others",
                protection.body,
                planted=(
                    "SharedToolCache",
                    "GlobalEventNumbers",
                    "QuotaOfAll",
                    "ErrorNamesNeighbours",
                    "ErrorNamesNeighboursUnheard",
                    "PermissionsByType",
                ),
            ),
            Part(
                "customers beside those who call or fail again and again",
                judge_often,
                planted=(
                    "BreakerOfTool",
                    "BreakerOfAlikeIds",
                    "OneProbeForAll",
                    "OneAtATimeAfterFailures",
                    "ClosedForManyFailures",
                    "WaitersCounted",
                    "LockOfAlikeIds",
                    "CancelledQuestionsCounted",
                    "RunsClosedWithTheModel",
                    "ModelClosedForGood",
                    "LimitOfAlikeIds",
                    "LimitOfNormalisedIds",
                    "LimitOfTheTenant",
                    "LimitOfTheMailServer",
                    "LimitOfTheBeginning",
                    "LimitOfABucket",
                    "LookupsOfTheTenant",
                    "ConnectionsOfTheTenant",
                    "EventsOfTheTenant",
                    "UnfinishedOfAll",
                    "UnfinishedKeptCounted",
                    "UnfinishedKeptIfFailed",
                    "BreakerOfModel",
                    "FallbackForAll",
                    "ClientClosedForAll",
                ),
            ),
            Part(
                "customers beside one whose model answers late",
                judge_late_model,
                frozenset({Capability.MODEL}),
                planted=(
                    "LateAnswerToTheNext",
                    "LateAnswerToTheNextQuestion",
                    "PlaceKeptByTheLate",
                    "TurnKeptByTheLate",
                    "OneQuestionAtATime",
                ),
            ),
            Part(
                "customers beside one whose model over HTTP fails",
                judge_failing_model,
                frozenset({Capability.MODEL}),
                planted=(
                    "FailedPromptAnsweredToTheNext",
                    "LastErrorForAll",
                    "AskedAgainForTheLast",
                ),
            ),
        ),
        uses=frozenset(
            {
                Capability.ANY_VALUES,
                Capability.CONTEXT_DATA,
                Capability.END,
                Capability.EVENTS,
                Capability.LOOKUP,
                Capability.MODEL,
                Capability.PERMISSIONS,
                Capability.REMOVE,
                Capability.SOCKETS,
                Capability.TOOLS,
            }
        ),
        extra_markers=frozenset({"enterprise_critical"}),
    ),
    Check(
        name="multi_tenant_agent_execution_boundaries",
        category="enterprise_multi_user",
        claim="A tenant's tools answer only from that tenant's rows, for any claims of the parameters and any other "
        "users who run at the same time.",
        protects="compliance",
        looks_like="An agent was talked into calling its tool with user_id of another company, and the tool believed "
        "the parameter. The monthly report of acme has a few rows of acme:1 in it, because a filter said LIKE 'acme%'.",
        body=_boundaries,
        planted=(
            *("ScopeFromParameter", "PrefixTenantFilter", "CaseBlindSource", "CurrentTenantSlot", "NoRowsNoFilter"),
            "StripedLocks",
        ),
        uses=frozenset({Capability.PERMISSIONS}),
        needs=frozenset({Capability.TOOLS}),
        extra_markers=frozenset({"enterprise_critical"}),
    ),
    Check(
        name="user_session_cleanup_and_isolation",
        category="enterprise_multi_user",
        claim="Half of the users leave at once; one cleanup hangs, one ignores its cancellation, one raises. Users "
        "who stay are neither delayed nor affected. Users who leave are closed exactly once, in bounded time. "
        "In a session that is opened again, nothing of the earlier one acts or is read. Ending a session costs "
        "no more when there are more other sessions.",
        protects="stability",
        looks_like="One customer's database connection does not close, and within a minute nobody can log in or out: "
        "the cleanup waits under the one lock of the registry. After the restart another customer's agents are gone, "
        "because their id begins with the name of the one who left.",
        body=(
            Part(
                "users who leave at once beside others who stay",
                departures.leaving_at_once,
                planted=(
                    "CleanupUnderGlobalLock",
                    "EvictedUnsaved",
                    "EndsOneByOne",
                    "EndsOneByOneUnheard",
                    "StopsAtFirstError",
                    "EndsByPrefix",
                    "NeverCutOff",
                    "ClosesTwice",
                    "HidesCleanupErrors",
                    "FailedCleanupKeepsSession",
                ),
            ),
            Part(
                "sessions opened again",
                departures.coming_back,
                planted=(
                    "BridgeByName",
                    "MemoryOutlivesSession",
                    "WrittenBackByName",
                    "LateRunErasesByName",
                    "StaleHandleForgiven",
                    "RunsNumberedBySession",
                    "AgentNumbersGivenAgain",
                    "ContextOfLastTime",
                    "PermissionsOutliveSession",
                    "TypesOutliveSession",
                    "SessionReopened",
                    "MemoryByAddress",
                    "MemoryPooledAfterFailure",
                    "MemoryPooledInMidRun",
                    "MemoryPartlyEmptied",
                    "MemoryGivenBackTwice",
                    "RowsUsedAgain",
                ),
            ),
            Part(
                "the cost of an end beside many others",
                departures.cost_of_leaving,
                planted=("ScansAllAtEnd",),
            ),
        ),
        uses=frozenset(
            {
                Capability.ANY_VALUES,
                Capability.AGENT_IDS,
                Capability.CONTEXT_DATA,
                Capability.EVENTS,
                Capability.GET_OR_CREATE,
                Capability.LOOKUP,
                Capability.PERMISSIONS,
                Capability.POPULATION,
                Capability.REMOVE,
                Capability.RUN_IDS,
                Capability.SOCKETS,
                Capability.SUPERVISION,
                Capability.THREADS,
                Capability.TOOLS,
            }
        ),
        needs=frozenset({Capability.END}),
    ),
)
