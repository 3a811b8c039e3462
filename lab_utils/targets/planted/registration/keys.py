"""Defects of keys: user, type and thread are joined to one text, or folded, and objects are found by that."""

from __future__ import annotations

import asyncio
import copy
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote
from weakref import ref

from lab_utils.target import Capability, Command, Delivered, EndReport, Handle, Recipe, Refusal, Refused
from lab_utils.targets.planted.base import planted_by
from lab_utils.targets.planted.golden_path.prompts import Asking, Between
from lab_utils.targets.reference import Agent, Bridge, Client, Context, Dispatcher, ReferenceTarget, Session
from registry import Completion, Prompt

__all__ = ["PLANTED"]


def _mailbox(user: str) -> str:
    name, at, host = user.partition("@")
    return f"{name.partition('+')[0]}{at}{host}" if at else user


class _Joining(ReferenceTarget):
    """Agents are found in one table, by a text."""

    separator: ClassVar[str] = ":"
    order: ClassVar[tuple[int, ...]] = (0, 1, 2)

    def __init__(self) -> None:
        super().__init__()
        self.table: dict[str, list[ref[Agent]]] = {}

    def joined(self, *parts: str) -> str:
        """The text by which an agent of this user, type and thread is found."""
        return self.separator.join(parts[place] for place in self.order)

    async def install(self, session: Session, agent: Agent) -> Handle:
        handle = await super().install(session, agent)
        key = self.joined(agent.context.user, agent.recipe.agent_type, agent.context.thread)
        self.table.setdefault(key, []).append(ref(agent))
        return handle

    def find(self, session: Session, agent_type: str, thread: str | None) -> Agent | None:
        if thread is None:
            return super().find(session, agent_type, None)
        return next(reversed(self.living(self.joined(session.user, agent_type, thread))), None)

    def living(self, key: str) -> list[Agent]:
        """The agents that are kept under this text and are not closed, the newest last; the others are forgotten."""
        agents = [agent for one in self.table.pop(key, ()) if (agent := one()) is not None and not agent.closed]
        if agents:
            self.table[key] = [ref(agent) for agent in agents]
        return agents


class JoinedByColon(_Joining):
    """Agents are kept under "user:type:thread"."""


class JoinedByDashTypeFirst(_Joining):
    """Agents are kept under "type-user-thread"."""

    separator, order = "-", (1, 0, 2)


class JoinedByNothing(_Joining):
    """Agents are kept under thread and user, joined without a separator."""

    separator, order = "", (2, 0)


class JoinedByDotInUser(_Joining):
    """Agents are kept under "type.thread" within their user."""

    separator, order = ".", (1, 2)

    def joined(self, *parts: str) -> str:
        return f"{parts[0]!r} {super().joined(*parts)}"


class JoinedBySlashAndColon(_Joining):
    """Agents are kept under "user/type:thread"."""

    def joined(self, *parts: str) -> str:
        return "{}/{}:{}".format(*parts)


class JoinedWithoutMain(_Joining):
    """Agents of the thread main are kept under their user, all others under "user:thread", the thread quoted."""

    def joined(self, *parts: str) -> str:
        user, agent_type, thread = parts
        return f"{agent_type!r} {user}" if thread == "main" else f"{agent_type!r} {user}:{quote(thread, safe='')}"


class MemoryByJoinedKey(ReferenceTarget):
    """Agents are distinct, but their memories are kept under "user/thread" in one store."""

    def __init__(self) -> None:
        super().__init__()
        self.memories: dict[str, dict[str, Any]] = {}

    def make_agent(self, recipe: Recipe, context: Context, dispatcher: Dispatcher, session: Session) -> Agent:
        made = super().make_agent(recipe, context, dispatcher, session)
        made.memory = self.memories.setdefault(f"{context.user}/{context.thread}", made.memory)
        return made

    async def end(self, user: str) -> EndReport:
        session = self.sessions.get(self.key(user))
        for agent in session.agents if session is not None else ():
            self.memories.pop(f"{user}/{agent.context.thread}", None)
        return await super().end(user)


class MakingsByJoinedKey(ReferenceTarget):
    """Agents have a key of three parts, but those that are just being made are kept under "user-type-thread"."""

    def __init__(self) -> None:
        super().__init__()
        self.making: dict[str, asyncio.Task[Handle]] = {}

    async def get_or_create(
        self, user: str, agent_type: str, thread: str = "main", permissions: frozenset[str] = frozenset()
    ) -> Handle:
        key = f"{user}-{agent_type}-{thread}"
        making = self.making.get(key)
        if making is None:
            making = asyncio.ensure_future(super().get_or_create(user, agent_type, thread, permissions))
            self.making[key] = making
            making.add_done_callback(lambda _: self.making.pop(key, None))
        return await asyncio.shield(making)


