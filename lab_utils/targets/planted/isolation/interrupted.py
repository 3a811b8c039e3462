"""Defects that show when one user's call is interrupted and another user is asked; most are in a resource for all.

Each stands beside a twin that does the same and gives back rightly, where the reference registry has nothing like it.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from lab_utils.target import Command, EndReport, Handle, Recipe, Row, Subscription
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Bridge, Client, Context, Dispatcher, ReferenceTarget, Session

__all__ = ["PLANTED"]


class _Tools(Dispatcher):
    shared: Any = None


class _Working(Agent):
    shared: Any = None


class _Sharing(ReferenceTarget):
    """Agents and tools work over one resource for everybody."""

    resource: ClassVar[Callable[[], Any]] = object
    tools: ClassVar[type[_Tools]] = _Tools
    agent: ClassVar[type[_Working]] = _Working

    def __init__(self) -> None:
        super().__init__()
        self.shared = type(self).resource()

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        made = self.tools(context, self.rows.get(context.user, ()), bridge)
        made.shared = self.shared
        return made

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        made = self.agent(recipe, context, dispatcher, session)
        made.shared = self.shared
        return made

    def trusted(self) -> Any:
        return [*super().trusted(), self.shared]


# Permissions.


class _Elevated:
    """Whether the process acts for itself now, and checks no permission."""

    def __init__(self) -> None:
        self.is_on = False


class _ElevatedTools(_Tools):
    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        if name == "admin" and self.shared.is_on:
            return "admin"
        if name != "rows":
            return await super().call(name, parameters, emit)
        self.shared.is_on = True
        await asyncio.sleep(0)
        answer = await super().call(name, parameters, emit)
        self.shared.is_on = False
        return answer


class PermissionsNotCheckedMeanwhile(_Sharing):
    """No permission is checked while a tool reads rows for the process; a reading that is cut off leaves it so."""

    resource: ClassVar[Callable[[], Any]] = _Elevated
    tools = _ElevatedTools


# Rows that are read page by page.


class _PagedTools(_Tools):
    def __init__(self, context: Context, rows: Sequence[Row], bridge: Bridge | None) -> None:
        super().__init__(context, rows, bridge)
        self.read: list[Any] | None = None

    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        if name == "rows" and self.read is None:
            await self.read_pages()
        return await super().call(name, parameters, emit)

    async def read_pages(self) -> None:
        self.read = []
        for row in self.rows:
            self.read.append(row)
            await asyncio.sleep(0)

    def visible_rows(self, parameters: Mapping[str, Any]) -> list[Any]:
        return self.rows if self.read is None else self.read


class _WholeTools(_PagedTools):
    async def read_pages(self) -> None:
        try:
            await super().read_pages()
        except BaseException:
            self.read = None
            raise


class PagesKeptInPart(_Sharing):
    """Rows are read once, page by page, and kept; a reading that is cut off leaves the pages that it has."""

    tools = _PagedTools


class PagesKeptWhole(_Sharing):
    """The same, which keeps no part."""

    tools = _WholeTools


# Seats for runs.


class _Seat:
    """A worker's seat, and the run that has it."""

    run: asyncio.Task[Any] | None = None


class _Seated(_Working):
    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        seat = self.shared.pop() if self.shared else _Seat()
        mine = seat.run = asyncio.current_task()
        try:
            return await super().run(action, arguments, run)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(10, self.clear, seat, mine)
            raise
        finally:
            seat.run = None
            self.shared.append(seat)

    def clear(self, seat: _Seat, mine: object) -> None:
        """A cancelled run has had ten seconds to leave."""
        if seat.run is not None:
            seat.run.cancel()


class _SeatedRightly(_Seated):
    def clear(self, seat: _Seat, mine: object) -> None:
        if seat.run is mine:
            super().clear(seat, mine)


class SeatClearedByForce(_Sharing):
    """Ten seconds after a run was cancelled, whoever has its seat by then is cancelled."""

    resource: ClassVar[Callable[[], Any]] = list
    agent = _Seated


class SeatClearedOfItsRun(_Sharing):
    """The same, of the cancelled run alone."""

    resource: ClassVar[Callable[[], Any]] = list
    agent = _SeatedRightly


# One connection, or several, that answer in the order of the requests.


class _Wire:
    """A connection whose replies come in the order of the requests."""

    def __init__(self) -> None:
        self.busy = asyncio.Lock()
        self.replies: deque[Any] = deque()

    async def ask(self, reply: Any) -> Any:
        async with self.busy:
            self.replies.append(reply)
            await asyncio.sleep(0)
            return self.replies.popleft()


