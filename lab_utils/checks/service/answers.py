"""The bodies of service_answers_isolation, service_concurrent_updates and service_non_interference."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lab_utils.checks.service.stage import CannotTry, Person, Stage, needing, nothing_to_ask, overlapped
from lab_utils.judges.interference import Observed, not_interfered
from lab_utils.judges.services import counted_up, no_keys_of_others, only_own
from lab_utils.judges.updates import Update, counters_add_up
from lab_utils.service.answers import Answer
from lab_utils.service.door import Session
from lab_utils.service.file import ServiceFile
from lab_utils.values.canaries import mark
from lab_utils.values.canaries import word as canary_word
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["answers", "non_interference", "updates"]

_KEYS = ("Idempotency-Key", "X-Idempotency-Key", "X-Request-Id")
"""Headers in which a client names a request, so that a server does it once, however often it is sent."""
_LOST_STATUSES = (401, 403, 404, 410)
_FRESH = 6
_LONGER = 4
_CROWD = 3
_MANY = 30
_TRIES, _OPENS = 3, 4
"""Ids that are opened several times at once, and how often each."""
_FIRST = 7_000_003
_DOUBLED = 20
"""So many amounts are each the double of the one before."""
_NUMBERS = ("add", "total")
"""Words whose answer is a number: there, a larger one is another's data."""


class _Crowd:
    """Users at work on one service: their sessions, their values that it has taken by user and session, its lists of
    their sessions, and answers with a user's data that shared caches may keep."""

    def __init__(self, service: ServiceFile) -> None:
        self._service = service
        self.keeps = service.may("write", "read")
        self.sessions: list[tuple[Person, Session]] = []
        self.written: dict[tuple[str, str], list[str]] = {}
        self.lists: list[tuple[Person, Answer]] = []
        self.public: list[str] = []

    async def arrive(self, person: Person) -> None:
        """Open two sessions, one of them under an id that others choose, too."""
        self.sessions.append((person, await person.open_alike()))
        self.sessions.append((person, await person.open()))

    async def work(self, person: Person, session: Session, number: int) -> None:
        """Send each kind of request once. One in two begins with a body that is no JSON, beside the others' writes."""
        broken = "write" if self.keeps else "run"
        if number % 2:
            await person.garble(broken, session)
        # Texts have two lengths: a buffer that is not cleared shows the end of a longer one after a shorter one.
        value = " ".join(person.new() for _ in range(1 + _LONGER * (number % 2)))
        if self.keeps and (await person.ask("write", session, value=value)).is_done:
            self.written.setdefault((person.user, session.id), []).append(value)
        if self.keeps:
            answer = await person.ask("read", session)
            has_identity = self._service.promises.identity != "none"
            if has_identity and _is_public(answer) and answer.holds(str(mark(person.user))):
                self.public.append(str(answer))
        if self._service.may("run"):
            await person.ask("run", session, value=value)
        await self.look(person, session)
        # Addresses that do not exist: error pages are answers too.
        absent = Session(person.user, {**session.values, "session": "lab-no-such-session"})
        await person.ask("read" if self.keeps else "run", absent, value=person.new())
        if not number % 2:
            await person.garble(broken, session)

    async def look(self, person: Person, session: Session) -> None:
        """Ask for the list of sessions, where there is one."""
        if self._service.may("list"):
            self.lists.append((person, await person.ask("list", session)))

    async def join(self, person: Person) -> None:
        """Open one more session and write to it."""
        session, value = (await person.try_to_open())[0], person.new()
        if session is None:
            # A server may limit how many sessions a user has.
            return
        self.sessions.append((person, session))
        if (await person.ask("write", session, value=value)).is_done:
            self.written[person.user, session.id] = [value]


