"""Defects of endings across layers: in the wrong order, too early, too late, or reported falsely."""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from lab_utils.target import Capability, Command, EndReport, Handle, Recipe, Refused
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import (
    Agent,
    Bridge,
    Context,
    Dispatcher,
    ReferenceTarget,
    Session,
    copied,
)

__all__ = ["PLANTED"]

_SAVES_S = 0.05
"""Seconds until a memory is saved."""
_WRITES_S = 0.005
"""Seconds in which a batch of memories is written."""


class OldestClosedFirst(ReferenceTarget):
    """Agents are closed in the order in which they were made: the ones that others depend on go first."""

    async def close_agents(self, agents: list[Agent], errors: list[str]) -> None:
        await super().close_agents(agents[::-1], errors)


class ResetInAnyOrder(ReferenceTarget):
    """A reset closes by the names of the types; only an end knows the order."""

    async def reset(self, user: str) -> int:
        session = self.sessions.get(self.key(user))
        if session is not None:
            session.agents.sort(key=lambda agent: agent.recipe.agent_type, reverse=True)
        return await super().reset(user)


class SweptOldestFirst(ReferenceTarget):
    """A sweep closes the agents of an idle session in the order in which they were made."""

    async def sweep(self) -> Sequence[str]:
        for session in self.sessions.values():
            session.agents.reverse()
        return await super().sweep()


class SweptToolsWork(ReferenceTarget):
    """A sweep has code of its own, which forgets to close the tools: a holder of them still reads the rows."""

    async def sweep(self) -> Sequence[str]:
        agents = [agent for session in self.sessions.values() if self.is_due(session) for agent in session.agents]
        due = await super().sweep()
        for agent in agents:
            agent.dispatcher.closed = False
        return due


class DeadlineForEach(ReferenceTarget):
    """Each agent has the whole time of an ending for itself, one after another."""

    async def close_agents(self, agents: list[Agent], errors: list[str]) -> None:
        for agent in reversed(agents):
            await self.close_agent(agent, errors)


class FirstHangTakesAll(ReferenceTarget):
    """Agents are closed one after another within one deadline, and one cleanup that hangs uses up the time of all."""

    async def close_agents(self, agents: list[Agent], errors: list[str]) -> None:
        deadline = asyncio.get_running_loop().time() + self.close_timeout
        for agent in reversed(agents):
            agent.close_by = deadline
            await self.close_agent(agent, errors)


class SavesAfterwards(ReferenceTarget):
    """A run's memory is saved a moment later, and an end erases only what was saved by then: a save that comes after it
    brings the conversation back."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.saves: set[asyncio.Task[None]] = set()

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        made = super().make_agent(recipe, context, dispatcher, session)
        if not session.agents:
            made.memory = copied(self.saved.get(_saved_as(made), {}))
        return made

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        finally:
            save = asyncio.ensure_future(self._save(_saved_as(handle.native), handle.native.memory))
            self.saves.add(save)
            save.add_done_callback(self.saves.discard)

    async def _save(self, key: tuple[str, str, str], memory: dict[str, Any]) -> None:
        await asyncio.sleep(_SAVES_S)
        self.saved[key] = copied(memory)

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        self.saved.pop(_saved_as(agent), None)
        await super().close_agent(agent, errors)

    async def stop(self) -> None:
        await super().stop()
        for save in self.saves:
            save.cancel()


class SavedInBatches(ReferenceTarget):
    """Right: memories are saved in batches, and an end also erases what is in the batch that is being written."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.due: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.writing: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.batch: asyncio.Task[None] | None = None

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        made = super().make_agent(recipe, context, dispatcher, session)
        if not session.agents:
            made.memory = copied(self.saved.get(_saved_as(made), {}))
        return made

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        finally:
            if not handle.native.closed:
                self.due[_saved_as(handle.native)] = copied(handle.native.memory)
                if self.timer is None:
                    later = asyncio.get_running_loop().call_later
                    self.timer = later(_SAVES_S, self._begin, context=contextvars.Context())

    def _begin(self) -> None:
        self.timer, self.batch = None, asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        self.writing, self.due = self.due, {}
        await asyncio.sleep(_WRITES_S)
        self.saved |= self.writing
        self.writing = {}

    def erase(self, key: tuple[str, str, str]) -> None:
        for kept in (self.due, self.writing, self.saved):
            kept.pop(key, None)

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        self.erase(_saved_as(agent))
        await super().close_agent(agent, errors)

    async def stop(self) -> None:
        await super().stop()
        if self.timer is not None:
            self.timer.cancel()
        if self.batch is not None:
            self.batch.cancel()


