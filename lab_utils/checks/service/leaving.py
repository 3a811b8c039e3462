"""The bodies of service_abandoned_requests, service_session_end and service_stream_isolation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Iterator

from lab_utils.checks.service.stage import CannotTry, Person, Stage, needing, nothing_to_ask, overlapped
from lab_utils.judges.services import Listened, events_own, only_own
from lab_utils.service.answers import Answer
from lab_utils.service.door import Session, Stream
from lab_utils.values.canaries import mark
from lab_utils.values.quantities import counted
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["abandoned", "ended", "streams"]

_LEFT = ("run", "write", "read")
_MOST_CHUNKS = 5
_AT_ONCE = 4
_AMOUNT = 4_391
_LOOKS, _BETWEEN_S = 5, 0.2
"""Looks for late work, and seconds before each."""
_VALUES = 4
"""In an abandoned request, so that half of it has a whole one."""
_BEFORE_ANY = 30
"""Dropped before any of the answer, at once."""
_WAVES = 4
"""A resource that each request takes for good, a pool of 100 slots, is used up by so many times `_BEFORE_ANY`."""
_WAVES_S = 20.0
_STREAMS = 60
_BROKEN = 500


@needing(unless=nothing_to_ask, uses=("run", "write", "read"))
async def abandoned(stage: Stage) -> None:
    """A drops requests at every chunk of the answer; then others ask, and A again."""
    people = stage.people()
    if len(people) < 2:
        raise CannotTry("identity.accounts names one user; two are needed")
    sessions = {person.user: await person.open() for person in people}
    asked = 0
    for word in _LEFT:
        if stage.target.service.may(word):
            count, findings = await _abandoning(stage, people, sessions, word)
            asked += count
            if findings:
                # An answer that is out of step, or late, stays so: more of the same would be the same cause.
                stage.trial.judge(Verdict.of(findings, 0, ""))
                break
    stage.trial.judge(only_own(stage.seen, [person.user for person in people]))
    stage.trial.measure("requests after others were abandoned", asked, "requests")


async def _abandoning(
    stage: Stage, people: list[Person], sessions: dict[str, Session], word: str
) -> tuple[int, list[Finding]]:
    """How many asked after requests of one word were abandoned, or were no JSON, and the first findings."""
    leaver, *others = people
    first = next(one for one in _LEFT if stage.target.service.may(one))
    # Twice: a server may repeat a session's first message, as its title, and no later one.
    values = [others[0].new() for _ in range(2)]
    controls = [await others[0].ask(word, sessions[others[0].user], value=value) for value in values]
    if not controls[0].is_done:
        raise CannotTry(f"{word} does not work before anything was abandoned: {controls[0]}")
    echoes = word != "read" and all(answer.holds(value) for answer, value in zip(controls, values, strict=True))
    asked = 0

    async def meanwhile() -> None:
        # Another user's whole request is answered while half of one is there; so that half was read.
        await others[0].ask(word, sessions[others[0].user], value=others[0].new())

    def dropped(after: int) -> Iterator[Awaitable[bool]]:
        for _ in range(_BEFORE_ANY if after == 0 else _AT_ONCE):
            values = {"value": " ".join(leaver.new() for _ in range(_VALUES))}
            session = sessions[leaver.user]
            yield leaver.door.abandon(word, session, values, after, meanwhile if after < 0 else None)

    if findings := await _beside_one_dropped(stage, leaver, others[0], word, sessions):
        return 1, findings
    # A place that each of them takes for good is used up by many: they come in waves, as a right server works them off.
    ends_at = time.monotonic() + _WAVES_S
    for wave in range(_WAVES if word == first or word == "write" else 0):
        if time.monotonic() > ends_at:
            stage.trial.leave_out(f"more than {wave * _BEFORE_ANY} abandoned requests of {word!r}, for want of time")
            break
        if word == first:
            await overlapped(stage.trial, dropped(0))
        else:
            await overlapped(stage.trial, (leaver.garble(word, sessions[leaver.user]) for _ in range(_BEFORE_ANY)))
        times = (wave + 1) * _BEFORE_ANY
        when = f"{word}, {times} times " + ("dropped" if word == first else "with a body that is no JSON")
        stage.trial.progress(when, 0.5)
        findings = await _asks(stage, others[0], word, sessions[others[0].user], echoes, when)
        asked += 1
        if findings:
            return asked, findings
    for after in range(-1, _MOST_CHUNKS + 1):
        if after == 0 and word == first:
            # The waves were such.
            continue
        was_long = await overlapped(stage.trial, dropped(after))
        when = f"{word}, dropped after " + ("half of its body" if after < 0 else f"{after} chunks of the answer")
        stage.trial.progress(when, 0.5)
        for person in (*others, leaver):
            asked += 1
            findings = await _asks(stage, person, word, sessions[person.user], echoes, when)
            if findings:
                return asked, findings
        if not any(was_long):
            break
    return asked, []


async def _beside_one_dropped(
    stage: Stage, leaver: Person, other: Person, word: str, sessions: dict[str, Session]
) -> list[Finding]:
    """A user's request is under way when another user's, which came before it, is dropped: it is answered."""
    is_sent = asyncio.Event()
    mine = sessions[other.user]

    async def until_both_are_there() -> None:
        is_sent.set()
        # Two requests more, one after another: by then the one beside has begun.
        for _ in range(2):
            await other.ask("read" if stage.target.service.may("read") else word, mine, value=other.new())

    async def drops() -> None:
        try:
            await leaver.door.abandon(word, sessions[leaver.user], {"value": leaver.new()}, 0, until_both_are_there)
        finally:
            is_sent.set()

    async def asks() -> Answer:
        await is_sent.wait()
        return await other.ask(word, mine, value=other.new())

    answer: Answer = (await overlapped(stage.trial, [asks(), drops()]))[0]
    if not _is_broken(answer):
        return []
    # As much at once, and nobody leaves: a server that fails then, or is slow, does so for another reason.
    whole = [person.ask(word, sessions[person.user], value=person.new()) for person in (other, leaver)]
    if not (await overlapped(stage.trial, whole))[0].is_done:
        return []
    sentence = (
        f"a request of {other.user!r} failed when one of {leaver.user!r}, under way at the same time, was dropped"
    )
    return [Finding("cancelled-others", sentence, (word, str(answer)))]


async def _asks(stage: Stage, person: Person, word: str, session: Session, echoes: bool, after: str) -> list[Finding]:
    """The findings of one request after others were abandoned."""
    value = person.new()
    # Abandoned requests may rightly run on for a while, and a server be too busy meanwhile.
    answer, is_answered = await stage.patiently(
        lambda: person.ask(word, session, value=value), lambda answer: not _is_broken(answer)
    )
    if not is_answered:
        sentence = f"after requests were abandoned, {person.user!r} is not answered"
        return [Finding("no-answer-after-abandoned", sentence, (after, str(answer)))]
    if echoes and answer.is_done and not answer.holds(value):
        sentence = f"after requests were abandoned, {person.user!r} is given another answer than their own"
        return [Finding("wrong-answer-after-abandoned", sentence, (after, f"asked with {value}", str(answer)))]
    return []


def _is_broken(answer: Answer) -> bool:
    return answer.status == 0 or answer.status >= _BROKEN


@needing("write", "read", "end", uses=("list", "run"))
async def ended(stage: Stage) -> None:
    """Sessions end and are opened again under the same id, by their user and by another; then the server restarts."""
    trial, service = stage.trial, stage.target.service
    promises = service.promises
    owner, other = stage.pair()
    kept, kept_value = await owner.opened_with_value()
    if service.may("list"):
        await owner.ask("list", kept)
    neighbour, neighbour_value = await other.opened_with_value()
    session, value = await owner.opened_with_value()
    await _all_listed(stage, owner, [kept, session])
    beside = [(owner, kept, kept_value), (other, neighbour, neighbour_value)]
    if promises.session_ids == "client" and promises.identity != "none":
        beside += await _twins(owner, other, session)
        answer = await owner.ask("read", session)
        sentence = f"the end of one session took another one, of {owner.user!r}, with it"
        trial.require(answer.holds(value), "ended-with-another", sentence, f"session {session.id}", str(answer))
    # A session with a history: an end that is put off until later, or erases the last value alone, leaves some of it.
    for _ in range(int(trial.parameters["requests_per_user"])):
        await owner.write(session)
    counts = service.may("add", "total") and (await owner.ask("add", session, amount=_AMOUNT)).is_done
    answer = await owner.ask("end", session)
    if not answer.is_done:
        raise CannotTry(f"the owner cannot end their session: {answer}")
    erases = promises.end_erases and promises.retention_s == 0
    # The list first: a request to the address of a session may make a new one.
    if service.may("list"):
        listed = await owner.ask("list", session)
        if stage.listed(listed, [session.id], [(listed, [kept.id])]):
            _must_not_hold(stage, erases, listed, session.id, "kept-after-end", "an ended session is still listed")
    after = await owner.ask("read", session)
    _must_not_hold(
        stage, erases, after, value, "kept-after-end", f"a session of {owner.user!r} that was ended still answers"
    )
    if counts:
        await _must_not_count(stage, erases, owner, session, "a session that was ended")
    for person, place, text in beside:
        answer = await person.ask("read", place)
        sentence = f"the end of one session took another one, of {person.user!r}, with it"
        trial.require(answer.holds(text), "ended-with-another", sentence, f"session {place.id}", str(answer))
    # Under the same id where clients choose them; a server may give it again.
    for person, anomaly in ((other, "inherited-data"), (owner, "kept-after-end")):
        again, _ = await person.try_to_open(session.id)
        if again is None:
            continue
        answer = await person.ask("read", again)
        sentence = f"{person.user!r} opens a session after the end of another one, and it holds the old values"
        _must_not_hold(stage, erases or person is other, answer, value, anomaly, sentence)
        if counts:
            of = "a session opened after the end of another one"
            await _must_not_count(stage, erases, person, again, of)
            # A sum that is kept elsewhere comes back with the next addition.
            if (await person.ask("add", again, amount=1)).is_done:
                await _must_not_count(stage, erases, person, again, of, _AMOUNT + 1)
    await _ended_meanwhile(stage, owner, makes_anew=await _asked_again(stage, owner))
    await _late_work(stage, owner)
    if service.command:
        await _restarted(stage, owner, other, kept, kept_value)
    else:
        trial.leave_out("restarts: the lab did not start the server")


async def _asked_again(stage: Stage, owner: Person) -> bool:
    """A run in an ended session, or a write to it, brings nothing of it back. Return whether a write makes a new
    one."""
    service = stage.target.service
    gone, value = await owner.opened_with_value()
    await owner.ask("end", gone)
    makes_anew = False
    for word in ("run", "write", "read"):
        if service.may(word):
            answer = await owner.ask(word, gone, value=owner.new())
            makes_anew = makes_anew or (word == "write" and answer.is_done)
            sentence = f"a session of {owner.user!r} that was ended is back after a request to it"
            erases = service.promises.end_erases and service.promises.retention_s == 0
            _must_not_hold(stage, erases, answer, value, "kept-after-end", f"{sentence} ({word})")
    return makes_anew


async def _ended_meanwhile(stage: Stage, owner: Person, *, makes_anew: bool) -> None:
    """A session ends while a write to it and a run in it are under way: neither brings it back when it is done."""
    service, promises = stage.target.service, stage.target.service.promises
    gone, value = await owner.opened_with_value()
    is_ended: list[bool] = []

    async def end() -> None:
        # Two requests more, one after another: by then those before them have begun.
        for _ in range(2):
            await owner.ask("read", gone)
        is_ended.append((await owner.ask("end", gone)).is_done)

    meanwhile = {word: owner.new() for word in ("write", "run") if service.may(word)}
    asked = [owner.ask(word, gone, value=text) for word, text in meanwhile.items()]
    await overlapped(stage.trial, [*asked, end()])
    # A server may refuse to end a session that is at work.
    if all(is_ended):
        answer = await owner.ask("read", gone)
        sentence = f"a session of {owner.user!r} that ended during a write and a run is back when they are done"
        erases = promises.end_erases and promises.retention_s == 0
        # Where a write to its address makes a new session, the one under way may have come after the end.
        texts = [value, *(() if makes_anew else meanwhile.values())]
        back = next((text for text in texts if answer.holds(text)), value)
        _must_not_hold(stage, erases, answer, back, "kept-after-end", sentence)


async def _late_work(stage: Stage, owner: Person) -> None:
    """A session ends while work of a run and of a write may go on behind their answers; the next session with its id
    holds what is written to it, and nothing of the one before, also a while later."""
    service, promises = stage.target.service, stage.target.service.promises
    if promises.session_ids != "client" or not promises.end_erases or promises.retention_s > 0:
        return
    session, value = await owner.opened_with_value()
    old = [value, owner.new()]
    if service.may("run"):
        await owner.ask("run", session, value=old[1])
    await owner.ask("end", session)
    again, _ = await owner.try_to_open(session.id)
    if again is None:
        stage.trial.leave_out("late work of ended sessions: their ids are not given again")
        return
    fresh = await owner.write(again)
    answer = await owner.ask("read", again)
    for _ in range(_LOOKS):
        if not answer.holds(fresh) or any(answer.holds(text) for text in old):
            break
        await asyncio.sleep(_BETWEEN_S)
        answer = await owner.ask("read", again)
    back = [text for text in old if answer.holds(text)]
    sentence = f"late work of an ended session of {owner.user!r} is in the next session that has its id"
    stage.trial.require(not back, "kept-after-end", sentence, *back, str(answer))
    sentence = f"a new session of {owner.user!r} lost a value after the end of an earlier one that had its id"
    stage.trial.require(answer.holds(fresh), "lost-write", sentence, f"missing {fresh}", str(answer))


async def _all_listed(stage: Stage, owner: Person, sessions: list[Session]) -> None:
    """The list of a user names each of their sessions. One that names none may name them in another way."""
    if not stage.target.service.may("list"):
        return
    ids = [session.id for session in sessions]

    def missing(answer: Answer) -> list[str]:
        found = stage.listed(answer, ids, [(answer, ids[:1])])
        return [id for id in ids if found and id not in found]

    answer, is_whole = await stage.patiently(lambda: owner.ask("list", sessions[0]), lambda answer: not missing(answer))
    sentence = f"the list of {owner.user!r} lacks a session of theirs"
    stage.trial.require(is_whole, "session-lost", sentence, f"missing {', '.join(missing(answer))}: {answer}")


async def _twins(owner: Person, other: Person, session: Session) -> list[tuple[Person, Session, str]]:
    """Sessions that an end would end, too, if it matched a pattern, or an id without its user: one whose id begins with
    that of `session`, and another user's whose namesake the owner ends here."""
    found = []
    namesake, _ = await owner.try_to_open()
    for person, id in ((owner, f"{session.id}1"), (other, namesake.id if namesake else "")):
        twin, _ = await person.try_to_open(id)
        if twin is not None:
            found.append((person, twin, await person.write(twin)))
    if namesake is not None:
        await owner.ask("end", namesake)
    return found