@needing(unless=nothing_to_ask, uses=("write", "read", "run", "list", "stream"))
async def answers(stage: Stage) -> None:
    """Users overlap, each with many requests under way; whose values stand where, and are all there afterwards?"""
    trial, service = stage.trial, stage.target.service
    people = stage.people()
    users = [person.user for person in people]
    await people[0].opened_and_tried()
    crowd = _Crowd(service)
    keeps, sessions, written = crowd.keeps, crowd.sessions, crowd.written
    await overlapped(trial, map(crowd.arrive, people))
    streams = [person.listen(session) for person, session in sessions] if service.may("stream") else []
    for stream in streams:
        await stream.opened()
    each = int(trial.parameters["requests_per_user"])
    await overlapped(trial, (crowd.work(person, session, n) for person, session in sessions for n in range(each)))
    trial.progress("users have overlapped", 0.6)
    trial.judge_early(only_own(stage.seen, users))
    listening = list(sessions)
    # More sessions than a small table has places: what a later one takes over is the earlier one's.
    await overlapped(trial, (crowd.join(person) for person in people for _ in range(_CROWD * each if keeps else 0)))
    one_each = {person.user: (person, session) for person, session in listening}
    await overlapped(trial, (crowd.look(person, session) for person, session in one_each.values()))
    trial.progress("all their sessions are open", 0.7)
    named = _foreign(stage, sessions, listening, crowd.lists) if "list" in _private(stage) else {}
    sentence = f"the lists of {len(named)} of {len(people)} users name sessions of others"
    trial.require(not named, "foreign-session-listed", sentence, *list(named.values())[:3])
    for person, session in sessions[: len(listening) + len(people)] if keeps else ():
        await _read_back(stage, person, session, written)
    if keeps and len(people) > 1:
        await _over_one_connection(stage, [next(one for one in sessions if one[0] is who) for who in people[:_CROWD]])
    if len(people) > 1:
        await _with_one_key(stage, people[0], people[1])
    for stream, (person, _) in zip(streams, listening, strict=True) if streams else ():
        for event in stream.events if service.promises.own_events else ():
            stage.saw(person.user, "stream", Answer(200, stage.unshared(event.data)))
    if crowd.public:
        trial.note(f"Shared caches may keep answers with a user's data (Cache-Control: public): {crowd.public[0]}")
    trial.judge(only_own(stage.seen, users))
    if keys := _keys(stage, sessions):
        # Lists of sessions were looked at above, where short ids count as well.
        trial.judge(no_keys_of_others([seen for seen in stage.seen if seen.place != "list"], keys, stage.target.masked))
    trial.measure("requests sent", stage.target.sent, "requests")


def _keys(stage: Stage, sessions: Sequence[tuple[Person, Session]]) -> dict[str, str]:
    """The session ids and tokens that only their user may see, and whose they are. Numbers stand in texts by chance."""
    if "list" not in _private(stage) and stage.target.service.promises.identity != "none":
        return {}
    pairs = {(text, person.user) for person, session in sessions for text in (session.id, person.door.token)}
    owners = Counter(text for text, _ in pairs)
    return {text: user for text, user in pairs if owners[text] == 1 and stage.is_telling(text) and not text.isdigit()}


def _is_public(answer: Answer) -> bool:
    return any(name.lower() == "cache-control" and "public" in text.lower() for name, text in answer.headers)


def _foreign(
    stage: Stage,
    sessions: Sequence[tuple[Person, Session]],
    first: Sequence[tuple[Person, Session]],
    lists: Sequence[tuple[Person, Answer]],
) -> dict[str, str]:
    """For each user whose list names another's session, which one. `first`: sessions that were there before any list
    was asked for."""

    def of(person: Person, some: Sequence[tuple[Person, Session]]) -> set[str]:
        return {session.id for who, session in some if who.user == person.user}

    owned = [(answer, of(person, first)) for person, answer in lists]
    found = {}
    for person, answer in lists:
        own = of(person, sessions)
        foreign = [session.id for _, session in sessions if session.id not in own]
        if shown := stage.listed(answer, foreign, owned):
            found[person.user] = f"the list of {person.user!r} names {shown[0]}: {answer}"
    return found


