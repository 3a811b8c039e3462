"""The body of service_access_denial: everybody but the owner tries everything, and the owner reads back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lab_utils.checks.service.stage import CannotTry, Person, Stage, needing, nothing_to_ask, overlapped
from lab_utils.judges.services import Attempt, denied, guessable
from lab_utils.service.answers import Answer
from lab_utils.service.door import Session
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["denial"]

_IDS = 12
_READS = ("read", "total")
_AMOUNT = 4_391
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


@dataclass(frozen=True, slots=True)
class _Attacker:
    person: Person
    by: str
    anomaly: str = ""


@needing(unless=nothing_to_ask, uses=("write", "read", "total", "add", "run", "list", "stream", "end"))
async def denial(stage: Stage) -> None:
    """Another user, nobody, and bearers of expired and forged tokens try each word on the owner's session."""
    service = stage.target.service
    owner, other = stage.pair()
    if not service.may("write", "read"):
        await _runs(stage, owner, other)
        return
    await owner.opened_with_value()
    await other.opened_with_value()
    attempts: list[Attempt] = []
    words = service.only_owner
    for attacker in _attackers(stage, owner, other):
        tried = dict.fromkeys([*words, *(["list"] if service.may("list") else [])])
        attempts += [await _attempt(stage, owner, attacker, word) for word in tried]
        stage.trial.progress(attacker.by, 0.5)
    stage.note_claimed()
    if words:
        stage.trial.judge(denied(attempts))
    await _ids(stage, owner, other)


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
    yield _Attacker(stage.person(user, None, "nobody"), "a caller without a token", "no-token-accepted")
    if credentials.can_expire:
        expired = credentials.token(user, expires_in=-3_600)
        yield _Attacker(
            stage.person(user, expired, "expired"), "the bearer of an expired token", "expired-token-accepted"
        )
    for name, token in credentials.forged(user, credentials.token(other.user)).items():
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
        granted = stage.is_telling(session) and (await owner.ask("list", session)).holds(session.id)
        answer = await person.ask("list", known)
        # One's own id is in every answer that repeats the request; a list repeats none.
        achieved = f"it names the owner's session {session.id}" if granted and answer.holds(session.id) else ""
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
            anomaly = attacker.anomaly or _ANOMALIES["read"]
        granted = True
    return Attempt(word, attacker.by, anomaly, granted, achieved, stage.target.masked(str(answer)))


async def _runs(stage: Stage, owner: Person, other: Person) -> None:
    """Where nothing is kept that an owner could read back, bearers of no token or a wrong one try a run."""
    session = await owner.opened_and_tried()
    stage.note_claimed()
    attempts = []
    for attacker in _attackers(stage, owner, other):
        if attacker.person is not other:
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
    mine, theirs = owner.listen(session), person.listen(known)
    await mine.opened()
    answer = await theirs.opened()
    value = await owner.write(session)
    granted = await stage.trial.waiting.until(
        lambda: any(value in event.data for event in mine.events) or not mine.is_open
    )
    # A request more, over another connection of the same server: an event that was sent with the first is here.
    await person.ask("read", known)
    heard = [event.data for event in theirs.events if value in event.data]
    for stream in (mine, theirs):
        await stream.close()
    return granted, f"its stream brought {heard[0][:200]}" if heard else "", answer


async def _ids(stage: Stage, owner: Person, other: Person) -> None:
    """Ids that are chosen by clients must not be mixed up; those that are the only secret must not be guessed."""
    promises = stage.target.service.promises
    if promises.session_ids == "client":
        await _look_alikes(stage, owner, other)
    elif "session" in (stage.target.service.operations["open"].extract if stage.target.service.may("open") else {}):
        ids = [(await owner.open()).id for _ in range(_IDS)]
        why = guessable(ids)
        if why and promises.identity == "none":
            sentence = f"a session's id is its only secret, and {why}"
            stage.trial.find("guessable-ids", sentence, ", ".join(ids[:6]))
        elif why:
            stage.trial.note(f"Session ids can be guessed ({why}); identity is what keeps them apart.")
        elif promises.identity == "none":
            stage.trial.judge(Verdict.passed(f"{len(ids)} ids of sessions, none to be guessed from the others"))


async def _look_alikes(stage: Stage, owner: Person, other: Person) -> None:
    grammar = re.compile(stage.target.service.promises.session_id_grammar)
    base = f"lab-{stage.number()}-Aa"
    pairs = [(owner, base, owner, base.swapcase()), (owner, base, owner, f"{base}1")]
    if stage.target.service.promises.identity != "none":
        pairs.append((owner, f"{base}2", other, f"{base}2"))
        for person in stage.people():
            pairs += [(owner, f"{base}3{person.user}", person, f"{base}3{person.user}")] * (person.user != owner.user)
            if person.user.startswith(owner.user) and person.user != owner.user:
                rest = person.user.removeprefix(owner.user)
                # Written one after the other, user and id read the same for both.
                pairs.append((owner, f"{rest}{base}4", person, f"{base}4"))
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
    if pairs and not tried:
        raise CannotTry("no two sessions with ids that look alike could be opened")
    stage.trial.judge(Verdict.of(findings, tried, "pairs of ids that look alike, kept apart"))