async def _must_not_count(
    stage: Stage, promised: bool, person: Person, session: Session, place: str, amount: int = _AMOUNT
) -> None:
    answer = await person.ask("total", session)
    sentence = f"{place} still has its total for {person.user!r}"
    held = answer if answer.value == amount else Answer(answer.status)
    _must_not_hold(stage, promised, held, str(amount), "kept-after-end", sentence)


def _must_not_hold(stage: Stage, promised: bool, answer: Answer, text: str, anomaly: str, sentence: str) -> None:
    if promised:
        stage.trial.require(not answer.holds(text), anomaly, sentence, f"{text} in {answer}")
    elif answer.holds(text):
        stage.trial.note(f"Left to the server's promises: {sentence}.")


async def _restarted(stage: Stage, owner: Person, other: Person, session: Session, value: str) -> None:
    """After a restart: who owns the kept data, has anything ended come back, and is an old id the key to somebody's new
    session?"""
    trial, service = stage.trial, stage.target.service
    promises = service.promises
    gone, gone_value = await owner.opened_with_value()
    await owner.ask("end", gone)
    alike = []
    for person in (owner, other):
        place = await person.open_alike("lab-restarted")
        alike.append((place, await person.write(place)))
    counts = service.may("add", "total") and (await owner.ask("add", session, amount=_AMOUNT)).is_done
    total = (await owner.ask("total", session)).value if counts else None
    await stage.target.restart()
    owner, other = stage.person(owner.user), stage.person(other.user)
    if promises.survives_restart:
        answer = await owner.ask("read", session)
        sentence = f"data of {owner.user!r} did not survive a restart"
        trial.require(answer.holds(value), "lost-at-restart", sentence, str(answer))
        if counts:
            answer = await owner.ask("total", session)
            sentence = f"a total of {owner.user!r} did not survive a restart"
            trial.require(answer.value == total, "lost-at-restart", sentence, f"it was {total}: {answer}")
    if "read" in service.only_owner:
        answer = await other.ask("read", Session(other.user, dict(session.values)))
        sentence = f"after a restart {other.user!r} reads a session of {owner.user!r}"
        trial.require(not answer.holds(value), "read-by-another", sentence, f"id {session.id}: {answer}")
    answer = await owner.ask("read", gone)
    erases = promises.end_erases and promises.retention_s == 0
    sentence = f"a session that {owner.user!r} had ended is back after a restart"
    _must_not_hold(stage, erases, answer, gone_value, "kept-after-end", sentence)
    before = len(stage.seen)
    for person, (place, text) in zip((owner, other), alike, strict=True):
        answer = await person.ask("read", place)
        sentence = f"data of {person.user!r} did not survive a restart"
        if promises.survives_restart:
            trial.require(answer.holds(text), "lost-at-restart", sentence, f"session {place.id}: {answer}")
    fresh = [await other.opened_with_value() for _ in range(3)]
    trial.judge(only_own(stage.seen[before:], [owner.user, other.user]))
    answer = await owner.ask("read", session)
    adopted = [text for _, text in fresh if answer.holds(text)]
    sentence = f"after a restart the old session id of {owner.user!r} opens a new session of {other.user!r}"
    trial.require(not adopted, "session-adopted", sentence, f"id {session.id}: {answer}")