async def _over_one_connection(stage: Stage, sessions: Sequence[tuple[Person, Session]]) -> None:
    """Users read over the connections of one of them, as behind a proxy that pools them: each request states its user.
    First each of them many times in a row, then all at once."""
    people = [stage.person(who.user, name=f"{who.user} behind a proxy") for who, _ in sessions]
    for person in people[1:]:
        person.door.share(people[0].door)

    async def read(person: Person, session: Session) -> None:
        answer = await person.ask("read", session)
        if answer.status in _LOST_STATUSES:
            sentence = f"a session of {person.user!r} is not found over a connection that another user used before"
            stage.trial.find("session-lost", sentence, f"read of {session.id}: {answer}")

    places = [(person, session) for person, (_, session) in zip(people, sessions, strict=True)]
    for person, session in (*places, *places):
        for _ in range(_FRESH):
            await read(person, session)
    await overlapped(stage.trial, (read(*place) for place in places * _FRESH))


async def _with_one_key(stage: Stage, first: Person, second: Person) -> None:
    """Two users send requests with one key of a client's making, as they may by chance, or where clients count: each
    request is carried out for its own user, and answered anew. A server may refuse the second."""
    service = stage.target.service
    known = (await first.open(), await second.open())
    persons = [stage.person(one.user, name=f"{one.user} with a key") for one in (first, second)]

    def key() -> None:
        number = stage.number()
        for person in persons:
            person.door.headers |= dict.fromkeys(_KEYS, f"lab-key-{number}")

    if service.may("open") and service.promises.identity == "proved":
        key()
        left, right = [(await person.try_to_open())[0] for person in persons]
        sentence = f"{second.user!r} opened a session, and was given that of {first.user!r}, who had sent the same key"
        both = left is not None and right is not None and bool(left.id) and left.id == right.id
        stage.trial.require(not both, "cross-user-data", sentence, f"session {left.id if left else ''}", _KEYS[0])
    for word in ("write", "run"):
        if not service.may(word):
            continue
        key()
        value = second.new()
        await persons[0].ask(word, known[0], value=first.new())
        answer = await persons[1].ask(word, known[1], value=value)
        if word == "write" and answer.is_done and service.may("read"):
            after = await second.ask("read", known[1])
            sentence = f"a write of {second.user!r} is lost, which came with a key that {first.user!r} had sent before"
            stage.trial.require(after.holds(value), "lost-write", sentence, f"missing {value}", str(after), _KEYS[0])


async def _read_back(stage: Stage, person: Person, session: Session, written: dict[tuple[str, str], list[str]]) -> None:
    """Read over fresh connections, which reach any worker: all that was taken is there, and nothing of the user's other
    sessions."""
    own = written.get((person.user, session.id), [])
    others = [value for (user, id), values in written.items() if (user, id) != (person.user, session.id)
              for value in values if user == person.user]  # fmt: skip
    service = stage.target.service
    keeps_all = service.promises.writes == "append"
    connections = _FRESH if service.workers > 1 else 2
    for _ in range(connections):
        again = stage.person(person.user, name=f"{person.user} again")
        answer = await again.ask("read", session)
        await again.leave()
        missing = [value for value in own if not answer.holds(value)]
        if answer.status in _LOST_STATUSES:
            sentence = f"a session of {person.user!r} is not found over another connection"
            stage.trial.find("session-lost", sentence, f"read of {session.id}: {answer}")
        elif answer.is_done and own and (missing if keeps_all else len(missing) == len(own)):
            sentence = f"{len(missing)} of {len(own)} values that {person.user!r} wrote are not read back"
            stage.trial.find("lost-write", sentence, f"missing {missing[0]}", str(answer))
        strays = [value for value in others if answer.holds(value)]
        if strays:
            sentence = f"a session of {person.user!r} holds data written to another one of theirs"
            stage.trial.find("cross-session-data", sentence, f"{strays[0]} in session {session.id}", str(answer))
        stage.trial.require(answer.status != 0, "no-answer", f"a read of {person.user!r} was not answered", str(answer))
    if own and not keeps_all:
        await _replaced(stage, person, session, connections)


