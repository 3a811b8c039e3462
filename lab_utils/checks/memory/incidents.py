"""A part of memory_usage_validation_during_concurrent_operations: calls that are refused, fail or come too late, types
that are replaced, sessions that a sweep ends, and users who only connect must leave nothing, however often."""

from __future__ import annotations

import asyncio
from asyncio.events import _set_running_loop
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing, suppress
from typing import Any, Final

from lab_utils.checks.memory.leak_hunt import Caller, LeakHunt
from lab_utils.checks.memory.sockets import Connection, CutShort, Device, NotGreeted
from lab_utils.target import Bounds, Capability, Command, Handle, PlannedStep, Recipe
from lab_utils.trial import Trial
from lab_utils.trial.faults import Failure, Gate
from lab_utils.values.limits import limited

__all__ = ["judge_incidents"]

_C = Capability
_MOST_AGENTS, _MOST_USERS = 6, 1
"""Of one user, as many as a target's own flow has, and in all, where the target can be limited."""
_MORE_TYPES = tuple(f"helper-{number}" for number in range(_MOST_AGENTS - 2))
_WARM_UPS = 12
"""Lists of what is due soon fill in the first ones, and counters outgrow the small numbers that Python keeps."""
_IDLE_S, _AGE_S, _A_WHILE_S = 50.0, 110.0, 40.0
_TOKENS = 8
"""As many for each cycle asked for, so that none comes again before the last series is over."""
_TURNS = 10
"""Turns of the loop after which a run waits in line."""
_GOOD_FOR_S, _PASSES_S = 60.0, 90.0
"""Seconds that a token is good for, and that pass by the clock of tokens while its client is connected."""
_STRAY_S = 1.0
"""Seconds after which a call from another loop is not waited for."""
_QUESTION = "Write me a report on our usage"
_NOT_PLAIN: Final = {"note": object()}
_FAILING: Final = (PlannedStep("first", "broken"), PlannedStep("second", "helper", ("first",)))
_HELD: Final = (PlannedStep("first", "held"),)
_READ: Final = Command("read", {"key": "note"})
_THINK: Final = Command("think", {"thoughts": ["one"]})


_TOOLS: Final = "tools without the permission that they need"
_QUESTIONS: Final = "questions to the model"
_LETTERS: Final = "events that nobody receives"
_LATE_PARTS: Final = "parts used after the end"


