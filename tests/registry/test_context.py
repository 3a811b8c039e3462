"""UserExecutionContext: frozen, its data private and read-only, its children deep copies."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from registry import (
    BaseAgent,
    InvalidIdentifier,
    ReadOnlyContext,
    SessionClosed,
    UserExecutionContext,
    create_isolated_execution_context,
    managed_user_context,
)
from tests.registry.kit import context, registry_of


def test_the_fields_come_in_the_stated_order_and_ids_of_runs_and_requests_are_unique_unless_given() -> None:
    made, other = (UserExecutionContext("ada", "t", "r", "q", {"a": 1}, {"admin"}) for _ in range(2))
    assert (made.user_id, made.thread_id, made.run_id, made.request_id) == ("ada", "t", "r", "q")
    assert dict(made.agent_context) == {"a": 1}
    assert made.permissions == frozenset({"admin"})
    assert UserExecutionContext("ada").thread_id == "main"
    assert made.current_bridge() is None
    assert not made.has_session
    assert made != other
    assert len({made, other}) == 2, "they are compared by identity"
    ids = {name for _ in range(50) for name in (context().run_id, context().request_id)}
    assert len(ids) == 100


def test_a_context_is_frozen() -> None:
    made = context(agent_context={"a": 1})
    fields = ("user_id", "thread_id", "run_id", "request_id", "permissions", "agent_context", "_data", "_life", "new")
    for name in (*fields, "__class__"):
        with pytest.raises(AttributeError):
            setattr(made, name, "mallory")
        with pytest.raises((AttributeError, TypeError)):
            delattr(made, name)
    with pytest.raises(TypeError):
        made.agent_context["a"] = 2  # type: ignore[index]
    assert made.user_id == "ada"
    assert not hasattr(made, "__dict__")


def test_what_the_caller_still_holds_changes_nothing_inside() -> None:
    inner = {"deep": [1]}
    data: dict[str, Any] = {"inner": inner, "list": [1]}
    permissions = {"read"}
    made = context(agent_context=data, permissions=permissions)
    inner["deep"].append(2)
    data["list"].append(2)
    data["new"] = 1
    permissions.add("admin")
    assert dict(made.agent_context) == {"inner": {"deep": [1]}, "list": [1]}
    assert made.permissions == {"read"}


def test_children_are_deep_copies_both_ways() -> None:
    parent = context(agent_context={"list": [1], "d": {"x": [1]}}, permissions={"read"}, run_id="r", request_id="q")
    child = parent.create_child_context("research")
    sibling = parent.create_child_context("research")
    assert (child.user_id, child.thread_id, child.run_id, child.request_id) == ("ada", "main", "r", "q")
    assert child.name == "research"
    assert child.permissions == {"read"}
    child.agent_context["list"].append("child")
    parent.agent_context["d"]["x"].append("parent")
    assert parent.agent_context["list"] == [1]
    assert child.agent_context["d"] == {"x": [1]}
    assert sibling.agent_context == {"list": [1], "d": {"x": [1]}}
    for clone in (copy.copy(parent), copy.deepcopy(parent)):
        clone.agent_context["list"].append("clone")
    assert parent.agent_context["list"] == [1]


EVERY_FIELD: dict[str, Any] = {
    "request_id": "q", "thread_id": "t2", "run_id": "run", "agent_context": {"a": [1]}, "permissions": {"admin"},
    "isolation_level": "strict",
}  # fmt: skip


async def test_the_async_makers_take_every_field() -> None:
    async with managed_user_context("ada", **EVERY_FIELD) as managed:
        for made in (managed, await create_isolated_execution_context("ada", **EVERY_FIELD)):
            assert {name: getattr(made, name) for name in EVERY_FIELD} == EVERY_FIELD
            assert made.create_child_context("c").isolation_level == "strict"
    async with managed_user_context("ada") as plain:
        assert (plain.thread_id, plain.permissions, dict(plain.agent_context)) == ("main", frozenset(), {})
        assert (plain.name, plain.isolation_level) == ("", "standard")
        assert (plain.has_session, plain.current_bridge()) == (False, None)
    with pytest.raises(InvalidIdentifier):
        await create_isolated_execution_context("ada", thread_id="")


async def test_a_managed_context_ends_with_its_block() -> None:
    async with managed_user_context("ada", agent_context={"a": [1]}, permissions={"p"}) as managed:
        child = managed.create_child_context("x")
        assert child.agent_context["a"] == [1]
        assert managed.permissions == {"p"}
        assert not managed.has_session
    for made in (managed, child):
        with pytest.raises(SessionClosed):
            made.agent_context  # noqa: B018
        with pytest.raises(SessionClosed):
            made.create_child_context("y")
        assert made.user_id == "ada"
    with pytest.raises(ZeroDivisionError):
        async with managed_user_context("ada") as failed:
            raise ZeroDivisionError
    with pytest.raises(SessionClosed):
        failed.require_usable()


async def test_agents_outlive_the_managed_context_they_were_made_with_and_copies_keep_their_names() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        async with managed_user_context("ada", agent_context={"a": [1]}) as managed:
            agent = await registry.create_agent_for_user("ada", "helper", managed)
        assert agent.context.agent_context["a"] == [1]
        copies = (copy.copy(agent.context), copy.deepcopy(agent.context))
        assert [(made.name, made.has_session) for made in copies] == [("helper", True)] * 2
        with pytest.raises(SessionClosed):
            await registry.create_agent_for_user("ada", "helper", managed)


def merge(data: Any) -> None:
    data |= {"b": 2}


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(b=2),
        lambda data: data.update({"b": 2}),
        lambda data: data.setdefault("b", 2),
        lambda data: data.__setitem__("b", 2),
        lambda data: data.__delitem__("a"),
        lambda data: data.pop("a"),
        lambda data: data.popitem(),
        lambda data: data.clear(),
        merge,
    ],
)
def test_each_way_to_change_it_says_how_to_pass_data(change: Callable[[Any], object]) -> None:
    made = context(agent_context={"a": 1})
    for data in (made.agent_context, made.create_child_context("c").agent_context):
        with pytest.raises(
            ReadOnlyContext, match=r"agent_context=\{.*create_child_context\(.*AgentRequest\("
        ) as caught:
            change(data)
        assert isinstance(caught.value, TypeError)
    assert dict(made.agent_context) == {"a": 1}


def test_it_reads_as_a_dict_does() -> None:
    data: Any = context(agent_context={"a": 1, "b": [2]}).agent_context
    assert (data["a"], data.get("c"), len(data), list(data)) == (1, None, 2, ["a", "b"])
    assert ("b" in data, "c" in data) == (True, False)
    assert data == {"a": 1, "b": [2]}
    assert data != {"a": 1}
    assert data | {"a": 3} == {"a": 3, "b": [2]}
    assert {"a": 3, "c": 4} | data == {"a": 1, "b": [2], "c": 4}
    assert {**data} == dict(data) == data.copy() == dict(data.items())
    assert repr(data) == "read-only {'a': 1, 'b': [2]}"
    copied = data.copy()
    copied["a"] = 5
    assert data["a"] == 1
    assert not hasattr(data, "__dict__")
    with pytest.raises(KeyError, match="c"):
        data["c"]
    assert dict(UserExecutionContext("ada", agent_context=data).agent_context) == data


def test_a_child_is_given_more_data_of_its_own() -> None:
    given = {"b": [2], "c": 3}
    parent = context(agent_context={"a": [1], "b": 0})
    child = parent.create_child_context("c", given)
    assert dict(child.agent_context) == {"a": [1], "b": [2], "c": 3}
    given["b"].append("mine")  # type: ignore[attr-defined]
    child.agent_context["a"].append("child")
    assert dict(child.agent_context) == {"a": [1, "child"], "b": [2], "c": 3}
    assert dict(parent.agent_context) == {"a": [1], "b": 0}
    assert dict(context().create_child_context("c", {"a": 1}).agent_context) == {"a": 1}
    assert dict(parent.create_child_context("c", {}).agent_context) == {"a": [1], "b": 0}