@needing("write", "stream")
async def streams(stage: Stage) -> None:
    """Users listen while all of them write; one stream each is dropped, and comes back."""
    trial, service = stage.trial, stage.target.service
    people = stage.people()
    each = int(trial.parameters["requests_per_user"])
    own_only = service.promises.own_events
    sessions = {person.user: await person.open_alike() for person in people}
    # More sessions of the same users, to which nobody listens.
    others = {person.user: (await person.try_to_open())[0] for person in people}
    beside: list[str] = []
    first = {person.user: person.listen(sessions[person.user]) for person in people}
    for person in people:
        answer = await first[person.user].opened()
        if not answer.is_done:
            raise CannotTry(f"{person.user!r} cannot listen to their own session: {answer}")
    written: dict[str, list[str]] = {person.user: [] for person in people}

    async def write(person: Person) -> None:
        other = others[person.user]
        for _ in range(each):
            if other is not None and other.id != sessions[person.user].id:
                beside.append(await person.write(other))
            written[person.user].append(await person.write(sessions[person.user]))

    await overlapped(trial, map(write, people))
    brings = await _until_brought(stage, people, first, written)
    if not brings:
        raise CannotTry("no stream brought a value that its own user wrote")
    listened = [_of(person, first[person.user], written, is_whole=True) for person in people]
    trial.judge(events_own(listened, [person.user for person in people], own_only))
    for person in people if own_only else ():
        strays = [event.data for event in first[person.user].events if any(value in event.data for value in beside)]
        sentence = f"the stream of a session of {person.user!r} brought what was written to another session"
        trial.require(not strays, "cross-session-data", sentence, *strays[:3])
    if service.may("end") and len(people) > 1:
        await _beside_an_end(stage, people, sessions, first)
    await _back_too_early(stage, people[0])
    await _many_dropped(stage, people[0], people[-1])
    if not service.promises.resumes:
        trial.leave_out("streams that resume: the server does not promise it")
        return
    last = {person.user: first[person.user].events[-1].id for person in people if first[person.user].events}
    for stream in first.values():
        await stream.close()
    seen = {user: list(values) for user, values in written.items()}
    await overlapped(trial, map(write, people))
    second = {person.user: person.listen(sessions[person.user], last.get(person.user, "")) for person in people}
    for stream in second.values():
        await stream.opened()
    await overlapped(trial, map(write, people))
    missed = {user: [value for value in values if value not in seen[user]] for user, values in written.items()}
    await _until_brought(stage, people, second, missed)
    again = [_of(person, second[person.user], missed, is_whole=True) for person in people]
    trial.judge(events_own(again, [person.user for person in people], own_only))
    for person in people if own_only else ():
        known = {event.data for event in first[person.user].events if f"lab{mark(person.user)}x" in event.data}
        repeated = [event.data for event in second[person.user].events if event.data in known]
        sentence = f"a stream of {person.user!r} that resumed brought {counted(len(repeated), 'event')} once more"
        trial.require(not (repeated and last.get(person.user)), "doubled-event", sentence, *repeated[:3])
    promises = service.promises
    if service.may("end") and promises.session_ids == "client" and promises.end_erases and promises.retention_s == 0:
        person, came = people[0], first[people[0].user].events
        first_id, before = came[0].id if came else "", second[person.user]
        await _opened_again(stage, person, sessions[person.user], first_id, written[person.user], before)
    # Last: a restart forgets what a fault of the requests before it has kept in memory.
    if service.command and promises.survives_restart and len(people) > 1:
        person = people[-1]
        await _resumed_after_restart(stage, person, sessions[person.user], second[person.user])


