"""A service in a check: its people, the requests of each, and all answers to each."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from lab_utils.judges.isolation import Seen
from lab_utils.judges.services import id_keys, ids_under, only_own
from lab_utils.service.answers import Answer
from lab_utils.service.credentials import TokenFailed
from lab_utils.service.door import Door, Session, Stream
from lab_utils.service.file import ServiceFile
from lab_utils.service.process import StartFailed
from lab_utils.service.target import ServiceTarget
from lab_utils.trial import Trial
from lab_utils.values.canaries import word as canary_word
from lab_utils.values.verdict import Verdict

__all__ = ["Act", "CannotTry", "Person", "Stage", "needing", "nothing_to_ask", "overlapped"]


_DEADLINES = 2.5
"""A request may be sent once more when its deadline is over."""
_SECONDS_BETWEEN = 1.0
_TIMES = 10
_TELLING = 6
"""Characters of an id that a list holds by chance no more."""


class CannotTry(Exception):
    """The owner's own permitted calls do not work, so that a refusal of others would show nothing."""


class _NotDone(Exception):
    """The service refused; recorded as certainly without effect."""


@dataclass(frozen=True, slots=True)
class Act:
    """A check's body: `work` on a stage, whose server is started only where the check applies.

    It is unknown where the owner's own requests do not work. `words`: all of these the file must map; `uses`: those
    with which more is tried; `unless`: returns the reason why the check does not apply to this file, or ""; `without`:
    returns the part that it leaves out on this file for another reason than a word, or "".
    """

    work: Callable[[Stage], Awaitable[None]]
    words: tuple[str, ...]
    uses: tuple[str, ...]
    unless: Callable[[ServiceFile], str]
    without: Callable[[ServiceFile], str]

    def lacks(self, service: ServiceFile) -> str:
        """The reason why the check does not apply to this file; "" where it does."""
        missing = [word for word in self.words if not service.may(word)]
        return f"the service file maps no operation {', '.join(missing)}" if missing else self.unless(service)

    async def __call__(self, trial: Trial) -> None:
        stage = await Stage.set_up(trial)
        if reason := self.lacks(stage.target.service):
            trial.judge(Verdict.not_applicable(reason))
            return
        try:
            await stage.launch()
            await self.work(stage)
        except (StartFailed, TokenFailed) as failure:
            # A reason is one line; the last lines of a server are several.
            trial.judge(Verdict.unknown(" ".join(str(failure).split())))
        except CannotTry as reason:
            # An owner who does not read their own data may have been shown that of another.
            leaks = only_own(stage.seen, {seen.user for seen in stage.seen} | set(stage.target.users(2)))
            if leaks.findings:
                trial.judge(leaks)
                return
            trial.judge(Verdict.unknown(f"{reason}; `registry-lab check-service` shows what is sent and answered"))


def needing(
    *words: str,
    uses: tuple[str, ...] = (),
    unless: Callable[[ServiceFile], str] = lambda _: "",
    without: Callable[[ServiceFile], str] = lambda _: "",
) -> Callable[[Callable[[Stage], Awaitable[None]]], Act]:
    """Make a check's body of a function on a stage."""
    return lambda work: Act(work, words, uses, unless, without)


def nothing_to_ask(service: ServiceFile) -> str:
    """Why no check applies that asks for an answer: neither a run, nor a write that is read back."""
    some = service.may("run") or service.may("write", "read")
    return "" if some else "the service file maps neither run, nor write and read"


