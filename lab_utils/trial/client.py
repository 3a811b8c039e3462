"""One caller of a target, all of whose operations are recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from lab_utils.target import Capability, Handle, Refused, Target
from lab_utils.trial.faults import UNKNOWN_TOOL, Planned, is_targets_own, planned_in
from lab_utils.values.history import Op, OpType
from lab_utils.values.workload import nested

__all__ = ["Client", "Log"]

T = TypeVar("T")


class Log(Protocol):
    """Where operations are recorded: a trial."""

    def next_position(self) -> int:
        """The next place in the order of invocations and completions."""

    def now(self) -> float:
        """Seconds since the trial began."""

    def record(self, op: Op) -> None:
        """Add a completed operation."""

    def took(self, seconds: float) -> None:
        """Record the duration of a successful operation."""

    def has_failed(self, call: str) -> None:
        """The target has raised an error of its own in this call; "" for one that only answered wrongly."""

    @property
    def journal(self) -> Callable[[str], None] | None:
        """The place where each operation is written as it begins and ends, for records that may outlive the process."""


class Client:
    """One client of one user: calls the target and records each operation with its outcome.

    `Refused` and errors of user code count as FAIL (certainly no effect) and are raised on; a cancellation and a
    time-out count as INFO (the effect is unknown).
    """

    def __init__(self, log: Log, target: Target, name: str, user: str) -> None:
        self._log = log
        self._target = target
        self.name = name
        self.user = user

    def can(self, *capabilities: Capability) -> bool:
        """Whether the target has all of these."""
        return self._target.capabilities.issuperset(capabilities)

    def nested(self, place: str) -> dict[str, Any]:
        """Data of this client's user, of every type that the target takes."""
        return nested(self.user, place, any_values=self.can(Capability.ANY_VALUES))

    async def create(self, agent_type: str, **options: Any) -> Handle:
        work = self._target.create(self.user, agent_type, **options)
        return await self.call("create", work, agent_type, options.get("thread", "main"))

    async def get(self, agent_type: str, thread: str | None = None) -> Handle | None:
        return await self.call("get", self._target.get(self.user, agent_type, thread), agent_type, thread or "")

    async def get_or_create(self, agent_type: str, thread: str = "main", **options: Any) -> Handle:
        work = self._target.get_or_create(self.user, agent_type, thread, **options)
        return await self.call("get_or_create", work, agent_type, thread)

    async def run(self, handle: Handle, command: Any) -> Any:
        work = self._target.run(handle, command)
        asks_in_vain = command.arguments.get("name") == UNKNOWN_TOOL
        action = "run:unknown tool" if asks_in_vain else f"run:{command.action}"
        answer = await self.call(action, work, handle.agent_type, handle.thread)
        if answer is not None and command.action in ("write", "think"):
            # Something else ran, and the effects of this command may never come.
            self._log.has_failed("")
        return answer

    async def remove(self, agent_type: str) -> bool:
        return await self.call("remove", self._target.remove(self.user, agent_type), agent_type)

    async def reset(self) -> int:
        return await self.call("reset", self._target.reset(self.user))

    async def end(self) -> Any:
        return await self.call("end", self._target.end(self.user))

    def note_failure(self, action: str, failure: Exception, since: int) -> None:
        """Note the error of a call if it is the target's own, which is a finding of each check that has no other.
        `since`: as in `is_targets_own`."""
        if is_targets_own(failure, since):
            self._log.has_failed(f"{action} of {self.user!r}: {type(failure).__name__}: {failure}")

    async def call(self, action: str, work: Awaitable[T], agent_type: str = "", thread: str = "") -> T:
        """Await `work` and record it as this client's operation."""
        log, since = self._log, Planned.so_far
        invoked, start = log.next_position(), log.now()
        if log.journal is not None:
            log.journal(f"op {invoked} {self.name}: {action} {self.user}/{agent_type} began")
        outcome, value, error = OpType.INFO, None, "CancelledError"
        try:
            answer = await work
            outcome, value, error = OpType.OK, _recorded(answer), ""
            log.took(log.now() - start)
            return answer
        except Refused as refusal:
            outcome, value, error = OpType.FAIL, str(refusal), f"Refused[{refusal.kind}]"
            raise
        except TimeoutError as failure:
            outcome, value, error = OpType.INFO, str(failure), "TimeoutError"
            raise
        except Exception as failure:
            # Recorded as what the lab planted, if a target's own error only wraps that.
            shown = planned_in(failure) or failure
            outcome, value, error = OpType.FAIL, str(shown), type(shown).__name__
            # How the run of a command to fail ends is the target's own affair, as long as it fails; and the lab's model
            # answers with errors by plan.
            if action not in ("run:fail", "run:ask", "run:unknown tool"):
                self.note_failure(action, failure, since)
            raise
        finally:
            completed = log.next_position()
            index = invoked
            if log.journal is not None:
                log.journal(f"op {invoked} {self.name}: {action} {self.user}/{agent_type} -> {outcome} {error}")
            log.record(
                Op(
                    index,
                    self.name,
                    self.user,
                    action,
                    agent_type,
                    thread,
                    outcome,
                    invoked,
                    completed,
                    start,
                    log.now(),
                    value,
                    error,
                )
            )


def _recorded(answer: Any) -> Any:
    # The history must not keep agents alive: a handle is recorded by the name of its instance.
    if isinstance(answer, Handle):
        return answer.instance
    return answer
