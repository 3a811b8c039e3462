"""A part of user_session_cleanup_and_isolation: sessions that end in the middle of something and are opened again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from lab_utils.checks.isolation.logged import recorded_logs
from lab_utils.interleavings.threads import OwnTime
from lab_utils.judges.isolation import Seen, foreign_canaries
from lab_utils.judges.succession import Life, no_resurrection
from lab_utils.target import Capability, Command, Handle, PlannedStep, Recipe, Refused, Subscription, Target
from lab_utils.trial import Stuck, Trial
from lab_utils.trial.faults import Hang
from lab_utils.values.workload import canary, rows_for

__all__ = ["judge_succession", "judge_successors"]

_CUT_OFF_S = 0.05
"""Seconds after which the target gives up work that ignores its cancellation, as everything held here does."""
_TURNS = 50
"""Turns of the loop: far more than anything here needs that waits for nothing."""
_A_FEW_TURNS = 5
_SUCCESSORS = 80
_AT_ONCE = 8
"""So many that some object of the next ones stands where one of the last ones stood, whatever else was made since."""
_PAUSE_S = 0.1
_LONGEST_S, _LEAST = 40.0, 48
"""Seconds for those who come for a moment, and how many come at least: a slow target has fewer than all."""
_PERMITTED = frozenset({"admin"})
"""The permissions of the first lives, which the second ones do not bring."""


class _Held:
    """On request, holds the next call of a user, which ignores cancellations meanwhile."""

    def __init__(self) -> None:
        self._hangs: dict[str, Hang] = {}
        self._wished: set[str] = set()

    def wish(self, user: str) -> Hang:
        self._wished.add(user)
        return self._hangs.setdefault(user, Hang(stubborn=True))

    async def __call__(self, user: str) -> None:
        if user in self._wished:
            self._wished.discard(user)
            await self._hangs[user](user)

    def release(self) -> None:
        for hang in self._hangs.values():
            hang.release()


class _Returning:
    """One user, who leaves while something of theirs is held, comes back, and has a second life beside the remains."""

    def __init__(self, trial: Trial, target: Target, user: str, what: str) -> None:
        self.life = Life(user, what)
        self._trial = trial
        self._target = target
        self._user = user
        self._client = trial.client(target, f"client of {user}", user)
        self._old: Handle
        self._new: Handle
        self._listeners: list[Subscription] = []
        self._left: asyncio.Task[Any]

    def _say(self, life: str, number: int = 0) -> str:
        return canary(self._user, life, number)

    async def first(self, held: _Held) -> None:
        """Live, be held in the middle of something, and leave."""
        self._listen()
        permissions = {} if not self._client.can(Capability.PERMISSIONS) else {"permissions": _PERMITTED}
        self._old = await self._client.create("helper", data=self._client.nested("first life"), **permissions)
        for what, ask in self._privileged(self._old, **permissions).items():
            answer = await ask()
            right = isinstance(answer, Handle) or answer == "admin"
            sentence = f"{what} of {self._user!r}, who has the permission, returned {answer!r}"
            self._trial.require(right, "failed-operation", sentence)
        await self._run(self._old, "write", key="note", value=self._say("first life"))
        await self._run(self._old, "think", thoughts=[self._say("first life")])
        hang = held.wish(self._user)
        self._left = asyncio.ensure_future(self._interrupted())
        await self._trial.waiting.ends(
            hang.reached.wait(), f"{self.life.what} of {self._user!r} reaching the lab's hook"
        )
        await self._trial.waiting.ends(
            self._client.end(),
            f"ending {self._user!r} in the middle of {self.life.what}, which ignores its cancellation,",
        )
        if self._listeners:
            self.life.old_events = tuple(self._listeners[0].received())

    def _listen(self) -> None:
        if self._client.can(Capability.EVENTS):
            self._listeners.append(self._target.subscribe(self._user))

    def _interrupted(self) -> Awaitable[Any]:
        left_over = self._say("left over")
        match self.life.what:
            case "a write":
                return self._run(self._old, "write", key="note", value=left_over)
            case "a thought":
                return self._run(self._old, "think", thoughts=[left_over])
            case "a create":
                return self._client.create("slow", data={"note": left_over})
            case "a get_or_create":
                return self._client.get_or_create("slow")
        return self._target.supervise(self._user, (PlannedStep("step", "slow"),))

    async def second(self) -> None:
        """Come back, with nothing but a new agent."""
        self._listen()
        self._new = await self._client.create("helper")
        await self._run(self._new, "write", key="mine", value=self._say("second life"))
        await self._run(self._new, "think", thoughts=[self._say("second life", 0)])

    def _privileged(self, handle: Handle, **permissions: Any) -> dict[str, Callable[[], Awaitable[Any]]]:
        """Everything here that needs a permission."""
        if not self._client.can(Capability.PERMISSIONS):
            return {}
        ways: dict[str, Callable[[], Awaitable[Any]]] = {
            "create": lambda: self._client.create("guarded", **permissions)
        }
        if self._client.can(Capability.GET_OR_CREATE):
            ways["get_or_create"] = lambda: self._client.get_or_create("guarded", **permissions)
        if self._client.can(Capability.TOOLS):
            ways["the tool admin"] = lambda: self._run(handle, "tool", name="admin")
        return ways

    async def afterwards(self) -> None:
        """When nothing is held any more: try the old handle in every way, and look at the new agent."""
        life = self.life
        await self._trial.waiting.ends(asyncio.wait({self._left}), f"{life.what} of {self._user!r}, let go of")
        failed = self._left.cancelled() or self._left.exception() is not None
        life.given = int(not failed and isinstance(self._left.result(), Handle))
        for action, arguments in (
            ("write", {"key": "old", "value": self._say("old handle")}),
            ("think", {"thoughts": [self._say("old handle")]}),
            ("recall", {}),
        ):
            try:
                life.old_handle[action] = f"answered {await self._run(self._old, action, **arguments)!r}"
            except Refused as refusal:
                life.old_handle[action] = refusal.kind
        for what, ask in self._privileged(self._new).items():
            try:
                life.privileged[what] = f"answered {await ask()!r}"
            except Refused as refusal:
                life.privileged[what] = refusal.kind
        await self._run(self._new, "think", thoughts=[self._say("second life", 1)])
        life.memory, life.memory_due = await self._run(self._new, "recall"), {"mine": self._say("second life")}
        if self._client.can(Capability.CONTEXT_DATA):
            life.context = await self._run(self._new, "context")
        found = await self._client.get("helper") if self._client.can(Capability.LOOKUP) else self._new
        # Where nothing is alive between two runs, an id is a key, and the next session may have it again. The data that
        # is found under it is judged all the same.
        is_key = self._old.native is None and self._old.instance == self._new.instance
        first = "" if is_key else self._old.instance
        life.instances = first, self._new.instance, "nothing" if found is None else found.instance
        if not self._listeners:
            return
        await self._trial.flush()
        old, new = self._listeners
        life.late_events = tuple(old.received())[len(life.old_events) :]
        life.new_events = tuple(new.received())
        life.thoughts_due = tuple(self._say("second life", number) for number in range(2))

    async def _run(self, handle: Handle, action: str, **arguments: Any) -> Any:
        return await self._client.run(handle, Command(action, arguments))


async def judge_succession(trial: Trial) -> None:
    """End sessions in the middle of a run, a create, a get_or_create and a plan, all of which ignore their
    cancellation. Open them again under the same ids, release the held calls, and judge the second lives.

    Needs END.
    """
    held = _Held()
    recipes = [Recipe("helper", on_run=held), Recipe("slow", on_create=held), Recipe("guarded", requires=_PERMITTED)]
    target = await trial.target(recipes, close_timeout=_CUT_OFF_S)
    whats = ["a write", "a thought", "a create"]
    whats += ["a get_or_create"] if Capability.GET_OR_CREATE in target.capabilities else []
    whats += ["a plan"] if Capability.SUPERVISION in target.capabilities else []
    users = ["left-in-" + re.sub("[ _]", "-", what) for what in whats]
    everybody = [_Returning(trial, target, user, what) for user, what in zip(users, whats, strict=True)]
    # A target's log of the failures made here is not for the terminal of the person who runs the check.
    with recorded_logs():
        try:
            left = await _all(trial, everybody, lambda one: one.first(held))
            # A target may let a create wait for one that still hangs: the held call is released in the middle.
            coming = asyncio.ensure_future(_all(trial, left, lambda one: one.second()))
            await trial.waiting.settle(_TURNS)
        finally:
            held.release()
        back = await trial.waiting.ends(coming, "coming back")
        await trial.waiting.settle(_TURNS)
        judged = [one.life for one in await _all(trial, back, lambda one: one.afterwards())]
        trial.judge(no_resurrection(judged))
        if len(judged) == len(everybody) and Capability.POPULATION in target.capabilities:
            _judge_counts(trial, target, judged)
        trial.measure("sessions opened again", len(judged), "sessions")
        await trial.stop(target)


async def judge_successors(trial: Trial) -> None:
    """Let a few users at a time come for a moment, with nothing of theirs kept by the lab, and leave in each way: after
    a run that succeeded, failed or was cancelled, in the midst of one, and after a removal. Objects of the next ones
    stand where freed ones stood, or are those very objects, used again: they must have nothing of the last ones. Needs
    END."""
    users = [f"successor-{number}" for number in range(_SUCCESSORS)]
    # Every second one has no rows that could take the place of somebody else's.
    rows = {user: rows_for(user, 1 - place % 2, trial.rng) for place, user in enumerate(users)}
    target = await trial.target([Recipe("helper")], rows)
    successors = _Successors(trial, target, await target.create("stays", "helper"))
    took = OwnTime(_LONGEST_S)
    for start in range(0, _SUCCESSORS, _AT_ONCE):
        if start >= _LEAST and took.seconds() > _LONGEST_S:
            trial.leave_out(f"{_SUCCESSORS - start} of {_SUCCESSORS} users who come for a moment, for want of time")
            break
        crowd = users[start : start + _AT_ONCE]
        seen = await trial.waiting.ends(successors.live(crowd), f"the lives of {crowd[0]} to {crowd[-1]}")
        verdict = foreign_canaries(seen, users, len(successors.asked))
        trial.judge(verdict)
        for sentence in successors.reused[:1]:
            trial.find("agent-id-reused", sentence)
        if verdict.findings or successors.reused:
            # One cause, one finding.
            break
    await trial.stop(target)


class _Successors:
    """Crowds of users, one after another, each of whom lives for a moment beside one user who stays.

    `asked`: the questions to each new agent. `reused`: sentences on ids of agents that somebody had before."""

    def __init__(self, trial: Trial, target: Target, staying: Handle) -> None:
        self._trial, self._target, self._staying = trial, target, staying
        self._can = target.capabilities
        self._is_first = True
        self._owners: dict[str, str] = {}
        self.reused: list[str] = []
        self.asked = {"the memory of a new agent": Command("recall")}
        if Capability.CONTEXT_DATA in self._can:
            self.asked["the context of a new agent"] = Command("context")
        if Capability.TOOLS in self._can:
            self.asked["the rows of a new agent"] = Command("tool", {"name": "rows"})

    async def live(self, crowd: Sequence[str]) -> list[Seen]:
        """Let them come, look, work at once, and leave one after another; return what they saw."""
        trial, target = self._trial, self._target
        notes = {user: canary(user, "a short life", 0) for user in crowd}
        clients = {user: target.subscribe(user) for user in crowd if Capability.EVENTS in self._can}
        # Every second one brings no data.
        data = {user: {"note": note} if place % 2 else None for place, (user, note) in enumerate(notes.items())}
        handles = {user: await target.create(user, "helper", data=data[user]) for user in crowd}
        if Capability.AGENT_IDS in self._can:
            for user, handle in handles.items():
                self._note_id(user, target.agent_id(handle))
        seen = []
        # At once: one after another, users of a slow target would take their time.
        for answer in await trial.waiting.together([self._work(user, handles[user], notes[user]) for user in crowd]):
            if isinstance(answer, BaseException):
                raise answer
            seen += answer
        if clients:
            await trial.flush()
        seen += [Seen(user, "the events of a new client", client.received()) for user, client in clients.items()]
        clients.clear()
        # The first ones leave beside a run that is under way: a call that waits behind it comes a moment later.
        beside = self._run_for(self._staying, _PAUSE_S) if self._is_first else None
        self._is_first = False
        await trial.waiting.settle(_A_FEW_TURNS)
        for place, user in enumerate(crowd):
            await self._leave(place, user, handles.pop(user))
        if beside is not None:
            # Whether a run succeeds is asked elsewhere; here it need only be under way.
            await asyncio.gather(beside, return_exceptions=True)
        return seen

    def _note_id(self, user: str, agent_id: str) -> None:
        if (owner := self._owners.setdefault(agent_id, user)) != user:
            self.reused.append(f"the agent of {user!r} has the id {agent_id!r}, as one of {owner!r} had")

    async def _work(self, user: str, handle: Handle, note: str) -> list[Seen]:
        run = self._target.run
        seen = [Seen(user, what, await run(handle, command)) for what, command in self.asked.items()]
        for key in ("note", "another note"):
            await run(handle, Command("write", {"key": key, "value": note}))
        await run(handle, Command("think", {"thoughts": [note]}))
        seen.append(Seen(user, "their own memory", await run(handle, Command("recall"))))
        return seen

    def _run_for(self, handle: Handle, seconds: float) -> asyncio.Future[Any]:
        add = Command("add", {"key": "number", "amount": 1, "pause_s": seconds})
        return asyncio.ensure_future(self._target.run(handle, add))

    async def _leave(self, place: int, user: str, handle: Handle) -> None:
        target, way = self._target, place % 5
        if way == 1:
            with suppress(Exception):
                await target.run(handle, Command("fail", {"message": "the last run"}))
        elif way == 3 and Capability.REMOVE in self._can:
            await target.remove(user, "helper")
        elif way in (2, 4):
            last = self._run_for(handle, 1)
            await self._trial.waiting.settle(_A_FEW_TURNS)
            if way == 4:
                # A target may leave the run to the app, which cancels it.
                await target.end(user)
            last.cancel()
            await asyncio.gather(last, return_exceptions=True)
        await target.end(user)


def _judge_counts(trial: Trial, target: Target, lives: Sequence[Life]) -> None:
    found = target.population()
    # An agent in the making may have come after the end: then its caller has it.
    expected = (len(lives), len(lives) + sum(life.given for life in lives))
    sentence = f"after everybody came back the target holds {found}, expected are (sessions, agents) {expected}"
    trial.require((found.sessions, found.agents) == expected, "wrong-count", sentence, *trial.history[-3:])


async def _all(
    trial: Trial, everybody: Sequence[_Returning], work: Callable[[_Returning], Coroutine[Any, Any, None]]
) -> list[_Returning]:
    """Do the work for everybody at once, and return those for whom it did not fail: a failure is a finding."""
    well = []
    for one, answer in zip(everybody, await trial.waiting.together(map(work, everybody)), strict=True):
        if isinstance(answer, Stuck):
            raise answer
        if isinstance(answer, BaseException):
            sentence = f"an operation of {one.life.user!r} failed with {type(answer).__name__}: {answer}"
            trial.find("failed-operation", sentence, *trial.history.where(user=one.life.user)[-3:], repr(answer))
        else:
            well.append(one)
    return well