class Person:
    """One user with a door of their own. All that they are answered is seen by the stage."""

    def __init__(self, stage: Stage, user: str, door: Door, name: str) -> None:
        self.user, self.door, self.name = user, door, name
        self._stage = stage
        self._client = stage.trial.client(stage.target, name, user)

    def new(self) -> str:
        """A value that nobody else writes."""
        return canary_word(self.user, self._stage.number())

    async def ask(self, word: str, session: Session | None = None, *, number: bool = False, **values: Any) -> Answer:
        """Send one word. The operation is recorded: as done, as refused, or with an outcome that is unknown.

        `number`: its recorded value is the number that the answer holds."""
        answers: list[Answer] = []

        async def work() -> Any:
            try:
                answer = await self.door.do(word, session, values)
            except httpx.HTTPError as error:
                # A door of the user's own raises it when its connection is dropped.
                answer = Answer(0, error=f"{type(error).__name__}: {error}")
            answers.append(answer)
            said = self._stage.target.masked(str(answer))
            if answer.status == 0:
                raise TimeoutError(said)
            if not answer.is_done:
                raise _NotDone(said)
            return answer.value if number else said

        with suppress(_NotDone, TimeoutError):
            await self._client.call(word, work(), thread=session.id if session else "")
        if not answers:
            raise CannotTry(f"{word}: the request was not sent")
        self._stage.saw(self.user, word, answers[0])
        return answers[0]

    async def open(self, id: str = "") -> Session:
        """Open a session; where clients choose ids, under this one. Raises `CannotTry`."""
        session, answer = await self.try_to_open(id)
        if session is None:
            raise CannotTry(f"{self.name} cannot open a session: {answer}")
        return session

    async def open_alike(self, id: str = "lab-shared") -> Session:
        """Open a session under an id that all users choose, where clients choose ids and a user's id is the user's own;
        else, or where the server refuses that, under one that nobody else has. Raises `CannotTry`."""
        promises = self._stage.target.service.promises
        alike = promises.session_ids == "client" and promises.identity != "none"
        session = (await self.try_to_open(id))[0] if alike else None
        return session or await self.open()

    async def try_to_open(self, id: str = "") -> tuple[Session | None, str]:
        """A session, or None and the answer that refused it."""
        service = self._stage.target.service
        session = Session(self.user)
        if service.promises.session_ids == "client":
            session.values["session"] = id or f"lab-{self._stage.number():05d}"
        if not service.may("open"):
            return session, ""
        answer = await self.ask("open", session)
        session.values.update(answer.extracted)
        return (session if answer.is_done else None), str(answer)

    async def write(self, session: Session, text: str = "") -> str:
        """Write a new value that must be taken, and return it. Raises `CannotTry`."""
        value = self.new()
        answer = await self.ask("write", session, value=f"{value}{text}")
        if not answer.is_done:
            raise CannotTry(f"{self.name} cannot write to their own session: {answer}")
        return value

    async def opened_and_tried(self) -> Session:
        """A session of their own: one whose value was read back, or, without write and read, in which run is done.

        Raises `CannotTry`."""
        if self._stage.target.service.may("write", "read"):
            return (await self.opened_with_value())[0]
        session = await self.open()
        answer = await self.ask("run", session, value=self.new())
        if not answer.is_done:
            raise CannotTry(f"{self.name} cannot run in their own session: {answer}")
        return session

    async def opened_with_value(self, id: str = "") -> tuple[Session, str]:
        """A session of their own, and the value that it was seen to hold. Raises `CannotTry`."""
        session = await self.open(id)
        value = await self.write(session)
        answer = await self.ask("read", session)
        if not answer.holds(value):
            raise CannotTry(f"{self.name} does not read back their own data ({value}): {answer}")
        return session, value

    def listen(self, session: Session, last_id: str = "") -> Stream:
        """Begin to listen to a session's events."""
        return self.door.listen(session, {"last_id": last_id})

    def unshared(self, text: str) -> str:
        """The text without the parts that all users see by design."""
        return self._stage.unshared(text)

    async def garble(self, word: str, session: Session) -> None:
        """Send one word with a body that is cut short; a page about an error is an answer too."""
        answer = await self.door.garbled(word, session, {"value": self.new()})
        self._stage.saw(self.user, f"{word} with half a body", answer)

    async def leave(self) -> None:
        """Close their connections."""
        await self._stage.target.close(self.door)