async def _resumed_after_restart(stage: Stage, person: Person, session: Session, before: Stream) -> None:
    """The server restarts; a stream that resumes after the last event from before it brings what is written since."""
    last = before.events[-1].id if before.events else ""
    if not last:
        stage.trial.leave_out("streams that resume after a restart: their events have no ids")
        return
    await before.close()
    await stage.target.restart()
    again = stage.person(person.user, name=f"{person.user} after a restart")
    missed = await again.write(session)
    stream = again.listen(session, last)
    await stream.opened()
    lost = [value for value in (missed, await again.write(session)) if not await stage.brings(stream, value)]
    sentence = f"after a restart a stream of {person.user!r} that resumed never brought an event"
    stage.trial.require(not lost, "lost-event", sentence, f"after {last}: never brought {', '.join(lost)}")


async def _opened_again(
    stage: Stage, person: Person, session: Session, first_id: str, old: list[str], before: Stream
) -> None:
    """A session ends, and a new one with its id resumes after the first event of the ended one: it receives nothing of
    that one, and the stream from `before` nothing of the new one."""
    await person.ask("end", session)
    again, _ = await person.try_to_open(session.id)
    if again is None:
        return
    stream = person.listen(again, first_id)
    await stream.opened()
    value = await person.write(again)
    # In order: what a log replays comes before the new value.
    await stage.brings(stream, value)
    kept = [event.data for event in stream.events if any(one in event.data for one in old)]
    sentence = f"the stream of a new session of {person.user!r} brought events of an ended one that had its id"
    stage.trial.require(not kept, "kept-after-end", sentence, *kept[:3])
    late = [event.data for event in before.events if value in event.data]
    sentence = f"a stream of {person.user!r} outlived its session, and brought an event of the next one with its id"
    stage.trial.require(not late, "kept-after-end", sentence, *late)


