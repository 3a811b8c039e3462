"""Each history here is wrong in one way, which must be named, or right, and must pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from lab_utils.judges.delivery import Received, crossings, exactly_its_own
from lab_utils.judges.speech import Said, said_by
from lab_utils.target import Delivered
from lab_utils.values.verdict import Outcome

SAID = (
    *said_by("helper", "think", {"thoughts": ["canary<ann|a|1>", "canary<ann|a|2>"]}),
    *said_by("helper", "tool", {"name": "rows", "parameters": {}}),
    *said_by("helper", "fail", {"message": "no"}),
)


def heard(said: Sequence[Said] = SAID, first: int = 1, **more: Any) -> list[Delivered]:
    """The events exactly as they were said; a payload of a tool call may bear its number beside."""
    events = []
    for seq, one in enumerate(said, first):
        payload = json.loads(one.body)
        if one.type.startswith("tool_"):
            payload = {**payload, "call": 1, **more}
        events.append(Delivered("ann", seq, one.type, one.agent, "run-1", json.dumps(payload, ensure_ascii=False)))
    return events


def received(events: Sequence[Delivered], said: Sequence[Said] = SAID, **more: Any) -> Received:
    return Received("phone", "ann", events, said, **more)


def anomalies(*clients: Received) -> set[str]:
    verdict = exactly_its_own(clients)
    assert (verdict.outcome is Outcome.FAIL) == bool(verdict.findings)
    return {finding.anomaly for finding in verdict.findings}


def numbered(events: Sequence[Delivered]) -> list[Delivered]:
    return [replace(event, seq=seq) for seq, event in enumerate(events, 1)]


def swapped(events: list[Delivered]) -> list[Delivered]:
    return [events[1], events[0], *events[2:]]


def with_body(events: list[Delivered], place: int, body: str) -> list[Delivered]:
    return [*events[:place], replace(events[place], body=body), *events[place + 1 :]]


def with_flaw(events: list[Delivered]) -> list[Delivered]:
    return [*events[:-1], replace(events[-1], flaws=(("extra-field", "has 'trace', which no event has"),))]


WRONG: dict[str, tuple[Callable[[], list[Delivered]], str]] = {
    "one in the middle is missing, numbers and all": (lambda: heard()[:3] + heard()[4:], "lost-event"),
    "one was never numbered": (lambda: numbered(heard()[:3] + heard()[4:]), "lost-event"),
    "nothing came": (list, "lost-event"),
    "an equal event twice": (lambda: [*heard(), replace(heard()[-1])], "duplicate-event"),
    "said twice under two numbers": (lambda: numbered([*heard()[:2], *heard()[1:]]), "duplicate-event"),
    "arrived in another order": (lambda: swapped(heard()), "reordered-events"),
    "numbered in another order": (lambda: numbered(swapped(heard())), "reordered-events"),
    "two events with one number": (lambda: [replace(e, seq=max(1, e.seq - 1)) for e in heard()], "repeated-seq"),
    "a number left out": (lambda: [replace(e, seq=e.seq + (e.seq > 4)) for e in heard()], "gap-in-seq"),
    "does not begin with one": (lambda: heard(first=7), "gap-in-seq"),
    "a thought cut short": (lambda: with_body(heard(), 1, '{"thought": "canary<ann|a|"}'), "altered-payload"),
    "a thought with something added": (
        lambda: with_body(heard(), 1, '{"thought": "canary<ann|a|1>", "more": 1}'),
        "extra-field",
    ),
    "a start with something added": (lambda: with_body(heard(), 0, '{"host": 1, "request": "think"}'), "extra-field"),
    "an end with something in it": (lambda: with_body(heard(), 3, '{"output": null}'), "extra-field"),
    "a tool call with something added": (lambda: heard(more=1), "extra-field"),
    "a start that is numbered like a tool call": (
        lambda: with_body(heard(), 0, '{"request": "think", "call": 1}'),
        "extra-field",
    ),
    "a start without its request": (lambda: with_body(heard(), 0, "{}"), "altered-payload"),
    "a start with another request and something added": (
        lambda: with_body(heard(), 0, '{"request": "tool", "host": 1}'),
        "altered-payload",
    ),
    "a payload that is no object": (lambda: with_body(heard(), 3, "[]"), "altered-payload"),
    "a name twice": (lambda: with_body(heard(), 0, '{"request": "x", "request": "think"}'), "repeated-name"),
    "a name twice within": (
        lambda: with_body(heard(), 0, '{"request": "think", "more": [{"a": 1, "a": 1}]}'),
        "repeated-name",
    ),
    "what was wrong with the text": (lambda: with_flaw(heard()), "extra-field"),
    "a body cut off in the middle": (lambda: with_body(heard(), 1, '{"thought": "canary<ann|'), "altered-payload"),
    "another error": (lambda: with_body(heard(), 9, '{"error": "RuntimeError", "message": "yes"}'), "altered-payload"),
    "the event of another user": (lambda: [*heard(), replace(heard()[0], user="bob", seq=11)], "foreign-event"),
    "another user's thought under this user's name": (
        lambda: with_body(heard(), 1, '{"thought": "canary<bob|a|1>"}'),
        "foreign-event",
    ),
    "another user's thought as a key": (lambda: with_body(heard(), 1, '{"canary<bob|a|1>": 0}'), "foreign-event"),
    "a thought that nobody had": (
        lambda: [*heard(), Delivered("ann", 11, "agent_thinking", "helper", "r", '{"thought": "boo"}')],
        "unexpected-event",
    ),
    "an end that names another agent": (
        lambda: [replace(event, agent="scribe") if place == 3 else event for place, event in enumerate(heard())],
        "wrong-agent",
    ),
    "an agent that does not exist": (lambda: [*heard(), replace(heard()[0], agent="x", seq=11)], "unexpected-event"),
}


@pytest.mark.parametrize(("events", "anomaly"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(events: Callable[[], list[Delivered]], anomaly: str) -> None:
    assert anomaly in anomalies(received(events()))


def test_what_is_right_passes() -> None:
    verdict = exactly_its_own([received(heard()), received(heard(), first_seq=None)])
    assert verdict.outcome is Outcome.PASS
    assert verdict.reason.startswith("20 events")


def test_what_the_client_counted_is_judged_where_nothing_else_was_found() -> None:
    (finding,) = exactly_its_own([received(heard()), received(heard(), gaps=2)]).findings
    assert (finding.anomaly, "counted 2 gaps" in finding.sentence) == ("gap-in-seq", True)
    assert anomalies(received(heard()[:-1], gaps=1)) == {"lost-event"}
    assert anomalies(received([], (), gaps=1)) == {"gap-in-seq"}


def test_of_several_altered_events_the_one_with_more_in_it_is_found() -> None:
    said = said_by("helper", "think", {"thoughts": []}) + said_by("helper", "add", {})
    turned = heard(said_by("helper", "add", {}) + said_by("helper", "think", {"thoughts": []}))
    hosts = [replace(e, body=e.body[:-1] + ', "host": 1}') if e.type == "agent_started" else e for e in turned]
    assert anomalies(received(hosts, said)) == {"extra-field"}


def test_findings_come_client_by_client() -> None:
    wrong = with_flaw(heard()[:-1])
    found = exactly_its_own([received(wrong), received(heard()), received(wrong)]).findings
    assert [finding.anomaly for finding in found] == ["extra-field", "lost-event"] * 2


def test_agents_of_one_user_may_take_turns_in_any_way() -> None:
    other = said_by("scribe", "think", {"thoughts": ["canary<ann|b|1>"]})
    mixed = numbered([*heard()[:1], *heard(other)[:2], *heard()[1:], *heard(other)[2:]])
    assert anomalies(received(mixed, (*SAID, *other))) == set()


def test_a_later_client_receives_from_its_connection_on() -> None:
    assert anomalies(received(heard()[4:], SAID[4:], first_seq=5)) == set()
    assert anomalies(received(numbered(heard()[4:]), SAID[4:], first_seq=5)) == {"gap-in-seq"}
    assert anomalies(received(heard(), SAID[4:], first_seq=5)) >= {"unexpected-event"}


def test_a_client_that_was_cut_off_has_a_beginning_without_a_gap() -> None:
    assert anomalies(received(heard()[:3], cut_off=True), received(heard())) == set()
    assert anomalies(received([], cut_off=True), received(heard())) == set()
    for gap in (heard()[:2] + heard()[3:5], numbered(heard()[:2] + heard()[3:5]), heard()[1:4]):
        assert anomalies(received(gap, cut_off=True)) == {"lost-event"}
    assert anomalies(received([*heard()[:3], heard()[2]], cut_off=True)) == {"duplicate-event"}
    assert anomalies(received(heard()[:3])) == {"lost-event"}


def test_each_finding_shows_what_was_received() -> None:
    (finding,) = exactly_its_own([received(with_body(heard(), 1, '{"thought": "x"}'))]).findings
    assert finding.witness == (
        'emitted  helper: agent_thinking {"thought": "canary<ann|a|1>"}',
        'received helper: agent_thinking {"thought": "x"}',
    )


def test_crossings_count_by_who_caused_an_event() -> None:
    events = [
        Delivered("ann", 1, "agent_thinking", "helper", "r", '{"thought": "canary<bob|a|1>"}'),
        Delivered("ann", 2, "agent_started", "private-2", "r", "{}"),
        Delivered("ann", 3, "agent_started", "helper", "r", "{}"),
    ]
    counts = crossings([Received("phone", "ann", events, ())], {"private-2": "cid"})
    assert counts == {("bob", "ann"): 1, ("cid", "ann"): 1, ("ann", "ann"): 1}