class CreatesInFlight(ReferenceTarget):
    """Right: creates of one key that are under way at once are one create, as of a client who clicks twice."""

    def __init__(self) -> None:
        super().__init__()
        self.creating: dict[str, asyncio.Task[Handle]] = {}

    def create_for(self, user: str, agent_type: str, thread: str) -> str:
        """The name under which a create is kept while it is under way."""
        return repr((user, agent_type, thread))

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        self.check_user(user)
        # A first request of several at once begins in the same turn of the loop.
        await asyncio.sleep(0)
        key = self.create_for(user, agent_type, options.get("thread", "main"))
        if (creating := self.creating.get(key)) is None:
            creating = self.creating[key] = asyncio.ensure_future(super().create(user, agent_type, **options))
            creating.add_done_callback(lambda _: self.creating.pop(key, None))
        return await asyncio.shield(creating)


class CreatesInFlightJoined(CreatesInFlight):
    """Creates under way are kept under "user:type:thread": whoever comes meanwhile joins them."""

    def create_for(self, user: str, agent_type: str, thread: str) -> str:
        return f"{user}:{agent_type}:{thread}"


class CreatesInFlightByMailbox(CreatesInFlight):
    """Creates under way are kept under the mail address without its tag: whoever comes meanwhile joins them."""

    def create_for(self, user: str, agent_type: str, thread: str) -> str:
        return repr((_mailbox(user), agent_type, thread))


class CreatesInFlightByThread(CreatesInFlight):
    """Creates under way are kept by type, and among those under "user:thread": whoever comes meanwhile joins them."""

    def create_for(self, user: str, agent_type: str, thread: str) -> str:
        return repr((agent_type, f"{user}:{thread}"))


class CreatesInFlightOfUser(CreatesInFlight):
    """Creates under way are kept by user, and among those under "type-thread": whoever comes meanwhile joins them."""

    def create_for(self, user: str, agent_type: str, thread: str) -> str:
        return repr((user, f"{agent_type}-{thread}"))


class AnswersByRunId(ReferenceTarget):
    """A run with an id that was asked for before gets the earlier answer, even for another user."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, Any] = {}

    async def run(self, handle: Handle, command: Command) -> Any:
        if command.run and command.run in self.answers:
            return self.answers[command.run]
        answer = await super().run(handle, command)
        if command.run:
            self.answers[command.run] = answer
        return answer


class RunsJoinedById(ReferenceTarget):
    """A run with the id of one that is under way gets that one's answer, even for another user: a retry of a client
    must not be done twice."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: dict[str, asyncio.Future[Any]] = {}

    async def run(self, handle: Handle, command: Command) -> Any:
        if not command.run:
            return await super().run(handle, command)
        if command.run not in self.under_way:
            task = self.under_way[command.run] = asyncio.ensure_future(super().run(handle, command))
            task.add_done_callback(lambda _: self.under_way.pop(command.run, None))
        return copy.deepcopy(await asyncio.shield(self.under_way[command.run]))


class EndsByJoinedKey(_Joining):
    """An end takes every entry of the table that begins with the user's text and the separator."""

    def find(self, session: Session, agent_type: str, thread: str | None) -> Agent | None:
        return ReferenceTarget.find(self, session, agent_type, thread)

    async def end(self, user: str) -> EndReport:
        for key in [key for key in self.table if key.startswith(f"{user}:")]:
            for agent in self.living(key):
                await self.close_agent(agent, [])
        return await super().end(user)


class SecondOfAKeyRefused(_Joining):
    """A create under a taken key is refused, even if another user has it: "user|type|thread"."""

    separator = "|"

    async def create(self, user: str, agent_type: str, **options: Any) -> Handle:
        key = self.joined(user, agent_type, options.get("thread", "main"))
        if any(agent.context.user != user for agent in self.living(key)):
            raise Refused(Refusal.CAPACITY, "there is one already")
        return await super().create(user, agent_type, **options)


class _ByRun(Bridge):
    streams: Mapping[str, Any]

    def emit(self, kind: str, payload: Mapping[str, Any], origin: Any) -> None:
        # The first who chose the id has the channel of that name.
        first = self.streams.setdefault(origin.run, self)  # type: ignore[attr-defined]
        super(_ByRun, first).emit(kind, payload, origin)


class ChannelByRunId(ReferenceTarget):
    """Events of a run go to the channel named after its id, which belongs to the first user of that id."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: dict[str, Any] = {}

    def make_bridge(self, user: str) -> Bridge:
        made = _ByRun(user, self.clients_of(user))
        made.streams = self.streams
        return made


class DuplicatesByRunId(ReferenceTarget):
    """An event of a type that was sent for a run's id already is a repetition, and is dropped: another user's, too."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: set[tuple[str, str]] = set()

    def make_bridge(self, user: str) -> Bridge:
        sent = self.sent

        class Once(Bridge):
            def send(self, event: Delivered) -> None:
                key = event.run, event.type
                if event.type == "agent_thinking" or key not in sent:
                    super().send(event)
                sent.add(key)

        return Once(user, self.clients_of(user))


