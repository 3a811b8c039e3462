"""The body of service_access_denial: everybody but the owner tries everything, and the owner reads back."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab_utils.checks.service.stage import CannotTry, Person, Stage, needing, nothing_to_ask, overlapped
from lab_utils.judges.services import Attempt, denied, guessable
from lab_utils.service.answers import Answer
from lab_utils.service.credentials import turned
from lab_utils.service.door import Door, Session, Stream
from lab_utils.values.canaries import mark
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["denial"]

_IDS = 12
_LONG = 48
_TELLING = 16
"""Characters of an id whose half is no other one's by chance."""
_SHORT_S = (3, 10, 30)
"""Seconds that a token is valid which is used before and after its end: more where the first use came too late."""
_GRACE_S = 2
"""Times in tokens are whole seconds: so much later, one has expired before a new one that expired a second ago."""
_READS = ("read", "total")
_STREAMS = (
    "its stream",
    "its stream, which goes on after the id of the owner's last event,",
    "a stream of a session of their own, which goes on after the id of the owner's first event,",
)
"""Those of an attacker, in the order in which they are opened."""
_AMOUNT = 4_391
_WILD = ("%", "*", "_", "0", "-1", "null", "undefined", "latest", "' OR '1'='1")
"""Ids that stand for any session, or for the last one, where a lookup takes them for a pattern or a default."""
_PROXY_HEADERS = ("X-Forwarded-User", "X-Remote-User", "Remote-User", "X-User", "X-User-Id", "X-Auth-Request-User")
_FIELDS = ("user", "user_id", "userId", "uid", "owner", "as_user", "tenant", "tenant_id", "account")
_ANOMALIES = {
    "read": "read-by-another",
    "total": "read-by-another",
    "stream": "read-by-another",
    "list": "listed-for-another",
    "write": "changed-by-another",
    "add": "changed-by-another",
    "run": "changed-by-another",
    "end": "ended-by-another",
}

_SHOWN_BY_IDS = frozenset(
    {"IdsWithoutCase", "KeyWithoutSeparator", "KeyWithHyphen", "IdsAsNumbers", "IdsCut", "EndByPattern"}
)
"""Planted services whose defect shows in ids: these come first there, before tokens that must expire."""


@dataclass(frozen=True, slots=True)
class _Attacker:
    person: Person
    by: str
    anomaly: str = ""


@needing(
    uses=("write", "read", "total", "add", "run", "list", "stream", "end"),
    unless=nothing_to_ask,
    without=lambda service: service.identity.without_expiry if service.only_owner else "",
)
async def denial(stage: Stage) -> None:
    """Another user, nobody, and bearers of expired and forged tokens try each word on the owner's session."""
    service = stage.target.service
    owner, other = stage.pair()
    if not service.may("write", "read"):
        await _runs(stage, owner, other)
        return
    are_ids_first = stage.trial.target_name in _SHOWN_BY_IDS
    if are_ids_first:
        await _ids(stage, owner, other)
    await owner.opened_with_value()
    await other.opened_with_value()
    attempts: list[Attempt] = []
    words = service.only_owner
    # What another user can do as they are, they can do in any disguise: one cause, one finding.
    can_do: set[str] = set()
    for attacker in _attackers(stage, owner, other):
        tried = dict.fromkeys([*words, *(["list"] if service.may("list") else [])])
        made = [
            await _attempt(stage, owner, attacker, word) for word in tried if attacker.anomaly or word not in can_do
        ]
        if not attacker.anomaly:
            can_do |= {attempt.word for attempt in made if attempt.achieved}
        attempts += _judged(stage, made)
        stage.trial.progress(attacker.by, 0.5)
    stage.note_claimed()
    if "read" in words and "read" not in can_do:
        attempts += _judged(stage, await _disguised(stage, owner, other))
    if "write" in words and "write" not in can_do:
        attempts += _judged(stage, [await _named_in_a_body(stage, owner, other)])
        await _opened_for_another(stage, owner, other)
    attempts += _judged(stage, await _each_by_each(stage, [word for word in words if word not in can_do]))
    if can_do & {"read", "write"}:
        stage.trial.leave_out("disguises in which another user tries what they can do without one")
    if "read" in words and stage.target.credentials.can_expire:
        attempts += _judged(stage, await _outlived(stage, owner))
    if words:
        stage.trial.judge(denied(attempts))
    if not are_ids_first:
        await _ids(stage, owner, other)


