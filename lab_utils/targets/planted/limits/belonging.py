"""Defects of ownership: recipes of agents, agents of sessions, data of contexts, calls of loops, and everything of its
own registry."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from lab_utils.target import Command, EndReport, Handle, Recipe, Refusal, Refused, Row
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.reference import Agent, Context, ReferenceTarget, Session, check_plain

__all__ = ["PLANTED"]


class DuplicateReplaces(ReferenceTarget):
    """A type that is registered again replaces the one before, even without `replace`."""

    def register(self, recipe: Recipe, *, replace: bool = False) -> None:
        super().register(recipe, replace=True)


class RequirementsAddUp(ReferenceTarget):
    """A replacement requires its own permissions and those of every recipe before it."""

    def register(self, recipe: Recipe, *, replace: bool = False) -> None:
        before = self.recipes.get(recipe.agent_type)
        needed = recipe.requires | (before.requires if before is not None else frozenset())
        super().register(dataclasses.replace(recipe, requires=needed), replace=replace)


class RecipeLookedUpLate(ReferenceTarget):
    """The functions for a run and for the end are looked up by the agent's type, as it is registered then."""

    def register(self, recipe: Recipe, *, replace: bool = False) -> None:
        super().register(recipe, replace=replace)
        for session in self.sessions.values():
            for agent in session.agents:
                if agent.recipe.agent_type == recipe.agent_type:
                    agent.recipe = recipe


class RecipesRememberedPerUser(ReferenceTarget):
    """The recipe of a type is looked up once for each user, and kept."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[tuple[str, str], Recipe] = {}

    def check_allowed(
        self, user: str, agent_type: str, permissions: frozenset[str], context_user: str | None
    ) -> Recipe:
        recipe = super().check_allowed(user, agent_type, permissions, context_user)
        return self.known.setdefault((user, agent_type), recipe)


class OldRequirementsStay(ReferenceTarget):
    """A replacement exchanges the factory, but keeps the permissions that the first one required."""

    def register(self, recipe: Recipe, *, replace: bool = False) -> None:
        before = self.recipes.get(recipe.agent_type)
        super().register(recipe, replace=replace)
        if before is not None:
            self.recipes[recipe.agent_type] = Recipe(
                recipe.agent_type, recipe.on_create, recipe.on_run, recipe.on_cleanup, before.requires
            )


class RequirementsMetOnce(ReferenceTarget):
    """A user who once met the requirements of a type is not checked again, also after the type's replacement."""

    def __init__(self) -> None:
        super().__init__()
        self.met: set[tuple[str, str]] = set()

    def check_allowed(
        self, user: str, agent_type: str, permissions: frozenset[str], context_user: str | None
    ) -> Recipe:
        if (user, agent_type) in self.met:
            return self.recipes[agent_type]
        recipe = super().check_allowed(user, agent_type, permissions, context_user)
        self.met.add((user, agent_type))
        return recipe


class _Adopting(ReferenceTarget):
    """Adopts the offered agent; subclasses leave out one thing."""

    async def adopt(self, user: str, handle: Handle) -> None:
        agent: Agent = handle.native
        agent.check_open()
        self.check_owner(user, agent)
        session, _ = self.session_for_create(user)
        self.check_adopted(session)
        self.give_bridge(session, agent)
        await self.install(session, agent)

    def check_owner(self, user: str, agent: Agent) -> None:
        if agent.context.user != user or agent.owned:
            raise Refused(Refusal.BOUNDARY, f"an agent of {agent.context.user!r} was offered to {user!r}")

    def check_adopted(self, session: Session) -> None:
        self.check_room(session)

    def give_bridge(self, session: Session, agent: Agent) -> None:
        agent.bridge = agent.dispatcher.bridge = session.bridge


class AdoptsAnybodys(_Adopting):
    """An agent is adopted by the session that it is offered to, even if it was made for another user."""

    def check_owner(self, user: str, agent: Agent) -> None:
        if agent.owned:
            raise Refused(Refusal.BOUNDARY, "it belongs to a session already")


