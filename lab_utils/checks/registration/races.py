"""The check of the category registration_management in which callers race, fail and are cancelled."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from lab_utils.checks.memory.leak_hunt import Caller
from lab_utils.checks.registration.cores import cancelled_cores, making_cores
from lab_utils.checks.registration.racing import Races
from lab_utils.checks.registration.schedules import explore_schedules
from lab_utils.checks.registration.stopping import stopped_meanwhile
from lab_utils.judges.activation import failures_forgotten, only_own_cancellations, single_activation
from lab_utils.target import Capability, Command, Handle, Refusal, Refused
from lab_utils.trial import Check, Client, Trial
from lab_utils.trial.allowance import Allowance
from lab_utils.trial.faults import NO_CLEANUPS, Gate, planned_in

__all__ = ["CHECKS"]

_CANCEL_AT_TURNS = 10
_FEW_TURNS = 4
_OTHERS, _AT_ONCE = 256, 64
_ONE_AGENT = "callers who ask at once for one agent"
_ON = {"create": "created-later", "get_or_create": "asked-for-later"}
"""The types that are asked for by those who were cancelled once."""
_LONGEST_S = 3.0
"""Seconds after which no more users come, where creates are slow."""


async def _races(trial: Trial) -> None:
    races = Races(trial)
    gates = await races.open(
        (
            *("many", "held", "slow", "cancel-first", "cancel-some", "cancel-all", "cancel-create", "ended"),
            *_ON.values(),
        )
    )
    users = trial.user_ids(int(trial.parameters["users"]))
    if races.are_joined:
        await _many_users(races, gates["many"], users)
    else:
        trial.leave_out(f"{_ONE_AGENT} (the target lacks: {Capability.GET_OR_CREATE})")
    trial.progress("racing creates", 0.2)
    await _waiting_for_nobody(races, gates["held"], users[0])
    if races.are_joined:
        await _one_agent(races, gates["slow"], users[0])
        await _one_of_two(races, gates)
    await _asked_while_stopping(races, gates["stopping"], users[0])
    if races.are_joined:
        await _cancelled(races, gates["cancel-first"], "cancel-first", users[0], [0])
        some = sorted(trial.rng.sample(range(races.racers), races.racers // 2))
        await _cancelled(races, gates["cancel-some"], "cancel-some", users[1], some)
    for part, name in ((_failing, "flaky"), (_all_cancelled, "cancel-all"), (_create_cancelled, "cancel-create")):
        if part is _all_cancelled and not races.are_joined:
            continue  # A create alone is cancelled next.
        if not await part(races, gates[name], users[0]) or not races.can(Capability.END):
            continue
        # A session that stays may keep what one that goes takes along.
        gates[name].shut()
        await races.settle_in(users[0])
        await part(races, gates[name], users[0])
    if races.are_joined:
        await _raced_after_a_failure(races, users[1])
    asks = ("create", "get_or_create") if races.are_joined else ("create",)
    if races.can(Capability.END):
        callers = races.callers(users[0], "ended", 3)
        await _ended_meanwhile(races, gates["ended"], users[0], "ended", list(callers.values()))
        for ask in asks:
            gates["undeterred"].shut()
            client = races.client("the undeterred", users[0])
            asked = asyncio.create_task(getattr(client, ask)("undeterred"))
            await _ended_meanwhile(races, gates["undeterred"], users[0], "undeterred", [asked])
            client = races.client("who was cancelled once and went on", users[0])
            asked = await _went_on(getattr(client, ask), _ON[ask])
            await _ended_meanwhile(races, gates[_ON[ask]], users[0], _ON[ask], [asked])
        if races.are_joined:
            await _over_an_end(races, gates)
    trial.progress("cancelling at every turn", 0.7)
    for turns in range(_CANCEL_AT_TURNS):
        for ask in asks:
            await _cancelled_at_turn(races, turns, ask)
    if races.are_joined:
        trial.judge(single_activation(trial.history))
    trial.judge(failures_forgotten(trial.history))
    trial.judge(only_own_cancellations(trial.history, races.cancelled))
    # Last: a caller left waiting is cancelled by the lab.
    await stopped_meanwhile(trial)
    if races.are_joined:
        trial.measure("racing callers", races.racers, "callers")
    trial.measure("callers cancelled", len(races.cancelled), "callers")
    able = races.target.capabilities
    ways = ("create", "get_or_create", "get", "attach", "supervise", "orchestrate")
    await explore_schedules(trial, making_cores(able), cancelled_cores(ways, able))


async def _many_users(races: Races, gate: Gate, users: Sequence[str]) -> None:
    """Two creates and two get-or-creates of every user at once, and one in another thread, all held in one factory."""
    anew, threads = races.can(Capability.CREATE_ANEW, Capability.THREADS), races.can(Capability.THREADS)
    each = 1 + 2 * anew + threads

    def work(user: str) -> list[Coroutine[Any, Any, Handle]]:
        first, second = races.client("first", user), races.client("second", user)
        asked = [first.get_or_create("many"), second.get_or_create("many")]
        if threads:
            asked.append(first.get_or_create("many", "elsewhere"))
        if anew:
            asked += [first.create("many", thread="made"), second.create("many", thread="made")]
        return asked

    async def opened() -> list[Any]:
        await races.arrived(gate, "many users")
        gate.open()
        return []

    asked = [work(user) for user in users]
    answers = await races.trial.waiting.together([*(part for parts in asked for part in parts), opened()])
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    races.trial.require(not failures, "failed-operation", "a create failed beside others", *map(repr, failures))
    if threads and not failures:
        instances = [answer.instance for answer in answers if isinstance(answer, Handle)]
        starts = range(0, len(instances), len(asked[0]))
        merged = [user for user, at in zip(users, starts, strict=True) if instances[at] == instances[at + 2]]
        sentence = f"{len(merged)} of {len(users)} users who asked in two threads at once received one agent in both"
        races.trial.require(not merged, "cross-thread-data", sentence, *map(repr, merged))
        if merged:
            # The counts would say the same again.
            for user in users if races.can(Capability.END) else ():
                await races.trial.waiting.ends(races.client("the end", user).end(), f"ending {user}")
            return
    made = [answer.instance for answer in answers if isinstance(answer, Handle)]
    count = len(set(made))
    sentence = f"{count} agents answered in place of {each * len(users)}"
    races.trial.require(count == each * len(users), "wrong-count" if anew else "double-activation", sentence, *made)
    races.expect(len(users), each * len(users), "wrong-count", "after creates that raced")
    if not races.can(Capability.END):
        return
    for user in users:
        report = await races.trial.waiting.ends(races.client("the end", user).end(), f"ending {user}")
        sentence = f"ending {user!r} closed {report.closed} agents of {each}"
        races.trial.require(report.closed == each, "wrong-count", sentence)
    races.expect(0, 0, "left-behind", "after everybody has gone")
    closed = {user: races.closed[user] for user in users}
    if not any(races.closed.values()):
        races.trial.leave_out(NO_CLEANUPS)
        return
    # The loser of a race may have been made too, and closed at once.
    right = min(closed.values()) >= each and sum(closed.values()) == gate.entered
    sentence = f"of {gate.entered} agents made in a race {sum(closed.values())} were closed"
    races.trial.require(right, "never-closed", sentence, closed)


async def _waiting_for_nobody(races: Races, gate: Gate, slow: str) -> None:
    """Many other users create while one user's factory is held: so many that two would share one of 64 locks."""
    trial, allowance = races.trial, Allowance(_LONGEST_S)
    held = asyncio.ensure_future(races.client("the slow one", slow).create("held"))
    await races.arrived(gate, "a create that is held")
    for first in range(0, _OTHERS, _AT_ONCE):
        if allowance.is_over():
            trial.leave_out(f"{_OTHERS - first} of {_OTHERS} users who create while another user's factory is held")
            break
        users = [f"another-{number}" for number in range(first, first + _AT_ONCE)]
        others = [Caller(trial, races.target, f"the creator of {user}", user) for user in users]
        creates = {other.user: asyncio.ensure_future(other.create("turns")) for other in others}
        if not await trial.waiting.until(lambda creates=creates: all(map(asyncio.Task.done, creates.values()))):  # type: ignore[misc]
            waiting = [user for user, create in creates.items() if not create.done()]
            sentence = f"creates of {len(waiting)} of {_AT_ONCE} users waited for that of another user, {slow!r}"
            trial.find("waits-for-other", sentence, f"{slow!r} was held in the factory", f"waited: {waiting[:5]}")
            gate.open()
        answers = await races.all_of(list(creates.values()), "creates of other users")
        failures = [repr(answer) for answer in answers if isinstance(answer, BaseException)]
        sentence = f"creates failed beside that of another user, {slow!r}, who was held in the factory"
        trial.require(not failures, "failed-operation", sentence, *failures[:3])
        if races.can(Capability.END):
            await trial.waiting.together(other.end() for other in others)
        if gate.opened.is_set() or failures:
            break
    gate.open()
    await races.all_of([held], "a create that was held")
    await races.leave(slow)


