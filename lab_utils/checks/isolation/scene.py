"""One history on any loop: one user's call is interrupted, and then others are asked, and the same task for another."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from enum import IntEnum
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from lab_utils.checks.isolation.cuts import FAILING, HOOKS, Cut
from lab_utils.interleavings import awaits, is_internal, place
from lab_utils.judges.interference import Observed
from lab_utils.judges.interruption import AT_CAPACITY, NO_ANSWER, OF_A_CROWD, Record
from lab_utils.target import (
    Capability,
    Command,
    EndReport,
    Handle,
    NotSupported,
    PlannedStep,
    Recipe,
    Refused,
    Subscription,
    Target,
)
from lab_utils.trial import loops
from lab_utils.trial.faults import UNKNOWN_TOOL, Exited, Gate, Planned, is_checks_own, is_targets_own
from lab_utils.values.limits import limited
from lab_utils.values.workload import PLAIN, TRICKY, canary, rows_for, user_ids

__all__ = ["Loop", "Scene", "Signature", "Size", "signature_of", "users_of", "waits_at"]

_ENOUGH_S = 60.0
"""Seconds, most often virtual, after which a call counts as one that is not answered."""
_TOGETHER_S = 2.0
"""Seconds, always virtual, in which a crowd comes together: a pool may need some of them to connect again."""
_LONG_S = 100.0
"""Seconds, always virtual, that a run lasts into which a timer may strike that an interrupted call has left."""
_LIMITED_S = 3_600.0
"""Seconds, always virtual, after which a user's own limit of calls, or circuit breaker, lets them in again."""
_LATE_S = 5.0
"""Seconds beyond which an answer is late. Nothing here waits for time, but a pool may need some to connect again."""
_OWN = f"{Path(__file__).parent}/"
_PERMITTED = frozenset({"admin"})
_FAILING = ("fail", *FAILING, UNKNOWN_TOOL)
"""Steps that are to fail."""
_PLAN = (PlannedStep("one", "helper"), PlannedStep("two", "helper", after=("one",)))

Steps = list[tuple[str, Callable[[], Awaitable[Any]]]]
"""Somebody's calls, one after another: a name, and the call."""

Signature = tuple[tuple[str, int], ...]


class Size(IntEnum):
    """How much is asked in a history, by the number of users who work at once in a crowd.

    The crowd of a whole one is more than a small pool serves, and no burden to a large one. In brief everybody asks for
    their memory and little else.
    """

    WHOLE = 12
    BRIEF = 3


class Loop(Protocol):
    """The methods of its loop that a scene needs."""

    def each_step(self, look: Callable[[asyncio.Task[Any] | None], None] | None) -> None:
        """Call `look` after every step; None ends that."""

    def require_explorable(self, error: BaseException) -> None:
        """Raise `NotExplorable` for calls that the loop cannot do."""

    async def rest(self) -> None:
        """Let everything run that is ready."""


def users_of(seed: int) -> tuple[str, str, str]:
    """The user who is interrupted, one who is there meanwhile, and one who comes later."""
    interrupted, there, new = user_ids(3, random.Random(seed), set(TRICKY) - PLAIN)
    return interrupted, there, new


