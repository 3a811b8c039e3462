"""The lab's only door to a registry: the methods of a target, and the values that it returns."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Any, Final, NoReturn, Protocol
from weakref import ref

__all__ = [
    "GRANTED_BY",
    "BaseTarget",
    "Bounds",
    "Capability",
    "Command",
    "Delivered",
    "EndReport",
    "Handle",
    "Hook",
    "NotSupported",
    "PlannedStep",
    "Population",
    "Prompted",
    "Recipe",
    "Refusal",
    "Refused",
    "Row",
    "Subscription",
    "SupervisionReport",
    "Target",
    "brings_a_manager",
]

Hook = Callable[[str], Awaitable[None]]
"""Called with the user id, from inside a factory, a run or a cleanup."""

_TYPE_NAME = re.compile(r"[A-Za-z0-9_.-]+")

Row = Mapping[str, Any]
"""One record of one user's data, as the target's tools return it: plain JSON data."""


class Capability(StrEnum):
    """The abilities of a target beside `start`, `stop`, `create` and `run`, which every target has.

    A check that needs a missing capability is NOT_APPLICABLE; one that can do without leaves that part out. A method of
    a capability that is lacking raises `NotSupported`; an argument of one is ignored.

    | capability    | meaning: the target offers                                                                  |
    |---------------|---------------------------------------------------------------------------------------------|
    | THREADS       | one user's agents of one type in several `thread`s, each with a memory of its own           |
    | PERMISSIONS   | `permissions` of a request, a recipe's `requires`, `context_user`; refusals as `Refused`    |
    | CONTEXT_DATA  | `data` of a create, which the command `context` answers                                     |
    | ANY_VALUES    | any Python value in memories and `data`: bytes, sets, tuples, dates; without it, JSON only  |
    | TOOLS         | the command `tool`, over the user's own rows                                                |
    | EVENTS        | `subscribe`, `connections`, `attach`, `connect`: each run's events, numbered, to clients,   |
    |               | with exactly the fields that `judges.speech` knows; an adapter drops other fields           |
    | RUN_IDS       | the `run` of a command: the id that the run's events bear                                   |
    | AGENT_IDS     | `agent_id`: the id that the events of an agent bear                                         |
    | CREATE_ANEW   | `create` makes a new agent each time, beside an older one; without it, one that is there is |
    |               | answered                                                                                    |
    | LOOKUP        | `get`, which finds an agent and never makes one                                             |
    | GET_OR_CREATE | `get_or_create`                                                                             |
    | REMOVE        | `remove` and `reset`                                                                        |
    | END           | `end` and `end_all`                                                                         |
    | POPULATION    | `population`: exact counts of sessions and agents, at once                                  |
    | PARTS         | `parts` and `trusted`: the live objects behind a handle                                     |
    | SUPERVISION   | `supervise`                                                                                 |
    | ORCHESTRATION | `orchestrate`                                                                               |
    | SOCKETS       | `asgi_app` and `token`: events over WebSockets, by the protocol of `registry.events.wire`   |
    | EXPIRY        | `pass_time`: with SOCKETS, a connection ends when its token expires                         |
    | PART_USE      | `use_part`: the objects that `parts` gives are used as an agent uses them                   |
    | MODEL         | `choose_model` and `prompts`, and the command `ask`                                         |
    | AGENT_CAP     | `limit`: at most so many live agents of one user. One more is refused, or takes the place   |
    |               | of one that is idle, which is then closed                                                   |
    | USER_CAP      | `limit`: at most so many users at once; a new one is refused                                |
    | IDLE_END      | `limit`, `move_clock`, `sweep`: a session that was idle for too long is ended               |
    | AGE_END       | the same for a session that is too old, however busy it was before                          |
    | TYPE_CHANGES  | `register` while the registry is in use: a new type, a duplicate, a replacement             |
    | ADOPTION      | `make_apart` and `adopt`: an agent that was made elsewhere becomes a session's own          |
    | STRICT        | `create_strict`: data and parameters that are not plain are refused                         |
    | LOOP_GUARD    | a call from another event loop or thread than the first one's is refused, as WRONG_LOOP     |
    | RUN_ORDER     | runs of one agent that wait for each other are served in the order of their calls           |
    | SERVICE       | nothing of the above: a server behind a URL, reached by requests (`lab_utils.service`)      |
    """

    THREADS = "threads"
    PERMISSIONS = "permissions"
    CONTEXT_DATA = "context_data"
    ANY_VALUES = "any_values"
    TOOLS = "tools"
    EVENTS = "events"
    RUN_IDS = "run_ids"
    AGENT_IDS = "agent_ids"
    CREATE_ANEW = "create_anew"
    LOOKUP = "lookup"
    GET_OR_CREATE = "get_or_create"
    REMOVE = "remove"
    END = "end"
    POPULATION = "population"
    PARTS = "parts"
    PART_USE = "part_use"
    SUPERVISION = "supervision"
    ORCHESTRATION = "orchestration"
    MODEL = "model"
    SOCKETS = "sockets"
    EXPIRY = "expiry"
    AGENT_CAP = "agent_cap"
    USER_CAP = "user_cap"
    IDLE_END = "idle_end"
    AGE_END = "age_end"
    TYPE_CHANGES = "type_changes"
    ADOPTION = "adoption"
    STRICT = "strict"
    LOOP_GUARD = "loop_guard"
    RUN_ORDER = "run_order"
    SERVICE = "service"


class Refusal(StrEnum):
    """The reason of a refusal, in words that all targets share."""

    BOUNDARY = "boundary"
    PERMISSION = "permission"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_TOOL = "unknown_tool"
    INVALID_USER = "invalid_user"
    CLOSED = "closed"
    CAPACITY = "capacity"
    CONFLICT = "conflict"
    """Somebody else wrote meanwhile: the caller may try again, as one of a store without locks does."""
    DUPLICATE = "duplicate"
    NOT_PLAIN = "not_plain"
    WRONG_LOOP = "wrong_loop"


class Refused(Exception):
    """The target refused, certainly without any effect."""

    def __init__(self, kind: Refusal, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class NotSupported(Exception):
    """The target lacks the capability for this call."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a registry may hold, and for how long, in seconds of its own clock; None: the target's own choice."""

    agents_per_user: int | None = None
    users: int | None = None
    idle_s: float | None = None
    age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """An agent type of the lab: an agent that keeps a memory and obeys `Command`s.

    The hooks are where faults enter: `on_create` is awaited in the factory, `on_run` at the start of every run,
    `on_cleanup` when the agent is closed. `requires`: permissions needed to create one. A type is named by ASCII
    letters, digits, `_`, `-` and `.`, which every framework takes.
    """

    agent_type: str
    on_create: Hook | None = None
    on_run: Hook | None = None
    on_cleanup: Hook | None = None
    requires: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not _TYPE_NAME.fullmatch(self.agent_type):
            raise ValueError(f"agent type {self.agent_type!r}: use letters, digits, '_', '-' and '.' only")


