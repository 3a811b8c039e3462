"""Defects that keep a trace of an incident: a refused call, a late one, a swept session, a replaced recipe, a user who
only connects. Each releases its objects when its target stops, for the lab's own sake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lab_utils.target import (
    Command,
    Delivered,
    EndReport,
    Handle,
    PlannedStep,
    Population,
    Recipe,
    Refusal,
    Refused,
    Subscription,
    SupervisionReport,
)
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.sockets.base import Hub, OverSockets
from lab_utils.targets.reference import Agent, Bridge, Context, Dispatcher, ReferenceTarget, Session
from registry import CloseCode, Completion, ExpiredToken, Grant, Prompt, ScriptedLLM, TokenError, TokenSigner
from registry.testing import Channel, Receive, Resumption, Scope, Send
from registry.testing import Subscription as Place

__all__ = ["PLANTED"]

_REFUSED = 2
"""Messages to a client who is not let in: the connection is accepted, and closed."""


class LateRunsQueued(ReferenceTarget):
    """A run that comes when its agent has been closed is refused, and queued for an agent that never takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[tuple[str, Command]] = []

    async def run(self, handle: Handle, command: Command) -> Any:
        if handle.native.closed:
            self.queue.append((handle.instance, command))
        return await super().run(handle, command)


class DeniedToolsLogged(ReferenceTarget):
    """Each tool that is refused for want of a permission is written to an audit log in memory, which nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.audit: list[tuple[str, str]] = []

    async def run(self, handle: Handle, command: Command) -> Any:
        try:
            return await super().run(handle, command)
        except Refused as refusal:
            if refusal.kind is Refusal.PERMISSION:
                self.audit.append((handle.instance, str(refusal)))
            raise


class FailedNewcomersNoted(ReferenceTarget):
    """A user who has no session when a get_or_create fails is noted, to be asked to wait, which never happens."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[tuple[str, str]] = []

    async def get_or_create(self, user: str, agent_type: str, *arguments: Any, **options: Any) -> Handle:
        try:
            return await super().get_or_create(user, agent_type, *arguments, **options)
        except Exception as error:
            if user not in self.sessions:
                self.failed.append((user, str(error)))
            raise


class CleanupErrorsKept(ReferenceTarget):
    """The errors of all cleanups are kept for a page of the operator's."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    async def end(self, user: str) -> EndReport:
        report = await super().end(user)
        self.errors += report.errors
        return report


class CancelledEndsNoted(ReferenceTarget):
    """An end whose caller was cancelled is noted, to be looked at again by a job that was never written."""

    def __init__(self) -> None:
        super().__init__()
        self.to_check: list[tuple[str, float]] = []

    async def end(self, user: str) -> EndReport:
        try:
            return await super().end(user)
        except asyncio.CancelledError:
            self.to_check.append((user, len(self.to_check) / 7))
            raise


class _Keeping(Bridge):
    mail: list[Delivered]

    def send(self, event: Delivered) -> None:
        super().send(event)
        if self.clients and not any(client.open for client in self.clients):
            self.mail.append(event)


class MailOfTheGoneKept(ReferenceTarget):
    """Events that come when a user's clients have all gone are kept for their return, beyond the end of the session."""

    def __init__(self) -> None:
        super().__init__()
        self.mail: list[Delivered] = []

    def make_bridge(self, user: str) -> Bridge:
        bridge = _Keeping(user, self.clients_of(user))
        bridge.mail = self.mail
        return bridge


class VisitorsCounted(ReferenceTarget):
    """Every user who connects has an entry, which is dropped when their session ends; some never have a session."""

    def __init__(self) -> None:
        super().__init__()
        self.visitors: dict[str, float] = {}

    def subscribe(self, user: str) -> Subscription:
        self.visitors[user] = len(self.visitors) / 7
        return super().subscribe(user)

    async def end(self, user: str) -> EndReport:
        self.visitors.pop(user, None)
        return await super().end(user)


class _KeepingHub(Hub):
    def __init__(self) -> None:
        super().__init__()
        self.channels: dict[str, Channel] = {}

    def subscribe(self, user_id: str, stream: str | None = None, seq: int = 0) -> tuple[Place, Resumption]:
        place, how = super().subscribe(user_id, stream, seq)
        for user in [user for user, channel in self.channels.items() if channel.closed]:
            del self.channels[user]
        self.channels[user_id] = self._channel(user_id)
        return place, how


class ChannelsOfTheConnectedKept(OverSockets):
    """The channel of each user who connects by a socket is kept until their session ends; some never have a session."""

    def make_manager(self) -> Any:
        return _KeepingHub()


