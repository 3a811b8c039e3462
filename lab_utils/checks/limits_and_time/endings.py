"""The parts of the check of endings by time: by idleness and by age, on a clock that the lab moves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from lab_utils.checks.limits_and_time.asking import attempt, ended_beside, is_refused, of, said, waits_for_run
from lab_utils.target import Bounds, Capability, Command, Handle, Hook, Recipe, Refusal, Target
from lab_utils.trial import Trial
from lab_utils.trial.faults import NO_CLEANUPS, Failure, Gate, OnlyFor, counted

__all__ = ["age_ends", "idle_ends"]

_IDLE_S = 100.0
_AGE_S = 1_000.0
_USED = Command("write", {"key": "memo", "value": "of a life before"})
_MANY = 40
"""Users who are due at once: more than a sweep may take in one go."""
_IN_LINE = 12
"""Due users whose cleanups are held: more than a sweep may end at once."""
_TURNS = 12
"""Turns of the loop, since the beginning of a sweep, in which due users come back."""
_HELD_S = 600.0
"""Seconds that a cleanup may be held, longer than the lab waits for anything."""


class _Scene:
    """A target, and how many agents of each user were made and closed in it."""

    def __init__(self, trial: Trial, target: Target, closed: Counter[str]) -> None:
        self.trial, self.target, self.closed = trial, target, closed
        self.made: dict[str, list[Handle]] = {}
        self.reported: list[str] = []
        # Agents may have no cleanups at all.
        self.cleans = True

    @classmethod
    async def open(
        cls,
        trial: Trial,
        bounds: Bounds,
        running: Hook | None = None,
        cleaning: Mapping[str, Hook] | None = None,
        close_timeout: float = 5.0,
    ) -> _Scene:
        closed: Counter[str] = Counter()
        cleanup = counted(closed, OnlyFor(dict(cleaning or {})))
        recipes = [Recipe("helper", None, running, cleanup), Recipe("slow", running, None, cleanup)]
        scene = cls(trial, await trial.target(recipes, close_timeout=close_timeout, bounds=bounds), closed)
        if Capability.END in scene.target.capabilities:
            first = of(trial, scene.target, "first-of-all")
            await first.create("helper")
            await first.end()
            scene.cleans = bool(closed)
            if not scene.cleans and NO_CLEANUPS not in trial.left_out:
                trial.leave_out(NO_CLEANUPS)
            closed.clear()
        return scene

    async def come(self, *users: str) -> None:
        for user in users:
            self.made.setdefault(user, []).append(await of(self.trial, self.target, user).create("helper"))

    async def use(self, user: str, command: Command = _USED) -> object:
        run = of(self.trial, self.target, user).run(self.made[user][-1], command)
        return await attempt(self.trial, run, f"a run of {user}")

    def uses(self) -> Mapping[str, Callable[[str], Awaitable[Any]]]:
        """Every call that is a use of the session of the user who makes it."""
        target, able = self.target, self.target.capabilities
        ways: dict[str, Callable[[str], Awaitable[Any]]] = {
            "run": lambda user: target.run(self.made[user][-1], _USED),
            "failed run": lambda user: target.run(self.made[user][-1], Command("fail", {"message": "planned"})),
        }
        if Capability.CREATE_ANEW in able:
            # Else they may return the agent that is there.
            ways["create"] = lambda user: target.create(user, "helper")
            if Capability.STRICT in able:
                ways["create_strict"] = lambda user: target.create_strict(user, "helper", {})
        if Capability.GET_OR_CREATE in able:
            ways["get_or_create"] = lambda user: target.get_or_create(user, "helper")
        if Capability.ADOPTION in able:
            ways["adopt"] = self.adopt
            ways["run of an adopted agent"] = ways["run"]
        return ways

    async def adopt(self, user: str) -> Handle:
        apart = self.target.make_apart(user, "slow")
        await self.target.adopt(user, apart)
        return apart

    async def use_by(self, way: str, user: str) -> None:
        """Use the user's session by this call, and count the agent that it made, if any."""
        client = of(self.trial, self.target, user)
        is_to_fail = way == "failed run"
        call = client.call("run:fail" if is_to_fail else way, self.uses()[way](user), "helper")
        answer = await attempt(self.trial, call, f"a {way} of {user}", may_fail=is_to_fail)
        if is_to_fail:
            return
        known = [handle.instance for handle in self.made[user]]
        if isinstance(answer, Handle) and answer.instance not in known:
            self.made[user].append(answer)
        sentence = f"a {way} of an idle user {said(answer)}"
        self.trial.require(not isinstance(answer, BaseException), "failed-operation", sentence, said(answer))

    async def give_back_one(self, user: str) -> None:
        """Make one more agent and remove it: the session stays, and is as old as before. That agent does not count."""
        client, closed = of(self.trial, self.target, user), self.closed[user]
        made = await attempt(self.trial, client.create("slow"), f"a create of {user}")
        await attempt(self.trial, client.remove("slow"), f"a removal of {user}")
        if isinstance(made, Handle):
            self.made[user] = [handle for handle in self.made[user] if handle.instance != made.instance]
            self.closed[user] = closed

    async def look_around(self, user: str) -> None:
        """Look up this user and an unknown one, and ask for all counts: no other user's session is used by that."""
        able = self.target.capabilities
        for asked in (user, "nobody") if Capability.LOOKUP in able else ():
            await of(self.trial, self.target, asked).get("helper")
        if Capability.POPULATION in able:
            self.target.population()
        if Capability.EVENTS in able:
            self.target.connections()

    async def sweep(self) -> None:
        self.reported = list(await self.trial.waiting.ends(self.target.sweep(), "a sweep"))
        await self.trial.waiting.settle()

    def require_ended(self, users: Sequence[str], when: str, why_not: Mapping[str, tuple[str, str]]) -> None:
        """Require that of those who are there exactly these were ended, each agent closed once. `why_not`: for each
        other user the anomaly that ending them is, and the reason why they were not due."""
        for user in users:
            closed, there = self.closed[user], len(self.made[user])
            if user not in self.reported and not closed:
                self.trial.find("overdue", f"{user!r} was due and was not ended by the sweep", self.reported)
            elif self.cleans:
                anomaly = "never-closed" if closed < there else "closed-twice"
                sentence = f"{user} was ended {when}: of {there} agents {closed} were closed"
                self.trial.require(closed == there, anomaly, sentence)
        for user, (anomaly, reason) in why_not.items():
            ended = user in self.reported or self.closed[user] > 0
            self.trial.require(not ended, anomaly, f"{user} was ended {when}, and {reason}", self.reported)

    async def require_gone(self, users: Sequence[str]) -> None:
        """Require that those who were ended are refused, and that one who comes again begins anew."""
        trial = self.trial
        for user in users:
            answer = await self.use(user, Command("read", {"key": "memo"}))
            sentence = f"the agent of {user}, who was ended, {said(answer)}"
            trial.require(is_refused(answer, Refusal.CLOSED), "use-after-close", sentence, said(answer))
        self.made.pop(users[0])
        await self.come(users[0])
        answer = await self.use(users[0], Command("read", {"key": "memo"}))
        sentence = f"{users[0]} comes again after the end, and the new agent {said(answer)}"
        trial.require(answer is None, "old-life-read", sentence, said(answer))
        await self.sweep()
        sentence = f"{users[0]} comes again after the end, and the next sweep ends the new session"
        trial.require(users[0] not in self.reported, "ended-early", sentence, self.reported)