@dataclass(frozen=True, slots=True)
class Command:
    """The command for one run of the lab's agent.

    | action    | arguments                 | answer                                                                 |
    |-----------|---------------------------|------------------------------------------------------------------------|
    | `write`   | `key`, `value`            | None; the agent's memory holds it                                      |
    | `read`    | `key`                     | the value in the agent's memory, None if it is not there               |
    | `recall`  |                           | the whole memory, a dict                                               |
    | `add`     | `key`, `amount`, `pause_s`| the new number: read, wait `pause_s` seconds, write                    |
    | `context` |                           | the content of the agent's context, a dict                             |
    | `tool`    | `name`, `parameters`      | the tool's answer                                                      |
    | `think`   | `thoughts`, a list of str | None; emits one `agent_thinking` for each                              |
    | `fail`    | `message`                 | raises RuntimeError(message)                                           |
    | `collect` | anything                  | `{"inputs": the arguments}`                                            |
    | `odd`     | `how`                     | a value that cannot be copied ("copy") or printed ("words")            |
    | `ask`     | `text`                    | the words of the agent's model, which quote the text (needs MODEL)     |

    Tools of the lab: `rows` (all rows of the user, a list), `total` (`column`: the sum over the user's rows), `admin`
    (needs the permission "admin"; answers "admin"). A tool's parameters may name another `user_id`, which must not
    matter.

    `run`: the id under which this run is asked for (needs RUN_IDS); "" leaves it to the target.
    """

    action: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Handle:
    """A live agent as the lab sees it. `instance` names the very object: two handles of one agent are equal in it."""

    user: str
    agent_type: str
    thread: str
    instance: str
    native: Any = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Delivered:
    """One event as a client received it. `body` is the payload's JSON text.

    A field that a target never sends is "" in every event, and checks ignore it. `agent` is the agent's type,
    `agent_id` its own id. No two runs have one `run`. A user's `stream` stays the same as long as its numbers go on,
    and no other user has it. `greeted`: the stream that the server named when the connection began, "" where it names
    none. `flaws`: the faults of the text itself, each an anomaly and a sentence (`lab_utils.sockets.wire`).
    """

    user: str
    seq: int
    type: str
    agent: str
    run: str
    body: str
    stream: str = ""
    thread: str = ""
    agent_id: str = ""
    greeted: str = field(default="", compare=False)
    flaws: tuple[tuple[str, str], ...] = ()


