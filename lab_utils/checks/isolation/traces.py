"""A part of shared_state_contamination_detection: traces of other users in logs, reprs and errors."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lab_utils.checks.isolation.logged import IN_THE_NAME_OF, recorded_logs, told_by
from lab_utils.judges.traces import Trace, own_traces
from lab_utils.target import Capability, Command, EndReport, Handle, Recipe, Target
from lab_utils.trial import Client, Trial
from lab_utils.trial.faults import UNKNOWN_TOOL, Planned
from lab_utils.values.workload import canary, rows_for

__all__ = ["judge_traces"]

_USERS = 3
_LOG = logging.getLogger("lab_utils.agent")


class _Tenant:
    """One user at work: fails in every way that a user can, and keeps the traces."""

    def __init__(self, trial: Trial, target: Target, user: str) -> None:
        self.user = user
        self.traces: list[Trace] = []
        self.steps: Sequence[Callable[[], Awaitable[None]]] = (
            self._arrive, self._work, self._go_wrong, self._go_wrong, self._show, self._leave,
        )  # fmt: skip
        self._target = target
        self._client: Client = trial.client(target, f"client of {user}", user)
        self._handle: Handle | None = None

    async def step(self, number: int) -> None:
        """Take one of the steps, in a task that works for this user and nobody else."""
        IN_THE_NAME_OF.set(self.user)
        await self.steps[number]()

    async def _try(self, what: str, work: Awaitable[Any]) -> Any:
        try:
            return await work
        except Exception as error:
            self.traces.append(Trace(self.user, "error", what, told_by(error)))

    async def _run(self, action: str, **arguments: Any) -> None:
        if self._handle is not None:
            await self._try(f"the error of {action!r}", self._client.run(self._handle, Command(action, arguments)))

    async def _arrive(self) -> None:
        data = self._client.nested("context")
        self._handle = await self._try("the error of a create", self._client.create("helper", data=data))

    async def _work(self) -> None:
        await self._run("write", key="note", value=self._client.nested("memory"))
        await self._run("recall")
        await self._run("think", thoughts=[canary(self.user, "thought", 0)])
        if self._client.can(Capability.TOOLS):
            await self._run("tool", name="rows")

    async def _go_wrong(self) -> None:
        await self._run("fail", message=canary(self.user, "failure", 0))
        await self._run("tool", name=UNKNOWN_TOOL)
        await self._try("the error of a factory", self._client.create("broken", data=self._client.nested("broken")))
        await self._try("the error of an unknown type", self._client.create("hepler"))

    async def _show(self) -> None:
        if self._handle is None:
            return
        shown = {"agent": self._handle.native}
        if self._client.can(Capability.PARTS):
            shown |= await self._target.parts(self._handle)
        for kind, part in shown.items():
            if part is not None:
                self.traces.append(Trace(self.user, "repr", f"the repr of the {kind}", repr(part)))

    async def _leave(self) -> None:
        if not self._client.can(Capability.END):
            return
        report = await self._try("the error of an end", self._client.end())
        if isinstance(report, EndReport):
            self.traces.append(Trace(self.user, "error", "the report of an end", list(report.errors)))


async def judge_traces(trial: Trial) -> None:
    """Let some users work and fail side by side; judge the records logged in their tasks, their objects' reprs, and the
    errors that they met."""
    # Ids that stand in no other text, so that an id by itself is a trace.
    users = [f"tenant-{trial.rng.randrange(10**9):09d}-{number}" for number in range(_USERS)]
    # Where nobody can leave, cleanups come with the stop, and their errors are raised from `stop`.
    cleanup = _fails if Capability.END in trial.make_target().capabilities else None
    recipes = [Recipe("helper", on_run=_logs, on_cleanup=cleanup), Recipe("broken", on_create=_fails)]
    target = await trial.target(recipes, {user: rows_for(user, 2, trial.rng) for user in users})
    tenants = [_Tenant(trial, target, user) for user in users]
    with recorded_logs() as logged:
        for number in range(len(tenants[0].steps)):
            for answer in await trial.waiting.together(tenant.step(number) for tenant in tenants):
                if isinstance(answer, BaseException):
                    # Steps catch a target's errors, so this is the check's own fault.
                    raise answer
        await trial.stop(target)
    nobodys = sum(not trace.user for trace in logged)
    trial.note(
        f"Log records: {len(logged) - nobodys} of users' tasks, their work in thread pools included, and {nobodys} "
        "without an owner. A record from a thread of the target's own has no known owner: it is a finding only with "
        "data of two users in it. Records of other processes are not seen."
    )
    verdict = own_traces([*logged, *(trace for tenant in tenants for trace in tenant.traces)], users)
    trial.judge(verdict)


async def _logs(user: str) -> None:
    _LOG.info("at work on %s", canary(user, "log", 0))


async def _fails(user: str) -> None:
    raise Planned(canary(user, "failing hook", 0))