async def _one_agent(races: Races, gate: Gate, user: str) -> None:
    callers = races.callers(user, "slow", races.racers)
    await races.arrived(gate, "one agent")
    gate.open()
    answers = await races.all_of(list(callers.values()), "callers of one agent")
    races.require_one_agent(answers, "callers of one agent")
    races.expect(1, 1, "double-activation", f"after {races.racers} callers asked for one agent")
    await races.leave(user)


async def _one_of_two(races: Races, gates: dict[str, Gate]) -> None:
    """Two of a user's agents are being made. One is ready, fails or loses its caller: who asks for the other then gets
    the one that is being made."""
    passing = [("flaky", "main", how) for how in ("ready", "failed", "cancelled")]
    if races.can(Capability.THREADS):
        passing.append(("slow", "elsewhere", "cancelled"))
    # Begun before the other or after it: a table may lose its oldest entry, or its newest.
    for number, ((agent_type, thread, how), is_first) in enumerate(itertools.product(passing, (True, False))):
        user = f"two-{number}"
        one, other = races.client("the one", user), races.client("the other", user)
        gates["flaky"].shut()
        gates["slow"].shut()
        races.failure.times = races.failure.failed + (how == "failed")
        asked: dict[Client, asyncio.Task[Handle]] = {}
        for client in (one, other) if is_first else (other, one):
            wanted = (agent_type, thread) if client is one else ("slow", "main")
            asked[client] = asyncio.create_task(client.get_or_create(*wanted))
            await races.trial.waiting.settle()
        if how == "cancelled":
            await races.cancel({one: asked[one]}, [0])
        gates["flaky"].open()
        await races.trial.waiting.settle()
        late = asyncio.create_task(races.client("the late one", user).get_or_create("slow"))
        await races.trial.waiting.settle()
        gates["slow"].open()
        *answers, _ = await races.all_of([asked[other], late, asked[one]], "callers of two agents")
        races.require_one_agent(answers, f"callers of an agent, beside another that was {how},")
        agents = 1 + (how == "ready")
        races.expect(1, agents, "wrong-count", f"after two agents were asked for and one was {how}")
        await races.leave(user)
    gates["flaky"].shut()


