"""What an agent is: its scope (all that it may hold), its base class, its request and its result."""

from __future__ import annotations

import asyncio
import dis
import inspect
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NoReturn, Protocol, final
from weakref import WeakKeyDictionary

from registry.context import UserExecutionContext
from registry.copying import copy_private
from registry.errors import AgentClosed, ReentrantRun, SessionClosed
from registry.events import EventType, Origin, Run, current_run, send_event
from registry.lifetime import Lifetime, SessionLifetime

__all__ = ["AgentFactory", "AgentRequest", "AgentResult", "AgentScope", "BaseAgent", "ToolDispatcherLike"]

_log = logging.getLogger(__name__)


class ToolDispatcherLike(Protocol):
    """What a dispatcher factory must return."""

    @property
    def user_context(self) -> UserExecutionContext: ...

    async def execute_tool(self, name: str, parameters: Mapping[str, Any]) -> Any: ...


class _ScopeFields:
    __slots__ = ("_events", "context", "llm", "tools")

    context: UserExecutionContext
    tools: Any
    llm: Any
    _events: Any


class AgentScope(_ScopeFields):
    """All that an agent may hold: `context`, `tools` (its dispatcher), `events` (its bridge), `llm` (its handle).

    Frozen. From none of the four does a chain of references lead to another user's objects or to the registry.
    """

    __slots__ = ()

    def __new__(cls, context: UserExecutionContext, tools: Any, events: Any, llm: Any) -> AgentScope:
        return make_scope(context, tools, events, llm)

    @property
    def events(self) -> Any:
        """The bridge of the user's session: the one that is set now, also for agents made before it was set."""
        source = self._events
        return source.bridge if type(source) is SessionLifetime else source

    def __setattr__(self, name: str, _: object) -> NoReturn:
        raise AttributeError(f"AgentScope is frozen: {name!r} cannot be set")

    def __repr__(self) -> str:
        return f"<AgentScope {self.context!r}>"


def make_scope(context: UserExecutionContext, tools: Any, events: Any, llm: Any) -> AgentScope:
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
    """What an agent is asked. `parameters` are copied deep before the agent sees them; `run_id` defaults to the
    context's."""

    text: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class AgentResult:
    """What a run gave. `output` was copied deep: changing it changes nothing inside the agent."""

    agent_type: str
    agent_id: str
    run_id: str
    output: Any


class _PendingRun:
    """One caller's wait for one run: the task that does it, and the answer that the caller gets."""

    __slots__ = ("answer", "task")

    def __init__(self, task: asyncio.Task[AgentResult], answer: asyncio.Future[AgentResult]) -> None:
        self.task = task
        self.answer = answer


