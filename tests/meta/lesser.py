"""Targets that can do less than one of ours: the same registry behind an adapter that lacks some capabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from lab_utils.target import Bounds, Capability, Command, Handle, NotSupported, Recipe, Row
from lab_utils.targets import PLANTED, TARGETS, target_factory

__all__ = ["Lesser", "lesser", "named"]

_METHODS = {
    Capability.EVENTS: ("attach", "subscribe", "connections"),
    Capability.AGENT_IDS: ("agent_id",),
    Capability.LOOKUP: ("get",),
    Capability.GET_OR_CREATE: ("get_or_create",),
    Capability.REMOVE: ("remove", "reset"),
    Capability.END: ("end", "end_all"),
    Capability.POPULATION: ("population",),
    Capability.PARTS: ("parts", "trusted"),
    Capability.PART_USE: ("use_part",),
    Capability.SUPERVISION: ("supervise",),
    Capability.ORCHESTRATION: ("orchestrate",),
    Capability.MODEL: ("choose_model", "prompts"),
    Capability.SOCKETS: ("asgi_app", "token"),
    Capability.EXPIRY: ("pass_time",),
    Capability.TYPE_CHANGES: ("register",),
    Capability.ADOPTION: ("make_apart", "adopt"),
    Capability.STRICT: ("create_strict",),
}
_BOUNDS = {
    "agents_per_user": Capability.AGENT_CAP,
    "users": Capability.USER_CAP,
    "idle_s": Capability.IDLE_END,
    "age_s": Capability.AGE_END,
}
_ASYNC = frozenset(
    {"attach", "get", "remove", "reset", "end", "end_all", "parts", "use_part", "supervise", "orchestrate"}
    | {"adopt", "create_strict"}
)
_ACTIONS = {"tool": Capability.TOOLS, "context": Capability.CONTEXT_DATA, "ask": Capability.MODEL}


def _unknown(*_: Any) -> Any:
    raise TypeError("ask for a capability by `in` or `issuperset`: nothing else is noted")


class _Noting(frozenset[Capability]):
    """Capabilities that note which of them somebody asked for, in `Lesser.asked` and `Lesser.asked_about`."""

    def __contains__(self, one: object) -> bool:
        self._note({one})
        return super().__contains__(one)

    def _note(self, wanted: set[Any] | frozenset[Any]) -> None:
        Lesser.asked |= wanted
        Lesser.asked_about |= wanted

    def issuperset(self, others: Iterable[Any], /) -> bool:
        wanted = frozenset(others)
        self._note(wanted)
        return super().issuperset(wanted)

    def __rsub__(self, others: Any) -> frozenset[Any]:
        self._note(others)
        return frozenset(others) - frozenset(iter(self))

    # Other requests would not be noted.
    __and__ = __sub__ = __or__ = __xor__ = __rand__ = __ror__ = __le__ = __lt__ = __gt__ = __ge__ = __eq__ = _unknown
    __hash__ = frozenset.__hash__


class Lesser:
    """A target that lacks capabilities: their methods and commands raise `NotSupported`, their arguments are ignored.

    Everything else is done by a target that has them all, which still does for itself the things it needs. `asked`: the
    capabilities that a run of a check had to do with, in any way; without one that is not among them the run would have
    been the same. `asked_about`: those of them whose presence was asked for.
    """

    base: ClassVar[str]
    lacks: ClassVar[frozenset[Capability]]
    name: ClassVar[str]
    asked: ClassVar[set[Any]] = set()
    asked_about: ClassVar[set[Any]] = set()

    def __init__(self) -> None:
        self._inner: Any = target_factory(self.base)()
        self._inner_has = self._inner.capabilities
        self.capabilities = _Noting(self._inner_has - self.lacks)

    def _has(self, capability: Capability) -> bool:
        Lesser.asked.add(capability)
        return capability in self._inner_has and capability not in self.lacks

    def _need(self, capability: Capability, what: str) -> None:
        if not self._has(capability):
            raise NotSupported(f"{what} needs {capability}")

    async def start(self, recipes: Sequence[Recipe], rows: Mapping[str, Sequence[Row]], close_timeout: float) -> None:
        if any(recipe.requires for recipe in recipes) and not self._has(Capability.PERMISSIONS):
            recipes = [replace(recipe, requires=frozenset()) for recipe in recipes]
        await self._inner.start(recipes, rows, close_timeout)

    async def stop(self) -> None:
        await self._inner.stop()

    async def create(self, user: str, agent_type: str, **given: Any) -> Handle:
        self._drop(given)
        if given.get("context_user") is None:
            # Of a first agent, a target that creates anew makes the same.
            found: Handle | None = await self._inner.get(user, agent_type, given.get("thread", "main"))
            if found is not None and not self._has(Capability.CREATE_ANEW):
                return found
        made: Handle = await self._inner.create(user, agent_type, **given)
        return made

    def limit(self, bounds: Bounds) -> None:
        for name, capability in _BOUNDS.items():
            if getattr(bounds, name) is not None:
                self._need(capability, f"the bound {name}")
        self._inner.limit(bounds)

    def move_clock(self, seconds: float) -> None:
        self._need_times("move_clock")
        self._inner.move_clock(seconds)

    async def sweep(self) -> Sequence[str]:
        self._need_times("sweep")
        ended: Sequence[str] = await self._inner.sweep()
        return ended

    def _need_times(self, what: str) -> None:
        if not any([self._has(Capability.IDLE_END), self._has(Capability.AGE_END)]):
            raise NotSupported(f"{what} needs {Capability.IDLE_END} or {Capability.AGE_END}")

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        self._need(Capability.GET_OR_CREATE, "get_or_create")
        given = {"thread": thread, "permissions": permissions}
        self._drop(given)
        found: Handle = await self._inner.get_or_create(user, agent_type, **given)
        return found

    def _drop(self, given: dict[str, Any]) -> None:
        for name, capability, nothing in (
            ("thread", Capability.THREADS, "main"),
            ("data", Capability.CONTEXT_DATA, None),
            ("permissions", Capability.PERMISSIONS, frozenset()),
            ("context_user", Capability.PERMISSIONS, None),
        ):
            if given.get(name, nothing) != nothing and not self._has(capability):
                del given[name]

    async def run(self, handle: Handle, command: Command) -> Any:
        if command.action in _ACTIONS:
            self._need(_ACTIONS[command.action], f"the command {command.action}")
        if command.run and not self._has(Capability.RUN_IDS):
            command = replace(command, run="")
        return await self._inner.run(handle, command)


def _forwarded(name: str, capability: Capability) -> Callable[..., Any]:
    async def soon(self: Lesser, *arguments: Any, **named: Any) -> Any:
        self._need(capability, name)
        return await getattr(self._inner, name)(*arguments, **named)

    def now(self: Lesser, *arguments: Any, **named: Any) -> Any:
        self._need(capability, name)
        return getattr(self._inner, name)(*arguments, **named)

    return soon if name in _ASYNC else now


for _capability, _names in _METHODS.items():
    for _name in _names:
        if not hasattr(Lesser, _name):
            setattr(Lesser, _name, _forwarded(_name, _capability))


def lesser(base: str, lacks: Iterable[Capability]) -> Any:
    """Return the class of the target of this name without these capabilities."""
    without = frozenset(lacks)
    name = "_".join([base, "without", *sorted(without)])
    return type(name, (Lesser,), {"base": base, "lacks": without, "name": name})


def named(base: str, lacks: Iterable[Capability]) -> str:
    """The import path by which `run_check` finds it."""
    return f"{__name__}:{base}-{'-'.join(sorted(lacks))}"


def __getattr__(name: str) -> Any:
    base, _, lacks = name.partition("-")
    if base not in TARGETS and base not in PLANTED:
        raise AttributeError(name)
    return lesser(base, [Capability(one) for one in lacks.split("-") if one])