async def _asked_while_stopping(races: Races, gate: Gate, user: str) -> None:
    """All callers of an agent are cancelled, and its factory needs some turns to stop: who asks meanwhile is served."""
    callers = races.callers(user, "stopping", 2)
    await races.arrived(gate, "a factory that stops slowly")
    for client, task in callers.items():
        races.cancelled.add(client.name)
        task.cancel()
    await races.trial.waiting.settle(_FEW_TURNS)
    late = asyncio.create_task(races.asked(races.client("the late one", user), "stopping"))
    await races.trial.waiting.settle()
    gate.open()
    answers = await races.all_of([late, *callers.values()], "a caller who came while a factory stopped")
    what = "callers who came while the factory of cancelled callers stopped"
    races.require_one_agent(answers[:1], what, "cached-failure")
    races.expect(1, 1, "wrong-count", "after a call that came while the factory of cancelled callers stopped")
    await races.leave(user)


async def _failing(races: Races, gate: Gate, user: str) -> bool:
    races.failure.times = races.failure.failed + 1
    callers = races.callers(user, "flaky", races.racers)
    await races.arrived(gate, "a failing agent")
    gate.open()
    answers = await races.all_of(list(callers.values()), "callers of a failing agent")
    # Waiting callers may share the failure or cause a new attempt: the target's choice.
    strange = [one for one in answers if not isinstance(one, Handle) and planned_in(one) is None]
    races.trial.require(not strange, "failed-operation", "a failing factory was reported as another error", *strange)
    held = int(any(isinstance(answer, Handle) for answer in answers))
    races.expect(held, held, "left-behind", "after an activation that failed")
    again = races.asked(races.client("the next", user), "flaky")
    outcome = (await races.all_of([asyncio.create_task(again)], "the call after a failure"))[0]
    if isinstance(outcome, Handle):
        races.require_one_agent([*(one for one in answers if isinstance(one, Handle)), outcome], "callers")
        races.expect(1, 1, "wrong-count", "after the call that followed a failure")
    await races.leave(user)
    return isinstance(outcome, Handle)