async def idle_ends(trial: Trial) -> None:
    """End those who were idle for too long, and nobody else."""
    await _idle(trial)
    await _with_a_failure(trial, Bounds(idle_s=_IDLE_S), _IDLE_S)
    await _beside_a_sweep(trial, Bounds(idle_s=_IDLE_S), _IDLE_S)
    await _back_beside_a_sweep(trial)
    await _gone_beside_a_sweep(trial)


async def _idle(trial: Trial) -> None:
    gate = Gate()
    cut = Gate()
    held = OnlyFor({"running": gate, "making": gate, "finding": gate, "cancelled": cut})
    scene = await _Scene.open(trial, Bounds(idle_s=_IDLE_S), held)
    # Ids that read alike: the use of one is no use of the others.
    used, idle, idle_too = trial.neighbours(3)
    by_way = {f"{way}-caller".replace(" ", "-").replace("_", "-"): way for way in scene.uses()}
    await scene.come(idle, idle_too, used, "running", "making", "finding", "cancelled", *by_way)
    await _cancelled_run(scene, cut)
    for user, way in by_way.items():
        if way == "run of an adopted agent":
            await scene.use_by("adopt", user)
    await scene.use(idle)
    run = asyncio.ensure_future(scene.use("running"))
    makings = {"making": asyncio.ensure_future(of(trial, scene.target, "making").create("slow"))}
    if "get_or_create" in by_way.values():
        # A call with another way to the factory.
        makings["finding"] = asyncio.ensure_future(of(trial, scene.target, "finding").get_or_create("slow"))
    held_now = [run, *makings.values()]
    await trial.waiting.until(lambda: gate.inside == len(held_now) or any(one.done() for one in held_now))
    await _superseded(scene, "running")
    scene.target.move_clock(0.6 * _IDLE_S)
    await scene.come("young")
    await scene.use(used)
    for user, way in by_way.items():
        await scene.use_by(way, user)
    await scene.look_around(used)
    await scene.sweep()
    early = ("ended-early", "nobody had been idle for long enough")
    scene.require_ended([], "too early", dict.fromkeys(scene.made, early))
    scene.target.move_clock(0.6 * _IDLE_S)
    await scene.sweep()
    busy = {"running": ("busy-ended", "an agent of theirs was running")}
    busy |= dict.fromkeys(makings, ("busy-ended", "an agent of theirs was being made"))
    recent = {used: ("ended-early", "had run an agent not long ago"), "young": ("ended-early", "had come not long ago")}
    recent |= {user: ("ended-early", f"was last used not long ago, by a {way}") for user, way in by_way.items()}
    due = [idle, idle_too, "cancelled", *({"finding"} - makings.keys())]
    scene.require_ended(due, "when due", {**busy, **recent})
    gate.open()
    answer = await run
    trial.require(answer is None, "busy-ended", f"a run beside a sweep {said(answer)}", said(answer))
    for user, making in makings.items():
        made = await attempt(trial, making, "a create beside a sweep")
        if trial.require(isinstance(made, Handle), "busy-ended", f"a create beside a sweep {said(made)}", said(made)):
            scene.made[user].append(made)
    await scene.sweep()
    just = ("ended-early", "had been busy until just now")
    scene.require_ended([], "right after their work", dict.fromkeys(("running", *makings), just))
    scene.target.move_clock(2 * _IDLE_S)
    await scene.sweep()
    others = [used, "young", "running", *makings, *by_way]
    scene.require_ended(others, "at last", {})
    _require_nobody(trial, scene.target)
    await scene.sweep()
    sentence = "a sweep after everybody was ended ends somebody again"
    trial.require(not scene.reported, "wrong-report", sentence, scene.reported)
    scene.reported = [idle]
    scene.require_ended([idle], "and another sweep came", {})
    await scene.require_gone([idle, used])


