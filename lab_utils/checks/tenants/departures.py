"""The body of user_session_cleanup_and_isolation: half of the users leave, some of them badly."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab_utils.checks.events.talking import Talk, all_arrived, each, patiently, require_of, thought
from lab_utils.checks.tenants.counted_cost import judge_cost_of_ending
from lab_utils.checks.tenants.succession import judge_succession, judge_successors
from lab_utils.judges.delivery import exactly_its_own
from lab_utils.judges.leaving import Left, closed_once, undelayed
from lab_utils.target import Capability, Command, EndReport, Handle, Hook, Recipe, Refusal, Refused, Target
from lab_utils.trial import LAB, Trial
from lab_utils.trial.faults import NO_CLEANUPS, Failure, Hang, OnlyFor
from lab_utils.values.verdict import Outcome
from lab_utils.values.workload import canary

__all__ = ["coming_back", "cost_of_leaving", "leaving_at_once"]

_TYPES = ("first", "second", "third")
_RECALL = Command("recall")
_LEFT_OUT = {
    Capability.EVENTS: "the clients and events of those who leave and stay",
    Capability.POPULATION: "the counts once half of the users have left",
}
_LONG_S, _SHORT_S = 600.0, 0.05
"""Seconds for a cleanup: so many that the trial lets go first, and so few that the target has to cut off."""


@dataclass(frozen=True, slots=True)
class _Faults:
    """The fault in the cleanup of each second agent of three who leave, and how often cleanups were called."""

    hang: Hang
    stubborn: Hang
    faults: Mapping[str, Hook]
    cleanups: Counter[tuple[str, str]]

    @classmethod
    def of(cls, users: Sequence[str]) -> _Faults:
        hang, stubborn = Hang(), Hang(stubborn=True)
        return cls(hang, stubborn, dict(zip(users, (hang, stubborn, Failure("disk full")), strict=False)), Counter())

    def recipes(self) -> list[Recipe]:
        return [Recipe(name, on_cleanup=self._cleanup(name)) for name in (*_TYPES, "extra")]

    def _cleanup(self, agent_type: str) -> Hook:
        # The second of three: the ones before it and after it must be closed too.
        fault = OnlyFor(dict(self.faults)) if agent_type == "second" else None

        async def cleanup(user: str) -> None:
            self.cleanups[user, agent_type] += 1
            if fault is not None:
                await fault(user)

        return cleanup

    def both_inside(self) -> bool:
        return self.hang.reached.is_set() and self.stubborn.reached.is_set()

    def release(self) -> None:
        self.hang.release()
        self.stubborn.release()


async def leaving_at_once(trial: Trial) -> None:
    """Once with cleanups that are held while the others work, once with cleanups that the target must cut off."""
    users = trial.neighbours(int(trial.parameters["users"]))
    leaving, staying = users[::2], users[1::2]
    cleans = await _cleans(trial)
    if not cleans:
        trial.leave_out(NO_CLEANUPS)
    for lacking in sorted(_LEFT_OUT.keys() - trial.make_target().capabilities):
        trial.leave_out(f"{_LEFT_OUT[lacking]} (the target lacks: {lacking})")
    for phase in (_held, _cut_off) if cleans else (_held,):
        faults = _Faults.of(leaving if cleans else ())
        try:
            await phase(trial, faults, leaving, staying)
        finally:
            faults.release()


async def _cleans(trial: Trial) -> bool:
    """Whether a cleanup is called for an agent whose session ends: agents may have none at all."""
    faults = _Faults.of(())
    target = await trial.target(faults.recipes())
    first = trial.client(target, "the first of all", "first-of-all")
    await first.create(_TYPES[0])
    await first.end()
    await trial.stop(target)
    return bool(faults.cleanups)


async def coming_back(trial: Trial) -> None:
    """Judge the users who come back, unless ends were seen to wait for a hanging cleanup."""
    found = {finding.anomaly for verdict in trial.verdicts for finding in verdict.findings}
    if found & {"never-ends", "delayed-by-neighbour"}:
        return trial.note(
            "Sessions opened again were left out: ends already waited for a hanging cleanup, and would again."
        )
    await judge_succession(trial)
    return await judge_successors(trial)


async def cost_of_leaving(trial: Trial) -> None:
    """Judge the cost of leaving, unless something was found before."""
    if any(verdict.outcome is Outcome.FAIL for verdict in trial.verdicts):
        # It opens a thousand sessions, which say nothing more of a target that is at fault already.
        return trial.note("The cost of an end beside many others was not counted: something else was found before.")
    return await judge_cost_of_ending(trial)


async def _held(trial: Trial, faults: _Faults, leaving: Sequence[str], staying: Sequence[str]) -> None:
    target = await trial.target(faults.recipes(), close_timeout=_LONG_S)
    talks = {user: Talk(trial, target, user) for user in (*leaving, *staying)}
    agents = await _filled(trial, list(talks.values()))
    if len(agents) < len(talks):
        # Who was not given their agents is a finding; of the others it cannot be told what follows from it.
        return trial.leave_out("what happens when half of the users leave, for want of users with their agents")
    stayers = [talks[user] for user in staying]
    waiting = list(faults.faults)[:2]
    ends = {user: asyncio.ensure_future(talks[user].client.end()) for user in leaving}
    if waiting:
        inside = await trial.waiting.until(faults.both_inside)
        sentence = f"the cleanups of {waiting[0]!r} and {waiting[1]!r} were not under way at once"
        trial.require(inside, "delayed-by-neighbour", sentence)
    held_from = trial.next_position()
    busy = asyncio.ensure_future(each(trial, stayers, lambda _, talk: _work(talk, agents[talk.user])))
    newcomer = asyncio.ensure_future(trial.client(target, "newcomer", "newcomer").create("first"))
    others = [ends[user] for user in leaving if user not in waiting]
    undone = [busy, newcomer, *others]
    await patiently(trial, lambda: all(task.done() for task in undone))
    late = [user for user in leaving if user not in waiting and not ends[user].done()]
    beside = f"the cleanup of {waiting[0]!r} hung" if waiting else "others worked"
    sentence = f"{', '.join(map(repr, late))} could not leave while {beside}"
    trial.require(not late, "delayed-by-neighbour", sentence)
    released_at = trial.next_position()
    faults.release()
    await trial.waiting.ends(asyncio.wait([*undone, *ends.values()]), "an operation after the cleanups were let go")
    if waiting:
        trial.judge(undelayed(trial.history, waiting, held_from, released_at))
    failing = set(list(faults.faults)[2:])
    cleanups = faults.cleanups if waiting else None
    trial.judge(closed_once(_left(trial, ends, failing), cleanups, _TYPES, staying))
    await _gone(trial, target, [talks[user] for user in leaving], agents)
    await _unharmed(trial, stayers, agents)
    if Capability.EVENTS in target.capabilities:
        trial.judge(exactly_its_own(await all_arrived(trial, stayers)))
    if Capability.POPULATION in target.capabilities:
        found = target.population()
        expected = (len(staying) + 1, len(staying) * len(_TYPES) + 1)
        sentence = f"the target holds {found}, expected are (sessions, agents) {expected}"
        trial.require((found.sessions, found.agents) == expected, "wrong-count", sentence, found)
    last = {talk.user: asyncio.ensure_future(talk.client.end()) for talk in stayers}
    await trial.waiting.ends(asyncio.wait(last.values()), "the end of those who had stayed")
    trial.judge(closed_once(_left(trial, last, set()), cleanups, _TYPES, ()))
    trial.measure("users who left while others worked", len(leaving), "users")
    return await trial.stop(target)


async def _cut_off(trial: Trial, faults: _Faults, leaving: Sequence[str], staying: Sequence[str]) -> None:
    target = await trial.target(faults.recipes(), close_timeout=_SHORT_S)
    talks = {user: Talk(trial, target, user) for user in (*faults.faults, staying[0])}
    agents = await _filled(trial, list(talks.values()))
    if len(agents) < len(talks):
        return trial.leave_out("cleanups that are cut off, for want of users with their agents")
    ends = {user: asyncio.ensure_future(talks[user].client.end()) for user in faults.faults}
    ended = await trial.waiting.until(lambda: all(task.done() for task in ends.values()))
    endless = [user for user, task in ends.items() if not task.done()]
    sentence = f"ending {', '.join(map(repr, endless))} did not cut off a cleanup that hangs"
    times = f"close_timeout {_SHORT_S:g} s", f"waited {trial.waiting.stuck_after:g} s at most"
    trial.require(ended, "never-ends", sentence, *times)
    # A stubborn cleanup is let go only now: until here the target had to get by without it.
    faults.release()
    await trial.waiting.ends(asyncio.wait(ends.values()), "an end after its cleanup was let go")
    if ended:
        failing = set(faults.faults)
        trial.judge(closed_once(_left(trial, ends, failing), faults.cleanups, _TYPES, staying[:1]))
        longest = max(op.end_s - op.start_s for op in trial.history.where(action="end")[-len(ends) :])
        trial.show("longest end, cut off", longest, "s", LAB("<=", 1.0))
    await _gone(trial, target, [talks[user] for user in ends], agents)
    return await _unharmed(trial, [talks[staying[0]]], agents)


async def _filled(trial: Trial, talks: Sequence[Talk]) -> dict[str, dict[str, Handle]]:
    agents: dict[str, dict[str, Handle]] = {}

    async def fill(_: int, talk: Talk) -> None:
        if talk.client.can(Capability.EVENTS):
            await talk.connect("phone")
        agents[talk.user] = {name: await talk.client.create(name) for name in _TYPES}
        for name, handle in agents[talk.user].items():
            await talk.run(handle, "write", key="note", value=canary(talk.user, name, 0))

    async def look(_: int, talk: Talk) -> None:
        for name, handle in agents[talk.user].items():
            memory, note = await talk.run(handle, "recall"), canary(talk.user, name, 0)
            sentence = f"{talk.user!r} wrote a note to their agent {name!r}, which forgot it before anybody left"
            witness = (f"written: {note!r}", f"remembered: {memory!r}")
            trial.require(memory.get("note") == note, "lost-write", sentence, *witness)

    await each(trial, talks, fill)
    await each(trial, talks, look)
    return agents


async def _work(talk: Talk, agents: Mapping[str, Handle]) -> None:
    for number, handle in enumerate(agents.values()):
        await talk.run(handle, "think", thoughts=[thought(talk.user, number)])
        await talk.run(handle, "add", key="count", amount=1, pause_s=0)
    if talk.client.can(Capability.LOOKUP):
        await talk.client.get("first")
    if talk.client.can(Capability.REMOVE):
        extra = await talk.client.create("extra")
        await talk.run(extra, "think", thoughts=[thought(talk.user, 10)])
        await talk.client.remove("extra")


def _left(trial: Trial, ends: Mapping[str, asyncio.Task[Any]], failing: set[str]) -> list[Left]:
    left = []
    for user, task in ends.items():
        error = task.exception()
        if error is not None:
            trial.find("failed-operation", f"ending {user!r} raised {error!r}", *trial.history.where(user=user)[-1:])
            continue
        report: EndReport = task.result()
        left.append(Left(user, len(_TYPES), report.found, report.closed, report.errors, user in failing))
    return left


async def _gone(
    trial: Trial, target: Target, talks: Sequence[Talk], agents: Mapping[str, Mapping[str, Handle]]
) -> None:
    """Require that nothing is left of departed users, and that their old handles are refused."""

    async def look(_: int, talk: Talk) -> None:
        names = _TYPES if talk.client.can(Capability.LOOKUP) else ()
        found = [name for name in names if await talk.client.get(name) is not None]
        again: EndReport = await talk.client.end()
        connected = talk.client.can(Capability.EVENTS) and target.connections(talk.user) > 0
        left = bool(found) or again.found or connected
        sentence = f"{talk.user!r} has left; found {found}, a session: {again.found}, or a connection is there"
        require_of(trial, not left, "session-left", sentence, talk.user)
        try:
            await talk.client.run(agents[talk.user]["first"], _RECALL)
        except Refused as refusal:
            sentence = f"a handle of {talk.user!r}, who left, was refused as {refusal.kind}"
            trial.require(refusal.kind is Refusal.CLOSED, "wrong-refusal", sentence, refusal)
        else:
            sentence = f"an agent of {talk.user!r}, who left, still runs"
            trial.find("used-after-end", sentence, *trial.history.where(user=talk.user)[-1:])

    await each(trial, talks, look)


async def _unharmed(trial: Trial, talks: Sequence[Talk], agents: Mapping[str, Mapping[str, Handle]]) -> None:
    """Require that staying users have their agents, with their memories, and their connection."""
    # A note that was gone before anybody left is no matter of those who leave.
    lost = any(finding.anomaly == "lost-write" for verdict in trial.verdicts for finding in verdict.findings)

    async def look(_: int, talk: Talk) -> None:
        for name, handle in agents[talk.user].items():
            # Without a lookup the agent's memory must do.
            found = await talk.client.get(name) if talk.client.can(Capability.LOOKUP) else handle
            same = found is not None and found.instance == handle.instance
            sentence = f"{talk.user!r} stayed and no longer finds their agent {name!r}"
            require_of(trial, same, "neighbour-touched", sentence, talk.user)
            memory, note = await talk.run(handle, "recall"), canary(talk.user, name, 0)
            sentence = f"{talk.user!r} stayed, and their agent {name!r} no longer remembers its note"
            witness = (f"written: {note!r}", f"remembered: {memory!r}")
            trial.require(lost or memory.get("note") == note, "neighbour-touched", sentence, *witness)
        closed = [listener.name for listener in talk.listeners if not listener.is_open]
        trial.require(not closed, "neighbour-disconnected", f"{talk.user!r} stayed and lost their connection")

    await each(trial, talks, look)
