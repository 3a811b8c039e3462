"""Deep copies: nothing mutable is shared, aliases and cycles are kept, costs are bounded, refusals name the place."""

from __future__ import annotations

import copy
import datetime
import decimal
import enum
import fractions
import random
import sys
import types
import uuid
import zoneinfo
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from registry import (
    AgentRegistry,
    AgentRequest,
    BaseAgent,
    Limits,
    Plan,
    PlanFailed,
    SessionClosed,
    Step,
    Supervisor,
    Tool,
    UncopyableValue,
    UnknownAgentType,
    WebSocketManager,
)
from registry.copying import copy_private
from tests.registry.kit import context, registry_of, with_tools
from tests.registry.refusing import Text, Zone

Point = namedtuple("Point", "x y")  # noqa: PYI024  # An untyped one, as callers bring them.


class Colour(enum.Enum):
    RED = 1


class Box:
    """Left to `copy.deepcopy`."""

    def __init__(self, item: Any) -> None:
        self.item = item


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


@pytest.mark.parametrize("shared", [[1], {1: 2}, {1}, frozenset({1}), (1,)], ids=lambda value: type(value).__name__)
def test_one_container_in_two_places_is_one_in_the_copy(shared: Any) -> None:
    made = plain({"x": shared, "y": [shared]})
    assert made["x"] == shared
    assert made["x"] is made["y"][0]


class Number(int):
    pass


DATED = datetime.datetime(2026, 1, 1, tzinfo=Zone())
NOT_PLAIN: list[Any] = [
    Point(1, 2), Colour.RED, OrderedDict(a=1), defaultdict(list), Box(1), bytearray(b"1"), types.SimpleNamespace(a=1),
    DATED, datetime.time(1, tzinfo=Zone()), Text("a"), Number(1),
]  # fmt: skip


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_strict_takes_exact_types_only(value: Any) -> None:
    for wrapped, place in ((value, "it"), ({"a": value}, r"it\['a'\]"), ([value], r"it\[\]"), ((value,), r"it\(\)")):
        with pytest.raises(UncopyableValue, match=place):
            plain(wrapped)
        plain(wrapped, strict=False)


def test_strict_takes_no_key_of_a_subclass_and_the_state_behind_a_date_is_copied() -> None:
    with pytest.raises(UncopyableValue):
        plain({Text("a"): 1})
    copied = plain(DATED, strict=False)
    assert type(copied.tzinfo) is Zone
    assert copied.tzinfo is not DATED.tzinfo


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


DEEP = "Limits.max_value_depth"
MANY = "Limits.max_value_members"


def within(value: Any, **bounds: int) -> Any:
    limits = Limits(**{f"max_value_{name}": bound for name, bound in bounds.items()})
    return copy_private(value, strict=True, where="it", bounds=limits.bounds)


def nested(levels: int, width: int = 1, key: int = 1_000) -> dict[str, Any]:
    """So many dicts in one another, each with so many keys of so many characters, all but one with a list."""
    value: dict[str, Any] = {}
    for level in range(levels):
        value = {f"{level}/{number}".ljust(key, "x"): value if not number else [number] for number in range(width)}
    return value


def form(value: Any) -> Any:
    """The value as lists of numbers: equal for two that are built alike, aliases and cycles included."""
    numbers: dict[int, int] = {}
    told: list[Any] = []
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, (dict, list, tuple)):
            if id(item) in numbers:
                told.append(("again", numbers[id(item)]))
                continue
            numbers[id(item)] = len(numbers)
            told.append((type(item).__name__, len(item)))
            todo += [part for pair in item.items() for part in pair] if isinstance(item, dict) else item
        else:
            told.append(item)
    return told


SEEDS: list[Any] = [[1], {"k": 2}, (3, [4])]