class Subscription(Protocol):
    """One client of one user."""

    @property
    def is_open(self) -> bool: ...

    def received(self) -> Sequence[Delivered]:
        """Everything that has arrived so far, oldest first. Does not wait."""

    async def close(self) -> None:
        """Drop the connection, as a client that goes away."""


@dataclass(frozen=True, slots=True)
class EndReport:
    """A target's report of an ending: how many agents it closed, and the errors it met."""

    found: bool
    closed: int
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Population:
    """The target's own counts of its sessions and agents."""

    sessions: int
    agents: int


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a plan: an agent type, the steps it waits for, and its time limit in seconds."""

    name: str
    agent_type: str
    after: tuple[str, ...] = ()
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class SupervisionReport:
    """How a plan went: each step's status ("completed", "failed", "timed_out", "cancelled", "skipped") and output."""

    statuses: Mapping[str, str]
    outputs: Mapping[str, Any]
    error: str = ""


class Prompted(Protocol):
    """One request as the model's server got it: the user in whose name it came, the data for the model, and the
    server's fault, if any."""

    @property
    def number(self) -> int: ...

    @property
    def user(self) -> str:
        """The user in whose name it came, "" for none."""

    @property
    def text(self) -> str:
        """The contents of all messages."""

    @property
    def whole(self) -> str:
        """Every text that came with the request, in messages or beside them, decoded; no key."""

    @property
    def fault(self) -> str | None:
        """The fault that the plan chose for it (`lab_utils.standin.Fault`), None for a plain answer."""


