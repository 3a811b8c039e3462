"""Operations as columns are the same operations, in less memory."""

from __future__ import annotations

import tracemalloc

import pytest

from lab_utils.values.history import Op, Operations, OpType
from tests.lab_utils.made import op

OPS = [op(number, f"user {number % 3}", value=number if number % 2 else {"rows": [number]}) for number in range(25)]


def test_operations_are_what_they_were_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab_utils.values.history._CHUNK", 10)
    kept = Operations(OPS)
    assert (list(kept), len(kept), kept[3], kept[-1]) == (OPS, len(OPS), OPS[3], OPS[-1])
    assert kept[10:2:-3] == OPS[10:2:-3]
    assert kept.column("user")[:3] == ["user 0", "user 1", "user 2"]
    assert kept == OPS
    assert [kept == other for other in (OPS[1:], [*OPS[:-1], OPS[0]], 25)] == [False] * 3
    assert tuple(OPS) == kept
    assert list(Operations()) == []
    with pytest.raises(IndexError):
        kept[len(OPS)]


def test_operations_take_less_than_half_of_the_memory_of_the_objects() -> None:
    def read(number: int) -> Op:
        # Each name an object of its own, as a decoder makes them.
        names = ("client-1", "user-1", "run:add", "helper", "main")
        client, user, action, agent_type, thread = (bytes(name, "ascii").decode() for name in names)
        return Op(number, client, user, action, agent_type, thread, OpType.OK, number, number, number / 7, number / 7)

    tracemalloc.start()
    try:
        objects = [read(number) for number in range(1_000, 5_000)]
        of_objects = tracemalloc.get_traced_memory()[0]
        kept = Operations(objects)
        of_columns = tracemalloc.get_traced_memory()[0] - of_objects
    finally:
        tracemalloc.stop()
    assert len(kept) == len(objects)
    assert of_columns < of_objects / 3