async def _raced_after_a_failure(races: Races, user: str) -> None:
    """The first caller fails while the second waits; the third comes while the second makes the agent."""
    hook, until = races.in_turn, races.trial.waiting.until
    first, second, third = (races.client(f"the {name} beside a failure", user) for name in ("first", "second", "third"))
    failing = asyncio.create_task(first.get_or_create("in-turn"))
    await until(lambda: bool(hook.inside) or failing.done())
    waiting = asyncio.create_task(second.get_or_create("in-turn"))
    await races.trial.waiting.settle()
    for held in hook.inside[:1]:
        held.set()
    # The second may share the failure of the first: the target's choice.
    await until(lambda: len(hook.inside) > 1 or waiting.done())
    coming = asyncio.create_task(third.get_or_create("in-turn"))
    await races.trial.waiting.settle()
    hook.open()
    answers = await races.all_of([failing, waiting, coming], "callers beside one whose activation failed")
    # Several agents are found in the history.
    given = {answer.instance for answer in answers if isinstance(answer, Handle)}
    if len(given) < 2:
        races.expect(len(given), len(given), "left-behind", "after callers beside one whose activation failed")
    await races.leave(user)


async def _cancelled(races: Races, gate: Gate, agent_type: str, user: str, indices: Sequence[int]) -> None:
    callers = races.callers(user, agent_type, races.racers)
    await races.arrived(gate, agent_type)
    await races.cancel(callers, indices)
    gate.open()
    answers = await races.all_of(list(callers.values()), "callers beside cancelled ones")
    others = [answer for index, answer in enumerate(answers) if index not in indices]
    races.require_one_agent(others, f"callers beside {len(indices)} cancelled ones", "cancelled-others")
    races.expect(1, 1, "wrong-count", "after some of the callers of one agent were cancelled")
    await races.leave(user)


async def _all_cancelled(races: Races, gate: Gate, user: str) -> bool:
    callers = races.callers(user, "cancel-all", races.racers)
    await races.arrived(gate, "cancel-all")
    # A session may be opened for the agent that is coming, or with it.
    races.expect(None, 0, "wrong-count", "while the first agent of a user is being made")
    await races.cancel(callers, range(races.racers))
    races.expect(0, 0, "left-behind", "after every caller of an agent was cancelled")
    gate.open()
    await races.trial.waiting.settle()
    races.expect(0, 0, "left-behind", "after every caller was cancelled and the factory could have ended")
    works = await _next_call_works(races, user, "cancel-all")
    await races.leave(user)
    return works


async def _create_cancelled(races: Races, gate: Gate, user: str) -> bool:
    client = races.client("the creator", user)
    task = asyncio.create_task(client.create("cancel-create"))
    await races.arrived(gate, "a create that is cancelled")
    await races.cancel({client: task}, [0])
    races.expect(0, 0, "left-behind", "after a create was cancelled")
    gate.open()
    await races.trial.waiting.settle()
    races.expect(0, 0, "left-behind", "after a create was cancelled and its factory could have ended")
    works = await _next_call_works(races, user, "cancel-create")
    await races.leave(user)
    return works