class BatchUndoesEnd(SavedInBatches):
    """An end leaves the batch alone that is being written, and this batch brings the erased memory back."""

    def erase(self, key: tuple[str, str, str]) -> None:
        self.due.pop(key, None)
        self.saved.pop(key, None)


def _saved_as(agent: Agent) -> tuple[str, str, str]:
    return agent.context.user, agent.recipe.agent_type, agent.context.thread


class ToolsClosedFirst(ReferenceTarget):
    """An agent's tools are closed before its cleanup, which needs them."""

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        agent.dispatcher.closed = True
        await super().close_agent(agent, errors)


class EndTakesToolsOfTheRemoved(ReferenceTarget):
    """An end closes the tools of all agents that the user had, also of one whose removal is still at its cleanup."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatchers: dict[str, WeakSet[Dispatcher]] = {}

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        made = super().make_dispatcher(context, bridge)
        self.dispatchers.setdefault(context.user, WeakSet()).add(made)
        return made

    async def close_session(self, session: Session, agents: list[Agent], errors: list[str]) -> None:
        mine = {agent.dispatcher for agent in agents}
        for one in self.dispatchers.pop(session.user, ()):
            one.closed = one.closed or one not in mine
        await super().close_session(session, agents, errors)


class AdoptedToolsWork(ReferenceTarget):
    """The closing of an adopted agent forgets the tools that it has brought: a holder of them still reads the rows."""

    def make_apart(self, user: str, agent_type: str, thread: str = "main") -> Handle:
        apart = super().make_apart(user, agent_type, thread)
        apart.native.dispatcher = _NeverClosed(apart.native.context, self.rows.get(user, ()), None)
        return apart


class _NeverClosed(Dispatcher):
    """Tools that do not know of their end."""

    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        self.closed = False
        return await super().call(name, parameters, emit)


class EventsClosedFirst(ReferenceTarget):
    """The bridge is closed before the agents that emit over it during their cleanup."""

    async def close_session(self, session: Session, agents: list[Agent], errors: list[str]) -> None:
        if session.bridge is not None:
            session.bridge.closed = True
        await super().close_session(session, agents, errors)


class ToolsOutliveAgent(ReferenceTarget):
    """Closing an agent leaves its tools open: a holder of them still reads the rows."""

    async def closed_by(self, agent: Agent, cleanup: asyncio.Task[None], errors: list[str]) -> None:
        await super().closed_by(agent, cleanup, errors)
        agent.dispatcher.closed = False

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        await super().close_agent(agent, errors)
        agent.dispatcher.closed = False


class BridgeOutlivesSession(ReferenceTarget):
    """The end closes the clients and forgets the bridge: a holder of it sends to the clients of the next session."""

    def close_clients(self, session: Session) -> None:
        super().close_clients(session)
        if session.bridge is not None:
            session.bridge.closed = False
            session.bridge.clients = self.clients_of(session.user)


class ToolsOpenedAgain(ReferenceTarget):
    """A new agent of a type opens the tools of the one before it again, which it takes for its own."""

    def __init__(self) -> None:
        super().__init__()
        self.tools: dict[tuple[str, str], Dispatcher] = {}

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        known = self.tools.get((context.user, recipe.agent_type), dispatcher)
        known.closed = False
        self.tools[context.user, recipe.agent_type] = dispatcher
        return super().make_agent(recipe, context, dispatcher, session)


class _KnowsItsRun(Agent):
    at_work: frozenset[asyncio.Task[Any]] = frozenset()

    def check_open(self) -> None:
        super().check_open()
        # Where a run begins, and not where it is asked for.
        self.at_work = frozenset(self.runs & {asyncio.current_task()}) or self.at_work


class _LetInOnce(_KnowsItsRun):
    def check_open(self) -> None:
        """Whoever waits in the line was let in."""
        with suppress(Refused):
            super().check_open()


class LineOutlivesReset(ReferenceTarget):
    """Runs of an agent wait in a line. Whether the agent is open is asked where the line begins, and not at its end: a
    reset cancels the run that is under way, and the others begin."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _LetInOnce(recipe, context, dispatcher, session)

    async def run(self, handle: Handle, command: Command) -> Any:
        Agent.check_open(handle.native)
        return await super().run(handle, command)

    async def reset(self, user: str) -> int:
        session = self.sessions.get(self.key(user))
        for agent in session.agents if session is not None else ():
            assert isinstance(agent, _LetInOnce)
            agent.runs = agent.runs & agent.at_work
        return await super().reset(user)