@pytest.mark.parametrize("seed", range(12))
def test_aliases_and_cycles_are_those_of_deepcopy_at_any_depth(seed: int) -> None:
    rng = random.Random(seed)
    containers: list[Any] = [[]]
    value: Any = containers[0]
    for _ in range(300):
        inner: Any = copy.deepcopy(rng.choice(SEEDS))
        if rng.random() < 0.2:
            inner = (inner, rng.choice(containers))
        # Most go where the last one went, so that it gets deep.
        outer = containers[-1] if rng.random() < 0.7 else rng.choice(containers)
        if isinstance(outer, dict):
            outer[f"{len(outer)}"] = inner
        elif isinstance(outer, list):
            outer.append(inner)
        containers.append(inner[0] if isinstance(inner, tuple) and not isinstance(inner[0], int) else inner)
        if isinstance(containers[-1], tuple):
            containers[-1] = containers[-1][1]
    containers[-1].append(value) if isinstance(containers[-1], list) else containers[-1].update(up=value)
    made = within(value)
    assert form(made) == form(copy.deepcopy(value)) == form(value)
    assert not {id(each) for each in walk(made)} & {id(each) for each in walk(value)}


def walk(value: Any) -> list[Any]:
    """Every list and dict in it."""
    found: dict[int, Any] = {}
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, (dict, list, tuple)) and id(item) not in found:
            found[id(item)] = item
            todo += item.values() if isinstance(item, dict) else item
    return [item for item in found.values() if not isinstance(item, tuple)]


def test_what_an_object_shares_is_whole_when_its_own_code_looks_at_it() -> None:
    class Named:
        """Its hash is that of a list, which a set that is copied needs at once."""

        def __init__(self, names: list[str]) -> None:
            self.names = names

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Named) and other.names == self.names

        def __hash__(self) -> int:
            return hash(tuple(self.names))

        def __deepcopy__(self, memo: Any) -> Named:
            return Named(copy.deepcopy(self.names, memo))

    names = ["a", "b"]
    value: Any = {"names": names, "set": {Named(names)}}
    for _ in range(70):
        value = {"names": value["names"], "inner": value} if "inner" in value else {"inner": value, "names": names}
    made = copy_private(value, strict=False, where="it")
    while "set" not in made:
        made = made["inner"]
    assert Named(["a", "b"]) in made["set"]


