"""UserExecutionContext: the data of one request; frozen, and private to one user."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, NoReturn, TypeVar

from registry.copying import DEFAULT_BOUNDS, Bounds, copy_private
from registry.errors import ContextBoundaryError, PermissionDenied, ReadOnlyContext, a_type, shortened, shown
from registry.identity import check_id, check_user_id, random_hex
from registry.lease import Lifetime, SessionLifetime

__all__ = [
    "DEFAULT_THREAD",
    "IsolationLevel",
    "UserExecutionContext",
    "create_isolated_execution_context",
    "managed_user_context",
]

DEFAULT_THREAD: Final = "main"
IsolationLevel = Literal["standard", "strict"]
T = TypeVar("T")
_NO_PERMISSIONS: Final[frozenset[str]] = frozenset()


class _ReadOnly(Mapping[str, Any]):
    """A view of a context's data. An attempt to change it raises an error that names the way to pass data."""

    __slots__ = ("_data",)

    def __init__(self, data: dict[str, object]) -> None:
        self._data = data

    def __getitem__(self, key: str) -> Any:
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def __or__(self, other: Mapping[str, object]) -> dict[str, Any]:
        return {**self._data, **other}

    def __ror__(self, other: Mapping[str, object]) -> dict[str, Any]:
        return {**other, **self._data}

    def copy(self) -> dict[str, Any]:
        """A dict of its own; objects nested in it are still the context's."""
        return self._data.copy()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise ReadOnlyContext(
            "agent_context is read-only: pass data when the context is made (agent_context={...}), to a child of it "
            "(create_child_context(name, {...})), or to one run (AgentRequest(parameters={...})); "
            "dict(context.agent_context) is a copy to work on"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __repr__(self) -> str:
        return f"read-only {self._data!r}"


class _Fields:
    """The fields, still writable: a context is filled as this class and then made a `UserExecutionContext`.

    Freezing by class costs one assignment; `object.__setattr__` for every field costs more than all the rest.
    """

    __slots__ = (
        "__weakref__",
        "_data",
        "_life",
        "_strict",
        "name",
        "permissions",
        "request_id",
        "run_id",
        "thread_id",
        "user_id",
    )

    user_id: str
    thread_id: str
    run_id: str
    request_id: str
    permissions: frozenset[str]
    name: str
    _data: dict[str, object] | None
    _life: Lifetime | None
    _strict: bool


class UserExecutionContext(_Fields):
    """The data of one request of one user.

    Guarantees: the fields cannot be set again; `agent_context` was copied deep on the way in, and every child gets a
    deep copy of its own. So a later change by the caller (or the parent) changes nothing here.

    `user_id`, `thread_id`, `run_id`, `request_id`: `str`, as `registry.identity` allows; the last two are made up
    (unique) when not given. `agent_context`: a mapping with `str` keys. `permissions`: a set of `str`.
    `isolation_level="strict"` refuses every value that is not plain data; "standard" refuses only values that cannot be
    copied deep.

    A context that the registry made for an agent shares the session's life: once the session has ended, its data
    raise `SessionClosed`. Its ids stay readable, for logs. Compared and hashed by identity.

    Raises `InvalidUserId`, `InvalidIdentifier`, `UncopyableValue`, `TypeError` (permissions, agent_context).
    """

    __slots__ = ()

    def __new__(
        cls,
        user_id: str,
        thread_id: str = DEFAULT_THREAD,
        run_id: str | None = None,
        request_id: str | None = None,
        agent_context: Mapping[str, object] | None = None,
        permissions: Iterable[str] = _NO_PERMISSIONS,
        *,
        isolation_level: IsolationLevel = "standard",
    ) -> UserExecutionContext:
        if isolation_level not in ("standard", "strict"):
            raise ValueError(f"isolation_level {shown(isolation_level)} is unknown; use 'standard' or 'strict'")
        strict = isolation_level == "strict"
        fields = _Fields()
        fields.user_id = check_user_id(user_id)
        fields.thread_id = thread_id if thread_id is DEFAULT_THREAD else check_id("thread_id", thread_id)
        fields.run_id = f"run-{random_hex()}" if run_id is None else check_id("run_id", run_id)
        fields.request_id = f"req-{random_hex()}" if request_id is None else check_id("request_id", request_id)
        fields.permissions = permissions if permissions is _NO_PERMISSIONS else _check_permissions(permissions)
        fields.name = ""
        fields._data = None if agent_context is None else _copy_data(agent_context, strict=strict)
        fields._life = None
        fields._strict = strict
        fields.__class__ = UserExecutionContext
        return fields  # type: ignore[return-value]  # It is one, by the line above.

    def __init_subclass__(cls, **_: object) -> None:
        raise TypeError("UserExecutionContext is final: the isolation of its data cannot be kept for a subclass")

    @property
    def agent_context(self) -> Mapping[str, Any]:
        """The private data, as a read-only mapping: changing it raises `ReadOnlyContext`, which says how to pass data.
        Raises `SessionClosed` once the session has ended."""
        self.require_usable()
        return _ReadOnly(self._data if self._data is not None else {})

    @property
    def isolation_level(self) -> IsolationLevel:
        """`"strict"` or `"standard"`, inherited by children."""
        return "strict" if self._strict else "standard"

    def require_usable(self) -> None:
        """Raise `SessionClosed` if the session or managed block that this context belongs to has ended."""
        if self._life is not None:
            self._life.require_usable()

    def require_open(self) -> None:
        """Raise `SessionClosed` once the session of this context has begun to end: nothing new may be made with it."""
        if self._life is not None:
            self._life.require_open()

    def require_permission(self, needed: frozenset[str], what: str) -> None:
        """Raise `PermissionDenied` unless this context has every permission in `needed`."""
        if not needed <= self.permissions:
            missing = shortened(", ".join(sorted(needed - self.permissions)))
            held = shortened(", ".join(sorted(self.permissions))) or "none"
            raise PermissionDenied(f"{what} requires {missing}; user {self.user_id!r} has {held}")

    def create_child_context(
        self, name: str, agent_context: Mapping[str, object] | None = None
    ) -> UserExecutionContext:
        """Return a context of the same user, ids and permissions with a deep copy of the data, and of `agent_context`,
        whose values go before those of the same key.

        It belongs to the same session, if any. Raises `SessionClosed` once that has ended, and as the constructor.
        """
        self.require_usable()
        child = self._child(check_id("name", name), self._life)
        more = _copy_data(agent_context, strict=self._strict, bounds=self._bounds)
        if more is not None:
            object.__setattr__(child, "_data", {**(child._data or {}), **more})
        return child

    def session_resource(self, key: Hashable, open_: Callable[[], T], close: Callable[[T], None]) -> T:
        """Return this session's one resource under `key`; `open_` makes it at first use, `close` ends it with the
        session, newest first. Raises `SessionClosed` after the end, `ContextBoundaryError` for a context that belongs
        to no session."""
        session = _session_of(self._life)
        if session is None:
            raise ContextBoundaryError(
                f"context of user {self.user_id!r} belongs to no session; use the context that the registry hands out"
            )
        return session.keep(key, open_, close)

    def current_bridge(self) -> Any:
        """The bridge that is set for this context's session now; None for a context that belongs to none."""
        session = _session_of(self._life)
        return None if session is None else session.bridge

    @property
    def has_session(self) -> bool:
        """True for a context that the registry made, which shares a session's life."""
        return _session_of(self._life) is not None

    @property
    def _bounds(self) -> Bounds:
        session = _session_of(self._life)
        return DEFAULT_BOUNDS if session is None else session.bounds

    def _child(self, name: str, life: Lifetime | None) -> UserExecutionContext:
        data = self._data
        if data is not None:
            # Held to the limits of where it goes.
            session = _session_of(life)
            bounds = DEFAULT_BOUNDS if session is None else session.bounds
            data = copy_private(data, strict=self._strict, where="agent_context", bounds=bounds)
        fields = _Fields()
        fields.user_id = self.user_id
        fields.thread_id = self.thread_id
        fields.run_id = self.run_id
        fields.request_id = self.request_id
        fields.permissions = self.permissions
        fields.name = name
        fields._data = data
        fields._life = life
        fields._strict = self._strict
        fields.__class__ = UserExecutionContext
        return fields  # type: ignore[return-value]  # It is one, by the line above.

    def _bind(self, life: SessionLifetime) -> None:
        """Let a context that belonged to nothing share a session's life."""
        object.__setattr__(self, "_life", life)

    def __setattr__(self, name: str, _: object) -> NoReturn:
        raise AttributeError(f"UserExecutionContext is frozen: {name!r} cannot be set; make a child or a new context")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"UserExecutionContext is frozen: {name!r} cannot be deleted")

    def __copy__(self) -> UserExecutionContext:
        return self._child(self.name, self._life)

    def __deepcopy__(self, memo: object) -> UserExecutionContext:
        return self._child(self.name, self._life)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a UserExecutionContext belongs to one process; send its ids and make a new one there")

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return (
            f"<UserExecutionContext{name} user={self.user_id!r} thread={self.thread_id!r} run={self.run_id!r} "
            f"values={len(self._data or ())}>"
        )