class ForgottenRuns(ReferenceTarget):
    """An end closes an agent and leaves its runs at work: they meet the closed parts of it, or nobody."""

    capabilities = ReferenceTarget.capabilities - {Capability.TOOLS}

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        agent.runs = set()
        await super().close_agent(agent, errors)


class UntidyRunsGoOn(ReferenceTarget):
    """An end takes a short way where an agent has no cleanup: it is closed, and its runs go on."""

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        if agent.recipe.on_cleanup is None:
            agent.runs = set()
        await super().close_agent(agent, errors)


class LineWaitsOn(ReferenceTarget):
    """An end cancels the run that is under way. Those in line behind it are refused when it has ended, however long it
    ignores its cancellation."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _KnowsItsRun(recipe, context, dispatcher, session)

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        assert isinstance(agent, _KnowsItsRun)
        agent.runs = agent.runs & agent.at_work
        await super().close_agent(agent, errors)


class _ToldEarly(Agent):
    def copy_out(self, answer: Any) -> Any:
        self._emit("")("agent_completed", {})
        return super().copy_out(answer)


class CompletedBeforeCopied(ReferenceTarget):
    """A run is reported as completed before its answer is copied, and as failed if that cannot be done."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _ToldEarly(recipe, context, dispatcher, session)


class _Shrugging(Agent):
    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        self.failed = ""
        answer = await super().run(action, arguments, run)
        if self.failed:
            raise RuntimeError(self.failed)
        return answer

    def copy_out(self, answer: Any) -> Any:
        try:
            return copy.deepcopy(answer)
        except Exception as error:
            self.failed = str(error)
            return None


class LateFailureToldAsSuccess(ReferenceTarget):
    """An error after the work is raised to the caller, when the run has been reported as completed."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _Shrugging(recipe, context, dispatcher, session)


class _OpenAsItCleans(Agent):
    is_cleaning = False

    def check_open(self) -> None:
        if not self.is_cleaning:
            super().check_open()


class RunsBesideCleanup(ReferenceTarget):
    """A call does not look whether its agent's cleanup has begun: a run that comes meanwhile begins, and is never
    cancelled."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _OpenAsItCleans(recipe, context, dispatcher, session)

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        assert isinstance(agent, _OpenAsItCleans)
        agent.is_cleaning = not agent.closed
        await super().close_agent(agent, errors)
        agent.is_cleaning = False


