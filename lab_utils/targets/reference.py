"""The reference registry: obviously right and slow. One lock a user, one dictionary, and a copy at every border."""

from __future__ import annotations

import asyncio
import copy
import datetime
import itertools
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

from lab_utils.target import (
    Bounds,
    Capability,
    Command,
    Delivered,
    EndReport,
    Handle,
    Hook,
    NotSupported,
    PlannedStep,
    Population,
    Prompted,
    Recipe,
    Refusal,
    Refused,
    Row,
    Subscription,
    SupervisionReport,
)
from lab_utils.targets.conversation import known
from lab_utils.targets.lab_agent import obey

__all__ = [
    "Agent",
    "Bridge",
    "Client",
    "Context",
    "Dispatcher",
    "Origin",
    "ReferenceTarget",
    "Session",
    "check_plain",
    "copied",
]

_NUMBERS = itertools.count(1)
_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, UUID),
    *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta),
)

_ATOMS = frozenset({type(None), bool, int, float, str, bytes})
_in_json = json.JSONEncoder(sort_keys=True).encode


def copied(value: Any) -> Any:
    """A deep copy. Dictionaries and lists are walked here, which is much faster than `copy.deepcopy`; all else is
    left to that."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is list:
        return [copied(one) for one in value]
    if kind is dict and all(type(key) is str for key in value):
        return {key: copied(one) for key, one in value.items()}
    return copy.deepcopy(value)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an event comes from: the agent's type, the run, the thread, and the agent's own id."""

    agent: str
    run: str
    thread: str
    agent_id: str


class Context:
    """One agent's knowledge of its request: a deep copy of the arguments."""

    def __init__(self, user: str, thread: str, data: Mapping[str, Any], permissions: frozenset[str]) -> None:
        self.user = user
        self.thread = thread
        self.data = copied(dict(data))
        self.permissions = permissions
        self.is_strict = False


class Dispatcher:
    """Runs tools over one user's rows, whatever the parameters say."""

    def __init__(self, context: Context, rows: Sequence[Row], bridge: Bridge | None) -> None:
        self.context = context
        self.rows: list[Any] = copied(list(rows))
        self.bridge = bridge
        self.closed = False

    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        if self.closed:
            raise Refused(Refusal.CLOSED, f"the tools of {self.context.user!r} are closed")
        if name not in ("rows", "total", "admin"):
            raise Refused(Refusal.UNKNOWN_TOOL, f"no tool {name!r}")
        if name == "admin" and "admin" not in self.context.permissions:
            raise Refused(Refusal.PERMISSION, "tool 'admin' needs the permission admin")
        emit("tool_executing", {"tool": name})
        try:
            answer = self.answer(name, parameters)
        except Exception as error:
            emit(
                "tool_completed",
                {"tool": name, "status": "error", "error": type(error).__name__, "message": str(error)},
            )
            raise
        emit("tool_completed", {"tool": name, "status": "ok"})
        return answer

    def answer(self, name: str, parameters: Mapping[str, Any]) -> Any:
        """The answer of the tool."""
        if name == "admin":
            return "admin"
        rows = self.visible_rows(parameters)
        return copied(rows) if name == "rows" else sum(row[parameters["column"]] for row in rows)

    def visible_rows(self, parameters: Mapping[str, Any]) -> list[Any]:
        """The rows that a tool may see."""
        return self.rows


class Client:
    """One client of one user. `left` is called with the user when it closes."""

    def __init__(self, user: str, left: Callable[[str], None] = lambda _: None) -> None:
        self.user = user
        self.left = left
        self.open = True
        self._received: list[Delivered] = []

    @property
    def is_open(self) -> bool:
        return self.open

    def received(self) -> Sequence[Delivered]:
        return tuple(self._received)

    def deliver(self, event: Delivered) -> None:
        """Take an event, unless closed."""
        if self.open:
            self._received.append(event)

    async def close(self) -> None:
        self.open = False
        self.left(self.user)


