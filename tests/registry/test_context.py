"""UserExecutionContext: frozen, its data private, its children deep copies."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from registry import (
    BaseAgent,
    InvalidIdentifier,
    PermissionDenied,
    SessionClosed,
    UncopyableValue,
    UserExecutionContext,
    create_isolated_execution_context,
    managed_user_context,
)
from tests.registry.kit import context, registry_of


def test_the_fields_come_in_the_stated_order() -> None:
    made = UserExecutionContext("ada", "t", "r", "q", {"a": 1}, {"admin"})
    assert (made.user_id, made.thread_id, made.run_id, made.request_id) == ("ada", "t", "r", "q")
    assert dict(made.agent_context) == {"a": 1}
    assert made.permissions == frozenset({"admin"})
    assert UserExecutionContext("ada").thread_id == "main"
    assert made.current_bridge() is None
    assert not made.has_session


def test_run_and_request_ids_are_unique_unless_given() -> None:
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


def test_contexts_are_compared_by_identity() -> None:
    one, two = (UserExecutionContext("ada", "t", "r", "q") for _ in range(2))
    assert one != two
    assert len({one, two}) == 2


def test_its_keys_are_str() -> None:
    class Key(str):
        __slots__ = ()

    for key in (1, None, b"a", ("a",), Key("a")):
        with pytest.raises(TypeError, match="str keys"):
            context(agent_context={key: 1})


@pytest.mark.parametrize("permissions", ["admin", b"admin", [1], [""], [None]])
def test_permissions_are_a_set_of_names(permissions: Any) -> None:
    with pytest.raises(TypeError):
        context(permissions=permissions)


def test_permissions_are_all_needed() -> None:
    made = context(permissions=["read", "write"])
    made.require_permission(frozenset(), "it")
    made.require_permission(frozenset({"read", "write"}), "it")
    with pytest.raises(PermissionDenied, match="it requires admin; user 'ada' has read, write"):
        made.require_permission(frozenset({"read", "admin"}), "it")


async def test_standard_copies_objects_and_strict_refuses_them() -> None:
    class Box:
        def __init__(self) -> None:
            self.items = [1]

    box = Box()
    standard = await create_isolated_execution_context("ada", request_id="q", agent_context={"box": box})
    assert standard.request_id == "q"
    assert standard.isolation_level == "standard"
    box.items.append(2)
    assert standard.agent_context["box"].items == [1]
    with pytest.raises(UncopyableValue, match=r"agent_context\['box'\].*Box.*strict"):
        await create_isolated_execution_context("ada", agent_context={"box": box}, isolation_level="strict")
    strict = await create_isolated_execution_context("ada", agent_context={"a": [1]}, isolation_level="strict")
    assert strict.create_child_context("x").isolation_level == "strict"
    with pytest.raises(ValueError, match="'lax' is unknown"):
        await create_isolated_execution_context("ada", isolation_level="lax")  # type: ignore[arg-type]


async def test_the_async_maker_takes_every_field() -> None:
    made = await create_isolated_execution_context(
        "ada", "q", thread_id="t", run_id="r", agent_context={"a": [1]}, permissions={"p"}
    )
    assert (made.thread_id, made.run_id, made.request_id) == ("t", "r", "q")
    assert made.permissions == {"p"}
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


async def test_a_managed_context_takes_every_field() -> None:
    async with managed_user_context("ada") as plain:
        assert (plain.thread_id, plain.permissions, dict(plain.agent_context)) == ("main", frozenset(), {})
        assert (plain.name, plain.isolation_level, plain.has_session, plain.current_bridge()) == (
            "",
            "standard",
            False,
            None,
        )
    async with managed_user_context(
        "ada",
        "req",
        thread_id="t2",
        run_id="run",
        agent_context={"a": [1]},
        permissions={"admin"},
        isolation_level="strict",
    ) as full:
        assert (full.request_id, full.thread_id, full.run_id) == ("req", "t2", "run")
        assert full.permissions == {"admin"}
        assert dict(full.agent_context) == {"a": [1]}
        assert (full.isolation_level, full.create_child_context("c").isolation_level) == ("strict", "strict")


async def test_a_copy_of_an_agent_s_context_keeps_the_agent_s_name() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        agent = await registry.create_agent_for_user("ada", "helper", context())
        copies = (copy.copy(agent.context), copy.deepcopy(agent.context))
        assert [(made.name, made.has_session) for made in copies] == [("helper", True)] * 2


async def test_agents_outlive_the_managed_context_they_were_made_with() -> None:
    async with registry_of(helper=BaseAgent) as registry:
        async with managed_user_context("ada", agent_context={"a": [1]}) as managed:
            agent = await registry.create_agent_for_user("ada", "helper", managed)
        assert agent.context.agent_context["a"] == [1]
        with pytest.raises(SessionClosed):
            await registry.create_agent_for_user("ada", "helper", managed)


def test_the_repr_shows_no_data() -> None:
    made = context(agent_context={"secret": "hunter2"})
    assert "hunter2" not in repr(made)
    assert "values=1" in repr(made)
