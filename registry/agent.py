"""BaseAgent, its scope, its requests and its results; how its runs are guarded and reported."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable
from typing import Any, ClassVar, Final, NoReturn, final

from registry.context import UserExecutionContext
from registry.copying import copy_private
from registry.eager import begin, start
from registry.errors import (
    AgentClosed,
    CapacityExceeded,
    Containment,
    ReentrantRun,
    RegistryError,
    SessionClosed,
    a_type,
    describe,
    described,
    sendable,
)
from registry.events.types import EventBridge, EventType, Origin, Run, active_run, current_run, send_event
from registry.identity import check_id, random_hex
from registry.lease import Lifetime, SessionLifetime, Uncopyable
from registry.llm.base import ModelHandle
from registry.tools import Dispatcher

__all__ = ["AgentFactory", "AgentRequest", "AgentResult", "AgentScope", "BaseAgent"]

_log = logging.getLogger(__name__)
_RUN: Final = Containment("a run")


class _ScopeFields:
    __slots__ = ("_events", "context", "llm", "tools")

    context: UserExecutionContext
    tools: Dispatcher | None
    llm: ModelHandle | None
    _events: EventBridge | SessionLifetime | None


class AgentScope(_ScopeFields):
    """All that an agent may hold: `context`, `tools` (its dispatcher), `events` (its bridge), `llm` (its handle).

    Frozen. The registry fills all four; None stands for a part of a scope that was made without it. From none of the
    four does a chain of references lead to another user's objects or to the registry.
    """

    __slots__ = ()

    def __new__(
        cls,
        context: UserExecutionContext,
        tools: Dispatcher | None,
        events: EventBridge | None,
        llm: ModelHandle | None,
    ) -> AgentScope:
        return make_scope(context, tools, events, llm)

    @property
    def events(self) -> EventBridge | None:
        """The bridge of the user's session: the one that is set now, also for agents made before it was set."""
        source = self._events
        return source.bridge if isinstance(source, SessionLifetime) else source

    def __setattr__(self, name: str, _: object) -> NoReturn:
        raise AttributeError(f"AgentScope is frozen: {name!r} cannot be set")

    def __repr__(self) -> str:
        return f"<AgentScope {self.context!r}>"


def make_scope(
    context: UserExecutionContext,
    tools: Dispatcher | None,
    events: EventBridge | SessionLifetime | None,
    llm: ModelHandle | None,
) -> AgentScope:
    """Return a scope; `events` is a bridge, or the lifetime of the session whose bridge is to be used."""
    fields = _ScopeFields()
    fields.context = context
    fields.tools = tools
    fields.llm = llm
    fields._events = events
    fields.__class__ = AgentScope
    return fields  # type: ignore[return-value]  # It is one, by the line above.


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """A request to an agent. `parameters` are copied deep before the agent sees them; `run_id` defaults to the
    context's."""

    text: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class AgentResult:
    """The result of a run. `output` was copied deep: changing it changes nothing inside the agent."""

    agent_type: str
    agent_id: str
    run_id: str
    output: Any


def private_request(request: object, context: UserExecutionContext) -> AgentRequest:
    """Return a request that shares nothing with the caller's objects. Raises `TypeError`, `UncopyableValue`,
    `InvalidIdentifier`."""
    if isinstance(request, str):
        return AgentRequest(request, {}, context.run_id)
    if not isinstance(request, AgentRequest):
        raise TypeError(f"run() takes a str or an AgentRequest, not {a_type(request)}")
    if not isinstance(request.text, str):
        raise TypeError(f"the request's text is {a_type(request.text)}; pass a str")
    if not isinstance(request.parameters, Mapping):
        raise TypeError(f"the request's parameters are {a_type(request.parameters)}; pass a mapping")
    return AgentRequest(
        request.text,
        copy_private(
            dict(request.parameters), strict=context._strict, where="request.parameters", bounds=context._bounds
        ),
        context.run_id if request.run_id is None else check_id("run_id", request.run_id),
    )


class _PendingRun:
    """One caller's wait for one run: the task that does it, and the answer that the caller gets."""

    __slots__ = ("answer", "is_refused", "left", "task")

    def __init__(self, task: asyncio.Task[AgentResult], answer: asyncio.Future[AgentResult]) -> None:
        self.task = task
        self.answer = answer
        self.is_refused = False  # Cancelled by the closing: whatever the run does about it, its caller is refused.
        self.left: asyncio.Future[None] | None = None

    def refuse(self) -> None:
        """Cancel the run because its agent is closed."""
        # Once: a second cancellation would break into the run's handling of the first.
        if not self.is_refused:
            self.is_refused = self.task.cancel()

    async def leave(self) -> None:
        """The caller is cancelled: cancel its run, and wait until that has ended or was abandoned."""
        self.task.cancel()
        if not self.task.done():
            self.left = asyncio.get_running_loop().create_future()
            await asyncio.wait({self.left})

    def settle(self, result: AgentResult | None, error: BaseException | None) -> bool:
        """Answer the caller; False if it has left."""
        if self.left is not None and not self.left.done():
            self.left.set_result(None)
        if self.answer.done():
            return False
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(result)  # type: ignore[arg-type]  # No error: the result is there.
        return True