async def _superseded(scene: _Scene, user: str) -> None:
    """Make another agent of the type of the one that runs, which is found no more, and runs on. A create that waits for
    its user's run is given up."""
    if "create" in scene.uses():
        making = asyncio.ensure_future(scene.use_by("create", user))
        if await waits_for_run(making):
            scene.trial.leave_out("another agent beside one that runs: the create waits for its user's run")
        else:
            making.result()


async def _cancelled_run(scene: _Scene, cut: Gate) -> None:
    """A run whose caller is cancelled is over, and keeps nobody here."""
    run = asyncio.ensure_future(scene.use("cancelled"))
    await scene.trial.waiting.until(lambda: cut.inside > 0 or run.done())
    run.cancel()
    await attempt(scene.trial, run, "a run that is cancelled", may_fail=True)
    cut.open()


async def _with_a_failure(trial: Trial, bounds: Bounds, seconds: float) -> None:
    """One whose cleanup fails keeps nobody else from being ended."""
    scene = await _Scene.open(trial, bounds, cleaning={"failing": Failure("this cleanup fails")})
    due = ["due-0", "failing", *(f"due-{number}" for number in range(1, _MANY))]
    await scene.come(*due)
    scene.target.move_clock(2 * seconds)
    report = await attempt(trial, scene.target.sweep(), "a sweep")
    scene.reported = [] if isinstance(report, BaseException) else list(report)
    await trial.waiting.settle()
    scene.require_ended(due, "beside one whose cleanup fails", {})