class Bridge:
    """One user's events: numbered, and sent to that user's open clients."""

    def __init__(self, user: str, clients: WeakSet[Client]) -> None:
        self.user = user
        self.clients = clients
        self.stream = f"stream-{next(_NUMBERS)}"
        self.seq = 0
        self.closed = False

    def emit(self, kind: str, payload: Mapping[str, Any], origin: Origin) -> None:
        """Number an event and send it."""
        if self.closed:
            raise Refused(Refusal.CLOSED, f"the bridge of {self.user!r} is closed")
        self.seq += 1
        self.send(self.event(kind, _in_json(payload), origin))

    def event(self, kind: str, body: str, origin: Origin) -> Delivered:
        """The event of the number that is next."""
        return Delivered(
            user=self.user,
            seq=self.seq,
            type=kind,
            agent=origin.agent,
            run=origin.run,
            body=body,
            stream=self.stream,
            thread=origin.thread,
            agent_id=origin.agent_id,
        )

    def send(self, event: Delivered) -> None:
        """Give the event to every open client of the user."""
        for client in [client for client in self.clients if client.open]:
            client.deliver(event)


class Agent:
    """One agent: its memory, its context, and one run at a time."""

    def __init__(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> None:
        self.agent_id = f"agent-{next(_NUMBERS)}"
        self.recipe = recipe
        self.context = context
        self.dispatcher = dispatcher
        self.bridge = session.bridge
        self.memory: dict[str, Any] = {}
        self.turn = asyncio.Lock()
        self.closed = False
        # Whether a session holds it, or has held it: an agent has one owner.
        self.owned = False
        self.runs: set[asyncio.Task[Any]] = set()
        # Where several are closed together: until when each may be waited for, and which cleanups go on then.
        self.close_by: float | None = None
        self.late: list[tuple[Agent, asyncio.Task[None]]] | None = None

    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        """One run, with its events."""
        async with self.turn:
            self.check_open()
            emit = self._emit(run)
            emit("agent_started", {"request": action})
            try:
                if self.recipe.on_run is not None:
                    await self.recipe.on_run(self.context.user)
                answer = await obey(
                    action,
                    copied(dict(arguments)),
                    self.memory,
                    self.context.data,
                    lambda name, parameters: self.dispatcher.call(name, parameters, emit),
                    self._think(emit),
                )
                answer = self.copy_out(answer)
            except BaseException as error:
                if not self.closed:
                    emit("agent_error", {"error": type(error).__name__, "message": str(error)})
                raise
            emit("agent_completed", {})
            return answer

    def copy_out(self, answer: Any) -> Any:
        """The caller's own copy."""
        return copied(answer)

    def check_open(self) -> None:
        """Refuse every use of a closed agent."""
        if self.closed:
            raise Refused(Refusal.CLOSED, f"{self.recipe.agent_type} of {self.context.user!r} is closed")

    def _emit(self, run: str) -> Any:
        bridge, origin = self.bridge, self.origin(run)

        def emit(event: str, payload: Mapping[str, Any]) -> None:
            if bridge is not None:
                bridge.emit(event, payload, origin)

        return emit

    def origin(self, run: str) -> Origin:
        """The origin that the events of a run name."""
        return Origin(self.recipe.agent_type, run, self.context.thread, self.agent_id)

    def _think(self, emit: Any) -> Any:
        async def think(thought: str) -> None:
            emit("agent_thinking", {"thought": thought})

        return think


class Session:
    """Everything of one user."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.agents: list[Agent] = []
        self.bridge: Bridge | None = None
        self.closed = False
        # Until its first create has succeeded it is not counted, and goes with a failing one.
        self.provisional = True
        # By the target's clock.
        self.began = self.used = 0.0


class ReferenceTarget:
    """A registry in which every call of one user waits for the one before it."""

    name = "reference"
    capabilities = frozenset(Capability) - {
        Capability.ORCHESTRATION,
        Capability.SUPERVISION,
        Capability.MODEL,
        Capability.SOCKETS,
        Capability.EXPIRY,
        Capability.SERVICE,
    }

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.clients: dict[str, WeakSet[Client]] = {}
        self.recipes: dict[str, Recipe] = {}
        self.rows: Mapping[str, Sequence[Row]] = {}
        self.close_timeout = 5.0
        self.abandoned: set[asyncio.Task[None]] = set()
        self.closing: set[asyncio.Task[None]] = set()
        # A user's lock lives as long as somebody holds or awaits it, whatever becomes of the session meanwhile.
        self.locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._instances: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._numbers = itertools.count(1)
        self._runs = itertools.count(1)
        self.bounds = Bounds()
        self.time = 0.0
        self.home: asyncio.AbstractEventLoop | None = None

    async def start(self, recipes: Sequence[Recipe], rows: Mapping[str, Sequence[Row]], close_timeout: float) -> None:
        self.recipes = {recipe.agent_type: recipe for recipe in recipes}
        self.rows = rows
        self.close_timeout = close_timeout
        self.home = asyncio.get_running_loop()

    async def stop(self) -> None:
        await self.end_all()
        while self.closing:
            await asyncio.wait(set(self.closing))

    # Making and finding.

    async def create(
        self,
        user: str,
        agent_type: str,
        *,
        thread: str = "main",
        data: Mapping[str, Any] | None = None,
        permissions: frozenset[str] = frozenset(),
        context_user: str | None = None,
        connect: bool = True,
    ) -> Handle:
        self.check_user(user)
        recipe = self.check_allowed(user, agent_type, permissions, context_user)
        return await self.create_with(recipe, self.make_context(user, thread, data or {}, permissions), connect)

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        """Make an agent on a context that was checked."""
        self.check_loop()
        async with self.lock_of(context.user):
            session, is_new = self.session_for_create(context.user)
            try:
                self.check_room(session)
                agent = await self.build(session, recipe, context, connect)
            except BaseException:
                self.undo(session, is_new)
                raise
            return await self.install(session, agent)

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        self.check_user(user)
        recipe = self.check_allowed(user, agent_type, permissions, None)
        context = self.make_context(user, thread, {}, permissions)
        self.check_loop()
        async with self.lock_of(user):
            session, is_new = self.session_for_create(user)
            found = self.find(session, agent_type, thread)
            if found is not None:
                session.used = self.time
                return self.handle(found)
            try:
                self.check_room(session)
                # Brings no event manager: only `create` and `attach` do.
                agent = await self.build(session, recipe, context, False)
            except BaseException:
                self.undo(session, is_new)
                raise
            return await self.install(session, agent)

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        self.check_user(user)
        self.check_loop()
        session = self.sessions.get(self.key(user))
        agent = None if session is None else self.find(session, agent_type, thread)
        return None if agent is None else self.handle(agent)

    def check_user(self, user: object) -> None:
        """Refuse any value that is not a user id."""
        known(user)

    def check_loop(self) -> None:
        """Refuse calls from another event loop than the one on which the registry was started."""
        if asyncio.get_running_loop() is not self.home:
            raise Refused(Refusal.WRONG_LOOP, "this registry belongs to another event loop")

    def check_plain(self, data: Mapping[str, Any]) -> None:
        """Refuse values that a strict context does not take."""
        check_plain(dict(data))

    def check_room(self, session: Session) -> None:
        """Refuse one agent more than the user may have. The user's lock is held until it is installed."""
        most = self.bounds.agents_per_user
        if most is not None and len(session.agents) >= most:
            raise Refused(Refusal.CAPACITY, f"{session.user!r} has {most} agents, the limit")

    def check_allowed(
        self, user: str, agent_type: str, permissions: frozenset[str], context_user: str | None
    ) -> Recipe:
        """Refuse another user's context, an unknown type and a missing permission."""
        if context_user is not None and (type(context_user) is not str or context_user != user):
            raise Refused(Refusal.BOUNDARY, f"context of {context_user!r} offered for {user!r}")
        recipe = self.recipes.get(agent_type)
        if recipe is None:
            raise Refused(Refusal.UNKNOWN_TYPE, f"no agent type {agent_type!r}")
        if not recipe.requires <= permissions:
            raise Refused(Refusal.PERMISSION, f"{agent_type!r} needs {sorted(recipe.requires)}")
        return recipe

    def key(self, user: str) -> str:
        """The key of a session."""
        return user

    def lock_of(self, user: str) -> Any:
        """The lock under which the user's sessions change. Made by the first who asks, in one step."""
        lock = self.locks.get(self.key(user))
        if lock is None:
            lock = self.locks[self.key(user)] = asyncio.Lock()
        return lock

    def session_for_create(self, user: str) -> tuple[Session, bool]:
        """The user's session, and whether no create in it has succeeded yet."""
        session = self.sessions.get(self.key(user))
        if session is None:
            if self.bounds.users is not None and len(self.sessions) >= self.bounds.users:
                raise Refused(Refusal.CAPACITY, f"{self.bounds.users} users are here, the limit")
            session = self.sessions[self.key(user)] = Session(user)
            session.began = session.used = self.time
        return session, session.provisional

    def undo(self, session: Session, is_new: bool) -> None:
        """Forget a session that came to nothing."""
        if is_new and not session.agents and self.sessions.get(self.key(session.user)) is session:
            del self.sessions[self.key(session.user)]
            if session.bridge is not None:
                session.bridge.closed = True

    async def install(self, session: Session, agent: Agent) -> Handle:
        """Keep a new agent, unless the session has ended meanwhile."""
        if session.closed:
            await self.close_agent(agent, [])
            raise Refused(Refusal.CLOSED, f"the session of {agent.context.user!r} ended meanwhile")
        agent.owned = True
        session.agents.append(agent)
        session.provisional = False
        session.used = self.time
        return self.handle(agent)

    def find(self, session: Session, agent_type: str, thread: str | None) -> Agent | None:
        """The newest agent of a type, in one thread or in any."""
        for agent in reversed(session.agents):
            if agent.recipe.agent_type == agent_type and (thread is None or agent.context.thread == thread):
                return agent
        return None

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        """Make an agent."""
        if recipe.on_create is not None:
            await recipe.on_create(context.user)
        if connect and session.bridge is None:
            self.associate(session)
        dispatcher = self.make_dispatcher(context, session.bridge)
        return self.make_agent(recipe, context, dispatcher, session)

    def make_context(self, user: str, thread: str, data: Mapping[str, Any], permissions: frozenset[str]) -> Context:
        return Context(user, thread, data, permissions)

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        return Dispatcher(context, self.rows.get(context.user, ()), bridge)

    def make_bridge(self, user: str) -> Bridge:
        return Bridge(user, self.clients_of(user))

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return Agent(recipe, context, dispatcher, session)

    # Running.

    async def run(self, handle: Handle, command: Command) -> Any:
        agent: Agent = handle.native
        self.check_loop()
        agent.check_open()
        if agent.context.is_strict:
            self.check_plain(command.arguments)
        self.touch(agent.context.user)
        run = command.run or f"run-{next(self._runs)}"
        task = asyncio.ensure_future(agent.run(command.action, command.arguments, run))
        agent.runs.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if agent.closed and task.cancelled() and not _is_cancelling():
                raise Refused(Refusal.CLOSED, f"the session of {agent.context.user!r} ended meanwhile") from None
            raise
        finally:
            agent.runs.discard(task)
            self.touch(agent.context.user)
            # An error's traceback holds this frame, and the task holds the error: a cycle, if it stayed here.
            del task

    # Closing.

    async def remove(self, user: str, agent_type: str) -> bool:
        self.check_user(user)
        self.check_loop()
        session = self.sessions.get(self.key(user))
        agent = None if session is None else self.find(session, agent_type, None)
        if session is None or agent is None:
            return False
        session.agents.remove(agent)
        await self.to_the_end(self.close_agent(agent, []))
        return True

    async def reset(self, user: str) -> int:
        self.check_user(user)
        self.check_loop()
        session = self.sessions.get(self.key(user))
        if session is None:
            return 0
        agents, session.agents = session.agents, []
        await self.to_the_end(self.close_agents(agents, []))
        return len(agents)

    async def end(self, user: str) -> EndReport:
        self.check_user(user)
        self.check_loop()
        session = self.sessions.pop(self.key(user), None)
        if session is None:
            return EndReport(False, 0)
        session.closed = True
        agents, session.agents = session.agents, []
        errors: list[str] = []
        await self.to_the_end(self.close_session(session, agents, errors))
        return EndReport(True, len(agents), tuple(errors))

    async def end_all(self) -> EndReport:
        self.check_loop()
        reports = await asyncio.gather(*(self.end(session.user) for session in list(self.sessions.values())))
        errors = tuple(error for report in reports for error in report.errors)
        return EndReport(bool(reports), sum(report.closed for report in reports), errors)

    async def to_the_end(self, closing: Coroutine[Any, Any, None]) -> None:
        """Close in a task of its own: a cancelled caller stops waiting, and the closing goes on."""
        task = asyncio.ensure_future(closing)
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)
        try:
            await asyncio.wait({task})
            task.result()
        finally:
            # An error's traceback holds this frame, and the task holds the error: a cycle, if it stayed here.
            del task

    async def close_session(self, session: Session, agents: list[Agent], errors: list[str]) -> None:
        """Close an ended session's members, and its clients."""
        await self.close_agents(agents, errors)
        self.close_clients(session)

    async def close_agents(self, agents: list[Agent], errors: list[str]) -> None:
        """Close agents, newest first, going on past those that fail, all within the time allowed for one.

        Each has its share of the time that is left; a cleanup that needs more goes on beside the next, until the end.
        """
        time = asyncio.get_running_loop().time
        deadline, late = time() + self.close_timeout, list[tuple[Agent, asyncio.Task[None]]]()
        for place, agent in enumerate(reversed(agents)):
            agent.close_by, agent.late = time() + (deadline - time()) / (len(agents) - place + 1), late
            await self.close_agent(agent, errors)
        if late:
            await asyncio.wait([cleanup for _, cleanup in late], timeout=max(0.0, deadline - time()))
        for agent, cleanup in late:
            await self.closed_by(agent, cleanup, errors)

    async def close_agent(self, agent: Agent, errors: list[str]) -> None:
        """Stop the agent's runs and call its cleanup once, within the time allowed."""
        if agent.closed:
            return
        agent.closed = True
        for task in list(agent.runs):
            task.cancel()
        if agent.runs:
            # One that ignores its cancellation goes on alone: it finds its bridge closed, and its memory nobody reads.
            await asyncio.wait(set(agent.runs), timeout=self.time_for(agent))
        if agent.recipe.on_cleanup is None:
            agent.dispatcher.closed = True
            return
        cleanup = asyncio.ensure_future(_cleaned(agent.recipe.on_cleanup, agent.context.user))
        await asyncio.wait({cleanup}, timeout=self.time_for(agent))
        if cleanup.done() or agent.late is None:
            await self.closed_by(agent, cleanup, errors)
        else:
            agent.late.append((agent, cleanup))

    def time_for(self, agent: Agent) -> float:
        """Seconds that may be waited for this agent."""
        if agent.close_by is None:
            return self.close_timeout
        return max(0.0, agent.close_by - asyncio.get_running_loop().time())

    async def closed_by(self, agent: Agent, cleanup: asyncio.Task[None], errors: list[str]) -> None:
        """End the cleanup, keep its error, and let the agent's tools work no more."""
        error = await self.outcome_of(cleanup)
        agent.dispatcher.closed = True
        if error is not None:
            errors.append(f"{agent.recipe.agent_type}: {type(error).__name__}: {error}")

    async def outcome_of(self, cleanup: asyncio.Task[None]) -> BaseException | None:
        """Cut off a cleanup that is not done, and abandon one that ignores it; return its error."""
        if not cleanup.done():
            cleanup.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
            if not cleanup.done():
                # Kept until it ends; its error, if any, belongs to nobody any more.
                self.abandoned.add(cleanup)
                cleanup.add_done_callback(self.abandoned.discard)
            return TimeoutError(f"cleanup did not end within {self.close_timeout:g} s")
        return (
            asyncio.CancelledError("cleanup was cancelled from within") if cleanup.cancelled() else cleanup.exception()
        )

    def close_clients(self, session: Session) -> None:
        """Close the bridge, and with it the user's connections: a session without one knows of none."""
        if session.bridge is None:
            self.forget_clients(session.user)
            return
        session.bridge.closed = True
        for client in self.clients.pop(session.user, WeakSet()):
            client.open = False

    # Events and counts.

    def clients_of(self, user: str) -> WeakSet[Client]:
        return self.clients.setdefault(user, WeakSet())

    async def attach(self, user: str) -> None:
        self.check_user(user)
        self.check_loop()
        session, _ = self.session_for_create(user)
        session.provisional = False
        self.associate(session)

    def associate(self, session: Session) -> None:
        """Make a bridge, which serves every agent of the session from now on."""
        old, session.bridge = session.bridge, self.make_bridge(session.user)
        if old is not None:
            # The numbers go on: clients count a user's events, whatever bridge they come over.
            session.bridge.stream, session.bridge.seq, old.closed = old.stream, old.seq, True
        for agent in session.agents:
            agent.bridge = agent.dispatcher.bridge = session.bridge

    def subscribe(self, user: str) -> Subscription:
        self.check_user(user)
        client = Client(user, self.forget_clients)
        self.clients_of(user).add(client)
        return client

    def forget_clients(self, user: str) -> None:
        """Of a user without a session nothing stays when the last client has gone."""
        if self.key(user) not in self.sessions and not any(client.open for client in self.clients.get(user, ())):
            self.clients.pop(user, None)

    def connections(self, user: str | None = None) -> int:
        if user is not None:
            self.check_user(user)
        sets = self.clients.values() if user is None else [self.clients.get(user, WeakSet())]
        return sum(client.open for clients in sets for client in clients)

    def agent_id(self, handle: Handle) -> str:
        agent: Agent = handle.native
        return agent.agent_id

    def population(self) -> Population:
        sessions = [session for session in self.sessions.values() if not session.provisional]
        return Population(len(sessions), sum(len(session.agents) for session in sessions))

    async def parts(self, handle: Handle) -> Mapping[str, Any]:
        agent: Agent = handle.native
        return {
            "session": self.sessions[self.key(handle.user)],
            "agent": agent,
            "context": agent.context,
            "dispatcher": agent.dispatcher,
            "bridge": agent.bridge,
        }

    async def use_part(self, part: str, held: Any) -> Any:
        if held is not None and part == "dispatcher":
            return await held.call("rows", {}, lambda *_: None)
        if held is not None and part == "bridge":
            held.emit("agent_thinking", {"thought": "a part is used"}, Origin("lab", "lab", "main", "lab"))
        return None

    def trusted(self) -> Sequence[object]:
        hooks = [
            hook for recipe in self.recipes.values() for hook in (recipe.on_create, recipe.on_run, recipe.on_cleanup)
        ]
        return [*self.recipes.values(), *(hook for hook in hooks if hook)]

    # Limits and time, types, and agents from elsewhere.

    def limit(self, bounds: Bounds) -> None:
        self.bounds = bounds

    def move_clock(self, seconds: float) -> None:
        self.time += seconds

    def touch(self, user: str) -> None:
        """Note that the user's session is used now."""
        session = self.sessions.get(self.key(user))
        if session is not None:
            session.used = self.time

    async def sweep(self) -> Sequence[str]:
        self.check_loop()
        due = [session for session in self.sessions.values() if self.is_due(session)]
        ended = await asyncio.gather(*map(self.end_if_due, due))
        return [session.user for session, is_ended in zip(due, ended, strict=True) if is_ended]

    async def end_if_due(self, session: Session) -> bool:
        """End a session that was due, unless it was used or ended since."""
        # No await from the look to the end: a session that is due is not in use when it ends.
        if self.sessions.get(self.key(session.user)) is not session or not self.is_due(session):
            return False
        await self.end(session.user)
        return True

    def is_due(self, session: Session) -> bool:
        """Whether a session is too old or was idle for too long, and nothing of it runs or is being made."""
        idle, age = self.bounds.idle_s, self.bounds.age_s
        if session.provisional or self.lock_of(session.user).locked() or any(agent.runs for agent in session.agents):
            return False
        return (idle is not None and self.time - session.used >= idle) or (
            age is not None and self.time - session.began >= age
        )

    def register(self, recipe: Recipe, *, replace: bool = False) -> None:
        if recipe.agent_type in self.recipes and not replace:
            raise Refused(Refusal.DUPLICATE, f"agent type {recipe.agent_type!r} is registered already")
        self.recipes[recipe.agent_type] = recipe

    def make_apart(self, user: str, agent_type: str, thread: str = "main") -> Handle:
        context = self.make_context(user, thread, {}, frozenset())
        dispatcher = self.make_dispatcher(context, None)
        return self.handle(self.make_agent(self.recipes[agent_type], context, dispatcher, Session(user)))

    async def adopt(self, user: str, handle: Handle) -> None:
        self.check_loop()
        agent: Agent = handle.native
        self.check_adoptable(user, agent)
        async with self.lock_of(user):
            # It may have been adopted or closed while this waited in line.
            self.check_adoptable(user, agent)
            session, is_new = self.session_for_create(user)
            try:
                self.check_room(session)
            except Refused:
                self.undo(session, is_new)
                raise
            agent.bridge = agent.dispatcher.bridge = session.bridge
            await self.install(session, agent)

    def check_adoptable(self, user: str, agent: Agent) -> None:
        """Refuse a closed agent, another user's, and one that a session has or had."""
        agent.check_open()
        if agent.context.user != user or agent.owned:
            raise Refused(Refusal.BOUNDARY, f"an agent of {agent.context.user!r} was offered to {user!r}")

    async def create_strict(self, user: str, agent_type: str, data: Mapping[str, Any]) -> Handle:
        self.check_user(user)
        recipe = self.check_allowed(user, agent_type, frozenset(), None)
        self.check_plain(data)
        context = self.make_context(user, "main", data, frozenset())
        context.is_strict = True
        return await self.create_with(recipe, context, True)

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        raise NotSupported("the reference registry has no supervisor")

    async def orchestrate(self, user: str, request: str) -> SupervisionReport:
        raise NotSupported("the reference registry has no agents of its own")

    def asgi_app(self) -> Any:
        raise NotSupported("the reference registry serves no sockets")

    def token(self, user: str, *, audience: str | None = None, max_age: float | None = None) -> str:
        raise NotSupported("the reference registry serves no sockets")

    def pass_time(self, seconds: float) -> None:
        raise NotSupported("the reference registry serves no sockets")

    def choose_model(self, over: str, plan: Any = None) -> str:
        raise NotSupported("the reference registry has no model")

    def prompts(self) -> Sequence[Prompted]:
        raise NotSupported("the reference registry has no model")

    def handle(self, agent: Agent) -> Handle:
        name = self._instances.get(agent)
        if name is None:
            name = self._instances[agent] = f"#{next(self._numbers)}"
        return Handle(agent.context.user, agent.recipe.agent_type, agent.context.thread, name, agent)


async def _cleaned(cleanup: Hook, user: str) -> None:
    await cleanup(user)


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def check_plain(value: object) -> None:
    """Refuse values that are not plain data, at any depth; a subclass may hide anything."""
    todo = [value]
    while todo:
        one = todo.pop()
        if type(one) is dict:
            todo += [*one, *one.values()]
        elif type(one) in (list, tuple, set, frozenset):
            assert isinstance(one, (list, tuple, set, frozenset))
            todo += one
        elif type(one) not in _PLAIN:
            raise Refused(Refusal.NOT_PLAIN, f"an object of type {type(one).__name__} is not plain data")
