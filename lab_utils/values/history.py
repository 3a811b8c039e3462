"""What was asked of a target and what it answered: pure data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, overload

__all__ = ["History", "Op", "OpType"]


class OpType(StrEnum):
    """How an operation ended. INFO is an outcome of its own: the effect may or may not have happened."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Op:
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