class Target(Protocol):
    """A registry under test. One object serves one trial: `start`, calls from one event loop, `stop`.

    A call that is refused raises `Refused`; errors of user code come through as they are. Users are plain ids.
    """

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[Capability]: ...

    async def start(self, recipes: Sequence[Recipe], rows: Mapping[str, Sequence[Row]], close_timeout: float) -> None:
        """Open the registry with these agent types and each user's rows; a cleanup has `close_timeout` seconds.

        A user's rows may be a list, or a sequence that reads each row on demand and may hold a million
        (`lab_utils.usage.staging`): iterate over it when the user needs them, in the loop's thread, and copy none.
        """

    async def stop(self) -> None:
        """Close the registry and forget it, as an app that shuts down. Every target has it, whatever its capabilities.
        Each call under way gets an answer, and so does each later one, if only an error."""

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
        """Make a new agent. Without CREATE_ANEW, an existing one may be returned. `data` is passed on as it is (not
        copied by the adapter). `context_user` makes the context another user's, which must be refused. Without
        `connect` no event manager is attached."""

    async def attach(self, user: str) -> None:
        """Attach the event manager to a session that was made without one, or attach it again."""

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        """Find the newest agent; never make one."""

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        """Find the one agent, or make it."""

    async def run(self, handle: Handle, command: Command) -> Any:
        """Run the agent once."""

    async def remove(self, user: str, agent_type: str) -> bool:
        """Close the newest agent of this type."""

    async def reset(self, user: str) -> int:
        """Close all agents of the user, keep the session; return how many."""

    async def end(self, user: str) -> EndReport:
        """End the user's session."""

    async def end_all(self) -> EndReport:
        """End everybody's."""

    def subscribe(self, user: str) -> Subscription:
        """Connect a client of this user."""

    def connections(self, user: str | None = None) -> int:
        """Connections that the target holds for a user, or in all."""

    def agent_id(self, handle: Handle) -> str:
        """The target's own id of this agent; its events bear it."""

    def population(self) -> Population: ...

    async def parts(self, handle: Handle) -> Mapping[str, Any]:
        """The objects that must belong to one user alone: session, agent, context, dispatcher, bridge, llm. All of them
        are roots of the user's reachable objects, except the session, which an agent never holds."""

    async def use_part(self, part: str, held: Any) -> Any:
        """Use one of these objects as its agent does: the "dispatcher" calls the tool `rows` and returns its rows, the
        "bridge" sends an event, the "llm" returns an answer. Any other part, or one that is None, returns None."""

    def trusted(self) -> Sequence[object]:
        """Stateless infrastructure that all users share by design; reported with every reachability verdict."""

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        """Run a plan of the lab's agents for one user; each answers `{"inputs": {step: that step's answer}}`.

        A step begins as soon as those it comes after have completed, whatever else runs.
        """

    async def orchestrate(self, user: str, request: str) -> SupervisionReport:
        """Run the target's own flow (triage to reporting, as the golden path names it) on the user's rows."""

    def asgi_app(self) -> Any:
        """After `start`: an ASGI app that serves each user's events to WebSocket clients, without a lifespan of its
        own. Called again, it serves the same streams: events emitted between two servers are kept for clients that come
        back.
        """

    def token(self, user: str, *, audience: str | None = None, max_age: float | None = None) -> str:
        """A credential of this user, as an app would issue it. `audience` makes it one for another service; `max_age`
        (seconds) limits its validity: at 0 or less it has expired."""

    def pass_time(self, seconds: float) -> None:
        """As if so many seconds had passed for every token: one that was good for less has expired, and the code that
        looks for expired ones has its turn now. Connections, pings and other time limits are not affected."""

    def choose_model(self, over: str, plan: Any = None) -> str:
        """Before `start`: choose the agents' model, "scripted" or "http", the same words from an endpoint of the lab.

        `plan` (`lab_utils.standin.Plan`) decides when the endpoint or the scripted model goes wrong. Returns the model
        that they will use.
        """

    def prompts(self) -> Sequence[Prompted]:
        """Every request that the model's endpoint received, each try on its own; none if the model is scripted. They
        stay after `stop`."""

    def limit(self, bounds: Bounds) -> None:
        """Before `start`: the registry keeps these bounds; a target gets only those of its capabilities."""

    def move_clock(self, seconds: float) -> None:
        """Move the clock by which sessions grow old and idle; nothing else is affected, and nothing is ended yet."""

    async def sweep(self) -> Sequence[str]:
        """End every session that is due by that clock and in which nothing runs or is made; return their users."""

    def register(self, recipe: Recipe, *, replace: bool = False) -> None:
        """After `start`: add an agent type. An existing one is refused as DUPLICATE, unless it is to be replaced: then
        later agents are of the new recipe, and living ones stay as they are."""

    def make_apart(self, user: str, agent_type: str, thread: str = "main") -> Handle:
        """Make an agent of this user outside of every session, as an app that builds its agents by itself."""

    async def adopt(self, user: str, handle: Handle) -> None:
        """Hand an agent that was made apart to the user's session, which owns it from then on. An agent of another
        user, or of a session already, is refused as BOUNDARY or CLOSED."""

    async def create_strict(self, user: str, agent_type: str, data: Mapping[str, Any]) -> Handle:
        """Make an agent that takes plain data only, here and as parameters of its runs: numbers, texts, bytes, dates,
        None, and lists, tuples, sets and dicts of these, none of a subclass. Others are refused as NOT_PLAIN."""