class _Incidents:
    """One cycle of all of these that the target can have, each with a user who was never there before."""

    def __init__(
        self, hunt: LeakHunt, gates: dict[str, Gate], cycles: int, elsewhere: asyncio.AbstractEventLoop
    ) -> None:
        self._hunt, self._target, self._gates, self._elsewhere = hunt, hunt.target, gates, elsewhere
        # One client for all users: a slow target must be seen to work on.
        self._call = Caller(hunt.trial, hunt.target, "everybody's client", "everybody").call
        self._app: Any = None
        self._tokens: list[str] = []
        self._stays_connected = False
        self._steps: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {}
        self._in_a_visit: set[str] = set()
        left_out, lacks = list[str](), set[Capability]()
        for what, needs, step in (
            ("runs on closed agents", {_C.END}, self._visit),
            (_TOOLS, {_C.END, _C.PERMISSIONS, _C.TOOLS}, None),
            (_QUESTIONS, {_C.END, _C.MODEL}, None),
            (_LETTERS, {_C.END, _C.EVENTS}, None),
            (_LATE_PARTS, {_C.END, _C.PARTS, _C.PART_USE}, None),
            ("cleanups that fail", {_C.END}, self._failed_cleanup),
            ("cancelled ends", {_C.END}, self._cancelled_end),
            ("ids that no user may have", {_C.END}, self._no_user),
            ("newcomers whose factory fails", set(), self._failed_newcomer),
            ("requests to the target's own agents", {_C.END, _C.ORCHESTRATION}, self._own_agents),
            ("calls from another loop", {_C.LOOP_GUARD}, self._another_loop),
            ("runs that are cancelled in line", {_C.END}, self._cancelled_in_line),
            ("a cancelled get_or_create", {_C.END, _C.GET_OR_CREATE}, self._cancelled_newcomer),
            ("creates without the permission that they need", {_C.PERMISSIONS}, self._not_permitted),
            ("refused runs of strict agents", {_C.END, _C.STRICT}, self._not_plain),
            ("users who only connect", {_C.EVENTS}, self._only_connect),
            ("sockets with a bad token", {_C.SOCKETS}, self._bad_token),
            ("sockets with an expired token", {_C.SOCKETS}, self._expired_token),
            ("users who only connect by a socket", {_C.SOCKETS}, self._only_connect_by_socket),
            ("sockets whose token expires", {_C.EXPIRY, _C.SOCKETS}, self._token_expires),
            ("plans that fail or are cancelled", {_C.END, _C.SUPERVISION}, self._plans),
            ("types that are replaced", {_C.END, _C.TYPE_CHANGES}, self._replace),
            ("refused adoptions", {_C.END, _C.ADOPTION}, self._adopt),
            ("agents beyond the limit", {_C.END, _C.AGENT_CAP}, self._agents_too_many),
            ("users beyond the limit", {_C.END, _C.USER_CAP}, self._users_too_many),
            ("counts", {_C.POPULATION}, self._count),
            ("sessions that end as idle, with a cleanup that fails", {_C.IDLE_END}, self._idle),
            ("sessions that end by age", {_C.AGE_END}, self._too_old),
        ):
            if missing := frozenset[Capability](needs) - hunt.target.capabilities:
                left_out.append(what)
                lacks |= missing
            elif step is None:
                self._in_a_visit.add(what)
            else:
                self._steps[what] = step
        if left_out:
            hunt.trial.leave_out(f"growth over {', '.join(left_out)} (the target lacks: {', '.join(sorted(lacks))})")
        if _C.SOCKETS in hunt.target.capabilities:
            self._open_sockets(_TOKENS * cycles)

    def _open_sockets(self, count: int) -> None:
        try:
            self._app = self._target.asgi_app()
            if _C.EXPIRY in self._target.capabilities:
                return
            # Issued beforehand: the cost of issuing is not a connection's.
            self._tokens = [self._target.token(f"only connected {number:06d}") for number in range(count)]
        except ImportError as error:
            self._steps = {what: step for what, step in self._steps.items() if "socket" not in what}
            self._hunt.trial.leave_out(f"growth over refused and idle sockets, which need a missing package: {error}")

    @property
    def what(self) -> list[str]:
        """One cycle's work, in words."""
        return [*self._steps, *sorted(self._in_a_visit)]

    async def cycle(self, number: int) -> None:
        """Do it all once. Raises `Stuck` for a call that does not end, `CutShort` if a client is not let in."""
        for place, (what, step) in enumerate(self._steps.items()):
            try:
                await self._hunt.trial.waiting.ends(step(f"guest-{number:06d}-{place:02d}"), what)
            except NotGreeted as refusal:
                sentence = f"{what}, after {number} others that have ended: the client was not let in"
                self._hunt.require(False, "connection-left", sentence, refusal)
                raise CutShort from None

    async def _in_vain(self, work: Awaitable[Any]) -> None:
        """Await a call that is refused or fails. In which way is judged elsewhere, and so is one that succeeds."""
        with suppress(Exception):
            await self._call("a call in vain", work)

    async def _cancelled(self, place: str, work: Awaitable[Any]) -> None:
        await self._hunt.cancelled(self._gates[place], self._call("a cancelled call", work))

    async def _guest(self, user: str, agent_type: str = "helper", **options: Any) -> Handle:
        handle: Handle = await self._call("create", self._target.create(user, agent_type, **options))
        await self._hunt.see(handle)
        return handle

    async def _run(self, handle: Handle, command: Command) -> None:
        await self._call("run", self._target.run(handle, command))

    async def _visit(self, user: str) -> None:
        subscription = self._target.subscribe(user) if _LETTERS in self._in_a_visit else None
        handle = await self._guest(user)
        if subscription is not None:
            await subscription.close()
            await self._run(handle, _THINK)
        if _TOOLS in self._in_a_visit:
            await self._in_vain(self._target.run(handle, Command("tool", {"name": "admin"})))
        if _QUESTIONS in self._in_a_visit:
            await self._run(handle, Command("ask", {"text": "What now?"}))
        parts = await self._target.parts(handle) if _LATE_PARTS in self._in_a_visit else {}
        await self._call("end_all", self._target.end_all())
        await self._in_vain(self._target.run(handle, _READ))
        for part in parts.keys() & {"dispatcher", "bridge", "llm"}:
            await self._in_vain(self._target.use_part(part, parts[part]))

    async def _no_user(self, user: str) -> None:
        await self._in_vain(self._target.create(f" {user}", "helper"))
        # Whoever takes such an id has a session now.
        await self._in_vain(self._target.end(f" {user}"))

    async def _failed_newcomer(self, user: str) -> None:
        await self._in_vain(self._target.create(user, "flaky"))
        if _C.GET_OR_CREATE in self._target.capabilities:
            await self._in_vain(self._target.get_or_create(user, "flaky"))

    async def _cancelled_newcomer(self, user: str) -> None:
        await self._cancelled("factory", self._target.get_or_create(user, "slow"))
        await self._hunt.leave(user)

    async def _not_permitted(self, user: str) -> None:
        await self._in_vain(self._target.create(user, "guarded"))

    async def _not_plain(self, user: str) -> None:
        handle = await self._call("create_strict", self._target.create_strict(user, "helper", {}))
        await self._in_vain(self._target.run(handle, Command("collect", _NOT_PLAIN)))
        await self._hunt.leave(user)

    async def _failed_cleanup(self, user: str) -> None:
        # Nobody can receive the events of a session without an event manager.
        await self._run(await self._guest(user, "untidy", connect=False), _THINK)
        await self._in_vain(self._target.end(user))

    async def _cancelled_end(self, user: str) -> None:
        gate = self._gates["cleanup"]
        await self._guest(user, "lingering")
        await self._cancelled("cleanup", self._target.end(user))
        gate.open()
        await self._hunt.trial.waiting.until(lambda: not gate.inside)
        gate.shut()
        await self._hunt.leave(user)

    async def _only_connect(self, user: str) -> None:
        await self._target.subscribe(user).close()

    async def _bad_token(self, user: str) -> None:
        await self._not_greeted(f"no-token-of-{user}")

    async def _expired_token(self, user: str) -> None:
        await self._not_greeted(self._target.token(user, max_age=-1.0))

    async def _not_greeted(self, token: str) -> None:
        with suppress(NotGreeted):
            async with self._connection(token):
                pass

    async def _own_agents(self, user: str) -> None:
        await self._in_vain(self._target.orchestrate(user, _QUESTION))
        await self._hunt.leave(user)

    async def _another_loop(self, user: str) -> None:
        async def stray() -> None:
            async with limited(_STRAY_S):
                await self._in_vain(self._target.create(user, "helper"))

        home = asyncio.get_running_loop()
        # In this thread: another one lets go of its objects at any time, also after memory was read.
        _set_running_loop(None)
        try:
            self._elsewhere.run_until_complete(stray())
        finally:
            _set_running_loop(home)

    async def _cancelled_in_line(self, user: str) -> None:
        gate, waiting = self._gates["run"], self._hunt.trial.waiting
        handle, before = await self._guest(user, "held"), gate.entered
        first = asyncio.ensure_future(self._in_vain(self._target.run(handle, _READ)))
        await waiting.until(lambda: gate.entered > before or first.done())
        second = asyncio.ensure_future(self._in_vain(self._target.run(handle, _READ)))
        await waiting.settle(_TURNS)
        second.cancel()
        await asyncio.wait({second})
        gate.open()
        await first
        gate.shut()
        await self._hunt.leave(user)

    async def _only_connect_by_socket(self, user: str) -> None:
        if _C.EXPIRY in self._target.capabilities:
            # One that was issued beforehand would have expired.
            token = self._target.token(user, max_age=_GOOD_FOR_S)
        else:
            self._tokens.append(token := self._tokens.pop(0))
        async with self._connection(token):
            pass

    async def _token_expires(self, user: str) -> None:
        if self._stays_connected:
            return
        async with self._connection(self._target.token(user, max_age=_GOOD_FOR_S)) as connection:
            self._target.pass_time(_PASSES_S)
            if not await connection.ends():
                self._stays_connected = True
                self._hunt.trial.leave_out("growth over sockets whose token expires, for they stay connected")

    def _connection(self, token: str) -> Connection:
        return Connection(self._app, Device(token), self._hunt.trial.waiting.until)

    async def _plans(self, user: str) -> None:
        await self._in_vain(self._target.supervise(user, _FAILING))
        await self._cancelled("run", self._target.supervise(user, _HELD))
        await self._hunt.leave(user)

    async def _replace(self, user: str) -> None:
        async def cleanup(_: str) -> None:
            """One of its own for each recipe."""

        with suppress(Exception):
            self._target.register(Recipe("changing"))
        self._target.register(Recipe("changing", on_cleanup=cleanup), replace=True)
        await self._guest(user, "changing")
        await self._hunt.leave(user)

    async def _adopt(self, user: str) -> None:
        another, own = self._apart(f"{user}-too"), self._apart(user)
        await self._in_vain(self._target.adopt(user, another))
        await self._call("adopt", self._target.adopt(user, own))
        for refused in (own, another):
            await self._in_vain(self._target.adopt(user, refused))
        await self._hunt.leave(user)
        await self._in_vain(self._target.adopt(user, own))

    def _apart(self, user: str, agent_type: str = "helper") -> Handle:
        handle: Handle = self._target.make_apart(user, agent_type)
        self._hunt.watch.see(f"an agent of {user!r} that was made elsewhere", handle.native)
        return handle

    async def _agents_too_many(self, user: str) -> None:
        for agent_type in ("helper", *_MORE_TYPES, "broken", "held"):
            await self._in_vain(self._target.create(user, agent_type))
        if _C.ADOPTION in self._target.capabilities:
            await self._in_vain(self._target.adopt(user, self._apart(user, "untidy")))
        await self._hunt.leave(user)

    async def _users_too_many(self, user: str) -> None:
        await self._guest(user)
        await self._in_vain(self._target.create(f"{user}-too", "helper"))
        await self._hunt.leave(user)

    async def _count(self, _: str) -> None:
        self._target.population()

    async def _idle(self, user: str) -> None:
        handle = await self._guest(user, "untidy")
        for _ in range(2):
            self._target.move_clock(_A_WHILE_S)
            await self._call("sweep", self._target.sweep())
        await self._in_vain(self._target.run(handle, _READ))

    async def _too_old(self, user: str) -> None:
        handle = await self._guest(user)
        for _ in range(2):
            self._target.move_clock(_A_WHILE_S)
            await self._run(handle, _READ)
        self._target.move_clock(_A_WHILE_S)
        await self._call("sweep", self._target.sweep())