class Scene:
    """One history of a fresh target. `record` holds every user's answers when `whole` has ended.

    `points`: for each place at which the interrupted call was seen to wait, the steps of the loop that led there.
    `leads`: the same of the neighbour's call, as long as it is alone. `gave_back`: the steps from the interruption to
    the end of the call. `by_place`: the cut's `at` counts not steps but
    the places at which the call was seen to wait, for a loop whose steps are not the same twice; `points` has those.
    """

    enough_s, late_s = _ENOUGH_S, _LATE_S

    def __init__(
        self, cut: Cut, target: Target, seed: int, loop: Loop, *, by_place: bool = False, size: Size = Size.WHOLE
    ) -> None:
        self.cut, self.target, self.loop, self._by_place = cut, target, loop, by_place
        self.record = Record()
        self._is_brief = size is Size.BRIEF
        self.points: dict[Signature, int] = {}
        self.leads: dict[Signature, int] = {}
        self.gave_back = 0
        self._can = target.capabilities.issuperset
        self._user, self._there, self._new = users_of(seed)
        rng = random.Random(seed)
        self._crowded = [f"one-of-many-{number}" for number in range(size)] if cut.times > 1 else []
        # The crowd has rows of its own, too: two whose answers are exchanged would else see the same.
        self._rows = {user: rows_for(user, 2, rng) for user in (*users_of(seed), *self._crowded)}
        self._handles: dict[str, Handle] = {}
        self._clients: dict[str, Subscription] = {}
        self._steps = self._cut_at = 0
        self._is_armed = self._has_begun = self._has_answer = False
        self._caller: asyncio.Task[Any] | None = None
        self._ready: tuple[asyncio.Task[Any], asyncio.Future[None]] | None = None
        self._lab: asyncio.Task[Any] | None = None
        self._begun = asyncio.Event()
        self._runs = itertools.count(1)
        self._neighbour: asyncio.Task[None] | None = None
        self._gate: Gate | None = None

    async def whole(self) -> None:
        """Live the history: the present users, the interrupted call, everybody's questions, and the ends."""
        if self._can({Capability.MODEL}):
            self.target.choose_model("scripted")
        recipes = [self._recipe("helper"), self._recipe("second")]
        if self._can({Capability.PERMISSIONS}):
            recipes.append(Recipe("guarded", requires=_PERMITTED))
        try:
            await self.target.start(recipes, self._rows, 5.0)
            for user in (self._there, self._user):
                if user != self._user or self.cut.call != "first-create":
                    await self._arrive(user)
            await self._interrupted()
            if self.cut.call == "end" and self.cut.times == 1 and not self._by_place:
                await self._look_after_the_end()
            await self._ask(self._there, ", who was there,", self._there_steps(self._there))
            await self._ask(self._new, ", who is new,", self._new_steps(self._new))
            if self.cut.times > 1:
                await self._crowd()
            if self.cut.beside == "nobody" and not self._by_place:
                await self._long_runs()
            await self._again()
            await self._leave()
        except NotSupported:
            raise
        except Exception as error:
            # Other users' calls never come here: the target lacks an ability that everybody needs.
            self.loop.require_explorable(error)
            if is_checks_own(error):
                raise
            self.record.failed = f"{type(error).__name__}: {error}"
        self._handles.clear()
        await self._stop()

    async def _stop(self) -> None:
        try:
            await self.target.stop()
        except Exception as error:
            self.loop.require_explorable(error)
            self.record.stop = f"{type(error).__name__}: {error}"

    def _recipe(self, name: str) -> Recipe:
        return Recipe(
            name,
            on_create=lambda user: self._hook("create", user),
            on_run=lambda user: self._hook("run", user),
            on_cleanup=lambda user: self._hook("cleanup", user),
        )

    async def _hook(self, kind: str, user: str) -> None:
        """The user's code: it takes a turn of the loop, and fails before or after it as the cut demands."""
        fails = self._is_armed and user == self._user and HOOKS.get(self.cut.call) == kind
        if fails and self.cut.at == 0:
            self._fail()
        await asyncio.sleep(0)
        if fails and self.cut.at == 1:
            self._fail()
        if self._gate is not None:
            await self._gate(user)

    def _fail(self) -> None:
        if self.cut.way in ("raised", "exited"):
            self.record.is_interrupted = True
            raise Planned("planted in user code") if self.cut.way == "raised" else Exited("planted in user code")

    async def _arrive(self, user: str) -> None:
        await self._come(user)
        await self._write(user)

    async def _come(self, user: str) -> Handle:
        if self._can({Capability.EVENTS}):
            self._clients[user] = self.target.subscribe(user)
        made = self._handles[user] = await self._create(user, "helper")
        return made

    def _create(self, user: str, agent_type: str) -> Awaitable[Handle]:
        given: dict[str, Any] = {}
        if self._can({Capability.CONTEXT_DATA}):
            # Under a name of all and one of this user's alone: what is left of another's is not written over.
            given["data"] = {"note": canary(user, "context", 0), f"note of {user}": canary(user, "context", 1)}
        if self._can({Capability.PERMISSIONS}) and user == self._user:
            # The others have no permission, whatever becomes of this user's calls.
            given["permissions"] = _PERMITTED
        return self.target.create(user, agent_type, **given)

    def _write(self, user: str, key: str = "note") -> Awaitable[Any]:
        return self._run(user, "write", key=key, value=canary(user, key, 0))

    async def _run(self, user: str, action: str, **arguments: Any) -> Any:
        run = f"lab-run-{next(self._runs)}" if self._can({Capability.RUN_IDS}) else ""
        return await self.target.run(self._handles[user], Command(action, arguments, run))

    # The call that is interrupted.

    async def _interrupted(self) -> None:
        self._lab = asyncio.current_task()
        for number in range(self.cut.times if self.cut.is_cut else 1):
            if number and HOOKS.get(self.cut.call) == "cleanup":
                await self._see_own("create", self._back)
            self._begun = asyncio.Event()
            if self.cut.goes_on:
                await self._make_ready()
            self.loop.each_step(self._look)
            try:
                await self._call_once()
            finally:
                self.loop.each_step(None)
                self._is_armed = False
        if self.cut.beside == "after" and self._neighbour is None:
            self._begin_beside()
        if self._neighbour is not None:
            await self._neighbour
        await self.loop.rest()
        if self.cut.times > 1 and self._can({Capability.END}):
            # Limits of one user's holdings are not asked here.
            await self._see(self._user, "", "end", lambda: self.target.end(self._user), self.record.own)

    async def _look_after_the_end(self) -> None:
        """Whether the agents have gone and the client has not: no end takes one without the other."""
        client = self._clients.get(self._user)
        if client is None or not self._can({Capability.LOOKUP}):
            return
        found: list[Observed] = []
        await self._see(self._user, "", "get", lambda: self.target.get(self._user, "helper"), found)
        self.record.outlived = found[0].what == _text(None) and client.is_open

    async def _call_once(self) -> None:
        if self.cut.beside == "before":
            self._begin_beside()
        if not self.cut.lead:
            self._begin()
        if self.cut.beside == "just-after":
            self._begin_beside()
        while not self._begun.is_set():
            await loops.done_in(self.enough_s, {asyncio.ensure_future(self._begun.wait())})
            if not self._begun.is_set():
                # The neighbour has ended sooner.
                self._begin()
        caller = self._caller
        assert caller is not None
        await loops.done_in(self.enough_s, {caller})
        if not caller.done():
            self.record.outcome = f"{NO_ANSWER} in {self.enough_s:g} s"
            caller.cancel()
        elif caller.cancelled():
            self.record.outcome = "cancelled"
        else:
            caller.result()

    def _begin(self) -> None:
        if self._ready is None:
            self._caller = asyncio.create_task(self._call_and_go_on(), name=f"the caller of {self._user!r}")
        else:
            # It takes its first step as soon as a new task would.
            (self._caller, begin), self._ready = self._ready, None
            begin.set_result(None)
        self._begun.set()
        self._is_armed, self._has_begun, self._has_answer, self._steps, self._cut_at = True, False, False, 0, 0
        self.record.is_cancelled = False
        if self.cut.at == 0 and self.cut.way in ("cancelled", "twice"):
            self._cut("its beginning")

    async def _make_ready(self) -> None:
        """Let the caller's task handle a cancellation, and wait for its call to begin."""
        begin = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._call_and_go_on(begin), name=f"the caller of {self._user!r}")
        # Its first step, and that in which it is cancelled.
        for _ in range(2):
            await asyncio.sleep(0)
        self._ready = task, begin

    def _begin_beside(self) -> None:
        name = f"the neighbour {self._there!r}"
        self._neighbour = asyncio.create_task(
            self._ask(self._there, ", who called at once,", self._beside_steps(self._there)), name=name
        )

    def _look(self, task: asyncio.Task[Any] | None) -> None:
        """After each step of the loop: note where the call waits, and interrupt it when its time has come."""
        if task is self._lab:
            return
        self._steps += 1
        caller = self._caller
        if caller is None:
            neighbour = self._neighbour
            if neighbour is not None and not neighbour.done():
                self.leads.setdefault(signature_of([*awaits(neighbour)]), self._steps)
            if self._steps == self.cut.lead:
                self._begin()
            return
        if not self._has_begun or caller.done() or self._has_answer:
            # Before its first step a call has no place to be interrupted at but its beginning.
            return
        if self._by_place:
            self._look_for_place(caller)
        elif not self.cut.is_cut:
            also = awaits(task) if task not in (None, caller) and not task.done() else ()
            self.points.setdefault(signature_of([*awaits(caller), *also]), self._steps)
        elif self._cut_at and self.cut.way == "twice" and self._steps == self._cut_at + self.cut.again:
            caller.cancel()
        elif not self._cut_at and self._steps == self.cut.at:
            self._cut(waits_at(caller, task))

    def _look_for_place(self, caller: asyncio.Task[Any]) -> None:
        known = len(self.points)
        number = self.points.setdefault(signature_of([*awaits(caller)]), known + 1)
        if self._cut_at:
            if self.cut.way == "twice" and self._steps == self._cut_at + self.cut.again:
                caller.cancel()
        elif self.cut.is_cut and number > known and number == self.cut.at:
            self._cut(waits_at(caller, None))

    def _cut(self, where: str) -> None:
        caller = self._caller
        assert caller is not None
        if self.cut.way in ("raised", "exited") or not self.cut.is_cut:
            return
        self.record.place, self._cut_at = where, self._steps
        if self.cut.way == "dropped":
            if client := self._clients.get(self._user):
                self.record.is_interrupted = True
                # Kept by the loop until it is done, which is its first step.
                self._dropped = asyncio.ensure_future(client.close())
        else:
            self.record.is_interrupted = self.record.is_cancelled = True
            caller.cancel()
        if self.cut.beside == "after":
            self._begin_beside()

    async def _call_and_go_on(self, begin: asyncio.Future[None] | None = None) -> None:
        """A task of an application: it makes the call, and then serves another user. `begin`: when it may, where it
        has been cancelled before."""
        task = asyncio.current_task()
        assert task is not None
        if begin is not None:
            # Called as it handles an earlier cancellation, such as to clean up: that one is not the target's to answer.
            task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            await begin
        self._has_begun = True
        before = contextvars.copy_context()
        try:
            try:
                answer = await self._call(self._user)
            finally:
                self._has_answer = True
                self.gave_back = self._steps - self._cut_at if self._cut_at else 0
            self.record.outcome = f"answered {_text(answer)[:200]}"
        except asyncio.CancelledError:
            self.record.outcome = "cancelled"
            if not self.cut.goes_on:
                self._note_task(task, before)
                raise
        except (Exception, Exited, BaseExceptionGroup) as error:
            self.loop.require_explorable(error)
            self.record.outcome = f"error {type(error).__name__}: {error}"
            if not self.cut.is_cut:
                self._note_broken(self._user, self.cut.call, error)
        if self.record.is_cancelled:
            # As `asyncio.timeout` does, which cancels the task that it stands in, whatever the call then ends with.
            task.uncancel()
        self._note_task(task, before)
        if not self.cut.goes_on:
            return
        if self._neighbour is not None:
            # The same user: two runs of one agent come in any order.
            await asyncio.wait({self._neighbour})
        await self._ask(self._there, ", in the same task,", self._data_steps(self._there))

    def _note_broken(self, user: str, step: str, error: BaseException, since: int | None = None) -> None:
        if step not in _FAILING and not self.record.broken[0] and is_targets_own(error, since):
            self.record.broken = (step, f"{step!r} of {user!r} raised {type(error).__name__}: {error}")

    def _note_task(self, task: asyncio.Task[Any], before: contextvars.Context) -> None:
        if self.cut.goes_on:
            self.record.cancelling = task.cancelling()
        nothing = object()
        for variable, value in contextvars.copy_context().items():
            if before.get(variable, nothing) is not value:
                self.record.changed[variable.name] = repr(value)[:200]

    async def _call(self, user: str) -> Any:
        target = self.target
        match self.cut.call:
            case "write":
                return await self._write(user)
            case "tool":
                if self.cut.times == 1:
                    await self._run(user, "tool", name="total", parameters={"column": "cost_usd"})
                return await self._run(user, "tool", name="rows")
            case "ask":
                return await self._run(user, "ask", text=canary(user, "question", 0))
            case "think":
                return await self._run(user, "think", thoughts=[canary(user, "thought", 0), canary(user, "thought", 1)])
            case "fail":
                return await self._run(user, "fail", message=canary(user, "error", 0))
            case "uncopied-answer":
                # It fails after its work, if the answer is copied.
                return await self._run(user, "odd", how="copy")
            case "refused-tool":
                return await self._run(user, "tool", name=UNKNOWN_TOOL)
            case "refused-create":
                return await self._create(user, "unknown-type")
            case "first-create":
                return await self._create(user, "helper")
            case "create":
                return await self._create(user, "second")
            case "get_or_create":
                return await target.get_or_create(user, "second")
            case "get":
                return await target.get(user, "helper")
            case "attach":
                return await target.attach(user)
            case "supervise":
                return await target.supervise(user, _PLAN)
            case "nothing":
                return None
            case "remove":
                return await target.remove(user, "helper")
            case "reset":
                return await target.reset(user)
            case _:
                return await target.end(user)

    # The calls afterwards.

    async def _ask(self, user: str, role: str, steps: Steps) -> None:
        observed = self.record.observed.setdefault((user, role), [])
        for step, ask in steps:
            await self._see(user, role, step, ask, observed)

    async def _see(
        self, user: str, role: str, step: str, ask: Callable[[], Awaitable[Any]], observed: list[Observed]
    ) -> None:
        began, since = asyncio.get_running_loop().time(), Planned.so_far
        ids: tuple[str, ...] = ()
        try:
            async with limited(self.enough_s) as limit:
                value = await ask()
            what = _text(value)
            if isinstance(value, Handle):
                ids = (value.instance,)
        except TimeoutError as error:
            what = f"error TimeoutError: {error}"
            if limit.expired():
                what = f"{NO_ANSWER} in {self.enough_s:g} s"
        except NotSupported:
            raise
        except asyncio.CancelledError:
            what = "error CancelledError: nobody had cancelled it"
        except Refused as refusal:
            what = f"error refused as {refusal.kind}: {refusal}"
        except Exception as error:
            self.loop.require_explorable(error)
            what = f"error {type(error).__name__}: {error}"
            self._note_broken(user, step, error, since)
        late = asyncio.get_running_loop().time() - began
        if not what.startswith(NO_ANSWER) and late > self.late_s:
            what = f"{NO_ANSWER} in {self.late_s:g} s, after {late:.1f} s: {what}"
        observed.append(Observed(step, what, ids))

    def _data_steps(self, user: str) -> Steps:
        steps: Steps = [("recall", lambda: self._run(user, "recall"))]
        if self._can({Capability.CONTEXT_DATA}):
            steps.append(("context", lambda: self._run(user, "context")))
        if self._can({Capability.TOOLS}):
            steps.append(("rows", lambda: self._run(user, "tool", name="rows")))
            total = {"name": "total", "parameters": {"column": "cost_usd"}}
            steps.append(("total", lambda: self._run(user, "tool", **total)))
        if self._can({Capability.MODEL}):
            steps.append(("ask", lambda: self._run(user, "ask", text=canary(user, "question", 0))))
        return steps

    def _there_steps(self, user: str) -> Steps:
        if self._is_brief:
            return _these(self._data_steps(user), "recall")
        steps = [*self._forbidden_steps(user), *self._data_steps(user)]
        steps += self._think_steps(user)
        steps.append(("write", lambda: self._write(user, "later")))
        steps.append(("recall", lambda: self._run(user, "recall")))
        if self._can({Capability.LOOKUP}):
            steps.append(("get", lambda: self.target.get(user, "helper")))
        steps.append(("create", lambda: self._create_and_keep(user, "second")))
        return [*steps, *self._second_steps(user), *self._failing_steps(user), *self._same_step(user)]

    def _same_step(self, user: str) -> Steps:
        """The interrupted call, where nothing else asks for it."""
        match self.cut.call:
            case "supervise":
                return [("supervise", lambda: self.target.supervise(user, _PLAN))]
            case "reset":
                return [
                    ("reset", lambda: self.target.reset(user)),
                    ("create", lambda: self._create_and_keep(user, "helper")),
                ]
        return []

    def _think_steps(self, user: str) -> Steps:
        """A streamed answer: what an interruption left of another one may come with it."""
        if not self._can({Capability.EVENTS}):
            return []
        return [("think", lambda: self._run(user, "think", thoughts=[canary(user, "thought", 0)]))]

    def _failing_steps(self, user: str) -> Steps:
        """Calls that fail: an error's text may hold more than the caller's own values."""
        steps: Steps = [("fail", lambda: self._run(user, "fail", message=canary(user, "error", 0)))]
        if self._can({Capability.TOOLS}):
            steps.append((UNKNOWN_TOOL, lambda: self._run(user, "tool", name=UNKNOWN_TOOL)))
        return steps

    def _forbidden_steps(self, user: str) -> Steps:
        """Calls that need a permission. They come first: a permitted call may set right what an interruption left."""
        if not self._can({Capability.PERMISSIONS}):
            return []
        steps: Steps = [("a create without its permission", lambda: self.target.create(user, "guarded"))]
        if self._can({Capability.TOOLS}):
            steps.append(("a tool without its permission", lambda: self._run(user, "tool", name="admin")))
        return steps

    def _second_steps(self, user: str) -> Steps:
        """The memory of the agent that was made last, its tools and model where another create was interrupted, and its
        removal."""
        is_made = HOOKS.get(self.cut.call) == "create" and not self.cut.lead
        steps = self._data_steps(user) if is_made else _these(self._data_steps(user), "recall", "context")
        if self._can({Capability.REMOVE}):
            steps.append(("remove", lambda: self.target.remove(user, "second")))
        return steps

    async def _create_and_keep(self, user: str, agent_type: str) -> Handle:
        made = self._handles[user] = await self._create(user, agent_type)
        return made

    def _new_steps(self, user: str) -> Steps:
        # They recall before they write, which would write over the memory of another.
        first: Steps = [("create", lambda: self._come(user)), *_these(self._data_steps(user), "recall")]
        if self._is_brief:
            return first
        steps: Steps = [
            *first,
            ("write", lambda: self._write(user)),
            *self._forbidden_steps(user),
            *_these(self._data_steps(user), "recall", "context", "rows", "ask"),
        ]
        steps += [*self._think_steps(user), *self._failing_steps(user)]
        if self._can({Capability.GET_OR_CREATE}):
            steps.append(("get_or_create", lambda: self.target.get_or_create(user, "second")))
        return steps

    def _beside_steps(self, user: str) -> Steps:
        """The same call as the interrupted one, where it leaves the user as it was; and a write."""
        steps: Steps = []
        if self.cut.lead or self.cut.call == "nothing":
            pass
        elif self.cut.call in ("create", "first-create"):
            steps.append(("create", lambda: self._create(user, "second")))
        elif self.cut.call == "get_or_create":
            steps.append(("get_or_create", lambda: self.target.get_or_create(user, "second")))
        elif self.cut.call in ("tool", "ask"):
            steps = _these(self._data_steps(user), "rows" if self.cut.call == "tool" else "ask")
        return [*steps, ("write", lambda: self._write(user, "beside"))]

    async def _crowd(self) -> None:
        """Many come at once, and then work at once: all are held in their own code until no more of them come in."""
        for steps in (lambda user: self._new_steps(user)[:1], self._crowd_steps):
            gate = self._gate = Gate()
            work = [asyncio.ensure_future(self._ask(user, OF_A_CROWD, steps(user))) for user in self._crowded]
            await asyncio.wait(work, timeout=_TOGETHER_S)
            gate.open()
            self.record.at_once.append(gate.held)
            await asyncio.gather(*work)
        self._gate = None

    async def _long_runs(self) -> None:
        """Runs that last for long: a timer that the interrupted call has left may strike whoever has its place by then.
        It comes last, for time also gives back what was lost until then."""
        users = [(self._there, ", who was there,"), (self._new, ", who is new,")]
        users += ((user, ", one of a crowd,") for user in self._crowded)
        for user in (self._there, self._new):
            await self._see(user, "", "create", partial(self._create_and_keep, user, "helper"), [])
        gate = self._gate = Gate()
        runs = [asyncio.ensure_future(self._write(user, "long")) for user, _ in users]
        await asyncio.wait(runs, timeout=_LONG_S)
        gate.open()
        self._gate = None
        for (user, role), run in zip(users, runs, strict=True):
            await self._ask(user, role, [("a long write", partial(asyncio.wait_for, run, None))])

    def _crowd_steps(self, user: str) -> Steps:
        if self._is_brief:
            return [("write", lambda: self._write(user, "crowd"))]
        steps = _these(self._data_steps(user), "rows", "ask") or self._data_steps(user)[:1]
        return [*steps, ("write", lambda: self._write(user, "crowd"))]

    async def _again(self) -> None:
        """The interrupted user comes back and asks."""
        user = self._user
        data = self._data_steps(user)
        steps = [] if self._is_brief else _these(data, "rows", "total", "ask") or data[:1]
        # Of the very agent whose call was interrupted, and of the one that it gets now.
        same = _these(steps, "rows", "total") if self.cut.call == "tool" else []
        for step, ask in [*same, ("create", self._back), *steps]:
            await self._see_own(step, ask)

    async def _see_own(self, step: str, ask: Callable[[], Awaitable[Any]]) -> None:
        await self._see(self._user, "", step, ask, self.record.own)
        if self.cut.times > 1 and self.record.own[-1].what.startswith(AT_CAPACITY):
            # A limit of one's own calls or failures is right, and over by then; a place that was lost is not back.
            self.record.own.pop()
            await asyncio.sleep(_LIMITED_S)
            await self._see(self._user, "", step, ask, self.record.own)

    async def _back(self) -> None:
        self._handles[self._user] = await self._create(self._user, "helper")

    async def _leave(self) -> None:
        await self.loop.rest()
        for user, client in self._clients.items():
            self._hear(user, client)
        users = [(self._there, ", who was there,"), (self._new, ", who is new,")]
        users += ((user, OF_A_CROWD) for user in self._crowded)
        if self._is_brief:
            users = []
        if self._can({Capability.END}):
            for user, role in users:
                await self._ask(user, role, [("end", lambda user=user: self.target.end(user))])  # type: ignore[misc]
            if HOOKS.get(self.cut.call) == "cleanup" and not self._is_brief:
                # What an interruption has put off may come with somebody else's call, and find the user's next session.
                await self._see_own("a run when all others have left", lambda: self._run(self._user, "recall"))
            await self._see(self._user, "", "end", lambda: self.target.end(self._user), self.record.own)
            await self.loop.rest()
            if self._can({Capability.POPULATION}):
                self.record.left = str(self.target.population())

    def _hear(self, user: str, client: Subscription) -> None:
        events = client.received()
        if user == self._user:
            # The content of the user's events of the interrupted run is that user's own affair, except for
            # contradictions.
            ends: dict[str, list[str]] = {}
            for event in events:
                self.record.own.append(Observed("event", f"{event.type} {event.body}"))
                if event.type in ("agent_completed", "agent_error") and event.run.startswith("lab-run-"):
                    ends.setdefault(event.run, []).append(event.type)
            self.record.ends = next((sent for sent in ends.values() if len(sent) > 1), [])
            return
        role = {self._there: ", who was there,", self._new: ", who is new,"}.get(user, OF_A_CROWD)
        for event in events:
            what = f"{event.seq} of {event.user!r}, {event.agent} in {event.thread!r}: {event.type} {event.body}"
            ids = (event.run, event.stream, event.agent_id)
            self.record.observed[user, role].append(Observed("event", what, ids))


