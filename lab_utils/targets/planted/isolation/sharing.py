"""Defects through which one user's objects or data reach another."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from lab_utils.target import Handle, Recipe
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Bridge, Context, Dispatcher, ReferenceTarget, Session, copied

__all__ = ["PLANTED"]


class SharedDispatcher(ReferenceTarget):
    """The first dispatcher made is kept and given to everybody."""

    _kept: Dispatcher | None = None

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        if self._kept is None:
            self._kept = super().make_dispatcher(context, bridge)
        return self._kept


class CaseFoldedKeys(ReferenceTarget):
    """Sessions are found by the user id in lower case."""

    def key(self, user: str) -> str:
        return user.lower()


class AliasedContext(ReferenceTarget):
    """The context keeps the very objects that the caller handed in."""

    def make_context(self, user: str, thread: str, data: Mapping[str, Any], permissions: frozenset[str]) -> Context:
        context = super().make_context(user, thread, {}, permissions)
        context.data = dict(data)
        return context


class ContextOfTheFirst(ReferenceTarget):
    """A user's later agents are given the data of their first one."""

    def __init__(self) -> None:
        super().__init__()
        self._first: dict[str, Any] = {}

    def make_context(self, user: str, thread: str, data: Mapping[str, Any], permissions: frozenset[str]) -> Context:
        context = super().make_context(user, thread, data, permissions)
        context.data = copy.deepcopy(self._first.setdefault(user, context.data))
        return context


class DataOfTheAgentBefore(ReferenceTarget):
    """An agent that is made without data is given the data of the user's agent before."""

    def make_context(self, user: str, thread: str, data: Mapping[str, Any], permissions: frozenset[str]) -> Context:
        session = self.sessions.get(user)
        if not data and session is not None and session.agents:
            data = session.agents[-1].context.data
        return super().make_context(user, thread, data, permissions)


class JoinedKeys(ReferenceTarget):
    """Sessions are kept under the user id up to the first separator, as if it were a joined key."""

    def key(self, user: str) -> str:
        return user.split(":")[0]


class SharedMemory(ReferenceTarget):
    """Every agent's memory is one default argument."""

    def make_agent(
        self,
        recipe: Recipe,
        context: Context,
        dispatcher: Dispatcher,
        session: Session,
        memory: Any = {},  # noqa: B006
    ) -> Agent:
        agent = super().make_agent(recipe, context, dispatcher, session)
        agent.memory = memory
        return agent


class _Served(Agent):
    """An agent whose memory is that of the caller whom the client of all serves."""

    memories: ClassVar[list[dict[str, Any]]] = []
    own: dict[str, Any]

    @property
    def memory(self) -> dict[str, Any]:
        return self.memories[-1] if self.memories else self.own

    @memory.setter
    def memory(self, memory: dict[str, Any]) -> None:
        self.own = memory

    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        self.memories[:] = [self.own]
        try:
            return await super().run(action, arguments, run)
        finally:
            self.memories.clear()


class ServesTheLastCaller(ReferenceTarget):
    """One client serves all users. It notes its caller when a run begins, and looks there again after the user's code
    has waited: whoever began a run meanwhile is served instead."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        return _Served(recipe, context, dispatcher, session)


class MakesForTheLastCaller(ReferenceTarget):
    """The data of the request under way is a field of the factory, and is read after the user's code has waited."""

    data: Mapping[str, Any] = MappingProxyType({})

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        self.data = context.data
        made = await super().build(session, recipe, context, connect)
        made.context.data = copied(dict(self.data))
        return made


class CacheWithoutUser(ReferenceTarget):
    """Tool answers are cached by the tool's name and parameters, without the user."""

    def __init__(self) -> None:
        super().__init__()
        self._cache: dict[str, Any] = {}

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        cache = self._cache

        class Caching(Dispatcher):
            def answer(self, name: str, parameters: Mapping[str, Any]) -> Any:
                key = f"{name}({sorted(parameters.items())})"
                if key not in cache:
                    cache[key] = super().answer(name, parameters)
                return cache[key]

        return Caching(context, self.rows.get(context.user, ()), bridge)


class AliasedAnswers(ReferenceTarget):
    """Answers are the agent's own objects, not copies."""

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        class Aliasing(Agent):
            def copy_out(self, answer: Any) -> Any:
                return answer

        return Aliasing(recipe, context, dispatcher, session)


class NoBoundaryCheck(ReferenceTarget):
    """The user id of the call is trusted; the owner of the context is not checked."""

    def check_allowed(
        self, user: str, agent_type: str, permissions: frozenset[str], context_user: str | None
    ) -> Recipe:
        return super().check_allowed(user, agent_type, permissions, None)


class PermissionOnlyAtCreate(ReferenceTarget):
    """Permissions are checked when an agent is made, not when it is found."""

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        return await self.get(user, agent_type, thread) or await super().get_or_create(
            user, agent_type, thread, permissions
        )


class OnePermissionOfTwo(ReferenceTarget):
    """One of the permissions that an agent type requires is enough."""

    def check_allowed(
        self, user: str, agent_type: str, permissions: frozenset[str], context_user: str | None
    ) -> Recipe:
        recipe = self.recipes.get(agent_type)
        held = permissions | recipe.requires if recipe and permissions & recipe.requires else permissions
        return super().check_allowed(user, agent_type, held, context_user)


class SessionBeforeTheCheck(ReferenceTarget):
    """The session is made before the request is checked, and stays when the request is refused."""

    def check_allowed(
        self, user: str, agent_type: str, permissions: frozenset[str], context_user: str | None
    ) -> Recipe:
        self.session_for_create(user)[0].provisional = False
        return super().check_allowed(user, agent_type, permissions, context_user)


class StrippedUserIds(ReferenceTarget):
    """User ids are made valid instead of being refused: stripped, and turned into text."""

    def check_user(self, user: object) -> None:
        super().check_user(str(user).strip() or "anonymous")


class IdsCheckedAsASCII(ReferenceTarget):
    """A user id is checked for white space and control characters of ASCII alone: all others are taken."""

    def check_user(self, user: object) -> None:
        if isinstance(user, str) and not user.isascii():
            user = "".join(filter(str.isascii, user)) or "all of it is foreign"
        super().check_user(user)


PLANTED = (
    planted_by(SharedDispatcher, "shared-object"),
    planted_by(CaseFoldedKeys, "shared-object", "cross-user-answer"),
    planted_by(JoinedKeys, "shared-object", "cross-user-answer"),
    planted_by(AliasedContext, "aliased-input"),
    planted_by(ContextOfTheFirst, "wrong-context"),
    planted_by(DataOfTheAgentBefore, "wrong-context"),
    planted_by(SharedMemory, "cross-user-data", "shared-object"),
    planted_by(ServesTheLastCaller, "cross-user-data"),
    planted_by(MakesForTheLastCaller, "cross-user-data"),
    planted_by(CacheWithoutUser, "cross-user-data"),
    planted_by(AliasedAnswers, "aliased-output"),
    planted_by(NoBoundaryCheck, "not-refused"),
    planted_by(PermissionOnlyAtCreate, "not-refused"),
    planted_by(OnePermissionOfTwo, "not-refused"),
    planted_by(SessionBeforeTheCheck, "left-behind"),
    planted_by(StrippedUserIds, "not-refused"),
    planted_by(IdsCheckedAsASCII, "not-refused"),
)