async def _replaced(stage: Stage, person: Person, session: Session, connections: int) -> None:
    """A value takes the place of those that were read over the same connections before: no worker shows an old one."""
    last = await person.write(session)
    for _ in range(connections):
        again = stage.person(person.user, name=f"{person.user} again")
        answer = await again.ask("read", session)
        await again.leave()
        if answer.is_done and not answer.holds(last):
            sentence = f"the last value that {person.user!r} wrote is not read over another connection"
            stage.trial.find("lost-write", sentence, f"missing {last}", str(answer))
            break


def _private(stage: Stage) -> Sequence[str]:
    promised = stage.target.service.promises
    return promised.only_owner if promised.only_owner is not None else ("list",) * (promised.identity != "none")


# Updates of one session at once.


def _updates_unless(service: ServiceFile) -> str:
    if service.promises.updates == "last":
        return "the server promises that the last of concurrent updates wins"
    if service.may("add", "total") or (service.may("write", "read") and service.promises.writes == "append"):
        return ""
    return "the service file maps neither add and total, nor write and read that append"


@needing(unless=_updates_unless, uses=("add", "total", "write", "read"))
async def updates(stage: Stage) -> None:
    """Each user's requests update one session at once, or open one: are all of them in it afterwards?"""
    service = stage.target.service
    await (_counters if service.may("add", "total") else _appends)(stage)
    if service.may("open", "write", "read") and service.promises.session_ids == "client":
        for number in range(_TRIES):
            await _opened_at_once(stage, f"lab-opened-at-once-{number}")


async def _counters(stage: Stage) -> None:
    trial = stage.trial
    people = stage.people()
    sessions = [await person.open_alike() for person in people]
    others = [(await person.try_to_open())[0] for person in people]
    amounts: dict[str, int] = {}
    rng = random.Random(trial.seed)
    first = await people[0].ask("total", sessions[0])
    if not first.is_done or first.value not in (0, None):
        raise CannotTry(f"the total of a new session is not 0: {first}")
    adders: list[tuple[Person, Session]] = []
    for person, session in zip(people, sessions, strict=True):
        for _ in range(4 * int(trial.parameters["requests_per_user"])):
            # A caller each, so that an operation is known by its client's name.
            adder = Person(stage, person.user, person.door, f"{person.user} update {len(amounts)}")
            # Of the first, no two sums are the same; of the others none by more than chance, where one counts twice.
            drawn = 1_000_003 * len(amounts) + rng.randrange(1_000_003)
            amounts[adder.name] = drawn if len(amounts) >= _DOUBLED else 1 << len(amounts)
            adders.append((adder, session))
    adds = [adder.ask("add", session, number=True, amount=amounts[adder.name]) for adder, session in adders]
    await overlapped(trial, adds)
    finals: dict[str, int | None] = {}
    for person, session in zip(people, sessions, strict=True):
        answer = await person.ask("total", session, number=True)
        finals[person.user] = answer.value if isinstance(answer.value, int) else None
    for person, session, other in zip(people, sessions, others, strict=True):
        if other is not None and other.id != session.id:
            answer = await person.ask("total", other, number=True)
            sentence = f"a session of {person.user!r} holds a total that was added up in another one of theirs"
            trial.require(answer.value in (0, None), "cross-session-data", sentence, f"session {other.id}: {answer}")
            if answer.value in (0, None) and (await person.ask("add", other, amount=_FIRST)).is_done:
                # Kept for the user, and shown for the session: it comes out with the session's own first addition.
                answer = await person.ask("total", other, number=True)
                if is_repeated := isinstance(answer.value, int) and answer.value > 0 and answer.value % _FIRST == 0:
                    sentence = f"the first update of a session of {person.user!r} counts more than once"
                anomaly = "phantom-update" if is_repeated else "cross-session-data"
                trial.require(answer.value == _FIRST, anomaly, sentence, f"session {other.id}: {answer}")
    ops = trial.history.where(action="add")
    made = [Update(op, amounts[op.client]) for op in ops if op.client in amounts]
    # A file may leave out where the answers of `add` hold the number, or they hold none.
    are_answered = bool(stage.target.service.operations["add"].answer) or any(
        isinstance(one.op.value, int) for one in made
    )
    if not are_answered:
        trial.leave_out("the order of updates: the file's `add` has no `answer` that names the new number")
    trial.judge(counters_add_up(made, finals, are_answered=are_answered))