class _FreshWire(_Wire):
    async def ask(self, reply: Any) -> Any:
        try:
            return await super().ask(reply)
        except asyncio.CancelledError:
            self.replies.clear()
            raise


class _Pool:
    """Connections that are taken and given back, the one that waited longest first."""

    wire: ClassVar[type[_Wire]] = _Wire

    def __init__(self, size: int = 3) -> None:
        self.idle = deque(self.wire() for _ in range(size))

    async def ask(self, reply: Any) -> Any:
        wire = self.idle.popleft() if self.idle else self.wire()
        try:
            return await wire.ask(reply)
        finally:
            self.idle.append(wire)


class _FreshPool(_Pool):
    wire = _FreshWire


class _WiredTools(_Tools):
    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        return await self.shared.ask(await super().call(name, parameters, emit))


class ReplyLeftOnTheWire(_Sharing):
    """One pipelined connection for all: a call that is cancelled leaves its reply there, for the next to take."""

    resource: ClassVar[Callable[[], Any]] = _Wire
    tools = _WiredTools


class WireEmptied(_Sharing):
    """The same, with the connection emptied when a call on it is cancelled."""

    resource, tools = _FreshWire, _WiredTools


class PooledConnectionLeftDirty(_Sharing):
    """A connection goes back to its pool with the reply of a cancelled call; the next user of it reads that."""

    resource, tools = _Pool, _WiredTools


class PooledConnectionEmptied(_Sharing):
    """The same pool, whose connections are emptied first."""

    resource, tools = _FreshPool, _WiredTools