class _Remembering(TokenSigner):
    __slots__ = ("refused",)

    def __init__(self, secret: str, clock: Callable[[], float]) -> None:
        super().__init__(secret, clock=clock)
        self.refused: list[str] = []

    def verify(self, token: str) -> Grant:
        try:
            return super().verify(token)
        except TokenError:
            self.refused.append(token)
            raise

    __call__ = verify


class BadTokensKept(OverSockets):
    """Each token that is refused is kept, for a report on attacks."""

    def make_signer(self) -> Any:
        return _Remembering(self.secret, self.clock)


class CutPlansKept(OverSockets):
    """A plan whose caller is cancelled is kept, to be taken up again, which nobody ever does."""

    def __init__(self) -> None:
        super().__init__()
        self.cut: list[tuple[str, Sequence[PlannedStep]]] = []

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        try:
            return await super().supervise(user, plan)
        except asyncio.CancelledError:
            self.cut.append((user, plan))
            raise


class FailedPlansKept(OverSockets):
    """The report of every plan with a failed step is kept for the support desk."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[SupervisionReport] = []

    async def supervise(self, user: str, plan: Sequence[PlannedStep]) -> SupervisionReport:
        report = await super().supervise(user, plan)
        if report.error:
            self.failed.append(report)
        return report


class _Asked(ScriptedLLM):
    def __init__(self) -> None:
        self.prompts: list[Prompt] = []

    async def complete(self, prompt: Prompt) -> Completion:
        self.prompts.append(prompt)
        return await super().complete(prompt)


class QuestionsKept(OverSockets):
    """The model's client keeps every prompt, for a figure of the tokens that were used."""

    def make_llm(self) -> Any:
        return _Asked()


class ReplacedRecipesKept(ReferenceTarget):
    """A replaced recipe is kept for the agents that it has made, and stays when the last of them has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.replaced: list[Recipe] = []

    def register(self, recipe: Recipe, *, replace: bool = False) -> None:
        before = self.recipes.get(recipe.agent_type)
        super().register(recipe, replace=replace)
        if before is not None:
            self.replaced.append(before)


class RefusedAdoptionsParked(ReferenceTarget):
    """An agent whose adoption was refused is parked, in case its own user asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.parked: list[Agent] = []

    async def adopt(self, user: str, handle: Handle) -> None:
        try:
            await super().adopt(user, handle)
        except Refused:
            self.parked.append(handle.native)
            raise


class TurnedAwayListed(ReferenceTarget):
    """A user who finds the house full is put on a waiting list, which is never worked off."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[str, float]] = []

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        try:
            return await super().create(user, agent_type, **options)
        except Refused as refusal:
            if refusal.kind is Refusal.CAPACITY and user not in self.sessions:
                self.waiting.append((user, len(self.waiting) / 7))
            raise


class IdleSessionsArchived(ReferenceTarget):
    """A session that ends as idle is archived in memory, for a user who may come back within the hour."""

    def __init__(self) -> None:
        super().__init__()
        self.archive: list[Session] = []

    async def sweep(self) -> Sequence[str]:
        idle = self.bounds.idle_s
        self.archive += [
            session
            for session in self.sessions.values()
            if self.is_due(session) and idle is not None and self.time - session.used >= idle
        ]
        return await super().sweep()


class AgesReported(ReferenceTarget):
    """The ages of the sessions that were too old are kept, for a percentile that is reckoned once a year."""

    def __init__(self) -> None:
        super().__init__()
        self.ages: list[float] = []

    async def sweep(self) -> Sequence[str]:
        most = self.bounds.age_s
        ages = [self.time - session.began for session in self.sessions.values() if self.is_due(session)]
        self.ages += [age for age in ages if most is not None and age >= most]
        return await super().sweep()


class CountsCharted(ReferenceTarget):
    """Each count that is asked for is kept, for a chart of the last minutes that begins with the first."""

    def __init__(self) -> None:
        super().__init__()
        self.chart: list[Population] = []

    def population(self) -> Population:
        found = super().population()
        self.chart.append(found)
        return found


class RequestsKept(OverSockets):
    """The statuses of each request to the registry's own agents are kept, for a page that shows the last ten."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, Mapping[str, str]]] = []

    async def orchestrate(self, user: str, request: str) -> SupervisionReport:
        report = await super().orchestrate(user, request)
        self.requests.append((user, report.statuses))
        return report


class StrayCallsNoted(ReferenceTarget):
    """A call from another event loop is refused and noted, for a warning that is sent once a day."""

    def __init__(self) -> None:
        super().__init__()
        self.strays: list[str] = []

    def check_loop(self) -> None:
        try:
            super().check_loop()
        except Refused:
            self.strays.append(f"call {len(self.strays)} came from {asyncio.get_running_loop()}")
            raise


