"""A part of memory_usage_validation_during_concurrent_operations: repeated operations on a session rather than in it
must leave nothing: cancelled calls, resets, event managers, plans, sockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from lab_utils.checks.memory.leak_hunt import Caller, LeakHunt
from lab_utils.checks.memory.sockets import Connection, CutShort, Device, NotGreeted
from lab_utils.checks.memory.work import write_note
from lab_utils.target import Capability, Command, Handle, PlannedStep, Recipe
from lab_utils.trial import Trial
from lab_utils.trial.faults import Gate

__all__ = ["Interruptions", "judge_interruptions"]

_WARM_UPS = 5
_RESIDENT = "interrupted"
_PASSER_BY = "passer-by"
_PLAN = (PlannedStep("first", "helper"), PlannedStep("second", "helper", ("first",)))


class Interruptions:
    """One cycle of everything that the target can do of this, on two users: one stays, the other comes and leaves.

    `held_in_a_run` and `held_in_a_factory` are the hooks of `recipes`: never opened, they hold the calls to be
    cancelled.
    """

    def __init__(self, hunt: LeakHunt, held_in_a_run: Gate, held_in_a_factory: Gate) -> None:
        self._hunt = hunt
        self._in_a_run, self._in_a_factory = held_in_a_run, held_in_a_factory
        self._resident = Caller(hunt.trial, hunt.target, "the resident's client", _RESIDENT)
        self._passer_by = Caller(hunt.trial, hunt.target, "the passer-by's client", _PASSER_BY)
        self._steps: dict[str, Callable[[int], Awaitable[None]]] = {
            "a cancelled run": self._cancel_a_run,
            "a cancelled create": self._cancel_a_create,
        }
        if self._resident.can(Capability.EVENTS):
            self._steps["an event manager attached again"] = self._attach_again
        if self._resident.can(Capability.SUPERVISION):
            self._steps["a plan"] = self._supervise
        if self._resident.can(Capability.REMOVE):
            self._steps["a reset"] = self._reset
        if self._resident.can(Capability.GET_OR_CREATE, Capability.EVENTS):
            self._steps["an event manager attached to agents that had none"] = self._attach
        # Who ends can be given an agent that is new in each cycle; so can who stays, if a reset takes it.
        leaves = not self._resident.can(Capability.REMOVE) and self._resident.can(Capability.END)
        self._busy = self._passer_by if leaves else self._resident
        self._reused: dict[tuple[str, str], Handle] = {}
        self._app: Any = None
        self._devices: dict[str, Device] = {}

    @property
    def what(self) -> list[str]:
        """One cycle's work, in words."""
        return list(self._steps)

    async def prepare(self) -> None:
        """Make the lasting objects: the resident's session, and those that the app behind the sockets needs."""
        await self._hunt.see(await self._resident.create("helper", thread="kept"))
        if not self._resident.can(Capability.SOCKETS):
            return
        try:
            self._app = self._hunt.target.asgi_app()
            # One token for all cycles: the cost of issuing is not a connection's.
            self._devices = {user: Device(self._hunt.target.token(user)) for user in (_RESIDENT, _PASSER_BY)}
        except ImportError as error:
            self._hunt.trial.note(f"Without sockets, which need a missing package: {error}.")
            return
        self._steps["a socket of a user who stays"] = self._connect
        self._steps["a socket whose session ends"] = self._connect_and_end

    async def cycle(self, number: int) -> None:
        """Do it all once. Raises `Stuck` for a call that does not end, `CutShort` if a client is not let in."""
        for what, step in self._steps.items():
            try:
                await self._hunt.trial.waiting.ends(step(number), what)
            except NotGreeted as refusal:
                anomaly = "connection-left" if number else "failed-operation"
                sentence = f"{what}, after {number} others that have ended: the client was not let in"
                self._hunt.require(False, anomaly, sentence, refusal)
                raise CutShort from None
        await self._hunt.leave(_PASSER_BY)

    async def _cancel_a_run(self, number: int) -> None:
        busy = await self._agent(self._busy, "held-in-a-run")
        await self._hunt.see(busy)
        await self._hunt.cancelled(self._in_a_run, self._busy.run(busy, write_note(self._busy.user, number)))

    async def _agent(self, client: Caller, agent_type: str) -> Handle:
        """A new agent, if the end of the cycle takes it; else the same in every cycle: objects that the lab itself
        makes again and again must not look like a leak."""
        if client.can(Capability.REMOVE if client is self._resident else Capability.END):
            return await client.create(agent_type)
        place = client.user, agent_type
        if place not in self._reused:
            self._reused[place] = await client.create(agent_type)
        return self._reused[place]

    async def _cancel_a_create(self, number: int) -> None:
        data = {"note": f"{number:06d}"}
        await self._hunt.cancelled(self._in_a_factory, self._resident.create("held-in-its-factory", data=data))

    async def _attach_again(self, _: int) -> None:
        await self._hunt.target.attach(_RESIDENT)

    async def _supervise(self, _: int) -> None:
        report = await self._hunt.target.supervise(_RESIDENT, _PLAN)
        done = set(report.statuses.values()) == {"completed"}
        self._hunt.require(done, "failed-operation", "a plan of two steps failed", report)

    async def _reset(self, _: int) -> None:
        await self._resident.reset()
        await self._hunt.see(await self._resident.create("helper", thread="kept"))

    async def _attach(self, number: int) -> None:
        guest = await self._passer_by.get_or_create("helper")
        await self._hunt.target.attach(_PASSER_BY)
        await self._hunt.see(guest)
        await self._passer_by.run(guest, write_note(_PASSER_BY, number))

    async def _connect(self, number: int) -> None:
        async with self._connection(_RESIDENT) as connection:
            await self._heard(connection, self._resident, number)

    async def _connect_and_end(self, number: int) -> None:
        async with self._connection(_PASSER_BY) as connection:
            await self._heard(connection, self._passer_by, number)
            await self._hunt.leave(_PASSER_BY)

    def _connection(self, user: str) -> Connection:
        return Connection(self._app, self._devices[user], self._hunt.trial.waiting.until)

    async def _heard(self, connection: Connection, client: Caller, number: int) -> None:
        """Let the user's agent think, and the connection hear of it."""
        handle = await self._agent(client, "helper")
        await client.run(handle, Command("think", {"thoughts": [f"{number:06d}"]}))
        heard = await self._hunt.trial.waiting.until(lambda: connection.heard(f"{number:06d}"))
        self._hunt.require(heard, "lost-event", "a connection did not hear its user's agent", connection)


async def judge_interruptions(trial: Trial, cycles: int) -> None:
    """Repeat all that interrupts, at least so often, and judge that neither memory nor any count grows with it."""
    in_a_run, in_a_factory = Gate(), Gate()
    recipes = [
        Recipe("helper"),
        Recipe("held-in-a-run", on_run=in_a_run),
        Recipe("held-in-its-factory", on_create=in_a_factory),
    ]
    async with LeakHunt.opened(trial, recipes, {}) as hunt:
        interruptions = Interruptions(hunt, in_a_run, in_a_factory)
        await interruptions.prepare()
        trial.note(
            "Where memory is read cycle after cycle, a socket is a client of the target's ASGI app without a server, "
            "whose buffers and caches are not the target's."
        )
        await hunt.judge_flat("interruptions", interruptions.what, interruptions.cycle, cycles, _WARM_UPS)