class _Batch:
    """Questions of one turn of the loop go out together; the answers come back in the order of the waiting callers."""

    forgets_question = False

    def __init__(self) -> None:
        self.questions: list[Any] = []
        self.waiting: list[asyncio.Future[Any]] = []
        self.sender: asyncio.Task[None] | None = None

    async def ask(self, reply: Any) -> Any:
        mine: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.questions.append(reply)
        self.waiting.append(mine)
        if self.sender is None:
            self.sender = asyncio.ensure_future(self._send())
        try:
            return await mine
        except asyncio.CancelledError:
            if mine in self.waiting:
                place = self.waiting.index(mine)
                del self.waiting[place]
                if self.forgets_question:
                    del self.questions[place]
            raise

    async def _send(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        answers, waiting, self.questions, self.waiting, self.sender = self.questions, self.waiting, [], [], None
        for answer, one in zip(answers, waiting, strict=False):
            if not one.done():
                one.set_result(answer)


class _RightBatch(_Batch):
    forgets_question = True


class BatchMatchedByPlace(_Sharing):
    """Questions are sent in batches, and a cancelled caller leaves the waiting queue but not the batch."""

    resource, tools = _Batch, _WiredTools


class BatchForgetsBoth(_Sharing):
    """The same batches, from which the question is taken too."""

    resource, tools = _RightBatch, _WiredTools


# Buffers and caches.


class _ScratchTools(_Tools):
    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        answer = await super().call(name, parameters, emit)
        if name != "rows":
            return answer
        for row in answer:
            self.shared.append(row)
            await asyncio.sleep(0)
        answer = list(self.shared)
        self.shared.clear()
        return answer


class _TidyScratchTools(_Tools):
    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        answer = await super().call(name, parameters, emit)
        if name != "rows":
            return answer
        mine: list[Any] = []
        for row in answer:
            mine.append(row)
            await asyncio.sleep(0)
        return mine


class ScratchBufferKept(_Sharing):
    """Rows are gathered in one buffer, which is emptied at the end: a gathering that is cut off leaves its rows
    there."""

    resource, tools = list, _ScratchTools


class _TwiceGivenTools(_Tools):
    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        connection = self.shared.pop() if self.shared else {}
        try:
            connection["answer"] = await super().call(name, parameters, emit)
            await asyncio.sleep(0)
            return connection["answer"]
        except asyncio.CancelledError:
            self.shared.append(connection)
            raise
        finally:
            self.shared.append(connection)


class ConnectionGivenBackTwice(_Sharing):
    """A cancelled call gives its connection back twice, and then two users who work at once have the same one."""

    resource, tools = list, _TwiceGivenTools


class StreamLeftHalfSent(ReferenceTarget):
    """Thoughts pass one buffer on their way: those of a run that is cut off are sent with the next one, whoever's."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer: list[str] = []

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        buffer = self.buffer

        class Buffering(Agent):
            def _think(self, emit: Any) -> Any:
                async def think(thought: str) -> None:
                    buffer.append(thought)
                    await asyncio.sleep(0)
                    while buffer:
                        emit("agent_thinking", {"thought": buffer.pop(0)})

                return think

        return Buffering(recipe, context, dispatcher, session)


class ScratchBufferOwn(_Sharing):
    """The same gathering, in a buffer of each call."""

    resource, tools = list, _TidyScratchTools


class _CachingTools(_Tools):
    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        key = f"{name}({sorted(parameters.items())})"
        if key in self.shared:
            return copy.deepcopy(self.shared[key])
        answer = await super().call(name, parameters, emit)
        self.shared[key] = answer
        await asyncio.sleep(0)  # Meanwhile it is checked who may have it; then it is forgotten.
        del self.shared[key]
        return answer


class CacheNotInvalidated(_Sharing):
    """One await stands between the filling of a shared cache and the removal of private data from it."""

    resource, tools = dict, _CachingTools


class _Loader:
    """Loads the data of a request from a store whose answers come in the order of the requests."""

    def __init__(self) -> None:
        self.loaded: deque[Any] = deque()


class ContextLoadedByOrder(_Sharing):
    """A create loads its context's data from a store; one that is cancelled leaves it to the next create."""

    resource = _Loader

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        self.shared.loaded.append(context.data)
        made = await super().build(session, recipe, context, connect)
        context.data = self.shared.loaded.popleft()
        return made


class ContextLoadedByKey(_Sharing):
    """The same, where each create takes the data that it has asked for."""

    resource = _Loader

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        self.shared.loaded.append(context.data)
        try:
            return await super().build(session, recipe, context, connect)
        finally:
            self.shared.loaded.remove(context.data)


# The task of the caller.

_CURRENT: contextvars.ContextVar[str] = contextvars.ContextVar("current_user")


class UserLeftInContext(ReferenceTarget):
    """The user of a run is set in a context variable, and reset after the run but not in a `finally`."""

    async def run(self, handle: Handle, command: Command) -> Any:
        token = _CURRENT.set(handle.user)
        answer = await super().run(handle, command)
        _CURRENT.reset(token)
        return answer


class UserOfTheCreateStays(ReferenceTarget):
    """A create sets its user in a context variable of its caller, for later calls."""

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        _CURRENT.set(user)
        return await super().create(user, agent_type, **options)


class UserSetBack(ReferenceTarget):
    """The same, in a `finally`."""

    async def run(self, handle: Handle, command: Command) -> Any:
        token = _CURRENT.set(handle.user)
        try:
            return await super().run(handle, command)
        finally:
            _CURRENT.reset(token)


class _AmbientTools(_Tools):
    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        answer = await super().call(name, parameters, emit)
        return copy.deepcopy(list(self.shared.get(_CURRENT.get(), ()))) if name == "rows" else answer


class AmbientUserBelieved(_Sharing):
    """Tools read the user of their rows from a context variable, which is set only if it is not set yet."""

    resource, tools = dict, _AmbientTools

    async def start(self, *given: Any) -> None:
        await super().start(*given)
        self.shared.update(self.rows)

    async def run(self, handle: Handle, command: Command) -> Any:
        token = None if _CURRENT.get("") else _CURRENT.set(handle.user)
        answer = await super().run(handle, command)
        if token is not None:
            _CURRENT.reset(token)
        return answer


class RunAnswersCancellation(ReferenceTarget):
    """A cancelled run is answered with None, as if it had completed without a result."""

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except asyncio.CancelledError:
            return None


class CreateShieldedFromCancellation(ReferenceTarget):
    """A create goes on when it is cancelled, and then answers: its caller never receives the cancellation."""

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        task = asyncio.ensure_future(super().create(user, agent_type, **options))
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        return task.result()


class CancellationWrapped(ReferenceTarget):
    """Every error of a run is wrapped into the registry's own error, a cancellation as well."""

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except asyncio.CancelledError as error:
            raise RuntimeError("the run was given up") from error


class CallerCancelledAgain(ReferenceTarget):
    """A cancelled run cancels its task once more: the caller's, whose time limit then never ends."""

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            raise


class EarlierCancellationTaken(ReferenceTarget):
    """A cancelled run counts its cancellation off the caller's task, which does that itself: an earlier one, which the
    caller handles, is lost."""

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            raise


# Resources that are not given back.


class GivenBackAfterAnAwait(ReferenceTarget):
    """One lock for all tools is released after an awaited farewell: a second cancellation skips the release."""

    def __init__(self) -> None:
        super().__init__()
        self.store = asyncio.Lock()

    async def run(self, handle: Handle, command: Command) -> Any:
        await self.store.acquire()
        try:
            return await super().run(handle, command)
        finally:
            await asyncio.sleep(0)
            self.store.release()


class GivenBackAfterALongFarewell(ReferenceTarget):
    """The same lock, behind a farewell of six awaits: five of them give it back when they are cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.store = asyncio.Lock()

    async def run(self, handle: Handle, command: Command) -> Any:
        await self.store.acquire()
        try:
            return await super().run(handle, command)
        finally:
            for _ in range(5):
                try:
                    await asyncio.sleep(0)
                except BaseException:
                    self.store.release()
                    raise
            await asyncio.sleep(0)
            self.store.release()


class KeptOnBaseException(ReferenceTarget):
    """One lock for all factories is released on an Exception, but not on a BaseException."""

    def __init__(self) -> None:
        super().__init__()
        self.factories = asyncio.Lock()

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        await self.factories.acquire()
        try:
            made = await super().build(session, recipe, context, connect)
        except (Exception, asyncio.CancelledError):
            self.factories.release()
            raise
        self.factories.release()
        return made


class _Worker:
    """One task that does everybody's runs, one after another."""

    survives = False

    def __init__(self) -> None:
        self.jobs: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None

    async def do(self, job: Any) -> Any:
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.task is None:
            self.task = asyncio.ensure_future(self._work())
        self.jobs.put_nowait((job, told))
        return await told

    async def _work(self) -> None:
        while True:
            job, told = await self.jobs.get()
            try:
                answer = await job()
            except BaseException as error:
                if not told.done():
                    told.set_exception(error)
                if isinstance(error, Exception) or (self.survives and not isinstance(error, asyncio.CancelledError)):
                    continue
                return
            if not told.done():
                told.set_result(answer)

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})