class Stage:
    """One start of a service, with its people."""

    def __init__(self, trial: Trial, target: ServiceTarget) -> None:
        self.trial, self.target = trial, target
        self.seen: list[Seen] = []
        self._shared = [re.compile(pattern) for pattern in target.service.promises.shared]
        self._numbers = itertools.count(1)
        self._names = itertools.count(1)

    @classmethod
    async def set_up(cls, trial: Trial) -> Stage:
        """A stage whose service has yet to be launched."""
        target = await trial.target([])
        assert isinstance(target, ServiceTarget)
        return cls(trial, target)

    @classmethod
    async def begin(cls, trial: Trial) -> Stage:
        """Start the service anew."""
        stage = await cls.set_up(trial)
        await stage.launch()
        return stage

    async def launch(self) -> None:
        """Start the service. Raises `StartFailed`."""
        trial, target = self.trial, self.target
        # A late answer does not mean that the request stands still.
        trial.waiting.stuck_after = max(trial.waiting.stuck_after, _DEADLINES * target.service.bounds.deadline_s)
        launching = asyncio.ensure_future(target.launch())
        try:
            while not (await asyncio.wait({launching}, timeout=_SECONDS_BETWEEN))[0]:
                # A person who watches the check sees that it waits for a server, and does not stand still.
                trial.next_position()
        finally:
            launching.cancel()
        await launching

    async def end(self) -> None:
        """Stop the service before the trial ends."""
        await self.trial.stop(self.target)

    def number(self) -> int:
        return next(self._numbers)

    def people(self, count: int = 0) -> list[Person]:
        """Users with credentials of their own; by default as many as the parameter says, or as there are accounts."""
        return [self.person(user) for user in self.target.users(count or int(self.trial.parameters["users"]))]

    def person(self, user: str, token: str | None = "", name: str = "") -> Person:
        return Person(self, user, self.target.door(user, token), name or f"{user} #{next(self._names)}")

    def pair(self) -> tuple[Person, Person]:
        """Two users. Raises `CannotTry` where the server knows one only."""
        people = self.people(2)
        if len(people) < 2:
            raise CannotTry("identity.accounts names one user; two are needed")
        return people[0], people[1]

    def saw(self, user: str, place: str, answer: Answer) -> None:
        """Keep an answer for the judges, without the parts that all users see by design."""
        self.seen.append(Seen(user, place, [self.unshared(text) for text in answer.everything()]))

    def listed(self, answer: Answer, ids: Iterable[str], owned: Iterable[tuple[Answer, Collection[str]]]) -> list[str]:
        """Those of these session ids that a list names.

        Short ones stand in any text by chance. They count only where the lists of users, `owned`, have all of the
        user's own ids: as elements, or under one key."""
        ids = list(filter(None, ids))
        long, short = [one for one in ids if self.is_telling(one)], [one for one in ids if not self.is_telling(one)]
        texts = answer.everything()
        # As a whole: the id of another session may begin with this one.
        found = [id for id in long if any(re.search(rf"(?<![\w-]){re.escape(id)}(?![\w-])", text) for text in texts)]
        if short:
            keys = {key for own, known in owned for key in id_keys(own.value, known)}
            found += [id for id in short if id in ids_under(answer.value, keys)]
            text = (
                f"session ids in lists: they have fewer than {_TELLING} characters, and no part of a list is ids alone"
            )
            if not keys and text not in self.trial.left_out:
                self.trial.leave_out(text)
        return found

    async def patiently(
        self, ask: Callable[[], Awaitable[Answer]], is_enough: Callable[[Answer], bool]
    ) -> tuple[Answer, bool]:
        """The answer, and whether it is enough. Else it is asked for again, for as long as one request may take: a
        right server may be busy for a while, or show what it has after a while."""
        answer = await ask()
        patience = 0.0 if self.trial.waiting.is_hasty else self.target.service.bounds.deadline_s
        ends_at = time.monotonic() + patience
        while not is_enough(answer) and time.monotonic() < ends_at:
            await asyncio.sleep(patience / _TIMES)
            answer = await ask()
        return answer, is_enough(answer)

    async def brings(self, stream: Stream, value: str) -> bool:
        """Whether a stream brings a value, before it ends or all patience is over."""

        def is_brought() -> bool:
            return any(value in event.data for event in stream.events)

        await self.trial.waiting.until(lambda: is_brought() or not stream.is_open)
        return is_brought()

    @staticmethod
    def is_telling(id: str) -> bool:
        """Whether a text that holds this id names it, and does not hold it by chance."""
        return len(id) >= _TELLING

    def unshared(self, text: str) -> str:
        for pattern in self._shared:
            text = pattern.sub("", text)
        return text

    def note_claimed(self) -> None:
        """State the duties that are left to the app."""
        promised = self.target.service.promises.identity
        if promised == "claimed":
            self.trial.leave_out("identity is claimed, not proved: who may reach whose data is left to the app")
        if promised == "none":
            self.trial.leave_out("there is no identity: the holder of a session's id has the session")


async def overlapped(trial: Trial, work: Iterable[Any]) -> list[Any]:
    """All of it at once; raises the check's own errors."""
    answers: Sequence[Any] = await trial.waiting.together(work)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return list(answers)