async def _appends(stage: Stage) -> None:
    people = stage.people()
    findings = []
    count = 0
    for person in people:
        session, first = await person.opened_with_value()
        values = [person.new() for _ in range(int(stage.trial.parameters["requests_per_user"]))]
        done = await overlapped(stage.trial, (person.ask("write", session, value=value) for value in values))
        taken = [value for value, answer in zip(values, done, strict=True) if answer.is_done]
        answer = await person.ask("read", session)
        missing = [value for value in (first, *taken) if not answer.holds(value)]
        count += len(taken)
        if missing:
            sentence = f"{len(missing)} of {len(taken) + 1} writes of {person.user!r} that were taken are lost"
            findings.append(Finding("lost-update", sentence, (*missing[:3], str(answer))))
    stage.trial.judge(Verdict.of(findings, count, "concurrent writes, all of them in their session"))


async def _opened_at_once(stage: Stage, id: str) -> None:
    """A user opens this id several times at once, and writes as soon as each is open: what was taken is in the session,
    whether the server refused the other opens or gave all of them the same session."""
    [person, *_] = stage.people()
    taken: list[str] = []
    sessions: list[Session] = []

    async def opens() -> None:
        session, _ = await person.try_to_open(id)
        value = person.new()
        if session is not None:
            sessions.append(session)
            if (await person.ask("write", session, value=value)).is_done:
                taken.append(value)

    await overlapped(stage.trial, (opens() for _ in range(_OPENS)))
    if not taken or stage.target.service.promises.writes != "append":
        return
    answer = await person.ask("read", sessions[0])
    missing = [value for value in taken if not answer.holds(value)]
    await person.try_to_open(id)
    again = await person.ask("read", sessions[0])
    if missing and not any(again.holds(value) for value in taken):
        note = "A session that its user opens again begins anew, so opens at once are not judged."
        if note not in stage.trial.notes:
            stage.trial.note(note)
        return
    sentence = (
        f"{len(missing)} of {len(taken)} writes of {person.user!r} are lost, as the session was opened twice at once"
    )
    stage.trial.require(not missing, "lost-write", sentence, *missing[:3], str(answer))


# One user alone, and beside another.


@needing(unless=nothing_to_ask, uses=("write", "read", "run", "list", "add", "total", "end"))
async def non_interference(stage: Stage) -> None:
    """B's script alone, alone again on a fresh start, and beside A. Differences between the first two are not
    judged."""
    alone = await _script(stage, acts=False)
    await stage.end()
    again = await Stage.begin(stage.trial)
    twice = await _script(again, acts=False)
    await again.end()
    beside = await _script(await Stage.begin(stage.trial), acts=True)
    stable = [n for n, (one, other) in enumerate(zip(alone, twice, strict=True)) if one == other]
    if len(stable) < len(alone):
        names = ", ".join(dict.fromkeys(alone[n].step for n in range(len(alone)) if n not in stable))
        stage.trial.note(f"Not compared, as they differ without others too: {names}.")
    # A number that the server counts up for all users is an id or a count: it differs, and no data stands in it.
    counted = [n for n in stable if alone[n].step not in _NUMBERS and counted_up(alone[n].what, beside[n].what)]
    if counted:
        names = ", ".join(dict.fromkeys(alone[n].step for n in counted))
        stage.trial.note(f"Numbers in these answers count other users' actions too: {names}; they are compared as ids.")
    user = stage.target.users(2)[-1]
    chosen = [[seen[n] for n in stable if n not in counted] for seen in (alone, beside)]
    stage.trial.judge(not_interfered({user: chosen[0]}, {user: chosen[1]}))
    stage.trial.measure("observations compared", len(stable), "observations")


