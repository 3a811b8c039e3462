"""Judges admissions: the token that was accepted, the user in whose name, and the owner of the events received."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lab_utils.judges.delivery import Arrived, writers_in
from lab_utils.values.quantities import counted
from lab_utils.values.verdict import Finding, Verdict

__all__ = ["Attempt", "let_in_by_token"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to connect: `what` was presented, and the outcome.

    `user`: whose token it was, "" for an invalid one. `victim`: the user whom it names or wants to hear. `refusal`: the
    close code with which it must be refused; None if it may be let in as its own user or be refused, as long as it
    hears nobody else. `anomaly`: its name when events of another user come. `greeted`: whether it was let in.
    `with_victims_stream`: the greeting named the stream that the victim receives. `answered`: the head of the server's
    answer to the handshake; `tokens`: those presented in it.
    """

    what: str
    user: str
    victim: str
    refusal: int | None
    anomaly: str
    greeted: bool
    code: int | None
    events: Sequence[Arrived]
    with_victims_stream: bool = False
    answered: str = ""
    tokens: tuple[str, ...] = ()

    def __str__(self) -> str:
        whose = f"with a token of {self.user!r}" if self.user else "without a good token"
        end = "is open" if self.code is None else f"was closed with {self.code}"
        return (
            f"{self.what}, {whose}, meant for {self.victim!r}: {'greeted' if self.greeted else 'not greeted'}, "
            f"{end}, {len(self.events)} events"
        )


def let_in_by_token(attempts: Iterable[Attempt]) -> Verdict:
    """Judge that a client hears the user of its token and nobody else, and that a bad token is refused before any
    event.

    | anomaly             | meaning                                                                   |
    |---------------------|---------------------------------------------------------------------------|
    | the attempt's own   | events of another user came                                               |
    | wrong-stream        | it was greeted with the stream of another user                            |
    | bad-token-accepted  | it was greeted, or given an event, where it had to be refused             |
    | wrong-refusal       | it was refused with another close code than the one for its cause         |
    | token-echoed        | the answer to the handshake, which logs on the way keep, repeats a token  |
    """
    every = list(attempts)
    findings = [finding for attempt in every for finding in _judge(attempt)]
    return Verdict.of(findings, len(every), "attempts to hear another user or to come without a good token")


def _judge(attempt: Attempt) -> Iterator[Finding]:
    for line in attempt.answered.splitlines():
        if token := next((token for token in attempt.tokens if token in line), ""):
            sentence = f"the answer to {attempt.what} contains its token, which any proxy on the way may log"
            # Cut, because a report is passed on as well.
            yield Finding("token-echoed", sentence, (str(attempt), line.replace(token, f"{token[:6]}...")))
    foreign = [
        event for event in attempt.events if event.user != attempt.user or writers_in(event.body) - {attempt.user}
    ]
    if attempt.refusal is not None and (attempt.greeted or attempt.events):
        sentence = f"{attempt.what} was let in, where close code {attempt.refusal} was due"
        yield Finding("bad-token-accepted", sentence, (str(attempt), *map(str, attempt.events[:1])))
    elif foreign:
        sentence = f"{attempt.what} received {counted(len(foreign), 'event')} of {foreign[0].user!r}"
        yield Finding(attempt.anomaly, sentence, (str(attempt), str(foreign[0])))
    elif attempt.with_victims_stream:
        sentence = f"{attempt.what} was greeted with the stream of {attempt.victim!r}"
        yield Finding("wrong-stream", sentence, (str(attempt),))
    elif attempt.refusal is not None and attempt.code != attempt.refusal:
        sentence = f"{attempt.what} was refused with {attempt.code}, not with {attempt.refusal}"
        yield Finding("wrong-refusal", sentence, (str(attempt),))