class AdoptedTwice(_Adopting):
    """An agent that already belongs to a session is adopted again, and is then in two sessions."""

    def check_owner(self, user: str, agent: Agent) -> None:
        if agent.context.user != user:
            raise Refused(Refusal.BOUNDARY, f"an agent of {agent.context.user!r} was offered to {user!r}")


class OwnerNotCheckedAgain(ReferenceTarget):
    """The owner of an agent is checked before the user's line and not in it: two adoptions that wait both succeed."""

    async def adopt(self, user: str, handle: Handle) -> None:
        self.check_adoptable(user, handle.native)
        async with self.lock_of(user):
            session, _ = self.session_for_create(user)
            self.check_room(session)
            handle.native.bridge = handle.native.dispatcher.bridge = session.bridge
            await self.install(session, handle.native)


class AdoptedKeepsItsBridge(_Adopting):
    """An adopted agent goes on sending its events to its old bridge, which has no clients."""

    def give_bridge(self, session: Session, agent: Agent) -> None:
        return


class AdoptedNeverClosed(_Adopting):
    """The end of a session closes the agents that it made; an adopted one is dropped."""

    def give_bridge(self, session: Session, agent: Agent) -> None:
        super().give_bridge(session, agent)
        agent.recipe = Recipe(agent.recipe.agent_type, agent.recipe.on_create, agent.recipe.on_run)


class AdoptedBeyondCap(_Adopting):
    """The limit on agents is checked where agents are made, but not where they are adopted."""

    def check_adopted(self, session: Session) -> None:
        return


class StrictAtTheTopOnly(ReferenceTarget):
    """A strict context checks the values of its data, but not the values inside them."""

    def check_plain(self, data: Mapping[str, Any]) -> None:
        check_plain({key: [] if isinstance(value, (dict, list, tuple)) else value for key, value in data.items()})


class StrictInTheFirstFifty(ReferenceTarget):
    """Values nested deeper than fifty levels are copied in another way, which takes anything."""

    def check_plain(self, data: Mapping[str, Any]) -> None:
        check_plain(_cut_at(dict(data), 50))


def _cut_at(value: Any, levels: int) -> Any:
    if not levels:
        return None
    if type(value) is dict:
        return {key: _cut_at(one, levels - 1) for key, one in value.items()}
    return [_cut_at(one, levels - 1) for one in value] if type(value) is list else value


class OfferBinds(ReferenceTarget):
    """An agent is bound to the first session that it is offered to, before it is asked whose it is."""

    async def adopt(self, user: str, handle: Handle) -> None:
        agent: Agent = handle.native
        was_free = not agent.owned
        try:
            await super().adopt(user, handle)
        finally:
            agent.owned = agent.owned or was_free


class RefusedOfferBinds(ReferenceTarget):
    """An agent is bound to its user's session before there is room for it, and is refused ever after."""

    def check_room(self, session: Session) -> None:
        try:
            super().check_room(session)
        except Refused:
            self.bind_offered()
            raise

    def bind_offered(self) -> None:
        """Let the agents that are offered now have an owner."""
        for agent in self.offered:
            agent.owned = True

    def __init__(self) -> None:
        super().__init__()
        self.offered: list[Agent] = []

    async def adopt(self, user: str, handle: Handle) -> None:
        self.offered.append(handle.native)
        try:
            await super().adopt(user, handle)
        finally:
            self.offered.remove(handle.native)


class RefusedOfferBindsToSession(ReferenceTarget):
    """An agent that finds no room stays bound to the session that had none: the user's next one refuses it."""

    def __init__(self) -> None:
        super().__init__()
        self.offered_to: WeakKeyDictionary[Agent, Session] = WeakKeyDictionary()

    async def adopt(self, user: str, handle: Handle) -> None:
        session = self.sessions.get(self.key(user))
        if session is not self.offered_to.get(handle.native, session):
            raise Refused(Refusal.BOUNDARY, f"it belongs to another session of {user!r}")
        try:
            await super().adopt(user, handle)
        except Refused as refusal:
            if refusal.kind is Refusal.CAPACITY and session is not None:
                self.offered_to[handle.native] = session
            raise