def _these(steps: Steps, *names: str) -> Steps:
    return [step for step in steps if step[0] in names]


def signature_of(frames: Sequence[FrameType]) -> Signature:
    return tuple((frame.f_code.co_filename, frame.f_lineno) for frame in frames)


def waits_at(caller: asyncio.Task[Any], task: asyncio.Task[Any] | None) -> str:
    """Where the call waits, and where another task does, if that made the last step: the call may wait for it."""
    where = _innermost(awaits(caller))
    if task is None or task is caller or task.done() or (other := _innermost(awaits(task))) == where:
        return where
    return f"{where}, while another task waited at {other}"


def _innermost(frames: Iterable[FrameType]) -> str:
    """The innermost await outside of the lab's checks and the standard library."""
    every = list(frames)
    frame = ([one for one in every if not _is_lab(one)] or every)[-1]
    return place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def _is_lab(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OWN) or is_internal(frame.f_code.co_filename)


def _text(value: Any) -> str:
    if isinstance(value, Handle):
        return f"{value.agent_type} of {value.user!r} in {value.thread!r}"
    if isinstance(value, EndReport):
        return f"found={value.found} closed={value.closed} errors={value.errors}"
    return _encode(value)


def _shown(value: Any) -> str:
    return repr(sorted(value) if isinstance(value, (set, frozenset)) else value)


# Not escaped: a canary names its writer in letters of any kind. `json.dumps` would make an encoder for each value.
_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=_shown).encode