class _Expiring(TokenSigner):
    __slots__ = ("expired",)

    def __init__(self, secret: str, clock: Callable[[], float]) -> None:
        super().__init__(secret, clock=clock)
        self.expired: list[str] = []

    def verify(self, token: str) -> Grant:
        try:
            return super().verify(token)
        except ExpiredToken:
            self.expired.append(token)
            raise

    __call__ = verify


class ExpiredTokensKept(OverSockets):
    """Each token that comes when it has expired is kept, to see who might be asked to log in again."""

    def make_signer(self) -> Any:
        return _Expiring(self.secret, self.clock)


class ExpiredClientsAwaited(OverSockets):
    """The request of a client whose token expires while it is connected is kept until it comes with a new one."""

    def __init__(self) -> None:
        super().__init__()
        self.awaited: list[Scope] = []

    def make_events_app(self, manager: Any, signer: Any) -> Any:
        app = super().make_events_app(manager, signer)

        async def awaiting(scope: Scope, receive: Receive, send: Send) -> None:
            said: list[object] = []

            async def noted(message: Any) -> None:
                said.append(message.get("code"))
                await send(message)

            await app(scope, receive, noted)
            if CloseCode.EXPIRED_TOKEN in said and len(said) > _REFUSED:
                self.awaited.append(scope)

        return awaiting


class TokensIssuedKept(OverSockets):
    """Each token that is issued is kept until a client comes with it while it is good; some never do."""

    def __init__(self) -> None:
        super().__init__()
        self.issued: set[str] = set()

    def token(self, user: str, *, audience: str | None = None, max_age: float | None = None) -> str:
        token = super().token(user, audience=audience, max_age=max_age)
        self.issued.add(token)
        return token


class SweepErrorsKept(ReferenceTarget):
    """The errors of cleanups in a sweep, which nobody is there to receive, are kept for the log of the next day."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    async def sweep(self) -> Sequence[str]:
        self.check_loop()
        due = [session.user for session in self.sessions.values() if self.is_due(session)]
        for report in await asyncio.gather(*map(self.end, due)):
            self.errors += report.errors
        return due


class _InLine(Agent):
    line: list[str]

    async def run(self, action: str, arguments: Mapping[str, Any], run: str) -> Any:
        place = f"{action} in {run}"
        self.line.append(place)
        async with self.turn:
            self.line.remove(place)
        return await super().run(action, arguments, run)


class CancelledStayInTheList(ReferenceTarget):
    """Runs that wait for an agent are in a list for the operator, which they leave when their turn comes."""

    def __init__(self) -> None:
        super().__init__()
        self.line: list[str] = []

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        agent = _InLine(recipe, context, dispatcher, session)
        agent.line = self.line
        return agent

    def trusted(self) -> Sequence[object]:
        return [*super().trusted(), self.line]


PLANTED = (
    planted_by(RequestsKept, "memory-growth"),
    planted_by(StrayCallsNoted, "memory-growth"),
    planted_by(ExpiredTokensKept, "memory-growth"),
    planted_by(ExpiredClientsAwaited, "memory-growth"),
    planted_by(TokensIssuedKept, "memory-growth"),
    planted_by(CancelledStayInTheList, "memory-growth"),
    planted_by(SweepErrorsKept, "memory-growth"),
    planted_by(LateRunsQueued, "memory-growth"),
    planted_by(DeniedToolsLogged, "memory-growth"),
    planted_by(FailedNewcomersNoted, "memory-growth"),
    planted_by(CleanupErrorsKept, "memory-growth"),
    planted_by(CancelledEndsNoted, "memory-growth"),
    planted_by(MailOfTheGoneKept, "memory-growth"),
    planted_by(VisitorsCounted, "memory-growth"),
    planted_by(ChannelsOfTheConnectedKept, "memory-growth"),
    planted_by(BadTokensKept, "memory-growth"),
    planted_by(CutPlansKept, "memory-growth"),
    planted_by(FailedPlansKept, "memory-growth"),
    planted_by(QuestionsKept, "memory-growth"),
    planted_by(ReplacedRecipesKept, "memory-growth"),
    planted_by(RefusedAdoptionsParked, "memory-growth", "object-growth"),
    planted_by(TurnedAwayListed, "memory-growth"),
    planted_by(IdleSessionsArchived, "memory-growth", "object-growth"),
    planted_by(AgesReported, "memory-growth"),
    planted_by(CountsCharted, "memory-growth"),
)