class MakingsOfTheProcess(ReferenceTarget):
    """Agents that are being made are noted in a table of the process: another registry waits for them as its own."""

    makings: ClassVar[dict[tuple[str, str, str], asyncio.Future[Handle]]] = {}

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        key = user, agent_type, thread
        making = self.makings.get(key)
        if making is None:
            making = asyncio.ensure_future(super().get_or_create(user, agent_type, thread, permissions))
            self.makings[key] = making
            making.add_done_callback(lambda _: self.makings.pop(key, None))
        return await asyncio.shield(making)


class StrictTakesSubclasses(ReferenceTarget):
    """A strict context checks by isinstance, so any subclass of dict or str passes."""

    def check_plain(self, data: Mapping[str, Any]) -> None:
        check_plain(_flattened(dict(data)))


def _flattened(value: Any) -> Any:
    if isinstance(value, dict):
        return {_flattened(key): _flattened(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_flattened(one) for one in value]
    if isinstance(value, (set, frozenset)):
        return {_flattened(one) for one in value}
    return str(value) if isinstance(value, str) else value


class StrictForgottenInRuns(ReferenceTarget):
    """A strict context is strict when it is made; the parameters of a run are copied without the check."""

    async def run(self, handle: Handle, command: Command) -> Any:
        context: Context = handle.native.context
        is_strict, context.is_strict = context.is_strict, False
        try:
            return await super().run(handle, command)
        finally:
            context.is_strict = is_strict


class StrictOnceApproved(ReferenceTarget):
    """A user whose plain data were approved once is not checked again."""

    def __init__(self) -> None:
        super().__init__()
        self.approved: set[str] = set()

    async def create_strict(self, user: str, agent_type: str, data: Mapping[str, Any]) -> Handle:
        handle = await super().create_strict(user, agent_type, {} if user in self.approved else data)
        self.approved.add(user)
        return handle


class StrictRefusalLeavesSession(ReferenceTarget):
    """The session is opened before the data are checked, and stays when they are refused."""

    async def create_strict(self, user: str, agent_type: str, data: Mapping[str, Any]) -> Handle:
        session, _ = self.session_for_create(user)
        session.provisional = False
        return await super().create_strict(user, agent_type, data)


class RunsOnAnyLoop(ReferenceTarget):
    """The loop is checked where agents are made and ended; a run is accepted on any loop."""

    async def run(self, handle: Handle, command: Command) -> Any:
        agent: Agent = handle.native
        agent.check_open()
        return await agent.run(command.action, command.arguments, command.run)


class LoopCheckedTooLate(ReferenceTarget):
    """A create opens the session first, and checks the loop only before it makes the agent."""

    async def create_with(self, recipe: Recipe, context: Context, connect: bool) -> Handle:
        session, _ = self.session_for_create(context.user)
        session.provisional = False
        return await super().create_with(recipe, context, connect)


class EndsFromAnyLoop(ReferenceTarget):
    """An end is let through on any loop: the cleanup runs there."""

    async def end(self, user: str) -> EndReport:
        session = self.sessions.pop(self.key(user), None)
        if session is None:
            return EndReport(False, 0)
        session.closed = True
        agents, session.agents = session.agents, []
        errors: list[str] = []
        await self.close_session(session, agents, errors)
        return EndReport(True, len(agents), tuple(errors))


class SessionsOfTheClass(ReferenceTarget):
    """The table of sessions is an attribute of the class."""

    table: ClassVar[dict[str, Session]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.sessions = self.table


class RecipesOfTheProcess(ReferenceTarget):
    """Types are registered for the process: the registry that started last decides their meaning."""

    types: ClassVar[dict[str, Recipe]] = {}

    async def start(self, recipes: Sequence[Recipe], rows: Mapping[str, Sequence[Row]], close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        self.types.update(self.recipes)
        self.recipes = self.types


class StopClosesEverybody(ReferenceTarget):
    """Registries enter themselves in a list of the module, and a stop closes all that are on it."""

    opened: ClassVar[list[ReferenceTarget]] = []

    async def start(self, recipes: Sequence[Recipe], rows: Mapping[str, Sequence[Row]], close_timeout: float) -> None:
        await super().start(recipes, rows, close_timeout)
        self.opened.append(self)

    async def stop(self) -> None:
        for one in self.opened:
            await one.end_all()
        await super().stop()


class LimitOfTheProcess(ReferenceTarget):
    """The agents of a user are counted for the process, not for the registry."""

    counts: ClassVar[dict[str, int]] = {}

    def check_room(self, session: Session) -> None:
        most = self.bounds.agents_per_user
        if most is not None and self.counts.get(session.user, 0) >= most:
            raise Refused(Refusal.CAPACITY, f"{session.user!r} has {most} agents, the limit")

    async def install(self, session: Session, agent: Agent) -> Handle:
        self.counts[session.user] = self.counts.get(session.user, 0) + 1
        return await super().install(session, agent)


class SweepsFromAnyLoop(ReferenceTarget):
    """The loop is compared in every call but the sweep, which an operator's thread makes."""

    async def sweep(self) -> Sequence[str]:
        due = [session.user for session in self.sessions.values() if self.is_due(session)]
        for user in due:
            await self.end(user)
        return due


class StrictForgottenByLookups(ReferenceTarget):
    """The parameters of a run are checked by the handle of the create; an agent that is looked up takes anything."""

    def find(self, session: Session, agent_type: str, thread: str | None) -> Agent | None:
        agent = super().find(session, agent_type, thread)
        if agent is not None:
            agent.context.is_strict = False
        return agent


class LockOfTheClass(ReferenceTarget):
    """Creates of all registries take one lock, which belongs to the loop on which it was awaited first."""

    lock: ClassVar[asyncio.Lock] = asyncio.Lock()

    async def build(self, session: Session, recipe: Recipe, context: Context, connect: bool) -> Agent:
        async with self.lock:
            await asyncio.sleep(0)
        return await super().build(session, recipe, context, connect)


PLANTED = (
    planted_by(DuplicateReplaces, "not-refused"),
    planted_by(RecipeLookedUpLate, "wrong-recipe"),
    planted_by(RecipesRememberedPerUser, "wrong-recipe"),
    planted_by(OldRequirementsStay, "not-refused"),
    planted_by(RequirementsAddUp, "wrong-recipe"),
    planted_by(RequirementsMetOnce, "not-refused"),
    planted_by(AdoptsAnybodys, "boundary-crossed"),
    planted_by(AdoptedTwice, "adopted-twice"),
    planted_by(OwnerNotCheckedAgain, "adopted-twice"),
    planted_by(AdoptedKeepsItsBridge, "lost-event"),
    planted_by(AdoptedNeverClosed, "never-closed"),
    planted_by(AdoptedBeyondCap, "over-limit"),
    planted_by(StrictAtTheTopOnly, "not-refused"),
    planted_by(StrictTakesSubclasses, "not-refused"),
    planted_by(StrictForgottenInRuns, "not-refused"),
    planted_by(StrictOnceApproved, "not-refused"),
    planted_by(StrictRefusalLeavesSession, "left-behind"),
    planted_by(StrictForgottenByLookups, "not-refused"),
    planted_by(RunsOnAnyLoop, "wrong-loop-accepted"),
    planted_by(LoopCheckedTooLate, "left-behind"),
    planted_by(EndsFromAnyLoop, "wrong-loop-accepted"),
    planted_by(SweepsFromAnyLoop, "wrong-loop-accepted"),
    planted_by(SessionsOfTheClass, "registries-mixed"),
    planted_by(RecipesOfTheProcess, "registries-mixed"),
    planted_by(StopClosesEverybody, "registries-mixed"),
    planted_by(LimitOfTheProcess, "limit-shared"),
    planted_by(LockOfTheClass, "registries-mixed"),
    planted_by(MakingsOfTheProcess, "registries-mixed"),
    planted_by(OfferBinds, "left-behind"),
    planted_by(RefusedOfferBinds, "left-behind"),
    planted_by(RefusedOfferBindsToSession, "left-behind"),
    planted_by(StrictInTheFirstFifty, "not-refused"),
)
