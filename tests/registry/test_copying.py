"""Deep copies: nothing mutable is shared, aliases and cycles are kept, and uncopyable values are refused by place."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import fractions
import threading
import types
import uuid
import zoneinfo
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import pytest

from registry import BaseAgent, SessionClosed, UncopyableValue, WebSocketManager
from registry.copying import copy_private
from tests.registry.kit import context, registry_of

Point = namedtuple("Point", "x y")  # noqa: PYI024  # An untyped one, as callers bring them.


class Colour(enum.Enum):
    RED = 1


class Box:
    def __init__(self, item: Any) -> None:
        self.item = item


class Zone(datetime.tzinfo):
    """Carries state, as a zone may."""

    def __init__(self) -> None:
        self.hours = [1]

    def utcoffset(self, _: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(hours=self.hours[0])

    def dst(self, _: datetime.datetime | None) -> None:
        return None

    def tzname(self, _: datetime.datetime | None) -> str:
        return "zone"


def plain(value: Any, *, strict: bool = True) -> Any:
    return copy_private(value, strict=strict, where="it")


PLAIN: list[Any] = [
    None, True, 0, 10**40, 1.5, 1j, "text", b"bytes", datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2),  # noqa: DTZ001  # A naive one is data as well.
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.time(3), datetime.timedelta(4),
    datetime.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")), decimal.Decimal("1.1"), fractions.Fraction(1, 3),
    uuid.UUID(int=1), [], {}, (), set(), frozenset(), [1, [2, {"a": (3, {4})}]], {"a": {"b": [1]}, 2: {None}},
    {(1, (2,)): [3]}, [frozenset({(1, 2)})],
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=ascii)
@pytest.mark.parametrize("strict", [True, False])
def test_plain_data_are_taken_as_they_are(value: Any, *, strict: bool) -> None:
    made = plain(value, strict=strict)
    assert made == value
    assert type(made) is type(value)


def test_nothing_mutable_is_shared() -> None:
    value: dict[Any, Any] = {
        "list": [1, {"deep": [2]}],
        "tuple": ([3],),
        "set": {4},
        ("key",): bytearray(b"5"),
        "box": Box([6]),
    }
    made = plain(value, strict=False)
    value["list"][1]["deep"].append(0)
    value["tuple"][0].append(0)
    value["set"].add(0)
    value["box"].item.append(0)
    value[("key",)].append(0)
    assert made["list"] == [1, {"deep": [2]}]
    assert made["tuple"] == ([3],)
    assert made["set"] == {4}
    assert made["box"].item == [6]
    assert made[("key",)] == bytearray(b"5")


def test_lists_stay_lists_and_order_is_kept() -> None:
    made = plain({"b": [3, 1, 2], "a": (1,)})
    assert type(made["b"]) is list
    assert list(made) == ["b", "a"]


def test_aliases_and_cycles_are_kept() -> None:
    shared = [1]
    loop: dict[str, Any] = {"x": shared, "y": shared, "t": (shared, shared)}
    loop["self"] = loop
    loop["through"] = [({"up": loop},)]
    made = plain(loop)
    assert made is not loop
    assert made["x"] is made["y"] is made["t"][0] is made["t"][1]
    assert made["x"] is not shared
    assert made["self"] is made
    assert made["through"][0][0]["up"] is made
    inside: list[Any] = []
    around = (inside,)
    inside.append(around)
    copied = plain(around)
    assert copied[0][0] is copied


@pytest.mark.parametrize("shared", [[1], {1: 2}, {1}, frozenset({1}), (1,)], ids=lambda value: type(value).__name__)
def test_one_container_in_two_places_is_one_in_the_copy(shared: Any) -> None:
    made = plain({"x": shared, "y": [shared]})
    assert made["x"] == shared
    assert made["x"] is made["y"][0]


def test_what_is_shared_is_copied_once() -> None:
    """Through sixty pairs, each of one thing with itself, there are 2 ** 60 ways."""
    value: Any = ([],)
    for _ in range(60):
        value = (value, value)
    made = plain(value)
    assert made[0] is made[1]


def test_an_alias_between_data_and_an_object_is_kept() -> None:
    shared = [1]
    made = plain({"box": Box(shared), "list": shared}, strict=False)
    assert made["box"].item is made["list"]
    assert made["list"] is not shared


@pytest.mark.parametrize(
    "value",
    [Point(1, 2), Colour.RED, OrderedDict(a=1), defaultdict(list), Box(1), bytearray(b"1"), types.SimpleNamespace(a=1)],
    ids=lambda value: type(value).__name__,
)
def test_strict_takes_exact_types_only(value: Any) -> None:
    for wrapped, place in ((value, "it"), ({"a": value}, r"it\['a'\]"), ([value], r"it\[\]"), ((value,), r"it\(\)")):
        with pytest.raises(UncopyableValue, match=place):
            plain(wrapped)
        plain(wrapped, strict=False)


def test_strict_refuses_state_behind_dates_and_subclasses_of_plain_types() -> None:
    class Text(str):
        __slots__ = ("more",)

    class Number(int):
        pass

    dated = datetime.datetime(2026, 1, 1, tzinfo=Zone())
    for value in (dated, datetime.time(1, tzinfo=Zone()), Text("a"), Number(1), {Text("a"): 1}):
        with pytest.raises(UncopyableValue):
            plain(value)
        with pytest.raises(UncopyableValue):
            plain([value])
    zone = dated.tzinfo
    copied = plain(dated, strict=False)
    assert isinstance(zone, Zone)
    assert copied.tzinfo is not zone


class NoCopy:
    def __deepcopy__(self, memo: Any) -> Any:
        raise ZeroDivisionError("cannot")


@pytest.mark.parametrize("strict", [True, False])
def test_what_cannot_be_copied_is_refused(*, strict: bool) -> None:
    for value in (threading.Lock(), (n for n in range(1)), types, NoCopy(), memoryview(b"")):
        with pytest.raises(UncopyableValue, match=r"it\['a'\]\[\]"):
            plain({"a": [value]}, strict=strict)
        with pytest.raises(UncopyableValue):
            plain(Box(value), strict=strict)


def test_a_value_nested_too_deep_is_refused_not_fatal() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UncopyableValue, match="deeper than 1000"):
        plain(deep)
    while deep:
        # Taken apart by hand: freeing it in one go would recurse as well.
        deep = deep[0]


async def test_live_handles_cannot_be_copied() -> None:
    """A clone of a handle would have an end of its own: it would outlive the session."""
    manager = WebSocketManager()
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context(), manager)
        session = await registry.get_user_session("ada")
        connection = manager.connect("ada")
        for handle in (agent, agent.bridge, agent._life, session, registry, manager, connection):
            with pytest.raises(UncopyableValue):
                plain({"handle": handle}, strict=False)
        bare = await registry.create_agent_for_user("bob", "helper", context("bob"))
        with pytest.raises(UncopyableValue):
            plain(bare.bridge, strict=False)
        child = plain(agent.context, strict=False)
        await registry.cleanup_user_session("ada")

        with pytest.raises(SessionClosed):
            child.agent_context  # noqa: B018


def test_locks_of_asyncio_are_not_shared() -> None:
    lock = asyncio.Lock()
    try:
        made = plain(lock, strict=False)
    except UncopyableValue:
        return
    assert made is not lock