async def _beside_a_sweep(trial: Trial, bounds: Bounds, seconds: float) -> None:
    """While the cleanup of one due session is held, the other due ones are ended, and those not due go on."""
    gate = Gate()
    # A cleanup that is cut off holds nobody up any more.
    scene = await _Scene.open(trial, bounds, cleaning={"held": gate}, close_timeout=_HELD_S)
    due = ["held", "due-1", "due-2"]
    await scene.come(*due)
    scene.target.move_clock(2 * seconds)
    await scene.come("there")
    sweep = asyncio.ensure_future(scene.target.sweep())
    await trial.waiting.until(lambda: gate.reached.is_set() or sweep.done())
    others = due[1:]
    await trial.waiting.until(lambda: sweep.done() or all(scene.closed[user] for user in others))
    waiting = [user for user in others if not scene.closed[user]]
    what = "the cleanup of another user, who was due as well, is held"
    sentence = f"{len(waiting)} due users are not ended while {what}"
    trial.require(not waiting or sweep.done(), "waits-for-other", sentence, *waiting)
    there, new = of(trial, scene.target, "there"), of(trial, scene.target, "new")
    work = {
        "a run of one who was not due": there.run(scene.made["there"][0], _USED),
        "a create of a new user": new.create("helper"),
    }
    try:
        await ended_beside(trial, work, f"a sweep runs, and {what}")
        second = asyncio.ensure_future(scene.target.sweep())
        await trial.waiting.settle()
    finally:
        gate.open()
    for one in (sweep, second):
        await attempt(trial, one, "a sweep")
    await trial.waiting.settle()
    scene.reported = due
    scene.require_ended(due, "by two sweeps at once", {"there": ("ended-early", "had come not long ago")})


async def _back_beside_a_sweep(trial: Trial) -> None:
    """Due users come back while a sweep is under way, one in each of its first turns, and others while cleanups are
    held. Whose call succeeds had a use in time, and keeps the session."""
    gate = Gate()
    in_line = [f"in-line-{number}" for number in range(_IN_LINE)]
    ran: Counter[str] = Counter()
    bounds, held = Bounds(idle_s=_IDLE_S), dict.fromkeys(in_line, gate)
    scene = await _Scene.open(trial, bounds, counted(ran), held, _HELD_S)
    ways = [way for way in ("run", "get_or_create") if way in scene.uses()]
    at_turn = [f"{way}-at-{turn}".replace("_", "-") for turn in range(_TURNS) for way in ways]
    await scene.come(*in_line, *at_turn)
    for user in at_turn:
        await scene.use(user)
    scene.target.move_clock(2 * _IDLE_S)
    ran.clear()
    sweep = asyncio.ensure_future(scene.target.sweep())
    calls: dict[str, asyncio.Future[Any]] = {}

    def come_back(user: str, way: str) -> None:
        call = of(trial, scene.target, user).call(way, scene.uses()[way](user), "helper")
        calls[user] = asyncio.ensure_future(attempt(trial, call, f"a {way} of {user} beside a sweep"))

    try:
        for turn in range(_TURNS):
            for place, way in enumerate(ways):
                come_back(at_turn[turn * len(ways) + place], way)
            await asyncio.sleep(0)
        await trial.waiting.until(lambda: gate.reached.is_set() or sweep.done())
        for place, user in enumerate(in_line):
            come_back(user, ways[place % len(ways)])
        await trial.waiting.settle()
    finally:
        gate.open()
    await attempt(trial, sweep, "a sweep")
    await trial.waiting.settle()
    answers = {user: await call for user, call in calls.items()}
    for user, answer in answers.items():
        is_well, came = True, f"{user} came back while a sweep was under way"
        if not isinstance(answer, BaseException):
            handle = answer if isinstance(answer, Handle) else scene.made[user][-1]
            again = await attempt(trial, scene.target.run(handle, _USED), f"a run of {user} after a sweep")
            is_well = not is_refused(again, Refusal.CLOSED)
            sentence = f"{came} by a call that {said(answer)}, and the sweep ended the session all the same"
            trial.require(is_well, "ended-early", sentence, said(again))
        elif is_refused(answer, Refusal.CLOSED):
            is_well = not ran[user]
            trial.require(is_well, "busy-ended", f"{came}, which ended the session in the midst of a run", said(answer))
        if not is_well:
            # One cause, one finding.
            return