async def _script(stage: Stage, *, acts: bool) -> list[Observed]:
    """The observations of B. Where A `acts`, A has done each step before B does, and does it again meanwhile."""
    service = stage.target.service
    neighbour, watcher = stage.pair()
    observed: list[Observed] = []
    each = int(stage.trial.parameters["requests_per_user"])
    session = await watcher.open()
    other = await neighbour.open() if acts else None
    # More than a page of all users' sessions has places.
    opens = (neighbour.try_to_open() for _ in range(_MANY if acts and service.may("list") else 0))
    await overlapped(stage.trial, opens)
    absent = Session(watcher.user, {**session.values, "session": "lab-no-such-session"})
    steps: list[tuple[str, Callable[[Person, Session], Awaitable[Answer]]]] = []
    values: dict[str, str] = {}
    # The same values in each script, whatever others write: an answer may be made of them in any way.
    numbers = itertools.count(1)

    def new(person: Person) -> str:
        return canary_word(person.user, next(numbers)) if person is watcher else person.new()

    def own(person: Person, given: dict[str, Any]) -> dict[str, Any]:
        return {name: new(person) if one is True else one for name, one in given.items()}

    def observe(name: str, answer: Answer) -> None:
        observed.append(Observed(name, _observed(answer, session, watcher, values)))
        # Headers differ in times, numbers and digests; a name in them is compared.
        named = any(re.search(rf"(?<![\w-]){re.escape(neighbour.user)}(?![\w-])", one) for one in answer.everything())
        observed.append(Observed(f"{name}, the neighbour's name", "200 there" if named else "200 not there"))

    def step(word: str, **values: Any) -> None:
        if service.may(word):
            steps.append((word, lambda person, place: person.ask(word, place, **own(person, values))))

    for word in ("write", "read", "run", "list", "write", "run", "add", "total", "read"):
        step(word, **({"value": True} if word in ("write", "run") else {"amount": 3} if word == "add" else {}))
    for name, act in steps:
        if acts and other is not None:
            await overlapped(stage.trial, (act(neighbour, other) for _ in range(2 * each)))
            answered = await overlapped(
                stage.trial, [act(watcher, session), *(act(neighbour, other) for _ in range(each))]
            )
            answer = answered[0]
        else:
            answer = await act(watcher, session)
        observe(name, answer)
    if service.may("read"):
        observe("read of no session", await watcher.ask("read", absent))
    if service.may("end"):
        observe("end", await watcher.ask("end", session))
    return observed


def _observed(answer: Answer, session: Session, person: Person, values: dict[str, str]) -> str:
    """The answer with ids and the user's own values replaced by their places: those are drawn anew in each script."""
    text = person.unshared(json.dumps(answer.value, ensure_ascii=False, sort_keys=True))
    for name, value in sorted(session.values.items(), key=lambda one: -len(one[1])):
        text = text.replace(value, f"<{name}>") if len(value) > 3 else text
    for found in re.findall(rf"lab{mark(person.user)}x\d+z", text):
        text = text.replace(found, values.setdefault(found, f"<own value {len(values) + 1}>"))
    return f"{answer.status or answer.error} {text}"