@pytest.mark.parametrize("wrap", [lambda it: [it], lambda it: {"a": it}, lambda it: (it,), lambda it: frozenset({it})])
@pytest.mark.parametrize("depth", [1, 2, 49, 50, 51, 100, 149])
def test_the_depth_is_held_exactly(wrap: Callable[[Any], Any], depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    within(value, depth=depth)
    # A flat dict is read in another way.
    within({"flat": 1}, depth=1)
    if depth > 1:
        with pytest.raises(UncopyableValue, match=rf"is nested deeper than {depth - 1} \({DEEP}\); pass flatter data"):
            within(value, depth=depth - 1)


@pytest.mark.parametrize(
    ("value", "members"),
    [
        ({}, 0),
        ({"a": 1, "b": 2}, 2),
        ([1, 2, 3], 3),
        ([[1, 2], (3, 4), {5}, {"a": 6}], 10),
        ({(1, 2): [3]}, 4),
        ([[]] * 5, 5),
        (nested(100, 3), 500),
    ],
)
def test_the_members_are_held_exactly_and_what_is_shared_counts_once(value: Any, members: int) -> None:
    within(value, members=max(members, 1))
    if members > 1:
        with pytest.raises(UncopyableValue, match=rf"the members to more than {members - 1} \({MANY}\); pass less"):
            within(value, members=members - 1)


def test_none_is_no_limit_and_the_defaults_are_generous() -> None:
    assert Limits(max_value_depth=None, max_value_members=None).bounds == (sys.maxsize, sys.maxsize)
    assert Limits().bounds == (1_000, 1_000_000)
    value: Any = []
    for _ in range(20_000):
        value = [value]
    made = copy_private(value, strict=True, where="it", bounds=Limits(max_value_depth=None).bounds)
    while value:
        # Taken apart by hand: freeing it in one go would recurse as well.
        value, made = value[0], made[0]
    assert made == []
    for wrong in ({"max_value_depth": 0}, {"max_value_members": 2.5}, {"max_value_depth": True}):
        with pytest.raises(ValueError, match="max_value"):
            Limits(**wrong)


class Long(Exception):
    def __str__(self) -> str:
        return "e" * 4_000_000


class Failing:
    def __deepcopy__(self, _: Any) -> Any:
        raise Long


@pytest.mark.parametrize(
    "value",
    [
        {"k" * 4_000_000: object()},
        {("k" * 4_000_000,): {"a": object()}},
        {"a": Failing()},
        {"a": type("T" * 1_000_000, (), {})()},
        [nested(900, 5), Failing()],
        {"deep": nested(1_100, 1)},
        {"many": [0] * 1_000_001},
        {"\ud800" * 100_000: object()},
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_a_refusal_is_short_and_names_the_place(value: Any, *, strict: bool) -> None:
    with pytest.raises(UncopyableValue) as caught:
        # An object as such can be copied; a memory view of it cannot.
        copy_private([value, memoryview(b"")], strict=strict, where="it")
    message = str(caught.value)
    assert len(message) < 1_500
    assert message.startswith("it[]")
    message.encode()


def test_a_refusal_holds_nothing_of_the_copy() -> None:
    value = {"a": [1, [2, memoryview(b"")]]}
    with pytest.raises(UncopyableValue) as caught:
        copy_private(value, strict=True, where="it")
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


LIMITS = Limits(max_value_depth=5, max_value_members=50)
TOO_DEEP = {"a": nested(9, key=5)}
TOO_MANY = {"a": list(range(60))}


@pytest.mark.parametrize(("value", "limit"), [(TOO_DEEP, DEEP), (TOO_MANY, MANY)], ids=["deep", "many"])
async def test_the_limits_of_a_registry_hold_for_all_that_is_copied_in_it(value: dict[str, Any], limit: str) -> None:
    class Giving(BaseAgent):
        async def execute(self, request: AgentRequest) -> Any:
            return value if request.text == "give" else len(request.parameters)

    tools = with_tools(Tool("give", lambda *_: value), Tool("take", lambda *_: 1))
    async with AgentRegistry(None, tools, limits=LIMITS) as registry:
        registry.register("giving", Giving)
        # A context made outside is held to the defaults, and to the registry's limits when it comes in.
        given = context(agent_context=value)
        with pytest.raises(UncopyableValue, match=limit):
            await registry.create_agent_for_user("ada", "giving", given)
        with pytest.raises(UncopyableValue, match=limit):
            await registry.get_or_create_agent(given, "giving")
        assert registry.get_registry_health()["total_user_sessions"] == 0
        agent = await registry.create_agent_for_user("ada", "giving", context())
        execute_tool = agent.tool_dispatcher.execute_tool
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: agent.run("give"),
            lambda: agent.run(AgentRequest("take", value)),
            lambda: execute_tool("give"),
            lambda: execute_tool("take", value),
        ]
        for call in calls:
            with pytest.raises(UncopyableValue, match=limit):
                await call()
        with pytest.raises(UncopyableValue, match=limit):
            agent.context.create_child_context("c", value)
        assert (await agent.run(AgentRequest("take", {"a": 1}))).output == 1
        plan = Plan((Step("one", "giving"),))
        with pytest.raises(PlanFailed, match=limit):
            await Supervisor(registry).run(plan, agent.context, AgentRequest("take", value))


async def test_an_unknown_name_is_told_shortly_whatever_its_length() -> None:
    async with AgentRegistry() as registry:
        for number in range(1_000):
            registry.register(f"agent-{number}", BaseAgent)
        for name in ("agent" * 800_000, "agent-1001", object()):
            with pytest.raises(UnknownAgentType) as caught:
                await registry.create_agent_for_user("ada", name, context())  # type: ignore[arg-type]
            assert len(str(caught.value)) < 3_000


def chain(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_the_depth_is_held_exactly_also_after_an_object() -> None:
    value = [chain(60), Box(1), chain(99)]
    copy_private(value, strict=False, where="it", bounds=(100, 1_000))
    with pytest.raises(UncopyableValue, match="deeper than 99"):
        copy_private(value, strict=False, where="it", bounds=(99, 1_000))