GRANTED_BY: Final[Mapping[Capability, tuple[str, ...]]] = MappingProxyType(
    {
        Capability.LOOKUP: ("get",),
        Capability.GET_OR_CREATE: ("get_or_create",),
        Capability.REMOVE: ("remove", "reset"),
        Capability.END: ("end", "end_all"),
        Capability.POPULATION: ("population",),
        Capability.PARTS: ("parts",),
        Capability.PART_USE: ("use_part",),
        Capability.EVENTS: ("subscribe", "connections"),
        Capability.AGENT_IDS: ("agent_id",),
        Capability.SUPERVISION: ("supervise",),
        Capability.ORCHESTRATION: ("orchestrate",),
        Capability.SOCKETS: ("asgi_app", "token"),
        Capability.EXPIRY: ("pass_time",),
        Capability.MODEL: ("choose_model", "prompts"),
        Capability.TYPE_CHANGES: ("register",),
        Capability.ADOPTION: ("make_apart", "adopt"),
        Capability.STRICT: ("create_strict",),
    }
)
"""The methods that a `BaseTarget` overrides, all of them, to have a capability. The others are named in `also`."""


class BaseTarget:
    """A target to derive from. Override `create` and `run`, and each other method that your registry has a call for.

    `capabilities` follow from the overridden methods (`GRANTED_BY`). Those that no method shows are named in `also`:
    THREADS, PERMISSIONS, CONTEXT_DATA, ANY_VALUES, TOOLS, RUN_IDS, CREATE_ANEW, AGENT_CAP, USER_CAP, IDLE_END, AGE_END,
    LOOP_GUARD, RUN_ORDER. A method that is not overridden raises `NotSupported`. `docs/target.md` is the contract.
    """

    also: AbstractSet[Capability] = frozenset()

    recipes: Mapping[str, Recipe] = MappingProxyType({})
    rows: Mapping[str, Sequence[Row]] = MappingProxyType({})
    close_timeout = 5.0

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def capabilities(self) -> frozenset[Capability]:
        return _overridden(type(self)) | self.also  # type: ignore[arg-type]

    async def start(self, recipes: Sequence[Recipe], rows: Mapping[str, Sequence[Row]], close_timeout: float) -> None:
        """Keep the lab's arguments, as `recipes` by type, `rows` and `close_timeout`. Call it where you override it."""
        self.recipes = {recipe.agent_type: recipe for recipe in recipes}
        self.rows = rows
        self.close_timeout = close_timeout

    async def stop(self) -> None:
        """Nothing is open that the interpreter does not free."""

    def recipe(self, agent_type: str) -> Recipe:
        """Return the recipe of a type. Raises `Refused` for a type that is not one of the lab's."""
        if agent_type not in self.recipes:
            raise Refused(Refusal.UNKNOWN_TYPE, f"no agent type {agent_type!r}; known: {', '.join(self.recipes)}")
        return self.recipes[agent_type]

    def user_id(self, user: object) -> str:
        """Return a user id unchanged. Raises `Refused` as INVALID_USER for anything but text, for the empty text, and
        for text with white space at either end, control characters, lone surrogates, or more than 1,000 characters.

        Call it first in each method that takes a user if your registry is given ids that your app has checked before,
        such as at login. If the registry itself refuses such ids, leave it out and translate the registry's error.
        """
        if type(user) is not str or not 0 < len(user) <= 1_000 or user != user.strip():
            raise Refused(Refusal.INVALID_USER, f"{user!r:.80} is not a user id")
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in user):
            raise Refused(Refusal.INVALID_USER, f"{user!r:.80} holds a control character or a surrogate")
        return user

    def handle(self, user: str, agent_type: str, native: object, *, thread: str = "main", instance: str = "") -> Handle:
        """Return a handle of a live object of your registry. The same object always has the same `instance`.

        The object is not kept alive. Pass `instance` where `native` allows no weak references, such as a dict: the
        registry's own id of it. Raises `TypeError` otherwise.
        """
        return Handle(user, agent_type, thread, instance or _INSTANCES.name_of(native), native)

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
        self._lacks("create")

    async def attach(self, user: str) -> None:
        """Nothing to do if clients receive the events of every session."""
        if Capability.EVENTS not in self.capabilities:
            self._lacks("attach")

    async def get(self, user: str, agent_type: str, thread: str | None = None) -> Handle | None:
        self._lacks("get")

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        self._lacks("get_or_create")

    async def run(self, handle: Handle, command: Command) -> Any:
        self._lacks("run")

    async def remove(self, user: str, agent_type: str) -> bool:
        self._lacks("remove")

    async def reset(self, user: str) -> int:
        self._lacks("reset")

    async def end(self, user: str) -> EndReport:
        self._lacks("end")

    async def end_all(self) -> EndReport:
        self._lacks("end_all")

    def subscribe(self, user: str) -> Subscription:
        self._lacks("subscribe")

    def connections(self, user: str | None = None) -> int:
        self._lacks("connections")

    def agent_id(self, handle: Handle) -> str:
        self._lacks("agent_id")

    def population(self) -> Population:
        self._lacks("population")

    async def parts(self, handle: Handle) -> Mapping[str, Any]:
        self._lacks("parts")

    async def use_part(self, part: str, held: Any) -> Any:
        self._lacks("use_part")

    def trusted(self) -> Sequence[object]:
        """The lab's recipes and their hooks, which all agents of a type share by design. Add your own to them."""
        hooks = [hook for one in self.recipes.values() for hook in (one.on_create, one.on_run, one.on_cleanup) if hook]
        return [*self.recipes.values(), *hooks]

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        self._lacks("supervise")

    async def orchestrate(self, user: str, request: str) -> SupervisionReport:
        self._lacks("orchestrate")

    def asgi_app(self) -> Any:
        self._lacks("asgi_app")

    def token(self, user: str, *, audience: str | None = None, max_age: float | None = None) -> str:
        self._lacks("token")

    def pass_time(self, seconds: float) -> None:
        self._lacks("pass_time")

    def choose_model(self, over: str, plan: Any = None) -> str:
        self._lacks("choose_model")

    def prompts(self) -> Sequence[Prompted]:
        self._lacks("prompts")

    def limit(self, bounds: Bounds) -> None:
        self._lacks("limit")

    def move_clock(self, seconds: float) -> None:
        self._lacks("move_clock")

    async def sweep(self) -> Sequence[str]:
        self._lacks("sweep")

    def register(self, recipe: Recipe, *, replace: bool = False) -> None:
        self._lacks("register")

    def make_apart(self, user: str, agent_type: str, thread: str = "main") -> Handle:
        self._lacks("make_apart")

    async def adopt(self, user: str, handle: Handle) -> None:
        self._lacks("adopt")

    async def create_strict(self, user: str, agent_type: str, data: Mapping[str, Any]) -> Handle:
        self._lacks("create_strict")

    def _lacks(self, method: str) -> NoReturn:
        raise NotSupported(f"{type(self).__name__} does not override {method}()")


