"""The operations on a target and its answers: pure data."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice
from operator import attrgetter, eq
from typing import Any, Final, overload

import msgspec

__all__ = ["History", "Op", "OpType", "Operations"]

_CHUNK: Final = 10_000


class OpType(StrEnum):
    """How an operation ended. INFO is an outcome of its own: the effect may or may not have happened."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


# Unknown to the cyclic collector: no operation is part of a cycle, and a long run has a million of them.
class Op(msgspec.Struct, frozen=True, gc=False):
    """One completed operation of one client.

    `index`: its place in the order of invocations. `invoked`, `completed`: positions in the order of all invocations
    and completions of the history, so that two operations overlap exactly if neither completed before the other was
    invoked. `start_s`, `end_s`: seconds since the trial began, for figures only. `error`: the exception's class name.
    """

    index: int
    client: str
    user: str
    action: str
    agent_type: str
    thread: str
    type: OpType
    invoked: int
    completed: int
    start_s: float
    end_s: float
    value: Any = None
    error: str = ""

    def __str__(self) -> str:
        place = f"{self.user}/{self.agent_type}" if self.agent_type else self.user
        thread = f"@{self.thread}" if self.thread else ""
        answer = f"{self.error}: {self.value}" if self.error else repr(self.value)
        return f"op {self.index} {self.client}: {self.action} {place}{thread} -> {self.type} {answer}"


class History(Sequence[Op]):
    """The completed operations of one trial, in the order of their invocation; never changed once made."""

    __slots__ = ("_ops",)

    def __init__(self, ops: Iterable[Op]) -> None:
        self._ops = tuple(sorted(ops, key=lambda op: op.index))

    @overload
    def __getitem__(self, index: int) -> Op: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Op]: ...
    def __getitem__(self, index: int | slice) -> Op | Sequence[Op]:
        return self._ops[index]

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self._ops)

    def where(self, *, action: str | None = None, user: str | None = None, type: OpType | None = None) -> History:
        """The operations that match every given field."""
        return History(
            op
            for op in self._ops
            if (action is None or op.action == action)
            and (user is None or op.user == user)
            and (type is None or op.type is type)
        )

    def __repr__(self) -> str:
        counts = {kind.value: sum(op.type is kind for op in self._ops) for kind in OpType}
        return f"<History {' '.join(f'{name}={count}' for name, count in counts.items())}>"


class Operations(Sequence[Op]):
    """Operations as columns, never changed once made: they take a third of the memory of the objects, which are made
    anew whenever one is asked for."""

    __slots__ = ("_columns",)

    def __init__(self, ops: Iterable[Op] = ()) -> None:
        self._columns: dict[str, Any] = {
            name: array(_NUMBERS[name]) if name in _NUMBERS else [] for name in Op.__struct_fields__
        }
        remaining = iter(ops)
        known: dict[str, str] = {}
        while chunk := list(islice(remaining, _CHUNK)):
            for name, column in self._columns.items():
                values = list(map(attrgetter(name), chunk))
                # Each name once: of those that come from a file each is an object of its own.
                column.extend(map(known.setdefault, values, values) if name in _NAMES else values)

    def column(self, field: str) -> Sequence[Any]:
        """One field of all operations."""
        column: Sequence[Any] = self._columns[field]
        return column

    @overload
    def __getitem__(self, index: int) -> Op: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Op]: ...
    def __getitem__(self, index: int | slice) -> Op | Sequence[Op]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return Op(*(column[index] for column in self._columns.values()))

    def __len__(self) -> int:
        return len(self._columns["index"])

    def __iter__(self) -> Iterator[Op]:
        return map(Op, *self._columns.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"<Operations {len(self)}>"


_NUMBERS: Final = {"index": "q", "invoked": "q", "completed": "q", "start_s": "d", "end_s": "d"}
_NAMES: Final = ("client", "user", "action", "agent_type", "thread", "error")