class _SturdyWorker(_Worker):
    survives = True


class _Employing(_Sharing):
    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        made: Agent = await self.shared.do(lambda: super(_Employing, self).build(session, recipe, context, connect))
        return made

    async def stop(self) -> None:
        await super().stop()
        await self.shared.stop()


class WorkerDiesOfUserCode(_Employing):
    """One worker makes everybody's agents, and ends when a factory raises a BaseException, not an Exception."""

    resource = _Worker


class WorkerOutlivesUserCode(_Employing):
    """The same worker, which goes on whatever a factory raises."""

    resource = _SturdyWorker


class _Commit:
    """One commit for all concurrent writers: the first one begins it, and all await it."""

    is_shielded = False

    def __init__(self) -> None:
        self.under_way: asyncio.Task[None] | None = None

    async def done(self) -> None:
        if self.under_way is None or self.under_way.done():
            self.under_way = asyncio.ensure_future(self._write())
        # A task is awaited directly, so a cancellation of any waiting caller cancels it.
        await (asyncio.shield(self.under_way) if self.is_shielded else self.under_way)

    async def _write(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)


class _ShieldedCommit(_Commit):
    is_shielded = True


class _Committing(_Working):
    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        answer = await super().run(action, arguments, run)
        await self.shared.done()
        return answer


class CommitOfAllCancelled(_Sharing):
    """One commit serves all concurrent writers, and is cancelled with any one of them."""

    resource, agent = _Commit, _Committing


class CommitOfAllShielded(_Sharing):
    """The same commit, shielded from its waiting callers."""

    resource, agent = _ShieldedCommit, _Committing


class FollowersCancelled(ReferenceTarget):
    """The first of several creates of one type prepares it for all; if that one is cancelled, so are the others."""

    def __init__(self) -> None:
        super().__init__()
        self.preparing: dict[str, asyncio.Future[None]] = {}

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        first = self.preparing.get(recipe.agent_type)
        await (self.prepare(recipe.agent_type) if first is None else self.prepared_by(first, recipe.agent_type))
        return await super().build(session, recipe, context, connect)

    async def prepare(self, agent_type: str) -> None:
        """Prepare the type, for all who ask meanwhile."""
        mine = self.preparing[agent_type] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.sleep(0)
            mine.set_result(None)
        finally:
            del self.preparing[agent_type]
            mine.cancel()

    async def prepared_by(self, first: asyncio.Future[None], agent_type: str) -> None:
        """Wait for the first one."""
        await asyncio.shield(first)