async def _went_on(ask: Callable[[str], Coroutine[Any, Any, Handle]], agent_type: str) -> asyncio.Task[Handle]:
    """A caller that was cancelled in something else before, and asks now: its task counts that for ever."""
    waits = asyncio.Event()

    async def go_on() -> Handle:
        with suppress(asyncio.CancelledError):
            waits.set()
            await asyncio.Event().wait()
        return await ask(agent_type)

    asked = asyncio.create_task(go_on())
    await waits.wait()
    asked.cancel()
    return asked


async def _ended_meanwhile(
    races: Races, gate: Gate, user: str, agent_type: str, asked: Sequence[asyncio.Task[Handle]]
) -> None:
    before = {task: task.cancelling() for task in asked}
    await races.arrived(gate, "a session that ends")
    await races.trial.waiting.ends(
        races.client("the end", user).end(), "ending a session in which an agent is being made"
    )
    gate.open()
    answers = await races.all_of(asked, "callers in a session that ended")
    refused = [one for one in answers if isinstance(one, Refused) and one.kind is Refusal.CLOSED]
    given = [one for one in answers if isinstance(one, Handle)]
    strange = [repr(one) for one in answers if one not in (*refused, *given)]
    is_cancelled = any(isinstance(one, asyncio.CancelledError) for one in answers)
    anomaly = "cancelled-others" if is_cancelled else "wrong-refusal"
    races.trial.require(not strange, anomaly, "the end of a session was reported to callers as this", *strange)
    counting = [task for task in asked if task.cancelling() > before[task]]
    sentence = f"{len(counting)} of {len(asked)} callers still count the cancellation by which their session ended"
    races.trial.require(not counting, "cancellation-left", sentence, *answers)
    # A caller may have come after the end: its agent is then in a session that can be found, when it has run at the
    # latest, for a run may be what begins a conversation.
    if races.can(Capability.LOOKUP):
        for one in given:
            with suppress(Exception):  # Noted by the client; here the lookup is judged.
                await races.client("the given one", user).run(one, Command("recall"))
        found = await races.client("a lookup", user).get(agent_type)
        instance = None if found is None else found.instance
        lost = [one.instance for one in given if one.instance != instance]
        sentence = f"agents handed out that {user!r} does not find: {lost}"
        races.trial.require(not lost, "orphaned-agent", sentence, *answers)
    races.expect(int(bool(given)), int(bool(given)), "left-behind", "after a session ended while an agent was made")
    await _next_call_works(races, user, agent_type, is_there=bool(given))
    await races.leave(user)


async def _over_an_end(races: Races, gates: dict[str, Gate]) -> None:
    """One asks for an agent behind a create that is held, the session ends, and another one asks for the same agent.
    Either may be refused; both are never given two."""
    user, held, slow = "over-an-end", gates["held"], gates["slow"]
    held.shut()
    slow.shut()
    making = asyncio.create_task(races.client("the first", user).create("held"))
    await races.arrived(held, "a session that ends")
    before = asyncio.create_task(races.client("who asks before the end", user).get_or_create("slow"))
    await races.trial.waiting.settle()
    ending = asyncio.create_task(races.client("the end", user).end())
    await races.trial.waiting.settle()
    after = asyncio.create_task(races.client("who asks after the end", user).get_or_create("slow"))
    await races.trial.waiting.settle()
    held.open()
    await races.trial.waiting.settle()
    slow.open()
    made, *answers, _ = await races.all_of([making, before, after, ending], "callers before and after an end")
    # Whoever joins a making that the end has cut off may be refused, too.
    given = [one for one in answers if not (isinstance(one, Refused) and one.kind is Refusal.CLOSED)]
    races.require_one_agent(given, "callers before and after an end")
    agents = bool(given) + isinstance(made, Handle)
    races.expect(int(bool(agents)), agents, "wrong-count", "after an end between two callers of one agent")
    await races.leave(user)


