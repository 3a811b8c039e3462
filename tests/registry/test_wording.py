"""What refusals and reports say, word for word: who reads one has nothing else to go by."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from registry import (
    AgentRegistry,
    BaseAgent,
    InvalidIdentifier,
    Limits,
    LLMManager,
    PermissionDenied,
    ScriptedLLM,
    UncopyableValue,
    UnknownAgentType,
    UserExecutionContext,
)
from tests.registry.kit import Gate, context, slow
from tests.running import settled


async def test_a_refused_agent_type_is_called_that_whoever_refuses_it() -> None:
    async with AgentRegistry() as registry:
        session = await registry.get_user_session("ada")
        for register in (lambda: registry.register("", BaseAgent), lambda: session.register_agent("", object())):  # type: ignore[arg-type]
            with pytest.raises(InvalidIdentifier, match=r"^agent_type '' is empty; pass at least one character$"):
                register()


class Text(str):
    """A text by another name."""

    __slots__ = ()


async def test_a_refused_thread_is_called_that_with_a_session_and_without() -> None:
    async with AgentRegistry() as registry:
        await registry.get_user_session("ada")
        for user in ("ada", "bob"):
            for empty in ("", Text()):
                with pytest.raises(InvalidIdentifier, match=r"^thread_id '' is empty"):
                    await registry.get_user_agent(user, "helper", empty)


async def test_an_unknown_agent_type_comes_with_a_remedy() -> None:
    async with AgentRegistry() as registry:
        with pytest.raises(UnknownAgentType, match=r"^unknown agent type 'x': none is known; register\(\) it first$"):
            await registry.create_agent_for_user("ada", "x", context())
        registry.register("helper", BaseAgent)
        with pytest.raises(UnknownAgentType, match=r"^unknown agent type 'x'; known: helper; register\(\) it first$"):
            await registry.create_agent_for_user("ada", "x", context())
        with pytest.raises(UnknownAgentType, match=r"; did you mean 'helper'\?$"):
            await registry.create_agent_for_user("ada", "helpr", context())


async def test_a_run_asked_for_by_a_text_goes_by_its_context_s_run() -> None:
    async with AgentRegistry() as registry:
        registry.register("helper", BaseAgent)
        agent = await registry.create_agent_for_user("ada", "helper", context(run_id="run-7"))
        assert (await agent.run("hello")).run_id == "run-7"


async def test_a_missing_permission_names_what_for_and_what_there_is() -> None:
    async with AgentRegistry() as registry:
        registry.register("vault", BaseAgent, requires={"b", "a"})
        said = "^agent type 'vault' requires a, b; user 'ada' has none$"
        with pytest.raises(PermissionDenied, match=said):
            await registry.create_agent_for_user("ada", "vault", context())
        said = "^agent type 'vault' requires b; user 'ada' has a, c$"
        with pytest.raises(PermissionDenied, match=said):
            await registry.get_or_create_agent(context(permissions={"c", "a"}), "vault")


async def test_what_ignores_its_cancellation_is_reported_in_one_sentence() -> None:
    gate = Gate()
    async with AgentRegistry(limits=Limits(close_timeout=0.05)) as registry:
        registry.register("helper", slow(gate, stubborn=True))
        task = asyncio.create_task(registry.get_or_create_agent(context(), "helper"))
        await gate.reached()
        report = await registry.cleanup_user_session("ada")
        gate.open()
        await settled(task)
        assert report["errors"] == ["something that was being made ignores its cancellation; abandoned"]


class CopiedOnce:
    """Can be copied deep; its copies cannot."""

    def __init__(self, copies: int = 1) -> None:
        self.copies = copies

    def __deepcopy__(self, memo: Any) -> CopiedOnce:
        if not self.copies:
            raise ValueError("no more copies")
        return CopiedOnce(self.copies - 1)


async def test_data_that_cannot_be_copied_for_a_child_is_named() -> None:
    async with AgentRegistry() as registry:
        registry.register("helper", BaseAgent)
        given = context(agent_context={"once": CopiedOnce()})
        with pytest.raises(UncopyableValue, match=r"^agent_context\['once'\] is a .*no more copies"):
            await registry.create_agent_for_user("ada", "helper", given)


async def test_a_copy_of_an_agent_s_context_keeps_the_agent_s_name() -> None:
    async with AgentRegistry() as registry:
        registry.register("helper", BaseAgent)
        agent = await registry.create_agent_for_user("ada", "helper", context())
        copies = (copy.copy(agent.context), copy.deepcopy(agent.context))
        assert [(made.name, made.has_session) for made in copies] == [("helper", True)] * 2


class OfItsOwn:
    """A handle that names whose it is by a context of its own making."""

    def __init__(self, owner: Any) -> None:
        self.user_context = owner


class OwnHandles(LLMManager):
    def create_handle(self, user_context: UserExecutionContext) -> Any:
        return OfItsOwn(context(user_context.user_id))


async def test_a_handle_with_another_context_of_the_same_user_is_taken() -> None:
    async with AgentRegistry(OwnHandles(ScriptedLLM())) as registry:
        registry.register("helper", BaseAgent)
        agent = await registry.create_agent_for_user("ada", "helper", context())
        assert isinstance(agent.llm, OfItsOwn)
        assert agent.llm.user_context.user_id == "ada"