async def _back_too_early(stage: Stage, person: Person) -> None:
    """A client comes back before the server knows that it had gone: the old stream's end is not that of the new one."""
    session = await person.open()
    old = person.listen(session)
    await old.opened()
    new = person.listen(session)
    if not (await new.opened()).is_done:
        # A server may allow one stream for a session.
        return
    value = await person.write(session)
    if await stage.brings(new, value):
        # A server may end the stream that was there.
        is_whole = await stage.brings(old, value) or not old.is_open
        sentence = f"of two streams of one session of {person.user!r}, both open, one never brought an event"
        stage.trial.require(is_whole, "lost-event", sentence, f"never brought {value}")
    await old.close()
    lost: list[str] = []
    # One after another: the server learns of the end while it works on one of them. Until then it may send to the old.
    for _ in range(_VALUES):
        value = person.new()
        answer = await person.ask("write", session, value=value)
        sentence = f"after a stream was dropped, {person.user!r} cannot write to its session"
        stage.trial.require(answer.is_done, "no-answer-after-abandoned", sentence, str(answer))
        if not answer.is_done:
            return
        lost = [] if await stage.brings(new, value) else [*lost, value]
        if len(lost) > 1:
            break
    sentence = f"the end of a stream that {person.user!r} had dropped ended the one that came after it"
    stage.trial.require(len(lost) < 2, "lost-event", sentence, f"never brought {', '.join(lost)}")


