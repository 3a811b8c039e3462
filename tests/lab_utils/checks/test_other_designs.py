"""Correct registries of other designs than ours pass: each differs where the contract leaves the choice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import pytest

from lab_utils.runner import run_check
from lab_utils.target import BaseTarget, Capability, Command, EndReport, Handle, Recipe, Refusal, Refused
from lab_utils.targets.reference import Agent, Context, ReferenceTarget, Session
from lab_utils.values.verdict import Outcome
from tests.lab_utils.checks.isolation.one_call import interrupted
from tests.meta.lesser import lesser

_NETWORK_S = 0.05


class EndsWithTheLast(ReferenceTarget):
    """A session ends with its last agent."""

    async def remove(self, user: str, agent_type: str) -> bool:
        was_there = await super().remove(user, agent_type)
        await self._end_if_empty(user)
        return was_there

    async def reset(self, user: str) -> int:
        closed = await super().reset(user)
        await self._end_if_empty(user)
        return closed

    async def _end_if_empty(self, user: str) -> None:
        session = self.sessions.get(self.key(user))
        if session is not None and not session.agents:
            await self.end(user)


class AlwaysConnected(ReferenceTarget):
    """Every session sends its events from the beginning, so that nothing is to be attached."""

    attach = BaseTarget.attach

    async def create(self, user: str, agent_type: str, *, connect: bool = True, **options: Any) -> Handle:
        return await super().create(user, agent_type, **options)


class NothingAlive(ReferenceTarget):
    """Between two calls no agent is alive for the lab: a handle holds the key of a record."""

    capabilities = frozenset({Capability.END, Capability.LOOKUP, Capability.TOOLS})

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[str, Agent] = {}

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        made = await super().create(user, agent_type, **options)
        self.records[made.instance] = made.native
        return replace(made, native=None)

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        found = await super().get(user, agent_type, thread)
        return found and replace(found, native=None)

    async def run(self, handle: Handle, command: Command) -> Any:
        return await super().run(replace(handle, native=self.records[handle.instance]), command)

    async def end(self, user: str) -> EndReport:
        self.records = {name: agent for name, agent in self.records.items() if agent.context.user != user}
        return await super().end(user)


class TakesLongIds(ReferenceTarget):
    """A user id may have a thousand letters, as `BaseTarget.user_id` has it."""

    def check_user(self, user: object) -> None:
        if type(user) is not str or not 256 < len(user) <= 1_000:
            super().check_user(user)


class OneCallAtATime(ReferenceTarget):
    """One call of a user waits for the other, be it a run or a create. A create is done in a task of its own, which is
    cancelled after its caller: it may be ready by then, and the next create finds the agent."""

    capabilities = ReferenceTarget.capabilities - {Capability.CREATE_ANEW}

    async def create(self, user: str, agent_type: str, *, thread: str = "main", **_: Any) -> Handle:
        return await self.get_or_create(user, agent_type, thread)

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        making = asyncio.ensure_future(self._get_or_create(user, agent_type, thread, permissions))
        making.add_done_callback(lambda made: made.cancelled() or made.exception())
        try:
            await asyncio.wait({making})
        except asyncio.CancelledError:
            making.cancel()
            raise
        return making.result()

    async def _get_or_create(self, *asked: Any) -> Handle:
        await asyncio.sleep(0)  # As a queue takes a turn.
        return await super().get_or_create(*asked)

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        return await super().build(session, recipe, context, True)

    async def run(self, handle: Handle, command: Command) -> Any:
        async with self.lock_of(handle.user):
            return await super().run(handle, command)

    async def reset(self, user: str) -> int:
        async with self.lock_of(user):
            return await super().reset(user)


class StopsItsDatabase(ReferenceTarget):
    """After the stop each call fails, with whatever error the closed database raises."""

    is_stopped = False

    async def stop(self) -> None:
        self.is_stopped = True
        await super().stop()

    async def run(self, handle: Handle, command: Command) -> Any:
        if self.is_stopped:
            raise OSError("the database is closed")
        return await super().run(handle, command)


class WithoutTracebacks(ReferenceTarget):
    """Errors come over a queue, without their tracebacks."""

    async def create(self, *asked: Any, **options: Any) -> Handle:
        try:
            return await super().create(*asked, **options)
        except Exception as error:
            raise error.with_traceback(None)  # noqa: B904, the same error


class ForgetsLater(ReferenceTarget):
    """A call forgets its books in a callback of the loop, after its answer."""

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        finally:
            asyncio.get_running_loop().call_soon(len, "books")


class WithoutTurns(ReferenceTarget):
    """Two runs of one agent are done beside each other: nothing here writes into a memory but the command itself."""

    capabilities = ReferenceTarget.capabilities - {Capability.RUN_ORDER}

    def make_agent(self, *parts: Any) -> Agent:
        made = super().make_agent(*parts)
        made.turn = _NoTurn()
        return made


class HasAJanitor(ReferenceTarget):
    """A task looks after the registry until it stops, and is then cancelled, and not waited for."""

    async def start(self, *given: Any) -> None:
        await super().start(*given)
        self.work = asyncio.Condition()
        self.janitor = asyncio.create_task(self._look_after())

    async def _look_after(self) -> None:
        async with self.work:
            await self.work.wait()

    async def stop(self) -> None:
        await super().stop()
        self.janitor.cancel()


class RollsBack(ReferenceTarget):
    """A create that comes to nothing gives back before it ends, which takes as many turns as a word with a database."""

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        try:
            return await super().create_with(recipe, context, connect)
        except BaseException:
            for _ in range(100):
                await asyncio.sleep(0)
            raise


class _NoTurn(asyncio.Lock):
    """A turn for which nobody waits."""

    async def acquire(self) -> Literal[True]:
        return True

    def release(self) -> None:
        pass


class BeginsWithARun(lesser("reference", {Capability.CREATE_ANEW, Capability.POPULATION})):  # type: ignore[misc]
    """An agent that has never run is neither found nor counted by an end."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: set[str] = set()

    async def run(self, handle: Handle, command: Command) -> Any:
        answer = await super().run(handle, command)
        self.begun.add(handle.user)
        return answer

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        return report if user in self.begun else EndReport(False, 0)