class HidesCancelledCleanups(ReferenceTarget):
    """A cleanup that ends with a CancelledError of its own counts as one that went well."""

    async def outcome_of(self, cleanup: asyncio.Task[None]) -> BaseException | None:
        return None if cleanup.done() and cleanup.cancelled() else await super().outcome_of(cleanup)


class ContextOfTheRequest(ReferenceTarget):
    """The agents of one request are given the same data, copied once."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: dict[int, Any] = {}

    def make_context(self, user: str, thread: str, data: Mapping[str, Any], permissions: frozenset[str]) -> Context:
        made = super().make_context(user, thread, data, permissions)
        # The data is kept, so that no other one has its id.
        made.data = self.requests.setdefault(id(data), (made.data, data))[0]
        return made


class ClosedInTheFirstsContext(ReferenceTarget):
    """Closings are done in the context of whoever was the first to close anything, with that caller's variables."""

    context: contextvars.Context | None = None

    async def to_the_end(self, closing: Coroutine[Any, Any, None]) -> None:
        if self.context is None:
            self.context = contextvars.copy_context()
        await asyncio.wait({asyncio.get_running_loop().create_task(closing, context=self.context)})


class DeadlineForRunsAndCleanups(ReferenceTarget):
    """An end waits for runs that ignore their cancellation, and then gives the cleanups their whole time."""

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        if agent.runs:
            for task in agent.runs:
                task.cancel()
            await asyncio.wait(set(agent.runs), timeout=self.close_timeout)
        agent.close_by = agent.late = None
        await super().close_agent(agent, errors)


class NoCleanupBesideRun(ReferenceTarget):
    """An agent whose run has not ended in time is left as it is, for its cleanup might break into the run."""

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        for task in agent.runs:
            task.cancel()
        if agent.runs:
            await asyncio.wait(set(agent.runs), timeout=self.time_for(agent))
        if agent.runs:
            agent.closed = agent.dispatcher.closed = True
            errors.append(f"{agent.recipe.agent_type}: a run goes on")
            return
        await super().close_agent(agent, errors)


class UntidyToolsWork(ReferenceTarget):
    """The tools of an agent are closed at the end of its cleanup; those of one whose cleanup fails are not."""

    async def closed_by(self, agent: Agent, cleanup: asyncio.Task[None], errors: list[str]) -> None:
        await super().closed_by(agent, cleanup, errors)
        agent.dispatcher.closed = cleanup.done() and not cleanup.cancelled() and cleanup.exception() is None


class ErrorsOfAllEnds(ReferenceTarget):
    """Errors are gathered in one list while sessions are being ended: an end beside another reports those of both."""

    def __init__(self) -> None:
        super().__init__()
        self.gathered: list[str] = []
        self.ending = 0

    async def close_session(self, session: Session, agents: list[Agent], errors: list[str]) -> None:
        self.ending += 1
        try:
            await super().close_session(session, agents, self.gathered)
        finally:
            errors += self.gathered
            self.ending -= 1
            if not self.ending:
                self.gathered.clear()


class EndJoinsTheOneBefore(ReferenceTarget):
    """An end of a user whose session is being closed joins that: a session that was opened since stays."""

    def __init__(self) -> None:
        super().__init__()
        self.ending: dict[str, asyncio.Future[EndReport]] = {}

    async def end(self, user: str) -> EndReport:
        if user not in self.ending:
            self.ending[user] = asyncio.ensure_future(super().end(user))
            self.ending[user].add_done_callback(lambda _: self.ending.pop(user))
        return await asyncio.shield(self.ending[user])


class CutOffCountsAsDone(ReferenceTarget):
    """A cleanup that was cut off and ended without an error counts as one that was done."""

    async def outcome_of(self, cleanup: asyncio.Task[None]) -> BaseException | None:
        error = await super().outcome_of(cleanup)
        return None if cleanup.done() and not cleanup.cancelled() and cleanup.exception() is None else error