def _session_of(life: Lifetime | None) -> SessionLifetime | None:
    if life is None or isinstance(life, SessionLifetime):
        return life
    return life.parent


def _check_permissions(permissions: Iterable[str]) -> frozenset[str]:
    # A lone string is iterable, and would silently become the set of its letters.
    if isinstance(permissions, (str, bytes)):
        raise TypeError(
            f"permissions={shown(permissions)} is a single string; pass a set such as {{{shown(permissions)}}}"
        )
    names = frozenset(permissions)
    for name in names:
        if type(name) is not str or not name:
            raise TypeError(f"permission {shown(name)} is not a non-empty str")
    return names


def _copy_data(
    agent_context: Mapping[str, object] | None, *, strict: bool, bounds: Bounds = DEFAULT_BOUNDS
) -> dict[str, object] | None:
    if agent_context is None:
        return None
    if not isinstance(agent_context, Mapping):
        raise TypeError(f"agent_context is {a_type(agent_context)}; pass a mapping with str keys")
    for key in agent_context:
        if type(key) is not str:
            raise TypeError(f"agent_context key {shown(key)} is {a_type(key)}; pass str keys")
    return copy_private(dict(agent_context), strict=strict, where="agent_context", bounds=bounds) or None


async def create_isolated_execution_context(
    user_id: str,
    request_id: str | None = None,
    *,
    thread_id: str = DEFAULT_THREAD,
    run_id: str | None = None,
    agent_context: Mapping[str, object] | None = None,
    permissions: Iterable[str] = _NO_PERMISSIONS,
    isolation_level: IsolationLevel = "standard",
) -> UserExecutionContext:
    """Return a context that shares nothing with the arguments; see `UserExecutionContext` for the values that it
    refuses."""
    return UserExecutionContext(
        user_id, thread_id, run_id, request_id, agent_context, permissions, isolation_level=isolation_level
    )


@asynccontextmanager
async def managed_user_context(
    user_id: str,
    request_id: str | None = None,
    *,
    thread_id: str = DEFAULT_THREAD,
    run_id: str | None = None,
    agent_context: Mapping[str, object] | None = None,
    permissions: Iterable[str] = _NO_PERMISSIONS,
    isolation_level: IsolationLevel = "standard",
) -> AsyncIterator[UserExecutionContext]:
    """A context for one block: afterwards its data, and its children's, raise `SessionClosed`.

    Sessions and agents made with it live on: agents hold children of their session, not of this block.
    """
    life = Lifetime(f"the managed context of user {user_id!r}")
    context = UserExecutionContext(
        user_id, thread_id, run_id, request_id, agent_context, permissions, isolation_level=isolation_level
    )
    managed = context._child("", life)
    try:
        yield managed
    finally:
        life.end()