class FollowersPrepare(FollowersCancelled):
    """The same, where the next one goes on."""

    async def prepared_by(self, first: asyncio.Future[None], agent_type: str) -> None:
        await asyncio.wait({first})
        if first.cancelled():
            next_one = self.preparing.get(agent_type)
            await (self.prepare(agent_type) if next_one is None else self.prepared_by(next_one, agent_type))


class _Staged(_Working):
    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        before = dict(self.memory)
        try:
            answer = await super().run(action, arguments, run)
        except Exception:
            self.roll_back()
            raise
        if action == "write":
            entry = (self.memory, before)
            self.shared.append(entry)
            await asyncio.sleep(0.005)
            self.shared[:] = [one for one in self.shared if one is not entry]
        return answer

    def roll_back(self) -> None:
        for memory, old in self.shared:
            memory.clear()
            memory.update(old)
        self.shared.clear()


class _StagedAlone(_Staged):
    def roll_back(self) -> None:
        for memory, old in [entry for entry in self.shared if entry[0] is self.memory]:
            memory.clear()
            memory.update(old)


class FailureRollsBackOthers(_Sharing):
    """One transaction for all: a run that fails rolls back other users' acknowledged writes."""

    resource, agent = list, _Staged


class FailureRollsBackItself(_Sharing):
    """The same, where a run that fails rolls back its own writes."""

    resource, agent = list, _StagedAlone


class CompletedAndThenFailed(ReferenceTarget):
    """A run is reported as completed, then put on record, and reported as failed if it is cancelled meanwhile."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _Recorded(recipe, context, dispatcher, session)


class _Recorded(Agent):
    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        answer = await super().run(action, arguments, run)
        try:
            await asyncio.sleep(0)
        except BaseException as error:
            self._emit(run)("agent_error", {"error": type(error).__name__, "message": str(error)})
            raise
        return answer


class DroppedClientClosesAll(ReferenceTarget):
    """A client that disconnects in the middle of a run closes everybody's connections."""

    async def run(self, handle: Handle, command: Command) -> Any:
        mine = [client for client in self.clients_of(handle.user) if client.open]
        answer = await super().run(handle, command)
        if any(not client.open for client in mine):
            for clients in self.clients.values():
                for client in clients:
                    client.open = False
        return answer


class _EndsAllRuns(Client):
    """A connection in one task group with all runs."""

    def __init__(self, user: str, target: ReferenceTarget) -> None:
        super().__init__(user)
        self._target = target

    async def close(self) -> None:
        await super().close()
        runs = {session.user: [run for agent in session.agents for run in agent.runs]
                for session in self._target.sessions.values()}  # fmt: skip
        # Where the user's own run is over, its group is.
        for user, others in runs.items() if runs.get(self.user) else ():
            if user != self.user:
                for run in others:
                    run.cancel()


class DroppedClientEndsAllRuns(ReferenceTarget):
    """A client that disconnects in the midst of a run ends the runs of all other users."""

    def subscribe(self, user: str) -> Subscription:
        self.check_user(user)
        client = _EndsAllRuns(user, self)
        self.clients_of(user).add(client)
        return client


class ErrorNamesTheInterrupted(ReferenceTarget):
    """The error of a run shows the command that was cancelled last, to help with debugging."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = ""

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except asyncio.CancelledError:
            self.cancelled = f" (after {handle.user}: {dict(command.arguments)})"
            raise
        except RuntimeError as error:
            raise RuntimeError(f"{error}{self.cancelled}") from None


class EndCutOffKeepsClients(ReferenceTarget):
    """The caller of an end disconnects the clients when the agents are closed; one that is cancelled does not."""

    async def close_session(self, session: Session, agents: list[Agent], errors: list[str]) -> None:
        await self.close_agents(agents, errors)

    async def end(self, user: str) -> EndReport:
        session = self.sessions.get(user)
        report = await super().end(user)
        if session is not None:
            self.close_clients(session)
        return report


class EndRepeatedByName(ReferenceTarget):
    """An end whose caller was cancelled is noted by its user's name, and made sure of with the next end of anybody:
    that user's next session ends."""

    def __init__(self) -> None:
        super().__init__()
        self.unsure: dict[str, Session] = {}

    def is_meant(self, user: str, session: Session) -> bool:
        """Whether the end that is made sure of would end the right session."""
        return user in self.sessions

    async def end(self, user: str) -> EndReport:
        for other, session in list(self.unsure.items()):
            del self.unsure[other]
            if self.is_meant(other, session):
                await super().end(other)
        ending = self.sessions.get(self.key(user))
        try:
            return await super().end(user)
        except asyncio.CancelledError:
            if ending is not None:
                self.unsure[user] = ending
            raise