def _judged(stage: Stage, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Judge those of one kind that had an effect, at once: a calibration ends with its first finding. Return the
    others."""
    if any(attempt.achieved for attempt in attempts):
        stage.trial.judge(denied(attempts))
    return [attempt for attempt in attempts if not attempt.achieved]


def _attackers(stage: Stage, owner: Person, other: Person) -> Iterator[_Attacker]:
    """Those whom the server must refuse, by its promises. A token that belongs to nobody may be refused for every word
    alike, so each of them has its own anomaly."""
    credentials = stage.target.credentials
    if not stage.target.service.only_owner:
        return
    yield _Attacker(other, "another user, with a token of their own,")
    if not credentials.exist:
        return
    user = owner.user
    if stage.target.service.names_users:
        # The token is the attacker's own: whose request it is, it alone may say.
        person = stage.person(user, credentials.token(other.user), f"{other.user} in the name of {user}")
        yield _Attacker(person, "another user, with their own token and the owner's name in the request,")
    yield _Attacker(stage.person(user, None, "nobody"), "a caller without a token", "no-token-accepted")
    # A proxy pools connections: whose request it is, each request must say anew.
    nobody = stage.person(user, None, "nobody behind a proxy")
    nobody.door.share(owner.door)
    yield _Attacker(nobody, "a caller without a token, over a connection of the owner's,", "no-token-accepted")
    if credentials.can_expire:
        expired = credentials.token(user, expires_in=-3_600)
        yield _Attacker(
            stage.person(user, expired, "expired"), "the bearer of an expired token", "expired-token-accepted"
        )
    else:
        stage.trial.leave_out(credentials.without_expiry)
    # Of a token that the server has seen: it may remember it by a part.
    for name, token in credentials.forged(user, other.user, seen=owner.door.token).items():
        person = stage.person(user, token, f"forger ({name})")
        yield _Attacker(person, f"the bearer of a token that is {name}", "forged-token-accepted")


async def _attempt(stage: Stage, owner: Person, attacker: _Attacker, word: str) -> Attempt:
    """One attempt on a new session of the owner's, and the owner's next read."""
    session, value = await owner.opened_with_value()
    # The attacker knows the session's id, and nothing else of its owner.
    known = Session(attacker.person.user, dict(session.values))
    person = attacker.person
    anomaly = attacker.anomaly or _ANOMALIES[word]
    if word == "stream":
        granted, achieved, answer = await _listening(stage, owner, session, person, known)
    elif word == "list":
        ids = [session.id, (await owner.open()).id]
        owned = await owner.ask("list", session)
        granted = bool(stage.listed(owned, [session.id], [(owned, ids)]))
        answer = await person.ask("list", known)
        # One's own id is in every answer that repeats the request; a list repeats none.
        is_named = granted and stage.listed(answer, [session.id], [(owned, ids)])
        achieved = f"it names the owner's session {session.id}" if is_named else ""
    elif word == "total":
        await owner.ask("add", session, amount=_AMOUNT)
        granted = (await owner.ask("total", session)).value == _AMOUNT
        answer = await person.ask("total", known)
        achieved = f"it holds the owner's total {_AMOUNT}" if granted and answer.value == _AMOUNT else ""
    elif word == "add":
        before = await owner.ask("total", session)
        answer = await person.ask("add", known, amount=_AMOUNT)
        after = await owner.ask("total", session)
        granted = before.is_done
        achieved = f"the owner's total was {before.value} and is {after.value}" if after.value != before.value else ""
    elif word == "end":
        answer = await person.ask("end", known)
        after = await owner.ask("read", session)
        achieved = "" if after.holds(value) else f"the owner reads {after}"
        granted = True
    elif word in _READS:
        answer = await person.ask(word, known)
        achieved = f"it holds the owner's {value}" if answer.holds(value) else ""
        anomaly = _of_answer(answer, anomaly)
        granted = True
    else:
        own = person.new()
        answer = await person.ask(word, known, value=own)
        after = await owner.ask("read", session)
        # The forger bears the owner's name: only a session says whose value it is.
        achieved = f"the owner reads {own}, which they never wrote" if after.holds(own) else ""
        achieved = achieved or ("" if after.holds(value) else f"the owner's {value} is gone: {after}")
        if not achieved and answer.holds(value):
            achieved = f"it holds the owner's {value}"
            anomaly = _of_answer(answer, attacker.anomaly or _ANOMALIES["read"])
        granted = True
    return Attempt(word, attacker.by, anomaly, granted, achieved, stage.target.masked(str(answer)))


def _of_answer(answer: Answer, anomaly: str) -> str:
    """A page that refuses may quote the owner's data all the same: nobody was let in, and it was shown."""
    return anomaly if answer.is_done or answer.status < 400 else "cross-user-data"


async def _outlived(stage: Stage, owner: Person) -> list[Attempt]:
    """A token is used while it is valid, and again when it has expired. A server may allow for clocks that differ: so
    one that was never used, and expired later than that, must be refused at that time. A stream that was opened with it
    ends in the time that the server promises."""
    credentials = stage.target.credentials
    session, value = await owner.opened_with_value()
    service = stage.target.service
    asks_stream = "stream" in service.only_owner and service.promises.stream_outlives_token_s is not None
    # A session of its own: in some a write takes the place of the value.
    listened = (await owner.opened_with_value())[0] if asks_stream else session
    for valid_s in _SHORT_S:
        began = time.monotonic()
        person = stage.person(owner.user, credentials.token(owner.user, expires_in=valid_s), "token used before")
        ends_at = time.monotonic() + valid_s + _GRACE_S
        before = await person.ask("read", session)
        stream = await _brings_something(stage, owner, listened, person) if asks_stream else None
        has_begun = before.holds(value) and (stream is not None or not asks_stream)
        # On a busy machine it may have expired meanwhile.
        if has_begun or time.monotonic() - began < valid_s - 1:
            break
        if stream is not None:
            await stream.close()
    await asyncio.sleep(max(0.0, ends_at - time.monotonic()))
    fresh = stage.person(owner.user, credentials.token(owner.user, expires_in=-1), "token not used before")
    if not before.holds(value) or (await fresh.ask("read", session)).holds(value):
        stage.trial.leave_out(
            "tokens that expire after they were used: one of a few seconds is refused or outlives them"
        )
        if stream is not None:
            await stream.close()
        return []
    answer = await person.ask("read", session)
    achieved = f"it holds the owner's {value}" if answer.holds(value) else ""
    by = "the bearer of a token that was used while it was valid, and has expired since,"
    attempts = [Attempt("read", by, "expired-token-accepted", True, achieved, stage.target.masked(str(answer)))]
    what = "streams whose token expires meanwhile"
    if stream is not None:
        attempts.append(await _outlived_stream(stage, owner, listened, stream, ends_at))
    elif asks_stream:
        stage.trial.leave_out(f"{what}: the stream of one of a few seconds brought nothing")
    elif "stream" in service.only_owner:
        stage.trial.leave_out(f"{what}: promises.stream_outlives_token_s is not set")
    return attempts


async def _brings_something(stage: Stage, owner: Person, session: Session, person: Person) -> Stream | None:
    """A stream that has brought an event; None if it brings none."""
    stream = person.listen(session)
    await stream.opened()
    if await stage.brings(stream, await owner.write(session)):
        return stream
    await stream.close()
    return None


async def _outlived_stream(stage: Stage, owner: Person, session: Session, stream: Stream, ends_at: float) -> Attempt:
    """The owner writes when that stream must have ended, and listens as well: by the time that this brings the event,
    the other could have brought it."""
    seconds = stage.target.service.promises.stream_outlives_token_s or 0.0
    await asyncio.sleep(max(0.0, ends_at + seconds - time.monotonic()))
    mine = owner.listen(session)
    await mine.opened()
    value = await owner.write(session)
    granted = await stage.brings(mine, value)
    # Over another connection of the same server: an event that was sent with the first is here.
    await owner.ask("read", session)
    heard = [event.data for event in stream.events if value in event.data]
    is_open = stream.is_open
    for one in (mine, stream):
        await one.close()
    achieved = f"its stream brought {heard[0][:200]}" if heard else ""
    more = f", more than {seconds:g} s ago," if seconds else ""
    by = f"the bearer of a token that expired while its stream was open{more}"
    said = "the stream is still open" if is_open else "the stream has ended"
    return Attempt("stream", by, "expired-token-accepted", granted, achieved, said)


async def _disguised(stage: Stage, owner: Person, other: Person) -> list[Attempt]:
    """Another user reads the owner's session by ids that a lookup may take for its own, with headers in which a proxy
    names the user, with an address that does, and with cookies."""
    session, value = await owner.opened_with_value()
    also = (session.id.swapcase(), f"{session.id} ", f"./{session.id}", f"{owner.user}/{session.id}")
    attempts = [await _by_id(stage, owner, (session, value), other, id) for id in (*_WILD, *also) if id != session.id]

    in_name = [other.user, *([owner.user] if stage.target.service.names_users else [])]
    for user in in_name:
        # As a request of a user whose name the file puts into it, and of one who gives the owner's name for it.
        for by, disguise in _disguises(owner.user).items():
            person = stage.person(user, stage.target.credentials.token(other.user), f"{other.user}, whose {by}")
            disguise(person.door)
            attempts.append(
                await _by_id(stage, owner, (session, value), person, session.id, f"another user, whose {by},")
            )
    return attempts


def _disguises(user: str) -> dict[str, Callable[[Door], None]]:
    """Ways to name a user beside a token, each with its words."""

    def in_headers(door: Door) -> None:
        own = {name.lower() for name in door.headers}
        door.headers |= {name: user for name in _PROXY_HEADERS if name.lower() not in own}

    def in_query(door: Door) -> None:
        door.query = dict.fromkeys(_FIELDS, user) | door.query

    def in_cookies(door: Door) -> None:
        name = next((name for name in door.headers if name.lower() == "cookie"), "Cookie")
        cookies = [door.headers.get(name, ""), *(f"{field}={user}" for field in _FIELDS)]
        door.headers[name] = "; ".join(filter(None, cookies))

    return {
        "request names the owner in a proxy's header": in_headers,
        "address names the owner in its query": in_query,
        "cookies name the owner": in_cookies,
    }


async def _by_id(
    stage: Stage, owner: Person, place: tuple[Session, str], person: Person, id: str, by: str = ""
) -> Attempt:
    """A read of this id, which shall not reach the owner's session and value (`place`), or any other of the owner's."""
    session, value = place
    answer = await person.ask("read", Session(person.user, {**session.values, "session": id}))
    held = next((one for one in (value, _mark_of(owner)) if answer.holds(one)), "")
    achieved = f"it holds the owner's {held}" if held else ""
    by = by or f"another user, by the id {id!r},".replace(session.id, "...")
    return Attempt("read", by, _ANOMALIES["read"], True, achieved, stage.target.masked(str(answer)))


async def _named_in_a_body(stage: Stage, owner: Person, other: Person) -> Attempt:
    """Another user writes to the owner's session with bodies that name the owner: in one field each, for a server may
    refuse a body for a field that it does not know."""
    session, value = await owner.opened_with_value()
    disguised = stage.person(other.user, name=f"{other.user} in a body that names the owner")
    sent = []
    for name in _FIELDS:
        disguised.door.fields = {name: owner.user}
        own = other.new()
        answer = await disguised.ask("write", Session(other.user, dict(session.values)), value=own)
        sent.append((own, name, answer))
    after = await owner.ask("read", session)
    own, name, answer = next((one for one in sent if after.holds(one[0])), sent[-1])
    achieved = f"the owner reads {own}, which came with the field {name!r}" if after.holds(own) else ""
    achieved = achieved or ("" if after.holds(value) else f"the owner's {value} is gone: {after}")
    by = "another user, whose body names the owner in a field,"
    return Attempt("write", by, _ANOMALIES["write"], True, achieved, stage.target.masked(str(answer)))


async def _opened_for_another(stage: Stage, owner: Person, other: Person) -> None:
    """Another user opens sessions with bodies that name the owner, in one field each: none of them is the owner's."""
    if not stage.target.service.may("open", "list"):
        return
    own = (await owner.open()).id
    disguised = stage.person(other.user, name=f"{other.user} in a body that names the owner")
    opened: dict[str, str] = {}
    for name in _FIELDS:
        disguised.door.fields = {name: owner.user}
        session, _ = await disguised.try_to_open()
        if session is not None and session.id:
            opened[session.id] = name
    answer = await owner.ask("list")
    named = stage.listed(answer, opened, [(answer, [own])])
    sentence = "another user can open a session in the owner's name, by a field of the body that names the owner"
    seen = [f"the owner's list names {id}, which came with the field {opened[id]!r}" for id in named]
    stage.trial.require(not named, "changed-by-another", sentence, *seen[:3], stage.target.masked(str(answer)))


async def _each_by_each(stage: Stage, words: Sequence[str]) -> list[Attempt]:
    """Each user tries to read, change and end a session of each other one, for a server may compare their names by the
    beginning, or without a sign: then one of two reaches the other, and not the other way round."""
    people = stage.people()
    owners = [(person, *await person.opened_with_value()) for person in people]
    attempts: list[Attempt] = []
    for word in [word for word in ("read", "write", "end") if word in words and stage.target.service.may(word)]:
        pairs = [(place, person) for place in owners for person in people if person.user != place[0].user]
        for (owner, session, value), person in pairs:
            attempts.append(await _between(stage, owner, (session, value), person, word))
            if attempts[-1].achieved:
                # Others may reach others in the same way: one cause, one finding.
                break
    return attempts


async def _between(stage: Stage, owner: Person, place: tuple[Session, str], person: Person, word: str) -> Attempt:
    """One attempt of one user on a session of another one, `place`, with its value."""
    session, value = place
    own = person.new()
    given: dict[str, Any] = {"value": own} if word == "write" else {}
    answer = await person.ask(word, Session(person.user, dict(session.values)), **given)
    if word == "read":
        achieved = f"it holds the owner's {value}" if answer.holds(value) else ""
    else:
        after = await owner.ask("read", session)
        achieved = "" if after.holds(value) else f"the owner's {value} is gone: {after}"
        achieved = f"the owner reads {own}, which they never wrote" if after.holds(own) else achieved
    by, said = f"{person.user!r}, with a token of their own,", stage.target.masked(str(answer))
    return Attempt(word, by, _ANOMALIES[word], True, achieved, said, of=repr(owner.user))


def _mark_of(person: Person) -> str:
    """The part that all values of a user have in common."""
    return f"lab{mark(person.user)}x"


async def _runs(stage: Stage, owner: Person, other: Person) -> None:
    """Where nothing is kept that an owner could read back, bearers of no token or a wrong one try a run."""
    session = await owner.opened_and_tried()
    stage.note_claimed()
    attempts = []
    for attacker in _attackers(stage, owner, other):
        # A user's own token is good for a run, whatever name stands beside it.
        if attacker.anomaly:
            answer = await attacker.person.ask("run", session, value=attacker.person.new())
            achieved = f"it is done: {stage.target.masked(str(answer))}" if answer.is_done else ""
            said = stage.target.masked(str(answer))
            attempts.append(Attempt("run", attacker.by, attacker.anomaly, True, achieved, said))
    if attempts:
        stage.trial.judge(denied(attempts))
    else:
        reason = "the service file maps no write and read, and the server promises no proof of identity"
        stage.trial.judge(Verdict.not_applicable(reason))


async def _listening(
    stage: Stage, owner: Person, session: Session, person: Person, known: Session
) -> tuple[bool, str, Answer]:
    """Both listen; then the owner writes. By the time the owner's stream has brought its events, the attacker's could
    have brought them too."""
    mine, theirs = owner.listen(session), [person.listen(known)]
    await mine.opened()
    answer = await theirs[0].opened()
    values = [await owner.write(session)]
    granted = await stage.brings(mine, values[-1])
    if granted and mine.events and mine.events[-1].id:
        # As one who comes back: a stream that resumes may begin in another way.
        theirs.append(person.listen(known, mine.events[-1].id))
        await theirs[1].opened()
        values.append(await owner.write(session))
        await stage.brings(mine, values[-1])
    if len(theirs) > 1 and person.user != owner.user:
        await _resumed(stage, person, theirs, mine.events[0].id)
    # A request more, over another connection of the same server: an event that was sent with the first is here.
    await person.ask("read", known)
    heard = [(n, event.data) for n, one in enumerate(theirs) for event in one.events
             if any(value in event.data for value in values)]  # fmt: skip
    achieved = ""
    if heard:
        number, data = heard[0]
        achieved = f"{_STREAMS[number]} brought {data[:200]}"
        answer = await theirs[number].opened()
    for stream in (mine, *theirs):
        await stream.close()
    return granted, achieved, answer


async def _resumed(stage: Stage, person: Person, streams: list[Stream], last_id: str) -> None:
    """One more stream, of a session of the attacker's own, which goes on after an event of the owner's."""
    own = await person.open()
    streams.append(person.listen(own, last_id))
    if (await streams[-1].opened()).is_done:
        # In order: what a log replays comes before the new value.
        await stage.brings(streams[-1], await person.write(own))


async def _ids(stage: Stage, owner: Person, other: Person) -> None:
    """Ids that are chosen by clients must not be mixed up; those that are the only secret must not be guessed."""
    promises = stage.target.service.promises
    if promises.session_ids == "client":
        await _look_alikes(stage, owner, other)
    elif "session" in (stage.target.service.operations["open"].extract if stage.target.service.may("open") else {}):
        ids = [(await owner.open()).id for _ in range(_IDS)]
        why = guessable(ids)
        if promises.identity == "none" and stage.target.service.may("write", "read"):
            await _made_up(stage, owner, other)
            place = await owner.opened_with_value()
            whole = place[0].id
            # A log shows the half of an id, and a pattern needs nothing of it.
            half = [whole[: len(whole) // 2]] * (len(whole) >= _TELLING)
            guesses = [id for id in (*_WILD, *half) if id != whole]
            stage.trial.judge(denied([await _by_id(stage, owner, place, other, id) for id in guesses]))
        if why and promises.identity == "none":
            sentence = f"a session's id is its only secret, and {why}"
            stage.trial.find("guessable-ids", sentence, ", ".join(ids[:6]))
        elif why:
            stage.trial.note(f"Session ids can be guessed ({why}); identity is what keeps them apart.")
        elif promises.identity == "none":
            stage.trial.judge(Verdict.passed(f"{len(ids)} ids of sessions, none to be guessed from the others"))


async def _made_up(stage: Stage, owner: Person, other: Person) -> None:
    """An id that the server never gave must not open a session: whoever sends a link with it would know it."""
    given = await owner.open()
    id = turned(given.id, 8)
    if id == given.id:
        return
    known = Session(owner.user, {**given.values, "session": id})
    value = owner.new()
    await owner.ask("write", known, value=value)
    answer = await other.ask("read", known)
    sentence = "an id that the server never gave opens a session, whose secret its maker then knows"
    stage.trial.require(not answer.holds(value), "session-adopted", sentence, f"id {known.id}: {answer}")


async def _look_alikes(stage: Stage, owner: Person, other: Person) -> None:
    grammar = re.compile(stage.target.service.promises.session_id_grammar)
    base = f"lab-{stage.number()}-Aa"
    # In case, in length, in a separator, in a letter that a pattern takes for any, after what a short column or file
    # name holds, in the form of a letter, and in zeros at the front. The first of each pair is ended.
    variants = [
        (base, base.swapcase()),
        (base, f"{base}1"),
        (f"{base}-5", f"{base}_5"),
        (f"{base}_55", f"{base}-55"),
        (f"{base}.6", f"{base}-6"),
        (f"{base}7{'x' * _LONG}", f"{base}7{'x' * _LONG}y"),
        (f"{base}8\u00e9", f"{base}8e\u0301"),
        (f"{stage.number()}", f"0{stage.number() - 1}"),
    ]
    pairs = [(owner, first, owner, second) for first, second in variants]
    if stage.target.service.promises.identity != "none":
        pairs.append((owner, f"{base}2", other, f"{base}2"))
        for person in stage.people():
            pairs += [(owner, f"{base}3{person.user}", person, f"{base}3{person.user}")] * (person.user != owner.user)
            if person.user.startswith(owner.user) and person.user != owner.user:
                rest = person.user.removeprefix(owner.user)
                # Written one after the other, user and id read the same for both; so they do with a separator between
                # them that a name may hold.
                pairs.append((owner, f"{rest}{base}4", person, f"{base}4"))
                if not rest[0].isalnum():
                    pairs.append((owner, f"{rest[1:]}{rest[0]}{base}9", person, f"{base}9"))
    findings = []
    tried = 0
    for one, first, two, second in pairs:
        if not (grammar.fullmatch(first) and grammar.fullmatch(second)) or (one, first) == (two, second):
            continue
        left, right = (await one.try_to_open(first))[0], (await two.try_to_open(second))[0]
        if left is None or right is None or (one.user == two.user and left.id == right.id):
            continue
        try:
            values = await overlapped(stage.trial, [one.write(left), two.write(right)])
        except CannotTry:
            continue
        shown = [await one.ask("read", left), await two.ask("read", right)]
        tried += 1
        for n, (who, session) in enumerate(((one, left), (two, right))):
            if shown[n].holds(values[1 - n]):
                sentence = f"session {session.id!r} of {who.user!r} holds data of another id or user"
                both = (f"{left.id!r} of {one.user!r}", f"{right.id!r} of {two.user!r}", str(shown[n]))
                findings.append(Finding("ids-collide", sentence, both))
                break
        else:
            if stage.target.service.may("end") and (await one.ask("end", left)).is_done:
                answer = await two.ask("read", right)
                if not answer.holds(values[1]):
                    sentence = f"the end of {left.id!r} of {one.user!r} took {right.id!r} of {two.user!r} with it"
                    findings.append(Finding("ids-collide", sentence, (str(answer),)))
    if pairs and not tried:
        raise CannotTry("no two sessions with ids that look alike could be opened")
    stage.trial.judge(Verdict.of(findings, tried, "pairs of ids that look alike, kept apart"))