class BaseAgent:
    """An agent of one user, and, as a class, a factory of itself.

    A subclass overrides `execute(request)` and, if it holds something that must be given back, `async cleanup()`.

    Guarantees: runs of one agent are serialised, in the order in which they were asked for, so that an update made of
    a read, an await and a write is never lost; every run emits `agent_started` and then exactly one of
    `agent_completed` and `agent_error`; a run of a closed agent raises `AgentClosed` or `SessionClosed` before
    anything happens.
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
    """Set to False in a class whose results cannot be copied deep (streams, handles): they are then handed out as they
    are, and what the caller does to them is done to the agent's own."""

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
    def tool_dispatcher(self) -> Any:
        """This agent's own dispatcher."""
        return self.scope.tools

    @property
    def bridge(self) -> Any:
        """The event bridge of the user's session."""
        return self.scope.events

    @property
    def llm(self) -> Any:
        """This agent's own LLM handle."""
        return self.scope.llm

    @property
    def agent_type(self) -> str:
        """The name under which this agent is found."""
        return self._agent_type

    @property
    def agent_id(self) -> str:
        """A random name, unique in the process's life; made at its first use."""
        if self._agent_id is None:
            self._agent_id = f"agent-{secrets.token_hex(8)}"
        return self._agent_id

    @property
    def is_running(self) -> bool:
        """True while a run is under way or waits for its turn."""
        return bool(self._pending)

    @property
    def is_closed(self) -> bool:
        """True once nothing new may begin."""
        return self._life is not None and not self._life.is_open

    async def execute(self, request: AgentRequest) -> Any:
        """Do the work; override this. The base class answers with what it was asked."""
        return {"text": request.text, "parameters": dict(request.parameters)}

    async def cleanup(self) -> None:
        """Give back what the agent holds; override this if need be. Called exactly once, when no run is under way."""

    async def emit(self, event_type: EventType, payload: Mapping[str, Any] | None = None) -> None:
        """Emit an event over the user's bridge in the name of the current run. Errors as `events.send_event`."""
        self._require_usable()
        await send_event(self.scope.events, event_type, payload or {}, self.scope.context)

    async def think(self, thought: str) -> None:
        """Emit `agent_thinking`."""
        await self.emit(EventType.AGENT_THINKING, {"thought": thought})

    @final
    async def run(self, request: AgentRequest | str = "") -> AgentResult:
        """Run the agent once and return its result; what `execute` raises is raised.

        Cancelling the caller cancels the run and waits for it. When the agent or the session is closed meanwhile,
        the run is cancelled and the caller gets `AgentClosed` or `SessionClosed`.
        Raises `ReentrantRun` from within a run of the same agent.
        """
        life = self._life
        if life is not None:
            life.require_open()
        if isinstance(request, str):
            request = AgentRequest(request)
        elif not isinstance(request, AgentRequest):
            raise TypeError(f"run() takes a str or an AgentRequest, not a {type(request).__name__}")
        around = current_run.get()
        if around is not None and around.active and around.agent_key == id(self):
            raise ReentrantRun(f"{self!r} was run from within its own run; call execute() for a recursion")
        self._touch()
        loop = asyncio.get_running_loop()
        pending = _PendingRun(loop.create_task(self._run_in_turn(request)), loop.create_future())
        if self._pending is None:
            self._pending = set()
        self._pending.add(pending)
        # Books are kept by the callback, for a task that is cancelled before its first step never runs a line.
        pending.task.add_done_callback(partial(self._run_ended, pending))
        try:
            return await pending.answer
        except asyncio.CancelledError:
            # Only this caller's own cancellation arrives here: the answer is never a CancelledError.
            await _cancel_and_wait(pending.task)
            raise
        finally:
            del pending

    async def _run_in_turn(self, request: AgentRequest) -> AgentResult:
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            self._require_usable()
            scope = self.scope
            context = scope.context
            request = AgentRequest(
                request.text,
                copy_private(dict(request.parameters), strict=context._strict, where="request.parameters"),
                request.run_id or context.run_id,
            )
            run = Run(Origin(context.thread_id, request.run_id or "", self._agent_type, self.agent_id), id(self))
            # The task is this run's own, so is its copy of the variables: nothing has to be reset.
            current_run.set(run)
            try:
                await send_event(scope.events, EventType.AGENT_STARTED, {"request": request.text}, context)
                output = await self.execute(request)
                if self.copy_output:
                    output = copy_private(output, strict=False, where="output")
                await send_event(scope.events, EventType.AGENT_COMPLETED, {}, context)
                return AgentResult(self._agent_type, self.agent_id, run.origin.run_id, output)
            except BaseException as error:
                await self._report(error)
                raise
            finally:
                run.active = False

    async def _report(self, error: BaseException) -> None:
        payload = {"error": type(error).__name__, "message": str(error)}
        try:
            await send_event(self.scope.events, EventType.AGENT_ERROR, payload, self.scope.context)
        except SessionClosed:
            # Abandoned at the deadline and only now back: there is nobody left to tell.
            _log.debug("run of %r ended after its session", self)

    def _run_ended(self, pending: _PendingRun, task: asyncio.Task[AgentResult]) -> None:
        if self._pending is not None:
            self._pending.discard(pending)
            if not self._pending:
                self._pending = None
        self._touch()
        answer = pending.answer
        if task.cancelled():
            if not answer.done():
                answer.set_exception(self._closed_error("while it was running"))
            return
        error = task.exception()
        if answer.done():
            if error is not None:
                _log.warning("run of %r failed after its caller had left: %r", self, error)
        elif error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(task.result())

    def _closed_error(self, when: str) -> SessionClosed:
        life = self._life
        if life is not None and life.parent is not None and not life.parent.is_open:
            return SessionClosed(f"the session of user {self.context.user_id!r} ended {when} ({self._agent_type})")
        if life is None or life.is_open:
            return AgentClosed(f"the run of {self!r} was cancelled from within")
        return AgentClosed(f"{self!r} was closed {when}")

    def _touch(self) -> None:
        if self._life is not None and self._life.parent is not None:
            self._used = self._life.parent.touch()

    def _require_usable(self) -> None:
        if self._life is not None:
            self._life.require_usable()

    def __repr__(self) -> str:
        state = " closed" if self.is_closed else f" runs={len(self._pending)}" if self._pending else ""
        return f"<{type(self).__name__} {self._agent_type} user={self.scope.context.user_id!r}{state}>"


AgentFactory = Callable[[AgentScope], "BaseAgent | Awaitable[BaseAgent]"]


async def _cancel_and_wait(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


def cancel_runs(agent: BaseAgent) -> list[asyncio.Task[Any]]:
    """Cancel the agent's runs; return their tasks, to be awaited."""
    tasks: list[asyncio.Task[Any]] = [pending.task for pending in agent._pending or ()]
    for task in tasks:
        task.cancel()
    return tasks


def abandon_runs(agent: BaseAgent) -> list[asyncio.Task[Any]]:
    """Answer the callers of runs that ignore their cancellation; return the tasks, which somebody must keep."""
    left: list[asyncio.Task[Any]] = []
    for pending in list(agent._pending or ()):
        left.append(pending.task)
        if not pending.answer.done():
            pending.answer.set_exception(agent._closed_error("while it was running, and its run ignores cancellation"))
    return left


def close_handles(agent: BaseAgent) -> None:
    """From now on the agent's context, and all that asks it, raise."""
    if agent._life is not None:
        agent._life.end()


def may_suspend(agent: BaseAgent) -> bool:
    """False when the agent's `cleanup` surely ends without giving up the processor, so that no task is needed.

    Decided by its code: a coroutine function without a single await cannot suspend. A started coroutine cannot be
    handed to a task instead, for what it asked of `asyncio.current_task()` (every `asyncio.timeout()` does) would be
    the wrong one.
    """
    function = getattr(agent.cleanup, "__func__", None)
    if function is BaseAgent.cleanup:
        return False
    if function is None:
        # Not a method of the class: something was put in its place on the instance.
        return True
    known = _SUSPENDS.get(function)
    if known is None:
        known = _SUSPENDS[function] = not _is_await_free(function)
    return known


# Weak, so that classes made in a function or a notebook cell can be freed.
_SUSPENDS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_AWAITING = frozenset({"GET_AWAITABLE", "GET_AITER", "GET_ANEXT", "BEFORE_ASYNC_WITH", "SEND", "YIELD_VALUE"})


def _is_await_free(function: Callable[..., Any]) -> bool:
    if not inspect.iscoroutinefunction(function) or not inspect.isfunction(function):
        return False
    return not any(step.opname in _AWAITING for step in dis.get_instructions(function))