class RunsBesideRemoval(RunsBesideCleanup):
    """Only an end closes agents to new runs before their cleanups: where the session stays, a run that comes meanwhile
    begins, and is never cancelled."""

    ending = 0

    async def end(self, user: str) -> EndReport:
        self.ending += 1
        try:
            return await super().end(user)
        finally:
            self.ending -= 1

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        if self.ending:
            await ReferenceTarget.close_agent(self, agent, errors)
        else:
            await super().close_agent(agent, errors)


class RunsTakeTheTime(ReferenceTarget):
    """An end first waits for the runs of all its agents, until its time is up: beside one that ignores its
    cancellation every cleanup is cut off as it begins."""

    async def close_session(self, session: Session, agents: list[Agent], errors: list[str]) -> None:
        runs = {run for agent in agents for run in agent.runs}
        for run in runs:
            run.cancel()
        for agent in agents:
            agent.runs = set()
        left = (await asyncio.wait(runs, timeout=self.close_timeout))[1] if runs else runs
        own, self.close_timeout = self.close_timeout, 0.0 if left else self.close_timeout
        try:
            await super().close_session(session, agents, errors)
        finally:
            self.close_timeout = own


class LastErrorOfAll(ReferenceTarget):
    """The end of all reports the errors of the session that it has ended last."""

    async def end_all(self) -> EndReport:
        self.check_loop()
        reports = await asyncio.gather(*(self.end(session.user) for session in list(self.sessions.values())))
        errors = [report.errors for report in reports if report.errors]
        return EndReport(bool(reports), sum(report.closed for report in reports), errors[-1] if errors else ())


PLANTED = (
    planted_by(OldestClosedFirst, "teardown-order"),
    planted_by(ResetInAnyOrder, "teardown-order"),
    planted_by(SweptOldestFirst, "teardown-order"),
    planted_by(SweptToolsWork, "stale-part-works"),
    planted_by(DeadlineForEach, "deadline-grows"),
    planted_by(FirstHangTakesAll, "never-closed"),
    planted_by(SavesAfterwards, "old-life-read"),
    planted_by(BatchUndoesEnd, "old-life-read", twin=SavedInBatches),
    planted_by(ToolsClosedFirst, "torn-down-early"),
    planted_by(EventsClosedFirst, "torn-down-early"),
    planted_by(EndTakesToolsOfTheRemoved, "torn-down-early"),
    planted_by(ToolsOutliveAgent, "stale-part-works"),
    planted_by(AdoptedToolsWork, "stale-part-works"),
    planted_by(BridgeOutlivesSession, "stale-part-works"),
    planted_by(ToolsOpenedAgain, "stale-part-works"),
    planted_by(LineOutlivesReset, "use-after-close"),
    planted_by(ForgottenRuns, "leaked-task"),
    planted_by(UntidyRunsGoOn, "leaked-task"),
    planted_by(LineWaitsOn, "leaked-task"),
    planted_by(RunsBesideCleanup, "use-after-close"),
    planted_by(CompletedBeforeCopied, "two-end-events"),
    planted_by(LateFailureToldAsSuccess, "false-end-event"),
    planted_by(HidesCancelledCleanups, "error-not-reported"),
    planted_by(ContextOfTheRequest, "shared-object"),
    planted_by(ClosedInTheFirstsContext, "cross-user-data"),
    planted_by(DeadlineForRunsAndCleanups, "deadline-grows"),
    planted_by(NoCleanupBesideRun, "never-closed"),
    planted_by(UntidyToolsWork, "stale-part-works"),
    planted_by(ErrorsOfAllEnds, "canary-in-error"),
    planted_by(EndJoinsTheOneBefore, "session-left"),
    planted_by(CutOffCountsAsDone, "error-not-reported"),
    planted_by(RunsBesideRemoval, "use-after-close"),
    planted_by(RunsTakeTheTime, "never-closed"),
    planted_by(LastErrorOfAll, "error-not-reported"),
)
