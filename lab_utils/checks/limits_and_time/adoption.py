"""The check of agents that were made elsewhere and are given to a session."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from lab_utils.checks.limits_and_time.asking import attempt, cause, is_refused, of, require_refused, said
from lab_utils.target import Bounds, Capability, Command, Handle, Recipe, Refusal, Target
from lab_utils.trial import Trial
from lab_utils.trial.faults import NO_CLEANUPS, Gate, counted

__all__ = ["adopted_agents", "adopted_beyond_the_cap"]

_MEMO = Command("read", {"key": "memo"})


async def _adopt(trial: Trial, target: Target, user: str, handle: Handle) -> Any:
    client = of(trial, target, user)
    return await attempt(trial, client.call("adopt", target.adopt(user, handle), handle.agent_type), f"adopt by {user}")


async def adopted_agents(trial: Trial) -> None:
    """Adopt agents of the user, of another user, of another session, and closed ones; end their sessions."""
    closed: Counter[str] = Counter()
    target = await trial.target([Recipe("helper", on_cleanup=counted(closed)), Recipe("analyst")])
    able = target.capabilities
    for user in ("ada", "bob"):
        await of(trial, target, user).create("analyst")
    own = target.make_apart("ada", "helper")
    stolen = await _adopt(trial, target, "bob", own)
    require_refused(trial, stolen, Refusal.BOUNDARY, "boundary-crossed", "adopting another user's agent")
    if Capability.LOOKUP in able:
        found = await of(trial, target, "bob").get("helper")
        sentence = "an agent of 'ada' was offered to the session of 'bob', refused, and is found there"
        trial.require(found is None, "boundary-crossed", sentence, said(found))
    before = target.population() if Capability.POPULATION in able else None
    answer = await _adopt(trial, target, "ada", own)
    if answer is not None:
        # One that nobody was offered before tells what it is that keeps this one out.
        fresh = await _adopt(trial, target, "ada", target.make_apart("ada", "helper"))
        sentence, anomaly = f"adopting one's own agent {said(answer)}", cause("failed-operation", answer)
        if fresh is None:
            sentence, anomaly = (
                f"an agent that another user's session had refused is spoiled: {sentence}",
                "left-behind",
            )
        trial.find(anomaly, sentence, said(answer))
        return
    client = of(trial, target, "ada")
    subscription = target.subscribe("ada") if Capability.EVENTS in able else None
    await client.run(own, Command("write", {"key": "memo", "value": "of an adopted one"}))
    if Capability.LOOKUP in able:
        found = await client.get("helper")
        read = None if found is None else await client.run(found, _MEMO)
        sentence = f"the adopted agent is not found: a lookup {said(found)}, which read {read!r}"
        trial.require(read == "of an adopted one", "lost-agent", sentence)
    if before is not None:
        after = target.population()
        sentence = f"an agent was adopted, and the count went from {before.agents} to {after.agents}"
        trial.require(after.agents == before.agents + 1, "wrong-count", sentence)
    if subscription is not None:
        got = await trial.waiting.until(lambda: any(one.agent == "helper" for one in subscription.received()))
        trial.require(got, "lost-event", "an adopted agent runs, and its user's client receives nothing of it")
        await subscription.close()
    is_single = True
    for user in ("bob", "ada"):
        again = await _adopt(trial, target, user, own)
        is_single &= (is_well := is_refused(again, Refusal.BOUNDARY, Refusal.CLOSED))
        sentence = f"an agent that belongs to the session of 'ada' was offered to {user!r}, which {said(again)}"
        trial.require(is_well, "adopted-twice", sentence, said(again))
    made = await of(trial, target, "bob").create("helper")
    again = await _adopt(trial, target, "bob", made)
    is_well = is_refused(again, Refusal.BOUNDARY, Refusal.CLOSED)
    sentence = f"an agent that its registry made was offered for adoption, which {said(again)}"
    trial.require(is_well, "adopted-twice", sentence, said(again))
    if Capability.END in able:
        await _ended(trial, target, own, closed)
    if is_single:
        await _adopted_at_once(trial)


async def _adopted_at_once(trial: Trial) -> None:
    """Offer an agent twice to its user's session while another agent of the user is being made: where one call of a
    user waits for another, both may have been checked before either took effect."""
    gate, closed = Gate(), Counter[str]()
    target = await trial.target([Recipe("helper", on_cleanup=counted(closed)), Recipe("slow", gate)])
    making = asyncio.ensure_future(of(trial, target, "ada").create("slow"))
    own = target.make_apart("ada", "helper")
    await trial.waiting.until(lambda: gate.inside > 0 or making.done())
    both = [asyncio.ensure_future(_adopt(trial, target, "ada", own)) for _ in range(2)]
    await trial.waiting.settle()
    gate.open()
    answers = [await one for one in both]
    await attempt(trial, making, "a create beside adoptions")
    taken = [answer for answer in answers if not isinstance(answer, BaseException)]
    sentence = f"one agent was offered twice at once to the session of 'ada', and {len(taken)} of these calls succeeded"
    trial.require(len(taken) <= 1, "adopted-twice", sentence, *map(said, answers))
    trial.require(bool(taken), cause("failed-operation", *answers), sentence, *map(said, answers))
    if taken and Capability.END in target.capabilities:
        await of(trial, target, "ada").end()
        sentence = f"an agent that was offered twice at once was closed {closed['ada']} times by the end"
        trial.require(closed["ada"] <= 1, "closed-twice", sentence)


async def _ended(trial: Trial, target: Target, own: Handle, closed: Counter[str]) -> None:
    for user in ("bob", "ada"):
        await of(trial, target, user).end()
    # Agents may have no cleanups at all: then that of bob, whom nobody gave one, has none either.
    if not closed["bob"]:
        trial.leave_out(NO_CLEANUPS)
    else:
        for user in ("bob", "ada"):
            anomaly = "never-closed" if closed[user] < 1 else "closed-twice"
            sentence = f"{user!r} had 1 helper, and its cleanup was called {closed[user]} times by the end"
            trial.require(closed[user] == 1, anomaly, sentence)
    answer = await attempt(trial, of(trial, target, "ada").run(own, _MEMO), "a run after the end")
    sentence = f"an adopted agent whose session has ended {said(answer)}"
    trial.require(is_refused(answer, Refusal.CLOSED), "use-after-close", sentence, said(answer))
    again = await _adopt(trial, target, "ada", own)
    is_well = is_refused(again, Refusal.BOUNDARY, Refusal.CLOSED)
    sentence = f"an agent whose session has ended was offered again, which {said(again)}"
    trial.require(is_well, "adopted-twice", sentence, said(again))


async def adopted_beyond_the_cap(trial: Trial) -> None:
    """Adopt into a full house, and race for its last place."""
    cap = int(trial.parameters["agents_per_user"])
    kinds = [Recipe(f"kind-{number}") for number in range(cap + 2)]
    target = await trial.target(kinds, bounds=Bounds(agents_per_user=cap))
    for number in range(cap - 1):
        await of(trial, target, "ada").create(f"kind-{number}")
    both = [target.make_apart("ada", kinds[number].agent_type) for number in (cap, cap + 1)]
    calls = [asyncio.ensure_future(_adopt(trial, target, "ada", handle)) for handle in both]
    answers = [await call for call in calls]
    taken = [answer for answer in answers if answer is None]
    sentence = f"{len(taken)} agents were adopted where one place was free"
    trial.require(len(taken) <= 1, "over-limit", sentence, *map(said, answers))
    trial.require(bool(taken), cause("limit-too-early", *answers), sentence, *map(said, answers))
    refused = [answer for answer in answers if answer is not None]
    for answer in refused:
        require_refused(trial, answer, Refusal.CAPACITY, "over-limit", "adopting into a full house")
    if not (refused and taken):
        return
    offered = both[answers.index(refused[0])]
    if Capability.REMOVE in target.capabilities:
        await of(trial, target, "ada").remove("kind-0")
        again = await _adopt(trial, target, "ada", offered)
        sentence = f"an agent was refused for want of room; now there is room, and its adoption {said(again)}"
        trial.require(again is None, "left-behind", sentence, said(again))
        offered = target.make_apart("ada", "kind-0")
        require_refused(
            trial,
            await _adopt(trial, target, "ada", offered),
            Refusal.CAPACITY,
            "over-limit",
            "adopting into a full house again",
        )
    if Capability.END in target.capabilities:
        # It was never of the session that ends.
        await of(trial, target, "ada").end()
        again = await _adopt(trial, target, "ada", offered)
        sentence = f"an agent was refused for want of room; that session has ended, and its adoption {said(again)}"
        trial.require(again is None, "left-behind", sentence, said(again))