@cache
def _overridden(kind: type[BaseTarget]) -> frozenset[Capability]:
    return frozenset(
        capability
        for capability, methods in GRANTED_BY.items()
        if all(getattr(kind, method) is not getattr(BaseTarget, method) for method in methods)
    )


class _Named(ref[Any]):
    """A weak reference to a live object, with the object's name."""

    __slots__ = ("key", "name")
    key: int
    name: str


def brings_a_manager(target: Target) -> bool:
    """Whether a session of this target may begin without an event manager, which `attach` brings: not where all
    sessions have one, and `attach` does nothing."""
    return Capability.EVENTS in target.capabilities and type(target).attach is not BaseTarget.attach


class _Instances:
    """Names of live objects, by identity. It keeps none of them alive, and no name of an object that is gone."""

    def __init__(self) -> None:
        self._named: dict[int, _Named] = {}
        self._numbers = itertools.count(1)

    def name_of(self, native: object) -> str:
        named = self._named.get(id(native))
        if named is None:
            try:
                named = _Named(native, self._gone)
            except TypeError as error:
                kind = type(native).__name__
                remedy = "pass instance=..., the id by which your registry knows it"
                raise TypeError(f"an object of type {kind} cannot be watched; {remedy}") from error
            named.key, named.name = id(native), f"#{next(self._numbers)}"
            self._named[named.key] = named
        return named.name

    def _gone(self, named: _Named) -> None:
        self._named.pop(named.key, None)


_INSTANCES: Final = _Instances()