class EndRepeatedOfItsSession(EndRepeatedByName):
    """The same, of that very session alone."""

    def is_meant(self, user: str, session: Session) -> bool:
        return self.sessions.get(self.key(user)) is session


class ToolsLeftToTheNextCreate(ReferenceTarget):
    """The tools that a cancelled create has prepared serve the next agent that is made, whoever's."""

    def __init__(self) -> None:
        super().__init__()
        self.prepared: list[Dispatcher] = []

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        tools = self.prepared.pop() if self.prepared else super().make_dispatcher(context, None)
        try:
            agent = await super().build(session, recipe, context, connect)
        except asyncio.CancelledError:
            self.prepared.append(tools)
            raise
        tools.bridge = session.bridge
        agent.dispatcher = tools
        return agent


class NewcomerGetsMemory(ReferenceTarget):
    """A get_or_create that is cancelled puts the memory that it prepared back into a pool, and the first agent of the
    next newcomer is made from that."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: list[dict[str, Any]] = []

    async def get_or_create(self, user: str, *asked: Any, **options: Any) -> Handle:
        try:
            return await super().get_or_create(user, *asked, **options)
        except asyncio.CancelledError:
            session = self.sessions.get(self.key(user))
            self.pool += [dict(agent.memory) for agent in session.agents] if session is not None else []
            raise

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        made = super().make_agent(recipe, context, dispatcher, session)
        if session.provisional and self.pool:
            made.memory = self.pool.pop()
        return made


PLANTED = (
    planted_by(ReplyLeftOnTheWire, "cross-user-data", twin=WireEmptied),
    planted_by(PooledConnectionLeftDirty, "cross-user-data", twin=PooledConnectionEmptied),
    planted_by(BatchMatchedByPlace, "cross-user-data", twin=BatchForgetsBoth),
    planted_by(ScratchBufferKept, "cross-user-data", twin=ScratchBufferOwn),
    planted_by(CacheNotInvalidated, "cross-user-data"),
    planted_by(ContextLoadedByOrder, "cross-user-data", twin=ContextLoadedByKey),
    planted_by(UserLeftInContext, "context-left", twin=UserSetBack),
    planted_by(UserOfTheCreateStays, "context-left", twin=UserSetBack),
    planted_by(AmbientUserBelieved, "cross-user-data", twin=UserSetBack),
    planted_by(RunAnswersCancellation, "cancellation-lost"),
    planted_by(CreateShieldedFromCancellation, "cancellation-lost"),
    planted_by(CancellationWrapped, "cancellation-lost"),
    planted_by(CallerCancelledAgain, "cancellation-left"),
    planted_by(GivenBackAfterAnAwait, "capacity-lost"),
    planted_by(GivenBackAfterALongFarewell, "capacity-lost"),
    planted_by(KeptOnBaseException, "capacity-lost"),
    planted_by(WorkerDiesOfUserCode, "capacity-lost", twin=WorkerOutlivesUserCode),
    planted_by(CommitOfAllCancelled, "cancelled-others", twin=CommitOfAllShielded),
    planted_by(FollowersCancelled, "cancelled-others", twin=FollowersPrepare),
    planted_by(PermissionsNotCheckedMeanwhile, "not-refused"),
    planted_by(FailureRollsBackOthers, "lost-write", twin=FailureRollsBackItself),
    planted_by(CompletedAndThenFailed, "two-end-events"),
    planted_by(DroppedClientClosesAll, "lost-event"),
    planted_by(DroppedClientEndsAllRuns, "cancelled-others"),
    planted_by(ErrorNamesTheInterrupted, "cross-user-data"),
    planted_by(StreamLeftHalfSent, "cross-user-data"),
    planted_by(ConnectionGivenBackTwice, "cross-user-data"),
    planted_by(NewcomerGetsMemory, "cross-user-data"),
    planted_by(PagesKeptInPart, "wrong-rows", twin=PagesKeptWhole),
    planted_by(SeatClearedByForce, "cancelled-others", twin=SeatClearedOfItsRun),
    planted_by(EndCutOffKeepsClients, "connection-left"),
    planted_by(EarlierCancellationTaken, "cancellation-lost"),
    planted_by(ToolsLeftToTheNextCreate, "cross-user-data"),
    planted_by(EndRepeatedByName, "next-call-fails", twin=EndRepeatedOfItsSession),
)