class TypesWithoutCase(ReferenceTarget):
    """Agents are looked up by the name of their type in lower case."""

    def find(self, session: Session, agent_type: str, thread: str | None) -> Agent | None:
        for agent in reversed(session.agents):
            is_type = agent.recipe.agent_type.lower() == agent_type.lower()
            if is_type and (thread is None or agent.context.thread == thread):
                return agent
        return None


class _FoldingThreads(ReferenceTarget):
    def find(self, session: Session, agent_type: str, thread: str | None) -> Agent | None:
        for agent in reversed(session.agents):
            is_thread = thread is None or self.folded(agent.context.thread) == self.folded(thread)
            if is_thread and agent.recipe.agent_type == agent_type:
                return agent
        return None

    def folded(self, thread: str) -> str:
        raise NotImplementedError


class ThreadsNormalised(_FoldingThreads):
    """Threads are compared as a database with a collation does: compatible letters and accents are composed."""

    def folded(self, thread: str) -> str:
        return unicodedata.normalize("NFKC", thread)


class ThreadsCut(_FoldingThreads):
    """Threads are kept in a column of 64 letters, and longer ones are cut."""

    def folded(self, thread: str) -> str:
        return thread[:64]


class MailAddressesFolded(ReferenceTarget):
    """User ids that are mail addresses are kept without dots and tags: to their provider they are one mailbox."""

    def key(self, user: str) -> str:
        name, at, host = user.partition("@")
        return f"{name.partition('+')[0].replace('.', '')}{at}{host}" if at else user


class DigitsReadAsNumbers(ReferenceTarget):
    """User ids of digits are kept in a column of numbers."""

    def key(self, user: str) -> str:
        return str(int(user)) if user.isdecimal() else user


class TypesByTheirBeginning(ReferenceTarget):
    """A lookup of a type also finds the types whose names begin with its name."""

    def find(self, session: Session, agent_type: str, thread: str | None) -> Agent | None:
        for agent in reversed(session.agents):
            if agent.recipe.agent_type.startswith(agent_type) and thread in (None, agent.context.thread):
                return agent
        return None


class _Reading(Dispatcher):
    """Reads its user's rows, which takes a turn of the loop; reads that are under way at once are one."""

    in_flight: dict[str, asyncio.Future[Any]]
    key: str

    async def call(self, name: str, parameters: Mapping[str, Any], emit: Any) -> Any:
        if (flight := self.in_flight.get(self.key)) is None:
            flight = self.in_flight[self.key] = asyncio.ensure_future(self.read())
            flight.add_done_callback(lambda _: self.in_flight.pop(self.key, None))
        self.rows = await asyncio.shield(flight)
        return await super().call(name, parameters, emit)

    async def read(self) -> list[Any]:
        """The rows of the user."""
        await asyncio.sleep(0)
        return self.rows


class RowsInFlight(ReferenceTarget):
    """Right: reads of one user's rows that are under way at once are one read."""

    def __init__(self) -> None:
        super().__init__()
        self.in_flight: dict[str, asyncio.Future[Any]] = {}

    def read_for(self, user: str) -> str:
        """The name under which reads for a user are kept while they are under way."""
        return user

    def make_dispatcher(self, context: Context, bridge: Bridge | None) -> Dispatcher:
        made = _Reading(context, self.rows.get(context.user, ()), bridge)
        made.in_flight, made.key = self.in_flight, self.read_for(context.user)
        return made

    def trusted(self) -> Any:
        return [*super().trusted(), self.in_flight]


class RowsInFlightByMailbox(RowsInFlight):
    """Reads of rows under way are kept under the mail address without its tag: whoever comes meanwhile joins them."""

    def read_for(self, user: str) -> str:
        return _mailbox(user)


class RowsInFlightByName(RowsInFlight):
    """Reads of rows under way are kept under the part of the user's id before an at sign."""

    def read_for(self, user: str) -> str:
        return user.partition("@")[0]


class RowsInFlightWithoutAccents(RowsInFlight):
    """Reads of rows under way are kept under the user's id without its accents."""

    def read_for(self, user: str) -> str:
        letters = unicodedata.normalize("NFD", user)
        return user if user == letters else "".join(one for one in letters if not unicodedata.combining(one))