class OverANetwork(ReferenceTarget):
    """Each call waits for its network first."""

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        await asyncio.sleep(_NETWORK_S)
        return await super().create(user, agent_type, **options)

    async def run(self, handle: Handle, command: Command) -> Any:
        await asyncio.sleep(_NETWORK_S)
        return await super().run(handle, command)

    async def reset(self, user: str) -> int:
        await asyncio.sleep(_NETWORK_S)
        return await super().reset(user)

    async def end(self, user: str) -> EndReport:
        await asyncio.sleep(_NETWORK_S)
        return await super().end(user)


class LosesReasons(ReferenceTarget):
    """Every error of a run becomes the same one, without its cause, as where a framework keeps a status alone."""

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except Refused:
            raise
        except Exception:
            status = "failed"
        # Beyond the handler, so that it has no context.
        raise RuntimeError(f"the run {status}")


IN_ORDER: Mapping[str, int] = {"deviations": 0}
"""For what shows in every schedule of the calls."""


class RunsInTheUsersLine(ReferenceTarget):
    """A user's runs and creates are done one after another."""

    async def run(self, handle: Handle, command: Command) -> Any:
        self.check_loop()
        async with self.lock_of(handle.user):
            return await super().run(handle, command)


class RefusedWhileClosing(ReferenceTarget):
    """While a session is closing, its user's creates are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.ending: Counter[str] = Counter()

    async def end(self, user: str) -> EndReport:
        self.ending[user] += 1
        try:
            return await super().end(user)
        finally:
            self.ending -= Counter({user: 1})

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        if user in self.ending:
            raise Refused(Refusal.CLOSED, "the session is closing")
        return super().session_for_create(user)


class ConflictAtOnce(ReferenceTarget):
    """A store without locks: of two runs of one agent at once, one is refused, however soon it is tried again."""

    capabilities = ReferenceTarget.capabilities - {Capability.RUN_ORDER}

    def __init__(self) -> None:
        super().__init__()
        self.busy: set[int] = set()

    async def run(self, handle: Handle, command: Command) -> Any:
        if id(handle.native) in self.busy:
            raise Refused(Refusal.CONFLICT, "the agent is at work; try again")
        self.busy.add(id(handle.native))
        try:
            return await super().run(handle, command)
        finally:
            self.busy.remove(id(handle.native))


@pytest.mark.parametrize(
    ("check", "target", "parameters"),
    [
        ("idle_and_over_age_session_ending", RunsInTheUsersLine, {}),
        ("agent_and_user_limit_enforcement", RunsInTheUsersLine, {}),
        ("teardown_across_layers", RefusedWhileClosing, {}),
        ("concurrent_user_operations_isolation", ConflictAtOnce, {}),
        ("agent_registration_with_user_context_isolation", EndsWithTheLast, {}),
        ("user_context_boundary_enforcement", AlwaysConnected, {}),
        ("user_context_boundary_enforcement", TakesLongIds, {}),
        ("websocket_manager_association_with_user_context", AlwaysConnected, {}),
        ("resource_cleanup_after_user_session_termination", NothingAlive, {}),
        ("concurrent_agent_registration_safety", OneCallAtATime, {}),
        ("event_delivery_isolation_between_users", OneCallAtATime, {}),
        ("teardown_across_layers", OneCallAtATime, {}),
        ("agent_lifecycle_management_per_user", EndsWithTheLast, {}),
        ("agent_lifecycle_management_per_user", BeginsWithARun, {}),
        ("concurrent_agent_registration_safety", StopsItsDatabase, IN_ORDER),
        ("shared_state_contamination_detection", WithoutTracebacks, {}),
        ("teardown_across_layers", HasAJanitor, IN_ORDER),
        ("teardown_across_layers", OverANetwork, {}),
        ("concurrent_agent_registration_safety", HasAJanitor, IN_ORDER),
        ("concurrent_agent_registration_safety", RollsBack, IN_ORDER),
        ("shared_state_contamination_detection", LosesReasons, {"users": 4}),
        ("idle_and_over_age_session_ending", LosesReasons, {}),
        ("capacity_given_back_by_interrupted_calls", LosesReasons, {"interruptions": 3}),
        ("resource_cleanup_after_user_session_termination", LosesReasons, {"users": 4}),
        ("long_running_session_resource_management", LosesReasons, {"long_cycles": 10, "operations_per_cycle": 2}),
    ],
)
def test_a_correct_registry_of_another_design_passes(
    check: str, target: type[ReferenceTarget], parameters: Mapping[str, int]
) -> None:
    verdict = run_check(check, target=target, parameters=parameters).verdict
    assert verdict.outcome is Outcome.PASS, verdict


@pytest.mark.parametrize("make", [ForgetsLater, WithoutTurns, HasAJanitor])
def test_interrupted_writes_blame_no_other_design(make: type[ReferenceTarget]) -> None:
    assert interrupted(make, "write") == []
