"""A context's data cannot be changed, and an attempt raises an error that names the way to pass data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from registry import (
    AgentRegistry,
    BaseAgent,
    ReadOnlyContext,
    SessionClosed,
    UncopyableValue,
    UserExecutionContext,
)
from tests.registry.kit import context
from tests.running import run


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


def test_what_a_child_may_be_given_is_what_its_parent_might() -> None:
    strict = context(isolation_level="strict")
    with pytest.raises(UncopyableValue, match="strict isolation"):
        strict.create_child_context("c", {"a": object()})
    with pytest.raises(TypeError, match="pass str keys"):
        strict.create_child_context("c", {1: 2})  # type: ignore[dict-item]

    async def main() -> None:
        async with AgentRegistry() as registry:
            registry.register("helper", BaseAgent)
            agent = await registry.create_agent_for_user("ada", "helper", context(agent_context={"a": 1}))
            child = agent.context.create_child_context("c", {"b": 2})
            assert dict(child.agent_context) == {"a": 1, "b": 2}
            await registry.cleanup_user_session("ada")
            for call in (lambda: child.agent_context, lambda: agent.context.create_child_context("c", {"b": 2})):
                with pytest.raises(SessionClosed):
                    call()

    run(main)