class BaseAgent(Uncopyable):
    """An agent of one user, and, as a class, a factory of itself.

    A subclass overrides `execute(request)` and, if it holds something that must be given back, `async cleanup()`.

    Guarantees: runs of one agent are serialised, in the order of the calls, so that an update made of a read, an await
    and a write is never lost. Every run emits `agent_started` and then exactly one of `agent_completed` and
    `agent_error`. A run of a closed agent raises `AgentClosed` or `SessionClosed` before anything happens.
    """

    __slots__ = (
        "__weakref__",
        "_agent_id",
        "_agent_type",
        "_life",
        "_pending",
        "_turn",
        "_used",
        "scope",
    )

    copy_output: ClassVar[bool] = True
    """Set to False in a class whose results cannot be copied deep (streams, handles). They are then handed out as they
    are: a change by the caller changes the agent's own object."""

    def __init_subclass__(cls, **rest: object) -> None:
        super().__init_subclass__(**rest)
        if "run" in cls.__dict__:
            raise TypeError(
                f"{cls.__name__} overrides run(), which keeps the guards and the events; override execute()"
            )

    def __init__(self, scope: AgentScope) -> None:
        if not isinstance(scope, AgentScope):
            raise TypeError(f"{type(self).__name__}() takes the AgentScope that the registry hands to factories")
        self.scope = scope
        context = scope.context
        self._agent_type = context.name or type(self).__name__
        self._agent_id: str | None = None
        self._life: Lifetime | None = context._life
        self._used = 0
        self._pending: set[_PendingRun] | None = None
        self._turn: asyncio.Lock | None = None

    @property
    def context(self) -> UserExecutionContext:
        """This agent's own context."""
        return self.scope.context

    @property
    def tool_dispatcher(self) -> Dispatcher:
        """This agent's own dispatcher."""
        return self.scope.tools  # type: ignore[return-value]  # None only on a scope that was made without one.

    @property
    def bridge(self) -> EventBridge:
        """The event bridge of the user's session."""
        return self.scope.events  # type: ignore[return-value]  # None only on a scope that was made without one.

    @property
    def llm(self) -> ModelHandle:
        """This agent's own LLM handle."""
        return self.scope.llm  # type: ignore[return-value]  # None only on a scope that was made without one.

    @property
    def agent_type(self) -> str:
        """The name under which this agent is found."""
        return self._agent_type

    @property
    def agent_id(self) -> str:
        """A random name, unique in the process's life; made at its first use."""
        if self._agent_id is None:
            self._agent_id = f"agent-{random_hex()}"
        return self._agent_id

    @property
    def is_running(self) -> bool:
        """True while a run is under way or waits for its turn."""
        return bool(self._pending)

    @property
    def is_closed(self) -> bool:
        """True once nothing new may begin."""
        return self._life is not None and not self._life.is_open

    async def execute(self, request: AgentRequest) -> object:
        """Do the work; override this. The base class answers with the request's own text."""
        return {"text": request.text, "parameters": dict(request.parameters)}

    async def cleanup(self) -> None:
        """Give back the agent's resources; override this if need be. Called exactly once, when no run is under way."""

    async def emit(self, event_type: EventType, payload: Mapping[str, object] | None = None) -> None:
        """Emit an event over the user's bridge in the name of the current run. Errors as `events.send_event`."""
        self._require_usable()
        self._require_home()
        await send_event(self.scope.events, event_type, payload or {}, self.scope.context)

    async def think(self, thought: str) -> None:
        """Emit `agent_thinking`."""
        await self.emit(EventType.AGENT_THINKING, {"thought": thought})

    @final
    async def run(self, request: AgentRequest | str = "") -> AgentResult:
        """Run the agent once and return its result. An error of `execute` is raised, as `UserCodeExited` if it would
        end the process (`SystemExit`, say; not so in a task that `execute` starts, whose errors are asyncio's).

        The request's parameters are copied deep at once. Cancelling the caller cancels the run and waits for it. When
        the agent or the session is closed meanwhile, the run is cancelled and the caller gets `AgentClosed` or
        `SessionClosed`, however the run ends.
        Raises `ReentrantRun` from within a run of the same agent, also through runs of others, and `CapacityExceeded`
        where too many runs of it wait.
        """
        life = self._life
        if life is not None:
            self._require_home()
            life.require_open()
        request = private_request(request, self.scope.context)
        around = active_run()
        if around is not None and around.is_within(id(self)):
            raise ReentrantRun(f"{self._shown()} was run from within its own run; call execute() for a recursion")
        most = None if life is None or life.parent is None else life.parent.most_runs
        if most is not None and self._pending is not None and len(self._pending) >= most:
            raise CapacityExceeded(
                f"{self._shown()} has {len(self._pending)} runs under way or waiting (Limits.max_runs_per_agent); "
                "await some of them, or raise that limit"
            )
        self._touch()
        pending = _PendingRun(start(self._run_in_turn(request)), asyncio.get_running_loop().create_future())
        if self._pending is None:
            self._pending = set()
        self._pending.add(pending)
        # Books are kept by the callback, for a task that is cancelled before its first step never runs a line.
        pending.task.add_done_callback(partial(self._run_ended, pending))
        try:
            return await pending.answer
        except asyncio.CancelledError:
            # Only this caller's own cancellation arrives here: the answer is never a CancelledError.
            await pending.leave()
            raise
        finally:
            # An error's traceback holds this frame, and the answer holds the error: a cycle, if it stayed here.
            del pending

    async def _run_in_turn(self, request: AgentRequest) -> AgentResult:
        await begin()
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            self._require_usable()
            scope = self.scope
            context = scope.context
            origin = Origin(context.thread_id, request.run_id or "", self._agent_type, self.agent_id)
            run = Run(origin, id(self), active_run())
            # The task is this run's own, so is its copy of the variables: nothing has to be reset.
            current_run.set(run)
            is_completed = False
            try:
                with _RUN:
                    asked = {"request": sendable(request.text)}
                    await send_event(scope.events, EventType.AGENT_STARTED, asked, context)
                    work = self.execute(request)
                    if not isawaitable(work):
                        raise TypeError(
                            f"{type(self).__name__}.execute returned {a_type(work)}, not an awaitable; "
                            "write `async def execute`"
                        )
                    output = await work
                    if self.copy_output:
                        output = copy_private(output, strict=False, where="output", bounds=context._bounds)
                    # A cancellation from here on may come after the client has received the event.
                    is_completed = True
                    await send_event(scope.events, EventType.AGENT_COMPLETED, {}, context)
                return AgentResult(self._agent_type, self.agent_id, origin.run_id, output)
            except BaseException as error:
                if not is_completed:
                    await self._report(error)
                raise
            finally:
                run.active = False

    async def _report(self, error: BaseException) -> None:
        try:
            await send_event(self.scope.events, EventType.AGENT_ERROR, described(error), self.scope.context)
        except RegistryError as refusal:
            # Abandoned at the deadline and only now back: no caller is left, and the run's own error counts.
            _log.debug("the end of a run of %s was not emitted: %s", self._shown(), refusal)

    def _run_ended(self, pending: _PendingRun, task: asyncio.Task[AgentResult]) -> None:
        if self._pending is not None:
            self._pending.discard(pending)
            if not self._pending:
                self._pending = None
        self._touch()
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or pending.is_refused:
            told = pending.settle(None, self._closed_error("while it was running"))
        elif error is not None:
            told = pending.settle(None, error)
        else:
            told = pending.settle(task.result(), None)
        if error is not None and not told:
            _log.warning("run of %s failed after its caller had left: %s", self._shown(), describe(error))

    def _closed_error(self, when: str) -> SessionClosed:
        life = self._life
        if life is not None and life.parent is not None and not life.parent.is_open:
            return SessionClosed(f"the session of user {self.context.user_id!r} ended {when} ({self._agent_type})")
        if life is None or life.is_open:
            return AgentClosed(f"the run of {self._shown()} was cancelled from within")
        return AgentClosed(f"{self._shown()} was closed {when}")

    def _touch(self) -> None:
        if self._life is not None and self._life.parent is not None:
            self._used = self._life.parent.touch()

    def _require_home(self) -> None:
        if self._life is not None and self._life.parent is not None:
            self._life.parent.require_home()

    def _require_usable(self) -> None:
        if self._life is not None:
            self._life.require_usable()

    def __repr__(self) -> str:
        return self._shown()

    def _shown(self) -> str:
        # Messages use this: a subclass's own repr is user code, which may raise anything.
        is_closed = self._life is not None and not self._life.is_open
        state = " closed" if is_closed else f" runs={len(self._pending)}" if self._pending else ""
        return f"<{type(self).__name__} {self._agent_type} user={self.scope.context.user_id!r}{state}>"


AgentFactory = Callable[[AgentScope], "BaseAgent | Awaitable[BaseAgent]"]


def cancel_runs(agent: BaseAgent) -> list[asyncio.Task[AgentResult]]:
    """Cancel the agent's runs because it is closed; return their tasks, to be awaited."""
    runs = list(agent._pending or ())
    for pending in runs:
        pending.refuse()
    return [pending.task for pending in runs]


def abandon_runs(agent: BaseAgent) -> list[asyncio.Task[AgentResult]]:
    """Answer the callers of runs that ignore their cancellation; return the tasks, which somebody must keep."""
    runs = list(agent._pending or ())
    for pending in runs:
        pending.settle(None, agent._closed_error("while it was running, and its run ignores cancellation"))
    return [pending.task for pending in runs]


def close_handles(agent: BaseAgent) -> None:
    """From now on the agent's context, and all that asks it, raise."""
    if agent._life is not None:
        agent._life.end()