async def _gone_beside_a_sweep(trial: Trial) -> None:
    """Some of those who are due leave of their own accord as a sweep begins; all others are ended by it."""
    scene = await _Scene.open(trial, Bounds(idle_s=_IDLE_S))
    if Capability.END not in scene.target.capabilities:
        return
    due = [f"due-{number}" for number in range(_MANY)]
    leaving = [due[0], due[_MANY // 2], due[-1]]
    await scene.come(*due)
    scene.target.move_clock(2 * _IDLE_S)
    sweep = asyncio.ensure_future(scene.target.sweep())
    ends = [asyncio.ensure_future(attempt(trial, of(trial, scene.target, user).end(), "an end")) for user in leaving]
    report = await attempt(trial, sweep, "a sweep")
    scene.reported = [] if isinstance(report, BaseException) else list(report)
    for end in ends:
        await end
    await trial.waiting.settle()
    # Whether the sweep has found those who left is not known.
    scene.reported = list({*scene.reported, *leaving})
    scene.require_ended(due, f"by a sweep beside which {len(leaving)} of them left", {})


async def age_ends(trial: Trial) -> None:
    """End those who are too old, however busy they were, but nobody who is busy now."""
    gate = Gate()
    scene = await _Scene.open(trial, Bounds(age_s=_AGE_S), OnlyFor({"running": gate}))
    await scene.come("old", "old-and-used", "running")
    run = asyncio.ensure_future(scene.use("running"))
    await trial.waiting.until(lambda: gate.inside == 1 or run.done())
    await _superseded(scene, "running")
    scene.target.move_clock(0.6 * _AGE_S)
    await scene.come("young")
    await scene.sweep()
    early = ("ended-early", "nobody was old enough")
    scene.require_ended([], "too early", dict.fromkeys(scene.made, early))
    scene.target.move_clock(0.3 * _AGE_S)
    # Another agent makes their session no younger, and neither does any other use.
    for way in scene.uses():
        await scene.use_by(way, "old-and-used")
    if Capability.REMOVE in scene.target.capabilities:
        await scene.give_back_one("old-and-used")
    scene.target.move_clock(0.2 * _AGE_S)
    await scene.sweep()
    not_due = {
        "running": ("busy-ended", "an agent of theirs was running"),
        "young": ("ended-early", "had come not long ago"),
    }
    scene.require_ended(["old", "old-and-used"], "when too old", not_due)
    scene.target.move_clock(3 * _AGE_S)
    await scene.sweep()
    scene.require_ended(["young"], "at last", {"running": not_due["running"]})
    gate.open()
    answer = await run
    trial.require(answer is None, "busy-ended", f"a run beside a sweep {said(answer)}", said(answer))
    await scene.sweep()
    scene.require_ended(["running"], "after the run", {})
    _require_nobody(trial, scene.target)
    await scene.require_gone(["old-and-used"])
    await _with_a_failure(trial, Bounds(age_s=_AGE_S), _AGE_S)
    await _beside_a_sweep(trial, Bounds(age_s=_AGE_S), _AGE_S)


def _require_nobody(trial: Trial, target: Target) -> None:
    if Capability.POPULATION in target.capabilities:
        found = target.population()
        sentence = f"everybody was ended, and the target counts {found.sessions} users and {found.agents} agents"
        trial.require((found.sessions, found.agents) == (0, 0), "left-behind", sentence)