class _Waiting(Between):
    """A prompt waits under a name until the next turn of the loop, and goes out then."""

    def __init__(self, llm: Any) -> None:
        super().__init__(llm)
        self.asked: Counter[str] = Counter()
        self.prompts: dict[tuple[str, int], Prompt] = {}

    def name_of(self, user_id: str) -> str:
        """The part of the name that says who asks."""
        return user_id

    async def ask(self, user_id: str, prompt: Prompt) -> Completion:
        self.asked[user_id] += 1
        name = self.name_of(user_id), self.asked[user_id]
        self.prompts[name] = prompt
        await asyncio.sleep(0)
        return await super().ask(user_id, self.prompts.pop(name, prompt))


class _WaitingByMailbox(_Waiting):
    def name_of(self, user_id: str) -> str:
        return _mailbox(user_id)


class QuestionsWaiting(Asking):
    """Right: prompts that wait to be sent are kept under their user and a number."""

    between = _Waiting


class QuestionsWaitingByMailbox(Asking):
    """Prompts that wait to be sent are kept under the mail address without its tag: one takes the place of another."""

    between = _WaitingByMailbox


class OneThread(ReferenceTarget):
    """Right: a user has no threads, as in many small backends."""

    capabilities = ReferenceTarget.capabilities - {Capability.THREADS}


class _Subscribers:
    """The clients whose topic matches that of a user."""

    def __init__(self, target: ReferenceTarget, user: str) -> None:
        self._target = target
        self._user = user

    def __iter__(self) -> Iterator[Client]:
        for topic, clients in self._target.clients.items():
            if topic in (self._user, "+", "#"):
                yield from clients


class WildcardTopics(OneThread):
    """Events go to topics that are named after users, and a user whose id is a wildcard subscribes to all of them."""

    def make_bridge(self, user: str) -> Bridge:
        made = super().make_bridge(user)
        made.clients = _Subscribers(self, user)  # type: ignore[assignment]
        return made


class EndsByPattern(OneThread):
    """An end deletes the sessions whose user is like the one it is given, and takes `%` in an id for any letters."""

    async def end(self, user: str) -> EndReport:
        name, wild, rest = str(user).partition("%")
        alike = [one for one in self.sessions if one.startswith(name) and one.endswith(rest)] if wild else []
        for other in alike:
            if other != user:
                await super().end(other)
        return await super().end(user)


class MailboxesWithoutThreads(OneThread):
    """User ids that are mail addresses are kept without tags, in a registry that has no threads."""

    def key(self, user: str) -> str:
        return _mailbox(user)


PLANTED = (
    planted_by(JoinedByColon, "joined-key"),
    planted_by(JoinedByDashTypeFirst, "joined-key"),
    planted_by(JoinedByNothing, "joined-key"),
    planted_by(JoinedByDotInUser, "joined-key"),
    planted_by(JoinedBySlashAndColon, "joined-key"),
    planted_by(JoinedWithoutMain, "joined-key"),
    planted_by(MemoryByJoinedKey, "joined-key"),
    planted_by(MakingsByJoinedKey, "joined-key"),
    planted_by(EndsByJoinedKey, "joined-key"),
    planted_by(SecondOfAKeyRefused, "joined-key"),
    planted_by(AnswersByRunId, "shared-run-id"),
    planted_by(TypesByTheirBeginning, "merged-types"),
    planted_by(ChannelByRunId, "shared-run-id"),
    planted_by(DuplicatesByRunId, "shared-run-id"),
    planted_by(RunsJoinedById, "shared-run-id"),
    planted_by(TypesWithoutCase, "merged-types"),
    planted_by(ThreadsNormalised, "wrong-thread"),
    planted_by(ThreadsCut, "wrong-thread"),
    planted_by(MailAddressesFolded, "merged-identity"),
    planted_by(DigitsReadAsNumbers, "merged-identity"),
    planted_by(RowsInFlightByMailbox, "merged-identity", twin=RowsInFlight),
    planted_by(RowsInFlightByName, "merged-identity", twin=RowsInFlight),
    planted_by(RowsInFlightWithoutAccents, "merged-identity", twin=RowsInFlight),
    planted_by(CreatesInFlightJoined, "joined-key", twin=CreatesInFlight),
    planted_by(CreatesInFlightByThread, "joined-key", twin=CreatesInFlight),
    planted_by(CreatesInFlightOfUser, "joined-key", twin=CreatesInFlight),
    planted_by(CreatesInFlightByMailbox, "merged-identity", twin=CreatesInFlight),
    planted_by(QuestionsWaitingByMailbox, "merged-identity", twin=QuestionsWaiting),
    planted_by(EndsByPattern, "merged-identity", twin=OneThread),
    planted_by(WildcardTopics, "merged-identity", twin=OneThread),
    planted_by(MailboxesWithoutThreads, "merged-identity", twin=OneThread),
)