async def judge_incidents(trial: Trial, cycles: int) -> None:
    """Repeat all of this, at least so often, and judge that neither memory nor any count grows with it."""
    gates = {place: Gate() for place in ("factory", "run", "cleanup")}
    recipes = [
        Recipe("helper"),
        Recipe("changing"),
        Recipe("flaky", on_create=Failure("this factory never works")),
        Recipe("broken", on_run=Failure("this run never works")),
        Recipe("untidy", on_cleanup=Failure("this cleanup never works")),
        Recipe("guarded", requires=frozenset({"admin"})),
        Recipe("slow", on_create=gates["factory"]),
        Recipe("held", on_run=gates["run"]),
        Recipe("lingering", on_cleanup=gates["cleanup"]),
        *map(Recipe, _MORE_TYPES),
    ]
    bounds = _bounds(trial.make_target().capabilities)
    with closing(asyncio.new_event_loop()) as elsewhere:
        async with LeakHunt.opened(trial, recipes, {}, bounds=bounds) as hunt:
            incidents = _Incidents(hunt, gates, cycles, elsewhere)
            await hunt.judge_flat("incidents", incidents.what, incidents.cycle, cycles, _WARM_UPS)


def _bounds(able: frozenset[Capability]) -> Bounds | None:
    bounds = Bounds(
        agents_per_user=_MOST_AGENTS if _C.AGENT_CAP in able else None,
        users=_MOST_USERS if _C.USER_CAP in able else None,
        idle_s=_IDLE_S if _C.IDLE_END in able else None,
        age_s=_AGE_S if _C.AGE_END in able else None,
    )
    return None if bounds == Bounds() else bounds