async def _many_dropped(stage: Stage, leaver: Person, other: Person) -> None:
    """A user drops as many streams as a server may allow at once: another user can listen."""
    session = await leaver.open()
    streams = [leaver.listen(session) for _ in range(_STREAMS)]
    await overlapped(stage.trial, (stream.opened() for stream in streams))
    await overlapped(stage.trial, (stream.close() for stream in streams))
    mine = await other.open()

    async def listens() -> Answer:
        stream = other.listen(mine)
        answer = await stream.opened()
        value = await other.write(mine)
        if answer.is_done and not await stage.brings(stream, value):
            answer = Answer(0, error=f"it never brought {value}")
        await stream.close()
        return answer

    answer, is_done = await stage.patiently(listens, lambda answer: answer.is_done)
    sentence = f"after {leaver.user!r} dropped {_STREAMS} streams, {other.user!r} cannot listen"
    stage.trial.require(is_done, "capacity-lost", sentence, str(answer))


async def _beside_an_end(
    stage: Stage, people: list[Person], sessions: dict[str, Session], streams: dict[str, Stream]
) -> None:
    """A user ends a session while others listen to theirs: their streams go on."""
    gone = await people[0].open()
    await people[0].ask("end", gone)
    last = {person.user: [await person.write(sessions[person.user])] for person in people}
    await _until_brought(stage, people, streams, last)
    for person in people:
        [value] = last[person.user]
        brought = any(value in event.data for event in streams[person.user].events)
        sentence = f"the end of another session ended the stream of {person.user!r}"
        stage.trial.require(brought, "lost-event", sentence, f"never brought {value}")


async def _until_brought(
    stage: Stage, people: list[Person], streams: dict[str, Stream], written: dict[str, list[str]]
) -> bool:
    """Wait until each stream has brought the last value of its user; whether any did."""

    def brought(user: str) -> bool:
        # The stream is one client; a value is in it once, whatever stands around it.
        last = written[user][-1]
        return any(last in event.data for event in reversed(streams[user].events)) or not streams[user].is_open

    await stage.trial.waiting.until(lambda: all(brought(person.user) for person in people))
    return any(written[user][-1] in event.data for user, stream in streams.items() for event in stream.events)


def _of(person: Person, stream: Stream, written: dict[str, list[str]], *, is_whole: bool) -> Listened:
    received = tuple(event.data for event in stream.events)
    return Listened(person.user, tuple(written[person.user]), received, is_whole)