async def _cancelled_at_turn(races: Races, turns: int, action: str) -> None:
    """Cancel a caller after so many turns of the loop; the agents held then must agree with its answer."""
    user = f"{action.replace('_', '-')}-{turns}"
    client = races.client("the cancelled one", user)
    work = client.create("turns") if action == "create" else client.get_or_create("turns")
    task = asyncio.create_task(work)
    await races.trial.waiting.settle(turns)
    races.cancelled.add(client.name)
    task.cancel()
    answer = (await races.all_of([task], f"a {action} that is cancelled"))[0]
    await races.trial.waiting.settle()
    if not races.can(Capability.POPULATION, Capability.LOOKUP, Capability.END):
        await _next_call_works(races, user, "turns", is_there=isinstance(answer, Handle))
        return await races.leave(user)
    held = races.target.population().agents
    is_found_again = action == "get_or_create" or not races.can(Capability.CREATE_ANEW)
    if isinstance(answer, Handle) or (is_found_again and held == 1):
        # An agent that was ready before the cancellation arrived may stay, if it can be found and is counted.
        found = await races.client("a lookup", user).get("turns")
        races.trial.require(found is not None, "orphaned-agent", f"after a cancelled {action}: counted, not found")
        races.expect(1, 1, "wrong-count", f"after a {action} that was ready when it was cancelled")
    else:
        races.expect(0, 0, "left-behind", f"after a {action} was cancelled at turn {turns}")
        await _next_call_works(races, user, "turns")
    return await races.leave(user)


async def _next_call_works(races: Races, user: str, agent_type: str, *, is_there: bool = False) -> bool:
    """Require that the user is served. `is_there`: they have an agent of this type already."""
    again = races.asked(races.client("the next", user), agent_type)
    answer = (await races.all_of([asyncio.create_task(again)], "the next call"))[0]
    works = isinstance(answer, Handle)
    races.trial.require(works, "next-call-fails", f"the next call for {user!r} failed: {answer!r}", repr(answer))
    if works:
        is_another = is_there and not races.are_joined and races.can(Capability.CREATE_ANEW)
        races.expect(1, 1 + is_another, "wrong-count", "after the next call")
    return works


CHECKS = (
    Check(
        name="concurrent_agent_registration_safety",
        category="registration_management",
        claim="Factories may be slow, fail or be cancelled: all who ask at once get one agent, no caller is cancelled "
        "with another or waits for another user's factory, no failure is cached, a call that did not succeed leaves no "
        "agent and no session, and no caller is left waiting when the registry stops.",
        protects="stability",
        looks_like="A user double-clicks. Two agents are made for one conversation, each holds half of it, and which "
        "of them answers depends on the server's mood; the browser tab that was closed meanwhile took the other "
        "tab's request with it, and after one time-out of the model the user gets that error for ever, from a "
        "cache.",
        body=_races,
        planted=(
            "CheckThenAwait",
            "ActivationSharedByThreads",
            "ActivationsForgottenTogether",
            "CachedFailure",
            "FailureKeptWithSession",
            "CancelledCallerCancelsOthers",
            "ActivationOutlivesCallers",
            "StoppingActivationJoined",
            "InstalledAfterEnd",
            "EndTrustsItsCancellations",
            "EndCancelsItsCallers",
            "EarlierCancellationCounts",
            "ClosedInPlaceOfCancelled",
            "SessionOverwritten",
            "CancelledCreateLeavesOrphan",
            "CancelledCreateLeavesGhost",
            "ForgottenBeforeInstalled",
            "UntoldWaiters",
            "EmptySessionStays",
            "LockKeptOnCancellation",
            "CreateTurnLost",
            "ResurrectedByLateInstall",
            "ResetClearsAfterwards",
            "OneLockForCreates",
            "CancelledCreateGoesOn",
            "StopForgetsCallers",
            "LocksOf64",
            "LockForgottenUnderWaiters",
            "LockForgottenAtEnd",
        ),
        uses=frozenset(
            {
                Capability.CREATE_ANEW,
                Capability.END,
                Capability.EVENTS,
                Capability.GET_OR_CREATE,
                Capability.LOOKUP,
                Capability.ORCHESTRATION,
                Capability.POPULATION,
                Capability.REMOVE,
                Capability.SUPERVISION,
                Capability.THREADS,
            }
        ),
    ),
)
